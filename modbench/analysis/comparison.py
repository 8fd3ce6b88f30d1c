"""The nouns of a comparison: two sides, one line per point, method and metric, and a verdict on each. Frozen, in base units.

Each line says on what ground it stands, because that decides what may be said (docs/measuring.md, section 3):

- `pairs`: both sides were measured side by side, in one interleaved job; ratios of pairs of launches.
- `ratio_to_dense`: two saved runs; how a method's time relative to dense, measured inside each run, has shifted.
- `exact`: bytes and token counts, which do not vary; more is worse. Also the largest size that fits, where less is worse.
- `advisory`: absolute times of two saved runs on one machine, and memory peaks of two machines; shown, and no verdict given.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from modbench.analysis.rows import Footnote
from modbench.analysis.verdict import Verdict

Ground = Literal["pairs", "ratio_to_dense", "exact", "advisory"]
SAME_OR_FASTER, SLOWER, INCONCLUSIVE, NOT_COMPARABLE, FAILED = 0, 1, 3, 4, 5  # exit codes of a gate
GRAVEST_FIRST = (FAILED, SLOWER, NOT_COMPARABLE, INCONCLUSIVE)  # of several at once
EXIT_CODES = {
    Verdict.SAME: SAME_OR_FASTER,
    Verdict.FASTER: SAME_OR_FASTER,
    Verdict.SLOWER: SLOWER,
    Verdict.UNDECIDED: INCONCLUSIVE,
    Verdict.INCONCLUSIVE: INCONCLUSIVE,
    Verdict.NOT_COMPARABLE: NOT_COMPARABLE,
    Verdict.FAILED: FAILED,
}
ONLY_BASE = "on the base side only, not judged"
MORE_IS_WORSE = {Verdict.SLOWER: "more", Verdict.FASTER: "less"}  # bytes are neither slow nor fast
MORE_IS_BETTER = {Verdict.SLOWER: "fits less", Verdict.FASTER: "fits more"}  # the largest size that fits


@dataclass(frozen=True)
class Side:
    """One side of a comparison: what the user called it, and which code on which machine it was."""

    label: str
    num_records: int
    scenario_names: tuple[str, ...] = ()
    git_shas: tuple[str, ...] = ()  # of a changed tree: SHA+dirty
    machines: tuple[str, ...] = ()  # fingerprints


@dataclass(frozen=True)
class Comparison:
    """One metric of one method at one cell, the candidate against the base.

    Attributes:
        cell_id, axes: the candidate's; the base has another id where the work is not the same.
        base, candidate: the two values in the metric's unit; of `ratio_to_dense` the method's time / dense time. None where a
            side has none.
        ratio: candidate / base: above 1 is slower, or more bytes (or a larger size that fits).
        interval: of the ratio, smaller end first; None where there is none.
        verdict: None where the ground allows none.
        num_values: pairs of launches on either side; one number twice where they are pairs of the two sides with each other.
        reason: why there is no clearer verdict, one clause.
        pairs_needed: how many pairs (of `ratio_to_dense`, on each side) would probably decide; None where not known, or no
            number would.
        doubts: what a reader must know beside the number.
        scenario: the name of the scenario; empty where records do not say.
    """

    cell_id: str
    axes: Mapping[str, Any]
    method: str
    metric: str
    ground: Ground
    verdict: Verdict | None
    base: float | None = None
    candidate: float | None = None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    num_values: tuple[int, int] = (0, 0)
    reason: str = ""
    pairs_needed: int | None = None
    doubts: tuple[str, ...] = ()
    scenario: str = ""

    @property
    def word(self) -> str:
        """The verdict as tables print it; `~` where nothing was shown."""
        if self.verdict is None or self.verdict in (Verdict.INCONCLUSIVE, Verdict.UNDECIDED):
            return "~"
        words = MORE_IS_BETTER if self.metric.endswith("_limit") else MORE_IS_WORSE
        return words.get(self.verdict, self.verdict.value) if self.ground == "exact" else self.verdict.value


@dataclass(frozen=True)
class Difference:
    """A fact of scenario or environment that is not the same on both sides; None where a side does not have it."""

    key: str
    base: Any
    candidate: Any


@dataclass(frozen=True)
class ComparedSides:
    """Everything a comparison report prints.

    Attributes:
        tolerance: what was asked for, as a share.
        margins: δ per latency metric, as shares.
        cells: the axes of every cell of either side, by id.
    """

    base: Side
    candidate: Side
    comparisons: tuple[Comparison, ...]
    tolerance: float
    margins: Mapping[str, float] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    footnotes: tuple[Footnote, ...] = ()
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def judged(self) -> tuple[Comparison, ...]:
        """Those with a verdict."""
        return tuple(line for line in self.comparisons if line.verdict is not None)


def gate_exit_code(verdicts: Iterable[Verdict], inconclusive: Literal["pass", "fail"] | None = None) -> int:
    """The exit code of `check` and of `compare --exit-code` for all verdicts of a command; 5 where there is none.

    Args:
        verdicts: of every line that has one.
        inconclusive: what 3 counts as; None leaves it.
    """
    codes = {EXIT_CODES[verdict] for verdict in verdicts}
    if not codes:
        return FAILED
    if inconclusive is not None and INCONCLUSIVE in codes:
        codes = codes - {INCONCLUSIVE} | {SLOWER if inconclusive == "fail" else SAME_OR_FASTER}
    return next((code for code in GRAVEST_FIRST if code in codes), SAME_OR_FASTER)
