"""What a job on GitHub Actions shows of a gate: annotations, and a step summary within its limit.

In: a `GateResult` and Markdown. Out: lines of workflow commands, and text. Source: GitHub's "Workflow commands for GitHub Actions".
"""

from collections.abc import Sequence

from modbench.analysis.gate import Found, GateResult
from modbench.analysis.verdict import Verdict
from modbench.report.escaping import one_line
from modbench.report.gate import change_text, place_text, subject_text

MAX_ANNOTATIONS = 10  # of each kind per step; GitHub drops the rest
MAX_SUMMARY_BYTES = 2**20 - 2**10  # 1 MiB per step, above which GitHub drops all of it
CUT = "\n\n**Cut here: a step summary holds 1 MiB; the job's log has everything.**\n"
KINDS = ("error", "warning", "notice")


def annotations(result: GateResult, lines: Sequence[str]) -> list[str]:
    """Workflow commands: an annotation for `lines` (what the gate says), then one per finding; at most 10 of each kind."""
    found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    found[_kind(result.outcome, result)].append((f"modbench: {result.outcome}", " ".join(lines)))
    for outcome, items in result.findings.items():
        found[_kind(outcome, result)] += [(f"modbench: {outcome}", _message(item)) for item in items]
    found["notice"] += [("modbench: faster", _message(item)) for item in result.faster]
    return [
        f"::{kind} title={escape_property(title)}::{escape_data(text)}"
        for kind, texts in found.items()
        for title, text in _at_most(texts)
    ]


def escape_data(text: str) -> str:
    """The message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """A property of a workflow command."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def cut_summary(text: str, num_bytes_before: int) -> str:
    """What may still be appended to a step summary of so many bytes: whole lines, and a line that says where it is cut."""
    room = MAX_SUMMARY_BYTES - num_bytes_before
    if len(text.encode()) <= room:
        return text
    room -= len(CUT.encode()) + len("\n</details>")
    kept = text.encode()[: max(room, 0)].decode(errors="ignore").rpartition("\n")[0]
    is_open = kept.count("<details>") > kept.count("</details>")
    return (kept + "\n</details>" * is_open + CUT) if room > 0 else ""


def _kind(outcome: str, result: GateResult) -> str:
    if outcome == "same or faster":
        return "notice"
    return "warning" if outcome == "inconclusive" and result.counts_as != "fail" else "error"


def _at_most(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(texts) <= MAX_ANNOTATIONS:
        return texts
    shown = texts[: MAX_ANNOTATIONS - 1]
    return [*shown, ("modbench", f"and {len(texts) - len(shown)} more; the step summary and the log have them")]


def _message(item: Found) -> str:
    line = item.line
    verdict = line.word if line.verdict in (Verdict.SLOWER, Verdict.FASTER) else ""
    facts = [f"{subject_text(line)} at {place_text(line)}", verdict, change_text(line)]
    text = " ".join(part for part in facts if part)
    return one_line(f"{text} ({line.reason})" if line.reason else text)
