import pytest

from modbench.analysis import break_down
from modbench.trace_record import TraceRecord

HOST = {
    "prefill": {"attention": 0.5, "mlp": 0.3, "router": 0.05, "pack": 0.03, "cache_append": 0.02, "other": 0.1},
    "decode": {"attention": 0.4, "mlp": 0.4, "cache_append": 0.4, "other": 0.4},
}


def make_trace(method="threshold", **changes):
    fields = {"launch_id": "l", "run_id": "r", "point_id": "p", "cell_id": "cell", "kind": method}
    slowdown = {"prefill": 1.25, "decode": 1.5}
    return TraceRecord(
        **{**fields, "method": method, "num_decode_steps": 4, "host_s": HOST, "slowdown_ratio": slowdown, **changes}
    )


def test_shares_are_of_the_phase_and_add_up():
    prefill, decode = break_down([make_trace()]).phases
    assert prefill.total_s == pytest.approx(1.0)
    assert prefill.share("attention") == pytest.approx(0.5)
    assert prefill.share("router", "pack", "scatter") == pytest.approx(0.08)
    assert sum(prefill.share(name) for name in prefill.seconds) == pytest.approx(1.0)
    assert (prefill.slowdown_ratio, decode.slowdown_ratio) == (1.25, 1.5)


def test_decode_is_the_mean_step():
    decode = break_down([make_trace()]).phases[1]
    assert decode.phase == "decode"
    assert decode.seconds["mlp"] == pytest.approx(0.1)
    assert decode.total_s == pytest.approx(0.4)


def test_own_cost_is_of_methods_that_route():
    prefill, decode = break_down([make_trace()]).phases
    assert prefill.own_cost_share == pytest.approx(0.1)
    assert decode.own_cost_share is None, "appending to a cache alone is no routing"


def test_a_range_that_is_not_there_is_unknown():
    assert break_down([make_trace()]).phases[0].share("scatter") is None


def test_device_time_is_taken_where_there_is_any():
    device = {phase: {"attention": 0.2, "device_idle": 0.2} for phase in HOST}
    prefill = break_down([make_trace(device_s=device)]).phases[0]
    assert prefill.is_device
    assert prefill.share("attention") == pytest.approx(0.5)


def test_failures_are_kept_apart_and_no_traces_are_no_breakdown():
    found = break_down([make_trace(), make_trace("dense", host_s={}, error="killed")])
    assert {phase.method for phase in found.phases} == {"threshold"}
    assert [(failure.method, failure.error) for failure in found.failures] == [("dense", "killed")]
    assert break_down([]) is None
