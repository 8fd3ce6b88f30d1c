"""Makes sides of comparisons for the tests, and finds lines in what was compared. Test data: no number here was measured."""

from typing import Any

from modbench.analysis.compare import compare_sides
from modbench.analysis.comparison import ComparedSides, Comparison
from modbench.record import SIDE_BY_SIDE, Record, Samples
from tests.modbench.record_factory import ENVIRONMENT, make_quads, make_record

MACHINE = {"cpu": "Example CPU @ 2.0 GHz", "num_cores": 8, "ram_bytes": 32 * 2**30, "fingerprint": "f00d"}


def make_side(
    run_id: str = "base",
    num_quads: int = 4,
    methods: tuple[str, ...] = ("dense", "threshold"),
    contexts: tuple[int, ...] = (1024,),
    slower: dict[str, float] | None = None,
    environment: dict[str, Any] | None = None,
) -> list[Record]:
    """Whole quads of one saved run; `slower` multiplies every time of a method."""
    facts = {**ENVIRONMENT, "machine": MACHINE, **(environment or {})}
    return [
        scaled(record, (slower or {}).get(record.method, 1.0)).model_copy(
            update={"launch_id": f"{run_id}-{record.launch_id}", "run_id": run_id, "environment": facts}
        )
        for record in make_quads(num_quads, methods, contexts)
    ]


def make_interleaved(
    num_quads: int = 4, factor: float = 1.0, methods: tuple[str, ...] = ("dense", "threshold"), noise: float = 0.004
) -> tuple[list[Record], list[Record]]:
    """Two sides of one job, A B B A per quad and method; the candidate's times are `factor` times as long."""
    sides: tuple[list[Record], list[Record]] = ([], [])
    for method in methods:
        for quad in range(num_quads):
            for position, side in enumerate((0, 1, 1, 0)):
                wobble = noise * ((5 * quad + 3 * position) % 7 - 3) / 3
                record = scaled(make_record(method, quad=quad, wobble=wobble), factor if side else 1.0)
                facts = {**ENVIRONMENT, "machine": MACHINE, SIDE_BY_SIDE: {"id": "job-1", "side": side}}
                update = {"launch_id": f"job-{method}-{quad}-{position}", "environment": facts}
                pair = record.pair.model_copy(update={"position": position})
                sides[side].append(record.model_copy(update={**update, "pair": pair}))
    return sides


def scaled(record: Record, factor: float) -> Record:
    """The same launch, every time `factor` times as long."""
    samples = record.samples
    times = {name: [value * factor for value in getattr(samples, name)] for name in ("ttft_s", "tpot_s", "itl_s")}
    return record.model_copy(update={"samples": Samples(**{**samples.model_dump(), **times})})


def changed(records: list[Record], method: str, **update: Any) -> list[Record]:
    """The same launches, those of a method with other fields."""
    return [record.model_copy(update=update) if record.method == method else record for record in records]


def with_metrics(records: list[Record], method: str, **metrics: Any) -> list[Record]:
    """The same launches, those of a method with other metrics."""
    return [
        record.model_copy(update={"metrics": {**record.metrics, **metrics}}) if record.method == method else record
        for record in records
    ]


def with_facts(records: list[Record], method: str = "", **facts: Any) -> list[Record]:
    """The same launches, those of a method (or all) with other facts in their environment."""
    return [
        record.model_copy(update={"environment": {**record.environment, **facts}})
        if method in ("", record.method)
        else record
        for record in records
    ]


def compare(base: list[Record], candidate: list[Record], **options: Any) -> ComparedSides:
    """Sides named A and B, compared."""
    return compare_sides(base, candidate, "A", "B", **options)


def lines_of(
    compared: ComparedSides, method: str = "threshold", metric: str = "ttft_s", ground: str = "ratio_to_dense"
) -> list[Comparison]:
    """The lines of a method and metric; on any ground where that is empty."""
    return [
        line
        for line in compared.comparisons
        if (line.method, line.metric) == (method, metric) and ground in ("", line.ground)
    ]


def line_of(
    compared: ComparedSides, method: str = "threshold", metric: str = "ttft_s", ground: str = "ratio_to_dense"
) -> Comparison:
    """The only one."""
    (line,) = lines_of(compared, method, metric, ground)
    return line


def texts_of(compared: ComparedSides) -> list[str]:
    """What the footnotes say."""
    return [note.text for note in compared.footnotes]
