"""Makes compared sides for the tests of what a gate says. Test data: no number here was measured."""

from typing import Any

from modbench.analysis.comparison import ComparedSides, Comparison, Side
from modbench.analysis.verdict import Verdict

HOSTILE = (
    "@everyone <img src=x onerror=alert(1)> | `x` [a](javascript:b) #12 GH-34 https://x.invalid",
    "a\n::error title=x::y\r\n##[error]z%0A",
    "\x1b[31mred\x00\u202e\ufffe\ud800 ]]> & \"quoted'",
)


def line(verdict: Verdict | None = Verdict.SAME, context: int = 4096, **changes: Any) -> Comparison:
    """A comparison of threshold's TPOT, measured side by side."""
    fields: dict[str, Any] = {
        "cell_id": f"cell-{context}",
        "axes": {"workload.context": context},
        "method": "threshold",
        "metric": "tpot_s",
        "ground": "pairs",
        "verdict": verdict,
        "base": 1e-3,
        "candidate": 1.001e-3,
        "ratio": 1.001,
        "interval": (0.99, 1.01),
        "num_values": (8, 8),
    }
    return Comparison(**fields | changes)


def slower(context: int = 4096, **changes: Any) -> Comparison:
    fields = {"candidate": 1.061e-3, "ratio": 1.061, "interval": (1.04, 1.083)}
    return line(Verdict.SLOWER, context, **fields | changes)


def inconclusive(context: int = 4096, **changes: Any) -> Comparison:
    fields = {"reason": "the interval crosses the margin", "pairs_needed": 40, "interval": (0.98, 1.06), "ratio": 1.02}
    return line(Verdict.INCONCLUSIVE, context, **fields | changes)


def sides(*lines: Comparison, **changes: Any) -> ComparedSides:
    fields: dict[str, Any] = {
        "base": Side("main", 32, ("ci",), ("0123456789abcdef0123",), ("machine-1",)),
        "candidate": Side("working tree", 32, ("ci",), ("fedcba9876543210aaaa+dirty",), ("machine-1",)),
        "comparisons": lines,
        "tolerance": 0.03,
        "margins": {"tpot_s": 0.03, "ttft_s": 0.03},
    }
    return ComparedSides(**fields | changes)
