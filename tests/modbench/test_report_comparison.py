"""Two made-up sides -> exact text. To accept a change: `python -m tests.modbench.test_report_comparison`, then read the diff."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from modbench.analysis.compare import compare_sides
from modbench.analysis.comparison import ComparedSides
from modbench.report.comparison import comparison_view, render_comparison, verdict_line
from modbench.report.comparison_formats import (
    COLUMNS,
    MAX_BYTES,
    MAX_LISTED,
    comparison_csv,
    comparison_json,
    comparison_markdown,
)
from tests.modbench.comparison_factory import line as line_of_comparison
from tests.modbench.comparison_factory import sides, slower
from tests.modbench.record_factory import failed
from tests.modbench.side_factory import changed, make_interleaved, make_side, with_facts, with_metrics
from tests.modbench.test_analysis_limits import searched
from tests.modbench.test_report_escaping import HOSTILE

GOLDEN = Path(__file__).parent / "golden"
METHODS = ("dense", "threshold", "masked")


def golden_comparison() -> ComparedSides:
    """Saved runs of two revisions: TTFT slower, TPOT open, a few bytes more, one method wrong and out of memory, a search."""
    base = with_facts(make_side("base", methods=METHODS, contexts=(1024, 4096)), git_sha="a" * 40, git_is_dirty=False)
    candidate = make_side("new", 5, METHODS, (1024, 4096), slower={"threshold": 1.031})
    candidate = with_facts(candidate, git_sha="b" * 40, git_is_dirty=True, kernel="6.1")
    candidate = with_metrics(candidate, "threshold", kv_cache_bytes=19_000_000)
    for index, record in enumerate(candidate):
        samples, context = record.samples, record.point.workload["context"]
        if record.method == "threshold":
            slower = samples.model_copy(update={"ttft_s": [value * 1.08 for value in samples.ttft_s]})
            candidate[index] = record.model_copy(update={"samples": slower})
        elif record.method == "masked":
            wrong = record.model_copy(update={"guard": {"causal": "failed"}})
            candidate[index] = wrong if context == 1024 else failed(record)
    candidate[0] = candidate[0].model_copy(update={"flags": ["contaminated: involuntary context switches"]})
    candidate += changed(make_side("only", contexts=(8192,)), "dense")
    limits = [
        [
            record.model_copy(update={"launch_id": f"{run}-{record.launch_id}", "environment": side[0].environment})
            for record in searched("dense", fitting, failing)
        ]
        for run, side, fitting, failing in (("base", base, 1000, 1020), ("new", base, 960, 990))
    ]
    return compare_sides(base + limits[0], candidate + limits[1], "runs/main", "runs/change")


def console_text(compared: ComparedSides, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    render_comparison(compared, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


RENDERERS = {
    "comparison_80.txt": lambda: console_text(golden_comparison()),
    "comparison_pairs_80.txt": lambda: console_text(compare_sides(*make_interleaved(6, 1.1), "main", "change")),
    "comparison.md": lambda: comparison_markdown([golden_comparison()]),
    "comparison.csv": lambda: comparison_csv([golden_comparison()]),
}


@pytest.mark.parametrize("name", RENDERERS)
def test_made_up_sides_give_exactly_the_golden_text(name):
    assert RENDERERS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_console_fits_eighty_columns():
    for name in ("comparison_80.txt", "comparison_pairs_80.txt"):
        assert max(len(line) for line in RENDERERS[name]().splitlines()) <= 80


def test_what_differed_comes_before_the_numbers_and_the_verdict_last():
    text = console_text(golden_comparison())
    places = [text.index(part) for part in ("What differs", "Time / dense time", "Notes", "Doubts", "Verdict at")]
    assert places == sorted(places)
    assert text.rstrip().endswith("failed.")


def test_json_has_every_field_and_reads_back():
    facts = json.loads(json.dumps(comparison_json([golden_comparison()]), allow_nan=False))
    assert set(facts) == {"schema_version", "compared"}
    (compared,) = facts["compared"]
    names = {"base", "candidate", "comparisons", "tolerance", "margins", "differences", "footnotes", "cells"}
    assert set(compared) == names
    line = next(line for line in compared["comparisons"] if line["ground"] == "ratio_to_dense" and line["interval"])
    assert set(line) == {
        *("cell_id", "axes", "scenario", "method", "metric", "ground", "verdict", "base", "candidate", "ratio"),
        *("interval", "num_values", "reason", "pairs_needed", "doubts"),
    }
    assert (line["verdict"], line["num_values"]) == ("slower", [8, 10])
    assert {"key": "kernel", "base": None, "candidate": "6.1"} in compared["differences"]


def test_csv_has_a_line_per_comparison_in_full_precision():
    compared = golden_comparison()
    rows = list(csv.DictReader(io.StringIO(comparison_csv([compared]))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(compared.comparisons)
    for row, line in zip(rows, compared.comparisons, strict=True):
        assert row["ratio"] == ("" if line.ratio is None else repr(line.ratio))
        assert row["verdict"] == ("" if line.verdict is None else line.verdict.value)


def test_nothing_judged_is_said():
    assert verdict_line(compare_sides(make_side(), [], "A", "B")) == "Verdict: nothing could be judged."


def test_margins_that_differ_stand_in_the_verdict_line():
    compared = compare_sides(make_side(), make_side("new"), "A", "B", margins={"tpot_s": 0.05})
    assert verdict_line(compared).startswith("Verdict at margins of 3.0 % (TTFT) and 5.0 % (TPOT): 8 same")


def test_differences_are_cut_with_a_count():
    sides = [with_facts(make_side(name), **{f"fact_{index}": name for index in range(40)}) for name in ("base", "new")]
    view = comparison_view(compare_sides(*sides, "A", "B"))
    assert len(view.differences) == 13
    assert view.differences[-1] == "and 28 more (all of them with --format json)"


def test_markdown_folds_what_has_no_verdict_and_fits_a_comment_however_much_there_is():
    text = comparison_markdown([golden_comparison()])
    assert text.count("<details>") == text.count("</details>") - 1 == 1
    assert text.index("<details open><summary>What differs") < text.index("## Time / dense time")
    assert text.index("<details><summary>No verdict: absolute times") < text.index("## Notes")
    many = [
        line
        for context in range(1000, 1400)
        for line in (
            slower(context, doubts=(f"doubt {context}",), cell_id=f"cell-{context}"),
            line_of_comparison(None, context, ground="advisory"),
        )
    ]
    for num_candidates in (1, 3):
        text = comparison_markdown([sides(*many)] * num_candidates)
        assert 60_000 < len(text.encode()) <= MAX_BYTES
        num_rows = sum(line.startswith("| threshold") for line in text.splitlines())
        told = re.findall(r"(\d+) of (\d+) rows are left out", text)
        assert {total for _, total in told} == {"400"}
        assert num_rows + sum(int(count) for count, _ in told) == 800 * num_candidates
        assert text.count("Verdict at a margin of 3.0 %: 400 slower") == num_candidates
        assert text.count(f"and {400 - MAX_LISTED} more; `--format json` has all.") == num_candidates


def hostile_comparison(text: str) -> ComparedSides:
    sides = []
    for run in ("base", "new"):
        records = with_facts(make_side(run, methods=("dense", text)), **{text: run, "scenario": {"name": text}})
        records = [
            record.model_copy(update={"flags": [text], "point": record.point.model_copy(update={"axes": {text: text}})})
            for record in records
        ]
        sides.append(records)
    sides[1] = [failed(record, error=text, phase=text) if record.method == "dense" else record for record in sides[1]]
    return compare_sides(*sides, text, text)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_from_outside_are_only_text(text):
    compared = hostile_comparison(text)
    console, markdown, table = console_text(compared), comparison_markdown([compared]), comparison_csv([compared])
    for rendered in (console, markdown, table):
        assert not set("\x1b\x00\u202e") & set(rendered)
    assert max(len(line) for line in console.splitlines()) <= 80
    assert "<script" not in markdown and "<img" not in markdown and "](" not in markdown
    assert "@everyone" not in markdown and "https://x" not in markdown
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == len(compared.comparisons)
    assert not any(row["method"].startswith(("=", "+", "-", "@")) for row in rows)
    headers = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") in (5, 7) for line in headers)  # four columns, or six


def accept() -> None:
    for name, render in RENDERERS.items():
        (GOLDEN / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    accept()
