import pytest
from pydantic import ValidationError

from modbench.errors import OutputError
from modbench.keep_map_record import (
    KEEP_MAPS_FILE,
    MAX_MAPPED_TOKENS,
    KeepMapRecord,
    append_keep_map,
    load_keep_maps,
    new_keep_map_record,
)
from tests.modbench.jobs import make_job


def row_of(tmp_path, method="threshold", **changes):
    spec = make_job(tmp_path, "threshold").spec.model_copy(update={"method": method})
    return new_keep_map_record(spec).model_copy(update=changes)


def test_rows_are_read_back_and_the_last_of_a_cell_and_method_counts(tmp_path):
    assert load_keep_maps(tmp_path).rows == []
    first, other = row_of(tmp_path, error="killed\nat once"), row_of(tmp_path, "topk")
    second = row_of(tmp_path, token_ids=[1, 2], texts=["a", "\x1b"], keep={3: "10"}, router="calibrated random router")
    for row in (first, other, second):
        append_keep_map(tmp_path, row)
    assert load_keep_maps(tmp_path).rows == [second, other]


@pytest.mark.parametrize(
    "changes",
    [
        {"keep": {1: "10"}},
        {"keep": {1: "1x0"}},
        {"texts": ["a"]},
        {"token_ids": list(range(MAX_MAPPED_TOKENS + 1)), "keep": {}, "texts": None},
    ],
)
def test_a_row_has_one_decision_and_one_text_per_token(tmp_path, changes):
    facts = row_of(tmp_path, token_ids=[1, 2, 3], texts=["a", "b", "c"], keep={1: "100"}).model_dump()
    assert KeepMapRecord.model_validate(facts)
    with pytest.raises(ValidationError):
        KeepMapRecord.model_validate({**facts, **changes})


def test_damaged_newer_and_unfinished_lines_are_passed_over_and_counted(tmp_path):
    row = row_of(tmp_path)
    append_keep_map(tmp_path, row)
    path = tmp_path / KEEP_MAPS_FILE
    whole = path.read_text()
    path.write_text('{"half": \n' + whole.replace('"schema_version":1', '"schema_version":2') + whole + whole[:40])
    found = load_keep_maps(tmp_path)
    assert (found.rows, found.num_skipped_lines) == ([row], 2)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / KEEP_MAPS_FILE).mkdir()
    with pytest.raises(OutputError, match=r"keep_maps\.jsonl: cannot read keep maps"):
        load_keep_maps(tmp_path)
