"""Kept tokens -> FLOPs and bytes -> time on the device's measured ceilings -> the ideal speed-up.

In: a geometry, a workload, what is computed and stored per layer and phase, the ceilings. Out: a `Prediction` of one
prefill and of one average decode step. Counted: weights, embeddings, LM head (last position only at prefill), attention, KV cache.
Not counted, because an ideal implementation need not pay for it: routers, packing, norms, activations in memory,
launch gaps. Source: our choice (`docs/measuring.md`, section 5); 2 FLOPs per weight and token.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modbench.presets import Geometry

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
Saving = Literal["compute", "storage"]
EVERY_SAVING: tuple[Saving, ...] = ("compute", "storage")
# What a kind of method saves by not keeping a token, where it is not both: the controls, which an ideal must not credit
# with work that they do on purpose. A record carries its kind, so this is data about records, not a choice of code.
SAVES: dict[str, tuple[Saving, ...]] = {"masked": (), "kv_only": ("storage",)}


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
class Shares:
    """Shares per layer, in [0, 1].

    `prefill`: of prompt tokens; `decode`: of decoded tokens; `decode_any`: of decode steps with at least one row.
    """

    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    decode_any: tuple[float, ...]

    @classmethod
    def everything(cls, num_layers: int) -> "Shares":
        """All tokens at every layer."""
        ones = (1.0,) * num_layers
        return cls(ones, ones, ones)


@dataclass(frozen=True)
class Keeping:
    """What a method does with its tokens: `computed` ones are projected, attend and pass the MLP; the keys and values of
    `stored` ones are cached and attended to."""

    computed: Shares
    stored: Shares

    @classmethod
    def everything(cls, num_layers: int) -> "Keeping":
        """What a dense model does."""
        return cls(Shares.everything(num_layers), Shares.everything(num_layers))

    @classmethod
    def of(cls, kept: Shares, saves: Collection[Saving] = EVERY_SAVING) -> "Keeping":
        """What follows from the kept shares where only some of the savings are made."""
        everything = Shares.everything(len(kept.prefill))
        return cls(kept if "compute" in saves else everything, kept if "storage" in saves else everything)


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


def shares_from(
    prefill: Sequence[float], decode: Sequence[float], decode_any: Sequence[float], num_layers: int, batch: int
) -> Shares | None:
    """Measured keep ratios as `Shares`; None unless both phases have one per layer.

    A missing `decode_any` is taken as 1 - (1 - r)^batch: rows decide independently.
    """
    if len(prefill) != num_layers or len(decode) != num_layers:
        return None
    if len(decode_any) != num_layers:
        decode_any = [1 - (1 - ratio) ** batch for ratio in decode]
    return Shares(tuple(prefill), tuple(decode), tuple(decode_any))


def predict(work: Work, keeping: Keeping, ceilings: Ceilings) -> Prediction:
    """Time, FLOPs and bytes of both phases.

    Raises:
        ValueError: the number of keep ratios is not the number of layers.
    """
    num_layers = work.geometry.num_hidden_layers
    both = (keeping.computed, keeping.stored)
    sizes = {len(ratios) for shares in both for ratios in (shares.prefill, shares.decode, shares.decode_any)}
    if sizes != {num_layers}:
        raise ValueError(f"got keep ratios of {sorted(sizes)} layers; expected {num_layers}")
    prefill = _ends(work, tokens=work.context * work.batch)
    decode = _ends(work, tokens=work.batch)
    for layer in range(num_layers):
        prefill += _prefill_layer(work, keeping, layer)
        decode += _decode_layer(work, keeping, layer)
    return Prediction(_phase(prefill, ceilings), _phase(decode, ceilings))


def ideal_speedup(work: Work, keeping: Keeping, ceilings: Ceilings) -> IdealSpeedup:
    """How much faster than dense a perfect implementation of this keeping would be on this device."""
    dense = predict(work, Keeping.everything(work.geometry.num_hidden_layers), ceilings)
    method = predict(work, keeping, ceilings)
    return IdealSpeedup(dense.prefill.time_s / method.prefill.time_s, dense.decode.time_s / method.decode.time_s)


def kv_cache_bytes_expected(work: Work, keeping: Keeping) -> float:
    """Bytes that the stored tokens of a finished launch occupy.

    Cached are the prompt and all decoded tokens but the last one, which is never fed.
    """
    per_layer_token = work.geometry.kv_bytes_per_token(work.bytes_per_element) / work.geometry.num_hidden_layers
    kept = sum(
        prefill * work.context + decode * (work.new_tokens - 1)
        for prefill, decode in zip(keeping.stored.prefill, keeping.stored.decode, strict=True)
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


def _prefill_layer(work: Work, keeping: Keeping, layer: int) -> list[_Operation]:
    """Computed tokens attend to the stored ones before them; keys are spread evenly over the prompt."""
    queries, keys = keeping.computed.prefill[layer] * work.context, keeping.stored.prefill[layer] * work.context
    pairs = keys * (queries + 1) / 2 * work.batch
    kv_bytes = _kv_bytes_per_token(work) * keys * work.batch
    return _layer(work, queries * work.batch, 1.0 if queries > 0 else 0.0, pairs, kv_bytes, kv_bytes)


def _decode_layer(work: Work, keeping: Keeping, layer: int) -> list[_Operation]:
    """An average step: the computed share of rows attends to the keys that their own row stores by then."""
    rows = keeping.computed.decode[layer] * work.batch
    stored = keeping.stored
    keys = stored.prefill[layer] * work.context + stored.decode[layer] * work.new_tokens / 2
    kv_bytes = _kv_bytes_per_token(work)
    written = kv_bytes * stored.decode[layer] * work.batch
    return _layer(work, rows, keeping.computed.decode_any[layer], keys * rows, written, kv_bytes * keys * rows)


def _layer(
    work: Work, rows: float, weights_read: float, pairs: float, kv_written: float, kv_read: float
) -> list[_Operation]:
    """Projections with the write of keys and values, attention over (query, key) pairs, MLP."""
    geometry, element = work.geometry, work.bytes_per_element
    width = geometry.num_attention_heads * geometry.size_per_head
    attention, mlp = geometry.attention_parameters, geometry.mlp_parameters
    return [
        (2.0 * attention * rows, attention * element * weights_read + kv_written),
        (2 * 2.0 * width * pairs, kv_read),
        (2.0 * mlp * rows, mlp * element * weights_read),
    ]


def _kv_bytes_per_token(work: Work) -> int:
    return 2 * work.geometry.kv_heads * work.geometry.size_per_head * work.bytes_per_element


def _phase(operations: Sequence[_Operation], ceilings: Ceilings) -> PhasePrediction:
    time_s = sum(
        max(flops / ceilings.matmul_flops_per_s, moved / ceilings.copy_bytes_per_s) for flops, moved in operations
    )
    return PhasePrediction(time_s, sum(flops for flops, _ in operations), sum(moved for _, moved in operations))
