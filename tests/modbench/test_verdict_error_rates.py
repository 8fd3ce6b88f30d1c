"""How often verdicts are wrong, played again on the pairs that benchmarks/verdict_error_rates.py measured."""

import json
from pathlib import Path

from modbench.analysis import judge_family
from modbench.analysis.verdict import DEFAULT_TOLERANCE, Verdict
from modbench.plan import LOOKS

FOLDER = Path(__file__).parents[2] / "reports" / "published" / "verdicts-epyc"
NUM_UNCHANGED, MAX_FALSE_ALARMS = 200, 0.01
MIN_FOUND = 0.95
QUIET_SIGMA = 0.04  # standard deviation of the pairs up to which +10 % has to be found


def replay(name):
    """(verdict, sigma) of every comparison; prefill and decode of a cell are a family, looked at 8, 12 and 20 pairs."""
    facts = json.loads((FOLDER / f"{name}.json").read_text())
    cells: dict[int, list[dict]] = {}
    for item in facts["comparisons"]:
        cells.setdefault(item["cell"], []).append(item)
    played = []
    for items in cells.values():
        for look in LOOKS:
            family = [item["ln_ratios"][:look] for item in items]
            judged = judge_family(family, DEFAULT_TOLERANCE)
            if all(judgement.is_final for judgement in judged) or len(family[0]) < look:
                break
        for item, judgement in zip(items, judged, strict=True):
            assert judgement.verdict.value == item["verdict"], "the rule of today gives the verdict that was recorded"
            played.append((judgement.verdict, item["sigma_ratio"]))
    return played


def share(played, *verdicts):
    return sum(verdict in verdicts for verdict, _ in played) / len(played)


def test_what_did_not_change_is_almost_never_slower_or_faster():
    played = replay("unchanged")
    assert len(played) == NUM_UNCHANGED
    assert share(played, Verdict.SLOWER, Verdict.FASTER) <= MAX_FALSE_ALARMS


def test_ten_per_cent_are_found_where_the_machine_is_quiet_enough():
    quiet = [item for item in replay("plus-10") if item[1] <= QUIET_SIGMA]
    assert quiet
    assert share(quiet, Verdict.SLOWER) >= MIN_FOUND


def test_the_readmes_count_of_what_was_found():
    played = replay("plus-10")
    found = [item for item in played if item[0] is Verdict.SLOWER]
    steady = [item for item in played if item[1] <= 0.06]
    assert (len(found), len(played)) == (40, 50)
    assert len(steady) == 26
    assert share(steady, Verdict.SLOWER) == 1


def test_five_per_cent_are_never_faster():
    assert share(replay("plus-5"), Verdict.FASTER) == 0
