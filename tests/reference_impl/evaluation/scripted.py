"""Models whose logits are set: a function of the tokens so far, in the shape of a Hugging Face model."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from reference_impl.data import Row


class ScriptedModel(nn.Module):
    """`logits(ids_T, positions_T)` gives (T, V) for all tokens of a row; the cache is the tokens themselves."""

    def __init__(self, logits: Callable[[Tensor, Tensor], Tensor], vocab_size: int, max_positions: int = 4096) -> None:
        super().__init__()
        self.logits = logits
        self.config = SimpleNamespace(
            vocab_size=vocab_size, max_position_embeddings=max_positions, _attn_implementation="sdpa"
        )
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(
        self, input_ids, position_ids=None, past_key_values=None, use_cache=False, logits_to_keep=0
    ) -> SimpleNamespace:
        num_seen = 0 if past_key_values is None else past_key_values.shape[1]
        ids_BT = input_ids if past_key_values is None else torch.cat([past_key_values, input_ids], dim=1)
        if position_ids is None:
            position_ids = torch.arange(ids_BT.shape[1]).expand_as(ids_BT)
        logits = torch.stack([self.logits(*row) for row in zip(ids_BT, position_ids, strict=True)])
        return SimpleNamespace(logits=logits[:, num_seen:][:, -logits_to_keep:], past_key_values=ids_BT)


def constant(probabilities: list[float], **settings) -> ScriptedModel:
    """The same distribution everywhere."""
    logits_V = torch.tensor(probabilities).log()
    return ScriptedModel(lambda ids_T, positions_T: logits_V.expand(len(ids_T), -1), len(probabilities), **settings)


def uniform(vocab_size: int) -> ScriptedModel:
    return constant([1 / vocab_size] * vocab_size)


def looking_back(vocab_size: int, num_matched: int = 1, logit: float = 20.0) -> ScriptedModel:
    """Predicts what followed the last time that the last `num_matched` tokens stood there; evenly where they never did."""

    def logits(ids_T: Tensor, positions_T: Tensor) -> Tensor:
        found_TV = torch.zeros(len(ids_T), vocab_size)
        seen: dict[tuple[int, ...], int] = {}
        ids = ids_T.tolist()
        for index in range(num_matched - 1, len(ids)):
            suffix = tuple(ids[index + 1 - num_matched : index + 1])
            if suffix in seen:
                found_TV[index, ids[seen[suffix] + 1]] = logit
            seen[suffix] = index
        return found_TV

    return ScriptedModel(logits, vocab_size)


def row(ids: list[int], starts: tuple[int, ...] = (0,), num_bytes: list[int] | None = None) -> Row:
    """One byte per token unless said otherwise."""
    return Row(torch.tensor(ids), starts, torch.tensor(num_bytes or [1] * len(ids)), "test")
