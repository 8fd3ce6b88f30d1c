"""Whether a training can be done as asked, before anything is written. In: what `train` is given. Out: one error, or none."""

import os
from importlib.util import find_spec

import torch
import transformers
from packaging.version import Version
from transformers import PreTrainedModel, TrainingArguments

from reference_impl.data import DataConfig, DocumentTokenizer, check_fits
from reference_impl.errors import TrainingError
from reference_impl.executions import EXECUTIONS
from reference_impl.hf_families import family_of
from reference_impl.mod_model import ModModel
from reference_impl.training.settings import TrainConfig

CPU_RANKS_RESUME_SINCE = Version("5.23")  # 5.17 is wrong and 5.23 is right; those between were not tried
SHARDING = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # what `accelerate launch` sets


def check_packages(config: TrainConfig, has_tensorboard: bool) -> None:
    """Raise TrainingError where a package is missing that this training needs."""
    needed = {"accelerate": True, "peft": config.mode == "lora", "tensorboard": has_tensorboard}
    for package, is_needed in needed.items():
        if is_needed and find_spec(package) is None:
            raise TrainingError(f"{package}: not installed; install modbench[training]")


def check_request(
    model: PreTrainedModel,
    data: DataConfig,
    config: TrainConfig,
    tokenizer: DocumentTokenizer,
    teacher: PreTrainedModel | None,
    objective: str | None,
) -> None:
    """Raise what is wrong with it.

    Raises:
        TrainingError: settings that do not fit each other or the model.
        UnsupportedModelError: a dense model of another family.
        DataError: rows that do not fit the model.
    """
    if isinstance(model, ModModel):
        if data.boundaries == "respect" and not EXECUTIONS[model.routing.config.operator].packs_sequences:
            raise TrainingError(
                f"boundaries: got respect; operator {model.routing.config.operator} takes one sequence per row: expected ignore"
            )
    else:
        family_of(model)
        if config.mode == "router":
            raise TrainingError(f"mode: got router for {type(model).__name__}, which has none; expected full or lora")
        if objective is not None:
            raise TrainingError(
                f"objective: got {objective} for {type(model).__name__}, which routes nothing; leave it out"
            )
    check_fits(data, tokenizer, max_positions=model.config.max_position_embeddings, vocab_size=model.config.vocab_size)
    if config.mode == "full":
        dtypes = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
        if dtypes:
            raise TrainingError(
                f"model: got weights of {dtypes.pop()}, which lose small steps; mode full expects float32: load it with "
                "dtype=torch.float32, and take precision bf16 to compute in bfloat16"
            )
    _check_teacher(model, config, teacher)


def _check_teacher(model: PreTrainedModel, config: TrainConfig, teacher: PreTrainedModel | None) -> None:
    if (teacher is None) == (config.distillation > 0):
        found = "no teacher" if teacher is None else "a teacher"
        raise TrainingError(
            f"distillation: got {config.distillation} and {found}; expected a weight above 0 with a teacher, or neither"
        )
    if teacher is None:
        return
    if teacher is model:
        raise TrainingError("teacher: got the model itself; load the dense model a second time")
    for name in ("vocab_size", "max_position_embeddings"):
        found, own = getattr(teacher.config, name), getattr(model.config, name)
        if found != own if name == "vocab_size" else found < own:
            raise TrainingError(f"teacher: got {name} {found}; the model has {own}: take the dense model it comes from")


def check_devices(arguments: TrainingArguments, config: TrainConfig, is_resumed: bool) -> None:
    """Raise TrainingError for what these processes cannot do.

    One process shares no GPUs, sharded weights take no merging, and older versions do not read what several CPU processes saved.
    """
    if arguments.n_gpu > 1:
        raise TrainingError(
            f"device: got {arguments.n_gpu} GPUs for one process; start one each: torchrun --nproc-per-node {arguments.n_gpu} -m "
            "reference_impl train …, or set CUDA_VISIBLE_DEVICES=0"
        )
    is_sharded = any(os.environ.get(name, "").lower() == "true" for name in SHARDING)
    if is_sharded and config.mode == "lora":
        raise TrainingError(
            "mode: got lora under FSDP or DeepSpeed; it is merged into whole weights: use torchrun alone"
        )
    is_older = Version(transformers.__version__) < CPU_RANKS_RESUME_SINCE
    if is_resumed and is_older and arguments.world_size > 1 and arguments.device.type == "cpu":
        raise TrainingError(
            f"--resume: transformers {transformers.__version__} does not read the optimizer of several CPU processes; use "
            f"{CPU_RANKS_RESUME_SINCE} or newer, or one process"
        )
