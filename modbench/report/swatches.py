"""The line and marker of a method as a small SVG symbol: the legend of a page's charts, in the style of its plots.

In: methods. Out: a `Swatch` each, whose parts are this package's own text.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from modbench.report.escaping import one_line
from modbench.report.style import TEXT_COLOUR, method_styles

DASHES = {"-": "none", "--": "5 3", "-.": "6 2 1.5 2", ":": "1.5 2.5"}
MARKERS = {  # paths around (12, 5), the middle of the symbol
    "o": "M8.4 5a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "s": "M8.8 1.8h6.4v6.4h-6.4z",
    "^": "M12 .8l4.2 7.4h-8.4z",
    "v": "M12 9.2l4.2-7.4h-8.4z",
    "<": "M7.8 5l7.4-4.2v8.4z",
    ">": "M16.2 5l-7.4-4.2v8.4z",
    "D": "M12 .6l4.4 4.4l-4.4 4.4l-4.4-4.4z",
    "P": "M10.6 1h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "X": "M9.2 .9l2.8 2.5l2.8-2.5l1.3 1.4l-2.6 2.7l2.6 2.7l-1.3 1.4l-2.8-2.5l-2.8 2.5l-1.3-1.4l2.6-2.7l-2.6-2.7z",
    "p": "M12 .9l4.2 3.1l-1.6 4.9h-5.2l-1.6-4.9z",
    "h": "M12 .7l3.8 2.1v4.4l-3.8 2.1l-3.8-2.1v-4.4z",
    "*": "M12 .4l1.3 3l3.3.3l-2.5 2.1l.8 3.3l-2.9-1.8l-2.9 1.8l.8-3.3l-2.5-2.1l3.3-.3z",
}


@dataclass(frozen=True)
class Swatch:
    """How one method is drawn: an element id, the colour of the page's text or its own, dashes and a path."""

    method: str
    symbol_id: str
    colour: str
    dashes: str
    marker: str


def swatches(methods: Iterable[str]) -> list[Swatch]:
    """One per method, in the order in which they first come; that order decides the colours of unknown ones."""
    styles = method_styles(methods)
    return [
        Swatch(
            one_line(method),
            f"swatch-{number}",
            "currentColor" if style.colour == TEXT_COLOUR else style.colour,
            DASHES[style.line],
            MARKERS[style.marker],
        )
        for number, (method, style) in enumerate(styles.items())
    ]
