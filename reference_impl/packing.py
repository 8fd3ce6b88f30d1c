"""Keep mask <-> packed tokens. In: a boolean mask (B, T). Out: flat indices of kept tokens, rows in order, and lengths per row.

Shapes: B batch, T tokens, P packed kept tokens, D model dim, H head dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Which tokens of a (B, T) block are kept.

    Attributes:
        batch, num_tokens: B and T.
        lengths: kept tokens per row, on the host (one synchronisation).
        flat_index_P: indices into the flattened (B*T) tokens, int64; None where every token is kept (nothing to move).
    """

    batch: int
    num_tokens: int
    lengths: list[int]
    flat_index_P: Tensor | None

    @classmethod
    def from_mask(cls, keep_BT: Tensor) -> "Packing":
        """Read the mask back to the host once and list its kept tokens."""
        batch, num_tokens = keep_BT.shape
        lengths = keep_BT.sum(dim=1).tolist()
        is_whole = sum(lengths) == batch * num_tokens
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
        return hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).index_select(0, self.flat_index_P)[None]

    def pack_scalar(self, gate_BT: Tensor) -> Tensor:
        """(B, T) -> (1, P, 1), ready to multiply packed hidden states; (B, T, 1) where every token is kept."""
        if self.flat_index_P is None:
            return gate_BT[..., None]
        return gate_BT.reshape(-1).index_select(0, self.flat_index_P)[None, :, None]

    def pack_positions(self, table_BTH: Tensor) -> Tensor:
        """Rotary table (1 or B, T, H) -> (1, P, H); as it is where every token is kept."""
        if self.flat_index_P is None:
            return table_BTH
        index_P = self.flat_index_P
        if table_BTH.shape[0] == 1 and self.batch > 1:
            index_P = index_P % self.num_tokens
        return table_BTH.reshape(-1, table_BTH.shape[-1]).index_select(0, index_P)[None]

    def scatter(self, hidden_BTD: Tensor, packed_1PD: Tensor) -> Tensor:
        """A new (B, T, D): kept tokens from `packed_1PD`, skipped ones from `hidden_BTD`."""
        if self.flat_index_P is None:
            return packed_1PD
        flat_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
        return flat_ND.index_copy(0, self.flat_index_P, packed_1PD[0]).view_as(hidden_BTD)

    def token_index_rows(self, device: torch.device) -> list[Tensor]:
        """Per row, the index within this forward (0 to T-1) of each kept token."""
        if self.flat_index_P is None:
            index_T = torch.arange(self.num_tokens, device=device)
            return [index_T] * self.batch
        return list((self.flat_index_P % self.num_tokens).split(self.lengths))
