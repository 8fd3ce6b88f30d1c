"""What `modbench doctor` finds out: one check per line, and all of them together. Imports no torch.

In: plain values. Out: frozen models, as JSON and as the doctor's screen show them.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from modbench.measured_devices import MeasuredDevice

Status = Literal["ok", "warn", "missing", "info"]
Group = Literal["machine", "cpu", "memory", "libraries", "gpu", "ceilings"]


class Check(BaseModel):
    """One line: what was looked at, what was found, and what to do about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="stable, in snake case, once per report")
    group: Group
    status: Status = Field(
        description="ok; warn: numbers suffer; missing: not to be had here; info: neither good nor bad"
    )
    finding: str = Field(description="one line of text")
    fix: str = Field("", description="one line, a command where there is one; empty where nothing needs mending")
    gives: str = Field("", description="what can be measured only where this check is not missing")


class OwnCost(BaseModel):
    """What the profiler adds to a decode step: added time / time of a step, as a median of pairs with its exact interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    step_s: float
    added_ratio: float
    interval: tuple[float, float] | None
    num_pairs: int


class DoctorReport(BaseModel):
    """All checks in the order of their groups, and the device's ceilings per dtype."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = Field(
        description="cpu or cuda:N as resolved; None: the device that was asked for is not there"
    )
    checks: list[Check]
    ceilings: list[MeasuredDevice] = Field(description="empty without a device")
