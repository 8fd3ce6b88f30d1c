"""Runs that were killed or ran out of disk go on where they were, by doing it to the real program."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from modbench.record import Record, load_records
from modbench.runner import RESUMED_FLAG
from tests.modbench.test_command_line import PROJECT, modbench

SCENARIO = """\
name: tiny
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
methods: {dense: {}, skip_layers: {}}
workload: {context: 16, new_tokens: 9, prompt: {synthetic: true}}
measure: {launches: 2, samples: 20, warmup: 1, device: cpu}
"""
NUM_LAUNCHES = 4
LIMIT_S = 120.0


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path


def saved(folder: Path) -> dict[str, Record]:
    file = folder / "out" / "records.jsonl"
    return {record.launch_id: record for record in load_records(file).records} if file.exists() else {}


def run_arguments(folder: Path) -> list[str]:
    is_begun = (folder / "out" / "run.json").exists()
    return ["run", "s.yaml", "--output", "out", *(["--resume"] if is_begun else [])]


def assert_whole(folder: Path) -> None:
    """Every planned launch has exactly one record, and nothing else is left in the folder."""
    lines = (folder / "out" / "records.jsonl").read_text().splitlines()
    whole = [line for line in lines if line.endswith("}")]
    ids = [json.loads(line)["launch_id"] for line in whole]
    assert len(ids) == len(set(ids)) == NUM_LAUNCHES
    assert {record.status for record in saved(folder).values()} == {"ok"}
    assert not list((folder / "out").glob(".*"))


def wait_until(is_so, what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def processes_with(token: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MODBENCH_TEST") == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def kill_when(folder: Path, token: str, is_time, delay_s: float) -> None:
    """Start or resume the run and kill its parent, and only that, a moment after `is_time` (of what it printed)."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MODBENCH_TEST": token, "PYTHONUNBUFFERED": "1"}
    with (folder / "printed").open("wb") as printed:
        command = [sys.executable, "-m", "modbench", *run_arguments(folder)]
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=printed, stderr=printed)
        wait_until(lambda: is_time((folder / "printed").read_text()), "the moment to kill did not come")
        time.sleep(delay_s)
        running.kill()
        assert running.wait() == -signal.SIGKILL
    wait_until(lambda: not processes_with(token), "a process outlived the run")


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_and_loses_nothing(folder, own_machine_cache, monkeypatch):
    (folder / "s.yaml").write_text(SCENARIO.replace("samples: 20", "samples: 60"))  # long enough to be hit
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # so that guards run here
    monkeypatch.setenv("MPLCONFIGDIR", str(own_machine_cache / "matplotlib"))
    delays, token = random.Random(4), f"killed-{os.getpid()}"
    moments = [
        lambda text: "looking at the device" in text,
        lambda text: "checking that skip_layers" in text,
        lambda text: len(saved(folder)) >= 1,
        lambda text: len(saved(folder)) >= 2,
    ]
    earlier: dict[str, Record] = {}
    torn = 0
    for try_number in range(len(moments) + 1):
        if try_number < len(moments):
            kill_when(folder, token, moments[try_number], delays.uniform(0.0, 0.1))
        else:
            done = modbench(*run_arguments(folder), folder=folder)
            assert done.returncode == 0, done.stdout + done.stderr
        now = saved(folder)
        assert {key: now[key] for key in earlier} == earlier, "what was measured stays as it was"
        begun = {(record.point.cell_id, record.pair.quad) for record in earlier.values()}
        for record in (now[key] for key in now.keys() - earlier.keys()):
            is_torn = (record.point.cell_id, record.pair.quad) in begun
            assert (RESUMED_FLAG in record.flags) == is_torn
            torn += is_torn
        earlier = now
    assert torn, "no kill hit a quad"
    assert_whole(folder)


@pytest.mark.slow
def test_a_run_out_of_disk_anywhere_goes_on_when_there_is_room(folder):
    def with_files_up_to(num_bytes: int, *arguments: str):
        return modbench(
            *arguments,
            folder=folder,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.RLIM_INFINITY)),
        )

    messages, earlier = [], {}
    for num_bytes in (200, 4_000, 20_000):  # the run's facts, a worker's result, the records
        done = with_files_up_to(num_bytes, *run_arguments(folder))
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stderr.count("\n") == 1
        assert "free some disk space" in done.stderr
        messages.append(done.stderr)
        now = saved(folder)
        assert {key: now[key] for key in earlier} == earlier
        assert {record.status for record in now.values()} <= {"ok"}, "a full disk is nobody's failure"
        earlier = now
    assert "out: cannot be written" in messages[0]
    assert "a worker could not write" in messages[1]
    assert "bytes of a record" in messages[2]
    assert 1 <= len(earlier) < NUM_LAUNCHES
    done = modbench(*run_arguments(folder), folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(folder)
    before = (folder / "out" / "records.jsonl").read_bytes()
    done = with_files_up_to(4_000, "report", "out")
    assert done.returncode == 2
    assert "cannot write the report" in done.stderr
    assert (folder / "out" / "records.jsonl").read_bytes() == before


SMALL_DISK = """\
mount -t tmpfs -o size=36k tmpfs disk
"$0" -m modbench run s.yaml --output disk/out --quiet; echo $? >> codes
cp disk/out/records.jsonl first.jsonl
mount -o remount,size=64m disk
"$0" -m modbench run s.yaml --output disk/out --quiet --resume; echo $? >> codes
cp -r disk/out out
"""


@pytest.mark.slow
def test_a_run_on_a_disk_that_is_really_full_goes_on_when_it_grows(folder):
    (folder / "disk").mkdir()
    own_mounts = ["unshare", "--map-root-user", "--mount"]
    try:
        probe = subprocess.run([*own_mounts, "mount", "-t", "tmpfs", "tmpfs", "disk"], cwd=folder, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no unshare program here")
    if probe.returncode:
        pytest.skip(f"no mounts of one's own here: {probe.stderr.decode().strip()}")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "NO_COLOR": "1"}
    command = [*own_mounts, "sh", "-c", SMALL_DISK, sys.executable]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (folder / "codes").read_text().split() == ["2", "0"], done.stdout + done.stderr
    assert "free some disk space and go on with --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert_whole(folder)
    first = load_records(folder / "first.jsonl").records
    assert 1 <= len(first) < NUM_LAUNCHES
    assert [saved(folder)[record.launch_id] for record in first] == first
