"""What the tests of `generate` share: prompts, a recorded run, and how a run is compared.

Reference of each test: the same call with `use_cache=False` (a full forward per token, same seed), the naive oracle on the finished
text, or the stock dense model. None of them reads this project's cache.
"""

import pytest
import torch

from reference_impl import UnsupportedModelError
from reference_impl.naive import naive_forward
from tests.reference_impl.conftest import FAMILY_SETTINGS, FP32_TOLERANCE, random_ids

FAMILIES = sorted(FAMILY_SETTINGS)
OPERATORS = ["threshold", "masked", "kv_only"]  # topk ranks the tokens of a forward: other forwards, other decisions
# every family as the method, and the controls where layers are plain, windowed or capped
CASES = [(family, "threshold") for family in FAMILIES]
CASES += [(family, operator) for family in ("llama", "mistral-window", "gemma2") for operator in OPERATORS[1:]]
# caches of full, of sliding and of both kinds of layers
CACHE_CASES = [(family, operator) for family in ("llama", "mistral-window", "qwen2-window") for operator in OPERATORS]
PROMPT_LENGTH, NEW_TOKENS = 14, 12  # both longer than a sliding window of 8
PADDING = (0, 5, 9)  # in a prefill by chunks of 5 or 9 the last row's first chunk is nothing but padding
GREEDY = {"do_sample": False}
SAMPLED = {"do_sample": True, "temperature": 0.8, "top_k": 40, "top_p": 0.9}
BEAMS = {"do_sample": False, "num_beams": 3}


def left_padded(rows=3, length=PROMPT_LENGTH, seed=3):
    """Prompts (rows, length) and their attention mask."""
    ids, mask = random_ids(rows, length, seed), torch.ones(rows, length, dtype=torch.long)
    for row, padding in enumerate(PADDING[:rows]):
        ids[row, :padding] = 0
        mask[row, :padding] = 0
    return ids, mask


def unpadded(rows=1, length=PROMPT_LENGTH, seed=3):
    ids = random_ids(rows, length, seed)
    return ids, torch.ones_like(ids)


def self_repeating():
    """A prompt that offers candidates for what follows it, and its mask; one row, padded."""
    ids = torch.cat([torch.zeros(1, 4, dtype=torch.long), random_ids(1, 5, seed=6).repeat(1, 2)], dim=1)
    return ids, (ids != 0).long()


def prefilled(model, ids, mask):
    """The cache of a forward over these tokens."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(ids, attention_mask=mask, position_ids=positions).past_key_values


def run(model, ids, mask, **options):
    """`generate` from a fixed seed, with everything that it can record about tokens."""
    torch.manual_seed(23)
    settings = {
        "max_new_tokens": NEW_TOKENS,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
    }
    return model.generate(ids, attention_mask=mask, **{**settings, **options})


def extended(output, mask, length, seed):
    """The text so far and `length` more tokens of a user's, with the mask for both."""
    ids = torch.cat([output.sequences, random_ids(len(output.sequences), length, seed)], dim=1)
    return ids, torch.cat([mask, mask.new_ones(len(mask), ids.shape[1] - mask.shape[1])], dim=1)


def assert_same(actual, expected):
    """Same tokens, and the same scores where each step has a row of them."""
    assert torch.equal(actual.sequences, expected.sequences)
    if "sequences_scores" in expected:
        torch.testing.assert_close(actual.sequences_scores, expected.sequences_scores, atol=FP32_TOLERANCE, rtol=0)
        assert torch.equal(actual.beam_indices, expected.beam_indices)
    else:
        for field in ("scores", "logits"):
            for actual_BV, expected_BV in zip(actual[field], expected[field], strict=True):
                torch.testing.assert_close(actual_BV, expected_BV, atol=FP32_TOLERANCE, rtol=0)


def assert_is_the_oracles(model, output, mask):
    """Each step's raw logits are those of the naive oracle on the finished text without its padding."""
    num_new = len(output.logits)
    logits_BTV = torch.stack(output.logits, dim=1)
    kept = []
    for row, padding in enumerate((mask == 0).sum(dim=1).tolist()):
        expected_TV, keep_masks = naive_forward(model, output.sequences[row, padding:-1])
        torch.testing.assert_close(logits_BTV[row], expected_TV[-num_new:], atol=FP32_TOLERANCE, rtol=0)
        kept += [keep_T.float() for keep_T in keep_masks.values()]
    assert 0 < torch.cat(kept).mean() < 1, "the test needs kept and skipped tokens"


def refusal_of(call, named):
    with pytest.raises(UnsupportedModelError, match=named) as refusal:
        call()
    assert "\n" not in str(refusal.value)
