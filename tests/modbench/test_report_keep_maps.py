"""Keep maps on the page: the sentence, the shades and the strips; readable, and closed to any text."""

import re
from importlib import resources

import pytest

from modbench.analysis import summarise
from modbench.keep_map_record import KEPT, KeepMapRecord
from modbench.record import CALIBRATED_ROUTER, CHECKPOINT_ROUTER, RANDOM_ROUTER
from modbench.report.document import Document
from modbench.report.html import render_html
from modbench.report.keep_maps import MAX_PIECE, keep_map_section, kept_path, level_of, visible
from reference_impl import keep_map_html, visible_text
from tests.contrast import contrast
from tests.modbench.page_checks import assert_is_well_formed, foreign_scripts
from tests.modbench.record_factory import make_quads
from tests.reference_impl.test_keep_map import HOSTILE, MIN_CONTRAST, map_of

TEMPLATES = resources.files("modbench.report") / "templates"


def make_row(**changes) -> KeepMapRecord:
    fields = {
        "launch_id": "l",
        "run_id": "r",
        "point_id": "p",
        "cell_id": "cell-1024-1",
        "method": "threshold",
        "kind": "threshold",
        "num_layers": 8,
        "context": 1024,
        "router": RANDOM_ROUTER,
        "token_ids": [116, 111, 10],
        "texts": ["t", "o", "\n"],
        "keep": {1: "110", 3: "100"},
    }
    return KeepMapRecord(**{**fields, **changes})


def document_of(*rows: KeepMapRecord) -> Document:
    return Document(summarise(make_quads(1)), "mapped", keep_maps=rows)


def page_of(*rows: KeepMapRecord) -> str:
    return render_html(document_of(*rows))


def test_a_view_has_sentence_shades_and_strips():
    (view,) = keep_map_section(document_of(make_row())).views
    assert view.title == "threshold at context 1,024"
    assert view.sentences[0] == (
        "Of the first 3 of 1,024 prompt tokens, 1 are kept at all 2 routed layers and 1 at none; "
        "a token is kept at 1.0 of 2 on average."
    )
    assert [(token.text, token.level, token.ends_line) for token in view.tokens] == [
        ("t", 4, False),
        ("o", 2, False),
        ("⏎", 0, True),
    ]
    assert [token.where for token in view.tokens] == [
        "kept at 2 of 2 routed layers: 1, 3",
        "kept at 1 of 2 routed layers: 1",
        "kept at 0 of 2 routed layers",
    ]
    assert view.legend == ((0, "0"), (2, "1"), (4, "2"))
    assert [(layer.name, layer.kept, layer.path) for layer in view.layers] == [
        ("layer 1", "67 %", "M0 0h2v1h-2z"),
        ("layer 3", "33 %", "M0 0h1v1h-1z"),
    ]


@pytest.mark.parametrize("router", [RANDOM_ROUTER, CALIBRATED_ROUTER])
def test_a_view_says_that_its_router_was_calibrated_and_not_trained(router):
    (view,) = keep_map_section(document_of(make_row(router=router))).views
    assert view.sentences[1].startswith(f"By a {router}: ")
    assert "untrained" in view.sentences[1]


def test_a_checkpoints_router_is_not_said_to_be_untrained():
    (view,) = keep_map_section(document_of(make_row(router=CHECKPOINT_ROUTER))).views
    assert view.sentences[1] == "By the router of the checkpoint: nothing was set for this run."


def test_a_router_that_was_not_calibrated_is_said_to_be_so():
    (view,) = keep_map_section(document_of(make_row(router=None))).views
    assert view.sentences[1] == "No router was calibrated for this run."


def test_synthetic_prompts_show_ids():
    row = make_row(texts=None)
    (view,) = keep_map_section(document_of(row)).views
    assert [token.text for token in view.tokens] == ["116", "111", "10"]
    page = page_of(row)
    assert 'class="tokens ids"' in page
    assert ">116</span> <span" in page
    assert ">t</span><span" in page_of(make_row())


def test_a_map_that_failed_is_a_line():
    row = make_row(token_ids=[], texts=None, keep={}, error="killed <b>\x1b")
    section = keep_map_section(document_of(row))
    assert (section.views, section.failures) == ((), ("Not mapped: threshold at context 1,024: killed <b>",))
    assert "killed &lt;b&gt;" in page_of(row)


def test_a_page_without_maps_has_no_such_section():
    assert 'id="keep-maps"' not in render_html(document_of())


def test_the_page_is_well_formed_with_unique_ids():
    ids = assert_is_well_formed(page_of(make_row(), make_row(method="topk")))
    assert {"keep-map-1", "keep-map-2"} < set(ids)


def test_no_text_of_a_row_breaks_out_of_the_page():
    hostile = make_row(
        token_ids=list(range(len(HOSTILE))),
        texts=HOSTILE,
        keep={1: "1" * len(HOSTILE)},
        method="<script>m</script>",
        router="<img src=x onerror=y>",
        cell_id="nowhere",
    )
    page = page_of(hostile)
    assert not foreign_scripts(page)
    assert "<img" not in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_long_piece_is_cut():
    assert visible("x" * 1000) == "x" * (MAX_PIECE - 1) + "…"


@pytest.mark.parametrize(
    ("decisions", "path"), [("", ""), ("00", ""), ("0110", "M1 0h2v1h-2z"), ("101", "M0 0h1v1h-1zM2 0h1v1h-1z")]
)
def test_a_strip_has_a_rectangle_per_run(decisions, path):
    assert kept_path(decisions) == path


def test_the_page_stays_small_with_many_layers_and_methods():
    keep = dict.fromkeys(range(40), "10" * 128)
    rows = [make_row(method=f"m{index}", token_ids=[7] * 256, texts=None, keep=keep) for index in range(4)]
    assert len(page_of(*rows)) - len(page_of()) < 500_000


def test_every_shade_carries_readable_text_in_both_schemes():
    style = "".join((TEMPLATES / name).read_text() for name in ("report.css", "keep_map.css"))
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    for scheme in (1, 2):
        colours = {name_and_pair[0]: name_and_pair[scheme] for name_and_pair in found}
        for level in range(1, 5):
            assert contrast(colours[f"kept-{level}"], colours[f"on-kept-{level}"]) >= MIN_CONTRAST
        assert contrast(colours["page"], colours["muted"]) >= MIN_CONTRAST
        assert contrast(colours["rule"], colours["kept-4"]) >= 3, "a strip is a picture"


def test_a_page_and_the_reference_implementation_show_the_same_text():
    for text in (*map(chr, range(0x180)), "", "\u2028", "\u202e", "\ud800", "語", *HOSTILE):
        assert visible(text) == visible_text.visible(text)


@pytest.mark.parametrize("decisions", ["", "0", "1", "0110", "101", "11001"])
def test_a_page_and_the_reference_implementation_draw_the_same_strips(decisions):
    assert kept_path(decisions) == keep_map_html.kept_path([kept == KEPT for kept in decisions])


@pytest.mark.parametrize("num_routed", [1, 2, 3, 4, 16])
def test_a_page_and_the_reference_implementation_have_the_same_shades_and_legend(num_routed):
    reference = map_of(dict.fromkeys(range(num_routed), "1"))
    levels = range(num_routed + 1)
    assert [level_of(kept, num_routed) for kept in levels] == [reference.level(kept) for kept in levels]
    (view,) = keep_map_section(document_of(make_row(keep=dict.fromkeys(range(num_routed), "110")))).views
    assert dict(view.legend) == reference.level_texts()


def test_a_page_and_the_reference_implementation_have_the_same_colours():
    page = re.findall(r"--(on-)?kept-(\d): light-dark\((#\w{6}), (#\w{6})\)", (TEMPLATES / "keep_map.css").read_text())
    for scheme, style in enumerate(keep_map_html.STYLE.split("@media"), 2):
        shades = {(name, level): colour for name, level, colour in re.findall(r"--([bt])(\d): (#\w{6})", style)}
        assert shades == {("t" if found[0] else "b", found[1]): found[scheme] for found in page}
