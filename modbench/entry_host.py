"""An `entry:` under another interpreter: imports the factory, builds the subject, times it, answers by docs/engines.md.

In: a request on standard input. Out: one line of JSON on standard output; a traceback and exit code 1 where the entry fails.

Run by its path, by an interpreter that need not have modbench, pydantic or transformers: it needs Python 3.10, torch and the
standard library. The clocks are those of every launch: timing.py and its like are read from beside this file.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

OLDEST_PYTHON = (3, 10)
PROFILING = Path(__file__).with_name("profiling")
REQUIRED = ("prefill", "decode", "kv_cache_bytes")


def main() -> None:
    """Answer one request."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the entry prints goes to the log
    sys.excepthook = _tell_in_one_line
    if sys.version_info < OLDEST_PYTHON:
        _refuse(channel, f"got Python {sys.version.split()[0]}; expected 3.10 or newer")
    try:
        import torch
    except ImportError as error:
        _refuse(channel, f"{sys.executable} has no torch ({error}); install it there")
    request = json.loads(sys.stdin.readline())
    point, settings, device = request["point"], request["point"]["settings"], torch.device(request["device"])
    torch.set_num_threads(point["threads"])
    _load("torch_memory").limit_device(device, request["device_limit_bytes"])
    module_name, factory_name = settings["entry"].split(":")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError) as error:
        _refuse(channel, f"entry: {settings['entry']}: {error}; can {sys.executable} import it from {Path.cwd()}?")
    subject = factory(point, dict(settings["options"]), str(device))
    missing = [name for name in REQUIRED if not callable(getattr(subject, name, None))]
    if missing:
        _refuse(channel, f"entry: {settings['entry']} returned a {type(subject).__name__} without {', '.join(missing)}")
    with torch.inference_mode():
        answer = _measure(request, subject, _read_tokens(request["tokens"], device))
    answer["environment"] = {"python": sys.version.split()[0], "torch": str(torch.__version__)}
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


def _measure(request: dict[str, Any], subject: Any, ids_BT: Any) -> dict[str, Any]:
    """Warm up, then take the timed samples, as modbench/launch.py does."""
    timing, torch_memory, process_memory = _load("timing"), _load("torch_memory"), _load("process_memory")
    workload, device = request["point"]["workload"], ids_BT.device
    prompt_BT, continuation_BT = ids_BT[:, : workload["context"]], ids_BT[:, workload["context"] :]
    num_warmups, is_stationary = timing.warm_up(
        lambda: timing.phase_durations(timing.take_sample(subject, prompt_BT, continuation_BT, lambda phase: None)[0]),
        request["warmup"],
        at_least_s=timing.CUDA_WARMUP_S if device.type == "cuda" else 0.0,
    )
    has_own_peak = process_memory.reset_peak()
    torch_memory.reset_peak(device)
    meter, samples = _load("contamination").ContaminationMeter(), []
    for _ in range(request["num_samples"]):
        sample, state = timing.take_sample(subject, prompt_BT, continuation_BT, lambda phase: None)
        samples.append(sample)
        occupied, allocated = subject.kv_cache_bytes(state)
        del state
    contamination = meter.stop()
    flags = contamination.flags(is_cpu_bound=device.type == "cpu")
    flags += ["warm-up ended before the samples were stationary"] if is_stationary is False else []
    return {
        "protocol_version": 1,
        "samples": _raw(samples),
        "num_prompt_tokens": prompt_BT.numel(),
        "num_output_tokens": ids_BT.shape[0] * (continuation_BT.shape[1] + 1),
        "metrics": {
            "kv_cache_bytes": occupied,
            "kv_cache_allocated_bytes": allocated,
            "weights_bytes": _optional(subject, "weights_bytes", None),
            "peak_rss_bytes": process_memory.peak_rss_bytes() if has_own_peak else None,
            **{f"peak_{name}": value for name, value in torch_memory.allocator_peaks(device).items()},
            "num_warmups": num_warmups,
            "involuntary_switches_per_s": contamination.involuntary_switches_per_s,
            "wall_cpu_ratio": contamination.wall_cpu_ratio,
        },
        "keep_ratio": _optional(subject, "keep_ratio", {}),
        "attention_path": getattr(subject, "attention_path", None),
        "flags": flags,
    }


def _raw(samples: list[Any]) -> dict[str, Any]:
    phases: dict[str, Callable[[Any], Any]] = {"prefill": lambda one: one.prefill, "decode": lambda one: one.decode}
    raw: dict[str, Any] = {
        "ttft_s": [sample.ttft_s for sample in samples],
        "tpot_s": [sample.tpot_s for sample in samples],
        "itl_s": [gap for sample in samples for gap in sample.itl_s],
        "num_involuntary_switches": [
            sample.prefill.num_involuntary_switches + sample.decode.num_involuntary_switches for sample in samples
        ],
    }
    for name, phase in phases.items():
        raw[f"{name}_cpu_s"] = [phase(sample).cpu_s for sample in samples]
        raw[f"{name}_device_s"] = [phase(sample).device_s for sample in samples if phase(sample).device_s is not None]
    return raw


def _read_tokens(tokens: dict[str, Any], device: Any) -> Any:
    """(B, T) int64 on the device."""
    import torch

    ids = torch.frombuffer(bytearray(Path(tokens["path"]).read_bytes()), dtype=torch.int32)
    return ids.reshape(tokens["shape"]).long().to(device)


def _optional(subject: Any, name: str, absent: Any) -> Any:
    """What an optional method of the subject gives."""
    method = getattr(subject, name, None)
    return method() if callable(method) else absent


def _load(name: str) -> Any:
    """A file of modbench/profiling by its path, so that nothing else of modbench or its environment can be imported here."""
    known = f"modbench_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, PROFILING / f"{name}.py")
        assert spec is not None and spec.loader is not None, "a file of ours can be loaded"
        sys.modules[known] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
        spec.loader.exec_module(sys.modules[known])
    return sys.modules[known]


def _refuse(channel: Any, error: str) -> NoReturn:
    """Answer that this cannot be measured here, and end."""
    line = "".join(char if char.isprintable() else " " for char in error)[:300]
    channel.write(json.dumps({"protocol_version": 1, "status": "unsupported", "error": line}) + "\n")
    channel.flush()
    sys.exit(0)


def _tell_in_one_line(kind: Any, error: BaseException, trace: Any) -> None:
    """The traceback, and a last line that modbench can quote."""
    traceback.print_exception(kind, error, trace)
    sys.stderr.write(f"{kind.__name__}: {' '.join(str(error).split())}\n")


if __name__ == "__main__":
    main()
