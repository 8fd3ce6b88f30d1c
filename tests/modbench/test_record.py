import json
import os
from pathlib import Path

import pytest

from modbench.errors import OutputError, RecordError
from modbench.record import (
    SCHEMA_VERSION,
    Record,
    Samples,
    append_record,
    load_records,
    read_records,
    record_json_schema,
)
from tests.modbench.record_factory import make_record

GOLDEN = Path(__file__).parent / "golden"


def line_of(record: Record, **changes: object) -> str:
    return json.dumps({**record.model_dump(), **changes}) + "\n"


def test_appended_records_read_back_the_same_from_file_and_folder(tmp_path):
    records = [make_record(), make_record("threshold"), make_record(half=1)]
    for record in records:
        append_record(tmp_path / "records.jsonl", record)
    assert read_records(tmp_path) == records
    assert read_records(tmp_path / "records.jsonl") == records
    assert (tmp_path / "records.jsonl").read_bytes().count(b"\n") == 3


def test_incomplete_last_line_is_ignored_and_not_counted(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(line_of(make_record()) + line_of(make_record(half=1)).rstrip("\n"))
    file = load_records(path)
    assert (len(file.records), file.num_skipped_lines) == (1, 0)


def test_append_after_a_killed_writer_starts_its_own_line_and_the_cut_one_is_counted(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(line_of(make_record()) + line_of(make_record(half=1))[:200])
    append_record(path, make_record("threshold"))
    file = load_records(path)
    assert [record.method for record in file.records] == ["dense", "threshold"]
    assert file.num_skipped_lines == 1


def test_a_last_line_cut_anywhere_costs_that_record_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    path = tmp_path / "records.jsonl"
    first, last = (make_record(half=half, environment={}, samples=Samples()) for half in (0, 1))
    whole = line_of(last).encode()
    for length in range(len(whole)):
        path.write_bytes(line_of(first).encode() + whole[:length])
        assert read_records(path) == [first], f"{length} bytes of the last line"
        append_record(path, last)  # as --resume does
        file = load_records(path)
        assert file.records == [first, last], f"{length} bytes of the last line"
        assert file.num_skipped_lines == (0 < length < len(whole) - 1)


@pytest.mark.parametrize("cut", [b'{"a": NaN, "b', b"\xff\xfe{", b"{}}"])
def test_damaged_line_in_the_middle_is_skipped_and_counted(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    path.write_bytes(cut + b"\n" + line_of(make_record()).encode())
    file = load_records(path)
    assert (len(file.records), file.num_skipped_lines) == (1, 1)


def test_no_prefix_of_a_record_is_read_as_a_record(tmp_path):
    path = tmp_path / "records.jsonl"
    line = line_of(make_record()).rstrip("\n")
    for length in range(1, len(line), 37):
        path.write_text(line[:length] + "\n")
        assert load_records(path).records == [], f"prefix of {length} characters"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["samples", "metrics", "environment"])
def test_a_number_that_is_not_finite_is_an_error_with_file_and_line(tmp_path, number, place):
    path = tmp_path / "records.jsonl"
    values = {"samples": '{"ttft_s": [%s]}', "metrics": '{"kv_cache_bytes": %s}', "environment": '{"a": [{"b": %s}]}'}
    text = line_of(make_record(), **{place: "HERE"}).replace('"HERE"', values[place] % number)
    path.write_text(line_of(make_record()) + text)
    with pytest.raises(RecordError, match=r"records\.jsonl:2: "):
        load_records(path)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, None, "1", True])
def test_a_schema_version_we_do_not_know_is_one_line_with_file_and_line(tmp_path, version):
    path = tmp_path / "records.jsonl"
    path.write_text(line_of(make_record(), schema_version=version))
    with pytest.raises(RecordError) as caught:
        load_records(path)
    assert str(caught.value).startswith(f"{path}:1: got schema_version")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", '"x"', "7", '{"schema_version": 1}'])
def test_json_that_is_no_record_is_an_error(tmp_path, text):
    path = tmp_path / "records.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(RecordError, match=":1: "):
        load_records(path)


def test_of_two_records_of_a_launch_the_last_counts(tmp_path):
    path = tmp_path / "records.jsonl"
    first, other, again = make_record(), make_record(half=1), make_record(status="failed", phase="decode")
    for record in (first, other, again):
        append_record(path, record)
    assert read_records(path) == [again, other]


def test_missing_file_names_what_is_expected(tmp_path):
    with pytest.raises(RecordError, match=r"expected a records\.jsonl or its folder"):
        read_records(tmp_path)


def test_append_refuses_what_is_not_finite_and_writes_nothing(tmp_path):
    path = tmp_path / "records.jsonl"
    with pytest.raises(RecordError, match="finite"):
        append_record(path, make_record(environment={"load": float("nan")}))
    assert not path.exists()


def test_append_into_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot append"):
        append_record(tmp_path / "none" / "records.jsonl", make_record())


def test_golden_records_of_version_1_are_still_read():
    file = load_records(GOLDEN / "records_v1.jsonl")
    assert (len(file.records), file.num_skipped_lines) == (30, 0)
    first = file.records[0]
    assert (first.schema_version, first.method, first.status, first.pair.position) == (1, "dense", "ok", 0)
    assert {record.status for record in file.records} == {"ok", "oom", "invalid"}


def test_golden_records_of_version_2_have_what_version_1_had_not():
    records = load_records(GOLDEN / "records_v2.jsonl").records
    assert {record.schema_version for record in records} == {2}
    assert all(len(record.samples.decode_device_s) == 5 for record in records)
    assert not load_records(GOLDEN / "records_v1.jsonl").records[0].samples.decode_device_s


def test_json_schema_names_every_field_of_a_record():
    schema = record_json_schema()
    assert set(schema["properties"]) == set(Record.model_fields)
    assert schema["$schema"].endswith("2020-12/schema")
