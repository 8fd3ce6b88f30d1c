"""`modbench report --history` as a user types it: folders, files, globs, and what cannot be read."""

import json
from pathlib import Path

import pytest

from modbench.command_history import expand, history_command, read_runs
from modbench.errors import OptionError, RecordError
from modbench.run_folder import noted_start
from tests.modbench.record_factory import ENVIRONMENT, make_quads
from tests.modbench.test_command_line import modbench


def write_run(folder: Path, day: int | None = None, run_file: dict | None = None) -> Path:
    folder.mkdir(parents=True)
    environment = {**ENVIRONMENT, "git_sha": f"{folder.name}0123456789"}
    environment |= {"started": f"2026-11-{day:02d}T10:00:00+00:00"} if day else {}
    records = [r.model_copy(update={"run_id": folder.name, "environment": environment}) for r in make_quads(4)]
    (folder / "records.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    if run_file is not None:
        (folder / "run.json").write_text(json.dumps(run_file))
    return folder


def test_runs_are_named_by_folder_file_or_glob_and_each_counts_once(tmp_path):
    write_run(tmp_path / "runs" / "b", 2)
    write_run(tmp_path / "runs" / "a", 1)
    done = modbench(
        "report", "--history", "runs/*/", "runs/a/records.jsonl", "runs/b", "-o", "out/h.html", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "History of 2 runs and 2 commits" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "2026-11-" in line]
    assert [line.split()[0] for line in lines[:2]] == ["a01234567", "b01234567"]
    assert done.stdout.rstrip().endswith("history: out/h.html")
    assert (tmp_path / "out" / "h.csv").exists()
    assert (tmp_path / "out" / "h-prefill_speedup.svg").exists()


def test_json_goes_to_standard_output_alone(tmp_path):
    write_run(tmp_path / "a", 1)
    done = modbench(
        *("report", "--history", "a", "--metric", "threshold.decode_speedup", "--format", "json", "-o", "h.html"),
        folder=tmp_path,
    )
    facts = json.loads(done.stdout)
    assert [series["metric"] for series in facts["series"]] == ["decode_speedup"]
    assert facts["runs"][0]["started"] == "2026-11-01T10:00:00+00:00"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "a", "--metric", "ttft_s"), "--metric: got it without --history"),
        (("report", "--history", "nowhere/*"), "RUN: got nowhere/*: nothing is there"),
        (("report", "--history", "a", "--metric", "speed"), "unknown metric"),
        (("report", "--history", "a", "-o", "h.txt"), "-o: got h.txt; expected the name of a page"),
    ],
)
def test_usage_errors_are_one_line_and_exit_code_2(tmp_path, arguments, message):
    write_run(tmp_path / "a", 1)
    done = modbench(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_runs_that_cannot_be_read_are_named_and_left_out(tmp_path, capsys):
    write_run(tmp_path / "good", 1)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "bad", 2)
    (tmp_path / "bad" / "records.jsonl").write_text('{"schema_version": 99}\n')
    folders = [tmp_path / name for name in ("good", "empty", "bad")]
    history_command(folders, [], tmp_path / "h.html", is_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in facts["runs"]] == ["good"]
    assert [doubt.startswith("left out: ") for doubt in facts["doubts"]] == [True, True]
    with pytest.raises(RecordError, match="cannot read records"):
        history_command([tmp_path / "empty"], [], tmp_path / "h.html", is_json=True)


def test_a_runs_file_beside_the_records_dates_those_that_have_no_date(tmp_path):
    folder = write_run(tmp_path / "a", None, {"started": "2026-11-24T13:00:00+0200"})
    (run,), unread = read_runs([folder])
    assert (run.started, unread) == ("2026-11-24T11:00:00+00:00", [])
    (folder / "run.json").write_text('{"started": "yesterday"}')
    assert noted_start(folder) is None
    assert noted_start(tmp_path) is None


def test_a_bare_record_file_is_named_by_its_own_name(tmp_path):
    folder = write_run(tmp_path / "a", 1)
    (folder / "records.jsonl").rename(tmp_path / "night-build.jsonl")
    (run,), _ = read_runs([tmp_path / "night-build.jsonl"])
    assert run.name == "night-build"


def test_absolute_globs_and_repeats_are_expanded_in_order(tmp_path):
    for name in ("b", "a"):
        write_run(tmp_path / name, 1)
    found = expand([tmp_path / "b", tmp_path / "*"])
    assert [path.name for path in found] == ["b", "a"]
    with pytest.raises(OptionError, match="nothing is there"):
        expand([tmp_path / "c*"])
