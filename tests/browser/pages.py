"""Makes the pages that the browser tests open, from made-up records. Test data: no number here was measured."""

import json
from pathlib import Path
from typing import Any

from modbench.analysis.compare import compare_all
from modbench.command_run import make_document
from modbench.record import Record
from modbench.report.comparison_page import write_comparison_page
from modbench.report.history import write_history
from modbench.report.write import write_report
from modbench.side_files import load_side
from tests.modbench.record_factory import failed, make_quads
from tests.modbench.side_factory import make_side
from tests.modbench.test_report_history import golden_history

METHODS = ("dense", "threshold", "masked", "skip_layers")
CONTEXTS = (1024, 4096, 16384)
RUN: dict[str, Any] = {
    "run_id": "run-1",
    "work_id": None,
    "name": "browser",
    "question": "Does threshold-p pay for an 8-layer model at long context?",
    "scenario": "scenarios/browser.yaml",
    "methods": {method: method for method in METHODS},
    "expect": ["threshold.kv_cache_reduction >= 1.75", "threshold.decode_speedup >= 9 @ workload.context >= 4096"],
    "overrides": [],
    "command": "modbench run scenarios/browser.yaml",
    "started": "2026-11-24T10:00:00+0000",
}


def report_records() -> list[Record]:
    """Eight pairs of every method at three contexts: a wrong row, a method that fails, a launch that fails, doubts."""
    records = make_quads(4, METHODS, CONTEXTS)
    for index, record in enumerate(records):
        context = record.point.workload["context"]
        if record.method == "masked" and context == 1024:
            records[index] = record.model_copy(update={"guard": {**record.guard, "causal": "failed"}})
        if record.method == "masked" and context == 16384:
            records[index] = failed(record)
    last = max(index for index, record in enumerate(records) if record.method == "skip_layers")
    records[last] = failed(records[last], "timeout", "decode", "no answer within 600 s")
    return records


def write_run(folder: Path, records: list[Record], **facts: Any) -> Path:
    """The folder of a run, with its report; returns the page."""
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    (folder / "run.json").write_text(json.dumps({**RUN, **facts}))
    write_report(folder, make_document(folder))
    return folder / "report.html"


def report_page(folder: Path) -> Path:
    return write_run(folder / "report", report_records())


def history_page(folder: Path) -> Path:
    write_history(folder / "history.html", golden_history())
    return folder / "history.html"


def comparison_page(folder: Path) -> Path:
    sides = [load_side(str(write_run(folder / name, records).parent)) for name, records in comparison_runs().items()]
    page = folder / "comparison.html"
    write_comparison_page(page, sides[0], sides[1:], compare_all(sides[0], sides[1:]))
    return page


def comparison_runs() -> dict[str, list[Record]]:
    """A base and a candidate whose threshold is slower."""
    return {
        "base": make_side(contexts=(1024, 4096)),
        "candidate": make_side("new", contexts=(1024, 4096), slower={"threshold": 1.1}),
    }


# What holds for every page is tested for each of these.
PAGES = {"report": report_page, "history": history_page, "comparison": comparison_page}
