import pytest

from modbench.analysis import summarise
from modbench.report.memory_plots import Limit, memory_drawings, memory_limit, memory_parts
from tests.modbench.record_factory import ENVIRONMENT, make_quads

MIB = 2**20


def summary_with(contexts=(1024, 4096), environment=None, device_kind="cpu", **metrics):
    records = []
    for record in make_quads(1, contexts=contexts):
        point = record.point.model_copy(update={"device_kind": device_kind})
        known = {"metrics": {**record.metrics, **metrics}, "environment": environment or ENVIRONMENT, "point": point}
        records.append(record.model_copy(update=known))
    return summarise(records)


def parts_of(**metrics):
    return memory_parts(summary_with(**metrics).cells[0].rows[0])


def test_parts_add_up_to_the_peak():
    parts = parts_of(
        weights_bytes=100 * MIB, kv_cache_allocated_bytes=30 * MIB, peak_live_bytes=80 * MIB, peak_rss_bytes=900 * MIB
    )
    assert parts == {"weights": 100 * MIB, "KV cache": 30 * MIB, "rest": 50 * MIB}, (
        "of the tensors' peak, not of the process"
    )


def test_what_is_unknown_is_in_the_rest():
    assert parts_of(kv_cache_allocated_bytes=30 * MIB, peak_rss_bytes=100 * MIB) == {
        "KV cache": 30 * MIB,
        "rest": 70 * MIB,
    }
    assert parts_of(kv_cache_allocated_bytes=None, peak_rss_bytes=100 * MIB) == {"rest": 100 * MIB}


def test_no_part_is_negative():
    assert parts_of(weights_bytes=90 * MIB, kv_cache_allocated_bytes=30 * MIB, peak_rss_bytes=100 * MIB) == {
        "rest": 100 * MIB
    }


def test_without_a_peak_nothing_is_drawn():
    assert parts_of(peak_rss_bytes=None) == {}
    assert memory_drawings(summary_with(peak_rss_bytes=None)) == []


def test_the_spec_has_the_ends_of_every_part():
    (drawing,) = memory_drawings(
        summary_with(weights_bytes=100 * MIB, kv_cache_allocated_bytes=30 * MIB, peak_live_bytes=80 * MIB)
    )
    dense = drawing.spec["data"]["values"][0]
    assert (dense["method"], dense["part"][:3]) == ("dense", ["weights", "KV cache", "rest"])
    assert dense["low"][:3] == pytest.approx([0, 100 * MIB, 130 * MIB], rel=1e-5)
    assert dense["high"][:3] == pytest.approx([100 * MIB, 130 * MIB, 180 * MIB], rel=1e-5)
    assert dense["value"][:3] == ["100 MiB", "30.0 MiB", "50.0 MiB"]


def test_the_rest_of_a_process_is_called_that():
    assert "pale: rest of the process" in memory_drawings(summary_with())[0].caption
    assert "activations" in memory_drawings(summary_with(weights_bytes=MIB, peak_live_bytes=900 * MIB))[0].caption


@pytest.mark.parametrize(
    ("device_kind", "environment", "limit"),
    [
        ("cpu", {"memory_limit_bytes": 2**30}, Limit(2**30, "limit of a launch")),
        ("cpu", {}, Limit(32 * 2**30, "memory of the machine")),
        ("cuda", {"memory_limit_bytes": 2**30}, None),
        ("cuda", {"device_limit_bytes": 2**33}, Limit(2**33, "limit of a launch")),
        ("cuda", {"machine": {"gpu_memory_bytes": 2**36}}, Limit(2**36, "memory of the GPU")),
        ("cpu", {"memory_limit_bytes": "many", "machine": "none"}, None),
    ],
)
def test_the_limit_is_that_of_the_device_that_holds_the_model(device_kind, environment, limit):
    assert memory_limit(summary_with(environment={**ENVIRONMENT, **environment}, device_kind=device_kind)) == limit


def test_a_limit_that_differs_between_launches_is_not_drawn():
    records = make_quads(1)
    records[1] = records[1].model_copy(update={"environment": {**ENVIRONMENT, "memory_limit_bytes": 2**31}})
    records[0] = records[0].model_copy(update={"environment": {**ENVIRONMENT, "memory_limit_bytes": 2**30}})
    assert memory_limit(summarise(records)) is None


def test_a_near_limit_is_a_line_and_a_far_one_is_told():
    near = memory_drawings(summary_with(environment={**ENVIRONMENT, "memory_limit_bytes": 2**30}))[0].spec
    far = memory_drawings(summary_with(environment={**ENVIRONMENT, "memory_limit_bytes": 2**40}))[0].spec
    assert {"datum": 2**30} in [layer["encoding"].get("y") for layer in near["layer"]]
    assert far["layer"][-1]["data"]["values"] == [{"text": "limit of a launch: 1.00 TiB, far above"}]
    assert len(far["layer"]) == 2


def test_of_many_places_only_some_have_a_label():
    (drawing,) = memory_drawings(summary_with(contexts=tuple(range(512, 12800, 512)), weights_bytes=1.0))
    x = drawing.spec["layer"][0]["encoding"]["x"]
    assert len(x["sort"]) == 24
    assert x["axis"]["values"] == ["512", "3,584", "6,656", "9,216", "12,288"]
