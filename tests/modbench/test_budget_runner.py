"""Runs within a time budget, on a clock that the scripted executor turns."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modbench.budget_runner import BudgetRunner
from modbench.job import Job, JobResult
from modbench.report.progress import QuietProgress
from modbench.run_folder import BUDGET_DOUBT, open_run_folder, read_run_file
from modbench.scenario import load_scenario
from tests.modbench.test_runner import SCENARIO, ScriptedExecutor, quads_per_context

TWO_CELLS = SCENARIO.replace("[8, 16, 32]", "[8, 16]")  # a quad takes 4 launches


@dataclass
class ClockedExecutor(ScriptedExecutor):
    """Every launch takes `launch_s` of the clock (a list: one after the other, then the last), every guard a second."""

    launch_s: float | list[float] = 1.0
    now_s: float = 0.0

    def run(self, job: Job, timeout_s: float) -> JobResult:
        if job.kind == "launch":
            is_list = isinstance(self.launch_s, list)
            seconds = self.launch_s.pop(0) if is_list and len(self.launch_s) > 1 else self.launch_s
            self.now_s += seconds[0] if isinstance(seconds, list) else seconds
        if job.kind == "guard":
            self.now_s += 1
        return super().run(job, timeout_s)


@dataclass
class Heard(QuietProgress):
    """Remembers the sentences and the planned launches."""

    said: list[str] = field(default_factory=list)
    num_planned: int = 0

    def say(self, text: str) -> None:
        self.said.append(text)

    def plan(self, num_launches: int, work: int, point: str = "") -> None:
        self.num_planned += num_launches


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(
    folder: Path, budget_s: float, executor: ClockedExecutor, text: str = TWO_CELLS, is_resumed: bool = False
) -> tuple[BudgetRunner, Heard]:
    folder.mkdir(exist_ok=True)
    (folder / "s.yaml").write_text(text)
    loaded = load_scenario(folder / "s.yaml")
    opened = open_run_folder(loaded, folder / "out", is_resumed, "modbench run s.yaml")
    heard = Heard()
    runner = BudgetRunner(loaded, opened, False, heard, executor, budget_s=budget_s, clock=lambda: executor.now_s)
    runner.run()
    return runner, heard


def doubt(runner: BudgetRunner) -> str | None:
    return read_run_file(runner.folder.path).get(BUDGET_DOUBT)


def test_the_first_quad_tells_what_the_budget_is_enough_for(tmp_path):
    executor = ClockedExecutor(ratio=lambda context, quad: (0.9, 1.1)[quad % 2])
    runner, heard = run(tmp_path, 45, executor)
    assert quads_per_context(executor) == {8: 4, 16: 4}, "2 s of guards and 32 s of quads; 12 pairs need 16 s more"
    assert heard.said[0].startswith("budget 45 s: no earlier launches are known")
    assert heard.said[1].startswith("budget 45 s: 8 pairs at 2 points x 2 methods = 28 launches, about")
    assert "from this run's first launches, scaled from other sizes" in heard.said[1]
    assert doubt(runner) == "the time budget 45 s ended the run with 8 of up to 20 pairs at 2 of 2 points"


def test_a_second_run_plans_before_its_first_launch(tmp_path):
    run(tmp_path / "a", 1000, ClockedExecutor())
    executor = ClockedExecutor()
    _, heard = run(tmp_path / "b", 35, executor)
    assert heard.said == [
        "budget 35 s: 8 pairs at 2 points x 2 methods = 32 launches, about 32 s (from earlier launches on this machine)"
    ]
    assert heard.num_planned == 32


def test_a_run_that_is_decided_within_its_budget_has_no_doubt(tmp_path):
    executor = ClockedExecutor()
    runner, _ = run(tmp_path, 1000, executor)
    assert quads_per_context(executor) == {8: 6, 16: 6}, "as without a budget: Holm needs 12 pairs here"
    assert doubt(runner) is None


def test_time_left_by_decided_cells_goes_to_the_open_ones(tmp_path):
    ratio = lambda context, quad: 0.5 if context == 8 else (0.9, 1.1)[quad % 2]  # noqa: E731
    executor = ClockedExecutor(ratio=ratio)
    _, heard = run(tmp_path, 70, executor)
    assert quads_per_context(executor) == {8: 6, 16: 10}, "20 pairs of both would take 80 s"
    assert heard.said[-1].startswith("budget 1 min 10 s: up to 20 pairs at 1 point x 2 methods = 16 launches")


def test_time_that_runs_out_ends_the_run_after_the_quad_in_hand(tmp_path):
    run(tmp_path / "a", 1000, ClockedExecutor())
    executor = ClockedExecutor(launch_s=[1.0] * 10 + [4.0])  # slower than it was
    runner, _ = run(tmp_path / "b", 35, executor)
    assert quads_per_context(executor) == {8: 3, 16: 2}
    assert len(runner.records) == 20, "whole quads"
    assert doubt(runner) == "the time budget 35 s ended the run with 4 to 6 of up to 20 pairs at 2 of 2 points"


def test_cells_are_reduced_alike_where_no_look_fits(tmp_path):
    run(tmp_path / "a", 1000, ClockedExecutor())
    executor = ClockedExecutor()
    _, heard = run(tmp_path / "b", 20, executor)
    assert quads_per_context(executor) == {8: 2, 16: 2}
    assert "4 pairs at 2 points" in heard.said[0]
    assert "no verdict below 8 pairs, which take about 32 s" in heard.said[0]


def test_one_quad_is_measured_whatever_the_budget(tmp_path):
    run(tmp_path / "a", 1000, ClockedExecutor())
    executor = ClockedExecutor()
    runner, heard = run(tmp_path / "b", 1, executor)
    assert quads_per_context(executor) == {8: 1}
    assert "not enough for one more quad" in heard.said[0]
    assert doubt(runner) == (
        "the time budget 1 s ended the run with 0 to 2 of up to 20 pairs at 2 of 2 points, 1 of them without a whole quad"
    )


def test_where_a_round_does_not_fit_quads_that_do_are_measured(tmp_path):
    text = SCENARIO
    run(tmp_path / "a", 1000, ClockedExecutor(), text)
    executor = ClockedExecutor()
    run(tmp_path / "b", 9, executor, text)
    assert quads_per_context(executor) == {8: 1, 16: 1}, "a round of three cells takes 12 s"


def test_resuming_with_a_budget_goes_on_to_the_next_look_and_ends_the_doubt(tmp_path):
    ratio = lambda context, quad: (0.9, 1.1)[quad % 2]  # noqa: E731
    run(tmp_path, 45, ClockedExecutor(ratio=ratio))
    executor = ClockedExecutor(ratio=ratio)
    runner, heard = run(tmp_path, 30, executor, is_resumed=True)
    assert heard.said[0].startswith("budget 30 s: up to 12 pairs at 2 points x 2 methods = 16 launches, about 16 s")
    assert len(runner.records) == 48
    assert "12 of up to 20 pairs" in doubt(runner)
    runner, _ = run(tmp_path, 40, ClockedExecutor(ratio=ratio), is_resumed=True)
    assert len(runner.records) == 80
    assert doubt(runner) is None


def test_resuming_with_too_small_a_budget_still_makes_progress(tmp_path):
    ratio = lambda context, quad: (0.9, 1.1)[quad % 2]  # noqa: E731
    run(tmp_path, 45, ClockedExecutor(ratio=ratio))
    executor = ClockedExecutor(ratio=ratio)
    run(tmp_path, 9, executor, is_resumed=True)
    assert quads_per_context(executor) == {8: 1, 16: 1}


def test_a_method_that_fails_leaves_its_time_to_the_others(tmp_path):
    text = SCENARIO.replace("[8, 16, 32]", "[8]")
    run(tmp_path / "a", 1000, ClockedExecutor(), text)
    executor = ClockedExecutor(statuses={("threshold", 8): "oom"})
    runner, _ = run(tmp_path / "b", 1000, executor, text)
    assert {record.status for record in runner.records.values()} == {"ok", "oom", "pruned"}
    assert doubt(runner) is None


def test_a_fixed_number_of_launches_that_fits_is_measured_in_full(tmp_path):
    text = TWO_CELLS.replace("launches: auto", "launches: 3")
    runner, _ = run(tmp_path, 1000, ClockedExecutor(), text)
    assert len(runner.records) == 2 * 2 * 3
    assert doubt(runner) is None


def test_guards_use_up_the_budget(tmp_path):
    text = TWO_CELLS.replace("launches: auto", "launches: 4")
    run(tmp_path / "a", 1000, ClockedExecutor(), text)
    executor = ClockedExecutor(now_s=5.0)  # before the first launch
    _, heard = run(tmp_path / "b", 15, executor, text)
    assert quads_per_context(executor) == {8: 1, 16: 1}
    assert heard.said[0].startswith("budget 15 s: 2 pairs at 2 points")
