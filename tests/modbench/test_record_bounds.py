import json
from typing import Any

import pytest

from modbench.cli_options import ReportFormat
from modbench.command_report import ReportOptions, report_command
from modbench.errors import RecordError
from modbench.record import load_records
from modbench.record_bounds import LONGEST_S, MAX_DEPTH, MAX_NUMBER, MAX_SIZE, SHORTEST_S, find_unusable
from tests.modbench.hostile_records import write_hostile_run
from tests.modbench.record_factory import make_quads, make_record
from tests.modbench.test_report_golden import golden_records, golden_records_v2


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


UNUSABLE = [
    ("samples.ttft_s", [0.0], "samples.ttft_s: got 0.0; expected 1e-12 to 1e+09"),
    ("samples.tpot_s", [1.0, -1.0], "samples.tpot_s: got -1.0"),
    ("samples.ttft_s", [1e308], "samples.ttft_s: got 1e+308"),
    ("samples.itl_s", [-1e-9], "samples.itl_s: got -1e-09; expected 0 to"),
    ("keep_ratio.prefill", [-0.1] * 8, "keep_ratio.prefill: got -0.1 to -0.1; expected 0 to 1"),
    ("keep_ratio.decode", [0.5] * 9, "keep_ratio.decode: got 9 values; expected one per layer, 8"),
    ("metrics.kv_cache_bytes", 10**400, "metrics: got an integer of more than 24 digits"),
    ("metrics.kv_cache_bytes", 5e-324, "metrics: got 5e-324"),
    ("point.workload.context", 0, "point.workload.context: got 0; expected an integer from 1"),
    ("point.workload.batch", "8", "point.workload.batch: got '8'"),
    ("point.workload.new_tokens", None, "point.workload.new_tokens: got None"),
    ("point.threads", 10**30, "point.threads: got an integer"),
    ("pair.quad", -1, "pair.quad: got -1; expected 0 to"),
    ("point.axes.workload.context", 1e300, "point.axes: got 1e+300"),
    ("environment.deep", nested(MAX_DEPTH + 1), "environment: got data nested deeper than 32"),
    ("environment.machine", {"ram_bytes": 10**400}, "environment: got an integer"),
]


def changed(path: str, value: Any) -> dict[str, Any]:
    """A record as plain data with another value at a dotted path; keys of free mappings may have dots themselves."""
    data = json.loads(make_record("threshold").model_dump_json())
    *parents, last = path.split(".", 2 if path.startswith("point.") else 1)
    place = data
    for key in parents:
        place = place[key]
    place[last] = value
    return data


@pytest.mark.parametrize(("path", "value", "message"), UNUSABLE)
def test_a_value_that_no_launch_can_have_is_one_line_with_its_place(path, value, message, tmp_path):
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(changed(path, value)) + "\n")
    with pytest.raises(RecordError) as caught:
        load_records(file)
    assert str(caught.value).startswith(f"{file}:1: {message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("records", [golden_records(), golden_records_v2(), make_quads(1)])
def test_records_of_launches_are_usable(records):
    assert [found for record in records if (found := find_unusable(record))] == []


EXTREMES = {
    "shortest": {"samples": dict.fromkeys(("ttft_s", "tpot_s"), [SHORTEST_S] * 5)},
    "longest": {"samples": dict.fromkeys(("ttft_s", "tpot_s", "itl_s"), [LONGEST_S] * 5)},
    "largest": {"metrics": dict.fromkeys(("kv_cache_bytes", "peak_rss_bytes", "kv_cache_allocated_bytes"), MAX_NUMBER)},
    "smallest": {"metrics": dict.fromkeys(("kv_cache_bytes", "peak_rss_bytes", "kv_cache_allocated_bytes"), 1e-24)},
    "negative": {"metrics": dict.fromkeys(("kv_cache_bytes", "peak_rss_bytes", "kv_cache_allocated_bytes"), -1)},
    "nothing": {"metrics": dict.fromkeys(("kv_cache_bytes", "peak_rss_bytes", "kv_cache_allocated_bytes"), 0)},
    "all_dropped": {"keep_ratio": dict.fromkeys(("prefill", "decode", "decode_any"), [0.0] * 8)},
}


@pytest.mark.parametrize("side", ["dense", "other"])
@pytest.mark.parametrize("changes", EXTREMES.values(), ids=EXTREMES)
def test_whatever_is_usable_can_be_reported(changes, side, tmp_path, capsys):
    folder = write_hostile_run(tmp_path / "run", "a name")
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for line in lines:
        if (side == "dense") == (line["method"] == "dense"):
            for key, values in changes.items():
                line[key] |= values
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report_command(ReportOptions([folder], ReportFormat.JSON))
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


@pytest.mark.parametrize("size", [1, MAX_SIZE])
def test_the_ends_of_sizes_are_usable(size):
    point = make_record().point
    workload = {**point.workload, "context": size, "batch": size, "new_tokens": size}
    assert find_unusable(make_record(point=point.model_copy(update={"workload": workload}))) is None


@pytest.mark.parametrize("number", [1e-30, 5e-324, 1e300, 2**128, -(10**40)])
def test_a_factorys_options_and_a_programs_facts_may_be_any_number_of_a_scenario(number, tmp_path, capsys):
    record = make_record("threshold")
    point = record.point.model_copy(update={"settings": {**record.point.settings, "options": {"eps": [number]}}})
    environment = {**record.environment, "program": {"command": ["x"], "facts": {"id": number}}}
    folder = write_hostile_run(tmp_path / "run", "a name")
    changed = record.model_copy(update={"point": point, "environment": environment})
    (folder / "records.jsonl").write_text(changed.model_dump_json() + "\n")
    report_command(ReportOptions([folder], ReportFormat.JSON))
    json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_a_key_named_like_options_is_bounded_where_it_is_computed_with():
    record = make_record("threshold")
    environment = {**record.environment, "options": 1e300}
    assert "environment: got 1e+300" in str(find_unusable(record.model_copy(update={"environment": environment})))
