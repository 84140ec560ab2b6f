"""A withdrawal: everything of a person leaves a workspace, from the disk too, and it is looked for afterwards.

    raw = raw_stores(workspace)
    people = people_to_remove(workspace, raw, refusals, protocol, today=date.today())
    gone = remove_people(workspace, raw, people)

The rows of the person are deleted from every table and from the rows that readers kept of the archive; then all that no
newest version holds is deleted from the disk (`Workspace.vacuum`), so that no earlier version has the person either.
Earlier versions of all tables are gone with it: what was pinned by its version must be exported again.

Which exams, reports and records are to go is written down in the workspace before the first row is deleted, for it is
read from rows that are deleted themselves. A withdrawal that is killed is finished by the next one, and by the next
run, whoever is on the list then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError

from reportlabel.consent.refusals import apply_refusals, shipped_with
from reportlabel.deidentify.private_file import write_private
from reportlabel.errors import ConfigError, InputError
from reportlabel.ingest.raw import RawStore
from reportlabel.protocol import Protocol
from reportlabel.schema import WORKSPACE
from reportlabel.store import Workspace

if TYPE_CHECKING:
    from reportlabel.deidentify.linkage import LinkageStore

__all__ = [
    "Removed",
    "loose_rows",
    "people_there",
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

    What an earlier withdrawal had begun, and this one finished, is in it.

    Attributes:
        people: how many of the people stood in the workspace or among the rows of the readers.
        patients: their ids as they stood there.
        rows: table, removed, left: rows that were removed, and rows of these people or their exams that a search
            found afterwards. Tables that readers made are named ``raw/…``.
        exams: the ids of their exams, whose tasks must leave the review server.
        files: how many files of old versions were deleted from the disk.
        paths: how many paths of files of the archive, which the workspace remembers, hold a number of theirs.
    """

    people: int
    patients: tuple[str, ...]
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
    known = people_there(workspace, raw)
    out = apply_refusals(known, refusals, protocol, today=today, persons=persons).excluded
    return out.filter(pl.col("effect") == "remove").select(_PERSON).sort(_PERSON)


def people_there(workspace: Workspace, raw: Sequence[RawStore]) -> pl.DataFrame:
    """Everybody of whom a workspace or its readers hold a row: site, patient_id."""
    there = [workspace.read(name, columns=_PERSON) for name in ("exams", "records")]
    there += [table for one in raw for table in _raw_people(one).values()]
    return pl.concat(there).drop_nulls().unique(maintain_order=True)


def remove_people(
    workspace: Workspace,
    raw: Sequence[RawStore],
    people: pl.DataFrame,
    *,
    held: bool = False,
    exams_to: Path | None = None,
) -> Removed:
    """Delete all rows of people, then all old versions, then look for them. First finish what an earlier one began.

    Args:
        raw: see `raw_stores`.
        people: site, patient_id, as they stand in the workspace. Nobody: nothing is deleted, and it is looked for
            nothing, but for what an earlier withdrawal left.
        held: the caller holds the lock of the workspace (`Workspace.alone`).
        exams_to: a file for the ids of the exams that are gone, with the header exam_id.

    Raises:
        ConfigError: another program is at work in the workspace, or a file cannot be written.
    """
    with nullcontext() if held else workspace.alone():
        for one in raw:
            one.drop_unfinished()
        begun = _begun(workspace)
        if people.is_empty() and begun is None:
            _write_exams(exams_to, [])
            return Removed(0, (), pl.DataFrame(schema=_ROWS), (), 0, 0)
        todo = _to_do(workspace, people, begun)
        write_private(workspace.folder / _BEGUN, json.dumps(todo).encode())
        keys = {key: todo[key] for key in _KEYS}
        everybody = pl.concat([people.select(_PERSON), _people_of(todo)]).unique(maintain_order=True)
        removed: dict[str, int] = {}
        for name, schema in WORKSPACE.items():
            by = [key for key in keys if key in schema and keys[key]]
            if by and workspace.exists(name):
                removed[name] = sum(workspace.remove(name, key, keys[key]) for key in by)
        before = [_counted(one, everybody) for one in raw]
        for one in raw:
            one.remove_patients(everybody)
        # before the old versions go, so that the last snapshot can be read at any moment
        if (begun is not None or any(removed.values())) and not workspace.snapshots().is_empty():
            at = datetime.now(UTC)
            workspace.take_snapshot(f"withdrawal-{at:%Y%m%dT%H%M%S}Z", at.replace(tzinfo=None))
        files = len(workspace.vacuum())
        rows = [(name, count, _left(workspace, name, keys, everybody)) for name, count in removed.items()]
        for one, counts in zip(raw, before, strict=True):
            after = _counted(one, everybody)
            rows += [(f"raw/{name}", count - after.get(name, 0), after.get(name, 0)) for name, count in counts.items()]
        _write_exams(exams_to, keys["exam_id"])
        found = pl.DataFrame(rows, schema=_ROWS, orient="row")
        if not found["left"].sum():
            (workspace.folder / _BEGUN).unlink()
        return Removed(
            people=everybody.height,
            patients=tuple(everybody["patient_id"]),
            rows=found,
            exams=tuple(keys["exam_id"]),
            files=files,
            paths=sum(_paths_with(one, everybody) for one in raw),
        )


def _write_exams(path: Path | None, exams: Sequence[str]) -> None:
    if path is not None:
        write_private(path, "".join(f"{exam}\n" for exam in ("exam_id", *exams)).encode())


def loose_rows(workspace: Workspace) -> dict[str, int]:
    """Table -> rows of exams that are not there, in tables that have some.

    A run makes most tables anew with the exams; what readers answered stays, and may be of an exam that has left.
    """
    exams = workspace.read("exams", columns=["exam_id"])["exam_id"].implode()
    loose = {}
    for name, schema in WORKSPACE.items():
        if name != "exams" and "exam_id" in schema and workspace.exists(name):
            held = workspace.read(name, columns=["exam_id"])["exam_id"].drop_nulls()
            loose[name] = int((~held.is_in(exams)).sum())
    return {name: count for name, count in loose.items() if count}


# --- what was begun ---------------------------------------------------------------------------------------------------

_BEGUN = "withdrawal.json"
"""In the workspace, from before the first row is deleted until none is found: what is to go, by the ids that stand in
the workspace alone."""
_KEYS = ("exam_id", "record_id", "report_id")


def _begun(workspace: Workspace) -> dict[str, list[str]] | None:
    """What a withdrawal that was killed had set out to delete."""
    path = workspace.folder / _BEGUN
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return {name: [str(one) for one in said[name]] for name in (*_KEYS, *_PERSON)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read: it says what a withdrawal that was stopped has still to delete; restore it"
        ) from error


def _to_do(
    workspace: Workspace, people: pl.DataFrame, begun: Mapping[str, Sequence[str]] | None
) -> dict[str, list[str]]:
    """The keys of the rows of these people, the people as the tables have them, and what was begun before."""
    exams = _of(workspace.read("exams", columns=["exam_id", *_PERSON]), people)
    records = _of(workspace.read("records", columns=["record_id", *_PERSON]), people)
    reports = workspace.read("reports", columns=["report_id", "exam_id"])
    who = pl.concat([exams.select(_PERSON), records.select(_PERSON)]).unique(maintain_order=True).sort(_PERSON)
    if begun is not None:
        who = pl.concat([who, _people_of(begun)]).unique(maintain_order=True)
    before: Mapping[str, Sequence[str]] = begun or {}
    exam_ids = sorted({*exams["exam_id"], *before.get("exam_id", ())})
    of_exams = reports.filter(pl.col("exam_id").is_in(exam_ids))["report_id"]
    return {
        "exam_id": exam_ids,
        "record_id": sorted({*records["record_id"], *before.get("record_id", ())}),
        "report_id": sorted({*of_exams, *before.get("report_id", ())}),
        "site": who["site"].to_list(),
        "patient_id": who["patient_id"].to_list(),
    }


def _people_of(todo: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    return pl.DataFrame({name: list(todo[name]) for name in _PERSON}, schema=PEOPLE)


# --- counting ---------------------------------------------------------------------------------------------------------

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
    for path in (path for folder in raw.batches() for path in sorted(folder.glob("*.parquet"))):
        try:
            scan = pl.scan_parquet(path)
            if set(_PERSON) <= set(scan.collect_schema()):
                found.setdefault(path.stem, []).append(scan.select(_PERSON).collect())
        except PolarsError as error:
            raise InputError(
                f"{path}: cannot be read ({type(error).__name__}), so nobody can say who is in it; restore it, or "
                "delete its folder and run again"
            ) from None
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
