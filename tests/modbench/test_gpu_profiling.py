"""The profiler on a real GPU: events, allocator, driver, energy, ceilings, traces, limits. Skipped where there is none."""

import pytest
import torch

from modbench import worker
from modbench.doctor import examine
from modbench.own_cost import measure_own_cost
from modbench.profiling.gpu_watch import calibrate
from modbench.units import MIB
from tests.modbench.jobs import make_job

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def gpu_job(tmp_path, kind: str, job_kind: str = "launch", **changes):
    job = make_job(tmp_path, kind, job_kind, device_kind="cuda", **changes)
    return job.model_copy(update={"device": "cuda:0"})


@pytest.mark.parametrize("kind", ["dense", "threshold"])
def test_a_launch_has_every_clock_and_every_memory_of_the_device(tmp_path, kind):
    nvml = calibrate(torch.device("cuda:0"))
    job = gpu_job(tmp_path, kind).model_copy(update={"environment": {"nvml": nvml}})
    record = worker.do_job(job).record
    assert (record.status, record.error) == ("ok", None)
    samples, metrics = record.samples, record.metrics
    for device_s, wall_s in zip(samples.prefill_device_s, samples.ttft_s, strict=True):
        assert 0 < device_s <= 1.05 * wall_s
    assert len(samples.decode_device_s) == 2
    assert metrics["peak_reserved_bytes"] >= metrics["peak_allocated_bytes"] >= metrics["weights_bytes"]
    assert metrics["peak_device_used_bytes"] >= metrics["peak_reserved_bytes"]
    assert metrics["kv_cache_allocator_bytes"] == pytest.approx(metrics["kv_cache_allocated_bytes"], rel=0.01, abs=4096)
    assert metrics["num_gpu_readings"] >= 2


def test_the_driver_tells_what_it_is_asked_or_why_not():
    found = calibrate(torch.device("cuda:0"))
    assert found["facts"]["name"]
    assert found["energy_update_interval_s"] or found["energy_unknown"]
    assert found["idle_power_w"] is None or 1 < found["idle_power_w"] < 1000


def test_a_device_limit_is_an_oom_row_with_the_allocators_last_words(tmp_path):
    workload = {"context": 400, "batch": 64, "new_tokens": 17, "seed": 0, "prompt": {"synthetic": True}}
    job = gpu_job(tmp_path, "dense", workload=workload).model_copy(update={"device_limit_bytes": 24 * MIB})
    try:
        record = worker.do_job(job).record
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert record.status == "oom", record.error
    assert record.metrics["last_reserved_bytes"] <= 24 * MIB


def test_a_trace_attributes_device_time_to_the_ranges(tmp_path):
    job = gpu_job(tmp_path, "threshold", "trace").model_copy(update={"trace_folder": str(tmp_path)})
    trace = worker.do_job(job).trace
    assert trace.error is None
    for phase in ("prefill", "decode"):
        assert {"attention", "mlp", "router", "pack", "scatter"} <= set(trace.device_s[phase])
        assert sum(trace.device_s[phase].values()) == pytest.approx(sum(trace.host_s[phase].values()), rel=0.05)


def test_the_doctor_knows_the_gpu():
    report = examine(torch.device("cuda:0"), threads=1, is_remeasured=False)
    assert {check.name: check.status for check in report.checks}["gpu"] == "ok"
    rates = {device.dtype: device.matmul_flops_per_s for device in report.ceilings}
    assert rates["bfloat16"] > rates["float32"]


def test_the_profilers_cost_can_be_measured():
    assert measure_own_cost(torch.device("cuda:0"), num_pairs=8, block_s=0.2).interval is not None
