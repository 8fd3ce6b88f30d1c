"""One stream out of several sources: shares, seeds, passes and the held-out rows."""

import itertools
import random
from collections import Counter

import pytest

from reference_impl.data import ByteTokenizer, DataConfig, SourceConfig, held_out_rows, training_rows
from reference_impl.data.mixture import BLOCK_ROWS, schedule, shuffled
from reference_impl.errors import DataError

BYTES = ByteTokenizer()


@pytest.fixture
def folders(tmp_path):
    """Three sources of very different documents: 200 of 20 bytes, 10 of about 1 KB, 1 of 9 KB."""
    texts = {
        "short": [f"note {index:04} of many\n" for index in range(200)],
        "long": [f"chapter {index}: " + " ".join(map(str, range(index, index + 250))) for index in range(10)],
        "single": [" ".join(map(str, range(5000, 6800)))],
    }
    for name, documents in texts.items():
        (tmp_path / name).mkdir()
        for index, text in enumerate(documents):
            (tmp_path / name / f"{index:04}.txt").write_text(text)
    return tmp_path


def config_of(folder, weights, **settings):
    sources = tuple(SourceConfig("text", path=folder / name, weight=weight) for name, weight in weights.items())
    return DataConfig(sources=sources, **{"sequence_length": 32, "held_out_share": 0.0, "shuffle_rows": 8, **settings})


def rows_of(config, num_rows):
    return list(itertools.islice(training_rows(config, BYTES), num_rows))


def contents(rows):
    return [tuple(row.ids_T.tolist()) for row in rows]


def split_documents(ids):
    return "".join(map(chr, ids)).split(chr(BYTES.end_of_document))


WEIGHTS = {"short": 5, "long": 3, "single": 2}


def test_weights_are_shares_of_tokens_however_long_the_documents_are(folders):
    rows = rows_of(config_of(folders, WEIGHTS), 10 * BLOCK_ROWS)
    counts = Counter(row.source for row in rows)
    for name, weight in WEIGHTS.items():
        assert counts[name] == pytest.approx(len(rows) * weight / 10, abs=1)
    assert {len(row.ids_T) for row in rows} == {32}


def test_every_block_of_rows_has_the_shares_and_no_rhythm():
    weights = [0.7, 0.2, 0.1]
    indices = list(itertools.islice(schedule(weights, random.Random(1)), 50 * BLOCK_ROWS))
    for end in range(BLOCK_ROWS, len(indices) + 1, BLOCK_ROWS):
        for index, weight in enumerate(weights):
            assert indices[:end].count(index) == pytest.approx(end * weight, abs=1)
    # a worker or rank that sees every second row sees the same shares
    assert indices[::2].count(0) / len(indices[::2]) == pytest.approx(0.7, abs=0.02)


def test_equal_weights_do_not_alternate():
    indices = list(itertools.islice(schedule([1, 1], random.Random(1)), 20 * BLOCK_ROWS))
    assert indices[::2].count(0) == pytest.approx(len(indices) / 4, rel=0.1)
    assert indices.count(0) == len(indices) / 2


def test_the_same_seed_is_the_same_stream_and_another_is_another(folders):
    streams = [contents(rows_of(config_of(folders, WEIGHTS, seed=seed), 200)) for seed in (1, 1, 2)]
    assert streams[0] == streams[1] != streams[2]


def test_what_a_source_yields_does_not_depend_on_the_others(folders):
    alone = rows_of(config_of(folders, {"short": 1}), 60)
    mixed = [row for row in rows_of(config_of(folders, WEIGHTS), 200) if row.source == "short"]
    assert contents(mixed[:60]) == contents(alone)


def test_a_source_that_ends_starts_again_in_another_order(folders):
    config = config_of(folders, {"short": 1}, shuffle_rows=1)
    num_tokens = sum(len(path.read_bytes()) + 1 for path in (folders / "short").iterdir())
    rows = rows_of(config, 2 * num_tokens // 32 + 1)
    ids = [id_ for row in rows for id_ in row.ids_T.tolist()]
    first, second = ids[:num_tokens], ids[num_tokens : 2 * num_tokens]
    assert first != second
    assert sorted(split_documents(first)) == sorted(split_documents(second))  # each has every document once
    assert [rows[0].epoch, rows[num_tokens // 32 - 1].epoch, rows[num_tokens // 32 + 1].epoch] == [0, 0, 1]


def test_a_source_of_weight_0_is_not_opened(folders):
    config = config_of(folders, {"short": 1, "nowhere": 0})
    assert {row.source for row in rows_of(config, 20)} == {"short"}


def test_shuffling_holds_back_as_many_rows_as_asked_and_loses_none():
    taken = []
    rows = (taken.append(index) or index for index in range(1000))
    found = shuffled(rows, 10, random.Random(0))
    first = next(found)
    assert len(taken) == 11
    everything = [first, *found]
    assert sorted(everything) == list(range(1000)) != everything
    assert list(shuffled(iter(range(5)), 1, random.Random(0))) == [0, 1, 2, 3, 4]
    assert sorted(shuffled(iter(range(3)), 10, random.Random(0))) == [0, 1, 2]
    assert list(shuffled(iter(()), 4, random.Random(0))) == []


def documents_in(rows):
    """The documents that are there as a whole, of those in `short`."""
    found = split_documents([id_ for row in rows for id_ in row.ids_T.tolist()])
    return {text for text in found if text.startswith("note") and text.endswith("\n")}


def test_held_out_rows_are_the_same_whatever_the_seed_and_never_trained_on(folders):
    configs = [config_of(folders, {"short": 1}, held_out_share=0.3, seed=seed, shuffle_rows=1) for seed in (1, 2)]
    held_out = [held_out_rows(config, BYTES, 30) for config in configs]
    assert contents(held_out[0]) == contents(held_out[1])
    trained = documents_in(rows_of(configs[0], 400))
    assert len(trained) > 100
    assert len(documents_in(held_out[0])) > 10
    assert not trained & documents_in(held_out[0])


def test_held_out_rows_have_the_shares_of_training_and_no_document_twice(folders):
    config = config_of(folders, {"short": 3, "long": 1}, held_out_share=0.5)
    rows = held_out_rows(config, BYTES, 48)
    assert Counter(row.source for row in rows)["short"] == pytest.approx(36, abs=6)  # within a block they are drawn
    assert max(Counter(contents(rows)).values()) == 1


def test_asking_for_more_held_out_rows_than_there_are_says_how_many_there_are(folders):
    config = config_of(folders, {"short": 1}, held_out_share=0.3)
    with pytest.raises(DataError, match=r"source 'short': held-out documents end after (\d+) of 4000") as caught:
        held_out_rows(config, BYTES, 4000)
    num_rows = int(str(caught.value).split(" end after ")[1].split()[0])
    assert len(held_out_rows(config, BYTES, num_rows)) == num_rows


def test_an_empty_held_out_set_is_refused(folders):
    with pytest.raises(DataError, match="held_out_share: got 0"):
        held_out_rows(config_of(folders, {"short": 1}), BYTES, 1)
    with pytest.raises(DataError, match="source 'single': none of its documents are held out ones"):
        held_out_rows(config_of(folders, {"single": 1}, held_out_share=1e-9), BYTES, 1)
    with pytest.raises(DataError, match="num_rows: got 0"):
        held_out_rows(config_of(folders, {"short": 1}, held_out_share=0.3), BYTES, 0)


def test_a_source_without_training_documents_is_refused(folders):
    config = config_of(folders, {"single": 1}, held_out_share=1 - 1e-9)
    with pytest.raises(DataError, match="source 'single': none of its documents are training ones"):
        rows_of(config, 1)
