"""lm-evaluation-harness on converted models: a local task, and the same numbers whatever the batch size.

The harness is an optional extra: without it all but one of these tests are skipped.
"""

import importlib.util
import json
import logging
import random
import sys

import pytest
import torch

from reference_impl import UnsupportedModelError
from reference_impl.cli import main
from reference_impl.convert_command import ConvertOptions, convert_folder
from reference_impl.errors import CommandError
from reference_impl.model_folder import load_folder
from tests.reference_impl.folders import command_failure, write_dense

ROUNDING = 1e-4  # of a sum of ten log-probabilities in fp32; a padded row of top-k shifts it by over 0.01
TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {examples}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
has_harness = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("lm_eval", "accelerate"))), reason="needs modbench[lm-eval]"
)
# of packages that the harness imports, not ours
ignores_imports = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    write_dense(path / "dense")
    convert_folder(ConvertOptions(path / "dense", path / "threshold", settings={"router_bias": 0.0}))
    convert_folder(ConvertOptions(path / "dense", path / "topk", settings={"operator": "topk", "capacity": 0.5}))
    return path


@pytest.fixture(autouse=True)
def own_logging():
    """The harness gives loggers handlers that would outlive the stderr of a test."""
    loggers = [logging.getLogger(name) for name in (None, "lm_eval")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


def loglikelihood_requests(num: int) -> list:
    """Contexts and continuations of all lengths."""
    from lm_eval.api.instance import Instance

    draw = random.Random(1)
    pairs = [
        (
            "".join(draw.choices("abc ", k=draw.randrange(40))) + "x",
            "".join(draw.choices("abc", k=draw.randrange(1, 9))),
        )
        for _ in range(num)
    ]
    return [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]


def test_without_the_harness_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "reference_impl.lm_eval_adapter", raising=False)
    error = command_failure(monkeypatch, capsys, "lm-eval", "--model", "mod", "--help")
    assert "lm-eval: needs lm_eval, which is not installed; install it with pip install 'modbench[lm-eval]'" in error


@has_harness
@ignores_imports
def test_a_local_task_is_evaluated_from_the_command_line(folders, tmp_path, monkeypatch, capsys):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    examples = [
        {"question": "x" * index, "choices": [" yes", " no", " maybe"], "answer": index % 3} for index in range(1, 7)
    ]
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "examples.jsonl").write_text("\n".join(map(json.dumps, examples)))
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK.format(examples=tmp_path / "tasks" / "examples.jsonl"))
    arguments = ["--model", "mod", "--model_args", f"pretrained={folders / 'threshold'}", "--tasks", "tiny_choice"]
    more = ["--include_path", str(tmp_path / "tasks"), "--device", "cpu", "--batch_size", "4", "--output_path"]
    command = ["reference_impl", "lm-eval", *arguments, *more, str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    assert "tiny_choice" in capsys.readouterr().out
    (results,) = (tmp_path / "results").rglob("results_*.json")
    scores = json.loads(results.read_text())["results"]["tiny_choice"]
    assert scores["acc,none"] == pytest.approx(sum(map(is_right, examples, [folders] * 6)) / 6)


def is_right(example, folders) -> bool:
    scores = [score(folders / "threshold", example["question"], choice) for choice in example["choices"]]
    return max(range(3), key=scores.__getitem__) == example["answer"]


@torch.no_grad()
def score(folder, context: str, continuation: str) -> float:
    """log P(continuation | context), by the model alone; as in the harness, the last token is not fed."""
    model = load_folder(folder)
    ids = torch.tensor(list((context + continuation).encode()))
    logprobs = model(ids[None, :-1]).logits[0].log_softmax(-1)
    return logprobs.gather(1, ids[1:, None])[len(context.encode()) - 1 :].sum().item()


@has_harness
@ignores_imports
@pytest.mark.parametrize("operator", ["threshold", "topk"])
def test_a_batch_gives_the_numbers_of_single_rows(folders, operator):
    from reference_impl.lm_eval_adapter import ModLM

    requests = loglikelihood_requests(24)
    answers = {
        size: ModLM(str(folders / operator), device="cpu", batch_size=size).loglikelihood(requests, disable_tqdm=True)
        for size in (1, 8)
    }
    for request, single, batched in zip(requests, answers[1], answers[8], strict=True):
        assert single[0] == pytest.approx(score(folders / operator, *request.args), abs=ROUNDING)
        assert batched[0] == pytest.approx(single[0], abs=ROUNDING)
        assert batched[1] == single[1]


@has_harness
@ignores_imports
def test_the_harness_alone_would_rank_padding_among_the_tokens(folders):
    from lm_eval.models.huggingface import HFLM

    from reference_impl.lm_eval_adapter import ModLM

    model = ModLM(str(folders / "topk"), device="cpu", batch_size=8)
    requests = [(None, *model._encode_pair(*request.args)) for request in loglikelihood_requests(24)]
    ours = model._loglikelihood_tokens(requests, disable_tqdm=True)
    stock = HFLM._loglikelihood_tokens(model, requests, disable_tqdm=True)
    assert max(abs(a[0] - b[0]) for a, b in zip(ours, stock, strict=True)) > 0.01


@has_harness
@ignores_imports
def test_generated_texts_and_whole_texts_do_not_depend_on_the_batch(folders):
    from lm_eval.api.instance import Instance

    from reference_impl.lm_eval_adapter import ModLM

    contexts = ["a", "bc" * 9, "x y z", "abc"]
    settings = {"until": ["\n"], "max_gen_toks": 8}
    generations = [Instance("generate_until", {}, (context, settings), 0) for context in contexts]
    whole = [
        Instance("loglikelihood_rolling", {}, (context * 20,), 0) for context in contexts
    ]  # one is longer than 256
    found = {}
    for size in (1, 4):
        model = ModLM(str(folders / "threshold"), device="cpu", batch_size=size)
        found[size] = model.generate_until(generations, disable_tqdm=True)
        found[size, "whole"] = model.loglikelihood_rolling(whole, disable_tqdm=True)
    assert found[1] == found[4]
    assert found[1, "whole"] == pytest.approx(found[4, "whole"], abs=10 * ROUNDING)


@has_harness
@ignores_imports
def test_what_is_no_converted_model_is_refused(folders, tmp_path):
    from reference_impl.lm_eval_adapter import ModLM

    with pytest.raises(UnsupportedModelError, match="got model_type 'llama'; expected one of mod_llama"):
        ModLM(str(folders / "dense"), device="cpu")
    with pytest.raises(UnsupportedModelError, match=r"no config\.json there"):
        ModLM(str(tmp_path), device="cpu")
    with pytest.raises(CommandError, match="batch_size: got auto for a model with operator topk"):
        ModLM(str(folders / "topk"), device="cpu", batch_size="auto")
