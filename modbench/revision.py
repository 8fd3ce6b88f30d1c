"""Another git revision of the code under test, in a worktree of its own. In: a repository and a revision. Out: a `Revision`.

The working tree is neither changed nor stashed: `git worktree add` puts the other revision into a temporary folder, which is
removed afterwards, however the measurement ends. Submodules are not checked out there.
"""

import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modbench.code_under_test import Repository
from modbench.environments import Installing, interpreter_for
from modbench.errors import LaunchError, OptionError
from modbench.executors.local import Runtime
from modbench.machine_cache import cache_folder
from modbench.provenance import PROJECT, git, git_state, source_digest

WORKER = "modbench.worker"
IS_CHECKOUT = (PROJECT / "pyproject.toml").is_file()  # and not installed among other packages
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Runs in the other revision's interpreter, where its launch servers will: which code they import, and what jobs it knows.
LOOK_AROUND = """\
import importlib.util, json, sys

def place(module):
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    return None if spec is None else (list(spec.submodule_search_locations or []) or [spec.origin])[0]

places = {module: place(module) for module in sys.argv[1:]}
try:
    from modbench.job import Job
    fields = list(Job.model_fields)
except ImportError:
    fields = None
print(json.dumps({"places": places, "job_fields": fields}))
"""


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
    if sha is None or not re.fullmatch("[0-9a-f]+", sha):  # git takes ^main for a revision, as its negation
        is_shallow = git(repository.root, "rev-parse", "--is-shallow-repository") == "true"
        advice = "the clone is shallow: fetch the whole history" if is_shallow else "fetch it, or name another one"
        raise OptionError(
            f"--against: got {name!r}; expected a revision of {repository.root} such as main or HEAD~1; {advice}"
        )
    return sha


def working_tree(repository: Repository) -> Revision:
    """What is checked out now, changes that are not committed among it, with the interpreter that runs this.

    Raises:
        OptionError: workers would import other code.
        LaunchError: the code cannot be looked at.
    """
    own = (PROJECT,) if IS_CHECKOUT else ()  # an editable install may be of another checkout
    runtime = Runtime(import_roots=tuple(dict.fromkeys((*_import_roots(repository, repository.root), *own))))
    _known_job_fields(repository, "working tree", repository.root, runtime)
    return Revision("working tree", runtime, git_state(repository.root), source_digest())


@contextmanager
def other_revision(repository: Repository, name: str, installing: Installing) -> Iterator[Revision]:
    """The revision in a worktree, with an interpreter that has what it depends on.

    Raises:
        OptionError: there is no such revision, git cannot check it out, or it has not the code that is to be measured.
        LaunchError: its environment cannot be made, or its code cannot be looked at.
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
        cache_home = cache_folder() / "revisions" / sha if repository.is_modbench else None
        runtime = Runtime(python, _counterpart(repository, tree), _import_roots(repository, tree), cache_home)
        runtime = replace(runtime, job_fields=_known_job_fields(repository, f"--against: {name}", tree, runtime))
        sources = source_digest(tree) if repository.is_modbench else source_digest()
        yield Revision(name, runtime, {"git_sha": sha, "git_is_dirty": False}, sources)
    finally:
        _remove(repository, place, tree)


def _counterpart(repository: Repository, tree: Path) -> Path:
    """The folder in the worktree that this process's own corresponds to, else the worktree itself."""
    here = Path.cwd().resolve()
    place = tree / here.relative_to(repository.root) if here.is_relative_to(repository.root) else tree
    return place if place.is_dir() else tree


def _import_roots(repository: Repository, tree: Path) -> tuple[Path, ...]:
    """The tree's own, and for somebody else's code also this modbench's checkout, so that one modbench measures both sides."""
    roots = tuple(tree / root for root in repository.import_roots if (tree / root).is_dir())
    return (*roots, PROJECT) if IS_CHECKOUT and not repository.is_modbench else roots


def _known_job_fields(repository: Repository, where: str, tree: Path, runtime: Runtime) -> frozenset[str]:
    """What a job may say to this side's workers, once it is sure that they import the tree's code.

    An interpreter finds the code elsewhere where the tree does not have it (an editable install of the working tree): both sides
    would be the same code, and the verdict always "same".
    """
    modules = [*repository.packages, *([WORKER] if repository.is_modbench else [])]
    command = [runtime.python, "-c", LOOK_AROUND, *modules]
    done = subprocess.run(
        command,
        cwd=runtime.folder,
        env=runtime.environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LaunchError(f"{where}: its code cannot be looked at with {runtime.python}: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    for module, place in found["places"].items():
        if place is None or not Path(place).resolve().is_relative_to(tree):
            raise OptionError(
                f"{where}: {module} would be imported from {place or 'nowhere'}; expected it in {tree}; start from the folder of "
                "the code, and name a revision that has it in the same place (submodules are not checked out)"
            )
    if found["job_fields"] is None:
        raise LaunchError(f"{where}: {runtime.python} cannot import modbench there; use --install COMMAND")
    return frozenset(found["job_fields"])


def _remove(repository: Repository, place: Path, tree: Path) -> None:
    """Remove the worktree and git's note of it; a second Ctrl-C waits until that is done."""
    with _interrupts_held():
        shutil.rmtree(place, ignore_errors=True)
        # Not `git worktree prune`: it would also forget the user's own worktrees on disks that are not mounted now.
        git(repository.root, "worktree", "remove", "--force", str(tree))


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let signals that end the process wait. Handlers, and no mask of this thread: another one would take the signal."""
    held: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: held.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
