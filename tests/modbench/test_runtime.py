"""What the code of another revision is started with, and what it is told."""

import os
from pathlib import Path

import pytest

from modbench.errors import LaunchError
from modbench.executors import local
from modbench.executors.local import LocalExecutor, Runtime
from modbench.job import Job
from tests.modbench.jobs import make_job


def limited_job(tmp_path):
    changes = {
        "memory_limit_bytes": 2**30,
        "counts_live_tensors": True,
        "environment": {"memory_limit_bytes": 2**30, "git_sha": "abc"},
    }
    return make_job(tmp_path, "dense").model_copy(update=changes)


def test_this_revision_is_told_everything(tmp_path):
    job = limited_job(tmp_path)
    assert Runtime().understood(job) == job
    assert Runtime(job_fields=frozenset(Job.model_fields)).understood(job) == job


def test_what_an_older_revision_does_not_know_is_left_out_and_its_record_says_so(tmp_path):
    older = frozenset(Job.model_fields) - {"memory_limit_bytes", "counts_live_tensors"}
    told = Runtime(job_fields=older).understood(limited_job(tmp_path))
    assert not {"memory_limit_bytes", "counts_live_tensors"} & set(told.model_dump(exclude_defaults=True))
    assert told.environment == {"memory_limit_bytes": None, "git_sha": "abc"}
    assert told.spec == limited_job(tmp_path).spec


def test_the_work_itself_is_never_left_out(tmp_path):
    told = Runtime(job_fields=frozenset()).understood(limited_job(tmp_path))
    assert told.spec == limited_job(tmp_path).spec
    assert told.kind == "launch"


def test_import_roots_come_before_the_callers_own_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/callers")
    roots = Runtime(import_roots=(Path("/tree/src"), Path("/tree"))).environment()["PYTHONPATH"]
    assert roots == os.pathsep.join(["/tree/src", "/tree", "/callers"])
    assert Runtime().environment()["PYTHONPATH"] == "/callers"
    monkeypatch.delenv("PYTHONPATH")
    assert Runtime(import_roots=(Path("/tree"),)).environment()["PYTHONPATH"] == "/tree"


def test_another_modbench_keeps_what_it_measured_apart(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/callers")
    assert Runtime(cache_home=Path("/own")).environment()["XDG_CACHE_HOME"] == "/own"
    assert Runtime().environment()["XDG_CACHE_HOME"] == "/callers"


@pytest.mark.parametrize(
    ("line", "numbers"), [("exit 0 4096", (0, 4096)), ("exit -9 0", (-9, 0)), ("exit 1", (1, None))]
)
def test_servers_of_older_revisions_say_no_peak_memory(line, numbers):
    assert local._exit_numbers(line) == numbers


@pytest.mark.parametrize("line", ["", "exit", "exit x", "exit 1 2 3", "pid 1"])
def test_any_other_line_is_a_broken_server(line):
    with pytest.raises(LaunchError, match="launch server: got"):
        local._exit_numbers(line)


@pytest.mark.parametrize("runtime", [Runtime(python="/no/python"), Runtime(folder=Path("/no/folder"))])
def test_an_interpreter_or_folder_that_is_not_there_is_one_line(tmp_path, runtime):
    with LocalExecutor("fork", tmp_path / "log", runtime) as executor, pytest.raises(LaunchError, match="/no/"):
        executor.start()
