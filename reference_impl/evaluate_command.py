"""`python -m reference_impl evaluate`: a model folder and held-out text become tables and a JSON file.

In: options as typed. Out: printed and written results, or one of this package's errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from reference_impl.data import load_tokenizer
from reference_impl.devices import find_device
from reference_impl.errors import EvaluationError
from reference_impl.evaluation import PROBES, EvaluationSettings, evaluate, write_evaluation
from reference_impl.evaluation.held_out_text import choose_context, choose_rows, same_tokenizer_or_raise
from reference_impl.evaluation.results import check_new
from reference_impl.evaluation.table import print_evaluation
from reference_impl.model_folder import check_kind, load_folder
from reference_impl.settings_file import read_data_config
from reference_impl.visible_text import visible_line


@dataclass(frozen=True)
class EvaluateOptions:
    """What was asked for. All defaults are our choice.

    Attributes:
        model: folder of a converted or dense model with its tokenizer.
        text: files to be cut into windows; or
        data: settings of training data, whose held-out rows are taken; without both the default ones.
        num_rows: at most so many rows; by default 64 held-out ones, and all windows of a text.
        context: tokens of a row, and of the longest synthetic prompt; by default what `data` says, else 1,024 or the model's
            positions where these are fewer.
        teacher: folder of the dense model.
        probes: names, separated by commas.
        num_trials, seed: of the synthetic prompts.
        device: auto (the first GPU, else the CPU), cpu, cuda or cuda:N.
        dtype: auto (as stored), float32, bfloat16 or float16.
        json: a new file.
    """

    model: Path
    text: Sequence[Path] = ()
    data: Path | None = None
    num_rows: int | None = None
    context: int | None = None
    teacher: Path | None = None
    probes: str = ",".join(PROBES)
    num_trials: int = 4
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    json: Path | None = None


def evaluate_command(options: EvaluateOptions, console: Console, progress: Console | None = None) -> None:
    """Measure, print, and write the file asked for; `progress` is told which probe runs.

    Raises:
        CommandError: the device or dtype is not to be had.
        EvaluationError: options, model, text and teacher do not fit each other.
        UnsupportedModelError: a folder holds no model of a supported family, or cannot be read as one.
        DataError: the settings of the data, the text or the tokenizer cannot be used.
        OSError: the file cannot be written.
    """
    if options.json is not None:
        check_new(options.json)  # before anything is measured
    if options.text and options.data is not None:
        raise EvaluationError("--text: got it with --data; expected one of them")
    for folder in (options.model, options.teacher):
        if folder is not None:
            check_kind(folder, "any")
    probes = tuple(name.strip() for name in options.probes.split(","))
    device = find_device(options.device)
    # checked before a model is loaded, which is when the context is known
    settings = EvaluationSettings(options.context or 2, probes, options.num_trials, options.seed)
    tokenizer = load_tokenizer(options.model)
    data = None if options.data is None else read_data_config(options.data)
    model = load_folder(options.model, "any", options.dtype).to(device)
    context = choose_context(options.context, data, model, "--context", str(options.model))
    teacher = None
    if options.teacher is not None:
        same_tokenizer_or_raise(options.teacher, tokenizer)
        teacher = load_folder(options.teacher, "any", options.dtype).to(device)
    rows = choose_rows(options.text, data, options.num_rows, tokenizer, model, context)
    found = evaluate(
        model,
        tokenizer,
        rows,
        replace(settings, context=context),
        teacher=teacher,
        name=str(options.model),
        teacher_name=str(options.teacher),
        told=None if progress is None else lambda probe: progress.print(f"{probe} …", markup=False),
    )
    if options.json is not None:  # before printing, which a closed pipe can end
        write_evaluation(found, options.json)
    print_evaluation(found, console)
    if options.json is not None:
        console.print(Text(visible_line(f"evaluation: {options.json}")), soft_wrap=True)
