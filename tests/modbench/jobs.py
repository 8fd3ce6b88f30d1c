"""Small jobs for the tests of worker, guard and executor."""

from pathlib import Path
from typing import Any

from modbench.job import Job
from modbench.plan import Pair, PointWork, RunSpec
from modbench.presets import Geometry

MICRO = Geometry(
    num_hidden_layers=4,
    hidden_size=48,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=300,
    max_position_embeddings=512,
)
# One small model per family, with a window of 8 where the family can have one: much shorter than the texts of the tests.
FAMILY_MICRO: dict[str, Geometry] = {
    family: Geometry.model_validate({**MICRO.model_dump(), "model_type": family, **changes})
    for family, changes in {
        "llama": {},
        "mistral": {"sliding_window": 8},
        "qwen2": {"sliding_window": 8, "layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2},
        "qwen3": {"head_dim": 16},
        "phi3": {"sliding_window": 8},
        "olmo2": {},
        "gemma2": {"sliding_window": 8, "head_dim": 16, "tie_word_embeddings": True},
        "gemma3_text": {
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
        },
    }.items()
}
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {"kv_cache": "stock"},
    "threshold": {"threshold_p": 0.5, "keep_ratio": 0.25, "routed_layers": [1, 3], "gate": "shared"},
    "topk": {"capacity": 0.25, "routed_layers": [1, 3], "gate": "shared"},
    "skip_layers": {"routed_layers": [1, 3], "kv_cache": "stock"},
    "masked": {"threshold_p": 0.5, "keep_ratio": 0.25, "routed_layers": [1, 3], "gate": "shared"},
    "kv_only": {"threshold_p": 0.5, "keep_ratio": 0.25, "routed_layers": [1, 3], "gate": "shared"},
}


def make_point(settings: dict[str, Any], **changes: Any) -> PointWork:
    workload = {"context": 64, "batch": 2, "new_tokens": 17, "seed": 0, "prompt": {"synthetic": True}}
    fields: dict[str, Any] = {
        "cell_id": "cell",
        "axes": {},
        "model": {"weights": "random", "path": None},
        "geometry": MICRO,
        "settings": settings,
        "workload": workload,
        "dtype": "float32",
        "device_kind": "cpu",
        "attention": "auto",
        "threads": 1,
    }
    return PointWork(**{**fields, **changes})


def make_job(tmp_path: Path, kind: str, job_kind: str = "launch", **changes: Any) -> Job:
    """A job for a method kind; `settings=` and `workload=` change the point, `allow_entry=` the job."""
    settings = changes.pop("settings", None) or SETTINGS[kind]
    allow_entry = changes.pop("allow_entry", True)
    spec = RunSpec(
        launch_id="launch",
        run_id="run",
        point_id="point",
        method=kind,
        kind=kind,
        point=make_point(settings, **changes),
        measure={"samples": 2, "warmup": 1},
        pair=Pair(quad=0, position=0),
    )
    return Job(
        kind=job_kind,
        spec=spec,
        device="cpu",
        allow_entry=allow_entry,
        result_path=str(tmp_path / "result.json"),
        progress_path=str(tmp_path / "progress.json"),
    )


def entry_job(tmp_path: Path, factory: str, job_kind: str = "launch", **options: Any) -> Job:
    """A job for a factory of tests/modbench/subjects.py."""
    settings = {"entry": f"tests.modbench.subjects:{factory}", "options": options}
    return make_job(tmp_path, "entry", job_kind, settings=settings)
