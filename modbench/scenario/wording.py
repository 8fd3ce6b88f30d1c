"""How found values and suggestions are worded in error messages: short, printable, on one line."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

MAX_SHOWN = 60


def shorten(text: str) -> str:
    """Cut text to `MAX_SHOWN` characters on one printable line."""
    line = text if text.isprintable() else ascii(text)[1:-1]
    return line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 3] + "..."


def show(value: Any) -> str:
    """Write a found value as YAML would, at most `MAX_SHOWN` characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    return shorten(repr(value))


def near_match(word: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed word that `word` probably meant, or None."""
    names = {name.lower(): name for name in allowed}
    matches = difflib.get_close_matches(word[:100].lower(), names, n=1, cutoff=0.6)
    return names[matches[0]] if matches else None


def suggestion(word: str, allowed: Sequence[str]) -> str:
    """Return "did you mean X?", or "expected one of ..." where nothing is near."""
    near = near_match(word, allowed)
    return f"did you mean {near}?" if near else f"expected one of {', '.join(allowed) or '(none)'}"
