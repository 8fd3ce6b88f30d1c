"""Control: threshold-p decisions, everything computed, kept keys alone stored: the memory saving without the compute saving."""

from typing import ClassVar

from modbench.methods.routed import RoutedMethod


class KvOnly(RoutedMethod):
    """Settings: `threshold_p`, `keep_ratio` (calibrated when given), `routed_layers`, `gate`; or a `checkpoint` that says them."""

    operator: ClassVar[str] = "kv_only"
