"""Traced launches of a run, after all measured ones: one per cell and method with numbers. Never imports torch.

In: a measured plan and what is on disk. Out: `traces.jsonl` and the files in `traces/`. A traced launch that fails is a row with
its error; it changes neither records nor the exit code, because nothing was to be measured by it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from modbench.executors.local import LocalExecutor
from modbench.job import Job
from modbench.plan import Plan, RunSpec
from modbench.record import Record
from modbench.report.document import axes_label
from modbench.report.progress import RunProgress
from modbench.trace_record import append_trace, load_traces, new_trace_record


def trace_launches(
    plan: Plan,
    records: Iterable[Record],
    folder: Path,
    executor: LocalExecutor,
    make_job: Callable[[RunSpec], Job],
    progress: RunProgress,
) -> None:
    """Trace what has an `ok` launch and is not in the folder's traces yet; every row is appended before the next launch starts.

    Raises:
        OutputError: the folder cannot be written.
        LaunchError: a launch server could not be started.
    """
    measured = {(record.point.cell_id, record.method) for record in records if record.status == "ok"}
    wanted = measured - {(trace.cell_id, trace.method) for trace in load_traces(folder).rows}
    if wanted:
        executor.renew()
    for index, cell in enumerate(plan.cells):
        for spec in plan.quads(index, 0, 1)[: len(cell.methods)]:
            if (cell.cell_id, spec.method) not in wanted:
                continue
            progress.note(f"tracing {spec.method} at {axes_label(cell.axes)}")
            spec = spec.model_copy(update={"launch_id": f"{spec.launch_id}-trace"})
            job = make_job(spec).model_copy(update={"trace_folder": str(folder)})
            result = executor.run(job, spec.measure["timeout_s"])
            append_trace(folder, result.trace or new_trace_record(spec, result.error))
