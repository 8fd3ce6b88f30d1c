"""Asking a driver that may not know the answer, may fail once, or may die.

In: calls of an NVML module. Out: their answers, or None with the reason kept: `unsupported`, `interrupted`, `died`. Nothing raises.
"""

from collections.abc import Callable
from typing import Any

# Names of pynvml's error classes without their prefix: numbers of newer drivers have no class in older bindings.
_NEVER = {
    "NotSupported",
    "FunctionNotFound",
    "NoPermission",
    "InvalidArgument",
    "ArgumentVersionMismatch",
    "Deprecated",
}
_PASSING = {"NoData", "NotReady", "InsufficientSize", "InUse", "Memory", "NotFound"}
_DEAD = {"GpuIsLost", "Uninitialized", "DriverNotLoaded", "ResetRequired", "Timeout"}


class DriverCalls:
    """Calls with a memory: what is unsupported is asked once, and a dead driver is not asked again.

    Attributes:
        unsupported: call -> why it has no answer here.
        interrupted: call -> its latest failure, of a call that had answered before and is still asked.
        died: the call and the error after which nothing is asked any more; None while the driver lives.
    """

    def __init__(self, nvml: Any) -> None:
        self.nvml = nvml
        self.unsupported: dict[str, str] = {}
        self.interrupted: dict[str, str] = {}
        self.died: str | None = None
        self._answered: set[str] = set()

    def ask(self, name: str, *arguments: Any, of: str = "") -> Any:
        """The answer of NVML's function `name`; None without one. `of` tells calls of the same function apart."""
        function = getattr(self.nvml, name, None)
        call = f"{name} ({of})" if of else name
        if function is None:
            self.unsupported[call] = "not in this version of nvidia-ml-py"
            return None
        return self.answer(call, lambda: function(*arguments))

    def answer(self, call: str, function: Callable[[], Any]) -> Any:
        """What `function`, known as `call`, returns; None where it raises NVML's error or has nothing to say."""
        if self.died is not None or call in self.unsupported:
            return None
        try:
            value = function()
        except self.nvml.NVMLError as error:
            self._note(call, type(error).__name__.removeprefix("NVMLError_"), str(error))
            return None
        except getattr(self.nvml, "NVMLLibraryMismatchError", self.nvml.NVMLError) as error:  # no NVMLError
            self.unsupported[call] = str(error) or "the driver is too old for this call"
            return None
        self._answered.add(call)
        return value

    def _note(self, call: str, kind: str, text: str) -> None:
        """An error of a call that never answered is about that call; of one that did, it is about the driver."""
        has_answered = call in self._answered
        if kind in _DEAD or (has_answered and kind not in _NEVER | _PASSING):
            self.died = self.died or f"{call}: {text}"
        elif has_answered and kind in _PASSING:
            self.interrupted[call] = text
        else:
            self.unsupported[call] = text
