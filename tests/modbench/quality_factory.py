"""Makes evaluations of the records that the other factories make, with numbers that can be added up by hand."""

from collections.abc import Mapping, Sequence

from modbench.quality_record import PositionScore, QualityRecord, QualityScores, work_id_of
from modbench.record import Record

ROW_BYTES = [100, 200, 100]
DENSE_BITS = [200.0, 400.0, 200.0]  # 2 bits per byte


def make_scores(row_bits: Sequence[float] = DENSE_BITS, **changes) -> QualityScores:
    """Scores of three rows; `bits_per_byte` is their mean."""
    value = sum(row_bits) / sum(ROW_BYTES)
    buckets = [(1, 1, 2 * value), (2, 3, 1.5 * value), (4, 7, value)]
    fields = {
        "text_hash": "text",
        "num_rows": 3,
        "num_tokens": 400,
        "num_bytes": 400,
        "context": 200,
        "bits_per_byte": value,
        "bits_per_byte_standard_error": 0.01,
        "next_token_accuracy": 0.5,
        "kv_cache_bytes_per_token": 100.0,
        "row_bits": list(row_bits),
        "row_bytes": ROW_BYTES,
        "by_position": [
            PositionScore(first_position=first, last_position=last, num_bytes=9, bits_per_byte=bits)
            for first, last, bits in buckets
        ],
    }
    return QualityScores.model_validate({**fields, **changes})


def make_evaluation(record: Record, scores: QualityScores | None = None, **changes) -> QualityRecord:
    """The evaluation of the model that a record is of; without scores a failed one."""
    fields = {
        "launch_id": f"{record.launch_id}-quality",
        "run_id": record.run_id,
        "point_id": record.point_id,
        "cell_id": record.point.cell_id,
        "method": record.method,
        "kind": record.kind,
        "work_id": work_id_of(record.point),
        "quality_id": "asked",
        "status": "failed" if scores is None else "ok",
        "error": "killed" if scores is None else None,
        "scores": scores,
    }
    return QualityRecord.model_validate({**fields, **changes})


def evaluations(records: Sequence[Record], scores: Mapping[str, QualityScores | None]) -> list[QualityRecord]:
    """One per model and method named."""
    found = {(record.method, work_id_of(record.point)): record for record in records if record.method in scores}
    return [make_evaluation(record, scores[record.method]) for record in found.values()]


def with_weights(records: Sequence[Record], weights: str) -> list[Record]:
    """The same records of a model whose weights are `random`, or of a `checkpoint`."""
    return [
        record.model_copy(
            update={"point": record.point.model_copy(update={"model": {**record.point.model, "weights": weights}})}
        )
        for record in records
    ]
