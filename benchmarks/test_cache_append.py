"""What appending one token costs a growing cache layer, against the stock one. Targets: docs/performance.md.

Run with: .venv/bin/python -m pytest benchmarks/test_cache_append.py
Half a minute. Ours: the mean over as many tokens as pass between two moves of the buffer, one move among them, so that the
figure is amortised; it should not grow with what is stored. The stock layer copies everything at each token.
"""

import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from modbench.analysis.statistics import launch_value
from reference_impl.chunked_layer import ChunkedLayer
from reference_impl.ragged_layer import RaggedLayer

STORED_TOKENS = (4096, 16384, 65536)
HEADS, HEAD_DIM = 8, 64
NUM_STOCK_TOKENS = 8
ROUNDS = 5
TOKEN_BYTES = 2 * HEADS * HEAD_DIM * 4
MAX_SLACK_RATIO = 0.10
TITLE = f"Time per appended token, {HEADS} heads of {HEAD_DIM}, float32 (target: flat for ours; slack at most 10 %)"
HEADER = ("layer", *(f"{count:,} stored" for count in STORED_TOKENS), "largest / smallest", "slowest token", "slack")


def states(num_tokens: int) -> torch.Tensor:
    return torch.zeros(1, HEADS, num_tokens, HEAD_DIM)


class Chunked:
    def __init__(self, num_stored: int) -> None:
        self.layer = ChunkedLayer()
        self.layer.update(states(num_stored), states(num_stored))

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.layer.update(key, value)


class Ragged:
    def __init__(self, num_stored: int) -> None:
        self.layer = RaggedLayer()
        self.layer.begin(1)
        self.layer.append(0, states(num_stored)[0], states(num_stored)[0], torch.arange(num_stored))
        self.layer.advance(num_stored)
        self.first = torch.zeros(1, dtype=torch.int64)

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.layer.begin(1)
        self.layer.append(0, key[0], value[0], self.first)
        self.layer.advance(1)


class Stock:
    def __init__(self, num_stored: int) -> None:
        self.layer = DynamicLayer()
        self.layer.update(states(num_stored), states(num_stored))

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.layer.update(key, value)


@dataclass(frozen=True)
class Appended:
    mean_s: float
    slowest_s: float
    slack_ratio: float  # the larger of after the first token and after the last


def slack_ratio(layer: Any, num_tokens: int) -> float:
    if isinstance(layer, DynamicLayer):
        return 0.0
    assert layer.occupied_bytes() == num_tokens * TOKEN_BYTES
    return layer.allocated_bytes() / layer.occupied_bytes() - 1


def append_to(kind: Any, num_stored: int) -> Appended:
    filled = kind(num_stored)
    num_tokens = NUM_STOCK_TOKENS if kind is Stock else num_stored // 16 + 1  # one move, wherever it comes
    key, value = states(1), states(1)
    gaps, slacks = [], []
    for number in range(1, num_tokens + 1):
        start = time.perf_counter()
        filled.append(key, value)
        gaps.append(time.perf_counter() - start)
        if number in (1, num_tokens):
            slacks.append(slack_ratio(filled.layer, num_stored + number))
    return Appended(sum(gaps) / num_tokens, max(gaps), max(slacks))


@pytest.mark.parametrize("kind", [Chunked, Ragged, Stock])
def test_append(benchmark, kind, add_row):
    appended: dict[int, list[Appended]] = {num_stored: [] for num_stored in STORED_TOKENS}

    def append_at_every_size() -> None:
        for num_stored, found in appended.items():
            found.append(append_to(kind, num_stored))

    with torch.inference_mode():
        benchmark.pedantic(append_at_every_size, rounds=ROUNDS, warmup_rounds=1)
    means = [launch_value([one.mean_s for one in found[1:]]) for found in appended.values()]
    slowest = [launch_value([one.slowest_s for one in found[1:]]) for found in appended.values()]
    slack = max(one.slack_ratio for found in appended.values() for one in found)
    benchmark.extra_info.update(stored_tokens=STORED_TOKENS, mean_s=means, slowest_s=slowest, slack_ratio=slack)
    times = (f"{mean * 1e6:,.0f} us" for mean in means)
    growth, longest = f"{max(means) / min(means):.1f}", f"{max(slowest) * 1e3:,.0f} ms"
    add_row(TITLE, HEADER, (kind.__name__, *times, growth, longest, f"{slack:.1%}"))
    assert slack <= MAX_SLACK_RATIO
