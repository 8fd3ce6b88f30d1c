"""The gate of the pytest plugin: a run's records against an earlier run's, which `--modbench-baseline` names."""

from collections.abc import Sequence
from pathlib import Path

from modbench.errors import OptionError
from modbench.record import Record


def gate_failures(records: Sequence[Record], baseline: Path) -> dict[str, list[str]]:
    """Cell id -> a line for everything that is worse than in the run at `baseline`; cells without one are left out.

    Raises:
        OptionError: always: there is no comparison of saved runs yet.
    """
    raise OptionError(f"--modbench-baseline: got {baseline}; expected no baseline: runs cannot be compared yet")
