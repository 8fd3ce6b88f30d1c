"""Which code ran: git revision, whether it was changed, and a digest of the sources that decide results."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = ("reference_impl", "modbench/methods", "modbench/geometry.py", "modbench/guard.py")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PROJECT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def git_state() -> dict[str, Any]:
    """`git_sha` and `git_is_dirty` of the code that runs; None where it is not in a checkout of its own."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != PROJECT:
        return {"git_sha": None, "git_is_dirty": None}
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"git_sha": _git("rev-parse", "HEAD"), "git_is_dirty": None if changes is None else bool(changes)}


@cache
def source_digest() -> str:
    """SHA-256 over the files that decide what a method computes; a change makes cached guard outcomes void."""
    digest = hashlib.sha256()
    for name in SOURCES:
        root = PROJECT / name
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(path.relative_to(PROJECT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
