"""A withdrawal: everything of a person leaves a workspace, from the disk too, and it is looked for afterwards.

    raw = raw_stores(workspace)
    people = people_to_remove(workspace, raw, refusals, protocol, today=date.today())
    gone = remove_people(workspace, raw, people)

The rows of the person are deleted from every table and from the rows that readers kept of the archive; then all that no
newest version holds is deleted from the disk (`Workspace.vacuum`), so that no earlier version has the person either.
Earlier versions of all tables are gone with it: what was pinned by its version must be exported again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError

from reportlabel.consent.refusals import apply_refusals, shipped_with
from reportlabel.errors import InputError
from reportlabel.ingest.raw import RawStore
from reportlabel.protocol import Protocol
from reportlabel.schema import WORKSPACE
from reportlabel.store import Workspace

if TYPE_CHECKING:
    from reportlabel.deidentify.linkage import LinkageStore

__all__ = [
    "Removed",
    "people_to_remove",
    "raw_stores",
    "read_shipped",
    "remembered_shipped",
    "remove_people",
    "shipped_to",
]

PEOPLE = pl.Schema({"site": pl.String, "patient_id": pl.String})
_PERSON = list(PEOPLE)


@dataclass(frozen=True)
class Removed:
    """What was removed, and what a search afterwards found.

    Attributes:
        people: how many of the people stood in the workspace.
        rows: table, removed, left: rows that were removed, and rows of these people or their exams that a search
            found afterwards. Tables that readers made are named ``raw/…``.
        exams: the ids of their exams, whose tasks must leave the review server.
        files: how many files of old versions were deleted from the disk.
        paths: how many paths of files of the archive, which the workspace remembers, hold a number of theirs.
    """

    people: int
    rows: pl.DataFrame
    exams: tuple[str, ...]
    files: int
    paths: int


def people_to_remove(
    workspace: Workspace,
    raw: Sequence[RawStore],
    refusals: pl.DataFrame,
    protocol: Protocol,
    *,
    today: date,
    persons: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The people of a workspace (site, patient_id) who must leave it; those on hold and of later exports stay in it.

    Args:
        raw: see `raw_stores`.
        refusals: columns of `REFUSALS`; where the workspace holds codes, by code (`in_codes`).
        persons: as in `apply_refusals`.
    """
    there = [workspace.read(name, columns=_PERSON) for name in ("exams", "records")]
    there += [table for one in raw for table in _raw_people(one).values()]
    known = pl.concat(there).drop_nulls().unique(maintain_order=True)
    out = apply_refusals(known, refusals, protocol, today=today, persons=persons).excluded
    return out.filter(pl.col("effect") == "remove").select(_PERSON).sort(_PERSON)


def remove_people(
    workspace: Workspace, raw: Sequence[RawStore], people: pl.DataFrame, *, held: bool = False
) -> Removed:
    """Delete all rows of people, then all old versions, then look for them.

    Args:
        raw: see `raw_stores`.
        people: site, patient_id, as they stand in the workspace. Nobody: nothing is deleted, and it is looked for
            nothing.
        held: the caller holds the lock of the workspace (`Workspace.alone`).

    Raises:
        ConfigError: another program is at work in the workspace, or a file cannot be written.
    """
    if people.is_empty():
        return Removed(0, pl.DataFrame(schema=_ROWS), (), 0, 0)
    with nullcontext() if held else workspace.alone():
        exams = _of(workspace.read("exams", columns=["exam_id", *_PERSON]), people)
        records = _of(workspace.read("records", columns=["record_id", *_PERSON]), people)["record_id"].to_list()
        exam_ids = exams["exam_id"].to_list()
        reports = workspace.read("reports", columns=["report_id", "exam_id"])
        keys = {
            "exam_id": exam_ids,
            "record_id": records,
            "report_id": reports.filter(pl.col("exam_id").is_in(exam_ids))["report_id"].to_list(),
        }
        removed: dict[str, int] = {}
        for name, schema in WORKSPACE.items():
            by = [key for key in keys if key in schema and keys[key]]
            if by and workspace.exists(name):
                removed[name] = sum(workspace.remove(name, key, keys[key]) for key in by)
        before = [_counted(one, people) for one in raw]
        for one in raw:
            one.remove_patients(people)
        files = len(workspace.vacuum())
        if sum(removed.values()) and not workspace.snapshots().is_empty():
            at = datetime.now(UTC)
            workspace.take_snapshot(f"withdrawal-{at:%Y%m%dT%H%M%S}Z", at.replace(tzinfo=None))
        rows = [(name, count, _left(workspace, name, keys, people)) for name, count in removed.items()]
        for one, counts in zip(raw, before, strict=True):
            after = _counted(one, people)
            rows += [(f"raw/{name}", count - after.get(name, 0), after.get(name, 0)) for name, count in counts.items()]
        return Removed(
            people=people.height,
            rows=pl.DataFrame(rows, schema=_ROWS, orient="row"),
            exams=tuple(exam_ids),
            files=files,
            paths=sum(_paths_with(one, people) for one in raw),
        )


_ROWS = pl.Schema({"table": pl.String, "removed": pl.Int64, "left": pl.Int64})


def _counted(raw: RawStore, people: pl.DataFrame) -> dict[str, int]:
    """Table -> rows of these people."""
    return {name: _of(rows, people).height for name, rows in _raw_people(raw).items()}


def _of(rows: pl.DataFrame, people: pl.DataFrame) -> pl.DataFrame:
    return rows.join(people, on=_PERSON, how="semi")


def _left(workspace: Workspace, name: str, keys: dict[str, list[str]], people: pl.DataFrame) -> int:
    """Rows of a table that are still of these people."""
    schema = WORKSPACE[name]
    columns = [column for column in (*keys, *_PERSON) if column in schema]
    rows = workspace.read(name, columns=columns)
    theirs = pl.any_horizontal(pl.col(key).is_in(keys[key]).fill_null(False) for key in keys if key in schema)
    if set(_PERSON) <= set(schema):
        mark = pl.struct(_PERSON).is_in(people.select(pl.struct(_PERSON).alias("who"))["who"].implode())
        theirs = theirs | mark
    return rows.filter(theirs).height


# --- the rows that readers kept ---------------------------------------------------------------------------------------


def raw_stores(workspace: Workspace, staging: Path | None = None) -> list[RawStore]:
    """Where the rows as they were read are kept: within the workspace, or of a study in its staging folder beside it.

    Args:
        staging: the staging folder, where it is not ``WORKSPACE.staging``.
    """
    beside = workspace.folder.with_name(f"{workspace.folder.name}.staging") if staging is None else staging
    folders = [workspace.folder / "raw", beside]
    return [RawStore(folder, workspace.parts) for folder in folders if (folder / "rows").is_dir()]


def _raw_people(raw: RawStore) -> dict[str, pl.DataFrame]:
    """Table -> site and patient_id of its rows on the disk, whether they count or not."""
    found: dict[str, list[pl.DataFrame]] = {}
    for path in sorted((raw.folder / "rows").glob("*/*.parquet")):
        scan = pl.scan_parquet(path)
        if set(_PERSON) <= set(scan.collect_schema()):
            found.setdefault(path.stem, []).append(scan.select(_PERSON).collect())
    return {name: pl.concat(tables) for name, tables in found.items()}


def _paths_with(raw: RawStore, people: pl.DataFrame) -> int:
    """Paths of files of the archive with a number of these people as one of their words."""
    from reportlabel.deidentify.dicom_folder import named_in
    from reportlabel.deidentify.dicom_scan import Canaries

    canaries = Canaries(people["patient_id"])
    return sum(bool(named_in(Path(path), canaries)) for path in raw.files()["path"])


# --- what was handed over ---------------------------------------------------------------------------------------------

_SHIPPED = pl.Schema({"bundle": pl.String, "recipient": pl.String, "shipped_on": pl.String, "patient_code": pl.String})


def read_shipped(path: Path) -> pl.DataFrame:
    """Who was in what was handed over: bundle, recipient, shipped_on (a day), patient_code; CSV in UTF-8 or Parquet.

    Raises:
        InputError: it cannot be read, lacks a column, or a day is none.
    """
    try:
        is_parquet = path.suffix.lower() in (".parquet", ".pq")
        table = pl.read_parquet(path) if is_parquet else pl.read_csv(path, infer_schema=False)
        if missing := [name for name in _SHIPPED if name not in table.columns]:
            raise InputError(f"{path}: lacks the column {', '.join(missing)}")
        rows = table.select(pl.col(name).cast(pl.String) for name in _SHIPPED)
        return rows.with_columns(pl.col("shipped_on").str.slice(0, 10).str.to_date("%Y-%m-%d"))
    except (PolarsError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); it is CSV in UTF-8 or Parquet, days as 2026-04-01"
        ) from None


def remembered_shipped(store: LinkageStore, *, actor: str) -> pl.DataFrame:
    """The same, as exports left it in the linkage store (its table ``shipped``); empty before the first hand-over."""
    try:
        rows = store.get("shipped", actor=actor, purpose="withdrawal")
    except InputError:
        return pl.DataFrame(schema={**_SHIPPED, "shipped_on": pl.Date})
    return rows.select(pl.col(name) for name in _SHIPPED)


def shipped_to(
    standing: pl.DataFrame, shipped: pl.DataFrame, codes: pl.DataFrame, *, persons: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Whom to write to: bundle, recipient, shipped_on, and how many people of it have refused; see `shipped_with`."""
    return (
        shipped_with(standing, shipped, codes, persons=persons)
        .group_by("bundle", "recipient", "shipped_on", maintain_order=True)
        .agg(people=pl.col("patient_code").n_unique())
    )
