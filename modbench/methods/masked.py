"""Control, peer-style: threshold-p decisions, everything computed and stored, what is skipped is zeroed. Saves nothing."""

from typing import ClassVar

from modbench.methods.routed import RoutedMethod


class Masked(RoutedMethod):
    """Settings: `threshold_p`, `keep_ratio` (calibrated when given), `routed_layers`, `gate`; or a `checkpoint` that says them."""

    operator: ClassVar[str] = "masked"
