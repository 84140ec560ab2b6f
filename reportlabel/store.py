"""The workspace: a folder of Delta Lake tables.

Every write is one commit: a run that is killed leaves whole tables, and an earlier state can be read again by its
version. What is deleted is gone from the newest version at once, and from the disk after `Workspace.vacuum`.

Tables are cut into parts by patient, so that a stage works on one part after the other and memory does not grow with
the archive. A part is replaced as a whole: a stage that is run again gives the same table. What a finished run left is
a *snapshot*: a number, and the version of every table. Readers see the last snapshot, never half a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from reportlabel.errors import ConfigError, InputError

try:
    import fcntl
except ImportError:  # not on Windows, where two programs at work in one workspace are not told apart
    fcntl = None  # type: ignore[assignment]

_MARKER = "workspace.json"
_FORMAT = 1
_PART = "part"
_SNAPSHOTS = "snapshots"
_SNAPSHOT_SCHEMA = pl.Schema(
    [("snapshot", pl.Int32), ("made_at", pl.Datetime("us")), ("run_id", pl.String), ("versions", pl.String)]
)
PARTS = 16
"""Parts of a new workspace: about 12,000 exams each in an archive of 200,000."""


def scan_delta(folder: Path, wanted: pl.Schema, *, version: int | None = None, part: int | None = None) -> pl.LazyFrame:
    """These columns of a Delta table, with these types, read by polars alone.

    Not by Arrow, which reads a Delta table through a file system in Python: a thread of it that is still at work when
    the program ends aborts the process. Not by the scan of polars, which takes the escaped name of a folder as it is.

    Args:
        version: None: the newest. part: only the files of this part.

    Raises:
        DeltaError, FileNotFoundError: there is no such version any more.
    """
    files = pl.DataFrame(DeltaTable(folder, version=version).get_add_actions(flatten=True))
    if part is not None and not files.is_empty():
        files = files.filter(pl.col(f"partition.{_PART}") == part)
    paths = [folder / path for path in files["path"]]
    if not paths:
        return pl.LazyFrame(schema=wanted)
    for path in paths:
        path.stat()
    return pl.scan_parquet(paths, hive_partitioning=False).select(
        pl.col(name).cast(kind) for name, kind in wanted.items()
    )


class Workspace:
    """The tables of one study.

    ``schemas``: table -> its columns; nothing else is written or read. ``parts``: how many parts the tables of
    patients have.
    """

    def __init__(self, folder: Path, schemas: Mapping[str, pl.Schema], parts: int = PARTS) -> None:
        self.folder = folder
        self.parts = parts
        self._schemas = schemas

    @classmethod
    def open(
        cls, folder: Path, schemas: Mapping[str, pl.Schema], *, create: bool = False, parts: int = PARTS
    ) -> Workspace:
        """Open a workspace, or make one of so many parts.

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
                _write_marker(marker, parts)
            except OSError as error:
                raise ConfigError(f"cannot make the workspace {folder}: {error.strerror}") from error
        try:
            made = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{marker} cannot be read; make a new workspace") from error
        if not isinstance(made, dict) or made.get("format") != _FORMAT:
            raise ConfigError(f"{folder} was made by another version of reportlabel; make a new workspace")
        return cls(folder, schemas, int(made.get("parts", PARTS)))

    def exists(self, name: str) -> bool:
        """Whether a table was ever written."""
        return DeltaTable.is_deltatable(str(self._path(name)))

    def version(self, name: str) -> int:
        """The newest version of a table; -1 before the first write."""
        return int(DeltaTable(self._path(name)).version()) if self.exists(name) else -1

    def read(
        self,
        name: str,
        *,
        version: int | None = None,
        part: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """A table as it is now, or as it was; without a write it is empty.

        Args:
            version: of this table (see `versions`); None: the newest.
            part: only the patients of this part.
            columns: only these.

        Raises:
            InputError: there is no such version any more.
        """
        schema = self._schemas[name]
        names = schema.names() if columns is None else list(columns)
        wanted = pl.Schema([(one, schema[one]) for one in names])
        if version == -1 or not self.exists(name):
            return pl.DataFrame(schema=wanted)
        try:
            return scan_delta(self._path(name), wanted, version=version, part=part).collect()
        except (DeltaError, FileNotFoundError) as error:
            raise InputError(
                f"table {name} has no version {version} in {self.folder}: it was removed when patients were removed"
            ) from error

    def scan(self, name: str, *, version: int | None = None) -> pl.LazyFrame:
        """A table, of which only what is asked for is read; as `read`.

        Raises:
            InputError: there is no such version any more.
        """
        schema = self._schemas[name]
        if version == -1 or not self.exists(name):
            return pl.LazyFrame(schema=schema)
        try:
            return scan_delta(self._path(name), schema, version=version)
        except (DeltaError, FileNotFoundError) as error:
            raise InputError(
                f"table {name} has no version {version} in {self.folder}: it was removed when patients were removed"
            ) from error

    def replace_part(self, name: str, part: int, rows: pl.DataFrame) -> None:
        """Write the patients of one part anew, in one commit; part ``parts`` holds what belongs to no patient."""
        if not 0 <= part <= self.parts:
            raise ValueError(f"part {part} is none of 0 to {self.parts}")
        table = self._checked(name, rows).with_columns(pl.lit(part, dtype=pl.Int32).alias(_PART))
        first = not self.exists(name)
        with self._files_stay():
            write_deltalake(
                self._path(name),
                table.to_arrow(compat_level=pl.CompatLevel.oldest()),
                mode="overwrite",
                predicate=None if first else f"{_PART} = {part}",
                partition_by=[_PART],
                configuration=_NO_STATISTICS if first else None,
            )

    def take_snapshot(self, run_id: str, made_at: datetime) -> int:
        """Remember the versions of all tables as what a finished run left; returns the number of the snapshot."""
        versions = {name: self.version(name) for name in sorted(self._schemas)}
        number = len(self.snapshots())
        row = pl.DataFrame([(number, made_at, run_id, json.dumps(versions))], schema=_SNAPSHOT_SCHEMA, orient="row")
        write_deltalake(
            self._path(_SNAPSHOTS),
            row.to_arrow(compat_level=pl.CompatLevel.oldest()),
            mode="append",
            configuration=None if DeltaTable.is_deltatable(str(self._path(_SNAPSHOTS))) else _NO_STATISTICS,
        )
        return number

    def snapshots(self) -> pl.DataFrame:
        """Columns snapshot, made_at, run_id, versions (JSON), oldest first."""
        if not DeltaTable.is_deltatable(str(self._path(_SNAPSHOTS))):
            return pl.DataFrame(schema=_SNAPSHOT_SCHEMA)
        return scan_delta(self._path(_SNAPSHOTS), _SNAPSHOT_SCHEMA).collect().sort("snapshot")

    def versions(self, snapshot: int | None = None) -> Mapping[str, int]:
        """The version of each table at a snapshot; None: the last one.

        Raises:
            InputError: no run has finished yet, or there is no such snapshot.
        """
        known = self.snapshots()
        if known.is_empty():
            raise InputError(f"{self.folder} has no finished run; run `reportlabel run` first")
        rows = known.tail(1) if snapshot is None else known.filter(pl.col("snapshot") == snapshot)
        if rows.is_empty():
            raise InputError(f"{self.folder} has no version {snapshot}; there are 0 to {known.height - 1}")
        return {str(name): int(version) for name, version in json.loads(rows["versions"][0]).items()}

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
        gone = pl.col(column).is_in(list(values)).fill_null(False)
        if not self._has_parts(name):
            rows = self.read(name)
            kept = rows.filter(~gone)
            if kept.height < rows.height:
                self.replace(name, kept)
            return rows.height - kept.height
        removed = 0
        for part in range(self.parts + 1):
            rows = self.read(name, part=part)
            kept = rows.filter(~gone)
            if kept.height < rows.height:
                self.replace_part(name, part, kept)
            removed += rows.height - kept.height
        return removed

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No two programs that write at work in one workspace; the lock goes with the process.

        Raises:
            ConfigError: another one is at work.
        """
        with (self.folder / ".lock").open("w") as lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise ConfigError(f"another run is at work in {self.folder}; wait until it is done") from None
            yield

    def vacuum(self) -> list[str]:
        """Remove from the disk all that no newest version holds; earlier versions can no longer be read.

        Files go too that no version ever held: what a writer left that was killed before its commit. It waits until no
        table is being written, by whichever program.
        """
        removed: list[str] = []
        with self._files_stay(alone=True):
            for name in self._schemas:
                if self.exists(name):
                    table = DeltaTable(self._path(name))
                    removed += table.vacuum(
                        retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True
                    )
        return removed

    @contextmanager
    def _files_stay(self, *, alone: bool = False) -> Iterator[None]:
        """While a file is written and not yet committed it looks like one that was left over; the lock is that of any
        number of writers, or ``alone`` of who deletes files."""
        with (self.folder / ".files.lock").open("w") as lock:
            if fcntl is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
                except OSError as error:
                    raise ConfigError(
                        f"{self.folder} lies where files cannot be locked ({error.strerror}); move the workspace to a "
                        "local disk"
                    ) from None
            yield

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _has_parts(self, name: str) -> bool:
        return self.exists(name) and DeltaTable(self._path(name)).metadata().partition_columns == [_PART]

    def _checked(self, name: str, rows: pl.DataFrame) -> pl.DataFrame:
        schema = self._schemas[name]
        if rows.schema != schema:
            raise ValueError(f"table {name}: columns {rows.schema} are not {schema}")
        return rows

    def _write(self, name: str, rows: pl.DataFrame, *, mode: Literal["overwrite", "append"]) -> None:
        with self._files_stay():
            write_deltalake(
                self._path(name),
                self._checked(name, rows).to_arrow(compat_level=pl.CompatLevel.oldest()),
                mode=mode,
                configuration=_NO_STATISTICS,
            )


# the log outlives the data: it must not hold the least and greatest values of rows that were removed
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}


def _write_marker(marker: Path, parts: int) -> None:
    beside = marker.with_name(marker.name + ".new")
    beside.write_text(json.dumps({"format": _FORMAT, "parts": parts}) + "\n", encoding="utf-8")
    beside.replace(marker)
