"""A git repository of a few files in a temporary folder, with an `entry` module that says which revision it is."""

import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")
SCENARIO = """\
name: mine
model: {preset: tiny}
methods: {dense: {}, mine: {method: entry, entry: "engine_under_test:build"}}
workload: {context: 8, new_tokens: 5, prompt: {synthetic: true}}
measure: {device: cpu, warmup: 1}
"""


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, **files: str | None) -> str:
    """Write files, `/` in a name as `__in__` and `.py` left out, or remove them (None), and commit; gives the commit."""
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "a change")
    return git(folder, "rev-parse", "HEAD")


def make_repository(folder: Path) -> Path:
    """Two commits, in which `engine_under_test.MARK` is "old" and "new"."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    commit(folder, engine_under_test="MARK = 'old'\n")
    commit(folder, engine_under_test="MARK = 'new'\n")
    return folder.resolve()


def worktrees(folder: Path) -> list[str]:
    """The folders that git knows as worktrees of the repository, its own first."""
    lines = git(folder, "worktree", "list", "--porcelain").splitlines()
    return [line.removeprefix("worktree ") for line in lines if line.startswith("worktree ")]
