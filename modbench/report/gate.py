"""The words of a gate: the line that says the outcome and what to do next, and how a comparison is called everywhere.

In: a `GateResult`. Out: texts, one line each and not yet escaped for a format.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modbench.analysis.comparison import ComparedSides, Comparison
from modbench.analysis.gate import Found, GateResult
from modbench.analysis.rank_statistics import MAX_VALUES
from modbench.analysis.verdict import Verdict
from modbench.plan import LOOKS
from modbench.report.document import axes_label
from modbench.report.escaping import one_line
from modbench.report.tables import NOTHING
from modbench.scenario.source import parse_override_value
from modbench.units import (
    format_bytes,
    format_change,
    format_change_interval,
    format_count,
    format_factor,
    format_seconds,
)

MAX_LINE = 1000
# The command that measures the sides again, to which `--set` may be added; "" where there is none.
Rerun = Callable[[ComparedSides], str]


def gate_lines(result: GateResult, rerun: Rerun | None = None) -> list[str]:
    """One line that says the outcome and what to do next, and a second where there is more to say."""
    lines = [_first_line(result, rerun)]
    more = _others(result) + _not_judged(result) + _noise(result)
    if more:
        lines.append(" · ".join(more))
    return [one_line(line, MAX_LINE) for line in lines]


def subject_text(line: Comparison) -> str:
    """What was compared: `threshold tpot_s`, of saved runs `threshold tpot_s relative to dense`."""
    relative = " relative to dense" if line.ground == "ratio_to_dense" else ""
    return f"{one_line(line.method)} {one_line(line.metric)}{relative}"


def place_text(line: Comparison) -> str:
    """The cell in words, `context 4,096`."""
    return axes_label(line.axes)


def cell_names(lines: Sequence[Comparison]) -> dict[str, str]:
    """Cell id -> the cell in words, with the id where another cell has the same words."""
    words = {line.cell_id: place_text(line) for line in lines}
    times = Counter(words.values())
    return {
        cell_id: text if times[text] == 1 else f"{text} [{one_line(cell_id, 16)}]" for cell_id, text in words.items()
    }


def change_text(line: Comparison) -> str:
    """`+6.1 % [+4.0, +8.3]`; of counted bytes that differ by less than a per mille, how many: `+24 B`."""
    if line.ratio is None:
        return ""
    is_tiny = line.ground == "exact" and 0 < abs(line.ratio - 1) < 1e-3
    if is_tiny and line.base is not None and line.candidate is not None:
        return f"{line.candidate - line.base:+,.12g}" + (" B" if line.metric.endswith("_bytes") else "")
    return format_change(line.ratio) + (f" {format_change_interval(line.interval)}" if line.interval else "")


def value_text(line: Comparison, value: float | None) -> str:
    """A side's value in the unit of the metric; a method's time / dense time as a factor."""
    if value is None:
        return NOTHING
    if line.ground == "ratio_to_dense":
        return format_factor(value)
    if line.metric.endswith("_bytes"):
        return format_bytes(value)
    is_time = line.metric.endswith("_s") and not line.metric.endswith("_per_s")
    return format_seconds(value) if is_time else f"{value:,.6g}"


def share_text(share: float) -> str:
    """A tolerance or margin: `3 %`, `4.8 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def rerun_command(prefix: str, axes: Mapping[str, Any]) -> str:
    """The command restricted to one cell: `PREFIX --set workload.context=4096`, quoted for a shell."""
    there = shlex.split(prefix)
    settings = [f"{key}={_override_value(value)}" for key, value in axes.items()]
    added = [f"--set {shlex.quote(setting)}" for setting in settings if setting not in there]
    return " ".join([prefix, *added])


def _override_value(value: Any) -> str:
    """As `--set` reads it back; a list is one value of its axis."""
    is_word = isinstance(value, str) and re.fullmatch(r"[\w./-]+", value, re.ASCII)
    if is_word and parse_override_value(value, "--set") == value:
        return value
    return json.dumps([value] if isinstance(value, list) else value)


def _first_line(result: GateResult, rerun: Rerun | None) -> str:
    if not result.num_judged:
        return "failed: nothing was compared; give two sides with methods, points and metrics in common"
    if not result.findings:
        margin = share_text(max([result.tolerance, *result.margins.values()]))
        return f"{result.outcome}: {_of_all(result.num_judged, result)} (margin {margin})"
    found = result.findings[result.outcome]
    first = found[0]
    if result.outcome == "inconclusive":
        return _inconclusive_line(result, found, rerun)
    word = first.line.word if first.line.verdict is Verdict.SLOWER else result.outcome
    facts = [change_text(first.line)] if first.line.verdict is Verdict.SLOWER else []
    facts += [f"({one_line(first.line.reason)})"] if first.line.reason else []
    more = [f"and {len(found) - 1} more of {result.num_judged}"] if len(found) > 1 else []
    claim = " ".join([_where(first), *facts, *more])
    return f"{word}: {claim}; {_next_step(first, rerun)}".removesuffix("; ")


def _inconclusive_line(result: GateResult, found: tuple[Found, ...], rerun: Rerun | None) -> str:
    first = found[0]
    counted = {"pass": " (counts as passed)", "fail": " (counts as failed)", None: ""}[result.counts_as]
    reason = f" ({one_line(first.line.reason)})" if first.line.reason else ""
    claim = f"inconclusive{counted}: {_of_all(len(found), result)}, first {_where(first)}{reason}"
    return f"{claim}; {_deciding_step(found, rerun)}"


def _deciding_step(found: Sequence[Found], rerun: Rerun | None) -> str:
    """What would decide all of them."""
    quieter = "use a quieter machine or a larger --tolerance"
    if any(item.line.interval is not None and item.line.pairs_needed is None for item in found):
        return f"no number of pairs that is worth while would decide: {quieter}"
    hardest = max((item.line for item in found), key=lambda line: line.pairs_needed or 0)
    if not hardest.pairs_needed:
        return _command("rerun that point alone: ", found[0], rerun) or "measure on a quieter machine"
    is_saved = hardest.ground == "ratio_to_dense"
    step = f"about {format_count(hardest.pairs_needed)} pairs{' a side' if is_saved else ''} would decide"
    most = MAX_VALUES if is_saved else LOOKS[-1]
    if hardest.pairs_needed > most:
        return f"{step}, more than the {most} that count: {quieter}"
    return step + _command("; rerun that point alone: ", found[0], rerun)


def _of_all(count: int, result: GateResult) -> str:
    return f"{count} of {result.num_judged} comparison" + "s" * (result.num_judged != 1)


def _where(item: Found) -> str:
    at = f" at {place_text(item.line)}" if item.line.axes else ""
    return subject_text(item.line) + at


def _next_step(item: Found, rerun: Rerun | None) -> str:
    if item.line.verdict is Verdict.NOT_COMPARABLE:
        return "give both sides the same work" + _command(": ", item, rerun)
    if item.line.verdict is Verdict.FAILED:
        return "mend that" + _command(", then rerun that point alone: ", item, rerun)
    if item.line.ground == "exact":
        return "counted, so a rerun would say the same"
    return _command("rerun that point alone: ", item, rerun)


def _command(opening: str, item: Found, rerun: Rerun | None) -> str:
    prefix = rerun(item.sides) if rerun is not None else ""
    return opening + rerun_command(prefix, item.line.axes) if prefix else ""


def _others(result: GateResult) -> list[str]:
    """How many had another outcome than the first."""
    if not result.findings:
        return []
    counts = {outcome: len(found) for outcome, found in result.findings.items() if outcome != result.outcome}
    counts |= {verdict.value: result.counts.get(verdict, 0) for verdict in (Verdict.SAME, Verdict.FASTER)}
    texts = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    return [f"also: {', '.join(texts)}"] if texts else []


def _not_judged(result: GateResult) -> list[str]:
    """What the candidate did not measure must not pass in silence."""
    names = ", ".join(one_line(name) for name in result.only_base)
    return [f"not judged, for the candidate lacks it: {names}"] if names else []


def _noise(result: GateResult) -> list[str]:
    if not result.noisy_margins:
        return []
    margins = ", ".join(f"{share_text(margin)} of {metric}" for metric, margin in sorted(result.noisy_margins.items()))
    return [f"this machine is too noisy for {share_text(result.tolerance)}: the margin is {margins}"]
