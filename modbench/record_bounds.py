"""What a record's values may be, so that whatever reads it can compute with them: the record may be a stranger's.

In: a record of the schema's shape. Out: the first value that no launch can have, in words, or None.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modbench.record import Record

# Beyond any count of bytes or operations; quotients and squares of two stay finite.
MIN_NUMBER, MAX_NUMBER = 1e-24, 1e24
UNREAD = {"point.settings": "options", "environment": "program"}  # a factory's or program's own: never computed with
SHORTEST_S, LONGEST_S = 1e-12, 1e9
MAX_SIZE = 10**12  # tokens, rows, launches, layers
MAX_DEPTH = 32
LATENCIES = ("ttft_s", "tpot_s")
SIZES = ("context", "batch", "new_tokens")


def find_unusable(record: "Record") -> str | None:
    """`samples.ttft_s: got -1.0; expected ...` for the first such value; None if all can be computed with."""
    return next(_problems(record), None)


def _problems(record: "Record") -> Iterator[str]:
    for name, values in record.samples:
        shortest = SHORTEST_S if name in LATENCIES else 0.0
        if values and not (shortest <= min(values) and max(values) <= LONGEST_S):
            found = next(value for value in values if not shortest <= value <= LONGEST_S)
            yield f"samples.{name}: got {_text(found)}; expected {shortest:g} to {LONGEST_S:g}"
    for name, ratios in record.keep_ratio:
        if ratios and not (min(ratios) >= 0.0 and max(ratios) <= 1.0):
            yield f"keep_ratio.{name}: got {_text(min(ratios))} to {_text(max(ratios))}; expected 0 to 1"
        if len(ratios) not in (0, record.point.geometry.num_hidden_layers):
            layers = record.point.geometry.num_hidden_layers
            yield f"keep_ratio.{name}: got {len(ratios)} values; expected one per layer, {layers}"
    for name in SIZES:
        size = record.point.workload.get(name)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_SIZE:
            yield f"point.workload.{name}: got {_text(size)}; expected an integer from 1 to {MAX_SIZE:,}"
    counts = {
        "pair.quad": record.pair.quad,
        "pair.position": record.pair.position,
        "point.threads": record.point.threads,
    }
    for name, count in counts.items():
        if not 0 <= count <= MAX_SIZE:
            yield f"{name}: got {_text(count)}; expected 0 to {MAX_SIZE:,}"
    free = {"metrics": record.metrics, "environment": record.environment}
    free |= {f"point.{name}": getattr(record.point, name) for name in ("axes", "model", "settings", "workload")}
    for name, tree in free.items():
        unread = tree.get(UNREAD.get(name, ""))
        read = {key: value for key, value in tree.items() if key != UNREAD.get(name)}
        fault = _fault(read, (MIN_NUMBER, MAX_NUMBER)) or _fault(unread, (0.0, sys.float_info.max))
        if fault:
            yield f"{name}: {fault}"


def _fault(value: Any, ends: tuple[float, float], depth: int = 0) -> str | None:
    """What is wrong inside plain data: a number whose size is not between the ends, nor 0, or nesting without end."""
    if isinstance(value, int | float):
        if value == 0 or ends[0] <= abs(value) <= ends[1]:
            return None
        return f"got {_text(value)}; expected a number up to {ends[1]:g}, null for unknown"
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence):
        return None
    if depth == MAX_DEPTH:
        return f"got data nested deeper than {MAX_DEPTH}; expected facts"
    members = value.values() if isinstance(value, Mapping) else value
    return next((fault for member in members if (fault := _fault(member, ends, depth + 1))), None)


def _text(value: Any) -> str:
    """The value, short; an integer of a thousand digits has no float, and takes long as text."""
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        return "an integer of more than 24 digits"
    return f"{value!r:.60}"
