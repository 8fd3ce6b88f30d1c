"""One launch for quality: build, calibrate, evaluate, untimed. In: a quality job. Out: its row.

The model is the one that the method's launches run. Where these calibrate routers, this one calibrates them on the same text in the
same way, so that what is evaluated keeps what was measured.
"""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import PreTrainedModel

from modbench.errors import UnsupportedError
from modbench.job import Job
from modbench.methods import METHODS
from modbench.methods.hf_model import HfSubject
from modbench.plan import PointWork
from modbench.quality_record import PositionScore, QualityRecord, QualityScores, new_quality_record
from modbench.scenario import QualityWork
from modbench.tokens import prompt_tokens
from reference_impl.data import ByteTokenizer, DocumentTokenizer, load_tokenizer
from reference_impl.data.loaded_tokenizer import TOKENIZER_FILE
from reference_impl.data.tokens import NUM_BYTE_VALUES, UNUSED_BYTES
from reference_impl.evaluation import PROBES, Evaluation, EvaluationSettings, evaluate
from reference_impl.evaluation.held_out_text import choose_context, choose_rows, same_tokenizer_or_raise
from reference_impl.mod_model import ModModel
from reference_impl.model_folder import load_folder
from reference_impl.settings_file import read_data_config

HELD_OUT_SCORES = (
    "bits_per_byte",
    "bits_per_byte_standard_error",
    "next_token_accuracy",
    "next_token_accuracy_standard_error",
)
AGREEMENT_SCORES = (
    "kl_bits_per_token",
    "kl_bits_per_token_standard_error",
    "top1_agreement_ratio",
    "top1_agreement_ratio_standard_error",
)


def run_quality_launch(job: Job, on_phase: Callable[[str], None]) -> QualityRecord:
    """Evaluate one method; `on_phase` hears build, calibrate, the probes, done.

    Raises:
        UnsupportedError: the method's model is none that can be evaluated, or reads no text.
        EvaluationError: model, text, teacher and settings do not fit each other.
        DataError: the text, its settings or the tokenizer cannot be used.
        UnsupportedModelError: the teacher's folder cannot be read as a model.
    """
    spec, quality = job.spec, job.quality
    assert spec is not None and quality is not None, "a quality job has a run spec and says what is asked for"
    point, device = spec.point, torch.device(job.device)
    started_s = time.monotonic()
    on_phase("build")
    method = METHODS[spec.kind](point.settings)
    subject = method.build(point, device)
    if not isinstance(subject, HfSubject):
        raise UnsupportedError(f"methods.{spec.method}: a {spec.kind} has no model that can be evaluated")
    if method.target_keep_ratio() is not None:
        on_phase("calibrate")
        method.calibrate(subject, prompt_tokens(point).ids_BT.to(device), point.workload["context"])
    if isinstance(subject.model, ModModel):
        subject.model.routing.history = None  # decisions about a whole text are not kept
    found = _evaluate(subject.model, point, quality, spec.method, device, on_phase)
    on_phase("done")
    return new_quality_record(spec, quality, "ok").model_copy(
        update={
            "duration_s": time.monotonic() - started_s,
            "scores": scores_of(found),
            "evaluation": found.to_dict(),
        }
    )


def _evaluate(
    model: PreTrainedModel,
    point: PointWork,
    quality: QualityWork,
    name: str,
    device: torch.device,
    on_phase: Callable[[str], None],
) -> Evaluation:
    tokenizer = quality_tokenizer(point)
    data = None if quality.data is None else read_data_config(Path(quality.data))
    context = choose_context(quality.context, data, model)
    teacher = None
    if quality.teacher is not None:
        same_tokenizer_or_raise(Path(quality.teacher), tokenizer)
        teacher = load_folder(Path(quality.teacher), "any", point.dtype).to(device)
    texts = [Path(text) for text in quality.texts]
    rows = choose_rows(texts, data, quality.num_rows, tokenizer, model, context)
    probes = tuple(probe for probe in quality.probes if probe in PROBES)
    return evaluate(
        model,
        tokenizer,
        rows,
        EvaluationSettings(context, probes, quality.num_trials),
        teacher=teacher,
        name=name,
        teacher_name=quality.teacher or "",
        told=on_phase,
    )


def quality_tokenizer(point: PointWork) -> DocumentTokenizer:
    """That of `model.path`, else the checkpoint's own, else bytes, as the launches read text.

    Raises:
        UnsupportedError: the vocabulary is too small for bytes.
        DataError: a tokenizer.json is there and cannot be used.
    """
    for folder in (point.model.get("path"), point.settings.get("checkpoint")):
        if folder is not None and Path(folder, TOKENIZER_FILE).exists():
            return load_tokenizer(Path(folder))
    vocab_size = point.geometry.vocab_size
    if vocab_size < NUM_BYTE_VALUES:
        raise UnsupportedError(
            f"quality: got a vocabulary of {vocab_size} without {TOKENIZER_FILE}; expected one, or at least {NUM_BYTE_VALUES} ids "
            "for text read as bytes"
        )
    return ByteTokenizer(NUM_BYTE_VALUES if vocab_size > NUM_BYTE_VALUES else UNUSED_BYTES[0])


def scores_of(found: Evaluation) -> QualityScores:
    """The numbers of an evaluation that reports and expectations use."""
    scores = QualityScores(
        text_hash=found.text.hash,
        num_rows=found.text.num_rows,
        num_tokens=found.text.num_tokens,
        num_bytes=found.text.num_bytes,
        context=found.text.sequence_length,
    )
    changes: dict[str, object] = {}
    if (held_out := found.held_out) is not None:
        changes |= {name: getattr(held_out, name) for name in HELD_OUT_SCORES}
        changes |= {"held_out_keep_ratio": held_out.mean_keep_ratio}
        changes |= {"row_bits": list(held_out.row_bits), "row_bytes": list(held_out.row_bytes)}
        changes["by_position"] = [
            PositionScore(
                first_position=bucket.first_position,
                last_position=bucket.last_position,
                num_bytes=bucket.num_bytes,
                bits_per_byte=bucket.bits_per_byte,
            )
            for bucket in held_out.by_position
        ]
    if found.kv_cache is not None:
        changes["kv_cache_bytes_per_token"] = found.kv_cache.kv_cache_bytes_per_token
    if found.needle is not None:
        given_back = sum(cell.exact_match_ratio * cell.num_trials for cell in found.needle.cells)
        changes["needle_accuracy"] = given_back / sum(cell.num_trials for cell in found.needle.cells)
    if found.induction is not None:
        accuracies = [length.second_copy_accuracy for length in found.induction.lengths]
        changes["induction_accuracy"] = sum(accuracies) / len(accuracies)
    if found.agreement is not None:
        changes |= {name: getattr(found.agreement, name) for name in AGREEMENT_SCORES}
        changes["kl_bits_per_token"] = max(0.0, found.agreement.kl_bits_per_token)  # rounding puts a zero below it
    return QualityScores.model_validate({**scores.model_dump(), **changes})
