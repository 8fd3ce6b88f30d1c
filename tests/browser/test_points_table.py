"""The table of all points in a browser: sorting, filtering, and check boxes that hide methods."""

import base64
import gzip

import pytest
from playwright.sync_api import Page, expect

from tests.browser.pages import CONTEXTS, METHODS

NUM_ROWS = len(METHODS) * len(CONTEXTS)
COLUMN = """(index) => [...document.querySelectorAll("table#points tbody tr")].map((row) => {
  const cell = row.cells[index];
  return [cell.dataset.value === undefined ? null : Number(cell.dataset.value), cell.textContent.trim()];
})"""


@pytest.fixture
def page(pages, page_of) -> Page:
    return page_of(pages["report"])


def column(page: Page, index: int) -> list[tuple[float | None, str]]:
    return [(value, text) for value, text in page.evaluate(COLUMN, index)]


def sort_states(page: Page) -> list[str | None]:
    return [header.get_attribute("aria-sort") for header in page.locator("table#points thead th").all()]


def test_every_column_of_numbers_sorts_by_base_unit_both_ways_with_unknowns_last(page):
    num_told_apart = 0
    headers = page.locator("table#points thead th").all()
    for index, header in enumerate(headers):
        numbers = [value for value, _ in column(page, index) if value is not None]
        if not numbers:
            continue
        for order, is_reversed in (("ascending", False), ("descending", True)):
            header.locator("button").click()
            expect(header).to_have_attribute("aria-sort", order)
            values = [value for value, _ in column(page, index)]
            assert values == sorted(numbers, reverse=is_reversed) + [None] * (NUM_ROWS - len(numbers))
        texts = [text for value, text in column(page, index) if value is not None]
        num_told_apart += texts != sorted(texts, reverse=True)
        others = [state for place, state in enumerate(sort_states(page)) if place != index]
        assert set(others) == {"none"}, "one column at a time"
    assert num_told_apart > 0, "in some column the order of texts is another one"


def test_a_column_of_words_sorts_by_text(page):
    header = page.locator("table#points thead th", has_text="Method")
    for order, is_reversed in (("ascending", False), ("descending", True)):
        header.locator("button").click()
        expect(header).to_have_attribute("aria-sort", order)
        methods = [row.get_attribute("data-method") for row in page.locator("table#points tbody tr").all()]
        assert methods == sorted(methods, reverse=is_reversed)


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts(page, key):
    header = page.locator("table#points thead th").first
    header.locator("button").focus()
    for order in ("ascending", "descending"):
        page.keyboard.press(key)
        expect(header).to_have_attribute("aria-sort", order)


def test_the_filter_shows_the_rows_with_its_text_and_counts_them(page):
    rows, shown = page.locator("table#points tbody tr"), page.locator("output#shown")
    expect(shown).to_have_text(f"{NUM_ROWS} of {NUM_ROWS} rows")
    field = page.get_by_role("searchbox")
    expect(field).to_have_attribute("id", "filter")
    field.fill("THRESH")
    expect(shown).to_have_text(f"{len(CONTEXTS)} of {NUM_ROWS} rows")
    assert {row.get_attribute("data-method") for row in rows.all() if row.is_visible()} == {"threshold"}
    field.fill("no such row")
    expect(shown).to_have_text(f"0 of {NUM_ROWS} rows")
    field.fill("")
    expect(shown).to_have_text(f"{NUM_ROWS} of {NUM_ROWS} rows")


def test_a_method_that_is_switched_off_leaves_every_table_and_comes_back(page):
    box = page.locator("fieldset#methods input[data-method=threshold]")
    own, others = page.locator("tr[data-method=threshold]"), page.locator("#points tr[data-method=dense]")
    assert own.count() > len(CONTEXTS), "in other tables too"
    was_visible = [row.is_visible() for row in own.all()]
    box.uncheck()
    expect(page.locator("output#shown")).to_have_text(f"{NUM_ROWS - len(CONTEXTS)} of {NUM_ROWS} rows")
    assert not any(row.is_visible() for row in own.all())
    assert all(row.is_visible() for row in others.all())
    page.get_by_role("searchbox").fill("threshold")
    expect(page.locator("output#shown")).to_have_text(f"0 of {NUM_ROWS} rows")
    page.get_by_role("searchbox").fill("")
    box.check()
    assert [row.is_visible() for row in own.all()] == was_visible


def test_every_method_has_a_labelled_check_box(page):
    boxes = page.locator("fieldset#methods input[type=checkbox]")
    assert [box.get_attribute("data-method") for box in boxes.all()] == list(METHODS)
    for method in METHODS:
        expect(page.get_by_role("checkbox", name=method, exact=False).first).to_be_checked()


def test_the_download_is_the_records_byte_for_byte(page, pages):
    address = page.locator("a#records").get_attribute("href")
    head, _, content = address.partition(";base64,")
    assert head.startswith("data:")
    assert gzip.decompress(base64.b64decode(content)) == (pages["report"].parent / "records.jsonl").read_bytes()
    with page.expect_download() as download:
        page.locator("a#records").click()
    assert download.value.suggested_filename == "records.jsonl.gz"
