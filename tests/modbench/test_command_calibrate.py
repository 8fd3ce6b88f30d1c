"""`modbench calibrate` from the command line, with sides that answer at once: what it prints, keeps, and refuses."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modbench import side_session
from modbench.cli import app
from modbench.errors import EntryNotAllowedError, LaunchError, OptionError, OutputError
from modbench.executors.local import Runtime
from modbench.noise_floor import GENERAL, known_floor
from modbench.record import read_records
from modbench.revision import Revision
from tests.modbench.scripted_sides import SCENARIO, SideExecutor, launches, slower, unchanged

HERE = Revision("working tree", Runtime(), {"git_sha": None, "git_is_dirty": None}, "digest")


class Scripted(SideExecutor):
    """In the place of LocalExecutor; what all of them do is set on the class."""

    script: dict

    def __init__(self, start, log_path, runtime):
        super().__init__(0 if log_path.parent.name == "base" else 1, **self.script)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        pass


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Fields of every executor; tests change them before they run the command."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modbench.command_calibrate.end_as_interrupt", lambda: None)
    monkeypatch.setattr(side_session, "LocalExecutor", Scripted)
    monkeypatch.setattr("modbench.command_calibrate.working_tree", lambda repository: HERE)
    found = {"journal": [], "seconds": unchanged}
    monkeypatch.setattr(Scripted, "script", found, raising=False)
    return found


def calibrate(*arguments):
    return CliRunner().invoke(app, ["calibrate", *arguments])


def noisy(sigma):
    chooser = random.Random(1)
    return lambda side, method, context, pair: chooser.lognormvariate(0.0, sigma)


def scenario(tmp_path, text=SCENARIO):
    (tmp_path / "s.yaml").write_text(text)
    return str(tmp_path / "s.yaml")


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def test_a_quiet_machine_is_told_so_and_its_floor_is_kept_for_all_work(tmp_path, script):
    result = calibrate("--quiet")
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert "prefill: quiet enough for a tolerance of 3" in words
    assert "the smallest slow-down found in 95 % of checks is 3.5" in words
    assert "at most 0" in words
    floor = known_floor("f", "cpu", 1, ["any cell"])
    assert floor.cells == [GENERAL]
    assert floor.floors == {"ttft_s": 0.0, "tpot_s": 0.0}


def test_forty_pairs_are_measured_without_looking_at_them_in_between(tmp_path, script):
    calibrate("--quiet")
    assert len(launches(script["journal"])) == 80
    assert {record.status for record in read_records(only(tmp_path, "reports/calibration/*/calibration/base"))} == {
        "ok"
    }


def test_a_noisy_machine_is_told_that_the_tolerance_cannot_be_held(tmp_path, script):
    script["seconds"] = noisy(0.2)
    words = " ".join(calibrate("--quiet").output.split())
    assert "prefill: too noisy for a tolerance of 3" in words
    assert known_floor("f", "cpu", 1, []).floors["ttft_s"] > 0.03


def test_a_floor_below_the_tolerance_is_no_quiet_machine_where_checks_come_to_nothing(tmp_path, script):
    script["seconds"] = noisy(0.05)
    words = " ".join(calibrate("--quiet").output.split())
    assert known_floor("f", "cpu", 1, []).floors["ttft_s"] < 0.03
    assert "prefill: too noisy for a tolerance of 3.0 %" in words
    assert "% of checks of unchanged code end inconclusive; a tolerance of" in words


def test_hopeless_noise_is_said_in_words_and_kept_as_none(tmp_path, script):
    script["seconds"] = noisy(2.0)
    words = " ".join(calibrate("--quiet").output.split())
    assert "not even 50" in words
    assert known_floor("f", "cpu", 1, []).smallest_detectable == {"ttft_s": None, "tpot_s": None}


def test_a_larger_tolerance_is_easier_to_hold(tmp_path, script):
    script["seconds"] = noisy(0.05)
    words = " ".join(calibrate("--quiet", "--tolerance", "20%").output.split())
    assert "quiet enough for a tolerance of 20" in words


def test_a_scenario_of_the_users_is_kept_for_its_own_cells_alone(tmp_path, script):
    result = calibrate(
        scenario(tmp_path, SCENARIO.replace("[8]", "[8, 16]")), "--quiet", "--output", str(tmp_path / "out")
    )
    assert result.exit_code == 0
    cells = {record.point.cell_id for record in read_records(tmp_path / "out" / "scripted" / "candidate")}
    assert len(cells) == 2
    assert known_floor("f", "cpu", 1, cells).scenario == "scripted"
    assert known_floor("f", "cpu", 1, ["another"]) is None


def test_the_floor_is_the_worst_of_all_cells(tmp_path, script):
    quiet, loud = unchanged, noisy(0.2)
    script["seconds"] = lambda side, method, context, pair: (loud if context == 16 else quiet)(
        side, method, context, pair
    )
    result = calibrate(scenario(tmp_path, SCENARIO.replace("[8]", "[8, 16]")), "--format", "json")
    facts = json.loads(result.stdout)
    floors = {row["axes"]["workload.context"]: row["figures"]["noise_floor"] for row in facts["rows"]}
    assert floors[8] == 0.0
    assert facts["kept"]["floors"]["ttft_s"] == floors[16] > 0.03


def test_json_is_what_stands_beside_the_records(tmp_path, script):
    result = calibrate("--format", "json", "--output", "out")
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert facts["tolerance"] == 0.03
    assert {(row["method"], row["metric"]) for row in facts["rows"]} == {("dense", "ttft_s"), ("dense", "tpot_s")}
    assert {row["figures"]["num_pairs"] for row in facts["rows"]} == {40}


def test_more_pairs_can_be_asked_for_and_fewer_than_40_not(tmp_path, script):
    assert json.loads(calibrate("--format", "json", "--pairs", "50").stdout)["kept"]["num_pairs"] == 50
    result = calibrate("--pairs", "39")
    assert isinstance(result.exception, OptionError)
    assert str(result.exception) == "--pairs: got 39; expected at least 40"


@pytest.mark.parametrize("tolerance", ["-3%", "100%", "3 percent", "1e-2", "nan", ""])
def test_a_tolerance_that_is_no_share_is_refused(tmp_path, script, tolerance):
    result = calibrate(f"--tolerance={tolerance}")
    assert isinstance(result.exception, OptionError)
    assert str(result.exception) == (
        f"--tolerance: got {tolerance!r}; expected a share such as 3% or 0.03, at least 0 and below 100%"
    )


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "invalid"])
@pytest.mark.parametrize("side", [0, 1])
def test_launches_that_fail_keep_nothing_and_are_an_error(tmp_path, script, status, side):
    script["statuses"] = {(side, "dense", 8): status}
    result = calibrate(scenario(tmp_path), "--quiet")
    assert isinstance(result.exception, LaunchError)
    assert result.exception.exit_code == 5
    assert "dense ttft_s has 0 pairs, since launches failed" in str(result.exception)
    assert known_floor("f", "cpu", 1, []) is None


def test_a_method_that_failed_is_not_passed_over(tmp_path, script):
    script["statuses"] = {(0, "threshold", 8): "oom"}
    text = SCENARIO.replace("{dense: {}}", "{dense: {}, threshold: {}}")
    result = calibrate(scenario(tmp_path, text), "--quiet")
    assert isinstance(result.exception, LaunchError)
    assert "threshold ttft_s has 0 pairs" in str(result.exception)


def test_a_latency_of_zero_is_one_line(tmp_path, script):
    script["seconds"] = slower(0.0)
    assert isinstance(calibrate("--quiet").exception, LaunchError)


def test_an_interrupt_keeps_nothing_and_is_130(tmp_path, script):
    def interrupt(side, method, context, pair):
        raise KeyboardInterrupt

    script["seconds"] = interrupt
    result = calibrate("--quiet")
    assert result.exit_code == 130
    assert "interrupted; nothing was kept" in result.output
    assert known_floor("f", "cpu", 1, []) is None


def test_entries_need_to_be_allowed(tmp_path, script):
    text = SCENARIO.replace("{dense: {}}", '{dense: {}, mine: {method: entry, entry: "os:getcwd"}}')
    assert isinstance(calibrate(scenario(tmp_path, text)).exception, EntryNotAllowedError)
    assert calibrate(scenario(tmp_path, text), "--allow-entry", "--quiet").exit_code == 0


def test_overrides_reach_modbenchs_own_scenario(tmp_path, script):
    calibrate("--quiet", "--set", "measure.threads=2")
    assert known_floor("f", "cpu", 1, []) is None
    assert known_floor("f", "cpu", 2, []).threads == 2


def test_a_result_that_cannot_be_written_is_one_line(tmp_path, script):
    (tmp_path / "out" / "calibration.json").mkdir(parents=True)
    result = calibrate("--quiet", "--output", "out")
    assert isinstance(result.exception, OutputError)
    assert str(result.exception).startswith(f"{Path('out/calibration.json')}: cannot be written")
