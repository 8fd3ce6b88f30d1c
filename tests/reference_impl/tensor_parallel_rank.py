"""One process of test_distributed.py: runs saved models as one rank of several and writes what came out.

In: folders that each hold a `dense` and a `converted` model. Out: `rank<n>.pt` in each, and `saved`, written by all ranks together.
Started as `python -m torch.distributed.run --nproc-per-node 2 -m tests.reference_impl.tensor_parallel_rank FOLDER...`.
"""

import faulthandler
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import distributed
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.distributed import DistributedConfig

from reference_impl import ModConfig, convert, kv_cache_bytes, load
from tests.reference_impl.conftest import random_ids

RANK_TIMEOUT_S = 150.0  # a rank that waits for another shows where it stands, and ends by itself
NEW_TOKENS = 6


def forward(model: PreTrainedModel) -> dict[str, Any]:
    """Logits and the decisions behind them."""
    logits = model(random_ids(3, 24)).logits
    return {"logits": logits, "keep_masks": {layer: last.keep_BT for layer, last in model.routing.last.items()}}


def outcome(model: PreTrainedModel) -> dict[str, Any]:
    """What may not depend on the number of processes, and the bytes of this process's KV cache."""
    with torch.no_grad():  # transformers shards inference and training in different ways
        inference = forward(model)
    training = forward(model)
    training["logits"].square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    ids = random_ids(3, 24)
    generated = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
    )
    return {
        "inference": inference,
        "training": {**training, "logits": training["logits"].detach()},
        "gradients": {name: g.full_tensor() if isinstance(g, DTensor) else g for name, g in gradients.items()},
        "tokens": generated.sequences,
        "kv_cache_bytes": kv_cache_bytes(generated.past_key_values)[0],
    }


def load_converted(folder: Path, **kwargs: Any) -> PreTrainedModel:
    return load(folder / "converted", attn_implementation=attention_of(folder), **kwargs).eval()


def attention_of(folder: Path) -> str:
    """Transformers 5.17 would pick sdpa where logits are capped, which drops the cap."""
    return "eager" if getattr(AutoConfig.from_pretrained(folder / "dense"), "attn_logit_softcapping", None) else "sdpa"


def converted_here(folder: Path) -> PreTrainedModel:
    """The dense model, sharded, then converted: each rank draws routers from a seed of its own."""
    torch.manual_seed(distributed.get_rank())
    model = AutoModelForCausalLM.from_pretrained(
        folder / "dense",
        attn_implementation=attention_of(folder),
        distributed_config=DistributedConfig(tp_plan="auto"),
    ).eval()
    settings = AutoConfig.from_pretrained(folder / "converted").modification
    convert(model, ModConfig.from_dict(settings))
    return model


def take_saved_routers(model: PreTrainedModel, folder: Path) -> None:
    weights = load_file(folder / "converted" / "model.safetensors")
    model.load_state_dict({name: weights[name] for name in weights if ".router." in name}, strict=False)


def main(folders: list[Path]) -> None:
    faulthandler.dump_traceback_later(RANK_TIMEOUT_S, exit=True)
    torch.set_num_threads(1)
    for folder in folders:
        model = load_converted(folder, tp_plan="auto")
        result = outcome(model)
        model.save_pretrained(folder / "saved", is_main_process=distributed.get_rank() == 0)
        with torch.no_grad():
            model = converted_here(folder)
            result["drawn_routers"] = {name: p.clone() for name, p in model.named_parameters() if ".router." in name}
            take_saved_routers(model, folder)
            result["converted_here"] = forward(model)
        torch.save(result, folder / f"rank{distributed.get_rank()}.pt")
    distributed.barrier()  # no rank takes the group down while another is still in its last exchange
    distributed.destroy_process_group()


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
