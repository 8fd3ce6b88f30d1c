"""A Hugging Face `config.json` of a family that can be converted -> its `Geometry`.

In: the parsed file. Out: the geometry, with what the file leaves to its family filled in. A multimodal model's language model is
read from inside its config.
"""

from typing import Any

from pydantic import ValidationError

from modbench.errors import ScenarioError
from modbench.geometry import FAMILIES, Geometry, window_kind
from modbench.scenario.problems import describe
from modbench.scenario.wording import near_match, show

_REQUIRED = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "model_type",
)
_NESTED_UNDER = ("text_config", "llm_config", "language_config")
_BIASED_FAMILIES = ("qwen2",)  # these have query, key and value biases without saying so in config.json
_GEMMA: dict[str, Any] = {"tie_word_embeddings": True, "sliding_window": 4096, "head_dim": 256}
# What a config.json may leave out because the family's class has it by itself.
IMPLIED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 4096},
    "qwen2": {"sliding_window": 4096, "max_window_layers": 28},
    "qwen3": {"sliding_window": 4096, "max_window_layers": 28, "head_dim": 128},
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
}
# Inside a multimodal config the sizes too are left out where they are the class's.
IMPLIED_INSIDE: dict[str, dict[str, Any]] = {
    "llama": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
    },
    "mistral": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
    },
    "gemma3_text": {
        "num_hidden_layers": 26,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
    },
}
_ROPE_THETA = {"gemma3_text": 1e6}  # of layers that attend in full, where the file says nothing


def nested_config(config: dict[str, Any]) -> dict[str, Any] | None:
    """The language model's config inside a multimodal one; None where this is a language model's already."""
    inner = next((config[key] for key in _NESTED_UNDER if isinstance(config.get(key), dict)), None)
    if inner is None:
        return None
    outer = {key: config[key] for key in ("tie_word_embeddings", "vocab_size") if key in config}
    return {**IMPLIED_INSIDE.get(str(inner.get("model_type")), {}), **outer, **inner}


def geometry_from_config(config: dict[str, Any], where: str) -> Geometry:
    """The geometry that a language model's config describes; `where` names the file in errors.

    Raises:
        ScenarioError: without a location: keys are missing or unusable, another family, windows that the family has not.
    """
    family = config.get("model_type")
    config = {**IMPLIED.get(str(family), {}), **config}
    given = {key: value for key, value in config.items() if key in Geometry.model_fields and value is not None}
    missing = [key for key in _REQUIRED if key not in given]
    if missing:
        raise ScenarioError(f"{where} has no {', '.join(missing)}; expected a decoder-only model's config")
    given |= _rope_theta(config)
    if family in _BIASED_FAMILIES:
        given.setdefault("attention_bias", True)
    for key in ("sliding_window", "layer_types"):
        given.pop(key, None)
    if family in FAMILIES:
        given |= _windows(config, where)
    try:
        geometry = Geometry.model_validate(given)
    except ValidationError as error:
        raise ScenarioError(_first_finding(error, where)) from None
    plain = geometry.model_copy(update={"layer_types": None})
    return plain if plain.windows == geometry.windows else geometry


def _rope_theta(config: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 keeps it under `rope_parameters`, by kind of layer where they differ; older configs at the top."""
    if config.get("rope_theta") is not None:
        return {"rope_theta": config["rope_theta"]}
    rope = config.get("rope_parameters")
    rope = rope.get("full_attention", rope) if isinstance(rope, dict) else {}
    if isinstance(rope, dict) and "rope_theta" in rope:
        return {"rope_theta": rope["rope_theta"]}
    family = config["model_type"]
    return {"rope_theta": _ROPE_THETA[family]} if family in _ROPE_THETA else {}


def _windows(config: dict[str, Any], where: str) -> dict[str, Any]:
    """`sliding_window` and `layer_types` as the family's class reads them."""
    family, window = config["model_type"], config.get("sliding_window")
    if family in ("qwen2", "qwen3") and not config.get("use_sliding_window"):
        window = None
    kind, types = window_kind(family), config.get("layer_types")
    types = types if isinstance(types, list) else None
    if types and "sliding_attention" in types:
        if window is None:
            raise ScenarioError(f"{where} has sliding-window layers without a sliding_window; expected both or none")
        if kind != "by_layer" and not (kind == "every_layer" and set(types) == {"sliding_attention"}):
            raise ScenarioError(f"{where} has sliding-window layers among others, which {family} cannot have")
    if kind == "none" or window is None or (kind == "every_layer" and types and "sliding_attention" not in types):
        return {}
    if kind == "every_layer":
        return {"sliding_window": window}
    return {"sliding_window": window, "layer_types": types or _types_by_number(config)}


def _types_by_number(config: dict[str, Any]) -> list[str] | None:
    """Older configs say which layers have the window by one number; None: the family's own pattern."""
    num_layers, first, pattern = (
        config.get(key) for key in ("num_hidden_layers", "max_window_layers", "sliding_window_pattern")
    )
    if not isinstance(num_layers, int):
        return None
    if config["model_type"] in ("qwen2", "qwen3") and isinstance(first, int):
        is_full = [layer < first for layer in range(num_layers)]
    elif config["model_type"] == "gemma3_text" and isinstance(pattern, int) and pattern > 0:
        is_full = [(layer + 1) % pattern == 0 for layer in range(num_layers)]
    else:
        return None
    return ["full_attention" if full else "sliding_attention" for full in is_full]


def _first_finding(error: ValidationError, where: str) -> str:
    finding = error.errors(include_url=False)[0]
    if not finding["loc"]:
        return f"{where}: {finding['ctx']['error']}"
    key = str(finding["loc"][0])
    schema = Geometry.model_json_schema()["properties"][key]
    if len(finding["loc"]) > 1:
        schema = next(option["items"] for option in schema["anyOf"] if "items" in option)
    near = near_match(str(finding["input"]), schema.get("enum", []))
    advice = f"; did you mean {near}?" if near else ""
    return f"{where}: {key}: got {show(finding['input'])}; expected {describe(schema)}{advice}"
