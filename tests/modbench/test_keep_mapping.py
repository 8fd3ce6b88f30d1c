"""Which methods of a run are mapped, where and when: with an executor that answers at once."""

from dataclasses import dataclass

from modbench.job import Job, JobResult
from modbench.keep_map_record import load_keep_maps, new_keep_map_record
from modbench.record import RANDOM_ROUTER, KeepRatios
from modbench.runner import exit_code
from tests.modbench.test_runner import SCENARIO, ScriptedExecutor, make_runner

TEXT = SCENARIO.replace("launches: auto", "launches: 2").replace(
    "methods: {dense: {}, threshold: {keep_ratio: 0.25}}",
    "methods: {dense: {}, threshold: {keep_ratio: 0.25}, topk: {capacity: 0.25}, skip_layers: {}}",
)
KEEP = {
    "dense": [1.0, 1.0, 1.0, 1.0],
    "threshold": [1.0, 0.25, 1.0, 0.25],
    "topk": [1.0, 0.25, 1.0, 0.25],
    "skip_layers": [1.0, 0.0, 1.0, 0.0],
}
MAPPED = [("threshold", 32), ("topk", 32)]


@dataclass
class MappingExecutor(ScriptedExecutor):
    """Answers keep map jobs too; `broken` names a method whose launch for a map gives no result."""

    broken: str = ""

    def run(self, job: Job, timeout_s: float) -> JobResult:
        if job.kind == "keep_map":
            self.jobs.append(job)
            is_broken = job.spec.method == self.broken
            return JobResult(error="killed") if is_broken else JobResult(keep_map=new_keep_map_record(job.spec))
        result = super().run(job, timeout_s)
        if result.record is not None and result.record.status == "ok":
            result.record.keep_ratio = KeepRatios(prefill=KEEP[job.spec.method])
            result.record.flags = [RANDOM_ROUTER] if job.spec.method == "threshold" else []
        return result

    def mapped(self) -> list[tuple[str, int]]:
        return [(job.spec.method, job.spec.point.workload["context"]) for job in self.jobs if job.kind == "keep_map"]


def mapped_run(tmp_path, executor, is_resumed=False, text=TEXT):
    runner = make_runner(tmp_path, executor, text, is_resumed)
    runner.is_mapped = True
    runner.run()
    return runner


def test_each_routed_method_is_mapped_once_at_its_longest_context_after_all_that_is_measured(tmp_path):
    executor = MappingExecutor()
    runner = mapped_run(tmp_path, executor)
    assert executor.mapped() == MAPPED
    assert [job.kind for job in executor.jobs][-3:] == ["launch", "keep_map", "keep_map"]
    rows = load_keep_maps(runner.folder.path).rows
    assert [(row.method, row.context, row.router) for row in rows] == [
        ("threshold", 32, RANDOM_ROUTER),
        ("topk", 32, None),
    ]
    assert not {row.launch_id for row in rows} & set(runner.records)


def test_of_cells_with_the_same_context_the_first_is_mapped(tmp_path):
    executor = MappingExecutor()
    mapped_run(tmp_path, executor, text=TEXT.replace("workload.context: [8, 16, 32]", "workload.batch: [2, 1, 4]"))
    assert [job.spec.point.workload["batch"] for job in executor.jobs if job.kind == "keep_map"] == [2, 2]


def test_without_the_option_nothing_is_mapped(tmp_path):
    executor = MappingExecutor()
    runner = make_runner(tmp_path, executor, TEXT)
    runner.run()
    assert executor.mapped() == []
    assert not (runner.folder.path / "keep_maps.jsonl").exists()


def test_where_the_longest_context_failed_the_next_one_is_mapped(tmp_path):
    executor = MappingExecutor(statuses={("threshold", 32): "oom"})
    mapped_run(tmp_path, executor)
    assert executor.mapped() == [("threshold", 16), ("topk", 32)]


def test_resume_maps_what_is_missing_and_nothing_again(tmp_path):
    runner = mapped_run(tmp_path, MappingExecutor())
    path = runner.folder.path / "keep_maps.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    executor = MappingExecutor()
    mapped_run(tmp_path, executor, is_resumed=True)
    assert (executor.launches(), executor.mapped()) == ([], MAPPED[1:])
    again = MappingExecutor()
    mapped_run(tmp_path, again, is_resumed=True)
    assert (again.mapped(), again.servers) == ([], 0)


def test_a_launch_that_fails_is_a_row_and_leaves_the_exit_code(tmp_path):
    runner = mapped_run(tmp_path, MappingExecutor(broken="topk"))
    errors = {(row.method, row.error) for row in load_keep_maps(runner.folder.path).rows}
    assert errors == {("threshold", None), ("topk", "killed")}
    assert exit_code(runner.records.values(), num_unmet=0) == 0
