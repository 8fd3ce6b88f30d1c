"""Subjects that are wrong, slow or broken on purpose, named by `entry:` in the tests of guard, executor and runner."""

import errno
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from modbench.methods.base import DECODE_EQUALS_FULL
from modbench.methods.hf_model import HfSubject, build_model
from modbench.plan import PointWork


def sound(point: dict, options: dict, device: str) -> HfSubject:
    """The dense model, brought by a user."""
    return HfSubject(build_model(PointWork.model_validate(point), torch.device(device)))


class LeakingSubject(HfSubject):
    """Rows see their neighbours."""

    def prefill(self, input_ids, attention_mask=None, all_logits=False):
        logits, state = super().prefill(input_ids, attention_mask, all_logits)
        return logits + 0.01 * logits.mean(dim=0, keepdim=True), state


class ForgetfulSubject(HfSubject):
    """Decode ignores the cache, as the look-alikes that recompute routing at decode do."""

    def decode(self, token_ids, state, attention_mask=None):
        return super().decode(token_ids, self.new_cache(), attention_mask)


class PaddingBlindSubject(HfSubject):
    """Padding is attended to."""

    def prefill(self, input_ids, attention_mask=None, all_logits=False):
        return super().prefill(input_ids, None, all_logits)


class ProphetSubject(HfSubject):
    """A token's logits depend on later tokens."""

    def prefill(self, input_ids, attention_mask=None, all_logits=False):
        logits, state = super().prefill(input_ids, attention_mask, all_logits)
        return logits + 0.01 * logits[:, -1:], state


class DeclaringSubject(ForgetfulSubject):
    """Wrong at decode, and says so."""

    declared = {DECODE_EQUALS_FULL: "decode starts anew at every token"}  # noqa: RUF012


def _build(subject_class):
    def factory(point: dict, options: dict, device: str):
        return subject_class(build_model(PointWork.model_validate(point), torch.device(device)))

    return factory


leaking = _build(LeakingSubject)
forgetful = _build(ForgetfulSubject)
padding_blind = _build(PaddingBlindSubject)
prophet = _build(ProphetSubject)
declaring = _build(DeclaringSubject)


def not_a_subject(point: dict, options: dict, device: str) -> object:
    return object()


def hangs_with_a_child(point: dict, options: dict, device: str) -> HfSubject:
    """Starts a process of its own, tells its pid, and never returns."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    Path(options["pid_file"]).write_text(str(pid))
    time.sleep(600)
    raise AssertionError("unreachable")


def leaves_a_daemon(point: dict, options: dict, device: str) -> HfSubject:
    """Forks twice into a session of its own, deaf to SIGTERM; then returns, hangs, or dies."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            Path(options["pid_file"]).write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    while not (Path(options["pid_file"]).exists() and Path(options["pid_file"]).read_text()):
        time.sleep(0.01)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options["then"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if options["then"] == "hang":
        time.sleep(600)
    return sound(point, options, device)


def dies(point: dict, options: dict, device: str) -> HfSubject:
    os.kill(os.getpid(), getattr(signal, options["signal"]))
    raise AssertionError("unreachable")


def exits(point: dict, options: dict, device: str) -> HfSubject:
    os._exit(3)


def chatters(point: dict, options: dict, device: str) -> HfSubject:
    """Prints what looks like the protocol of the launch server."""
    sys.stdout.write("exit 0\npid 1\nready\n")
    sys.stdout.flush()
    os.write(1, b"exit 7\n")
    return sound(point, options, device)


def floods(point: dict, options: dict, device: str) -> HfSubject:
    """Prints megabytes that are no text, and closes its output."""
    os.write(1, bytes(range(256)) * 20_000)
    sys.stdout.close()
    os.close(1)
    return sound(point, options, device)


def scribbles(point: dict, options: dict, device: str) -> HfSubject:
    """Writes the launch server's own words into every open file, and takes its input."""
    for descriptor in range(256):
        with suppress(OSError):
            os.write(descriptor, b"exit 0 0\npid 1\n\xff\xfe\n")
    assert sys.stdin.read() == ""
    return sound(point, options, device)


def leaves_a_result(point: dict, options: dict, device: str) -> HfSubject:
    """Puts something else in the place of its result, and ends."""
    Path(options["path"]).write_bytes(bytes.fromhex(options["hex"]))
    os._exit(0)


def hoards(point: dict, options: dict, device: str) -> HfSubject:
    """Takes memory in pieces until there is none, but never more than `at_most_bytes`; then dies or returns."""
    kept, step_bytes = [], options["step_bytes"]
    for _ in range(options["at_most_bytes"] // step_bytes):
        kept.append(bytearray(step_bytes) if options["by"] == "python" else torch.ones(step_bytes, dtype=torch.uint8))
    if "signal" in options:
        os.kill(os.getpid(), getattr(signal, options["signal"]))
    return sound(point, options, device)


def writes_to_a_full_disk(point: dict, options: dict, device: str) -> HfSubject:
    raise OSError(errno.ENOSPC, "No space left on device")


def out_of_memory(point: dict, options: dict, device: str) -> HfSubject:
    """Asks for more than any machine has."""
    torch.empty(2**60, dtype=torch.uint8)
    raise AssertionError("unreachable")


def raises(point: dict, options: dict, device: str) -> HfSubject:
    raise RuntimeError("a mistake\nover two lines")


def holds(point: dict, options: dict, device: str) -> HfSubject:
    """Runs out of memory where the prompt has more tokens than `options["tokens"]`, all rows together."""
    if point["workload"]["context"] * point["workload"]["batch"] > options["tokens"]:
        raise torch.OutOfMemoryError("out of memory: the prompt is longer than this subject holds")
    return sound(point, options, device)


class DiesWhenCounted(HfSubject):
    """Fails in the sample that comes after the timed ones: those are `samples` and one warm-up."""

    num_samples = 3

    def prefill(self, input_ids, attention_mask=None, all_logits=False):
        if self.num_samples == 0:
            self.fail()
        self.num_samples -= 1
        return super().prefill(input_ids, attention_mask, all_logits)


def dies_when_counted(point: dict, options: dict, device: str) -> DiesWhenCounted:
    subject = DiesWhenCounted(build_model(PointWork.model_validate(point), torch.device(device)))

    def fail() -> None:
        if "signal" in options:
            os.kill(os.getpid(), getattr(signal, options["signal"]))
        raise RuntimeError("the profiler has no memory left")

    subject.fail = fail
    return subject
