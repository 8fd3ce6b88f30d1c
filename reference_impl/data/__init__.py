"""Training data: documents of several sources -> rows of tokens in a seeded mixture, and a held-out set beside it."""

from reference_impl.data.config import DataConfig, SourceConfig
from reference_impl.data.documents import Document
from reference_impl.data.loaded_tokenizer import LoadedTokenizer, load_tokenizer
from reference_impl.data.mixture import held_out_rows, training_rows, training_texts
from reference_impl.data.rows import IGNORED_LABEL, Row
from reference_impl.data.sources import Source, open_source
from reference_impl.data.split import is_held_out
from reference_impl.data.tokenizer_files import train_tokenizer, write_byte_tokenizer
from reference_impl.data.tokens import ByteTokenizer, DocumentTokenizer, EncodedDocument
from reference_impl.data.training_set import SourceProgress, TrainingSet, check_fits

__all__ = [
    "IGNORED_LABEL",
    "ByteTokenizer",
    "DataConfig",
    "Document",
    "DocumentTokenizer",
    "EncodedDocument",
    "LoadedTokenizer",
    "Row",
    "Source",
    "SourceConfig",
    "SourceProgress",
    "TrainingSet",
    "check_fits",
    "held_out_rows",
    "is_held_out",
    "load_tokenizer",
    "open_source",
    "train_tokenizer",
    "training_rows",
    "training_texts",
    "write_byte_tokenizer",
]
