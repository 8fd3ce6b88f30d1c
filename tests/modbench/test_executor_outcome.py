"""What a child left behind, whatever it is, becomes a result."""

import json
from pathlib import Path

import pytest

from modbench.errors import OutputError
from modbench.executors import outcome
from modbench.executors.outcome import ChildEnd, collect
from modbench.job import CANNOT_WRITE_EXIT, JobResult, failed_record
from tests.modbench.jobs import make_job

DONE = ChildEnd(0, None, 9_000)
LIMIT_S = 5.0


@pytest.fixture
def job(tmp_path):
    return make_job(tmp_path, "dense")


def write_result(job, data: bytes):
    Path(job.result_path).write_bytes(data)


def sound_result(job) -> JobResult:
    return JobResult(record=failed_record(job, "failed", "build", "scripted", None))


def test_a_sound_result_counts_even_where_the_child_ended_badly(job, tmp_path):
    for end in (DONE, ChildEnd(-11), ChildEnd(None)):
        write_result(job, sound_result(job).model_dump_json().encode())
        assert collect(job, end, LIMIT_S).record.error == "scripted"
        assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "a result that is none"),
        (b"\x00\xff\xfe" * 1000, "a result that is none"),
        (b"[1, 2]", "a result that is none"),
        (b'{"record": {"status": "ok"}}', "a result that is none"),
        (b'{"surprise": 1}', "a result that is none"),
        (b"{}", "the worker left no record (None)"),
        (b'{"error": "guards say this"}', "the worker left no record (guards say this)"),
    ],
)
def test_a_result_that_is_none_is_a_crash_with_phase_and_memory(job, tmp_path, data, text):
    (tmp_path / "progress.json").write_text(json.dumps({"phase": "decode", "rss_bytes": 5_000}))
    write_result(job, data)
    record = collect(job, DONE, LIMIT_S).record
    assert (record.status, record.phase) == ("crashed", "decode")
    assert text in record.error
    assert "\n" not in record.error
    assert record.metrics == {"last_rss_bytes": 5_000, "peak_rss_bytes": 9_000}
    assert not (tmp_path / "result.json").exists()


def test_every_cut_of_a_result_is_a_crash(job):
    whole = sound_result(job).model_dump_json().encode()
    for length in range(0, len(whole), 97):
        write_result(job, whole[:length])
        assert collect(job, DONE, LIMIT_S).record.status == "crashed", f"the first {length} bytes"


def test_the_record_of_another_launch_is_not_taken(job):
    result = sound_result(job)
    result.record.launch_id = "another"
    write_result(job, result.model_dump_json().encode())
    assert "the record of another launch" in collect(job, DONE, LIMIT_S).record.error


def test_a_result_without_end_is_not_read(job, monkeypatch):
    monkeypatch.setattr(outcome, "MAX_RESULT_BYTES", 1_000)
    write_result(job, b" " * 1_001)
    assert "the worker left a result of 1001 B" in collect(job, DONE, LIMIT_S).record.error.replace(",", "")


def test_garbage_from_a_guard_is_an_error_line(tmp_path):
    job = make_job(tmp_path, "dense", "guard")
    write_result(job, b"}{")
    assert "a result that is none" in collect(job, DONE, LIMIT_S).error


@pytest.mark.parametrize("noted", ["", '{"phase": "dec', "[]", "7", '{"phase": 3, "rss_bytes": "x"}', "\x00"])
def test_a_damaged_note_of_progress_is_the_start(job, tmp_path, noted):
    (tmp_path / "progress.json").write_text(noted)
    record = collect(job, ChildEnd(-11), LIMIT_S).record
    assert (record.phase, record.metrics["last_rss_bytes"]) == ("start", None)


def test_memory_read_before_the_kill_replaces_the_older_note(job, tmp_path):
    (tmp_path / "progress.json").write_text(json.dumps({"phase": "warmup", "rss_bytes": 5_000}))
    record = collect(job, ChildEnd(None, 7_000, 8_000), LIMIT_S).record
    assert (record.status, record.phase) == ("timeout", "warmup")
    assert record.metrics == {"last_rss_bytes": 7_000, "peak_rss_bytes": 8_000}


def test_a_real_time_signal_has_a_number(job):
    assert "ended by signal 36 in phase start" in collect(job, ChildEnd(-36), LIMIT_S).record.error


def test_a_worker_that_cannot_write_ends_the_run(job):
    with pytest.raises(OutputError, match="could not write") as caught:
        collect(job, ChildEnd(CANNOT_WRITE_EXIT), LIMIT_S)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_kill_is_called_out_of_memory_only_with_a_reason(job):
    limited = job.model_copy(update={"memory_limit_bytes": 1_000})
    found = {
        name: collect(given, ChildEnd(-9, None, peak, counted), LIMIT_S).record.status
        for name, given, peak, counted in (
            ("counted", job, None, True),
            ("near", limited, 950, None),
            ("far", limited, 500, None),
            ("unlimited", job, 950, False),
        )
    }
    assert found == {"counted": "oom", "near": "oom", "far": "crashed", "unlimited": "crashed"}
