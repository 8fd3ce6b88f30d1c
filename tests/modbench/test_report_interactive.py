import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace

import pytest

from modbench.report import interactive
from modbench.report.html import render_html, render_page
from modbench.report.interactive import (
    chart_library,
    chart_licences,
    content_security_policy,
    data_url,
    page_script,
    script_json,
)
from modbench.report.plots import Plot
from tests.modbench.page_checks import SCRIPT, foreign_scripts
from tests.modbench.test_report_golden import golden_document

SPEC = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "data": {"values": [{"method": "</script><!--"}]}}
PLOT = Plot("ttft", "Time to the first token", '<svg class="modbench-plot" role="img"></svg>', b"", SPEC)


@pytest.fixture(scope="module")
def page():
    return render_html(golden_document(), [PLOT, replace(PLOT, name="kv_cache", spec=None)])


def policy_hashes(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert policy.endswith("; base-uri 'none'; form-action 'none'")
    assert "unsafe-eval" not in policy
    return set(re.findall(r"'sha256-([^']+)'", policy))


def sha256(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_policy_names_exactly_the_scripts_of_the_page_and_the_library_it_carries(page):
    scripts = {match["text"] for match in SCRIPT.finditer(page) if "type=" not in match["attributes"]}
    packed = re.search(r'id="modbench-library">([^<]*)<', page).group(1)
    library = gzip.decompress(base64.b64decode(packed)).decode()
    assert policy_hashes(page) == {sha256(script) for script in (*scripts, library)}
    assert len(scripts) == 3
    assert foreign_scripts(page) == []
    assert len(foreign_scripts("<script>alert(1)</script>" + page)) == 1


def test_a_page_without_charts_carries_no_library_and_allows_none(monkeypatch):
    monkeypatch.setattr(interactive, "chart_library", None)  # calling it would fail
    page = render_html(golden_document())
    assert "modbench-library" not in page
    assert "licences" not in re.findall(r'id="(\w+)"', page)
    assert len(policy_hashes(page)) == 2


def test_no_script_of_the_page_is_inline_in_an_attribute(page):
    markup = SCRIPT.sub("", page)
    assert not re.search(r"<[^>]*\son\w+=", markup)
    assert "javascript:" not in markup


def test_chart_data_cannot_end_its_script_element(page):
    text = re.search(r'id="modbench-charts">(.*?)</script>', page, re.DOTALL).group(1)
    assert json.loads(text) == {"ttft": SPEC}
    assert "<" not in text


def test_every_text_survives_as_json_without_markup_or_line_separators():
    value = {"a": "</script><script>alert(1)</script><!-- & \u2028 \u2029 é"}
    text = script_json(value)
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)
    with pytest.raises(ValueError, match="Out of range"):
        script_json(float("nan"))


def test_only_a_plot_with_a_spec_has_a_place_for_a_chart(page):
    figures = re.findall(r'<figure class="plot" data-plot="(\w+)".*?</figure>', page, re.DOTALL)
    assert figures == ["ttft", "kv_cache"]
    assert page.count('<div class="static">') == 2
    assert page.count('<div class="chart">') == 1


def test_the_library_is_the_same_each_time_and_says_when_it_is_there():
    library = chart_library()
    assert gzip.decompress(base64.b64decode(library.packed)).decode() == library.script
    assert "modbench-library" in library.script
    assert re.fullmatch(r"Vega \d+\.\d+\.\d+, Vega-Embed \d+\.\d+\.\d+", library.versions)


def test_licences_name_the_holders_of_what_the_library_contains(page):
    text = "\n".join(chart_licences())
    for holder in ("University of Washington Interactive Data Lab", "Mike Bostock", "Jon Mease", "Simon Lydell"):
        assert holder in text
    assert text.count("Redistributions in binary form must reproduce") == 2
    assert "Permission to use, copy, modify, and/or distribute this software" in text
    details = re.search(r'<details class="fold" id="licences">(.*?)</details>', page, re.DOTALL).group(1)
    assert details.count("<p>") == len(chart_licences()) + 1


def test_scripts_are_read_as_they_are_and_stay_short():
    for name in ("page.js", "table.js", "charts.js"):
        script = page_script(name)
        assert "</script" not in script
        assert "eval" not in script.replace("forbids eval", "")
        assert len(script.splitlines()) < 150


def test_a_policy_without_scripts_forbids_all():
    assert "script-src 'none';" in content_security_policy([])


def test_a_data_url_decodes_to_its_content():
    url = data_url(b"\x00records", "application/gzip")
    assert url.startswith("data:application/gzip;base64,")
    assert base64.b64decode(url.partition(",")[2]) == b"\x00records"


def test_pages_of_other_templates_have_the_theme_button_and_need_no_charts():
    content = {"title": "History", "plots": [], "tables": [], "legend": (), "setups": [], "doubts": []}
    page = render_page("history.html.j2", content)
    assert '<button type="button" id="theme"' in page
    assert len(policy_hashes(page)) == 2
