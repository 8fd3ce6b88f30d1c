"""What a training shows and logs: lines with the time left, plain off a terminal; TensorBoard's scalars and histograms."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from reference_impl import ModConfig
from reference_impl.errors import TrainingError
from reference_impl.routing import Routing
from reference_impl.training import request
from reference_impl.training.callbacks import TensorBoardLog, summary_writer
from reference_impl.training.meters import NUM_BINS, RoutingMeter
from reference_impl.training.progress import ProgressLines, duration
from tests.reference_impl.training.conftest import BUDGET, run, small_converted

LOGS = {"loss": 2.5, "lm_loss": 2.4, "objective": 0.1, "keep_ratio": 0.253, "tokens_per_s": 12345.6, "grad_norm": 3.0}


def at(step, is_first=True):
    return SimpleNamespace(global_step=step, max_steps=100, is_world_process_zero=is_first)


def shown(is_first=True, **console):
    """After 10 of 100 steps, resumed at 5, 2 s a step."""
    output = io.StringIO()
    times = iter([100.0, 110.0])
    lines = ProgressLines(Console(file=output, width=200, **console), lambda: next(times))
    lines.on_step_begin(None, at(5, is_first), None)
    lines.on_step_begin(None, at(6, is_first), None)
    lines.on_step_end(None, at(10, is_first), None)
    lines.on_log(None, at(10, is_first), None, LOGS)
    lines.on_log(None, at(10, is_first), None, {"train_loss": 2.0})
    lines.on_train_end(None, at(100, is_first), None)
    return output.getvalue()


def test_a_line_per_log_tells_the_losses_the_kept_share_the_pace_and_the_time_left():
    assert shown(force_terminal=False) == (
        "step 10/100 · loss 2.5000 · lm 2.4000 · objective 0.1 · keep 25.3% · 12,346 tokens/s · 3 min 0 s left\n"
    )


def test_a_terminal_has_a_bar_too_and_colours_unless_they_are_not_wanted(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = shown(force_terminal=True)
    assert "\x1b[" in coloured
    assert "━" in coloured
    assert "10/100" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38;" not in shown(force_terminal=True)


def test_only_the_first_process_shows_anything():
    assert shown(is_first=False) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (45, "45 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (18600, "5 h 10 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations_are_told_in_the_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_training_shows_its_lines_on_the_console_it_is_given(data, tmp_path):
    output = io.StringIO()
    run(small_converted(**BUDGET), data, tmp_path / "out", call={"console": Console(file=output, width=60)})
    lines = output.getvalue().splitlines()
    assert [line.split(" · ")[0] for line in lines[:4]] == ["step 1/4", "step 2/4", "step 3/4", "step 4/4"]
    assert "held out" in lines[4]
    assert len(lines) == 5


class FakeWriter:
    def __init__(self):
        self.scalars, self.histograms = {}, {}

    def add_scalar(self, name, value, step):
        self.scalars[name] = (value, step)

    def add_histogram_raw(self, name, **facts):
        self.histograms[name] = facts


def test_tensorboard_gets_scalars_and_a_histogram_of_the_gates():
    writer, meter = FakeWriter(), RoutingMeter(Routing(ModConfig()))
    counts = [0] * NUM_BINS
    counts[2], counts[19] = 3, 1
    meter.histograms = {7: counts}
    TensorBoardLog(writer, meter).on_log(None, at(10), None, {**LOGS, "epoch": 0.1})
    assert writer.scalars == {name: (value, 10) for name, value in LOGS.items()}
    found = writer.histograms["gates/layer_7"]
    assert (found["num"], found["global_step"], found["min"], found["max"]) == (4, 10, 0.125, 0.975)
    assert found["sum"] == pytest.approx(3 * 0.125 + 0.975)
    assert (found["bucket_limits"][0], found["bucket_limits"][-1], found["bucket_counts"]) == (0.05, 1.0, counts)


def test_the_first_log_of_a_training_without_kept_tokens_makes_an_empty_histogram():
    writer, meter = FakeWriter(), RoutingMeter(Routing(ModConfig()))
    meter.histograms = {1: [0] * NUM_BINS}
    TensorBoardLog(writer, meter).on_log(None, at(1), None, LOGS)
    assert writer.histograms["gates/layer_1"]["num"] == 0


@pytest.mark.parametrize(
    ("package", "changes"),
    [("accelerate", {}), ("peft", {"mode": "lora"}), ("tensorboard", {"call": {"has_tensorboard": True}})],
)
def test_a_package_that_is_not_installed_is_one_line(monkeypatch, tmp_path, data, package, changes):
    monkeypatch.setattr(request, "find_spec", lambda name: None if name == package else True)
    with pytest.raises(TrainingError, match=rf"{package}: not installed; install modbench\[training\]"):
        run(small_converted(), data, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_tensorboards_own_reader_finds_all_of_it(data, tmp_path):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard here")
    run(small_converted(**BUDGET), data, tmp_path / "out", call={"has_tensorboard": True})
    found = reader.EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    found.Reload()
    assert [event.step for event in found.Scalars("keep_ratio/layer_1")] == [1, 2, 3, 4]
    assert [event.step for event in found.Scalars("eval_loss")] == [4]
    last = found.Histograms("gates/layer_1")[-1]
    assert (last.step, last.histogram_value.num) == (4, 64)
    assert summary_writer(tmp_path / "other", 3) is not None
