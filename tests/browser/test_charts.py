"""The interactive charts in a browser: drawn in place of the static plots, with values on hover, and methods that go and come."""

import json
import re

import pytest
from playwright.sync_api import Locator, Page, expect

POINTS = ".role-mark.mark-symbol path, .role-mark.mark-rect path"
MARKS = f"{POINTS}, .role-mark.mark-line path, .role-mark.mark-rule line"
UNKNOWN = re.compile(r"\b(null|undefined|NaN)\b")
VALUE_WITH_UNIT = re.compile(r"\d[\d.,]*\s?(s|ms|µs|B|KiB|MiB|GiB|TiB|×|%)(?!\w)")


@pytest.fixture
def page(pages, page_of) -> Page:
    page = page_of(pages["report"])
    page.locator("html[data-charts=ready]").wait_for()
    return page


def charts(page: Page) -> list[Locator]:
    specs = json.loads(page.locator("#modbench-charts").text_content())
    return [page.locator(f'figure.plot[data-plot="{name}"]') for name in specs]


def test_every_chart_is_drawn_in_place_of_its_static_plot(page):
    assert len(charts(page)) >= 4
    for figure in charts(page):
        expect(figure.locator(".chart svg")).to_be_visible()
        expect(figure.locator(".static")).to_be_hidden()
        assert figure.locator(".chart svg").bounding_box()["height"] > 100


def test_the_pointer_shows_values_with_their_units_and_nothing_that_is_unknown(page):
    for figure in charts(page):
        mark = next(mark for mark in figure.locator(POINTS).all() if is_drawn(mark))
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tooltip = page.locator("#vg-tooltip-element.visible")
        expect(tooltip).to_be_visible()
        text = tooltip.inner_text()
        assert VALUE_WITH_UNIT.search(text), text
        assert not UNKNOWN.search(text), text
        page.mouse.move(0, 0)


def is_drawn(mark: Locator) -> bool:
    box = mark.bounding_box()
    return box is not None and min(box["width"], box["height"]) > 2


def test_a_method_that_is_switched_off_leaves_every_chart_and_comes_back(page):
    specs = json.loads(page.locator("#modbench-charts").text_content())
    box = page.locator("fieldset#methods input[data-method=threshold]")
    names = [name for name, spec in specs.items() if '"threshold"' in json.dumps(spec)]
    assert len(names) >= 3
    before = {name: page.locator(f'figure.plot[data-plot="{name}"] .chart').locator(MARKS).count() for name in names}
    box.uncheck()
    for name, count in before.items():
        expect(page.locator(f'figure.plot[data-plot="{name}"] .chart').locator(MARKS)).not_to_have_count(count)
        assert page.locator(f'figure.plot[data-plot="{name}"] .chart').locator(MARKS).count() < count
    box.check()
    for name, count in before.items():
        expect(page.locator(f'figure.plot[data-plot="{name}"] .chart').locator(MARKS)).to_have_count(count)
