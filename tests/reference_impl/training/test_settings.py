"""TrainConfig refuses what it cannot mean and survives a file."""

import pytest
import yaml

from reference_impl.errors import TrainingError
from reference_impl.training import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: got 0; expected an integer >= 1"),
        ({"steps": True}, "steps: got True"),
        ({"steps": 1.5}, "steps: got 1.5"),
        ({"batch_size": 0}, "batch_size: got 0; expected an integer >= 1"),
        ({"save_every": -1}, "save_every: got -1; expected an integer >= 0"),
        ({"mode": "qlora"}, "mode: got 'qlora'; expected one of full, router, lora"),
        ({"precision": "fp16"}, "precision: got 'fp16'; expected one of fp32, bf16"),
        ({"schedule": "step"}, "schedule: got 'step'; expected one of linear, cosine, constant"),
        ({"learning_rate": -1.0}, "learning_rate: got -1.0; expected a finite number >= 0"),
        ({"learning_rate": float("inf")}, "learning_rate: got inf"),
        ({"learning_rate": "3e-5"}, "learning_rate: got '3e-5'; expected a finite number >= 0: write 3.0e-5"),
        ({"learning_rate": "fast"}, "learning_rate: got 'fast'; expected a finite number >= 0$"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing: got 1; expected true or false"),
        ({"warmup_steps": 11}, "warmup_steps: got 11; expected at most the 10 steps"),
        ({"learning_rates": 1.0}, "learning_rates: unknown setting; expected some of steps, batch_size"),
    ],
)
def test_impossible_values_are_refused_in_one_line(settings, message):
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_dict({"steps": 10, **settings})


def test_the_number_of_steps_has_no_default():
    with pytest.raises(TrainingError, match="steps: missing; expected the number of optimiser steps"):
        TrainConfig.from_dict({})


def test_settings_survive_a_file():
    config = TrainConfig(steps=7, mode="lora", distillation=0.25, learning_rate=3e-05)
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
