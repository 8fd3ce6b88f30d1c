"""Rows of evaluations: which values none can have, what identifies a model, and damaged files."""

import pytest
from pydantic import ValidationError

from modbench.errors import OutputError
from modbench.quality_record import (
    QUALITY_FILE,
    QualityScores,
    append_quality,
    load_quality,
    new_quality_record,
    work_id_of,
)
from modbench.scenario import QualityWork
from tests.modbench.jobs import SETTINGS, make_job, make_point
from tests.modbench.quality_factory import make_scores

ASKED = QualityWork(probes=("bits_per_byte",), num_trials=1, timeout_s=1.0)


def row_of(tmp_path, kind="threshold", **changes):
    return new_quality_record(make_job(tmp_path, kind).spec, ASKED, "ok").model_copy(update=changes)


def test_rows_are_read_back_and_the_last_of_a_method_counts(tmp_path):
    assert load_quality(tmp_path).rows == []
    first, other = row_of(tmp_path, status="failed", error="killed"), row_of(tmp_path, "dense")
    second = row_of(tmp_path, scores=make_scores(), evaluation={"model": {"name": "\x1b"}})
    for row in (first, other, second):
        append_quality(tmp_path, row)
    assert load_quality(tmp_path).rows == [second, other]


def test_damaged_newer_and_unfinished_lines_are_passed_over_and_counted(tmp_path):
    row = row_of(tmp_path)
    append_quality(tmp_path, row)
    path = tmp_path / QUALITY_FILE
    whole = path.read_text()
    path.write_text('{"half": \n' + whole.replace('"schema_version":1', '"schema_version":2') + whole + whole[:40])
    found = load_quality(tmp_path)
    assert (found.rows, found.num_skipped_lines) == ([row], 2)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / QUALITY_FILE).mkdir()
    with pytest.raises(OutputError, match=r"quality\.jsonl: cannot read evaluations"):
        load_quality(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"bits_per_byte": float("nan")},
        {"bits_per_byte": -0.1},
        {"kl_bits_per_token": float("inf")},
        {"needle_accuracy": 1.1},
        {"row_bits": [float("nan")]},
        {"by_position": [{"first_position": 1}]},
        {"more": 1},
    ],
)
def test_scores_that_no_evaluation_has_are_no_row(changes):
    facts = make_scores().model_dump()
    assert QualityScores.model_validate(facts)
    with pytest.raises(ValidationError):
        QualityScores.model_validate({**facts, **changes})


def workload(**changes):
    return {"context": 64, "batch": 2, "new_tokens": 17, "seed": 0, "prompt": {"synthetic": True}, **changes}


@pytest.mark.parametrize(
    ("kind", "changes", "is_same"),
    [
        ("dense", {"workload": workload(context=128, batch=1, new_tokens=5)}, True),
        ("dense", {"workload": workload(prompt={"text": "a", "sha256": "b"})}, True),
        ("threshold", {"workload": workload(prompt={"text": "a", "sha256": "b"})}, False),
        ("dense", {"workload": workload(seed=1)}, False),
        ("dense", {"dtype": "bfloat16"}, False),
        ("dense", {"model": {"weights": "checkpoint", "path": "a", "folder_sha256": "b"}}, False),
        ("dense", {"threads": 2}, True),
    ],
)
def test_a_model_is_the_same_whatever_the_size_of_the_workload(kind, changes, is_same):
    before = work_id_of(make_point(SETTINGS[kind]))
    assert (work_id_of(make_point(SETTINGS[kind], **changes)) == before) == is_same


def test_a_folder_is_known_by_its_content_and_settings_count():
    def settings(place, sha256, p=0.5):
        return {"checkpoint": place, "checkpoint_sha256": sha256, "threshold_p": p}

    here = work_id_of(make_point(settings("here", "a")))
    assert work_id_of(make_point(settings("there", "a"))) == here
    assert work_id_of(make_point(settings("here", "b"))) != here
    assert work_id_of(make_point(settings("here", "a", 0.6))) != here
