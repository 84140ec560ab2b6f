"""`reportlabel ingest` and `reportlabel run`: the flow over an archive, kept in a workspace.

The patients are cut into parts. A part is made anew only when what it is made of has changed: the files its rows come
from, the rules, the label sets. The note of what a part was made of goes before the first of its tables is written
anew and comes back after the last, so that a run that was killed at any moment is repeated where it stopped and gives
the same labels, also where the archive or the rules are by then what they were before.
"""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import polars as pl

from reportlabel import flow
from reportlabel.aggregate.combine import AGGREGATED, aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.deidentify.linkage import LinkageStore
from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.govern import Governance, Governed, Withdrawn, claim, govern, open_store, people_out, refusals_of_parts
from reportlabel.govern import withdraw as withdraw_patients
from reportlabel.ingest.archive import open_archive
from reportlabel.ingest.assemble import Assembled, RawRows, reports_that_count
from reportlabel.ingest.raw import RawStore
from reportlabel.ingest.stage import UNRECOGNISED, UNRECOGNISED_REMEDY, Read, hidden_numbers, read_archive
from reportlabel.review.gold import fingerprint, gold_readings, read_values
from reportlabel.rulebook.exams import scope_of
from reportlabel.schema import ATTRITION, EXAM_LABELS, PROGRESS, QUARANTINE, WORKSPACE
from reportlabel.store import PARTS, Workspace
from reportlabel.study import Study, load_study
from reportlabel.vote.taught import judging, share_of_version

REFUSED = "rows of people who have refused, deleted"
"""The reason in the attrition of the files that were read."""
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
        governance: the study protocol under which it is done, and what it needs; None: none, the workspace then holds
            the hospital's own ids.
    """

    rules: Path | None = None
    label_sets: tuple[str, ...] = ()
    records: bool = True
    classifier: Path | None = None
    site: str | None = None
    workers: int = 1
    every_byte: bool = False
    forget_gone: bool = False
    parts: int = PARTS
    governance: Governance | None = None


@dataclass(frozen=True)
class Done:
    """What a run did.

    Attributes:
        read: files and rows; parts: how many parts were made anew.
        attrition: summed over all parts. quarantined: rows of the quarantine table.
        snapshot: number of the version that the run left; None: nothing had changed.
        withdrawn: who was taken out; None: without a study protocol.
    """

    read: Read
    parts: int
    attrition: pl.DataFrame
    quarantined: int
    snapshot: int | None
    withdrawn: Withdrawn | None = None

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
    under = options.governance
    if under is not None:
        under.protocol.gate("run", today=under.today)
    found = open_archive(archive, site=options.site)
    study = _study(options)
    workspace = open_workspace(folder, create=True, parts=options.parts)
    linkage = None if under is None else open_store(under, workspace.folder)
    with workspace.alone():
        claim(workspace, under, linkage)
        store = RawStore(workspace.folder / "raw" if under is None else under.staging, workspace.parts)
        read = read_archive(
            found,
            store,
            workers=options.workers,
            every_byte=options.every_byte,
            forget_gone=options.forget_gone,
            each_file=lambda done, of: tell("read", done, of),
        )
        unrecognised = [hidden_numbers(path.as_posix()) for path in found.unrecognised]
        withdrawn = None
        if under is not None and linkage is not None:
            # a withdrawal writes the tables of the parts that it concerns
            _forget(workspace, _stale(workspace, _job(store, study, workspace, options, label=label)))
            withdrawn = withdraw_patients(workspace, store, under, linkage)
        job = _job(store, study, workspace, options, label=label)
        stale = _stale(workspace, job)
        # before they are made, not before they are written: making the part of a study writes into its linkage store
        _forget(workspace, stale)
        tell("label" if label else "assemble", 0, len(stale))
        for done, (part, made) in enumerate(_made(job, stale, study, options, store, linkage), start=1):
            _write(workspace, part, made, job)
            tell("label" if label else "assemble", done, len(stale))
        _note_reading(workspace, store, unrecognised, under)
        if label:
            study.forget_readers()
            _aggregate(workspace, study, job, tell)
        snapshot = None
        if _changed(workspace):
            snapshot = workspace.take_snapshot(job.run_id, datetime.now(UTC).replace(tzinfo=None))
        attrition = _summed(workspace)
        quarantined = workspace.read("quarantine", columns=["stage"]).height
        return Done(read, len(stale), attrition, quarantined, snapshot, withdrawn)


def _study(options: Options) -> Study:
    """The rules of a run; a protocol chooses label sets and windows."""
    under = options.governance
    chosen = options.label_sets or (tuple(under.protocol.label_sets) if under is not None else ())
    study = load_study(options.rules, label_sets=chosen, records=options.records, classifier=options.classifier)
    if under is None:
        return study
    return replace(study, linked=study.linked.with_windows(under.protocol.changed_windows()))


# --- what a part is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What all parts share, and what each is made of."""

    run_id: str
    label: bool
    readings: Mapping[int, Sequence[str]]
    shared_uids: tuple[str, ...]
    paths: pl.DataFrame
    refused: Mapping[int, Sequence[str]]
    workspace: Path
    made_of: str
    voted_by: str

    def signatures(self, part: int) -> dict[str, str]:
        """Stage -> signature of what the part is to be made of."""
        assembled = _hash(self.made_of, *self.readings.get(part, ()), *self.refused.get(part, ()))
        return {"assemble": assembled, **({"vote": _hash(assembled, self.voted_by)} if self.label else {})}


def _job(store: RawStore, study: Study, workspace: Workspace, options: Options, *, label: bool) -> _Job:
    shared = store.shared_uids()
    under = options.governance
    governed = "" if under is None else under.signature()
    return _Job(
        run_id=f"{datetime.now(UTC):%Y%m%dT%H%M%S}Z-{_hash(str(datetime.now(UTC).timestamp()))[:6]}",
        label=label,
        readings=store.readings_by_part(),
        shared_uids=tuple(shared),
        paths=store.shown_paths(),
        refused={} if under is None else refusals_of_parts(people_out(under), store.parts),
        workspace=workspace.folder,
        made_of=_hash(version("reportlabel"), study.rules.sha256, governed, *shared),
        voted_by=_hash(json.dumps(sorted(study.label_sets)), str(study.records), study.classifier_version or ""),
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


def _stale(workspace: Workspace, job: _Job) -> list[int]:
    """The parts that are to be made anew."""
    return [part for part in range(workspace.parts) if _finished(workspace, part) != job.signatures(part)]


def _changed(workspace: Workspace) -> bool:
    """Whether a table is another than at the last snapshot: also where a run that was killed had written it."""
    if workspace.snapshots().is_empty():
        return True
    known = workspace.versions()
    return any(workspace.version(name) != known.get(name, -1) for name in WORKSPACE)


def _forget(workspace: Workspace, parts: Iterable[int]) -> None:
    """Take away the note of what parts were made of: from here on until it is written anew nothing of them counts."""
    for part in parts:
        if not workspace.read("progress", part=part).is_empty():
            _note(workspace, part, {})


def _note(workspace: Workspace, part: int, signatures: Mapping[str, str]) -> None:
    """Write down by stage what a part was made of."""
    rows = pl.DataFrame(list(signatures.items()), schema=PROGRESS, orient="row")
    workspace.replace_part("progress", part, rows)


# --- making parts -----------------------------------------------------------------------------------------------------


def _note_reading(workspace: Workspace, store: RawStore, unrecognised: Sequence[str], under: Governance | None) -> None:
    """Keep what the readers set aside, files that no reader knows, and how many rows were of people who have refused.

    Of a study the numbers of orders in the names of files are hidden, which it must not hold.
    """
    files = store.files().sort("archive", "path")
    removed = store.removed()
    signature = _hash(*files["reading"], *unrecognised, str(removed))
    before = workspace.read("progress", part=workspace.parts)
    if before["signature"].to_list() == [signature]:
        return
    set_aside = store.rows("quarantine").with_columns(stage=pl.lit("read")).select(QUARANTINE.names())
    unknown = pl.DataFrame(
        [("read", "file", path, None, UNRECOGNISED, UNRECOGNISED_REMEDY) for path in unrecognised],
        schema=QUARANTINE,
        orient="row",
    )
    quarantine = pl.concat([set_aside.cast(QUARANTINE), unknown])
    if under is not None:
        shown = [None if path is None else hidden_numbers(path) for path in quarantine["path"]]
        quarantine = quarantine.with_columns(path=pl.Series(shown, dtype=pl.String))
    rows = int(files["rows"].sum())
    refused = REFUSED if under is None else f"{REFUSED} ({under.protocol.number('refusal')})"
    reasons = quarantine.group_by("reason").len().sort("reason")
    counts = [
        ("read", "rows", "in", "", rows + quarantine.height),
        *(("read", "rows", "quarantined", reason, count) for reason, count in reasons.iter_rows()),
        *([("read", "rows", "excluded", refused, removed)] if removed else []),
        ("read", "rows", "out", "", rows - removed),
    ]
    part = workspace.parts
    _forget(workspace, [part])
    workspace.replace_part("quarantine", part, quarantine)
    workspace.replace_part("attrition", part, pl.DataFrame(counts, schema=ATTRITION, orient="row"))
    _note(workspace, part, {"read": signature})


@dataclass(frozen=True)
class _Made:
    assembled: Assembled
    voted: flow.Voted | None
    cohort: pl.DataFrame | None


def _make(
    part: int, job: _Job, study: Study, store: RawStore, under: Governance | None, linkage: LinkageStore | None
) -> _Made:
    raw = RawRows(*(store.rows(table, part=part) for table in ("patients", "exams", "reports", "records")))
    assembled = flow.ingest(raw, study, shared_uids=job.shared_uids, paths=job.paths)
    cohort = None
    if under is not None and linkage is not None:
        governed: Governed = govern(assembled, part, under, linkage)
        assembled, cohort = governed.assembled, governed.cohort
    voted = flow.vote(assembled.exams, assembled.reports, assembled.records, study) if job.label else None
    return _Made(assembled, voted, cohort)


def _made(
    job: _Job,
    parts: Sequence[int],
    study: Study,
    options: Options,
    store: RawStore,
    linkage: LinkageStore | None,
) -> Iterator[tuple[int, _Made]]:
    if options.workers == 1 or len(parts) < 2:
        if job.label:
            _ = study.record_reader
        # the compiled rules live as long as the process: keep the garbage collector from walking them again and again
        gc.collect()
        gc.freeze()
        for part in parts:
            yield part, _make(part, job, study, store, options.governance, linkage)
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


_worker: tuple[_Job, Study, RawStore, Governance | None, LinkageStore | None] | None = None


def _start_worker(options: Options, job: _Job, store: RawStore) -> None:
    global _worker  # noqa: PLW0603 - a process pool offers no other place for what a worker holds
    study = _study(options)
    under = options.governance
    _worker = (job, study, store, under, None if under is None else open_store(under, job.workspace))
    if job.label:
        _ = study.record_reader
    gc.collect()
    gc.freeze()


def _work(part: int) -> _Made:
    assert _worker is not None
    job, study, store, under, linkage = _worker
    return _make(part, job, study, store, under, linkage)


def _write(workspace: Workspace, part: int, made: _Made, job: _Job) -> None:
    """All tables of a part that was forgotten; that it is done is noted last."""
    assembled, voted = made.assembled, made.voted
    workspace.replace_part("exams", part, assembled.exams)
    workspace.replace_part("reports", part, assembled.reports)
    workspace.replace_part("records", part, assembled.records)
    workspace.replace_part("quarantine", part, assembled.quarantine)
    if made.cohort is not None:
        workspace.replace_part("cohort", part, made.cohort)
    attrition = [assembled.attrition]
    if voted is not None:
        workspace.replace_part("links", part, voted.links)
        workspace.replace_part("mentions", part, voted.mentions)
        workspace.replace_part("votes", part, voted.votes)
        attrition.append(voted.attrition)
    workspace.replace_part("attrition", part, pl.concat(attrition))
    _note(workspace, part, job.signatures(part))


_STAGES = {stage: at for at, stage in enumerate(("read", "assemble", "consent", "cohort", "link", "vote"))}


def _summed(workspace: Workspace) -> pl.DataFrame:
    keys = ["stage", "table", "outcome", "reason"]
    rows = workspace.read("attrition")
    return (
        rows.group_by(keys, maintain_order=True)
        .agg(pl.col("rows").sum())
        .select(ATTRITION.names())
        .sort(
            pl.col("stage").replace_strict(_STAGES, default=len(_STAGES)),
            "table",
            pl.col("outcome").replace_strict({"in": 0, "excluded": 1, "quarantined": 2, "out": 3}),
            "reason",
        )
    )


# --- aggregate --------------------------------------------------------------------------------------------------------


def _aggregate(workspace: Workspace, study: Study, job: _Job, tell: Tell) -> None:
    """Judge the votes of all parts, and write the labels, where one of them has changed."""
    gold = _gold(workspace, study)
    signature = _hash(
        *(job.signatures(part)["vote"] for part in range(workspace.parts)),
        fingerprint(gold),
        study.rules.sha256,
    )
    finished = [_aggregated_of(workspace, part) for part in range(workspace.parts)]
    if all(one == signature for one in finished):
        return
    scopes, exams = _scopes(workspace, study)
    found = aggregate(
        lambda: (_votes(workspace, part).filter(~_IS_VALUE) for part in range(workspace.parts)),
        pl.concat(scopes),
        exams=exams,
        label_sets=study.label_sets,
        readings=gold,
        settings=load_settings(study.rules.folder / "aggregate.yaml"),
    )
    # labels are made of the votes of all parts: none is finished before all are
    for part, one in enumerate(finished):
        if one is not None:
            _note(workspace, part, job.signatures(part))
    workspace.replace("choices", found.choices)
    workspace.replace("analysis", found.analysis)
    start = 0
    for part, scope in enumerate(scopes):
        tell("aggregate", part, len(scopes))
        votes = _votes(workspace, part)
        own = found.part(start, start + scope.height, votes=votes.filter(~_IS_VALUE))
        start += scope.height
        labels = pl.concat([own, read_values(_value_labels(votes.filter(_IS_VALUE), scope, study), gold)])
        stamped = labels.with_columns(
            rules_hash=pl.lit(study.rules.sha256),
            model_version=pl.lit(study.classifier_version or RULES_ONLY),
            run_id=pl.lit(job.run_id),
        )
        workspace.replace_part("labels", part, stamped.select(EXAM_LABELS.names()).cast(EXAM_LABELS))
        _note(workspace, part, {**job.signatures(part), "aggregate": signature})
    tell("aggregate", len(scopes), len(scopes))


def _gold(workspace: Workspace, study: Study) -> pl.DataFrame:
    """The readings that count; those that may have taught the classifier of the study do not judge it."""
    gold = gold_readings(workspace.folder, workspace.read("readings"))
    share = share_of_version(study.classifier_version)
    if share is None:
        return gold
    return judging(gold, workspace.read("exams", columns=["exam_id", "patient_id"]), share)


def judged_by_votes(workspace: Workspace, study: Study) -> pl.DataFrame:
    """Labels as the votes alone make them, as if nobody had read an exam: exam_id, label_set, finding, p_present.

    Labels that are no status (sizes, sides) are not among them.
    """
    scopes, exams = _scopes(workspace, study)
    found = aggregate(
        lambda: (_votes(workspace, part).filter(~_IS_VALUE) for part in range(workspace.parts)),
        pl.concat(scopes),
        exams=exams,
        label_sets=study.label_sets,
        readings=gold_readings(workspace.folder, workspace.read("readings").clear()),
        settings=load_settings(study.rules.folder / "aggregate.yaml"),
    )
    start, judged = 0, []
    for part, scope in enumerate(scopes):
        own = found.part(start, start + scope.height, votes=_votes(workspace, part).filter(~_IS_VALUE))
        start += scope.height
        judged.append(own.select("exam_id", "label_set", "finding", "p_present"))
    return pl.concat(judged)


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
