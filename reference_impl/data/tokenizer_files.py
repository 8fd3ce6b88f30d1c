"""Tokenizers as files that `AutoTokenizer.from_pretrained` loads: one of bytes, and one trained on the sources.

In: a folder, and for training a `DataConfig`. Out: tokenizer.json and tokenizer_config.json, and the tokenizer itself. Existing
files are never overwritten.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from reference_impl.data.config import DataConfig
from reference_impl.data.loaded_tokenizer import SETTINGS_FILE, TOKENIZER_FILE, LoadedTokenizer
from reference_impl.data.mixture import training_texts
from reference_impl.data.tokens import NUM_BYTE_VALUES
from reference_impl.errors import DataError

END_OF_DOCUMENT = "<|endoftext|>"  # as GPT-2 spells it
TRAINING_BYTES = 16 * 2**20  # our choice: more changes the merges of a small vocabulary little


def write_byte_tokenizer(folder: Path) -> LoadedTokenizer:
    """A tokenizer whose ids are the bytes of the text, 0 to 255, and 256 for the end of a document: `ByteTokenizer` as files.

    Raises:
        DataError: the folder has a tokenizer, or cannot be written.
    """
    tokenizer = Tokenizer(
        models.BPE(vocab={_byte_character(value): value for value in range(NUM_BYTE_VALUES)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_DOCUMENT, special=True)])
    return _write(tokenizer, folder)


def train_tokenizer(
    config: DataConfig, folder: Path, vocab_size: int, num_bytes: int = TRAINING_BYTES
) -> LoadedTokenizer:
    """A byte-level BPE tokenizer of the training documents; the same for the same settings and documents.

    Args:
        config: sources, weights and split; held-out documents are left out.
        folder: where it is written.
        vocab_size: tokens in all, the 256 bytes and the end of a document among them.
        num_bytes: how much text to train on, in UTF-8 bytes.

    Raises:
        DataError: the vocabulary is too small, or too large for the text; the folder has a tokenizer, or cannot be written.
    """
    _refuse_existing(folder)
    if vocab_size <= NUM_BYTE_VALUES:
        raise DataError(
            f"vocab_size: got {vocab_size}; expected at least {NUM_BYTE_VALUES + 1}: the bytes and the end of a document"
        )
    tokenizer = _trained(training_texts(config, num_bytes), vocab_size)
    if tokenizer.get_vocab_size() < vocab_size:
        raise DataError(
            f"vocab_size: got {vocab_size}; the text is enough for {tokenizer.get_vocab_size()}: ask for that, or give more text"
        )
    return _write(tokenizer, folder)


def _trained(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[AddedToken(END_OF_DOCUMENT, special=True)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_character(value: int) -> str:
    """The character that stands for a byte in byte-level tokenizers: printable ones for themselves, the others from U+0100 on.

    Source: `bytes_to_unicode` of GPT-2.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if value in printable:
        return chr(value)
    return chr(0x100 + sum(other not in printable for other in range(value)))


def _refuse_existing(folder: Path) -> None:
    for name in (TOKENIZER_FILE, SETTINGS_FILE):
        if (folder / name).exists():
            raise DataError(f"{folder / name}: is there already; name another folder, or remove it first")


def _write(tokenizer: Tokenizer, folder: Path) -> LoadedTokenizer:
    _refuse_existing(folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_DOCUMENT,
        "clean_up_tokenization_spaces": False,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (
            (TOKENIZER_FILE, tokenizer.to_str(pretty=True)),
            (SETTINGS_FILE, json.dumps(settings, indent=2)),
        ):
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(content + "\n")
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror}; name a folder that can") from error
    return LoadedTokenizer(tokenizer, END_OF_DOCUMENT, str(folder / TOKENIZER_FILE))
