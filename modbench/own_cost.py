"""What the profiler costs a decode step that it measures: steps with and without it, interleaved in one process.

In: a device. Out: an `OwnCost`. What is switched on and off is all that runs beside the model between two tokens: each routed
layer's decision is kept and, on a GPU, the driver is read in the background. The model is small, so that the share of a step is
an upper bound for larger ones.

Shapes: B batch, T tokens.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from modbench import machine_cache
from modbench.analysis.statistics import median, ratio_interval
from modbench.checks import OwnCost
from modbench.methods.hf_model import HfSubject, hf_config
from modbench.presets import PRESETS
from modbench.profiling.gpu_watch import GpuWatch, pynvml
from modbench.profiling.perturbation import measure_perturbation
from reference_impl import ModConfig, convert

PRESET = "bench-8x512"
PROMPT_TOKENS = 256
NUM_PAIRS = {"cuda": 20, "cpu": 1000}
BLOCK_S = {"cuda": 0.4, "cpu": 0.0}  # several readings of a GPU; on a CPU nothing runs in the background: single steps


@torch.inference_mode()
def measure_own_cost(
    device: torch.device, num_pairs: int | None = None, block_s: float | None = None, nvml: Any = pynvml
) -> OwnCost:
    """Decode a small routed model with and without the profiler, in the order A B B A; pairs and blocks are the device's."""
    num_pairs = NUM_PAIRS[device.type] if num_pairs is None else num_pairs
    block_s = BLOCK_S[device.type] if block_s is None else block_s
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(hf_config(PRESETS[PRESET])).eval()
        subject = HfSubject(convert(model, ModConfig(threshold_p=0.5)))
        ids_BT = torch.randint(0, PRESETS[PRESET].vocab_size, (1, PROMPT_TOKENS))
    routing = subject.model.routing
    _, state = subject.prefill(ids_BT)

    def step() -> None:
        subject.decode(ids_BT[:, :1], state)[:, -1].argmax(dim=-1).tolist()

    @contextmanager
    def profiled() -> Iterator[None]:
        routing.history = []
        try:
            with GpuWatch(device, None, nvml):
                yield
        finally:
            routing.history = None

    routing.history = None
    steps_per_block = _steps_in(step, block_s)
    found = measure_perturbation(step, profiled, num_pairs, steps_per_block)
    differences = [math.log(with_s / without_s) for without_s, with_s in found.pairs]
    interval = ratio_interval(differences)
    return OwnCost(
        model=PRESET,
        step_s=found.step_s,
        added_ratio=math.expm1(median(differences)),
        interval=None if interval is None else (math.expm1(interval[0]), math.expm1(interval[1])),
        num_pairs=len(differences),
    )


def known_own_cost(
    device: torch.device, threads: int, environment: dict[str, Any], is_remeasured: bool
) -> OwnCost | None:
    """As it was measured on this machine before, or, where `is_remeasured`, measured now and kept; None where neither."""
    key = [environment["machine"]["fingerprint"], environment["versions"]["torch"], str(device), threads]
    if is_remeasured:
        cost = measure_own_cost(device)
        machine_cache.store("own_cost", key, cost.model_dump(mode="json"))
        return cost
    kept = machine_cache.load("own_cost", key)
    return None if kept is None else OwnCost.model_validate(kept)


def _steps_in(step: Callable[[], object], duration_s: float) -> int:
    """How many steps take `duration_s`, from the last of three."""
    for _ in range(3):
        start_s = time.perf_counter()
        step()  # returns when its token is on the host
        step_s = time.perf_counter() - start_s
    return max(1, math.ceil(duration_s / step_s))
