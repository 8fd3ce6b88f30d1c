"""One rank of the trainings in test_data_parallel.py: `torchrun -m ... FOLDER`, where FOLDER holds `texts`."""

import json
import os
import sys
from pathlib import Path

import torch
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from reference_impl.data import DataConfig, SourceConfig
from reference_impl.errors import TrainingError
from reference_impl.training.mod_trainer import ModTrainer
from tests.reference_impl.conftest import random_ids
from tests.reference_impl.training.conftest import BUDGET, run, small_converted, small_dense, weights

PLAIN = {"objective": "none", "skipped_gradient": "straight_through"}
SETTINGS = {"steps": 3, "distillation": 0.5, "accumulation": 2, "save_every": 1, "learning_rate": 0.01}


def data_of(folder: Path) -> DataConfig:
    sources = (SourceConfig("text", path=str(folder / "texts")),)
    return DataConfig(sources=sources, sequence_length=32, held_out_share=0.2, shuffle_rows=4)


def lose_a_loss(rank: int) -> None:
    """The loss of the second step is a NaN on the last rank alone."""
    begin = ModTrainer._check_loss

    def check(trainer: ModTrainer, loss: torch.Tensor) -> None:
        is_lost = trainer.state.global_step == 1 and rank == 1
        begin(trainer, loss * float("nan") if is_lost else loss)

    ModTrainer._check_loss = check


def sharded_gradients(rank: int) -> dict[str, float]:
    """How far gradients of sharded weights (FSDP2) are from those of one process; the last rank keeps no token."""
    ids = [random_ids(2, 16, seed) for seed in range(2)]
    masks = [{1: keep} for keep in (ids[0] % 2 == 0, torch.zeros_like(ids[1], dtype=torch.bool))]
    settings = {"objective": "keep_budget", "target_keep_ratio": 0.25}

    def backward(model: PreTrainedModel, part: int, share: float) -> None:
        with model.routing.replay(masks[part]):
            (share * model(ids[part], labels=ids[part], use_cache=False).loss).backward()

    whole = small_converted(**settings).train()
    for part in range(2):
        backward(whole, part, 0.5)
    model = small_converted(**settings).train()
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    backward(model, rank, 1.0)
    found = {name: one.grad.full_tensor() for name, one in model.named_parameters()}
    return {name: (found[name] - one.grad).abs().max().item() for name, one in whole.named_parameters()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank, data = int(os.environ["RANK"]), data_of(folder)
    for name, settings in (("plain", PLAIN), ("budget", {**BUDGET, "budget_anneal": 0.5})):
        model = run(small_converted(**settings), data, folder / name, **SETTINGS, call={"teacher": small_dense()})
        torch.save(weights(model), folder / f"{name}-{rank}.pt")
    if rank == 0:  # cut short: what a killed training leaves behind
        for path in (folder / "budget" / "checkpoints" / "checkpoint-2" / "scheduler.pt", folder / "budget" / "model"):
            path.rename(f"{path}.away")
    torch.distributed.barrier()
    call = {"teacher": small_dense(), "is_resumed": True}
    try:
        model = run(small_converted(**{**BUDGET, "budget_anneal": 0.5}), data, folder / "budget", **SETTINGS, call=call)
        torch.save(weights(model), folder / f"resumed-{rank}.pt")
    except TrainingError as error:
        (folder / f"resumed-{rank}.json").write_text(json.dumps(str(error)))
    (folder / f"sharded-{rank}.json").write_text(json.dumps(sharded_gradients(rank)))
    lose_a_loss(rank)
    try:
        run(small_converted(**BUDGET), data, folder / "lost", steps=3)
    except TrainingError as error:
        (folder / f"lost-{rank}.json").write_text(json.dumps(str(error)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
