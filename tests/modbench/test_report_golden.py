"""Golden records -> exact text. To accept a change: `python -m tests.modbench.test_report_golden`, then read the diff."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from modbench.analysis import evaluate_expectations, summarise
from modbench.record import Record, append_record, load_records
from modbench.report.console import render_console
from modbench.report.document import Document
from modbench.report.markdown import render_markdown
from modbench.report.report_json import render_json
from modbench.report.run_comment import render_run_comment
from modbench.scenario import parse_expectation
from tests.modbench.record_factory import failed, make_quads

GOLDEN = Path(__file__).parent / "golden"
METHODS = ("dense", "threshold", "masked")
EXPECTATIONS = (
    "threshold.kv_cache_reduction >= 1.75",
    "threshold.decode_speedup >= 1.5 @ workload.context >= 4096",
    "masked.ttft_s <= 100 @ workload.context == 4096",
)


def golden_document(version: int = 1) -> Document:
    file = load_records(GOLDEN / f"records_v{version}.jsonl")
    summary = summarise(file.records, file.num_skipped_lines)
    kinds = {method: method for method in METHODS}
    outcomes = evaluate_expectations([parse_expectation(text, kinds) for text in EXPECTATIONS], summary)
    question = "Does threshold-p pay for an 8-layer model at long context?"
    return Document(summary, "golden", question, "modbench run scenarios/golden.yaml", outcomes)


def small_document() -> Document:
    summary = summarise(make_quads(1))
    outcomes = evaluate_expectations([parse_expectation(EXPECTATIONS[0], {"threshold": "threshold"})], summary)
    return Document(summary, "small", "Does it pay?", "modbench run small.yaml", outcomes)


def console_text(document: Document, width: int, is_detailed: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    render_console(document, console, is_detailed)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def golden_records() -> list[Record]:
    """Eight pairs at 1,024 with a wrong control; two at 4,096 with an OOM and an invalid launch."""
    records = make_quads(4, METHODS, (1024,)) + make_quads(1, METHODS, (4096,))
    for index, record in enumerate(records):
        if record.method == "masked" and record.point.workload["context"] == 1024:
            records[index] = record.model_copy(update={"guard": {**record.guard, "causal": "failed"}})
        elif record.method == "masked":
            records[index] = failed(record)
    last = records.index(next(record for record in reversed(records) if record.method == "threshold"))
    records[last] = records[last].model_copy(update={"status": "invalid", "error": "keep ratio 0.31, target 0.11"})
    return records


def golden_records_v2() -> list[Record]:
    """Two pairs as on a GPU, with what version 2 has and version 1 had not."""
    records = make_quads(1, METHODS, (1024,))
    for index, record in enumerate(records):
        kv_bytes = record.metrics["kv_cache_bytes"]
        metrics = {
            **record.metrics,
            "kv_cache_allocator_bytes": round(kv_bytes * 1.05) + 512,
            "weights_bytes": 100 * 2**20,
            "peak_allocated_bytes": 150 * 2**20 + 2 * kv_bytes,
            "peak_reserved_bytes": 180 * 2**20 + 2 * kv_bytes,
            "peak_device_used_bytes": 700 * 2**20 + 2 * kv_bytes,
            "energy_j": 1e-6 * kv_bytes,
            "energy_above_idle_j": 0.8e-6 * kv_bytes,
            "mean_power_w": 310.0,
        }
        times = {"prefill_device_s": [0.9 * value for value in record.samples.ttft_s]}
        times["decode_device_s"] = [0.8 * 15 * value for value in record.samples.tpot_s]
        samples = record.samples.model_copy(update={**times, "num_involuntary_switches": [0, 1, 0, 0, 2]})
        records[index] = record.model_copy(update={"metrics": metrics, "samples": samples})
    return records


RENDERERS = {
    "report.md": lambda: render_markdown(golden_document(), [("plots/ttft.svg", "Time to the first token")]),
    "console_80.txt": lambda: console_text(golden_document(), 80),
    "console_160.txt": lambda: console_text(golden_document(), 160),
    "run_comment.md": lambda: render_run_comment(golden_document()),
    "report.json": lambda: render_json(small_document()),
    "console_details_80.txt": lambda: console_text(golden_document(), 80, is_detailed=True),
    "console_details_160.txt": lambda: console_text(golden_document(), 160, is_detailed=True),
    "report_v2.md": lambda: render_markdown(golden_document(2)),
}


@pytest.mark.parametrize("name", RENDERERS)
def test_golden_records_give_exactly_the_golden_text(name):
    assert RENDERERS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("is_detailed", [False, True])
def test_console_fits_eighty_columns(is_detailed):
    assert max(len(line) for line in console_text(golden_document(), 80, is_detailed).splitlines()) <= 80


def accept() -> None:
    for version, make in ((1, golden_records), (2, golden_records_v2)):
        path = GOLDEN / f"records_v{version}.jsonl"
        if not path.exists():  # records of an old version are never written again
            for record in make():
                append_record(path, record)
    for name, render in RENDERERS.items():
        (GOLDEN / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    accept()
