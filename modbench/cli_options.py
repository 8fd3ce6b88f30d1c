"""Options that several commands share: as typed -> checked values. In: texts. Out: values, or an `OptionError`."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from modbench.environments import Mode
from modbench.errors import OptionError


class Inconclusive(StrEnum):
    """What an inconclusive comparison counts as."""

    PASS = "pass"
    FAIL = "fail"


class ComparisonFormat(StrEnum):
    """How a comparison is printed."""

    CONSOLE = "console"
    HTML = "html"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"


class Format(StrEnum):
    """Where a summary goes beside the report files."""

    CONSOLE = "console"
    JSON = "json"


class ReportFormat(StrEnum):
    """What `report` prints."""

    CONSOLE = "console"
    HTML = "html"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    PYTEST_BENCHMARK = "pytest-benchmark"


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the scenario, e.g. workload.batch=4. Repeatable."
    ),
]

AllowEntryOption = Annotated[
    bool, typer.Option("--allow-entry", help="Let the scenario run code that it names: `entry:`, `command:`.")
]
TraceOption = Annotated[
    bool, typer.Option("--trace", help="Afterwards trace a launch of each method: where its time went.")
]
KeepMapOption = Annotated[
    bool,
    typer.Option("--keep-map", help="Afterwards map which tokens each routed method keeps, at its longest context."),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Measure what fits into this time, e.g. 90s, 10m or 1h30m.", show_default="none"),
]
ToleranceOption = Annotated[
    str, typer.Option("--tolerance", metavar="SHARE", help="What counts as the same speed, e.g. 3% or 0.03.")
]
MetricOption = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Compare only this metric. Repeatable.", show_default="all"),
]
JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")]
MarkdownOption = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write a pull request's comment.")
]
MethodOption = Annotated[
    list[str] | None, typer.Option("--method", metavar="LABEL", help="With --against: compare only this. Repeatable.")
]
BaselineOption = Annotated[
    list[str] | None, typer.Option("--baseline", metavar="BASE", help="The saved run to compare with. Repeatable.")
]
AgainstOption = Annotated[
    str | None,
    typer.Option("--against", metavar="REV", help="Measure this git revision and the working tree side by side."),
]
EnvironmentOption = Annotated[
    Mode, typer.Option("--environment", help="With --against: what the other revision runs in.")
]
InstallOption = Annotated[
    str | None,
    typer.Option(
        "--install", metavar="COMMAND", help="What installs the other revision's environment.", show_default="pip"
    ),
]
DetailsOption = Annotated[
    bool, typer.Option("--details", help="Print every table, word and doubt instead of one screen.")
]
InconclusiveOption = Annotated[
    Inconclusive | None,
    typer.Option(
        "--inconclusive", help="What counts for the exit code where nothing was shown.", show_default="exit code 3"
    ),
]
KeepRatioOption = Annotated[
    float | None, typer.Option(help="Share of tokens kept at routed layers.", show_default="the scenario's, or 0.111")
]
MemoryOption = Annotated[
    str | None,
    typer.Option(metavar="BYTES|SIZE", help="What must be enough, e.g. 24GiB.", show_default="the device's"),
]
RunsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN...", help="A run's folder; with --history several, files, or globs; with --scoreboard any number."
    ),
]
HistoryMetricOption = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar="[METHOD.]METRIC",
        help="What a history draws. Repeatable.",
        show_default="prefill_speedup, decode_speedup, kv_cache_reduction",
    ),
]
ScoreboardOption = Annotated[
    bool,
    typer.Option("--scoreboard", help="Claims of a paper, kept as scenarios: what is claimed, possible and measured."),
]
ReportOutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="A file to write instead: a page (.html), or what another format than console prints.",
        show_default="in the run's folder, reports/history.html, or stdout",
    ),
]
ScenariosOption = Annotated[
    Path | None,
    typer.Option("--scenarios", metavar="DIR", help="With --scoreboard: the claims.", show_default="scenarios/paper"),
]
IdealDeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME|measured",
        help="With --scoreboard: what ideals are predicted for.",
        show_default="the run's, or h200",
    ),
]


def inconclusive_of(option: Inconclusive | None) -> Literal["pass", "fail"] | None:
    """The option as `gate_exit_code` takes it."""
    if option is None:
        return None
    return "pass" if option is Inconclusive.PASS else "fail"


def refuse_measuring_options(**given: object) -> None:
    """Saved runs are compared as they are, so an option about measuring would silently do nothing.

    Raises:
        OptionError: one of these options was given.
    """
    for name, value in given.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise OptionError(f"{option}: got it with --baseline, where nothing is measured; expected --against REV")


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


def parse_budget(text: str | None) -> int | None:
    """A time in seconds; None where there is none.

    Raises:
        OptionError: it is no time.
    """
    from modbench.scenario.wording import show
    from modbench.units import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise OptionError(f"--budget: got {show(text)}; {error}") from error
