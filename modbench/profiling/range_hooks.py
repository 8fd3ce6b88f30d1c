"""Named ranges around the modules of a stock model, and around the appends of its stock cache; gone again afterwards.

In: a model as it is. Out: the same model, whose embedding, attention, MLPs, norms and head are ranges while it is hooked. Routed
layers bring their own ranges for attention and MLP, and this project's caches for their appends.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers.cache_utils import DynamicCache

from reference_impl.mod_layer import RoutedLayer
from reference_impl.ranges import ATTENTION, CACHE_APPEND, MLP, named_range

NORM, EMBEDDING, HEAD = "norm", "embedding", "head"
RANGE_OF_MODULE = {
    "embed_tokens": EMBEDDING,
    "self_attn": ATTENTION,
    "mlp": MLP,
    "input_layernorm": NORM,
    "post_attention_layernorm": NORM,
    "pre_feedforward_layernorm": NORM,
    "post_feedforward_layernorm": NORM,
    "norm": NORM,
    "lm_head": HEAD,
}


@contextmanager
def hooked(model: nn.Module) -> Iterator[None]:
    """Make ranges of the model's modules, known by their attribute's name, and of its stock cache's appends."""
    own_ranges = {
        id(module)
        for layer in model.modules()
        if isinstance(layer, RoutedLayer)
        for module in (layer.self_attn, layer.mlp)
    }
    with ExitStack() as undo:
        for path, module in model.named_modules():
            name = RANGE_OF_MODULE.get(path.rsplit(".", 1)[-1])
            if name is not None and id(module) not in own_ranges:
                _hook(module, name, undo)
        handle = model.register_forward_pre_hook(
            lambda module, args, kwargs: _hook_cache(kwargs.get("past_key_values"), undo), with_kwargs=True
        )
        undo.callback(handle.remove)
        yield


def _hook(module: nn.Module, name: str, undo: ExitStack) -> None:
    entered: list[AbstractContextManager[Any]] = []

    def enter(*_: Any) -> None:
        entered.append(named_range(name))
        entered[-1].__enter__()

    def leave(*_: Any) -> None:
        if entered:
            entered.pop().__exit__(None, None, None)

    undo.callback(module.register_forward_pre_hook(enter).remove)
    undo.callback(module.register_forward_hook(leave, always_call=True).remove)


def _hook_cache(cache: Any, undo: ExitStack) -> None:
    """Shadow `update` of this one cache object, the first time it is seen."""
    if type(cache) is not DynamicCache or "update" in vars(cache):
        return
    update = cache.update

    def ranged_update(*args: Any, **kwargs: Any) -> Any:
        with named_range(CACHE_APPEND):
            return update(*args, **kwargs)

    cache.update = ranged_update
    undo.callback(delattr, cache, "update")
