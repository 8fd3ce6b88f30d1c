"""`modbench report --format ... -o FILE`: what goes to stdout, what into a file, and what does not go together."""

import json

import pytest

from modbench.cli_options import ReportFormat
from modbench.command_report import ReportOptions, report_command
from modbench.command_run import make_document
from modbench.errors import OptionError, OutputError, RecordError
from modbench.report.report_json import render_json
from modbench.report.run_comment import render_run_comment
from modbench.report.table_csv import render_csv
from tests.modbench.record_factory import make_quads
from tests.modbench.test_report_pytest_benchmark import write_run

PAGES = (ReportFormat.CONSOLE, ReportFormat.HTML)
OTHERS = [format for format in ReportFormat if format not in PAGES]


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", make_quads(1))


def printed(capsys, folder, format: ReportFormat, output=None) -> str:
    report_command(ReportOptions([folder], format, output=output))
    return capsys.readouterr().out


def test_each_format_prints_its_text(capsys, folder):
    document = make_document(folder)
    assert printed(capsys, folder, ReportFormat.MARKDOWN) == render_run_comment(document)
    assert printed(capsys, folder, ReportFormat.CSV) == render_csv(document.summary)
    assert printed(capsys, folder, ReportFormat.JSON) == render_json(document)
    assert "benchmarks" in json.loads(printed(capsys, folder, ReportFormat.PYTEST_BENCHMARK))


@pytest.mark.parametrize("format", OTHERS)
def test_a_file_has_what_would_be_printed(capsys, folder, tmp_path, format):
    expected = printed(capsys, folder, format)
    assert printed(capsys, folder, format, tmp_path / "file") == ""
    found = (tmp_path / "file").read_text(encoding="utf-8")
    if format is ReportFormat.PYTEST_BENCHMARK:  # it has the time at which it was made
        assert json.loads(found).keys() == json.loads(expected).keys()
    else:
        assert found == expected


@pytest.mark.parametrize("format", OTHERS)
def test_a_file_that_cannot_be_written_is_an_error(folder, tmp_path, format):
    with pytest.raises(OutputError, match="cannot be written"):
        report_command(ReportOptions([folder], format, output=tmp_path / "missing" / "file"))


def test_markdown_and_csv_leave_the_folder_as_it_is(capsys, folder):
    before = sorted(folder.iterdir())
    printed(capsys, folder, ReportFormat.MARKDOWN)
    printed(capsys, folder, ReportFormat.CSV)
    assert sorted(folder.iterdir()) == before


def test_a_page_is_written_where_it_was_asked_for_and_the_folder_stays(capsys, folder, tmp_path):
    before = sorted(folder.iterdir())
    page = tmp_path / "elsewhere" / "page.html"
    printed(capsys, folder, ReportFormat.CONSOLE, page)
    assert page.read_text().startswith("<!doctype html>")
    assert sorted(folder.iterdir()) == before


def test_html_writes_the_page_alone(capsys, folder):
    before = set(folder.iterdir())
    assert printed(capsys, folder, ReportFormat.HTML) == f"report: {folder / 'report.html'}\n"
    assert set(folder.iterdir()) - before == {folder / "report.html"}


def test_lines_of_which_none_is_a_record_are_an_error(folder):
    (folder / "records.jsonl").write_text("zzz\n" * 3)
    with pytest.raises(RecordError, match="none of its 3 lines is a record"):
        make_document(folder)


def test_the_console_takes_no_file_but_a_page(folder, tmp_path):
    with pytest.raises(OptionError, match=r"expected a page, such as report\.html, or a --format"):
        report_command(ReportOptions([folder], ReportFormat.CONSOLE, output=tmp_path / "x"))
    with pytest.raises(OptionError, match="--history"):
        report_command(ReportOptions([folder], ReportFormat.MARKDOWN, metrics=["ttft_s"]))


def test_several_runs_are_compared_with_the_first(capsys, folder, tmp_path):
    report_command(ReportOptions([folder, folder], ReportFormat.CONSOLE, output=tmp_path / "page.html"))
    assert f"comparison: {tmp_path / 'page.html'}" in capsys.readouterr().out
    assert "What differed" in (tmp_path / "page.html").read_text()
    with pytest.raises(OptionError, match="expected one run's folder"):
        report_command(ReportOptions([folder, folder], ReportFormat.PYTEST_BENCHMARK))


@pytest.mark.parametrize("format", [ReportFormat.MARKDOWN, ReportFormat.CSV, ReportFormat.PYTEST_BENCHMARK])
def test_a_history_is_printed_on_the_console_or_as_json(folder, format):
    with pytest.raises(OptionError, match=f"got {format.value} with --history; expected console or json"):
        report_command(ReportOptions([folder], format, has_history=True))
