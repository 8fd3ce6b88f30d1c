"""The end of every check, be it of saved runs or of two revisions measured side by side: print, write files, tell GitHub.

In: compared sides. Out: console text, JUnit, markdown, workflow annotations, and the gate's exit code.
"""

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from modbench.analysis.comparison import ComparedSides
from modbench.analysis.gate import CountsAs, GateResult, gate_result
from modbench.errors import OutputError
from modbench.report.comparison import render_comparison
from modbench.report.gate import Rerun, gate_lines
from modbench.report.github import annotations, cut_summary
from modbench.report.junit import render_junit
from modbench.report.pull_request import render_pull_request


@dataclass(frozen=True)
class GateOptions:
    """What a gate was asked for: what INCONCLUSIVE counts as, and files to write."""

    counts_as: CountsAs | None = None
    junit: Path | None = None
    markdown: Path | None = None
    is_quiet: bool = False


def present_gate(
    compared: Sequence[ComparedSides],
    options: GateOptions,
    rerun: Rerun | None = None,
    command: str = "",
    notes: Sequence[str] = (),
) -> int:
    """Print the comparison and what the gate says, write what was asked for, tell GitHub, and return the exit code.

    Args:
        compared: everything that was compared.
        options: what to make of it, and to write.
        rerun: the command that measures some of `compared` again, to which `--set` may be added; "" where there is none.
        command: what reproduces it all.
        notes: what else must be known of how it was measured, a line each.

    Raises:
        OutputError: a file that was asked for cannot be written.
    """
    result = gate_result(compared, options.counts_as)
    lines = [*gate_lines(result, rerun), *notes]
    is_on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    with _commands_stopped(is_on_github):
        console = Console()
        if not options.is_quiet:
            for sides in compared:
                render_comparison(sides, console)
            console.print()
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    page = render_pull_request(compared, result, lines, command)
    _write(options.junit, "--junit", render_junit(compared, options.counts_as))
    _write(options.markdown, "--markdown", page)
    if is_on_github:
        sys.stdout.write("".join(f"{line}\n" for line in annotations(result, lines)))
        _tell_github(result, page)
    return result.exit_code


def refuse_unwritable(options: GateOptions) -> None:
    """Before hours of measuring: fail as `present_gate` would fail after them.

    Raises:
        OutputError: a file that was asked for cannot be written.
    """
    for option, path in (("--junit", options.junit), ("--markdown", options.markdown)):
        if path is None:
            continue
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        is_folder_in_the_way = existing.is_dir() == (existing == path)
        if is_folder_in_the_way or not os.access(existing, os.W_OK):
            raise OutputError(
                f"{option}: cannot write {path}: {existing} is in the way; name a file that can be written"
            )


def _write(path: Path | None, option: str, text: str) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{option}: cannot write {path}: {error.strerror}; name a file that can be written"
        ) from error


@contextmanager
def _commands_stopped(is_on_github: bool) -> Iterator[None]:
    """Keep GitHub from reading workflow commands in what is printed: names and errors come from outside."""
    token = secrets.token_hex(16)
    if is_on_github:
        sys.stdout.write(f"::stop-commands::{token}\n")
    try:
        yield
    finally:
        if is_on_github:
            sys.stdout.write(f"::{token}::\n")


def _tell_github(result: GateResult, page: str) -> None:
    """Append the step summary and the step's outputs to the files that GitHub names; a gate does not fail by them."""
    outputs = f"exit_code={result.exit_code}\nverdict={result.outcome.replace(' ', '-')}\n"
    for name, text in (("GITHUB_STEP_SUMMARY", page), ("GITHUB_OUTPUT", outputs)):
        path = os.environ.get(name)
        if not path:
            continue
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(cut_summary(text, file.tell()) if name == "GITHUB_STEP_SUMMARY" else text)
        except OSError as error:
            sys.stderr.write(f"warning: {name}: cannot write {path}: {error.strerror}\n")
