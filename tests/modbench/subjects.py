"""Subjects that are wrong, slow or broken on purpose, named by `entry:` in the tests of guard, executor and runner."""

import os
import signal
import sys
import time
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


def out_of_memory(point: dict, options: dict, device: str) -> HfSubject:
    """Asks for more than any machine has."""
    torch.empty(2**60, dtype=torch.uint8)
    raise AssertionError("unreachable")


def raises(point: dict, options: dict, device: str) -> HfSubject:
    raise RuntimeError("a mistake\nover two lines")
