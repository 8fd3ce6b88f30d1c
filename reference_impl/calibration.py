"""calibrate: set router biases so that a chosen share of tokens is kept. In: a converted model and text. Out: the biases, in place.

For benchmarks on random weights: the routers stay random, only the share they keep is set ("calibrated random router").

Shapes: B batch, T tokens, M tokens of one segment over all rows.
"""

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.errors import RoutingError, UnsupportedModelError
from reference_impl.hf_families import decoder_layers
from reference_impl.mod_layer import RoutedLayer
from reference_impl.router import Router
from reference_impl.routing import Routing

COUNT_LEEWAY = 0.02  # share of the target count within which the widest gap between scores is looked for


def bias_for_share(logits_M: Tensor, keep_ratio: float, threshold_p: float) -> float:
    """The bias that keeps round(keep_ratio * M) of M tokens, give or take 2 %, at the widest gap between two scores there.

    Midway between two neighbouring scores, because an exact quantile would put a token precisely at the threshold, where
    rounding decides. Source: our choice.

    Args:
        logits_M: router logits without a bias, float32.
        keep_ratio: share to keep, in [0, 1].
        threshold_p: gate threshold in (0, 1).
    """
    ordered_M = logits_M.sort(descending=True).values.double()
    num_tokens = ordered_M.numel()
    wanted = round(keep_ratio * num_tokens)
    target_logit = math.log(threshold_p / (1 - threshold_p))
    if wanted == 0:
        return target_logit - ordered_M[0].item() - 1.0
    if wanted == num_tokens:
        return target_logit - ordered_M[-1].item() + 1.0
    leeway = int(COUNT_LEEWAY * wanted)
    first, last = max(1, wanted - leeway), min(num_tokens - 1, wanted + leeway)
    gaps = ordered_M[first - 1 : last] - ordered_M[first : last + 1]
    # of equally wide gaps the one nearest the target
    distance = (torch.arange(first, last + 1, device=gaps.device) - wanted).abs()
    best = first + int(torch.argmax(gaps - 1e-12 * distance))
    return target_logit - (ordered_M[best - 1] + ordered_M[best]).item() / 2


class ShareFitter:
    """Sets each router as the calibrating forward reaches it, so later layers see the earlier ones' decisions."""

    def __init__(self, keep_ratio: float, threshold_p: float, prompt_length: int | None) -> None:
        self.keep_ratio = keep_ratio
        self.threshold_p = threshold_p
        self.prompt_length = prompt_length

    def fit(self, router: Router, logits_BT: Tensor, valid_BT: Tensor | None, position_ids: Tensor | None) -> None:
        """Set the bias (and, from position `prompt_length` on, a second one) from this layer's logits."""
        raw_BT = logits_BT - router.bias.detach()
        is_used_BT = torch.ones_like(raw_BT, dtype=torch.bool) if valid_BT is None else valid_BT.expand_as(raw_BT)
        if self.prompt_length is None:
            continuation = None
            bias = bias_for_share(raw_BT[is_used_BT], self.keep_ratio, self.threshold_p)
        else:
            assert position_ids is not None, "decoder layers are always handed their positions"
            is_prompt_BT = (position_ids < self.prompt_length).expand_as(raw_BT)
            bias = bias_for_share(raw_BT[is_used_BT & is_prompt_BT], self.keep_ratio, self.threshold_p)
            rest = bias_for_share(raw_BT[is_used_BT & ~is_prompt_BT], self.keep_ratio, self.threshold_p)
            continuation = (self.prompt_length, rest)
        router.set_bias(bias, continuation)


@torch.no_grad()
def calibrate(
    model: PreTrainedModel, input_ids: Tensor, keep_ratio: float, prompt_length: int | None = None
) -> PreTrainedModel:
    """Set every router's bias so that `keep_ratio` of the tokens of `input_ids` are kept at its layer.

    Args:
        model: a converted model.
        input_ids: (B, T) int64, unpadded.
        keep_ratio: share in [0, 1] per routed layer, over all rows.
        prompt_length: with it, positions below and from it on are calibrated separately, so that prefill and decode of a fixed
            text each keep the share; the second bias is not saved with the model.

    Returns:
        The same model.

    Raises:
        UnsupportedModelError: the model is not converted, or routed layers are offloaded.
        RoutingError: the share is out of range, one of the segments is empty, or the threshold is 0.
    """
    routing = getattr(model, "routing", None)
    if not isinstance(routing, Routing):
        raise UnsupportedModelError(
            f"calibrate: got {type(model).__name__}; expected a converted model: call convert first"
        )
    if routing.config.threshold_p == 0:
        raise RoutingError("threshold_p: got 0, at which every token is kept; calibrate expects a value in (0, 1)")
    if not 0 <= keep_ratio <= 1:
        raise RoutingError(f"keep_ratio: got {keep_ratio}; expected a share in [0, 1]")
    if prompt_length is not None and not 0 < prompt_length < input_ids.shape[1]:
        raise RoutingError(f"prompt_length: got {prompt_length}; expected 1 to {input_ids.shape[1] - 1} for this text")
    for layer in decoder_layers(model):
        if isinstance(layer, RoutedLayer):
            if layer.router.bias.is_meta:
                raise UnsupportedModelError(
                    "calibrate: a routed layer is offloaded; calibrate and save the model first, then load it with device_map"
                )
            layer.router.set_bias(layer.router.bias.item())
    fitter = ShareFitter(keep_ratio, routing.config.threshold_p, prompt_length)
    with routing.fitting(fitter):
        model(input_ids, use_cache=False, logits_to_keep=1)
    return model
