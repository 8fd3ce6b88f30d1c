"""ARTIFACT.md: every command, scenario and path in it exists, and its values are those of the published records."""

import importlib.util
import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import typer

from modbench.analysis import summarise
from modbench.analysis.estimate import Budget
from modbench.analysis.memory_model import OVERHEAD_BYTES
from modbench.analysis.payoff import payoffs
from modbench.analysis.prediction import Ceilings
from modbench.analysis.verdict import Verdict
from modbench.cli import app
from modbench.command_run import make_document
from modbench.devices import named_device
from modbench.estimate_target import Options, read_target
from modbench.record import read_records
from modbench.report.tables import verdict_of
from modbench.scenario import load_scenario

PROJECT = Path(__file__).parents[1]
PUBLISHED = PROJECT / "reports" / "published"
COLUMNS = ("id", "claim", "command", "expected", "tolerance", "minutes", "hardware", "recorded in")
UNITS = {"": 1.0, "×": 1.0, "%": 0.01, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "MiB": 2.0**20}
VALUE = re.compile(r"(\d[\d,]*(?:\.\d+)?) ?(×|%|s|ms|µs|MiB|)")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
IN_WORDS = {"0", "1.000"}  # none, and reconciled
TOLERANCE = re.compile(r"±(\d+(?:\.\d+)?)( %| points?| s|)")
STEADY_SIGMA = 0.06


def rows_of(text: str) -> list[dict[str, str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [dict(zip(COLUMNS, cells, strict=True)) for cells in lines if cells[0] != "id" and "---" not in cells[0]]


ARTIFACT = (PROJECT / "ARTIFACT.md").read_text(encoding="utf-8")
ROWS = {row["id"]: row for row in rows_of(ARTIFACT)}
README_ROWS = rows_of(ARTIFACT.split("## Claims of the README")[1].split("\n## ")[0])
COMMANDS = {row["command"].strip("`"): None for row in ROWS.values() if row["command"].startswith("`")}


@cache
def document(name: str):
    return make_document(PUBLISHED / name)


def values(name: str, metric: str, method: str | None = None, context: int | None = None) -> list[float]:
    """A metric of a published run, by cell and then by method, where it is known."""
    return [
        row.values[metric]
        for cell in document(name).summary.cells
        if context in (None, cell.axes["workload.context"])
        for row in cell.rows
        if method in (None, row.method) and row.values[metric] is not None
    ]


def quickstart(metric: str, context: int | None = None) -> list[float]:
    return values("quickstart-epyc", metric, context=context)


def ends(found: list[float]) -> list[float]:
    return [min(found), max(found)]


def without_dense(metric: str) -> list[float]:
    cells = document("quickstart-epyc").summary.cells
    return [row.values[metric] for cell in cells for row in cell.rows if not row.is_baseline]


def copied_share() -> list[float]:
    (cell_id,) = [
        cell.cell_id for cell in document("quickstart-epyc").summary.cells if cell.axes["workload.context"] == 4096
    ]
    return [
        phase.share("cache_append")
        for phase in document("quickstart-epyc").breakdowns.phases
        if (phase.cell_id, phase.method, phase.phase) == (cell_id, "dense", "decode")
    ]


def keep_ratio_prefill() -> list[float]:
    return [
        values("cpu-keep-ratio-epyc", "prefill_speedup", method, 2048)[0]
        for method in ("keep_6", "threshold", "keep_25", "keep_50")
    ]


def keep_ratio_verdicts() -> list[float]:
    rows = [row for cell in document("cpu-keep-ratio-epyc").summary.cells for row in cell.rows if not row.is_baseline]
    found = [verdict_of(row, f"{phase}_speedup") for row in rows for phase in ("prefill", "decode")]
    return [len(found), found.count(Verdict.FASTER)]


def repeated(metric: str) -> list[float]:
    """Least and most of threshold in the repetitions of the quickstart, at 1,024 and then at 4,096."""
    runs = [summarise(read_records(path)) for path in sorted((PUBLISHED / "quickstart-repeated-epyc").glob("*.jsonl"))]
    found: list[float] = []
    for context in (1024, 4096):
        cells = [cell for run in runs for cell in run.cells if cell.axes["workload.context"] == context]
        found += ends([row.values[metric] for cell in cells for row in cell.rows if row.method == "threshold"])
    return found


def verdicts(name: str) -> list[tuple[str, float]]:
    facts = json.loads((PUBLISHED / "verdicts-epyc" / f"{name}.json").read_text())
    return [(item["verdict"], item["sigma_ratio"]) for item in facts["comparisons"]]


def unchanged() -> list[float]:
    words = [verdict for verdict, _ in verdicts("unchanged")]
    return [len(words), words.count("slower"), words.count("faster")]


def plus_10() -> list[float]:
    words = [verdict for verdict, _ in verdicts("plus-10")]
    steady = [verdict for verdict, sigma in verdicts("plus-10") if sigma <= STEADY_SIGMA]
    return [words.count("slower"), len(words), steady.count("slower"), len(steady)]


@cache
def payoff():
    (case,) = read_target("llama2-7b", Options(contexts=(16384,), batches=(8,))).cases
    device = named_device("h200", case.dtype)
    ceilings = Ceilings(device.copy_bytes_per_s, device.matmul_flops_per_s)
    (found,) = payoffs(case, Budget(ceilings, device.memory_bytes, OVERHEAD_BYTES[device.kind]))
    return found


def estimated_gains() -> list[float]:
    at, last = payoff().because, payoff().scanned[-1]
    return [at.end_to_end_speedup, last.end_to_end_speedup, last.memory_reduction]


def estimated_causes() -> list[float]:
    return [
        value
        for cause in payoff().causes
        for value in (cause.phase_share_ratio, cause.part_share_ratio, cause.left_ratio)
    ]


def limits() -> list:
    (found,) = document("cpu-longest-context-epyc").summary.limits
    return list(found.limits)


RECOMPUTED: dict[str, Callable[[], list[float]]] = {
    "ttft": lambda: quickstart("ttft_s", 1024),
    "ttft-4k": lambda: quickstart("ttft_s", 4096),
    "prefill": lambda: quickstart("prefill_speedup", 1024),
    "prefill-4k": lambda: quickstart("prefill_speedup", 4096),
    "ideal": lambda: quickstart("prefill_share_of_ideal", 1024),
    "ideal-4k": lambda: quickstart("prefill_share_of_ideal", 4096),
    "tpot": lambda: quickstart("tpot_s", 1024),
    "tpot-4k": lambda: quickstart("tpot_s", 4096),
    "decode": lambda: quickstart("decode_speedup", 1024),
    "decode-4k": lambda: quickstart("decode_speedup", 4096),
    "kv": lambda: quickstart("kv_cache_bytes", 1024),
    "kv-4k": lambda: quickstart("kv_cache_bytes", 4096),
    "kv-less": lambda: quickstart("kv_cache_reduction"),
    "kept": lambda: without_dense("keep_ratio_prefill"),
    "copy": copied_share,
    "same-cache": lambda: ends(values("cpu-decode-own-cache-epyc", "decode_speedup")),
    "same-cache-ideal": lambda: ends(values("cpu-decode-own-cache-epyc", "decode_share_of_ideal")),
    "keep-prefill": keep_ratio_prefill,
    "keep-ideal": lambda: ends(values("cpu-keep-ratio-epyc", "prefill_share_of_ideal")),
    "keep-verdicts": keep_ratio_verdicts,
    "repeated-prefill": lambda: repeated("prefill_speedup"),
    "repeated-decode": lambda: repeated("decode_speedup"),
    "estimate-fits": lambda: [payoff().scanned[-1].context, payoff().dense_limit],
    "estimate-gain": estimated_gains,
    "estimate-why": estimated_causes,
    "unchanged": unchanged,
    "plus-10": plus_10,
    "plus-5": lambda: [[verdict for verdict, _ in verdicts("plus-5")].count("faster")],
    "guard": lambda: [
        sum(len(row.failed_identities) for cell in document("quickstart-epyc").summary.cells for row in cell.rows)
    ],
    "formula": lambda: ends(quickstart("kv_cache_formula_ratio")),
    "longest": lambda: [limit.value for limit in limits()],
    "longest-ratio": lambda: [limit.ratio for limit in limits()[1:]],
    "speed": lambda: ends(values("cpu-speed-epyc", "prefill_share_of_ideal", "threshold")),
    "speed-decode": lambda: values("cpu-speed-epyc", "decode_speedup", "threshold"),
    "all-kept": lambda: ends(values("cpu-speed-epyc", "prefill_speedup", "all_kept")),
}


def shown_values(text: str) -> list[tuple[float, float]]:
    """Each value in base units, and half a unit of its last printed digit."""
    found = []
    for part in text.split(" · "):
        match = VALUE.fullmatch(part)
        assert match is not None, f"{part!r} is no value"
        number, unit = match[1].replace(",", ""), UNITS[match[2]]
        decimals = len(number.partition(".")[2])
        found.append((float(number) * unit, 0.5 * 10**-decimals * unit))
    return found


@pytest.mark.parametrize("name", RECOMPUTED)
def test_the_published_records_give_the_value_that_is_claimed_within_its_tolerance(name):
    row = ROWS[name]
    recomputed, shown = RECOMPUTED[name](), shown_values(row["expected"])
    tolerance = TOLERANCE.match(row["tolerance"])
    for value, (expected, half_digit) in zip(recomputed, shown, strict=True):
        assert value == pytest.approx(expected, abs=half_digit * 1.001), "equal in all printed digits"
        if tolerance is not None:
            is_relative, is_points = tolerance[2] == " %", "point" in tolerance[2]
            allowed = (
                float(tolerance[1]) * (abs(expected) if is_relative else 1) * (0.01 if is_relative or is_points else 1)
            )
            assert abs(value - expected) <= max(allowed, half_digit)


def test_every_row_with_published_records_is_recomputed():
    published = {name for name, row in ROWS.items() if "reports/published" in row["recorded in"]}
    assert published - set(RECOMPUTED) == {"run"}
    assert set(RECOMPUTED) <= set(ROWS)


def test_every_number_that_is_expected_of_the_readme_stands_in_it():
    numbers = set(NUMBER.findall((PROJECT / "README.md").read_text(encoding="utf-8")))
    for row in README_ROWS:
        if row["id"] in RECOMPUTED:
            expected = set(NUMBER.findall(row["expected"])) - IN_WORDS
            assert expected <= numbers, row["id"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses_and_names_what_is_there(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == ".venv/bin/modbench":
        subcommand = typer.main.get_command(app).commands[words[1]]
        subcommand.make_context(words[1], words[2:])  # parses, and runs nothing
    elif words[:2] == [".venv/bin/python", "-m"]:
        assert importlib.util.find_spec(words[2]) is not None
    else:
        assert words == [".venv/bin/lint-imports"]
    for word in words:
        if word.startswith(("tests/", "benchmarks/", "scenarios/")):
            assert (PROJECT / word).exists(), word
        if word.endswith(".yaml"):
            load_scenario(PROJECT / word)


def test_every_path_that_is_linked_exists():
    links = re.findall(r"\]\(([^)#]+)\)", ARTIFACT)
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_every_published_folder_stands_behind_a_claim():
    folders = {path.name for path in PUBLISHED.iterdir() if path.is_dir()}
    assert {name for name in folders if f"reports/published/{name}/" not in ARTIFACT} == set()


def test_what_was_not_measured_has_no_value():
    for name, row in ROWS.items():
        if row["recorded in"] == "not measured":
            assert row["expected"] == row["minutes"] == "not measured", name


def test_no_id_stands_twice():
    assert len(rows_of(ARTIFACT)) == len(ROWS)
