"""Quality of converted and of dense models, offline: held-out bits per byte, retrieval, copying, agreement with a teacher."""

from reference_impl.evaluation.agreement import Agreement, agreement
from reference_impl.evaluation.bits_per_byte import HeldOutScore, PositionBucket, bits_per_byte, paired_difference
from reference_impl.evaluation.evaluate import PROBES, EvaluationSettings, evaluate
from reference_impl.evaluation.induction import InductionScore, induction
from reference_impl.evaluation.keep_behaviour import KeepBehaviour, KeptGroup, LayerPair, keep_behaviour
from reference_impl.evaluation.kept import KvCacheSize, kv_cache_size
from reference_impl.evaluation.needle import NeedleScore, needle
from reference_impl.evaluation.results import Evaluation, write_evaluation
from reference_impl.evaluation.text_windows import text_windows

__all__ = [
    "PROBES",
    "Agreement",
    "Evaluation",
    "EvaluationSettings",
    "HeldOutScore",
    "InductionScore",
    "KeepBehaviour",
    "KeptGroup",
    "KvCacheSize",
    "LayerPair",
    "NeedleScore",
    "PositionBucket",
    "agreement",
    "bits_per_byte",
    "evaluate",
    "induction",
    "keep_behaviour",
    "kv_cache_size",
    "needle",
    "paired_difference",
    "text_windows",
    "write_evaluation",
]
