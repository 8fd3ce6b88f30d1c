"""Any decoder-only `config.json` -> a `ModelShape` for estimates, also of families that cannot be converted.

In: a file or its parsed content, in the common spellings of sizes. Out: the shape, or one line that names the key which says why
not. Families that can be converted are read as a run reads them. For others norms, biases and learned positions are left out,
and what a file does not say is what it means in transformers: embeddings are tied, an MLP without a gate is four hidden sizes wide.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modbench.errors import ScenarioError
from modbench.geometry import FAMILIES, MAX_LAYERS, MAX_POSITIONS, MAX_SIZE
from modbench.model_shape import Experts, LayerShape, ModelShape
from modbench.scenario.config_geometry import geometry_from_config, nested_config
from modbench.scenario.geometry import check_heads
from modbench.scenario.model_folder import MAX_CONFIG_BYTES, parse_config
from modbench.scenario.source import is_irregular
from modbench.scenario.wording import show

Config = Mapping[str, Any]
MIN_WINDOW = 2  # a query sees itself and one token more

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_ACTIVATION = ("hidden_act", "hidden_activation", "activation_function", "activation")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "moe_top_k",
    "moe_topk",
    "moe_k",
)
_EXPERT_INNER = ("moe_intermediate_size", "expert_ffn_hidden_size")
_SHARED_EXPERTS = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
_DENSE_LAYERS = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
_SHARED_INNER = ("shared_expert_intermediate_size", "shared_intermediate_size")

_PLAIN_MLP = ("bloom", "falcon", "mpt")  # two matrices, and no activation under a usual key
_GATED_MLP = (
    "bitnet",
    "dbrx",
    "gemma",
    "modernbert-decoder",
    "vaultgemma",
)  # three matrices, and an activation that others have with two
_GATED_ACTIVATIONS = ("silu", "swish", "swiglu", "geglu", "gegelu")
_FULL_EVERY = {
    "cohere2": 4,
    "gpt_oss": 2,
    "olmo3": 4,
}  # every n-th layer attends in full where the file does not say which

# A key with a value says that the layers are not what a prediction knows.
_REFUSED_KEYS = {
    "is_encoder_decoder": "an encoder-decoder model",
    "type_vocab_size": "an encoder",
    "relative_attention": "an encoder",
    "projection_dim": "an encoder",
    "use_bidirectional_attention": "attention to later tokens",
    "kv_lora_rank": "multi-head latent attention",
    "v_head_dim": "values of another size than keys",
    "attention_chunk_size": "chunked attention",
    "attention_types": "attention of several kinds",
    "keep_window_size": "attention to chosen keys",
    "cross_attention_layers": "cross-attention",
    "num_kv_shared_layers": "layers that share their cache",
    "hidden_size_per_layer_input": "embeddings per layer",
    "num_codebooks": "several output streams",
    "H_cycles": "layers that run in cycles",
    "state_size": "state-space layers",
    "ssm_state_size": "state-space layers",
    "mamba_d_state": "state-space layers",
    "linear_num_key_heads": "linear attention",
    "qk_dim_factor": "linear attention",
    "layers_block_type": "layers of several kinds",
    "block_types": "layers of several kinds",
    "block_configs": "layers of several kinds",
    "hybrid_override_pattern": "layers of several kinds",
    "attn_layer_period": "layers of several kinds",
    "full_attn_idxs": "layers of several kinds",
}
_REFUSED_FAMILIES = {"arctic": "a mixture beside an MLP", "jetmoe": "experts in its attention"}
_REFUSED_HEADS = ("MaskedLM", "Classification", "QuestionAnswering")


def shape_of_file(path: Path) -> ModelShape:
    """The shape that a `config.json`, or a folder with one, describes. Nothing else is opened.

    Raises:
        ScenarioError: without a location: no readable config there, or `shape_of_config` refuses it.
    """
    file = path / "config.json" if path.is_dir() else path
    where = f"{file.name} in {show(str(file.parent))}"
    try:
        if is_irregular(file):
            raise ScenarioError(f"{where} is not a regular file; expected a config.json")
        with file.open("rb") as opened:
            raw = opened.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ScenarioError(f"{where} cannot be read ({error.strerror}); expected a Hugging Face config.json") from None
    return shape_of_config(parse_config(raw, where), where)


def shape_of_config(config: dict[str, Any], where: str = "config.json") -> ModelShape:
    """The shape of any decoder-only language model, or of the one inside a multimodal model.

    Raises:
        ScenarioError: without a location: a size is missing or unusable, or a key says that the model is of another kind.
    """
    config = nested_config(config) or config
    _refuse(config, where)
    if config.get("model_type") in FAMILIES:
        geometry = geometry_from_config(config, where)
        check_heads(geometry)
        return geometry.shape()
    config = {**_section(config, "attn_config"), **_section(config, "ffn_config"), **config}
    return _Reader(config, where).shape()


def _section(config: Config, key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _refuse(config: Config, where: str) -> None:
    refused = [(key, meaning) for key, meaning in _REFUSED_KEYS.items() if config.get(key)]
    family = str(config.get("model_type"))
    if family in _REFUSED_FAMILIES:
        refused.append(("model_type", _REFUSED_FAMILIES[family]))
    if refused:
        key, meaning = refused[0]
        raise ScenarioError(f"{where}: {key}: got {show(config[key])}, {meaning}; expected a plain decoder-only model")
    heads = config.get("architectures")
    for head in heads if isinstance(heads, list) else []:
        if str(head).endswith(_REFUSED_HEADS):
            raise ScenarioError(f"{where}: architectures: got {show(head)}; expected a causal language model")
    types = config.get("layer_types")
    for kind in types if isinstance(types, list) else []:
        if kind not in ("full_attention", "sliding_attention"):
            raise ScenarioError(
                f"{where}: layer_types: got {show(kind)}; expected full_attention and sliding_attention only"
            )


class _Reader:
    """Reads the sizes of one config, each under the first of its names that has a value."""

    def __init__(self, config: Config, where: str) -> None:
        self.config = config
        self.where = where
        self.family = str(config.get("model_type"))
        self.num_layers = self.size(_LAYERS, MAX_LAYERS)
        self.hidden_size = self.size(_HIDDEN)

    def shape(self) -> ModelShape:
        """The whole model."""
        vocab_size = self.size(("vocab_size",))
        heads = self.size(_HEADS)
        head_dim = self.optional(("head_dim",)) or self._head_size(heads)
        kv_heads = self._kv_heads(heads)
        windows = self._windows()
        layers = tuple(
            LayerShape(
                attention_parameters=2 * self.hidden_size * (heads + kv_heads) * head_dim,
                attention_width=heads * head_dim,
                kv_width=2 * kv_heads * head_dim,
                window=windows[index],
                mlp_parameters=self._shared_parameters(index),
                experts=self._experts() if self._is_sparse(index) else None,
            )
            for index in range(self.num_layers)
        )
        num_embeddings = 1 if self.config.get("tie_word_embeddings", True) else 2
        total = sum(layer.num_parameters for layer in layers) + num_embeddings * vocab_size * self.hidden_size
        positions = self.optional(_POSITIONS, MAX_POSITIONS)
        return ModelShape(layers, self.hidden_size, vocab_size, total, head_dim, positions)

    def size(self, names: tuple[str, ...], maximum: int = MAX_SIZE) -> int:
        """A size that must be there."""
        value = self.optional(names, maximum)
        if value is None:
            raise ScenarioError(f"{self.where} has no {names[0]}; expected a decoder-only model's config")
        return value

    def optional(self, names: tuple[str, ...], maximum: int = MAX_SIZE) -> int | None:
        """A size, or None where the config has none or 0."""
        key = next((name for name in names if self.config.get(name)), None)
        if key is None:
            return None
        value = self.config[key]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
            raise ScenarioError(
                f"{self.where}: {key}: got {show(value)}; expected an integer >= 1 and <= {maximum}, the same in every layer"
            )
        return value

    def _head_size(self, heads: int) -> int:
        if self.hidden_size % heads:
            raise ScenarioError(
                f"{self.where}: got hidden_size {self.hidden_size} with {heads} attention heads; "
                "expected a multiple of num_attention_heads, or head_dim"
            )
        return self.hidden_size // heads

    def _kv_heads(self, heads: int) -> int:
        if self.config.get("multi_query") and not self.config.get("new_decoder_architecture"):
            return 1
        return self.optional(_KV_HEADS) or heads

    def _num_matrices(self) -> int:
        """Weight matrices of an MLP: gate, up and down, or only the latter two."""
        if self.family in _GATED_MLP:
            return 3
        if self.family in _PLAIN_MLP:
            return 2
        activation = next((self.config[name] for name in _ACTIVATION if isinstance(self.config.get(name), str)), None)
        if activation is None:
            raise ScenarioError(f"{self.where} has no hidden_act; expected one, which tells whether the MLP has a gate")
        return 3 if activation.lower().startswith(_GATED_ACTIVATIONS) else 2

    def _inner_size(self) -> int:
        if self._num_matrices() == 3:
            return self.size(_INNER)
        return self.optional(_INNER) or self.hidden_size * (self.optional(("expansion_ratio",)) or 4)

    def _shared_parameters(self, index: int) -> int:
        """Of the MLP, what every token passes: all of it, or a mixture's router and shared experts."""
        per_unit = self._num_matrices() * self.hidden_size
        if not self._is_sparse(index):
            return per_unit * self._inner_size()
        shared = self.optional(_SHARED_INNER) or (self.optional(_SHARED_EXPERTS) or 0) * self._expert_inner_size()
        return per_unit * shared + self.hidden_size * self.size(_EXPERTS)

    def _expert_inner_size(self) -> int:
        return self.optional(_EXPERT_INNER) or self._inner_size()

    def _experts(self) -> Experts:
        parameters = self._num_matrices() * self.hidden_size * self._expert_inner_size()
        num_experts, per_token = self.size(_EXPERTS), self.size(_EXPERTS_PER_TOKEN)
        if per_token > num_experts:
            raise ScenarioError(
                f"{self.where}: got {per_token} experts per token of {num_experts}; expected at most all"
            )
        return Experts(num_experts, per_token, parameters)

    def _is_sparse(self, index: int) -> bool:
        """Whether the MLP of a layer is a mixture of experts."""
        config = self.config
        plain, kinds = config.get("mlp_only_layers"), config.get("mlp_layer_types")
        if not self.optional(_EXPERTS) or (isinstance(plain, list) and index in plain):
            return False
        if isinstance(kinds, list) and len(kinds) == self.num_layers:
            return bool(kinds[index] == "sparse")
        last = config.get("moe_layer_end_index", -1)
        first = self.optional(_DENSE_LAYERS) or 0
        step = self.optional(("decoder_sparse_step", "moe_layer_interval")) or 1
        is_before_end = last == -1 or (isinstance(last, int) and index <= last)
        return first <= index and is_before_end and (index + 1) % step == 0

    def _windows(self) -> list[int | None]:
        window, types = self.optional(("sliding_window",), MAX_POSITIONS), self.config.get("layer_types")
        if window is None or self.config.get("use_sliding_window") is False:
            return [None] * self.num_layers
        if window < MIN_WINDOW:
            raise ScenarioError(f"{self.where}: sliding_window: got {window}; expected at least {MIN_WINDOW}, or none")
        if isinstance(types, list) and len(types) != self.num_layers:
            raise ScenarioError(
                f"{self.where}: got {len(types)} layer_types; expected one for each of the {self.num_layers} layers"
            )
        if isinstance(types, list):
            return [window if kind == "sliding_attention" else None for kind in types]
        first = self.optional(("max_window_layers",)) if "use_sliding_window" in self.config else None
        every = self.optional(("sliding_window_pattern",)) or _FULL_EVERY.get(self.family, self.num_layers + 1)
        return [window if index >= (first or 0) and (index + 1) % every else None for index in range(self.num_layers)]
