"""Folders of saved models: read strictly, written whole or not at all. In: a path. Out: a model; or a folder with all its files.

Only safetensors and local files are read, and no code of a checkpoint runs.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from reference_impl.errors import CommandError, UnsupportedModelError
from reference_impl.hf_families import FAMILIES
from reference_impl.mod_layer import MODEL_TYPE_PREFIX

Kind = Literal["dense", "converted", "any"]
DTYPES = ("auto", "float32", "bfloat16", "float16")
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# of tokenizers of every kind, and what a licence wants to travel along; code of a checkpoint stays behind
COPIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", "additional_chat_templates", GENERATION_FILE, "LICENSE*", "NOTICE*",
)  # fmt: skip
_SAVED = "expected a folder that save_pretrained wrote"


def load_folder(folder: Path, kind: Kind = "converted", dtype: str = "auto") -> PreTrainedModel:
    """The model of a local folder, in evaluation mode on the CPU; nothing is looked up elsewhere.

    Args:
        folder: as `save_pretrained` writes it, weights as safetensors.
        kind: what is taken: a stock model of a supported family, a converted one, or either.
        dtype: one of `DTYPES`; auto is the checkpoint's own. Routers are float32 in any case.

    Raises:
        UnsupportedModelError: the folder holds no such model, a file of it is missing or damaged, or weights are missing.
        CommandError: the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise CommandError(f"--dtype: got {dtype!r}; expected one of {', '.join(DTYPES)}")
    check_kind(folder, kind)
    check_weights(folder)
    transformers.utils.logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            attn_implementation=needed_attention(folder),
        )
    except UnsupportedModelError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise UnsupportedModelError(f"{folder}: cannot be loaded: {_first_line(error)}") from error
    for problem in ("missing_keys", "mismatched_keys"):
        names = sorted(map(str, info[problem]))
        if names:  # transformers would make them up and warn
            raise UnsupportedModelError(
                f"{folder}: {problem.replace('_', ' ')}: {', '.join(names[:3])}, {len(names)} in all; expected every weight that "
                f"{CONFIG_FILE} asks for: copy the folder anew"
            )
    return model.eval()


def check_kind(folder: Path, kind: Kind) -> str:
    """The folder's `model_type`, where it is of the kind asked for.

    Raises:
        UnsupportedModelError: there is no configuration, or it is of another kind, or quantised.
    """
    content = _json_object(folder / CONFIG_FILE)
    model_type = content.get("model_type")
    converted = [MODEL_TYPE_PREFIX + name for name in FAMILIES]
    allowed = {"dense": list(FAMILIES), "converted": converted, "any": [*FAMILIES, *converted]}[kind]
    if model_type not in allowed:
        advice = ""
        if kind == "converted" and model_type in FAMILIES:
            advice = ": convert the dense model first (python -m reference_impl convert)"
        if kind == "dense" and model_type in converted:
            advice = ": it is converted already; name the dense model's folder"
        raise UnsupportedModelError(
            f"{folder}: got model_type {model_type!r}; expected one of {', '.join(allowed)}{advice}"
        )
    if content.get("quantization_config") is not None:
        raise UnsupportedModelError(
            f"{folder}: {CONFIG_FILE} has a quantization_config; expected weights in {', '.join(DTYPES[1:])}: name the original"
        )
    return str(model_type)


def needed_attention(folder: Path) -> str | None:
    """The `attn_implementation` that a checkpoint needs: eager where logits are capped, as in Gemma-2; None where any will do.

    transformers 5.17 takes one that drops the cap.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return None if getattr(config, "attn_logit_softcapping", None) is None else "eager"


def check_weights(folder: Path) -> None:
    """Every file of weights can be opened and is as long as its header says.

    Raises:
        UnsupportedModelError: one is missing or damaged.
    """
    for name in _weight_files(folder):
        path = folder / name
        if not path.is_file():
            raise UnsupportedModelError(
                f"{path}: missing; expected every file that {INDEX_FILE} names: copy the folder anew"
            )
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise UnsupportedModelError(f"{path}: damaged: {_first_line(error)}; copy it anew") from error


def _weight_files(folder: Path) -> list[str]:
    if (folder / WEIGHTS_FILE).exists():
        return [WEIGHTS_FILE]
    if not (folder / INDEX_FILE).exists():
        raise UnsupportedModelError(
            f"{folder}: no {WEIGHTS_FILE} or {INDEX_FILE} there; expected weights as safetensors: save the model anew"
        )
    weight_map = _json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UnsupportedModelError(f"{folder / INDEX_FILE}: it has no weight_map; copy it anew")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name:
            raise UnsupportedModelError(f"{folder / INDEX_FILE}: got {name!r}; expected names of files beside it")
    return names


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UnsupportedModelError(f"{path.parent}: no {path.name} there; {_SAVED}") from error
    except OSError as error:
        raise UnsupportedModelError(f"{path}: cannot be read: {error.strerror}; {_SAVED}") from error
    except ValueError as error:
        raise UnsupportedModelError(f"{path}: not JSON; {_SAVED}") from error
    if not isinstance(content, dict):
        raise UnsupportedModelError(f"{path}: got a {type(content).__name__}; {_SAVED}")
    return content


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def check_new_folder(out: Path, source: Path | None = None) -> None:
    """Refuse a folder that could not be made, or would overwrite something.

    Raises:
        CommandError: `out` is there and not an empty folder, lies inside `source`, or has no folder to lie in.
    """
    target = out.resolve()
    if source is not None and target.is_relative_to(source.resolve()):
        raise CommandError(f"{out}: it lies inside {source}, which is left as it is; name a folder elsewhere")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise CommandError(f"{out}: is there already and not an empty folder; name another one, or remove it first")
    if not target.parent.is_dir():
        raise CommandError(f"{out}: {target.parent} is no folder; make it first")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` at the end, in one step; after an error nothing of it is left.

    Raises:
        CommandError: see `check_new_folder`; also where something was put there meanwhile.
        OSError: it cannot be written.
    """
    check_new_folder(out)
    target = out.resolve()
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())  # mkdtemp makes folders for the owner alone
        check_new_folder(out)
        beside.rename(target)  # takes the place of an empty folder, and fails at any other
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def copy_along(source: Path, out: Path) -> tuple[str, ...]:
    """Copy what belongs to a model besides weights and configuration; the names of what was copied, sorted.

    Raises:
        OSError: a file cannot be read or written.
    """
    paths = sorted({path for pattern in COPIED for path in source.glob(pattern)})
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, out / path.name)
        else:
            shutil.copyfile(path, out / path.name)
    return tuple(path.name for path in paths)
