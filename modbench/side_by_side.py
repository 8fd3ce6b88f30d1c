"""Two sides of one scenario, or several, measured in one interleaved job, look by look. Never imports torch.

In: per scenario a `Bench` of two runners, whose executors run the code of their side. Out: two run folders per scenario, whose
records carry that they belong together, so that `compare` finds their pairs.

**Quads.** Every (cell, method) of a scenario has its quad before the next one begins, so a quad's servers serve all of them, and a
busy minute of the machine is spread over many comparisons instead of deciding one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modbench.analysis import judge_family, side_by_side_comparisons
from modbench.errors import LaunchError, UnsupportedError
from modbench.job import Probe
from modbench.launch_costs import Expected
from modbench.plan import PAIRS_PER_QUAD, Pair, Plan, RunSpec, build_plan
from modbench.record import Record, append_record
from modbench.report.progress import RunProgress
from modbench.run_folder import LOG_FILE, claim_work
from modbench.runner import STOPS_SERIES, Runner, announce, cell_label, work_tokens
from modbench.side_plan import SIDE_NAMES, side_quad

PARTNER_FAILED = "the other side failed at a smaller point"
FIRST_PAIR = Pair(quad=0, position=0)


class SideRunner(Runner):
    """One side of one scenario. The order of its launches is not its own."""

    def prepare(self, methods: Sequence[str]) -> Plan:
        """Look at the device and check every method that is measured, before the first launch.

        Raises:
            UnsupportedError: the device is not there, or this side's code cannot be asked.
            OutputError: the folder is for other work.
        """
        first = self.loaded.points[0]
        try:
            probe = self._probe(first.model.dtype, first.measure.threads)
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.folder.path.name}: {error}; see {self.folder.path / LOG_FILE}") from error
        plan = build_plan(self.loaded, self.folder.run_id, probe.device_kind)
        claim_work(self.folder, plan.work_id)
        self._look_up_noise(plan)
        for cell in plan.cells:
            for planned in cell.methods:
                if planned.method in methods:
                    self._guard(plan.spec(cell, planned, FIRST_PAIR))
        return plan

    def device_probe(self, dtype: str, threads: int) -> Probe:
        """What the device is, and its ceilings."""
        return self._probe(dtype, threads)

    def launch(self, spec: RunSpec, label: str) -> Record:
        """Measure one launch; its record is on disk when this returns."""
        started = self.clock()
        record = self._keep(self._measure(spec, label))
        self.costs.add(spec, self._machine(spec), self.clock() - started)
        return record

    def expected_s(self, spec: RunSpec) -> Expected | None:
        """What a launch will take, where earlier ones tell."""
        return self._expect(spec)

    def start_server(self, spec: RunSpec) -> None:
        """A new server, for a quad that begins with this launch; what its start takes is kept for the next estimate."""
        self.executor.renew()
        began_s = self.clock()
        self.executor.start()
        self.costs.add_server(self._machine(spec), self.clock() - began_s)

    def server_s(self, spec: RunSpec) -> float:
        """What the start of a server takes here, as far as it is known."""
        return self.costs.server_s(self._machine(spec))

    def prune(self, spec: RunSpec, label: str, reason: str) -> Record:
        """A row for what is not tried."""
        return self._keep(self._measure(spec, label, reason))

    def note_failure(self, plan: Plan, cell_index: int, record: Record) -> None:
        """What needs as much memory or time as this launch, or more, is not tried."""
        self._note_failure(plan, cell_index, record)

    def _keep(self, record: Record) -> Record:
        append_record(self.folder.records_path, record)
        self.records[record.launch_id] = record
        return record


@dataclass
class Bench:
    """One scenario with its two sides; `methods` are those that are compared with themselves."""

    base: SideRunner
    candidate: SideRunner
    methods: tuple[str, ...]
    progress: RunProgress
    plans: tuple[Plan, ...] = ()
    open_series: list[tuple[int, str]] = field(
        default_factory=list
    )  # (cell, method) that another quad can still decide

    @property
    def sides(self) -> tuple[SideRunner, SideRunner]:
        """Base and candidate."""
        return self.base, self.candidate

    def prepare(self) -> None:
        """Everything that comes before the first launch, on both sides.

        Raises:
            UnsupportedError: a side cannot be measured, or not on the other one's device.
        """
        self.plans = tuple(side.prepare(self.methods) for side in self.sides)
        kinds = [plan.cells[0].methods[0].work.device_kind for plan in self.plans]
        if len(set(kinds)) > 1:
            raise UnsupportedError(
                f"{self.base.loaded.path}: base runs on {kinds[0]} and candidate on {kinds[1]}; expected one kind of device; "
                "set measure.device"
            )
        cells = range(len(self.plans[0].cells))
        self.open_series = [(index, method) for index in cells for method in self.methods]

    @property
    def num_open_launches(self) -> int:
        """Launches of the next quad, both sides together."""
        return len(self._open_specs())

    def expected_quad_s(self) -> tuple[float, bool] | None:
        """Seconds of the next quad with its servers, and whether they are scaled from other sizes; None where not known."""
        specs = [spec for _, spec in self._open_specs()]
        known = [expected for spec in specs if (expected := self.candidate.expected_s(spec)) is not None]
        if len(known) < len(specs):
            return None
        servers_s = len(SIDE_NAMES) * self.candidate.server_s(specs[0]) if specs else 0.0
        return sum(expected.seconds for expected in known) + servers_s, any(expected.is_scaled for expected in known)

    def announce(self, num_quads: int) -> None:
        """Tell the progress display how much is to come."""
        announce(self.progress, [spec for _, spec in self._open_specs()] * num_quads)

    def run_quad(self, quad: int) -> None:
        """One quad of everything that is open, from new servers; what cannot go on is closed."""
        if not self.open_series:
            return
        began_s, (_, first) = self.candidate.clock(), self._open_specs()[0]
        for side in self.sides:  # both before the first launch, so that nothing stands between a pair
            side.start_server(first)
        self.progress.waited(self.candidate.clock() - began_s, self._open_work())
        self.open_series = [series for series in self.open_series if self._run_series(*series, quad)]

    def comparisons(self) -> dict[tuple[int, str, str], list[float]]:
        """ln(candidate / base) of every (cell, method, latency metric) so far.

        Raises:
            LaunchError: a launch gave a latency that is not above 0.
        """
        base, candidate = (list(side.records.values()) for side in self.sides)
        index_of = {cell.cell_id: index for index, cell in enumerate(self.plans[0].cells)}
        try:
            found = side_by_side_comparisons(base, candidate)
        except ValueError as error:
            raise LaunchError(f"{self.base.folder.path.parent}: {error}; expected seconds above 0") from error
        return {(index_of[key.cell_id], key.method, key.metric): values for key, values in found.items()}

    def _open_specs(self) -> list[tuple[int, RunSpec]]:
        return [launch for index, method in self.open_series for launch in self._quad(index, method, 1)]

    def _open_work(self) -> int:
        """Tokens of the next quad, both sides together."""
        return sum(work_tokens(spec) for _, spec in self._open_specs())

    def _quad(self, index: int, method: str, quad: int) -> list[tuple[int, RunSpec]]:
        assert len(self.plans) == len(SIDE_NAMES), "prepared first"
        return side_quad((self.plans[0], self.plans[1]), index, method, quad)

    def _run_series(self, index: int, method: str, quad: int) -> bool:
        """The quad of one method at one cell; False if more of them would help nothing."""
        launches = self._quad(index, method, quad)
        cell = self.plans[0].cells[index]
        reasons = [side.failures.get((cell.cell_id, method)) for side in self.sides]
        if any(reasons):  # of a smaller point of the series, on either side: no pairs here
            for number, spec in launches[: len(SIDE_NAMES)]:
                self.sides[number].prune(spec, self._label(number, index, method), reasons[number] or PARTNER_FAILED)
            return False
        ok = [False, False]
        for number, spec in launches:
            record = self.sides[number].launch(spec, self._label(number, index, method))
            ok[number] |= record.status == "ok"
            if record.status in STOPS_SERIES:
                self.sides[number].note_failure(self.plans[number], index, record)
                return False
        return all(ok)

    def _label(self, number: int, index: int, method: str) -> str:
        return f"{SIDE_NAMES[number]}, {cell_label(self.plans[number].cells[index], method)}"


def measure_side_by_side(
    benches: Sequence[Bench],
    looks: Sequence[int],
    margins: Mapping[str, float],
    may_go_on: Callable[[int], bool] = lambda num_rounds: True,
) -> None:
    """Measure every open (cell, method) until it is decided, or the last look is over.

    Args:
        benches: one per scenario, prepared; verdicts are judged in the family of all of them.
        looks: numbers of pairs after which to stop or go on; after the last one nothing is judged here.
        margins: δ per latency metric, as shares; those of other metrics are not asked for.
        may_go_on: asked before each round of quads with the number of rounds up to the next look; no ends the job.
    """
    done_quads = 0
    for look in looks:
        num_quads = -(-look // PAIRS_PER_QUAD)
        for bench in benches:
            bench.announce(num_quads - done_quads)
        for quad in range(done_quads, num_quads):
            if not may_go_on(num_quads - quad):
                return
            for bench in benches:
                bench.run_quad(quad)
        done_quads = num_quads
        if look != looks[-1]:
            close_decided(benches, margins)


def close_decided(benches: Sequence[Bench], margins: Mapping[str, float]) -> None:
    """Take every (cell, method) out of the benches whose comparisons (of metrics with a margin) all have a verdict."""
    found = [(bench, key, values) for bench in benches for key, values in bench.comparisons().items()]
    family = [(bench, key, values) for bench, key, values in found if key[2] in margins]
    judged = judge_family([values for _, _, values in family], [margins[metric] for _, (_, _, metric), _ in family])
    undecided = {
        (id(bench), index, method)
        for (bench, (index, method, _), _), judgement in zip(family, judged, strict=True)
        if not judgement.is_final
    }
    for bench in benches:
        bench.open_series = [series for series in bench.open_series if (id(bench), *series) in undecided]
