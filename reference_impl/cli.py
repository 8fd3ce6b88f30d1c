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
    CommandError,
    DataError,
    EvaluationError,
    ModConfigError,
    RoutingError,
    TextError,
    TrainingError,
    UnsupportedModelError,
)
from reference_impl.visible_text import visible_line

USER_ERRORS = (
    CommandError,
    DataError,
    EvaluationError,
    ModConfigError,
    RoutingError,
    TextError,
    TrainingError,
    UnsupportedModelError,
)

Device = Annotated[str, typer.Option(help="auto (the first GPU, else the CPU), cpu, cuda or cuda:N.")]
Dtype = Annotated[str, typer.Option(help="Of the weights: auto (as stored), float32, bfloat16 or float16.")]
RoutedLayers = Annotated[
    str | None,
    typer.Option(
        metavar="interleaved|LIST|SHARE",
        help="Every other layer, indices such as 1,3,5, or a share such as 0.5.",
        show_default="interleaved",
    ),
]

app = typer.Typer(
    name="python -m reference_impl",
    help="Mixture-of-Depths models by MoDification: make, train, measure and use them, and look at what they do.",
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
def convert(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a dense model, weights as safetensors.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    operator: Annotated[
        str | None, typer.Option(help="threshold or topk; for controls, masked or kv_only.", show_default="threshold")
    ] = None,
    threshold_p: Annotated[
        float | None, typer.Option(help="Gate value from which a token is kept.", show_default="0.5")
    ] = None,
    capacity: Annotated[
        float | None, typer.Option(help="Share of the tokens that topk keeps.", show_default="0.125")
    ] = None,
    routed_layers: RoutedLayers = None,
    router_bias: Annotated[
        float | None, typer.Option(help="Router logit of an average token at the start.", show_default="2.0")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="What training adds to the loss, such as keep_budget or none.", show_default="load_reducing"),
    ] = None,
    skipped_gradient: Annotated[
        str | None,
        typer.Option(help="What skipped tokens teach their routers: none or straight_through.", show_default="none"),
    ] = None,
    dtype: Dtype = "auto",
    seed: Annotated[int, typer.Option(help="Of the routers' random start.")] = 0,
    keep_ratio: Annotated[
        float | None, typer.Option(help="Calibrate the untrained routers to keep this share of the tokens of --text.")
    ] = None,
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="The text to calibrate on.")] = None,
    remove_layers: Annotated[
        bool,
        typer.Option("--remove-layers", help="Take these layers out instead of routing them: a smaller dense model."),
    ] = False,
) -> None:
    """Make a Mixture-of-Depths model of a dense one."""
    from reference_impl.convert_command import ConvertOptions, convert_command, parse_routed_layers

    settings = {
        "operator": operator,
        "threshold_p": threshold_p,
        "capacity": capacity,
        "routed_layers": None if routed_layers is None else parse_routed_layers(routed_layers),
        "router_bias": router_bias,
        "objective": objective,
        "skipped_gradient": skipped_gradient,
    }
    options = ConvertOptions(
        model=model,
        out=out,
        settings={name: value for name, value in settings.items() if value is not None},
        dtype=dtype,
        seed=seed,
        keep_ratio=keep_ratio,
        text=text,
        remove_layers=remove_layers,
    )
    convert_command(options, Console())


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


@app.command()
def generate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a converted or dense model.")],
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What to continue.", show_default="stdin")] = None,
    prompt_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The same from a file.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="At most so many.", show_default="128, or what the positions allow")
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", help="0 takes the most likely token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(metavar="P", help="Draw from the most likely tokens of this mass.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Continue a prompt; what that cost is said on stderr."""
    from reference_impl.decoding import Sampling
    from reference_impl.generate_command import GenerateOptions, generate_command

    options = GenerateOptions(
        model=model,
        prompt=prompt,
        prompt_file=prompt_file,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature=temperature, top_p=top_p, seed=seed),
        device=device,
        dtype=dtype,
    )
    generate_command(options, out=sys.stdout, notes=sys.stderr, stdin=sys.stdin.buffer)


@app.command(
    name="lm-eval",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness, if it is installed, with mod among its models; all options are its own."""
    try:
        from reference_impl.lm_eval_adapter import hand_over
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise CommandError(
            f"lm-eval: needs {package}, which is not installed; install it with pip install 'modbench[lm-eval]'"
        ) from error
    hand_over(context.args)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a converted model, or of a dense one.")],
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Text that the model was not trained on, UTF-8. Repeatable."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML of training data: its held-out rows.",
            show_default="Python's library and this project",
        ),
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="At most so many rows.", show_default="64; of --text all")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens of a row and of the longest prompt.",
            show_default="of --data; else 1024, or the model's positions",
        ),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="DENSE", help="Folder of the dense model, to compare distributions.")
    ] = None,
    probes: Annotated[str, typer.Option(help="Which, separated by commas.")] = "bits_per_byte,needle,induction",
    trials: Annotated[int, typer.Option(min=1, help="Prompts per cell of needle and induction.")] = 4,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all numbers into this new file.")] = None,
    seed: Annotated[int, typer.Option(help="Of the synthetic prompts.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Measure a model's quality: bits per byte, retrieval, copying, and agreement with a teacher."""
    from reference_impl.evaluate_command import EvaluateOptions, evaluate_command

    options = EvaluateOptions(
        model=model,
        text=text or (),
        data=data,
        num_rows=rows,
        context=context,
        teacher=teacher,
        probes=probes,
        num_trials=trials,
        seed=seed,
        device=device,
        dtype=dtype,
        json=json,
    )
    evaluate_command(options, Console(), None if quiet else Console(stderr=True))


def main() -> None:
    """Run the program; what the user can mend ends as one line on stderr and exit code 2."""
    try:
        app()
    except USER_ERRORS as error:
        _fail(str(error))
    except OSError as error:
        where = error.filename or "a file"
        _fail(f"{where}: cannot be written: {error.strerror}; name a file in a folder that is there")


def _fail(text: str) -> None:
    Console(stderr=True).print(Text(visible_line(" ".join(text.split()))), soft_wrap=True)
    sys.exit(2)
