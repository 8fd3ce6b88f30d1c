"""Pages of a hostile stranger's records in a browser: no script of theirs runs, and nothing is asked for."""

import pytest
from playwright.sync_api import expect

from modbench.analysis.history import build_history
from modbench.command_history import read_runs
from modbench.command_run import make_document
from modbench.report.history import write_history
from modbench.report.write import write_report
from tests.browser.test_page import wait_for_charts
from tests.modbench.hostile_records import TEXTS, write_hostile_run

TOUCH_EVERYTHING = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const element of document.querySelectorAll("body *")) element.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
  for (const control of document.querySelectorAll("th button, input[type=checkbox]")) control.click();
}"""


GROUPS = (
    ("script", "attribute"),
    ("break_out", "link", "template"),
    ("terminal", "nul", "unicode"),
    ("long",),
)  # each shown in full


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_a_strangers_text_is_only_text(group, tmp_path, page_of):
    folder = write_hostile_run(tmp_path / "run", " ".join(TEXTS[name] for name in group))
    write_report(folder, make_document(folder))
    runs, _ = read_runs([folder])
    write_history(folder / "history.html", build_history(runs))
    for file in ("report.html", "history.html"):
        page = page_of(folder / file, (390, 844))
        wait_for_charts(page)
        page.evaluate(TOUCH_EVERYTHING)
        expect(page.locator("h1")).to_be_visible()
        page.wait_for_timeout(100)
        assert page.evaluate("window.hacked") is None
        assert (
            page.evaluate("document.querySelectorAll('iframe, img:not([src^=\"data:\"]), object, embed').length") == 0
        )
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
