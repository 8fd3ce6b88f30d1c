"""Router: hidden states -> gates, and gates -> keep mask, for every operator.

In: a layer's input (B, T, D). Out: router logits (B, T) in float32 and a boolean keep mask (B, T).
A token's decision depends on its own hidden state and position alone, so prefill, chunked prefill and decode agree.

Shapes: B batch, T tokens, D model dim.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Router(nn.Module):
    """Scores each token with one vector: logits = x . weight + bias, gate = sigmoid(logits), always in float32.

    Source: `g_i = sigmoid(w . x_i)` on the layer's input, as secondary reports of the paper say; the bias is our choice.
    `continuation` holds (position, bias) when the router was calibrated for prompt and continuation separately; it belongs to
    a benchmark on fixed text and is not saved with the model.
    """

    def __init__(self, hidden_size: int, bias: float, std: float, device: torch.device | str | None = None) -> None:
        super().__init__()
        # float32 whatever the default dtype is: layers on disk are read in the dtype that their parameters were made in
        weight = torch.randn(hidden_size, device=device, dtype=torch.float32)
        self.weight = nn.Parameter(weight * std / math.sqrt(hidden_size))
        self.bias = nn.Parameter(torch.full((1,), float(bias), device=device, dtype=torch.float32))
        self.continuation: tuple[int, float] | None = None

    def forward(self, hidden_BTD: Tensor, position_ids: Tensor | None = None, is_bias_budgeted: bool = False) -> Tensor:
        """Router logits (B, T), float32 under autocast too; `position_ids` (1 or B, T) is read after a calibration by position.

        With `is_bias_budgeted` the logits send the bias no gradient: how many tokens are kept is then the budget's alone.
        """
        bias = (self.bias.detach() if is_bias_budgeted else self.bias).float()
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            logits_BT = functional.linear(hidden_BTD.float(), self.weight.float()[None]).squeeze(-1)
        if self.continuation is None or position_ids is None:
            return logits_BT + bias
        start, continuation_bias = self.continuation
        return logits_BT + torch.where(position_ids >= start, continuation_bias, bias)

    def set_bias(self, bias: float, continuation: tuple[int, float] | None = None) -> None:
        """What a calibration found; a method, so that a PEFT wrapper passes it on to the router it trains."""
        self.bias.data.fill_(bias)
        self.continuation = continuation


def threshold_keep(gate_BT: Tensor, threshold_p: float, valid_BT: Tensor | None) -> Tensor:
    """Keep where gate >= p and the token is not padding. Source: threshold-p operator of the paper."""
    keep_BT = gate_BT >= threshold_p
    return keep_BT if valid_BT is None else keep_BT & valid_BT


def topk_keep(score_BT: Tensor, capacity: float, valid_BT: Tensor | None) -> Tensor:
    """Keep the k = ceil(capacity * valid tokens) highest scores of each row; the earlier token wins a tie.

    Source: MoD (Raposo et al., arXiv 2404.02258), expert-choice routing over the sequence; not causal.
    """
    if valid_BT is None:
        num_valid_B1 = torch.full((score_BT.shape[0], 1), score_BT.shape[1], device=score_BT.device)
    else:
        num_valid_B1 = valid_BT.sum(dim=1, keepdim=True)
        score_BT = score_BT.masked_fill(~valid_BT, -math.inf)
    # float32 would turn 0.11 * 100 into 11.000000x and ceil it to 12
    num_kept_B1 = torch.ceil(num_valid_B1.double() * capacity - 1e-9).long()
    order_BT = score_BT.argsort(dim=1, descending=True, stable=True)
    rank_BT = torch.empty_like(order_BT)
    ranks = torch.arange(score_BT.shape[1], device=score_BT.device).expand_as(order_BT)
    rank_BT.scatter_(1, order_BT, ranks)
    return rank_BT < num_kept_B1
