"""YAML -> frozen, strict models; every error in a scenario is raised in this folder."""

from modbench.scenario.expectation import METRICS, Condition, Expectation, Metric, parse_expectation
from modbench.scenario.keys import value_at
from modbench.scenario.loading import LoadedScenario, load_scenario
from modbench.scenario.models import (
    BASELINE,
    KEEP_RATIO_ABSOLUTE,
    KEEP_RATIO_RELATIVE,
    SETTINGS,
    Measure,
    MethodSettings,
    ModelSpec,
    Point,
    Prompt,
    Scenario,
    Workload,
    runs_foreign_code,
)
from modbench.scenario.prompt_text import read_prompt_text, read_text_source
from modbench.scenario.quality import QualityWork
from modbench.scenario.quality_settings import QualitySettings
from modbench.scenario.routed_layers import resolve_routed_layers
from modbench.scenario.schema import json_schema
from modbench.scenario.search import Search

__all__ = [
    "BASELINE",
    "KEEP_RATIO_ABSOLUTE",
    "KEEP_RATIO_RELATIVE",
    "METRICS",
    "SETTINGS",
    "Condition",
    "Expectation",
    "LoadedScenario",
    "Measure",
    "MethodSettings",
    "Metric",
    "ModelSpec",
    "Point",
    "Prompt",
    "QualitySettings",
    "QualityWork",
    "Scenario",
    "Search",
    "Workload",
    "json_schema",
    "load_scenario",
    "parse_expectation",
    "read_prompt_text",
    "read_text_source",
    "resolve_routed_layers",
    "runs_foreign_code",
    "value_at",
]
