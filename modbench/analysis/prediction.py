"""Kept tokens -> FLOPs and bytes -> time on the device's measured ceilings -> the ideal speed-up.

In: a model's shape, a workload, what is computed and stored per layer and phase, the ceilings. Out: a `Prediction` of one
prefill and of one average decode step. Counted: weights, embeddings, LM head (last position only at prefill), attention, KV cache.
Not counted, because an ideal implementation need not pay for it: routers, packing, norms, activations in memory,
launch gaps. Source: our choice (`docs/measuring.md`, section 5); 2 FLOPs per weight and token.

**Windows.** A window of W lets a query see W original positions, itself included, so of stored tokens that are spread evenly
with ratio r it sees r * min(position, W). Cached are the stored ones of the last W - 1 positions, all that a next query can see.

**Experts.** A token computes its k of E experts. Of their weights a phase reads the distinct ones that its computed tokens are
expected to pass, `Experts.num_read`: E * (1 - (1 - r * k / E)^tokens), at most E.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from modbench.geometry import Geometry
from modbench.model_shape import LayerShape, ModelShape

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

    geometry: Geometry | ModelShape
    context: int
    batch: int
    new_tokens: int
    bytes_per_element: int

    @cached_property
    def shape(self) -> ModelShape:
        """The model, layer by layer."""
        return self.geometry.shape()


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


@dataclass(frozen=True)
class _Load:
    """What a phase asks of one layer.

    Attributes:
        rows: tokens computed.
        weights_read: how often the weights that all tokens share are read.
        experts_read: distinct routed experts whose weights are read.
        pairs: (query, key) pairs of attention.
        kv_written, kv_read: bytes of keys and values.
    """

    rows: float
    weights_read: float
    experts_read: float
    pairs: float
    kv_written: float
    kv_read: float


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
    for index in range(num_layers):
        prefill += _prefill_layer(work, keeping, index)
        decode += _decode_layer(work, keeping, index)
    return Prediction(_phase(prefill, ceilings), _phase(decode, ceilings))


def ideal_speedup(work: Work, keeping: Keeping, ceilings: Ceilings) -> IdealSpeedup:
    """How much faster than dense a perfect implementation of this keeping would be on this device."""
    dense = predict(work, Keeping.everything(work.geometry.num_hidden_layers), ceilings)
    method = predict(work, keeping, ceilings)
    return IdealSpeedup(dense.prefill.time_s / method.prefill.time_s, dense.decode.time_s / method.decode.time_s)


def kv_cache_bytes_expected(work: Work, keeping: Keeping) -> float:
    """Bytes that the stored tokens of a finished launch occupy: the prompt and all decoded tokens but the last one, never fed."""
    return sum(stored_bytes(work, keeping, work.new_tokens - 1))


def stored_bytes(work: Work, keeping: Keeping, num_decoded: int) -> list[float]:
    """Bytes of each layer's cached keys and values after `num_decoded` steps; behind a window of W, of the last W - 1 positions."""
    stored = keeping.stored
    found = []
    for layer, prefill, decode in zip(work.shape.layers, stored.prefill, stored.decode, strict=True):
        reach = None if layer.window is None else layer.window - 1
        prompt, decoded = _positions_within(reach, work.context, num_decoded)
        found.append(work.bytes_per_element * work.batch * layer.kv_width * (prefill * prompt + decode * decoded))
    return found


def _positions_within(reach: int | None, prompt: int, decoded: float) -> tuple[float, float]:
    """Of the last `reach` positions (None: of all), those of the prompt and the decoded ones behind it."""
    if reach is None:
        return prompt, decoded
    recent = min(decoded, reach)
    return min(prompt, reach - recent), recent


def _ends(work: Work, tokens: int) -> list[_Operation]:
    """Embedding rows of `tokens`, and the LM head on one position per row."""
    shape, element = work.shape, work.bytes_per_element
    head = shape.vocab_size * shape.hidden_size
    logits = work.batch * shape.vocab_size
    return [
        (0.0, tokens * shape.hidden_size * element),
        (2.0 * head * work.batch, (head + logits) * element),
    ]


def _prefill_layer(work: Work, keeping: Keeping, index: int) -> list[_Operation]:
    """Computed tokens attend to the stored ones before them, within the window; keys are spread evenly over the prompt.

    Every stored key is written and read once, also one that no later query will see.
    """
    layer, computed, stored = work.shape.layers[index], keeping.computed.prefill[index], keeping.stored.prefill[index]
    seen = work.context if layer.window is None else min(work.context, layer.window)
    growing = stored * seen * (computed * seen + 1) / 2  # pairs of the queries whose view no window cuts
    sliding = computed * (work.context - seen) * (stored * seen)
    kv_bytes = layer.kv_width * work.bytes_per_element * (stored * work.context) * work.batch
    load = _Load(
        rows=computed * work.context * work.batch,
        weights_read=1.0 if computed > 0 else 0.0,
        experts_read=_num_experts_read(layer, work.context * work.batch, computed),
        pairs=(growing + sliding) * work.batch,
        kv_written=kv_bytes,
        kv_read=kv_bytes,
    )
    return _operations(layer, load, work.bytes_per_element)


def _decode_layer(work: Work, keeping: Keeping, index: int) -> list[_Operation]:
    """The step in the middle: the computed share of rows attends to the keys that their own row stores by then."""
    layer, computed, stored = work.shape.layers[index], keeping.computed.decode[index], keeping.stored
    prompt, decoded = _positions_within(layer.window, work.context, work.new_tokens / 2)
    keys = stored.prefill[index] * prompt + stored.decode[index] * decoded
    kv_bytes = layer.kv_width * work.bytes_per_element
    rows = computed * work.batch
    load = _Load(
        rows=rows,
        weights_read=keeping.computed.decode_any[index],
        experts_read=_num_experts_read(layer, work.batch, computed),
        pairs=keys * rows,
        kv_written=kv_bytes * stored.decode[index] * work.batch,
        kv_read=kv_bytes * keys * rows,
    )
    return _operations(layer, load, work.bytes_per_element)


def _operations(layer: LayerShape, load: _Load, element: int) -> list[_Operation]:
    """Projections with the write of keys and values, attention, MLP."""
    attention, mlp, experts = layer.attention_parameters, layer.mlp_parameters, layer.experts
    expert_rows, expert_weights = (experts.num_per_token, experts.parameters) if experts else (0, 0)
    mlp_bytes = mlp * element * load.weights_read + expert_weights * element * load.experts_read
    return [
        (2.0 * attention * load.rows, attention * element * load.weights_read + load.kv_written),
        (2 * 2.0 * layer.attention_width * load.pairs, load.kv_read),
        (2.0 * (mlp + expert_rows * expert_weights) * load.rows, mlp_bytes),
    ]


def _num_experts_read(layer: LayerShape, num_tokens: int, share: float) -> float:
    return layer.experts.num_read(num_tokens, share) if layer.experts else 0.0


def _phase(operations: Sequence[_Operation], ceilings: Ceilings) -> PhasePrediction:
    time_s = sum(
        max(flops / ceilings.matmul_flops_per_s, moved / ceilings.copy_bytes_per_s) for flops, moved in operations
    )
    return PhasePrediction(time_s, sum(flops for flops, _ in operations), sum(moved for _, moved in operations))
