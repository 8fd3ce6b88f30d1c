"""How often are verdicts wrong? Many comparisons of two git revisions that differ by nothing, or by 5 or 10 % of real work.

Run with: .venv/bin/python -m benchmarks.verdict_error_rates OUTPUT.json --extra-layers 0 --comparisons 200 --load
Nothing is injected into numbers: the script makes a repository with an `entry:` method, a model of 20 equal layers, and one commit
per amount of extra work, a model of 21 or 22. The two revisions are checked out into worktrees and measured side by side, as
`modbench check --against` does it; only the family differs: each comparison of prefill and decode is a gate of its own, as if
it had been started alone. With `--load`, a process per core works and rests in turn meanwhile (bursts of 0.1 to 2 s).
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from modbench.analysis import judge_family
from modbench.analysis.verdict import DEFAULT_TOLERANCE
from modbench.code_under_test import Repository
from modbench.environments import Installing, Mode
from modbench.host import fingerprint, host_facts
from modbench.plan import LOOKS, PAIRS_PER_QUAD
from modbench.provenance import git_state
from modbench.report.progress import PlainProgress
from modbench.revision import other_revision
from modbench.scenario import load_scenario
from modbench.side_by_side import Bench
from modbench.side_session import SideSession, open_benches

LAYERS = 20
ENTRY = '''\
"""A dense model with a number of layers too many."""

import torch

from modbench.methods.dense import Dense
from modbench.plan import PointWork

EXTRA_LAYERS = {extra}


def build(point, options, device):
    work = PointWork.model_validate(point)
    layers = work.geometry.num_hidden_layers + EXTRA_LAYERS
    geometry = work.geometry.model_copy(update={{"num_hidden_layers": layers}})
    return Dense({{"kv_cache": "chunked"}}).build(work.model_copy(update={{"geometry": geometry}}), torch.device(device))
'''
SCENARIO = """\
name: error-rates
model:
  geometry:
    model_type: llama
    hidden_size: 128
    intermediate_size: 512
    num_hidden_layers: {layers}
    num_attention_heads: 4
    num_key_value_heads: 4
    vocab_size: 256
    max_position_embeddings: 512
methods:
  dense: {{}}
  subject: {{method: entry, entry: "subject:build"}}
workload: {{context: 96, batch: 1, new_tokens: 7, prompt: {{synthetic: true}}}}
measure: {{launches: auto, samples: 5, warmup: 2, threads: 1, device: cpu}}
matrix: {{workload.context: {contexts}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--extra-layers", type=int, default=0, help="of the candidate, beside the 20 of the base")
    parser.add_argument("--comparisons", type=int, default=200, help="prefill and decode are two")
    parser.add_argument("--load", action="store_true", help="keep the cores busy about half of the time")
    options = parser.parse_args()
    began = time.time()
    with tempfile.TemporaryDirectory() as folder, _load(options.load):
        found, load_averages = measure(Path(folder), options.extra_layers, options.comparisons // 2)
    facts = {
        "extra_layers": options.extra_layers,
        "injected_ratio": options.extra_layers / LAYERS,
        "is_loaded": options.load,
        "tolerance": DEFAULT_TOLERANCE,
        "machine": {**host_facts(), "fingerprint": fingerprint(host_facts())},
        **git_state(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "load_averages": load_averages,
        "duration_s": round(time.time() - began),
        "comparisons": found,
    }
    options.output.write_text(json.dumps(facts, indent=1) + "\n")
    Console().print(summary(facts), markup=False, highlight=False)


def measure(folder: Path, extra_layers: int, num_cells: int) -> tuple[list[dict[str, Any]], list[float]]:
    """Every comparison with its pairs and its verdict, and the machine's load average (1 min) after each quad."""
    repository = _repository(folder / "subject", extra_layers)
    (folder / "scenario.yaml").write_text(SCENARIO.format(layers=LAYERS, contexts=list(range(96, 96 + num_cells))))
    loaded = load_scenario(folder / "scenario.yaml")
    installing = Installing(Mode.SHARED, None, folder / "install.log")
    with other_revision(repository, "base", installing) as base, other_revision(repository, "main", installing) as main:
        session = SideSession((base, main), folder / "runs", "", True, PlainProgress(Console(stderr=True)))
        with open_benches(session, [loaded], ["subject"]) as (bench,):
            judged: dict[tuple[int, str, str], dict[str, Any]] = {}
            done, load_averages = 0, []
            for look in LOOKS:
                bench.announce(look // PAIRS_PER_QUAD - done)
                for quad in range(done, look // PAIRS_PER_QUAD):
                    bench.run_quad(quad)
                    load_averages.append(round(os.getloadavg()[0], 2))
                done = look // PAIRS_PER_QUAD
                judged |= _judge_each_cell(bench)
    return list(judged.values()), load_averages


def _judge_each_cell(bench: Bench) -> dict[tuple[int, str, str], dict[str, Any]]:
    """The verdicts of every cell in a family of its own; cells that are decided get no further look."""
    found = bench.comparisons()
    judged: dict[tuple[int, str, str], dict[str, Any]] = {}
    undecided = set()
    for cell in sorted({index for index, _, _ in found}):
        own = {key: values for key, values in found.items() if key[0] == cell}
        for (key, values), judgement in zip(own.items(), judge_family(own.values(), DEFAULT_TOLERANCE), strict=True):
            if not judgement.is_final:
                undecided.add(cell)
            judged[key] = {
                "cell": cell,
                "metric": key[2],
                "verdict": judgement.verdict.value,
                "num_pairs": judgement.num_pairs,
                "sigma_ratio": round(statistics.stdev(values), 5),
                "ratio": round(math.exp(statistics.median(values)), 5),
                "ln_ratios": [round(value, 5) for value in values],
            }
    bench.open_series = [(index, method) for index, method in bench.open_series if index in undecided]
    return judged


def summary(facts: dict[str, Any]) -> str:
    """Counts per verdict, also of the quiet comparisons alone."""
    load = facts["load_averages"]
    lines = [f"injected {facts['injected_ratio']:+.0%}; load average {min(load):.1f} to {max(load):.1f}"]
    groups = {"all": facts["comparisons"]}
    groups |= {metric: [item for item in groups["all"] if item["metric"] == metric] for metric in ("ttft_s", "tpot_s")}
    groups["pair sigma up to 4 %"] = [item for item in groups["all"] if item["sigma_ratio"] <= 0.04]
    for name, items in groups.items():
        counts = dict.fromkeys(("slower", "faster", "same", "inconclusive"), 0)
        for item in items:
            counts[item["verdict"]] += 1
        text = f"{name}: {len(items)} comparisons: " + ", ".join(f"{count} {word}" for word, count in counts.items())
        if items:
            sigma = statistics.median(item["sigma_ratio"] for item in items)
            pairs = statistics.mean(item["num_pairs"] for item in items)
            text += f"; median sigma {sigma:.1%}, {pairs:.1f} pairs on average"
        lines.append(text)
    return "\n".join(lines)


def _repository(root: Path, extra_layers: int) -> Repository:
    """Two revisions: `base`, and `main` with the extra layers."""
    root.mkdir()
    _git(root, "init", "--quiet", "--initial-branch", "main")
    for extra, message in ((0, "20 layers"), (extra_layers, f"{extra_layers} layers more")):
        (root / "subject.py").write_text(ENTRY.format(extra=extra))
        _git(root, "add", "subject.py")
        _git(root, "commit", "--quiet", "--allow-empty", "--message", message)
        if message == "20 layers":
            _git(root, "tag", "base")
    return Repository(root.resolve(), (Path(),))


def _git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True)


@contextmanager
def _load(is_wanted: bool) -> Iterator[None]:
    workers: Sequence[multiprocessing.Process] = []
    if is_wanted:
        workers = [multiprocessing.Process(target=_work_and_rest, args=(seed,)) for seed in range(os.cpu_count() or 1)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()


def _work_and_rest(seed: int) -> None:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # wherever the measured process is pinned to
    chooser = random.Random(seed)
    data = bytearray(8 * 2**20)
    while True:
        end = time.monotonic() + chooser.uniform(0.1, 2.0)
        while time.monotonic() < end:
            bytes(data)  # a copy: work for the memory as well
        time.sleep(chooser.uniform(0.1, 2.0))


if __name__ == "__main__":
    main()
