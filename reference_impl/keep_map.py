"""keep_map: which tokens of a text a converted model keeps at which routed layer. In: model and tokens. Out: a `KeepMap`.

Shapes: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.errors import TextError, UnsupportedModelError
from reference_impl.routing import Routing

SCHEMA_VERSION = 1
NUM_LEVELS = 4  # steps of a scale above "kept nowhere": more are not told apart at a glance


@dataclass(frozen=True)
class KeepMap:
    """One text and the decisions about it; every tuple has one entry per token.

    Attributes:
        token_ids: of the model's vocabulary.
        texts: the piece of the text that each token stands for.
        num_layers: of the model, dense ones among them.
        rule: what decides, in words: `threshold, p = 0.5`.
        keep: routed layer -> whether each token is kept there.
        gates: routed layer -> gate of each token, in [0, 1].
    """

    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    num_layers: int
    rule: str
    keep: dict[int, tuple[bool, ...]]
    gates: dict[int, tuple[float, ...]]

    @property
    def num_tokens(self) -> int:
        """Of the text looked at."""
        return len(self.token_ids)

    @property
    def num_kept_layers(self) -> tuple[int, ...]:
        """In how many routed layers each token is kept."""
        return tuple(sum(column) for column in zip(*self.keep.values(), strict=True))

    def keep_ratio(self, layer: int) -> float:
        """Kept tokens / tokens of one routed layer."""
        return sum(self.keep[layer]) / self.num_tokens

    def level(self, num_kept: int) -> int:
        """A step of the scale: 0 where a token is kept nowhere, else 1 to `NUM_LEVELS` by the share of routed layers."""
        return -(-NUM_LEVELS * num_kept // len(self.keep))

    def level_texts(self) -> dict[int, str]:
        """The steps that can occur, each with its numbers of layers: `{0: "0", 1: "1–2", ...}`."""
        counts: dict[int, list[int]] = {}
        for num_kept in range(len(self.keep) + 1):
            counts.setdefault(self.level(num_kept), []).append(num_kept)
        return {
            level: str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}" for level, found in counts.items()
        }

    def sentence(self) -> str:
        """How many tokens are kept at how many layers."""
        kept, num_routed = self.num_kept_layers, len(self.keep)
        layers = "the routed layer" if num_routed == 1 else f"all {num_routed} routed layers"
        return (
            f"Of {self.num_tokens:,} tokens {kept.count(num_routed):,} are kept at {layers} and {kept.count(0):,} at none; "
            f"a token is kept at {sum(kept) / self.num_tokens:.1f} of {num_routed} on average."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for other programs."""
        return {
            "schema_version": SCHEMA_VERSION,
            "num_layers": self.num_layers,
            "rule": self.rule,
            "tokens": [
                {"id": token_id, "text": text} for token_id, text in zip(self.token_ids, self.texts, strict=True)
            ],
            "layers": [
                {
                    "layer": layer,
                    "keep_ratio": self.keep_ratio(layer),
                    "keep": list(keep),
                    "gate": list(self.gates[layer]),
                }
                for layer, keep in self.keep.items()
            ],
        }


@torch.no_grad()
def keep_map(model: PreTrainedModel, input_ids_T: Tensor, texts: Sequence[str]) -> KeepMap:
    """Run the model once over the text and report what its routed layers decided.

    Args:
        model: a converted model in evaluation mode.
        input_ids_T: (T,) int64, at least one token.
        texts: T pieces of text.

    Raises:
        UnsupportedModelError: the model is not converted.
        TextError: a token is beyond the model's vocabulary.
    """
    routing = getattr(model, "routing", None)
    if not isinstance(routing, Routing):
        raise UnsupportedModelError(f"keep_map: got {type(model).__name__}; expected a converted model: convert it")
    check_vocabulary(model, input_ids_T)
    model(input_ids_T[None].to(model.device), use_cache=False, logits_to_keep=1)
    config, layers = routing.config, sorted(routing.last)
    return KeepMap(
        token_ids=tuple(input_ids_T.tolist()),
        texts=tuple(texts),
        num_layers=model.config.num_hidden_layers,
        rule=config.rule(),
        keep={layer: tuple(routing.last[layer].keep_BT[0].tolist()) for layer in layers},
        gates={layer: tuple(routing.last[layer].gate_BT[0].tolist()) for layer in layers},
    )


def check_vocabulary(model: PreTrainedModel, input_ids_T: Tensor) -> None:
    """Refuse ids that the model has no embedding for.

    Raises:
        TextError: there is one.
    """
    highest, num_known = int(input_ids_T.max()), model.config.vocab_size
    if highest >= num_known:
        raise TextError(
            f"the text has token {highest}; the model's vocabulary has {num_known}: use the tokenizer of the model, or plain text"
        )
