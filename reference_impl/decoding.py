"""One prompt -> its continuation, token by token, and what prefill and decode cost.

In: a dense or converted model and a prompt's ids. Out: new ids, one by one, then `GenerationStats`.

`model.generate` computes the same; here each phase has its clock and its keep decisions.

Shapes: T prompt tokens, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TopPLogitsWarper

from reference_impl.errors import CommandError
from reference_impl.kv_cache import kv_cache_bytes
from reference_impl.mod_layer import sliding_windows
from reference_impl.routing import Routing


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: the most likely one at `temperature` 0, else drawn from the `top_p` most likely.

    Raises:
        CommandError: a value is out of its range, or `top_p` is set without a temperature.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise CommandError(f"--temperature: got {self.temperature}; expected a finite number >= 0")
        if not 0 < self.top_p <= 1:
            raise CommandError(f"--top-p: got {self.top_p}; expected a number in (0, 1]")
        if self.top_p < 1 and self.temperature == 0:
            raise CommandError(
                f"--top-p: got {self.top_p} with greedy decoding; give a --temperature above 0, or leave it out"
            )


@dataclass(frozen=True)
class GenerationStats:
    """What a continuation cost.

    Attributes:
        num_prompt_tokens: T.
        num_new_tokens: chosen tokens, the one that ends the text among them.
        prefill_s: from the prompt's forward to its first token read back from the device.
        decode_s: the same, summed over all later tokens; what the caller does between two of them is not counted.
        prefill_keep_ratio: kept / all tokens over the routed layers; None for a dense model.
        decode_keep_ratio: the same at decode; None also where nothing was decoded.
        kv_cache_bytes: that stored tokens occupy at the end.
        dense_kv_cache_bytes: of a cache that stores every token (within sliding windows).
    """

    num_prompt_tokens: int
    num_new_tokens: int
    prefill_s: float
    decode_s: float
    prefill_keep_ratio: float | None
    decode_keep_ratio: float | None
    kv_cache_bytes: int
    dense_kv_cache_bytes: int

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prompt tokens per second of prefill."""
        return self.num_prompt_tokens / self.prefill_s

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first per second of decode; None without one."""
        return (self.num_new_tokens - 1) / self.decode_s if self.num_new_tokens > 1 else None


class Continuation:
    """Iterate once over the new tokens' ids; `stats` tells afterwards, or in between, what it cost.

    Args:
        model: a stock or converted model in evaluation mode.
        input_ids_T: (T,) int64, at least one token.
        max_new_tokens: >= 1; the model's end-of-sequence tokens end it earlier, and are the last id then.
        sampling: how tokens are chosen.
    """

    def __init__(
        self, model: PreTrainedModel, input_ids_T: Tensor, max_new_tokens: int, sampling: Sampling | None = None
    ) -> None:
        self._model = model
        self._input_ids_T = input_ids_T.to(model.device)
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling or Sampling()
        self._generator = torch.Generator(model.device).manual_seed(self._sampling.seed)
        self._cache: Any = None
        self._seconds: list[float] = []  # per forward, the prefill's first
        self._kept: list[float | None] = []  # kept / all tokens of each forward

    def __iter__(self) -> Iterator[int]:
        assert not self._seconds, "a continuation is iterated once"
        eos = end_of_sequence(self._model)
        ids_T = self._input_ids_T
        for _ in range(self._max_new_tokens):
            token = self._forward(ids_T)
            yield token
            if token in eos:
                return
            ids_T = ids_T.new_tensor([token])

    @torch.no_grad()
    def _forward(self, ids_T: Tensor) -> int:
        start = time.perf_counter()
        output = self._model(ids_T[None], past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        token = self._choose(output.logits[0, -1].float())
        self._seconds.append(time.perf_counter() - start)
        self._cache = output.past_key_values
        self._kept.append(_keep_ratio(self._model))
        return token

    def _choose(self, logits_V: Tensor) -> int:
        if self._sampling.temperature == 0:
            return int(logits_V.argmax())
        scores_1V = logits_V[None] / self._sampling.temperature
        if self._sampling.top_p < 1:
            scores_1V = TopPLogitsWarper(self._sampling.top_p)(self._input_ids_T[None], scores_1V)
        return int(torch.multinomial(scores_1V.softmax(-1), 1, generator=self._generator))

    def stats(self) -> GenerationStats:
        """What it cost so far; at least one token must have been taken."""
        assert self._seconds, "nothing was generated yet"
        num_seen = len(self._input_ids_T) + len(self._seconds) - 1  # the last token was never fed
        decode_kept = [kept for kept in self._kept[1:] if kept is not None]
        return GenerationStats(
            num_prompt_tokens=len(self._input_ids_T),
            num_new_tokens=len(self._seconds),
            prefill_s=self._seconds[0],
            decode_s=sum(self._seconds[1:]),
            prefill_keep_ratio=self._kept[0],
            decode_keep_ratio=sum(decode_kept) / len(decode_kept) if decode_kept else None,
            kv_cache_bytes=kv_cache_bytes(self._cache)[0],
            dense_kv_cache_bytes=dense_kv_cache_bytes(self._model, num_seen),
        )


def end_of_sequence(model: PreTrainedModel) -> Sequence[int]:
    """The ids that end a text, by the model's generation settings."""
    found = model.generation_config.eos_token_id
    return () if found is None else (found,) if isinstance(found, int) else tuple(found)


def dense_kv_cache_bytes(model: PreTrainedModel, num_tokens: int) -> int:
    """Bytes of the keys and values of one row of so many tokens, if none is skipped; a sliding window of W stores W - 1."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_key_value_heads * head_dim * model.dtype.itemsize
    stored = (num_tokens if window is None else min(num_tokens, window - 1) for window in sliding_windows(config))
    return token_bytes * sum(stored)


def _keep_ratio(model: PreTrainedModel) -> float | None:
    """Kept / all tokens of the last forward over the routed layers, each with as many tokens."""
    routing = getattr(model, "routing", None)
    if not isinstance(routing, Routing):
        return None
    ratios = routing.report().keep_ratio.values()
    return sum(ratios) / len(ratios)
