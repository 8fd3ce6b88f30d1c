"""Keep mask <-> packed tokens."""

import pytest
import torch

from reference_impl.packing import Packing, has_restart, packed_sequence_lengths, positions_of_sequences

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


def test_lengths_are_those_of_sequences_where_rows_hold_several():
    packing = Packing.from_mask(KEEP, sequence_lengths=[1, 2, 3, 2, 1])
    assert packing.lengths == [1, 1, 0, 1, 0]
    assert packing.pack(HIDDEN).tolist() == [[[0, 1], [4, 5], [14, 15]]]
    whole = Packing.from_mask(torch.ones(1, 4, dtype=torch.bool), sequence_lengths=[3, 1])
    assert whole.lengths == [3, 1]
    assert whole.flat_index_P.tolist() == [0, 1, 2, 3], "whole sequences are not whole rows"


@pytest.mark.parametrize(
    ("positions", "at_restarts", "at_jumps"),
    [
        ([[0, 1, 2, 3]], None, None),
        ([[0, 1, 0, 1]], [2, 2], [2, 2]),
        ([[0, 1, 5, 6]], None, [2, 2]),
        ([[0, 0, 1, 2]], [1, 3], [1, 3]),
        ([[0, 1, 2, 0], [0, 0, 1, 2]], [3, 1, 1, 3], [3, 1, 1, 3]),
        ([[5]], None, None),
    ],
)
def test_sequences_start_where_positions_restart_or_jump(positions, at_restarts, at_jumps):
    ids = torch.tensor(positions)
    assert packed_sequence_lengths(ids, len(positions), starts_at_jumps=False) == at_restarts
    assert packed_sequence_lengths(ids, len(positions), starts_at_jumps=True) == at_jumps


def test_positions_shared_by_rows_start_a_sequence_in_each():
    assert packed_sequence_lengths(torch.tensor([[0, 1, 0]]), 2, starts_at_jumps=False) == [2, 1, 2, 1]


def test_positions_follow_from_cumulative_lengths():
    assert positions_of_sequences(torch.tensor([0, 2, 2, 5], dtype=torch.int32), 5).tolist() == [[0, 1, 0, 1, 2]]


def test_padding_does_not_restart_a_sequence():
    mask = torch.tensor([[0, 0, 1, 1]])
    assert not has_restart(torch.tensor([[1, 1, 0, 1]]), mask)
    assert has_restart(torch.tensor([[1, 1, 1, 0]]), mask)
