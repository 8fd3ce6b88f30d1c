"""A reference implementation of MoDification (arXiv 2410.14268): threshold-p Mixture of Depths for Hugging Face models."""

from reference_impl.calibration import calibrate
from reference_impl.config import ModConfig
from reference_impl.convert import convert, load
from reference_impl.errors import ModConfigError, RoutingError, UnsupportedModelError
from reference_impl.kv_cache import ModCache, kv_cache_bytes
from reference_impl.objective import load_reducing
from reference_impl.routing import Decision, RoutingReport

__all__ = [
    "Decision",
    "ModCache",
    "ModConfig",
    "ModConfigError",
    "RoutingError",
    "RoutingReport",
    "UnsupportedModelError",
    "calibrate",
    "convert",
    "kv_cache_bytes",
    "load",
    "load_reducing",
]
