"""The errors a user can cause, each one line: where, what was found, what is allowed, what to do.

`cli` prints the message and exits with `exit_code` (measurement contract: `docs/measuring.md`, "Exit codes").
"""


class ModbenchError(Exception):
    """Base of every error that is the user's to mend; its text is one line."""

    exit_code = 2


class ScenarioError(ModbenchError):
    """A scenario file, or an override of it, is not valid. The text starts with `FILE:LINE:` where a line is known."""


class OptionError(ModbenchError):
    """An option of the command line has a value that cannot be used; the text starts with the option."""


class RecordError(ModbenchError):
    """A records file cannot be read: missing, of a newer schema, or damaged before its last line."""


class OutputError(ModbenchError):
    """The output folder cannot be used: it exists with other work in it, or cannot be written."""


class EntryNotAllowedError(ModbenchError):
    """The scenario names code to run (`entry:`, `command:`) and the caller did not pass `--allow-entry`."""


class UnsupportedError(ModbenchError):
    """Asked for something that this machine, model or version does not have; the text names what is available."""


class AnswerError(ModbenchError):
    """A program that measures itself (`command:`) ended badly, or what it answered is not what its protocol allows."""


class LaunchError(ModbenchError):
    """A launch server could not be started, or broke the protocol with its executor."""

    exit_code = 5


class NoNumberError(ModbenchError):
    """A test asks for a number that was not measured, or that counts for nothing."""
