"""A method's `checkpoint`, the folder of a saved model, as a model: dense, converted, or converted and read as the dense one it is.

In: settings with a `checkpoint`, and the point. Out: models on the device, in the point's dtype and attention.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from modbench.errors import UnsupportedError
from modbench.methods.hf_model import build_model, load_folder
from modbench.plan import PointWork
from reference_impl.convert import set_routed_attention
from reference_impl.hf_families import FAMILIES
from reference_impl.mod_layer import MODEL_TYPE_PREFIX

CHECKPOINT = "checkpoint"  # the key, in settings and errors
UNTRAINED = {"objective": "none", "skipped_gradient": "none"}  # settings of training, which not every operator can have


def build_stock(settings: Mapping[str, Any], point: PointWork, device: torch.device) -> PreTrainedModel:
    """The checkpoint of a method that routes nothing; the point's own model where it has none."""
    if CHECKPOINT not in settings:
        return build_model(point, device)
    return load_folder(Path(settings[CHECKPOINT]), CHECKPOINT, point, device)


def load_converted(
    settings: Mapping[str, Any], point: PointWork, device: torch.device, changes: Mapping[str, Any]
) -> PreTrainedModel:
    """A saved converted model with its own routers; `changes` replace settings of its `modification`.

    Raises:
        UnsupportedError: the folder holds no whole converted model, or settings of another version.
    """
    folder = Path(settings[CHECKPOINT])

    def adapt(config: Any) -> Any:
        saved = getattr(config, "modification", None)
        if not saved:
            raise UnsupportedError(f"{CHECKPOINT}: {folder}: got a {config.model_type}; expected a converted model")
        config.modification = {**saved, **UNTRAINED, **changes}
        return config

    model = load_folder(folder, CHECKPOINT, point, device, adapt)
    set_routed_attention(model, point.attention)
    return model


def load_as_stock(settings: Mapping[str, Any], point: PointWork, device: torch.device) -> PreTrainedModel:
    """The stock model with the weights of a saved converted one, whose routers are left out."""
    return load_folder(Path(settings[CHECKPOINT]), CHECKPOINT, point, device, _stock_config)


def _stock_config(config: Any) -> Any:
    """The stock family's config with the values of a converted model's."""
    family: Any = FAMILIES[config.model_type.removeprefix(MODEL_TYPE_PREFIX)].model
    left_out = ("model_type", "modification", "architectures")
    return family.config_class.from_dict({key: value for key, value in config.to_dict().items() if key not in left_out})
