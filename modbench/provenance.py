"""Which code ran: git revision, whether it was changed, and a digest of the sources that decide results."""

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
REPOSITORY_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
SOURCES = ("reference_impl", "modbench/methods", "modbench/geometry.py", "modbench/guard.py")


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints on standard output in that folder; None where it fails, or there is no git."""
    # In a hook, git names the hook's repository in the environment, which would count more than the folder.
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None


@cache
def git_state(root: Path = PROJECT) -> dict[str, Any]:
    """`git_sha` and `git_is_dirty` of the code in `root`; None where that is not a checkout of its own."""
    top = git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return {"git_sha": None, "git_is_dirty": None}
    changes = git(root, "status", "--porcelain", "--untracked-files=no")
    return {"git_sha": git(root, "rev-parse", "HEAD"), "git_is_dirty": None if changes is None else bool(changes)}


@cache
def source_digest(root: Path = PROJECT) -> str:
    """SHA-256 over the files that decide what a method computes; a change makes cached guard outcomes void."""
    digest = hashlib.sha256()
    for name in SOURCES:
        place = root / name
        for path in sorted(place.rglob("*.py")) or [place]:
            if path.is_file():  # another revision need not have them all
                digest.update(path.relative_to(root).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()
