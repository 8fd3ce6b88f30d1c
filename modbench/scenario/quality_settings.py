"""The key `quality`: what every method's model is evaluated by, once per run and untimed."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from modbench.scenario.strict_model import StrictModel

HELD_OUT, AGREEMENT = "bits_per_byte", "agreement"
PROBES = (HELD_OUT, "needle", "induction")  # of reference_impl.evaluation
MAX_ROWS, MAX_TRIALS, MAX_TEXTS = 1_000_000, 10_000, 100
MAX_EVALUATION_S = 604_800  # a week


def _parse_probes(value: Any) -> Any:
    allowed = f"expected a list of some of {', '.join((*PROBES, AGREEMENT))}, each once"
    if not isinstance(value, list | tuple) or any(probe not in (*PROBES, AGREEMENT) for probe in value):
        raise ValueError(allowed)
    if len(set(value)) != len(value):
        raise ValueError(f"a probe is named twice; {allowed}")
    if not set(value) & set(PROBES):
        raise ValueError(f"expected at least one of {', '.join(PROBES)}")
    return tuple(value)


def _parse_texts(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, list | tuple) and 0 < len(texts) <= MAX_TEXTS and all(_is_path(text) for text in texts):
        return tuple(texts)
    raise ValueError(f"expected a UTF-8 text file, or a list of 1 to {MAX_TEXTS} of them")


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_PATH = {"type": "string", "minLength": 1}
Probes = Annotated[
    tuple[str, ...],
    BeforeValidator(_parse_probes),
    WithJsonSchema(
        {"type": "array", "items": {"enum": [*PROBES, AGREEMENT]}, "minItems": 1, "uniqueItems": True},
    ),
]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_parse_texts),
    WithJsonSchema({"anyOf": [_PATH, {"type": "array", "items": _PATH, "minItems": 1, "maxItems": MAX_TEXTS}]}),
]


class QualitySettings(StrictModel):
    """How good every method's model is: held-out text and synthetic tasks, evaluated untimed after all launches."""

    probes: Probes | None = Field(
        None, description="default: bits_per_byte, needle and induction, with a teacher agreement as well"
    )
    text: Texts | None = Field(None, description="UTF-8 files that the models were not trained on")
    data: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="YAML of training data, whose held-out rows are taken; without text and data the default ones"
    )
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = Field(
        None, description="at most so many rows; default: 64 held-out ones, all of a text"
    )
    context: Annotated[int, Field(ge=2)] | None = Field(
        None, description="tokens of a row, and of the longest synthetic prompt; default: as the command evaluate"
    )
    trials: Annotated[int, Field(ge=1, le=MAX_TRIALS)] = Field(4, description="of the synthetic prompts, per size")
    teacher: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="folder of the dense model that the agreement is with"
    )
    timeout_s: Annotated[float, Field(gt=0, le=MAX_EVALUATION_S)] = Field(
        3600.0, description="per evaluation, from its start"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "QualitySettings":
        if self.text is not None and self.data is not None:
            raise ValueError("got text and data; expected one of them, or neither for the default held-out rows")
        is_asked = self.probes is not None and AGREEMENT in self.probes
        if is_asked and self.teacher is None:
            raise ValueError("got the probe agreement without a teacher; expected teacher: FOLDER of the dense model")
        if self.teacher is not None and self.probes is not None and not is_asked:
            raise ValueError("got a teacher without the probe agreement; expected both; add agreement to the probes")
        return self

    @property
    def probes_in_force(self) -> tuple[str, ...]:
        """The probes that run, the agreement among them."""
        return self.probes or (PROBES if self.teacher is None else (*PROBES, AGREEMENT))
