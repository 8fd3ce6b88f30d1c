"""A tokenizer of four words, as a file."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = ("[UNK]", "the", "cat", "sat")


def write_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
