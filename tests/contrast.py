"""The contrast of two colours, as WCAG 2 defines it: `#rrggbb`, or `rgb(r, g, b)` as browsers say it."""

import re


def contrast(first: str, second: str) -> float:
    """1 to 21."""
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of an opaque colour: 0 is black, 1 white."""
    shares = [channel / 255 for channel in _channels(colour)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _channels(colour: str) -> list[int]:
    if re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    found = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert found is not None, f"{colour}: expected an opaque colour"
    return [int(part) for part in found.groups()]
