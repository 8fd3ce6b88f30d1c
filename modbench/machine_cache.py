"""Small facts about this machine that are measured once: ceilings and guard outcomes. In: a kind and a key. Out: JSON values.

Files live in `$XDG_CACHE_HOME/modbench` (default `~/.cache/modbench`), one per key; deleting the folder only costs time.
"""

import json
import os
from pathlib import Path
from typing import Any

from modbench.plan import content_hash


def cache_folder() -> Path:
    """Where the facts are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "modbench"


def _file(kind: str, key: Any) -> Path:
    return cache_folder() / kind / f"{content_hash(key)}.json"


def load(kind: str, key: Any) -> Any | None:
    """The stored value, or None where there is none or it cannot be read."""
    try:
        return json.loads(_file(kind, key).read_text())["value"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored(kind: str) -> list[Any]:
    """All readable values of a kind, the newest first."""
    values = []
    for path in (cache_folder() / kind).glob("*.json"):
        try:
            values.append((path.stat().st_mtime_ns, json.loads(path.read_text())["value"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [value for _, value in sorted(values, key=lambda item: item[0], reverse=True)]


def store(kind: str, key: Any, value: Any) -> None:
    """Keep a JSON value under its key; a cache that cannot be written is no error."""
    path = _file(kind, key)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"key": key, "value": value}))
        partial.rename(path)
    except OSError:
        return
