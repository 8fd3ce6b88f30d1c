"""A gate's result as Markdown for a pull request: one comment that a bot can find by its first line and replace.

In: compared sides, the gate's result and its lines. Out: text that fits a comment, without times or dates. Whatever comes from
outside renders as itself: no markup, link, mention or reference.
"""

from collections.abc import Sequence
from typing import Any

from modbench.analysis.comparison import FAILED, SAME_OR_FASTER, SLOWER, ComparedSides, Comparison, Side
from modbench.analysis.gate import OUTCOMES, GateResult
from modbench.analysis.verdict import Verdict
from modbench.report.gate import MAX_LINE, cell_names, change_text, share_text, subject_text, value_text
from modbench.report.github_markdown import MARKER, MAX_BYTES, code, folded, table, text
from modbench.report.tables import NOTHING

MAX_SIDES_BYTES, MAX_DIFFERENCES_BYTES, MAX_DOUBTS_BYTES = 5_000, 10_000, 10_000
ORDER = (Verdict.FAILED, Verdict.SLOWER, Verdict.NOT_COMPARABLE, Verdict.INCONCLUSIVE, Verdict.UNDECIDED)
COLUMNS = ("", "What", "Where", "From", "To", "Change", "Why")
CODE_KEYS = ("git_sha", "git_is_dirty")  # what is compared, and named in the table of the sides
NUMERIC = ("From", "To", "Change")


def render_pull_request(
    compared: Sequence[ComparedSides], result: GateResult, lines: Sequence[str], command: str = ""
) -> str:
    """The comment.

    Args:
        compared: everything that was compared.
        result: what the gate says of it.
        lines: the same in words, as `gate_lines` gives it.
        command: what reproduces it.
    """
    listed = [line for sides in compared for line in sides.comparisons]
    names = cell_names(listed)
    changed = sorted((line for line in listed if line.verdict not in (Verdict.SAME, None)), key=_graveness)
    rest = [line for line in listed if line.verdict in (Verdict.SAME, None)]
    head = [MARKER, f"### {_symbol(result)} modbench: {result.outcome}"]
    head += [f"**{text(line, MAX_LINE)}**" for line in lines]
    head += [_differences(compared), _sides(compared)]
    tail = [_doubts(compared, names), _reproduction(command)]
    room = MAX_BYTES - len("\n\n".join([*head, *tail]).encode()) - 500  # what joins the parts
    first = table(COLUMNS, (_row(line, names) for line in changed), len(changed), room, NUMERIC)
    room -= len(first.encode())
    second = folded(
        f"{len(rest)} that are the same, or shown without a verdict",
        table(COLUMNS, (_row(line, names) for line in rest), len(rest), room, NUMERIC),
    )
    return "\n\n".join(part for part in [*head, first, second, *tail] if part) + "\n"


def _graveness(line: Comparison) -> tuple[int, float]:
    rank = ORDER.index(line.verdict) if line.verdict in ORDER else len(ORDER)
    return rank, -(line.ratio or 0.0)


def _row(line: Comparison, names: dict[str, str]) -> tuple[str, ...]:
    values = (value_text(line, line.base), value_text(line, line.candidate), change_text(line) or NOTHING)
    return (line.word, subject_text(line), names[line.cell_id], *values, line.reason)


def _symbol(result: GateResult) -> str:
    if result.outcome == OUTCOMES[SAME_OR_FASTER]:
        return "✅"
    return "❌" if result.exit_code in (SLOWER, FAILED) else "⚠️"


def _sides(compared: Sequence[ComparedSides]) -> str:
    rows = [
        (", ".join(sides.candidate.scenario_names), _side_text(sides.base), _side_text(sides.candidate), _margin(sides))
        for sides in compared
    ]
    return table(("Scenario", "Base", "Candidate", "Margin"), rows, len(rows), MAX_SIDES_BYTES)


def _side_text(side: Side) -> str:
    shas = ", ".join(sha.removesuffix("+dirty")[:12] + "+dirty" * sha.endswith("+dirty") for sha in side.git_shas)
    return side.label + (f" ({shas})" if shas else "")


def _margin(sides: ComparedSides) -> str:
    above = {metric: margin for metric, margin in sides.margins.items() if margin > sides.tolerance}
    noise = [f"{share_text(margin)} of {metric}, this machine's noise" for metric, margin in sorted(above.items())]
    return "; ".join([share_text(sides.tolerance), *noise])


def _differences(compared: Sequence[ComparedSides]) -> str:
    found = [item for sides in compared for item in sides.differences if item.key not in CODE_KEYS]
    rows = [(item.key, _fact(item.base), _fact(item.candidate)) for item in found]
    if not rows:
        return ""
    content = table(("Not the same on both sides", "Base", "Candidate"), rows, len(rows), MAX_DIFFERENCES_BYTES)
    return f"**The two sides differ in more than the code:**\n\n{content}"


def _fact(value: Any) -> str:
    return NOTHING if value is None else str(value)


def _doubts(compared: Sequence[ComparedSides], names: dict[str, str]) -> str:
    """Each doubt once, with the first comparison that has it."""
    places: dict[str, list[str]] = {}
    for sides in compared:
        for note in sides.footnotes:
            places.setdefault(note.text, []).extend(note.methods)
        for line in sides.comparisons:
            for doubt in line.doubts:
                places.setdefault(doubt, []).append(f"{subject_text(line)} at {names[line.cell_id]}")
    rows = [(doubt, _places_text(found)) for doubt, found in places.items()]
    content = table(("Doubt", "Of"), rows, len(rows), MAX_DOUBTS_BYTES)
    return folded(f"{len(rows)} doubts" if len(rows) > 1 else "1 doubt", content)


def _places_text(places: Sequence[str]) -> str:
    more = len(set(places)) - 1
    return "all" if not places else places[0] + (f" and {more} more" if more else "")


def _reproduction(command: str) -> str:
    content = code(command, MAX_LINE)
    return f"Reproduce with\n\n{content}" if content else ""
