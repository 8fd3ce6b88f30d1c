"""`modbench check` on saved runs: real records on both sides, as a user would name them."""

import json

import pytest
from typer.testing import CliRunner

from modbench.cli import app
from modbench.errors import OptionError, RecordError
from modbench.record import append_record
from tests.modbench.side_factory import make_side

BASE_SHA = "0123456789abcdef0123456789abcdef01234567"
SHA = "89abcdef0123456789abcdef0123456789abcdef"


def write_run(folder, scenario=None, **changes):
    """A run of 8 pairs; `changes` are `make_side`'s."""
    folder.mkdir(parents=True)
    environment = {"git_sha": BASE_SHA if "base" in folder.name else SHA, "git_is_dirty": False}
    for record in make_side(folder.name, environment=environment, **changes):
        append_record(folder / "records.jsonl", record)
    if scenario:
        required = dict.fromkeys(("run_id", "name", "question", "command"), "x")
        facts = {**required, "methods": {}, "expect": [], "overrides": [], "scenario": scenario}
        (folder / "run.json").write_text(json.dumps(facts))
    return str(folder)


def check(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


def test_the_same_code_passes(tmp_path):
    done = check(write_run(tmp_path / "new"), "--baseline", write_run(tmp_path / "base"))
    assert done.exit_code == 0, done.output
    assert "same or faster: " in done.output


def test_a_slower_method_fails_and_the_next_step_is_a_command(tmp_path):
    candidate = write_run(tmp_path / "new", "scenarios/ci.yaml", slower={"threshold": 1.1})
    done = check(candidate, "--baseline", write_run(tmp_path / "base"))
    assert done.exit_code == 1
    assert "slower: threshold" in done.output
    assert "modbench check --against 0123456789ab scenarios/ci.yaml --set workload.context=1024" in done.output


def test_more_tolerance_lets_it_pass(tmp_path):
    candidate = write_run(tmp_path / "new", slower={"threshold": 1.1})
    assert check(candidate, "--baseline", write_run(tmp_path / "base"), "--tolerance", "15%").exit_code == 0


def test_a_chosen_metric_alone_is_judged(tmp_path):
    candidate, base = write_run(tmp_path / "new", slower={"threshold": 1.1}), write_run(tmp_path / "base")
    assert check(candidate, "--baseline", base, "--metric", "kv_cache_bytes").exit_code == 0


def test_inconclusive_counts_as_it_is_told(tmp_path):
    candidate, base = write_run(tmp_path / "new", num_quads=2), write_run(tmp_path / "base")
    options = [candidate, "--baseline", base, "--metric", "tpot_s"]
    assert [
        check(*options, *more).exit_code for more in ([], ["--inconclusive", "pass"], ["--inconclusive", "fail"])
    ] == [
        3,
        0,
        1,
    ]


def test_several_runs_of_a_side_are_one_family(tmp_path):
    for name in ("a", "b"):
        context = {"a": 1024, "b": 2048}[name]
        write_run(tmp_path / "new" / name, contexts=(context,))
        write_run(tmp_path / "base" / f"base-{name}", contexts=(context,))
    done = check(tmp_path / "new" / "*", tmp_path / "new" / "a", "--baseline", tmp_path / "base" / "*")
    assert done.exit_code == 0, done.output
    assert "context 1,024" in done.output
    assert "context 2,048" in done.output


def test_damaged_lines_are_a_doubt(tmp_path):
    base, candidate = write_run(tmp_path / "base"), write_run(tmp_path / "new")
    with (tmp_path / "new" / "records.jsonl").open("a") as file:
        file.write("{cut\n")
    page = tmp_path / "page.md"
    check(candidate, "--baseline", base, "--markdown", page)
    assert "1 damaged line" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["base"], OptionError, "got neither of --against REV and --baseline BASE"),
        (["base", "--baseline", "base", "--against", "HEAD"], OptionError, "got both of"),
        (["base", "--baseline", "base"], OptionError, "with launches that the candidate holds too"),
        (["none", "--baseline", "base"], RecordError, "none: no records there"),
        (["base", "--baseline", "x*"], RecordError, r"x\*: no records there"),
        (["base", "--baseline", "base", "--tolerance", "3"], OptionError, "--tolerance: got '3'"),
        (
            ["base", "--baseline", "base", "--metric", "tpots"],
            OptionError,
            "--metric: got 'tpots'; did you mean tpot_s",
        ),
        (["base", "--baseline", "base", "--budget", "9s"], OptionError, "--budget: got it with --baseline"),
        (["base", "--baseline", "base", "--method", "dense"], OptionError, "--method: got it with --baseline"),
        (["base", "--baseline", "base", "--environment", "own"], OptionError, "--environment: got it with --baseline"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(tmp_path, monkeypatch, arguments, error, text):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "base")
    done = check(*arguments)
    assert isinstance(done.exception, error)
    assert done.exception.exit_code == 2
    with pytest.raises(error, match=text):
        raise done.exception
    assert "\n" not in str(done.exception)


def test_an_unknown_word_for_inconclusive_is_refused():
    assert check("a", "--baseline", "b", "--inconclusive", "maybe").exit_code == 2
