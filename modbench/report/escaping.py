"""Text from outside (names, errors, environments) made safe to print: one line, no control characters, no markup."""

import re
import unicodedata
from typing import Any

MAX_LENGTH = 300
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$^])")
_LIST_MARK = re.compile(
    r"^(\d*)([-=.])(?=[-= ]|$)"
)  # or a rule, or a heading's underline; `+` and `)` are escaped anyway
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def one_line(value: Any, max_length: int = MAX_LENGTH) -> str:
    """The value as text on one line: white space collapsed, control and direction characters dropped, cut with `…`."""
    text = " ".join(str(value).split())
    text = "".join(char for char in text if not unicodedata.category(char).startswith(("C", "Zl", "Zp")))
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def escape_markdown(value: Any, max_length: int = MAX_LENGTH) -> str:
    """One line of GitHub Markdown that renders as the text itself, also in tables: no markup, link or mention."""
    text = _MARKDOWN.sub(r"\\\1", one_line(value, max_length))
    text = _LIST_MARK.sub(r"\1\\\2", text)
    text = re.sub(r"[&<>@]", lambda match: _HTML[match.group()], text)
    text = re.sub(r"(?i)\b(https?|ftp|mailto):", r"\1&#58;", text)
    return re.sub(r"(?i)\bwww\.", "www&#46;", text)
