"""The folder of one run: scenario as given, records, worker log, report.

In: a scenario and `--output`. Out: a folder that can be resumed.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modbench.errors import OutputError
from modbench.record import RECORDS_FILE, Record, read_records
from modbench.scenario import LoadedScenario

RUN_FILE = "run.json"
SCENARIO_FILE = "scenario.yaml"
LOG_FILE = "worker.log"
PARTIAL_SUFFIX = ".partial"
DEFAULT_ROOT = Path("reports")
BUDGET_DOUBT = "budget_doubt"  # of the run's file, where a time budget left something out
REQUIRED_FACTS: dict[str, type] = {
    **dict.fromkeys(("run_id", "name", "question", "command"), str),
    "methods": dict,
    **dict.fromkeys(("expect", "overrides"), list),
}
REMEDY = "restore it, or measure again into another folder"
FACT_TEXTS: dict[type, str] = {str: "a text", dict: "texts by name", list: "a list of texts"}


@dataclass(frozen=True)
class RunFolder:
    """`path`; `run_id`, which every launch id of this run begins with; `facts` of `run.json` and the scenario's text."""

    path: Path
    facts: dict[str, Any]
    scenario_text: str

    @property
    def run_id(self) -> str:
        """The same for all tries at this run."""
        return self.facts["run_id"]

    @property
    def command(self) -> str:
        """What the run was started with."""
        return self.facts["command"]

    @property
    def started_utc(self) -> str | None:
        """When the first try began, as ISO 8601 in UTC; None where the run's file does not say."""
        return _utc(self.facts.get("started"))

    @property
    def records_path(self) -> Path:
        """One JSON line per finished launch."""
        return self.path / RECORDS_FILE

    def records(self) -> list[Record]:
        """What is on disk already; empty before the first launch has ended."""
        return list(read_records(self.path)) if self.records_path.exists() else []


def open_run_folder(loaded: LoadedScenario, output: Path | None, is_resumed: bool, command: str) -> RunFolder:
    """Make the folder, or reopen it with `--resume` (without `--output`: the scenario's newest one).

    Raises:
        OutputError: it holds another run and resuming was not asked for, there is nothing to resume, or it cannot be written.
    """
    scenario_root = DEFAULT_ROOT / loaded.scenario.name
    if output is None:
        output = _newest(scenario_root) if is_resumed else new_folder(scenario_root)
    if is_resumed:
        earlier = read_run_file(output)
    elif (output / RECORDS_FILE).exists():
        raise OutputError(f"{output}: it holds a run already; pass --resume to go on with it, or another --output")
    else:
        earlier = {"run_id": secrets.token_hex(4), "work_id": None}
    facts = {  # a resumed run is judged by the scenario as it is now
        "run_id": earlier["run_id"],
        "work_id": earlier.get("work_id"),
        "name": loaded.scenario.name,
        "question": loaded.scenario.question,
        "scenario": str(loaded.path),
        "methods": {label: settings.method for label, settings in loaded.scenario.methods.items()},
        "expect": loaded.scenario.expect,
        "overrides": list(loaded.overrides),
        "command": earlier.get("command", command),
        "started": earlier.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
    }
    folder = RunFolder(output, facts, loaded.text)
    if not is_resumed:
        _write(folder, facts)
    return folder


def claim_work(folder: RunFolder, work_id: str) -> None:
    """Note which work this folder is for, and today's scenario; other work is refused and leaves the folder as it was.

    Raises:
        OutputError: the run was started with other points, methods, samples or warm-up, or it cannot be written.
    """
    if folder.facts["work_id"] not in (None, work_id):
        raise OutputError(
            f"{folder.path}: the scenario's points, methods, samples or warm-up changed since this run was started; "
            "undo the change, or start a new run with another --output"
        )
    _write(folder, {**folder.facts, "work_id": work_id})


def note_budget_doubt(folder: RunFolder, text: str) -> None:
    """Note that a time budget ended the run; the note is gone once the run is resumed.

    Raises:
        OutputError: it cannot be written.
    """
    _write(folder, {**read_run_file(folder.path), BUDGET_DOUBT: text})


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Keep a second `modbench run` out of the folder while this one works; the kernel gives it free however this one ends.

    Raises:
        OutputError: another run is at work there.
    """
    descriptor = os.open(folder.path, os.O_RDONLY)  # the folder itself: its files are replaced
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{folder.path}: another modbench run is at work there; wait for it") from None
        yield
    finally:
        os.close(descriptor)


def new_folder(root: Path) -> Path:
    """`root/<local time>`, with a counter where two runs start within a second."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
    folder, count = root / stamp, 1
    while folder.exists():
        count += 1
        folder = root / f"{stamp}-{count}"
    return folder


def _newest(root: Path) -> Path:
    folders = sorted(path.parent for path in root.glob(f"*/{RUN_FILE}"))
    if not folders:
        raise OutputError(f"{root}: no run to resume; leave --resume out, or name the run with --output")
    return folders[-1]


def read_run_file(folder: Path) -> dict[str, Any]:
    """The facts of a run: id, scenario, methods, expectations, command.

    Raises:
        OutputError: the folder holds no run, or its run file is damaged.
    """
    path = folder / RUN_FILE
    try:
        facts = json.loads(path.read_text())
    except OSError:
        why = "it is a file" if folder.is_file() else f"no run there ({RUN_FILE} is missing)"
        raise OutputError(f"{folder}: {why}; expected the folder of a modbench run") from None
    except (ValueError, RecursionError):
        raise OutputError(f"{path}: not readable as JSON; {REMEDY}") from None
    missing = [key for key in REQUIRED_FACTS if not isinstance(facts, dict) or key not in facts]
    if missing:
        raise OutputError(f"{path}: it has no {missing[0]}; {REMEDY}")
    for key, kind in REQUIRED_FACTS.items():
        found = facts[key]
        members = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
        if not isinstance(found, kind) or not all(isinstance(member, str) for member in members):
            raise OutputError(f"{path}: {key}: expected {FACT_TEXTS[kind]}; {REMEDY}")
    return facts


def noted_start(folder: Path) -> str | None:
    """When the run of a folder began, as ISO 8601 in UTC, for records that don't say; None without its run file."""
    try:
        return _utc(json.loads((folder / RUN_FILE).read_text())["started"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _utc(started: Any) -> str | None:
    """None where it is no time."""
    try:
        return datetime.fromisoformat(started).astimezone(UTC).isoformat(timespec="seconds")
    except (TypeError, ValueError, OverflowError):
        return None


def _write(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Write scenario and facts, each in one step: a run that is killed meanwhile, or finds the disk full, keeps the old ones."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _replace(folder.path / SCENARIO_FILE, folder.scenario_text)
        _replace(folder.path / RUN_FILE, json.dumps(facts, indent=2) + "\n")
    except OSError as error:
        raise OutputError(
            f"{folder.path}: cannot be written ({error.strerror}); choose another --output, or free some disk space"
        ) from error


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    partial.unlink(missing_ok=True)  # a killed run's, or a link that leads elsewhere
    with partial.open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
