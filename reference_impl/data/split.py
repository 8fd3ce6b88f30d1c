"""Which documents are held out. In: a document's text as it was read. Out: a side, the same in every run and on every machine.

The text is hashed and not its name, so that copies of a text under other names, in other folders or in other sources are on the
same side. What it costs: an edited document may change sides. Source: our choice.

Only exact copies are found. Sources that cut other documents into pieces hash the whole (see `Source.extract`), so that a
module and its documentation strings are never on different sides.
"""

import hashlib
from typing import Literal

Side = Literal["training", "held_out"]


def is_held_out(text: str, held_out_share: float) -> bool:
    """Whether training never sees the text: whether the first 8 bytes of its SHA-256 are below that share of their range.

    Args:
        text: the document.
        held_out_share: in [0, 1).
    """
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) < held_out_share * 2**64


def side_of(text: str, held_out_share: float) -> Side:
    """The side that the text is on."""
    return "held_out" if is_held_out(text, held_out_share) else "training"
