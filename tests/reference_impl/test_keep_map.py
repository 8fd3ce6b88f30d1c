"""Keep maps against the oracle, in words, and as views that no text can break out of."""

import io
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from reference_impl import UnsupportedModelError, calibrate
from reference_impl.errors import TextError
from reference_impl.keep_map import KeepMap, keep_map
from reference_impl.keep_map_html import STYLE, keep_map_page, kept_path
from reference_impl.keep_map_terminal import MARKS, STYLES, lay_out, print_keep_map
from reference_impl.naive import naive_forward
from reference_impl.visible_text import visible, visible_line
from tests.contrast import contrast
from tests.reference_impl.conftest import dense_model, random_ids

HOSTILE = [
    "\x1b[31m",
    "</p><script>alert(1)</script>",
    '" onload="x',
    "\u202e",
    "\x9b2J",
    "\r",
    "\n",
    "\t",
    " ",
    "",
    "漢",
]
MIN_CONTRAST = 4.5


def map_of(keep: dict[int, str], texts: list[str] | None = None) -> KeepMap:
    """From strings of 1 (kept) and 0."""
    num_tokens = len(next(iter(keep.values())))
    return KeepMap(
        token_ids=tuple(range(num_tokens)),
        texts=tuple(texts or [chr(ord("a") + index) for index in range(num_tokens)]),
        num_layers=8,
        rule="threshold, p = 0.5",
        keep={layer: tuple(char == "1" for char in row) for layer, row in keep.items()},
        gates=dict.fromkeys(keep, (0.5,) * num_tokens),
    )


def printed(found: KeepMap, width: int = 80, layers: tuple[int, ...] = (), **options) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False, **{"color_system": None, **options})
    print_keep_map(found, console, layers)
    return console.file.getvalue()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
@torch.no_grad()
def test_the_map_is_what_the_oracle_decides(make_converted, family):
    model, ids_T = make_converted(family), random_ids(1, 40)[0]
    _, masks = naive_forward(model, ids_T)
    found = keep_map(model, ids_T, ["x"] * 40)
    assert found.keep == {layer: tuple(keep_T.tolist()) for layer, keep_T in masks.items()}
    assert 0 < sum(sum(keep) for keep in found.keep.values()) < 40 * len(found.keep), "some tokens are kept, not all"
    for layer, keep in found.keep.items():
        assert keep == tuple(gate >= model.routing.config.threshold_p for gate in found.gates[layer])


@torch.no_grad()
def test_a_calibrated_map_keeps_the_share(make_converted):
    model, ids = make_converted(), random_ids(1, 40)
    calibrate(model, ids, 0.25)
    found = keep_map(model, ids[0], ["x"] * 40)
    assert [found.keep_ratio(layer) for layer in found.keep] == [0.25, 0.25]


@torch.no_grad()
def test_top_k_keeps_its_capacity_and_says_so(make_converted):
    found = keep_map(make_converted(operator="topk", capacity=0.1), random_ids(1, 40)[0], ["x"] * 40)
    assert found.rule == "topk, capacity = 0.1"
    assert [sum(keep) for keep in found.keep.values()] == [4, 4]


def test_a_dense_model_and_unknown_tokens_are_refused(make_converted):
    with pytest.raises(UnsupportedModelError, match="expected a converted model"):
        keep_map(dense_model(), random_ids(1, 4)[0], ["x"] * 4)
    with pytest.raises(TextError, match="the text has token 211; the model's vocabulary has 211"):
        keep_map(make_converted(), torch.tensor([1, 211]), ["a", "b"])


def test_the_sentence_counts_tokens_by_layers():
    found = map_of({1: "1100", 3: "1000"})
    assert found.num_kept_layers == (2, 1, 0, 0)
    assert found.sentence() == (
        "Of 4 tokens 1 are kept at all 2 routed layers and 2 at none; a token is kept at 0.8 of 2 on average."
    )


@pytest.mark.parametrize(
    ("num_routed", "expected"),
    [
        (1, {0: "0", 4: "1"}),
        (2, {0: "0", 2: "1", 4: "2"}),
        (4, {0: "0", 1: "1", 2: "2", 3: "3", 4: "4"}),
        (16, {0: "0", 1: "1–4", 2: "5–8", 3: "9–12", 4: "13–16"}),
    ],
)
def test_steps_of_the_scale_are_named_by_their_numbers_of_layers(num_routed, expected):
    assert map_of(dict.fromkeys(range(num_routed), "10")).level_texts() == expected


def test_json_has_a_version_and_one_entry_per_token():
    facts = json.loads(json.dumps(map_of({1: "10", 3: "11"}, ["a", "\n"]).to_dict()))
    assert facts["schema_version"] == 1
    assert facts["tokens"] == [{"id": 0, "text": "a"}, {"id": 1, "text": "\n"}]
    assert facts["layers"][0] == {"layer": 1, "keep_ratio": 0.5, "keep": [True, False], "gate": [0.5, 0.5]}


def test_without_colour_marks_below_the_text_tell_the_layers():
    lines = printed(map_of({1: "1100", 3: "1000"}, ["to", " ", "be", "\n"]), layers=(1,)).splitlines()
    assert lines[:2] == ["to␣be⏎", "██▒···"]
    assert "kept at · 0  ▒ 1  █ 2  of 2 routed layers" in lines
    assert lines[lines.index("Layer 1 keeps 50.0%; skipped tokens are ·:") + 1] == "to␣···"
    assert lines[-2:] == ["layer   1  50.0%  ██··", "layer   3  25.0%  █···"]


def test_with_colour_the_text_has_it_and_no_marks(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = printed(map_of({1: "10", 3: "10"}), color_system="truecolor", force_terminal=True)
    assert "\x1b[38;2;255;255;255;48;2;11;60;111ma\x1b[0m\x1b[2mb\x1b[0m\n" in text
    plain = printed(map_of({1: "10", 3: "10"}), color_system="truecolor", force_terminal=True, no_color=True)
    assert plain.startswith("ab\n█·\n")


@pytest.mark.parametrize("width", [40, 80, 133])
def test_every_line_fits_the_width(width):
    found = map_of({1: "10" * 300, 13: "01" * 300}, ["wide 漢\n", "x" * 90] * 300)
    for line in printed(found, width, layers=(13,)).splitlines():
        assert cell_len(line) <= width, line


def test_rows_break_at_line_ends_and_at_the_width():
    rows = lay_out(["ab", "\n", "cde", "漢", "\n"], 4)
    assert ["".join(glyph.text for glyph in row) for row in rows] == ["ab⏎", "cde", "漢⏎"]
    assert [glyph.token for glyph in rows[2]] == [3, 4]


def test_a_strip_of_a_long_text_shows_shares():
    lines = printed(map_of({1: "1" * 100 + "0" * 20}), 50).splitlines()
    assert "a cell is 4 tokens" in lines[-2]
    assert lines[-1].endswith("  83.3%  " + "█" * 25 + "·" * 5)


def test_no_escape_sequence_of_a_text_reaches_the_terminal():
    text = printed(map_of({1: "1" * len(HOSTILE)}, HOSTILE), layers=(1,))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "␛[31m" in text


def test_visible_text_shows_what_cannot_be_seen():
    assert visible(" \t\n\r\x1b\x7f\u00a0\u202e") == "␣⇥⏎␍␛␡␣\ufffd"
    assert visible("") == "‥"
    assert visible_line("a  b\nc") == "a b⏎c"


class Page(HTMLParser):
    """Collects elements and what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_no_text_breaks_out_of_the_page():
    found = map_of({1: "1" * len(HOSTILE), 3: "01" * 5 + "0"}, HOSTILE)
    title, sentence = "<script>1</script>", "<img src=x>\x1b[0m"
    page = Page(keep_map_page(found, title, [sentence]))
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "</p><script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    spans = [attributes for tag, attributes in page.elements if tag == "span" and "title" in attributes]
    assert [span["title"] for span in spans[:2]] == ["kept at 1 of 2: 1", "kept at 2 of 2: 1, 3"]
    assert [span["class"] for span in spans[:2]] == ["k2", "k4"]


def test_the_page_needs_no_network_and_no_script():
    text = keep_map_page(map_of({1: "10"}), "a", [])
    assert "<script" not in text
    assert not re.search(r"https?://|url\(|@import", text)
    assert "default-src 'none'" in text


def test_a_strip_has_a_rectangle_per_run():
    assert kept_path([True, False, True, True]) == "M0 0h1v1h-1zM2 0h2v1h-2z"
    assert kept_path([False]) == ""


def test_every_shade_carries_readable_text():
    for style in STYLES[1:]:
        assert contrast(*style.split(" on ")) >= MIN_CONTRAST, style
    for scheme in STYLE.split("@media"):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", scheme))
        pairs = [(f"b{level}", f"t{level}") for level in range(1, 5)] + [("page", "text"), ("page", "muted")]
        for background, text in pairs:
            assert contrast(colours[background], colours[text]) >= MIN_CONTRAST, (background, text)
    assert len(MARKS) == len(STYLES)
