"""Live progress of a run: a rich bar on a terminal, plain lines elsewhere, nothing when quiet. In: launches. Out:
text for a person."""

from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from modbench.units import format_duration


class RunProgress(Protocol):
    """What the runner tells while it works. Times in seconds."""

    def note(self, text: str) -> None:
        """A step that is not a launch has begun."""

    def say(self, text: str) -> None:
        """A sentence that is worth keeping."""

    def plan(self, num_launches: int, work: int) -> None:
        """So many launches are planned now, of `work` tokens together (more may be planned later)."""

    def start(self, label: str) -> None:
        """A launch begins."""

    def waited(self, seconds: float, work: int) -> None:
        """So long it took to get ready for launches of `work` tokens: servers were started."""

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """It ended, and `work` tokens are done with; `detail` is one line about a failure."""


class TimeLeft:
    """Seconds left: the work still planned, at the seconds per token so far, those of getting ready for it included."""

    def __init__(self) -> None:
        self.planned = 0
        self.finished = 0
        self._work_planned = 0
        self._work_done = 0
        self._seconds = 0.0
        self._work_waited = 0
        self._waited_s = 0.0

    def plan(self, num_launches: int, work: int) -> None:
        """More launches are planned."""
        self.planned += num_launches
        self._work_planned += work

    def add(self, seconds: float, work: int) -> None:
        """One more launch took `seconds`."""
        self.finished += 1
        self._work_done += work
        self._seconds += seconds

    def wait(self, seconds: float, work: int) -> None:
        """Getting ready for launches of `work` tokens took `seconds`."""
        self._waited_s += seconds
        self._work_waited += work

    def text(self) -> str:
        """`about 3 min 20 s left`, or nothing before the first launch has ended and after the last one."""
        remaining = self._work_planned - self._work_done
        if not self._work_done or remaining <= 0:
            return ""
        seconds = remaining * self._seconds / self._work_done
        if self._work_waited:
            seconds += (self._work_planned - self._work_waited) * self._waited_s / self._work_waited
        return f"about {format_duration(seconds)} left"


class QuietProgress:
    """Says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def plan(self, num_launches: int, work: int) -> None:
        """Nothing."""

    def start(self, label: str) -> None:
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

    def note(self, text: str) -> None:
        """The step on a line."""
        self._console.print(text, markup=False, highlight=False)

    def say(self, text: str) -> None:
        """The sentence on a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def plan(self, num_launches: int, work: int) -> None:
        """Remember the count."""
        self._left.plan(num_launches, work)

    def start(self, label: str) -> None:
        """Nothing: a line is printed at the end of the launch."""

    def waited(self, seconds: float, work: int) -> None:
        """Remember the time."""
        self._left.wait(seconds, work)

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """`[3/16] context=1024 threshold: ok in 1.9 s, about 25 s left`."""
        self._left.add(seconds, work)
        parts = [f"{status} in {seconds:.1f} s", detail, self._left.text()]
        count = f"[{self._left.finished}/{self._left.planned}]"
        text = f"{count} {label}: {', '.join(part for part in parts if part)}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A bar with the launch in hand and the time left; failures stay above it. A context manager."""

    def __init__(self, console: Console) -> None:
        self._left = TimeLeft()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            refresh_per_second=1,  # it shares the cores with what is measured
        )
        self._task: TaskID = self._bar.add_task("starting", total=None, left="")

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _update(self, **fields: Any) -> None:
        self._bar.update(self._task, left=self._left.text(), **fields)

    def note(self, text: str) -> None:
        """The step in the place of the launch."""
        self._update(description=text)

    def say(self, text: str) -> None:
        """The sentence above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def plan(self, num_launches: int, work: int) -> None:
        """A longer bar."""
        self._left.plan(num_launches, work)
        self._update(total=self._left.planned)

    def start(self, label: str) -> None:
        """Name the launch in hand."""
        self._update(description=label)

    def waited(self, seconds: float, work: int) -> None:
        """Remember the time."""
        self._left.wait(seconds, work)

    def done(self, label: str, status: str, seconds: float, work: int, detail: str = "") -> None:
        """One step on; a failure is printed above the bar."""
        self._left.add(seconds, work)
        self._update(advance=1)
        if status != "ok":
            self._bar.console.print(f"{label}: {status}: {detail}", markup=False, highlight=False)
