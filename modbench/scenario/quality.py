"""`quality` of a scenario -> `QualityWork`: its files found and hashed, and checked against model and expectations.

In: a validated scenario, its points and expectations. Out: what is to be evaluated, or problems.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from modbench.errors import ScenarioError
from modbench.scenario.expectation import METRICS, Expectation
from modbench.scenario.model_folder import read_model_folder
from modbench.scenario.models import Point, Scenario, runs_foreign_code
from modbench.scenario.problems import Problem
from modbench.scenario.prompt_text import read_text_source
from modbench.scenario.quality_settings import QualitySettings
from modbench.scenario.source import is_irregular
from modbench.scenario.strict_model import StrictModel
from modbench.scenario.wording import show


class QualityWork(StrictModel):
    """What is evaluated; paths open from the folder that modbench was started in, and hashes say what is behind them."""

    probes: tuple[str, ...]
    texts: tuple[str, ...] = ()
    data: str | None = None
    num_rows: int | None = None
    context: int | None = None
    num_trials: int
    teacher: str | None = None
    timeout_s: float
    files_sha256: tuple[str, ...] = ()  # of texts and data
    teacher_sha256: str | None = None

    @property
    def identity(self) -> dict[str, object]:
        """What the numbers depend on: files by content, not by place, and no time limit."""
        return self.model_dump(mode="json", exclude={"texts", "data", "teacher", "timeout_s"}) | {
            "num_texts": len(self.texts)
        }


def resolve_quality(
    scenario: Scenario, points: Sequence[Point], base: Path, is_searched: bool
) -> tuple[QualityWork | None, list[Problem]]:
    """Find what the key names; `base` is the scenario file's folder. None without the key or with problems."""
    settings = scenario.quality
    if settings is None:
        return None, []
    problems: list[Problem] = []
    if is_searched:
        text = "is given with a search; expected sizes; evaluate the methods in a scenario without a search"
        problems.append(Problem(("quality",), text))
    files = _file_hashes(settings, base, problems)
    problems += _context_problems(settings, points)
    teacher_sha256 = _teacher_hash(settings, points, base, problems)
    if problems:
        return None, problems
    return (
        QualityWork(
            probes=settings.probes_in_force,
            texts=tuple(str(base / text) for text in settings.text or ()),
            data=None if settings.data is None else str(base / settings.data),
            num_rows=settings.rows,
            context=settings.context,
            num_trials=settings.trials,
            teacher=None if settings.teacher is None else str(base / settings.teacher),
            timeout_s=settings.timeout_s,
            files_sha256=files,
            teacher_sha256=teacher_sha256,
        ),
        [],
    )


def quality_expectation_problems(expectations: Sequence[Expectation], scenario: Scenario) -> list[Problem]:
    """Say which expectations are about a quality that is not evaluated."""
    probes = () if scenario.quality is None else scenario.quality.probes_in_force
    problems = []
    for index, expectation in enumerate(expectations):
        probe = METRICS[expectation.metric].probe
        if probe is None:
            continue
        settings = scenario.methods[expectation.method]
        start = f"got {show(expectation.text)}: "
        if probe not in probes:
            text = f"{start}{expectation.metric} is the result of an evaluation; add {probe} to quality.probes"
            if scenario.quality is None:
                text = f"{start}{expectation.metric} is the result of an evaluation; add quality: {{probes: [{probe}]}}"
            problems.append(Problem(("expect", index), text))
        elif runs_foreign_code(settings.method):
            text = f"{start}{expectation.method} runs code of its own, which is not evaluated; expected a method of modbench"
            problems.append(Problem(("expect", index), text))
    return problems


def _file_hashes(settings: QualitySettings, base: Path, problems: list[Problem]) -> tuple[str, ...]:
    hashes = []
    for index, text in enumerate(settings.text or ()):
        path = ("quality", "text", index) if len(settings.text or ()) > 1 else ("quality", "text")
        try:
            if (base / text).is_dir():
                raise ScenarioError(f"got {show(str(base / text))}, which is a folder; expected a UTF-8 text file")
            hashes.append(hashlib.sha256(read_text_source(base / text)).hexdigest())
        except ScenarioError as error:
            problems.append(Problem(path, str(error)))
    if settings.data is not None:
        place = base / settings.data
        try:
            if is_irregular(place) or not place.is_file():
                raise ScenarioError(f"got {show(str(place))}, which is no file; expected YAML of training data")
            hashes.append(hashlib.sha256(place.read_bytes()).hexdigest())
        except OSError as error:
            problems.append(
                Problem(("quality", "data"), f"got {show(str(place))}, which cannot be read: {error.strerror}")
            )
        except ScenarioError as error:
            problems.append(Problem(("quality", "data"), str(error)))
    return tuple(hashes)


def _context_problems(settings: QualitySettings, points: Sequence[Point]) -> list[Problem]:
    positions = min((point.geometry.max_position_embeddings for point in points), default=None)
    if settings.context is None or positions is None or settings.context <= positions:
        return []
    text = f"got {settings.context}; expected 2 to {positions}, the positions of the model"
    return [Problem(("quality", "context"), text)]


def _teacher_hash(
    settings: QualitySettings, points: Sequence[Point], base: Path, problems: list[Problem]
) -> str | None:
    if settings.teacher is None:
        return None
    place = base / settings.teacher
    try:
        folder = read_model_folder(place, reads_weights=True)
        if folder.is_converted or not folder.has_weights:
            found = "a converted model" if folder.is_converted else "a folder without safetensors"
            raise ScenarioError(f"got {found} in {show(str(place))}; expected a dense model with its weights")
        vocab_size = folder.config.get("vocab_size")
        other = next((point for point in points if point.geometry.vocab_size != vocab_size), None)
        if other is not None:
            raise ScenarioError(
                f"got a vocabulary of {show(vocab_size)} in {show(str(place))}; expected {other.geometry.vocab_size} as the model"
            )
    except ScenarioError as error:
        problems.append(Problem(("quality", "teacher"), str(error)))
        return None
    return folder.sha256
