"""A cancelled job ends as Ctrl-C does, and the display fits where it is shown."""

import io
import os
import signal

import pytest
from rich.console import Console

from modbench.foreground import display, end_as_interrupt
from modbench.report.progress import LiveProgress, PlainProgress, QuietProgress


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_is_an_interrupt(number):
    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        end_as_interrupt()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@pytest.mark.parametrize(
    ("is_terminal", "is_quiet", "kind"),
    [
        (True, False, LiveProgress),
        (False, False, PlainProgress),
        (True, True, QuietProgress),
        (False, True, QuietProgress),
    ],
)
def test_the_display_is_live_on_a_terminal_alone_and_silent_when_asked(monkeypatch, is_terminal, is_quiet, kind):
    file = io.StringIO()
    monkeypatch.setattr(file, "isatty", lambda: is_terminal, raising=False)
    console = Console(force_terminal=is_terminal, file=file, _environ={"TERM": "xterm"})
    with display(console, is_quiet) as progress:
        assert isinstance(progress, kind)


@pytest.mark.parametrize(("is_a_terminal", "term"), [(False, "xterm"), (True, "dumb")])
def test_the_display_is_plain_where_no_cursor_can_move_whatever_is_forced(monkeypatch, is_a_terminal, term):
    file = io.StringIO()
    monkeypatch.setattr(file, "isatty", lambda: is_a_terminal, raising=False)
    console = Console(force_terminal=True, file=file, _environ={"TERM": term})
    with display(console, is_quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
