"""Base units (seconds, bytes) to text. Only `report/` and the progress display call these."""

KIB = 1024
MIB = 1024**2
GIB = 1024**3


def format_seconds(value: float | None) -> str:
    """Three significant digits with the fitting unit: `1.23 s`, `45.6 ms`, `7.89 µs`; `n/a` for None."""
    if value is None:
        return "n/a"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}" if abs(value) / scale < 1000 else f"{value / scale:.0f} {unit}"
    return f"{value / 1e-9:.3g} ns"


def format_bytes(value: float | None) -> str:
    """Three significant digits with a binary unit: `512 B`, `1.5 MiB`, `12 GiB`; `n/a` for None."""
    if value is None:
        return "n/a"
    for scale, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(value) >= scale:
            scaled = value / scale
            return f"{scaled:.0f} {unit}" if scaled >= 1000 else f"{scaled:.3g} {unit}"
    return f"{value:.0f} B"


def format_duration(seconds: float) -> str:
    """Coarse time left for humans: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
