"""Options that every command which compares has: as typed -> checked values. In: texts. Out: values, or an `OptionError`."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

import typer

from modbench.errors import OptionError


class Inconclusive(StrEnum):
    """What an inconclusive comparison counts as."""

    PASS = "pass"
    FAIL = "fail"


class ComparisonFormat(StrEnum):
    """How a comparison is printed."""

    CONSOLE = "console"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


ToleranceOption = Annotated[
    str, typer.Option("--tolerance", metavar="SHARE", help="What counts as the same speed, e.g. 3% or 0.03.")
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Compare only this metric. Repeatable.", show_default="all"),
]
InconclusiveOption = Annotated[
    Inconclusive | None,
    typer.Option(
        "--inconclusive", help="What counts for the exit code where nothing was shown.", show_default="exit code 3"
    ),
]


def inconclusive_of(option: Inconclusive | None) -> Literal["pass", "fail"] | None:
    """The option as `gate_exit_code` takes it."""
    if option is None:
        return None
    return "pass" if option is Inconclusive.PASS else "fail"


def parse_tolerance(text: str) -> float:
    """A share.

    Raises:
        OptionError: it is none.
    """
    from modbench.scenario.wording import show
    from modbench.units import parse_share

    try:
        return parse_share(text)
    except ValueError as error:
        raise OptionError(f"--tolerance: got {show(text)}; {error}") from None


def parse_metrics(names: Sequence[str] | None) -> list[str] | None:
    """Names of metrics that are compared; None for all.

    Raises:
        OptionError: one of them is not compared.
    """
    from modbench.analysis.compare import COMPARED_METRICS
    from modbench.scenario.wording import show, suggestion

    for name in names or ():
        if name not in COMPARED_METRICS:
            raise OptionError(f"--metric: got {show(name)}; {suggestion(name, COMPARED_METRICS)}")
    return list(names) if names else None
