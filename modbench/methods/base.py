"""The protocol every method implements: build a subject once per launch, then prefill and decode it.

A `Method` is the recipe (settings in, subject out); a `Subject` is a built model that can be run. The worker times subjects and
nothing else, and the same-work guard calls the same three functions, so what is checked is what is timed.

Shapes: B batch, T prompt tokens, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from modbench.plan import PointWork
from reference_impl import Decision

# The five identities of docs/method.md, in its order.
DECODE_EQUALS_FULL = "decode_equals_full"
BATCH_EQUALS_SINGLE = "batch_equals_single"
PADDED_EQUALS_UNPADDED = "padded_equals_unpadded"
CAUSAL = "causal"
DENSE_AT_P0 = "dense_at_p0"
IDENTITIES = (DECODE_EQUALS_FULL, BATCH_EQUALS_SINGLE, PADDED_EQUALS_UNPADDED, CAUSAL, DENSE_AT_P0)


class Subject(ABC):
    """A built model under test. States are opaque to callers and changed in place by `decode`.

    `declared` is for a user's own subject: identities that do not hold for it, each with the reason. `attention_path` says
    which attention really runs, for the record.
    """

    declared: ClassVar[Mapping[str, str]] = {}
    attention_path: str | None = None

    @abstractmethod
    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, all_logits: bool = False
    ) -> tuple[Tensor, Any]:
        """Run a prompt.

        Args:
            input_ids: (B, T) int64 on the subject's device.
            attention_mask: (B, T), 0 at left padding; None where nothing is padded.
            all_logits: logits of every position instead of the last one only.

        Returns:
            (logits (B, 1 or T, V), the state that decode continues from).
        """

    @abstractmethod
    def decode(self, token_ids: Tensor, state: Any, attention_mask: Tensor | None = None) -> Tensor:
        """One more token per row: (B, 1) ids -> (B, 1, V) logits; `attention_mask` (B, all tokens so far) as above."""

    @abstractmethod
    def kv_cache_bytes(self, state: Any) -> tuple[int, int]:
        """(bytes that stored tokens occupy, bytes allocated), from live tensors."""

    def weights_bytes(self) -> int | None:
        """Bytes of the model's parameters and buffers, each storage counted once; None where the subject does not know."""
        return None

    def take_decisions(self) -> list[dict[int, Decision]]:
        """Per forward since the last call: layer index -> decision. Empty for methods that route nothing."""
        return []

    @contextmanager
    def replay(self, keep_masks: Mapping[int, Tensor]) -> Iterator[None]:
        """Use these keep masks, (B, all tokens) per layer, instead of deciding."""
        yield


@dataclass(frozen=True)
class Program:
    """A method that is built, run and timed by a process of its own: what to start, and which key of the scenario says so."""

    command: tuple[str, ...]
    key: str
    env: Mapping[str, str] = field(default_factory=dict)


class Method(ABC):
    """A recipe. `declared` names the identities that do not hold, or mean nothing, for it, each with the reason."""

    declared: ClassVar[Mapping[str, str]] = {}
    keeps_all_unless_told: ClassVar[bool] = True  # whether a layer without decisions is known to keep every token

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def program(self) -> Program | None:
        """The program that measures it instead of the worker; None for a method that is built here."""
        return None

    @abstractmethod
    def build(self, point: PointWork, device: torch.device) -> Subject:
        """Make the model on `device` with the point's seed; nothing is measured yet."""

    def build_unit(self, point: PointWork, device: torch.device) -> Subject | None:
        """The same with p = 0 and unit gates, which must equal dense; None where that means nothing."""
        return None

    def build_dense(self, point: PointWork, device: torch.device) -> Subject | None:
        """The dense model with this method's weights, which the unit variant must equal; None where those are the point's."""
        return None

    def calibrate(self, subject: Subject, input_ids: Tensor, prompt_length: int) -> None:  # noqa: B027 (optional step)
        """Set routers to the target keep ratio on this text, (B, T); nothing to do for methods without a target."""

    def target_keep_ratio(self) -> float | None:
        """The keep ratio that was asked for, or None."""
        return None

    def removed_layers(self) -> tuple[int, ...]:
        """Layers that are not there at all: their keep ratio is 0."""
        return ()
