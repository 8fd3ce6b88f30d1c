"""The scoreboard of a paper's claims: tables and sentences for every renderer, and console, Markdown and JSON. Formatting only.

In: `Scoreboard`s, each of one scenario without or with one run. Out: text, or plain data for JSON in base units. A measured number
stands under "Measured" and nowhere else; a row that nobody measured says "predicted", and is drawn in a style of its own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from modbench.analysis.rows import Footnote, Summary
from modbench.analysis.scoreboard import Score
from modbench.devices import Device
from modbench.report.console import print_list, print_table
from modbench.report.document import axes_label, footnote_text
from modbench.report.escaping import escape_markdown, one_line
from modbench.report.estimate import NOT_COUNTED
from modbench.report.markdown import section
from modbench.report.tables import NOTHING, Column, Group, Row, RowState, Table
from modbench.scenario import METRICS
from modbench.units import format_bytes, format_factor, format_percent, format_seconds

JSON_SCHEMA_VERSION = 1
TITLE = "Scoreboard: what is claimed, what is possible, what was measured"
COLUMNS = (
    Column("Point", is_numeric=False),
    Column("Ideal"),
    Column("Measured"),
    Column("Source", is_numeric=False),
    Column("Outcome", is_numeric=False),
)
LEGEND = (
    "Ideal: predicted at the scenario's keep ratio; the best that keeping so many tokens allows. Source: what the row rests on. "
    'A claim is "met" or "not met" by a measurement only, times by an interval that lies on one side of it; all else is open. '
    'A paper that says "up to" is not refuted at one point while another meets it.'
)


@dataclass(frozen=True)
class Scoreboard:
    """The scores of one scenario.

    `model` names it; `device` is what ideals are predicted for; `run` is the folder that was measured, with the `summary` of its
    records and the `overrides` it had; `footnotes` are the run's doubts about what is scored.
    """

    scenario: str
    question: str
    model: str
    num_parameters: int
    dtype: str
    device: Device
    scores: tuple[Score, ...]
    run: str | None = None
    summary: Summary | None = None
    overrides: tuple[str, ...] = ()
    footnotes: tuple[Footnote, ...] = ()


def render_scoreboards(boards: Sequence[Scoreboard], notes: Sequence[str], console: Console) -> None:
    """Print all of them. Nothing is read as markup; colours follow the console (`NO_COLOR`)."""
    console.print()
    console.print(Text(TITLE, style="bold"))
    for board in boards:
        console.print(Text(f"{one_line(board.scenario)}: {answer(board)}"))
    for board in boards:
        print_table(score_table(board), console)
        console.print()
        for line in (device_line(board), run_line(board)):
            console.print(Text(line))
        if doubts := doubt_lines(board):
            print_list("Doubts", [("-", text, "plain") for text in doubts], console)
    if notes:
        print_list("Left out", [("-", one_line(note), "plain") for note in notes], console)
    console.print()
    console.print(Text(f"{LEGEND} {NOT_COUNTED}", style="dim"))


def scoreboards_markdown(boards: Sequence[Scoreboard], notes: Sequence[str]) -> str:
    """The same as GitHub Markdown, everything from outside escaped."""
    parts = [f"# {escape_markdown(TITLE)}"]
    parts.append(_list(f"{board.scenario}: {answer(board)}" for board in boards))
    for board in boards:
        parts += [section(score_table(board)), escape_markdown(device_line(board), max_length=1000)]
        parts += [escape_markdown(run_line(board)), _list(doubt_lines(board))]
    parts += [f"## Left out\n\n{_list(notes)}"] if notes else []
    parts.append(escape_markdown(f"{LEGEND} {NOT_COUNTED}", max_length=2000))
    return "\n\n".join(part for part in parts if part) + "\n"


def scoreboards_json(boards: Sequence[Scoreboard], notes: Sequence[str]) -> dict[str, Any]:
    """The same as data: `ideal`, `predicted` and `measured` are different keys, null where there is none."""
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "boards": [_board_json(board) for board in boards],
        "left_out": list(notes),
        "not_counted": NOT_COUNTED,
    }


def score_table(board: Scoreboard) -> Table:
    """A group per claim as it is written, a row per point."""
    claims = dict.fromkeys(score.expectation.text for score in board.scores)
    groups = [
        Group(one_line(claim), tuple(_row(score) for score in board.scores if score.expectation.text == claim))
        for claim in claims
    ]
    weights = f"{board.num_parameters / 1e9:.3g} B weights"
    title = f"{one_line(board.scenario)}: {one_line(board.model)}, {weights}, {board.dtype}"
    return Table(title, COLUMNS, tuple(groups))


def answer(board: Scoreboard) -> str:
    """How the claims stand: `2 claims at 6 points: 2 met, 10 only predicted (the ideal meets 10)`."""
    num_claims = len({score.expectation.text for score in board.scores})
    num_points = len({axes_label(score.axes) for score in board.scores})
    outcomes = Counter(score.outcome for score in board.scores if score.source == "measured")
    parts = [f"{outcomes[word]} {word}" for word in ("met", "not met") if outcomes[word]]
    parts += [f"{outcomes['open']} measured and open"] if outcomes["open"] else []
    sources = Counter(score.source for score in board.scores)
    parts += [f"{sources['no number']} run without a number"] if sources["no number"] else []
    if predicted := [score for score in board.scores if score.source == "predicted"]:
        num_within = sum(score.expectation.is_met(score.ideal) for score in predicted if score.ideal is not None)
        parts.append(f"{len(predicted)} only predicted (the ideal meets {num_within})")
    parts += [f"{sources['not run']} not run"] if sources["not run"] else []
    size = f"{num_claims} claim{'s' * (num_claims != 1)} at {num_points} point{'s' * (num_points != 1)}"
    return f"{size}: {', '.join(parts)}." if parts else f"{size}."


def device_line(board: Scoreboard) -> str:
    """The device of the ideals, and which ceilings they are from."""
    device = board.device
    return (
        f"Ideal: predicted from {device.source} of {one_line(device.name)}, {device.copy_bytes_per_s / 1e9:,.4g} GB/s and "
        f"{device.matmul_flops_per_s / 1e12:,.4g} TFLOP/s."
    )


def run_line(board: Scoreboard) -> str:
    """What was measured, and with which overrides."""
    if board.run is None:
        return "Measured: nothing."
    changed = (
        f" with --set {', '.join(board.overrides)}, which left the scored work as it is" if board.overrides else ""
    )
    return one_line(f"Measured: {board.run}{changed}.")


def doubt_lines(board: Scoreboard) -> list[str]:
    """Why scores are open or have no number, each reason once with its points; then the run's own doubts."""
    reasons: dict[str, list[str]] = {}
    for score in board.scores:
        for reason in _reasons(board, score):
            reasons.setdefault(reason, []).append(axes_label(score.axes))
    lines = [f"{reason}: {', '.join(dict.fromkeys(labels))}" for reason, labels in reasons.items()]
    if board.summary is not None:
        said = {score.reason for score in board.scores}
        lines += [footnote_text(note, board.summary) for note in board.footnotes if note.text not in said]
    return lines


def _reasons(board: Scoreboard, score: Score) -> list[str]:
    name = f"{one_line(score.expectation.method)}.{score.expectation.metric}"
    found = [f"{name} ({score.outcome}): {one_line(score.reason)}"] if score.reason else []
    if score.source == "predicted" and score.missing_bytes:
        found.append(f"would not fit in the {format_bytes(board.device.memory_bytes)} of that device, by prediction")
    if score.ideal is not None and not score.expectation.is_met(score.ideal):
        found.append(f"{name}: the ideal misses the claim too")
    return found


def _row(score: Score) -> Row:
    metric = score.expectation.metric
    measured = NOTHING if score.measured is None else value_text(metric, score.measured)
    if score.interval is not None:
        measured += f" [{', '.join(value_text(metric, end).rstrip('×') for end in score.interval)}]"
    ideal = NOTHING if score.ideal is None else value_text(metric, score.ideal)
    return Row((axes_label(score.axes), ideal, measured, score.source, score.outcome), _state(score))


def _state(score: Score) -> RowState:
    if score.source == "predicted":
        return "predicted"
    if score.source == "no number":
        return "failed"
    states: dict[str, RowState] = {"met": "met", "not met": "missed"}
    return states.get(score.outcome, "plain")


def value_text(metric: str, value: float) -> str:
    """A metric's value in the unit that people read."""
    if metric.endswith(("_speedup", "_reduction", "_limit_ratio")):
        return format_factor(value)
    if metric.endswith(("_ratio", "_share_of_ideal", "_saving_realised")) or metric.startswith("keep_ratio"):
        return format_percent(value)
    formats = {"s": format_seconds, "bytes": format_bytes}
    return formats[unit](value) if (unit := METRICS[metric].unit) in formats else f"{value:.4g} {unit}"


def _list(texts: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(text, max_length=1000)}" for text in texts)


def _board_json(board: Scoreboard) -> dict[str, Any]:
    device = board.device
    return {
        "scenario": board.scenario,
        "question": board.question,
        "model": board.model,
        "num_parameters": board.num_parameters,
        "dtype": board.dtype,
        "ideal_from": {
            "device": device.name,
            "ceilings_source": device.source,
            "copy_bytes_per_s": device.copy_bytes_per_s,
            "matmul_flops_per_s": device.matmul_flops_per_s,
        },
        "run": board.run,
        "overrides": list(board.overrides),
        "scores": [_score_json(score) for score in board.scores],
        "doubts": doubt_lines(board),
    }


def _score_json(score: Score) -> dict[str, Any]:
    claim = score.expectation
    return {
        "claim": claim.text,
        "method": claim.method,
        "metric": claim.metric,
        "operator": claim.operator,
        "claimed": claim.value,
        "axes": dict(score.axes),
        "ideal": score.ideal,
        "predicted": score.predicted,
        "measured": score.measured,
        "interval": score.interval,
        "source": score.source,
        "outcome": score.outcome,
        "reason": score.reason,
        "missing_bytes": score.missing_bytes,
    }
