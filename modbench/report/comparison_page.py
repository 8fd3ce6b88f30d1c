"""A comparison of a base with other runs as one self-contained HTML page: no network, everything escaped, complete without scripts.

In: the sides as they were loaded, and what was compared. Out: the page as text, or written to a file. Per candidate: who the two
are, what differed, the numbers, notes and doubts, and the verdict.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modbench.analysis import summarise
from modbench.analysis.compare import SideRecords
from modbench.analysis.comparison import ComparedSides, Ground
from modbench.errors import OutputError
from modbench.output_files import write_files
from modbench.report.answer import answers
from modbench.report.comparison import LEGEND, REFUSED, TITLES, comparison_view, count_words
from modbench.report.comparison_facts import difference_groups, short_labels, side_facts
from modbench.report.comparison_opening import badge, has_one_machine, opening_sentences, overview_sentence
from modbench.report.comparison_plots import draw_changes, draw_times
from modbench.report.comparison_rows import time_rows
from modbench.report.escaping import one_line
from modbench.report.html import inline_svg, render_page
from modbench.report.own_numbers import own_numbers_table, own_times
from modbench.report.plots import Plot
from modbench.report.swatches import swatches
from modbench.report.tables import Table

ROLES = ("Base", "Candidate")
GROUNDS: dict[Ground, str] = {
    "pairs": "Launches of both sides alternated in one job: the change is the median ratio of their pairs.",
    "ratio_to_dense": "A method's time divided by the time of dense in the same run, so that what slowed both cancels out.",
    "exact": "These are counted and do not vary, so that any difference is real.",
    "advisory": "Two runs at two times differ by more than their code, so absolute times alone get no verdict: the load, the "
    "clocks and the machine would be judged as well. modbench check --against measures two revisions side by side.",
}
EXPLANATIONS = {TITLES[ground]: text for ground, text in GROUNDS.items()}
NO_SHARED_NUMBERS = (
    "The two runs have no numbers that can be compared, so each answers for itself, against the dense model of its own run. "
    "Numbers in one row may be of different work: what differed stands above."
)
OTHER_MACHINES = (
    "Absolute times have no verdict where the machines are not known to be one: they would judge the machine. "
    "Each run answers for itself, against the dense model of its own run."
)


@dataclass(frozen=True)
class _Chapter:
    """One candidate against the base; `id` begins all ids of the chapter, `labels` are short."""

    id: str
    sides: tuple[SideRecords, SideRecords]
    compared: ComparedSides
    labels: tuple[str, str]
    is_alone: bool

    def named(self, table: Table) -> Table:
        """With a title that no other chapter has."""
        return table if self.is_alone else replace(table, title=f"{table.title}: {self.labels[1]}")


def render_comparison_page(
    base: SideRecords,
    candidates: Sequence[SideRecords],
    compared: Sequence[ComparedSides],
    noted_starts: Mapping[str, str | None] | None = None,
) -> str:
    """The page as text.

    Args:
        base, candidates: the sides in the order of `compared`.
        compared: every candidate against the base.
        noted_starts: when a side's run began, by its label, for records that do not say.
    """
    labels = short_labels([base.label, *(candidate.label for candidate in candidates)])
    starts = noted_starts or {}
    chapters = [
        _chapter_content(
            _Chapter(f"c{number}", (base, candidate), found, (labels[0], labels[number]), len(candidates) == 1), starts
        )
        for number, (candidate, found) in enumerate(zip(candidates, compared, strict=True), 1)
    ]
    words = list(dict.fromkeys(word for found in compared for word in count_words(found)))
    several = f"{len(chapters)} runs compared with {labels[0]}"
    content: dict[str, Any] = {
        "title": several if len(chapters) > 1 else chapters[0]["title"],
        "overview": overview_sentence(compared),
        "swatches": swatches(one_line(line.method) for found in compared for line in found.comparisons),
        "chapters": chapters,
        "words": words,
        "counts": [[count_words(found).get(word, 0) for word in words] for found in compared],
        "command": one_line(shlex.join(["modbench", "report", *(side.label for side in (base, *candidates))]), 2000),
    }
    drawn = [plot for chapter in chapters for plot in (*chapter["plots"], *(chapter["own"] or {"plots": ()})["plots"])]
    return render_page("comparison.html.j2", content, {plot["name"]: plot["spec"] for plot in drawn if plot["spec"]})


def write_comparison_page(
    path: Path,
    base: SideRecords,
    candidates: Sequence[SideRecords],
    compared: Sequence[ComparedSides],
    noted_starts: Mapping[str, str | None] | None = None,
) -> None:
    """Write the page.

    Raises:
        OutputError: it cannot be written.
    """
    page = render_comparison_page(base, candidates, compared, noted_starts)
    try:
        write_files(path.parent, {path.name: page.encode()})
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; name another file with --output") from error


def _chapter_content(chapter: _Chapter, starts: Mapping[str, str | None]) -> dict[str, Any]:
    compared, labels = chapter.compared, chapter.labels
    view = comparison_view(compared)
    tables = [(chapter.named(table), EXPLANATIONS.get(table.title, "")) for table in view.tables]
    plots = [
        *draw_changes(compared, f"{chapter.id}-changes"),
        *draw_times(time_rows(compared), f"{chapter.id}-times"),
    ]
    return {
        "id": chapter.id,
        "title": f"{labels[1]} compared with {labels[0]}",
        "name": labels[1],
        "badge": badge(compared),
        "opening": opening_sentences(compared),
        "sides": [
            {"role": role, "name": label, "facts": side_facts(side, starts.get(side.label))}
            for role, label, side in zip(ROLES, labels, chapter.sides, strict=True)
        ],
        "differences": difference_groups(compared.differences),
        "plots": _figures(plots),
        "tables": tables,
        "legend": LEGEND if any(why for _, why in tables) else "",
        "unchanged": view.unchanged,
        "own": _own_numbers(chapter),
        "notes": view.notes,
        "doubts": view.doubts,
        "verdict": view.verdict,
    }


def _own_numbers(chapter: _Chapter) -> dict[str, Any] | None:
    """The runs' own answers and numbers beside each other; None where what was compared says it all."""
    has_shared = any(line.verdict not in REFUSED for line in chapter.compared.comparisons)
    if has_shared and has_one_machine(chapter.compared):
        return None
    summaries = [summarise(side.records, tolerance=chapter.compared.tolerance) for side in chapter.sides]
    plots = draw_times(own_times(*summaries), f"{chapter.id}-own-times", is_one_work=has_shared)
    own_answers = [answers(summary) for summary in summaries]
    return {
        "why": OTHER_MACHINES if has_shared else NO_SHARED_NUMBERS,
        "answers": list(zip(ROLES, chapter.labels, own_answers, strict=True)),
        "plots": _figures(plots),
        "table": chapter.named(own_numbers_table(*summaries)),
    }


def _figures(plots: Sequence[Plot]) -> list[dict[str, Any]]:
    return [
        {"name": plot.name, "caption": plot.caption, "svg": inline_svg(plot), "spec": plot.spec or {}} for plot in plots
    ]
