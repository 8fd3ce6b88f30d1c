"""How to read the tables, in sentences: the same for every renderer, a shorter choice of them for a terminal."""

from collections.abc import Mapping

from modbench.analysis.rows import Summary
from modbench.analysis.statistics import MIN_COVERAGE, MIN_PAIRS
from modbench.units import format_percent

PHASES = {"ttft_s": "prefill", "tpot_s": "decode"}
GPU_WORDS = (
    "Device time: between CUDA events, idle gaps included, decode per step. "
    "Energy: of one prefill and its decode, from the driver's counter over all samples; "
    "above idle, less what the idle device takes. "
    "Device used: all processes, By process: this launch, both as sampled."
)


def legend(summary: Summary) -> list[str]:
    """Every column and word, one sentence each; nothing about tables that are not there."""
    if not summary.cells:
        return []
    rows = [row for cell in summary.cells for row in cell.rows]
    has_gpu = any(row.values["ttft_device_s"] is not None for row in rows)
    return [
        "TTFT, TPOT: the 25th percentile of a launch's samples, then the median of the launches.",
        *short_legend(summary),
        "Ideal: what a perfect implementation of the measured keep ratios would reach on this device, with the savings "
        "that the method means to make; (reached): the share of it that was measured.",
        "Saving: share of the time that the ideal would save which was saved.",
        "Kept: share of tokens kept at routed layers.",
        "KV reduction, Peak reduction: dense bytes / method bytes.",
        "Peak memory: allocated is the peak of torch's CUDA allocator; tensors are the weights and the most bytes of other "
        "tensors alive at once, counted in a sample that is not timed; RSS is the process.",
        "KV cache three ways: formula, what the stored tokens need; occupied, what they fill of the live buffers; allocated, those "
        "buffers whole; allocator, what it has not got back when only the cache is left.",
        *([GPU_WORDS] if has_gpu else []),
    ]


def margin_text(tolerance: float, margins: Mapping[str, float]) -> str:
    """The tolerance, and where this machine's noise floor is the larger margin."""
    raised = [
        f"{PHASES.get(metric, metric)} {format_percent(value)}"
        for metric, value in margins.items()
        if value > tolerance
    ]
    return format_percent(tolerance) + (f" ({', '.join(raised)}: this machine's noise floor)" if raised else "")


def short_legend(summary: Summary) -> list[str]:
    """What the figures and verdicts of the main tables mean."""
    return [
        "±: half the range of the launches.",
        "Speed-up: dense time / method time over pairs of launches; [exact interval] from "
        f"{MIN_PAIRS} pairs on, coverage at least {100 * MIN_COVERAGE:g} %.",
        f"Verdict at a margin δ of {margin_text(summary.tolerance, summary.margins)} in time: slower, faster (the interval is "
        "wholly beyond δ), same (wholly within), open (more pairs could decide), inconclusive (the last look did not).",
    ]
