"""Training of converted and of dense models with transformers' Trainer: settings, the trainer, and what it logs."""

from reference_impl.training.callbacks import read_log
from reference_impl.training.mod_trainer import ModTrainer
from reference_impl.training.settings import TrainConfig
from reference_impl.training.train import train

__all__ = ["ModTrainer", "TrainConfig", "read_log", "train"]
