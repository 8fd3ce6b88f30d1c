"""lm-evaluation-harness on converted models: importing this adds the model `mod` to its registry.

In: `--model mod --model_args pretrained=FOLDER`. Out: what the harness asks of a model. Needs the extra `lm-eval`.

The harness pads rows on the right and passes no mask. Threshold routing decides token by token, so padding changes nothing before
it; top-k ranks the tokens of a row against each other, padding among them, and is therefore given rows of one length at a time.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from reference_impl.errors import CommandError
from reference_impl.model_folder import check_kind, check_weights, needed_attention

MODEL_NAME = "mod"
Request = tuple[
    Any, list[int], list[int]
]  # (context and continuation as texts, or None), ids of the context, of the continuation


@register_model(MODEL_NAME)
class ModLM(HFLM):
    """The harness's model on Hugging Face transformers, for a folder that a converted model was saved to.

    Args:
        pretrained: the folder; nothing is looked up elsewhere.
        kwargs: of `HFLM`, such as batch_size, device, dtype, tokenizer or max_length.

    Raises:
        UnsupportedModelError: the folder holds no converted model, or a damaged one.
        CommandError: `batch_size=auto` for a model with operator topk.
    """

    def __init__(self, pretrained: str, **kwargs: Any) -> None:
        folder = Path(pretrained)
        check_kind(folder, "converted")
        check_weights(folder)
        attention = needed_attention(folder)
        if attention is not None:
            kwargs.setdefault("attn_implementation", attention)
        # resolved, so that a bare name is never taken for one of the Hub
        super().__init__(str(folder.resolve()), use_safetensors=True, **kwargs)
        self._ranks_tokens = self.model.routing.config.operator == "topk"
        if self._ranks_tokens and self.batch_size == "auto":
            raise CommandError(
                "batch_size: got auto for a model with operator topk; expected a number: its batches differ in size"
            )

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As the harness's; for top-k in groups of one length, so that no row is padded."""
        if not self._ranks_tokens:
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        groups: dict[int, list[int]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            groups.setdefault(min(len(context) + len(continuation) - 1, self.max_length), []).append(index)
        found: dict[int, tuple[float, bool]] = {}
        for indices in groups.values():
            answers = super()._loglikelihood_tokens([requests[index] for index in indices], True, override_bs)
            found.update(zip(indices, answers, strict=True))
        return [found[index] for index in range(len(requests))]


def hand_over(arguments: Sequence[str]) -> None:
    """Run the harness's own command line, with `mod` among its models."""
    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()
