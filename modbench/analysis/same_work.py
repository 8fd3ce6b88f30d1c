"""Did both sides do the same work? In: a match of launches. Out: why not, in one clause; empty where nothing speaks against it."""

from collections import Counter
from collections.abc import Sequence

from modbench.analysis.matching import Launches, Match, differing_work
from modbench.analysis.resources import keep_values
from modbench.analysis.rows import failure_text
from modbench.analysis.summary import failed_identities
from modbench.record import Record

MAX_KEEP_RATIO_DIFFERENCE = 0.01
ROUNDING = 1e-9
MAX_FIELDS = 4
HASHED = {
    "workload.prompt.sha256": "the prompt's text changed",
    "model.folder_sha256": "the model's weights or config changed",
    "settings.checkpoint_sha256": "the checkpoint changed",
}


def why_other_work(match: Match) -> str:
    """Why no metric of the two is comparable."""
    fields = match.differing_work
    if fields:
        return f"the work differs: {fields_text(fields)}"
    return _why_wrong(match) or _why_other_tokens(match) or _why_other_keep_ratios(match)


def why_other_baseline(match: Match) -> str:
    """Why the two cannot be compared by their ratios to the baseline."""
    base, candidate = match.base.cell.baseline, match.candidate.cell.baseline
    for side, launches in (("base", base), ("candidate", candidate)):
        if not launches.ok:
            return f"{side}: the baseline has no ok launch"
    fields = differing_work(base.ok[0], candidate.ok[0])
    if fields or _point_ids(base) != _point_ids(candidate):
        return f"the baseline's work differs: {fields_text(fields or ('point_id',))}"
    reason = _why_wrong(Match(base, candidate))
    return f"baseline of {reason}" if reason else ""


def fields_text(fields: Sequence[str]) -> str:
    """The first few fields of the work; a hash with what it is of."""
    shown = [f"{field} ({HASHED[field]})" if field in HASHED else field for field in fields[:MAX_FIELDS]]
    more = len(fields) - MAX_FIELDS
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def no_launch_text(records: Sequence[Record]) -> str:
    """How launches ended of which none is ok: `2 oom in prefill: out of memory`."""
    counts = Counter((record.status, record.phase, record.error) for record in records)
    (status, phase, error), count = counts.most_common(1)[0]
    return f"{count} {status} in {phase}" + (f": {error}" if error else "")


def _why_wrong(match: Match) -> str:
    for side, launches in (("base", match.base), ("candidate", match.candidate)):
        failed = failed_identities(launches.records)
        if failed:
            return f"{side}: {', '.join(failure_text(name) for name in failed)}"
    return ""


def _why_other_tokens(match: Match) -> str:
    hashes = [
        {record.environment.get("tokens_sha256") for record in launches.ok} - {None}
        for launches in (match.base, match.candidate)
    ]
    return "the prompts' tokens differ: tokens_sha256" if all(hashes) and hashes[0] != hashes[1] else ""


def _why_other_keep_ratios(match: Match) -> str:
    base, candidate = keep_values(match.base.ok), keep_values(match.candidate.ok)
    for phase in ("prefill", "decode"):
        kept = base[f"keep_ratio_{phase}"], candidate[f"keep_ratio_{phase}"]
        if kept[0] is None or kept[1] is None:
            continue
        if abs(kept[0] - kept[1]) > MAX_KEEP_RATIO_DIFFERENCE + ROUNDING:
            return f"keep ratios at {phase} differ by more than {MAX_KEEP_RATIO_DIFFERENCE}: {kept[0]:.4f} and {kept[1]:.4f}"
    return ""


def _point_ids(launches: Launches) -> set[str]:
    return {record.point_id for record in launches.ok}
