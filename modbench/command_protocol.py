"""What modbench and a program that measures itself say to each other: one JSON line each way (docs/engines.md). No torch.

In: the program's last line of standard output. Out: a validated `Answer` or `Refusal`; anything else is an error of one line.
The models are the documentation that a program's author can hold a schema checker to: `modbench schema --command-protocol`.
"""

import math
from typing import Annotated, Any, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from modbench.errors import AnswerError
from modbench.plan import PointWork
from modbench.scenario.wording import MAX_SHOWN, shorten, show

PROTOCOL_VERSION: Literal[1] = 1
GAPS_TOLERANCE_RATIO = 0.01  # between tpot_s and the mean of its sample's gaps: rounding in print, and no slip of units

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Line = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TokenFile(_Message):
    """Token ids as little-endian int32 in C order, `shape` (batch, context + new_tokens - 1); removed when the launch is over."""

    path: str
    dtype: Literal["int32"] = "int32"
    shape: tuple[int, int]


class Request(_Message):
    """What a launch is to do: prefill the first `context` columns, decode teacher-forced on the others, one column per step.

    `point` holds model, geometry, settings (the program's `options` among them), workload (its `seed` too), dtype, attention and
    threads. Limits are for the program to keep; the one of the host is in force already.
    """

    protocol_version: Literal[1] = PROTOCOL_VERSION
    point: PointWork
    device: str = Field(description="cpu, cuda or cuda:N")
    tokens: TokenFile
    num_samples: int
    warmup: Literal["auto"] | int = Field(description="auto: until stationary; an integer: that many samples")
    memory_limit_bytes: int | None
    device_limit_bytes: int | None


class AnswerSamples(_Message):
    """Raw seconds and counts, in the order measured: one value per sample, and in `itl_s` every gap of every sample.

    `ttft_s`: prompt submitted to first token on the host; `tpot_s`: mean gap after it. The others as in a record.
    """

    ttft_s: list[Seconds]
    tpot_s: list[Seconds]
    itl_s: list[Seconds] = Field(default_factory=list)
    prefill_cpu_s: list[Annotated[float, Field(ge=0)]] = Field(default_factory=list)
    decode_cpu_s: list[Annotated[float, Field(ge=0)]] = Field(default_factory=list)
    prefill_device_s: list[Seconds] = Field(default_factory=list)
    decode_device_s: list[Seconds] = Field(default_factory=list)
    num_involuntary_switches: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)


class AnswerMetrics(_Message):
    """What else was measured, by the names of a record; null where unknown."""

    kv_cache_bytes: Bytes | None = None
    kv_cache_allocated_bytes: Bytes | None = None
    weights_bytes: Bytes | None = None
    peak_live_bytes: Bytes | None = None
    peak_rss_bytes: Bytes | None = None
    peak_allocated_bytes: Bytes | None = None
    peak_reserved_bytes: Bytes | None = None
    peak_device_used_bytes: Bytes | None = None
    peak_process_device_bytes: Bytes | None = None
    energy_j: Annotated[float, Field(ge=0)] | None = None
    perplexity: (
        Annotated[float, Field(gt=0, description="exp(mean negative log-likelihood per token) of the text")] | None
    ) = None
    num_warmups: Annotated[int, Field(ge=0)] | None = None
    involuntary_switches_per_s: Annotated[float, Field(ge=0)] | None = None
    wall_cpu_ratio: Annotated[float, Field(gt=0)] | None = None


class AnswerKeepRatios(_Message):
    """Measured share of kept tokens, one per layer of the geometry; empty where unknown."""

    prefill: list[Share] = Field(default_factory=list)
    decode: list[Share] = Field(default_factory=list)
    decode_any: list[Share] = Field(default_factory=list)


class Answer(_Message):
    """A launch that was measured. The token counts are those that one sample really took in and put out, over all rows."""

    protocol_version: Literal[1]
    samples: AnswerSamples
    num_prompt_tokens: int
    num_output_tokens: int
    metrics: AnswerMetrics = AnswerMetrics()
    keep_ratio: AnswerKeepRatios = AnswerKeepRatios()
    attention_path: Line | None = Field(None, description="the attention that really ran")
    flags: list[Line] = Field(default_factory=list, max_length=20, description="doubts, printed beside the numbers")
    environment: dict[Line, Line | bool | int | float | None] = Field(
        default_factory=dict, max_length=50, description="versions and other facts for the record"
    )


class Refusal(_Message):
    """A launch that gave no numbers, and why. `oom` and `unsupported` are results; `failed` is a mistake."""

    protocol_version: Literal[1]
    status: Literal["oom", "unsupported", "failed"]
    error: Line


def parse_answer(line: bytes) -> Answer | Refusal:
    """Read a program's answer; a line with the key `error` is a refusal.

    Raises:
        AnswerError: it is not the JSON object of either model.
    """
    try:
        raw = pydantic_core.from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise AnswerError(
            f"answer: got {_quote(line)}, which is no JSON ({error}); expected one object in one line"
        ) from error
    model: type[Answer] | type[Refusal] = Refusal if isinstance(raw, dict) and "error" in raw else Answer
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = shorten(".".join(str(part) for part in first["loc"])) or _quote(line)
        raise AnswerError(f"answer: {place}: {first['msg']}") from error


def check_answer(answer: Answer, request: Request) -> None:
    """Check what the request decides: how many samples, gaps and layers there are, and that gaps and their means agree.

    Raises:
        AnswerError: naming the first thing that is not as asked for.
    """
    samples, num_steps = answer.samples, request.point.workload["new_tokens"] - 1
    for name in type(samples).model_fields:
        each = num_steps if name == "itl_s" else 1
        found, wanted = len(getattr(samples, name)), request.num_samples * each
        is_optional = name not in ("ttft_s", "tpot_s")
        if found != wanted and not (is_optional and found == 0):
            raise AnswerError(f"answer: samples.{name}: got {found} values; expected {wanted}")
    for index, tpot_s in enumerate(samples.tpot_s if samples.itl_s else ()):
        mean_s = math.fsum(samples.itl_s[index * num_steps : (index + 1) * num_steps]) / num_steps
        if not math.isclose(tpot_s, mean_s, rel_tol=GAPS_TOLERANCE_RATIO):
            raise AnswerError(
                f"answer: samples.tpot_s.{index}: got {tpot_s:g}; expected the mean of its gaps in itl_s, {mean_s:g}"
            )
    for name in type(answer.keep_ratio).model_fields:
        found, wanted = len(getattr(answer.keep_ratio, name)), request.point.geometry.num_hidden_layers
        if found not in (0, wanted):
            raise AnswerError(f"answer: keep_ratio.{name}: got {found} values; expected one per layer, {wanted}")


def other_work(answer: Answer, request: Request) -> str | None:
    """One line where the program took in or put out other numbers of tokens than it was asked to."""
    workload = request.point.workload
    for name, wanted in (("num_prompt_tokens", workload["context"]), ("num_output_tokens", workload["new_tokens"])):
        found = getattr(answer, name)
        if found != wanted * workload["batch"]:
            return (
                f"other work: {name}: got {found}; expected {wanted * workload['batch']}, over all rows of one sample"
            )
    return None


def sampled_s(answer: Answer, request: Request) -> float:
    """How long the timed samples took together, as the program says."""
    num_steps = request.point.workload["new_tokens"] - 1
    return math.fsum(answer.samples.ttft_s) + num_steps * math.fsum(answer.samples.tpot_s)


def protocol_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every message; `$defs` has each by its name."""
    schema = TypeAdapter(Request | Answer | Refusal).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _quote(line: bytes) -> str:
    return show(line[: MAX_SHOWN + 1].decode(errors="replace"))
