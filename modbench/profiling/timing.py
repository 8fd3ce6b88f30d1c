"""When the clock runs: prefill and decode apart, synchronised, warmed up until stationary.

In: a subject and token ids. Out: `Sample`s in seconds. The clock of a sample starts when the prompt is submitted; TTFT stops when
the first token is on the host, every gap when the next token is. On CUDA reading a token back synchronises the device.

Shapes: B batch, T tokens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

STATIONARY_SPREAD = 0.05  # a warm-up sample within 5 % of the best one before ends the warm-up
MIN_WARMUP = 2
MAX_WARMUP = 10


@dataclass(frozen=True)
class Sample:
    """One prefill and its decode: `itl_s` holds every gap after the first token, TTFT not among them."""

    ttft_s: float
    itl_s: list[float]

    @property
    def end_to_end_s(self) -> float:
        """Request submitted to last token on the host."""
        return self.ttft_s + sum(self.itl_s)

    @property
    def tpot_s(self) -> float:
        """(end-to-end - TTFT) / (output tokens - 1)."""
        return (self.end_to_end_s - self.ttft_s) / len(self.itl_s)


def take_sample(
    subject: Any, prompt_BT: Tensor, continuation_BT: Tensor, on_phase: Callable[[str], None]
) -> tuple[Sample, Any]:
    """Prefill the prompt, then decode teacher-forced on `continuation_BT` (one column per step).

    `on_phase` is called between the phases, outside both clocks. Returns the sample and the final state.
    """
    on_phase("prefill")
    start = time.perf_counter()
    logits, state = subject.prefill(prompt_BT)
    logits[:, -1].argmax(dim=-1).tolist()
    ttft_s = time.perf_counter() - start
    on_phase("decode")
    gaps = []
    last = time.perf_counter()
    for step in range(continuation_BT.shape[1]):
        logits = subject.decode(continuation_BT[:, step : step + 1], state)
        logits[:, -1].argmax(dim=-1).tolist()
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    return Sample(ttft_s, gaps), state


def is_stationary(durations: list[float]) -> bool:
    """True when the newest warm-up sample is within `STATIONARY_SPREAD` of the best one before it."""
    if len(durations) < MIN_WARMUP:
        return False
    return abs(durations[-1] / min(durations[:-1]) - 1) <= STATIONARY_SPREAD


def warm_up(run_once: Callable[[], float], wanted: str | int) -> tuple[int, bool | None]:
    """Run until stationary (`auto`, at most `MAX_WARMUP` times) or `wanted` times.

    Returns:
        (runs, whether they became stationary; None for a fixed number, which is the user's word).
    """
    durations: list[float] = []
    if isinstance(wanted, int):
        for _ in range(wanted):
            run_once()
        return wanted, None
    while len(durations) < MAX_WARMUP and not is_stationary(durations):
        durations.append(run_once())
    return len(durations), is_stationary(durations)
