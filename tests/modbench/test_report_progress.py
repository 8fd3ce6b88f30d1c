"""The progress display on a pipe and on a terminal."""

import io

import pytest
from rich.console import Console

from modbench.report.progress import LiveProgress, PlainProgress, TimeLeft


def test_time_left_counts_tokens_not_launches():
    left = TimeLeft()
    left.plan(3, 100 + 100 + 1000)
    assert left.text() == ""
    left.add(2.0, 100)
    assert left.text() == "about 22 s left"
    left.add(2.0, 100)
    left.add(20.0, 1000)
    assert left.text() == ""


def test_a_pipe_gets_one_plain_line_per_launch():
    text = io.StringIO()
    progress = PlainProgress(Console(file=text, width=40))
    progress.plan(2, 200)
    progress.start("context=8 dense")
    progress.done("context=8 dense", "ok", 1.25, 100)
    progress.done("context=8 [red]threshold", "oom", 1.0, 100, "RuntimeError: a very long text that is not broken up")
    assert text.getvalue().splitlines() == [
        "[1/2] context=8 dense: ok in 1.2 s, about 1 s left",
        "[2/2] context=8 [red]threshold: oom in 1.0 s, RuntimeError: a very long text that is not broken up",
    ]


def test_a_terminal_gets_a_bar_and_failures_above_it():
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True, color_system=None)
    with LiveProgress(console) as progress:
        progress.plan(2, 200)
        progress.start("context=8 dense")
        progress.done("context=8 dense", "ok", 3.0, 100)
        progress.done("context=8 mine", "crashed", 1.0, 100, "ended by SIGSEGV")
    shown = text.getvalue()
    assert "context=8 dense" in shown
    assert "2/2" in shown
    assert "context=8 mine: crashed: ended by SIGSEGV" in shown


@pytest.mark.parametrize("num_launches", [0, 5])
def test_nothing_is_promised_before_the_first_launch_ends(num_launches):
    left = TimeLeft()
    left.plan(num_launches, 10 * num_launches)
    assert left.text() == ""


def test_time_that_no_launch_took_is_expected_again():
    left = TimeLeft()
    left.plan(2, 200)
    left.plan(2, 200)
    left.wait(8.0, 200)
    left.add(2.0, 100)
    assert left.text() == "about 14 s left", "three launches of 2 s and another wait"
