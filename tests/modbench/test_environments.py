"""Interpreters for another revision: when this one will do, what is installed in one of its own, and how that may fail."""

import subprocess
import sys
from pathlib import Path

import pytest

from modbench import environments
from modbench.code_under_test import Repository
from modbench.environments import Installing, Mode, declared_dependencies, interpreter_for
from modbench.errors import LaunchError, OptionError
from modbench.provenance import PROJECT

SAME = '[project]\nname = "p"\nversion = "1"\ndependencies = ["numpy"]\n'


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """(the working tree, the other revision's), which declare the same."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = tmp_path / "root", tmp_path / "other tree"
    for tree in found:
        tree.mkdir()
        (tree / "pyproject.toml").write_text(SAME)
    return found


@pytest.fixture
def commands(monkeypatch):
    """The commands that would be run, which do nothing but make the environment's folder."""
    seen = []

    def note(command, tree, folder, log_path):
        seen.append([word if word != str(folder / "bin" / "python") else "PYTHON" for word in command])
        folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(environments, "_run", note)
    return seen


def ask(trees, tmp_path, mode="auto", command=None, sha="a" * 40, root=None):
    return interpreter_for(
        Repository(root or trees[0], ()), sha, trees[1], Installing(Mode(mode), command, tmp_path / "log")
    )


def test_this_interpreter_does_where_both_declare_the_same(trees, tmp_path, commands):
    (trees[1] / "pyproject.toml").write_text(SAME.replace('"1"', '"2"') + "[tool.other]\nx = 1\n")
    assert ask(trees, tmp_path) == sys.executable
    assert commands == []


def test_other_dependencies_get_an_interpreter_of_their_own_unless_told_otherwise(trees, tmp_path, commands):
    (trees[1] / "pyproject.toml").write_text(SAME.replace("numpy", "numpy<2"))
    assert ask(trees, tmp_path, mode="shared") == sys.executable
    python = ask(trees, tmp_path)
    assert Path(python).is_relative_to(tmp_path / "cache")
    assert commands[0][1:3] == ["-m", "venv"]
    assert commands[1] == ["PYTHON", "-m", "pip", "install", "--quiet", "."]
    assert commands[-1] == ["PYTHON", "-c", "import modbench.worker"]


def test_an_interpreter_of_its_own_can_be_asked_for(trees, tmp_path, commands):
    assert ask(trees, tmp_path, mode="own") != sys.executable


def test_somebody_elses_code_gets_modbenchs_dependencies_too_and_modbench_itself_not_twice(trees, tmp_path, commands):
    ask(trees, tmp_path, mode="own")
    pip = [command for command in commands if "pip" in command]
    assert [command[-1] for command in pip] == [".", str(PROJECT)]
    commands.clear()
    interpreter_for(Repository(PROJECT, ()), "a" * 40, trees[1], Installing(Mode.OWN, None, tmp_path / "log"))
    assert [command[-1] for command in commands if "pip" in command] == ["."]


def test_an_installed_modbench_is_not_installed_from_its_site_packages(trees, tmp_path, commands, monkeypatch):
    monkeypatch.setattr(environments, "PROJECT", tmp_path)
    ask(trees, tmp_path, mode="own")
    assert [command[-1] for command in commands if "pip" in command] == ["."]


def test_requirements_and_constraints_are_used(trees, tmp_path, commands):
    (trees[1] / "constraints.txt").write_text("numpy==1\n")
    ask(trees, tmp_path)
    assert commands[1][-3:] == ["--constraint", "constraints.txt", "."]
    commands.clear()
    (trees[1] / "pyproject.toml").unlink()
    (trees[1] / "requirements.txt").write_text("numpy\n")
    ask(trees, tmp_path)
    assert commands[1][-4:] == ["--constraint", "constraints.txt", "--requirement", "requirements.txt"]


def test_an_environment_is_made_once_for_revisions_that_declare_the_same(trees, tmp_path, commands):
    first = ask(trees, tmp_path, mode="own")
    num_commands = len(commands)
    assert ask(trees, tmp_path, mode="own", sha="b" * 40) == first
    assert len(commands) == num_commands
    (trees[1] / "requirements.txt").write_text("numpy\n")
    assert ask(trees, tmp_path, mode="own") != first


def test_an_environment_that_was_not_finished_is_made_anew(trees, tmp_path, commands, monkeypatch):
    note = environments._run

    def fail_at_pip(command, tree, folder, log_path):
        note(command, tree, folder, log_path)
        if "pip" in command:
            raise LaunchError("no network")

    monkeypatch.setattr(environments, "_run", fail_at_pip)
    with pytest.raises(LaunchError):
        ask(trees, tmp_path, mode="own")
    commands.clear()
    monkeypatch.setattr(environments, "_run", note)
    ask(trees, tmp_path, mode="own")
    assert commands[0][1:3] == ["-m", "venv"]


def test_a_command_of_the_users_runs_every_time_since_it_may_build_in_the_worktree(trees, tmp_path, commands):
    for _ in range(2):
        ask(trees, tmp_path, command="make 'in place'")
    assert commands.count(["make", "in place"]) == 2
    assert [command[1:3] for command in commands].count(["-m", "venv"]) == 1
    assert not [command for command in commands if "pip" in command]


def test_two_commits_with_a_command_have_environments_of_their_own(trees, tmp_path, commands):
    assert ask(trees, tmp_path, command="make", sha="a" * 40) != ask(trees, tmp_path, command="make", sha="b" * 40)


@pytest.mark.parametrize("command", ["'unclosed", "", "  "])
def test_a_command_that_is_none_is_refused(trees, tmp_path, commands, command):
    with pytest.raises(OptionError, match="--install: got"):
        ask(trees, tmp_path, command=command)


def test_what_a_project_declares_is_read_from_all_the_usual_files(tmp_path):
    assert declared_dependencies(tmp_path) == {}
    (tmp_path / "requirements-dev.txt").write_text("pytest\n")
    (tmp_path / "setup.cfg").write_text("[options]\n")
    (tmp_path / "README.md").write_text("words")
    assert sorted(declared_dependencies(tmp_path)) == ["requirements-dev.txt", "setup.cfg"]


@pytest.mark.parametrize("content", [b"[project\n", b"\xff\xfe"])
def test_a_damaged_project_file_declares_nothing_and_stops_nothing(tmp_path, content):
    (tmp_path / "pyproject.toml").write_bytes(content)
    assert list(declared_dependencies(tmp_path)) == ["pyproject.toml"]


def test_a_command_that_fails_names_its_log_and_the_ways_out(tmp_path):
    command = [sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"]
    log_path = tmp_path / "out" / "environment.log"
    with pytest.raises(LaunchError, match=r"ended with 3; see .*environment\.log; use --install COMMAND"):
        environments._run(command, tmp_path, tmp_path / "environment", log_path)
    assert log_path.read_text() == "what went wrong\n"


def test_a_command_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(LaunchError, match="no-such-program: No such file or directory; name another command"):
        environments._run(["no-such-program"], tmp_path, tmp_path / "environment", tmp_path / "log")


def test_a_command_finds_the_environments_programs_first_and_starts_in_the_worktree(tmp_path):
    programs = tmp_path / "environment" / "bin"
    programs.mkdir(parents=True)
    (programs / "pip").write_text('#!/bin/sh\necho "fake pip $* in $(pwd) of $VIRTUAL_ENV"\n')
    (programs / "pip").chmod(0o755)
    tree = tmp_path / "a tree"
    tree.mkdir()
    environments._run(["pip", "install", "."], tree, tmp_path / "environment", tmp_path / "log")
    assert (tmp_path / "log").read_text() == f"fake pip install . in {tree} of {tmp_path / 'environment'}\n"


def test_an_interrupt_ends_the_command_with_everything_that_it_started(tmp_path, monkeypatch):
    """The command's own child would hold the lock on a file for a minute; an interrupt while waiting ends it too."""
    child = (
        "import fcntl, time; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX); open('ready', 'w'); time.sleep(60)"
    )
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]

    class InterruptedOnce(environments.subprocess.Popen):
        is_interrupted = False

        def wait(self, timeout=None):
            if not self.is_interrupted:
                self.is_interrupted = True
                while not (tmp_path / "ready").exists():
                    assert self.poll() is None, "it waits for its child"
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(environments.subprocess, "Popen", InterruptedOnce)
    with pytest.raises(KeyboardInterrupt):
        environments._run(command, tmp_path, tmp_path / "environment", tmp_path / "log")
    with (tmp_path / "lock").open("w") as lock:
        environments.fcntl.flock(lock, environments.fcntl.LOCK_EX)  # waits for the child's end, and not for a minute


@pytest.mark.slow
def test_a_real_environment_is_made_and_filled_by_the_users_command(trees, tmp_path, monkeypatch):
    """No network: in the place of pip, a script that leaves a module in the environment that it is started with."""
    monkeypatch.setattr(environments, "IMPORTS_WORKER", "import left_by_install")
    script = (
        "import sysconfig, pathlib; pathlib.Path(sysconfig.get_path('purelib'), 'left_by_install.py').write_text('')"
    )
    (trees[1] / "install.py").write_text(script)
    python = ask(trees, tmp_path, command="python install.py")
    done = subprocess.run(
        [python, "-c", "import left_by_install, sys; print(sys.prefix)"], capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == Path(python).parent.parent
    monkeypatch.setattr(environments, "IMPORTS_WORKER", "import absent")
    with pytest.raises(LaunchError, match=r"import absent' ended with 1; see .*log"):
        ask(trees, tmp_path, command="python install.py")
