"""YAML -> frozen, strict models; every error in a scenario is raised in this folder."""

from modbench.scenario.models import BASELINE, SETTINGS, Measure, MethodSettings, ModelSpec, Point, Scenario, Workload

__all__ = ["BASELINE", "SETTINGS", "Measure", "MethodSettings", "ModelSpec", "Point", "Scenario", "Workload"]
