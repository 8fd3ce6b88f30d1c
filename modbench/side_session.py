"""Opens what measuring side by side needs: per scenario two run folders, two executors, two runners; closes it all again.

In: loaded scenarios, the code of both sides, an output folder. Out: prepared `Bench`es. In the output folder each scenario has
`<scenario>/base` and `<scenario>/candidate`, ordinary run folders.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from modbench.analysis.statistics import MIN_SAMPLES
from modbench.errors import OptionError
from modbench.executors.local import LocalExecutor
from modbench.memory_limit import automatic_limit
from modbench.record import SIDE_BY_SIDE, Record
from modbench.report.progress import RunProgress
from modbench.revision import Revision
from modbench.run_folder import LOG_FILE, locked, open_run_folder
from modbench.runner import refuse_entries, remove_leftovers
from modbench.scenario import LoadedScenario
from modbench.side_by_side import Bench, SideRunner
from modbench.side_plan import SIDE_NAMES


@dataclass(frozen=True)
class SideSession:
    """What is the same for every scenario of the job."""

    sides: tuple[Revision, Revision]
    output: Path
    command: str
    allow_entry: bool
    progress: RunProgress
    identity: str = field(default_factory=lambda: secrets.token_hex(4))
    free_memory_bytes: int | None = field(default_factory=automatic_limit)  # both sides run in the same memory


@contextmanager
def open_benches(
    session: SideSession, scenarios: Sequence[LoadedScenario], methods: Sequence[str]
) -> Iterator[list[Bench]]:
    """The benches of one interleaved job, prepared: devices looked at, every method checked on both sides.

    Args:
        session: both sides and where their records go.
        scenarios: valid ones, without a search.
        methods: labels to compare; [] for all.

    Raises:
        OptionError: a scenario that cannot be compared, or a method that none has.
        EntryNotAllowedError: a method would run code of the scenario's choice.
        OutputError, UnsupportedError, LaunchError: as of a run.
    """
    _refuse(scenarios, methods)
    for loaded in scenarios if not session.allow_entry else ():
        refuse_entries(loaded)
    with ExitStack() as stack:
        benches = []
        for name, loaded in _named(scenarios):
            own = [label for label in loaded.scenario.methods if not methods or label in methods]
            if own:
                folder = session.output / name
                base, candidate = (_side(stack, session, loaded, folder, number) for number in range(2))
                benches.append(Bench(base, candidate, tuple(own), session.progress))
        for bench in benches:
            bench.prepare()
        yield benches


def records_of(benches: Sequence[Bench], side: int) -> list[Record]:
    """Everything that one side has measured."""
    return [record for bench in benches for record in bench.sides[side].records.values()]


def noise_floors_of(benches: Sequence[Bench]) -> dict[str, float]:
    """The largest floor per latency metric that is known about this machine at the benches' cells, as shares."""
    floors: dict[str, float] = {}
    for bench in benches:
        for metric, value in bench.candidate.noise_floors.items():
            floors[metric] = max(value, floors.get(metric, 0.0))
    return floors


def _side(
    stack: ExitStack,
    session: SideSession,
    loaded: LoadedScenario,
    folder: Path,
    number: int,
) -> SideRunner:
    revision = session.sides[number]
    # Absolute, because the other side's servers start elsewhere.
    loaded = replace(loaded, path=loaded.path.resolve())
    run_folder = open_run_folder(loaded, folder / SIDE_NAMES[number], is_resumed=False, command=session.command)
    stack.enter_context(locked(run_folder))
    stack.callback(remove_leftovers, run_folder)
    log_path = run_folder.path / LOG_FILE
    executor = stack.enter_context(LocalExecutor(loaded.scenario.measure.start, log_path, revision.runtime))
    return SideRunner(
        loaded,
        run_folder,
        session.allow_entry,
        session.progress,
        executor,
        free_memory_bytes=session.free_memory_bytes,
        git_facts=revision.git_facts,
        sources_sha256=revision.sources_sha256,
        side_facts={
            SIDE_BY_SIDE: {"id": f"{session.identity}-{folder.name}", "side": SIDE_NAMES[number]},
            "revision": revision.name,
        },
    )


def _named(scenarios: Sequence[LoadedScenario]) -> list[tuple[str, LoadedScenario]]:
    """Folder names: the scenario's, with a number from the second of a name on."""
    named: dict[str, LoadedScenario] = {}
    for loaded in scenarios:
        name, count = loaded.scenario.name, 1
        while name in named:
            count += 1
            name = f"{loaded.scenario.name}-{count}"
        named[name] = loaded
    return list(named.items())


def _refuse(scenarios: Sequence[LoadedScenario], methods: Sequence[str]) -> None:
    for loaded in scenarios:
        if loaded.search is not None:
            raise OptionError(f"{loaded.path}: got a search; expected sizes: set {loaded.search.axis} to numbers")
        samples = min(point.measure.samples for point in loaded.points)
        if samples < MIN_SAMPLES:
            raise OptionError(
                f"{loaded.path}: measure.samples: got {samples}; expected at least {MIN_SAMPLES} for a verdict; "
                f"pass --set measure.samples={MIN_SAMPLES}"
            )
    known = {label for loaded in scenarios for label in loaded.scenario.methods}
    unknown = [label for label in methods if label not in known]
    if unknown:
        raise OptionError(f"--method: got {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
