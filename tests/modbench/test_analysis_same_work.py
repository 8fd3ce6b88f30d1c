import pytest

from modbench.analysis.verdict import Verdict
from modbench.record import KeepRatios
from tests.modbench.side_factory import changed, compare, line_of, make_side, with_facts


def test_a_wrong_method_is_not_comparable_even_when_statistics_say_slower():
    slower = make_side("new", slower={"threshold": 1.5})
    for guard in ({"causal": "failed"}, {}):
        for sides in (
            (make_side(), changed(slower, "threshold", guard=guard)),
            (changed(slower, "threshold", guard=guard), make_side()),
        ):
            compared = compare(*sides)
            found = [line for line in compared.judged if line.method == "threshold"]
            assert {line.verdict for line in found} == {Verdict.NOT_COMPARABLE}
            assert all(line.ratio is None for line in found)


def test_a_wrong_baseline_makes_ratios_to_it_not_comparable():
    wrong = changed(make_side("new", slower={"threshold": 1.5}), "dense", guard={"causal": "failed"})
    compared = compare(make_side(), wrong)
    line = line_of(compared)
    assert (line.verdict, line.reason) == (
        Verdict.NOT_COMPARABLE,
        "baseline of candidate: identity causal failed",
    )
    assert line_of(compared, metric="kv_cache_bytes", ground="exact").verdict is Verdict.SAME


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(("difference", "is_comparable"), [(0.009, True), (0.011, False)])
def test_keep_ratios_that_differ_by_more_than_0_01_are_not_comparable(phase, difference, is_comparable):
    base = make_side()
    layers = base[1].keep_ratio
    other = {name: list(getattr(layers, name)) for name in ("prefill", "decode", "decode_any")}
    other[phase] = [ratio + difference if ratio < 1 else ratio for ratio in other[phase]]
    line = line_of(compare(base, changed(make_side("new"), "threshold", keep_ratio=KeepRatios(**other))))
    assert line.verdict is (Verdict.SAME if is_comparable else Verdict.NOT_COMPARABLE)
    assert is_comparable or f"keep ratios at {phase}" in line.reason


def test_other_tokens_are_not_comparable():
    base = with_facts(make_side(), tokens_sha256="one")
    line = line_of(compare(base, with_facts(make_side("new"), tokens_sha256="two")))
    assert (line.verdict, line.reason) == (Verdict.NOT_COMPARABLE, "the prompts' tokens differ: tokens_sha256")
    assert line_of(compare(base, with_facts(make_side("new"), tokens_sha256="one"))).verdict is Verdict.SAME


def reworked(records, method="", cell="other", **changes):
    """The same points with other work, hence under other ids."""
    found = []
    for record in records:
        if method in ("", record.method):
            point = record.point.model_copy(
                update={
                    "cell_id": cell or record.point.cell_id,
                    **{name: {**getattr(record.point, name), **inside} for name, inside in changes.items()},
                }
            )
            record = record.model_copy(update={"point": point, "point_id": f"{cell}-{record.point_id}"})
        found.append(record)
    return found


def test_points_with_the_same_axes_and_other_work_say_which_fields_differ():
    base = reworked(make_side(), cell="one", workload={"prompt": {"text": "/a/prose", "sha256": "1"}})
    other = reworked(make_side("new"), cell="two", workload={"prompt": {"text": "/b/prose", "sha256": "2"}, "seed": 7})
    line = line_of(compare(base, other))
    assert line.verdict is Verdict.NOT_COMPARABLE
    assert line.reason == "the work differs: workload.prompt.sha256 (the prompt's text changed), workload.seed"


def test_another_setting_of_one_method_leaves_the_others_comparable():
    methods = ("dense", "threshold", "masked")
    other = reworked(make_side("new", methods=methods), "threshold", cell="", settings={"threshold_p": 0.6})
    compared = compare(make_side(methods=methods), other)
    assert line_of(compared).reason == "the work differs: settings.threshold_p"
    assert line_of(compared, "masked").verdict is Verdict.SAME


def test_another_baseline_makes_the_ratios_to_it_not_comparable():
    other = reworked(make_side("new"), "dense", cell="", settings={"kv_cache": "chunked"})
    line = line_of(compare(make_side(), other))
    assert (line.verdict, line.reason) == (
        Verdict.NOT_COMPARABLE,
        "the baseline's work differs: settings.kv_cache",
    )


def test_a_cell_of_another_matrix_with_the_same_work_is_compared():
    moved = [
        record.model_copy(update={"point": record.point.model_copy(update={"cell_id": "other"})})
        for record in make_side("new")
    ]
    assert line_of(compare(make_side(), moved)).verdict is Verdict.SAME


def test_what_is_not_the_same_work_stands_at_the_candidates_cell():
    other = reworked(make_side("new"), cell="two", workload={"seed": 7})
    compared = compare(reworked(make_side(), cell="one"), other)
    assert {line.cell_id for line in compared.comparisons} == {"two"}
    assert {"one", "two"} <= set(compared.cells)
