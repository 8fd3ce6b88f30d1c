"""The doctor's screen: a line per check, grouped, the fix under it, and what it all means in one sentence.

In: a `DoctorReport`. Out: text that fits 80 columns.
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from modbench.checks import Check, DoctorReport, Group, Status
from modbench.measured_devices import MeasuredDevice
from modbench.report.escaping import one_line
from modbench.units import format_percent

MARKS: dict[Status, str] = {"ok": "✓", "warn": "!", "missing": "✗", "info": "·"}
STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "missing": "red", "info": "dim"}
TITLES: dict[Group, str] = {
    "machine": "Machine",
    "cpu": "CPU",
    "memory": "Memory",
    "libraries": "Libraries",
    "gpu": "GPU",
    "ceilings": "Ceilings",
}
MAX_SPREAD_RATIO = 0.1  # a median run this far above the best one: the ceiling itself is in doubt
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def render_doctor(report: DoctorReport, console: Console) -> None:
    """Print it. Where there is no colour, the marks stand beside their words."""
    checks = [*report.checks, *(ceiling_check(device) for device in report.ceilings)]
    has_words = console.no_color or console.color_system is None
    width = max(len(check.name) for check in checks)
    for group, title in TITLES.items():
        found = [check for check in checks if check.group == group]
        if found:
            console.print(Text(title, style="bold"))
            console.print(_grid(found, width, has_words))
    console.print()
    console.print(Text(summary_sentence(checks)))


def _grid(checks: Sequence[Check], name_width: int, has_words: bool) -> RichTable:
    grid = RichTable.grid(padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, width=name_width)
    grid.add_column(overflow="fold")
    for check in checks:
        mark = f"{MARKS[check.status]} {check.status:<7}" if has_words else MARKS[check.status]
        name = check.name.replace("_", " ")
        grid.add_row(Text(mark, style=STYLES[check.status]), name, Text(one_line(check.finding)))
        if check.fix:
            grid.add_row("", "", Text(f"fix: {one_line(check.fix)}", style="bold"))
    return grid


def ceiling_check(device: MeasuredDevice) -> Check:
    """One dtype's measured ceilings as a line; doubtful where the runs differed much."""
    copy, matmul = _rate(device.copy_bytes_per_s, "B/s"), _rate(device.matmul_flops_per_s, "FLOP/s")
    finding = f"copy {copy}, product {matmul}"
    spreads = [spread for spread in (device.copy_spread_ratio, device.matmul_spread_ratio) if spread is not None]
    if spreads:
        finding += f"; spread {format_percent(max(spreads))}"
    is_doubtful = max(spreads, default=0.0) > MAX_SPREAD_RATIO
    return Check(
        name=device.dtype,
        group="ceilings",
        status="warn" if is_doubtful else "ok",
        finding=finding,
        fix="modbench doctor --remeasure, when nothing else runs" if is_doubtful else "",
    )


def summary_sentence(checks: Sequence[Check]) -> str:
    """What can be measured here, what cannot, and how many lines stand in the way."""
    able = [check.gives for check in checks if check.gives and check.status != "missing"]
    unable = [check.gives for check in checks if check.gives and check.status == "missing"]
    num_warnings = sum(check.status == "warn" for check in checks)
    text = f"This machine can measure {_listed(able)}" if able else "This machine can measure nothing asked for"
    text += f"; not {_listed(unable, 'or')}" if unable else ""
    if num_warnings == 0:
        return f"{text}; nothing was found that disturbs it."
    lines = "1 line marked ! stands" if num_warnings == 1 else f"{num_warnings} lines marked ! stand"
    return f"{text}; {lines} in the way."


def _listed(words: Sequence[str], conjunction: str = "and") -> str:
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}" if len(words) > 1 else words[0]


def _rate(value: float, unit: str) -> str:
    scale, prefix = next(((scale, prefix) for scale, prefix in PREFIXES if value >= scale), (1.0, ""))
    return f"{value / scale:.3g} {prefix}{unit}"
