"""The result of an evaluation, and its JSON. In: scores. Out: an `Evaluation`; a file that is there whole or not at all.

The JSON holds the fields of these classes by name. Numbers carry their unit in their name; what was not asked for is null. A later
version that takes a field away or changes its meaning has another `schema_version`; fields may be added.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from reference_impl.data import Row
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.agreement import Agreement
from reference_impl.evaluation.bits_per_byte import HeldOutScore
from reference_impl.evaluation.induction import InductionScore
from reference_impl.evaluation.keep_behaviour import KeepBehaviour
from reference_impl.evaluation.kept import KvCacheSize
from reference_impl.evaluation.needle import NeedleScore

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelFacts:
    """Which model it was, and how it ran.

    Attributes:
        name: as the caller calls it, such as its folder.
        model_type: of its config.json.
        weights_hash: fingerprint.py says of what.
        num_parameters: routers among them.
        dtype, device: in torch's words.
        modification: settings of a converted model (`ModConfig`); None for a dense one.
    """

    name: str
    model_type: str
    weights_hash: str
    num_parameters: int
    dtype: str
    device: str
    modification: dict[str, Any] | None


@dataclass(frozen=True)
class TextFacts:
    """Which text it was.

    Attributes:
        hash: SHA-256, 16 hex digits, over the ids of the rows and where their sequences start.
        num_rows, num_tokens, num_bytes: rows, predicted tokens, and the bytes that these stand for.
        sequence_length: tokens of the longest row.
        sources: source -> number of rows.
    """

    hash: str
    num_rows: int
    num_tokens: int
    num_bytes: int
    sequence_length: int
    sources: dict[str, int]


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured of one model.

    Attributes:
        schema_version: of this form.
        model, teacher: which models; the teacher is None without one.
        text: what the held-out scores and the agreement are of.
        settings: what was asked for.
        versions: of Python and of what decides results.
        held_out: no decision depends on what follows; `topk` decides as at decode.
        held_out_non_causal: of `topk` alone, ranking whole sequences as in training: too good, for it sees the future.
        kv_cache: what the keep ratios of `held_out` mean for the cache.
        keep_behaviour: which tokens of that text are kept; None for a dense model.
        needle, induction: retrieval and copying.
        agreement: with the teacher.
    """

    schema_version: int
    model: ModelFacts
    teacher: ModelFacts | None
    text: TextFacts
    settings: dict[str, Any]
    versions: dict[str, str | None]
    held_out: HeldOutScore | None
    held_out_non_causal: HeldOutScore | None
    kv_cache: KvCacheSize | None
    keep_behaviour: KeepBehaviour | None
    needle: NeedleScore | None
    induction: InductionScore | None
    agreement: Agreement | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def text_facts(rows: Sequence[Row]) -> TextFacts:
    """What is said about a text of at least one row."""
    digest = hashlib.sha256()
    sources: dict[str, int] = {}
    for row in rows:
        digest.update(f"{len(row.ids_T)} {row.starts}\n".encode())
        digest.update(row.ids_T.to(torch.int64).contiguous().numpy().astype("<i8").tobytes())
        sources[row.source] = sources.get(row.source, 0) + 1
    return TextFacts(
        hash=digest.hexdigest()[:16],
        num_rows=len(rows),
        num_tokens=sum(row.num_predicted for row in rows),
        num_bytes=sum(row.num_bytes for row in rows),
        sequence_length=max(len(row.ids_T) for row in rows),
        sources=sources,
    )


def check_new(path: Path) -> None:
    """Whether a result can be written there, before anything is measured.

    Raises:
        EvaluationError: something is there already, or its folder is not.
    """
    if path.exists() or path.is_symlink():
        raise EvaluationError(f"{path}: is there already; name another file, or remove it first")
    if not path.parent.is_dir():
        raise EvaluationError(f"{path}: its folder is not there; name a file in a folder that is")


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write a new JSON file: beside, then renamed.

    Raises:
        EvaluationError: something is there already.
        OSError: it cannot be written.
    """
    content = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n"
    check_new(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("x", encoding="utf-8") as file:
            file.write(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # of a write that failed
