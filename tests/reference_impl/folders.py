"""A folder with a small dense model that reads bytes, and a command that must fail."""

import sys
from pathlib import Path
from typing import Any

import pytest

from reference_impl.cli import main
from reference_impl.data import write_byte_tokenizer
from tests.reference_impl.conftest import dense_model

END_OF_DOCUMENT = 256


def write_dense(folder: Path, family: str = "llama", **overrides: Any) -> Path:
    """Weights, configuration, generation settings and a tokenizer of bytes."""
    dense_model(family, **{"vocab_size": 257, "eos_token_id": END_OF_DOCUMENT, **overrides}).save_pretrained(folder)
    write_byte_tokenizer(folder)
    return folder


def command_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line of a command that must fail before it prints anything."""
    monkeypatch.setattr(sys, "argv", ["reference_impl", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    return printed.err


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
