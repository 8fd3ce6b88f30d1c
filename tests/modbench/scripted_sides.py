"""Two sides that answer at once, for the tests of what is measured side by side. Test data: no number here was measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modbench.job import GuardReport, Job, JobResult, Probe, failed_record
from modbench.record import SIDE_BY_SIDE, Record, Samples
from modbench.report.progress import QuietProgress
from modbench.run_folder import open_run_folder
from modbench.scenario import LoadedScenario, load_scenario
from modbench.side_by_side import Bench, SideRunner
from modbench.side_plan import BASE, CANDIDATE, SIDE_NAMES

SCENARIO = """\
name: scripted
model: {preset: tiny}
methods: {dense: {}}
workload: {context: 8, new_tokens: 5, prompt: {synthetic: true}}
measure: {launches: auto, device: cpu}
matrix: {workload.context: [8]}
"""
PROBE = Probe(
    device="cpu",
    device_kind="cpu",
    environment={"versions": {}, "machine": {"fingerprint": "f"}},
    ceilings={"copy_bytes_per_s": 1e9, "matmul_flops_per_s": 1e9},
)
# (side, method, context, pair) -> seconds; a pair counts from 0 over the quads
Seconds = Callable[[int, str, int, int], float]


def slower(ratio: float) -> Seconds:
    """The candidate takes `ratio` times as long, always."""
    return lambda side, method, context, pair: ratio if side == CANDIDATE else 1.0


def unchanged(side: int, method: str, context: int, pair: int) -> float:
    """Both sides take the same time."""
    return 1.0


def swaying(side: int, method: str, context: int, pair: int) -> float:
    """The candidate is 10 % slower in one pair and 10 % faster in the next: never decided."""
    return 1.0 if side == BASE else (0.9, 1.1)[pair % 2]


@dataclass
class SideExecutor:
    """One side's; all sides write what they do into one `journal`. `statuses` replaces results by failures."""

    side: int
    journal: list[Any] = field(default_factory=list)
    seconds: Seconds = unchanged
    statuses: dict[tuple[int, str, int], str] = field(default_factory=dict)
    probe: Probe | str = PROBE

    def renew(self) -> None:
        self.journal.append(("renew", self.side))

    def start(self) -> None:
        self.journal.append(("start", self.side))

    def run(self, job: Job, timeout_s: float) -> JobResult:
        if job.kind == "probe":
            return JobResult(error=self.probe) if isinstance(self.probe, str) else JobResult(probe=self.probe)
        if job.kind == "guard":
            self.journal.append(("guard", self.side))
            return JobResult(guard=GuardReport(identities={"causal": "passed"}))
        spec = job.spec
        assert spec is not None, "a launch has a run spec"
        context = spec.point.workload["context"]
        self.journal.append((self.side, spec.method, context, spec.pair.quad, spec.pair.position))
        status: Any = self.statuses.get((self.side, spec.method, context))
        if status:
            return JobResult(record=failed_record(job, status, "prefill", "scripted", None))
        seconds = self.seconds(self.side, spec.method, context, 2 * spec.pair.quad + spec.pair.position // 2)
        names = ("launch_id", "run_id", "point_id", "method", "kind", "point", "pair")
        record = Record(
            status="ok",
            phase="done",
            samples=Samples(ttft_s=[seconds] * 5, tpot_s=[seconds] * 5),
            environment=job.environment,
            **{name: getattr(spec, name) for name in names},
        )
        return JobResult(record=record)


def load(folder: Path, text: str = SCENARIO) -> LoadedScenario:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s.yaml").write_text(text)
    return load_scenario(folder / "s.yaml")


def make_bench(
    folder: Path,
    text: str = SCENARIO,
    is_prepared: bool = True,
    probes: tuple[Any, Any] = (PROBE, PROBE),
    **changes: Any,
) -> Bench:
    """A bench of scripted sides in a folder; `changes` are fields of both executors."""
    loaded = load(folder, text)
    sides = [
        SideRunner(
            loaded,
            open_run_folder(loaded, folder / name, False, "modbench check"),
            False,
            QuietProgress(),
            SideExecutor(number, probe=probes[number], **changes),  # type: ignore[arg-type]
            git_facts={},
            sources_sha256="",
            side_facts={SIDE_BY_SIDE: {"id": "job", "side": name}},
        )
        for number, name in enumerate(SIDE_NAMES)
    ]
    bench = Bench(sides[0], sides[1], tuple(loaded.scenario.methods), QuietProgress())
    if is_prepared:
        bench.prepare()
    return bench


def launches(journal: list[Any]) -> list[tuple[int, str, int, int, int]]:
    """(side, method, context, quad, position) of every launch, in order."""
    return [entry for entry in journal if len(entry) == 5]


def num_quads(journal: list[Any]) -> dict[tuple[str, int], int]:
    """(method, context) -> quads begun."""
    quads: dict[tuple[str, int], set[int]] = {}
    for _, method, context, quad, _ in launches(journal):
        quads.setdefault((method, context), set()).add(quad)
    return {key: len(found) for key, found in quads.items()}
