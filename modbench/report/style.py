"""One colour, marker and line per method, the same in every plot of every report.

Source: the colour-blind-safe palette of Okabe and Ito (2008), without its yellow, too pale on white; the baseline is
drawn in the colour of the text, so that it reads on light and dark pages.
"""

from collections.abc import Iterable
from dataclasses import dataclass

TEXT_COLOUR = "#010203"  # in an SVG it becomes the page's text colour; nothing else may have it
MUTED_COLOUR = "#808A9473"  # grid and frame: a translucent grey, for light and dark


@dataclass(frozen=True)
class MethodStyle:
    """How a method is drawn."""

    colour: str
    marker: str
    line: str


KNOWN: dict[str, MethodStyle] = {
    "dense": MethodStyle(TEXT_COLOUR, "o", "-"),
    "threshold": MethodStyle("#D55E00", "s", "-"),
    "topk": MethodStyle("#0072B2", "^", "-"),
    "skip_layers": MethodStyle("#009E73", "D", "--"),
    "masked": MethodStyle("#CC79A7", "v", ":"),
    "kv_only": MethodStyle("#56B4E9", "P", "-."),
}
SPARE: tuple[MethodStyle, ...] = (
    MethodStyle("#E69F00", "X", "-"),
    MethodStyle("#D55E00", "<", "--"),
    MethodStyle("#0072B2", ">", "--"),
    MethodStyle("#009E73", "p", "-"),
    MethodStyle("#CC79A7", "h", "-"),
    MethodStyle("#56B4E9", "*", "--"),
)


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """A style per method label: known names have theirs, others take the spare ones in order, over and over."""
    styles: dict[str, MethodStyle] = {}
    num_spare = 0
    for method in methods:
        if method in styles:
            continue
        if method in KNOWN:
            styles[method] = KNOWN[method]
        else:
            styles[method] = SPARE[num_spare % len(SPARE)]
            num_spare += 1
    return styles
