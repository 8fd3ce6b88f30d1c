"""Two sides in one interleaved job: order, looks, Holm over all scenarios, failures; with executors that answer at once."""

import pytest

from modbench.analysis import side_by_side_comparisons
from modbench.errors import LaunchError, UnsupportedError
from modbench.plan import LOOKS
from modbench.record import read_records
from modbench.side_by_side import PARTNER_FAILED, close_decided, measure_side_by_side
from modbench.side_plan import BASE, CANDIDATE
from tests.modbench.scripted_sides import PROBE, SCENARIO, launches, make_bench, num_quads, slower, swaying

MARGINS = {"ttft_s": 0.03, "tpot_s": 0.03}
TWO_METHODS = SCENARIO.replace("{dense: {}}", "{dense: {}, threshold: {}}")
THREE_SIZES = SCENARIO.replace("[8]", "[8, 16, 32]")


def measure(*benches, looks=LOOKS):
    measure_side_by_side(benches, looks, MARGINS)


def statuses(bench):
    """(side, context) -> the statuses of its records, in order."""
    found = {}
    for number, side in enumerate(bench.sides):
        for record in side.records.values():
            found.setdefault((number, record.point.workload["context"]), []).append(record.status)
    return found


def test_a_quad_of_one_method_comes_before_the_next_one_begins(tmp_path):
    journal = []
    measure(make_bench(tmp_path, TWO_METHODS, journal=journal), looks=(4,))
    sides = [(method, side) for side, method, _, _, _ in launches(journal)]
    abba, baab = [BASE, CANDIDATE, CANDIDATE, BASE], [CANDIDATE, BASE, BASE, CANDIDATE]
    expected = [(method, side) for order in (abba, baab) for method in ("dense", "threshold") for side in order]
    assert sides == expected


def test_both_sides_have_new_servers_at_work_before_a_quads_first_launch(tmp_path):
    journal = []
    measure(make_bench(tmp_path, TWO_METHODS, journal=journal), looks=(4,))
    events = [entry for entry in journal if entry[0] != "guard"]
    server = [("renew", BASE), ("start", BASE), ("renew", CANDIDATE), ("start", CANDIDATE)]
    assert events[:4] == server
    assert events[12:16] == server
    assert len(events) == 2 * (4 + 8)


def test_guards_of_both_sides_come_before_the_first_launch(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    journal = []
    measure(make_bench(tmp_path, journal=journal), looks=(2,))
    kinds = [entry[0] for entry in journal]
    assert kinds.index("start") > max(index for index, kind in enumerate(kinds) if kind == "guard")


def test_quads_of_two_scenarios_take_turns(tmp_path):
    journal = []
    benches = [
        make_bench(tmp_path / "a", journal=journal),
        make_bench(tmp_path / "b", SCENARIO.replace("[8]", "[16]"), journal=journal),
    ]
    measure(*benches, looks=(4,))
    assert [context for _, _, context, _, _ in launches(journal)][::4] == [8, 16, 8, 16]


@pytest.mark.parametrize(
    ("seconds", "quads"),
    [(slower(1.0), 4), (slower(1.2), 4), (slower(1 / 1.2), 4), (swaying, 10)],
    ids=["same", "slower", "faster", "never decided"],
)
def test_a_clear_answer_stops_at_8_pairs_and_none_at_20(tmp_path, seconds, quads):
    journal = []
    measure(make_bench(tmp_path, journal=journal, seconds=seconds))
    assert num_quads(journal) == {("dense", 8): quads}


def test_an_answer_that_is_clear_from_the_fifth_pair_on_stops_at_12(tmp_path):
    journal = []

    def mostly_slower(side, method, context, pair):
        return 1.0 if side == BASE or pair == 3 else 1.2

    measure(make_bench(tmp_path, journal=journal, seconds=mostly_slower))
    assert num_quads(journal) == {("dense", 8): 6}, "[d1, d8] holds the outlier, [d2, d11] does not"


def test_two_scenarios_are_one_family_to_holm(tmp_path):
    journal = []
    texts = [SCENARIO, SCENARIO.replace("[8]", "[16]")]
    measure(*(make_bench(tmp_path / text[-5:-3], text, journal=journal, seconds=slower(1.2)) for text in texts))
    assert num_quads(journal) == {("dense", 8): 6, ("dense", 16): 6}, "2^-8 is above 1.3 % / 4 and 2^-12 below"


def test_a_decided_scenario_stops_and_the_other_goes_on(tmp_path):
    journal = []
    still = make_bench(tmp_path / "a", journal=journal)
    open_to_the_end = make_bench(tmp_path / "b", SCENARIO.replace("[8]", "[16]"), journal=journal, seconds=swaying)
    measure(still, open_to_the_end)
    assert num_quads(journal) == {("dense", 8): 4, ("dense", 16): 10}


def test_a_decided_method_stops_within_its_scenario(tmp_path):
    journal = []

    def one_sways(side, method, context, pair):
        return swaying(side, method, context, pair) if method == "threshold" else 1.0

    measure(make_bench(tmp_path, TWO_METHODS, journal=journal, seconds=one_sways))
    assert num_quads(journal) == {("dense", 8): 4, ("threshold", 8): 10}


def test_no_server_is_started_for_a_scenario_that_is_decided(tmp_path):
    journal = []
    measure(make_bench(tmp_path, journal=journal))
    assert journal.count(("start", BASE)) == 4


def test_one_look_needs_no_margins(tmp_path):
    journal = []
    measure_side_by_side([make_bench(tmp_path, journal=journal, seconds=swaying)], [40], {})
    assert num_quads(journal) == {("dense", 8): 20}


def test_a_failure_closes_the_point_and_prunes_larger_ones_on_both_sides(tmp_path):
    journal = []
    bench = make_bench(tmp_path, THREE_SIZES, journal=journal, statuses={(CANDIDATE, "dense", 16): "oom"})
    measure(bench)
    assert num_quads(journal) == {("dense", 8): 4, ("dense", 16): 1}
    found = statuses(bench)
    assert found[CANDIDATE, 16] == ["oom"]
    assert found[BASE, 16] == ["ok"], "nothing more was measured there"
    assert found[BASE, 32] == found[CANDIDATE, 32] == ["pruned"]
    reasons = [record.error for side in bench.sides for record in side.records.values() if record.status == "pruned"]
    assert reasons == [PARTNER_FAILED, "the smaller point (context 16) ended as oom in prefill"]


@pytest.mark.parametrize("status", ["failed", "invalid", "unsupported"])
def test_a_side_that_gives_no_numbers_closes_its_series_after_one_quad_and_no_other(tmp_path, status):
    journal = []
    bench = make_bench(tmp_path, TWO_METHODS, journal=journal, statuses={(BASE, "threshold", 8): status})
    measure(bench)
    assert num_quads(journal) == {("dense", 8): 4, ("threshold", 8): 1}


def test_a_method_that_failed_holds_the_family_of_the_others_up_in_nothing(tmp_path):
    journal = []
    bench = make_bench(
        tmp_path, TWO_METHODS, journal=journal, seconds=slower(1.2), statuses={(BASE, "threshold", 8): "failed"}
    )
    measure(bench)
    assert num_quads(journal)["dense", 8] == 4


def test_what_is_on_disk_gives_the_same_pairs(tmp_path):
    bench = make_bench(tmp_path, seconds=slower(1.2))
    measure(bench, looks=(4,))
    base, candidate = (read_records(side.folder.path) for side in bench.sides)
    on_disk = side_by_side_comparisons(base, candidate)
    assert sorted(on_disk.values()) == sorted(bench.comparisons().values())
    assert [len(values) for values in on_disk.values()] == [4, 4]


def test_a_latency_of_zero_is_one_line_and_no_verdict(tmp_path):
    bench = make_bench(tmp_path, seconds=slower(0.0))
    with pytest.raises(LaunchError, match="dense: got a ttft_s that is not above 0; expected seconds above 0"):
        measure(bench)


def test_sides_on_different_devices_are_refused(tmp_path):
    gpu = PROBE.model_copy(update={"device": "cuda:0", "device_kind": "cuda"})
    bench = make_bench(tmp_path, is_prepared=False, probes=(gpu, PROBE))
    with pytest.raises(UnsupportedError, match="base runs on cuda and candidate on cpu"):
        bench.prepare()


def test_a_side_that_cannot_be_asked_is_named_with_its_log(tmp_path):
    bench = make_bench(tmp_path, is_prepared=False, probes=("exit code 1 without a result", PROBE))
    with pytest.raises(UnsupportedError, match=r"^base: device cpu: exit code 1 .*base/worker\.log$"):
        bench.prepare()


class Measured:
    """A bench of one (cell, method) whose TTFT is decided after 8 pairs and whose TPOT never is."""

    def __init__(self):
        self.open_series = [(0, "mine")]

    def comparisons(self):
        noise = [-0.2, 0.2] * 4
        return {(0, "mine", "ttft_s"): [0.5] * 8, (0, "mine", "tpot_s"): noise}


def test_a_job_waits_for_the_metrics_that_have_a_margin_and_for_no_others():
    both, only_ttft, none = Measured(), Measured(), Measured()
    close_decided([both], {"ttft_s": 0.03, "tpot_s": 0.03})
    close_decided([only_ttft], {"ttft_s": 0.03})
    close_decided([none], {})
    assert [bench.open_series for bench in (both, only_ttft, none)] == [[(0, "mine")], [], []]
