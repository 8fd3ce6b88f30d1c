"""Draws kept-tokens.svg: which tokens of a sentence are kept at which layer. Run from the project's root:

.venv/bin/python docs/images/draw_kept_tokens.py
"""

from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot
from matplotlib.patches import Patch
from transformers import LlamaConfig, LlamaForCausalLM

from reference_impl import ModConfig, calibrate, convert

SENTENCE = "A token skips a layer and leaves nothing in its cache."
KEEP_RATIO = 1 / 3
NUM_LAYERS = 8
DENSE, KEPT, SKIPPED = "#c9d6df", "#0072b2", "#ffffff"


def keep_masks() -> dict[int, list[bool]]:
    """Layer -> keep mask of the sentence's bytes, from a random model with a calibrated random router."""
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=NUM_LAYERS,
        hidden_size=128,
        intermediate_size=256,
        num_attention_heads=4,
        vocab_size=256,
        initializer_range=0.1,
    )
    model = convert(LlamaForCausalLM(config).eval(), ModConfig())
    ids = torch.tensor([list(SENTENCE.encode())])
    calibrate(model, ids, KEEP_RATIO)
    with torch.no_grad():
        model(ids)
    masks = model.routing_report(keep_masks=True).keep_masks
    assert masks is not None, "the masks were asked for"
    return {layer: keep[0].tolist() for layer, keep in masks.items()}


def draw(path: Path) -> None:
    """One row per layer, one column per token."""
    masks = keep_masks()
    matplotlib.rcParams["svg.hashsalt"] = "kept-tokens"
    figure, axes = pyplot.subplots(figsize=(11, 2.9))
    for layer in range(NUM_LAYERS):
        for token in range(len(SENTENCE)):
            colour = DENSE if layer not in masks else KEPT if masks[layer][token] else SKIPPED
            axes.add_patch(pyplot.Rectangle((token, layer), 1, 1, facecolor=colour, edgecolor="#8a9ba8", linewidth=0.4))
    axes.set_xlim(0, len(SENTENCE))
    axes.set_ylim(0, NUM_LAYERS)
    axes.set_xticks([token + 0.5 for token in range(len(SENTENCE))], list(SENTENCE), family="monospace", fontsize=9)
    names = [f"{layer} {'routed' if layer in masks else 'dense'}" for layer in range(NUM_LAYERS)]
    axes.set_yticks([layer + 0.5 for layer in range(NUM_LAYERS)], names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_ylabel("layer")
    legend = {"dense layer: every token": DENSE, "routed, kept": KEPT, "routed, skipped: no work, no keys": SKIPPED}
    axes.legend(
        handles=[Patch(facecolor=colour, edgecolor="#8a9ba8", label=text) for text, colour in legend.items()],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("kept-tokens.svg"))
