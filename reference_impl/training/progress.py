"""What a training shows while it runs: a line per log with the time left, and on a terminal a bar.

In: events of the Trainer. Out: text on a console, which decides about colours and terminals.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import TrainerCallback, TrainingArguments

SHOWN = {  # name in the logs -> how it reads
    "loss": "loss {:.4f}",
    "lm_loss": "lm {:.4f}",
    "objective": "objective {:.2g}",
    "distillation": "distillation {:.4f}",
    "eval_loss": "held out {:.4f}",
    "keep_ratio": "keep {:.1%}",
    "tokens_per_s": "{:,.0f} tokens/s",
}


class ProgressLines(TrainerCallback):
    """A line per log, on a terminal with a bar below that moves with each step."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self.begin_s: float | None = None
        self.first_step = 0
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def on_step_begin(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock starts with the first one."""
        if self.begin_s is not None or not state.is_world_process_zero:
            return
        self.begin_s, self.first_step = self.clock(), state.global_step
        if self.console.is_terminal:
            columns = (TextColumn("step"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task("train", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self, args: TrainingArguments, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Print the line."""
        shown = [text.format(logs[name]) for name, text in SHOWN.items() if logs and name in logs]
        if not state.is_world_process_zero or not shown or "train_loss" in (logs or {}):
            return
        left = self._time_left(state)
        line = " · ".join([f"step {state.global_step}/{state.max_steps}", *shown, *([left] if left else [])])
        self.console.print(Text(line), soft_wrap=True)

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self.stop()

    def stop(self) -> None:
        """Take the bar off the terminal; also where a training ends by an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _time_left(self, state: Any) -> str:
        """At the pace of this process so far, evaluating and saving included."""
        num_done, num_left = state.global_step - self.first_step, state.max_steps - state.global_step
        if self.begin_s is None or not num_done or not num_left:
            return ""
        return f"{duration((self.clock() - self.begin_s) / num_done * num_left)} left"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that fit: 45 s, 3 min 20 s, 5 h 10 min, 2 d 4 h."""
    whole = round(seconds)
    for small, small_name, large, large_name in ((3600, "h", 86400, "d"), (60, "min", 3600, "h"), (1, "s", 60, "min")):
        if whole >= large:
            return f"{whole // large} {large_name} {whole % large // small} {small_name}"
    return f"{whole} s"
