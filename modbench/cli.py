"""The command line: parse, call one function, print. Imports nothing heavy, so `--help` and `validate` start at once."""

import errno
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from modbench import __version__
from modbench.cli_options import (
    AgainstOption,
    AllowEntryOption,
    BaselineOption,
    BudgetOption,
    ComparisonFormat,
    DetailsOption,
    EnvironmentOption,
    Format,
    HistoryMetricOption,
    IdealDeviceOption,
    InconclusiveOption,
    InstallOption,
    JunitOption,
    KeepMapOption,
    KeepRatioOption,
    MarkdownOption,
    MemoryOption,
    MethodOption,
    MetricOption,
    ReportFormat,
    ReportOutputOption,
    RunsArgument,
    ScenariosOption,
    ScoreboardOption,
    SetOption,
    ToleranceOption,
    TraceOption,
    inconclusive_of,
    parse_budget,
    parse_metrics,
    parse_tolerance,
    refuse_measuring_options,
)
from modbench.command_protocol import protocol_json_schema
from modbench.environments import Mode
from modbench.errors import ModbenchError, OptionError
from modbench.plain_text import plain_lines
from modbench.plan import build_plan
from modbench.record import record_json_schema
from modbench.scenario import LoadedScenario, json_schema, load_scenario
from modbench.scenario.models import MAX_THREADS

app = typer.Typer(
    name="modbench",
    help="Measure, and make real, the savings of Mixture-of-Depths in long-context language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SEARCHED = {"workload.context": "longest context", "workload.batch": "largest batch"}


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        Console().print(f"modbench {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO.yaml")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for records and report.", show_default="reports/<scenario>/<time>")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda|cuda:N", help="Override measure.device.", show_default="the scenario's"),
    ] = None,
    overrides: SetOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Measure only what is missing in the output folder.")
    ] = False,
    allow_entry: AllowEntryOption = False,
    trace: TraceOption = False,
    keep_map: KeepMapOption = False,
    budget: BudgetOption = None,
    details: DetailsOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and the path of the report.")] = False,
) -> None:
    """Run a scenario: measure every launch, then print and write the report.

    Exit codes: 0 done, 1 an expectation is not met, 2 usage or scenario error, 5 a launch failed or nothing was measured,
    130 interrupted (go on with --resume).
    """
    from modbench.command_run import RunOptions, run_command

    if device is not None:
        overrides = [*(overrides or []), f"measure.device={device}"]
    loaded = load_scenario(scenario, overrides or [])
    options = RunOptions(
        output=output,
        is_resumed=resume,
        allow_entry=allow_entry,
        is_quiet=quiet,
        command=_command_line(),
        is_traced=trace,
        is_mapped=keep_map,
        budget_s=parse_budget(budget),
        is_detailed=details,
    )
    raise typer.Exit(run_command(loaded, options))


@app.command()
def validate(
    scenarios: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    overrides: SetOption = None,
) -> None:
    """Check scenario files without running them; exit code 2 if any is wrong."""
    console, errors = Console(), Console(stderr=True)
    has_failed = False
    for path in scenarios:
        try:
            loaded = load_scenario(path, overrides or [])
            build_plan(loaded, run_id="", device_kind="cpu")  # finds cells that are the same work
        except ModbenchError as error:
            has_failed = True
            errors.print(plain_lines(error), markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(f"{path}: {_size_text(loaded)}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2 if has_failed else 0)


@app.command()
def report(
    runs: RunsArgument = None,
    format: Annotated[
        ReportFormat, typer.Option(help="What to print; console and json write the report files as well.")
    ] = ReportFormat.CONSOLE,
    history: Annotated[bool, typer.Option("--history", help="Draw metrics over commits, a point per run.")] = False,
    scoreboard: ScoreboardOption = False,
    scenarios: ScenariosOption = None,
    device: IdealDeviceOption = None,
    metrics: HistoryMetricOption = None,
    output: ReportOutputOption = None,
    details: DetailsOption = False,
) -> None:
    """Make a run's report again from its records; with --history a page of many runs, with --scoreboard a paper's claims."""
    from modbench.command_report import ReportOptions, report_command

    options = ReportOptions(
        runs=runs or [],
        format=format,
        has_history=history,
        is_scoreboard=scoreboard,
        scenarios=scenarios,
        device=device,
        metrics=metrics or [],
        output=output,
        is_detailed=details,
    )
    report_command(options)


@app.command()
def check(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="CANDIDATE|SCENARIO...", help="Saved runs; with --against scenarios, to be measured."),
    ],
    baseline: BaselineOption = None,
    against: AgainstOption = None,
    tolerance: ToleranceOption = "3%",
    metrics: MetricOption = None,
    methods: MethodOption = None,
    inconclusive: InconclusiveOption = None,
    environment: EnvironmentOption = Mode.AUTO,
    install: InstallOption = None,
    budget: BudgetOption = None,
    output: Annotated[
        Path | None, typer.Option(help="With --against: folder for the records.", show_default="reports/check/<time>")
    ] = None,
    overrides: SetOption = None,
    allow_entry: AllowEntryOption = False,
    junit: JunitOption = None,
    markdown: MarkdownOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only what the gate says.")] = False,
) -> None:
    """A gate: did it become slower, or does it need more memory?

    Exit codes: 0 same or faster, 1 slower (of counted values: more), 2 usage, 3 inconclusive, 4 not comparable, 5 failed or nothing
    was compared, 130 interrupted.
    """
    from modbench.gate_output import GateOptions

    gate = GateOptions(inconclusive_of(inconclusive), junit, markdown, quiet)
    share, wanted = parse_tolerance(tolerance), parse_metrics(metrics)
    if (against is None) == (not baseline):
        found = "neither" if against is None else "both"
        raise OptionError(f"check: got {found} of --against REV and --baseline BASE; expected one of them")
    if against is None:
        has_environment = environment is not Mode.AUTO
        measuring = {"method": methods, "install": install, "budget": budget, "output": output, "set": overrides}
        refuse_measuring_options(**measuring, allow_entry=allow_entry, environment=has_environment)
        from modbench.command_check import check_saved

        raise typer.Exit(check_saved(subjects, baseline or [], share, wanted, gate, _command_line()))
    from modbench.command_against import AgainstOptions, check_against

    options = AgainstOptions(
        revision=against,
        tolerance=share,
        gate=gate,
        metrics=wanted,
        methods=tuple(methods or ()),
        environment=environment,
        install=install,
        output=output,
        budget_s=parse_budget(budget),
        allow_entry=allow_entry,
        command=_command_line(),
    )
    loaded = [load_scenario(Path(subject), overrides or []) for subject in subjects]
    raise typer.Exit(check_against(loaded, options))


@app.command()
def doctor(
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N", help="The device to look at.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, max=MAX_THREADS, help="CPU threads of a launch.")] = 1,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Measure the device's ceilings anew.")] = False,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.CONSOLE,
) -> None:
    """Say what this machine can measure and what stands in the way; measure its ceilings once.

    Exit codes: 0 done, 2 the device is not there, 5 the machine could not be looked at.
    """
    from modbench.command_doctor import doctor_command

    raise typer.Exit(doctor_command(device, threads, remeasure, is_json=format is Format.JSON))


@app.command()
def estimate(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A scenario, a preset's name, or a config.json.")],
    device: Annotated[
        str, typer.Option(metavar="NAME|measured", help="A card by its data sheet, or what was measured here.")
    ] = "measured",
    context: Annotated[str | None, typer.Option(metavar="N,...", help="Prompt tokens per row.")] = None,
    batch: Annotated[str | None, typer.Option(metavar="N,...", help="Rows.")] = None,
    keep_ratio: KeepRatioOption = None,
    routed_layers: Annotated[
        str | None, typer.Option(metavar="interleaved|N,...|FRACTION", help="The layers that route.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of weights and KV cache.", show_default="the scenario's, or bfloat16")
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(help="Output tokens per row.", show_default="the scenario's, or 256")
    ] = None,
    memory: MemoryOption = None,
    overrides: SetOption = None,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.CONSOLE,
) -> None:
    """Predict times and memory without loading a model: what fits, and from where a method pays, and why."""
    from modbench.command_estimate import estimate_command, parse_options

    options = parse_options(context, batch, keep_ratio, routed_layers, dtype, new_tokens, overrides or [])
    estimate_command(target, device, memory, options, is_json=format is Format.JSON)


@app.command()
def calibrate(
    scenario: Annotated[
        Path | None, typer.Argument(metavar="[SCENARIO.yaml]", help="What to measure.", show_default="a small model")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs of launches per method and point.")] = 40,
    tolerance: ToleranceOption = "3%",
    budget: BudgetOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the records.", show_default="reports/calibration/<time>")
    ] = None,
    overrides: SetOption = None,
    allow_entry: AllowEntryOption = False,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.CONSOLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
) -> None:
    """Measure this machine's noise: the same code against itself, and what a gate can find here.

    The noise floor is kept and is the least margin of verdicts on this machine from then on.

    Exit codes: 0 done, 2 usage or scenario error, 5 launches failed, 130 interrupted.
    """
    from modbench.command_calibrate import CalibrateOptions, calibrate_command

    loaded = None if scenario is None else load_scenario(scenario, overrides or [])
    options = CalibrateOptions(
        scenario=loaded,
        num_pairs=pairs,
        tolerance=parse_tolerance(tolerance),
        output=output,
        budget_s=parse_budget(budget),
        allow_entry=allow_entry,
        is_json=format is Format.JSON,
        is_quiet=quiet,
        command=_command_line(),
    )
    raise typer.Exit(calibrate_command(options, overrides or []))


@app.command()
def compare(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="A run's folder, a records file, or a quoted glob of them.")
    ],
    candidates: Annotated[list[str], typer.Argument(metavar="CANDIDATE...", help="What is compared with it.")],
    tolerance: ToleranceOption = "3%",
    metrics: MetricOption = None,
    format: Annotated[ComparisonFormat, typer.Option(help="How it is printed.")] = ComparisonFormat.CONSOLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file to write instead of printing.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit by the verdicts, as a gate does.")] = False,
    inconclusive: InconclusiveOption = None,
) -> None:
    """Compare saved runs: per point and metric the change, its interval and a verdict, and what differed.

    Exit codes with --exit-code: 0 same or faster, 1 slower or more bytes, 3 inconclusive, 4 not comparable, 5 failed or
    nothing judged. Without it 0, or 2 for a usage error.
    """
    from modbench.command_compare import compare_command

    code = compare_command(
        base,
        candidates,
        parse_tolerance(tolerance),
        parse_metrics(metrics),
        format,
        output,
        inconclusive_of(inconclusive),
    )
    raise typer.Exit(code if exit_code else 0)


@app.command()
def schema(
    record: Annotated[bool, typer.Option("--record", help="Of a record line instead of a scenario file.")] = False,
    command_protocol: Annotated[
        bool, typer.Option("--command-protocol", help="Of what a `command:` reads and answers instead.")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="Of report.json instead.")] = False,
) -> None:
    """Print the JSON Schema of a scenario file, for editors."""
    from modbench.report.report_parts import report_json_schema

    others = ((report, report_json_schema), (command_protocol, protocol_json_schema), (record, record_json_schema))
    make = next((other for is_wanted, other in others if is_wanted), json_schema)
    sys.stdout.write(json.dumps(make(), indent=2) + "\n")


def _size_text(loaded: LoadedScenario) -> str:
    points, methods = len(loaded.points), len(loaded.scenario.methods)
    size = f"{points} point{'s' if points != 1 else ''} x {methods} methods"
    if loaded.search:
        return f"valid: search for the {SEARCHED[loaded.search.axis]}, {size}"
    launches = loaded.scenario.measure.launches
    each = "in up to three looks" if launches == "auto" else f"{points * methods * int(launches)} launches"
    return f"valid: {size}, {each}"


def _command_line() -> str:
    """The command as it would be typed again."""
    return shlex.join(["modbench", *sys.argv[1:]])


def main() -> None:
    """Run the program; what the user can mend ends as its lines on stderr and exit code 2 (or the error's own)."""
    try:
        app()
    except ModbenchError as error:
        Console(stderr=True).print(plain_lines(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        Console(stderr=True).print(f"cannot write: {error.strerror}; free some disk space", highlight=False)
        sys.exit(ModbenchError.exit_code)
