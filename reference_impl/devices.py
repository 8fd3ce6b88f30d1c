"""The device that a command was told to use. In: its name. Out: a torch device that is there, or one error."""

import torch

from reference_impl.errors import CommandError


def find_device(name: str) -> torch.device:
    """The device of this name; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        CommandError: it is not there.
    """
    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device(found[1] if len(found) > 1 else "cpu")
    if ("cuda:0" if name == "cuda" else name) not in found:
        raise CommandError(f"--device: got {name!r}; expected auto, {', '.join(found)}")
    return torch.device(name)
