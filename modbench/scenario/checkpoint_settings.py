"""The key `checkpoint` of methods that can run a saved model, and what such a folder decides.

In: settings as users write them. Out: `CheckpointSettings`, which those methods' settings inherit, and `Checkpoint`, which
`checkpoints.py` makes of a folder.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_serializer, model_validator

from modbench.scenario.strict_model import StrictModel


class Checkpoint(BaseModel):
    """A saved model that a method runs: the hash of its folder, and the settings that its `config.json` decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    settings: dict[str, Any]


class CheckpointSettings(StrictModel):
    """A method that runs a saved model in the place of the scenario's, where `checkpoint` names one.

    Attributes:
        decided_by_checkpoint: keys that are the checkpoint's then: giving them as well is an error, and they are in no dump.
    """

    decided_by_checkpoint: ClassVar[tuple[str, ...]] = ()

    checkpoint: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="the folder of a saved model to run instead, such as a trained one"
    )

    @model_validator(mode="after")
    def _one_who_decides(self) -> "CheckpointSettings":
        given = [key for key in self.decided_by_checkpoint if key in self.model_fields_set]
        if self.checkpoint is not None and given:
            names = " and ".join(given)
            raise ValueError(
                f"got checkpoint with {names}; expected one without {', '.join(self.decided_by_checkpoint)}: the trained model "
                f"decides; leave {names} out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: Callable[["CheckpointSettings"], dict[str, Any]]) -> dict[str, Any]:
        """Without a checkpoint it is no part of the identity of the work; with one, what it decides is not said twice."""
        left_out = ("checkpoint",) if self.checkpoint is None else self.decided_by_checkpoint
        return {key: value for key, value in serialize(self).items() if key not in left_out}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A checkpoint's text excludes the keys that it decides."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.decided_by_checkpoint:
            keys = [{"required": [key]} for key in cls.decided_by_checkpoint]
            schema["if"] = {"properties": {"checkpoint": {"type": "string"}}, "required": ["checkpoint"]}
            schema["then"] = {"not": {"anyOf": keys}}
        return schema
