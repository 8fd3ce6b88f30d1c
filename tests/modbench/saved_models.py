"""Saved models for the tests of `checkpoint`: a dense one, the same trained on, converted, and with layers removed."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from modbench.geometry import Geometry
from modbench.methods.hf_model import hf_config
from reference_impl import ModConfig, calibrate, convert
from reference_impl.hf_families import remove_layers
from tests.modbench.jobs import MICRO

KEPT = 0.3  # of random text, about, at each routed layer of a converted model
ROUTED = (1, 2)  # not the default, so that nobody can have guessed them


def dense_model(geometry: Geometry = MICRO, seed: int = 7) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(hf_config(geometry)).eval()


def save_dense(folder: Path, geometry: Geometry = MICRO, seed: int = 7) -> Path:
    dense_model(geometry, seed).save_pretrained(folder)
    return folder


def save_converted(
    folder: Path, geometry: Geometry = MICRO, seed: int = 8, config: ModConfig | None = None, kept: float = KEPT
) -> Path:
    """A converted model with settings that no scenario has by default, as training would leave it."""
    config = config or ModConfig(routed_layers=ROUTED, threshold_p=0.55, skipped_gradient="straight_through")
    model = convert(dense_model(geometry, seed), config)
    generator = torch.Generator().manual_seed(seed)
    ids_BT = torch.randint(0, geometry.vocab_size, (2, 200), generator=generator)
    calibrate(model, ids_BT, kept)
    model.save_pretrained(folder)
    return folder


def save_shorter(folder: Path, removed: tuple[int, ...], geometry: Geometry = MICRO, seed: int = 9) -> Path:
    model = dense_model(geometry, seed)
    remove_layers(model, removed)
    model.save_pretrained(folder)
    return folder
