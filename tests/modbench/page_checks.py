"""What holds for every page that this package makes: elements are closed in order, ids are unique, scripts are its own."""

import re
from html.parser import HTMLParser

from modbench.report.interactive import page_script

VOID = {"meta", "br", "img", "hr", "link", "input"}
SCRIPT = re.compile(r"<script(?P<attributes>[^>]*)>(?P<text>.*?)</script>", re.DOTALL)


def assert_is_well_formed(page: str) -> list[str]:
    """Returns the ids."""
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert len(balance.ids) == len(set(balance.ids))
    return balance.ids


def foreign_scripts(page: str) -> list[str]:
    """Script elements that a browser would run and that are not this package's own."""
    own = {page_script(name) for name in ("page.js", "table.js", "charts.js")}
    data = (' type="text/plain"', ' type="application/json"')
    scripts = [match for match in SCRIPT.finditer(page) if not match["attributes"].startswith(data)]
    return [match.group() for match in scripts if match["attributes"] or match["text"] not in own]


class _Balance(HTMLParser):
    """Fails on a tag that is closed out of order, and collects ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"
