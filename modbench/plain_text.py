"""Text from outside (names, errors, environments) without control characters. Escaping for a format is the report's."""

import unicodedata
from typing import Any

MAX_LENGTH = 300
MAX_READ = 20  # characters looked at per character shown: an endless text costs no more than a long one


def one_line(value: Any, max_length: int = MAX_LENGTH) -> str:
    """The value as text on one line: white space collapsed, control and direction characters dropped, cut with `…`."""
    whole = str(value)
    head = whole[: MAX_READ * max_length]
    text = " ".join(head.split())
    text = "".join(char for char in text if not unicodedata.category(char).startswith(("C", "Zl", "Zp")))
    is_whole = len(head) == len(whole) and len(text) <= max_length
    return text if is_whole else text[: max_length - 1] + "…"


def plain_lines(value: Any, max_length: int = 10_000) -> str:
    """Each line of a text that may have several, made plain."""
    return "\n".join(one_line(line, max_length) for line in str(value).splitlines())
