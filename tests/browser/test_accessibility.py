"""axe-core on every page: no violation of WCAG 2.1 AA or of best practice, in light and dark, wide and on a phone."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import PHONE, WIDE
from tests.browser.pages import PAGES
from tests.browser.test_page import wait_for_charts

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
OPTIONS = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(name, scheme, size, pages, page_of):
    page = page_of(pages[name], size, scheme, bypass_csp=True)
    wait_for_charts(page)
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    results = Axe().run(page, options=OPTIONS)
    assert len(results.response["passes"]) > 10, "axe has looked at the page"
    assert [summary(found) for found in results.response["violations"]] == []


def summary(violation: dict) -> str:
    nodes = [f"{node['target']}: {node['html'][:120]}" for node in violation["nodes"][:3]]
    return f"{violation['id']} × {len(violation['nodes'])}: {violation['help']}: {nodes}"
