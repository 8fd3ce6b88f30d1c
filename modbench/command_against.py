"""`modbench check --against REV SCENARIO...`: measures another revision and the working tree side by side; a gate's answer.

In: loaded scenarios and a revision of the repository that holds the code under test. Out: run folders of both sides, the gate's
output (gate_output.py), its exit code.
"""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from modbench.analysis import SideRecords, compare_all, margins_of
from modbench.analysis.verdict import DEFAULT_TOLERANCE
from modbench.code_under_test import repository_under_test
from modbench.environments import Installing, Mode
from modbench.foreground import INTERRUPTED, display, end_as_interrupt
from modbench.gate_output import GateOptions, present_gate, refuse_unwritable
from modbench.plan import LOOKS, PAIRS_PER_QUAD
from modbench.revision import other_revision, working_tree
from modbench.run_folder import new_folder
from modbench.runner import refuse_entries
from modbench.scenario import LoadedScenario, runs_foreign_code
from modbench.side_budget import SideBudget
from modbench.side_by_side import measure_side_by_side
from modbench.side_plan import BASE, CANDIDATE
from modbench.side_session import SideSession, noise_floors_of, open_benches, records_of

DEFAULT_ROOT = Path("reports/check")
INSTALL_LOG = "install.log"
SAME_CODE = "note: {} is what is checked out, and nothing is changed: this compared the code with itself"


@dataclass(frozen=True)
class AgainstOptions:
    """What to compare with, and how: `tolerance` is a share, `metrics` and `methods` are those to compare (None, or none: all)."""

    revision: str
    tolerance: float
    gate: GateOptions
    metrics: Collection[str] | None = None
    methods: tuple[str, ...] = ()
    environment: Mode = Mode.AUTO
    install: str | None = None
    output: Path | None = None
    budget_s: float | None = None
    allow_entry: bool = False
    command: str = ""


def check_against(scenarios: Sequence[LoadedScenario], options: AgainstOptions) -> int:
    """Measure both revisions, present what came out, and return the exit code; 130 where it was interrupted.

    Raises:
        OptionError: no such revision, no repository, or a scenario that cannot be compared.
        EntryNotAllowedError: a method would run the user's code, and that was not allowed.
        LaunchError: the other revision's environment cannot be made.
        OutputError, UnsupportedError: as of a run.
    """
    for loaded in scenarios:
        if not options.allow_entry:
            refuse_entries(loaded)
    refuse_unwritable(options.gate)
    repository = repository_under_test(scenarios)
    folder = options.output or new_folder(DEFAULT_ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    installing = Installing(options.environment, options.install, (folder / INSTALL_LOG).resolve())
    is_quiet = options.gate.is_quiet
    end_as_interrupt()
    try:
        with other_revision(repository, options.revision, installing) as base, display(Console(), is_quiet) as progress:
            budget = SideBudget(options.budget_s, progress)
            candidate = working_tree(repository)
            is_same = base.git_facts == candidate.git_facts
            session = SideSession((base, candidate), folder, options.command, options.allow_entry, progress)
            with open_benches(session, scenarios, options.methods or _own_methods(scenarios)) as benches:
                margins = margins_of(options.tolerance, noise_floors_of(benches))
                wanted = {key: value for key, value in margins.items() if not options.metrics or key in options.metrics}
                looks = LOOKS if wanted else (PAIRS_PER_QUAD,)  # counted values do not vary
                budget.say_expected(benches, looks)
                measure_side_by_side(benches, looks, wanted, lambda rounds: budget.may_go_on(benches, rounds))
                sides = [records_of(benches, side) for side in (BASE, CANDIDATE)]
    except KeyboardInterrupt:
        text = f"interrupted; what was measured is in {folder}, and no verdict can rest on it. Start again: {options.command}"
        Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
        return INTERRUPTED
    base_side = SideRecords(options.revision, sides[BASE])
    compared = compare_all(
        base_side, [SideRecords("working tree", sides[CANDIDATE])], options.tolerance, margins, options.metrics
    )
    notes = [SAME_CODE.format(options.revision)] if is_same else []
    notes += [budget.note] if budget.note else []
    code = present_gate(compared, options.gate, lambda _: rerun_command_of(scenarios, options), options.command, notes)
    Console().print(f"records: {folder}", markup=False, highlight=False, soft_wrap=True)
    return code


def _own_methods(scenarios: Sequence[LoadedScenario]) -> list[str]:
    """Those of the user's own code, where there are any: the others are modbench compared with itself. [] for all."""
    methods = [item for loaded in scenarios for item in loaded.scenario.methods.items()]
    return list(dict.fromkeys(label for label, settings in methods if runs_foreign_code(settings.method)))


def rerun_command_of(scenarios: Sequence[LoadedScenario], options: AgainstOptions) -> str:
    """The command that measures the same again, without its output options."""
    words = ["modbench", "check", "--against", options.revision, *(str(loaded.path) for loaded in scenarios)]
    words += [word for label in options.methods for word in ("--method", label)]
    words += [word for name in options.metrics or () for word in ("--metric", name)]
    words += ["--tolerance", f"{100 * options.tolerance:g}%"] if options.tolerance != DEFAULT_TOLERANCE else []
    words += ["--environment", options.environment.value] if options.environment is not Mode.AUTO else []
    words += ["--install", options.install] if options.install else []
    words += ["--allow-entry"] if options.allow_entry else []
    words += [word for text in scenarios[0].overrides for word in ("--set", text)]
    return shlex.join(words)
