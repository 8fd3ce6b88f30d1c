from modbench.analysis import summarise
from modbench.report.plots import draw_plots
from modbench.report.quality_plots import quality_drawings, trade_offs
from tests.modbench.record_factory import make_quads
from tests.modbench.test_report_plots import with_axes

PERPLEXITY = {"dense": 8.0, "threshold": 8.4, "masked": 9.0, "skip_layers": 30.0}


def judged(records):
    return [
        record.model_copy(update={"metrics": {**record.metrics, "perplexity": PERPLEXITY[record.method]}})
        for record in records
    ]


def test_the_front_leaves_out_what_is_slower_and_worse():
    (trade,) = trade_offs(summarise(judged(make_quads(1, tuple(PERPLEXITY)))), "ttft_s")
    methods = [row.method for _, row in trade.panel.rows]
    assert {methods[index] for index in trade.front} == {"dense", "threshold", "skip_layers"}


def test_the_spec_says_which_points_are_beaten():
    drawing = quality_drawings(summarise(judged(make_quads(1, tuple(PERPLEXITY)))))[0]
    found = {
        member["method"]: (member["verdict"], member["opacity"], member["value"])
        for member in drawing.spec["data"]["values"]
    }
    assert drawing.name == "quality_ttft"
    assert found["masked"] == (["beaten"], [0.35], ["9"])
    assert found["threshold"] == (["not beaten"], [1.0], ["8.4"])


def test_one_row_with_a_perplexity_is_no_trade_off():
    records = [
        record if record.method == "threshold" else judged([record])[0]
        for record in make_quads(1, ("dense", "threshold"))
    ]
    assert quality_drawings(summarise(records)) == quality_drawings(summarise(make_quads(1))) == []


def test_only_cells_with_the_same_work_are_alternatives():
    records = []
    for context in (1024, 4096):
        for share in (0.1, 0.2):
            made = judged(make_quads(1, ("dense", "threshold"), (context,)))
            records += with_axes(made, workload__context=context, methods__threshold__keep_ratio=share)
    trades = trade_offs(summarise(records), "tpot_s")
    assert [(trade.panel.label, len(trade.places)) for trade in trades] == [("context 1,024", 4), ("context 4,096", 4)]


def test_it_is_drawn_with_its_quality_in_the_values():
    summary = summarise(judged(make_quads(1)))
    assert summary.cells[0].rows[1].values["perplexity"] == 8.4
    assert [plot.name for plot in draw_plots(summary)][-3:-1] == ["quality_ttft", "quality_tpot"]
