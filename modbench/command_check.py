"""`modbench check`: saved runs against saved runs, and what a gate says about them (gate_output.py)."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path

from modbench.analysis import ComparedSides, compare_sides
from modbench.analysis.rows import Footnote
from modbench.analysis.verdict import DEFAULT_TOLERANCE
from modbench.errors import OptionError, RecordError
from modbench.gate_output import GateOptions, present_gate
from modbench.record import RECORDS_FILE, Record, load_records
from modbench.run_folder import RUN_FILE, read_run_file
from modbench.scenario import METRICS
from modbench.scenario.wording import show, suggestion


def check_saved(
    candidate: Sequence[str],
    baseline: Sequence[str],
    tolerance: float = DEFAULT_TOLERANCE,
    margins: Mapping[str, float] | None = None,
    options: GateOptions | None = None,
    command: str = "",
) -> int:
    """Compare saved runs with saved runs, present the result, and return the exit code.

    Args:
        candidate: run folders, records files or glob patterns, all of one side: one family of comparisons.
        baseline: the same of the other side.
        tolerance: as a share.
        margins: δ per latency metric where this machine's noise is known, as shares.
        options: what to judge and write.
        command: what reproduces it.

    Raises:
        RecordError: records are missing or cannot be read.
        OptionError: a file stands on both sides.
    """
    candidate_files, base_files = record_files(candidate), record_files(baseline)
    for path in candidate_files:
        if path in base_files:
            raise OptionError(f"--baseline: got {path}, which is the candidate too; expected another run")
    base, base_skipped = _read(base_files)
    records, skipped = _read(candidate_files)
    compared = compare_sides(base, records, ", ".join(baseline), ", ".join(candidate), tolerance, margins or {})
    if base_skipped + skipped:
        note = Footnote(f"{base_skipped + skipped} damaged lines of records were passed over")
        compared = replace(compared, footnotes=(*compared.footnotes, note))
    scenario = _scenario_of(candidate_files)
    return present_gate([compared], options or GateOptions(), lambda sides: _side_by_side(sides, scenario), command)


def parse_tolerance(text: str) -> float:
    """A share as users write it, `3%` or `0.03`.

    Raises:
        OptionError: it is neither, or not above 0 and below 100 %.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(%?)", text.strip(), re.ASCII)
    share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < share < 1:
        raise OptionError(f"--tolerance: got {show(text)}; expected a share above 0 and below 1, such as 3% or 0.03")
    return share


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The values of `--metric`.

    Raises:
        OptionError: there is no such metric.
    """
    for name in metrics:
        if name not in METRICS:
            raise OptionError(f"--metric: got {show(name)}; {suggestion(name, list(METRICS))}")
    return tuple(metrics)


def record_files(sources: Sequence[str]) -> list[Path]:
    """The records files that run folders, files and glob patterns name, each once.

    Raises:
        RecordError: a pattern matches nothing.
    """
    files: dict[Path, None] = {}
    for source in sources:
        found = [source] if Path(source).exists() else sorted(glob(source, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
        if not found:
            raise RecordError(f"{source}: no such run; expected a run's folder, a {RECORDS_FILE}, or a pattern of them")
        paths = [Path(text) for text in found]
        files |= dict.fromkeys((path / RECORDS_FILE if path.is_dir() else path).resolve() for path in paths)
    return list(files)


def _read(files: Collection[Path]) -> tuple[list[Record], int]:
    """All records, and how many damaged lines were passed over."""
    read = [load_records(path) for path in files]
    return [record for file in read for record in file.records], sum(file.num_skipped_lines for file in read)


def _scenario_of(files: Sequence[Path]) -> str | None:
    """The scenario file of a single run that is known with its folder."""
    if len(files) != 1 or not (files[0].parent / RUN_FILE).exists():
        return None
    return read_run_file(files[0].parent).get("scenario")


def _side_by_side(sides: ComparedSides, scenario: str | None) -> str:
    """The recommended gate on the same question: pairs of the base's revision and what is checked out."""
    shas = sides.base.git_shas
    if scenario is None or len(shas) != 1 or not re.fullmatch(r"[0-9a-f]{7,64}", shas[0]):
        return ""
    return shlex.join(["modbench", "check", "--against", shas[0][:12], scenario])
