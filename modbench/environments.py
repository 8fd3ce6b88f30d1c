"""An interpreter for another revision: this one where both revisions declare the same dependencies, else one of its own.

In: a repository, a commit, its worktree. Out: the path of an interpreter. Environments are kept in the cache folder by what they
were made from. The revision's own code is not taken from there but from its worktree, so that revisions which declare the same
dependencies share one.
"""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from modbench import __version__
from modbench.code_under_test import Repository
from modbench.errors import LaunchError, OptionError
from modbench.machine_cache import cache_folder
from modbench.plan import content_hash
from modbench.process_tree import kill_group
from modbench.provenance import PROJECT

DECLARING = (  # files that say what a project depends on, beside the requirements files
    "setup.py",
    "setup.cfg",
    "poetry.lock",
    "uv.lock",
    "pdm.lock",
    "Pipfile.lock",
)
DECLARING_PATTERNS = ("requirements*.txt", "constraints*.txt")
PROJECT_KEYS = ("dependencies", "optional-dependencies", "requires-python")
COMPLETE = "complete"
IMPORTS_WORKER = "import modbench.worker"


class Mode(StrEnum):
    """Which interpreter the other revision gets.

    `auto`: this one where both revisions declare the same dependencies, else one in an environment of its own; `own`: always
    that; `shared`: always this one.
    """

    AUTO = "auto"
    OWN = "own"
    SHARED = "shared"


@dataclass(frozen=True)
class Installing:
    """How an environment is made.

    Attributes:
        mode: whether one is made.
        command: what installs the revision, started in its worktree with the environment first on PATH, every time, since it
            may build something in the worktree; None: pip, once.
        log_path: takes what it prints.
    """

    mode: Mode
    command: str | None
    log_path: Path


def interpreter_for(repository: Repository, sha: str, tree: Path, installing: Installing) -> str:
    """The interpreter that has what the revision depends on.

    Raises:
        LaunchError: the environment cannot be made, or has no modbench.
        OptionError: --install cannot be read.
    """
    declared = declared_dependencies(tree)
    is_same = declared == declared_dependencies(repository.root)
    if installing.mode is Mode.SHARED or (installing.mode is Mode.AUTO and is_same and installing.command is None):
        return sys.executable
    own = [] if repository.is_modbench else [__version__, declared_dependencies(PROJECT)]
    key = [declared, own, sys.version, installing.command, str(repository.root), installing.command and sha]
    folder = cache_folder() / "environments" / content_hash(key)
    python = folder / "bin" / "python"
    with _locked(folder):
        is_complete = (folder / COMPLETE).exists()
        if not is_complete:
            shutil.rmtree(folder, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(folder)], tree, folder, installing.log_path)
        if not is_complete or installing.command is not None:
            for command in _install_commands(repository, python, tree, installing):
                _run(command, tree, folder, installing.log_path)
            _run([str(python), "-c", IMPORTS_WORKER], tree, folder, installing.log_path)
        (folder / COMPLETE).touch()
    return str(python)


def declared_dependencies(tree: Path) -> dict[str, str]:
    """What the project in `tree` says that it depends on, by file; the rest of a pyproject.toml does not count."""
    names = {name for pattern in DECLARING_PATTERNS for name in (path.name for path in tree.glob(pattern))}
    names |= {name for name in DECLARING if (tree / name).is_file()}
    declared = {name: (tree / name).read_text(errors="replace") for name in sorted(names)}
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text())
    except FileNotFoundError:
        return declared
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        project = {}
    parts = {key: project.get("project", {}).get(key) for key in PROJECT_KEYS}
    parts |= {"build-system": project.get("build-system"), "poetry": project.get("tool", {}).get("poetry")}
    return {**declared, "pyproject.toml": json.dumps(parts, sort_keys=True, default=str)}


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time make the environment; the kernel gives it free however that one ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install_commands(repository: Repository, python: Path, tree: Path, installing: Installing) -> list[list[str]]:
    if installing.command is not None:
        try:
            words = shlex.split(installing.command)
        except ValueError as error:
            raise OptionError(f"--install: got {installing.command!r}: {error}; expected words as in a shell") from None
        if not words:
            raise OptionError(f"--install: got {installing.command!r}; expected a command such as 'pip install .'")
        return [words]
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    if (tree / "constraints.txt").is_file():
        pip += ["--constraint", "constraints.txt"]
    has_project = any((tree / name).is_file() for name in ("pyproject.toml", "setup.py"))
    targets = ["."] if has_project else []
    if not has_project and (tree / "requirements.txt").is_file():
        targets = ["--requirement", "requirements.txt"]
    commands = [[*pip, *targets]] if targets else []
    # What modbench depends on; its code is taken from its checkout, as on the other side.
    if not repository.is_modbench and (PROJECT / "pyproject.toml").is_file():
        commands.append([*pip, str(PROJECT)])
    return commands


def _run(command: list[str], tree: Path, folder: Path, log_path: Path) -> None:
    path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(folder)}
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        try:  # a group of its own, so that an interrupt ends what it has started too
            process = subprocess.Popen(
                command,
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(
                f"--against: {command[0]}: {error.strerror}; name another command with --install"
            ) from error
        try:
            exit_code = process.wait()
        finally:
            if process.poll() is None:
                kill_group(process.pid)
                process.wait()
    if exit_code != 0:
        raise LaunchError(
            f"--against: an environment for the other revision cannot be made: {shlex.join(command)} ended with "
            f"{exit_code}; see {log_path}; use --install COMMAND, or --environment shared"
        )
