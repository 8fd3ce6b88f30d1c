"""The conversion experiment, one seed from nothing: a dense model, then every way of skipping, trained alike and measured together.

In: a plan (a YAML file beside this one) and a seed. Out: a folder with the trained models, and the run of `scenarios/conversion.yaml`
on them. Each step is one command of this project, printed as it starts; a step whose result is there is not done again, and a training
that was interrupted goes on from its newest checkpoint.

    python experiments/conversion/run.py --seed 0
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from reference_impl.data import DataConfig, open_source, write_byte_tokenizer

PROJECT = Path(__file__).resolve().parents[2]
SCENARIO = PROJECT / "scenarios" / "conversion.yaml"
PLANS = Path(__file__).parent
PROMPT_BYTES = 2**17
REFERENCE = [sys.executable, "-m", "reference_impl"]


def main() -> None:
    """Do what is missing of one seed; a step that fails ends the experiment with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the dense model, the order of the text and the routers")
    parser.add_argument("--plan", type=Path, default=PLANS / "small.yaml", help="model, text, steps and methods")
    parser.add_argument("--out", type=Path, default=PROJECT / "checkpoints" / "conversion", help="where models are kept")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side, each on one core; 1 for a GPU")
    options = parser.parse_args()
    plan = yaml.safe_load(options.plan.read_text(encoding="utf-8"))
    folder = options.out / options.plan.stem / f"seed-{options.seed}"
    started = time.monotonic()
    prepare(plan, options.seed, folder)
    train(folder / "initial", folder / "base", plan["base"], folder, options.seed, num_threads=options.jobs)
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(lambda method: make(method, plan, folder, options.seed), plan["methods"]):
            pass  # the first error is raised here
    measure(plan, folder, options.seed)
    print(f"{folder}: {(time.monotonic() - started) / 60:.0f} minutes", flush=True)


def prepare(plan: Mapping[str, Any], seed: int, folder: Path) -> None:
    """Settings of the text, an untrained dense model with a tokenizer of bytes, and held-out text to measure on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(yaml.safe_dump({**plan["data"], "seed": seed}), encoding="utf-8")
    (folder / "held-out.txt").write_text(held_out_text(DataConfig.from_dict(plan["data"], PLANS)), encoding="utf-8")
    initial = folder / "initial"
    if not (initial / "tokenizer.json").exists():
        torch.manual_seed(seed)
        transformers.utils.logging.disable_progress_bar()
        LlamaForCausalLM(LlamaConfig(**plan["model"])).save_pretrained(initial)
        write_byte_tokenizer(initial)


def held_out_text(config: DataConfig) -> str:
    """The beginning of the held-out documents, about PROMPT_BYTES of them."""
    texts: list[str] = []
    num_bytes = 0
    for source in config.sources:
        for text in open_source(source).texts("held_out", config.held_out_share):
            texts.append(text)
            num_bytes += len(text.encode())
            if num_bytes >= PROMPT_BYTES:
                return "\n".join(texts)
    return "\n".join(texts)


def make(method: str, plan: Mapping[str, Any], folder: Path, seed: int) -> None:
    """One method: the base converted, if it is to be, and trained."""
    settings = plan["methods"][method]
    start = folder / "base" / "model"
    if "convert" in settings:
        converted = folder / f"{method}-converted"
        if not converted.exists():
            options = [f"--{name}" if value is True else f"--{name}={value}" for name, value in settings["convert"].items()]
            call([*REFERENCE, "convert", str(start), str(converted), *options, f"--seed={seed}"], num_threads=1)
        start = converted
    training = {**plan["continued"], **settings.get("train", {})}
    train(start, folder / method, training, folder, seed, num_threads=1)


def train(
    start: Path, out: Path, settings: Mapping[str, Any], folder: Path, seed: int, *, num_threads: int
) -> None:
    """Train the model of `start` into `out`; `teacher: true` among the settings distills from the base."""
    if (out / "model").exists():
        return
    command = [*REFERENCE, "train", str(start), str(out), "--data", str(folder / "data.yaml"), "--quiet"]
    if settings.get("teacher"):
        command += ["--teacher", str(folder / "base" / "model")]
    if (out / "checkpoints").exists():
        command.append("--resume")
    else:
        shutil.rmtree(out, ignore_errors=True)  # what was interrupted before its first checkpoint
    values = {**settings, "seed": seed}
    values.pop("teacher", None)
    command += [f"--set={name}={value}" for name, value in values.items()]
    call(command, num_threads=num_threads)


def measure(plan: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Quality and speed of all methods, one after the other on one core: the run folder `measured`."""
    out = folder / "measured"
    command = [str(Path(sys.executable).with_name("modbench")), "run", str(SCENARIO), "--output", str(out)]
    paths = {f"methods.{method}.checkpoint": folder / method / "model" for method in plan["methods"]}
    paths |= {"model.path": folder / "base" / "model", "workload.prompt.text": folder / "held-out.txt"}
    paths |= {"quality.data": folder / "data.yaml", "quality.teacher": folder / "base" / "model"}
    command += [f"--set={name}={path.resolve()}" for name, path in paths.items()]
    if (out / "run.json").exists():
        command.append("--resume")
    call([*command, f"--set=workload.seed={seed}"], num_threads=1)


def call(command: Sequence[str], *, num_threads: int) -> None:
    """Print and run a command; its failure ends the experiment."""
    print(shlex.join(command), flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
