"""Another git revision of the code under test, in a worktree of its own. In: a repository and a revision. Out: a `Revision`.

The working tree is neither changed nor stashed: `git worktree add` puts the other revision into a temporary folder, which is
removed afterwards, however the measurement ends.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modbench.code_under_test import Repository
from modbench.environments import Installing, interpreter_for
from modbench.errors import OptionError
from modbench.executors.local import Runtime
from modbench.provenance import git, git_state, source_digest


@dataclass(frozen=True)
class Revision:
    """A side of a comparison of revisions: `name` as the user wrote it, and what the runner needs to run and to record it."""

    name: str
    runtime: Runtime
    git_facts: dict[str, Any]
    sources_sha256: str


def resolve(repository: Repository, name: str) -> str:
    """The commit that a revision's name stands for.

    Raises:
        OptionError: there is none.
    """
    sha = git(repository.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if not sha:
        is_shallow = git(repository.root, "rev-parse", "--is-shallow-repository") == "true"
        advice = "the clone is shallow: fetch the whole history" if is_shallow else "fetch it, or name another one"
        raise OptionError(
            f"--against: got {name!r}; expected a revision of {repository.root} such as main or HEAD~1; {advice}"
        )
    return sha


def working_tree(repository: Repository) -> Revision:
    """What is checked out now, changes that are not committed among it, with the interpreter that runs this."""
    return Revision("working tree", Runtime(), git_state(repository.root), source_digest())


@contextmanager
def other_revision(repository: Repository, name: str, installing: Installing) -> Iterator[Revision]:
    """The revision in a worktree, with an interpreter that has what it depends on.

    Raises:
        OptionError: there is no such revision, or git cannot check it out.
        LaunchError: its environment cannot be made.
    """
    sha = resolve(repository, name)
    place = Path(tempfile.mkdtemp(prefix="modbench-revision-")).resolve()
    tree = place / repository.root.name  # projects may look at their folder's name
    try:
        if git(repository.root, "worktree", "add", "--detach", str(tree), sha) is None:
            raise OptionError(
                f"--against: git worktree add {sha[:12]} failed in {repository.root}; "
                "try it by hand: git worktree add --detach FOLDER " + sha[:12]
            )
        python = interpreter_for(repository, sha, tree, installing)
        roots = tuple(tree / root for root in repository.import_roots)
        sources = source_digest(tree) if repository.is_modbench else source_digest()
        facts = {"git_sha": sha, "git_is_dirty": False}
        yield Revision(name, Runtime(python, _counterpart(repository, tree), roots), facts, sources)
    finally:
        git(repository.root, "worktree", "remove", "--force", str(tree))
        shutil.rmtree(place, ignore_errors=True)
        git(repository.root, "worktree", "prune")


def _counterpart(repository: Repository, tree: Path) -> Path:
    """The folder in the worktree that this process's own corresponds to, else the worktree itself."""
    here = Path.cwd().resolve()
    place = tree / here.relative_to(repository.root) if here.is_relative_to(repository.root) else tree
    return place if place.is_dir() else tree
