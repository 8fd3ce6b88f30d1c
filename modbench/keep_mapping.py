"""Launches for keep maps, after all measured ones: one per routed method, at one cell. Never imports torch.

In: a measured plan and what is on disk. Out: `keep_maps.jsonl`. A launch that fails is a row with its error; it changes neither
records nor the exit code, because nothing was to be measured by it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from modbench.executors.local import LocalExecutor
from modbench.job import Job
from modbench.keep_map_record import append_keep_map, load_keep_maps, new_keep_map_record
from modbench.plan import Plan, RunSpec
from modbench.record import ROUTER_FLAGS, Record
from modbench.report.progress import RunProgress


def map_launches(
    plan: Plan,
    records: Iterable[Record],
    folder: Path,
    executor: LocalExecutor,
    make_job: Callable[[RunSpec], Job],
    progress: RunProgress,
) -> None:
    """Map every method that routes, at the first of its cells with the longest context; rows that are there are left alone.

    One cell, because a launch builds and calibrates a model, and the first tokens of a prompt look alike at every size; the longest
    context, because that is what routing is for.

    Raises:
        OutputError: the folder cannot be written.
        LaunchError: a launch server could not be started.
    """
    wanted = _longest_routed(records)
    for keep_map in load_keep_maps(folder).rows:
        if keep_map.method in wanted and wanted[keep_map.method].point.cell_id == keep_map.cell_id:
            del wanted[keep_map.method]
    if wanted:
        executor.renew()
    for index, cell in enumerate(plan.cells):
        for spec in plan.quads(index, 0, 1)[: len(cell.methods)]:
            record = wanted.get(spec.method)
            if record is None or record.point.cell_id != cell.cell_id:
                continue
            progress.note(f"mapping what {spec.method} keeps")
            spec = spec.model_copy(update={"launch_id": f"{spec.launch_id}-keep-map"})
            result = executor.run(make_job(spec), spec.measure["timeout_s"])
            row = result.keep_map or new_keep_map_record(spec, result.error)
            router = next((flag for flag in record.flags if flag in ROUTER_FLAGS), None)
            append_keep_map(folder, row.model_copy(update={"router": router}))


def _longest_routed(records: Iterable[Record]) -> dict[str, Record]:
    """Method -> a launch of the first of its cells with the longest context, where a layer kept some tokens and not others."""
    found: dict[str, Record] = {}
    for record in records:
        is_routed = any(0 < ratio < 1 for ratio in record.keep_ratio.prefill)
        if record.status == "ok" and is_routed:
            longest = found.get(record.method)
            if longest is None or _context(record) > _context(longest):
                found[record.method] = record
    return found


def _context(record: Record) -> int:
    return record.point.workload["context"]
