"""What two sides are, in what they differ, and what that makes doubtful. In: their records. Out: values that a report prints."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modbench.analysis.comparison import Difference, Side
from modbench.analysis.matching import Launches, Match, scenario_name
from modbench.analysis.rows import Footnote
from modbench.analysis.summary import flatten
from modbench.plan import content_hash
from modbench.record import ROUTER_FLAGS, SIDE_BY_SIDE, Record

FIRST_KEYS = (  # the order in which differences are told
    "machine.",
    "device",
    "gpu",
    "versions.",
    "modbench",
    "python",
    "kernel",
    "cpu_capability",
    "attention_path",
    "git",
    "scenario.name",
    "scenario.",
    "memory_limit",
)
HIDDEN_KEYS = (  # what has a hash beside it, is measured anew in every run, says how the run was made, or is compared elsewhere
    "scenario.text",
    "scenario.question",
    "command",
    "started",
    "guard_detail",
    "declared.",
    "ceilings.",
    "gpu_watch.",
    "nvml.",
    "tokens_sha256",
    "flip_ratio",
    "revision",
    "memory_limit_bytes",  # what was free; one that was asked for stands in the scenario
    f"{SIDE_BY_SIDE}.",
)


def describe_side(label: str, records: Sequence[Record]) -> Side:
    """Who a side is: scenarios, revisions and machines, in first-seen order."""
    return Side(
        label=label,
        num_records=len(records),
        scenario_names=_distinct(scenario_name(record) for record in records),
        git_shas=_distinct(_revision(record) for record in records),
        machines=_distinct(machine_of(record) for record in records),
    )


def machine_of(record: Record) -> str:
    """The machine's fingerprint, or a hash of what the record says about it; empty where it says nothing."""
    machine = record.environment.get("machine")
    if not isinstance(machine, Mapping) or not machine:
        return ""
    return str(machine.get("fingerprint") or content_hash(machine))


def has_one_machine(base: Iterable[Record], candidate: Iterable[Record]) -> bool:
    """True if all launches of both sides are known to be of one machine."""
    machines = {machine_of(record) for side in (base, candidate) for record in side}
    return len(machines) == 1 and "" not in machines


def has_one_version(base: Iterable[Record], candidate: Iterable[Record]) -> bool:
    """True if all launches of both sides are known to have run on the same library versions."""
    versions = {_versions(record) for side in (base, candidate) for record in side}
    return len(versions) == 1 and "" not in versions


def differences(base: Sequence[Record], candidate: Sequence[Record]) -> tuple[Difference, ...]:
    """Facts of scenario and environment that are not the same on both sides, machine and versions first."""
    sides = [_facts(base), _facts(candidate)]
    told = {key: [_told(side.get(key)) for side in sides] for key in {**sides[0], **sides[1]}}
    keys = [key for key, (first, second) in told.items() if first != second]
    return tuple(Difference(key, *told[key]) for key in sorted(keys, key=_place))


def side_footnotes(base: Sequence[Record], candidate: Sequence[Record]) -> list[Footnote]:
    """Doubts about whole sides."""
    notes = []
    for name, records in (("base", base), ("candidate", candidate)):
        if any(_revision(record).endswith("+dirty") for record in records):
            notes.append(f"{name}: measured with changes that were not committed")
        if any(len(_distinct(find(record) for record in records)) > 1 for find in (machine_of, _versions)):
            notes.append(f"{name}: its records are of several machines or library versions")
    if not has_one_version(base, candidate):
        notes.append("library versions differ, or are not known: what they change counts as the candidate's")
    if {record.launch_id for record in base} & {record.launch_id for record in candidate}:
        notes.append("both sides hold the same launches: a run compared with itself shows nothing")
    return [Footnote(text) for text in notes]


def match_doubts(match: Match) -> tuple[str, ...]:
    """Doubts about the numbers of one method at one cell: flags of its launches, and how the two sides' launches differ."""
    base, candidate = match.base.ok, match.candidate.ok
    doubts = [*_flag_doubts("base", match.base), *_flag_doubts("candidate", match.candidate)]
    for name, launches in (("base", match.base), ("candidate", match.candidate)):
        if launches.failed:
            doubts.append(f"{name}: {len(launches.failed)} of {len(launches.records)} launches failed")
    if len(base) != len(candidate):
        doubts.append(f"{len(base)} launches of the base, {len(candidate)} of the candidate")
    routers = [{flag for record in side for flag in record.flags if flag in ROUTER_FLAGS} for side in (base, candidate)]
    if routers[0] != routers[1]:
        doubts.append("the routers were calibrated on one side only")
    outcomes = [
        {(name, result) for record in side for name, result in record.guard.items()} for side in (base, candidate)
    ]
    names = sorted({name for name, _ in outcomes[0] ^ outcomes[1]})
    if names:
        doubts.append(f"the same-work guard did not say the same of both sides: {', '.join(names)}")
    paths = [{str(record.environment.get("attention_path")) for record in side} for side in (base, candidate)]
    if paths[0] != paths[1]:
        doubts.append("attention took another path: " + " and ".join(", ".join(sorted(found)) for found in paths))
    return tuple(doubts)


def _flag_doubts(side: str, launches: Launches) -> list[str]:
    ok = launches.ok
    counts = Counter(flag for record in ok for flag in dict.fromkeys(record.flags) if flag not in ROUTER_FLAGS)
    return [f"{side}: {flag} ({count} of {len(ok)} launches)" for flag, count in counts.items()]


def _revision(record: Record) -> str:
    environment = record.environment
    sha = environment.get("git_sha")
    return f"{sha}+dirty" if sha and environment.get("git_is_dirty") else str(sha or "")


def _versions(record: Record) -> str:
    versions = record.environment.get("versions")
    return repr(versions) if isinstance(versions, Mapping) and versions else ""


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for text in texts if text))


def _facts(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Dotted key -> its values in first-seen order. Of a run, method, machine and code one launch speaks for all."""
    facts: dict[str, list[Any]] = {}
    spokesmen = {
        (record.run_id, record.method, machine_of(record), _revision(record), _versions(record)): record
        for record in reversed(records)
    }
    for record in reversed(spokesmen.values()):
        for key, value in flatten(record.environment).items():
            if not key.startswith(HIDDEN_KEYS) and value not in facts.setdefault(key, []):
                facts[key].append(value)
    return facts


def _told(values: list[Any] | None) -> Any:
    """A single value as itself, several as a list, None where the side does not have the fact."""
    return None if values is None else values[0] if len(values) == 1 else values


def _place(key: str) -> int:
    return next((place for place, start in enumerate(FIRST_KEYS) if key.startswith(start)), len(FIRST_KEYS))
