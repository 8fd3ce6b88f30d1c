"""Files of settings, YAML or JSON. In: a path. Out: plain data, or the settings of training data; or one error."""

from pathlib import Path
from typing import Any

import yaml

from reference_impl.data import DataConfig
from reference_impl.errors import DataError

MAX_SETTINGS_BYTES = 2**20


def read_data_config(path: Path) -> DataConfig:
    """The settings of training data; relative paths in it start at its folder.

    Raises:
        DataError: the file or a value in it cannot be used; the text starts with the file.
    """
    settings = read_settings(path, DataError)
    try:
        return DataConfig.from_dict(settings, path.parent)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def read_settings(path: Path, error_class: type[ValueError]) -> dict[str, Any]:
    """The mapping of a YAML or JSON file.

    Raises:
        ValueError: of the class given: the file cannot be read, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise error_class(f"{path}: larger than 1 MiB; expected a file of settings")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise error_class(f"{path}: cannot be read: {error.strerror}; name a file of settings") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise error_class(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise error_class(f"{path}: got {type(content).__name__}; expected a mapping of settings to values")
    return content
