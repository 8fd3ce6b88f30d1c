"""An evaluation as a whole: what is in it, its JSON, its tables, and a file that is there whole or not at all."""

import io
import json
from dataclasses import fields, replace

import pytest
import torch
from rich.console import Console

from reference_impl.data import ByteTokenizer
from reference_impl.errors import EvaluationError
from reference_impl.evaluation import Evaluation, EvaluationSettings, evaluate, write_evaluation
from reference_impl.evaluation.evaluate import halves
from reference_impl.evaluation.needle import min_context
from reference_impl.evaluation.results import check_new, text_facts
from reference_impl.evaluation.table import print_evaluation
from tests.reference_impl.conftest import dense_model
from tests.reference_impl.evaluation.scripted import row

BYTES = ByteTokenizer()
SMALL = {"vocab_size": 257, "num_hidden_layers": 2, "max_position_embeddings": 512}
ROWS = [row(list(b"to be or not to be"), starts=(0, 7)), row(list(b"that is the question"))]
LEAST = min_context(BYTES)


@pytest.fixture
def whole(make_converted):
    """Of a top-k model with a teacher, so that every part is there."""
    model = make_converted(operator="topk", model_overrides=SMALL)
    settings = EvaluationSettings(context=LEAST + 20, num_trials=2)
    return evaluate(model, BYTES, ROWS, settings, teacher=dense_model(**SMALL), name="a\x1b[31m", teacher_name="dense")


def test_the_form_of_version_1(whole):
    found = json.loads(json.dumps(whole.to_dict(), allow_nan=False))
    assert found["schema_version"] == 1
    assert {name: sorted(part) for name, part in found.items() if isinstance(part, dict)} == {
        "model": ["device", "dtype", "model_type", "modification", "name", "num_parameters", "weights_hash"],
        "teacher": ["device", "dtype", "model_type", "modification", "name", "num_parameters", "weights_hash"],
        "text": ["hash", "num_bytes", "num_rows", "num_tokens", "sequence_length", "sources"],
        "settings": ["context", "num_trials", "probes", "seed"],
        "versions": ["accelerate", "peft", "python", "tokenizers", "torch", "transformers"],
        "held_out": HELD_OUT,
        "held_out_non_causal": HELD_OUT,
        "kv_cache": [
            "context_tokens",
            "dense_kv_cache_bytes_per_token",
            "kv_cache_bytes_per_token",
            "kv_cache_reduction_ratio",
        ],
        "keep_behaviour": [
            "by_kind",
            "by_next_surprisal",
            "by_position",
            "by_surprisal",
            "layer_pairs",
            "num_layers_kept_ratio",
        ],
        "needle": ["cells", "num_digits", "seed"],
        "induction": ["lengths", "num_alphabet_tokens", "seed"],
        "agreement": [
            "bits_per_byte_difference",
            "bits_per_byte_difference_standard_error",
            "kl_bits_per_token",
            "kl_bits_per_token_standard_error",
            "num_rows",
            "num_tokens",
            "teacher_bits_per_byte",
            "top1_agreement_ratio",
            "top1_agreement_ratio_standard_error",
        ],
    }
    assert sorted(found["needle"]["cells"][0]) == [
        "answer_bits_per_byte",
        "answer_bits_per_byte_standard_error",
        "context_tokens",
        "depth_ratio",
        "exact_match_ratio",
        "keep_ratio",
        "num_trials",
    ]
    assert sorted(found["keep_behaviour"]["by_kind"][0]) == ["keep_ratio", "mean_bits", "name", "num_tokens"]
    assert found["held_out"]["keep_ratio"].keys() == {"1"}
    assert found["model"]["modification"]["operator"] == "topk"
    assert found["teacher"]["modification"] is None


HELD_OUT = [
    "bits_per_byte",
    "bits_per_byte_standard_error",
    "bits_per_token",
    "by_position",
    "is_causal",
    "keep_ratio",
    "mean_keep_ratio",
    "next_token_accuracy",
    "next_token_accuracy_standard_error",
    "num_bytes",
    "num_rows",
    "num_tokens",
    "row_bits",
    "row_bytes",
]


def test_only_top_k_has_a_number_that_is_not_causal(whole, make_converted):
    assert whole.held_out.is_causal
    assert not whole.held_out_non_causal.is_causal
    threshold = evaluate(make_converted(model_overrides=SMALL), BYTES, ROWS, EvaluationSettings(16, ("bits_per_byte",)))
    assert threshold.held_out_non_causal is None


@pytest.mark.parametrize("probe", ["bits_per_byte", "needle", "induction"])
def test_what_is_not_asked_for_is_none(probe):
    told = []
    settings = EvaluationSettings(LEAST, (probe,), num_trials=1)
    found = evaluate(dense_model(**SMALL), BYTES, ROWS, settings, told=told.append)
    part_of = {"bits_per_byte": ["held_out", "kv_cache"], "needle": ["needle"], "induction": ["induction"]}
    optional = ("held_out", "held_out_non_causal", "kv_cache", "needle", "induction", "agreement", "teacher")
    assert [name for name in optional if getattr(found, name) is not None] == part_of[probe]
    assert told == [probe]
    assert len(fields(Evaluation)) == len(found.to_dict())


def test_sizes_are_a_context_and_its_halves():
    assert halves(1024, 200) == (256, 512, 1024)
    assert halves(1024, 8) == (128, 256, 512, 1024)
    assert halves(100, 101) == ()


def test_the_hash_is_of_tokens_and_boundaries():
    hashes = {
        text_facts(rows).hash for rows in (ROWS, ROWS[:1], [replace(ROWS[0], starts=(0, 6)), ROWS[1]], ROWS[::-1])
    }
    assert len(hashes) == 4
    assert text_facts(ROWS).num_bytes == sum(one.num_bytes for one in ROWS)


def test_what_cannot_be_measured_is_refused_before_anything_is():
    model, told = dense_model(**SMALL), []
    for settings, expected in (
        (EvaluationSettings(LEAST - 1), f"the needle's prompt needs {LEAST} tokens"),
        (EvaluationSettings(15, ("induction",)), "induction needs 16 tokens"),
        (EvaluationSettings(513), "context: got 513; the model has 512 positions"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            evaluate(model, BYTES, ROWS, settings, told=told.append)
    assert told == []
    for changes, expected in (
        ({"probes": ("humaneval",)}, "probes: got 'humaneval'; expected some of bits_per_byte, needle, induction"),
        ({"probes": ()}, "probes: got 'none'"),
        ({"num_trials": 0}, "num_trials: got 0"),
    ):
        with pytest.raises(EvaluationError, match=expected):
            EvaluationSettings(**{"context": 64, **changes})


def test_the_tables_say_what_the_numbers_say(whole):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_evaluation(whole, console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    held_out = whole.held_out
    assert f"{held_out.bits_per_byte:.3f} ± {held_out.bits_per_byte_standard_error:.3f}" in text
    assert "ranking the whole sequence*" in text
    assert "this number is too good" in text
    assert f"routed layers keep {held_out.mean_keep_ratio:.1%} of that text (1: " in text
    assert f"{whole.agreement.kl_bits_per_token:.3f} ± " in text
    assert "position 16–19" in text


def test_a_file_is_new_or_nothing_is_written(whole, tmp_path):
    path = tmp_path / "out.json"
    write_evaluation(whole, path)
    content = path.read_text()
    assert json.loads(content)["text"]["num_rows"] == 2
    with pytest.raises(EvaluationError, match=r"out.json: is there already; name another file"):
        write_evaluation(whole, path)
    assert path.read_text() == content
    with pytest.raises(EvaluationError, match="its folder is not there"):
        check_new(tmp_path / "no" / "out.json")
    assert [one.name for one in tmp_path.iterdir()] == ["out.json"]


def test_the_same_evaluation_twice_is_the_same(whole, make_converted):
    torch.manual_seed(99)
    model = make_converted(operator="topk", model_overrides=SMALL)
    settings = EvaluationSettings(context=LEAST + 20, num_trials=2)
    again = evaluate(model, BYTES, ROWS, settings, teacher=dense_model(**SMALL), name="a\x1b[31m", teacher_name="dense")
    assert again == whole
