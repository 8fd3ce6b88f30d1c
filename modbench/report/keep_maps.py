"""Keep maps as plain view data for the page: tokens with a step of a colour scale, a strip per routed layer. Pure.

In: a `Document`. Out: a `KeepMapSection`; without views and failures if nothing was mapped.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modbench.keep_map_record import KEPT, KeepMapRecord
from modbench.record import CHECKPOINT_ROUTER
from modbench.report.document import Document, cell_label
from modbench.report.escaping import one_line
from modbench.units import format_count, format_percent

NUM_LEVELS = 4  # steps above "kept nowhere": more are not told apart at a glance
MAX_PIECE = 60  # characters of one token
LINE_END = "⏎"
SIGNS = {"\n": LINE_END, "\t": "⇥", " ": "␣", "\x7f": "␡"}
NO_TEXT = "‥"  # of a token that shares its character with another one


@dataclass(frozen=True)
class TokenView:
    """One token: what is shown, its step of the scale (0 is kept nowhere), and where it is kept, in words."""

    text: str
    level: int
    where: str
    ends_line: bool


@dataclass(frozen=True)
class LayerView:
    """One routed layer: its share of kept tokens, and an SVG path of unit squares, `num_tokens` wide."""

    name: str
    kept: str
    label: str
    path: str


@dataclass(frozen=True)
class KeepMapView:
    """One method's map; `legend` is (step, numbers of layers)."""

    title: str
    sentences: tuple[str, ...]
    is_text: bool
    num_tokens: int
    tokens: tuple[TokenView, ...]
    legend: tuple[tuple[int, str], ...]
    num_routed: int
    layers: tuple[LayerView, ...]


@dataclass(frozen=True)
class KeepMapSection:
    """What the page says about kept tokens."""

    views: tuple[KeepMapView, ...] = ()
    failures: tuple[str, ...] = ()


def keep_map_section(document: Document) -> KeepMapSection:
    """A view per mapped method, and a line for each that could not be."""
    rows = document.keep_maps
    return KeepMapSection(
        views=tuple(_view(row, document) for row in rows if row.error is None and row.keep and row.token_ids),
        failures=tuple(
            f"Not mapped: {_where(row, document)}: {one_line(row.error)}" for row in rows if row.error is not None
        ),
    )


def level_of(num_kept: int, num_routed: int) -> int:
    """A step of the scale: 0 where a token is kept nowhere, else 1 to `NUM_LEVELS` by the share of routed layers."""
    return -(-NUM_LEVELS * num_kept // num_routed)


def visible(text: str) -> str:
    """The piece with a sign in the place of everything that cannot be seen or would change the page's order."""
    shown = "".join(_visible_char(char) for char in text) or NO_TEXT
    return shown if len(shown) <= MAX_PIECE else shown[: MAX_PIECE - 1] + "…"


def kept_path(decisions: str) -> str:
    """One rectangle per run of kept tokens."""
    return "".join(f"M{start} 0h{length}v1h-{length}z" for start, length in _runs(decisions))


def _view(row: KeepMapRecord, document: Document) -> KeepMapView:
    num_routed, num_tokens = len(row.keep), len(row.token_ids)
    kept_layers = [[layer for layer, kept in row.keep.items() if kept[index] == KEPT] for index in range(num_tokens)]
    texts = [str(token) for token in row.token_ids] if row.texts is None else row.texts
    return KeepMapView(
        title=_where(row, document),
        sentences=_sentences(row, [len(layers) for layers in kept_layers]),
        is_text=row.texts is not None,
        num_tokens=num_tokens,
        tokens=tuple(_token(text, layers, num_routed) for text, layers in zip(texts, kept_layers, strict=True)),
        legend=_legend(num_routed),
        num_routed=num_routed,
        layers=tuple(_layer(layer, kept) for layer, kept in row.keep.items()),
    )


def _token(text: str, layers: Sequence[int], num_routed: int) -> TokenView:
    names = f": {', '.join(map(str, layers))}" if layers else ""
    where = f"kept at {len(layers)} of {num_routed} routed layers{names}"
    return TokenView(visible(text), level_of(len(layers), num_routed), where, text.endswith("\n"))


def _layer(layer: int, decisions: str) -> LayerView:
    num_kept = decisions.count(KEPT)
    label = f"layer {layer} keeps {num_kept} of {len(decisions)} tokens"
    return LayerView(f"layer {layer}", format_percent(num_kept / len(decisions)), label, kept_path(decisions))


def _sentences(row: KeepMapRecord, num_kept: Sequence[int]) -> tuple[str, ...]:
    """How many tokens are kept at how many layers, and what decided so."""
    num_routed, num_tokens = len(row.keep), len(row.token_ids)
    where = "the only routed layer" if num_routed == 1 else f"all {num_routed} routed layers"
    counts = (
        f"Of the first {num_tokens} of {format_count(row.context)} prompt tokens, {num_kept.count(num_routed)} are kept at {where} "
        f"and {num_kept.count(0)} at none; a token is kept at {sum(num_kept) / num_tokens:.1f} of {num_routed} on average."
    )
    return counts, _router_sentence(row.router)


def _router_sentence(router: str | None) -> str:
    if router is None:
        return "No router was calibrated for this run."
    if router == CHECKPOINT_ROUTER:
        return f"By the {router}: nothing was set for this run."
    return f"By a {one_line(router)}: how many tokens it keeps was set for this run; which ones, its untrained weights decide."


def _legend(num_routed: int) -> tuple[tuple[int, str], ...]:
    """The steps that can occur, each with its numbers of layers."""
    counts: dict[int, list[int]] = {}
    for num_kept in range(num_routed + 1):
        counts.setdefault(level_of(num_kept, num_routed), []).append(num_kept)
    return tuple(
        (level, str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}") for level, found in counts.items()
    )


def _runs(decisions: str) -> Iterator[tuple[int, int]]:
    """(start, length) of each run of kept tokens."""
    start = decisions.find(KEPT)
    while start >= 0:
        length = len(decisions[start:]) - len(decisions[start:].lstrip(KEPT))
        yield start, length
        start = decisions.find(KEPT, start + length)


def _where(row: KeepMapRecord, document: Document) -> str:
    labels = [cell_label(cell) for cell in document.summary.all_cells if cell.cell_id == row.cell_id]
    return one_line(" at ".join([row.method, *labels[:1]]))


def _visible_char(char: str) -> str:
    if char in SIGNS:
        return SIGNS[char]
    if char < " ":
        return chr(0x2400 + ord(char))  # Unicode's pictures of control characters
    category = unicodedata.category(char)
    if category.startswith("Z"):
        return SIGNS[" "]
    return "\ufffd" if category.startswith("C") else char
