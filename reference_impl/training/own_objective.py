"""A user's own objective: `module:factory` -> an `Objective`, checked each time it is asked.

```python
# my_objectives.py
def half():
    def objective(loads, config, progress):
        return sum((load.mean_gate() - 0.5).square() for load in loads)
    return objective
```

`factory()` takes nothing and returns a function of (loads, config, progress), as `reference_impl.objective.Objective` says: the
loads of the routed layers in one forward of one process, the model's `ModConfig`, and the share of the training that is done. What
it returns is added to the loss: a scalar tensor, differentiable in `load.gate_BT` or `load.bias`.

The name comes from whoever starts the training, never from a file of a model: importing it runs its code.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from reference_impl.config import ModConfig
from reference_impl.errors import TrainingError
from reference_impl.objective import LayerLoad, Objective


def own_objective(name: str) -> Objective:
    """The objective that `module:factory` makes. Errors inside the module or the factory are its own and come as they are.

    Raises:
        TrainingError: the name is of another form, the module or the factory is not there, or it makes no function.
    """
    module_name, colon, factory_name = name.partition(":")
    if not colon or not factory_name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise TrainingError(f"objective: got {name!r}; expected package.module:factory")
    if not _is_there(module_name):
        raise TrainingError(f"objective: {name}: no module {module_name!r} to import; put its folder on PYTHONPATH")
    factory = getattr(importlib.import_module(module_name), factory_name, None)
    if not callable(factory):
        found = "no" if factory is None else f"{type(factory).__name__}, not a function,"
        raise TrainingError(f"objective: {name}: {module_name} has {found} {factory_name!r}")
    return _checked(name, factory())


def _is_there(module_name: str) -> bool:
    try:
        return importlib.util.find_spec(module_name) is not None
    except ModuleNotFoundError as error:  # of a package above it
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        return False


def _checked(name: str, made: Any) -> Objective:
    if not callable(made):
        raise TrainingError(
            f"objective: {name}: the factory returned {type(made).__name__}; expected a function of (loads, config, progress)"
        )

    def objective(loads: Sequence[LayerLoad], config: ModConfig, progress: float) -> Tensor:
        value = made(loads, config, progress)
        if not isinstance(value, Tensor) or value.dim() != 0 or not value.is_floating_point():
            found = (
                f"a tensor of {value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            )
            raise TrainingError(f"objective: {name}: it returned {found}; expected a scalar tensor of a float dtype")
        return value

    return objective
