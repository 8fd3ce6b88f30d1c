"""Runs of a scenario with claims, as files, for the tests of the scoreboard. Test data: no number here was measured."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from modbench.plan import build_plan
from modbench.record import RECORDS_FILE, KeepRatios, Record
from modbench.run_folder import RUN_FILE
from modbench.scenario import LoadedScenario, load_scenario
from tests.modbench.record_factory import make_record

CLAIMS = """\
name: claims-8x512
question: Does the paper's promise hold for a small model?
model: {preset: bench-8x512, dtype: float32, weights: random}
methods:
  dense: {}
  threshold: {threshold_p: 0.5, keep_ratio: 0.111, routed_layers: interleaved}
workload: {context: 1024, batch: 1, new_tokens: 37, prompt: {synthetic: true}, seed: 0}
matrix: {workload.context: [1024, 4096]}
expect:
  - "threshold.kv_cache_reduction >= 1.78"
  - "threshold.prefill_speedup >= 1.2"
  - "threshold.decode_speedup >= 1.5"
"""


def write_claims(folder: Path, text: str = CLAIMS, name: str = "small.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def records_of(
    loaded: LoadedScenario, num_quads: int = 4, contexts: Sequence[int] = (1024, 4096), device_kind: str = "cpu"
) -> list[Record]:
    """Whole quads of every point with such a context: prefill 1.78 times as fast as dense, decode 1.4 times, KV cache 1.80."""
    plan = build_plan(loaded, "run-1", device_kind)
    records = []
    for index, cell in enumerate(plan.cells):
        for spec in plan.quads(index, 0, num_quads) if cell.axes["workload.context"] in contexts else []:
            quad, position = spec.pair.quad, spec.pair.position
            record = make_record(
                spec.method,
                quad=quad,
                context=cell.axes["workload.context"],
                wobble=0.004 * ((7 * quad + 3 * position) % 5 - 2) / 2,
                launch_id=spec.launch_id,
                point_id=spec.point_id,
                point=spec.point,
                pair=spec.pair,
            )
            layers = spec.point.geometry.num_hidden_layers
            kept = {phase: ratios[:layers] for phase, ratios in record.keep_ratio}
            records.append(record.model_copy(update={"keep_ratio": KeepRatios(**kept)}))
    return records


def write_run(
    folder: Path,
    scenario: Path,
    overrides: Sequence[str] = (),
    change: Callable[[Record], Record] = lambda record: record,
    **settings,
) -> Path:
    """A run's folder of the scenario with these overrides; `change` is put on every record."""
    loaded = load_scenario(scenario, overrides)
    folder.mkdir(parents=True)
    records = [change(record) for record in records_of(loaded, **settings)]
    (folder / RECORDS_FILE).write_text("".join(record.model_dump_json() + "\n" for record in records))
    facts = {
        "run_id": "run-1",
        "name": loaded.scenario.name,
        "question": loaded.scenario.question,
        "methods": {label: method.method for label, method in loaded.scenario.methods.items()},
        "expect": loaded.scenario.expect,
        "overrides": list(overrides),
        "command": "modbench run",
    }
    (folder / RUN_FILE).write_text(json.dumps(facts))
    return folder
