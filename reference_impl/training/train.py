"""train: a model learns from rows of text, is logged, saved and resumed. In: a model, settings, a folder. Out: the trained model.

On transformers' Trainer, so that several processes come from `torchrun` and `accelerate launch`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from reference_impl.config import ModConfig
from reference_impl.data import DataConfig, DocumentTokenizer, TrainingSet, held_out_rows
from reference_impl.fingerprint import versions, weights_hash
from reference_impl.mod_model import ModModel
from reference_impl.objective import OBJECTIVES, Objective
from reference_impl.training.callbacks import (
    RESUMED,
    JsonLog,
    NoCheckpointAtEnd,
    ShareOfTraining,
    TensorBoardLog,
    append_line,
    summary_writer,
)
from reference_impl.training.folder import CHECKPOINT_PREFIX, SETTINGS, TrainingFolder
from reference_impl.training.mod_trainer import ModTrainer
from reference_impl.training.own_objective import own_objective
from reference_impl.training.progress import ProgressLines
from reference_impl.training.request import check_devices, check_packages, check_request
from reference_impl.training.settings import TrainConfig

SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}  # in transformers' words
LORA_SCALE = 2  # lora_alpha / rank


@dataclass(frozen=True)
class _Run:
    """One call of `train`: what was asked for, and where it goes."""

    config: TrainConfig
    arguments: TrainingArguments
    folder: TrainingFolder
    console: Console | None

    def tell(self, line: str) -> None:
        """Print a line, on the first process."""
        if self.console is not None and self.arguments.process_index == 0:
            self.console.print(Text(line), soft_wrap=True)


def train(
    model: PreTrainedModel,
    data: DataConfig,
    config: TrainConfig,
    output: Path,
    *,
    tokenizer: DocumentTokenizer,
    teacher: PreTrainedModel | None = None,
    objective: str | None = None,
    is_resumed: bool = False,
    has_tensorboard: bool = False,
    copied: Sequence[Path] = (),
    command: Sequence[str] = (),
    console: Console | None = None,
) -> PreTrainedModel:
    """Train a converted or a dense model, in place.

    Args:
        model: converted, or a stock model of a supported family, which is then trained as it is.
        data, config: the text, whose rows are read as the training goes on; and how.
        output: a folder that is new or empty (folder.py says what comes into it).
        tokenizer: of the model.
        teacher: a model of the same vocabulary, for `config.distillation`; it is frozen.
        objective: in the place of the model's own: a name of `OBJECTIVES`, `none`, or `module:factory` (own_objective.py), which
            runs code.
        is_resumed: go on with the training in `output` from its newest whole checkpoint; all else must be as it was.
        has_tensorboard: write TensorBoard's files too.
        copied, command: files that go into the model's folder as they are, such as tokenizer.json; what is recorded as the command.
        console: where progress is shown; None shows none.

    Returns:
        The trained model, in evaluation mode, as it stands in `output`/model. After `lora` its adapters are merged.

    Raises:
        TrainingError: the training cannot begin, go on or be resumed as asked, or a loss is no number.
        UnsupportedModelError: a dense model of another family.
        ModConfigError: the objective does not fit the model's operator.
        DataError: the text cannot be read, or its rows do not fit the model.
    """
    check_packages(config, has_tensorboard)
    check_request(model, data, config, tokenizer, teacher, objective)
    modification, made = _objective(model, objective)
    folder = TrainingFolder(output)
    run = _Run(config, _arguments(config, folder, isinstance(model, ModModel)), folder, console)
    check_devices(run.arguments, config, is_resumed)
    settings = {
        **_settings(model, modification, objective, config),
        **_text_settings(data, tokenizer),
        "teacher": None if teacher is None else _identity(teacher),
        "num_processes": run.arguments.world_size,
    }
    rows, held_out = TrainingSet(data, tokenizer), _held_out(data, tokenizer, config)
    checkpoint = _open(run, settings, command, is_resumed)
    if folder.model.exists():
        run.tell(f"{folder.model} is there: this training has ended")
        return type(model).from_pretrained(folder.model, dtype="auto", local_files_only=True).eval()
    writer = summary_writer(folder.tensorboard, _step_of(checkpoint) + 1) if has_tensorboard else None
    _set_objective(model, modification, made)
    return _train(run, model, teacher, rows, held_out, checkpoint, writer, copied)


def _set_objective(model: PreTrainedModel, modification: ModConfig | None, made: Objective | None) -> None:
    if isinstance(model, ModModel) and modification is not None:
        model.routing.set_config(modification)
        model.config.modification = modification.to_dict()
        model.routing.objective = made


def _text_settings(data: DataConfig, tokenizer: DocumentTokenizer) -> dict[str, Any]:
    named = {"vocab_size": tokenizer.vocab_size, "end_of_document": tokenizer.end_of_document}
    return {"data": data.to_dict(), "tokenizer": named}


def _held_out(data: DataConfig, tokenizer: DocumentTokenizer, config: TrainConfig) -> list[dict[str, Any]]:
    if not data.held_out_share:
        return []
    return [row.features() for row in held_out_rows(data, tokenizer, config.evaluate_rows)]


def _train(
    run: _Run,
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    rows: TrainingSet,
    held_out: list[dict[str, Any]],
    checkpoint: Path | None,
    writer: Any,
    copied: Sequence[Path],
) -> PreTrainedModel:
    """Everything is checked and the folder is there."""
    config, folder = run.config, run.folder
    stood = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    use_cache = model.config.use_cache
    trained = _for_mode(model, config)
    trainer = ModTrainer(
        config,
        teacher=teacher,
        failures=folder.path,
        model=trained,
        args=run.arguments,
        train_dataset=rows,
        eval_dataset=held_out or None,
    )
    trainer.remove_callback(PrinterCallback)
    progress = ProgressLines(run.console) if run.console is not None else None
    for callback in _callbacks(trainer, folder, writer, progress):
        trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        is_evaluated = config.evaluate_every and config.steps % config.evaluate_every == 0
        if held_out and not is_evaluated:
            trainer.evaluate()
    finally:
        if progress is not None:
            progress.stop()
        if writer is not None:
            writer.close()
    found = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    model = found.merge_and_unload() if config.mode == "lora" else found
    vars(model).pop("forward", None)  # under autocast, accelerate puts the class's own back as an attribute
    model.config.use_cache = use_cache  # the Trainer switches it off
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stood[name])
    folder.write_model(lambda path: _save(trainer, model, path), copied, run.arguments.process_index == 0)
    trainer.accelerator.wait_for_everyone()
    if isinstance(model, ModModel):
        model.routing.set_config(model.routing.config)  # a user's own objective was of this training
    return model.eval()


def _objective(model: PreTrainedModel, objective: str | None) -> tuple[ModConfig | None, Objective | None]:
    """The settings of a converted model with the objective asked for, and the function that it is."""
    if not isinstance(model, ModModel):
        return None, None
    config = model.routing.config
    if objective is None:
        return config, OBJECTIVES.get(config.objective)
    if ":" in objective:
        return replace(config, objective="none"), own_objective(objective)
    named: Any = objective  # replace says which names there are
    return replace(config, objective=named), OBJECTIVES.get(objective)


def _settings(
    model: PreTrainedModel, modification: ModConfig | None, objective: str | None, config: TrainConfig
) -> dict[str, Any]:
    """How which model is trained, as training.json has it."""
    if objective is None and modification is not None:
        objective = modification.objective
    return {
        "training": config.to_dict(),
        "modification": None if modification is None else modification.to_dict(),
        "objective": objective,
        "model": _identity(model),
    }


def _identity(model: PreTrainedModel) -> dict[str, str]:
    return {"class": type(model).__name__, "weights": weights_hash(model)}


def _open(run: _Run, settings: dict[str, Any], command: Sequence[str], is_resumed: bool) -> Path | None:
    """The folder made, or found to hold this training; the checkpoint to go on from."""
    from accelerate import PartialState  # optional; request.py checks that it is there

    folder, is_first = run.folder, run.arguments.process_index == 0
    how = {"versions": versions(), "command": list(command)}
    if not is_resumed:
        if is_first:
            folder.begin({SETTINGS: settings, **how})
        PartialState().wait_for_everyone()
        return None
    folder.check_same(settings)
    if folder.model.exists():
        return None
    checkpoint = folder.newest_checkpoint(run.arguments.world_size, run.tell)
    PartialState().wait_for_everyone()  # before one of them writes
    step = _step_of(checkpoint)
    run.tell(f"resumed at step {step} of {run.config.steps}" + ("" if checkpoint else ", for there is no checkpoint"))
    if is_first:
        append_line(folder.log, {RESUMED: True, "step": step, **how})
    return checkpoint


def _step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))


def _arguments(config: TrainConfig, folder: TrainingFolder, is_routed: bool) -> TrainingArguments:
    """The same in transformers' words."""
    known = {field.name for field in fields(TrainingArguments)}
    # its name since transformers 5.23
    recompute = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return TrainingArguments(
        output_dir=str(folder.checkpoints),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=SCHEDULERS[config.schedule],
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_gradient_norm,
        bf16=config.precision == "bf16",
        seed=config.seed,
        dataloader_num_workers=config.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=config.log_every,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or config.steps,
        save_total_limit=config.keep_checkpoints,
        eval_strategy="steps" if config.evaluate_every else "no",
        eval_steps=config.evaluate_every or None,
        prediction_loss_only=True,
        use_cpu=not torch.cuda.is_available(),
        # a layer that keeps nothing gives its weights no gradient
        ddp_find_unused_parameters=True if is_routed else None,
        report_to="none",
        disable_tqdm=True,
        **{recompute: config.gradient_checkpointing, f"{recompute}_kwargs": {"use_reentrant": False}},
    )


def _for_mode(model: PreTrainedModel, config: TrainConfig) -> Any:
    """The model with what is to be trained set to train; in `lora` with adapters around it."""
    if config.mode == "router":
        routers = {
            id(one) for layer in model.routed_layers for one in model.get_decoder().layers[layer].router.parameters()
        }
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in routers)
    if config.mode != "lora":
        return model
    from peft import LoraConfig, get_peft_model  # optional; request.py checks that it is there

    set_seed(config.seed)
    adapters = LoraConfig(
        r=config.lora_rank,
        lora_alpha=LORA_SCALE * config.lora_rank,
        target_modules="all-linear",
        modules_to_save=["router"] if isinstance(model, ModModel) else None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, adapters)


def _callbacks(
    trainer: ModTrainer, folder: TrainingFolder, writer: Any, progress: ProgressLines | None
) -> list[TrainerCallback]:
    found: list[TrainerCallback] = [NoCheckpointAtEnd(), JsonLog(folder.log, trainer.routing_meter)]
    if trainer.routing is not None:
        found.append(ShareOfTraining(trainer.routing))
    if writer is not None:
        found.append(TensorBoardLog(writer, trainer.routing_meter))
    if progress is not None:
        found.append(progress)
    return found


def _save(trainer: ModTrainer, model: PreTrainedModel, path: Path) -> None:
    """The whole model, from however many processes it lies on."""
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(path))
        (path / "training_args.bin").unlink(missing_ok=True)
    elif trainer.args.process_index == 0:
        model.save_pretrained(path)
