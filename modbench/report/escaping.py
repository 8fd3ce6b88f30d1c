"""Text from outside (names, errors, environments) made safe to print: one line, no control characters, no markup."""

import re
from typing import Any

from modbench.plain_text import MAX_LENGTH, one_line

__all__ = ["escape_markdown", "one_line"]
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$^])")
# Or a rule, or a heading's underline; `+` and `)` are escaped anyway.
_LIST_MARK = re.compile(r"^(\d*)([-=.])(?=[-= ]|$)")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}


def escape_markdown(value: Any, max_length: int = MAX_LENGTH) -> str:
    """One line of GitHub Markdown that renders as the text itself, also in tables: no markup, link or mention."""
    text = _MARKDOWN.sub(r"\\\1", one_line(value, max_length))
    text = _LIST_MARK.sub(r"\1\\\2", text)
    text = re.sub(r"[&<>@]", lambda match: _HTML[match.group()], text)
    text = re.sub(r"(?i)\b(https?|ftp|mailto):", r"\1&#58;", text)
    return re.sub(r"(?i)\bwww\.", "www&#46;", text)
