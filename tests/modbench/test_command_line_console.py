"""What a terminal, a pipe and a quiet run get to see: black boxes on pipes and on a pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.modbench.test_command_line import PROJECT, write_scenario

SCENARIO = """\
name: screens
question: What is shown?
model:
  geometry: {num_hidden_layers: 2, hidden_size: 16, intermediate_size: 32, num_attention_heads: 2, vocab_size: 300}
methods:
  dense: {}
  skip_layers: {}
workload: {context: 16, new_tokens: 4, prompt: {synthetic: true}}
measure: {launches: 1, samples: 1, warmup: 0, device: cpu}
matrix: {workload.context: [16, 32]}
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|38|4[0-7]|48|9[0-7])[0-9;]*m")
CURSOR = re.compile(r"\x1b\[(\d*[AKJHG]|\?25[lh])")
TIMES = re.compile(r"^\[1/4\] context 16: dense: ok in [0-9.]+ s, about [^,]+ left here, [^,]+ in all$", re.MULTILINE)


def environment(**changes: str) -> dict[str, str]:
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    kept = {key: value for key, value in os.environ.items() if key not in unset}
    return {**kept, "PYTHONPATH": str(PROJECT), "TERM": "xterm-256color", **changes}


def on_a_pipe(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "modbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**changes), capture_output=True, text=True, check=False)


def on_a_terminal(folder: Path, *arguments: str, columns: int = 80, **changes: str) -> str:
    """Everything the program writes to a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, "-m", "modbench", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(**changes), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    chunks = []
    try:
        while chunk := os.read(ours, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # Linux: the other end is closed
    finally:
        os.close(ours)
        assert process.wait(timeout=60) == 0, b"".join(chunks).decode()
    return b"".join(chunks).decode()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on a pipe, shared by the tests that report it again."""
    folder = write_scenario(tmp_path_factory.mktemp("run"), SCENARIO)
    return folder, on_a_pipe(folder, "run", "s.yaml", "--output", "out", FORCE_COLOR="1")


def test_a_pipe_gets_no_cursor_movement_even_where_colours_are_forced(finished):
    _, done = finished
    assert done.returncode == 0, done.stderr
    assert not CURSOR.search(done.stdout)
    assert TIMES.search(done.stdout), done.stdout


def test_a_pipe_gets_no_control_codes_at_all(finished):
    folder, _ = finished
    for arguments in (("report", "out"), ("report", "out", "--details")):
        shown = on_a_pipe(folder, *arguments).stdout
        assert "What is shown?" in shown
        assert "\x1b" not in shown


def test_details_are_printed_when_asked_for(finished):
    folder, _ = finished
    assert "Prefill\n" in on_a_pipe(folder, "report", "out", "--details").stdout
    assert "Prefill\n" not in on_a_pipe(folder, "report", "out").stdout


def test_quiet_prints_the_path_of_the_report_alone(tmp_path):
    folder = write_scenario(tmp_path, SCENARIO)
    done = on_a_pipe(folder, "run", "s.yaml", "--output", "out", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "report: out/report.html\n", "")
    again = on_a_pipe(folder, "run", "s.yaml", "--output", "out", "--quiet")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.startswith("out: it holds a run already")


def test_a_terminal_gets_a_live_display_and_the_answer_without_colours_if_asked(tmp_path):
    shown = on_a_terminal(write_scenario(tmp_path, SCENARIO), "run", "s.yaml", "--output", "out", NO_COLOR="1")
    assert CURSOR.search(shown), "a bar is drawn over itself"
    assert "point 1 of 2 · launch 1 of 4 · context 16: dense" in shown
    assert "What is shown?" in shown
    assert not COLOUR.search(shown)


@pytest.mark.parametrize("changes", [{"TERM": "dumb"}, {"TERM": "dumb", "NO_COLOR": "1"}])
def test_a_dumb_terminal_gets_plain_text(finished, changes):
    folder, _ = finished
    shown = on_a_terminal(folder, "report", "out", **changes)
    assert "What is shown?" in shown
    assert "\x1b" not in shown


def test_a_report_fits_the_terminal_and_fills_a_wide_one(finished):
    folder, _ = finished
    narrow, wide = (on_a_terminal(folder, "report", "out", columns=columns) for columns in (80, 160))
    visible = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in narrow.splitlines()]
    assert max(len(line) for line in visible) <= 80
    assert len(visible) <= 24
    assert "tok/s" in wide
    assert "tok/s" not in narrow
