"""Base units (seconds, bytes) to text, and sizes and times that users write to bytes and seconds.

Quantities are formatted in `report/`, the progress display, the findings of checks and the text of errors only.
"""

import re

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4
SIZE_PATTERN = r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(KiB|MiB|GiB|TiB)"
SIZE_TEXT = "a size such as 8 GiB or 512 MiB, or an integer of bytes"
SHARE_PATTERN = r"([0-9]{0,15}\.?[0-9]{1,15})( ?%)?"
SHARE_TEXT = "a share such as 3% or 0.03, at least 0 and below 100%"
TIME_PATTERN = r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?"
TIME_TEXT = "a time with its units h, m and s, such as 90s, 10m or 1h30m"
_SIZE_UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}


def parse_bytes(value: object) -> int:
    """A size as users write it, `8 GiB` or a whole number of bytes, in bytes.

    Raises:
        ValueError: it is neither, or not above 0; the text says what is expected.
    """
    size = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str) and (match := re.fullmatch(SIZE_PATTERN, value)):
        size = round(float(match[1]) * _SIZE_UNITS[match[2]])
    if size is None or size <= 0:
        raise ValueError(f"expected {SIZE_TEXT}")
    return size


def parse_share(text: str) -> float:
    """A share as users write it, `3%`, `3 %` or `0.03`, as 0.03.

    Raises:
        ValueError: it is neither, or not at least 0 and below 1; the text says what is expected.
    """
    match = re.fullmatch(SHARE_PATTERN, text)
    share = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= share < 1:
        raise ValueError(f"expected {SHARE_TEXT}")
    return share


def parse_duration(text: str) -> int:
    """A time as users write it, `90s`, `10m` or `1h30m`, in seconds.

    Raises:
        ValueError: it is none, has no unit, or is not above 0; the text says what is expected.
    """
    match = re.fullmatch(TIME_PATTERN, text)
    seconds = 0
    if match is not None:
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    if seconds <= 0:
        raise ValueError(f"expected {TIME_TEXT}")
    return seconds


def format_seconds(value: float | None) -> str:
    """Three significant digits with the fitting unit: `1.23 s`, `45.6 ms`, `7.89 µs`; `n/a` for None."""
    if value is None:
        return "n/a"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= scale:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{_three_digits(value / 1e-9)} ns"


def format_bytes(value: float | None) -> str:
    """Three significant digits with a binary unit: `512 B`, `1.50 MiB`, `12.0 GiB`, `1.25 TiB`; `n/a` for None."""
    if value is None:
        return "n/a"
    for scale, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(value) >= scale:
            return f"{_three_digits(value / scale)} {unit}"
    return f"{value:.0f} B"


def format_duration(seconds: float) -> str:
    """Coarse time left for humans: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_factor(value: float | None) -> str:
    """A ratio to the baseline: `1.78×`, `0.95×`, `12.3×`, `0.0123×`; `n/a` for None."""
    if value is None:
        return "n/a"
    return f"{value:.2f}×" if 0.095 <= abs(value) < 9.995 else f"{_three_digits(value)}×"


def format_percent(value: float | None) -> str:
    """A share: `11 %`, `0.4 %`, `100 %`; `n/a` for None."""
    if value is None:
        return "n/a"
    percent = value * 100
    return f"{percent:.0f} %" if percent >= 9.95 or percent == 0 else f"{percent:.1f} %"


def format_change(ratio: float | None) -> str:
    """A ratio as the change that it is, with its sign: `+4.2 %`, `-0.031 %`, `0 %`; `n/a` for None."""
    return "n/a" if ratio is None else f"{_signed_percent(ratio)} %"


def format_change_interval(interval: tuple[float, float]) -> str:
    """Both ends of an interval of a ratio: `[+3.1, +5.5]`, in per cent."""
    return f"[{_signed_percent(interval[0])}, {_signed_percent(interval[1])}]"


def format_count(value: float) -> str:
    """A whole number with thousands separated: `4,096`."""
    return f"{value:,.0f}"


def format_rate(value: float | None, unit: str = "tok/s") -> str:
    """Three significant digits per second: `1,780 tok/s`; `n/a` for None."""
    if value is None:
        return "n/a"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{_three_digits(value)} {unit}"


def _signed_percent(ratio: float) -> str:
    """One decimal, below 0.1 % two significant digits but four decimals at most, from 10,000 % none."""
    percent = (ratio - 1) * 100
    if abs(percent) < 1e-9:  # rounding of the quotient
        return "0"
    if abs(percent) >= 9999.95:
        return f"{percent:+.0f}"
    decimals = 1 if abs(percent) >= 0.095 else min(4, 1 - int(f"{percent:.1e}".split("e")[1]))
    return f"{percent:+.{decimals}f}"


def _three_digits(value: float) -> str:
    """At least three significant digits, trailing zeros kept, no exponent: `1.50`, `12.3`, `0.0123`, `1234`."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.2e}".split("e")[1])  # of the rounded value: 0.9996 counts as 1.00
    return f"{value:.{max(0, 2 - exponent)}f}"
