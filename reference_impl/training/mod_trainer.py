"""transformers' Trainer with what Mixture-of-Depths models need: learning rates of routers, distillation, a stop at lost numbers.

In: a model and rows of tokens. Out: a trained model, checkpoints, and logs with the language-model loss and the objective apart.

Shapes: B batch, T tokens, V vocabulary, M labelled tokens.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from reference_impl.errors import TrainingError
from reference_impl.mod_model import IGNORED_LABEL
from reference_impl.objective import BUDGET_SCALE, target_at
from reference_impl.router import Router
from reference_impl.routing import Routing
from reference_impl.training.meters import LossMeter, Pace, RoutingMeter
from reference_impl.training.settings import TrainConfig

BUDGET_GROUP = "budget"


class ModTrainer(Trainer):
    """`Trainer` for dense and converted models.

    Routers have their own learning rates; with a teacher, KL(teacher || model) is added; a loss or gradient that is no number ends
    the training before it reaches a weight, with its batch and the state before it on disk.

    Args:
        config: learning rates, and the weight of the distillation.
        teacher: a model of the same vocabulary; it is frozen.
        failures: the folder in which `failed-step-N` is made.
        kwargs: of `Trainer`.
    """

    def __init__(
        self, config: TrainConfig, *, teacher: PreTrainedModel | None = None, failures: Path, **kwargs: Any
    ) -> None:
        self.config = config
        self.teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self.failures = failures
        self.routing: Routing | None = getattr(kwargs["model"], "routing", None)
        self.routing_meter = None if self.routing is None else RoutingMeter(self.routing)
        self.loss_meter = LossMeter()
        self.pace = Pace()
        self.optimizer: Any
        self._batches: list[dict[str, Any]] = []
        super().__init__(**kwargs)
        self.add_callback(_StepEnd(self))
        if self.teacher is not None:
            self.teacher.to(self.args.device)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the parameters that train, in groups: decaying, plain, routers' weights, routers' biases."""
        if self.optimizer is None:
            found = self.model if model is None else model
            groups = _groups(found, set(self.get_decay_parameter_names(found)))
            settings: dict[str, dict[str, Any]] = {
                "decaying": {"weight_decay": self.config.weight_decay},
                "plain": {},
                "router": {"lr": self.config.router_learning_rate},
                "bias": {"lr": self.config.bias_learning_rate},
            }
            if self.routing is not None and self.routing.is_bias_budgeted:
                settings["bias"] = _budget_settings(self.config.budget_rate)
            optimizer_class, shared = self.get_optimizer_cls_and_kwargs(self.args, found)
            self.optimizer = optimizer_class(
                [
                    {"params": parameters, "weight_decay": 0.0, **settings[name]}
                    for name, parameters in groups.items()
                    if parameters
                ],
                **shared,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """As Trainer's; the rate of a budget stays as it is."""
        if self.lr_scheduler is None:
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            for index, group in enumerate(scheduler.optimizer.param_groups):
                if group.get("name") == BUDGET_GROUP:
                    scheduler.lr_lambdas[index] = _constant
                    group["lr"] = group["initial_lr"]
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Iterator, *args: Any, **kwargs: Any) -> tuple[list, Any]:
        """As Trainer's, timed, and kept for the case that the step fails."""
        self.pace.ask_for_data()
        self._batches, num_items = super().get_batch_samples(epoch_iterator, *args, **kwargs)
        num_tokens = sum(batch["input_ids"].numel() for batch in self._batches)
        self.pace.get_data(num_tokens * self.args.world_size)
        return self._batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The model's loss, in training with the objective inside, plus the distillation; its parts are kept for the log."""
        if self.routing is not None:
            self.routing.last_objective = None
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            assert num_items_in_batch is not None, "rows have labels, and the models take their number"
            # Trainer does the same to the loss; dividing by all processes' labels, DDP's mean would make it too small
            scale = self.args.world_size if self.args.average_tokens_across_devices else 1
            objective = None if self.routing is None else self.routing.last_objective
            objective = None if objective is None else objective.to(loss.device) * scale
            divergence = None
            self.loss_meter.note(objective=objective, lm_loss=loss if objective is None else loss - objective)
            if self.teacher is not None:
                divergence = self._divergence(inputs, outputs["logits"], num_items_in_batch) * scale
                self.loss_meter.note(distillation=divergence)
                loss = loss + self.config.distillation * divergence
            self._check_loss(loss)
        return (loss, outputs) if return_outputs else loss

    def _divergence(self, inputs: dict[str, Any], logits_BTV: Tensor, num_items: Tensor | int) -> Tensor:
        """KL(teacher || model) in nats, summed over the tokens that labels ask for, over their number in the whole step."""
        assert self.teacher is not None, "checked by the caller"
        unlabelled = {name: value for name, value in inputs.items() if name != "labels"}
        with torch.no_grad(), self.accelerator.autocast():
            teacher_BTV = self.teacher(**unlabelled, use_cache=False).logits
        is_labelled_BT = inputs["labels"][:, 1:] != IGNORED_LABEL
        model_MV = functional.log_softmax(logits_BTV[:, :-1][is_labelled_BT].float(), dim=-1)
        teacher_MV = functional.log_softmax(teacher_BTV[:, :-1][is_labelled_BT].float(), dim=-1)
        return functional.kl_div(model_MV, teacher_MV, reduction="sum", log_target=True) / num_items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with all that was measured since the last time; every process comes here."""
        if "loss" in logs:
            logs = {**logs, **self.loss_meter.take(self._sum, self.args.world_size), **self.pace.take()}
            if self.routing_meter is not None and self.routing is not None:
                logs.update(self.routing_meter.take(self._sum))
                if self.routing.config.objective == "keep_budget":
                    logs["target_keep_ratio"] = target_at(self.routing.config, self.routing.progress)
        super().log(logs, start_time)

    def _sum(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def _check_loss(self, loss: Tensor) -> None:
        is_finite = torch.isfinite(loss.detach())
        self._stop_unless(
            is_finite, f"the loss is {loss.item()}" if not is_finite else "the loss of another process is no number"
        )

    def check_gradients(self) -> None:
        """End the training where a gradient is no number although the loss is one."""
        gradients = [one.grad for one in self.model.parameters() if one.grad is not None]
        norm: Any = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of sharded gradients
        self._stop_unless(torch.isfinite(norm), "its gradient is not finite")

    def _stop_unless(self, is_finite: Tensor, problem: str) -> None:
        """Stop on all processes if one of them has to: the others would wait for it for ever."""
        agreed = self._sum(is_finite.to(self.args.device).int()) if self.args.world_size > 1 else is_finite.int()
        if int(agreed) == self.args.world_size:
            return
        step = self.state.global_step + 1
        folder = self._new_folder(f"failed-step-{step}")
        rank = f"-{self.args.process_index}" if self.args.world_size > 1 else ""
        batches = [
            {name: value.tolist() for name, value in batch.items() if isinstance(value, Tensor)}
            for batch in self._batches
        ]
        facts = {"step": step, "problem": problem, "batches": batches}
        (folder / f"batch{rank}.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
        output_dir, self.args.output_dir = self.args.output_dir, str(folder)
        self._save_checkpoint(self.model_wrapped, None)
        self.args.output_dir = output_dir
        raise TrainingError(
            f"step {step}: {problem}; its batch is in {folder / f'batch{rank}.json'}, and the model before it in "
            f"{folder / f'checkpoint-{step - 1}'}: look at the batch, or train from there with a lower learning rate"
        )

    def _new_folder(self, name: str) -> Path:
        """One that is not there yet, on the first process; the same for all."""
        taken = {path.name for path in self.failures.glob(f"{name}*")}
        self.accelerator.wait_for_everyone()
        folder = self.failures / next(
            one for one in (name, *(f"{name}-again-{count}" for count in range(1, len(taken) + 2))) if one not in taken
        )
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class _StepEnd(TrainerCallback):
    """Tells the trainer when gradients are complete and when steps end."""

    def __init__(self, trainer: ModTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.check_gradients()

    def on_substep_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.routing_meter is not None:
            self.trainer.routing_meter.note()

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.routing_meter is not None:
            self.trainer.routing_meter.note()
        self.trainer.loss_meter.end_step()
        self.trainer.pace.end_step()


def _groups(model: nn.Module, decaying: set[str]) -> dict[str, list[nn.Parameter]]:
    routers = [module for module in model.modules() if isinstance(module, Router)]
    kinds = {id(router.weight): "router" for router in routers} | {id(router.bias): "bias" for router in routers}
    groups: dict[str, list[nn.Parameter]] = {"decaying": [], "plain": [], "router": [], "bias": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[kinds.get(id(parameter), "decaying" if name in decaying else "plain")].append(parameter)
    return groups


def _budget_settings(rate: float) -> dict[str, Any]:
    """AdamW without memory, which steps by rate * g / (|g| + eps): half of the way to a near budget, the rate towards a far one.

    Where clipping has made the gradient smaller, the step to a near budget is a smaller share. Source: our choice.
    """
    return {"lr": rate, "betas": (0.0, 0.0), "eps": 2 * BUDGET_SCALE * rate, "name": BUDGET_GROUP}


def _constant(step: int) -> float:
    """A learning rate's factor at any step."""
    return 1.0
