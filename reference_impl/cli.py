"""The command line of the reference implementation: parse, call one function. A command's work is in its own file.

In: arguments. Out: exit code 0, or 2 with one line on stderr for what the user can mend.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from reference_impl.errors import (
    DataError,
    ModConfigError,
    RoutingError,
    TextError,
    TrainingError,
    UnsupportedModelError,
)
from reference_impl.visible_text import visible_line

app = typer.Typer(
    name="python -m reference_impl",
    help="Mixture-of-Depths models by MoDification: train them, and look at what they do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _commands() -> None:
    """More commands than one, so that each is named."""


@app.command()
def keepmap(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a saved Mixture-of-Depths model.")],
    text: Annotated[Path, typer.Option(metavar="FILE", help="The text to look at.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="How much of it, from its beginning.")] = 512,
    layer: Annotated[
        list[int] | None, typer.Option(metavar="L", help="Show what this routed layer keeps, as a text. Repeatable.")
    ] = None,
    keep_ratio: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Calibrate the routers on this text first, to keep this share of it."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map for other programs.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the map as a page.")] = None,
    width: Annotated[int | None, typer.Option(min=40, help="Columns.", show_default="the terminal's")] = None,
) -> None:
    """Show which tokens of a text are kept at which routed layer."""
    from reference_impl.keepmap_command import KeepMapOptions, keepmap_command

    options = KeepMapOptions(
        folder=model,
        text=text,
        max_tokens=max_tokens,
        layers=layer or (),
        keep_ratio=keep_ratio,
        json=json,
        html=html,
    )
    keepmap_command(options, Console(width=width))


@app.command()
def train(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a converted model, or of a dense one.")],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new folder; the trained model will be in OUT/model.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The text, as YAML.", show_default="Python's library and this project"),
    ] = None,
    settings: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings of the training, as YAML.")] = None,
    teacher: Annotated[Path | None, typer.Option(metavar="DENSE", help="A model folder to distill from.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="load_reducing, keep_budget, topk_predictor, none, or module:factory, whose code is run.",
        ),
    ] = None,
    target_keep_ratio: Annotated[
        float | None, typer.Option(metavar="R", help="Share of the tokens that keep_budget lets routed layers keep.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the training or the objective. Repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT.")] = False,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train a converted model, or a dense one as a baseline; options go before the settings' file."""
    from reference_impl.train_command import TrainOptions, train_command

    options = TrainOptions(
        model=model,
        output=output,
        data=data,
        settings=settings,
        steps=steps,
        teacher=teacher,
        objective=objective,
        target_keep_ratio=target_keep_ratio,
        changes=changes or (),
        is_resumed=resume,
        has_tensorboard=tensorboard,
        command=tuple(sys.argv),
    )
    trained = train_command(options, None if quiet else Console(stderr=True))
    Console().print(Text(visible_line(f"model: {trained}")), soft_wrap=True)


def main() -> None:
    """Run the program; what the user can mend ends as one line on stderr and exit code 2."""
    try:
        app()
    except (DataError, ModConfigError, RoutingError, TextError, TrainingError, UnsupportedModelError) as error:
        _fail(str(error))
    except OSError as error:
        where = error.filename or "a file"
        _fail(f"{where}: cannot be written: {error.strerror}; name a file in a folder that is there")


def _fail(text: str) -> None:
    Console(stderr=True).print(Text(visible_line(" ".join(text.split()))), soft_wrap=True)
    sys.exit(2)
