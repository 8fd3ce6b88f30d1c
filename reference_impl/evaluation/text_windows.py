"""Files of text -> rows, one sequence each. In: paths. Out: windows of a context's length, from the beginning of each file on."""

from collections.abc import Sequence
from pathlib import Path

from reference_impl.data import DocumentTokenizer, Row
from reference_impl.data.documents import text_documents
from reference_impl.errors import EvaluationError

MIN_TOKENS = 2  # of which the second is predicted


def text_windows(paths: Sequence[Path], tokenizer: DocumentTokenizer, context: int) -> list[Row]:
    """All of the files, cut into windows; each file starts a window, and its last one may be shorter.

    Args:
        paths: UTF-8 text.
        tokenizer: of the model.
        context: tokens of a window, at least 2.

    Raises:
        DataError: a file cannot be read, is empty, or is not UTF-8.
        EvaluationError: the context is too short.
    """
    if context < MIN_TOKENS:
        raise EvaluationError(f"context: got {context}; expected an integer >= {MIN_TOKENS}")
    rows = []
    for path in paths:
        for document in text_documents(path, skip_empty=False):
            ids_T, num_bytes_T = tokenizer.encode(document.text)
            windows = zip(ids_T.split(context), num_bytes_T.split(context), strict=True)
            # a last token alone has nothing to be predicted from
            rows += [Row(ids, (0,), num_bytes, path.name) for ids, num_bytes in windows if len(ids) >= MIN_TOKENS]
    return rows
