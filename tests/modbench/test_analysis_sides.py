from tests.modbench.side_factory import MACHINE, changed, compare, line_of, make_side, texts_of, with_facts


def test_flags_are_counted_beside_the_numbers_and_filter_none():
    candidate = make_side("new")
    candidate[1].flags.append("contaminated: wall time exceeds CPU time")
    line = line_of(compare(make_side(), candidate))
    assert line.num_values == (8, 8)
    assert "candidate: contaminated: wall time exceeds CPU time (1 of 8 launches)" in line.doubts
    assert not any("calibrated" in doubt for doubt in line.doubts)


def test_unequal_numbers_of_launches_and_routers_are_doubts():
    candidate = changed(make_side("new", num_quads=5), "threshold", flags=[])
    doubts = line_of(compare(make_side(), candidate)).doubts
    assert "8 launches of the base, 10 of the candidate" in doubts
    assert "the routers were calibrated on one side only" in doubts


def test_changed_trees_and_equal_launches_are_doubts_of_the_whole_comparison():
    base = with_facts(make_side(), git_sha="a" * 40, git_is_dirty=True)
    compared = compare(base, base)
    assert any("not committed" in text for text in texts_of(compared))
    assert any("a run compared with itself" in text for text in texts_of(compared))
    assert compared.base.git_shas == (f"{'a' * 40}+dirty",)


def test_differences_begin_with_the_machine_and_hide_the_scenario_text():
    base = with_facts(make_side(), scenario={"name": "one", "text": "a", "sha256": "1"}, zzz=1)
    candidate = with_facts(
        make_side("new"),
        scenario={"name": "one", "text": "b", "sha256": "2"},
        machine={**MACHINE, "num_cores": 2},
        versions={"python": "3.12.0", "torch": "2.11.0"},
    )
    found = [(item.key, item.base, item.candidate) for item in compare(base, candidate).differences]
    assert found == [
        ("machine.num_cores", 8, 2),
        ("versions.python", "3.11.9", "3.12.0"),
        ("scenario.sha256", "1", "2"),
        ("zzz", 1, None),
    ]


def test_another_outcome_of_the_guard_is_a_doubt():
    weaker = changed(make_side("new"), "threshold", guard={"decode_equals_forward": "passed", "causal": "declared"})
    line = line_of(compare(make_side(), weaker))
    assert "the same-work guard did not say the same of both sides: causal" in line.doubts
    assert not line_of(compare(make_side(), make_side("new"))).doubts
