"""The workspace: a folder of Delta Lake tables.

Every write is one commit: a run that is killed leaves whole tables, and an earlier state can be read again by its
version. What is deleted is gone from the newest version at once, and from the disk after `Workspace.vacuum`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from reportlabel.errors import ConfigError, InputError

_MARKER = "workspace.json"
_FORMAT = 1


class Workspace:
    """The tables of one study.

    ``schemas``: table -> its columns; nothing else is written or read.
    """

    def __init__(self, folder: Path, schemas: Mapping[str, pl.Schema]) -> None:
        self.folder = folder
        self._schemas = schemas

    @classmethod
    def open(cls, folder: Path, schemas: Mapping[str, pl.Schema], *, create: bool = False) -> Workspace:
        """Open a workspace, or make one.

        Raises:
            ConfigError: the folder is none, holds something else, was made by a newer version, or cannot be made.
        """
        marker = folder / _MARKER
        if not marker.is_file():
            if not create:
                raise ConfigError(
                    f"{folder} is no workspace; run `reportlabel ingest ARCHIVE --workspace {folder}` first"
                )
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise ConfigError(f"{folder} holds something that is no workspace; give a new or empty folder")
            try:
                folder.mkdir(parents=True, exist_ok=True)
                marker.write_text(json.dumps({"format": _FORMAT}) + "\n", encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"cannot make the workspace {folder}: {error.strerror}") from error
        if json.loads(marker.read_text(encoding="utf-8")).get("format") != _FORMAT:
            raise ConfigError(f"{folder} was made by another version of reportlabel; make a new workspace")
        return cls(folder, schemas)

    def exists(self, name: str) -> bool:
        """Whether a table was ever written."""
        return DeltaTable.is_deltatable(str(self._path(name)))

    def version(self, name: str) -> int:
        """The newest version of a table; -1 before the first write."""
        return int(DeltaTable(self._path(name)).version()) if self.exists(name) else -1

    def read(self, name: str, *, version: int | None = None) -> pl.DataFrame:
        """A table as it is now, or as it was; without a write it is empty.

        Raises:
            InputError: there is no such version any more.
        """
        schema = self._schemas[name]
        if not self.exists(name):
            return pl.DataFrame(schema=schema)
        try:
            table = DeltaTable(self._path(name), version=version)
            return pl.DataFrame(pl.from_arrow(table.to_pyarrow_table())).select(schema.names()).cast(schema)
        except (DeltaError, FileNotFoundError) as error:
            raise InputError(f"table {name} has no version {version} in {self.folder}") from error

    def replace(self, name: str, rows: pl.DataFrame) -> None:
        """Write the whole table anew, in one commit."""
        self._write(name, rows, mode="overwrite")

    def append(self, name: str, rows: pl.DataFrame) -> None:
        """Add rows, in one commit."""
        self._write(name, rows, mode="append")

    def upsert(self, name: str, rows: pl.DataFrame, *, key: Sequence[str]) -> None:
        """Replace all rows whose key is among the keys of ``rows`` by ``rows``, in one commit.

        A key stands for everything that hangs on it: with key exam_id the labels of an exam are replaced as a whole.
        """
        kept = self.read(name).join(rows.select(key).unique(), on=list(key), how="anti", nulls_equal=True)
        self.replace(name, pl.concat([kept, self._checked(name, rows)]))

    def remove(self, name: str, column: str, values: Sequence[str]) -> int:
        """Delete the rows with one of these values; returns how many there were."""
        rows = self.read(name)
        kept = rows.filter(~pl.col(column).is_in(list(values)).fill_null(False))
        if kept.height < rows.height:
            self.replace(name, kept)
        return rows.height - kept.height

    def vacuum(self) -> list[str]:
        """Remove from the disk all that no newest version holds; earlier versions can no longer be read."""
        removed: list[str] = []
        for name in self._schemas:
            if self.exists(name):
                table = DeltaTable(self._path(name))
                removed += table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        return removed

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _checked(self, name: str, rows: pl.DataFrame) -> pl.DataFrame:
        schema = self._schemas[name]
        if rows.schema != schema:
            raise ValueError(f"table {name}: columns {rows.schema} are not {schema}")
        return rows

    def _write(self, name: str, rows: pl.DataFrame, *, mode: str) -> None:
        table = self._checked(name, rows).to_arrow(compat_level=pl.CompatLevel.oldest())
        # the log outlives the data: it must not hold the least and greatest values of rows that were removed
        no_statistics = {"delta.dataSkippingNumIndexedCols": "0"}
        write_deltalake(
            self._path(name), table, mode="overwrite" if mode == "overwrite" else "append", configuration=no_statistics
        )
