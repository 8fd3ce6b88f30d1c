"""Histories as text, CSV and pages. To accept a change: `python -m tests.modbench.test_report_history`, then read the diff."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from modbench.analysis.history import History, build_history, summarise_run
from modbench.errors import OutputError
from modbench.record import Record, RecordFile
from modbench.report.history import (
    MAX_CONSOLE_ROWS,
    history_facts,
    history_tables,
    print_history,
    render_history_csv,
    render_history_html,
    write_history,
)
from modbench.report.history_plots import draw_history, setup_name, value_text
from tests.modbench.page_checks import assert_is_well_formed, foreign_scripts
from tests.modbench.record_factory import failed, make_quads
from tests.modbench.test_analysis_history import make_run, wrong

GOLDEN = Path(__file__).parent / "golden" / "history_80.txt"
HOSTILE = "=HYPERLINK(1)<script>[red]\x1b[31m\u202e|"


def golden_history() -> History:
    """Two cells over five runs: a failure, a wrong row, another machine, a changed tree, a run without a date."""
    quads = lambda: make_quads(4, contexts=(1024, 4096))  # noqa: E731
    runs = [
        make_run("2026-10-01", None, quads(), git_sha="1" * 40),
        make_run("2026-11-01", 1, quads(), git_is_dirty=True, git_sha="2" * 40),
        make_run("2026-11-02", 2, [failed(r) if r.method == "threshold" else r for r in quads()], git_sha="3" * 40),
        make_run("2026-11-03", 3, [wrong(r) for r in quads()], git_sha="4" * 40),
        make_run("2026-11-04", 4, make_quads(1), machine="m2", git_sha=None),
    ]
    return build_history(runs, ["threshold.prefill_speedup", "threshold.kv_cache_reduction"])


def hostile_history() -> History:
    point = make_quads(4)[0].point.model_copy(update={"cell_id": HOSTILE, "axes": {HOSTILE: HOSTILE}})

    def hostile(record: Record) -> Record:
        renamed = {"method": HOSTILE, "point_id": HOSTILE, "kind": "entry"} if record.method != "dense" else {}
        return record.model_copy(update={"point": point, "error": HOSTILE, **renamed})

    records = [hostile(record) for record in make_quads(4)]
    facts = {"git_sha": HOSTILE, "started": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    return build_history([make_run(HOSTILE, None, records, machine=HOSTILE, **facts)])


def console_text(history: History, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    print_history(history, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def test_the_console_text_is_the_golden_one():
    assert console_text(golden_history()) == GOLDEN.read_text(encoding="utf-8")


def test_a_long_series_is_cut_on_the_console_alone():
    runs = [make_run(f"r{number:02d}", None, make_quads(1)) for number in range(MAX_CONSOLE_ROWS + 3)]
    history = build_history(runs, ["threshold.prefill_speedup"])
    (group,) = history_tables(history, MAX_CONSOLE_ROWS)[0].groups
    assert group.label == "threshold · context 1,024 (3 earlier runs in the CSV)"
    assert [row.cells[-1] for row in group.rows][::19] == ["r03", "r22"]
    assert len(history_tables(history)[0].rows) == len(runs)
    assert len(render_history_csv(history).splitlines()) == len(runs) + 1


def test_series_of_other_work_are_told_apart():
    moved = [
        record.model_copy(
            update={"point_id": f"{record.method}-other", "point": record.point.model_copy(update={"cell_id": "x"})}
        )
        for record in make_quads(4)
    ]
    history = build_history([make_run("a", 1), make_run("b", 2, moved)], ["threshold.prefill_speedup"])
    labels = [group.label for group in history_tables(history)[0].groups]
    assert labels == ["threshold · context 1,024 · work point-th", "threshold · context 1,024 · work threshol"]


def test_the_csv_has_a_row_per_point_in_base_units():
    history = golden_history()
    rows = list(csv.DictReader(io.StringIO(render_history_csv(history))))
    assert len(rows) == sum(len(series.points) for series in history.series)
    first = rows[0]
    assert (first["metric"], first["method"], first["cell"]) == ("prefill_speedup", "threshold", "context 1,024")
    assert float(first["value"]) == history.series[0].points[0].value
    assert float(first["low"]) < float(first["value"]) < float(first["high"])
    assert [row["gap"] for row in rows[:5]] == ["", "", "oom × 8", "wrong: identity causal failed", ""]
    assert [row["value"] == "" for row in rows[:5]] == [False, False, True, True, False]
    assert [row["setup"] for row in rows[:5]] == ["A", "A", "A", "A", "B"]


def test_facts_for_machines_are_json_without_nan():
    facts = json.loads(json.dumps(history_facts(golden_history()), allow_nan=False))
    assert [run["setup"] for run in facts["runs"]] == [0, 0, 0, 0, 1]
    assert facts["series"][0]["points"][2] == {"run": 2, "value": None, "interval": None, "gap": "oom × 8"}
    assert len(facts["series"][0]["points"][0]["interval"]) == 2


def test_the_page_is_well_formed_self_contained_and_has_its_plots(tmp_path):
    files = write_history(tmp_path / "pages" / "h.html", golden_history())
    assert sorted(path.name for path in files) == [
        "h-kv_cache_reduction.png",
        "h-kv_cache_reduction.svg",
        "h-prefill_speedup.png",
        "h-prefill_speedup.svg",
        "h.csv",
        "h.html",
    ]
    page = (tmp_path / "pages" / "h.html").read_text(encoding="utf-8")
    assert_is_well_formed(page)
    assert page.count("<svg") == 2
    assert "https:" not in page
    assert "http:" not in page.replace("http://www.w3.org", "")
    for path in files:
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_bytes())


def test_plots_have_a_panel_per_cell_and_name_setups_that_change():
    plot = draw_history(golden_history())[0]
    texts = [element.text for element in ElementTree.fromstring(plot.standalone_svg.encode()).iter() if element.text]
    for text in ("context 1,024", "context 4,096", "A", "B", "prefill speedup"):
        assert text in texts, text
    assert draw_history(golden_history())[0].svg == plot.svg, "the same history gives the same drawing"


def test_names_from_outside_are_text_everywhere():
    history = hostile_history()
    page = render_history_html(history, draw_history(history))
    assert_is_well_formed(page)
    assert foreign_scripts(page) == []
    for text in (page, console_text(history), render_history_csv(history)):
        assert "\x1b" not in text
        assert "\u202e" not in text
    rows = list(csv.DictReader(io.StringIO(render_history_csv(history))))
    assert rows
    assert all(not value.startswith("=") for row in rows for value in row.values())
    assert "[red]" in console_text(history), "markup is printed as it is"
    ElementTree.fromstring(draw_history(history)[0].standalone_svg.encode())


def test_a_history_without_series_is_a_page_too():
    history = build_history([summarise_run("a", RecordFile(Path("a"), [], 0), None)])
    assert draw_history(history) == []
    assert "a: no launches" in render_history_html(history, [])
    assert "History of 1 run and 0 commits" in console_text(history)


def test_a_page_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_history(tmp_path / "file" / "h.html", golden_history())


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("decode_speedup", 1.777, "1.78×"),
        ("kv_cache_reduction", 1.5, "1.50×"),
        ("keep_ratio_prefill", 0.111, "11 %"),
        ("ttft_s", 0.5, "500 ms"),
        ("kv_cache_bytes", 2**20, "1.00 MiB"),
        ("decode_tokens_per_s", 1780, "1,780 tok/s"),
        ("energy_j", 12.3456, "12.35 J"),
    ],
)
def test_values_carry_their_unit(metric, value, text):
    assert value_text(metric, value) == text


def test_ticks_of_a_plot_have_different_texts():
    texts = re.findall(r">(\d\.\d+×)<", draw_history(golden_history())[0].svg)
    panel = texts[: len(texts) // 2]
    assert len(panel) == len(set(panel)) >= 2


def test_setups_are_letters_then_numbers():
    assert [setup_name(index) for index in (0, 25, 26)] == ["A", "Z", "27"]


if __name__ == "__main__":
    GOLDEN.write_text(console_text(golden_history()), encoding="utf-8")
