"""Makes realistic records for the tests of record, analysis and report. Test data: no number here was measured."""

from typing import Any

from modbench.plan import Pair, PointWork
from modbench.presets import PRESETS
from modbench.record import KeepRatios, Record, Samples

GEOMETRY = PRESETS["bench-8x512"]
ROUTED = [1, 3, 5, 7]
ENVIRONMENT = {
    "git": {"sha": "0123456789ab", "is_dirty": False},
    "machine": {"cpu": "Example CPU @ 2.0 GHz", "num_cores": 8, "ram_bytes": 32 * 2**30},
    "versions": {"python": "3.11.9", "torch": "2.11.0"},
    "ceilings": {"copy_bytes_per_s": 1.2e10, "matmul_flops_per_s": 9.0e10},
}
SPEED = {"dense": (1.0, 1.0), "threshold": (1 / 1.78, 1 / 1.4), "masked": (1.05, 1.02), "skip_layers": (0.53, 0.6)}
KEEP = {"threshold": 0.11, "masked": 0.11, "skip_layers": 0.0}
ORDER = ("dense", "threshold", "masked", "skip_layers")


def make_record(
    method: str = "dense",
    *,
    quad: int = 0,
    half: int = 0,
    methods: tuple[str, ...] = ("dense", "threshold"),
    context: int = 1024,
    batch: int = 1,
    wobble: float = 0.0,
    **changes: Any,
) -> Record:
    """One `ok` launch of `method` in a mirrored quad of `methods`; `changes` replace fields of the record."""
    index = methods.index(method)
    position = index if half == 0 else 2 * len(methods) - 1 - index
    kind = method if method in SPEED else "entry"
    prefill_factor, decode_factor = SPEED.get(method, (0.9, 0.9))
    factor = 1 + wobble + 0.002 * half
    ttft = 1e-3 * context * batch * prefill_factor * factor
    tpot = (4e-3 + 2e-6 * context) * decode_factor * factor
    keep = KEEP.get(method, 1.0)
    layers = [keep if layer in ROUTED else 1.0 for layer in range(GEOMETRY.num_hidden_layers)]
    per_token = GEOMETRY.kv_bytes_per_token(4) / GEOMETRY.num_hidden_layers
    stored = [1.0] * len(layers) if kind == "masked" else layers
    kv_bytes = round(sum(stored) * per_token * (context + 15) * batch)
    fields: dict[str, Any] = {
        "launch_id": f"{method}-{context}-{batch}-{quad}-{half}",
        "run_id": "run-1",
        "point_id": f"point-{method}-{context}-{batch}",
        "method": method,
        "kind": kind,
        "status": "ok",
        "phase": "done",
        "point": make_point(kind, method in KEEP, context, batch),
        "pair": Pair(quad=quad, position=position),
        "samples": Samples(
            ttft_s=[ttft * (1 + step) for step in (0.0, 0.004, 0.002, 0.03, 0.001)],
            tpot_s=[tpot * (1 + step) for step in (0.0, 0.001, 0.003, 0.05, 0.002)],
            itl_s=[tpot * (1 + 0.001 * (gap % 7)) for gap in range(75)],
        ),
        "metrics": {
            "kv_cache_bytes": kv_bytes,
            "kv_cache_allocated_bytes": round(kv_bytes * 1.05),
            "peak_rss_bytes": 400 * 2**20 + 3 * kv_bytes,
            "wall_cpu_ratio": 1.01,
        },
        "keep_ratio": KeepRatios(prefill=layers, decode=layers, decode_any=layers),
        "guard": {"decode_equals_forward": "passed", "causal": "passed"},
        "flags": ["calibrated random router"] if keep not in (0.0, 1.0) else [],
        "environment": ENVIRONMENT,
    }
    return Record(**{**fields, **changes})


def make_point(kind: str, is_routed: bool, context: int, batch: int) -> PointWork:
    """The point of a record of this method kind."""
    settings: dict[str, Any] = {"method": kind, **({"routed_layers": ROUTED} if is_routed else {})}
    return PointWork(
        cell_id=f"cell-{context}-{batch}",
        axes={"workload.context": context},
        model={"preset": "bench-8x512", "dtype": "float32"},
        geometry=GEOMETRY,
        settings=settings,
        workload={"context": context, "batch": batch, "new_tokens": 16, "prompt": {"synthetic": True}, "seed": 0},
        dtype="float32",
        device_kind="cpu",
        attention="sdpa",
        threads=1,
    )


def make_quads(
    num_quads: int = 1,
    methods: tuple[str, ...] = ("dense", "threshold"),
    contexts: tuple[int, ...] = (1024,),
    noise: float = 0.004,
) -> list[Record]:
    """Whole quads of every context, in a run's order; `noise` sways the launches, always in the same way."""
    records = []
    for context in contexts:
        for quad in range(num_quads):
            for half in (0, 1):
                order = methods if half == 0 else methods[::-1]
                for index, method in enumerate(order):
                    wobble = noise * ((7 * quad + 3 * half + index * (2 * quad + 3)) % 5 - 2) / 2
                    records.append(
                        make_record(method, quad=quad, half=half, methods=methods, context=context, wobble=wobble)
                    )
    return records


def failed(record: Record, status: str = "oom", phase: str = "prefill", error: str = "out of memory") -> Record:
    """The same launch as a failure without samples."""
    return record.model_copy(
        update={
            "status": status,
            "phase": phase,
            "error": error,
            "samples": Samples(),
            "metrics": {"peak_rss_bytes": 2**30},
        }
    )
