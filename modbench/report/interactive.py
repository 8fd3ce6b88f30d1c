"""What a page needs to run its own scripts and nobody else's: the chart library, script hashes, and data that stays data.

In: scripts and Vega-Lite specs. Out: text for `<script>` elements, and the Content-Security-Policy that allows just these.
vl_convert, which carries the library, is imported when a page has a chart.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from typing import Any

TEMPLATES = resources.files("modbench.report") / "templates"
ENTRY = 'window.vegaEmbed = vegaEmbed; document.dispatchEvent(new Event("modbench-library"));'
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}; base-uri 'none'; form-action 'none'"
JSON_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


@dataclass(frozen=True)
class ChartLibrary:
    """Vega, Vega-Lite and Vega-Embed as one script: its text, and the text as base64 of gzip, as pages carry it."""

    script: str
    packed: str
    versions: str


@cache
def chart_library() -> ChartLibrary:
    """The library that the installed vl-convert carries; takes about a second, once."""
    import vl_convert

    script = vl_convert.javascript_bundle(ENTRY)
    versions = f"Vega {vl_convert.get_vega_version()}, Vega-Embed {vl_convert.get_vega_embed_version()}"
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    return ChartLibrary(script, packed, versions)


def page_script(name: str) -> str:
    """A script of this package, by its file name."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def content_security_policy(scripts: Iterable[str]) -> str:
    """Only these scripts run, by the hashes of their texts; styles are the page's own; nothing is fetched or sent."""
    return POLICY.format(scripts=" ".join(script_hash(script) for script in scripts) or "'none'")


def script_hash(script: str) -> str:
    """The source expression that allows a script of exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def script_json(value: Any) -> str:
    """JSON that no HTML parser takes for markup, whatever texts are in it.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(JSON_ESCAPES)


def data_url(content: bytes, media_type: str) -> str:
    """The content as an address that a download link can hold."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def chart_licences() -> Sequence[str]:
    """The paragraphs of notices and licences of the library's code, and of vl-convert, which bundled it."""
    distribution = metadata.distribution("vl-convert-python")
    own = [str(file.read_text()) for file in distribution.files or () if file.name == "LICENSE"]
    notices = (TEMPLATES / "chart_licences.txt").read_text(encoding="utf-8")
    text = "\n\n".join([notices, f"vl-convert {distribution.version}, which bundled them", *own])
    return [paragraph for part in text.split("\n\n") if (paragraph := part.strip())]
