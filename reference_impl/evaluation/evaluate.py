"""evaluate: all probes that were asked for. In: a model, its tokenizer, held-out rows, settings. Out: an `Evaluation`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from reference_impl.data import DocumentTokenizer, Row
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.agreement import Agreement, agreement
from reference_impl.evaluation.bits_per_byte import HeldOutScore, bits_per_byte, held_out_score, score_rows
from reference_impl.evaluation.forwards import check_rows
from reference_impl.evaluation.induction import InductionScore, induction
from reference_impl.evaluation.keep_behaviour import KeepBehaviour, keep_behaviour
from reference_impl.evaluation.kept import kv_cache_size
from reference_impl.evaluation.needle import NeedleScore, min_context, needle
from reference_impl.evaluation.results import SCHEMA_VERSION, Evaluation, ModelFacts, text_facts
from reference_impl.fingerprint import versions, weights_hash
from reference_impl.mod_model import ModModel

PROBES = ("bits_per_byte", "needle", "induction")
MAX_SIZES = 4  # our choice: a context, its half, its quarter and its eighth
MIN_COPY_TOKENS = 8


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured. All defaults are our choice.

    Attributes:
        context: longest prompt of needle and, in both copies together, of induction; the shorter ones are its halves.
        probes: some of `PROBES`; the agreement comes with a teacher.
        num_trials: keys per context and depth, and sequences per length.
        seed: of keys and sequences.

    Raises:
        EvaluationError: a value is out of its range.
    """

    context: int
    probes: tuple[str, ...] = PROBES
    num_trials: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [probe for probe in self.probes if probe not in PROBES]
        if unknown or not self.probes:
            raise EvaluationError(
                f"probes: got {unknown[0] if unknown else 'none'!r}; expected some of {', '.join(PROBES)}"
            )
        for name, least in (("context", 2), ("num_trials", 1)):
            if getattr(self, name) < least:
                raise EvaluationError(f"{name}: got {getattr(self, name)}; expected an integer >= {least}")


def evaluate(
    model: PreTrainedModel,
    tokenizer: DocumentTokenizer,
    rows: Sequence[Row],
    settings: EvaluationSettings,
    *,
    teacher: PreTrainedModel | None = None,
    name: str = "model",
    teacher_name: str = "teacher",
    told: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure a model.

    Args:
        model: dense or converted, on any device; it comes back in the mode that it was in.
        tokenizer: of the model.
        rows: held-out text, and the tokens that induction draws from.
        settings: what is measured.
        teacher: the dense model that it comes from, for the agreement.
        name, teacher_name: what the result calls them.
        told: called with the name of each probe as it begins.

    Raises:
        EvaluationError: model, text, teacher and settings do not fit each other, or a loss is not finite.
    """
    check_rows(model, rows)
    told = told or _quiet
    contexts, lengths = _sizes(model, tokenizer, settings)
    held_out, non_causal, behaviour = _held_out(model, tokenizer, rows, settings, told)
    kv_cache = None
    if held_out is not None:
        kv_cache = kv_cache_size(model, held_out.keep_ratio, max(len(row.ids_T) for row in rows))
    found_needle: NeedleScore | None = None
    if contexts:
        told("needle")
        found_needle = needle(model, tokenizer, contexts, num_trials=settings.num_trials, seed=settings.seed)
    found_induction: InductionScore | None = None
    if lengths:
        told("induction")
        found_induction = induction(model, _alphabet(rows, tokenizer), lengths, settings.num_trials, settings.seed)
    found_agreement: Agreement | None = None
    if teacher is not None:
        told("agreement")
        found_agreement = agreement(model, teacher, rows)
    return Evaluation(
        schema_version=SCHEMA_VERSION,
        model=_facts(model, name),
        teacher=None if teacher is None else _facts(teacher, teacher_name),
        text=text_facts(rows),
        settings=_plain(settings),
        versions=versions(),
        held_out=held_out,
        held_out_non_causal=non_causal,
        kv_cache=kv_cache,
        keep_behaviour=behaviour,
        needle=found_needle,
        induction=found_induction,
        agreement=found_agreement,
    )


def halves(longest: int, least: int) -> tuple[int, ...]:
    """A size and up to three halves of it that are not below `least`, ascending; none where it is below itself."""
    found = [longest >> step for step in range(MAX_SIZES) if longest >> step >= least]
    return tuple(reversed(found))


def _sizes(
    model: PreTrainedModel, tokenizer: DocumentTokenizer, settings: EvaluationSettings
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Contexts of needle and lengths of induction, empty where not asked for; checked before anything is measured."""
    max_positions = model.config.max_position_embeddings
    if settings.context > max_positions:
        raise EvaluationError(
            f"context: got {settings.context}; the model has {max_positions} positions: take at most that many"
        )
    contexts: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()
    if "needle" in settings.probes:
        least = min_context(tokenizer)
        contexts = halves(settings.context, least)
        if not contexts:
            raise EvaluationError(
                f"context: got {settings.context}; the needle's prompt needs {least} tokens: take more, or leave needle out of the "
                "probes"
            )
    if "induction" in settings.probes:
        lengths = halves(settings.context // 2, MIN_COPY_TOKENS)
        if not lengths:
            raise EvaluationError(
                f"context: got {settings.context}; induction needs {2 * MIN_COPY_TOKENS} tokens: take more, or leave it out of the "
                "probes"
            )
    return contexts, lengths


def _held_out(
    model: PreTrainedModel,
    tokenizer: DocumentTokenizer,
    rows: Sequence[Row],
    settings: EvaluationSettings,
    told: Callable[[str], None],
) -> tuple[HeldOutScore | None, HeldOutScore | None, KeepBehaviour | None]:
    if "bits_per_byte" not in settings.probes:
        return None, None, None
    told("bits_per_byte")
    scored = score_rows(model, rows)
    held_out = held_out_score(model, rows, scored)
    if not isinstance(model, ModModel):
        return held_out, None, None
    layers = sorted(held_out.keep_ratio)
    behaviour = keep_behaviour(rows, scored.scores, layers, scored.kept.keep_masks(), tokenizer)
    is_topk = model.routing.config.operator == "topk"
    return held_out, bits_per_byte(model, rows, is_causal=False) if is_topk else None, behaviour


def _alphabet(rows: Sequence[Row], tokenizer: DocumentTokenizer) -> torch.Tensor:
    """The ids that occur in the text, so that the model has seen them, but for the end of a document."""
    ids_V = torch.cat([row.ids_T for row in rows]).unique()
    return ids_V[ids_V != tokenizer.end_of_document]


def _facts(model: PreTrainedModel, name: str) -> ModelFacts:
    return ModelFacts(
        name=name,
        model_type=model.config.model_type,
        weights_hash=weights_hash(model),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        modification=model.routing.config.to_dict() if isinstance(model, ModModel) else None,
    )


def _plain(settings: EvaluationSettings) -> dict[str, Any]:
    return {**asdict(settings), "probes": list(settings.probes)}


def _quiet(probe: str) -> None:
    """Say nothing."""
