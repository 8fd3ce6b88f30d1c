"""Compared sides -> what a gate says: its exit code, how many of each verdict, and what was found, gravest first. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from modbench.analysis.comparison import (
    EXIT_CODES,
    FAILED,
    GRAVEST_FIRST,
    INCONCLUSIVE,
    NOT_COMPARABLE,
    ONLY_BASE,
    SAME_OR_FASTER,
    SLOWER,
    ComparedSides,
    Comparison,
    gate_exit_code,
)
from modbench.analysis.verdict import Verdict

CountsAs = Literal["pass", "fail"]  # what INCONCLUSIVE counts as; None leaves it
OUTCOMES = {
    SAME_OR_FASTER: "same or faster",
    SLOWER: "slower",
    INCONCLUSIVE: "inconclusive",
    NOT_COMPARABLE: "not comparable",
    FAILED: "failed",
}


@dataclass(frozen=True)
class Found:
    """One comparison with a verdict, and the sides it is of."""

    sides: ComparedSides
    line: Comparison

    @property
    def verdict(self) -> Verdict:
        """The line's."""
        assert self.line.verdict is not None, "only judged lines are found"
        return self.line.verdict


@dataclass(frozen=True)
class GateResult:
    """What a gate says of everything that was compared.

    Attributes:
        exit_code: of the command, `--inconclusive` applied.
        outcome: the gravest outcome in words, also where `--inconclusive pass` lets it pass.
        counts: comparisons per verdict.
        findings: outcome -> its comparisons, the gravest outcome first and in it the largest ratio; none of `same or faster`.
        faster: the comparisons that are faster, or less.
        tolerance: the smallest that was asked for.
        margins: δ per latency metric, the largest of all sides.
        counts_as: what INCONCLUSIVE counts as.
        only_base: methods that the base has at points where the candidate has no launch of them; they are not judged.
    """

    exit_code: int
    outcome: str
    counts: Mapping[Verdict, int]
    findings: Mapping[str, tuple[Found, ...]]
    faster: tuple[Found, ...]
    tolerance: float
    margins: Mapping[str, float]
    counts_as: CountsAs | None = None
    only_base: tuple[str, ...] = ()

    @property
    def num_judged(self) -> int:
        """Comparisons with a verdict."""
        return sum(self.counts.values())

    @property
    def noisy_margins(self) -> dict[str, float]:
        """The margins above the tolerance asked for: this machine's noise floor does not allow less."""
        return {metric: margin for metric, margin in self.margins.items() if margin > self.tolerance}


def gate_result(compared: Sequence[ComparedSides], counts_as: CountsAs | None = None) -> GateResult:
    """Put everything that was compared together; where nothing has a verdict, the gate has failed."""
    found = [Found(sides, line) for sides in compared for line in sides.judged]
    verdicts = [item.verdict for item in found]
    by_code: dict[int, list[Found]] = {}
    for item in found:
        by_code.setdefault(EXIT_CODES[item.verdict], []).append(item)
    codes = [code for code in GRAVEST_FIRST if code in by_code]
    if counts_as == "fail":  # as grave as slower
        codes.sort(key=lambda code: GRAVEST_FIRST.index(SLOWER if code == INCONCLUSIVE else code))
    margins: dict[str, float] = {}
    for sides in compared:
        for metric, margin in sides.margins.items():
            margins[metric] = max(margin, margins.get(metric, 0.0))
    only_base = [
        name for sides in compared for note in sides.footnotes if note.text == ONLY_BASE for name in note.methods
    ]
    gravest = codes[0] if codes else SAME_OR_FASTER if found else FAILED
    return GateResult(
        exit_code=gate_exit_code(verdicts, counts_as),
        outcome=OUTCOMES[gravest],
        counts=Counter(verdicts),
        findings={OUTCOMES[code]: tuple(sorted(by_code[code], key=_graveness)) for code in codes},
        faster=tuple(item for item in found if item.verdict is Verdict.FASTER),
        tolerance=min((sides.tolerance for sides in compared), default=0.0),
        margins=margins,
        counts_as=counts_as,
        only_base=tuple(dict.fromkeys(only_base)),
    )


def _graveness(item: Found) -> float:
    return -(item.line.ratio or 0.0)
