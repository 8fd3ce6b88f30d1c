import xml.etree.ElementTree as ET

import pytest

from modbench.analysis.verdict import Verdict
from modbench.report.junit import render_junit
from tests.modbench.comparison_factory import HOSTILE, inconclusive, line, sides, slower

ATTRIBUTES = {  # of every element that is written, as the schema junit-10.xsd of Jenkins' xUnit plugin allows them
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
    "properties": set(),
    "property": {"name", "value"},
    "testcase": {"name", "time", "classname", "group"},
    **{name: {"type", "message"} for name in ("failure", "error", "skipped")},
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "skipped"},
}
REQUIRED = {"testsuite": {"name", "tests", "failures", "errors"}, "property": {"name", "value"}, "testcase": {"name"}}
COUNTS = ("tests", "failures", "errors", "skipped")


def parsed(*compared, counts_as=None):
    return ET.fromstring(render_junit(compared, counts_as).encode())


def counts(element):
    return tuple(int(element.get(name)) for name in COUNTS if element.get(name) is not None)


def one_of_each():
    lines = [line(context=1), line(Verdict.FASTER, 2), slower(3), inconclusive(4), line(Verdict.UNDECIDED, 5)]
    lines += [line(Verdict.NOT_COMPARABLE, 6), line(Verdict.FAILED, 7), line(None, 8, ground="advisory")]
    return sides(*lines)


def test_counts_are_those_of_the_elements():
    root = parsed(one_of_each())
    suite = root.find("testsuite")
    assert counts(suite) == (7, 1, 2, 2)
    assert counts(root) == (7, 1, 2), "the root has no number of skipped ones in the schema"
    tags = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    for name, tag in tags.items():
        assert len(suite.findall(f"testcase/{tag}")) == int(suite.get(name))
    assert len(suite.findall("testcase")) == 7, "an advisory line is no test"


def test_elements_and_attributes_are_those_of_the_common_schema():
    for root in (parsed(one_of_each()), parsed(), parsed(sides())):
        for element in root.iter():
            assert REQUIRED.get(element.tag, set()) <= set(element.attrib) <= ATTRIBUTES[element.tag]
            assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())


def test_inconclusive_can_count_as_failure():
    assert counts(parsed(one_of_each(), counts_as="fail").find("testsuite")) == (7, 3, 2, 0)
    assert counts(parsed(one_of_each(), counts_as="pass").find("testsuite")) == (7, 1, 2, 2)


def test_a_suite_per_comparison_and_totals_over_all():
    root = parsed(sides(slower()), sides(line(), slower(512)))
    assert [counts(suite) for suite in root] == [(1, 1, 0, 0), (2, 1, 0, 0)]
    assert counts(root) == (3, 2, 0)


def test_nothing_compared_is_an_error_and_no_empty_success():
    for compared in ((), (sides(),), (sides(line(None)),)):
        root = parsed(*compared)
        assert counts(root) == (1, 0, 1)
        assert root.find("testsuite/testcase/error").get("message") == "nothing was compared"


def test_a_failure_says_where_and_how_much():
    case = parsed(sides(slower(reason="why", doubts=("a doubt",)))).find("testsuite/testcase")
    assert (case.get("classname"), case.get("name")) == ("ci.context 4,096", "threshold tpot_s")
    failure = case.find("failure")
    assert failure.attrib == {"type": "slower", "message": "slower +6.1 % [+4.0, +8.3]: why"}
    assert failure.text == "pairs, 8 and 8 values\na doubt"


def test_properties_tell_the_sides_the_machine_and_the_tolerance():
    properties = {
        item.get("name"): item.get("value") for item in parsed(sides(line())).iterfind("testsuite/properties/property")
    }
    assert properties == {
        "base": "main",
        "base.git_sha": "0123456789abcdef0123",
        "base.machine": "machine-1",
        "candidate": "working tree",
        "candidate.git_sha": "fedcba9876543210aaaa+dirty",
        "candidate.machine": "machine-1",
        "tolerance": "3 %",
        "margin.tpot_s": "3 %",
        "margin.ttft_s": "3 %",
    }


def test_test_cases_have_names_of_their_own():
    cells = [line(), line(cell_id="other"), line(metric="ttft_s"), line(ground="ratio_to_dense")]
    cases = parsed(sides(*cells)).findall("testsuite/testcase")
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_well_formed_xml(text):
    hostile = slower(method=text, metric=text, reason=text, doubts=(text,), axes={text: text})
    root = parsed(sides(hostile, margins={text: 0.03}))
    assert counts(root) == (1, 1, 0)
    for element in root.iter():
        for value in (*element.attrib.values(), element.text or ""):
            assert all(char.isprintable() or char in "\n " for char in value)
