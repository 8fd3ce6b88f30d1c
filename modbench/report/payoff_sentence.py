"""One sentence: whether and from which context a method pays at a batch, and why. In: a `Payoff`. Out: text.

The wording follows the payoff's numbers alone: what takes longer in a phase, what bounds it, and what of it stays.
"""

from modbench.analysis.estimate import Budget, Estimate
from modbench.analysis.payoff import Cause, Gain, Payoff
from modbench.report.escaping import one_line
from modbench.units import format_bytes, format_count, format_factor, format_percent

MINOR_SHARE = 0.1  # a phase with less of the end-to-end time explains nothing
MOST = 0.5
WHAT_BOUNDS = {
    ("weights", "bytes"): "reading weights",
    ("weights", "flops"): "the matrix products of projections and MLP",
    ("attention", "bytes"): "reading the KV cache",
    ("attention", "flops"): "attention's matrix products",
}


def payoff_sentence(payoff: Payoff, budget: Budget) -> str:
    """`At batch 1, threshold pays at any context from ...: at best 1.72× end to end at 4,096 tokens, because ...`."""
    start = f"At batch {format_count(payoff.batch)}, {one_line(payoff.method)}"
    if payoff.because is None:
        missing = format_bytes(payoff.least_bytes - budget.memory_bytes)
        return f"{start} fits at no context: one token needs {format_bytes(payoff.least_bytes)}, {missing} more than there is."
    causes = [cause for cause in payoff.causes if cause.phase_share_ratio >= MINOR_SHARE]
    reasons = [_reason(cause, payoff, is_first=cause is causes[0]) for cause in causes]
    at = f"at {format_count(payoff.because.context)} tokens"
    return f"{start} {_verdict(payoff, payoff.because)}, because {at} {', and '.join(reasons)}."


def _verdict(payoff: Payoff, because: Estimate) -> str:
    if "end_to_end_speedup" in payoff.paying:
        ends = payoff.paying["end_to_end_speedup"]
        last = next(item for item in payoff.scanned if item.context == ends[1])
        texts = [
            f"{format_factor(item.end_to_end_speedup)} end to end at {format_count(item.context)} tokens"
            for item in dict.fromkeys((because, last))
        ]
        memory = f"{format_factor(last.memory_reduction)} less memory"
        return f"pays {_range_text(payoff, *ends)}: at best {', '.join(texts)} with {memory}"
    best = format_factor(max(item.end_to_end_speedup for item in payoff.scanned))
    less = format_factor(max(item.memory_reduction for item in payoff.scanned))
    phases: tuple[tuple[str, Gain], ...] = (("prefill", "prefill_speedup"), ("decode", "decode_speedup"))
    alone = [
        f"; {name} alone gains {_range_text(payoff, *payoff.paying[g])}" for name, g in phases if g in payoff.paying
    ]
    time = f"at best {best} end to end{''.join(alone)}"
    if "memory_reduction" in payoff.paying:
        return f"pays in memory alone, {_range_text(payoff, *payoff.paying['memory_reduction'])}: at best {less} less; {time}"
    whole = _range_text(payoff, payoff.scanned[0].context, payoff.scanned[-1].context)
    return f"does not pay {whole}: at best {less} less memory; {time}"


def _range_text(payoff: Payoff, first: int, last: int) -> str:
    """Contexts among the scanned ones; where memory ends the scan, it says so, and how far dense gets."""
    lowest, highest = payoff.scanned[0].context, payoff.scanned[-1].context
    ends = f"from {format_count(first)} to {format_count(last)}"
    if first == last:
        text = f"at context {format_count(first)}"
    elif (first, last) == (lowest, highest):
        text = f"at any context {ends}"
    else:
        text = f"at contexts {ends}"
    if last < highest or not payoff.is_memory_bound:
        return text
    dense = f"to {format_count(payoff.dense_limit)}" if payoff.dense_limit else "at none"
    return f"{text}, the longest that fits (dense fits {dense})"


def _reason(cause: Cause, payoff: Payoff, is_first: bool) -> str:
    share, part, left = (
        format_percent(ratio) for ratio in (cause.phase_share_ratio, cause.part_share_ratio, cause.left_ratio)
    )
    of_what = " of dense's time" if is_first else ""
    bound = WHAT_BOUNDS[cause.part, cause.bound]
    text = f"{cause.phase} ({share}{of_what}) is bound by {bound} ({part} of it), of which {left} stays"
    if (cause.phase, cause.part, cause.bound) == ("decode", "weights", "bytes") and payoff.batch > 1:
        amount = "most" if payoff.joint_keep_ratio > MOST else "few"
        text += (
            f", as a routed layer is needed by some row in {amount} steps ({format_percent(payoff.joint_keep_ratio)}), "
            f"while of reading the KV cache {format_percent(cause.other_left_ratio)} stays"
        )
    return text
