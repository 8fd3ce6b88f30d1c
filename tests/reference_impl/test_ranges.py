"""Named ranges: heard by a hook, silent and harmless without one."""

from contextlib import contextmanager

import pytest
import torch

from reference_impl.ranges import ATTENTION, CACHE_APPEND, MLP, PACK, ROUTER, SCATTER, named_range, traced
from tests.reference_impl.conftest import random_ids


class Listener:
    """Notes every range with those around it."""

    def __init__(self):
        self.open, self.heard = [], []

    @contextmanager
    def __call__(self, name):
        self.heard.append((*self.open, name))
        self.open.append(name)
        yield
        self.open.pop()


def forwards(model, listener=None):
    """Logits of a prefill and of one decode step, and what was heard in each."""
    ids, cache = random_ids(2, 13), model.new_cache()
    logits, heard = [], []
    for start, end in ((0, 12), (12, 13)):
        with torch.no_grad():
            logits.append(model(ids[:, start:end], past_key_values=cache).logits)
        if listener is not None:
            heard.append(list(listener.heard))
            listener.heard.clear()
    return logits, heard


def test_without_a_hook_every_range_is_the_same_nothing():
    assert named_range(ROUTER) is named_range(PACK)


def test_a_hook_is_gone_after_its_block_however_that_ends():
    nothing = named_range(ROUTER)
    with traced(Listener()):
        assert named_range(ROUTER) is not nothing
    assert named_range(ROUTER) is nothing
    with pytest.raises(ZeroDivisionError), traced(Listener()):
        raise ZeroDivisionError
    assert named_range(ROUTER) is nothing


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("threshold", {ROUTER, PACK, ATTENTION, MLP, SCATTER, CACHE_APPEND}),
        ("topk", {ROUTER, PACK, ATTENTION, MLP, SCATTER, CACHE_APPEND}),
        ("kv_only", {ROUTER, PACK, ATTENTION, MLP, SCATTER, CACHE_APPEND}),
        ("masked", {ROUTER, ATTENTION, MLP, SCATTER, CACHE_APPEND}),
    ],
)
def test_a_routed_layer_names_its_parts_in_both_phases(make_converted, operator, expected):
    model = make_converted(operator=operator, routed_layers=(0, 1, 2, 3))
    with model.routing.replay({layer: torch.arange(26).reshape(2, 13) % 2 == 0 for layer in range(4)}):
        listener = Listener()
        with traced(listener):
            logits, (prefill, decode) = forwards(model, listener)
        plain, _ = forwards(model)
    assert {path[-1] for path in prefill} == {path[-1] for path in decode} == expected
    for traced_logits, plain_logits in zip(logits, plain, strict=True):
        assert torch.equal(traced_logits, plain_logits)


def test_keys_are_appended_inside_attention_and_once_per_layer(make_converted):
    listener = Listener()
    with traced(listener):
        _, (prefill, _) = forwards(make_converted(), listener)
    inside = [path for path in prefill if path[-1] == CACHE_APPEND]
    assert sorted(inside) == [(ATTENTION, CACHE_APPEND)] * 2 + [(CACHE_APPEND,)] * 2, "dense layers name no attention"
    assert max(len(path) for path in prefill) == 2
