"""Which doubts a short text has to name, and how it says them in few words. In: a `Summary`. Out: texts; the rest is counted.

Routine doubts come with nearly every run, and stand elsewhere in a short text already: how the routers came to their keep ratio,
an identity that a method declares away, too few pairs, comparisons that are open. That none was checked is not among them.
"""

import re

from modbench.analysis.quality import QUALITY_DOUBT
from modbench.analysis.rows import Footnote, Summary
from modbench.report.escaping import one_line

ROUTINE = re.compile(
    r"calibrated (random )?router$|declared: identity |no verdict below |fewer than \d+ samples per launch|percentiles of "
    r"|\w+_speedup is (undecided|inconclusive): "
)
TOLD_IN_PLACE = re.compile(
    rf"wrong: |{QUALITY_DOUBT}|\w+_speedup is above its ideal"
)  # by whoever names the number itself
DECLARED = "declared: "
MAX_BRIEF = 60  # letters


def weighty_doubts(summary: Summary) -> list[Footnote]:
    """Those that are not routine, in the order of the summary."""
    return [note for note in summary.footnotes if not ROUTINE.match(note.text)]


def doubts_about(summary: Summary, methods: tuple[str, ...], cell_id: str) -> list[str]:
    """What else makes the numbers of these methods at this cell doubtful, in a few words each: `contaminated`."""
    notes = [note for note in weighty_doubts(summary) if not TOLD_IN_PLACE.match(note.text)]
    about = [note for note in notes if not note.methods or set(methods) & set(note.methods)]
    here = [note for note in about if not note.cell_ids or cell_id in note.cell_ids]
    return list(dict.fromkeys(_brief(note.text.removeprefix(DECLARED).split(": ")[0]) for note in here))


def brief_doubt(note: Footnote, summary: Summary) -> str:
    """The doubt without its explanation, whom it concerns, and at how many of the points if not at all.

    One about the whole run is told in full.
    """
    if not note.methods:
        return one_line(note.text)
    methods = ", ".join(one_line(method) for method in note.methods)
    cells = f"; {len(note.cell_ids)}/{len(summary.all_cells)} points" if note.cell_ids else ""
    return f"{_brief(note.text)} ({methods}{cells})"


def _brief(text: str) -> str:
    """A text of one line, whole if it is short; else up to its first clause, or as many words as there is room for."""
    text = one_line(text)
    if len(text) <= MAX_BRIEF:
        return text
    for end in ("; ", ": "):
        clause = text.partition(end)[0]
        if len(clause) <= MAX_BRIEF:
            return clause
    return text[: MAX_BRIEF - 1].rsplit(" ", 1)[0] + " …"
