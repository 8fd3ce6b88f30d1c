"""The first sentence of a comparison: a badge for all of its verdicts, and what it rests on. In: `ComparedSides`. Out: texts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modbench.analysis.comparison import (
    FAILED,
    INCONCLUSIVE,
    NOT_COMPARABLE,
    SLOWER,
    ComparedSides,
    Comparison,
    gate_exit_code,
)
from modbench.analysis.verdict import Verdict
from modbench.report.comparison import REFUSED, count_words, margin_text, metric_name
from modbench.report.document import axes_label
from modbench.report.escaping import one_line
from modbench.units import format_change, format_change_interval

BadgeState = Literal["worse", "better", "same", "open", "refused"]
SHAPES: dict[BadgeState, str] = {"worse": "▶", "better": "◀", "same": "■", "open": "○", "refused": "✕"}
BADGE_WORDS = {"more": "needs more", "less": "needs less"}
NOTHING_JUDGED = "nothing judged"
OTHER_MACHINES = (
    "The machines are not the same, or not known: judged are times relative to dense, and what is counted. "
    "Absolute times have no verdict."
)


@dataclass(frozen=True)
class Badge:
    """All verdicts of a comparison in a word; `shape` says the same as the colour of `state`."""

    word: str
    state: BadgeState

    @property
    def shape(self) -> str:
        """Tells the states apart without colour."""
        return SHAPES[self.state]


def badge(compared: ComparedSides) -> Badge:
    """The gravest verdict, as a gate takes it."""
    judged = compared.judged
    if not judged:
        return Badge(NOTHING_JUDGED, "refused")
    code = gate_exit_code(line.verdict for line in judged if line.verdict is not None)
    if code == FAILED:
        return Badge("failed", "refused")
    if code == SLOWER:
        return Badge(_words(judged, Verdict.SLOWER), "worse")
    if code == NOT_COMPARABLE:
        return Badge("not comparable", "refused")
    if code == INCONCLUSIVE:
        return Badge("inconclusive", "open")
    better = _words(judged, Verdict.FASTER)
    return Badge(better, "better") if better else Badge("same", "same")


def opening_sentences(compared: ComparedSides) -> list[str]:
    """How many comparisons have which verdict, the worst and the best of them, or why there are none."""
    judged = compared.judged
    if not judged:
        shown = "what both have in common is shown without one" if compared.comparisons else "the runs share no point"
        return [f"Nothing could be judged: {shown}."]
    if all(line.verdict in REFUSED for line in judged):
        reasons = Counter(one_line(line.reason) for line in judged)
        (reason, count), more = reasons.most_common(1)[0], len(reasons) - 1
        others = (
            f" ({count} of {len(judged)} comparisons; {more} other reason{'s' * (more != 1)} below)" if more else ""
        )
        return [f"The two cannot be compared with each other: {reason}{others}."]
    counts = count_words(compared)
    num_judged = f"{len(judged)} comparison{'s' * (len(judged) != 1)}"
    texts = ", ".join(f"{count} {word}" for word, count in counts.items())
    found = [
        ("Worst", [line for line in judged if line.verdict is Verdict.SLOWER]),
        ("Best", [line for line in judged if line.verdict is Verdict.FASTER]),
    ]
    extremes = [f"{name}: {_told(_extreme(lines))}." for name, lines in found if any(line.ratio for line in lines)]
    machines = [] if has_one_machine(compared) else [OTHER_MACHINES]
    return [f"{num_judged} at {margin_text(compared)}: {texts}.", *machines, *extremes]


def overview_sentence(found: Sequence[ComparedSides]) -> str:
    """How many candidates have which badge: `Of 3 candidates: 1 slower; 2 same.`"""
    counts = Counter(badge(compared).word for compared in found)
    return f"Of {len(found)} candidates: {'; '.join(f'{count} {word}' for word, count in counts.items())}."


def has_one_machine(compared: ComparedSides) -> bool:
    """True if all launches are known to be of one machine."""
    machines = [compared.base.machines, compared.candidate.machines]
    return all(machines) and len({*machines[0], *machines[1]}) == 1


def _words(judged: Sequence[Comparison], verdict: Verdict) -> str:
    words = dict.fromkeys(line.word for line in judged if line.verdict is verdict)
    return ", ".join(BADGE_WORDS.get(word, word) for word in words)


def _extreme(lines: Sequence[Comparison]) -> Comparison:
    """The largest change, times before counted bytes."""
    found = [line for line in lines if line.ratio]
    timed = [line for line in found if line.ground != "exact"]
    return max(timed or found, key=lambda line: max(line.ratio or 1.0, 1 / (line.ratio or 1.0)))


def _told(line: Comparison) -> str:
    """`TTFT of threshold, relative to dense, at context 4,096: +8.1 % [+7.8, +8.4]`."""
    relative = ", relative to dense," if line.ground == "ratio_to_dense" else ""
    interval = f" {format_change_interval(line.interval)}" if line.interval else ""
    where = f"{metric_name(line.metric)} of {one_line(line.method)}{relative} at {axes_label(line.axes)}"
    return f"{where}: {format_change(line.ratio)}{interval}"
