"""Which repository a scenario's code is in; what no revision could change is refused, since its verdict would always be "same"."""

import sys
from pathlib import Path

import pytest

from modbench.code_under_test import OWN_PACKAGES, repository_under_test
from modbench.errors import OptionError
from modbench.provenance import PROJECT, git_state
from tests.modbench.scripted_sides import SCENARIO as DENSE_ALONE
from tests.modbench.scripted_sides import load
from tests.modbench.small_repository import SCENARIO, commit, git, make_repository

IS_CHECKOUT = git_state()["git_sha"] is not None


@pytest.fixture
def repository(tmp_path, monkeypatch):
    found = make_repository(tmp_path / "my repo")
    monkeypatch.chdir(found)
    return found


def under_test(tmp_path, *texts):
    return repository_under_test([load(tmp_path / str(index), text) for index, text in enumerate(texts)])


def test_the_code_is_where_a_worker_would_import_it_from(tmp_path, repository):
    found = under_test(tmp_path, SCENARIO)
    assert (found.root, found.import_roots, found.packages) == (repository, (Path(),), ("engine_under_test",))
    assert not found.is_modbench


def test_nothing_is_imported_to_find_out(tmp_path, repository):
    (repository / "engine_under_test.py").write_text("raise SystemExit('imported')")
    assert under_test(tmp_path, SCENARIO).root == repository
    assert "engine_under_test" not in sys.modules


def test_a_subfolder_and_a_link_lead_to_the_same_repository(tmp_path, repository, monkeypatch):
    commit(repository, sub__in__engine_under_test="")
    (tmp_path / "link").symlink_to(repository)
    monkeypatch.chdir(tmp_path / "link" / "sub")
    found = under_test(tmp_path, SCENARIO)
    assert (found.root, found.import_roots) == (repository, (Path("sub"),))


def test_packages_and_namespace_packages_are_found_by_their_folder(tmp_path, repository):
    commit(repository, engine_under_test=None, plain__in____init__="", plain__in__a="", spread__in__a="")
    for package in ("plain", "spread"):
        found = under_test(tmp_path, SCENARIO.replace("engine_under_test:", f"{package}.a:"))
        assert (found.packages, found.import_roots) == ((package,), (Path(),))


def test_helpers_beside_the_code_are_taken_from_the_same_revision(tmp_path, repository, monkeypatch):
    (repository / "lib").mkdir()
    monkeypatch.syspath_prepend(str(repository / "lib"))
    assert set(under_test(tmp_path, SCENARIO).import_roots) == {Path("lib"), Path()}


def test_a_linked_worktree_is_a_repository_of_its_own_place(tmp_path, repository, monkeypatch):
    git(repository, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    monkeypatch.chdir(tmp_path / "linked")
    assert under_test(tmp_path, SCENARIO).root == (tmp_path / "linked").resolve()


def test_the_environment_of_a_hook_does_not_mislead(tmp_path, repository, monkeypatch):
    other = make_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert under_test(tmp_path, SCENARIO).root == repository


def test_an_installed_copy_inside_the_repository_is_refused(tmp_path, repository, monkeypatch):
    copy = repository / ".venv" / "site-packages"
    copy.mkdir(parents=True)
    (copy / "engine_under_test.py").write_text("")
    (repository / ".gitignore").write_text(".venv\n")
    commit(repository, engine_under_test=None, src__in__engine_under_test="")
    monkeypatch.syspath_prepend(str(copy))
    with pytest.raises(OptionError, match=r"does not track; .*pip install --editable"):
        under_test(tmp_path, SCENARIO)


def test_code_outside_any_repository_is_refused(tmp_path, monkeypatch):
    (tmp_path / "engine_under_test.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(OptionError, match="which git does not know as a repository"):
        under_test(tmp_path, SCENARIO)


def test_without_git_the_user_is_told_what_to_try(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OptionError, match=r"see that this works: git -C .* status"):
        under_test(tmp_path, SCENARIO)


def test_a_module_that_is_not_there_is_an_error_of_the_method_that_names_it(tmp_path, repository):
    with pytest.raises(OptionError, match=r"s\.yaml: methods\.mine: entry: no module 'absent' here"):
        under_test(tmp_path, SCENARIO.replace("engine_under_test", "absent"))


@pytest.mark.parametrize("name", ["sys", "__main__"])
def test_modules_without_a_file_are_none(tmp_path, repository, monkeypatch, name):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(OptionError, match="no module"):
        under_test(tmp_path, SCENARIO.replace("engine_under_test", name))


def test_code_in_two_repositories_is_refused(tmp_path, repository, monkeypatch):
    other = make_repository(tmp_path / "other")
    (other / "engine_under_test.py").rename(other / "second_engine.py")
    commit(other)
    monkeypatch.syspath_prepend(str(other))
    with pytest.raises(OptionError, match="expected one repository; check the scenarios one by one"):
        under_test(tmp_path, SCENARIO, SCENARIO.replace("engine_under_test", "second_engine"))


@pytest.mark.skipif(not IS_CHECKOUT, reason="these tests do not run in a checkout of their own")
def test_scenarios_without_entries_test_modbench_itself(tmp_path, repository):
    found = under_test(tmp_path, DENSE_ALONE)
    assert found.is_modbench
    assert (found.root, found.packages) == (PROJECT, OWN_PACKAGES)
    assert Path() in found.import_roots


def test_an_installed_modbench_is_not_taken_for_the_users_own_code(tmp_path, repository, monkeypatch):
    installed = repository / ".venv"
    (installed / "modbench").mkdir(parents=True)
    monkeypatch.setattr("modbench.code_under_test.PROJECT", installed)
    with pytest.raises(OptionError, match=r"the code under test, modbench, is in .* does not track"):
        under_test(tmp_path, DENSE_ALONE)


COMMANDS = SCENARIO.split("methods:")[0] + "methods: {dense: {}, engine: {command: COMMAND}}\n" + "workload:"


def command_scenario(command):
    return COMMANDS.replace("COMMAND", command) + SCENARIO.split("workload:")[1]


@pytest.mark.parametrize("command", ["[./engine.py]", "[python, engine.py, --fast]", "[make, engine]"])
def test_a_program_is_in_the_repository_it_is_started_in(tmp_path, repository, command):
    (repository / "engine.py").write_text("print()")
    git(repository, "add", "engine.py")
    found = under_test(tmp_path, command_scenario(command))
    assert (found.root, found.packages) == (repository, ())


def test_an_absolute_path_would_be_the_same_program_on_both_sides(tmp_path, repository):
    (repository / "engine.py").write_text("print()")
    git(repository, "add", "engine.py")
    with pytest.raises(
        OptionError, match=r"methods\.engine: command: got .*engine\.py, which is the same file on both"
    ):
        under_test(tmp_path, command_scenario(f'[python, "{repository}/engine.py"]'))


def test_a_program_outside_any_repository_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="which git does not know as a repository"):
        under_test(tmp_path, command_scenario("[some-engine]"))
