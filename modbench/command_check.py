"""`modbench check`: saved runs against saved runs, and what a gate says about them (gate_output.py)."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from modbench.analysis import ComparedSides, compare_all
from modbench.errors import OptionError
from modbench.gate_output import GateOptions, present_gate
from modbench.run_folder import RUN_FILE, read_run_file
from modbench.side_files import load_side


def check_saved(
    candidate: Sequence[str],
    baseline: Sequence[str],
    tolerance: float,
    metrics: Collection[str] | None,
    options: GateOptions,
    command: str = "",
) -> int:
    """Compare saved runs with saved runs, present the result, and return the exit code.

    Args:
        candidate: run folders, records files or patterns of them, all of one side: one family of comparisons.
        baseline: the same of the other side.
        tolerance: as a share.
        metrics: what is compared; None for everything.
        options: what the gate makes of it, and writes.
        command: what reproduces it.

    Raises:
        RecordError: records are missing, cannot be read, or have a latency that is no time.
        OptionError: a launch stands on both sides.
        OutputError: a file that was asked for cannot be written.
    """
    base, other = load_side(*baseline), load_side(*candidate)
    if {record.launch_id for record in base.records} & {record.launch_id for record in other.records}:
        raise OptionError(
            f"--baseline: got {base.label}, with launches that the candidate holds too; expected another run"
        )
    compared = compare_all(base, [other], tolerance, metrics=metrics)
    facts = _facts_of(candidate)
    return present_gate(compared, options, lambda sides: _side_by_side(sides, facts), command)


def _facts_of(sources: Sequence[str]) -> dict[str, Any] | None:
    """What `run.json` says of a single run that is known with its folder."""
    folder = Path(sources[0])
    return read_run_file(folder) if len(sources) == 1 and (folder / RUN_FILE).is_file() else None


def _side_by_side(sides: ComparedSides, facts: Mapping[str, Any] | None) -> str:
    """The recommended gate on the same question: pairs of the base's revision and what is checked out."""
    shas = sides.base.git_shas
    if facts is None or "scenario" not in facts or shas == sides.candidate.git_shas:
        return ""
    if len(shas) != 1 or not re.fullmatch(r"[0-9a-f]{7,64}", shas[0]):
        return ""
    words = ["modbench", "check", "--against", shas[0][:12], facts["scenario"]]
    words += [word for override in facts["overrides"] for word in ("--set", override)]
    return shlex.join(words + ["--allow-entry"] * ("--allow-entry" in facts["command"]))
