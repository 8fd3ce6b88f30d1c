"""A scenario file -> LoadedScenario: what is accepted and what is resolved."""

import hashlib
from pathlib import Path

from tests.modbench.test_scenario_example import BASE, changed, load


def test_cells_come_with_the_first_axis_slowest(tmp_path: Path) -> None:
    points = load(tmp_path).points
    sizes = [(point.workload.context, point.workload.batch) for point in points]
    assert sizes == [(64, 1), (64, 2), (128, 1), (128, 2)]
    assert points[2].axes == {"workload.context": 128, "workload.batch": 1}


def test_a_scenario_without_a_matrix_has_one_cell(tmp_path: Path) -> None:
    assert [point.axes for point in load(tmp_path, BASE[: BASE.index("matrix")]).points] == [{}]


def test_an_axis_can_make_a_section_that_the_file_left_out(tmp_path: Path) -> None:
    text = changed("measure: {launches: 4}\n", "").replace("workload.context: [64, 128]", "measure.threads: [1, 2]")
    assert [point.measure.threads for point in load(tmp_path, text).points] == [1, 1, 2, 2]


def test_a_method_is_named_by_its_key_or_inside(tmp_path: Path) -> None:
    text = changed("  threshold:", "  threshold_p055: {method: threshold, threshold_p: 0.55}\n  threshold:")
    methods = load(tmp_path, text).scenario.methods
    assert [(label, method.method) for label, method in methods.items()] == [
        ("dense", "dense"),
        ("threshold_p055", "threshold"),
        ("threshold", "threshold"),
    ]


def test_the_text_is_kept_with_its_hash(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.text == BASE
    assert loaded.text_sha256 == hashlib.sha256(BASE.encode()).hexdigest()
