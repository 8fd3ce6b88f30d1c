"""Live progress of a run: two lines with a bar on a terminal, plain lines elsewhere, nothing when quiet. In: launches. Out:
text for a person."""

import time
from types import TracebackType
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from modbench.report.escaping import one_line
from modbench.report.time_left import TimeLeft
from modbench.units import format_duration

MIN_BAR, MAX_BAR = 6, 30  # columns
MAX_LINE = 1000


class RunProgress(Protocol):
    """What the runner tells while it works. Times in seconds; a point is any key of a cell of the matrix."""

    def note(self, text: str) -> None:
        """A step that is not a launch has begun."""

    def say(self, text: str) -> None:
        """A sentence that is worth keeping."""

    def plan(self, num_launches: int, work: int, point: str = "") -> None:
        """So many launches of a point are planned now, of `work` tokens together (more may be planned later)."""

    def start(self, label: str, point: str = "") -> None:
        """A launch begins."""

    def waited(self, seconds: float, work: int) -> None:
        """So long it took to get ready for launches of `work` tokens: servers were started."""

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """The launch that began last ended, and `work` tokens are done with; `detail` is one line about a failure."""


class QuietProgress:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def plan(self, num_launches: int, work: int, point: str = "") -> None:
        """Nothing."""

    def start(self, label: str, point: str = "") -> None:
        """Nothing."""

    def waited(self, seconds: float, work: int) -> None:
        """Nothing."""

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """Nothing."""


class PlainProgress:
    """One line per launch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = TimeLeft()
        self._point = ""

    def note(self, text: str) -> None:
        """The step on a line."""
        self._print(text)

    def say(self, text: str) -> None:
        """The sentence on a line."""
        self._print(text)

    def plan(self, num_launches: int, work: int, point: str = "") -> None:
        """Remember the count."""
        self._left.plan(num_launches, work, point)

    def start(self, label: str, point: str = "") -> None:
        """Remember the point: a line is printed at the end of the launch."""
        self._point = point

    def waited(self, seconds: float, work: int) -> None:
        """Remember the time."""
        self._left.wait(seconds, work)

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """`[3/16] context 1,024: threshold: ok in 1.9 s, about 8 s left here, 25 s in all`."""
        self._left.add(seconds, work, self._point, is_timed=status != "pruned")
        parts = [f"{status} in {seconds:.1f} s", detail, self._left_text()]
        count = f"[{self._left.num_done}/{self._left.num_planned}]"
        self._print(f"{count} {label}: {', '.join(part for part in parts if part)}")

    def _left_text(self) -> str:
        run_s, point_s = self._left.run_s(), self._left.point_s(self._point)
        if run_s is None:
            return ""
        run = format_duration(run_s)
        return f"about {run} left" if point_s is None else f"about {format_duration(point_s)} left here, {run} in all"

    def _print(self, text: str) -> None:
        self._console.print(one_line(text, MAX_LINE), markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """Where the run is, a bar, and the times left; failures stay, the rest is gone at the end. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._left = TimeLeft()
        self._point = ""
        self._label = "starting"
        self._began_s = time.monotonic()
        # It shares the cores with what is measured, so it is drawn once a second.
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=1, transient=True)

    def __enter__(self) -> "LiveProgress":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """The step in the place of the launch."""
        self._show(text)

    def say(self, text: str) -> None:
        """The sentence above the bar."""
        self._console.print(one_line(text, MAX_LINE), markup=False, highlight=False)

    def plan(self, num_launches: int, work: int, point: str = "") -> None:
        """A longer bar."""
        self._left.plan(num_launches, work, point)

    def start(self, label: str, point: str = "") -> None:
        """Name the launch in hand, and where in the run it is."""
        place = self._left.place(point)
        where = [f"point {place[0]} of {place[1]}"] if place else []
        where.append(f"launch {self._left.num_done + 1} of {self._left.num_planned}")
        self._show(" · ".join([*where, label]), point)

    def waited(self, seconds: float, work: int) -> None:
        """Remember the time."""
        self._left.wait(seconds, work)

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """One step on; a failure is printed above the bar."""
        self._left.add(seconds, work, self._point, is_timed=status != "pruned")
        if status != "ok":
            self.say(f"{label}: {status}: {detail}")

    def _show(self, label: str, point: str = "") -> None:
        self._label, self._point = one_line(label), point
        self._live.refresh()

    def _render(self) -> RenderableType:
        """Two lines, neither of which wraps: what is narrow loses the bar, then the end of the first line."""
        width = self._console.width
        first = Text(self._label, no_wrap=True, overflow="ellipsis")
        text = self._times_text(width)
        line = Table.grid(padding=(0, 1, 0, 0))
        bar_width = min(MAX_BAR, width - cell_len(text) - 2)
        if bar_width < MIN_BAR:
            return Group(first, Text(text, no_wrap=True, overflow="ellipsis"))
        bar = ProgressBar(max(self._left.num_planned, 1), self._left.num_done, bar_width)
        line.add_row(bar, Text(text, no_wrap=True))
        return Group(first, line)

    def _times_text(self, width: int) -> str:
        """`1 min 12 s · point about 20 s left · run about 3 min 20 s left`, from the left on without what has no room."""
        known = {"point": self._left.point_s(self._point), "run": self._left.run_s()}
        texts = [format_duration(time.monotonic() - self._began_s)]
        texts += [
            f"{name} about {format_duration(left_s)} left" for name, left_s in known.items() if left_s is not None
        ]
        while len(texts) > 1 and cell_len(" · ".join(texts)) > width:
            texts.pop(0)
        return " · ".join(texts)
