"""The command line of the reference implementation: parse, call one function. A command's work is in its own file.

In: arguments. Out: exit code 0, or 2 with one line on stderr for what the user can mend.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from reference_impl.errors import ModConfigError, RoutingError, TextError, UnsupportedModelError
from reference_impl.visible_text import visible_line

app = typer.Typer(
    name="python -m reference_impl",
    help="Mixture-of-Depths models by MoDification: look at what they do.",
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


def main() -> None:
    """Run the program; what the user can mend ends as one line on stderr and exit code 2."""
    try:
        app()
    except (ModConfigError, RoutingError, TextError, UnsupportedModelError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: cannot be written: {error.strerror}; name a file in a folder that is there")


def _fail(text: str) -> None:
    Console(stderr=True).print(Text(visible_line(" ".join(text.split()))), soft_wrap=True)
    sys.exit(2)
