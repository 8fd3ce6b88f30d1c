"""A made-up report -> the exact screen. To accept a change: `python -m tests.modbench.test_report_doctor`, then read the diff."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from modbench.checks import Check, DoctorReport
from modbench.measured_devices import MeasuredDevice
from modbench.report.doctor import ceiling_check, render_doctor, summary_sentence

GOLDEN = Path(__file__).parent / "golden" / "doctor_80.txt"


def measured(dtype: str, spread: float | None) -> MeasuredDevice:
    return MeasuredDevice(
        name="Example CPU",
        kind="cpu",
        memory_bytes=2**34,
        host="h",
        machine="m",
        torch="2.13.0",
        dtype=dtype,
        threads=1,
        copy_bytes_per_s=1.234e10,
        matmul_flops_per_s=9.876e11,
        copy_spread_ratio=spread,
        matmul_spread_ratio=spread and 0.01,
    )


def check(name: str, group: str, status: str, finding: str, fix: str = "", gives: str = "") -> Check:
    return Check(name=name, group=group, status=status, finding=finding, fix=fix, gives=gives)


REPORT = DoctorReport(
    device="cpu",
    checks=[
        check("device", "machine", "ok", "cpu", gives="CPU latency"),
        check("peak_rss", "machine", "ok", "VmHWM, reset before every phase", gives="peak RSS"),
        check("cpu_governor", "cpu", "warn", "powersave: the frequency follows the load", "sudo cpupower -g [x]"),
        check("cpu_boost", "cpu", "info", "not visible"),
        check("memory", "memory", "warn", "a finding that is longer than what is left of a line of 80 columns", "end"),
        check("attention", "libraries", "info", "sdpa, eager; not flash_attn, torch_varlen: CUDA only"),
        check(
            "gpu", "gpu", "missing", "none: no driver\x1b[31m", "a machine with a GPU", "GPU energy, power and clocks"
        ),
    ],
    ceilings=[measured("float32", 0.2), measured("bfloat16", 0.03), measured("float16", None)],
)


def screen(**console_options) -> str:
    console = Console(file=io.StringIO(), width=80, legacy_windows=False, **console_options)
    render_doctor(REPORT, console)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def test_a_report_gives_exactly_the_golden_screen():
    assert screen(color_system=None) == GOLDEN.read_text(encoding="utf-8")


def test_colour_takes_the_place_of_the_words():
    coloured = screen(color_system="standard", force_terminal=True, no_color=False)
    assert "\x1b[33m!" in coloured
    assert "warn" not in coloured
    assert "warn" in screen(color_system="standard", force_terminal=True, no_color=True)


@pytest.mark.parametrize(("spread", "status"), [(0.05, "ok"), (0.11, "warn"), (None, "ok")])
def test_a_ceiling_whose_runs_differ_much_is_doubtful(spread, status):
    found = ceiling_check(measured("float32", spread))
    assert (found.status, "--remeasure" in found.fix) == (status, status == "warn")
    assert found.finding.startswith("copy 12.3 GB/s, product 988 GFLOP/s")


def test_the_last_sentence_says_what_can_and_cannot_be_measured():
    latency = check("device", "machine", "ok", "cpu", gives="CPU latency")
    energy = check("gpu", "gpu", "missing", "none", gives="GPU energy")
    busy = check("other_load", "cpu", "warn", "others")
    assert summary_sentence([latency]) == "This machine can measure CPU latency; nothing was found that disturbs it."
    assert summary_sentence([latency, energy, busy]) == (
        "This machine can measure CPU latency; not GPU energy; 1 line marked ! stands in the way."
    )
    assert summary_sentence([energy]).startswith("This machine can measure nothing asked for; not GPU energy")


if __name__ == "__main__":
    GOLDEN.write_text(screen(color_system=None), encoding="utf-8")
