"""A file for its owner's eyes only (mode 0600), that appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from reportlabel.errors import ConfigError
from reportlabel.export.atomic import AtomicFile

__all__ = ["PrivateFile", "write_private"]


class PrivateFile(AtomicFile):
    """As `AtomicFile`; nobody but the owner can read it, not even while it is written."""

    def open(self) -> None:
        super().open()
        if os.name == "posix":
            os.fchmod(self._open_stream().fileno(), 0o600)

    def write(self, content: bytes) -> None:
        """Add bytes. Raises `ConfigError` where they cannot be written."""
        try:
            self._open_stream().write(content)
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file as a whole, readable by its owner alone. Raises `ConfigError` where it cannot be written."""
    with PrivateFile(path) as out:
        out.write(content)
