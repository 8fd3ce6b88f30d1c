"""The scoreboard as text. To accept a change: `python -m tests.modbench.test_report_scoreboard`, then read the diff."""

import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from modbench.command_scoreboard import make_scoreboards
from modbench.report.scoreboard import (
    render_scoreboards,
    score_table,
    scoreboards_json,
    scoreboards_markdown,
    value_text,
)
from tests.modbench.record_factory import failed
from tests.modbench.scoreboard_factory import CLAIMS, write_claims, write_run

GOLDEN = Path(__file__).parent / "golden"
LARGE = CLAIMS.replace("claims-8x512", "claims-70b").replace("bench-8x512", "llama3.1-70b")


def oom_at_4096(record):
    return failed(record) if record.point.workload["context"] == 4096 else record


def golden_boards():
    """A scenario measured at one point and out of memory at the other, one that nobody measured, and a run of other work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = write_claims(folder / "claims")
        write_claims(folder / "claims", LARGE, "large.yaml")
        run = write_run(folder / "run", small, change=oom_at_4096)
        other = write_run(folder / "other", small, ["model.preset=tiny"])
        boards, notes = make_scoreboards([run, other], folder / "claims")
        boards = [replace(board, run="reports/run" if board.run else None) for board in boards]
        return boards, [note.replace(f"{name}/", "reports/") for note in notes]


def console_text(boards, notes, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    render_scoreboards(boards, notes, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


RENDERERS = {
    "scoreboard_80.txt": lambda: console_text(*golden_boards()),
    "scoreboard.md": lambda: scoreboards_markdown(*golden_boards()),
}


@pytest.mark.parametrize("name", RENDERERS)
def test_golden_boards_give_exactly_the_golden_text(name):
    assert RENDERERS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_console_fits_eighty_columns():
    assert max(len(line) for line in console_text(*golden_boards()).splitlines()) <= 80


def test_a_predicted_row_never_looks_like_a_measured_one():
    boards, _ = golden_boards()
    for board in boards:
        rows = score_table(board).rows
        for score, row in zip(board.scores, rows, strict=True):
            _, ideal, measured, source, _ = row.cells
            assert (source == "measured") == (measured != "–")
            assert (source == "predicted") == (row.state == "predicted")
            assert source == score.source
            assert ideal != "–"


def test_predictions_are_of_the_smallest_model_first_and_name_their_device():
    (small, large), notes = golden_boards()
    assert (small.scenario, large.scenario) == ("claims-8x512", "claims-70b")
    assert (small.device.source, small.device.name) == ("measured ceilings", "Example CPU @ 2.0 GHz")
    assert (large.device.source, large.device.name) == ("data-sheet peaks", "NVIDIA H200 SXM")
    assert len(notes) == 1
    assert "it had --set model.preset=tiny" in notes[0]


def test_json_keeps_ideal_predicted_and_measured_apart():
    facts = json.loads(json.dumps(scoreboards_json(*golden_boards()), allow_nan=False))
    small, large = facts["boards"]
    measured, missing = small["scores"][:2]
    assert (measured["source"], measured["predicted"]) == ("measured", None)
    assert measured["measured"] == pytest.approx(1.80, abs=0.01)
    assert (missing["source"], missing["predicted"], missing["measured"]) == ("no number", None, None)
    assert {item["source"] for item in large["scores"]} == {"predicted"}
    assert all(item["predicted"] == item["ideal"] and item["measured"] is None for item in large["scores"])
    assert large["ideal_from"]["ceilings_source"] == "data-sheet peaks"
    assert (large["run"], small["run"]) == (None, "reports/run")


def test_text_from_a_stranger_stays_text():
    (board, _), _ = golden_boards()
    hostile = replace(
        board, model="<script>alert(1)</script>|[x](javascript:1)", run="[bold]run\x1b[31m", scenario="a|b"
    )
    console = console_text([hostile], ["<img onerror=1>\x1b[2J"])
    assert "\x1b" not in console
    assert "[bold]run" in console
    markdown = scoreboards_markdown([hostile], ["<img onerror=1>"])
    assert "<script>" not in markdown
    assert "<img" not in markdown
    assert "](javascript" not in markdown


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("kv_cache_reduction", 1.8, "1.80×"),
        ("prefill_share_of_ideal", 0.94, "94 %"),
        ("ttft_s", 0.0433, "43.3 ms"),
        ("kv_cache_bytes", 2**20, "1.00 MiB"),
        ("energy_j", 12.34, "12.34 J"),
    ],
)
def test_values_have_the_unit_that_people_read(metric, value, text):
    assert value_text(metric, value) == text


def accept() -> None:
    for name, render in RENDERERS.items():
        (GOLDEN / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    accept()
