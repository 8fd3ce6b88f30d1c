"""What a program may answer: everything else is an error of one line that says what is wrong."""

import json

import jsonschema
import pytest

from modbench.command_protocol import (
    Answer,
    Refusal,
    Request,
    TokenFile,
    check_answer,
    other_work,
    parse_answer,
    protocol_json_schema,
    sampled_s,
)
from modbench.errors import AnswerError
from tests.modbench.jobs import make_point

NUM_STEPS = 16
GOOD = {
    "protocol_version": 1,
    "samples": {"ttft_s": [0.5, 1], "tpot_s": [0.25, 0.5], "itl_s": [0.25] * NUM_STEPS + [0.5] * NUM_STEPS},
    "num_prompt_tokens": 128,
    "num_output_tokens": 34,
    "metrics": {"kv_cache_bytes": 4096, "energy_j": 1.5, "peak_rss_bytes": None},
    "keep_ratio": {"prefill": [1, 0.25, 1, 0.25]},
    "flags": ["sampled, not greedy"],
    "environment": {"engine": "3.1", "threads": 4, "is_paged": True},
}
REQUEST = Request(
    point=make_point({"command": ["./engine"], "options": {}, "env": {}}),
    device="cpu",
    tokens=TokenFile(path="/somewhere/ids", shape=(2, 80)),
    num_samples=2,
    warmup="auto",
    memory_limit_bytes=None,
    device_limit_bytes=None,
)


def answer_of(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def changed(section: str, **values: object) -> bytes:
    return answer_of(**{section: {**GOOD[section], **values}})


def test_a_sound_answer_is_read_as_it_was_written():
    answer = parse_answer(answer_of())
    assert isinstance(answer, Answer)
    check_answer(answer, REQUEST)
    assert answer.samples.ttft_s == [0.5, 1.0]
    assert answer.metrics.model_dump(exclude_none=True) == {"kv_cache_bytes": 4096, "energy_j": 1.5}
    assert other_work(answer, REQUEST) is None
    assert sampled_s(answer, REQUEST) == 1.5 + NUM_STEPS * 0.75


def test_only_times_and_token_counts_are_needed():
    needed = {key: GOOD[key] for key in ("protocol_version", "num_prompt_tokens", "num_output_tokens")}
    answer = parse_answer(json.dumps({**needed, "samples": {"ttft_s": [1, 1], "tpot_s": [1, 1]}}).encode())
    check_answer(answer, REQUEST)
    assert answer.samples.itl_s == []


def test_a_line_with_an_error_is_a_refusal():
    line = b'{"protocol_version": 1, "status": "oom", "error": "96 GiB of weights"}'
    assert parse_answer(line) == Refusal(protocol_version=1, status="oom", error="96 GiB of weights")


BAD = {
    "not a number": (b'{"protocol_version": 1, "samples": NaN}', "which is no JSON"),
    "infinite": (answer_of().replace(b"[0.5, 1]", b"[1e999, 1]"), "samples.ttft_s.0: "),
    "negative": (changed("samples", ttft_s=[-1, 1]), "samples.ttft_s.0: Input should be greater than 0"),
    "zero": (changed("samples", tpot_s=[0, 1]), "samples.tpot_s.0: Input should be greater than 0"),
    "zero gap": (changed("samples", itl_s=[0.0]), "samples.itl_s.0: Input should be greater than 0"),
    "text for a number": (changed("samples", ttft_s=["1", 1]), "samples.ttft_s.0: Input should be a valid number"),
    "true for a number": (answer_of(num_prompt_tokens=True), "num_prompt_tokens: Input should be a valid integer"),
    "no samples": (changed("samples", ttft_s=None), "samples.ttft_s: Input should be a valid array"),
    "unknown metric": (changed("metrics", speed=3), "metrics.speed: Extra inputs are not permitted"),
    "unknown key": (answer_of(speed=3), "speed: Extra inputs are not permitted"),
    "unprintable key": (answer_of(**{"\x1b[31m": 3}), "\\x1b[31m: Extra inputs are not permitted"),
    "perplexity of nothing": (changed("metrics", perplexity=0), "metrics.perplexity: Input should be greater than 0"),
    "half a byte": (changed("metrics", kv_cache_bytes=0.5), "metrics.kv_cache_bytes: Input should be a valid integer"),
    "share above 1": (answer_of(keep_ratio={"prefill": [1.1]}), "keep_ratio.prefill.0: "),
    "newer protocol": (answer_of(protocol_version=2), "protocol_version: Input should be 1"),
    "control characters": (answer_of(flags=["\x1b[31mred"]), "flags.0: "),
    "unknown status": (b'{"protocol_version": 1, "status": "ok", "error": "no"}', "status: Input should be 'oom'"),
    "a list": (b"[1, 2]", "'[1, 2]': Input should be an object"),
    "half an object": (b'{"protocol_version": 1', "which is no JSON"),
    "no text": (b"\xff\xfe\x00", "which is no JSON"),
    "a banner": (b"loading weights ...", "got 'loading weights ...', which is no JSON"),
}


@pytest.mark.parametrize(("line", "text"), BAD.values(), ids=BAD)
def test_anything_else_is_an_error_of_one_line(line, text):
    with pytest.raises(AnswerError) as caught:
        parse_answer(line)
    assert text in str(caught.value)
    assert str(caught.value).startswith("answer: ")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (changed("samples", ttft_s=[1]), "samples.ttft_s: got 1 values; expected 2"),
        (changed("samples", tpot_s=[]), "samples.tpot_s: got 0 values; expected 2"),
        (changed("samples", itl_s=[0.25] * 16), "samples.itl_s: got 16 values; expected 32"),
        (changed("samples", decode_device_s=[1.0]), "samples.decode_device_s: got 1 values; expected 2"),
        (
            changed("samples", tpot_s=[0.25, 500]),
            "samples.tpot_s.1: got 500; expected the mean of its gaps in itl_s, 0.5",
        ),
        (answer_of(keep_ratio={"decode": [0.5]}), "keep_ratio.decode: got 1 values; expected one per layer, 4"),
    ],
)
def test_an_answer_has_what_was_asked_for(line, text):
    with pytest.raises(AnswerError, match=r"^answer: ") as caught:
        check_answer(parse_answer(line), REQUEST)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_prompt_tokens": 64}, "num_prompt_tokens: got 64; expected 128, over all rows"),
        ({"num_output_tokens": 32}, "num_output_tokens: got 32; expected 34, over all rows"),
    ],
)
def test_other_numbers_of_tokens_are_other_work(changes, text):
    assert text in other_work(parse_answer(answer_of(**changes)), REQUEST)


def test_every_message_fits_the_schema_that_is_printed():
    schema = protocol_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    refusal = {"protocol_version": 1, "status": "unsupported", "error": "no such card"}
    for message in (json.loads(REQUEST.model_dump_json()), GOOD, refusal):
        jsonschema.validate(message, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GOOD, "speed": 3}, schema)
