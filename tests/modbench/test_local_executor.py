"""Whatever a child does, its job ends with a result and nothing is left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modbench.errors import OutputError
from modbench.executors.local import LocalExecutor
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
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


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
    assert record.metrics["last_rss_bytes"] > 0
    deadline = time.monotonic() + 10
    while is_running(int(pid_file.read_text())):
        assert time.monotonic() < deadline, "a grandchild survived"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("signal_name", "text"),
    [("SIGSEGV", "ended by SIGSEGV in phase build"), ("SIGKILL", "the kernel was out of memory")],
)
def test_death_by_signal_is_a_crash_with_its_phase(executor, tmp_path, signal_name, text):
    record = executor.run(entry_job(tmp_path, "dies", signal=signal_name), LIMIT_S).record
    assert record.status == "crashed"
    assert text in record.error


def test_an_exit_without_result_is_a_crash(executor, tmp_path):
    record = executor.run(entry_job(tmp_path, "exits"), LIMIT_S).record
    assert record.status == "crashed"
    assert "exit code 3 without a result" in record.error


def test_output_of_the_child_cannot_be_mistaken_for_the_protocol(executor, tmp_path):
    assert executor.run(entry_job(tmp_path, "chatters"), LIMIT_S).record.status == "ok"
    assert executor.run(make_job(tmp_path, "dense"), LIMIT_S).record.status == "ok"


def test_a_failed_guard_job_is_an_error_line(executor, tmp_path):
    result = executor.run(entry_job(tmp_path, "exits", "guard"), LIMIT_S)
    assert result.record is None
    assert "exit code 3" in result.error


def test_spawn_gives_the_same_record_and_ends_a_hang(tmp_path):
    with LocalExecutor("spawn", tmp_path / "worker.log") as spawning:
        assert spawning.run(make_job(tmp_path, "dense"), LIMIT_S).record.status == "ok"
        hang = entry_job(tmp_path, "hangs_with_a_child", pid_file=str(tmp_path / "pid"))
        record = spawning.run(hang, 12.0).record
    assert record.status == "timeout"


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
    while is_running(launch):
        assert time.monotonic() < deadline, "the launch outlived the run"
        time.sleep(0.05)
    os.kill(int(pid_file.read_text()), signal.SIGKILL)  # a process that user code forks is the user's own


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"), LocalExecutor("fork", tmp_path / "absent" / "log"):
        pytest.fail("opened")
