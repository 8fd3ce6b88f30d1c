"""By what a model and an environment are known again. In: a model. Out: a hash of its weights, and versions."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from transformers import PreTrainedModel

SAMPLED = 4096  # values per tensor; a changed checkpoint changes more than what falls between them
PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers")


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256, 16 hex digits, over names, shapes, dtypes, and up to 4,096 values of each tensor, evenly spaced. Our choice."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        values = tensor.detach().flatten()
        values = values[:: max(1, values.numel() // SAMPLED)].contiguous().cpu()
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str | None]:
    """Of Python and of what decides results; None where a package is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
