"""The raw store: what readers found in the files of an archive, kept so that only new and changed files are read again.

    raw/files/                 Delta table: one row a file that was read, with its content hash; the last row counts
    raw/rows/<batch>/*.parquet patients, exams, reports, records, quarantine: rows with the number of their reading

A batch is written under another name and renamed, and a file counts only when it stands in the table of files: what a
killed run leaves is never read and is removed by the next one. Rows hold the hospital's own patient ids; names,
addresses and phone numbers never get here, because readers do not yield them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable, write_deltalake

from reportlabel.ingest.archive import Archive, reader_of
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.store import scan_delta

ROW_TABLES: dict[str, type] = {
    "patients": PatientRow,
    "exams": ExamRow,
    "reports": ReportRow,
    "records": RecordRow,
    "quarantine": Quarantined,
}

_TYPES: dict[str, pl.DataType | type[pl.DataType]] = {
    "str": pl.String,
    "str | None": pl.String,
    "int": pl.Int32,
    "int | None": pl.Int32,
    "float | None": pl.Float64,
    "date | None": pl.Date,
    "datetime | None": pl.Datetime("us"),
}

FILES = pl.Schema(
    {
        "archive": pl.String,
        "path": pl.String,
        "format": pl.String,
        "sha256": pl.String,
        "size": pl.Int64,
        "changed_ns": pl.Int64,
        "reader": pl.String,
        "reading": pl.String,
        "rows": pl.Int64,
        "quarantined": pl.Int64,
    }
)
"""The files that were read. ``reader``: hash of the reader's rules and options; ``reading``: number of this reading."""

ROWS_A_BATCH = 30_000
_ROW_GROUP = 8_192
LONG_NUMBER = re.compile(r"(?<![\d.])\d{5,}(?![\d.]*\d\.\d)")
_NO_STATISTICS = {"delta.dataSkippingNumIndexedCols": "0"}


def row_schema(table: str) -> pl.Schema:
    """The columns of a raw table: those of the row, then part, format and reading."""
    columns = {one.name: _TYPES[str(one.type)] for one in fields(ROW_TABLES[table])}
    own: dict[str, pl.DataType | type[pl.DataType]] = {"part": pl.Int32} if table != "quarantine" else {}
    return pl.Schema({**columns, **own, "format": pl.String, "reading": pl.String})


def part_of(site: str, patient_id: str, parts: int) -> int:
    """The part of a patient; the same on every machine."""
    return zlib.crc32(f"{site}\0{patient_id}".encode()) % parts


@dataclass(frozen=True)
class FileToRead:
    """A file that is new or has changed."""

    source: Source
    path: Path
    key: str
    sha256: str
    size: int
    changed_ns: int
    reader: str


@dataclass(frozen=True)
class Task:
    """Files that one process reads in one go."""

    archive: str
    files: tuple[FileToRead, ...]


@dataclass(frozen=True)
class Look:
    """What a look at the archive found.

    Attributes:
        to_read: files that are new or have changed; unchanged: how many are as they were.
        gone: files that count but are no longer in the archive (columns of `FILES`).
        replaced: files that count and are there, but are no longer to be read: the format says that another has taken
            their place.
    """

    to_read: tuple[FileToRead, ...]
    unchanged: int
    gone: pl.DataFrame
    replaced: pl.DataFrame


class RawStore:
    """The folder ``raw`` of a workspace."""

    def __init__(self, folder: Path, parts: int) -> None:
        self.folder = folder
        self.parts = parts

    # --- files

    def files(self) -> pl.DataFrame:
        """The files that count, one row each."""
        if not DeltaTable.is_deltatable(str(self._files)):
            return pl.DataFrame(schema=FILES)
        return (
            scan_delta(self._files, pl.Schema([*FILES.items(), ("sequence", pl.Int64())]))
            .collect()
            .sort("sequence")
            .unique(["archive", "path"], keep="last", maintain_order=True)
            .filter(pl.col("reading") != "")
            .select(FILES.names())
            .cast(FILES)
        )

    def note_files(self, rows: pl.DataFrame) -> None:
        """Let the readings of these files count, in one commit."""
        exists = DeltaTable.is_deltatable(str(self._files))
        sequence = DeltaTable(self._files).version() + 1 if exists else 0
        table = rows.cast(FILES).with_columns(pl.lit(sequence, dtype=pl.Int64).alias("sequence"))
        write_deltalake(
            self._files,
            table.to_arrow(compat_level=pl.CompatLevel.oldest()),
            mode="append",
            configuration=None if exists else _NO_STATISTICS,
        )

    def forget(self, rows: pl.DataFrame) -> None:
        """Let files of `files` no longer count."""
        if not rows.is_empty():
            self.note_files(rows.with_columns(reading=pl.lit("")))

    def clean(self) -> None:
        """Remove from the disk the rows of files that do not count: what a killed run left, and what was replaced."""
        self.drop_unfinished()
        counting = set(self.files()["reading"])
        for folder in self.batches():
            held = set(_readings(folder))
            if not counting & held:
                shutil.rmtree(folder)
            elif held - counting:
                _keep_readings(folder, sorted(held & counting))

    def batches(self) -> list[Path]:
        """The folders of rows that were written to their end, whether they count or not."""
        if not self._rows.is_dir():
            return []
        return sorted(one for one in self._rows.iterdir() if one.is_dir() and not one.name.startswith("."))

    def drop_unfinished(self) -> None:
        """Remove from the disk what was being written when a program was killed: half batches, files not yet renamed.

        Nobody else may be at work in the folder.
        """
        if not self._rows.is_dir():
            return
        for left in sorted(self._rows.glob(".*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for folder in self.batches():
            for path in sorted(folder.glob("*.new")):
                path.unlink()

    def remove_patients(self, people: pl.DataFrame) -> int:
        """Remove from the disk all rows of these patients (site, patient_id); returns how many there were.

        Their files still count: what is removed is not read again while the file stays as it is. Nobody else may be at
        work in the folder.
        """
        if people.is_empty():
            return 0
        self.drop_unfinished()
        removed = 0
        for folder in self.batches():
            for table in (name for name in ROW_TABLES if name != "quarantine"):
                path = folder / f"{table}.parquet"
                if not path.is_file():
                    continue
                found = pl.scan_parquet(path).select("site", "patient_id").collect()
                gone = found.join(people.select("site", "patient_id").unique(), on=["site", "patient_id"], how="semi")
                if gone.is_empty():
                    continue
                removed += gone.height
                kept = pl.read_parquet(path).join(people, on=["site", "patient_id"], how="anti", maintain_order="left")
                beside = path.with_suffix(".new")
                kept.write_parquet(beside, row_group_size=_ROW_GROUP)
                beside.replace(path)
        return removed

    # --- rows

    def write_batch(
        self, rows: dict[str, list[Row]], formats: dict[str, list[str]], readings: dict[str, list[str]]
    ) -> None:
        """Write rows of several files as one batch."""
        beside = self._rows / f".{uuid4().hex}"
        beside.mkdir(parents=True)
        names: set[str] = set()
        for table, found in rows.items():
            frame = _frame(table, found, formats[table], readings[table], self.parts)
            frame.write_parquet(beside / f"{table}.parquet", row_group_size=_ROW_GROUP)
            names |= set(readings[table])
        (beside / "readings.json").write_text(json.dumps(sorted(names)), encoding="utf-8")
        beside.rename(self._rows / beside.name[1:])

    def rows(self, table: str, *, part: int | None = None) -> pl.DataFrame:
        """The rows of a table that count, in the order of archive, path and place in the file."""
        schema = row_schema(table)
        paths = self._paths(table)
        if not paths:
            return pl.DataFrame(schema=schema)
        files = self.files().sort("archive", "path").with_row_index("file_order").select("reading", "file_order")
        scan = pl.scan_parquet(paths)
        if part is not None and table != "quarantine":
            scan = scan.filter(pl.col("part") == part)
        return (
            scan.join(files.lazy(), on="reading", how="inner")
            .sort("file_order", "place", maintain_order=True)
            .select(schema.names())
            .collect()
        )

    def readings_by_part(self) -> dict[int, list[str]]:
        """The readings that count with rows in each part, sorted: what the tables of the part are made of."""
        counting = self.files().lazy().select("reading")
        scans = [
            pl.scan_parquet(paths).select("part", "reading").unique()
            for table in ROW_TABLES
            if table != "quarantine" and (paths := self._paths(table))
        ]
        if not scans:
            return {}
        pairs = pl.concat(scans).unique().join(counting, on="reading", how="semi").sort("part", "reading").collect()
        return {int(part): rows["reading"].to_list() for (part,), rows in pairs.group_by("part", maintain_order=True)}

    def removed(self) -> int:
        """How many rows of the files that count are no longer there, because the people they are of were removed."""
        scans = [
            pl.scan_parquet(paths).select("reading")
            for table in ROW_TABLES
            if table != "quarantine" and (paths := self._paths(table))
        ]
        files = self.files()
        if not scans:
            return int(files["rows"].sum())
        there = pl.concat(scans).join(files.lazy().select("reading"), on="reading", how="semi")
        return int(files["rows"].sum()) - int(there.select(pl.len()).collect().item())

    def shared_uids(self) -> list[str]:
        """StudyInstanceUIDs that stand with more than one patient."""
        paths = self._paths("exams")
        if not paths:
            return []
        return (
            pl.scan_parquet(paths)
            .join(self.files().lazy().select("reading"), on="reading", how="semi")
            .filter(pl.col("study_instance_uid").is_not_null())
            .select("study_instance_uid", "site", "patient_id")
            .unique()
            .group_by("study_instance_uid")
            .len()
            .filter(pl.col("len") > 1)
            .select(pl.col("study_instance_uid").sort())
            .collect()["study_instance_uid"]
            .to_list()
        )

    def shown_paths(self) -> pl.DataFrame:
        """reading, path: paths as messages may show them, without numbers that may be ids."""
        files = self.files()
        shown = [LONG_NUMBER.sub("…", path) for path in files["path"]]
        return files.select("reading").with_columns(pl.Series("path", shown, dtype=pl.String))

    def _paths(self, table: str) -> list[Path]:
        return [path for folder in self.batches() if (path := folder / f"{table}.parquet").is_file()]

    @property
    def _files(self) -> Path:
        return self.folder / "files"

    @property
    def _rows(self) -> Path:
        return self.folder / "rows"


def look(archive: Archive, store: RawStore, *, every_byte: bool = False, note: bool = True) -> Look:
    """Find the files of an archive that are new or have changed.

    A file of the same size and time of change is taken as unchanged, unless ``every_byte``; one whose content hash is
    as before is not read again either. ``note``: remember the new time of change of the latter.
    """
    known = {row["path"]: row for row in store.files().filter(pl.col("archive") == archive.name).iter_rows(named=True)}
    to_read: list[FileToRead] = []
    seen: set[str] = set()
    refreshed: list[dict[str, Any]] = []
    unchanged = 0
    for source in archive.sources:
        reader = reader_of(source.format)
        reader_hash = _reader_hash(source)
        for path in reader.files(source):
            key = path.relative_to(archive.root).as_posix() if path.is_relative_to(archive.root) else path.as_posix()
            seen.add(key)
            size, changed_ns = _stamp(path, source)
            before = known.get(key)
            same_reader = before is not None and before["reader"] == reader_hash
            stamped = before is not None and (before["size"], before["changed_ns"]) == (size, changed_ns)
            if same_reader and stamped and not every_byte:
                unchanged += 1
                continue
            sha256 = _sha256(path, source)
            if same_reader and before is not None and before["sha256"] == sha256:
                unchanged += 1
                refreshed.append({**before, "size": size, "changed_ns": changed_ns})
                continue
            to_read.append(FileToRead(source, path, key, sha256, size, changed_ns, reader_hash))
    if refreshed and note:
        store.note_files(pl.DataFrame(refreshed, schema=FILES))
    missing = store.files().filter((pl.col("archive") == archive.name) & ~pl.col("path").is_in(sorted(seen)))
    there = pl.Series([(archive.root / path).exists() for path in missing["path"]], dtype=pl.Boolean)
    return Look(tuple(to_read), unchanged, missing.filter(~there), missing.filter(there))


def tasks(archive: Archive, found: Look, *, bytes_a_task: int = 32 << 20, files_a_task: int = 4_000) -> list[Task]:
    """Cut the files to read into tasks, in their order."""
    cut: list[list[FileToRead]] = [[]]
    weight = 0
    for file in found.to_read:
        if cut[-1] and (weight + file.size > bytes_a_task or len(cut[-1]) >= files_a_task):
            cut.append([])
            weight = 0
        cut[-1].append(file)
        weight += file.size
    return [Task(archive.name, tuple(files)) for files in cut if files]


def read_task(task: Task, store: RawStore) -> pl.DataFrame:
    """Read the files of a task into batches; returns their rows for `RawStore.note_files`."""
    gathered = _Gathered(store)
    notes = []
    for file in task.files:
        reading = uuid4().hex
        counts: Counter[str] = Counter()
        for row in reader_of(file.source.format).read(file.path, file.source):
            counts["quarantined" if isinstance(row, Quarantined) else "rows"] += 1
            gathered.add(row, file.source.format, reading)
        place = (task.archive, file.key, file.source.format, file.sha256, file.size, file.changed_ns, file.reader)
        notes.append((*place, reading, counts["rows"], counts["quarantined"]))
    gathered.flush()
    return pl.DataFrame(notes, schema=FILES, orient="row")


class _Gathered:
    """Rows that wait to be written."""

    def __init__(self, store: RawStore) -> None:
        self._store = store
        self._start()

    def _start(self) -> None:
        self._rows: dict[str, list[Row]] = {name: [] for name in ROW_TABLES}
        self._formats: dict[str, list[str]] = {name: [] for name in ROW_TABLES}
        self._readings: dict[str, list[str]] = {name: [] for name in ROW_TABLES}
        self._count = 0

    def add(self, row: Row, source_format: str, reading: str) -> None:
        table = _TABLE_OF[type(row)]
        self._rows[table].append(row)
        self._formats[table].append(source_format)
        self._readings[table].append(reading)
        self._count += 1
        if self._count >= ROWS_A_BATCH:
            self.flush()

    def flush(self) -> None:
        if self._count:
            self._store.write_batch(self._rows, self._formats, self._readings)
        self._start()


_TABLE_OF = {row: name for name, row in ROW_TABLES.items()}


def _frame(table: str, rows: Sequence[Row], formats: list[str], readings: list[str], parts: int) -> pl.DataFrame:
    kind = ROW_TABLES[table]
    names = [one.name for one in fields(kind)]
    schema = row_schema(table)
    columns: Iterable[tuple[Any, ...]] = zip(*map(attrgetter(*names), rows), strict=True) if rows else [()] * len(names)
    data: dict[str, Any] = dict(zip(names, columns, strict=True))
    if table != "quarantine":
        data["part"] = [part_of(row.site, row.patient_id, parts) for row in rows if not isinstance(row, Quarantined)]
    data |= {"format": formats, "reading": readings}
    frame = pl.DataFrame(data, schema=schema).with_row_index("place")
    return frame if table == "quarantine" else frame.sort("part", maintain_order=True)


def _keep_readings(folder: Path, kept: list[str]) -> None:
    """Rewrite a batch without the rows of other readings; each file is replaced at once, so that it may be cut off."""
    for table in ROW_TABLES:
        path = folder / f"{table}.parquet"
        beside = path.with_suffix(".new")
        pl.read_parquet(path).filter(pl.col("reading").is_in(kept)).write_parquet(beside, row_group_size=_ROW_GROUP)
        beside.replace(path)
    beside = folder / "readings.new"
    beside.write_text(json.dumps(kept), encoding="utf-8")
    beside.replace(folder / "readings.json")


def _readings(folder: Path) -> Iterator[str]:
    try:
        yield from json.loads((folder / "readings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return


def _stamp(path: Path, source: Source) -> tuple[int, int]:
    """Size and time of change of a file and of what its rows depend on."""
    size, changed = 0, 0
    for one in (path, *_depends(path, source)):
        try:
            stat = one.stat()
        except OSError:
            continue
        size += stat.st_size
        changed = max(changed, stat.st_mtime_ns)
    return size, changed


def _sha256(path: Path, source: Source) -> str:
    digest = hashlib.sha256()
    for one in (path, *_depends(path, source)):
        try:
            with one.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError:
            digest.update(b"unreadable")
        digest.update(b"\0")
    return digest.hexdigest()


def _depends(path: Path, source: Source) -> list[Path]:
    """Other files that the rows of a file depend on (resources that refer to each other)."""
    depends = getattr(reader_of(source.format), "depends", None)
    return [] if depends is None else list(depends(path, source))


def _reader_hash(source: Source) -> str:
    """Changes where the rows of a file would: with the rules of the readers, the site and the options."""
    digest = hashlib.sha256()
    for path in sorted((rules_folder() / "ingest").glob("*.yaml")):
        digest.update(path.read_bytes())
    said = {
        "reportlabel": version("reportlabel"),
        "format": source.format,
        "site": source.site,
        "options": dict(source.options),
    }
    digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    return digest.hexdigest()
