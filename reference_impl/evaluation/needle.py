"""Passkey retrieval: does the model find five digits in a long text, at growing context and several depths?

In: a model and its tokenizer. Out: a `NeedleScore`.

The prompt says that something is hidden, repeats five sentences of filler around a needle, "The pass key is 48213.", and asks for
the key. Source: the task and the sentences of Mohtashami and Jaggi (arXiv 2305.16300), as repositories that name their
llama/run_test.py repeat them; keys of five digits, line ends, filler cut in tokens, and the score by log-probability are our
choice.

The prompt is prefilled in one forward and the answer decoded token by token, as a model is served: `topk` ranks the prompt, and
its threshold decides on the answer. The answer that is scored is fed back, whatever the model would have said. Where each of its
tokens is the likeliest one, greedy generation says exactly this answer, and otherwise it does not: so one pass gives both scores.

Shapes: B prompts of one forward, T tokens of the prompt, A tokens of the answer.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reference_impl.data import DocumentTokenizer, EncodedDocument
from reference_impl.errors import EvaluationError
from reference_impl.evaluation.forwards import TOKENS_PER_FORWARD, bits_of, evaluating
from reference_impl.evaluation.kept import KeptTokens
from reference_impl.evaluation.pieces import PieceEncoder
from reference_impl.evaluation.ratios import ratio

INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.\n"
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
NEEDLE = ("\nThe pass key is ", ". Remember it. ", " is the pass key.\n")  # around two copies of the key
QUESTION = "\nWhat is the pass key? The pass key is "
NUM_DIGITS = 5  # a model that guesses digits needs log2(10) = 3.3 bits per byte
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


class NeedlePrompt(NamedTuple):
    """Token ids of prompt (T,) and answer (A,), int64, and the bytes of text that the answer stands for."""

    prompt_T: Tensor
    answer_A: Tensor
    answer_bytes: int


@dataclass(frozen=True)
class NeedleCell:
    """Trials at one context and depth.

    Attributes:
        context_tokens: of prompt and answer together.
        depth_ratio: share of the filler that stands before the needle.
        num_trials: keys that were hidden.
        exact_match_ratio: share of them that greedy generation gives back.
        answer_bits_per_byte: -log2 of the answer's probability / its bytes; guessing digits gives 3.3.
        answer_bits_per_byte_standard_error: over trials; None for one.
        keep_ratio: mean over routed layers of what was kept of the prompts; None for a dense model.
    """

    context_tokens: int
    depth_ratio: float
    num_trials: int
    exact_match_ratio: float
    answer_bits_per_byte: float
    answer_bits_per_byte_standard_error: float | None
    keep_ratio: float | None


@dataclass(frozen=True)
class NeedleScore:
    """One cell per context and depth, contexts ascending; `seed` decides the keys, which are the same at every context."""

    num_digits: int
    seed: int
    cells: tuple[NeedleCell, ...]


def needle(
    model: PreTrainedModel,
    tokenizer: DocumentTokenizer,
    contexts: Sequence[int],
    depths: Sequence[float] = DEPTHS,
    num_trials: int = 4,
    seed: int = 0,
) -> NeedleScore:
    """Hide keys and ask for them.

    Args:
        model: dense or converted.
        tokenizer: of the model.
        contexts: tokens of prompt and answer together.
        depths: shares of the filler in [0, 1] that stand before the needle.
        num_trials: keys per cell.
        seed: of the keys.

    Raises:
        EvaluationError: a context is beyond the model's positions or too short for the prompt, a depth is out of its range, the
            tokenizer has ids beyond the model's vocabulary, or a loss is not finite.
    """
    _check(model, tokenizer, contexts, depths, num_trials)
    encoder = PieceEncoder(tokenizer)
    cells = []
    with evaluating(model):
        for context, depth in itertools.product(sorted(contexts), depths):
            prompts = [needle_prompt(encoder, context, depth, key) for key in _keys(depth, num_trials, seed)]
            cells.append(_cell(model, prompts, context, depth))
    return NeedleScore(NUM_DIGITS, seed, tuple(cells))


def min_context(tokenizer: DocumentTokenizer) -> int:
    """Tokens of the shortest prompt with its answer: all but the filler."""
    parts = _parts(PieceEncoder(tokenizer), "0" * NUM_DIGITS)
    return sum(len(ids_T) for ids_T in (*parts[:-1], parts[-1].ids_T))


def needle_prompt(encoder: PieceEncoder, context: int, depth: float, key: str) -> NeedlePrompt:
    """The prompt that hides `key`, with filler up to `context` tokens, its answer's among them.

    Raises:
        EvaluationError: the context is too short for it.
    """
    before_T, needle_T, question_T, answer = _parts(encoder, key)
    num_fixed = len(before_T) + len(needle_T) + len(question_T) + len(answer.ids_T)
    if context < num_fixed:
        raise EvaluationError(
            f"context: got {context}; the prompt needs {num_fixed} tokens without any filler: take more, or leave needle out of "
            "the probes"
        )
    num_filler = context - num_fixed
    sentence_T = encoder.encode(FILLER).ids_T
    filler_T = sentence_T.repeat(num_filler // len(sentence_T) + 1)[:num_filler]
    num_before = round(depth * num_filler)
    prompt_T = torch.cat([before_T, filler_T[:num_before], needle_T, filler_T[num_before:], question_T])
    return NeedlePrompt(prompt_T, answer.ids_T, int(answer.num_bytes_T.sum()))


def _parts(encoder: PieceEncoder, key: str) -> tuple[Tensor, Tensor, Tensor, EncodedDocument]:
    """Ids of what stands before the filler, of the needle and of the question, and the answer."""
    answer = encoder.encode(key)
    opening_T, middle_T, closing_T = (encoder.encode(text).ids_T for text in NEEDLE)
    needle_T = torch.cat([opening_T, answer.ids_T, middle_T, answer.ids_T, closing_T])
    before_T = torch.cat([encoder.start_T, encoder.encode(INTRODUCTION).ids_T])
    return before_T, needle_T, encoder.encode(QUESTION).ids_T, answer


def _keys(depth: float, num_trials: int, seed: int) -> list[str]:
    """Keys that depend on nothing but these, so that contexts differ in nothing else."""
    return [
        "".join(random.Random(f"{seed}:{depth}:{trial}").choices("0123456789", k=NUM_DIGITS))
        for trial in range(num_trials)
    ]


def _cell(model: PreTrainedModel, prompts: Sequence[NeedlePrompt], context: int, depth: float) -> NeedleCell:
    kept, bits, num_bytes, exact = KeptTokens(), [], [], []
    for batch in _batches(prompts, max(1, TOKENS_PER_FORWARD // context)):
        bits_BA, is_right_BA = _answered(model, batch, kept)
        bits += bits_BA.sum(dim=1).tolist()
        exact += is_right_BA.all(dim=1).tolist()
        num_bytes += [prompt.answer_bytes for prompt in batch]
    per_byte = ratio(bits, num_bytes)
    return NeedleCell(
        context_tokens=context,
        depth_ratio=depth,
        num_trials=len(prompts),
        exact_match_ratio=sum(exact) / len(exact),
        answer_bits_per_byte=per_byte.value,
        answer_bits_per_byte_standard_error=per_byte.standard_error,
        keep_ratio=kept.mean_keep_ratio(),
    )


def _batches(prompts: Sequence[NeedlePrompt], at_once: int) -> Iterator[list[NeedlePrompt]]:
    """Prompts whose answers have as many tokens, and which so are equally long themselves."""
    in_order = sorted(prompts, key=lambda prompt: len(prompt.answer_A))
    for _, same in itertools.groupby(in_order, key=lambda prompt: len(prompt.answer_A)):
        while batch := list(itertools.islice(same, at_once)):
            yield batch


def _answered(model: PreTrainedModel, batch: Sequence[NeedlePrompt], kept: KeptTokens) -> tuple[Tensor, Tensor]:
    """(Bits of each answer's tokens, whether each is the likeliest), both (B, A) on the host."""
    prompt_BT = torch.stack([prompt.prompt_T for prompt in batch]).to(model.device)
    answer_BA = torch.stack([prompt.answer_A for prompt in batch]).to(model.device)
    output = model(prompt_BT, use_cache=True, logits_to_keep=1)
    kept.add(model)
    bits, right = [], []
    for index in range(answer_BA.shape[1]):
        if index:
            token_B1 = answer_BA[:, index - 1 : index]
            output = model(token_B1, past_key_values=output.past_key_values, use_cache=True)
        bits_B, is_right_B = bits_of(output.logits[:, -1], answer_BA[:, index])
        bits.append(bits_B)
        right.append(is_right_B)
    bits_BA = torch.stack(bits, dim=1)
    if not bits_BA.isfinite().all():
        raise EvaluationError(
            f"loss: not finite on needle prompts of {prompt_BT.shape[1]} tokens; expected a finite loss: try --dtype float32, or "
            "another checkpoint"
        )
    return bits_BA, torch.stack(right, dim=1)


def _check(
    model: PreTrainedModel,
    tokenizer: DocumentTokenizer,
    contexts: Sequence[int],
    depths: Sequence[float],
    num_trials: int,
) -> None:
    max_positions = model.config.max_position_embeddings
    if not contexts or max(contexts) > max_positions:
        raise EvaluationError(
            f"contexts: got {', '.join(map(str, contexts)) or 'none'}; expected at least one, up to the {max_positions} positions "
            "of the model"
        )
    if not depths or not all(0 <= depth <= 1 for depth in depths):
        raise EvaluationError(f"depths: got {', '.join(map(str, depths)) or 'none'}; expected shares in [0, 1]")
    if num_trials < 1:
        raise EvaluationError(f"trials: got {num_trials}; expected an integer >= 1")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise EvaluationError(
            f"tokenizer: its ids go up to {tokenizer.vocab_size - 1}; the model knows 0 to {model.config.vocab_size - 1}: take the "
            "model's own"
        )
