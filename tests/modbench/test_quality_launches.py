"""Which models of a run are evaluated, when and how often: with an executor that answers at once."""

from dataclasses import dataclass

from modbench.job import Job, JobResult
from modbench.quality_record import QUALITY_FILE, load_quality, new_quality_record
from modbench.runner import exit_code
from tests.modbench.test_runner import SCENARIO, ScriptedExecutor, make_runner

TEXT = SCENARIO.replace("launches: auto", "launches: 2").replace(
    "methods: {dense: {}, threshold: {keep_ratio: 0.25}}",
    "methods: {dense: {}, threshold: {keep_ratio: 0.25}, skip_layers: {}}\nquality: {probes: [bits_per_byte], timeout_s: 77}",
)


@dataclass
class EvaluatingExecutor(ScriptedExecutor):
    """Answers quality jobs too; `broken` names a method whose evaluation gives no result."""

    broken: str = ""

    def run(self, job: Job, timeout_s: float) -> JobResult:
        if job.kind != "quality":
            return super().run(job, timeout_s)
        self.jobs.append(job)
        assert timeout_s == 77 and job.quality is not None
        if job.spec.method == self.broken:
            return JobResult(error="killed")
        return JobResult(quality=new_quality_record(job.spec, job.quality, "ok"))

    def evaluated(self) -> list[tuple[str, int]]:
        return [(job.spec.method, job.spec.point.workload["context"]) for job in self.jobs if job.kind == "quality"]


def run_with(tmp_path, executor, is_resumed=False, text=TEXT):
    runner = make_runner(tmp_path, executor, text, is_resumed)
    runner.run()
    return runner


def test_each_model_is_evaluated_once_whatever_the_cells_after_all_that_is_measured(tmp_path):
    executor = EvaluatingExecutor()
    runner = run_with(tmp_path, executor)
    assert executor.evaluated() == [("dense", 32), ("threshold", 32), ("skip_layers", 32)]
    assert [job.kind for job in executor.jobs][-4:] == ["launch", "quality", "quality", "quality"]
    rows = load_quality(runner.folder.path).rows
    assert len({row.work_id for row in rows}) == 3
    assert not {row.launch_id for row in rows} & set(runner.records)


def test_settings_that_make_another_model_are_evaluated_apart(tmp_path):
    text = TEXT.replace("workload.context: [8, 16, 32]", "methods.threshold.threshold_p: [0.4, 0.5]")
    executor = EvaluatingExecutor()
    run_with(tmp_path, executor, text=text)
    assert [method for method, _ in executor.evaluated()] == ["dense", "threshold", "skip_layers", "threshold"]


def test_without_the_key_nothing_is_evaluated(tmp_path):
    executor = EvaluatingExecutor()
    runner = run_with(tmp_path, executor, text=TEXT.replace("quality: {probes: [bits_per_byte], timeout_s: 77}", ""))
    assert executor.evaluated() == []
    assert not (runner.folder.path / QUALITY_FILE).exists()


def test_resume_evaluates_what_is_missing_and_nothing_again(tmp_path):
    runner = run_with(tmp_path, EvaluatingExecutor())
    path = runner.folder.path / QUALITY_FILE
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    executor = EvaluatingExecutor()
    run_with(tmp_path, executor, is_resumed=True)
    assert (executor.launches(), executor.evaluated()) == ([], [("skip_layers", 32)])
    again = EvaluatingExecutor()
    run_with(tmp_path, again, is_resumed=True)
    assert (again.evaluated(), again.servers) == ([], 0)


def test_a_resumed_run_that_asks_for_something_else_evaluates_anew(tmp_path):
    run_with(tmp_path, EvaluatingExecutor())
    executor = EvaluatingExecutor()
    runner = run_with(tmp_path, executor, True, TEXT.replace("timeout_s: 77", "timeout_s: 77, rows: 3"))
    assert executor.launches() == []
    assert len(executor.evaluated()) == len(load_quality(runner.folder.path).rows) == 3


def test_an_evaluation_that_fails_is_a_row_and_leaves_the_exit_code(tmp_path):
    runner = run_with(tmp_path, EvaluatingExecutor(broken="threshold"))
    found = {row.method: (row.status, row.error) for row in load_quality(runner.folder.path).rows}
    assert found == {"dense": ("ok", None), "threshold": ("failed", "killed"), "skip_layers": ("ok", None)}
    assert exit_code(runner.records.values(), num_unmet=0) == 0
    again = EvaluatingExecutor()
    run_with(tmp_path, again, is_resumed=True)
    assert again.evaluated() == [], "a failure counts as done"


def test_code_of_a_users_own_is_a_row_that_says_why_and_is_not_started(tmp_path):
    text = TEXT.replace("skip_layers: {}", 'own: {entry: "a.b:c"}')
    executor = EvaluatingExecutor()
    runner = make_runner(tmp_path, executor, text)
    runner.run()
    assert [method for method, _ in executor.evaluated()] == ["dense", "threshold"]
    row = load_quality(runner.folder.path).rows[-1]
    assert (row.method, row.status) == ("own", "not_evaluated")
    assert row.error == "entry: runs code of its own, whose model cannot be evaluated from here"
