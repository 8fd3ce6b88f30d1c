"""What differs in the work of two sides. Test data: no number here was measured."""

from typing import Any

from modbench.analysis.matching import differing_work
from modbench.analysis.same_work import fields_text
from modbench.analysis.work_differences import work_differences
from modbench.plan import build_plan
from modbench.record import Record, Trial
from tests.modbench.record_factory import GEOMETRY, make_quads
from tests.modbench.side_factory import make_side
from tests.modbench.test_scenario_example import load
from tests.modbench.test_scenario_geometry import CONFIG, model_folder


def with_point(records: list[Record], **fields: Any) -> list[Record]:
    return [
        record.model_copy(
            update={"point_id": f"other-{record.point_id}", "point": record.point.model_copy(update=fields)}
        )
        for record in records
    ]


def told(base: list[Record], candidate: list[Record]) -> dict[str, tuple[Any, Any]]:
    return {found.key: (found.base, found.candidate) for found in work_differences(base, candidate)}


def test_the_same_work_in_another_order_differs_in_nothing():
    base = make_side(contexts=(1024, 4096))
    assert told(base, make_side("new")[::-1] + make_side("new", contexts=(4096,))) == {}
    assert told(base, make_side(contexts=(4096, 1024))) == {}


def test_all_values_of_a_key_are_told_and_methods_of_one_side_by_their_label():
    found = told(make_side(contexts=(1024, 4096)), make_side(methods=("dense", "masked"), contexts=(1024,)))
    assert found == {"methods": (["dense", "threshold"], ["dense", "masked"]), "workload.context": ([1024, 4096], 1024)}


def test_settings_of_a_shared_method_are_told_under_its_label():
    base = make_quads(1)
    candidate = [
        record.model_copy(
            update={
                "point_id": "x",
                "point": record.point.model_copy(update={"settings": {**record.point.settings, "threshold_p": 0.3}}),
            }
        )
        if record.method == "threshold"
        else record
        for record in base
    ]
    assert told(base, candidate) == {"methods.threshold.threshold_p": (None, 0.3)}


def test_a_named_model_stands_for_its_geometry():
    larger = GEOMETRY.model_copy(update={"hidden_size": 1024})
    base = make_quads(1)
    named = with_point(base, model={"preset": "llama2-7b", "dtype": "float32"}, geometry=larger)
    assert told(base, named) == {"model.preset": ("bench-8x512", "llama2-7b")}
    own = with_point(base, model={"dtype": "float32"}, geometry=larger)
    assert told(base, own) == {"model.preset": ("bench-8x512", None), "geometry.hidden_size": (512, 1024)}


def test_where_a_file_lies_is_told_only_if_something_else_is_in_it():
    def prompt(text: str, sha256: str) -> list[Record]:
        workload = {"context": 1024, "batch": 1, "prompt": {"text": text, "sha256": sha256}}
        return with_point(make_quads(1), workload=workload)

    assert told(prompt("a/docs", "1"), prompt("b/docs", "1")) == {}
    found = told(prompt("a/docs", "1"), prompt("b/docs", "2"))
    assert found == {"workload.prompt.text": ("a/docs", "b/docs"), "workload.prompt.sha256": ("1", "2")}


def test_where_a_model_lies_is_told_only_if_it_is_another_one(tmp_path):
    loaded = load(tmp_path, model_folder(tmp_path, CONFIG))
    planned = build_plan(loaded, "run-1", "cpu").cells[0].methods[0].work.model  # by the names of real records

    def model(path: str, folder_sha256: str) -> list[Record]:
        return with_point(make_quads(1), model={**planned, "path": path, "folder_sha256": folder_sha256})

    assert "folder_sha256" in planned
    assert told(model("a", "1"), model("b", "1")) == {}
    assert told(model("a", "1"), model("b", "2")) == {"model.path": ("a", "b"), "model.folder_sha256": ("1", "2")}
    assert fields_text(("model.folder_sha256",)) == "model.folder_sha256 (the model's weights or config changed)"


def test_a_searched_size_is_told_as_the_search():
    trial = Trial(axis="workload.context", role="trial", bound=65536)
    searched = [record.model_copy(update={"trial": trial}) for record in make_quads(1, contexts=(1024, 2048))]
    assert told(make_quads(1), searched) == {"workload.context": (1024, "searched up to 65536")}


def test_where_a_checkpoint_lies_is_told_only_if_it_is_another_one():
    def with_checkpoint(place: str, sha256: str) -> list[Record]:
        settings = {"checkpoint": place, "checkpoint_sha256": sha256}
        return [
            record.model_copy(
                update={
                    "point_id": f"{place}-{sha256}",
                    "point": record.point.model_copy(update={"settings": {**record.point.settings, **settings}}),
                }
            )
            for record in make_quads(1)
            if record.method == "threshold"
        ]

    base = with_checkpoint("here/model", "1")
    assert told(base, with_checkpoint("there/model", "1")) == {}
    other = with_checkpoint("there/model", "2")
    assert told(base, other) == {
        "methods.threshold.checkpoint": ("here/model", "there/model"),
        "methods.threshold.checkpoint_sha256": ("1", "2"),
    }
    assert differing_work(base[0], other[0]) == ("settings.checkpoint_sha256",)
