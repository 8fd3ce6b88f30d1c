"""Which code ran: git revision, whether it was changed, and a digest of the sources that decide results."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
SOURCES = ("reference_impl", "modbench/methods", "modbench/geometry.py", "modbench/guard.py")


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints on standard output in that folder; None where it fails, or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
