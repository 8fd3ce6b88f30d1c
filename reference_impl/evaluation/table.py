"""An evaluation on a console. In: an `Evaluation` and a console. Out: printed lines and tables."""

import statistics

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reference_impl.evaluation.agreement import Agreement
from reference_impl.evaluation.bits_per_byte import HeldOutScore
from reference_impl.evaluation.induction import InductionScore
from reference_impl.evaluation.keep_behaviour import KeepBehaviour
from reference_impl.evaluation.kept import KvCacheSize
from reference_impl.evaluation.needle import NUM_DIGITS, NeedleScore
from reference_impl.evaluation.results import Evaluation
from reference_impl.visible_text import visible_line

ABSENT = "–"


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Everything that was measured, a table per probe."""
    model, text = evaluation.model, evaluation.text
    _say(
        console,
        f"{model.name}: {model.model_type}, {model.num_parameters:,} parameters, {model.dtype} on {model.device}",
    )
    sources = ", ".join(f"{name} {count}" for name, count in text.sources.items())
    _say(
        console,
        f"{text.num_rows} rows of up to {text.sequence_length:,} tokens ({sources}), {text.num_bytes:,} bytes, hash {text.hash}",
    )
    if evaluation.held_out is not None:
        _print_held_out(evaluation.held_out, evaluation.held_out_non_causal, console)
        _print_kept(evaluation.held_out, evaluation.kv_cache, console)
    if evaluation.keep_behaviour is not None:
        _print_behaviour(evaluation.keep_behaviour, console)
    if evaluation.needle is not None:
        _print_needle(evaluation.needle, console)
    if evaluation.induction is not None:
        _print_induction(evaluation.induction, console)
    if evaluation.agreement is not None and evaluation.teacher is not None:
        _print_agreement(evaluation.agreement, evaluation.teacher.name, console)


def _print_held_out(held_out: HeldOutScore, non_causal: HeldOutScore | None, console: Console) -> None:
    columns = ["held-out text", "tokens", "bits per byte", "bits per token", "accuracy"]
    rows = [_overall("all positions", held_out)]
    if non_causal is not None:
        rows.append(_overall("all, ranking the whole sequence*", non_causal))
    for bucket in held_out.by_position:
        name = f"position {_span(bucket.first_position, bucket.last_position)}"
        per_byte = ABSENT if bucket.bits_per_byte is None else f"{bucket.bits_per_byte:.3f}"
        rows.append(
            [
                name,
                f"{bucket.num_tokens:,}",
                per_byte,
                f"{bucket.bits_per_token:.3f}",
                f"{bucket.next_token_accuracy:.1%}",
            ]
        )
    _table(console, columns, rows)
    if non_causal is not None:
        _say(
            console,
            "* top-k sees what follows through its choice, so this number is too good; the others decide as at decode",
        )


def _overall(name: str, score: HeldOutScore) -> list[str]:
    return [
        name,
        f"{score.num_tokens:,}",
        _with_error(score.bits_per_byte, score.bits_per_byte_standard_error),
        f"{score.bits_per_token:.3f}",
        f"{score.next_token_accuracy:.1%}",
    ]


def _print_kept(held_out: HeldOutScore, kv_cache: KvCacheSize | None, console: Console) -> None:
    if held_out.mean_keep_ratio is not None:
        layers = ", ".join(f"{layer}: {kept:.1%}" for layer, kept in held_out.keep_ratio.items())
        _say(console, f"routed layers keep {held_out.mean_keep_ratio:.1%} of that text ({layers})")
    if kv_cache is not None:
        reduction = kv_cache.kv_cache_reduction_ratio
        smaller = "" if reduction is None else f", {reduction:.2f} times less than with every token kept"
        _say(
            console,
            f"KV cache: {kv_cache.kv_cache_bytes_per_token:,.0f} bytes per token at {kv_cache.context_tokens:,} tokens{smaller}",
        )


def _print_behaviour(found: KeepBehaviour, console: Console) -> None:
    for title, groups in (
        ("kept, by kind of text", found.by_kind),
        ("by position", found.by_position),
        ("by bits of the token itself", found.by_surprisal),
        ("by bits of the next token", found.by_next_surprisal),
    ):
        rows = [
            [
                group.name,
                f"{group.num_tokens:,}",
                f"{statistics.fmean(group.keep_ratio.values()):.1%}",
                f"{min(group.keep_ratio.values()):.1%}–{max(group.keep_ratio.values()):.1%}",
            ]
            for group in groups
        ]
        _table(console, [title, "tokens", "mean over layers", "least and most"], rows)
    shares = ", ".join(f"{count}: {share:.1%}" for count, share in enumerate(found.num_layers_kept_ratio))
    _say(console, f"tokens by the number of routed layers that keep them: {shares}")


def _print_needle(score: NeedleScore, console: Console) -> None:
    rows = [
        [
            f"{cell.context_tokens:,}",
            f"{cell.depth_ratio:.0%}",
            f"{round(cell.exact_match_ratio * cell.num_trials)}/{cell.num_trials}",
            _with_error(cell.answer_bits_per_byte, cell.answer_bits_per_byte_standard_error),
            _share(cell.keep_ratio),
        ]
        for cell in score.cells
    ]
    _table(console, ["passkey at context", "depth", "found", "bits per byte of the key", "kept"], rows)
    _say(console, f"guessing each of the {NUM_DIGITS} digits takes 3.32 bits per byte")


def _print_induction(score: InductionScore, console: Console) -> None:
    rows = [
        [
            f"{found.copy_tokens:,}",
            _with_error(found.first_copy_bits_per_token, found.first_copy_bits_per_token_standard_error),
            _with_error(found.second_copy_bits_per_token, found.second_copy_bits_per_token_standard_error),
            f"{found.second_copy_accuracy:.1%}",
            _share(found.keep_ratio),
        ]
        for found in score.lengths
    ]
    columns = ["copied tokens", "bits per token, first copy", "second copy", "accuracy, second copy", "kept"]
    _table(console, columns, rows)


def _print_agreement(found: Agreement, teacher: str, console: Console) -> None:
    rows = [
        [
            "KL(teacher ‖ model), bits per token",
            _with_error(found.kl_bits_per_token, found.kl_bits_per_token_standard_error),
        ],
        ["same likeliest token", f"{found.top1_agreement_ratio:.1%}"],
        ["bits per byte of the teacher", f"{found.teacher_bits_per_byte:.3f}"],
        [
            "bits per byte more than the teacher",
            _with_error(found.bits_per_byte_difference, found.bits_per_byte_difference_standard_error),
        ],
    ]
    _table(console, [f"against {teacher}", ""], rows)


def _table(console: Console, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(Text(visible_line(column) if column else ""), justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console.print()
    console.print(table)


def _say(console: Console, line: str) -> None:
    console.print(Text(visible_line(line)), soft_wrap=True)


def _with_error(value: float, standard_error: float | None) -> str:
    return f"{value:.3f}" if standard_error is None else f"{value:.3f} ± {standard_error:.3f}"


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1%}"


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"
