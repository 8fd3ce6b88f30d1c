"""Scenario -> plan: order within quads, identities, looks and pruning."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modbench.errors import ScenarioError
from modbench.plan import Plan, RunSpec, build_plan
from modbench.scenario import load_scenario

BASE = """\
name: x
model: {preset: tiny}
methods:
  threshold: {threshold_p: 0.5, keep_ratio: 0.2}
  dense: {}
workload: {context: 64, prompt: {text: prose.txt}}
measure: {launches: auto}
matrix:
  workload.context: [64, 128]
  workload.batch: [1, 8]
"""
Planner = Callable[..., Plan]


@pytest.fixture
def plan(tmp_path: Path) -> Planner:
    (tmp_path / "prose.txt").write_text("prose")

    def make(text: str = BASE, *overrides: str, device_kind: str = "cpu", name: str = "x.yaml") -> Plan:
        (tmp_path / name).write_text(text)
        return build_plan(load_scenario(tmp_path / name, overrides), "run1", device_kind)

    return make


def order(specs: list[RunSpec]) -> list[str]:
    return [spec.method for spec in specs]


def point_ids(plan: Plan, method: str) -> list[str]:
    return [planned.point_id for cell in plan.cells for planned in cell.methods if planned.method == method]


def with_methods(*labels: str) -> str:
    extra = "".join(f"  {label}: {{method: topk}}\n" for label in labels)
    return BASE.replace("  dense: {}\n", f"  dense: {{}}\n{extra}")


def test_two_methods_run_as_a_b_b_a_with_dense_first(plan: Planner) -> None:
    specs = plan().quads(0, 0, 2)
    assert order(specs) == ["dense", "threshold", "threshold", "dense"] * 2
    assert [(spec.pair.quad, spec.pair.position) for spec in specs[:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]


def test_plan_interleaves_methods_within_a_quad_mirrored_and_rotated(plan: Planner) -> None:
    four = plan(with_methods("a", "b"))
    assert order(four.quads(0, 0, 1)) == ["dense", "threshold", "a", "b", "b", "a", "threshold", "dense"]
    assert order(four.quads(0, 1, 1)) == ["dense", "a", "b", "threshold", "threshold", "b", "a", "dense"]


@pytest.mark.parametrize("quad", [0, 1])
def test_a_linear_drift_cancels_for_every_method(plan: Planner, quad: int) -> None:
    specs = plan(with_methods("a", "b")).quads(0, quad, 1)
    at = {method: [spec.pair.position for spec in specs if spec.method == method] for method in order(specs)}
    for method, positions in at.items():
        drift = sum(own - dense for own, dense in zip(positions, at["dense"], strict=True))
        assert drift == 0, f"{method} is on average as late as dense"


@pytest.mark.parametrize(("launches", "quads"), [(1, 1), (2, 1), (3, 2), (8, 4)])
def test_an_integer_is_that_many_launches_per_method(plan: Planner, launches: int, quads: int) -> None:
    fixed = plan(BASE.replace("auto", str(launches)))
    assert fixed.looks == (quads,)
    specs = fixed.quads(0, 0, 100)
    assert order(specs).count("dense") == order(specs).count("threshold") == launches
    assert fixed.quads(0, quads, 1) == [], "there is nothing past the last quad"


def test_an_odd_number_ends_with_half_a_quad(plan: Planner) -> None:
    assert order(plan(BASE.replace("auto", "3")).quads(0, 1, 1)) == ["dense", "threshold"]


def test_auto_looks_at_8_12_and_20_pairs(plan: Planner) -> None:
    auto = plan()
    assert auto.looks == (4, 6, 10)
    assert order(auto.quads(0, 0, auto.looks[-1])).count("threshold") == 20
    assert auto.quads(0, 4, 2) == auto.quads(0, 0, 6)[16:], "a look continues where the one before stopped"


def test_dense_alone_is_planned(plan: Planner) -> None:
    alone = plan(BASE.replace("  threshold: {threshold_p: 0.5, keep_ratio: 0.2}\n", ""))
    assert order(alone.quads(0, 0, 1)) == ["dense", "dense"]


def test_launch_ids_are_unique_and_repeatable(plan: Planner) -> None:
    text = BASE.replace("workload.batch: [1, 8]", "methods.threshold.keep_ratio: [0.1, 0.2]")
    ids = [spec.launch_id for cell in range(4) for spec in plan(text).quads(cell, 0, 10)]
    assert len(set(ids)) == len(ids) == 4 * 40, (
        "cells that differ in one method's settings do not share launches of dense"
    )
    assert ids[:3] == [spec.launch_id for spec in plan(text).quads(0, 0, 10)[:3]]
    first = plan(text).quads(0, 0, 1)[0]
    assert first.launch_id == f"run1-{first.point.cell_id}-{first.point_id}-dense-q0p0"


SAME_WORK = {
    "renamed": lambda text: text.replace("name: x", "name: y\nquestion: why?"),
    "comment": lambda text: "# hello\n" + text.replace("dense: {}", "dense: {}  # all"),
    "reformatted": lambda text: text.replace(
        "{threshold_p: 0.5, keep_ratio: 0.2}", '\n    "keep_ratio": 0.20\n    threshold_p: .5'),
    "defaults written out": lambda text: text.replace(
        "{preset: tiny}", "{preset: tiny, dtype: float32, weights: random, max_positions: 65536}"
    )
    .replace("threshold_p: 0.5", "threshold_p: 0.5, gate: shared, routed_layers: interleaved")
    .replace("context: 64,", "context: 64, batch: 1, new_tokens: 64, seed: 0,"),
    "layers written out": lambda text: text.replace("threshold_p: 0.5", "routed_layers: [3, 1]"),
    "layers as a fraction": lambda text: text.replace("threshold_p: 0.5", "routed_layers: 0.5"),
    "measured otherwise": lambda text: text.replace(
        "launches: auto", "launches: 6, samples: 9, warmup: 3, timeout_s: 5, memory_limit: 2 GiB, device: cpu"),
    "method added": lambda text: with_methods("a"),
    "expectation added": lambda text: text + 'expect: ["threshold.ttft_s < 5"]\n',
    "methods reordered": lambda text: text.replace("  dense: {}\n", "").replace("methods:\n", "methods:\n  dense:\n"),
}  # fmt: skip


@pytest.mark.parametrize("change", SAME_WORK.values(), ids=SAME_WORK)
def test_what_does_not_change_the_work_changes_no_identity(plan: Planner, change: Callable[[str], str]) -> None:
    changed = change(BASE)
    assert changed != BASE, "the change changes the text"
    before, after = plan(), plan(changed, name="other.yaml")
    for method in ("dense", "threshold"):
        assert point_ids(before, method) == point_ids(after, method)
    assert [cell.cell_id for cell in before.cells] == [cell.cell_id for cell in after.cells]


def test_an_identity_follows_the_prompt_by_content_not_by_place(plan: Planner, tmp_path: Path) -> None:
    before = plan()
    (tmp_path / "moved.txt").write_text("prose")
    assert point_ids(before, "dense") == point_ids(plan(BASE, "workload.prompt.text=moved.txt"), "dense")
    (tmp_path / "prose.txt").write_text("other")
    assert not set(point_ids(before, "dense")) & set(point_ids(plan(), "dense"))


@pytest.mark.parametrize("override", ["methods.threshold.threshold_p=0.6", "methods.threshold.routed_layers=[1]"])
def test_a_method_setting_changes_that_methods_identity_only(plan: Planner, override: str) -> None:
    before, after = plan(), plan(BASE, override)
    assert point_ids(before, "dense") == point_ids(after, "dense")
    assert not set(point_ids(before, "threshold")) & set(point_ids(after, "threshold"))


@pytest.mark.parametrize(
    "override",
    ["model.dtype=bfloat16", "workload.seed=1", "workload.new_tokens=11", "measure.threads=2", "measure.attention=sdpa",
     "model.preset=bench-8x512", "model.max_positions=4096", "workload.prompt={synthetic: true}"],
)  # fmt: skip
def test_what_changes_the_work_changes_every_identity(plan: Planner, override: str) -> None:
    before, after = plan(), plan(BASE, override)
    for method in ("dense", "threshold"):
        assert not set(point_ids(before, method)) & set(point_ids(after, method))


def test_the_kind_of_device_changes_the_identity(plan: Planner) -> None:
    assert not set(point_ids(plan(), "dense")) & set(point_ids(plan(device_kind="cuda"), "dense"))


def test_identities_do_not_depend_on_the_process(plan: Planner, tmp_path: Path) -> None:
    ids = point_ids(plan(), "threshold")
    code = (
        "from pathlib import Path; from modbench.plan import build_plan; from modbench.scenario import load_scenario\n"
        f"plan = build_plan(load_scenario(Path({str(tmp_path / 'x.yaml')!r})), 'r', 'cpu')\n"
        "import json, sys; sys.stdout.write(json.dumps([m.point_id for c in plan.cells for m in c.methods]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(ids) <= set(json.loads(found))


def test_the_work_carries_what_a_worker_opens(plan: Planner, tmp_path: Path) -> None:
    work = plan().quads(0, 0, 1)[1].point
    prompt = work.workload["prompt"]
    assert Path(prompt["text"]).read_text() == "prose"
    assert set(prompt) == {"text", "sha256"}
    assert work.settings["routed_layers"] == [1, 3]
    assert work.geometry.head_dim == 32, "optional sizes are written out"
    assert work.model["weights"] == "random"


def test_a_run_spec_survives_json(plan: Planner) -> None:
    spec = plan().quads(3, 0, 1)[1]
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec


def test_larger_cells_are_of_the_same_series_and_no_axis_smaller(plan: Planner) -> None:
    text = BASE + "  measure.threads: [1, 2]\n"
    planned = plan(text)
    cells = [(*cell.axes.values(),) for cell in planned.cells]
    assert cells[1] == (64, 1, 2)
    assert [cells[index] for index in planned.larger_cells(1)] == [(64, 8, 2), (128, 1, 2), (128, 8, 2)]
    assert [cells[index] for index in planned.larger_cells(cells.index((64, 8, 1)))] == [(128, 8, 1)]
    assert planned.larger_cells(len(cells) - 1) == []


def test_two_cells_of_the_same_work_are_refused(plan: Planner) -> None:
    text = BASE.replace("workload.batch: [1, 8]", "methods.threshold.routed_layers: [interleaved, 0.5]")
    with pytest.raises(ScenarioError, match=r"x\.yaml: matrix: cells 0 and 1 are the same work"):
        plan(text)


def test_planning_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "pandas", "matplotlib"}
    code = f"import sys, modbench.plan; sys.exit(','.join({heavy} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_identity_does_not_know_labels_or_axes(plan: Planner) -> None:
    varied = plan(BASE.replace("workload.batch: [1, 8]", "methods.threshold.keep_ratio: [0.1, 0.2]"))
    dense = point_ids(varied, "dense")
    assert dense[0] == dense[1], "the cells differ in threshold's setting only"
    single = plan(BASE[: BASE.index("matrix")])
    assert point_ids(varied, "threshold")[1] == point_ids(single, "threshold")[0], "0.2 as an axis is 0.2 as a setting"
    renamed = plan(BASE[: BASE.index("matrix")].replace("threshold: {", "mine: {method: threshold, "))
    assert point_ids(renamed, "mine") == point_ids(single, "threshold")
