"""How long an interleaved job takes, and whether its next look fits into a time budget.

In: benches, and what launches took here before. Out: sentences for the progress display, and yes or no. A look that would not be
reached in time is not begun: its launches would decide nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modbench.budget import budget_text, source_text
from modbench.plan import PAIRS_PER_QUAD
from modbench.report.progress import RunProgress
from modbench.side_by_side import Bench
from modbench.units import format_duration


@dataclass
class SideBudget:
    """The clock of one job: `budget_s` seconds from its creation, or no limit with None."""

    budget_s: float | None
    progress: RunProgress
    clock: Callable[[], float] = time.monotonic
    note: str = ""  # said at the end where a look was left out
    _began_s: float = field(init=False)
    _first_round_s: float | None = None  # when the first round began

    def __post_init__(self) -> None:
        self._began_s = self.clock()

    def say_expected(self, benches: Sequence[Bench], looks: Sequence[int]) -> None:
        """What the job will take, where earlier launches tell; before the first one."""
        num_launches = sum(bench.num_open_launches for bench in benches)
        counts = f"{num_launches} launches for every {PAIRS_PER_QUAD} pairs"
        known = [bench.expected_quad_s() for bench in benches]
        times = [seconds for seconds, _ in filter(None, known)]
        if len(times) < len(known):
            self.progress.say(f"expected: {counts}; how long they take here is not known yet")
            return
        first, last = (sum(times) * -(-look // PAIRS_PER_QUAD) for look in (looks[0], looks[-1]))
        words = " to ".join(dict.fromkeys(format_duration(seconds) for seconds in (first, last)))
        pairs = " to ".join(dict.fromkeys(str(look) for look in (looks[0], looks[-1])))
        is_scaled = any(is_scaled for _, is_scaled in filter(None, known))
        source = source_text(is_scaled, is_from_this_run=False)
        self.progress.say(f"expected: {counts}, {pairs} pairs: about {words} {source}")

    def may_go_on(self, benches: Sequence[Bench], num_rounds: int) -> bool:
        """Whether this many rounds of quads still fit; the first one where nothing is known yet."""
        now_s = self.clock()
        if self._first_round_s is None:
            self._first_round_s = now_s
        if self.budget_s is None:
            return True
        round_s = self._round_s(benches, now_s - self._first_round_s)
        left_s = self.budget_s - (now_s - self._began_s)
        if round_s is None or num_rounds * round_s <= left_s:
            return True
        self.note = (
            f"{budget_text(self.budget_s)}: the next look was not begun: it takes about "
            f"{format_duration(num_rounds * round_s)} more, and {format_duration(left_s)} were left"
        )
        self.progress.say(self.note)
        return False

    def _round_s(self, benches: Sequence[Bench], spent_s: float) -> float | None:
        """Of what is open: as this job's own launches went, else as earlier ones did; None where nothing is known."""
        num_done = sum(len(side.records) for bench in benches for side in bench.sides)
        if num_done:
            return spent_s / num_done * sum(bench.num_open_launches for bench in benches)
        known = [bench.expected_quad_s() for bench in benches]
        times = [seconds for seconds, _ in filter(None, known)]
        return sum(times) if len(times) == len(known) else None
