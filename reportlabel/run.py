"""`reportlabel ingest` and `reportlabel run`: the flow over an archive, kept in a workspace.

The patients are cut into parts. A part is made anew only when what it is made of has changed: the files its rows come
from, the rules, the label sets. Every table of a part is written as a whole and the note that the part is done comes
last, so that a run that was killed at any moment is repeated where it stopped and gives the same labels.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import polars as pl

from reportlabel import flow
from reportlabel.aggregate.combine import AGGREGATED, aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.ingest.archive import open_archive
from reportlabel.ingest.assemble import Assembled, RawRows, reports_that_count
from reportlabel.ingest.raw import RawStore
from reportlabel.ingest.stage import UNRECOGNISED, UNRECOGNISED_REMEDY, Read, hidden_numbers, read_archive
from reportlabel.rulebook.exams import scope_of
from reportlabel.schema import ATTRITION, EXAM_LABELS, PROGRESS, QUARANTINE, WORKSPACE
from reportlabel.store import PARTS, Workspace
from reportlabel.study import Study, load_study

RULES_ONLY = "rules"
"""The model version of labels that no trained model had a part in."""

Tell = Callable[[str, int, int], None]
"""Called with the stage, what is done and what there is to do."""


@dataclass(frozen=True)
class Options:
    """What a run is asked for.

    Attributes:
        rules: another rules folder; label_sets: ids, none: all; records: whether linked records vote.
        site: the hospital, for sources that do not say it.
        workers: processes; the result does not depend on it.
        every_byte: compare the contents of files even where size and time of change are the same.
        forget_gone: rows of files that are no longer in the archive go.
        parts: of a new workspace.
    """

    rules: Path | None = None
    label_sets: tuple[str, ...] = ()
    records: bool = True
    site: str | None = None
    workers: int = 1
    every_byte: bool = False
    forget_gone: bool = False
    parts: int = PARTS


@dataclass(frozen=True)
class Done:
    """What a run did.

    Attributes:
        read: files and rows; parts: how many parts were made anew.
        attrition: summed over all parts. quarantined: rows of the quarantine table.
        snapshot: number of the version that the run left; None: nothing had changed.
    """

    read: Read
    parts: int
    attrition: pl.DataFrame
    quarantined: int
    snapshot: int | None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.QUARANTINED if self.quarantined else ExitCode.DONE


def open_workspace(folder: Path, *, create: bool = False, parts: int = PARTS) -> Workspace:
    """Open a workspace with the tables of `reportlabel.schema.WORKSPACE`.

    Raises:
        ConfigError: there is none, or it cannot be made.
    """
    return Workspace.open(folder, WORKSPACE, create=create, parts=parts)


def ingest(archive: Path, workspace: Path, options: Options, *, tell: Tell | None = None) -> Done:
    """Read an archive into the exams, reports and records of a workspace.

    Raises:
        ConfigError, InputError: wrong archive.yaml, rules or workspace; nothing readable in the archive.
    """
    return _run(archive, workspace, options, tell or _silent, label=False)


def run(archive: Path, workspace: Path, options: Options, *, tell: Tell | None = None) -> Done:
    """Read an archive, link, annotate, vote and aggregate: labels of all exams in a workspace.

    Raises:
        ConfigError, InputError: wrong archive.yaml, rules, label set or workspace; nothing readable in the archive.
    """
    return _run(archive, workspace, options, tell or _silent, label=True)


def _silent(_stage: str, _done: int, _of: int) -> None:
    return


def _run(archive: Path, folder: Path, options: Options, tell: Tell, *, label: bool) -> Done:
    if options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: give 1 or more")
    found = open_archive(archive, site=options.site)
    study = load_study(options.rules, label_sets=options.label_sets, records=options.records)
    workspace = open_workspace(folder, create=True, parts=options.parts)
    with _alone(workspace):
        store = RawStore(workspace.folder / "raw", workspace.parts)
        read = read_archive(
            found,
            store,
            workers=options.workers,
            every_byte=options.every_byte,
            forget_gone=options.forget_gone,
            each_file=lambda done, of: tell("read", done, of),
        )
        unrecognised = [hidden_numbers(path) for path in found.unrecognised]
        job = _job(store, study, label=label)
        stale = [part for part in range(workspace.parts) if _finished(workspace, part) != job.signatures(part)]
        tell("label" if label else "assemble", 0, len(stale))
        for done, (part, made) in enumerate(_made(job, stale, study, options, store), start=1):
            _write(workspace, part, made, job)
            tell("label" if label else "assemble", done, len(stale))
        changed = _note_reading(workspace, store, unrecognised) or bool(stale)
        if label:
            study.forget_readers()
            changed |= _aggregate(workspace, study, job, tell)
        snapshot = None
        if changed or workspace.snapshots().is_empty():
            snapshot = workspace.take_snapshot(job.run_id, datetime.now(UTC).replace(tzinfo=None))
        attrition = _summed(workspace)
        return Done(read, len(stale), attrition, workspace.read("quarantine", columns=["stage"]).height, snapshot)


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """No two runs on one workspace; the lock goes with the process."""
    with (workspace.folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another run is at work in {workspace.folder}; wait until it is done") from None
        yield


# --- what a part is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What all parts share, and what each is made of."""

    run_id: str
    label: bool
    readings: Mapping[int, Sequence[str]]
    shared_uids: tuple[str, ...]
    paths: pl.DataFrame
    made_of: str
    voted_by: str

    def signatures(self, part: int) -> dict[str, str]:
        """Stage -> signature of what the part is to be made of."""
        assembled = _hash(self.made_of, *self.readings.get(part, ()))
        return {"assemble": assembled, **({"vote": _hash(assembled, self.voted_by)} if self.label else {})}


def _job(store: RawStore, study: Study, *, label: bool) -> _Job:
    shared = store.shared_uids()
    return _Job(
        run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}Z-{_hash(str(datetime.now(UTC).timestamp()))[:6]}",
        label=label,
        readings=store.readings_by_part(),
        shared_uids=tuple(shared),
        paths=store.shown_paths(),
        made_of=_hash(version("reportlabel"), study.rules.sha256, *shared),
        voted_by=_hash(json.dumps(sorted(study.label_sets)), str(study.records)),
    )


def _hash(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _finished(workspace: Workspace, part: int) -> dict[str, str]:
    """Stage -> signature of what a part was last made of, but for the labels."""
    rows = workspace.read("progress", part=part).filter(pl.col("stage") != "aggregate")
    return dict(rows.select("stage", "signature").iter_rows())


# --- making parts -----------------------------------------------------------------------------------------------------


def _note_reading(workspace: Workspace, store: RawStore, unrecognised: Sequence[str]) -> bool:
    """Keep what the readers set aside, and files that no reader knows; returns whether it is other than before."""
    files = store.files().sort("archive", "path")
    signature = _hash(*files["reading"], *unrecognised)
    before = workspace.read("progress", part=workspace.parts)
    if before["signature"].to_list() == [signature]:
        return False
    set_aside = store.rows("quarantine").with_columns(stage=pl.lit("read")).select(QUARANTINE.names())
    unknown = pl.DataFrame(
        [("read", "file", path, None, UNRECOGNISED, UNRECOGNISED_REMEDY) for path in unrecognised],
        schema=QUARANTINE,
        orient="row",
    )
    quarantine = pl.concat([set_aside.cast(QUARANTINE), unknown])
    rows = int(files["rows"].sum())
    reasons = quarantine.group_by("reason").len().sort("reason")
    counts = [
        ("read", "rows", "in", "", rows + quarantine.height),
        *(("read", "rows", "quarantined", reason, count) for reason, count in reasons.iter_rows()),
        ("read", "rows", "out", "", rows),
    ]
    part = workspace.parts
    workspace.replace_part("quarantine", part, quarantine)
    workspace.replace_part("attrition", part, pl.DataFrame(counts, schema=ATTRITION, orient="row"))
    workspace.replace_part("progress", part, pl.DataFrame([("read", signature)], schema=PROGRESS, orient="row"))
    return True


@dataclass(frozen=True)
class _Made:
    assembled: Assembled
    voted: flow.Voted | None


def _make(part: int, job: _Job, study: Study, store: RawStore) -> _Made:
    raw = RawRows(*(store.rows(table, part=part) for table in ("patients", "exams", "reports", "records")))
    assembled = flow.ingest(raw, study, shared_uids=job.shared_uids, paths=job.paths)
    voted = flow.vote(assembled.exams, assembled.reports, assembled.records, study) if job.label else None
    return _Made(assembled, voted)


def _made(
    job: _Job, parts: Sequence[int], study: Study, options: Options, store: RawStore
) -> Iterator[tuple[int, _Made]]:
    if options.workers == 1 or len(parts) < 2:
        if job.label:
            _ = study.record_reader
        # the compiled rules live as long as the process: keep the garbage collector from walking them again and again
        gc.collect()
        gc.freeze()
        for part in parts:
            yield part, _make(part, job, study, store)
        return
    context = multiprocessing.get_context("spawn")  # polars must not be forked
    with ProcessPoolExecutor(
        min(options.workers, len(parts)), mp_context=context, initializer=_start_worker, initargs=(options, job, store)
    ) as pool:
        waiting: dict[Future[_Made], int] = {}
        left = list(parts)
        try:
            while left or waiting:
                # one part a worker, and one that waits: what is made is large
                while left and len(waiting) <= options.workers:
                    part = left.pop(0)
                    waiting[pool.submit(_work, part)] = part
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process died (killed, or out of memory); finished parts stay, and the next run goes on. "
                "Run again with fewer --workers or more memory"
            ) from error


_worker: tuple[_Job, Study, RawStore] | None = None


def _start_worker(options: Options, job: _Job, store: RawStore) -> None:
    global _worker  # noqa: PLW0603 - a process pool offers no other place for what a worker holds
    study = load_study(options.rules, label_sets=options.label_sets, records=options.records)
    _worker = (job, study, store)
    if job.label:
        _ = study.record_reader
    gc.collect()
    gc.freeze()


def _work(part: int) -> _Made:
    assert _worker is not None
    job, study, store = _worker
    return _make(part, job, study, store)


def _write(workspace: Workspace, part: int, made: _Made, job: _Job) -> None:
    """All tables of a part; that it is done is noted last."""
    assembled, voted = made.assembled, made.voted
    workspace.replace_part("exams", part, assembled.exams)
    workspace.replace_part("reports", part, assembled.reports)
    workspace.replace_part("records", part, assembled.records)
    workspace.replace_part("quarantine", part, assembled.quarantine)
    attrition = [assembled.attrition]
    if voted is not None:
        workspace.replace_part("links", part, voted.links)
        workspace.replace_part("mentions", part, voted.mentions)
        workspace.replace_part("votes", part, voted.votes)
        attrition.append(voted.attrition)
    workspace.replace_part("attrition", part, pl.concat(attrition))
    done = pl.DataFrame(list(job.signatures(part).items()), schema=PROGRESS, orient="row")
    workspace.replace_part("progress", part, done)


def _summed(workspace: Workspace) -> pl.DataFrame:
    keys = ["stage", "table", "outcome", "reason"]
    rows = workspace.read("attrition")
    return (
        rows.group_by(keys, maintain_order=True)
        .agg(pl.col("rows").sum())
        .select(ATTRITION.names())
        .sort(
            pl.col("stage").replace_strict({"read": 0, "assemble": 1, "link": 2, "vote": 3}, default=4),
            "table",
            pl.col("outcome").replace_strict({"in": 0, "excluded": 1, "quarantined": 2, "out": 3}),
            "reason",
        )
    )


# --- aggregate --------------------------------------------------------------------------------------------------------


def _aggregate(workspace: Workspace, study: Study, job: _Job, tell: Tell) -> bool:
    """Judge the votes of all parts, and write the labels; returns whether anything was to be done."""
    signature = _hash(
        *(job.signatures(part)["vote"] for part in range(workspace.parts)),
        str(workspace.version("readings")),
        study.rules.sha256,
    )
    finished = [_aggregated_of(workspace, part) for part in range(workspace.parts)]
    if all(one == signature for one in finished):
        return False
    scopes, exams = _scopes(workspace, study)
    found = aggregate(
        lambda: (_votes(workspace, part).filter(~_IS_VALUE) for part in range(workspace.parts)),
        pl.concat(scopes),
        exams=exams,
        label_sets=study.label_sets,
        readings=_last_words(workspace.read("readings")),
        settings=load_settings(study.rules.folder / "aggregate.yaml"),
    )
    workspace.replace("choices", found.choices)
    workspace.replace("analysis", found.analysis)
    start = 0
    for part, scope in enumerate(scopes):
        tell("aggregate", part, len(scopes))
        votes = _votes(workspace, part)
        own = found.part(start, start + scope.height, votes=votes.filter(~_IS_VALUE))
        start += scope.height
        labels = pl.concat([own, _value_labels(votes.filter(_IS_VALUE), scope, study)])
        stamped = labels.with_columns(
            rules_hash=pl.lit(study.rules.sha256), model_version=pl.lit(RULES_ONLY), run_id=pl.lit(job.run_id)
        )
        workspace.replace_part("labels", part, stamped.select(EXAM_LABELS.names()).cast(EXAM_LABELS))
        done = {**job.signatures(part), "aggregate": signature}
        workspace.replace_part("progress", part, pl.DataFrame(list(done.items()), schema=PROGRESS, orient="row"))
    tell("aggregate", len(scopes), len(scopes))
    return True


def _last_words(readings: pl.DataFrame) -> pl.DataFrame:
    """The last reading of each reader of an exam and label: who corrects himself does not disagree."""
    keys = ["exam_id", "label_set", "finding", "reader"]
    return readings.sort("read_at", maintain_order=True).unique(keys, keep="last", maintain_order=True)


_IS_VALUE = pl.col("function_id").str.starts_with("value/")


def _votes(workspace: Workspace, part: int) -> pl.DataFrame:
    return workspace.read("votes", part=part)


def _aggregated_of(workspace: Workspace, part: int) -> str | None:
    rows = workspace.read("progress", part=part).filter(pl.col("stage") == "aggregate")
    return None if rows.is_empty() else str(rows["signature"][0])


def _scopes(workspace: Workspace, study: Study) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """Which label sets fit which exam, a table a part; and the exams: exam_id, patient_id, modality_class."""
    scopes, exams = [], []
    for part in range(workspace.parts):
        known = workspace.read("exams", part=part)
        counting = reports_that_count(
            workspace.read("reports", part=part, columns=["report_id", "exam_id", "version", "status"])
        )
        read = known.join(counting, on="exam_id", how="semi", maintain_order="left")
        scopes.append(scope_of(read, study.label_sets, study.exam_reader))
        exams.append(read.select("exam_id", "patient_id", "modality_class"))
    return scopes, pl.concat(exams)


def _value_labels(votes: pl.DataFrame, scope: pl.DataFrame, study: Study) -> pl.DataFrame:
    """Labels that are no status (size, side, count): what the report says, or not_mentioned."""
    entries = pl.DataFrame(
        [(name, entry.id) for name, one in study.label_sets.items() for entry in one.values],
        schema={"label_set": pl.String, "finding": pl.String},
        orient="row",
    )
    evidence = pl.struct("function_id", "kind", "value", "evidence")
    said = votes.group_by("exam_id", "label_set", "finding").agg(
        said=pl.col("value").first(), evidence=evidence, n_votes=pl.len()
    )
    return (
        scope.join(entries, on="label_set", how="inner", maintain_order="left_right")
        .join(said, on=["exam_id", "label_set", "finding"], how="left", maintain_order="left")
        .select(
            "exam_id",
            "label_set",
            "finding",
            value=pl.col("said").fill_null("not_mentioned"),
            p_present=pl.lit(None, dtype=pl.Float64),
            conflict=pl.lit(False),
            n_votes=pl.col("n_votes").fill_null(0),
            method=pl.lit("precedence"),
            review_state=pl.lit("unreviewed"),
            evidence=pl.col("evidence").fill_null([]),
        )
        .cast(AGGREGATED)
    )
