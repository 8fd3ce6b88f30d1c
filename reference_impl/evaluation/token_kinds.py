"""What kind of text each token of a row is. In: the ids of a row and their tokenizer. Out: an index into KINDS per token.

By the bytes that a token stands for, so it is the same for bytes and for words: the first byte that is no blank decides, and what
the token before ended with. Source: our choice.
"""

from collections.abc import Sequence

from reference_impl.data import DocumentTokenizer

KINDS = ("word begins", "word goes on", "digits", "punctuation", "blanks", "line break", "not ASCII", "no text")
BLANKS = b" \t\f\v"
LINE_BREAKS = b"\r\n"
DIGITS = b"0123456789"
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"


def token_kinds(ids: Sequence[int], tokenizer: DocumentTokenizer) -> list[int]:
    """Index into KINDS of each token of one sequence.

    - word begins, word goes on: letters and `_`, behind anything else or behind a letter, `_` or digit.
    - digits: a digit, also inside a word.
    - blanks: nothing but spaces and tabs. Line break: nothing but white space, one of it a line break.
    - not ASCII: a byte of a character beyond ASCII, whatever it is.
    - no text: the end of a document and other special tokens.
    """
    found, is_in_word = [], False
    for token in ids:
        spelled = tokenizer.spelling(token)
        text = spelled.lstrip(BLANKS + LINE_BREAKS)
        found.append(KINDS.index(_kind(spelled, text, is_in_word)))
        is_in_word = bool(text) and text[-1] in LETTERS + DIGITS
    return found


def _kind(spelled: bytes, text: bytes, is_in_word: bool) -> str:
    if not spelled:
        return "no text"
    if not text:
        return "line break" if any(byte in LINE_BREAKS for byte in spelled) else "blanks"
    if text[0] >= 128:
        return "not ASCII"
    if text[0] in DIGITS:
        return "digits"
    if text[0] in LETTERS:
        return "word goes on" if is_in_word and text == spelled else "word begins"
    return "punctuation"
