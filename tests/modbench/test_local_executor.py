"""Whatever a child does, its job ends with a result and nothing is left running."""

import os
import time
from pathlib import Path

import pytest

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
