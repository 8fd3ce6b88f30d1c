"""Whatever a program that measures itself does, its launch is a record: with its numbers, or with one line about what happened."""

import json
import sys
from pathlib import Path

import pytest

from modbench import worker
from modbench.executors.local import LocalExecutor
from modbench.job import JobResult
from modbench.methods.base import IDENTITIES
from modbench.record import Record
from modbench.units import MIB
from tests.modbench.engines import command_job
from tests.modbench.jobs import make_job
from tests.modbench.test_local_executor import is_running

LIMIT_S = 120.0
NEEDS_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits private memory")


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    with LocalExecutor("fork", tmp_path_factory.mktemp("log") / "worker.log") as running:
        yield running


def launch(folder: Path, change: str = "", **settings: object) -> Record:
    record = worker.do_job(command_job(folder, change, **settings)).record
    assert record is not None
    Record.model_validate_json(record.model_dump_json())
    return record


def noted(folder: Path, expression: str, **settings: object) -> object:
    """What an engine finds where it runs, through a file of its own."""
    path = folder / "noted.json"
    record = launch(folder, f"open({str(path)!r}, 'w').write(json.dumps({expression}))", **settings)
    assert record.status == "ok", record.error
    return json.loads(path.read_text())


def test_an_answer_becomes_a_record(tmp_path):
    change = """
answer["metrics"] = {"kv_cache_bytes": 7, "num_warmups": 3, "perplexity": 8.5}
answer["keep_ratio"] = {"prefill": [1, 0.5, 1, 0.5]}
answer["flags"] = ["sampled"]
answer["attention_path"] = "paged"
answer["environment"] = {"engine": "3.1"}
"""
    record = launch(tmp_path, change)
    assert (record.status, record.phase, record.kind, record.error) == ("ok", "done", "command", None)
    assert record.samples.ttft_s == [2e-5, 2e-5]
    assert len(record.samples.itl_s) == 2 * 16
    assert (record.metrics["kv_cache_bytes"], record.metrics["num_warmups"]) == (7, 3)
    assert record.metrics["perplexity"] == 8.5
    assert record.keep_ratio.prefill == [1, 0.5, 1, 0.5]
    assert record.keep_ratio.decode == []
    assert record.flags == ["sampled"]
    assert record.environment["attention_path"] == "paged"
    assert record.environment["program"]["facts"] == {"engine": "3.1"}
    assert (
        record.environment["tokens_sha256"]
        == worker.do_job(make_job(tmp_path, "dense")).record.environment["tokens_sha256"]
    )


def test_its_memory_is_its_own_and_not_that_of_the_worker_that_started_it(tmp_path):
    assert 0 < launch(tmp_path).metrics["peak_rss_bytes"] < 100 * MIB, "torch alone is more"
    assert launch(tmp_path, "block = b'x' * (150 << 20)").metrics["peak_rss_bytes"] > 150 * MIB
    assert launch(tmp_path, "answer['metrics'] = {'peak_rss_bytes': 5}").metrics["peak_rss_bytes"] == 5


def test_the_ids_are_those_of_every_method_and_are_removed(tmp_path):
    read = "(lambda tokens: [tokens, list(__import__('array').array('i', open(tokens['path'], 'rb').read()))])"
    tokens, ids = noted(tmp_path, f"{read}(request['tokens'])")
    assert tokens["shape"] == [2, 80]
    assert (len(ids), min(ids) >= 0, max(ids) < 300) == (160, True, True)
    assert not Path(tokens["path"]).exists()
    assert not list(tmp_path.glob("*.outcome"))


def test_it_runs_where_modbench_was_started_with_its_threads_and_variables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MINE"]
    expression = f"[os.getcwd(), [os.environ.get(name) for name in {names}], request['point']['settings']['options']]"
    found = noted(tmp_path, expression, env={"MINE": "yes"}, options={"depth": 2})
    assert found == [str(tmp_path), ["1", "1", "yes"], {"depth": 2}]


FAILURES = {
    "an exception": ("raise RuntimeError('a mistake')", "failed", "exit code 1: RuntimeError: a mistake"),
    "an exit code": ("sys.exit(3)", "failed", "exit code 3, with nothing on standard error"),
    "a signal": ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "ended by SIGSEGV (peak memory "),
    "a kill": ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "ended by SIGKILL"),
    "a kill of its relay": ("os.kill(os.getppid(), signal.SIGKILL)", "crashed", "it was killed from outside"),
    "silence": ("sys.exit(0)", "failed", "no answer on standard output, though it ended with exit code 0"),
    "garbage": ("print('one\\ntwo'); print(); sys.exit()", "failed", "answer: got 'two', which is no JSON"),
    "no text": ("os.write(1, bytes(range(128, 256))); sys.exit()", "failed", "which is no JSON"),
    "a flood": (
        "os.write(1, b'x' * (17 << 20))",
        "failed",
        "got 17.0 MiB on standard output; expected at most 16.0 MiB",
    ),
    "too few samples": ("samples['ttft_s'].pop()", "failed", "samples.ttft_s: got 1 values; expected 2"),
    "NaN": ("samples['ttft_s'][0] = float('nan')", "failed", "which is no JSON"),
    "infinity": ("samples['tpot_s'][0] = 1e999", "failed", "which is no JSON"),
    "a negative time": ("samples['ttft_s'][1] = -1", "failed", "samples.ttft_s.1: Input should be greater than 0"),
    "milliseconds": (
        "samples.update(ttft_s=[20000.0] * 2, tpot_s=[1000.0] * 2, itl_s=[])",
        "failed",
        "expected seconds",
    ),
    "a number of its own": ("answer['speed'] = 1", "failed", "speed: Extra inputs are not permitted"),
    "other work": ("answer['num_prompt_tokens'] = 1", "invalid", "other work: num_prompt_tokens: got 1; expected 128"),
    "a refusal": (
        "answer = {'protocol_version': 1, 'status': 'unsupported', 'error': 'no such card'}",
        "unsupported",
        "no such card",
    ),
    "a refusal for memory": ("answer = {'protocol_version': 1, 'status': 'oom', 'error': 'full'}", "oom", "full"),
    "memory that it could not have": ("raise MemoryError", "oom", "exit code 1: MemoryError"),
}


@pytest.mark.parametrize(("change", "status", "text"), FAILURES.values(), ids=FAILURES)
def test_what_goes_wrong_is_a_record_with_one_line(tmp_path, change, status, text):
    record = launch(tmp_path, change)
    assert record.status == status
    assert text in record.error
    assert record.error.isprintable()
    assert record.samples.ttft_s == [] or status == "invalid"


def test_what_is_printed_before_the_answer_goes_to_the_log(executor, tmp_path):
    change = "print('loading weights'); os.write(1, b'\\xff\\n'); sys.stdout.flush(); sys.stderr.write('a warning\\n')"
    assert executor.run(command_job(tmp_path, change), LIMIT_S).record.status == "ok"
    log = executor._log_path.read_bytes()
    assert b"loading weights" in log
    assert b"a warning" in log


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["./absent", "--flag"], "methods.command.command: ./absent: not there, or not executable"),
        (["./plain.txt"], "methods.command.command: ./plain.txt: cannot be executed: Exec format error"),
    ],
)
def test_a_program_that_cannot_be_started_is_unsupported(tmp_path, monkeypatch, command, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.txt").write_text("no program")
    (tmp_path / "plain.txt").chmod(0o755)
    record = launch(tmp_path, command=command)
    assert record.status == "unsupported"
    assert text in record.error


def test_a_hang_is_a_timeout_and_its_whole_process_tree_ends(executor, tmp_path):
    pids = tmp_path / "pids"
    change = f"""
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(pids)!r}, "w").write(str(os.getpid()) + " " + str(child.pid))
time.sleep(600)
"""
    record = executor.run(command_job(tmp_path, change), 4.0).record
    assert (record.status, record.phase) == ("timeout", "command")
    assert not [pid for pid in pids.read_text().split() if is_running(int(pid))]


def test_what_it_leaves_behind_holds_its_output_open_and_ends_with_its_launch(executor, tmp_path):
    pid_file = tmp_path / "pid"
    change = f"""
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
open({str(pid_file)!r}, "w").write(str(child.pid))
"""
    record = executor.run(command_job(tmp_path, change), LIMIT_S).record
    assert record.status == "ok", record.error
    assert not is_running(int(pid_file.read_text()))


@NEEDS_LINUX
def test_the_memory_limit_is_put_on_the_program(tmp_path):
    job = command_job(tmp_path, "block = b'x' * (200 << 20)")
    assert worker.do_job(job.model_copy(update={"memory_limit_bytes": 512 * MIB})).record.status == "ok"
    record = worker.do_job(job.model_copy(update={"memory_limit_bytes": 128 * MIB})).record
    assert (record.status, record.error) == ("oom", "exit code 1: MemoryError")
    told = command_job(tmp_path, "assert request['memory_limit_bytes'] == 512 << 20")
    assert worker.do_job(told.model_copy(update={"memory_limit_bytes": 512 * MIB})).record.status == "ok"


def do_without_starting(tmp_path: Path, job_kind: str) -> JobResult:
    started = tmp_path / "started"
    result = worker.do_job(command_job(tmp_path, f"open({str(started)!r}, 'w')", job_kind))
    assert not started.exists()
    return result


def test_its_guard_declares_every_identity_without_starting_it(tmp_path):
    guard = do_without_starting(tmp_path, "guard").guard
    assert guard.identities == dict.fromkeys(IDENTITIES, "declared")
    assert set(guard.declared) == set(IDENTITIES)


def test_it_cannot_be_traced(tmp_path):
    error = do_without_starting(tmp_path, "trace").error
    assert error == "UnsupportedError: methods.command.command: a program of its own cannot be traced from here"


def test_it_is_not_started_without_permission(tmp_path):
    marker = tmp_path / "started"
    job = command_job(tmp_path, f"open({str(marker)!r}, 'w')").model_copy(update={"allow_entry": False})
    assert "--allow-entry" in worker.do_job(job).record.error
    assert not marker.exists()


def test_it_reads_its_request_from_a_file_and_need_not_read_it_at_all(tmp_path):
    options = {"text": "x" * 1_000_000}  # far more than a pipe holds
    record = launch(tmp_path, options=options)
    assert record.status == "ok"
    silent = tmp_path / "silent.py"
    silent.write_text("print('{}')")
    record = launch(tmp_path, command=[sys.executable, "-I", "-S", str(silent)], options=options)
    assert "protocol_version: Field required" in record.error
