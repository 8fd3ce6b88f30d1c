"""`modbench estimate`: from what was typed to a printed prediction. Reaches no torch, loads no model, asks no device."""

import json
import sys
from collections.abc import Sequence
from typing import get_args

from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from modbench.analysis.estimate import Budget, Case, estimates, limits
from modbench.analysis.memory_model import MAX_CONTEXT, OVERHEAD_BYTES
from modbench.analysis.payoff import payoffs
from modbench.analysis.prediction import Ceilings
from modbench.devices import MEASURED, Device, measured_device, named_device
from modbench.errors import OptionError
from modbench.estimate_target import Options, Target, read_target
from modbench.report.estimate import EstimatedCase, EstimateReport, estimate_json, render_estimate
from modbench.scenario.models import Dtype, RoutedLayers, RoutedLayersValue
from modbench.scenario.wording import show, suggestion
from modbench.units import MIB, SIZE_TEXT, parse_bytes

MAX_BATCH = 2**20
MAX_NEW_TOKENS = MAX_CONTEXT


def estimate_command(target: str, device: str, memory: str | None, options: Options, is_json: bool) -> None:
    """Predict and print."""
    asked = read_target(target, options)
    memory_bytes = None if memory is None else parse_memory(memory)
    report = EstimateReport(
        asked.name, [_estimated(case, asked, device, memory_bytes) for case in asked.cases], asked.not_predicted
    )
    if is_json:
        sys.stdout.write(json.dumps(estimate_json(report), indent=2) + "\n")
    else:
        render_estimate(report, Console())


def parse_options(
    contexts: str | None,
    batches: str | None,
    keep_ratio: float | None,
    routed_layers: str | None,
    dtype: str | None,
    new_tokens: int | None,
    overrides: Sequence[str],
) -> Options:
    """The options as typed, checked.

    Raises:
        OptionError: one of them cannot be used.
    """
    if keep_ratio is not None and not 0 < keep_ratio <= 1:
        raise OptionError(f"--keep-ratio: got {keep_ratio:g}; expected a number above 0, at most 1")
    if dtype is not None and dtype not in get_args(Dtype):
        raise OptionError(f"--dtype: got {show(dtype)}; {suggestion(dtype, get_args(Dtype))}")
    if new_tokens is not None and not 2 <= new_tokens <= MAX_NEW_TOKENS:
        raise OptionError(f"--new-tokens: got {new_tokens}; expected an integer from 2 to {MAX_NEW_TOKENS}")
    return Options(
        contexts=None if contexts is None else _counts("--context", contexts, MAX_CONTEXT),
        batches=None if batches is None else _counts("--batch", batches, MAX_BATCH),
        keep_ratio=keep_ratio,
        routed_layers=None if routed_layers is None else parse_routed_layers(routed_layers),
        dtype=dtype,
        new_tokens=new_tokens,
        overrides=tuple(overrides),
    )


def parse_memory(text: str) -> int:
    """A size in bytes: `24 GiB`, `512MiB`, or whole bytes."""
    try:
        num_bytes = parse_bytes(int(text) if text.isdecimal() else text)
    except ValueError:
        num_bytes = 0
    if num_bytes < MIB:
        raise OptionError(f"--memory: got {show(text)}; expected {SIZE_TEXT}, 1 MiB at least")
    return num_bytes


def parse_routed_layers(text: str) -> RoutedLayersValue:
    """`interleaved`, indices such as 1,3,5, or a fraction in (0, 1]; a lone integer is an index."""
    value: object = text
    try:
        if text.replace(",", "").isdigit():
            value = [int(item) for item in text.split(",")]
        elif text != "interleaved":
            value = float(text)
        parsed: RoutedLayersValue = TypeAdapter(RoutedLayers).validate_python(value)
    except (ValueError, ValidationError):
        raise OptionError(
            f'--routed-layers: got {show(text)}; expected "interleaved", indices such as 1,3,5, or a fraction such as 0.5'
        ) from None
    return parsed


def _counts(option: str, text: str, maximum: int) -> tuple[int, ...]:
    """Different whole numbers, in the order given."""
    counts = [int(item) if item.strip().isdecimal() else 0 for item in text.split(",")]
    if not all(1 <= count <= maximum for count in counts):
        raise OptionError(f"{option}: got {show(text)}; expected integers from 1 to {maximum}, such as 4096,8192")
    return tuple(dict.fromkeys(counts))


def _estimated(case: Case, target: Target, device_name: str, memory_bytes: int | None) -> EstimatedCase:
    """The scenario's limit holds where no other memory is given; it counts from what a process holds, so nothing is taken of it."""
    device = _device(device_name, case.dtype, target)
    ceilings = Ceilings(device.copy_bytes_per_s, device.matmul_flops_per_s)
    if memory_bytes is None and target.memory_limit_bytes is not None:
        budget = Budget(ceilings, target.memory_limit_bytes, 0.0)
    else:
        budget = Budget(ceilings, memory_bytes or device.memory_bytes, OVERHEAD_BYTES[device.kind])
    return EstimatedCase(case, device, budget, estimates(case, budget), limits(case, budget), payoffs(case, budget))


def _device(name: str, dtype: str, target: Target) -> Device:
    if name == MEASURED:
        return measured_device(dtype, target.device_kind, target.threads)
    return named_device(name, dtype)
