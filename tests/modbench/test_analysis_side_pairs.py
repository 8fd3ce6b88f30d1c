"""Pairs of two sides: who is paired with whom, and when nobody is."""

import math

import pytest

from modbench.analysis import session_of, side_by_side_comparisons
from modbench.record import SIDE_BY_SIDE, Samples
from tests.modbench.record_factory import ENVIRONMENT, failed, make_record

ORDERS = ((0, 1, 1, 0), (1, 0, 0, 1))  # of sides, in even and odd quads


def launch(side, quad, position, seconds, session="job", **changes):
    facts = {**ENVIRONMENT, SIDE_BY_SIDE: {"id": session, "side": ("base", "candidate")[side]}}
    record = make_record("dense", quad=quad, environment=facts, **changes)
    samples = Samples(ttft_s=[seconds] * 5, tpot_s=[2 * seconds] * 5)
    return record.model_copy(
        update={
            "pair": record.pair.model_copy(update={"position": position}),
            "samples": samples,
            "launch_id": f"{session}-{side}-{quad}-{position}",
        }
    )


def job(ratio, num_quads=2, session="job"):
    """(records of the base, of the candidate); pair n of the candidate takes ratio(n) times as long."""
    sides = ([], [])
    for quad in range(num_quads):
        for position, side in enumerate(ORDERS[quad % 2]):
            pair = 2 * quad + position // 2
            seconds = (pair + 1.0) * (ratio(pair) if side else 1.0)
            sides[side].append(launch(side, quad, position, seconds, session))
    return sides


def of_metric(found, metric):
    (values,) = [values for key, values in found.items() if key.metric == metric]
    return [math.exp(value) for value in values]


def test_pairs_are_the_halves_of_quads_in_the_order_measured():
    base, candidate = job(lambda pair: 1.1 + pair / 10)
    found = side_by_side_comparisons(base[::-1], candidate)
    assert of_metric(found, "ttft_s") == pytest.approx([1.1, 1.2, 1.3, 1.4])
    assert of_metric(found, "tpot_s") == pytest.approx([1.1, 1.2, 1.3, 1.4])


def test_swapping_the_sides_mirrors_every_ratio():
    base, candidate = job(lambda pair: 1.25)
    assert of_metric(side_by_side_comparisons(candidate, base), "ttft_s") == pytest.approx([0.8] * 4)


def test_a_lost_launch_loses_its_pair_alone():
    base, candidate = job(lambda pair: 1.1 + pair / 10)
    base[1] = failed(base[1])
    assert of_metric(side_by_side_comparisons(base, candidate), "ttft_s") == pytest.approx([1.1, 1.3, 1.4])
    assert of_metric(side_by_side_comparisons(base, candidate[1:]), "ttft_s") == pytest.approx([1.3, 1.4])


def test_a_method_without_a_pair_has_an_empty_list():
    base, candidate = job(lambda pair: 1.0)
    found = side_by_side_comparisons([failed(record) for record in base], candidate)
    assert list(found.values()) == [[], []]


def test_launches_of_two_jobs_are_no_pairs():
    base, _ = job(lambda pair: 1.0, session="monday")
    _, candidate = job(lambda pair: 1.0, session="tuesday")
    assert side_by_side_comparisons(base, candidate) == {}


def test_two_jobs_given_together_are_paired_each_with_itself():
    monday, tuesday = job(lambda pair: 1.1, session="monday"), job(lambda pair: 1.2, session="tuesday")
    found = side_by_side_comparisons(monday[0] + tuesday[0], monday[1] + tuesday[1])
    assert of_metric(found, "ttft_s") == pytest.approx([1.1] * 4 + [1.2] * 4)


@pytest.mark.parametrize("pick", ["base", "candidate", "both"])
def test_a_folder_compared_with_itself_has_no_pairs_instead_of_ratios_of_one(pick):
    base, candidate = job(lambda pair: 1.5)
    records = {"base": base, "candidate": candidate, "both": base + candidate}[pick]
    assert side_by_side_comparisons(records, records) == {}


def test_both_sides_given_as_one_are_not_paired():
    base, candidate = job(lambda pair: 1.5)
    assert side_by_side_comparisons(base, base + candidate) == {}


def test_other_work_on_the_other_side_is_left_out():
    base, candidate = job(lambda pair: 1.0)
    changed = [record.model_copy(update={"point_id": "other"}) for record in candidate]
    assert side_by_side_comparisons(base, changed) == {}


def test_launches_of_ordinary_runs_belong_to_no_job():
    ordinary = make_record("dense")
    assert session_of(ordinary) is None
    assert side_by_side_comparisons([ordinary], [ordinary]) == {}


@pytest.mark.parametrize("facts", ["job", {}, {"id": 7}, None])
def test_a_damaged_note_of_the_job_is_none(facts):
    record = make_record("dense", environment={SIDE_BY_SIDE: facts})
    assert session_of(record) is None


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_latency_that_is_not_above_zero_is_an_error(seconds):
    with pytest.raises(ValueError, match="dense: got a ttft_s that is not above 0"):
        side_by_side_comparisons([launch(0, 0, 0, seconds)], [launch(1, 0, 1, 1.0)])
