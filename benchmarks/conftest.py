"""Shared by all benchmarks: one thread, an offline environment, and tables that stand in pytest's summary (no -s needed)."""

import os
from collections.abc import Callable, Sequence

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

TABLES = pytest.StashKey[dict[str, list[Sequence[str]]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLES] = {}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, rows in config.stash[TABLES].items():
        terminalreporter.section(title)
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            terminalreporter.line(
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            )


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def add_row(request: pytest.FixtureRequest) -> Callable[[str, Sequence[str], Sequence[str]], None]:
    """`add_row(title, header, row)`: a line of the table of that title."""

    def add(title: str, header: Sequence[str], row: Sequence[str]) -> None:
        request.config.stash[TABLES].setdefault(title, [header]).append(row)

    return add
