"""Compared sides as JUnit XML, as Jenkins, GitLab and GitHub actions read it: a suite per comparison, a test case per verdict.

| verdict | test case |
|---|---|
| same, faster | passed |
| slower; of counted values more | failure: the claim "no slower" was tested and is not true |
| failed, not comparable | error: the claim could not be tested, so neither passed nor failed |
| inconclusive, undecided | skipped; with `--inconclusive fail` a failure |

Lines without a verdict are left out. A suite without any verdict has one test case that is an error: silence must not pass.
Times are left out too: a test case has none.
"""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence

from modbench.analysis.comparison import ComparedSides, Comparison, Side
from modbench.analysis.gate import CountsAs
from modbench.analysis.verdict import Verdict
from modbench.report.escaping import one_line
from modbench.report.gate import cell_names, change_text, share_text, subject_text
from modbench.units import format_count

ELEMENTS = {
    Verdict.SAME: None,
    Verdict.FASTER: None,
    Verdict.SLOWER: "failure",
    Verdict.FAILED: "error",
    Verdict.NOT_COMPARABLE: "error",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.UNDECIDED: "skipped",
}


def render_junit(compared: Sequence[ComparedSides], counts_as: CountsAs | None = None) -> str:
    """The XML text; `one_line` drops every character that XML 1.0 does not allow."""
    root = ET.Element("testsuites", name="modbench")
    totals: Counter[str] = Counter()
    for sides in compared:
        totals += _add_suite(root, sides, counts_as)
    if not compared:
        totals += _add_nothing(ET.SubElement(root, "testsuite", name="modbench"), "modbench")
    for name in ("tests", "failures", "errors"):
        root.set(name, str(totals[name]))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _add_suite(root: ET.Element, sides: ComparedSides, counts_as: CountsAs | None) -> Counter[str]:
    name = one_line(", ".join(sides.candidate.scenario_names)) or "modbench"
    suite = ET.SubElement(root, "testsuite", name=name)
    properties = ET.SubElement(suite, "properties")
    for key, value in _facts(sides):
        ET.SubElement(properties, "property", name=key, value=one_line(value))
    counts: Counter[str] = Counter()
    names = cell_names(sides.judged)
    for line in sides.judged:
        element = _element(line, counts_as)
        case = ET.SubElement(suite, "testcase", classname=f"{name}.{names[line.cell_id]}", name=subject_text(line))
        counts["tests"] += 1
        if element is not None:
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[element]] += 1
            ET.SubElement(case, element, type=one_line(line.verdict), message=_message(line)).text = _details(line)
    if not sides.judged:
        counts += _add_nothing(suite, name)
    for key in ("tests", "failures", "errors", "skipped"):
        suite.set(key, str(counts[key]))
    return counts


def _add_nothing(suite: ET.Element, name: str) -> Counter[str]:
    case = ET.SubElement(suite, "testcase", classname=name, name="something was compared")
    ET.SubElement(case, "error", type="failed", message="nothing was compared")
    for key, count in (("tests", 1), ("failures", 0), ("errors", 1), ("skipped", 0)):
        suite.set(key, str(count))
    return Counter(tests=1, errors=1)


def _element(line: Comparison, counts_as: CountsAs | None) -> str | None:
    assert line.verdict is not None, "only lines with a verdict are test cases"
    element = ELEMENTS[line.verdict]
    return "failure" if element == "skipped" and counts_as == "fail" else element


def _message(line: Comparison) -> str:
    verdict = line.word if line.verdict is Verdict.SLOWER else one_line(line.verdict)
    facts = " ".join(part for part in (verdict, change_text(line)) if part)
    return one_line(f"{facts}: {line.reason}" if line.reason else facts)


def _details(line: Comparison) -> str:
    base, candidate = line.num_values
    texts = [f"{line.ground}, {base} and {candidate} values", *line.doubts]
    if line.pairs_needed is not None:
        texts.insert(1, f"about {format_count(line.pairs_needed)} pairs would decide")
    return "\n".join(one_line(text) for text in texts)


def _facts(sides: ComparedSides) -> Iterable[tuple[str, str]]:
    for role, side in (("base", sides.base), ("candidate", sides.candidate)):
        yield from _side_facts(role, side)
    yield "tolerance", share_text(sides.tolerance)
    for metric, margin in sides.margins.items():
        yield f"margin.{one_line(metric)}", share_text(margin)


def _side_facts(role: str, side: Side) -> Iterable[tuple[str, str]]:
    yield role, side.label
    yield f"{role}.git_sha", ", ".join(side.git_shas) or "unknown"
    yield f"{role}.machine", ", ".join(side.machines) or "unknown"
