"""The errors a caller of reference_impl can cause, each one line that says what was found and what is allowed."""


class ModConfigError(ValueError):
    """A setting of `ModConfig` is out of its range."""


class UnsupportedModelError(ValueError):
    """The model's family, layer layout or cache is not supported; the text names what is."""


class RoutingError(ValueError):
    """A keep mask to replay, or text to calibrate on, does not fit the model or the batch."""


class TextError(ValueError):
    """A text to look at is missing or empty, or it, its tokens or the layers asked for do not fit the model."""


class DataError(ValueError):
    """Training data, their settings or their tokenizer cannot be used."""


class TrainingError(ValueError):
    """A training cannot start, go on or be resumed as asked; what it has saved is untouched."""


class CommandError(ValueError):
    """What a command was given cannot be used: a folder to write, a device, options that exclude each other, a package."""


class EvaluationError(ValueError):
    """A model's quality cannot be measured as asked: text, model, teacher and settings do not fit each other."""
