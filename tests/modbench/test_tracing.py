"""Which launches of a run are traced, and when: with an executor that answers at once."""

from dataclasses import dataclass

from modbench.job import Job, JobResult
from modbench.runner import exit_code
from modbench.trace_record import load_traces, new_trace_record
from tests.modbench.test_runner import SCENARIO, ScriptedExecutor, make_runner

TEXT = SCENARIO.replace("launches: auto", "launches: 2").replace("[8, 16, 32]", "[8, 16]")


@dataclass
class TracingExecutor(ScriptedExecutor):
    """Answers trace jobs too; `broken` names a method whose traced launch gives no result."""

    broken: str = ""

    def run(self, job: Job, timeout_s: float) -> JobResult:
        if job.kind != "trace":
            return super().run(job, timeout_s)
        self.jobs.append(job)
        if job.spec.method == self.broken:
            return JobResult(error="killed after 600 s in phase trace")
        return JobResult(trace=new_trace_record(job.spec))

    def traced(self) -> list[tuple[str, int]]:
        return [(job.spec.method, job.spec.point.workload["context"]) for job in self.jobs if job.kind == "trace"]


def traced_run(tmp_path, executor, is_resumed=False, text=TEXT):
    runner = make_runner(tmp_path, executor, text, is_resumed)
    runner.is_traced = True
    runner.run()
    return runner


ALL = [(method, context) for context in (8, 16) for method in ("dense", "threshold")]


def test_each_method_is_traced_once_per_cell_after_all_that_is_measured(tmp_path):
    executor = TracingExecutor()
    runner = traced_run(tmp_path, executor)
    assert executor.traced() == ALL
    assert [job.kind for job in executor.jobs][-len(ALL) - 1 :] == ["launch"] + ["trace"] * len(ALL)
    assert len(load_traces(runner.folder.path).rows) == len(ALL)
    assert {job.trace_folder for job in executor.jobs if job.kind == "trace"} == {str(runner.folder.path)}
    assert not {job.spec.launch_id for job in executor.jobs if job.kind == "trace"} & set(runner.records)


def test_without_the_option_nothing_is_traced(tmp_path):
    executor = TracingExecutor()
    runner = make_runner(tmp_path, executor, TEXT)
    runner.run()
    assert executor.traced() == []
    assert not (runner.folder.path / "traces.jsonl").exists()


def test_resume_traces_what_is_missing_and_nothing_again(tmp_path):
    runner = traced_run(tmp_path, TracingExecutor())
    path = runner.folder.path / "traces.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    executor = TracingExecutor()
    traced_run(tmp_path, executor, is_resumed=True)
    assert executor.traced() == ALL[3:]
    assert executor.launches() == []
    again = TracingExecutor()
    traced_run(tmp_path, again, is_resumed=True)
    assert again.traced() == []


def test_a_finished_run_can_be_traced_later(tmp_path):
    make_runner(tmp_path, TracingExecutor(), TEXT).run()
    executor = TracingExecutor()
    traced_run(tmp_path, executor, is_resumed=True)
    assert (executor.launches(), executor.traced()) == ([], ALL)


def test_methods_without_numbers_are_not_traced(tmp_path):
    executor = TracingExecutor(statuses={("threshold", 16): "oom"})
    traced_run(tmp_path, executor)
    assert executor.traced() == [("dense", 8), ("threshold", 8), ("dense", 16)]


def test_a_traced_launch_that_fails_is_a_row_and_leaves_the_exit_code(tmp_path):
    executor = TracingExecutor(broken="threshold")
    runner = traced_run(tmp_path, executor)
    errors = {(trace.method, trace.error) for trace in load_traces(runner.folder.path).rows}
    assert errors == {("dense", None), ("threshold", "killed after 600 s in phase trace")}
    assert exit_code(runner.records.values(), num_unmet=0) == 0
