"""A worker turns jobs into results: numbers where there are any, a record with the reason where there are none."""

import errno
import hashlib
import json

import pytest
import torch

from modbench import worker
from modbench.job import JobResult
from modbench.profiling import ceilings
from tests.modbench.jobs import SETTINGS, entry_job, make_job

FLOAT_BYTES = 4
DENSE_BYTES_PER_TOKEN = 4 * 2 * 2 * 12 * FLOAT_BYTES  # 4 layers, keys and values, 2 heads x 12
TOKENS = 2 * (64 + 16)  # 2 rows; the last new token is never fed back


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_launch_gives_raw_samples_and_measured_keep_ratios(tmp_path, kind):
    record = worker.do_job(make_job(tmp_path, kind)).record
    assert (record.status, record.error) == ("ok", None)
    assert [len(record.samples.ttft_s), len(record.samples.tpot_s), len(record.samples.itl_s)] == [2, 2, 32]
    assert min(record.samples.ttft_s + record.samples.itl_s) > 0
    assert record.samples.tpot_s[0] == pytest.approx(sum(record.samples.itl_s[:16]) / 16)
    routed = {"dense": 1.0, "skip_layers": 0.0}.get(kind, 0.25)
    assert record.keep_ratio.prefill == pytest.approx([1.0, routed, 1.0, routed], abs=0.02)
    assert record.keep_ratio.decode == pytest.approx([1.0, routed, 1.0, routed])
    assert json.loads((tmp_path / "progress.json").read_text())["phase"] == "done"


@pytest.mark.parametrize(
    ("kind", "share"), [("dense", 1.0), ("masked", 1.0), ("threshold", 0.625), ("kv_only", 0.625), ("skip_layers", 0.5)]
)
def test_kv_bytes_are_those_of_the_kept_tokens(tmp_path, kind, share):
    record = worker.do_job(make_job(tmp_path, kind)).record
    assert record.metrics["kv_cache_bytes"] == pytest.approx(share * TOKENS * DENSE_BYTES_PER_TOKEN, rel=0.01)
    assert record.metrics["kv_cache_allocated_bytes"] >= record.metrics["kv_cache_bytes"]


def counting(job):
    return job.model_copy(update={"counts_live_tensors": True})


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_kv_cache_is_counted_by_the_allocator_as_well(tmp_path, kind):
    metrics = worker.do_job(counting(make_job(tmp_path, kind))).record.metrics
    assert metrics["kv_cache_allocator_bytes"] == pytest.approx(metrics["kv_cache_allocated_bytes"], abs=512)


def test_live_tensors_are_counted_exactly_beside_the_weights_and_only_where_asked_for(tmp_path):
    job = counting(make_job(tmp_path, "threshold"))
    first, second = (worker.do_job(job).record.metrics for _ in range(2))
    counted = [name for name in first if "live" in name or name in ("weights_bytes", "kv_cache_allocator_bytes")]
    assert len(counted) == 5
    assert [first[name] for name in counted] == [second[name] for name in counted]
    assert first["peak_live_bytes"] > first["kv_cache_allocated_bytes"]
    dense = worker.do_job(make_job(tmp_path, "dense")).record.metrics
    assert first["weights_bytes"] - dense["weights_bytes"] == pytest.approx(2 * 48 * FLOAT_BYTES, abs=64), "two routers"
    assert "peak_live_bytes" not in dense


def test_tensors_that_cannot_be_counted_are_a_doubt_about_a_launch_that_counts(tmp_path):
    record = worker.do_job(counting(entry_job(tmp_path, "dies_when_counted"))).record
    assert (record.status, len(record.samples.ttft_s)) == ("ok", 2)
    assert record.flags[-1] == "live tensors were not counted: RuntimeError: the profiler has no memory left"


@pytest.mark.parametrize(("samples", "warmup"), [(1, 0), (1, 2), (1, "auto"), (2, 2)])
def test_keep_ratios_are_those_of_the_last_sample_alone(tmp_path, samples, warmup):
    job = make_job(tmp_path, "threshold")
    spec = job.spec.model_copy(update={"measure": {"samples": samples, "warmup": warmup}})
    keep = worker.do_job(job.model_copy(update={"spec": spec})).record.keep_ratio
    once = worker.do_job(job).record.keep_ratio
    assert keep == once, "however many samples came before"


def test_every_clock_has_a_value_per_sample(tmp_path):
    samples = worker.do_job(make_job(tmp_path, "dense")).record.samples
    assert [len(samples.prefill_cpu_s), len(samples.decode_cpu_s), len(samples.num_involuntary_switches)] == [2, 2, 2]
    assert (samples.prefill_device_s, samples.decode_device_s) == ([], []), "there are no CUDA events on a CPU"


def test_all_methods_get_the_same_tokens(tmp_path):
    records = [worker.do_job(make_job(tmp_path, kind)).record for kind in ("dense", "threshold")]
    assert len({record.environment["tokens_sha256"] for record in records}) == 1


def test_decode_any_is_the_share_of_steps_in_which_some_row_is_kept(tmp_path):
    keep = worker.do_job(make_job(tmp_path, "threshold")).record.keep_ratio
    for layer in (1, 3):
        assert keep.decode[layer] <= keep.decode_any[layer] <= 2 * keep.decode[layer]


def test_a_missed_keep_ratio_makes_the_launch_invalid(tmp_path):
    workload = {"context": 64, "batch": 1, "new_tokens": 4, "seed": 0, "prompt": {"synthetic": True}}
    record = worker.do_job(make_job(tmp_path, "threshold", workload=workload)).record  # 1 of 3 is not a quarter
    assert record.status == "invalid"
    assert "keep ratio at decode: got 0.3333; expected 0.2500 within 0.0250" in record.error


def test_text_prompts_are_bytes_and_short_ones_are_flagged(tmp_path):
    (tmp_path / "prose.txt").write_text("The quick brown fox.")
    digest = hashlib.sha256(b"The quick brown fox.").hexdigest()
    prompt = {"text": str(tmp_path / "prose.txt"), "sha256": digest}
    workload = {"context": 40, "batch": 1, "new_tokens": 17, "seed": 0, "prompt": prompt}
    record = worker.do_job(make_job(tmp_path, "dense", workload=workload)).record
    assert record.flags[0].startswith("prompt text too short")
    (tmp_path / "prose.txt").write_text("The quick brown cat.")
    changed = worker.do_job(make_job(tmp_path, "dense", workload=workload)).record
    assert changed.status == "unsupported"
    assert "changed since the run was planned" in changed.error


@pytest.mark.parametrize(
    ("factory", "status", "text"),
    [
        ("out_of_memory", "oom", "RuntimeError"),
        ("raises", "failed", "RuntimeError: a mistake over two lines"),
        ("not_a_subject", "unsupported", "returned a object without prefill"),
        ("absent", "unsupported", "is it importable from here?"),
    ],
)
def test_failures_are_records_with_phase_and_memory(tmp_path, factory, status, text):
    record = worker.do_job(entry_job(tmp_path, factory)).record
    assert (record.status, record.phase) == (status, "build")
    assert text in record.error
    assert "\n" not in record.error
    assert record.metrics["peak_rss_bytes"] > 0
    assert record.metrics["last_rss_bytes"] > 0
    assert not record.samples.ttft_s


def test_an_entry_is_not_imported_without_permission(tmp_path):
    job = entry_job(tmp_path, "sound").model_copy(update={"allow_entry": False})
    assert "--allow-entry" in worker.do_job(job).record.error
    assert "--allow-entry" in worker.do_job(job.model_copy(update={"kind": "guard"})).error


def test_a_probe_measures_ceilings_once(tmp_path, monkeypatch):
    job = make_job(tmp_path, "dense", "probe").model_copy(update={"spec": None, "device": "auto", "dtype": "float64"})
    first = worker.do_job(job).probe
    assert first.ceilings["copy_bytes_per_s"] > 1e8
    assert first.ceilings["matmul_flops_per_s"] > 1e8
    monkeypatch.setattr(ceilings, "measure_ceilings", lambda *_: pytest.fail("measured twice"))
    assert worker.do_job(job).probe.ceilings == first.ceilings


def test_an_absent_device_is_one_line(tmp_path):
    job = make_job(tmp_path, "dense", "probe").model_copy(update={"spec": None, "device": "cuda:7"})
    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has eight GPUs")
    assert "device: got cuda:7; this machine has" in worker.do_job(job).error


def test_the_result_file_appears_whole(tmp_path):
    job = make_job(tmp_path, "dense")
    worker.run_job_line(job.model_dump_json())
    assert JobResult.model_validate_json((tmp_path / "result.json").read_text()).record.status == "ok"
    assert not (tmp_path / "result.json.partial").exists()


def test_an_entry_without_decisions_has_no_keep_ratio(tmp_path):
    assert worker.do_job(entry_job(tmp_path, "sound")).record.keep_ratio.prefill == []


def test_the_record_says_which_attention_ran(tmp_path):
    assert worker.do_job(make_job(tmp_path, "dense")).record.environment["attention_path"] == "sdpa"
    routed = worker.do_job(make_job(tmp_path, "threshold")).record.environment["attention_path"]
    assert routed == "sdpa, routed layers: sdpa per row"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("std::bad_alloc"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "oom"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), "oom"),
        (RuntimeError("unable to mmap 9 bytes from file: Cannot allocate memory (12)"), "oom"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "oom"),
        (RuntimeError("shapes do not match"), "failed"),
        (OSError(errno.ENOENT, "No such file"), "failed"),
    ],
)
def test_what_is_out_of_memory(error, status):
    assert worker._status_of(error) == status


def test_progress_that_cannot_be_noted_does_not_stop_the_measurement(tmp_path):
    job = make_job(tmp_path, "dense").model_copy(update={"progress_path": str(tmp_path / "absent" / "progress.json")})
    assert worker.do_job(job).record.status == "ok"


class FakeCuda:
    """Just enough of torch.cuda: one device of 80 GB, and what was asked of it."""

    def __init__(self, monkeypatch, is_initialized=True):
        self.calls = []
        answers = {
            "device_count": lambda: 1,
            "is_available": lambda: True,
            "is_initialized": lambda: is_initialized,
            "current_device": lambda: 0,
            "synchronize": lambda device: self.calls.append("start"),
            "get_device_properties": lambda index: type("Properties", (), {"total_memory": 80_000}),
            "set_per_process_memory_fraction": lambda fraction, index: self.calls.append((fraction, index)),
            "memory_allocated": lambda device: 10,
            "memory_reserved": lambda device: 20,
            "max_memory_allocated": lambda device: 30,
            "max_memory_reserved": lambda device: 40,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)


@pytest.mark.parametrize(("limit_bytes", "fraction"), [(20_000, 0.25), (160_000, 1.0)])
def test_a_device_budget_is_a_share_of_an_indexed_device_and_comes_first(tmp_path, monkeypatch, limit_bytes, fraction):
    cuda = FakeCuda(monkeypatch)
    monkeypatch.setattr(worker, "limit_this_process", lambda limit: cuda.calls.append(("host", limit)))
    limits = {"device_limit_bytes": limit_bytes, "memory_limit_bytes": 7}
    worker.limit_memory(make_job(tmp_path, "dense").model_copy(update=limits), torch.device("cuda"))
    assert cuda.calls == ["start", (fraction, 0), ("host", 7)]


def test_without_a_budget_a_device_is_only_started_and_a_cpu_left_alone(tmp_path, monkeypatch):
    cuda = FakeCuda(monkeypatch)
    worker.limit_memory(make_job(tmp_path, "dense"), torch.device("cuda", 0))
    worker.limit_memory(make_job(tmp_path, "dense"), torch.device("cpu"))
    assert cuda.calls == ["start"]


def test_a_failure_on_a_device_keeps_what_its_allocator_held(tmp_path, monkeypatch):
    FakeCuda(monkeypatch)
    job = entry_job(tmp_path, "raises").model_copy(update={"device": "cuda"})
    metrics = worker.do_job(job).record.metrics
    held = {
        "last_allocated_bytes": 10,
        "last_reserved_bytes": 20,
        "peak_allocated_bytes": 30,
        "peak_reserved_bytes": 40,
    }
    assert {name: metrics[name] for name in held} == held


def test_a_device_that_never_started_holds_nothing(monkeypatch):
    FakeCuda(monkeypatch, is_initialized=False)
    assert set(worker.last_memory("cuda")) == {"last_rss_bytes", "peak_rss_bytes"}


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate",
        "could not create a primitive descriptor for a matmul primitive",
        "can't start new thread",
        "Resource temporarily unavailable",
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_libraries_that_run_out_of_memory_in_their_own_words_are_oom(text):
    assert worker._status_of(RuntimeError(text)) == "oom"
    assert worker._status_of(RuntimeError("shape mismatch")) == "failed"
