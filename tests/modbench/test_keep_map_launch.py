"""Keep maps for real, on a CPU: what the oracle decides, with the texts of the prompt."""

import hashlib
import json

import pytest
import torch

from modbench import worker
from modbench.keep_map_record import MAX_MAPPED_TOKENS
from modbench.methods import METHODS
from modbench.tokens import first_texts, prompt_tokens
from reference_impl.naive import naive_forward
from tests.modbench.jobs import SETTINGS, entry_job, make_job, make_point
from tests.reference_impl.small_tokenizer import write_tokenizer

TEXT = "Größe: 漢字.\n" * 40


@pytest.fixture(autouse=True)
def _keep_thread_count():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def text_workload(tmp_path, text=TEXT, context=64):
    (tmp_path / "prose.txt").write_text(text)
    prompt = {"text": str(tmp_path / "prose.txt"), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return {"context": context, "batch": 2, "new_tokens": 17, "seed": 0, "prompt": prompt}


def mapped(job):
    result = worker.do_job(job)
    assert result.error is None
    return result.keep_map


@torch.no_grad()
def test_a_map_is_what_the_oracle_decides_about_the_first_row(tmp_path):
    job = make_job(tmp_path, "threshold", "keep_map")
    row = mapped(job)
    point, ids_BT = job.spec.point, prompt_tokens(job.spec.point).ids_BT
    method = METHODS["threshold"](point.settings)
    subject = method.build(point, torch.device("cpu"))
    method.calibrate(subject, ids_BT, 64)
    _, masks = naive_forward(subject.model, ids_BT[0, :64])
    assert row.keep == {
        layer: "".join("1" if is_kept else "0" for is_kept in keep_T) for layer, keep_T in masks.items()
    }
    assert row.token_ids == ids_BT[0, :64].tolist()
    assert (row.method, row.num_layers, row.context, row.texts, row.error) == ("threshold", 4, 64, None, None)


def test_top_k_ranks_within_the_whole_prompt_and_the_first_tokens_are_mapped(tmp_path):
    context = 2 * MAX_MAPPED_TOKENS
    settings = {**SETTINGS["topk"], "capacity": 0.25}
    row = mapped(
        make_job(tmp_path, "topk", "keep_map", settings=settings, workload=text_workload(tmp_path, TEXT, context))
    )
    assert (len(row.token_ids), row.context) == (MAX_MAPPED_TOKENS, context)
    assert {len(decided) for decided in row.keep.values()} == {MAX_MAPPED_TOKENS}
    assert any(decided.count("1") != MAX_MAPPED_TOKENS // 4 for decided in row.keep.values())


def test_the_texts_of_a_byte_prompt_joined_are_its_beginning(tmp_path):
    row = mapped(make_job(tmp_path, "masked", "keep_map", workload=text_workload(tmp_path)))
    assert "".join(row.texts) == TEXT.encode()[:64].decode(errors="ignore")
    assert bytes(row.token_ids) == TEXT.encode()[:64]


def test_a_prompt_that_goes_on_from_its_beginning_does_so_in_its_texts(tmp_path):
    point = make_point(SETTINGS["threshold"], workload=text_workload(tmp_path, "abc"))
    assert first_texts(point, 5) == ["a", "b", "c", "a", "b"]


def test_the_tokenizer_of_a_checkpoint_names_the_tokens(tmp_path):
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    model = {"weights": "checkpoint", "path": str(tmp_path)}
    point = make_point(SETTINGS["threshold"], model=model, workload=text_workload(tmp_path, "the cat sat  on\nthe"))
    assert first_texts(point, 6) == ["the", " cat", " sat", "  on", "\nthe", "the"]
    assert prompt_tokens(point).ids_BT[0, :6].tolist() == [1, 2, 3, 0, 1, 1]


def test_a_method_without_decisions_is_an_error_line(tmp_path):
    result = worker.do_job(make_job(tmp_path, "dense", "keep_map"))
    assert result.keep_map is None
    assert result.error == "UnsupportedError: methods.dense: it tells no keep decisions"


def test_a_launch_that_fails_is_an_error_line(tmp_path):
    result = worker.do_job(entry_job(tmp_path, "raises", "keep_map"))
    assert result.error == "RuntimeError: a mistake over two lines"


def test_a_program_of_its_own_is_not_started_for_a_map(tmp_path):
    settings = {"command": ["false"], "env": {}}
    result = worker.do_job(make_job(tmp_path, "command", "keep_map", settings=settings))
    assert result.error.endswith("a program of its own tells no keep decisions")
