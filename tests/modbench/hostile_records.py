"""Makes the folder of a run as a hostile stranger would: their text wherever record, trace and run file have a free one."""

import json
from pathlib import Path
from typing import Any

from modbench.quality_record import PositionScore, QualityRecord, QualityScores, work_id_of
from modbench.record import Record
from modbench.trace_record import TraceRecord
from tests.modbench.record_factory import ENVIRONMENT, failed, make_quads

TEXTS: dict[str, str] = {
    "script": "<script>hacked=1</script></script><script>hacked=2</script><!--<script>",
    "attribute": "\" onmouseover=hacked=1 x='><img src=x onerror=hacked=1><svg/onload=hacked=1>",
    "break_out": "</style></svg></title></textarea></template>]]><iframe src=//x.invalid></iframe>",
    "link": "[a](javascript:hacked=1) javascript:hacked=1 ![i](http://x.invalid/i.png) https://x.invalid www.x.invalid",
    "template": "{{7777*7}} {% raw %} ${hacked=1} #{7} %s {0}",
    "terminal": "\x1b[31mred\x1b]8;;http://x.invalid\x07\x9b2J\x00\r\n::error title=x::y\n\u202egnp.exe\u2028[bold]rich[/bold]",
    "markdown": "a | b\n| --- |\n# title\n- @everyone #12 `x` ~~s~~ <details><summary>s</summary> &lt;b&gt; \\| ```",
    "formula": '=HYPERLINK("http://x.invalid","a")',
    "mathtext": "$\\alpha_{ _hidden \\\\ %",
    "climbing": "../../../evil",
    "nul": "../evil\x00.html",
    "names": "__proto__",
    "unicode": "\ufffe\ufeff\U000e0041 長い名前",
    "long": "x" * 50_000,
}


def hostile_records(text: str) -> list[Record]:
    """Eight pairs of dense and of a method with this name, and a launch of it that failed."""
    records = [_hostile(record, text, index) for index, record in enumerate(make_quads(4, ("dense", text)))]
    lost = failed(records[1], phase=text, error=text).model_copy(update={"launch_id": f"{text} lost"})
    return [*records, lost]


def _hostile(record: Record, text: str, index: int) -> Record:
    point = record.point.model_copy(
        update={
            "cell_id": text,
            "axes": {text: text, "workload.context": 1024},
            "model": {"path": text, text: text},
            "settings": {**record.point.settings, text: text},
            "workload": {**record.point.workload, "prompt": {"text": text}, text: text},
            **dict.fromkeys(("dtype", "device_kind", "attention"), text),
        }
    )
    facts = dict.fromkeys(
        ("git_sha", "device", "gpu", "started", "scenario", "attention_path", "python", "kernel"), text
    )
    facts |= {"machine": {"cpu": text, text: text}, "versions": {text: text}, "declared": {text: text}, text: [text]}
    return record.model_copy(
        update={
            "launch_id": f"{text}{index}",
            "run_id": text,
            "point_id": f"{text}{record.method == 'dense'}",
            "phase": text,
            "point": point,
            "flags": [text],
            "metrics": {**record.metrics, text: 1.0},
            "guard": {**record.guard, text: "declared"},
            "environment": {**ENVIRONMENT, **facts},
        }
    )


def hostile_traces(text: str) -> list[TraceRecord]:
    """A traced launch of each method, and one that failed."""
    names = {"launch_id": text, "run_id": text, "point_id": text, "cell_id": text, "kind": text, "trace_file": text}
    seconds = {phase: {"attention": 0.1, text: 0.1} for phase in ("prefill", "decode", text)}
    traces = [
        TraceRecord(**names, method=method, host_s=seconds, num_decode_steps=1, slowdown_ratio={text: 2.0})
        for method in ("dense", text)
    ]
    return [*traces, TraceRecord(**{**names, "cell_id": f"{text} lost"}, method=text, error=text)]


def hostile_evaluations(text: str) -> list[QualityRecord]:
    """An evaluation of dense, and one of the other method that failed."""
    names = {"launch_id": text, "run_id": text, "point_id": text, "cell_id": text, "kind": text, "quality_id": text}
    dense, other = (
        next(r for r in hostile_records(text) if (r.method == "dense") == is_dense) for is_dense in (True, False)
    )
    buckets = [PositionScore(first_position=1, last_position=9, num_bytes=9, bits_per_byte=2.0)]
    scores = QualityScores(
        text_hash=text, num_rows=2, num_tokens=9, num_bytes=9, context=9, bits_per_byte=2.0, by_position=buckets
    )
    return [
        QualityRecord(
            **names,
            method="dense",
            work_id=work_id_of(dense.point),
            status="ok",
            scores=scores,
            evaluation={text: text},
        ),
        QualityRecord(**names, method=text, work_id=work_id_of(other.point), status="failed", error=text),
    ]


def write_hostile_run(folder: Path, text: str) -> Path:
    """The folder of such a run, complete, as it could have been downloaded."""
    folder.mkdir(parents=True)
    names = ("run_id", "work_id", "name", "question", "scenario", "command", "started", "budget_doubt")
    facts: dict[str, Any] = dict.fromkeys(names, text)
    facts |= {"methods": {"dense": "dense", text: text}, "expect": [], "overrides": [text]}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "records.jsonl").write_text(json_lines([record.model_dump() for record in hostile_records(text)]))
    (folder / "traces.jsonl").write_text(json_lines([trace.model_dump() for trace in hostile_traces(text)]))
    (folder / "quality.jsonl").write_text(json_lines([row.model_dump() for row in hostile_evaluations(text)]))
    return folder


def json_lines(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)
