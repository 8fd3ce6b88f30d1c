"""Evaluations for real, on a CPU: what a worker finds of tiny models, and how it fails."""

import pytest
import torch

from modbench import worker
from modbench.methods import METHODS
from modbench.quality_launch import quality_tokenizer
from modbench.scenario import QualityWork, quality_settings
from modbench.tokens import prompt_tokens
from reference_impl import evaluation
from reference_impl.data import ByteTokenizer
from reference_impl.data.tokenizer_files import write_byte_tokenizer
from reference_impl.evaluation import bits_per_byte, text_windows
from reference_impl.evaluation.agreement import agreement
from reference_impl.model_folder import load_folder
from tests.modbench.jobs import MICRO, SETTINGS, entry_job, make_job, make_point
from tests.modbench.saved_models import save_converted, save_dense, save_shorter

TEXT = "The quick brown fox jumps over the lazy dog, and Größe counts two bytes. " * 8
CHECKPOINT_SETTINGS = {"threshold_p": 0.55, "routed_layers": [1, 2], "gate": "shared", "checkpoint_sha256": "0"}


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def work(tmp_path, **changes):
    (tmp_path / "held.txt").write_text(TEXT)
    fields = {"probes": ("bits_per_byte",), "texts": (str(tmp_path / "held.txt"),), "context": 64, "num_trials": 1}
    return QualityWork(**{**fields, "timeout_s": 60.0, **changes})


def evaluated(tmp_path, kind, settings=None, model=None, **changes):
    named = {} if model is None else {"model": model}
    job = make_job(tmp_path, kind, "quality", settings=settings or SETTINGS[kind], **named)
    return worker.do_job(job.model_copy(update={"quality": work(tmp_path, **changes)})), job


def windows(tmp_path, tokenizer=None):
    return text_windows([tmp_path / "held.txt"], tokenizer or ByteTokenizer(256), 64)


def test_a_checkpoint_is_scored_as_its_folder_is(tmp_path):
    folder = save_converted(tmp_path / "converted")
    settings = {**CHECKPOINT_SETTINGS, "checkpoint": str(folder)}
    result, _ = evaluated(tmp_path, "threshold", settings)
    assert result.error is None
    scores = result.quality.scores
    model = load_folder(folder, "converted", "float32")
    expected = bits_per_byte(model, windows(tmp_path))
    assert scores.bits_per_byte == pytest.approx(expected.bits_per_byte, abs=1e-6)
    assert scores.held_out_keep_ratio == pytest.approx(expected.mean_keep_ratio)
    assert [bucket.first_position for bucket in scores.by_position] == [1, 2, 4, 8, 16, 32]
    assert result.quality.status == "ok"
    assert result.quality.evaluation["model"]["model_type"] == "mod_llama"


def test_a_calibrated_router_keeps_what_its_launches_calibrate_it_to(tmp_path):
    result, job = evaluated(tmp_path, "threshold")
    point = job.spec.point
    method = METHODS["threshold"](point.settings)
    subject = method.build(point, torch.device("cpu"))
    method.calibrate(subject, prompt_tokens(point).ids_BT, point.workload["context"])
    expected = bits_per_byte(subject.model, windows(tmp_path))
    assert result.quality.scores.bits_per_byte == pytest.approx(expected.bits_per_byte, abs=1e-6)
    assert result.quality.scores.held_out_keep_ratio == pytest.approx(expected.mean_keep_ratio)


@pytest.mark.parametrize("kind", ["dense", "topk", "skip_layers", "masked", "kv_only"])
def test_every_kind_of_method_is_evaluated_on_the_same_rows(tmp_path, kind):
    result, _ = evaluated(tmp_path, kind)
    assert result.error is None
    dense, _ = evaluated(tmp_path, "dense")
    assert result.quality.scores.text_hash == dense.quality.scores.text_hash
    assert result.quality.scores.bits_per_byte > 0
    is_routed = kind in ("topk", "masked", "kv_only")
    assert (result.quality.scores.held_out_keep_ratio is not None) == is_routed


def test_a_shorter_model_stores_less_per_token(tmp_path):
    folder = save_shorter(tmp_path / "shorter", (1, 3))
    settings = {"counted_as_removed": [1, 3], "kv_cache": "stock", "checkpoint": str(folder), "checkpoint_sha256": "0"}
    dense, _ = evaluated(tmp_path, "dense")
    shorter, _ = evaluated(tmp_path, "skip_layers", settings)
    sizes = [found.quality.scores.kv_cache_bytes_per_token for found in (dense, shorter)]
    assert sizes[0] == 2 * sizes[1]


def test_the_agreement_is_with_the_teacher(tmp_path):
    teacher = save_dense(tmp_path / "teacher", seed=3)
    settings = {
        "kv_cache": "stock",
        "checkpoint": str(save_dense(tmp_path / "other", seed=4)),
        "checkpoint_sha256": "0",
    }
    asked = {"probes": ("bits_per_byte", "agreement"), "teacher": str(teacher)}
    result, _ = evaluated(tmp_path, "dense", settings, **asked)
    models = [load_folder(tmp_path / name, "dense", "float32") for name in ("other", "teacher")]
    expected = agreement(*models, windows(tmp_path))
    assert result.quality.scores.kl_bits_per_token == pytest.approx(expected.kl_bits_per_token, abs=1e-6)
    assert result.quality.scores.top1_agreement_ratio == expected.top1_agreement_ratio
    itself, _ = evaluated(tmp_path, "dense", {**settings, "checkpoint": str(teacher)}, **asked)
    assert (itself.quality.scores.kl_bits_per_token, itself.quality.scores.top1_agreement_ratio) == (
        pytest.approx(0, abs=1e-6),
        1.0,
    )


def test_synthetic_tasks_are_summed_up(tmp_path):
    result, _ = evaluated(tmp_path, "dense", probes=("needle", "induction"), context=256, num_trials=2)
    scores, evaluation = result.quality.scores, result.quality.evaluation
    assert scores.bits_per_byte is None
    assert scores.by_position == []
    cells, lengths = evaluation["needle"]["cells"], evaluation["induction"]["lengths"]
    assert scores.needle_accuracy == pytest.approx(sum(cell["exact_match_ratio"] for cell in cells) / len(cells))
    assert scores.induction_accuracy == pytest.approx(
        sum(length["second_copy_accuracy"] for length in lengths) / len(lengths)
    )


def test_the_tokenizer_is_the_models_then_the_checkpoints_then_bytes(tmp_path):
    for name in ("base", "own"):
        (tmp_path / name).mkdir()
        write_byte_tokenizer(tmp_path / name)
    settings = {**SETTINGS["dense"], "checkpoint": str(tmp_path / "own")}
    random = {"weights": "random", "path": None}
    assert isinstance(quality_tokenizer(make_point(SETTINGS["dense"], model=random)), ByteTokenizer)
    assert not isinstance(quality_tokenizer(make_point(settings, model=random)), ByteTokenizer)
    based = make_point(SETTINGS["dense"], model={"weights": "checkpoint", "path": str(tmp_path / "base")})
    assert not isinstance(quality_tokenizer(based), ByteTokenizer)


def test_bytes_need_a_vocabulary_for_them(tmp_path):
    small = MICRO.model_copy(update={"vocab_size": 200})
    job = make_job(tmp_path, "dense", "quality", geometry=small)
    result = worker.do_job(job.model_copy(update={"quality": work(tmp_path)}))
    assert result.quality is None
    assert "quality: got a vocabulary of 200 without tokenizer.json; expected one, or at least 256 ids" in result.error


def test_what_does_not_fit_is_an_error_line(tmp_path):
    result, _ = evaluated(tmp_path, "dense", context=4096)
    assert result.error == "EvaluationError: context: got 4096; expected 2 to 512, the positions of the model"
    result, _ = evaluated(tmp_path, "dense", texts=(str(tmp_path / "lost.txt"),))
    assert result.error.startswith("DataError: ")
    assert "lost.txt" in result.error


def test_a_users_own_code_has_no_model_to_evaluate(tmp_path):
    job = entry_job(tmp_path, "mine", "quality")
    result = worker.do_job(job.model_copy(update={"quality": work(tmp_path), "allow_entry": True}))
    assert result.quality is None
    assert result.error


def test_a_scenario_may_ask_for_every_probe_that_there_is():
    assert quality_settings.PROBES == evaluation.PROBES  # written twice, since loading a scenario imports no torch
