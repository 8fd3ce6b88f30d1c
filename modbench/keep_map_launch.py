"""One launch for a keep map: build, calibrate, one untimed prefill. In: a keep map job. Out: its row.

The whole prompt runs, as in the measured launches, because top-k ranks within all of it; the first tokens of row 0 are kept.

Shapes: B batch, T tokens.
"""

from collections.abc import Callable

import torch

from modbench.errors import UnsupportedError
from modbench.job import Job
from modbench.keep_map_record import KEPT, MAX_MAPPED_TOKENS, SKIPPED, KeepMapRecord, new_keep_map_record
from modbench.methods import METHODS
from modbench.tokens import first_texts, prompt_tokens


def run_keep_map_launch(job: Job, on_phase: Callable[[str], None]) -> KeepMapRecord:
    """Map one method; `on_phase` hears build, calibrate, prefill, done.

    Raises:
        UnsupportedError: the method tells no decisions.
    """
    spec = job.spec
    assert spec is not None, "a keep map job has a run spec"
    point, device = spec.point, torch.device(job.device)
    context = point.workload["context"]
    ids_BT = prompt_tokens(point).ids_BT.to(device)
    on_phase("build")
    method = METHODS[spec.kind](point.settings)
    subject = method.build(point, device)
    on_phase("calibrate")
    method.calibrate(subject, ids_BT, context)
    on_phase("prefill")
    with torch.inference_mode():
        subject.prefill(ids_BT[:, :context])
    decisions = subject.take_decisions()
    if not decisions:
        raise UnsupportedError(f"methods.{spec.method}: it tells no keep decisions")
    on_phase("done")
    num_mapped = min(context, MAX_MAPPED_TOKENS)
    keep = {layer: decision.keep_BT[0, :num_mapped].tolist() for layer, decision in sorted(decisions[0].items())}
    return new_keep_map_record(spec).model_copy(
        update={
            "token_ids": ids_BT[0, :num_mapped].tolist(),
            "texts": first_texts(point, num_mapped),
            "keep": {
                layer: "".join(KEPT if is_kept else SKIPPED for is_kept in decided) for layer, decided in keep.items()
            },
        }
    )
