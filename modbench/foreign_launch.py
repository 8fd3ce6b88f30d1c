"""A launch that a program measures by itself: `command:`, or `entry:` under another interpreter (docs/engines.md).

In: a job and the `Program` to start. Out: the record of its answer, or of how it failed. Its standard input is the request, and
the last line of its standard output is the answer.
"""

import os
from collections.abc import Callable
from pathlib import Path

from modbench.command_protocol import (
    Answer,
    Refusal,
    Request,
    TokenFile,
    check_answer,
    other_work,
    parse_answer,
    sampled_s,
)
from modbench.errors import AnswerError, UnsupportedError
from modbench.foreign_program import MAX_ANSWER_BYTES, ProgramEnd, run_program
from modbench.job import OUTCOME_SUFFIX, TOKENS_SUFFIX, GuardReport, Job, JobResult, failed_record
from modbench.memory_limit import LARGE_BLOCK_BYTES
from modbench.methods import Program
from modbench.methods.base import IDENTITIES
from modbench.record import KeepRatios, Record, Samples, Status
from modbench.tokens import WRAPPED_PROMPT, PromptTokens, prompt_tokens
from modbench.units import format_bytes, format_seconds

UNCHECKED = "it is timed by a program of its own, which answers with numbers and not with logits"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
CLOCK_TOLERANCE_RATIO = 0.01


def do_foreign_job(job: Job, program: Program, on_phase: Callable[[str], None]) -> JobResult:
    """Do what can be done with a method that measures itself: launch it; its guard starts nothing.

    Raises:
        UnsupportedError: it cannot be traced or mapped, or the program or its prompt is not there.
    """
    assert job.spec is not None, "only jobs of a method have a program"
    if job.kind == "guard":
        reasons = dict.fromkeys(IDENTITIES, UNCHECKED)
        return JobResult(
            guard=GuardReport(identities=dict.fromkeys(IDENTITIES, "declared"), declared=reasons, detail=UNCHECKED)
        )
    if job.kind == "trace":
        raise UnsupportedError(
            f"methods.{job.spec.method}.{program.key}: a program of its own cannot be traced from here"
        )
    if job.kind == "keep_map":
        raise UnsupportedError(f"methods.{job.spec.method}.{program.key}: a program of its own tells no keep decisions")
    tokens = prompt_tokens(job.spec.point)
    token_file = Path(job.result_path + TOKENS_SUFFIX).absolute()
    try:
        token_file.write_bytes(tokens.ids_BT.numpy().astype("<i4").tobytes())
        return JobResult(record=run_foreign_launch(job, program, tokens, token_file, on_phase))
    finally:
        token_file.unlink(missing_ok=True)


def run_foreign_launch(
    job: Job, program: Program, tokens: PromptTokens, token_file: Path, on_phase: Callable[[str], None]
) -> Record:
    """Run the program to its end and make a record of it.

    Raises:
        UnsupportedError: the program is not there or cannot be executed.
    """
    assert job.spec is not None, "a launch job has a run spec"
    request = _request(job, token_file, tokens)
    on_phase(program.key)
    end = run_program(
        program.command,
        _environment(job, program),
        request.model_dump_json(),
        job.memory_limit_bytes,
        Path(job.result_path + OUTCOME_SUFFIX),
        f"methods.{job.spec.method}.{program.key}: {program.command[0]}",
    )
    memory = {"peak_rss_bytes": end.peak_rss_bytes}
    try:
        answer = _answer(end, request)
    except AnswerError as error:
        return failed_record(job, _status(end, job.memory_limit_bytes), program.key, str(error), memory)
    if isinstance(answer, Refusal):
        return failed_record(job, answer.status, program.key, answer.error, memory)
    on_phase("done")
    return _record(job, program, tokens, answer, end, other_work(answer, request))


def _request(job: Job, token_file: Path, tokens: PromptTokens) -> Request:
    assert job.spec is not None, "a launch job has a run spec"
    return Request(
        point=job.spec.point,
        device=job.device,
        tokens=TokenFile(path=str(token_file), shape=(tokens.ids_BT.shape[0], tokens.ids_BT.shape[1])),
        num_samples=job.spec.measure["samples"],
        warmup=job.spec.measure["warmup"],
        memory_limit_bytes=job.memory_limit_bytes,
        device_limit_bytes=job.device_limit_bytes,
    )


def _environment(job: Job, program: Program) -> dict[str, str]:
    """The worker's, with the number of threads as libraries read it; what the scenario says goes before."""
    own = dict.fromkeys(THREAD_VARIABLES, str(job.threads))
    if job.returns_large_blocks:
        own["MALLOC_MMAP_THRESHOLD_"] = str(LARGE_BLOCK_BYTES)
    return {**os.environ, **own, **program.env}


def _answer(end: ProgramEnd, request: Request) -> Answer | Refusal:
    """The program's answer, checked against the request and against this process's own clock.

    Raises:
        AnswerError: it ended badly, or gave no answer, or one that cannot be.
    """
    if end.exit_code != 0:
        raise AnswerError(str(end))
    if end.num_stdout_bytes > MAX_ANSWER_BYTES:
        found, allowed = format_bytes(end.num_stdout_bytes), format_bytes(MAX_ANSWER_BYTES)
        raise AnswerError(f"got {found} on standard output; expected at most {allowed}; print to standard error")
    lines = end.stdout.rstrip().rsplit(b"\n", 1)
    if not lines[-1]:
        raise AnswerError(f"no answer on standard output, though it ended with exit code 0{end.told}")
    answer = parse_answer(lines[-1].strip())
    if isinstance(answer, Answer):
        check_answer(answer, request)
        told_s = sampled_s(answer, request)
        if told_s > end.wall_s * (1 + CLOCK_TOLERANCE_RATIO):
            raise AnswerError(
                f"answer: samples of {format_seconds(told_s)} in all, from a program that ran for "
                f"{format_seconds(end.wall_s)}; expected seconds"
            )
    return answer


def _status(end: ProgramEnd, limit_bytes: int | None) -> Status:
    """Of a program that gave no sound answer."""
    if end.is_out_of_memory(limit_bytes):
        return "oom"
    return "failed" if end.exit_code is not None and end.exit_code >= 0 else "crashed"


def _record(
    job: Job, program: Program, tokens: PromptTokens, answer: Answer, end: ProgramEnd, is_other_work: str | None
) -> Record:
    spec = job.spec
    assert spec is not None, "a launch job has a run spec"
    metrics = answer.metrics.model_dump(exclude_none=True)
    return Record(
        launch_id=spec.launch_id,
        run_id=spec.run_id,
        point_id=spec.point_id,
        method=spec.method,
        kind=spec.kind,
        status="invalid" if is_other_work else "ok",
        phase="done",
        point=spec.point,
        pair=spec.pair,
        samples=Samples(**answer.samples.model_dump()),
        metrics={"peak_rss_bytes": end.peak_rss_bytes, **metrics},
        keep_ratio=KeepRatios(**answer.keep_ratio.model_dump()),
        guard=job.guard,
        flags=[*([WRAPPED_PROMPT] if tokens.is_wrapped else []), *answer.flags],
        environment={
            **job.environment,
            "tokens_sha256": tokens.sha256,
            "device": job.device,
            "attention_path": answer.attention_path,
            "program": {"command": list(program.command), "facts": answer.environment},
        },
        error=is_other_work,
    )
