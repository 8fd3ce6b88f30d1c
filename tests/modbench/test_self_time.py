"""Self time on made-up events: every moment of a phase belongs to one range, the innermost."""

import pytest

from modbench.profiling.self_time import device_breakdown, host_breakdown

US = 1e-6


def host_range(name, start, duration, tid=1):
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": duration, "tid": tid}


def launch(correlation, start, tid=1):
    return {"ph": "X", "cat": "cuda_runtime", "ts": start, "dur": 1, "tid": tid, "args": {"correlation": correlation}}


def kernel(correlation, start, duration, cat="kernel"):
    arguments = {} if correlation is None else {"correlation": correlation}
    return {"ph": "X", "cat": cat, "ts": start, "dur": duration, "tid": 7, "args": arguments}


NESTED = [
    host_range("cache_append", 130, 20),
    host_range("prefill", 100, 100),
    host_range("attention", 110, 60),
    host_range("router", 170, 5),
    host_range("decode", 300, 50),
    host_range("attention", 300, 20),
    host_range("attention", 330, 10),
]


def microseconds(breakdown):
    return {
        phase: {name: round(seconds / US, 6) for name, seconds in parts.items()} for phase, parts in breakdown.items()
    }


def test_what_a_nested_range_takes_is_not_counted_again_around_it():
    assert microseconds(host_breakdown(NESTED)) == {
        "prefill": {"other": 35, "attention": 40, "cache_append": 20, "router": 5},
        "decode": {"attention": 30, "other": 20},
    }


def test_a_range_inside_one_of_its_name_is_counted_once():
    events = [host_range("prefill", 0, 10), host_range("mlp", 2, 6), host_range("mlp", 3, 2)]
    assert microseconds(host_breakdown(events)) == {"prefill": {"other": 4, "mlp": 6}}


def test_a_range_that_fills_its_phase_leaves_nothing_to_others():
    events = [host_range("prefill", 0, 10), host_range("mlp", 0, 10), host_range("attention", 0, 4)]
    assert microseconds(host_breakdown(events)) == {"prefill": {"attention": 4, "mlp": 6}}


def test_ranges_outside_a_phase_on_other_threads_and_of_other_names_do_not_count():
    events = [
        host_range("attention", 0, 50),
        host_range("prefill", 100, 10),
        host_range("mlp", 102, 4, tid=2),
        host_range("Optimizer.step", 103, 4),
        {**host_range("mlp", 104, 2), "cat": "cpu_op"},
        {"ph": "M", "name": "process_name", "ts": 0.0},
        host_range("mlp", 120, 4),
    ]
    assert microseconds(host_breakdown(events)) == {"prefill": {"other": 10}}


def test_a_range_that_outlasts_the_one_around_it_by_rounding_is_cut():
    events = [host_range("prefill", 0, 10), host_range("mlp", 4, 6.5), host_range("decode", 10, 5)]
    assert microseconds(host_breakdown(events)) == {"prefill": {"other": 4, "mlp": 6}, "decode": {"other": 5}}


def test_device_time_goes_to_the_range_that_launched_it_and_the_rest_is_idle():
    events = [
        *NESTED,
        launch(1, 112),
        kernel(1, 115, 30),  # attention; goes on while the host is in cache_append
        launch(2, 131),
        kernel(2, 150, 10, "gpu_memcpy"),  # cache_append
        launch(3, 105),
        kernel(3, 160, 5),  # launched by none of the ranges
        launch(4, 335),
        kernel(4, 336, 8, "gpu_memset"),
    ]
    assert microseconds(device_breakdown(events)) == {
        "prefill": {"attention": 30, "cache_append": 10, "other": 5, "device_idle": 55},
        "decode": {"attention": 8, "device_idle": 42},
    }


def test_overlapping_kernels_count_every_moment_once():
    events = [*NESTED[:3], launch(1, 112), kernel(1, 120, 30), launch(2, 131), kernel(2, 140, 30)]
    assert microseconds(device_breakdown(events)) == {
        "prefill": {"attention": 30, "cache_append": 20, "device_idle": 50}
    }


def test_work_of_unknown_origin_is_other_and_work_beyond_the_phases_is_left_out():
    events = [
        *NESTED[:3],
        {**launch(None, 110), "args": {}},
        kernel(None, 120, 10),
        launch(5, 150, tid=3),
        kernel(5, 151, 4),
        launch(6, 250),
        kernel(6, 251, 40),
        launch(7, 198),
        kernel(7, 199, 40),
    ]
    found = microseconds(device_breakdown(events))
    assert found == {"prefill": {"other": 15, "device_idle": 85}}


def test_a_trace_without_device_work_has_no_device_time():
    assert device_breakdown(NESTED) is None


def test_the_parts_of_a_phase_add_up_to_it():
    start = 4666873728449.829  # as large as in real files
    events = [host_range(name, start + 7.3 * i, 5.1) for i, name in enumerate(("router", "pack", "mlp") * 50)]
    found = host_breakdown([host_range("prefill", start - 3, 1200), *events])
    assert sum(found["prefill"].values()) == pytest.approx(1200 * US, rel=1e-6)
