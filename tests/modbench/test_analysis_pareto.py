from modbench.analysis.pareto import front


def test_the_front_is_what_no_other_point_beats():
    points = [(1.0, 9.0), (2.0, 5.0), (3.0, 6.0), (4.0, 5.0), (5.0, 2.0), (6.0, 2.5)]
    assert front(points) == [0, 1, 4]


def test_equal_points_are_both_on_the_front():
    assert front([(2.0, 1.0), (1.0, 3.0), (2.0, 1.0)]) == [1, 0, 2]


def test_a_point_that_is_better_in_both_leaves_nothing_else():
    assert front([(2.0, 2.0), (1.0, 1.0), (1.0, 2.0), (2.0, 1.0)]) == [1]
    assert front([]) == []
