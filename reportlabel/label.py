"""`reportlabel label`: a file of reports in, label and mention files out."""

from __future__ import annotations

import gc
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.export.atomic import AtomicFile, ParquetSink, check_writable, commit_all
from reportlabel.flow import Labelled, label_batch
from reportlabel.ingest.report_table import QUARANTINE, ReadCounts, ReportReader, read_reports
from reportlabel.rulebook.load import Rulebook, find_label_set, load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import LABELS, MENTIONS
from reportlabel.vote.bert import Classifier, classifier_version, load_classifier

BATCH_ROWS = 2_000


@dataclass(frozen=True)
class LabelRun:
    """What a run did: rows in = rows out + quarantined; how often each label got each value."""

    counts: ReadCounts
    notes: tuple[str, ...]
    values: pl.DataFrame
    quarantine: Path | None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.QUARANTINED if self.counts.quarantined else ExitCode.DONE


def label_file(
    reports: Path,
    *,
    label_set: str,
    out: Path,
    mentions: Path | None = None,
    rules: Path | None = None,
    workers: int = 1,
    id_column: str = "report_id",
    text_column: str = "text",
    encoding: str | None = None,
    model: Path | None = None,
) -> LabelRun:
    """Label every report of a CSV, TSV or Parquet file.

    Rows that cannot be used go to ``<out>.quarantine.parquet`` with a reason; all other rows are labelled. Outputs
    appear together at the end or not at all.

    Args:
        label_set: id of a file in ``rules/label_sets``.
        out: Parquet of one row a report and label.
        mentions: Parquet of one row a finding expression, of all findings of the rules.
        workers: processes; the result does not depend on it.
        model: folder of a sentence classifier that adds what the rules do not mention; None: rules alone.

    Raises:
        ConfigError: unknown label set, wrong rules, a model that is missing or altered, output that cannot be written.
        InputError: input that cannot be read at all.
    """
    if workers < 1:
        raise ConfigError(f"--workers {workers}: give 1 or more")
    quarantine = quarantine_path(out)
    for path in (out, mentions, quarantine):
        if path is not None:
            check_writable(path, sources=[reports])
    rulebook = load_rules(rules)
    chosen = find_label_set(rulebook, label_set)
    reader = read_reports(
        reports, id_column=id_column, text_column=text_column, encoding=encoding, batch_rows=BATCH_ROWS
    )
    metadata = {
        "reportlabel": version("reportlabel"),
        "rules_sha256": rulebook.sha256,
        "label_set": chosen.id,
        "model": "rules" if model is None else classifier_version(model),
    }
    outputs: list[AtomicFile] = [ParquetSink(out, LABELS, metadata=metadata, sources=[reports])]
    if mentions is not None:
        outputs.append(ParquetSink(mentions, MENTIONS, metadata=metadata, sources=[reports]))
    values: list[pl.DataFrame] = []
    with commit_all(*outputs) as sinks:
        for labelled in _labelled(reader, rulebook, chosen, model, workers=workers):
            for sink, table in zip(sinks, (labelled.labels, labelled.mentions), strict=False):
                assert isinstance(sink, ParquetSink)
                sink.write(table)
            values.append(_value_counts(labelled.labels))
        if reader.counts.quarantined:
            with commit_all(ParquetSink(quarantine, QUARANTINE, sources=[reports])) as (sink,):
                sink.write(reader.quarantine)
        else:
            quarantine.unlink(missing_ok=True)
    counts = pl.concat([_value_counts(pl.DataFrame(schema=LABELS)), *values])
    return LabelRun(
        counts=reader.counts,
        notes=tuple(reader.notes),
        values=counts.group_by("finding", "value", maintain_order=True).agg(pl.col("reports").sum()),
        quarantine=quarantine if reader.counts.quarantined else None,
    )


def quarantine_path(out: Path) -> Path:
    """Where the rows that could not be used are listed."""
    return out.with_name(f"{out.name.removesuffix('.parquet')}.quarantine.parquet")


def _value_counts(labels: pl.DataFrame) -> pl.DataFrame:
    return labels.group_by("finding", "value", maintain_order=True).agg(pl.len().cast(pl.Int64).alias("reports"))


def _labelled(
    reader: ReportReader, rules: Rulebook, label_set: LabelSet, model: Path | None, *, workers: int
) -> Iterator[Labelled]:
    if workers == 1:
        annotator = Annotator(rules)
        extractor = None if model is None else load_classifier(model)
        _keep_loaded()
        for batch in reader:
            yield label_batch(batch.reports, annotator, label_set, extractor=extractor)
    else:
        yield from _in_processes(reader, rules, label_set, model, workers=workers)


def _keep_loaded() -> None:
    """The compiled rules live as long as the process: keep the garbage collector from walking them again and again."""
    gc.collect()
    gc.freeze()


# --- several processes: each builds its own annotator once and keeps it

_worker: tuple[Annotator, LabelSet, Classifier | None] | None = None


def _start_worker(folder: Path, label_set: str, model: Path | None) -> None:
    global _worker  # noqa: PLW0603 - a process pool offers no other place for what a worker holds
    rules = load_rules(folder)
    _worker = (Annotator(rules), rules.label_sets[label_set], None if model is None else load_classifier(model))
    _keep_loaded()


def _work(reports: pl.DataFrame) -> Labelled:
    assert _worker is not None
    annotator, label_set, extractor = _worker
    return label_batch(reports, annotator, label_set, extractor=extractor)


def _in_processes(
    reader: ReportReader, rules: Rulebook, label_set: LabelSet, model: Path | None, *, workers: int
) -> Iterator[Labelled]:
    """Batches in the order of the file; at most two wait per worker, so that memory stays bounded."""
    # polars must not be forked
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(rules.folder, label_set.id, model)
    ) as pool:
        waiting: deque[Future[Labelled]] = deque()
        try:
            for batch in reader:
                waiting.append(pool.submit(_work, batch.reports))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process died (killed, or out of memory); nothing was written. "
                "Run again with fewer --workers or more memory"
            ) from error
