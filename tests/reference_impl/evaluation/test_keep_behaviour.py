"""Which tokens are kept: groups of tokens whose kept share is known."""

import json

import pytest
import torch

from reference_impl.data import ByteTokenizer, Row
from reference_impl.evaluation import EvaluationSettings, evaluate, keep_behaviour
from reference_impl.evaluation.bits_per_byte import score_rows
from tests.reference_impl.conftest import dense_model
from tests.reference_impl.evaluation.scripted import constant, row

TEXT = b"def f(x):\n    return x\n"
BYTES = {"vocab_size": 257, "max_position_embeddings": 64}


def text_row(text=TEXT, starts=(0,)):
    return row(list(text), starts=starts)


def behaviour_of(rows, keep_LN, probabilities):
    scores = score_rows(constant(probabilities), rows).scores
    return keep_behaviour(rows, scores, (1, 3), keep_LN, ByteTokenizer())


def even():
    return [1 / 257] * 257


def test_kinds_and_positions_have_the_share_that_was_kept():
    rows = [text_row(), text_row(starts=(0, 10))]
    ids_N = torch.cat([each.ids_T for each in rows])
    is_break_N = ids_N == 10
    position_N = torch.cat([each.features()["position_ids"] for each in rows])
    found = behaviour_of(rows, torch.stack([is_break_N, position_N < 2]), even())
    by_kind = {group.name: group for group in found.by_kind}
    assert {name: group.keep_ratio[1] for name, group in by_kind.items()} == {
        name: float(name == "line break") for name in by_kind
    }
    assert (
        sum(group.num_tokens for group in found.by_kind) == len(ids_N) == sum(g.num_tokens for g in found.by_position)
    )
    assert [(group.name, group.keep_ratio[3]) for group in found.by_position[:3]] == [("0", 1), ("1", 1), ("2 to 3", 0)]
    assert found.by_position[0].num_tokens == 3  # a sequence that begins within a row begins at position 0
    assert found.by_position[-1].name == "16 to 22"
    assert by_kind["line break"].mean_bits == pytest.approx(torch.tensor(257.0).log2().item())


def test_surprisal_is_of_the_token_and_of_the_next_one():
    rows = [text_row()]
    is_x_T = rows[0].ids_T == ord("x")
    before_x_T = torch.cat([is_x_T[1:], torch.tensor([False])])
    likely = [0.5 / 256] * 257
    likely[ord("x")] = 0.5  # one bit; everything else takes nine
    found = behaviour_of(rows, torch.stack([is_x_T, before_x_T]), likely)
    assert sum(group.num_tokens for group in found.by_surprisal) == len(TEXT) - 1  # the first one has no surprisal
    assert sum(group.num_tokens for group in found.by_next_surprisal) == len(TEXT) - 1  # nothing follows the last one
    for groups, layer in ((found.by_surprisal, 1), (found.by_next_surprisal, 3)):
        assert groups[0].keep_ratio[layer] == pytest.approx(2 / 3)  # both x are among the three least surprising
        assert [group.keep_ratio[layer] for group in groups[1:]] == [0] * (len(groups) - 1)
        assert groups[0].mean_bits == pytest.approx((1 + 1 + 9) / 3)
        assert groups[-1].mean_bits == pytest.approx(9)


def test_layers_that_choose_alike_keep_more_together_than_independent_ones():
    keep_T = torch.arange(len(TEXT)) % 2 == 0
    found = behaviour_of([text_row()], torch.stack([keep_T, keep_T]), even())
    share = float(keep_T.double().mean())
    (pair,) = found.layer_pairs
    assert (pair.first, pair.second) == (1, 3)
    assert (pair.kept_by_both_ratio, pair.if_independent_ratio) == pytest.approx((share, share**2))
    assert found.num_layers_kept_ratio == pytest.approx((1 - share, 0, share))


@pytest.mark.parametrize("operator", ["threshold", "topk"])
def test_an_evaluation_sorts_out_the_decisions_of_its_own_forwards(make_converted, operator):
    model = make_converted(operator=operator, model_overrides=BYTES)
    rows = [text_row(TEXT), text_row(TEXT, starts=(0, 10)), text_row(TEXT[:9])]
    found = evaluate(model, ByteTokenizer(), rows, EvaluationSettings(16, ("bits_per_byte",)))
    for groups in (found.keep_behaviour.by_kind, found.keep_behaviour.by_position):
        for layer, ratio in found.held_out.keep_ratio.items():
            num_kept = sum(group.num_tokens * group.keep_ratio[layer] for group in groups)
            assert num_kept / (2 * len(TEXT) + 9) == pytest.approx(ratio)
    # token by token, of the first row, computed anew
    with torch.no_grad(), model.eval().routing.as_decoded():
        model(rows[0].ids_T[None], use_cache=False)
    decisions = dict(model.routing.last)
    alone = evaluate(model, ByteTokenizer(), rows[:1], EvaluationSettings(16, ("bits_per_byte",))).keep_behaviour
    is_break_T = rows[0].ids_T == 10
    (breaks,) = [group for group in alone.by_kind if group.name == "line break"]
    for layer, decision in decisions.items():
        assert breaks.keep_ratio[layer] == pytest.approx(decision.keep_BT[0, is_break_T].double().mean().item())
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_dense_model_keeps_everything_and_says_nothing():
    settings = EvaluationSettings(16, ("bits_per_byte",))
    assert evaluate(dense_model(**BYTES), ByteTokenizer(), [text_row()], settings).keep_behaviour is None


def test_a_row_of_one_token_has_no_surprisal():
    rows = [text_row(TEXT), Row(torch.tensor([97]), (0,), torch.tensor([1]), "test")]
    found = behaviour_of(rows, torch.ones(2, len(TEXT) + 1, dtype=torch.bool), even())
    assert sum(group.num_tokens for group in found.by_surprisal) == len(TEXT) - 1
