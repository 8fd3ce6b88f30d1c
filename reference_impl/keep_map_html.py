"""A keep map as one self-contained HTML page: no script, no network, light and dark, everything escaped.

In: a `KeepMap` and what to say above it. Out: the page as text.
"""

from collections.abc import Sequence
from html import escape

from reference_impl.keep_map import KeepMap
from reference_impl.visible_text import SIGNS, visible, visible_line

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c2024; --muted: #57606a; --rule: #d8dee4; --kept: #0b3c6f;
  --b1: #d6e6f4; --t1: #10243a; --b2: #9cc6e4; --t2: #10243a; --b3: #2f6fae; --t3: #ffffff; --b4: #0b3c6f; --t4: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --page: #101418; --text: #e6e9ec; --muted: #9ba6b1; --rule: #2d343c; --kept: #d6e9fb;
  --b1: #15304a; --t1: #e6e9ec; --b2: #1f5382; --t2: #ffffff; --b3: #6fa8dc; --t3: #08131e; --b4: #d6e9fb; --t4: #08131e; } }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
p { max-width: 70ch; overflow-wrap: anywhere; }
.tokens { font: 0.875rem/1.9 ui-monospace, monospace; overflow-wrap: anywhere; max-width: none; }
.k0 { color: var(--muted); }
.k1 { background: var(--b1); color: var(--t1); }
.k2 { background: var(--b2); color: var(--t2); }
.k3 { background: var(--b3); color: var(--t3); }
.k4 { background: var(--b4); color: var(--t4); }
.legend span { padding: 0.1rem 0.5rem; }
.strips { border-collapse: collapse; width: 100%; font-size: 0.875rem; }
.strips caption { text-align: left; font-weight: 600; padding: 1rem 0 0.5rem; }
.strips th, .strips td { text-align: left; font-weight: 400; white-space: nowrap; padding: 0.15rem 0.75rem 0.15rem 0; }
.strips td:last-child { width: 100%; padding-right: 0; }
svg { display: block; width: 100%; height: 1rem; background: var(--rule); fill: var(--kept); }
"""


def keep_map_page(keep_map: KeepMap, title: str, sentences: Sequence[str]) -> str:
    """The page: title, sentences, the text coloured by the number of layers, a strip per routed layer."""
    paragraphs = "\n".join(f"<p>{escape(visible_line(sentence))}</p>" for sentence in sentences)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(visible_line(title))}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(visible_line(title))}</h1>
{paragraphs}
{_legend(keep_map)}
<p class="tokens" translate="no">{_tokens(keep_map)}</p>
{_strips(keep_map)}
</main>
</body>
</html>
"""


def kept_path(keep: Sequence[bool]) -> str:
    """An SVG path of unit squares, one rectangle per run of kept tokens."""
    parts, start = [], None
    for index, is_kept in enumerate([*keep, False]):
        if is_kept and start is None:
            start = index
        elif not is_kept and start is not None:
            parts.append(f"M{start} 0h{index - start}v1h-{index - start}z")
            start = None
    return "".join(parts)


def _legend(keep_map: KeepMap) -> str:
    shades = "\n".join(f'<span class="k{level}">{numbers}</span>' for level, numbers in keep_map.level_texts().items())
    return f'<p class="legend">Kept at {shades} of {len(keep_map.keep)} routed layers</p>'


def _tokens(keep_map: KeepMap) -> str:
    spans = []
    for index, (text, num_kept) in enumerate(zip(keep_map.texts, keep_map.num_kept_layers, strict=True)):
        layers = [str(layer) for layer, keep in keep_map.keep.items() if keep[index]]
        where = f"kept at {num_kept} of {len(keep_map.keep)}" + (f": {', '.join(layers)}" if layers else "")
        shown = escape(visible(text)).replace(SIGNS["\n"], SIGNS["\n"] + "<br>")
        spans.append(f'<span class="k{keep_map.level(num_kept)}" title="{where}">{shown}</span>')
    return "".join(spans)


def _strips(keep_map: KeepMap) -> str:
    rows = []
    for layer, keep in keep_map.keep.items():
        label = f"layer {layer} keeps {sum(keep)} of {len(keep)} tokens"
        image = (
            f'<svg role="img" aria-label="{label}" viewBox="0 0 {len(keep)} 1" preserveAspectRatio="none" '
            f'shape-rendering="crispEdges"><path d="{kept_path(keep)}"/></svg>'
        )
        ratio = f"{keep_map.keep_ratio(layer):.1%}"
        rows.append(f'<tr><th scope="row">layer {layer}</th><td>{ratio}</td><td>{image}</td></tr>')
    return (
        '<table class="strips"><caption>What each routed layer keeps of the text, from its first token to its last</caption>\n'
        '<thead><tr><th scope="col">Layer</th><th scope="col">Kept</th><th scope="col">Where</th></tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table>"
    )
