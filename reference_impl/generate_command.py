"""`python -m reference_impl generate`: a folder and a prompt become text, printed as it comes, and a line of what it cost.

In: options as typed. Out: the text on stdout, the line on stderr; or one of this package's errors.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

import torch
from transformers import PreTrainedModel

from reference_impl.decoding import Continuation, GenerationStats, Sampling
from reference_impl.devices import find_device
from reference_impl.errors import CommandError, TextError
from reference_impl.keep_map import check_vocabulary
from reference_impl.model_folder import load_folder
from reference_impl.prompt_tokens import PromptTokens
from reference_impl.visible_text import visible_lines

DEFAULT_NEW_TOKENS = 128


@dataclass(frozen=True)
class GenerateOptions:
    """What was asked for.

    Attributes:
        model: folder of a converted model, or of a dense one of a supported family.
        prompt: the text itself.
        prompt_file: where it stands; with neither, it is read from stdin.
        max_new_tokens: None is 128, or as many as the model has positions for.
        sampling: greedy by default.
        device: auto (the first GPU, else the CPU), cpu, cuda or cuda:N.
        dtype: of the weights: auto (the checkpoint's), float32, bfloat16 or float16.
    """

    model: Path
    prompt: str | None = None
    prompt_file: Path | None = None
    max_new_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    device: str = "auto"
    dtype: str = "auto"


def generate_command(options: GenerateOptions, out: TextIO, notes: TextIO, stdin: BinaryIO) -> None:
    """Print the continuation to `out` and what it cost to `notes`.

    Control characters are made visible where `out` is a terminal, and left alone elsewhere.

    Raises:
        CommandError: two prompts, or a device that is not there.
        UnsupportedModelError: the folder holds no model of a supported family, or a damaged one.
        TextError: the prompt cannot be read, is empty or not UTF-8, or does not fit the model.
    """
    device = find_device(options.device)
    data = _prompt(options, stdin)
    model = load_folder(options.model, "any", options.dtype).to(device)
    tokens = PromptTokens(options.model, model.config.vocab_size)
    ids = tokens.encode(data)
    ids_T = torch.tensor(ids)
    check_vocabulary(model, ids_T)
    continuation = Continuation(model, ids_T, _num_new_tokens(model, len(ids), options), options.sampling)
    text = tokens.stream(ids)
    for token in continuation:
        _show(text.push(token), out)
    _show(text.end(), out)
    if out.isatty():
        out.write("\n")
        out.flush()
    notes.write(stats_line(continuation.stats()) + "\n")


def stats_line(stats: GenerationStats) -> str:
    """What a continuation cost, as one line."""
    prefill = f"prefill {stats.prefill_tokens_per_s:,.0f} tokens/s{_keeps(stats.prefill_keep_ratio)}"
    rate = stats.decode_tokens_per_s
    decode = "no decode" if rate is None else f"decode {rate:,.1f} tokens/s{_keeps(stats.decode_keep_ratio)}"
    cache = f"KV cache {stats.kv_cache_bytes:,} bytes, dense {stats.dense_kv_cache_bytes:,}"
    return f"{stats.num_prompt_tokens:,} prompt tokens, {stats.num_new_tokens:,} new; {prefill}; {decode}; {cache}"


def _keeps(keep_ratio: float | None) -> str:
    return "" if keep_ratio is None else f", keeps {keep_ratio:.1%} at routed layers"


def _show(piece: str, out: TextIO) -> None:
    if piece:
        out.write(visible_lines(piece) if out.isatty() else piece)
        out.flush()


def _prompt(options: GenerateOptions, stdin: BinaryIO) -> bytes:
    if options.prompt is not None and options.prompt_file is not None:
        raise CommandError("--prompt and --prompt-file: got both; expected one of them, or neither to read from stdin")
    if options.prompt is not None:
        return os.fsencode(options.prompt)  # as typed, whatever its bytes
    if options.prompt_file is None:
        return stdin.read()
    try:
        return options.prompt_file.read_bytes()
    except OSError as error:
        raise TextError(f"{options.prompt_file}: cannot be read: {error.strerror}; name a file of text") from error


def _num_new_tokens(model: PreTrainedModel, num_prompt: int, options: GenerateOptions) -> int:
    num_positions: int = model.config.max_position_embeddings
    room = num_positions - num_prompt
    if room < 1:
        raise TextError(
            f"the prompt has {num_prompt:,} tokens and {options.model} has {num_positions:,} positions; "
            f"expected at most {num_positions - 1:,}: shorten it"
        )
    if options.max_new_tokens is None:
        return min(DEFAULT_NEW_TOKENS, room)
    if not 1 <= options.max_new_tokens <= room:
        raise CommandError(
            f"--max-new-tokens: got {options.max_new_tokens}; expected 1 to {room:,}: the prompt has {num_prompt:,} tokens and "
            f"{options.model} has {num_positions:,} positions"
        )
    return options.max_new_tokens
