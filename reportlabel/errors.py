"""The errors a user can mend, and the exit codes of the command line.

A message says what is wrong, where (file, row, column, option) and what to do about it. It never quotes a report, a
report_id or any other value of the data: rows are named by their number in the file.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ConfigError", "ExitCode", "InputError", "RefusedError", "ReportLabelError"]


class ExitCode(IntEnum):
    """What the exit status of `reportlabel` means."""

    DONE = 0
    QUARANTINED = 1
    """Done, and some input was set aside; the quarantine table lists it with reasons."""
    USAGE = 2
    """Wrong usage or configuration, or an input that cannot be read at all."""
    REFUSED = 3
    """The study protocol forbids it."""


class ReportLabelError(Exception):
    """Base of all errors that end a command with one message instead of a traceback.

    `exit_code` is the exit status the command line ends with.
    """

    exit_code: ExitCode = ExitCode.USAGE


class InputError(ReportLabelError):
    """A whole input is unusable (missing, empty, corrupt, without the needed columns) and the user can mend it.

    Single bad rows are not errors: they go to the quarantine table and the exit status is `ExitCode.QUARANTINED`.
    """


class ConfigError(ReportLabelError):
    """A wrong option, setting or rule file, or an output that cannot be written."""


class RefusedError(ReportLabelError):
    """The study protocol forbids it; ``number`` is the requirement that does (docs/protocols.md)."""

    exit_code = ExitCode.REFUSED

    def __init__(self, number: str, message: str) -> None:
        super().__init__(f"refused by the study protocol ({number}): {message}")
        self.number = number
