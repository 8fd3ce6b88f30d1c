"""The runner's decisions, with an executor that answers at once: looks, new servers, guards, pruning, resuming."""

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modbench.errors import OutputError, UnsupportedError
from modbench.job import GuardReport, Job, JobResult, Probe, failed_record
from modbench.record import Record, Samples, append_record
from modbench.report.progress import QuietProgress
from modbench.run_folder import claim_work, locked, open_run_folder, read_run_file
from modbench.runner import RESUMED_FLAG, Runner, exit_code, run_scenario
from modbench.scenario import load_scenario

SCENARIO = """\
name: scripted
model: {preset: tiny}
methods: {dense: {}, threshold: {keep_ratio: 0.25}}
workload: {context: 8, new_tokens: 5, prompt: {synthetic: true}}
measure: {launches: auto, device: cpu}
matrix: {workload.context: [8, 16, 32]}
"""
PROBE = Probe(
    device="cpu",
    device_kind="cpu",
    environment={"versions": {}, "machine": {"fingerprint": "f"}},
    ceilings={"copy_bytes_per_s": 1e9, "matmul_flops_per_s": 1e9},
)


@dataclass
class ScriptedExecutor:
    """Dense takes 1 s, threshold what `ratio(context, quad)` says; `statuses` replaces results by failures."""

    ratio: object = lambda context, quad: 0.5
    statuses: dict = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    servers: int = 0

    def renew(self) -> None:
        self.servers += 1

    def run(self, job: Job, timeout_s: float) -> JobResult:
        self.jobs.append(job)
        if job.kind == "probe":
            return JobResult(probe=PROBE)
        if job.kind == "guard":
            return JobResult(guard=GuardReport(identities={"causal": "passed"}))
        spec = job.spec
        context = spec.point.workload["context"]
        status = self.statuses.get((spec.method, context))
        if status:
            return JobResult(record=failed_record(job, status, "prefill", "scripted", None))
        seconds = 1.0 if spec.method == "dense" else self.ratio(context, spec.pair.quad)
        fields = {
            name: getattr(spec, name) for name in ("launch_id", "run_id", "point_id", "method", "kind", "point", "pair")
        }
        samples = Samples(ttft_s=[seconds] * 5, tpot_s=[seconds] * 5)
        return JobResult(record=Record(status="ok", phase="done", samples=samples, guard=job.guard, **fields))

    def launches(self) -> list[tuple[str, int, int]]:
        return [
            (job.spec.method, job.spec.point.workload["context"], job.spec.pair.quad)
            for job in self.jobs
            if job.kind == "launch"
        ]


def make_runner(tmp_path: Path, executor: ScriptedExecutor, text: str = SCENARIO, is_resumed: bool = False) -> Runner:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "s.yaml").write_text(text)
    loaded = load_scenario(tmp_path / "s.yaml")
    folder = open_run_folder(loaded, tmp_path / "out", is_resumed, "modbench run s.yaml")
    return Runner(loaded, folder, False, QuietProgress(), executor)


def quads_per_context(executor: ScriptedExecutor) -> dict[int, int]:
    quads: dict[int, set[int]] = {}
    for _, context, quad in executor.launches():
        quads.setdefault(context, set()).add(quad)
    return {context: len(found) for context, found in quads.items()}


def test_a_clear_answer_stops_at_the_first_look_that_holm_allows(tmp_path):
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor).run()
    assert quads_per_context(executor) == {8: 6, 16: 6, 32: 6}, "six comparisons need 12 pairs each"


def test_one_comparison_pair_is_decided_at_8_pairs(tmp_path):
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor, SCENARIO.replace("[8, 16, 32]", "[8]")).run()
    assert quads_per_context(executor) == {8: 4}


def test_only_undecided_cells_get_another_look(tmp_path):
    executor = ScriptedExecutor(ratio=lambda context, quad: 0.5 if context == 8 else (0.9, 1.1)[quad % 2])
    make_runner(tmp_path, executor, SCENARIO.replace("[8, 16, 32]", "[8, 16]")).run()
    assert quads_per_context(executor) == {8: 6, 16: 10}


def test_every_quad_gets_a_new_server_and_every_model_one_guard(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor, SCENARIO.replace("launches: auto", "launches: 4")).run()
    assert executor.servers == 6
    guards = [job.spec.method for job in executor.jobs if job.kind == "guard"]
    assert sorted(guards) == ["dense", "threshold"], "context does not change the model that is guarded"


def test_live_tensors_are_counted_in_the_first_quad_alone(tmp_path):
    executor = ScriptedExecutor()
    make_runner(
        tmp_path, executor, SCENARIO.replace("launches: auto", "launches: 4").replace("[8, 16, 32]", "[8]")
    ).run()
    launches = [job for job in executor.jobs if job.kind == "launch"]
    assert [job.counts_live_tensors for job in launches] == [job.spec.pair.quad == 0 for job in launches]
    assert any(job.counts_live_tensors for job in launches)


def test_a_failed_point_prunes_its_rest_and_larger_points_of_that_method_only(tmp_path):
    executor = ScriptedExecutor(statuses={("threshold", 16): "oom"})
    runner = make_runner(tmp_path, executor, SCENARIO.replace("launches: auto", "launches: 2"))
    runner.run()
    statuses: dict[tuple[str, int], list[str]] = {}
    for record in runner.records.values():
        statuses.setdefault((record.method, record.point.workload["context"]), []).append(record.status)
    assert statuses[("threshold", 8)] == ["ok", "ok"]
    assert statuses[("threshold", 16)] == ["oom", "pruned"]
    assert statuses[("threshold", 32)] == ["pruned", "pruned"]
    assert all(statuses[("dense", context)] == ["ok", "ok"] for context in (8, 16, 32))
    reasons = {record.error for record in runner.records.values() if record.status == "pruned"}
    assert "the smaller point (context 16) ended as oom in prefill" in reasons


def test_resume_runs_what_is_missing_and_flags_torn_quads(tmp_path):
    text = SCENARIO.replace("launches: auto", "launches: 2")
    make_runner(tmp_path, ScriptedExecutor(), text).run()
    path = tmp_path / "out" / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))
    executor = ScriptedExecutor()
    runner = make_runner(tmp_path, executor, text, is_resumed=True)
    runner.run()
    assert executor.launches() == [("threshold", 16, 0), ("dense", 16, 0)] + [
        (method, 32, 0) for method in ("dense", "threshold", "threshold", "dense")
    ]
    flagged = [record for record in runner.records.values() if RESUMED_FLAG in record.flags]
    assert [record.point.workload["context"] for record in flagged] == [16, 16]


def test_a_failed_launch_on_disk_is_a_result_and_not_tried_again(tmp_path):
    text = SCENARIO.replace("launches: auto", "launches: 2").replace("[8, 16, 32]", "[8]")
    make_runner(tmp_path, ScriptedExecutor(statuses={("threshold", 8): "failed"}), text).run()
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor, text, is_resumed=True).run()
    assert executor.launches() == []


def test_an_absent_device_is_the_users_error(tmp_path):
    class NoDevice(ScriptedExecutor):
        def run(self, job, timeout_s):
            return JobResult(error="UnsupportedError: device: got cuda; this machine has no CUDA device")

    with pytest.raises(UnsupportedError, match="no CUDA device"):
        make_runner(tmp_path, NoDevice()).run()


def test_exit_codes(tmp_path):
    runner = make_runner(tmp_path, ScriptedExecutor(), SCENARIO.replace("launches: auto", "launches: 1"))
    runner.run()
    records = list(runner.records.values())
    assert exit_code(records, num_unmet=0) == 0
    assert exit_code(records, num_unmet=1) == 1
    assert exit_code([records[0].model_copy(update={"status": "invalid"}), *records[1:]], num_unmet=1) == 5
    assert exit_code([], num_unmet=0) == 5


def test_records_of_another_plan_in_the_folder_are_left_alone(tmp_path):
    text = SCENARIO.replace("launches: auto", "launches: 1").replace("[8, 16, 32]", "[8]")
    runner = make_runner(tmp_path, ScriptedExecutor(), text)
    runner.run()
    stranger = next(iter(runner.records.values())).model_copy(update={"launch_id": "of-another-machine"})
    append_record(runner.folder.records_path, stranger)
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor, text, is_resumed=True).run()
    assert executor.launches() == []
    assert "of-another-machine" in runner.folder.records_path.read_text()


def test_a_guard_that_did_not_finish_is_tried_again_in_the_next_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    class GuardDies(ScriptedExecutor):
        def run(self, job, timeout_s):
            return JobResult(error="killed") if job.kind == "guard" else super().run(job, timeout_s)

    text = SCENARIO.replace("launches: auto", "launches: 1").replace("[8, 16, 32]", "[8]")
    runner = make_runner(tmp_path / "a", GuardDies(), text)
    runner.run()
    assert {record.guard["guard_ran"] for record in runner.records.values()} == {"failed"}
    runner = make_runner(tmp_path / "b", ScriptedExecutor(), text)
    runner.run()
    assert {record.guard["causal"] for record in runner.records.values()} == {"passed"}


def test_guards_run_before_the_first_launch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor, SCENARIO.replace("launches: auto", "launches: 1")).run()
    kinds = [job.kind for job in executor.jobs]
    assert kinds == ["probe", "guard", "guard"] + ["launch"] * 6


def test_a_failure_on_disk_prunes_larger_points_after_resume(tmp_path):
    text = SCENARIO.replace("launches: auto", "launches: 2")
    make_runner(tmp_path, ScriptedExecutor(statuses={("threshold", 8): "timeout"}), text).run()
    path = tmp_path / "out" / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))  # dense ok, threshold timed out
    executor = ScriptedExecutor()
    make_runner(tmp_path, executor, text, is_resumed=True).run()
    assert {method for method, _, _ in executor.launches()} == {"dense"}


@pytest.mark.parametrize(("written", "host_bytes"), [("auto", 5_000_000_000), ("2 GiB", 2**31)])
def test_every_job_has_a_memory_limit_and_every_record_says_which(tmp_path, monkeypatch, written, host_bytes):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    executor = ScriptedExecutor()
    text = SCENARIO.replace("launches: auto", f"launches: 1, memory_limit: {written}")
    runner = make_runner(tmp_path, executor, text)
    runner.free_memory_bytes = 5_000_000_000
    runner.run()
    limits = {(job.kind, job.memory_limit_bytes) for job in executor.jobs}
    assert limits == {("probe", 5_000_000_000), ("guard", host_bytes), ("launch", host_bytes)}
    assert all(job.environment["memory_limit_bytes"] == host_bytes for job in executor.jobs if job.kind == "launch")


def test_a_refused_second_run_leaves_the_files_of_the_first(tmp_path):
    runner = make_runner(tmp_path, ScriptedExecutor())
    result = runner.folder.path / ".job.result.json"
    result.write_text("{}")
    with locked(runner.folder), pytest.raises(OutputError, match="another modbench run"):
        run_scenario(runner.loaded, runner.folder, False, QuietProgress())
    assert result.exists()


def test_facts_that_cannot_be_written_leave_the_old_ones(tmp_path, monkeypatch):
    folder = make_runner(tmp_path, ScriptedExecutor()).folder
    before = (folder.path / "run.json").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="free some disk space"):
        claim_work(folder, "work")
    assert (folder.path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("threshold: {keep_ratio: 0.25}}", "threshold: {keep_ratio: 0.25}, skip_layers: {}}"),
        ("keep_ratio: 0.25", "keep_ratio: 0.5"),
        ("device: cpu", "device: cpu, samples: 9"),
        ("[8, 16, 32]", "[8, 16]"),
    ],
)
def test_resume_refuses_other_work(tmp_path, old, new):
    text = SCENARIO.replace("launches: auto", "launches: 1")
    make_runner(tmp_path, ScriptedExecutor(), text).run()
    before = {name: (tmp_path / "out" / name).read_text() for name in ("run.json", "scenario.yaml", "records.jsonl")}
    with pytest.raises(OutputError, match="changed since this run was started"):
        make_runner(tmp_path, ScriptedExecutor(), text.replace(old, new), is_resumed=True).run()
    assert {name: (tmp_path / "out" / name).read_text() for name in before} == before, "a refused try changes nothing"


def test_resume_takes_the_expectations_of_today(tmp_path):
    text = SCENARIO.replace("launches: auto", "launches: 1")
    make_runner(tmp_path, ScriptedExecutor(), text).run()
    changed = text + 'expect: ["threshold.ttft_s <= 1"]\n'
    make_runner(tmp_path, ScriptedExecutor(), changed, is_resumed=True).run()
    assert read_run_file(tmp_path / "out")["expect"] == ["threshold.ttft_s <= 1"]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    runner = make_runner(tmp_path, ScriptedExecutor())
    with locked(runner.folder), pytest.raises(OutputError, match="another modbench run"), locked(runner.folder):
        pytest.fail("locked twice")


def test_damaged_run_files_are_one_line(tmp_path):
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(OutputError, match="has no run_id"):
        read_run_file(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(OutputError, match="not readable as JSON"):
        read_run_file(tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(OutputError, match=r"no run there \(run\.json is missing\)"):
        read_run_file(tmp_path)
    (tmp_path / "records.jsonl").touch()
    with pytest.raises(OutputError, match=r"records\.jsonl: it is a file; expected the folder of a modbench run"):
        read_run_file(tmp_path / "records.jsonl")
