"""Pieces of text made safe and visible, one line each: white space and control characters become signs. Pure.

In: text from anywhere. Out: what a terminal or a page can show; no escape sequence or change of direction is left in it.
"""

import unicodedata

SIGNS = {"\n": "⏎", "\t": "⇥", " ": "␣", "\x7f": "␡"}
NO_TEXT = "‥"  # of a token that shares its character with another one
UNKNOWN = "�"


def visible(text: str) -> str:
    """The text with a sign in the place of everything that cannot be seen; `‥` where there is none."""
    return "".join(map(_visible_char, text)) or NO_TEXT


def visible_line(text: str) -> str:
    """The same for running text, whose spaces stay spaces."""
    return " ".join(visible(word) for word in text.split(" ") if word)


def visible_lines(text: str) -> str:
    """The same for text of several lines, which keeps its spaces, line ends and tabs."""
    return "".join(char if char in "\n\t " else _visible_char(char) for char in text)


def _visible_char(char: str) -> str:
    if char in SIGNS:
        return SIGNS[char]
    if char < " ":
        return chr(0x2400 + ord(char))  # Unicode's pictures of control characters
    category = unicodedata.category(char)
    if category.startswith("Z"):
        return SIGNS[" "]
    return UNKNOWN if category.startswith("C") else char
