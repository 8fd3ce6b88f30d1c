"""Another revision in a worktree: that it is its own code that runs there, and that nothing of it is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modbench import revision as revision_module
from modbench.code_under_test import OWN_PACKAGES, Repository, repository_under_test
from modbench.environments import Installing, Mode
from modbench.errors import LaunchError, OptionError
from modbench.job import Job
from modbench.provenance import PROJECT, git_state
from modbench.report.progress import QuietProgress
from modbench.revision import other_revision, resolve, working_tree
from modbench.side_by_side import measure_side_by_side
from modbench.side_session import SideSession, open_benches, records_of
from tests.modbench.scripted_sides import load
from tests.modbench.small_repository import SCENARIO, commit, git, make_repository, worktrees

IMPORT = "import engine_under_test; print(engine_under_test.MARK)"
ENGINE = """\
import torch

from modbench.methods.hf_model import HfSubject, build_model
from modbench.plan import PointWork

MARK = "{mark}"


class Marked(HfSubject):
    def prefill(self, input_ids, attention_mask=None, all_logits=False):
        for _ in range({extra}):
            super().prefill(input_ids, attention_mask, all_logits)
        return super().prefill(input_ids, attention_mask, all_logits)


def build(point, options, device):
    subject = Marked(build_model(PointWork.model_validate(point), torch.device(device)))
    subject.attention_path = MARK  # every record says it
    return subject
"""


@pytest.fixture
def repository(tmp_path, monkeypatch):
    found = make_repository(tmp_path / "my repo")
    monkeypatch.chdir(found)
    return found


def under_test(tmp_path, text=SCENARIO):
    return repository_under_test([load(tmp_path / "scenario", text)])


def shared(tmp_path):
    return Installing(Mode.SHARED, None, tmp_path / "log")


def mark(runtime):
    """What a process that is started as this side's launch servers are finds when it imports the engine."""
    command = [runtime.python, "-c", IMPORT]
    done = subprocess.run(
        command, cwd=runtime.folder, env=runtime.environment(), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_each_side_imports_its_own_code(tmp_path, repository):
    found = under_test(tmp_path)
    with other_revision(found, "HEAD~1", shared(tmp_path)) as base:
        assert mark(base.runtime) == "old"
        assert mark(working_tree(found).runtime) == "new"
        assert base.git_facts == {"git_sha": git(repository, "rev-parse", "HEAD~1"), "git_is_dirty": False}
        assert base.runtime.job_fields == frozenset(Job.model_fields)
        assert base.runtime.cache_home is None, "one modbench measures both sides"


def test_the_base_is_its_own_code_even_where_the_callers_path_names_the_working_tree(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    with other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)) as base:
        assert mark(base.runtime) == "old"


def test_helpers_on_the_callers_path_come_from_the_same_revision(tmp_path, repository, monkeypatch):
    uses_helper = "from helper_under_test import MARK\n"
    commit(repository, engine_under_test=uses_helper, lib__in__helper_under_test="MARK = 'old helper'\n")
    commit(repository, lib__in__helper_under_test="MARK = 'new helper'\n")
    monkeypatch.setenv("PYTHONPATH", str(repository / "lib"))
    monkeypatch.syspath_prepend(str(repository / "lib"))
    found = under_test(tmp_path)
    with other_revision(found, "HEAD~1", shared(tmp_path)) as base:
        assert (mark(base.runtime), mark(working_tree(found).runtime)) == ("old helper", "new helper")


def test_started_elsewhere_and_found_on_the_path_the_base_is_its_own_code(tmp_path, repository, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(repository))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    with other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)) as base:
        assert mark(base.runtime) == "old"


def test_a_revision_without_the_code_is_refused_instead_of_measuring_the_working_tree_twice(
    tmp_path, repository, monkeypatch
):
    commit(repository, engine_under_test=None)
    commit(repository, engine_under_test="MARK = 'back'\n")
    found = under_test(tmp_path)
    with (
        pytest.raises(OptionError, match="engine_under_test would be imported from nowhere"),
        other_revision(found, "HEAD~1", shared(tmp_path)),
    ):
        pass
    monkeypatch.setenv("PYTHONPATH", str(repository))
    with (
        pytest.raises(OptionError, match=r"would be imported from .*my repo/engine_under_test\.py"),
        other_revision(found, "HEAD~1", shared(tmp_path)),
    ):
        pass
    assert worktrees(repository) == [str(repository)]


def test_a_working_tree_that_workers_would_not_import_is_refused(tmp_path, repository, monkeypatch):
    found = under_test(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "engine_under_test.py").write_text("MARK = 'another copy'\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(OptionError, match=r"^working tree: engine_under_test would be imported from .*elsewhere"):
        working_tree(found)


def test_workers_run_the_modbench_that_started_them(tmp_path, monkeypatch):
    """Not another checkout that the interpreter has an editable install of."""
    monkeypatch.chdir(tmp_path)
    runtime = working_tree(Repository(PROJECT, ())).runtime
    command = [runtime.python, "-c", "import modbench; print(modbench.__file__)"]
    done = subprocess.run(command, env=runtime.environment(), capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent.parent == PROJECT


def test_changes_that_are_not_committed_are_the_candidates_alone_and_stay(tmp_path, repository):
    (repository / "engine_under_test.py").write_text("MARK = 'not committed'\n")
    status = git(repository, "status", "--porcelain")
    found = under_test(tmp_path)
    with other_revision(found, "HEAD", shared(tmp_path)) as base:
        assert (mark(base.runtime), mark(working_tree(found).runtime)) == ("new", "not committed")
    assert git(repository, "status", "--porcelain") == status
    assert working_tree(found).git_facts["git_is_dirty"] is True


def test_a_process_in_a_subfolder_starts_in_its_counterpart(tmp_path, repository, monkeypatch):
    commit(repository, sub__in__engine_under_test="MARK = 'sub old'\n")
    commit(repository, sub__in__engine_under_test="MARK = 'sub new'\n")
    (tmp_path / "link").symlink_to(repository)
    monkeypatch.chdir(tmp_path / "link" / "sub")
    found = under_test(tmp_path)
    with other_revision(found, "HEAD~1", shared(tmp_path)) as base:
        assert base.runtime.folder.name == "sub"
        assert (mark(base.runtime), mark(working_tree(found).runtime)) == ("sub old", "sub new")


def test_a_folder_that_the_revision_has_not_is_replaced_by_its_top(tmp_path, repository, monkeypatch):
    (repository / "later").mkdir()
    monkeypatch.chdir(repository / "later")
    monkeypatch.syspath_prepend(str(repository))
    with other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)) as base:
        assert base.runtime.folder.name == repository.name
        assert mark(base.runtime) == "old"


def test_a_linked_worktree_and_a_detached_head_have_other_revisions_too(tmp_path, repository, monkeypatch):
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "--quiet", "--detach", str(linked))
    monkeypatch.chdir(linked)
    with other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)) as base:
        assert mark(base.runtime) == "old"
    assert worktrees(repository) == [str(repository), str(linked)]


@pytest.mark.parametrize("name", ["HEAD~1", "v1", "v1^{}", "HEAD@{1}"])
def test_whatever_git_takes_for_a_commit_is_a_revision(repository, name):
    git(repository, "tag", "--annotate", "--message", "a tag", "v1", "HEAD~1")
    assert resolve(Repository(repository, ()), name) == git(repository, "rev-parse", "HEAD~1")


@pytest.mark.parametrize(
    "name", ["nope", "", " ", "--foo", "-h", "--git-dir", "^HEAD", "HEAD..HEAD", "HEAD:engine_under_test.py", "f" * 40]
)
def test_whatever_is_no_commit_is_refused(repository, name):
    with pytest.raises(OptionError, match=r"--against: got .*expected a revision of .*fetch it, or name another one"):
        resolve(Repository(repository, ()), name)


def test_a_shallow_clone_says_what_is_missing(tmp_path, repository):
    subprocess.run(
        ["git", "clone", "--quiet", "--depth", "1", repository.as_uri(), str(tmp_path / "clone")], check=True
    )
    with pytest.raises(OptionError, match="the clone is shallow: fetch the whole history"):
        resolve(Repository((tmp_path / "clone").resolve(), ()), "HEAD~1")


def leave(tmp_path, error):
    """Use a revision and leave it with an error; gives the worktree's folder."""
    with other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)) as base:
        tree = base.runtime.folder
        assert tree.is_dir()
        if error is not None:
            raise error
    return tree


@pytest.mark.parametrize("error", [None, LaunchError("launches failed"), KeyboardInterrupt()])
def test_nothing_is_left_however_the_measurement_ends(tmp_path, repository, monkeypatch, error):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if error is None:
        leave(tmp_path, None)
    else:
        with pytest.raises(type(error)):
            leave(tmp_path, error)
    assert not list(tmp_path.glob("modbench-revision-*"))
    assert worktrees(repository) == [str(repository)]
    assert git(repository, "status", "--porcelain") == ""


def test_nothing_is_left_where_the_environment_cannot_be_made(tmp_path, repository, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(*arguments):
        raise LaunchError("no network")

    monkeypatch.setattr(revision_module, "interpreter_for", fail)
    with pytest.raises(LaunchError, match="no network"), other_revision(under_test(tmp_path), "HEAD", shared(tmp_path)):
        pass
    assert not list(tmp_path.glob("modbench-revision-*"))
    assert worktrees(repository) == [str(repository)]


def test_an_interrupt_during_the_removal_waits_for_it(tmp_path, repository, monkeypatch):
    def interrupted(place, ignore_errors):
        os.kill(os.getpid(), signal.SIGINT)
        rmtree(place, ignore_errors=ignore_errors)

    rmtree = shutil.rmtree
    monkeypatch.setattr(revision_module.shutil, "rmtree", interrupted)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    threading.Thread(target=time.sleep, args=(1,), daemon=True).start()  # it could take the signal
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            leave(tmp_path, None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not list(tmp_path.glob("modbench-revision-*"))
    assert worktrees(repository) == [str(repository)]


def test_worktrees_of_the_users_own_are_left_alone_also_those_that_cannot_be_seen_now(tmp_path, repository):
    away = tmp_path / "on a disk that is not mounted"
    git(repository, "worktree", "add", "--quiet", "--detach", str(away))
    away.rename(tmp_path / "away")
    leave(tmp_path, None)
    assert str(away) in worktrees(repository)


def test_a_worktree_that_git_refuses_is_one_line(tmp_path, repository, monkeypatch):
    (repository / ".git" / "worktrees").write_text("in the way")
    with (
        pytest.raises(OptionError, match=r"git worktree add [0-9a-f]{12} failed .*try it by hand"),
        other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)),
    ):
        pass


def test_an_interpreter_that_cannot_start_the_code_is_one_line(tmp_path, repository, monkeypatch):
    monkeypatch.setattr(revision_module, "LOOK_AROUND", "raise ValueError('of its own')")
    with (
        pytest.raises(LaunchError, match=r"its code cannot be looked at with .*ValueError: of its own"),
        other_revision(under_test(tmp_path), "HEAD~1", shared(tmp_path)),
    ):
        pass


@pytest.mark.skipif(git_state()["git_sha"] is None, reason="these tests do not run in a checkout of their own")
def test_modbench_as_the_code_under_test_imports_both_its_packages_from_the_worktree(tmp_path, monkeypatch):
    monkeypatch.chdir(PROJECT)
    with other_revision(Repository(PROJECT, (Path(),), OWN_PACKAGES), "HEAD", shared(tmp_path)) as base:
        command = [
            base.runtime.python,
            "-c",
            "import modbench, reference_impl as r; print(modbench.__file__, r.__file__)",
        ]
        done = subprocess.run(
            command, cwd=base.runtime.folder, env=base.runtime.environment(), capture_output=True, text=True, check=True
        )
        assert [Path(place).parent.parent for place in done.stdout.split()] == [base.runtime.folder] * 2
        assert base.runtime.cache_home is not None, "an older revision cannot read this one's cache, nor this one its"
    assert str(base.runtime.folder) not in worktrees(PROJECT)


def test_a_revision_before_there_was_a_worker_is_refused(tmp_path, monkeypatch):
    """A repository that looks like modbench's own before its first worker."""
    early = make_repository(tmp_path / "early")
    commit(early, modbench__in____init__="", reference_impl__in____init__="")
    monkeypatch.setattr("modbench.code_under_test.PROJECT", early)
    monkeypatch.chdir(early)
    repository = Repository(early, (Path(),), OWN_PACKAGES)
    with (
        pytest.raises(OptionError, match=r"modbench\.worker would be imported from .*expected it in"),
        other_revision(repository, "HEAD", shared(tmp_path)),
    ):
        pass


@pytest.mark.slow
def test_two_commits_are_measured_each_with_its_own_code(tmp_path, monkeypatch):
    """The newer commit prefills twice; which code ran is read from the records, and nothing is said about time."""
    repository = make_repository(tmp_path / "my repo")
    old = commit(repository, engine_under_test=ENGINE.format(mark="from the old commit", extra=0))
    new = commit(repository, engine_under_test=ENGINE.format(mark="from the new commit", extra=1))
    monkeypatch.chdir(repository)
    loaded = load(tmp_path / "scenario", SCENARIO)
    found = repository_under_test([loaded])
    with other_revision(found, "HEAD~1", shared(tmp_path)) as base:
        sides = (base, working_tree(found))
        session = SideSession(sides, Path("reports/check"), "modbench check", True, QuietProgress())
        with open_benches(session, [loaded], ["mine"]) as benches:
            measure_side_by_side(benches, [2], {})
            records = [records_of(benches, number) for number in (0, 1)]
            pairs = benches[0].comparisons()
    ran = [{(record.status, record.environment["attention_path"]) for record in side} for side in records]
    assert ran == [{("ok", "from the old commit")}, {("ok", "from the new commit")}]
    assert [{record.environment["git_sha"] for record in side} for side in records] == [{old}, {new}]
    assert [len(values) for values in pairs.values()] == [2, 2]
    assert worktrees(repository) == [str(repository)]
    assert sys.executable == base.runtime.python
