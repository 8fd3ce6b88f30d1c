"""The progress display on a pipe and on a terminal."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from modbench.report.progress import LiveProgress, PlainProgress

CONTROL = "\x1b"


def terminal(width):
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})


def half_done(progress):
    """Three launches at two points, of which two have ended, and a failure among them."""
    progress.plan(2, 200, "a")
    progress.plan(1, 400, "b")
    progress.start("context 8: dense", "a")
    progress.done("context 8: dense", "ok", 3.0, 100)
    progress.start("context 8: mine", "a")
    progress.done("context 8: mine", "crashed", 1.0, 100, "ended by SIGSEGV")
    progress.start("context 32: dense", "b")


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


def test_a_line_has_the_times_of_the_point_and_of_the_run_where_they_differ():
    text = io.StringIO()
    half_done(PlainProgress(Console(file=text, width=80)))
    assert text.getvalue().splitlines() == [
        "[1/3] context 8: dense: ok in 3.0 s, about 3 s left here, 15 s in all",
        "[2/3] context 8: mine: crashed in 1.0 s, ended by SIGSEGV, about 8 s left",
    ]


def test_text_from_outside_moves_no_cursor():
    text = io.StringIO()
    PlainProgress(Console(file=text)).done("\x1b[2Jmine", "failed", 1.0, 1, "a\x1b[1Ab")
    console = terminal(80)
    with LiveProgress(console) as progress:
        progress.start("\x1b[2Jmine")
        progress.done("\x1b[2Jmine", "failed", 1.0, 1, "a\x1b[9Ab")
    assert CONTROL not in text.getvalue()
    assert "\x1b[2J" not in console.file.getvalue()
    assert "\x1b[9A" not in console.file.getvalue()


def test_a_terminal_gets_a_bar_with_times_and_failures_above_it():
    console = terminal(100)
    with LiveProgress(console) as progress:
        half_done(progress)
    shown = console.file.getvalue()
    assert "point 1 of 2 · launch 1 of 3 · context 8: dense" in shown
    assert "context 8: mine: crashed: ended by SIGSEGV" in shown
    assert "point 2 of 2 · launch 3 of 3 · context 32: dense" in shown
    assert "━" in shown
    assert "0 s · point about 8 s left · run about 8 s left" in shown


@pytest.mark.parametrize("width", [12, 24, 40, 80, 200])
def test_neither_of_the_two_lines_wraps(width):
    console = terminal(width)
    progress = LiveProgress(console)
    half_done(progress)
    lines = console.render_lines(progress._render(), pad=False)
    texts = ["".join(segment.text for segment in line) for line in lines]
    assert len(texts) == 2
    assert max(cell_len(text) for text in texts) <= width
    assert ("━" in texts[1]) == (width >= 40)


def test_a_step_that_is_no_launch_stands_in_its_place():
    console = terminal(80)
    with LiveProgress(console) as progress:
        progress.note("looking at the device")
        progress.say("expected: 4 launches")
    assert "looking at the device" in console.file.getvalue()
    assert "expected: 4 launches" in console.file.getvalue()
