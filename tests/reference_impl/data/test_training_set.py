"""The training rows as a torch data set: workers, ranks, the Trainer, and resuming."""

import itertools
import pickle

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from reference_impl.data import (
    ByteTokenizer,
    DataConfig,
    SourceConfig,
    TrainingSet,
    check_fits,
    held_out_rows,
    training_rows,
)
from reference_impl.errors import DataError

# of machines with fewer cores than workers, and of Python 3.12 and newer about forks beside threads
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
BYTES = ByteTokenizer()
SMALL = {"num_hidden_layers": 2, "vocab_size": 257}


@pytest.fixture
def config(tmp_path):
    for name, num_documents in (("notes", 40), ("tales", 3)):
        (tmp_path / name).mkdir()
        for index in range(num_documents):
            text = " ".join(f"{name} {index} {number}" for number in range(index % 7 + 1))
            (tmp_path / name / f"{index}.txt").write_text(text)
    sources = tuple(SourceConfig("text", path=tmp_path / name) for name in ("notes", "tales"))
    return DataConfig(sources=sources, sequence_length=16, held_out_share=0.0, shuffle_rows=4)


def rows_in(batches):
    return [tuple(ids.tolist()) for batch in batches for ids in batch["input_ids"]]


def expected_rows(config, num_rows):
    return [tuple(row.ids_T.tolist()) for row in itertools.islice(training_rows(config, BYTES), num_rows)]


def loaded(dataset, num_batches, **settings):
    return list(itertools.islice(DataLoader(dataset, batch_size=4, **settings), num_batches))


def test_batches_hold_the_rows_of_the_stream_in_order(config):
    batches = loaded(TrainingSet(config, BYTES), 6)
    assert rows_in(batches) == expected_rows(config, 24)
    assert {name: (tuple(value.shape), value.dtype) for name, value in batches[0].items()} == {
        "input_ids": ((4, 16), torch.int64),
        "position_ids": ((4, 16), torch.int64),
        "labels": ((4, 16), torch.int64),
        "num_bytes": ((4,), torch.int64),
    }


def test_workers_divide_the_rows_without_losing_or_doubling_one(config):
    batches = loaded(TrainingSet(config, BYTES), 4, num_workers=2)
    assert sorted(rows_in(batches)) == sorted(expected_rows(config, 16))


def test_a_worker_that_gets_the_set_pickled_reads_the_same(config):
    dataset = pickle.loads(pickle.dumps(TrainingSet(config, BYTES)))
    assert rows_in(loaded(dataset, 6)) == expected_rows(config, 24)


def test_ranks_of_a_loop_of_ones_own_divide_the_rows(config):
    parts = [rows_in(loaded(TrainingSet(config, BYTES, rank=rank, num_ranks=3), 2)) for rank in range(3)]
    expected = expected_rows(config, 24)
    assert parts == [expected[rank::3] for rank in range(3)]
    ranks = [TrainingSet(config, BYTES, rank=rank, num_ranks=2) for rank in range(2)]
    both = [row for dataset in ranks for row in rows_in(loaded(dataset, 4, num_workers=2))]
    assert sorted(both) == sorted(expected_rows(config, 32))
    with pytest.raises(DataError, match="rank: got 3; expected 0 to 2"):
        TrainingSet(config, BYTES, rank=3, num_ranks=3)


def test_accelerate_divides_the_rows_of_the_whole_stream(config):
    accelerate = pytest.importorskip("accelerate.data_loader", reason="accelerate is not installed")
    parts = []
    for rank in range(2):
        shard = accelerate.IterableDatasetShard(
            TrainingSet(config, BYTES), batch_size=4, num_processes=2, process_index=rank
        )
        parts += rows_in(itertools.islice(DataLoader(shard, batch_size=4), 3))
    assert sorted(parts) == sorted(expected_rows(config, 24))


def test_iterating_again_starts_from_the_beginning(config):
    dataset = TrainingSet(config, BYTES)
    assert rows_in(loaded(dataset, 3)) == rows_in(loaded(dataset, 3))
    assert sum(source.num_rows for source in dataset.progress()) == 12


@pytest.mark.parametrize("num_workers", [0, 2])
def test_progress_counts_rows_bytes_and_passes_per_source(config, num_workers):
    dataset = TrainingSet(config, BYTES)
    rows = list(itertools.islice(training_rows(config, BYTES), 400))
    iterator = iter(DataLoader(dataset, batch_size=4, num_workers=num_workers))
    for _ in range(32):
        next(iterator)
    notes, tales = dataset.progress()
    num_rows = notes.num_rows + tales.num_rows
    assert num_rows == 128 if num_workers == 0 else 128 <= num_rows <= 128 + 8 * 2 * 2
    assert (notes.name, tales.name) == ("notes", "tales")
    assert notes.num_tokens == 16 * notes.num_rows
    assert notes.num_bytes == sum(row.num_bytes for row in rows[:num_rows] if row.source == "notes")
    # 3 documents are about 5 rows, 40 are about 130
    assert tales.num_epochs == max(row.epoch for row in rows[:num_rows] if row.source == "tales") > 5
    assert notes.num_epochs < 2


def test_progress_read_while_a_row_is_counted_has_all_of_it_or_none(config):
    dataset = TrainingSet(config, BYTES)
    seen = []

    class ReadMeanwhile:
        source = "notes"
        epoch = 0

        @property
        def num_bytes(self):  # read after the row is counted and before its bytes are
            seen.append(dataset.progress()[0])
            return 5

    for _ in range(3):
        dataset._count(ReadMeanwhile())
    seen.append(dataset.progress()[0])
    assert [(notes.num_rows, notes.num_bytes) for notes in seen] == [(0, 0), (1, 5), (2, 10), (3, 15)]


def make_trainer(model, config, folder, **settings):
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        per_device_train_batch_size=2,
        max_steps=5,
        learning_rate=0.01,
        save_strategy="steps",
        save_steps=3,
        logging_steps=1,
        **settings,
    )
    rows = [row.features() for row in held_out_rows(config, BYTES, 2)]
    return Trainer(model=model, args=arguments, train_dataset=TrainingSet(config, BYTES), eval_dataset=rows)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_converted, config, tmp_path, num_workers):
    pytest.importorskip("accelerate", reason="Trainer needs accelerate, which is not installed")
    config = DataConfig(config.sources, 16, 0.6, shuffle_rows=4)
    settings = {"dataloader_num_workers": num_workers}
    whole = make_converted(model_overrides=SMALL)
    make_trainer(whole, config, tmp_path / "whole", **settings).train()
    resumed = make_converted(model_overrides=SMALL, router_bias=1.0)
    trainer = make_trainer(resumed, config, tmp_path / "resumed", **settings)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert trainer.state.global_step == 5
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    assert trainer.evaluate()["eval_loss"] > 0


def test_errors_of_sources_come_when_the_set_is_made(config, tmp_path):
    (tmp_path / "notes" / "0.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"0\.txt: byte 0 is not UTF-8"):
        TrainingSet(config, BYTES)
    (tmp_path / "notes" / "0.txt").write_text("mended")
    config = DataConfig(config.sources, held_out_share=1 - 1e-9)
    with pytest.raises(DataError, match="source 'notes': it has no training document"):
        TrainingSet(config, BYTES)


def test_an_error_on_the_way_stops_the_stream(config, tmp_path):
    (tmp_path / "notes" / "9.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"9\.txt: byte 0 is not UTF-8"):
        loaded(TrainingSet(config, BYTES), 100)


def test_rows_and_ids_beyond_the_model_are_refused(config):
    check_fits(config, BYTES, max_positions=16, vocab_size=257)
    with pytest.raises(DataError, match="sequence_length: got 16; expected 2 to 15"):
        check_fits(config, BYTES, max_positions=15, vocab_size=257)
    with pytest.raises(DataError, match="its ids go up to 256; the model knows 0 to 210"):
        check_fits(config, BYTES, max_positions=16, vocab_size=211)


def test_the_default_mixture_runs_anywhere():
    rows = list(itertools.islice(training_rows(DataConfig(shuffle_rows=2, sequence_length=256), BYTES), 64))
    counts = [sum(row.source == name for row in rows) for name in ("stdlib", "docstrings", "repository")]
    assert counts == [pytest.approx(64 * share, abs=1) for share in (0.7, 0.15, 0.15)]
    assert len(held_out_rows(DataConfig(shuffle_rows=2, sequence_length=256), BYTES, 16)) == 16
