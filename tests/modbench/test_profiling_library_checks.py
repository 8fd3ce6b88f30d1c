"""What is installed and what it can do, from plain values."""

import pytest

from modbench.profiling import library_checks
from tests.modbench.kernel_tree import make_tree

NEW = {"python": "3.12.3", "torch": "2.13.0+cpu", "transformers": "5.23.0"}
KNOWN = ["flash_attn", "torch_varlen", "sdpa", "eager"]


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({}, ""),
        ({"torch": "2.11.0", "transformers": "5.17.0"}, ""),
        ({"torch": "2.9.1"}, 'pip install "torch>=2.11"'),
        ({"transformers": None, "torch": "2.2"}, 'pip install "torch>=2.11" "transformers>=5.17"'),
        ({"python": "3.10.4"}, "use Python 3.11 or later"),
    ],
)
def test_each_library_is_held_against_its_oldest_version(changes, fix):
    check = library_checks.versions_check({**NEW, **changes, "numpy": None})
    assert (check.status, check.fix) == ("missing" if fix else "ok", fix)


@pytest.mark.parametrize("line", ["flags\t\t: fpu avx512_bf16", "Features\t: fp asimdhp bf16"])
def test_flags_are_found_on_x86_and_arm(tmp_path, line):
    flags = library_checks.cpu_flags(make_tree(tmp_path, {"proc/cpuinfo": f"processor : 0\n{line}\nflags : other"}))
    assert len(flags) in (2, 3)
    assert "other" not in flags
    assert library_checks.cpu_flags(tmp_path / "absent") == set()


def test_a_half_dtype_without_instructions_is_a_warning():
    check = library_checks.cpu_dtypes_check({"avx512_bf16"}, "AVX512", has_onednn=True)
    assert check.status == "warn"
    assert check.finding == "native bfloat16 (avx512_bf16), no native float16; AVX512, oneDNN"
    assert "float16" in check.fix
    assert "bfloat16" not in check.fix
    assert library_checks.cpu_dtypes_check({"bf16", "asimdhp"}, "DEFAULT", has_onednn=True).status == "ok"
    assert "oneDNN" in library_checks.cpu_dtypes_check({"bf16", "asimdhp"}, "DEFAULT", has_onednn=False).fix


def test_bfloat16_on_a_gpu_needs_compute_capability_8():
    assert library_checks.cuda_dtypes_check((9, 0)).status == "ok"
    older = library_checks.cuda_dtypes_check((7, 5))
    assert (older.status, "model.dtype float16" in older.fix) == ("warn", True)


def test_more_threads_than_cpus_is_a_warning():
    assert library_checks.threads_check(2, 2, 1).status == "ok"
    assert library_checks.threads_check(3, 2, 1).fix.startswith("--threads 2")


@pytest.mark.parametrize(
    ("available", "capability", "status", "finding", "fix"),
    [
        (KNOWN, (9, 0), "ok", "flash_attn, torch_varlen, sdpa, eager", ""),
        (KNOWN[1:], (9, 0), "warn", "torch_varlen, sdpa, eager; not flash_attn: not installed", "flash-attn>=2.8"),
        (KNOWN[2:], (7, 5), "missing", "not flash_attn, torch_varlen: compute capability is 7.5", "8.0"),
        (KNOWN[2:], None, "info", "sdpa, eager; not flash_attn, torch_varlen: CUDA only", ""),
    ],
)
def test_absent_attention_backends_come_with_the_reason(available, capability, status, finding, fix):
    check = library_checks.attention_check(available, KNOWN, capability)
    assert check.status == status
    assert finding in check.finding
    assert fix in check.fix


@pytest.mark.parametrize(
    ("version", "is_cuda", "status"), [("3.6.0", True, "ok"), (None, True, "missing"), (None, False, "info")]
)
def test_triton_is_missed_on_a_gpu_alone(version, is_cuda, status):
    assert library_checks.triton_check(version, is_cuda).status == status
