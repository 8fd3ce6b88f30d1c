"""Top-k MoD as published: the `capacity` share with the highest scores per sequence at prefill, a causal predictor at decode.

At decode the future is not there to rank against. The predictor is the router's own threshold, calibrated on the continuation
to the same share (our choice; MoD proposes a predictor trained for it).
"""

from collections.abc import Mapping
from typing import ClassVar

from modbench.methods.base import CAUSAL, DECODE_EQUALS_FULL
from modbench.methods.checkpoint import CHECKPOINT
from modbench.methods.routed import RoutedMethod


class Topk(RoutedMethod):
    """Settings: `capacity`, `routed_layers`, `gate`; or a `checkpoint` that says them."""

    operator: ClassVar[str] = "topk"
    declared: ClassVar[Mapping[str, str]] = {
        DECODE_EQUALS_FULL: "ranks within the prompt at prefill, predicts at decode",
        CAUSAL: "a token's rank depends on later tokens",
    }

    def target_keep_ratio(self) -> float | None:
        """`capacity`: prefill keeps ceil(capacity * tokens) by construction, decode is calibrated to it.

        A checkpoint has no target: its predictor is what its training made it.
        """
        return None if CHECKPOINT in self.settings else self.settings["capacity"]
