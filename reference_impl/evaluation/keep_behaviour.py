"""Which tokens a model keeps: by kind of text, position and surprisal, and how its layers agree.

In: what was kept of rows of text, and how well their tokens are predicted. Out: a `KeepBehaviour`.

Shapes: L routed layers, N tokens of all rows, G groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impl.data import DocumentTokenizer, Row
from reference_impl.evaluation.forwards import TokenScores
from reference_impl.evaluation.token_kinds import KINDS, token_kinds

NUM_SURPRISAL_GROUPS = 10


@dataclass(frozen=True)
class KeptGroup:
    """What is kept of some of the tokens.

    Attributes:
        name: a kind of text; a span of positions; or the least and most surprisal, in bits.
        num_tokens: how many tokens it has, at least one.
        mean_bits: mean surprisal of those that are predicted; None where none is.
        keep_ratio: routed layer -> kept tokens / tokens.
    """

    name: str
    num_tokens: int
    mean_bits: float | None
    keep_ratio: dict[int, float]


@dataclass(frozen=True)
class LayerPair:
    """Two routed layers: the share of the tokens that both keep, and what it would be if they chose independently."""

    first: int
    second: int
    kept_by_both_ratio: float
    if_independent_ratio: float


@dataclass(frozen=True)
class KeepBehaviour:
    """Which tokens are kept.

    Attributes:
        by_kind: kinds of text that occur (token_kinds.py).
        by_position: positions that double in width: 0, 1, 2 to 3, 4 to 7, ...
        by_surprisal: tokens in ten groups of one size, the least surprising first. A token's surprisal, -log2 of the probability
            that the model gave it, was there before any layer saw it; first tokens of sequences have none and are left out.
        by_next_surprisal: the same by the surprisal of the token that follows, which this one's work is for.
        num_layers_kept_ratio: share of the tokens that 0, 1, 2, ... routed layers keep.
        layer_pairs: every two routed layers.
    """

    by_kind: tuple[KeptGroup, ...]
    by_position: tuple[KeptGroup, ...]
    by_surprisal: tuple[KeptGroup, ...]
    by_next_surprisal: tuple[KeptGroup, ...]
    num_layers_kept_ratio: tuple[float, ...]
    layer_pairs: tuple[LayerPair, ...]


@dataclass(frozen=True)
class _Tokens:
    """All tokens of all rows: bits are 0 and without meaning where a token is not predicted."""

    layers: tuple[int, ...]
    keep_LN: Tensor
    bits_N: Tensor
    is_predicted_N: Tensor

    def group(self, name: str, is_in_N: Tensor) -> KeptGroup:
        keep_ratio_L = self.keep_LN[:, is_in_N].double().mean(dim=1)
        bits_N = self.bits_N[is_in_N & self.is_predicted_N]
        return KeptGroup(
            name=name,
            num_tokens=int(is_in_N.sum()),
            mean_bits=float(bits_N.mean()) if len(bits_N) else None,
            keep_ratio=dict(zip(self.layers, keep_ratio_L.tolist(), strict=True)),
        )


def keep_behaviour(
    rows: Sequence[Row],
    scores: Sequence[TokenScores],
    layers: Sequence[int],
    keep_LN: Tensor,
    tokenizer: DocumentTokenizer,
) -> KeepBehaviour:
    """Sort out what was kept.

    Args:
        rows: at least one.
        scores: of the same rows.
        layers: the routed layers, at least one.
        keep_LN: what they kept of the tokens of all rows, one row behind the other; bool.
        tokenizer: of the rows.
    """
    bits_N = torch.cat([score.bits_T for score in scores])
    is_predicted_N = torch.cat([score.is_predicted_T for score in scores])
    tokens = _Tokens(tuple(layers), keep_LN, bits_N, is_predicted_N)
    # what follows a token in its sequence: the next one, where that is predicted; none at the end of a row
    next_bits_N = torch.cat([_shifted(score.bits_T) for score in scores])
    has_next_N = torch.cat([_shifted(score.is_predicted_T) for score in scores])
    num_kept_N = keep_LN.sum(dim=0)
    return KeepBehaviour(
        by_kind=_by_kind(tokens, rows, tokenizer),
        by_position=_by_position(tokens, rows),
        by_surprisal=_by_bits(tokens, bits_N, is_predicted_N),
        by_next_surprisal=_by_bits(tokens, next_bits_N, has_next_N),
        num_layers_kept_ratio=tuple(
            (torch.bincount(num_kept_N, minlength=len(layers) + 1).double() / len(num_kept_N)).tolist()
        ),
        layer_pairs=_pairs(tokens),
    )


def _shifted(value_T: Tensor) -> Tensor:
    return torch.cat([value_T[1:], torch.zeros_like(value_T[:1])])


def _by_kind(tokens: _Tokens, rows: Sequence[Row], tokenizer: DocumentTokenizer) -> tuple[KeptGroup, ...]:
    kinds: list[int] = []
    for row in rows:
        for start, end in zip(row.starts, (*row.starts[1:], len(row.ids_T)), strict=True):
            kinds += token_kinds(row.ids_T[start:end].tolist(), tokenizer)
    kind_N = torch.tensor(kinds)
    return tuple(tokens.group(name, kind_N == index) for index, name in enumerate(KINDS) if (kind_N == index).any())


def _by_position(tokens: _Tokens, rows: Sequence[Row]) -> tuple[KeptGroup, ...]:
    position_N = torch.cat([torch.as_tensor(row.features()["position_ids"]) for row in rows])
    longest, groups, first = int(position_N.max()), [], 0
    while first <= longest:
        last = min(max(0, 2 * first - 1), longest)
        is_in_N = (position_N >= first) & (position_N <= last)
        groups.append(tokens.group(str(first) if first == last else f"{first} to {last}", is_in_N))
        first = last + 1
    return tuple(groups)


def _by_bits(tokens: _Tokens, bits_N: Tensor, is_known_N: Tensor) -> tuple[KeptGroup, ...]:
    """Groups of one size by a surprisal; fewer where there are fewer tokens than groups."""
    index_N = is_known_N.nonzero().squeeze(1)
    ordered_N = index_N[bits_N[index_N].argsort(stable=True)]
    known = _Tokens(tokens.layers, tokens.keep_LN, bits_N, is_known_N)
    groups = []
    for part_N in ordered_N.tensor_split(NUM_SURPRISAL_GROUPS):
        if len(part_N):
            is_in_N = torch.zeros_like(is_known_N)
            is_in_N[part_N] = True
            least, most = float(bits_N[part_N[0]]), float(bits_N[part_N[-1]])
            groups.append(known.group(f"{least:.2f} to {most:.2f}", is_in_N))
    return tuple(groups)


def _pairs(tokens: _Tokens) -> tuple[LayerPair, ...]:
    keep_LN = tokens.keep_LN.double()
    both_LL = keep_LN @ keep_LN.T / keep_LN.shape[1]
    ratio_L = keep_LN.mean(dim=1)
    return tuple(
        LayerPair(first, second, float(both_LL[i, j]), float(ratio_L[i] * ratio_L[j]))
        for i, first in enumerate(tokens.layers)
        for j, second in enumerate(tokens.layers)
        if i < j
    )
