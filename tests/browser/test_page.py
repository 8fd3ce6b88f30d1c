"""Every page in a browser: nothing goes wrong, it reads in light and dark, on a phone, on paper, by keyboard and without script."""

import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, WIDE
from tests.browser.pages import CONTEXTS, METHODS, PAGES
from tests.contrast import contrast, luminance

SCRIPT_CONTROLS = ("button#theme", "fieldset#methods", "input#filter", "output#shown")
AA_TEXT = 4.5  # contrast of text, WCAG 2.1, success criterion 1.4.3
MIN_COLOURS = 16  # of a page with text on it: letters are drawn in shades
every_page = pytest.mark.parametrize("name", PAGES)
every_size = pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])


@every_size
@every_page
def test_a_page_asks_for_nothing_complains_of_nothing_and_does_not_scroll_sideways(name, size, pages, page_of):
    page = page_of(pages[name], size)
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_timeout(200)  # what a script would do later
    assert page.evaluate("document.scrollingElement.scrollWidth") <= size[0]


@every_size
@pytest.mark.parametrize("scheme", ["light", "dark"])
@every_page
def test_a_screenshot_is_not_blank(name, scheme, size, pages, page_of, tmp_path):
    folder = Path(os.environ.get("MODBENCH_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page = page_of(pages[name], size, scheme)
    wait_for_charts(page)
    picture = folder / f"{name}-{scheme}-{size[0]}.png"
    page.screenshot(path=picture, full_page=True)
    with Image.open(picture) as image:
        assert image.width == size[0]
        assert image.convert("RGB").getcolors(MIN_COLOURS) is None, "more colours than that"


@every_page
def test_dark_is_the_systems_choice_and_the_main_text_reads_in_both(name, pages, page_of):
    colours = {scheme: main_colours(page_of(pages[name], scheme=scheme)) for scheme in ("light", "dark")}
    (light_text, light_ground), (dark_text, dark_ground) = colours["light"], colours["dark"]
    assert luminance(light_ground) > luminance(light_text)
    assert luminance(dark_ground) < luminance(dark_text)
    assert contrast(light_text, light_ground) >= AA_TEXT
    assert contrast(dark_text, dark_ground) >= AA_TEXT


@every_page
def test_the_theme_button_overrules_the_system(name, pages, page_of):
    dark, page = main_colours(page_of(pages[name], scheme="dark")), page_of(pages[name])
    light = main_colours(page)
    seen = {}
    for _ in range(3):
        page.locator("button#theme").click()
        seen[page.evaluate("document.documentElement.dataset.theme ?? 'system'")] = main_colours(page)
    assert seen == {"system": light, "light": light, "dark": dark}


@every_page
def test_without_script_the_tables_and_plots_are_there_and_no_dead_controls(name, pages, page_of):
    page = page_of(pages[name], javascript=False)
    for plot in page.locator("figure svg.modbench-plot").all():
        expect(plot).to_be_visible()
    assert page.locator("figure svg.modbench-plot").count() >= 2
    for control in SCRIPT_CONTROLS:
        for found in page.locator(control).all():
            expect(found).to_be_hidden()
    for section in page.locator("main section").all():
        expect(section).to_be_visible()


def test_without_script_every_point_is_in_a_table(pages, page_of):
    page = page_of(pages["report"], javascript=False)
    expect(page.locator("table#points tbody tr")).to_have_count(len(METHODS) * len(CONTEXTS))
    for row in page.locator("table#points tbody tr").all():
        expect(row).to_be_visible()
    expect(page.locator("a#records")).to_be_visible()


@every_page
def test_the_tab_key_reaches_every_control_in_order_with_visible_focus(name, pages, page_of):
    page = page_of(pages[name])
    wait_for_charts(page)
    num_controls = page.evaluate(MARK_CONTROLS)
    reached = []
    for _ in range(2 * num_controls + 20):
        page.keyboard.press("Tab")
        number, has_ring, name_of_it = page.evaluate(FOCUSED)
        if number is not None:
            assert has_ring, f"{name_of_it} shows no focus"
            reached.append(number)
        if number == num_controls - 1:
            break
    assert reached == list(range(num_controls))


@every_page
def test_print_shows_every_section(name, pages, page_of):
    page = page_of(pages[name])
    page.emulate_media(media="print")
    sections = page.locator("main section").all()
    assert len(sections) >= 2
    for section in sections:
        expect(section).to_be_visible()
    text, ground = main_colours(page)
    assert contrast(text, ground) >= AA_TEXT


MARK_CONTROLS = """() => {
  const all = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")];
  const shown = all.filter((element) => element.checkVisibility({visibilityProperty: true}) && !element.disabled);
  shown.forEach((element, index) => { element.dataset.testNumber = index; });
  return shown.length;
}"""
FOCUSED = """() => {
  const element = document.activeElement;
  if (element.dataset.testNumber === undefined) return [null, true, element.outerHTML.slice(0, 80)];
  const label = element.matches("input") ? element.closest("label") : null;
  const styles = [element, label].filter(Boolean).map((found) => getComputedStyle(found));
  const ringed = (style) => (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  return [Number(element.dataset.testNumber), styles.some(ringed), element.outerHTML.slice(0, 80)];
}"""
MAIN_COLOURS = """() => {
  const transparent = ["rgba(0, 0, 0, 0)", "transparent"];
  let element = document.querySelector("main p, main li");
  const text = getComputedStyle(element).color;
  while (element && transparent.includes(getComputedStyle(element).backgroundColor)) element = element.parentElement;
  return [text, element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)"];
}"""


def wait_for_charts(page: Page) -> None:
    """Where a page has charts, until all are drawn."""
    if page.locator("#modbench-charts").count():
        page.locator("html[data-charts=ready]").wait_for()


def main_colours(page: Page) -> tuple[str, str]:
    text, ground = page.evaluate(MAIN_COLOURS)
    return text, ground
