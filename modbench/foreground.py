"""What every command that measures does with its terminal and with signals: a progress display, and one way to be interrupted."""

import signal
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console

from modbench.report.progress import LiveProgress, PlainProgress, QuietProgress, RunProgress

INTERRUPTED = 130


def display(console: Console, is_quiet: bool) -> AbstractContextManager[RunProgress]:
    """A live bar on a terminal that can move its cursor, lines elsewhere (whatever colours are forced), nothing when quiet."""
    if is_quiet:
        return nullcontext(QuietProgress())
    is_live = console.is_interactive and console.file.isatty()
    return LiveProgress(console) if is_live else nullcontext(PlainProgress(console))


def end_as_interrupt() -> None:
    """Let a cancelled job end its workers as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
