"""How long a run still takes, per point and in all: a prediction from what was measured so far. In: launches. Out: seconds.

A point's own launches tell its seconds per token. A point that has none yet is taken to need what the others needed so far,
which is too little where its tokens are dearer: callers say "about". Nothing is predicted before the first launch has ended.
"""

from dataclasses import dataclass


@dataclass
class _Work:
    """Launches and tokens of one point. `timed`: the tokens that `seconds` were needed for; what was pruned took none."""

    num_planned: int = 0
    num_done: int = 0
    planned: int = 0
    done: int = 0
    timed: int = 0
    seconds: float = 0.0


class TimeLeft:
    """Seconds left. A point is any key; without one all launches are of the same nameless point."""

    def __init__(self) -> None:
        self._points: dict[str, _Work] = {}
        self._work_waited = 0
        self._waited_s = 0.0

    @property
    def num_planned(self) -> int:
        """Launches that are known of."""
        return sum(work.num_planned for work in self._points.values())

    @property
    def num_done(self) -> int:
        """Those that have ended."""
        return sum(work.num_done for work in self._points.values())

    def plan(self, num_launches: int, work: int, point: str = "") -> None:
        """More launches are planned, of `work` tokens together."""
        known = self._points.setdefault(point, _Work())
        known.num_planned += num_launches
        known.planned += work

    def add(self, seconds: float, work: int, point: str = "", is_timed: bool = True) -> None:
        """One more launch took `seconds`; if it is not timed, they tell nothing of its work."""
        known = self._points.setdefault(point, _Work())
        known.num_done += 1
        known.done += work
        if is_timed:
            known.timed += work
            known.seconds += seconds

    def wait(self, seconds: float, work: int) -> None:
        """Getting ready for launches of `work` tokens took `seconds`."""
        self._waited_s += seconds
        self._work_waited += work

    def place(self, point: str) -> tuple[int, int] | None:
        """Which of the points it is, from 1 on, and how many there are; None where there is only one."""
        points = list(self._points)
        return (points.index(point) + 1, len(points)) if point in self._points and len(points) > 1 else None

    def run_s(self) -> float | None:
        """Of everything planned; None where nothing is known or left."""
        works = self._points.values()
        planned, remaining = sum(work.planned for work in works), sum(work.planned - work.done for work in works)
        if remaining <= 0 or not self._is_timed:
            return None
        seconds = sum(self._remaining_s(work) for work in works)
        if self._work_waited:
            seconds += (planned - self._work_waited) * self._waited_s / self._work_waited
        return seconds

    def point_s(self, point: str) -> float | None:
        """Of one point among several; None where nothing is known or left, or there is no other."""
        work = self._points.get(point)
        if work is None or len(self._points) < 2 or work.planned <= work.done or not self._is_timed:
            return None
        return self._remaining_s(work)

    @property
    def _is_timed(self) -> bool:
        return any(work.timed for work in self._points.values())

    def _remaining_s(self, work: _Work) -> float:
        known = [work] if work.timed else list(self._points.values())
        rate = sum(other.seconds for other in known) / sum(other.timed for other in known)
        return (work.planned - work.done) * rate
