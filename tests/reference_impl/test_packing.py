"""Keep mask <-> packed tokens."""

import torch

from reference_impl.packing import Packing

KEEP = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
HIDDEN = torch.arange(18.0).view(3, 3, 2)


def test_pack_takes_kept_tokens_row_after_row():
    packing = Packing.from_mask(KEEP)
    assert packing.lengths == [2, 0, 1]
    assert packing.pack(HIDDEN).tolist() == [[[0, 1], [4, 5], [14, 15]]]
    assert packing.pack_scalar(HIDDEN[..., 0]).flatten().tolist() == [0, 4, 14]


def test_scatter_writes_kept_tokens_and_leaves_its_input_alone():
    before = HIDDEN.clone()
    out = Packing.from_mask(KEEP).scatter(HIDDEN, -torch.ones(1, 3, 2))
    assert torch.equal(HIDDEN, before)
    assert torch.equal(out[~KEEP], HIDDEN[~KEEP])
    assert (out[KEEP] == -1).all()


def test_shared_and_per_row_position_tables_pack_alike():
    packing = Packing.from_mask(KEEP)
    table = torch.arange(3.0).view(1, 3, 1)
    assert packing.pack_positions(table).flatten().tolist() == [0, 2, 1]
    assert torch.equal(packing.pack_positions(table.expand(3, 3, 1)), packing.pack_positions(table))


def test_a_whole_block_is_not_moved():
    packing = Packing.from_mask(torch.ones(2, 3, dtype=torch.bool))
    assert packing.pack(HIDDEN) is HIDDEN
    assert packing.num_kept == 6


def test_token_index_rows_count_within_the_forward():
    rows = Packing.from_mask(KEEP).token_index_rows(torch.device("cpu"))
    assert [row.tolist() for row in rows] == [[0, 2], [], [1]]
