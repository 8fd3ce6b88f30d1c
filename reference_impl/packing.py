"""Keep mask <-> packed tokens. In: a boolean mask (B, T). Out: flat indices of kept tokens, in order, and lengths per sequence.

A sequence is a row, or a part of one where a training batch packs several sequences into a row.

Shapes: B batch, T tokens, P packed kept tokens, S sequences, D model dim, H head dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reference_impl.ranges import PACK, SCATTER, named_range


@dataclass(frozen=True)
class Packing:
    """Which tokens of a (B, T) block are kept.

    Attributes:
        batch, num_tokens: B and T.
        lengths: kept tokens per sequence, on the host (one synchronisation).
        flat_index_P: indices into the flattened (B*T) tokens, int64; None where every token of whole rows is kept (nothing to
            move).
    """

    batch: int
    num_tokens: int
    lengths: list[int]
    flat_index_P: Tensor | None

    @classmethod
    def from_mask(cls, keep_BT: Tensor, sequence_lengths: Sequence[int] | None = None) -> "Packing":
        """Read the mask back to the host once and list its kept tokens.

        `sequence_lengths`: all tokens of each sequence, in the order of the flattened tokens; None where rows are sequences.
        """
        batch, num_tokens = keep_BT.shape
        with named_range(PACK):
            if sequence_lengths is None:
                lengths = keep_BT.sum(dim=1).tolist()
            else:
                lengths_S = torch.tensor(sequence_lengths, device=keep_BT.device)
                kept_before_S = functional.pad(keep_BT.reshape(-1).cumsum(0), (1, 0))[
                    functional.pad(lengths_S.cumsum(0), (1, 0))
                ]
                lengths = kept_before_S.diff().tolist()
            is_whole = sequence_lengths is None and sum(lengths) == batch * num_tokens
            index_P = None if is_whole else keep_BT.reshape(-1).nonzero().squeeze(1)
        return cls(batch, num_tokens, lengths, index_P)

    @property
    def num_kept(self) -> int:
        """P."""
        return sum(self.lengths)

    def pack(self, hidden_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (1, P, D) of kept tokens; the input itself, (B, T, D), where every token is kept."""
        if self.flat_index_P is None:
            return hidden_BTD
        with named_range(PACK):
            return hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, self.flat_index_P)[None]

    def pack_scalar(self, gate_BT: Tensor) -> Tensor:
        """(B, T) -> (1, P, 1), ready to multiply packed hidden states; (B, T, 1) where every token is kept."""
        if self.flat_index_P is None:
            return gate_BT[..., None]
        with named_range(PACK):
            return gate_BT.reshape(-1).index_select(0, self.flat_index_P)[None, :, None]

    def pack_positions(self, table_BTH: Tensor) -> Tensor:
        """Rotary table (1 or B, T, H) -> (1, P, H); as it is where every token is kept."""
        if self.flat_index_P is None:
            return table_BTH
        index_P = self.flat_index_P
        with named_range(PACK):
            if table_BTH.shape[0] == 1 and self.batch > 1:
                index_P = index_P % self.num_tokens
            return table_BTH.reshape(-1, table_BTH.shape[-1]).index_select(0, index_P)[None]

    def split_rows(self, states: Tensor) -> list[Tensor]:
        """(1, G, P, H) packed, or (B, G, T, H) of whole rows -> one (G, kept, H) view per sequence."""
        return list(states) if self.flat_index_P is None else list(states[0].split(self.lengths, dim=1))

    def scatter(self, hidden_BTD: Tensor, packed_1PD: Tensor) -> Tensor:
        """A new (B, T, D): kept tokens from `packed_1PD`, skipped ones from `hidden_BTD`."""
        if self.flat_index_P is None:
            return packed_1PD
        with named_range(SCATTER):
            flat_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
            return flat_ND.index_copy(0, self.flat_index_P, packed_1PD[0]).view_as(hidden_BTD)

    def token_index_rows(self, device: torch.device) -> list[Tensor]:
        """Per sequence, the index within this forward's rows (0 to T-1) of each kept token."""
        if self.flat_index_P is None:
            index_T = torch.arange(self.num_tokens, device=device)
            return [index_T] * self.batch
        return list((self.flat_index_P % self.num_tokens).split(self.lengths))


def packed_sequence_lengths(position_ids: Tensor | None, batch: int, starts_at_jumps: bool) -> list[int] | None:
    """Tokens of each sequence where rows hold several, in the order of the flattened (B, T) tokens; None where rows are whole.

    A new sequence starts where positions do not go up; with `starts_at_jumps` wherever they do not go up by one, which is how
    transformers reads them in a forward without mask and cache. Reads the positions back to the host.

    Args:
        position_ids: (1 or B, T) int64, or None.
        batch: B.
        starts_at_jumps: see above.
    """
    if position_ids is None or position_ids.shape[-1] < 2:
        return None
    step_BT = position_ids.diff(dim=-1)
    is_start_BT = step_BT != 1 if starts_at_jumps else step_BT < 1
    if not bool(is_start_BT.any()):
        return None
    num_tokens = position_ids.shape[-1]
    starts_S = functional.pad(is_start_BT.expand(batch, -1), (1, 0), value=True).reshape(-1).nonzero().squeeze(1)
    return functional.pad(starts_S, (0, 1), value=batch * num_tokens).diff().tolist()


def has_restart(position_ids: Tensor | None, attention_mask: Tensor) -> bool:
    """Whether positions (1 or B, T) do not go up between two neighbours that are not padding in the mask (B, K)."""
    if position_ids is None or position_ids.shape[-1] < 2:
        return False
    is_valid_BT = attention_mask[:, -position_ids.shape[-1] :].bool()
    return bool(((position_ids.diff(dim=-1) < 1) & is_valid_BT[:, 1:] & is_valid_BT[:, :-1]).any())


def positions_of_sequences(cu_seqlens: Tensor, num_tokens: int) -> Tensor:
    """Cumulative lengths (S+1,) -> position ids (1, T) that restart with each sequence."""
    index_T = torch.arange(num_tokens, device=cu_seqlens.device)
    starts_T = cu_seqlens[torch.searchsorted(cu_seqlens, index_T.to(cu_seqlens.dtype), right=True) - 1]
    return (index_T - starts_T)[None]
