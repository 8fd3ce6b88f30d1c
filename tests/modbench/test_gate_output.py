"""What a gate prints, writes and tells GitHub."""

import xml.etree.ElementTree as ET

import pytest

from modbench import gate_output
from modbench.analysis.verdict import Verdict
from modbench.errors import OutputError
from modbench.gate_output import GateOptions, present_gate, refuse_unwritable
from modbench.report.escaping import one_line
from modbench.report.github_markdown import MARKER
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower


@pytest.fixture(autouse=True)
def table(monkeypatch):
    """The console table has its own tests: here it prints the methods."""

    def render(compared, console):
        console.print("TABLE " + " ".join(one_line(item.method) for item in compared.comparisons), markup=False)

    monkeypatch.setattr(gate_output, "render_comparison", render)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def on_github(monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


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


def test_an_empty_comparison_fails_the_gate(capsys):
    assert present_gate([sides(line(None))], GateOptions()) == 5
    assert Verdict.FAILED.value in capsys.readouterr().out


@pytest.mark.parametrize("option", ["junit", "markdown"])
def test_a_file_that_cannot_be_written_is_found_before_measuring(option, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "page.xml"):
        with pytest.raises(OutputError, match=f"--{option}: cannot write"):
            refuse_unwritable(GateOptions(**{option: path}))
    refuse_unwritable(GateOptions(**{option: tmp_path / "new" / "page.xml"}))
    refuse_unwritable(GateOptions(**{option: tmp_path / "file"}))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
