"""One cell of the matrix -> a `Point`: geometry, prompt and layers resolved, and everything checked against everything.

In: a validated scenario with the cell's values in place. Out: a `Point`, or the problems of the cell.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from modbench.errors import ScenarioError
from modbench.presets import Geometry
from modbench.scenario.checkpoint_settings import Checkpoint
from modbench.scenario.checkpoints import resolve_checkpoint
from modbench.scenario.geometry import ResolvedModel, resolve_model
from modbench.scenario.models import KEEP_RATIO_ABSOLUTE, KEEP_RATIO_RELATIVE, Point, Prompt, Scenario
from modbench.scenario.problems import Problem
from modbench.scenario.prompt_text import read_prompt_text
from modbench.scenario.routed_layers import resolve_routed_layers

NUM_BYTE_VALUES = 256
Resolved = TypeVar("Resolved")


@dataclass
class CellResolver:
    """Resolves cells of one scenario; files are read once each, whatever the number of cells."""

    base: Path
    _cache: dict[tuple[str, str], Any] = field(default_factory=dict)

    def resolve(self, scenario: Scenario, axes: dict[str, Any]) -> Point | list[Problem]:
        """Return the point, or everything wrong with the cell."""
        model, workload = scenario.model, scenario.workload
        problems: list[Problem] = []
        if model.max_positions is not None and not model.has_random_weights:
            text = f"got {model.max_positions} with checkpoint weights; expected no max_positions, or weights: random"
            problems.append(Problem(("model", "max_positions"), text))
        source = next(name for name in ("preset", "path", "geometry") if getattr(model, name) is not None)
        resolved = self._once(
            ("model", source), model.model_dump_json(), lambda: resolve_model(model, self.base), problems
        )
        prompt_path = ("workload", "prompt", "text")
        prompt_sha256 = None
        if workload.prompt.text is not None:
            prompt_sha256 = self._once(
                prompt_path, workload.prompt.text, lambda: _text_sha256(workload.prompt, self.base), problems
            )
        checkpoints: dict[str, Checkpoint] = {}
        if resolved is not None:
            checkpoints = self._checkpoints(scenario, resolved.geometry, problems)
            problems += _layer_problems(scenario, resolved.geometry) + _workload_problems(scenario, resolved)
        problems += _keep_ratio_problems(scenario)
        if problems or resolved is None:
            return problems
        return Point(
            axes=axes,
            model=model,
            geometry=resolved.geometry,
            methods=scenario.methods,
            checkpoints=checkpoints,
            workload=workload,
            measure=scenario.measure,
            folder_sha256=resolved.folder_sha256,
            prompt_sha256=prompt_sha256,
        )

    def _checkpoints(self, scenario: Scenario, geometry: Geometry, problems: list[Problem]) -> dict[str, Checkpoint]:
        """The saved models that methods run, by label; each folder is read once per kind of method and geometry."""
        found = {}
        for label, settings in scenario.methods.items():
            place = getattr(settings, "checkpoint", None)
            if place is None:
                continue
            key = f"{settings.method} {place} {geometry.model_dump_json()}"
            read = functools.partial(resolve_checkpoint, settings, self.base / place, geometry)
            checkpoint = self._once(("methods", label, "checkpoint"), key, read, problems)
            if checkpoint is not None:
                found[label] = checkpoint
        return found

    def _once(
        self, path: tuple[str, ...], key: str, read: Callable[[], Resolved], problems: list[Problem]
    ) -> Resolved | None:
        """Call `read` once per key; its error becomes a problem at `path`, every time."""
        if (path[0], key) not in self._cache:
            try:
                self._cache[path[0], key] = read()
            except ScenarioError as error:
                self._cache[path[0], key] = error
        value = self._cache[path[0], key]
        if isinstance(value, ScenarioError):
            problems.append(Problem(path, str(value)))
            return None
        return value


def _text_sha256(prompt: Prompt, base: Path) -> str:
    return hashlib.sha256(read_prompt_text(prompt, base)).hexdigest()


def _layer_problems(scenario: Scenario, geometry: Geometry) -> list[Problem]:
    problems = []
    for label, settings in scenario.methods.items():
        value = getattr(settings, "routed_layers", None)
        if value is None or getattr(settings, "checkpoint", None) is not None:
            continue
        path = ("methods", label, "routed_layers")
        try:
            layers = resolve_routed_layers(value, geometry.num_hidden_layers)
        except ScenarioError as error:
            problems.append(Problem(path, str(error)))
            continue
        if getattr(settings, "removes_layers", False) and len(layers) == geometry.num_hidden_layers:
            text = f"got all {len(layers)} layers, which leaves no model; expected at least one layer that stays"
            problems.append(Problem(path, text))
    return problems


def _workload_problems(scenario: Scenario, resolved: ResolvedModel) -> list[Problem]:
    workload, geometry = scenario.workload, resolved.geometry
    problems = []
    needed, positions = workload.context + workload.new_tokens, geometry.max_position_embeddings
    if needed > positions:
        can_raise = scenario.model.has_random_weights
        advice = f"set model.max_positions: {needed}, or lower the context" if can_raise else "lower the context"
        text = (
            f"got {workload.context} with {workload.new_tokens} new tokens; "
            f"expected at most {positions} positions in all; {advice}"
        )
        problems.append(Problem(("workload", "context"), text))
    if workload.prompt.text is None or resolved.has_tokenizer:
        return problems
    if not scenario.model.has_random_weights:
        text = "got a checkpoint without tokenizer.json; expected one, or prompt: {synthetic: true}"
        problems.append(Problem(("workload", "prompt"), text))
    elif geometry.vocab_size < NUM_BYTE_VALUES:
        text = (
            f"got a vocabulary of {geometry.vocab_size} without a tokenizer; "
            f"expected at least {NUM_BYTE_VALUES} for text read as bytes; use prompt: {{synthetic: true}}"
        )
        problems.append(Problem(("workload", "prompt"), text))
    return problems


def _keep_ratio_problems(scenario: Scenario) -> list[Problem]:
    """A share of the decoded tokens is a whole number of them: too few, and no calibration can hit the target."""
    batch, new_tokens = scenario.workload.batch, scenario.workload.new_tokens
    problems = []
    for label, settings in scenario.methods.items():
        key = getattr(settings, "target_key", None)
        is_trained = getattr(settings, "checkpoint", None) is not None  # so that nothing is calibrated
        target = getattr(settings, key) if key and not is_trained else None
        if target is None or _can_be_kept(target, batch * (new_tokens - 1)):
            continue
        enough = next(
            tokens for tokens in itertools.count(new_tokens) if _can_be_kept(target, batch * (tokens - 1))
        )  # ends: from 50 tokens on, half a token is within the absolute tolerance
        text = (
            f"got {new_tokens}, so {batch * (new_tokens - 1)} decoded tokens, of which no whole number is near "
            f"methods.{label}.{key} {target:g}; expected more; set workload.new_tokens: {enough}"
        )
        problems.append(Problem(("workload", "new_tokens"), text))
    return problems


def _can_be_kept(target: float, num_tokens: int) -> bool:
    nearest = round(target * num_tokens) / num_tokens
    return abs(nearest - target) <= max(KEEP_RATIO_RELATIVE * target, KEEP_RATIO_ABSOLUTE)
