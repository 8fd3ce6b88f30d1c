"""How many quads a time budget is enough for. Pure: no clock, no device.

In: expected seconds of each quad of each cell, the looks, and the seconds left. Out: a `QuadPlan`, and the sentences about it.
Cells are never dropped: all of them get the same number of quads.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from modbench.launch_costs import Expected
from modbench.plan import LOOKS, PAIRS_PER_QUAD, Plan, RunSpec
from modbench.units import format_count, format_duration

MIN_PAIRS = LOOKS[0]  # a verdict needs as many


@dataclass(frozen=True)
class QuadPlan:
    """`num_quads` per cell in total, and what those of them that are not measured yet will take.

    0 quads: not even the first missing one of every cell fits. `is_look` says whether the comparisons are looked at there.
    """

    num_quads: int
    expected_s: float
    is_look: bool


def plan_quads(costs_s: Sequence[Sequence[float]], looks: Sequence[int], budget_s: float) -> QuadPlan:
    """The largest look that all cells reach within the budget, or else as many quads of every cell as fit.

    Args:
        costs_s: per cell the expected seconds of each quad, 0 for one that is measured already.
        looks: quads per cell after which a run stops or goes on, in total and ascending.
        budget_s: seconds that are left.
    """
    total_s = [expected_s(costs_s, num_quads) for num_quads in range(looks[-1] + 1)]
    if total_s[-1] == 0:
        return QuadPlan(looks[-1], 0.0, is_look=True)
    within = [look for look in looks if 0 < total_s[look] <= budget_s]
    if within:
        return QuadPlan(within[-1], total_s[within[-1]], is_look=True)
    num_quads = max((n for n in range(1, looks[-1] + 1) if 0 < total_s[n] <= budget_s), default=0)
    return QuadPlan(num_quads, total_s[num_quads], is_look=False)


def expected_s(costs_s: Sequence[Sequence[float]], num_quads: int) -> float:
    """What the first `num_quads` quads of every cell will take."""
    return sum(sum(row[:num_quads]) for row in costs_s)


def quad_costs(
    plan: Plan,
    cells: Iterable[int],
    is_missing: Callable[[RunSpec], bool],
    expect: Callable[[RunSpec], Expected | None],
) -> tuple[list[list[float]], bool] | None:
    """Expected seconds per quad of these cells, and whether any are scaled from other sizes; None where one is not known."""
    rows, is_scaled = [], False
    for index in cells:
        row = []
        for quad in range(plan.looks[-1]):
            found = [expect(spec) for spec in plan.quads(index, quad, 1) if is_missing(spec)]
            known = [expected for expected in found if expected is not None]
            if len(known) < len(found):
                return None
            row.append(sum(expected.seconds for expected in known))
            is_scaled = is_scaled or any(expected.is_scaled for expected in known)
        rows.append(row)
    return rows, is_scaled


def missing_launches(
    plan: Plan, cells: Iterable[int], num_quads: int, is_missing: Callable[[RunSpec], bool]
) -> list[RunSpec]:
    """The launches of the first quads of these cells that are not measured yet."""
    return [spec for index in cells for spec in plan.quads(index, 0, num_quads) if is_missing(spec)]


def budget_text(budget_s: float) -> str:
    """`budget 10 min`."""
    return f"budget {format_duration(budget_s).removesuffix(' 00 s')}"


def pairs_text(plan: Plan, num_quads: int) -> str:
    """`8 pairs`; of several looks `up to 12 pairs`, since a decided cell needs no further one."""
    pairs = num_pairs(plan, num_quads)
    up_to = "up to " if len(plan.looks) > 1 and num_quads > plan.looks[0] else ""
    return f"{up_to}{pairs} pair{'s' if pairs != 1 else ''}"


def num_pairs(plan: Plan, num_quads: int) -> int:
    """Pairs of a cell after so many quads; an odd number of launches ends with half a quad."""
    pairs = PAIRS_PER_QUAD * num_quads
    return min(pairs, plan.launches) if isinstance(plan.launches, int) else pairs


def size_text(plan: Plan, points: int) -> str:
    """`2 points x 4 methods`."""
    methods = len(plan.cells[0].methods)
    return f"{points} point{'s' if points != 1 else ''} x {methods} methods"


def source_text(is_scaled: bool, is_from_this_run: bool) -> str:
    """Where expected times come from, in brackets."""
    source = "from this run's first launches" if is_from_this_run else "from earlier launches on this machine"
    return f"({source}{', scaled from other sizes' if is_scaled else ''})"


def unknown_text(budget_s: float) -> str:
    """Said before the first quad where no times are known."""
    return f"{budget_text(budget_s)}: no earlier launches are known on this machine; planned after the first quad"


def chosen_text(
    plan: Plan, chosen: QuadPlan, num_launches: int, costs_s: Sequence[Sequence[float]], budget_s: float, source: str
) -> str:
    """What a budget is enough for, in a sentence; where it gives no verdict, what one would take."""
    if chosen.num_quads == 0:
        round_s = next((cost for n in range(1, plan.looks[-1] + 1) if (cost := expected_s(costs_s, n)) > 0), 0.0)
        text = f"not enough for one more quad at {size_text(plan, len(costs_s))}, about {format_duration(round_s)} {source}"
        text += "; quads are measured while there is time, at least one"
    else:
        text = f"{pairs_text(plan, chosen.num_quads)} at {size_text(plan, len(costs_s))} = {format_count(num_launches)} launches"
        text += f", about {format_duration(chosen.expected_s)} {source}"
    return f"{budget_text(budget_s)}: {text}{_verdict_text(plan, chosen, costs_s)}"


def _verdict_text(plan: Plan, chosen: QuadPlan, costs_s: Sequence[Sequence[float]]) -> str:
    """What a verdict would take, where the chosen pairs are too few for one and the scenario asks for enough."""
    if num_pairs(plan, chosen.num_quads) >= MIN_PAIRS:
        return ""
    quads = next((n for n in range(1, plan.looks[-1] + 1) if num_pairs(plan, n) >= MIN_PAIRS), None)
    if quads is None or (verdict_s := expected_s(costs_s, quads)) == 0:
        return ""
    return f"; no verdict below {MIN_PAIRS} pairs, which take about {format_duration(verdict_s)}"


def expected_text(plan: Plan, costs_s: Sequence[Sequence[float]], source: str) -> str:
    """What a run without a budget will take, from the first look to the last; empty where the first look is on disk."""
    times = [expected_s(costs_s, look) for look in plan.looks]
    if times[0] == 0:
        return ""
    words = list(dict.fromkeys(format_duration(seconds) for seconds in (times[0], times[-1])))
    pairs = " to ".join(dict.fromkeys(str(num_pairs(plan, look)) for look in (plan.looks[0], plan.looks[-1])))
    plural = "s" if num_pairs(plan, plan.looks[-1]) != 1 else ""
    return f"expected: {pairs} pair{plural} at {size_text(plan, len(costs_s))}, about {' to '.join(words)} {source}"


def cut_text(plan: Plan, budget_s: float, measured_quads: Sequence[int], cells_left: Collection[int]) -> str:
    """The doubt of a run that a budget ended before its comparisons were through.

    Args:
        plan: of the run.
        budget_s: of the try.
        measured_quads: whole quads per cell that are on disk.
        cells_left: the cells that would have got more.
    """
    counts = sorted({num_pairs(plan, measured_quads[index]) for index in cells_left})
    found = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    asked = num_pairs(plan, plan.looks[-1])
    up_to = "up to " if len(plan.looks) > 1 else ""
    num_empty = sum(measured_quads[index] == 0 for index in cells_left)
    text = f"the time {budget_text(budget_s)} ended the run with {found} of {up_to}{asked} pairs"
    text += f" at {len(cells_left)} of {len(plan.cells)} points"
    return text + (f", {num_empty} of them without a whole quad" if num_empty else "")
