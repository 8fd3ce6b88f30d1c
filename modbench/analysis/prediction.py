"""Kept tokens -> FLOPs and bytes -> time on the device's measured ceilings -> the ideal speed-up.

In: a geometry, a workload, keep ratios per layer and phase, the ceilings. Out: a `Prediction` of one prefill and of
one average decode step. Counted: weights, embeddings, LM head (last position only at prefill), attention, KV cache.
Not counted, because an ideal implementation need not pay for it: routers, packing, norms, activations in memory,
launch gaps. Source: our choice (`docs/measuring.md`, section 5); 2 FLOPs per weight and token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modbench.presets import Geometry

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Ceilings:
    """What this device reached when it did nothing but copy, and nothing but multiply matrices."""

    copy_bytes_per_s: float
    matmul_flops_per_s: float


@dataclass(frozen=True)
class Work:
    """The shape of a launch: model, rows, tokens per row, and the size of an element in memory."""

    geometry: Geometry
    context: int
    batch: int
    new_tokens: int
    bytes_per_element: int


@dataclass(frozen=True)
class Keeping:
    """Kept shares per layer, in [0, 1].

    `prefill`: of prompt tokens; `decode`: of decoded tokens; `decode_any`: of decode steps in which any row was kept.
    """

    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    decode_any: tuple[float, ...]

    @classmethod
    def everything(cls, num_layers: int) -> "Keeping":
        """What a dense model keeps."""
        ones = (1.0,) * num_layers
        return cls(ones, ones, ones)


@dataclass(frozen=True)
class PhasePrediction:
    """One phase: FLOPs, bytes moved, and the sum over operations of max(FLOPs / peak, bytes / bandwidth) in seconds."""

    time_s: float
    flops: float
    bytes_moved: float


@dataclass(frozen=True)
class Prediction:
    """One prefill of the whole batch, and one average decode step of it."""

    prefill: PhasePrediction
    decode: PhasePrediction


@dataclass(frozen=True)
class IdealSpeedup:
    """Predicted dense time / predicted method time, per phase."""

    prefill: float
    decode: float


_Operation = tuple[float, float]  # FLOPs, bytes


def ceilings_from(environment: Mapping[str, Any]) -> Ceilings | None:
    """The ceilings of a record's environment; None where they were not measured."""
    values = environment.get("ceilings")
    if not isinstance(values, Mapping):
        return None
    copy, matmul = values.get("copy_bytes_per_s"), values.get("matmul_flops_per_s")
    if not isinstance(copy, int | float) or not isinstance(matmul, int | float) or copy <= 0 or matmul <= 0:
        return None
    return Ceilings(float(copy), float(matmul))


def keeping_from(
    prefill: Sequence[float], decode: Sequence[float], decode_any: Sequence[float], num_layers: int, batch: int
) -> Keeping | None:
    """Measured ratios as a `Keeping`; None unless both phases have one per layer.

    A missing `decode_any` is taken as 1 - (1 - r)^batch: rows decide independently.
    """
    if len(prefill) != num_layers or len(decode) != num_layers:
        return None
    if len(decode_any) != num_layers:
        decode_any = [1 - (1 - ratio) ** batch for ratio in decode]
    return Keeping(tuple(prefill), tuple(decode), tuple(decode_any))


def predict(work: Work, keeping: Keeping, ceilings: Ceilings) -> Prediction:
    """Time, FLOPs and bytes of both phases.

    Raises:
        ValueError: the number of keep ratios is not the number of layers.
    """
    num_layers = work.geometry.num_hidden_layers
    sizes = {len(keeping.prefill), len(keeping.decode), len(keeping.decode_any)}
    if sizes != {num_layers}:
        raise ValueError(f"got keep ratios of {sorted(sizes)} layers; expected {num_layers}")
    prefill = _ends(work, tokens=work.context * work.batch)
    for ratio in keeping.prefill:
        prefill += _prefill_layer(work, ratio)
    decode = _ends(work, tokens=work.batch)
    for prefill_ratio, ratio, any_ratio in zip(keeping.prefill, keeping.decode, keeping.decode_any, strict=True):
        decode += _decode_layer(work, prefill_ratio, ratio, any_ratio)
    return Prediction(_phase(prefill, ceilings), _phase(decode, ceilings))


def ideal_speedup(work: Work, keeping: Keeping, ceilings: Ceilings) -> IdealSpeedup:
    """How much faster than dense a perfect implementation of these keep ratios would be on this device."""
    dense = predict(work, Keeping.everything(work.geometry.num_hidden_layers), ceilings)
    method = predict(work, keeping, ceilings)
    return IdealSpeedup(dense.prefill.time_s / method.prefill.time_s, dense.decode.time_s / method.decode.time_s)


def kv_cache_bytes_expected(work: Work, keeping: Keeping) -> float:
    """Bytes that the kept tokens of a finished launch occupy.

    Cached are the prompt and all decoded tokens but the last one, which is never fed.
    """
    per_layer_token = work.geometry.kv_bytes_per_token(work.bytes_per_element) / work.geometry.num_hidden_layers
    kept = sum(
        prefill * work.context + decode * (work.new_tokens - 1)
        for prefill, decode in zip(keeping.prefill, keeping.decode, strict=True)
    )
    return per_layer_token * work.batch * kept


def _ends(work: Work, tokens: int) -> list[_Operation]:
    """Embedding rows of `tokens`, and the LM head on one position per row."""
    geometry, element = work.geometry, work.bytes_per_element
    head = geometry.vocab_size * geometry.hidden_size
    logits = work.batch * geometry.vocab_size
    return [
        (0.0, tokens * geometry.hidden_size * element),
        (2.0 * head * work.batch, (head + logits) * element),
    ]


def _prefill_layer(work: Work, ratio: float) -> list[_Operation]:
    geometry, element = work.geometry, work.bytes_per_element
    kept = ratio * work.context
    rows_kept = kept * work.batch
    is_read = 1.0 if kept > 0 else 0.0
    width = geometry.num_attention_heads * geometry.size_per_head
    kv_bytes = 2 * geometry.kv_heads * geometry.size_per_head * element * rows_kept
    return [
        (2.0 * geometry.attention_parameters * rows_kept, geometry.attention_parameters * element * is_read + kv_bytes),
        (2 * 2.0 * width * kept * (kept + 1) / 2 * work.batch, kv_bytes),
        (2.0 * geometry.mlp_parameters * rows_kept, geometry.mlp_parameters * element * is_read),
    ]


def _decode_layer(work: Work, prefill_ratio: float, ratio: float, any_ratio: float) -> list[_Operation]:
    """An average step: `ratio * batch` rows are kept and attend to the keys that their own row keeps by then."""
    geometry, element = work.geometry, work.bytes_per_element
    rows_kept = ratio * work.batch
    keys = prefill_ratio * work.context + ratio * work.new_tokens / 2
    width = geometry.num_attention_heads * geometry.size_per_head
    kv_bytes = 2 * geometry.kv_heads * geometry.size_per_head * element * rows_kept
    return [
        (
            2.0 * geometry.attention_parameters * rows_kept,
            geometry.attention_parameters * element * any_ratio + kv_bytes,
        ),
        (2 * 2.0 * width * keys * rows_kept, kv_bytes * keys),
        (2.0 * geometry.mlp_parameters * rows_kept, geometry.mlp_parameters * element * any_ratio),
    ]


def _phase(operations: Sequence[_Operation], ceilings: Ceilings) -> PhasePrediction:
    time_s = sum(
        max(flops / ceilings.matmul_flops_per_s, moved / ceilings.copy_bytes_per_s) for flops, moved in operations
    )
    return PhasePrediction(time_s, sum(flops for flops, _ in operations), sum(moved for _, moved in operations))
