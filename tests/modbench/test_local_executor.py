"""Whatever a child does, its job ends with a result and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modbench.errors import LaunchError, OutputError
from modbench.executors import local
from modbench.executors.local import LocalExecutor
from modbench.units import KIB, MIB
from tests.modbench.jobs import entry_job, make_job

LIMIT_S = 120.0


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    with LocalExecutor("fork", tmp_path_factory.mktemp("log") / "worker.log") as running:
        yield running


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_launches_of_one_server_run_in_fresh_processes(executor, tmp_path):
    first = executor.run(make_job(tmp_path, "dense"), LIMIT_S).record
    second = executor.run(make_job(tmp_path, "threshold"), LIMIT_S).record
    assert (first.status, second.status) == ("ok", "ok")
    assert not (tmp_path / "result.json").exists()


def test_a_hang_is_a_timeout_and_its_whole_process_tree_ends(executor, tmp_path):
    pid_file = tmp_path / "pid"
    record = executor.run(entry_job(tmp_path, "hangs_with_a_child", pid_file=str(pid_file)), 3.0).record
    assert (record.status, record.phase) == ("timeout", "build")
    assert "killed after 3 s in phase build: raise measure.timeout_s" in record.error
    assert record.metrics["peak_rss_bytes"] >= record.metrics["last_rss_bytes"] > 0
    assert not is_running(int(pid_file.read_text())), "a grandchild survived"


@pytest.mark.parametrize(
    ("start", "then", "status"),
    [("fork", "hang", "timeout"), ("fork", "die", "crashed"), ("fork", "return", "ok"), ("spawn", "hang", "timeout")],
)
def test_a_daemon_in_a_session_of_its_own_ends_with_its_job(executor, tmp_path, start, then, status):
    job = entry_job(tmp_path, "leaves_a_daemon", pid_file=str(tmp_path / "pid"), then=then)
    limit_s = (3.0 if start == "fork" else 15.0) if then == "hang" else LIMIT_S
    if start == "fork":
        record = executor.run(job, limit_s).record
    else:
        with LocalExecutor("spawn", tmp_path / "worker.log") as spawning:
            record = spawning.run(job, limit_s).record
    assert record.status == status
    assert not is_running(int((tmp_path / "pid").read_text())), "the daemon survived"


@pytest.mark.parametrize(
    ("signal_name", "text"),
    [("SIGSEGV", "ended by SIGSEGV in phase build"), ("SIGKILL", "killed by SIGKILL in phase build")],
)
def test_death_by_signal_is_a_crash_with_its_phase(executor, tmp_path, signal_name, text):
    record = executor.run(entry_job(tmp_path, "dies", signal=signal_name), LIMIT_S).record
    assert record.status == "crashed"
    assert text in record.error
    assert record.metrics["peak_rss_bytes"] > 100 * MIB, "torch alone is more"


def test_a_kill_that_the_kernel_counts_as_out_of_memory_is_oom(executor, tmp_path, monkeypatch):
    counts = iter([4, 5])
    monkeypatch.setattr(local, "oom_kill_count", lambda: next(counts))
    record = executor.run(entry_job(tmp_path, "dies", signal="SIGKILL"), LIMIT_S).record
    assert (record.status, record.phase) == ("oom", "build")
    assert "the kernel, out of memory, killed it in phase build (peak memory " in record.error


@pytest.mark.parametrize(("by", "step_bytes"), [("python", 8 * KIB), ("torch", 32 * MIB)])
def test_a_child_stops_at_its_memory_limit(executor, tmp_path, by, step_bytes):
    job = entry_job(tmp_path, "hoards", by=by, step_bytes=step_bytes, at_most_bytes=2048 * MIB)
    record = executor.run(job.model_copy(update={"memory_limit_bytes": 512 * MIB}), LIMIT_S).record
    assert (record.status, record.phase) == ("oom", "build")
    assert record.error.endswith(" (its memory limit: 512 MiB)")
    unlimited_peak = executor.run(make_job(tmp_path, "dense"), LIMIT_S).record.metrics["peak_rss_bytes"]
    assert record.metrics["peak_rss_bytes"] < unlimited_peak + 512 * MIB
    assert record.metrics["peak_rss_bytes"] > 384 * MIB


@pytest.mark.parametrize(
    ("signal_name", "status", "text"),
    [
        ("SIGABRT", "crashed", "ended by SIGABRT in phase build (peak memory "),
        ("SIGKILL", "oom", "the kernel, out of memory, killed it in phase build (peak memory "),
    ],
)
def test_death_near_the_memory_limit_says_so(executor, tmp_path, signal_name, status, text):
    options = {"by": "torch", "step_bytes": 32 * MIB, "at_most_bytes": 320 * MIB, "signal": signal_name}
    job = entry_job(tmp_path, "hoards", **options).model_copy(update={"memory_limit_bytes": 352 * MIB})
    record = executor.run(job, LIMIT_S).record
    assert record.status == status
    assert text in record.error
    assert "of a limit of 352 MiB" in record.error
    assert record.metrics["peak_rss_bytes"] > 317 * MIB


def test_an_exit_without_result_is_a_crash(executor, tmp_path):
    record = executor.run(entry_job(tmp_path, "exits"), LIMIT_S).record
    assert record.status == "crashed"
    assert "exit code 3 without a result" in record.error


def test_output_of_the_child_cannot_be_mistaken_for_the_protocol(executor, tmp_path):
    assert executor.run(entry_job(tmp_path, "chatters"), LIMIT_S).record.status == "ok"
    assert executor.run(make_job(tmp_path, "dense"), LIMIT_S).record.status == "ok"


@pytest.mark.parametrize(("factory", "start"), [("floods", "fork"), ("scribbles", "fork"), ("scribbles", "spawn")])
def test_garbage_from_the_child_changes_nothing(tmp_path, factory, start):
    with LocalExecutor(start, tmp_path / "worker.log") as running:
        assert running.run(entry_job(tmp_path, factory), LIMIT_S).record.status == "ok"
        assert running.run(make_job(tmp_path, "dense"), LIMIT_S).record.status == "ok"


def test_a_full_disk_in_the_child_is_no_result_of_the_launch(executor, tmp_path):
    with pytest.raises(OutputError, match="free some disk space and go on with --resume"):
        executor.run(entry_job(tmp_path, "writes_to_a_full_disk"), LIMIT_S)
    assert executor.run(make_job(tmp_path, "dense"), LIMIT_S).record.status == "ok"


def test_a_server_that_dies_is_an_error_and_leaves_nothing(tmp_path):
    with LocalExecutor("spawn", tmp_path / "worker.log") as running:
        running.run(entry_job(tmp_path, "absent", "guard"), LIMIT_S)
        os.kill(running._server._process.pid, signal.SIGKILL)
        with pytest.raises(LaunchError, match="launch server"):
            running.run(make_job(tmp_path, "dense"), LIMIT_S)


def test_a_job_that_a_dead_server_never_read_does_not_hide_its_error(tmp_path):
    with LocalExecutor("spawn", tmp_path / "worker.log") as running:
        running.run(entry_job(tmp_path, "absent", "guard"), LIMIT_S)
        os.kill(running._server._process.pid, signal.SIGKILL)
        running._server._process.wait()  # its end of the pipe is closed for sure
        with pytest.raises(LaunchError, match="launch server: it died"):
            running.run(make_job(tmp_path, "dense"), LIMIT_S)


def test_a_failed_guard_job_is_an_error_line(executor, tmp_path):
    result = executor.run(entry_job(tmp_path, "exits", "guard"), LIMIT_S)
    assert result.record is None
    assert "exit code 3" in result.error


def test_spawn_gives_the_same_record(tmp_path):
    with LocalExecutor("spawn", tmp_path / "worker.log") as spawning:
        record = spawning.run(make_job(tmp_path, "dense"), LIMIT_S).record
    assert record.status == "ok"


def test_nothing_survives_the_death_of_the_parent(tmp_path):
    pid_file = tmp_path / "pid"
    job = entry_job(tmp_path, "hangs_with_a_child", pid_file=str(pid_file))
    code = (
        "import sys; from pathlib import Path; from modbench.executors.local import LocalExecutor;"
        "from modbench.job import Job; job = Job.model_validate_json(sys.stdin.read());"
        f"executor = LocalExecutor('fork', Path({str(tmp_path / 'log')!r})).__enter__(); executor.run(job, 600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, text=True)
    parent.stdin.write(job.model_dump_json())
    parent.stdin.close()
    deadline = time.monotonic() + LIMIT_S
    while not pid_file.exists() or not pid_file.read_text():
        assert time.monotonic() < deadline, "the child did not start"
        time.sleep(0.05)
    launch = int(Path(f"/proc/{pid_file.read_text()}/stat").read_text().split()[3])  # parent of the grandchild
    parent.kill()
    parent.wait()
    while is_running(launch) or is_running(int(pid_file.read_text())):
        assert time.monotonic() < deadline, "a process outlived the run"
        time.sleep(0.05)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"), LocalExecutor("fork", tmp_path / "absent" / "log"):
        pytest.fail("opened")


def test_a_child_that_cannot_be_killed_is_a_timeout_row_and_the_next_job_gets_a_new_server(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "KILL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(local, "SERVER_END_TIMEOUT_S", 0.2)
    with LocalExecutor("fork", tmp_path / "worker.log") as executor:
        sound, executor._module = executor._module, ("tests.modbench.stuck_server",)
        record = executor.run(make_job(tmp_path, "dense"), 0.2).record
        assert (record.status, record.metrics["last_rss_bytes"] > 0) == ("timeout", True)
        executor._module = sound
        assert executor.run(make_job(tmp_path, "dense"), LIMIT_S).record.status == "ok"


def test_what_was_measured_is_kept_when_the_process_then_ends_badly(tmp_path, monkeypatch):
    job = entry_job(tmp_path, "dies_when_counted", signal="SIGKILL").model_copy(update={"counts_live_tensors": True})
    with LocalExecutor("fork", tmp_path / "worker.log") as executor:
        record = executor.run(job, LIMIT_S).record
    assert (record.status, len(record.samples.ttft_s)) == ("ok", 2)
    assert record.flags[-1] == "measured in full; its process then ended with exit code -9 in phase live tensors"
    assert "peak_live_bytes" not in record.metrics
