"""The KV cache three ways, reconciled: what stored tokens need, what live tensors hold, what the allocator gave.

In: a row's values by metric name. Out: why the numbers differ, in words, and doubts where they differ for no known reason.
"""

from collections.abc import Mapping

from modbench.units import format_bytes, format_percent

Values = Mapping[str, float | None]
SMALL_BYTES = 4096  # bookkeeping of a cache: indices of a few tokens, rounding of an allocator
SMALL_RATIO = 0.01


def differences(values: Values) -> list[str]:
    """One clause for each step from formula to allocator: equal, or by how much it differs and what that is."""
    expected, occupied = values["kv_cache_expected_bytes"], values["kv_cache_bytes"]
    allocated, allocator = values["kv_cache_allocated_bytes"], values["kv_cache_allocator_bytes"]
    clauses = []
    if expected is not None and occupied is not None:
        is_same = _is_small(occupied - expected, expected)
        clauses.append("occupied as the formula" if is_same else _change("occupied", occupied, expected, "the formula"))
    if occupied is not None and allocated is not None:
        slack = allocated - occupied
        clauses.append(
            "no slack" if slack == 0 else f"{format_percent(slack / max(occupied, 1))} growth slack and token indices"
        )
    if allocated is not None and allocator is not None:
        is_same = _is_small(allocator - allocated, allocated)
        clauses.append(
            "the allocator agrees" if is_same else _change("allocator", allocator, allocated, "live buffers")
        )
    return clauses


def unexplained(values: Values) -> list[str]:
    """Doubts: stored bytes that are not those of the kept tokens, and memory that no live buffer accounts for."""
    doubts = []
    expected, occupied = values["kv_cache_expected_bytes"], values["kv_cache_bytes"]
    if expected is not None and occupied is not None and not _is_small(occupied - expected, expected):
        doubts.append(f"KV cache: {_change('occupied', occupied, expected, 'the kept tokens need')}")
    allocated, allocator = values["kv_cache_allocated_bytes"], values["kv_cache_allocator_bytes"]
    if allocated is not None and allocator is not None and not _is_small(allocator - allocated, allocated):
        doubts.append(f"KV cache: {_change('the allocator holds', allocator, allocated, 'its live buffers')}")
    return doubts


def _is_small(difference: float, of: float) -> bool:
    return abs(difference) <= max(SMALL_BYTES, SMALL_RATIO * of)


def _change(name: str, found: float, reference: float, reference_name: str) -> str:
    more_or_less = "more" if found > reference else "less"
    return f"{name} {format_bytes(abs(found - reference))} {more_or_less} than {reference_name}"
