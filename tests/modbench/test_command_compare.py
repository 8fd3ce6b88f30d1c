"""`modbench compare` as a black box: files in, text and exit code out."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modbench.cli import app
from modbench.cli_options import ComparisonFormat
from modbench.command_compare import DEFAULT_PAGE, comparison_report
from modbench.errors import ModbenchError
from modbench.record import RECORDS_FILE, Record, append_record
from modbench.side_files import load_side
from tests.modbench.record_factory import failed
from tests.modbench.side_factory import changed, make_interleaved, make_side
from tests.modbench.test_command_line import modbench


def write_run(folder: Path, records: list[Record]) -> Path:
    folder.mkdir(parents=True)
    for record in records:
        append_record(folder / RECORDS_FILE, record)
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Saved runs in the current folder: `base`, `same`, `slower`, `open`, `wrong` and `broken`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_run(tmp_path / "base", make_side())
    write_run(tmp_path / "same", make_side("same"))
    write_run(tmp_path / "slower", make_side("slower", slower={"threshold": 1.1}))
    write_run(tmp_path / "open", make_side("open", slower={"threshold": 1.03}))
    write_run(tmp_path / "wrong", changed(make_side("wrong"), "threshold", guard={"causal": "failed"}))
    write_run(tmp_path / "broken", [failed(record) for record in make_side("broken")])
    return tmp_path


def compare(*arguments: str) -> tuple[int, str]:
    """Exit code and output; what the user can mend comes as its code and text."""
    done = CliRunner().invoke(app, ["compare", *arguments])
    if isinstance(done.exception, ModbenchError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("candidates", "code"),
    [
        (["same"], 0),
        (["slower"], 1),
        (["open"], 3),
        (["wrong"], 4),
        (["broken"], 5),
        (["same", "open"], 3),
        (["open", "wrong"], 4),
        (["wrong", "slower"], 1),
        (["slower", "broken"], 5),
    ],
)
def test_the_exit_code_is_a_gates_for_all_candidates_and_0_without_being_asked(runs, candidates, code):
    assert compare("base", *candidates, "--exit-code")[0] == code
    assert compare("base", *candidates)[0] == 0


def test_inconclusive_may_pass_or_fail(runs):
    assert compare("base", "open", "--exit-code", "--inconclusive", "pass")[0] == 0
    assert compare("base", "open", "--exit-code", "--inconclusive", "fail")[0] == 1


def test_pairs_of_one_job_are_judged(runs):
    for side, records in zip(("main", "change"), make_interleaved(6, 1.1), strict=True):
        write_run(runs / side, records)
    code, text = compare("main", "change", "--exit-code")
    assert code == 1
    assert "Measured side by side" in text


def test_every_candidate_is_compared_with_the_first(runs):
    _, text = compare("base", "same", "slower")
    assert "same compared with base" in text
    assert "slower compared with base" in text


def test_a_records_file_a_folder_and_a_glob_are_the_same_side(runs):
    texts = [compare("base", name, "--format", "json")[1] for name in ("slower", f"slower/{RECORDS_FILE}", "slow*")]
    compared = [json.loads(text)["compared"][0]["comparisons"] for text in texts]
    assert compared[0] == compared[1] == compared[2]


def test_several_files_of_a_glob_are_one_side_and_a_launch_counts_once(runs):
    write_run(runs / "many" / "a", make_side("a"))
    write_run(runs / "many" / "b", make_side("b"))
    write_run(runs / "many" / "copy", make_side("a"))
    (runs / "many" / "no-run").mkdir()
    side = load_side("many/*")
    assert (side.label, len(side.records)) == ("many/*", 32)
    assert {record.run_id for record in side.records} == {"a", "b"}


def test_damaged_lines_are_passed_over_and_told(runs):
    path = runs / "same" / RECORDS_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:100] + "\n" + "".join(lines[2:]) + lines[0][:50])
    _, text = compare("base", "same")
    assert "candidate: 1 damaged line of its records was passed over" in " ".join(text.split())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_record_with_nan_is_an_error_and_no_value(runs, number):
    path = runs / "same" / RECORDS_FILE
    facts = json.loads(path.read_text().splitlines()[3])
    facts["samples"]["ttft_s"][2] = float(number)
    with path.open("a") as file:
        file.write(json.dumps(facts) + "\n")
    code, text = compare("base", "same")
    assert code == 2
    assert text.startswith(f"same/{RECORDS_FILE}:17: got {number}; expected finite numbers")


def test_a_time_of_zero_is_an_error(runs):
    zero = changed(make_side("zero"), "threshold")
    zero = [
        record.model_copy(update={"samples": record.samples.model_copy(update={"ttft_s": [0.0] * 5})})
        for record in zero
    ]
    write_run(runs / "zero", zero)
    code, text = compare("base", "zero")
    assert code == 2
    assert (
        text
        == "zero/records.jsonl:1: samples.ttft_s: got 0.0; expected 1e-12 to 1e+09; remove the line and measure again"
    )


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["missing", "same"], "missing: no records there; expected a run's folder"),
        (["base", "nothing*"], "nothing*: no records there"),
        (["base", "empty"], "empty: no complete record in it"),
        (["base", "same", "--tolerance", "3"], "--tolerance: got '3'; expected a share such as 3% or 0.03"),
        (["base", "same", "--metric", "ttft"], "--metric: got 'ttft'; did you mean ttft_s?"),
        (["base", "same", "-o", "no/such/folder"], "no/such/folder: cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_used_is_one_line(runs, arguments, start):
    write_run(runs / "empty", [])
    (runs / "empty" / RECORDS_FILE).touch()
    code, text = compare(*arguments)
    assert code == 2
    assert text.startswith(start)
    assert "\n" not in text


def test_tolerance_and_metrics_are_taken(runs):
    code, text = compare(
        "base", "slower", "--tolerance", "20%", "--metric", "ttft_s", "--format", "json", "--exit-code"
    )
    assert code == 0
    (compared,) = json.loads(text)["compared"]
    assert compared["tolerance"] == 0.2
    assert {line["metric"] for line in compared["comparisons"]} == {"ttft_s"}


@pytest.mark.parametrize("format", ["console", "markdown", "json", "csv"])
def test_a_file_gets_what_would_have_been_printed(runs, format):
    _, printed = compare("base", "slower", "--format", format)
    code, text = compare("base", "slower", "--format", format, "-o", "out")
    assert (code, text) == (0, "")
    written = (runs / "out").read_text()
    assert [line.rstrip() for line in printed.splitlines()] == written.splitlines()
    assert "slower" in written


def test_a_page_is_written_where_asked_for_and_its_place_printed(runs):
    code, text = compare("base", "slower", "same", "--format", "html", "--exit-code")
    assert (code, text) == (1, f"comparison: {DEFAULT_PAGE}\n")
    assert "2 runs compared with base" in DEFAULT_PAGE.read_text()
    _, text = compare("base", "slower", "--format", "html", "-o", "pages/one.html")
    assert text == "comparison: pages/one.html\n"
    assert "slower compared with base" in Path("pages/one.html").read_text()


def test_a_report_of_several_runs_is_their_comparison_on_the_console_and_a_page(runs, capsys):
    (runs / "base" / "run.json").write_text('{"started": "2026-11-24T07:40:00+00:00"}')
    comparison_report(["base", "slower"], ComparisonFormat.CONSOLE, None)
    printed = capsys.readouterr().out
    assert "Verdict at a margin of 3.0 %" in printed
    assert printed.endswith(f"comparison: {DEFAULT_PAGE}\n")
    assert "2026-11-24 07:40 UTC" in DEFAULT_PAGE.read_text(), "of a record that does not say, its run does"


@pytest.mark.parametrize("format", ["markdown", "json", "csv"])
def test_a_report_of_several_runs_in_a_format_is_what_compare_prints(runs, capsys, format):
    comparison_report(["base", "slower"], ComparisonFormat(format), None)
    assert capsys.readouterr().out == compare("base", "slower", "--format", format)[1]
    assert not DEFAULT_PAGE.exists()


@pytest.mark.parametrize(
    ("names", "output", "start"),
    [
        (["base"], None, "report: got 1 run; expected two or more"),
        (["base", "same"], Path("page.txt"), "--output: got page.txt; expected the name of a page"),
        (["base", "missing"], None, "missing: no records there"),
        (["base", "same"], Path("base/records.jsonl/x.html"), "base/records.jsonl/x.html: cannot be written"),
    ],
)
def test_a_report_of_several_runs_that_cannot_be_made_is_one_line(runs, names, output, start):
    with pytest.raises(ModbenchError, match=f"^{re.escape(start)}"):
        comparison_report(names, ComparisonFormat.HTML, output)


def test_the_program_compares_and_loads_nothing_heavy(runs):
    done = modbench("compare", "base", "slower", "--exit-code", folder=runs)
    assert (done.returncode, done.stderr) == (1, "")
    assert "slower" in done.stdout
    program = (
        "import sys; from modbench.cli import app; app(['compare', 'base', 'slower'], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    assert run_python(program, runs) == "[]\n"


def run_python(program: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stderr
