"""The growing caches: what they hold, how they grow, and what beams and cropping do to them."""

import pytest
import torch

from reference_impl.cache_buffers import grown_capacity
from reference_impl.chunked_layer import ChunkedLayer
from reference_impl.errors import UnsupportedModelError
from reference_impl.kv_cache import ModCache, kv_cache_bytes
from reference_impl.ragged_layer import RaggedLayer
from tests.reference_impl.conftest import FP32_TOLERANCE, random_ids

FLOAT_BYTES = 4


def states(rows: int, tokens: int, start: int = 0) -> torch.Tensor:
    """(rows, 2, tokens, 3), each value telling its row and position."""
    position = torch.arange(start, start + tokens, dtype=torch.float32)[None, None, :, None]
    return (position + 1000 * torch.arange(rows)[:, None, None, None]).expand(rows, 2, tokens, 3).clone()


def ragged(lengths: list[int]) -> RaggedLayer:
    layer = RaggedLayer()
    layer.begin(len(lengths))
    for row, length in enumerate(lengths):
        if length:
            block = states(len(lengths), length)[row]
            layer.append(row, block, -block, torch.arange(length) * 2)  # every other seen token was kept
    layer.advance(20)
    return layer


def test_chunked_layer_returns_everything_appended_so_far():
    layer = ChunkedLayer()
    layer.update(states(2, 5), -states(2, 5))
    keys, values = layer.update(states(2, 30, start=5), -states(2, 30, start=5))
    assert torch.equal(keys, states(2, 35))
    assert torch.equal(values, -states(2, 35))


def test_appending_one_token_rarely_moves_the_buffer():
    layer = ChunkedLayer()
    layer.update(states(1, 1600), states(1, 1600))
    moves, address = 0, layer.keys.data_ptr()
    for position in range(1600, 1800):
        layer.update(states(1, 1, position), states(1, 1, position))
        moves += layer.keys.data_ptr() != address
        address = layer.keys.data_ptr()
    assert moves == 2  # capacity 1600 -> 1701 -> 1808


def test_the_first_tokens_get_exactly_the_room_they_need():
    layer = ChunkedLayer()
    layer.update(states(2, 100), states(2, 100))
    assert layer.keys.shape[2] == 100
    assert ragged([7]).rows[0].keys.shape[1] == 7


def test_growth_slack_is_a_sixteenth():
    assert grown_capacity(1600) == 1700
    assert grown_capacity(4) == 12


def test_bytes_are_those_of_kept_tokens_and_slack_is_reported_apart():
    cache = ModCache([None, None], routed_layers=(1,))
    cache.layers[0].update(states(2, 100), states(2, 100))
    cache.layers[1] = ragged([7, 0])
    occupied, allocated = kv_cache_bytes(cache)
    per_token = 2 * 2 * 3 * FLOAT_BYTES  # keys and values, 2 heads x 3
    assert occupied == (200 + 7) * per_token
    assert allocated == (200 + 7) * per_token + 7 * 4  # one int32 index per ragged slot
    cache.layers[0].update(states(2, 1, 100), states(2, 1, 100))
    assert kv_cache_bytes(cache)[1] == (2 * 109 + 7) * per_token + 7 * 4


def test_ragged_layer_counts_seen_tokens_not_kept_ones():
    layer = ragged([3, 0, 5])
    assert layer.get_seq_length() == 20
    assert layer.get_mask_sizes(4) == (24, 0)
    assert layer.lengths() == [3, 0, 5]


def test_crop_forgets_seen_tokens_and_the_kept_ones_among_them():
    layer = ragged([5, 1])  # kept seen indices 0 2 4 6 8 and 0
    layer.crop(-13)  # 7 seen tokens remain: indices 0 to 6
    assert layer.lengths() == [4, 1]
    assert layer.get_seq_length() == 7
    layer.crop(0)
    assert layer.lengths() == [4, 1]
    with pytest.raises(ValueError, match="crop: got 3; expected minus"):
        layer.crop(3)


def test_beams_that_share_a_parent_diverge():
    layer = ragged([2, 4])
    layer.reorder_cache(torch.tensor([1, 1]))
    layer.append(0, states(1, 1)[0], states(1, 1)[0], torch.tensor([0]))
    assert layer.lengths() == [5, 4]
    assert torch.equal(layer.rows[0].keys[:, :4], layer.rows[1].keys[:, :4])


def test_row_selection_by_index_mask_and_repetition():
    layer = ragged([1, 2, 3])
    layer.batch_select_indices(torch.tensor([True, False, True]))
    assert layer.lengths() == [1, 3]
    layer.batch_repeat_interleave(2)
    assert layer.lengths() == [1, 1, 3, 3]


def test_chunked_layer_selects_and_crops_rows():
    layer = ChunkedLayer()
    layer.update(states(3, 6), states(3, 6))
    layer.batch_select_indices(torch.tensor([2, 0]))
    layer.crop(-2)
    keys, _ = layer.update(states(2, 1, 4), states(2, 1, 4))
    assert keys[:, 0, :4, 0].tolist() == [[2000, 2001, 2002, 2003], [0, 1, 2, 3]]
    assert keys.shape[2] == 5


def test_reset_frees_everything():
    cache = ModCache([None, None], routed_layers=(1,))
    cache.layers[0].update(states(1, 4), states(1, 4))
    cache.layers[1] = ragged([2])
    cache.reset()
    assert kv_cache_bytes(cache) == (0, 0)
    assert cache.get_seq_length() == 0


WINDOW = 5


def fed_window(blocks: list[int]) -> ChunkedLayer:
    layer = ChunkedLayer(WINDOW)
    start = 0
    for tokens in blocks:
        block = states(2, tokens, start)
        keys, values = layer.update(block, -block)
        first = max(0, start - (WINDOW - 1))  # what the first of these queries can see
        assert torch.equal(keys, states(2, start + tokens - first, first))
        assert torch.equal(values, -keys)
        start += tokens
        assert layer.get_seq_length() == start
    return layer


@pytest.mark.parametrize("blocks", [[1] * 40, [3, 1, 1, 9, 1, 1, 1, 2, 20, 1], [4, 5], [30], [5, 4, 4, 4, 4, 4]])
def test_a_sliding_layer_returns_what_the_window_reaches_and_mask_sizes_that_fit(blocks):
    layer = fed_window(blocks)
    num_keys, offset = layer.get_mask_sizes(3)
    keys, _ = layer.update(states(2, 3, sum(blocks)), states(2, 3, sum(blocks)))
    assert keys.shape[2] == num_keys
    assert keys[0, 0, 0, 0] == offset


def test_a_sliding_layer_holds_little_more_than_its_window():
    layer = fed_window([1] * 100)
    assert layer.keys.shape[2] <= WINDOW - 1 + 1 + 8
    per_token = 2 * 2 * 2 * 3 * FLOAT_BYTES
    assert layer.occupied_bytes() == (WINDOW - 1) * per_token


def test_a_sliding_layer_crops_only_what_it_still_holds():
    layer = fed_window([20])
    with pytest.raises(UnsupportedModelError, match="reaches tokens that the cache has dropped"):
        layer.crop(-1)
    layer = fed_window([20])
    layer.activate_past_recording()
    for position in range(20, 32):
        layer.update(states(2, 1, position), states(2, 1, position))
    layer.crop(-7)
    keys, _ = layer.update(states(2, 2, 25), states(2, 2, 25))
    assert torch.equal(keys, states(2, 6, 21))


def test_a_ragged_window_drops_by_seen_index():
    layer = RaggedLayer(WINDOW)
    layer.begin(2)
    for position in range(0, 60, 2):  # row 0 keeps every other token, row 1 every sixth
        block = states(2, 1, position)
        layer.append(0, block[0], block[0], torch.tensor([0]))
        if position % 6 == 0:
            layer.append(1, block[1], block[1], torch.tensor([0]))
        layer.advance(1)
        layer.advance(1)
    per_token = 2 * 2 * 3 * FLOAT_BYTES
    assert layer.occupied_bytes() == 2 * per_token  # of the last 4 seen tokens row 0 kept 56 and 58, row 1 none
    assert layer.rows[0].seen_index[: layer.rows[0].length].tolist()[-2:] == [56, 58]
    assert layer.allocated_bytes() < 30 * per_token
    with pytest.raises(UnsupportedModelError, match="crop: a window of 5"):
        layer.crop(-2)


def test_a_ragged_window_gives_the_memory_of_a_long_block_back():
    layer = RaggedLayer(WINDOW)
    layer.begin(1)
    layer.append(0, states(1, 50)[0], states(1, 50)[0], torch.arange(50))
    layer.advance(50)
    assert layer.rows[0].keys.shape[1] == WINDOW - 1
    layer.activate_past_recording()
    layer.append(0, states(1, 6, 50)[0], states(1, 6, 50)[0], torch.arange(6))
    layer.advance(6)
    layer.crop(-5)
    assert layer.rows[0].seen_index[: layer.rows[0].length].tolist() == [46, 47, 48, 49, 50]


@pytest.mark.parametrize("window", [None, WINDOW])
def test_a_cache_cropped_to_nothing_starts_again(window):
    chunked = ChunkedLayer(window)
    chunked.activate_past_recording()
    for start, tokens in ((0, 20), (20, 4)):
        chunked.update(states(2, tokens, start), states(2, tokens, start))
        chunked.crop(0)
    chunked.crop(-24)
    assert chunked.get_seq_length() == 0
    keys, _ = chunked.update(states(2, 3), states(2, 3))
    assert torch.equal(keys, states(2, 3))
    layer = RaggedLayer(window)
    layer.begin(1)
    layer.append(0, states(1, 20)[0], states(1, 20)[0], torch.arange(20))
    layer.advance(20)
    layer.crop(-20)
    assert (layer.get_seq_length(), layer.lengths()) == (0, [0])


@pytest.mark.parametrize("kind", ["chunked", "ragged"])
def test_a_cache_grown_in_inference_mode_can_be_continued_outside(make_converted, kind):
    model = make_converted(routed_layers=(0, 1, 2, 3) if kind == "ragged" else (3,))
    ids = random_ids(2, 12)
    with torch.inference_mode():
        cache = model(ids[:, :8]).past_key_values
        model(ids[:, 8:9], past_key_values=cache)
    with torch.no_grad():
        logits = model(ids[:, 9:], past_key_values=cache).logits
        expected = model(ids, use_cache=False).logits[:, 9:]
    torch.testing.assert_close(logits, expected, atol=FP32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("trained", ["", "v_proj"])
def test_several_forwards_on_one_cache_have_the_gradients_of_one(make_converted, trained):
    model = make_converted(routed_layers=(0, 3))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)
    ids = random_ids(2, 12)
    gradients = []
    for chunks in ([12], [8, 1, 1, 1, 1]):
        model.zero_grad()
        cache = model.new_cache()
        logits = torch.cat([model(part, past_key_values=cache).logits for part in ids.split(chunks, dim=1)], dim=1)
        logits.square().mean().backward()
        gradients.append(
            {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=FP32_TOLERANCE, rtol=1e-4, msg=name)
