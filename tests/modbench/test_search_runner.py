"""Searches with an executor that answers at once: what is tried, in which order, resuming, records and exit codes."""

from pathlib import Path

import pytest

from modbench.analysis import summarise
from modbench.errors import OutputError
from modbench.job import Job, JobResult, failed_record
from modbench.plan import build_plan
from modbench.record import Record, read_records
from modbench.report.progress import QuietProgress
from modbench.run_folder import open_run_folder
from modbench.scenario import load_scenario
from modbench.search_plan import build_search_plan
from modbench.search_runner import SearchRunner, search_exit_code
from tests.modbench.test_runner import ScriptedExecutor

SCENARIO = """\
name: scripted
model: {preset: tiny, max_positions: 5000}
methods: {dense: {}, threshold: {keep_ratio: 0.25}}
workload: {context: {search: max, from: 512, resolution: 0.05}, batch: 1, new_tokens: 5, prompt: {synthetic: true}}
measure: {launches: 2, samples: 7, device: cpu}
"""


class Memory(ScriptedExecutor):
    """Holds `limits` tokens of all rows per method; `outcomes` replaces a (method, tokens, role) by a status."""

    def __init__(self, limits: dict[str, int], outcomes: dict | None = None) -> None:
        super().__init__()
        self.limits, self.outcomes = limits, outcomes or {}
        self.measures: list[dict] = []

    def run(self, job: Job, timeout_s: float) -> JobResult:
        if job.kind != "launch":
            return super().run(job, timeout_s)
        self.measures.append(job.spec.measure)
        workload = job.spec.point.workload
        tokens, role = workload["context"] * workload["batch"], job.spec.launch_id.rsplit("-", 1)[1]
        status = self.outcomes.get((job.spec.method, tokens, role.rstrip("0123456789")))
        if status is None and tokens > self.limits[job.spec.method]:
            status = "oom"
        if status == "interrupt":
            raise KeyboardInterrupt
        if status:
            self.jobs.append(job)
            return JobResult(record=failed_record(job, status, "prefill", f"scripted {status}", None))
        return super().run(job, timeout_s)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_runner(
    tmp_path: Path, executor: ScriptedExecutor, text: str = SCENARIO, is_resumed: bool = False
) -> SearchRunner:
    (tmp_path / "s.yaml").write_text(text)
    loaded = load_scenario(tmp_path / "s.yaml")
    folder = open_run_folder(loaded, tmp_path / "out", is_resumed, "modbench run s.yaml")
    return SearchRunner(loaded, folder, False, QuietProgress(), executor)


def steps(records, method: str) -> list[tuple[int, str, str]]:
    return [
        (record.point.workload["context"], record.trial.role, record.status)
        for record in records
        if record.method == method
    ]


def run(tmp_path: Path, executor: ScriptedExecutor, text: str = SCENARIO) -> list[Record]:
    runner = make_runner(tmp_path, executor, text)
    runner.run()
    assert read_records(tmp_path / "out") == list(runner.records.values()), "every trial is on disk"
    return list(runner.records.values())


def test_a_limit_is_searched_and_then_measured(tmp_path):
    records = run(tmp_path, Memory({"dense": 1500, "threshold": 2600}))
    assert steps(records, "dense") == [
        (512, "trial", "ok"),
        (1024, "trial", "ok"),
        (2048, "trial", "oom"),
        (1536, "trial", "oom"),
        (1280, "trial", "ok"),
        (1408, "trial", "ok"),
        (1472, "trial", "ok"),
        (1472, "limit", "ok"),
        (1472, "limit", "ok"),
    ]


def test_the_next_method_starts_where_dense_ended_and_assumes_nothing(tmp_path):
    records = run(tmp_path, Memory({"dense": 1500, "threshold": 1000}))
    assert steps(records, "threshold")[:3] == [(1472, "trial", "oom"), (736, "trial", "ok"), (1104, "trial", "oom")]
    (found,) = summarise(records).limits
    assert [limit.value for limit in found.limits] == [1472, 960]


def test_a_trial_is_one_sample_without_warm_up_and_the_limit_is_measured_as_the_scenario_says(tmp_path):
    executor = Memory({"dense": 1500, "threshold": 1500})
    run(tmp_path, executor)
    assert {(measure["samples"], measure["warmup"]) for measure in executor.measures} == {(1, 0), (7, "auto")}
    assert [measure["samples"] for measure in executor.measures].count(7) == 4


def test_auto_launches_are_two_at_the_limit(tmp_path):
    records = run(
        tmp_path, Memory({"dense": 1500, "threshold": 1500}), SCENARIO.replace("launches: 2", "launches: auto")
    )
    assert [role for _, role, _ in steps(records, "dense")].count("limit") == 2


def test_the_positions_of_the_model_end_a_search(tmp_path):
    records = run(tmp_path, Memory({"dense": 1500, "threshold": 10**9}))
    assert steps(records, "threshold")[-1] == (4995, "limit", "ok")
    (found,) = summarise(records).limits
    assert [limit.is_at_bound for limit in found.limits] == [False, True]
    assert found.is_complete


def test_a_launch_at_the_limit_that_does_not_fit_lowers_it(tmp_path):
    executor = Memory({"dense": 1500, "threshold": 1500}, {("dense", 1472, "limit"): "oom"})
    records = run(tmp_path, executor)
    assert steps(records, "dense")[-3:] == [(1472, "limit", "oom"), (1408, "limit", "ok"), (1408, "limit", "ok")]
    dense = summarise(records).limits[0].limits[0]
    assert (dense.value, dense.first_failing, dense.status) == (1408, 1472, "oom")


def test_invalid_trials_fit_and_are_flagged(tmp_path):
    outcomes = {("threshold", 1472, "trial"): "invalid"}
    summary = summarise(run(tmp_path, Memory({"dense": 1500, "threshold": 1500}, outcomes)))
    threshold = summary.limits[0].limits[1]
    assert (threshold.value, threshold.num_invalid) == (1472, 1)
    assert any("missed their keep ratio" in note.text and note.methods == ("threshold",) for note in summary.footnotes)


@pytest.mark.parametrize("status", ["timeout", "crashed"])
def test_timeouts_and_crashes_do_not_fit_and_say_so(tmp_path, status):
    outcomes = {("threshold", tokens, "trial"): status for tokens in (2944, 2208)}
    summary = summarise(run(tmp_path, Memory({"dense": 1500, "threshold": 2000}, outcomes)))
    threshold = summary.limits[0].limits[1]
    assert (threshold.value, threshold.first_failing) == (1920, 2016)
    assert threshold.status == "oom", "what counts is the smallest failing size"
    (tmp_path / "b").mkdir()
    outcomes = {("threshold", tokens, "trial"): status for tokens in range(1473, 5000)}
    summary = summarise(run(tmp_path / "b", Memory({"dense": 1500, "threshold": 9999}, outcomes)))
    assert summary.limits[0].limits[1].status == status
    assert any(f"ended as {status}" in note.text for note in summary.footnotes)


@pytest.mark.parametrize("status", ["failed", "unsupported"])
def test_a_failure_of_another_kind_ends_that_methods_search_only(tmp_path, status):
    executor = Memory({"dense": 1500, "threshold": 9999}, {("threshold", 2944, "trial"): status})
    records = run(tmp_path, executor)
    assert steps(records, "threshold") == [(1472, "trial", "ok"), (2944, "trial", status)]
    summary = summarise(records)
    assert [limit.value for limit in summary.limits[0].limits] == [1472, None]
    assert [failure.status for failure in summary.failures] == [status]
    assert search_exit_code(summary.limits, 0) == 5


def test_a_method_that_never_fits_is_exit_code_5_and_others_are_searched(tmp_path):
    records = run(tmp_path, Memory({"dense": 0, "threshold": 600}))
    assert steps(records, "dense")[-1] == (1, "trial", "oom")
    summary = summarise(records)
    dense, threshold = summary.limits[0].limits
    assert (dense.value, dense.first_failing) == (None, 1)
    assert (threshold.value, threshold.ratio) == (592, None)
    assert search_exit_code(summary.limits, 0) == 5


def test_exit_codes(tmp_path):
    limits = summarise(run(tmp_path, Memory({"dense": 1500, "threshold": 1500}))).limits
    assert search_exit_code(limits, 0) == 0
    assert search_exit_code(limits, 1) == 1
    assert search_exit_code((), 0) == 5


@pytest.mark.parametrize("status", ["invalid", "timeout"])
def test_launches_at_the_limit_without_numbers_leave_the_limit_and_are_exit_code_5(tmp_path, status):
    records = run(tmp_path, Memory({"dense": 1500, "threshold": 1500}, {("threshold", 1472, "limit"): status}))
    summary = summarise(records)
    assert summary.limits[0].limits[1].value == 1472, "more samples than a trial's may take longer than is allowed"
    assert [(failure.status, failure.count) for failure in summary.failures] == [(status, 2)]
    assert search_exit_code(summary.limits, 0) == 5


def test_an_interrupted_search_goes_on_where_it_stopped(tmp_path):
    (tmp_path / "whole").mkdir()
    limits = {"dense": 1500, "threshold": 2600}
    whole = run(tmp_path / "whole", Memory(limits))
    for interrupted_at in (("dense", 1280, "trial"), ("dense", 1472, "limit"), ("threshold", 2944, "trial")):
        folder = tmp_path / "-".join(str(part) for part in interrupted_at)
        folder.mkdir()
        with pytest.raises(KeyboardInterrupt):
            make_runner(folder, Memory(limits, {interrupted_at: "interrupt"})).run()
        num_before = len(read_records(folder / "out"))
        executor = Memory(limits)
        runner = make_runner(folder, executor, is_resumed=True)
        runner.run()
        records = list(runner.records.values())
        for method in ("dense", "threshold"):
            assert steps(records, method) == steps(whole, method)
        assert len(executor.launches()) == len(whole) - num_before, "nothing is run twice"


def test_a_finished_search_is_not_run_again(tmp_path):
    run(tmp_path, Memory({"dense": 1500, "threshold": 1500}))
    executor = Memory({"dense": 1500, "threshold": 1500})
    make_runner(tmp_path, executor, is_resumed=True).run()
    assert executor.launches() == []


def test_a_finer_resolution_continues_and_other_methods_are_refused(tmp_path):
    run(tmp_path, Memory({"dense": 1500, "threshold": 1500}))
    executor = Memory({"dense": 1500, "threshold": 1500})
    finer = SCENARIO.replace("from: 512, resolution: 0.05", "from: 64, resolution: 0.01")
    make_runner(tmp_path, executor, finer, is_resumed=True).run()
    assert executor.launches()[0] == ("dense", 1504, 0)
    with pytest.raises(OutputError, match="changed since this run was started"):
        make_runner(tmp_path, executor, SCENARIO.replace("0.25", "0.5"), is_resumed=True).run()


def test_every_cell_has_its_own_search(tmp_path):
    records = run(tmp_path, Memory({"dense": 2000, "threshold": 2000}), SCENARIO + "matrix: {workload.batch: [1, 2]}\n")
    found = summarise(records).limits
    assert [item.cell.axes for item in found] == [{"workload.batch": 1}, {"workload.batch": 2}]
    assert [item.limits[0].value for item in found] == [1984, 992]


def test_the_batch_is_searched_to_the_row(tmp_path):
    text = SCENARIO.replace(
        "context: {search: max, from: 512, resolution: 0.05}, batch: 1", "context: 100, batch: {search: max}"
    )
    summary = summarise(run(tmp_path, Memory({"dense": 1150, "threshold": 1900}), text))
    assert [(limit.value, limit.first_failing) for limit in summary.limits[0].limits] == [(11, 12), (19, 20)]
    assert summary.limits[0].limits[1].ratio == pytest.approx(19 / 11)


def test_trials_enter_no_comparison(tmp_path):
    summary = summarise(run(tmp_path, Memory({"dense": 1500, "threshold": 2600})))
    assert summary.cells == ()
    assert all(row.speedups == {} and row.num_launches == 2 for row in summary.limits[0].cell.rows)
    assert summary.failures == (), "running out of memory is what a search looks for"


def test_a_trials_work_has_the_identity_of_the_same_work_in_a_matrix(tmp_path):
    (tmp_path / "s.yaml").write_text(SCENARIO)
    (tmp_path / "m.yaml").write_text(SCENARIO.replace("{search: max, from: 512, resolution: 0.05}", "1024"))
    plan = build_search_plan(load_scenario(tmp_path / "s.yaml"), "run", "cpu")
    plain = build_plan(load_scenario(tmp_path / "m.yaml"), "run", "cpu").cells[0]
    first, second = plan.trial(0, 0, 1024).spec, plan.trial(0, 0, 2048).spec
    assert first.point_id == plain.methods[0].point_id != second.point_id
    assert first.point.cell_id == second.point.cell_id != plain.cell_id
    assert (
        len({first.launch_id, second.launch_id, *(launch.spec.launch_id for launch in plan.at_limit(0, 0, 1024))}) == 4
    )


def test_every_method_is_guarded_once_at_the_first_size(tmp_path):
    executor = Memory({"dense": 1500, "threshold": 2600})
    records = run(tmp_path, executor)
    guards = [(job.spec.method, job.spec.point.workload["context"]) for job in executor.jobs if job.kind == "guard"]
    assert guards == [("dense", 512), ("threshold", 512)]
    assert all(record.guard == {"causal": "passed"} for record in records)


def test_every_launch_at_a_limit_has_a_new_server(tmp_path):
    executor = Memory({"dense": 1500, "threshold": 2600})
    run(tmp_path, executor)
    assert executor.servers == 4


def test_a_resumed_search_goes_on_in_the_memory_that_it_began_with(tmp_path):
    limits = {"dense": 700, "threshold": 900}  # dense: 512 fits, 1,024 and 768 do not, then 640 is tried
    first = make_runner(tmp_path, Memory(limits, {("dense", 640, "trial"): "interrupt"}))
    first.free_memory_bytes = 48 * 2**20
    with pytest.raises(KeyboardInterrupt):
        first.run()
    resumed = make_runner(tmp_path, Memory(limits), is_resumed=True)
    resumed.free_memory_bytes = 96 * 2**20
    resumed.run()
    launches = [job for job in resumed.executor.jobs if job.kind == "launch"]
    assert {job.memory_limit_bytes for job in launches} == {48 * 2**20}
    poorer = make_runner(tmp_path, Memory(limits), is_resumed=True)
    poorer.free_memory_bytes = 24 * 2**20
    with pytest.raises(OutputError, match=r"began with 48.0 MiB of memory and finds 24.0 MiB now"):
        poorer.run()
