import pytest

from modbench.errors import OutputError
from modbench.trace_record import TRACES_FILE, append_trace, load_traces, new_trace_record, trace_file
from tests.modbench.jobs import make_job


def spec_of(tmp_path, method="dense", cell_id="cell"):
    spec = make_job(tmp_path, "dense").spec
    return spec.model_copy(update={"method": method, "point": spec.point.model_copy(update={"cell_id": cell_id})})


@pytest.mark.parametrize("label", ["../../etc/passwd", "/tmp/x", "a\0b", "ü" * 300, "..", "a/b", "-rf"])
def test_no_label_leads_out_of_the_folder(tmp_path, label):
    name = trace_file(spec_of(tmp_path, label))
    path = tmp_path / name
    assert path.resolve().parent == (tmp_path / "traces").resolve()
    assert name.count("/") == 1
    assert len(path.name) < 100
    assert path.name.isascii()


def test_every_cell_and_method_has_a_file_of_its_own(tmp_path):
    specs = [spec_of(tmp_path, method, cell) for method in ("a/b", "a_b", "a-b") for cell in ("one", "two")]
    assert len({trace_file(spec) for spec in specs}) == 6


def test_rows_are_read_back_and_the_last_of_a_cell_and_method_counts(tmp_path):
    assert load_traces(tmp_path).rows == []
    first = new_trace_record(spec_of(tmp_path), error="killed\nat once")
    second = new_trace_record(spec_of(tmp_path)).model_copy(update={"host_s": {"prefill": {"mlp": 0.5}}})
    other = new_trace_record(spec_of(tmp_path, cell_id="other"))
    for trace in (first, other, second):
        append_trace(tmp_path, trace)
    assert load_traces(tmp_path).rows == [second, other]


def test_damaged_newer_and_unfinished_lines_are_passed_over_and_counted(tmp_path):
    trace = new_trace_record(spec_of(tmp_path))
    append_trace(tmp_path, trace)
    path = tmp_path / TRACES_FILE
    whole = path.read_text()
    newer = whole.replace('"schema_version":1', '"schema_version":2')
    path.write_text('{"half": \n' + newer + whole + whole[:40])
    found = load_traces(tmp_path)
    assert (found.rows, found.num_skipped_lines) == ([trace], 2)
    append_trace(tmp_path, new_trace_record(spec_of(tmp_path, "other")))
    assert len(load_traces(tmp_path).rows) == 2, "a new row does not continue the unfinished line"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / TRACES_FILE).mkdir()
    with pytest.raises(OutputError, match=r"traces\.jsonl: cannot read traces"):
        load_traces(tmp_path)
