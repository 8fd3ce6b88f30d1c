"""The same-work guard finds each kind of wrong work, and passes the right ones."""

import pytest
import torch

from modbench.guard import check_identities
from modbench.methods import METHODS
from tests.modbench.jobs import FAMILY_MICRO, SETTINGS, make_point

CPU = torch.device("cpu")
DECLARED = {
    "dense": {"dense_at_p0"},
    "skip_layers": {"dense_at_p0"},
    "topk": {"decode_equals_full", "causal"},
    "threshold": set(),
    "masked": set(),
    "kv_only": set(),
}


def guard(kind, settings=None, **changes):
    settings = settings or SETTINGS[kind]
    return check_identities(METHODS[kind](settings), make_point(settings, **changes), CPU)


def guard_entry(factory):
    return guard("entry", {"entry": f"tests.modbench.subjects:{factory}", "options": {}})


@pytest.mark.parametrize("kind", DECLARED)
def test_our_methods_pass_every_identity_they_do_not_declare_away(kind):
    outcome = guard(kind)
    assert {name for name, result in outcome.identities.items() if result == "declared"} == DECLARED[kind]
    assert "failed" not in outcome.identities.values(), outcome.detail
    assert set(outcome.declared) == DECLARED[kind]


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_a_windowed_family_passes_every_identity(family):
    outcome = guard("threshold", geometry=FAMILY_MICRO[family])
    assert set(outcome.identities.values()) == {"passed"}, outcome.detail


@pytest.mark.parametrize("kind", ["threshold", "kv_only"])
def test_bfloat16_passes_at_its_own_tolerance(kind):
    outcome = guard(kind, dtype="bfloat16")
    assert "failed" not in outcome.identities.values(), outcome.detail
    assert "1e-01 allowed" in outcome.detail


@pytest.mark.parametrize(
    ("factory", "identity"),
    [
        ("leaking", "batch_equals_single"),
        ("forgetful", "decode_equals_full"),
        ("padding_blind", "padded_equals_unpadded"),
        ("prophet", "causal"),
    ],
)
def test_each_wrong_subject_fails_its_identity(factory, identity):
    assert guard_entry(factory).identities[identity] == "failed"


def test_a_sound_user_subject_passes():
    assert set(guard_entry("sound").identities.values()) == {"passed", "declared"}


def test_a_subject_that_declares_its_break_is_not_called_wrong():
    outcome = guard_entry("declaring")
    assert outcome.identities["decode_equals_full"] == "declared"
    assert outcome.declared["decode_equals_full"] == "decode starts anew at every token"


def test_topk_without_its_declaration_would_be_caught(monkeypatch):
    monkeypatch.setattr(METHODS["topk"], "declared", {})
    outcome = guard("topk")
    assert outcome.identities["causal"] == "failed"


def test_gates_in_the_wrong_place_fail_against_dense(monkeypatch):
    from modbench.methods.threshold import Threshold

    monkeypatch.setattr(Threshold, "build_unit", Threshold.build)
    assert guard("threshold").identities["dense_at_p0"] == "failed"
