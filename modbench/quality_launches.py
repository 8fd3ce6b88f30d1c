"""Launches for quality, after all measured ones: one per distinct model of a run. Never imports torch.

In: a measured plan and what is on disk. Out: `quality.jsonl`. An evaluation that fails is a row with its error; it changes neither
records nor, but for expectations on it, the exit code.
"""

from collections.abc import Callable
from pathlib import Path

from modbench.executors.local import LocalExecutor
from modbench.job import Job
from modbench.plan import Pair, Plan, RunSpec, content_hash
from modbench.quality_record import append_quality, load_quality, new_quality_record, work_id_of
from modbench.report.progress import RunProgress
from modbench.scenario import QualityWork, runs_foreign_code

NOT_EVALUATED = "{kind}: runs code of its own, whose model cannot be evaluated from here"


def evaluate_methods(
    plan: Plan,
    quality: QualityWork,
    folder: Path,
    executor: LocalExecutor,
    make_job: Callable[[RunSpec], Job],
    progress: RunProgress,
) -> None:
    """Evaluate every distinct model of the plan that has no row for what is asked; a server per evaluation.

    Raises:
        OutputError: the folder cannot be written.
        LaunchError: a launch server could not be started.
    """
    quality_id = content_hash(quality.identity)
    done = {row.work_id for row in load_quality(folder).rows if row.quality_id == quality_id}
    for work_id, spec in evaluated_specs(plan).items():
        if work_id in done:
            continue
        if runs_foreign_code(spec.kind):
            row = new_quality_record(spec, quality, "not_evaluated", NOT_EVALUATED.format(kind=spec.kind))
        else:
            progress.note(f"evaluating {spec.method}")
            executor.renew()
            job = make_job(spec).model_copy(update={"quality": quality})
            result = executor.run(job, quality.timeout_s)
            error = result.error or "the worker gave no evaluation"
            row = result.quality or new_quality_record(spec, quality, "failed", error)
        append_quality(folder, row)


def evaluated_specs(plan: Plan) -> dict[str, RunSpec]:
    """Work id -> a launch of the first of its cells with the longest context, on whose text routers are calibrated."""
    found: dict[str, RunSpec] = {}
    for cell in plan.cells:
        for planned in cell.methods:
            work_id = work_id_of(planned.work)
            known = found.get(work_id)
            if known is None or planned.work.workload["context"] > known.point.workload["context"]:
                spec = plan.spec(cell, planned, Pair(quad=0, position=0))
                found[work_id] = spec.model_copy(update={"launch_id": f"{spec.launch_id}-quality"})
    return found
