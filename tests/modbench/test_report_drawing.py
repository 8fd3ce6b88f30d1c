import math
from itertools import pairwise

import pytest

from modbench.analysis import summarise
from modbench.report.drawing import (
    MAX_PANELS,
    MAX_PLAIN_TICKS,
    MAX_TICKS,
    linear_scale,
    log_scale,
    plain_ticks,
    select,
    spread_over,
    tick_text,
)
from modbench.report.plots import draw_plots
from modbench.units import format_bytes, format_seconds
from tests.modbench.record_factory import make_quads
from tests.modbench.test_report_plots import with_axes


def is_measured(row):
    return row.values["ttft_s"] is not None


@pytest.mark.parametrize("ends", [(0.02, 0.4), (1e-6, 30.0), (0.9, 1.1), (0.5, 0.5), (1.0, 2.2)])
@pytest.mark.parametrize("is_binary", [True, False])
def test_a_log_axis_holds_its_values_and_some_ticks(ends, is_binary):
    scale = log_scale(ends, is_binary)
    assert scale.low < ends[0] <= ends[1] < scale.high
    assert 1 <= len(scale.ticks) <= MAX_TICKS
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)


def test_ticks_are_round_in_the_unit_that_is_printed():
    assert [tick_text(format_seconds(tick)) for tick in log_scale((0.02, 0.4)).ticks] == [
        "20 ms",
        "50 ms",
        "100 ms",
        "200 ms",
    ]
    assert [tick_text(format_bytes(tick)) for tick in linear_scale(4.5 * 2**30, is_binary=True).ticks[1:3]] == [
        "1 GiB",
        "2 GiB",
    ]


def test_a_thinned_row_keeps_both_ends():
    assert spread_over(range(100), 5) == [0, 25, 50, 74, 99]
    assert spread_over([1, 2], 5) == [1, 2]


def test_more_combinations_than_panels_are_named():
    records = []
    for batch in range(1, MAX_PANELS + 3):
        for context in (1024, 4096):
            records += with_axes(make_quads(1, contexts=(context,)), workload__context=context, workload__batch=batch)
    selection = select(summarise(records), is_measured)
    assert selection.labels == [f"batch {batch}" for batch in range(1, MAX_PANELS + 1)]
    assert selection.note == " Not drawn: batch 7; batch 8: all are in the tables."


def test_rows_without_the_number_are_left_out():
    assert select(summarise(make_quads(1, contexts=(1024, 4096))), lambda row: False).rows == ()


def test_every_row_is_drawn_where_there_are_few():
    summary = summarise(make_quads(1, contexts=(1024, 4096)))
    selection = select(summary, is_measured)
    assert len(selection.rows) == sum(len(cell.rows) for cell in summary.cells) == 4
    assert (selection.xs, selection.note) == ([1024, 4096], "")


def test_cells_without_a_numeric_axis_are_limited_and_counted():
    records = [record for index in range(60) for record in with_axes(make_quads(1), model__preset=f"m{index}")]
    selection = select(summarise(records), is_measured)
    assert selection.axis is None
    assert selection.note == " The first 20 of 60 cells are drawn: all are in the tables."


@pytest.mark.parametrize("value", [0, -5, float("inf"), float("nan")])
def test_numbers_that_cannot_be_are_not_drawn(value):
    records = [
        record.model_copy(update={"metrics": dict.fromkeys(record.metrics, value)})
        for record in make_quads(1, contexts=(1024, 4096))
    ]
    names = [plot.name for plot in draw_plots(summarise(records))]
    assert not {"kv_cache", "memory"} & set(names)
    assert "ttft" in names


def test_ticks_of_many_values_are_no_closer_on_one_end_of_a_log_axis():
    ticks = list(plain_ticks(range(512, 64001, 512)))
    ratios = [math.log(right / left) for left, right in pairwise(ticks)]
    assert (ticks[0], ticks[-1]) == (512, 64000)
    assert min(ratios) > 0.7 * math.log(64000 / 512) / (MAX_PLAIN_TICKS - 1)


def test_few_values_all_have_a_tick():
    assert list(plain_ticks([1000, 1010, 64000])) == [1000, 1010, 64000]
