"""A prediction as text: a table per case, what fits, and in a sentence whether and from where a method pays. Formatting only.

In: an `EstimateReport`. Out: 80 columns on a console, or JSON-ready data in base units.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from modbench.analysis.estimate import Budget, Case, Estimate, Limit, PredictedMethod
from modbench.analysis.memory_model import MAX_CONTEXT
from modbench.analysis.payoff import PAYS_FROM, Payoff
from modbench.devices import Device
from modbench.report.console import print_table
from modbench.report.document import axes_label
from modbench.report.escaping import one_line
from modbench.report.payoff_sentence import payoff_sentence
from modbench.report.tables import NOTHING, Column, Group, Row, Table
from modbench.units import format_bytes, format_count, format_factor, format_percent, format_seconds

LEGEND = (
    "Gain: dense / method. E2E: end to end, prefill and all new tokens. Over by: what is missing where it does not fit."
)
NOT_COUNTED = (
    "Times are at best, for every method: routers, packing, norms, activations in memory and launch gaps are not counted. "
    "Memory is of one device, without the allocator's fragmentation."
)


@dataclass(frozen=True)
class EstimatedCase:
    """A case with the device it was predicted for, and all that was predicted."""

    case: Case
    device: Device
    budget: Budget
    rows: Sequence[Estimate]
    limits: Sequence[Limit]
    payoffs: Sequence[Payoff]


@dataclass(frozen=True)
class EstimateReport:
    """All cases of a target; `not_predicted` are the labels of methods left out."""

    target: str
    cases: Sequence[EstimatedCase]
    not_predicted: Sequence[str] = ()


def render_estimate(report: EstimateReport, console: Console) -> None:
    """Print tables and sentences. Nothing is read as markup; colours follow the console (`NO_COLOR`)."""
    for found in report.cases:
        console.print()
        console.print(Text(case_title(report.target, found.case), style="bold"))
        for line in (device_line(found), *method_lines(found)):
            console.print(Text(line))
        print_table(size_table(found), console)
        print_table(limit_table(found), console)
        console.print()
        for sentence in answers(found):
            console.print(Text(sentence))
    console.print()
    for label in report.not_predicted:
        console.print(Text(f"{one_line(label)}: not predicted; only its own code knows what it computes."))
    console.print(Text(f"{LEGEND} {NOT_COUNTED}", style="dim"))


def estimate_json(report: EstimateReport) -> dict[str, Any]:
    """The same as data: seconds, bytes and ratios; every row says where its ceilings come from."""
    return {
        "target": report.target,
        "not_predicted": list(report.not_predicted),
        "not_counted": NOT_COUNTED,
        "cases": [_case_json(found) for found in report.cases],
    }


def case_title(target: str, case: Case) -> str:
    """`Estimate of llama2-7b: 6.74 B weights, bfloat16, 256 new tokens`."""
    label = f", {case.label}" if case.label else ""
    weights = f"{case.geometry.num_parameters / 1e9:.3g} B weights"
    return f"Estimate of {one_line(target)}{label}: {weights}, {case.dtype}, {format_count(case.new_tokens)} new tokens"


def device_line(found: EstimatedCase) -> str:
    """The device, and which ceilings the prediction is from."""
    device = found.device
    detail = f" ({one_line(device.detail)})" if device.detail else ""
    overhead_bytes = found.budget.overhead_bytes
    taken = f"of which {format_bytes(overhead_bytes)} is taken before the first tensor"
    taken = taken if overhead_bytes else "the scenario's limit"
    return (
        f"From {device.source} of {one_line(device.name)}{detail}: {device.copy_bytes_per_s / 1e9:,.4g} GB/s, "
        f"{device.matmul_flops_per_s / 1e12:,.4g} TFLOP/s; memory {format_bytes(found.budget.memory_bytes)}, {taken}."
    )


def method_lines(found: EstimatedCase) -> list[str]:
    """What the methods keep, and a warning where the model's positions end."""
    case = found.case
    texts = [_method_text(method, case.geometry.num_hidden_layers) for method in case.methods if method.routed_layers]
    lines = ["; ".join(texts) + "."] if texts else []
    positions = case.geometry.max_position_embeddings
    contexts = [*(context for context, _ in case.sizes), *(limit.context for limit in found.limits)]
    if positions is not None and max(contexts) + case.new_tokens > positions:
        lines.append(f"The model has {format_count(positions)} positions; longer contexts are hypothetical.")
    return lines


def size_table(found: EstimatedCase) -> Table:
    """A group per size, a row per method; one that does not fit says how much is missing."""
    columns = ("TTFT", "gain", "TPOT", "gain", "E2E gain", "KV cache", "Memory", "Over by")
    groups = [
        Group(
            axes_label({"context": context, "batch": batch}),
            tuple(_row(item) for item in found.rows if (item.context, item.batch) == (context, batch)),
        )
        for context, batch in found.case.sizes
    ]
    return Table("Predicted", (Column("Method", False), *(Column(name) for name in columns)), tuple(groups))


def limit_table(found: EstimatedCase) -> Table:
    """The longest context of each method, per batch."""
    groups = []
    for batch in found.case.batches:
        limits = [limit for limit in found.limits if limit.batch == batch]
        rows = tuple(
            Row((one_line(limit.method), _context_text(limit.context), _ratio_text(limit.ratio))) for limit in limits
        )
        groups.append(Group(axes_label({"batch": batch}), rows))
    columns = (Column("Method", False), Column("Tokens"), Column("Gain"))
    return Table("Longest context that fits", columns, tuple(groups))


def answers(found: EstimatedCase) -> list[str]:
    """What does not fit, then whether each method pays."""
    total = len(found.rows)
    missing = [item for item in found.rows if item.missing_bytes]
    memory = format_bytes(found.budget.memory_bytes)
    fits = f"All {total} rows fit in {memory}."
    if missing:
        worst = max(missing, key=lambda item: item.missing_bytes)
        fits = (
            f"{len(missing)} of {total} rows do not fit in {memory}; most is missing to {one_line(worst.method)} at context "
            f"{format_count(worst.context)}, batch {format_count(worst.batch)}: {format_bytes(worst.missing_bytes)}."
        )
    return [fits, *(payoff_sentence(payoff, found.budget) for payoff in found.payoffs)]


def _row(item: Estimate) -> Row:
    cells = (
        one_line(item.method),
        format_seconds(item.prefill_s),
        format_factor(item.prefill_speedup),
        format_seconds(item.decode_s),
        format_factor(item.decode_speedup),
        format_factor(item.end_to_end_speedup),
        format_bytes(item.memory.kv_cache_bytes),
        format_bytes(item.memory.peak_bytes),
        format_bytes(item.missing_bytes) if item.missing_bytes else NOTHING,
    )
    return Row(cells, "failed" if item.missing_bytes else "plain")


def _method_text(method: PredictedMethod, num_layers: int) -> str:
    kept = "removes" if method.is_removing else f"keeps {format_percent(method.keep_ratio)} of tokens at"
    return f"{one_line(method.label)} {kept} {len(method.routed_layers)} of {num_layers} layers"


def _context_text(context: int) -> str:
    if context == 0:
        return "none"
    return f"over {format_count(MAX_CONTEXT)}" if context >= MAX_CONTEXT else format_count(context)


def _ratio_text(ratio: float | None) -> str:
    return NOTHING if ratio is None else format_factor(ratio)


def _case_json(found: EstimatedCase) -> dict[str, Any]:
    source = {"device": found.device.name, "ceilings_source": found.device.source}
    return {
        "label": found.case.label,
        "model": asdict(found.case.geometry.shape()),
        "dtype": found.case.dtype,
        "new_tokens": found.case.new_tokens,
        "methods": [asdict(method) for method in found.case.methods],
        "device": asdict(found.device),
        "memory_bytes": found.budget.memory_bytes,
        "rows": [{**asdict(item), "is_fitting": item.missing_bytes == 0, **source} for item in found.rows],
        "longest_contexts": [{**asdict(limit), **source} for limit in found.limits],
        "pays_from_ratio": PAYS_FROM,
        "payoffs": [_payoff_json(payoff, found.budget) | source for payoff in found.payoffs],
        "answers": answers(found),
    }


def _payoff_json(payoff: Payoff, budget: Budget) -> dict[str, Any]:
    return {
        "method": payoff.method,
        "batch": payoff.batch,
        "scanned_contexts": [item.context for item in payoff.scanned],
        "is_memory_bound": payoff.is_memory_bound,
        "least_bytes": payoff.least_bytes,
        "paying_contexts": {gain: {"first": ends[0], "last": ends[1]} for gain, ends in payoff.paying.items()},
        "because_at_context": payoff.because.context if payoff.because else None,
        "causes": [asdict(cause) for cause in payoff.causes],
        "joint_keep_ratio": payoff.joint_keep_ratio,
        "sentence": payoff_sentence(payoff, budget),
    }
