"""`report.json`: its schema, its names, and values from outside that JSON cannot hold."""

import json
import math

import jsonschema
import pytest

from modbench.analysis import break_down, summarise
from modbench.report.document import Document
from modbench.report.report_json import make_report, render_json
from modbench.report.report_parts import report_json_schema
from modbench.scenario import METRICS
from modbench.trace_record import TraceRecord
from tests.modbench.record_factory import make_quads
from tests.modbench.test_analysis_limits import both
from tests.modbench.test_report_escaping import HOSTILE, hostile_document
from tests.modbench.test_report_golden import golden_document, small_document

SCHEMA = report_json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def traced_document() -> Document:
    identity = {"launch_id": "t", "run_id": "r", "point_id": "p", "cell_id": "cell-1024-1", "kind": "threshold"}
    seconds = {"prefill": {"attention": 0.25, "router": 0.75}, "decode": {}}
    rows = [
        TraceRecord(**identity, method="threshold", host_s=seconds),
        TraceRecord(**identity, method="dense", error="lost"),
    ]
    return Document(summarise(make_quads(1)), breakdowns=break_down(rows))


def parsed(document: Document) -> dict:
    """Refuses NaN and infinities, which JSON has not."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(render_json(document), parse_constant=refuse)


@pytest.mark.parametrize(
    "make",
    [
        golden_document,
        small_document,
        traced_document,
        lambda: Document(summarise(both())),
        lambda: Document(summarise([])),
    ],
    ids=["golden", "small", "traced", "search", "empty"],
)
def test_every_report_is_as_its_schema_says(make):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(parsed(make()))


@pytest.mark.parametrize("change", [{"schema_version": 2}, {"cells": None}, {"tolerance_ratio": "3%"}])
def test_the_schema_refuses_another_shape(change):
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({**parsed(small_document()), **change})


def test_the_schema_misses_every_name_that_goes():
    whole = parsed(small_document())
    for name in whole:
        assert not VALIDATOR.is_valid({key: value for key, value in whole.items() if key != name}), name
    method = whole["cells"][0]["methods"][1]
    for part in (method, method["metrics"], method["speedups"]["prefill_speedup"], method["latencies"]["ttft_s"]):
        for name in list(part):
            value = part.pop(name)
            assert not VALIDATOR.is_valid(whole), name
            part[name] = value
    assert VALIDATOR.is_valid(whole)


def test_the_schema_says_what_a_metric_is_and_in_which_unit():
    metrics = SCHEMA["$defs"]["MethodPart"]["properties"]["metrics"]
    assert set(metrics["properties"]) == set(metrics["required"]) == set(METRICS)
    assert metrics["properties"]["ttft_s"]["description"].startswith("s: ")


def test_the_numbers_are_those_of_the_summary():
    document = golden_document()
    cell, row = document.summary.cells[0], document.summary.cells[0].rows[1]
    found = parsed(document)["cells"][0]["methods"][1]
    assert found["metrics"] == dict(row.values)
    assert found["latencies"]["ttft_s"]["median_s"] == row.latencies["ttft_s"].median
    speedup = found["speedups"]["prefill_speedup"]
    assert speedup["interval"] == list(row.speedups["prefill_speedup"].interval)
    assert (speedup["verdict"], speedup["num_pairs"], speedup["pairs_needed"]) == ("undecided", 8, 12)
    assert found["keep_ratios"][0] == {"layer": 1, "prefill": 0.11, "decode": 0.11}
    assert found["is_baseline"] is False
    assert parsed(document)["cells"][0]["axes"] == dict(cell.axes)


def test_a_wrong_method_has_no_verdict_and_says_why():
    wrong = parsed(golden_document())["cells"][0]["methods"][2]
    assert (wrong["method"], wrong["is_wrong"], wrong["failed_identities"]) == ("masked", True, ["causal"])
    assert {speedup["verdict"] for speedup in wrong["speedups"].values()} == {None}
    assert {"name": "causal", "result": "failed", "reason": None} in wrong["guard"]


def test_failures_expectations_and_doubts_are_there():
    found = parsed(golden_document())
    assert [(item["method"], item["status"], item["num_launches"]) for item in found["failures"]] == [
        ("masked", "oom", 2),
        ("threshold", "invalid", 1),
    ]
    assert [item["is_met"] for item in found["expectations"]] == [True, True, False, False]
    assert found["doubts"][0] == {
        "text": "calibrated random router",
        "methods": ["threshold", "masked"],
        "cell_ids": [],
    }


def test_a_search_has_its_limits():
    (search,) = parsed(Document(summarise(both())))["searches"]
    threshold = search["limits"][1]
    assert (threshold["value"], threshold["first_failing"], threshold["ratio"]) == (1700, 1734, 1.7)
    assert search["cell"]["methods"][1]["metrics"]["context_limit"] == 1700


def test_a_traced_run_says_where_the_time_went():
    found = parsed(traced_document())["breakdowns"]
    (phase,) = found["phases"]
    assert (phase["method"], phase["phase"], phase["total_s"], phase["is_device"]) == (
        "threshold",
        "prefill",
        1.0,
        False,
    )
    assert phase["own_cost_ratio"] == 0.75
    assert found["failures"] == [{"cell_id": "cell-1024-1", "method": "dense", "error": "lost"}]
    assert parsed(small_document())["breakdowns"] is None


def test_numbers_that_are_none_and_broken_characters_are_replaced():
    records = make_quads(1)
    axes = {"workload.context": math.inf, "x": [math.nan, {"y": -math.inf}], "half\ud800": object}
    point = records[0].point.model_copy(update={"axes": axes})
    records = [record.model_copy(update={"point": point}) for record in records]
    found = parsed(Document(summarise(records), "half\ud800", command="x\x00"))
    assert found["cells"][0]["axes"] == {"workload.context": None, "x": [None, {"y": None}], "half?": str(object)}
    assert (found["scenario"], found["command"]) == ("half?", "x\x00")
    VALIDATOR.validate(found)


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_from_outside_are_kept_as_they_are_in_plain_ascii(text):
    document = hostile_document(text)
    printed = render_json(document)
    assert printed.isascii()
    assert not {char for char in printed if ord(char) < 32} - {"\n"}
    found = json.loads(printed)
    VALIDATOR.validate(found)
    assert found["scenario"] == text
    assert found["failures"][0]["error"] == text
    assert found["environment"][text] == {text: text}


def test_parts_cannot_be_changed():
    report = make_report(small_document())
    with pytest.raises(ValueError, match="frozen"):
        report.scenario = "x"
