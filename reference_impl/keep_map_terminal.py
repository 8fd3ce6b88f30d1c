"""A keep map in the terminal: the text coloured by the number of layers, and a strip per routed layer.

In: a `KeepMap` and a console. Out: printed lines within its width. Without colour, marks below the text say the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from reference_impl.keep_map import NUM_LEVELS, KeepMap
from reference_impl.visible_text import SIGNS, visible

# From light to dark blue, each at least 4.5:1 with its text; what is kept nowhere has the terminal's own colours.
STYLES = ("dim", "#10243a on #d6e6f4", "#10243a on #9cc6e4", "#ffffff on #2f6fae", "#ffffff on #0b3c6f")
MARKS = "·░▒▓█"
KEPT, SKIPPED = NUM_LEVELS, 0


class Glyph(NamedTuple):
    """One visible character of a token."""

    text: str
    token: int


def print_keep_map(keep_map: KeepMap, console: Console, layers: Sequence[int] = ()) -> None:
    """The whole view; `layers` are shown as texts of their own, what they skip hidden or dimmed."""
    rows = lay_out(keep_map.texts, console.width)
    has_colour = console.color_system is not None and not console.no_color
    levels = [keep_map.level(num_kept) for num_kept in keep_map.num_kept_layers]
    _print_text(rows, levels, console, has_colour, is_marked=True)
    _print_line(console)
    _print_line(console, _legend(keep_map, has_colour))
    for layer in layers:
        levels = [KEPT if is_kept else SKIPPED for is_kept in keep_map.keep[layer]]
        skipped = "dimmed" if has_colour else MARKS[SKIPPED]
        _print_line(console)
        _print_line(console, f"Layer {layer} keeps {keep_map.keep_ratio(layer):.1%}; skipped tokens are {skipped}:")
        _print_text(rows, levels, console, has_colour, is_marked=False)
    _print_line(console)
    _print_strips(keep_map, console)


def lay_out(texts: Sequence[str], width: int) -> list[list[Glyph]]:
    """Tokens as rows of glyphs that fit the width; a line of the text ends a row."""
    rows: list[list[Glyph]] = [[]]
    used = 0
    for token, text in enumerate(texts):
        for char in visible(text):
            if used + cell_len(char) > width:
                rows.append([])
                used = 0
            rows[-1].append(Glyph(char, token))
            used += cell_len(char)
            if char == SIGNS["\n"]:
                rows.append([])
                used = 0
    return rows if rows[-1] else rows[:-1]


def _print_text(
    rows: Sequence[Sequence[Glyph]],
    levels: Sequence[int],
    console: Console,
    has_colour: bool,
    is_marked: bool,
) -> None:
    """Coloured rows; or plain ones, with marks below them or, unmarked, in the place of what is skipped."""
    for row in rows:
        line, marks = Text(), Text()
        for glyph in row:
            level = levels[glyph.token]
            mark = MARKS[level] * cell_len(glyph.text)
            is_hidden = not has_colour and not is_marked and level == SKIPPED
            line.append(mark if is_hidden else glyph.text, STYLES[level] if has_colour else "")
            marks.append(mark)
        _print_line(console, line)
        if is_marked and not has_colour:
            _print_line(console, marks)


def _legend(keep_map: KeepMap, has_colour: bool) -> Text:
    legend = Text("kept at ")
    for level, numbers in keep_map.level_texts().items():
        if has_colour:
            legend.append(f" {numbers} ", STYLES[level]).append(" ")
        else:
            legend.append(f"{MARKS[level]} {numbers}  ")
    return legend.append(f"of {len(keep_map.keep)} routed layers")


def _print_strips(keep_map: KeepMap, console: Console) -> None:
    """One row per routed layer; where the text is longer than the row, a cell stands for several tokens."""
    labels = {layer: f"layer {layer:>3} {keep_map.keep_ratio(layer):>6.1%}  " for layer in keep_map.keep}
    room = max(8, console.width - max(map(len, labels.values())))
    tokens_per_cell = -(-keep_map.num_tokens // room)
    cell = "1 token" if tokens_per_cell == 1 else f"{tokens_per_cell} tokens"
    _print_line(console, f"Share of the text that each routed layer keeps, and where; a cell is {cell}:")
    for layer, keep in keep_map.keep.items():
        cells = [keep[start : start + tokens_per_cell] for start in range(0, len(keep), tokens_per_cell)]
        strip = "".join(MARKS[-(-NUM_LEVELS * sum(part) // len(part))] for part in cells)
        _print_line(console, labels[layer] + strip)


def _print_line(console: Console, line: str | Text = "") -> None:
    console.print(line if isinstance(line, Text) else Text(line))
