"""Threshold-p MoDification, the paper's operator: kept tokens alone are computed, stored and attended to."""

from typing import ClassVar

from modbench.methods.routed import RoutedMethod


class Threshold(RoutedMethod):
    """Settings: `threshold_p`, `keep_ratio` (calibrated when given), `routed_layers`, `gate`; or a `checkpoint` that says them."""

    operator: ClassVar[str] = "threshold"
