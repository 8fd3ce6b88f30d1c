"""What happens beside the steps of a training: progress told to the routing, logs as lines of JSON, TensorBoard.

In: events of the Trainer. Out: files. Only the first process writes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from reference_impl.routing import Routing
from reference_impl.training.meters import NUM_BINS, RoutingMeter

LEFT_OUT = ("epoch", "total_flos")  # an endless stream has no epochs
LEFT_OUT_ENDINGS = ("_runtime", "_per_second")  # tokens_per_s and the times of lines say it better
RESUMED = "resumed"


class ShareOfTraining(TrainerCallback):
    """Tells the routing which share of the steps is done, before each forward; a resumed training says the same."""

    def __init__(self, routing: Routing) -> None:
        self.routing = routing

    def on_step_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the forward."""
        self.routing.progress = state.global_step / state.max_steps

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """All is done."""
        self.routing.progress = 1.0


class NoCheckpointAtEnd(TrainerCallback):
    """The trained model itself stands for the last checkpoint, from which there is nothing to go on with."""

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """After the last step."""
        if state.global_step >= state.max_steps:
            control.should_save = False


class JsonLog(TrainerCallback):
    """A line of JSON per log: `step`, what was measured, and `gate_histogram` per layer beside training losses."""

    def __init__(self, path: Path, meter: RoutingMeter | None) -> None:
        self.path = path
        self.meter = meter

    def on_log(
        self, args: TrainingArguments, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Write it down."""
        measured = worth_keeping(logs or {})
        if not state.is_world_process_zero or not measured:
            return
        if self.meter is not None and "loss" in measured:
            measured["gate_histogram"] = {str(layer): counts for layer, counts in self.meter.histograms.items()}
        append_line(self.path, {"step": state.global_step, **measured})


def worth_keeping(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Losses and what stands beside them; nothing of a log that holds no loss of this step."""
    if not {"loss", "eval_loss"} & logs.keys():
        return {}
    return {name: value for name, value in logs.items() if name not in LEFT_OUT and not name.endswith(LEFT_OUT_ENDINGS)}


def append_line(path: Path, facts: Mapping[str, Any]) -> None:
    """One more line, written at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log whose steps count: those that a resumed training did anew are there once, and half a line is left out."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            facts = json.loads(text)
        except ValueError:  # the process ended while it was written
            continue
        if RESUMED in facts:
            lines = [line for line in lines if line["step"] <= facts["step"]]
        else:
            lines.append(facts)
    return lines


class TensorBoardLog(TrainerCallback):
    """Scalars of every log, and the gates of every routed layer as histograms.

    Args:
        writer: a `SummaryWriter` of torch, see `summary_writer`.
        meter: of the model's routing.
    """

    def __init__(self, writer: Any, meter: RoutingMeter | None) -> None:
        self.writer = writer
        self.meter = meter

    def on_log(
        self, args: TrainingArguments, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Write it down."""
        measured = worth_keeping(logs or {})
        for name, value in measured.items():
            self.writer.add_scalar(name, value, state.global_step)
        if self.meter is not None and "loss" in measured:
            for layer, counts in self.meter.histograms.items():
                self._add_histogram(f"gates/layer_{layer}", counts, state.global_step)

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Nothing stays in memory."""
        self.writer.flush()

    def _add_histogram(self, name: str, counts: list[int], step: int) -> None:
        middles = [(index + 0.5) / NUM_BINS for index in range(NUM_BINS)]
        pairs = list(zip(counts, middles, strict=True))
        self.writer.add_histogram_raw(
            name,
            min=min((middle for count, middle in pairs if count), default=0.0),
            max=max((middle for count, middle in pairs if count), default=1.0),
            num=sum(counts),
            sum=sum(count * middle for count, middle in pairs),
            sum_squares=sum(count * middle**2 for count, middle in pairs),
            bucket_limits=[(index + 1) / NUM_BINS for index in range(NUM_BINS)],
            bucket_counts=counts,
            global_step=step,
        )


def summary_writer(folder: Path, first_step: int) -> Any:
    """A writer of TensorBoard's files; what a training that was cut off wrote from `first_step` on is void."""
    from torch.utils.tensorboard import SummaryWriter  # optional; request.py checks that it is there

    return SummaryWriter(str(folder), purge_step=first_step)
