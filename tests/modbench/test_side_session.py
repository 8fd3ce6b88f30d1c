"""What is opened for a job of two sides, what is refused before anything runs, and that all of it is closed again."""

from pathlib import Path

import pytest

from modbench import side_session
from modbench.errors import EntryNotAllowedError, OptionError, OutputError, UnsupportedError
from modbench.executors.local import Runtime
from modbench.noise_floor import GENERAL, NoiseFloor, keep
from modbench.record import SIDE_BY_SIDE
from modbench.report.progress import QuietProgress
from modbench.revision import Revision
from modbench.run_folder import locked, read_run_file
from modbench.side_by_side import measure_side_by_side
from modbench.side_session import SideSession, noise_floors_of, open_benches, records_of
from tests.modbench.scripted_sides import SCENARIO, SideExecutor, load

SIDES = (
    Revision("main", Runtime("/base/python"), {"git_sha": "b" * 40, "git_is_dirty": False}, "base-digest"),
    Revision("working tree", Runtime(), {"git_sha": "c" * 40, "git_is_dirty": True}, "candidate-digest"),
)


class Opened(SideExecutor):
    """In the place of LocalExecutor; remembers how it was made and whether it was closed."""

    made: list["Opened"]
    probe_error = ""

    def __init__(self, start, log_path, runtime):
        super().__init__(len(self.made) % 2)
        if self.probe_error and self.side:
            self.probe = self.probe_error
        self.log_path, self.runtime, self.is_open = log_path, runtime, False
        self.made.append(self)

    def __enter__(self):
        self.is_open = True
        return self

    def __exit__(self, kind, error, trace):
        self.is_open = False


@pytest.fixture
def executors(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Opened, "made", [], raising=False)
    monkeypatch.setattr(Opened, "probe_error", "")
    monkeypatch.setattr(side_session, "LocalExecutor", Opened)
    return Opened.made


def session(tmp_path, allow_entry=False):
    return SideSession(SIDES, tmp_path / "out", "modbench check", allow_entry, QuietProgress())


def test_each_scenario_gets_a_run_folder_and_an_executor_per_side(tmp_path, executors):
    with open_benches(session(tmp_path), [load(tmp_path / "a")], []) as (bench,):
        assert bench.methods == ("dense",)
        for name, executor, revision in zip(("base", "candidate"), executors, SIDES, strict=True):
            folder = tmp_path / "out" / "scripted" / name
            assert read_run_file(folder)["command"] == "modbench check"
            assert executor.runtime is revision.runtime
            assert executor.log_path == folder / "worker.log"
            assert executor.is_open


def test_records_say_which_job_side_and_revision_they_are_of(tmp_path, executors):
    with open_benches(session(tmp_path), [load(tmp_path / "a"), load(tmp_path / "b")], []) as benches:
        measure_side_by_side(benches, [2], {})
        found = [records_of(benches, number) for number in (0, 1)]
    assert [len(records) for records in found] == [4, 4]
    facts = [{record.environment[SIDE_BY_SIDE]["side"] for record in records} for records in found]
    assert facts == [{"base"}, {"candidate"}]
    ids = [{record.environment[SIDE_BY_SIDE]["id"] for record in records} for records in found]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2, "one per scenario: they may have cells in common"
    assert {(record.environment["revision"], record.environment["git_sha"][0]) for record in found[0]} == {
        ("main", "b")
    }
    assert {record.environment["git_is_dirty"] for record in found[1]} == {True}


def test_paths_of_a_scenario_are_absolute_since_servers_start_elsewhere(tmp_path, executors, monkeypatch):
    load(tmp_path / "a")
    (tmp_path / "a" / "text.md").write_text("words " * 100)
    text = SCENARIO.replace("{synthetic: true}", "{text: text.md}")
    monkeypatch.chdir(tmp_path)
    with open_benches(session(tmp_path), [load(Path("a"), text)], []) as (bench,):
        paths = {planned.work.workload["prompt"]["text"] for plan in bench.plans for planned in plan.cells[0].methods}
    assert paths == {str(tmp_path / "a" / "text.md")}


def test_scenarios_of_one_name_get_folders_of_their_own(tmp_path, executors):
    names = ["scripted", "scripted", "scripted-2", "scripted"]
    loaded = [load(tmp_path / str(index), SCENARIO.replace("scripted", name)) for index, name in enumerate(names)]
    with open_benches(session(tmp_path), loaded, []):
        pass
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["scripted", "scripted-2", "scripted-2-2", "scripted-3"]


def test_only_the_methods_asked_for_are_measured_and_scenarios_without_them_left_out(tmp_path, executors):
    both = load(tmp_path / "a", SCENARIO.replace("{dense: {}}", "{dense: {}, threshold: {}}"))
    with open_benches(session(tmp_path), [load(tmp_path / "b"), both], ["threshold"]) as benches:
        measure_side_by_side(benches, [2], {})
        assert [bench.methods for bench in benches] == [("threshold",)]
        assert {record.method for record in records_of(benches, 0)} == {"threshold"}


@pytest.mark.parametrize(
    ("text", "methods", "message"),
    [
        (
            SCENARIO.replace("context: 8,", "context: {search: max},").replace("matrix", "#"),
            [],
            "got a search; expected sizes",
        ),
        (SCENARIO.replace("launches: auto", "samples: 4"), [], "measure.samples: got 4; expected at least 5"),
        (SCENARIO, ["dence"], "--method: got 'dence'; expected one of dense"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_folder_is_made(tmp_path, executors, text, methods, message):
    loaded = load(tmp_path / "a", text)
    with pytest.raises(OptionError, match=message), open_benches(session(tmp_path), [loaded], methods):
        pass
    assert not (tmp_path / "out").exists()


def test_entries_need_to_be_allowed(tmp_path, executors):
    loaded = load(
        tmp_path / "a", SCENARIO.replace("{dense: {}}", '{dense: {}, mine: {method: entry, entry: "os:getcwd"}}')
    )
    with pytest.raises(EntryNotAllowedError, match="--allow-entry"), open_benches(session(tmp_path), [loaded], []):
        pass
    with open_benches(session(tmp_path, allow_entry=True), [loaded], []) as (bench,):
        assert bench.methods == ("dense", "mine")


def test_everything_is_closed_after_an_error(tmp_path, executors, monkeypatch):
    monkeypatch.setattr(Opened, "probe_error", "no such device")
    loaded = load(tmp_path / "a")
    with pytest.raises(UnsupportedError, match="no such device"), open_benches(session(tmp_path), [loaded], []):
        pass
    assert [executor.is_open for executor in executors] == [False, False]


def test_an_interrupt_closes_executors_and_leaves_no_lock_and_no_hand_over_file(tmp_path, executors):
    loaded, leftover = load(tmp_path / "a"), tmp_path / "out" / "scripted" / "base" / ".job.result.json"
    with pytest.raises(KeyboardInterrupt), open_benches(session(tmp_path), [loaded], []) as (bench,):  # noqa: PT012
        leftover.write_text("{}")
        raise KeyboardInterrupt
    assert [executor.is_open for executor in executors] == [False, False]
    assert not leftover.exists()
    with locked(bench.base.folder), locked(bench.candidate.folder):
        pass


def test_a_folder_with_records_of_another_job_is_refused(tmp_path, executors):
    loaded = load(tmp_path / "a")
    with open_benches(session(tmp_path), [loaded], []) as benches:
        measure_side_by_side(benches, [2], {})
    with pytest.raises(OutputError, match="it holds a run already"), open_benches(session(tmp_path), [loaded], []):
        pass


def floor(cells, ttft_s, tpot_s):
    return NoiseFloor(
        fingerprint="f",
        device_kind="cpu",
        threads=1,
        scenario="s",
        cells=cells,
        num_pairs=40,
        measured_at="now",
        floors={"ttft_s": ttft_s, "tpot_s": tpot_s},
        smallest_detectable={},
    )


def test_the_noise_floor_of_a_job_is_the_largest_of_its_scenarios_per_metric(tmp_path, executors):
    loaded = [load(tmp_path / "a"), load(tmp_path / "b", SCENARIO.replace("[8]", "[16]"))]
    with open_benches(session(tmp_path / "1"), loaded, []) as benches:
        assert noise_floors_of(benches) == {}
        first, second = ([cell.cell_id for cell in bench.plans[0].cells] for bench in benches)
    keep(floor(first, 0.04, 0.01))
    with open_benches(session(tmp_path / "2"), loaded, []) as benches:
        assert noise_floors_of(benches) == {"ttft_s": 0.04, "tpot_s": 0.01}
    keep(floor(second, 0.02, 0.05))
    with open_benches(session(tmp_path / "3"), loaded, []) as benches:
        assert noise_floors_of(benches) == {"ttft_s": 0.04, "tpot_s": 0.05}


def test_a_general_calibration_counts_where_there_is_no_other(tmp_path, executors):
    keep(floor([GENERAL], 0.04, 0.01))
    with open_benches(session(tmp_path), [load(tmp_path / "a")], []) as benches:
        assert noise_floors_of(benches) == {"ttft_s": 0.04, "tpot_s": 0.01}
