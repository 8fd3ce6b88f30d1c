"""The answer in a sentence with numbers, and the verdict, written from the summary: what a method keeps, needs and gains.

In: a `Summary`. Out: texts of one line, not yet escaped for a format. The first sentence is the one that people quote, so it
carries what makes its numbers doubtful: how the routers came to their keep ratio, and what is beyond the prediction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from modbench.analysis.doubts import ABOVE_IDEAL
from modbench.analysis.prediction import SAVES
from modbench.analysis.quality import QUALITY_DOUBT
from modbench.analysis.rows import CellSummary, MethodRow, Summary, failure_text
from modbench.analysis.statistics import MIN_PAIRS
from modbench.report.document import cell_label, cell_labels
from modbench.report.doubts import doubts_about
from modbench.report.escaping import one_line
from modbench.report.legend import margin_text
from modbench.report.limits import limit_answers
from modbench.report.tables import NOTHING, RowState, verdict_text
from modbench.scenario import BASELINE
from modbench.units import format_factor, format_percent

SPOKEN_OF_FIRST = ("threshold", "topk")  # kinds; the controls come last, and never stand in the figures
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven")
PHASES = ("prefill", "decode")
NO_VERDICT_END = ": no verdict"
MAX_DOUBTS = 2  # in a sentence


@dataclass(frozen=True)
class Figure:
    """One number of the opening: what it is, its text, and a remark."""

    name: str
    text: str
    remark: str = ""


@dataclass(frozen=True)
class OpeningVerdict:
    """What may be said of the main method at the headline cell: `text` is one line, `state` how it is drawn."""

    text: str
    state: RowState


def headline_cell(summary: Summary) -> CellSummary | None:
    """The cell the answer speaks of: the longest context at which the main method was compared, else of all cells."""
    first = min((_rank(row) for cell in summary.cells for row in _compared(cell)), default=None)
    compared = [cell for cell in summary.cells if first in [_rank(row) for row in _compared(cell)]]
    return max(compared or summary.cells, key=_context, default=None)


def main_row(summary: Summary) -> MethodRow | None:
    """The row of the figures: the main method at the headline cell, never a control; None where it cannot be compared."""
    cell = headline_cell(summary)
    rows = [row for row in _compared(cell) if not _is_control(row)] if cell else []
    return min(rows, key=_rank, default=None)


def answers(summary: Summary) -> list[str]:
    """The main method at the headline cell in a sentence, a shorter one for each other method, where the baseline failed or is
    wrong, and the limits that were searched for."""
    cell = headline_cell(summary)
    if cell is None:
        return limit_answers(summary) or ["Nothing was measured."]
    others = sorted((row for row in cell.rows if not row.is_baseline), key=_rank)
    if not others:
        sentences = [f"At {cell_label(cell)}, only the baseline was measured: there is nothing to compare."]
    else:
        main, *rest = others
        sentences = [_main_sentence(summary, cell, main), *(_short_sentence(summary, cell, row, main) for row in rest)]
    lost = _losses(summary, BASELINE, None, BASELINE)
    return sentences + [f"{text}." for text in lost] + limit_answers(summary)


def figures(summary: Summary) -> list[Figure]:
    """The numbers of the main method that can be compared, for the opening; [] if there is none."""
    row = main_row(summary)
    if row is None:
        return []
    is_less = (row.values["kv_cache_reduction"] or 0.0) > 1
    found = [
        ("prefill", "prefill_speedup", format_factor, _share_text(row, "prefill")),
        ("decode", "decode_speedup", format_factor, _share_text(row, "decode")),
        ("less KV cache" if is_less else "KV reduction", "kv_cache_reduction", format_factor, ""),
        ("tokens kept", "keep_ratio_prefill", format_percent, f"at routed layers{_router_text(row)}"),
    ]
    values = [(name, row.values[metric], text, remark) for name, metric, text, remark in found]
    return [Figure(name, text(value), remark) for name, value, text, remark in values if value is not None]


def figures_title(summary: Summary) -> str:
    """What the figures are about: `threshold against dense, context 4,096; no verdict: two pairs of launches, 8 are needed`."""
    cell, row = headline_cell(summary), main_row(summary)
    if cell is None or row is None:
        return ""
    return f"{one_line(row.method)} against dense, {cell_label(cell)}; {_uncapitalised(_verdict(summary, row).text)}"


def opening_verdict(summary: Summary) -> OpeningVerdict | None:
    """The verdict of the figures with what it rests on, or why there is none; None where nothing was compared."""
    row, cell = main_row(summary), headline_cell(summary)
    if row is None or cell is None:
        return None
    is_spoken_of = row is min((other for other in cell.rows if not other.is_baseline), key=_rank)
    found = _verdict(summary, row)
    return found if is_spoken_of else replace(found, text=f"{one_line(row.method)}: {_uncapitalised(found.text)}")


def _compared(cell: CellSummary) -> list[MethodRow]:
    return [row for row in cell.rows if row.speedups and not row.is_wrong]


def _is_control(row: MethodRow) -> bool:
    return row.kind in SAVES


def _rank(row: MethodRow) -> int:
    """The place of a row's kind in sentences and figures."""
    if row.kind in SPOKEN_OF_FIRST:
        return SPOKEN_OF_FIRST.index(row.kind)
    return len(SPOKEN_OF_FIRST) + _is_control(row)


def _context(cell: CellSummary) -> int:
    context = cell.workload.get("context")
    return context if isinstance(context, int) else 0


def _verdict(summary: Summary, row: MethodRow) -> OpeningVerdict:
    num_pairs = max((speedup.num_pairs for speedup in row.speedups.values()), default=0)
    if row.no_verdict:
        count = NUMBER_WORDS[num_pairs] if num_pairs < len(NUMBER_WORDS) else str(num_pairs)
        pairs = f"{count} pair{'s' * (num_pairs != 1)} of launches, {MIN_PAIRS} are needed"
        reason = pairs if num_pairs < MIN_PAIRS else row.no_verdict.removesuffix(NO_VERDICT_END)
        return OpeningVerdict(f"No verdict: {reason}", "plain")
    words = {phase: verdict_text(row, f"{phase}_speedup") for phase in PHASES}
    state: RowState = "missed" if "slower" in words.values() else "met" if "faster" in words.values() else "plain"
    judged = max((item.judgement.num_pairs for item in row.speedups.values() if item.judgement), default=num_pairs)
    basis = f"{judged} pairs of launches, margin {margin_text(summary.tolerance, summary.margins)}"
    return OpeningVerdict(f"{_verdicts(words)}: {basis}", state)


def _uncapitalised(text: str) -> str:
    return text[0].lower() + text[1:]


def _verdicts(words: Mapping[str, str]) -> str:
    """`Faster at prefill and decode`, `Faster at prefill, undecided at decode`."""
    known = {phase: "undecided" if word == "open" else word for phase, word in words.items() if word != NOTHING}
    if not known:
        return "No verdict"
    if len(set(known.values())) == 1:
        text = f"{next(iter(known.values()))} at {' and '.join(known)}"
    else:
        text = ", ".join(f"{word} at {phase}" for phase, word in known.items())
    return text[0].upper() + text[1:]


def _main_sentence(summary: Summary, cell: CellSummary, row: MethodRow) -> str:
    """What the method needs and gains, how much of the possible saving that is, and what makes it doubtful."""
    start = f"At {cell_label(cell)}, {one_line(row.method)}"
    losses = "".join(f" {text[0].upper()}{text[1:]}." for text in _all_losses(summary, cell, row, "it"))
    stopped = _without_numbers(row)
    if stopped:
        return f"{start} {stopped}.{losses}"
    keep = row.values["keep_ratio_prefill"]
    routing = [f"{format_percent(keep)} of tokens kept at routed layers"] if keep is not None else []
    routing += [row.router] if row.router else []
    start += f" ({', '.join(routing)})" if routing else ""
    gains = _gains(row)
    if not gains:
        return f"{start} was measured, and has no baseline to compare with.{losses}"
    doubts = doubts_about(summary, (row.method, BASELINE), cell.cell_id)
    clauses = [f"{start} {gains}", _saving_text(row), _quality_text(summary, row), _doubtful_text(doubts)]
    return "; ".join(clause for clause in clauses if clause) + f".{losses}"


def _short_sentence(summary: Summary, cell: CellSummary, row: MethodRow, main: MethodRow) -> str:
    """Another method at the same cell, without what it shares with the main one."""
    name = one_line(row.method) + (f" ({row.router})" if row.router and row.router != main.router else "")
    losses = "".join(f"; {text}" for text in _all_losses(summary, cell, row, "it"))
    stopped = _without_numbers(row)
    if stopped:
        return f"{name} {stopped}{losses}."
    numbers = [text for text in (_needs_text(row), *_speeds(row, "as fast")) if text]
    told = [] if _without_numbers(main) else doubts_about(summary, (main.method, BASELINE), cell.cell_id)
    doubts = [text for text in doubts_about(summary, (row.method,), cell.cell_id) if text not in told]
    more = "".join(f"; {text}" for text in (_above_text(row, "the ideal"), _doubtful_text(doubts)) if text)
    return f"{name}: {', '.join(numbers) or 'no baseline to compare with'}{more}{losses}."


def _doubtful_text(doubts: Sequence[str]) -> str:
    """`doubtful: contaminated`; nothing without a doubt."""
    more = " and more" if len(doubts) > MAX_DOUBTS else ""
    return f"doubtful: {', '.join(doubts[:MAX_DOUBTS])}{more}" if doubts else ""


def _without_numbers(row: MethodRow) -> str:
    """Why a row has no numbers that count; nothing where it has."""
    if row.has_failed:
        counts = ", ".join(f"{status} in {count}" for status, count in row.status_counts.items())
        return f"gave no numbers: {counts} of {sum(row.status_counts.values())} launches"
    if row.is_wrong:
        reasons = ", ".join(one_line(failure_text(name)) for name in row.failed_identities)
        return f"is wrong ({reasons}), its speed counts for nothing"
    return ""


def _all_losses(summary: Summary, cell: CellSummary, row: MethodRow, subject: str) -> list[str]:
    """Launches that failed at this cell, and where else the method failed or is wrong."""
    num_launches = sum(row.status_counts.values())
    is_partial = not row.has_failed and row.num_launches < num_launches
    here = [f"{num_launches - row.num_launches} of {num_launches} launches failed"] if is_partial else []
    return here + _losses(summary, row.method, cell, subject)


def _losses(summary: Summary, method: str, told: CellSummary | None, subject: str) -> list[str]:
    """Where the method failed or is wrong, at all cells but the one that is `told` of already."""
    rows = [(cell, row) for cell in summary.cells if cell is not told for row in cell.rows if row.method == method]
    lost = [cell.cell_id for cell, row in rows if row.has_failed]
    wrong = [cell.cell_id for cell, row in rows if row.is_wrong and not row.has_failed]
    launches = [(row.num_launches, sum(row.status_counts.values())) for _, row in rows if not row.has_failed]
    num_failed = sum(total - ok for ok, total in launches)
    elsewhere = " at other points" if told else f" of {subject}"
    texts = [f"{subject} gave no numbers at {cell_labels(summary, lost)}"] if lost else []
    texts += [f"{subject} is wrong at {cell_labels(summary, wrong)}"] if wrong else []
    total = sum(total for _, total in launches)
    return texts + ([f"{num_failed} of {total} launches{elsewhere} failed"] if num_failed else [])


def _gains(row: MethodRow) -> str:
    """`needs 0.55× the KV cache of dense and is 1.91× as fast at prefill, 2.61× at decode`."""
    needs = _needs_text(row)
    speeds = _speeds(row, "as fast" if needs else "as fast as dense")
    return " and ".join(part for part in (needs and f"needs {needs}", speeds and f"is {', '.join(speeds)}") if part)


def _needs_text(row: MethodRow) -> str:
    """The method's KV cache beside the baseline's: `0.55× the KV cache of dense`; nothing where it is unknown."""
    reduction = row.values["kv_cache_reduction"]
    return f"{1 / reduction:.2f}× the KV cache of dense" if reduction else ""


def _speeds(row: MethodRow, words: str) -> list[str]:
    """`1.91× as fast at prefill`, `2.61× at decode`: those that are known, the words with the first of them."""
    known = {phase: value for phase in PHASES if (value := row.values[f"{phase}_speedup"]) is not None}
    starts = [f"{words} ", *[""] * len(known)]
    return [f"{format_factor(known[phase])} {start}at {phase}" for phase, start in zip(known, starts, strict=False)]


def _saving_text(row: MethodRow) -> str:
    """`98 % of the possible time saving was realised at prefill, 74 % at decode`; beyond the ideal no share is claimed."""
    shares = {phase: share for phase in PHASES if (share := _realised(row, phase))}
    starts = [" of the possible time saving was realised", *[""] * len(shares)]
    texts = [f"{shares[phase]}{start} at {phase}" for phase, start in zip(shares, starts, strict=False)]
    above = _above_text(row, "the ideal (see doubts)")
    return ", ".join([*texts, above] if above else texts)


def _quality_text(summary: Summary, row: MethodRow) -> str:
    """`held-out bits per byte are 1.015× those of dense`; nothing where unknown, or where the quality of either is doubtful."""
    ratio = row.values["bits_per_byte_ratio"]
    about = [note for note in summary.footnotes if {row.method, BASELINE} & set(note.methods)]
    if ratio is None or any(note.text.startswith(QUALITY_DOUBT) for note in about):
        return ""
    return f"held-out bits per byte are {ratio:.3f}× those of dense"


def _above_text(row: MethodRow, ideal: str) -> str:
    """`prefill and decode are above the ideal`; nothing where neither is."""
    above = [phase for phase in PHASES if _is_above_ideal(row, phase)]
    return f"{' and '.join(above)} {'are' if len(above) > 1 else 'is'} above {ideal}" if above else ""


def _realised(row: MethodRow, phase: str) -> str:
    """The share of the saving in words; nothing where it is unknown or beyond the prediction."""
    saving = row.values[f"{phase}_saving_realised"]
    if saving is None or _is_above_ideal(row, phase):
        return ""
    return "none" if saving <= 0 else "all" if saving > 1 else format_percent(saving)


def _is_above_ideal(row: MethodRow, phase: str) -> bool:
    share = row.values[f"{phase}_share_of_ideal"]
    return share is not None and share > ABOVE_IDEAL


def _router_text(row: MethodRow) -> str:
    return f" ({row.router})" if row.router else ""


def _share_text(row: MethodRow, phase: str) -> str:
    share = row.values[f"{phase}_share_of_ideal"]
    if _is_above_ideal(row, phase):
        return "above its ideal: see doubts"
    return "" if share is None else f"{format_percent(share)} of the ideal speed-up"
