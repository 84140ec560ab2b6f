"""The ingest stage: archive -> raw rows, and a look at an archive without writing anything."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

import polars as pl

from reportlabel.errors import InputError
from reportlabel.ingest.apart import read_apart
from reportlabel.ingest.archive import Archive, reader_of
from reportlabel.ingest.codes import LONG_UID
from reportlabel.ingest.raw import LONG_NUMBER, RawStore, Task, look, read_task, tasks
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, RecordRow, ReportRow, Row

STAGE = "read"


@dataclass(frozen=True)
class Read:
    """What a run read: files new or changed, as they were, gone from the archive; rows and quarantined rows."""

    files: int
    unchanged: int
    gone: int
    forgotten: int
    rows: int
    quarantined: int


def read_archive(
    archive: Archive,
    store: RawStore,
    *,
    workers: int = 1,
    every_byte: bool = False,
    forget_gone: bool = False,
    each_file: Callable[[int, int], None] | None = None,
) -> Read:
    """Read the new and changed files of an archive into the raw store.

    Args:
        every_byte: compare contents even where size and time of change are the same.
        forget_gone: rows of files that are no longer in the archive go; otherwise they stay.
        each_file: called with the files done and all files to read.
    """
    store.clean()
    found = look(archive, store, every_byte=every_byte)
    store.forget(found.replaced)
    forgotten = found.gone if forget_gone else found.gone.clear()
    store.forget(forgotten)
    rows = quarantined = done = 0
    tell = each_file or _silent
    tell(0, len(found.to_read))
    for notes in _each_task(tasks(archive, found), store, workers):
        store.note_files(notes)
        rows += int(notes["rows"].sum())
        quarantined += int(notes["quarantined"].sum())
        done += notes.height
        tell(done, len(found.to_read))
    store.clean()
    return Read(
        files=len(found.to_read),
        unchanged=found.unchanged,
        gone=found.gone.height,
        forgotten=forgotten.height,
        rows=rows,
        quarantined=quarantined,
    )


def _silent(_done: int, _of: int) -> None:
    return


_MUCH = 64 << 20
"""Bytes from which files are read in a process of their own: what reading took is given back when it ends."""


def _each_task(cut: list[Task], store: RawStore, workers: int) -> Iterator[pl.DataFrame]:
    if workers == 1 and sum(file.size for task in cut for file in task.files) > _MUCH:
        yield from read_apart(cut, store)
        return
    if workers == 1 or len(cut) < 2:
        for task in cut:
            yield read_task(task, store)
        return
    context = multiprocessing.get_context("spawn")  # polars must not be forked
    with ProcessPoolExecutor(min(workers, len(cut)), mp_context=context) as pool:
        waiting: set[Future[pl.DataFrame]] = set()
        try:
            for task in cut:
                waiting.add(pool.submit(read_task, task, store))
                if len(waiting) >= 2 * workers:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (one.result() for one in finished)
            while waiting:
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (one.result() for one in finished)
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process died (killed, or out of memory); what was read before stays. "
                "Run again with fewer --workers or more memory"
            ) from error


@dataclass
class Preview:
    """What an archive holds, without writing anything.

    Attributes:
        by_kind: (site, kind) -> rows; kind: patients, exams CT, reports, pathology, …
        by_month: (site, month YYYY-MM) -> exams.
        problems: (format, kind, reason, remedy) -> how often.
        places: for each problem the first few places.
    """

    files: int = 0
    new: int = 0
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_month: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    places: dict[tuple[str, str, str, str], list[str]] = field(default_factory=dict)


def preview(archive: Archive, store: RawStore | None, *, places: int = 3) -> Preview:
    """Read an archive and count; ``store``: of the workspace, to tell what is new. Nothing is written."""
    seen = Preview()
    for source in archive.sources:
        reader = reader_of(source.format)
        for path in reader.files(source):
            seen.files += 1
            for row in reader.read(path, source):
                _count(seen, row, source.format, places)
    seen.new = len(look(archive, store, note=False).to_read) if store is not None else seen.files
    for path in archive.unrecognised:
        problem = ("", "file", UNRECOGNISED, UNRECOGNISED_REMEDY)
        seen.problems[problem] += 1
        shown = seen.places.setdefault(problem, [])
        if len(shown) < places:
            shown.append(hidden_numbers(path.as_posix()))
    return seen


UNRECOGNISED = "No reader knows the format of the file."
UNRECOGNISED_REMEDY = "Name its format in archive.yaml, or take it out of the folder."


def hidden_numbers(path: str) -> str:
    """A path without long numbers, which may be ids of patients, and without UIDs of their exams."""
    return LONG_NUMBER.sub("…", LONG_UID.sub("…", path))


def _count(seen: Preview, row: Row, source_format: str, places: int) -> None:
    match row:
        case Quarantined():
            problem = (source_format, row.kind, row.reason, row.remedy)
            seen.problems[problem] += 1
            shown = seen.places.setdefault(problem, [])
            if len(shown) < places:
                shown.append(row.path if row.row is None else f"{row.path}:{row.row}")
        case PatientRow():
            seen.by_kind[row.site, "patients"] += 1
        case ExamRow():
            seen.by_kind[row.site, f"exams {row.modality or '?'}"] += 1
            if row.started_at is not None:
                seen.by_month[row.site, row.started_at.strftime("%Y-%m")] += 1
        case ReportRow():
            seen.by_kind[row.site, "reports"] += 1
        case RecordRow():
            seen.by_kind[row.site, row.kind] += 1
