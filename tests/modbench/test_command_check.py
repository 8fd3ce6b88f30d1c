import json
import sys
import types
import xml.etree.ElementTree as ET

import pytest
from typer.testing import CliRunner

from modbench.analysis.verdict import Verdict
from modbench.cli import app
from modbench.command_check import GateOptions, check_metrics, parse_tolerance, present_gate, record_files
from modbench.errors import OptionError, OutputError, RecordError
from modbench.record import append_record
from modbench.report.escaping import one_line
from modbench.report.pull_request import MARKER
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower
from tests.modbench.record_factory import make_record


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """The console table is another module's: here it prints the methods."""
    module = types.ModuleType("modbench.report.comparison")
    module.render_comparison = lambda compared, console: console.print(
        "TABLE " + " ".join(one_line(item.method) for item in compared.comparisons), markup=False
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def calls(monkeypatch):
    """What `compare_sides` was called with; it finds everything the same."""
    made = []
    module = types.ModuleType("modbench.analysis.compare")

    def compare_sides(*arguments):
        made.append(arguments)
        return sides(line(), slower(metric="ttft_s"))

    module.compare_sides = compare_sides
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


@pytest.fixture
def on_github(monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def write_run(folder, *halves, **facts):
    folder.mkdir(parents=True)
    for half in halves:
        append_record(folder / "records.jsonl", make_record(half=half, launch_id=f"{folder.name}-{half}"))
    if facts:
        required = dict.fromkeys(("run_id", "name", "question", "command"), "x")
        facts = {**required, "methods": {}, "expect": [], "overrides": [], **facts}
        (folder / "run.json").write_text(json.dumps(facts))
    return str(folder)


def test_the_gate_prints_the_table_then_its_line_and_returns_the_code(capsys):
    assert present_gate([sides(slower())], GateOptions()) == 1
    assert capsys.readouterr().out == (
        "TABLE threshold\n\nslower: threshold tpot_s at context 4,096 +6.1 % [+4.0, +8.3]\n"
    )


def test_a_quiet_gate_prints_only_its_line(capsys):
    assert present_gate([sides(inconclusive())], GateOptions(counts_as="pass", is_quiet=True)) == 0
    out = capsys.readouterr().out
    assert out.startswith("inconclusive (counts as passed): ")
    assert out.count("\n") == 1


def test_files_that_were_asked_for_are_written(tmp_path):
    options = GateOptions(junit=tmp_path / "new" / "junit.xml", markdown=tmp_path / "comment.md")
    present_gate([sides(slower())], options, command="modbench check x")
    assert ET.parse(options.junit).getroot().get("failures") == "1"
    assert options.markdown.read_text(encoding="utf-8").startswith(MARKER)


def test_a_file_that_cannot_be_written_is_a_usage_error_after_the_verdict(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"--junit: cannot write .*; name a file") as caught:
        present_gate([sides(slower())], GateOptions(junit=tmp_path / "file" / "junit.xml"))
    assert caught.value.exit_code == 2
    assert "slower: threshold" in capsys.readouterr().out


def test_outside_github_no_command_is_printed(capsys):
    present_gate([sides(slower())], GateOptions())
    assert "::" not in capsys.readouterr().out


def test_github_gets_annotations_a_summary_and_outputs(on_github, capsys):
    (on_github / "GITHUB_STEP_SUMMARY").write_text("before\n")
    assert present_gate([sides(inconclusive())], GateOptions("pass")) == 0
    assert "\n::warning title=modbench%3A inconclusive::inconclusive (counts as passed): " in capsys.readouterr().out
    assert (on_github / "GITHUB_STEP_SUMMARY").read_text().startswith(f"before\n{MARKER}\n")
    assert (on_github / "GITHUB_OUTPUT").read_text() == "exit_code=0\nverdict=inconclusive\n"


def test_a_summary_that_is_nearly_full_stays_below_githubs_limit(on_github):
    path = on_github / "GITHUB_STEP_SUMMARY"
    path.write_text("x" * (2**20 - 3000))
    present_gate([sides(*(slower(context) for context in range(200)))], GateOptions())
    assert 2**20 - 3000 < path.stat().st_size < 2**20
    assert "Cut here" in path.read_text()


def test_a_summary_that_cannot_be_written_warns_and_fails_nothing(on_github, monkeypatch, capsys):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(on_github))
    assert present_gate([sides(line())], GateOptions()) == 0
    assert capsys.readouterr().err == f"warning: GITHUB_STEP_SUMMARY: cannot write {on_github}: Is a directory\n"
    assert "verdict=same-or-faster" in (on_github / "GITHUB_OUTPUT").read_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_printed_names_cannot_give_github_commands(on_github, capsys, text):
    present_gate([sides(slower(method=text, reason=text))], GateOptions())
    lines = capsys.readouterr().out.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert len(token) == 32
    stop = lines.index(f"::{token}::")
    assert any("TABLE" in item for item in lines[:stop])
    assert any(item.startswith("slower: ") for item in lines[:stop])
    assert len(lines[stop + 1 :]) == 2
    assert all(item.startswith("::error title=modbench%3A slower::") for item in lines[stop + 1 :])


def test_chosen_metrics_alone_are_judged():
    compared = [sides(slower(), line(metric="kv_cache_bytes", ground="exact"))]
    assert present_gate(compared, GateOptions(metrics=("kv_cache_bytes",))) == 0
    assert present_gate(compared, GateOptions(metrics=("ttft_s",))) == 5, "nothing of it was compared"


def test_check_hands_all_records_of_a_side_at_once(tmp_path, calls):
    write_run(tmp_path / "new" / "a", 0)
    write_run(tmp_path / "new" / "b", 0, 1)
    base = write_run(tmp_path / "base", 0)
    arguments = ["check", str(tmp_path / "new" / "*"), str(tmp_path / "new" / "a"), "--baseline", base]
    done = CliRunner().invoke(app, [*arguments, "--tolerance", "5%", "--metric", "tpot_s"])
    assert done.exit_code == 0, done.output
    ((base_records, records, base_label, label, tolerance, margins),) = calls
    assert (len(base_records), len(records), base_label, tolerance, margins) == (1, 3, base, 0.05, {})
    assert label == f"{tmp_path}/new/*, {tmp_path}/new/a"
    assert "same or faster: 1 of 1 comparison" in done.output


def test_check_suggests_pairs_against_the_bases_revision(tmp_path, calls, capsys):
    base = write_run(tmp_path / "base", 0)
    candidate = write_run(tmp_path / "new", 0, scenario="scenarios/ci.yaml")
    done = CliRunner().invoke(app, ["check", candidate, "--baseline", base])
    assert done.exit_code == 1
    assert "modbench check --against 0123456789ab scenarios/ci.yaml --set workload.context=4096" in done.output


def test_damaged_lines_are_a_doubt(tmp_path, calls):
    base, candidate = write_run(tmp_path / "base", 0), write_run(tmp_path / "new", 0)
    with (tmp_path / "new" / "records.jsonl").open("a") as file:
        file.write("{cut\n")
    page = tmp_path / "page.md"
    CliRunner().invoke(app, ["check", candidate, "--baseline", base, "--markdown", str(page)])
    assert "1 damaged lines of records were passed over" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (["base"], OptionError, "no --baseline"),
        (["base", "--baseline", "base"], OptionError, "which is the candidate too"),
        (["none", "--baseline", "base"], RecordError, "none: no such run"),
        (["base", "--baseline", "x*"], RecordError, r"x\*: no such run"),
        (["base", "--baseline", "base", "--tolerance", "3"], OptionError, "--tolerance: got '3'"),
        (
            ["base", "--baseline", "base", "--metric", "tpots"],
            OptionError,
            "--metric: got 'tpots'; did you mean tpot_s",
        ),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(tmp_path, monkeypatch, calls, arguments, error, text):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "base", 0)
    done = CliRunner().invoke(app, ["check", *arguments])
    assert isinstance(done.exception, error)
    assert done.exception.exit_code == 2
    with pytest.raises(error, match=text):
        raise done.exception
    assert "\n" not in str(done.exception)


def test_an_unknown_word_for_inconclusive_is_refused():
    assert CliRunner().invoke(app, ["check", "a", "--baseline", "b", "--inconclusive", "maybe"]).exit_code == 2


@pytest.mark.parametrize(("text", "share"), [("3%", 0.03), ("3 %", 0.03), ("0.05", 0.05), ("2.5%", 0.025)])
def test_a_tolerance_is_a_share(text, share):
    assert parse_tolerance(text) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("text", ["0", "3", "100%", "-3%", "nan", "inf", "", "3%%", "1e-2", "٣%"])
def test_other_tolerances_are_refused(text):
    with pytest.raises(OptionError, match=r"^--tolerance: got .*; expected a share above 0 and below 1"):
        parse_tolerance(text)


def test_metrics_are_those_of_the_scenario_grammar():
    assert check_metrics(["tpot_s", "kv_cache_bytes"]) == ("tpot_s", "kv_cache_bytes")


def test_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", 0)
    assert record_files(["a", "a/records.jsonl", "*", str(tmp_path / "a")]) == [tmp_path / "a" / "records.jsonl"]


def test_an_empty_comparison_fails_the_gate(capsys):
    assert present_gate([sides(line(None))], GateOptions()) == 5
    assert Verdict.FAILED.value in capsys.readouterr().out
