"""Programs that measure themselves, written into a folder by the tests of commands, and jobs that start them."""

import sys
from pathlib import Path

from modbench.job import Job
from tests.modbench.jobs import make_job

# Answers what it was asked for with times of microseconds; a test changes the answer, or what stands around it.
ENGINE = """\
import json, os, signal, subprocess, sys, time
request = json.loads(sys.stdin.readline())
workload, num_samples = request["point"]["workload"], request["num_samples"]
num_steps = workload["new_tokens"] - 1
answer = {{
    "protocol_version": 1,
    "samples": {{
        "ttft_s": [2e-5] * num_samples, "tpot_s": [1e-6] * num_samples, "itl_s": [1e-6] * num_samples * num_steps
    }},
    "num_prompt_tokens": workload["batch"] * workload["context"],
    "num_output_tokens": workload["batch"] * workload["new_tokens"],
}}
samples = answer["samples"]
{change}
print(json.dumps(answer))
"""


def write_engine(folder: Path, change: str = "", program: str = ENGINE) -> Path:
    path = folder / "engine.py"
    path.write_text(program.format(change=change))
    return path


def command_job(folder: Path, change: str = "", job_kind: str = "launch", **settings: object) -> Job:
    """A job for `ENGINE`, changed."""
    command = [sys.executable, "-I", "-S", str(write_engine(folder, change))]
    return make_job(folder, "command", job_kind, settings={"command": command, "options": {}, "env": {}, **settings})
