"""Teacher labels: from the tables of a workspace to a folder that training code reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.export.atomic import ParquetSink
from reportlabel.export.card import About, Tally, card
from reportlabel.export.chexpert import write_chexpert
from reportlabel.export.csv_columns import CsvColumns, load_columns
from reportlabel.export.ct_rate import write_ct_rate
from reportlabel.export.features import FEATURES, check_features, input_features
from reportlabel.export.folder import check_replaceable, new_folder
from reportlabel.export.hf_datasets import require_datasets, write_datasets
from reportlabel.export.images import match_images
from reportlabel.export.manifest import write_manifest
from reportlabel.export.monai_list import write_monai
from reportlabel.export.options import FORMATS, ExportOptions
from reportlabel.export.splits import SPLITS
from reportlabel.export.teacher import TEACHER, Teacher, is_safe_name, prepare
from reportlabel.export.wide import FormatWriter, Parts, Wide, widen
from reportlabel.rulebook.models import LabelSet

LABELS_FILE, FEATURES_FILE, CARD_FILE = "labels.parquet", "features.parquet", "card.md"

_PACKAGES = {"parquet": (), "datasets": ("datasets",), "monai": (), "chexpert": (), "ct-rate": ()}


@dataclass(frozen=True)
class Exported:
    """What an export holds: exams by split, labels, and what was left out and why.

    Attributes:
        labels_of_other_sets: rows of the labels table whose label set was not asked for.
        exams_without_label: exams of the workspace without a final report, or to which no exported label set applies.
        exams_without_image, images_of_no_exam: None where no images table was given.
        empty_label_sets: those asked for that fit no exam.
        features: rows of ``features.parquet``; None where it was not asked for.
    """

    folder: Path
    exams: dict[str, int]
    patients: dict[str, int]
    labels: int
    labels_of_other_sets: int
    exams_without_label: int
    exams_without_image: int | None
    images_of_no_exam: int | None
    empty_label_sets: tuple[str, ...]
    features: int | None


def export_labels(
    labels: pl.DataFrame | pl.LazyFrame,
    exams: pl.DataFrame,
    *,
    label_sets: Sequence[LabelSet],
    to: str,
    out: Path,
    options: ExportOptions | None = None,
    images: pl.DataFrame | None = None,
    votes: pl.DataFrame | pl.LazyFrame | None = None,
    choices: pl.DataFrame | None = None,
    columns: CsvColumns | None = None,
    as_of: str | None = None,
    protocol: str | None = None,
    study: Mapping[str, Any] | None = None,
) -> Exported:
    """Write labels as a folder in one format; the same tables and options give the same bytes.

    Every format has ``labels.parquet`` (:data:`reportlabel.export.teacher.TEACHER`), ``card.md`` and
    ``manifest.json``; the other files are views of the first. The folder appears whole or not at all, and replaces
    nothing but an earlier export.

    Args:
        labels: :data:`reportlabel.schema.EXAM_LABELS`; every exam with all labels of each of its label sets. Of a
            LazyFrame (``pl.scan_delta``) only one label set at a time is in memory.
        exams: :data:`reportlabel.schema.EXAMS`, all of the workspace.
        label_sets: what is exported.
        to: ``parquet``, ``datasets``, ``monai``, ``chexpert`` or ``ct-rate``.
        out: the folder.
        images: of :func:`reportlabel.export.images.read_images`.
        votes: :data:`reportlabel.schema.EXAM_VOTES`; needed for ``features.parquet``.
        choices: which method made the labels, for the card.
        columns: public CSV headers; None: those of the installed rules.
        as_of, protocol: for card and manifest. study: for the manifest, what `study_folder.about` says.

    Raises:
        ConfigError: an option, the format or the folder cannot be used, or a package is missing.
        InputError: the tables contradict each other.
        LeakageError: what is not known to have been available at reading would have become an input.
    """
    options = options or ExportOptions()
    _check(label_sets, to, options, votes, columns := columns or load_columns())
    check_replaceable(out)
    by_exam = None if images is None else match_images(images, exams)
    teacher = prepare(labels, exams, label_sets=label_sets, options=options, images=by_exam)
    done = _summary(teacher, labels, exams, images)
    write = _writer(to, teacher, columns)
    tally = Tally()
    ids = [one.id for one in teacher.label_sets]
    about = About(
        version=version("reportlabel"),
        rules_hash=_distinct(teacher.labels, "rules_hash"),
        model_version=_distinct(teacher.labels, "model_version"),
        as_of=as_of,
        protocol=protocol,
        study=study,
        choices=None if choices is None else choices.filter(pl.col("label_set").is_in(ids)),
        exams_without_image=done["exams_without_image"],
        images_of_no_exam=done["images_of_no_exam"],
    )
    with new_folder(out) as folder:
        rows: dict[str, int] = {LABELS_FILE: done["labels"]}
        metadata = {"reportlabel": about.version, "rules_sha256": ",".join(about.rules_hash)}
        with _parquet(folder / LABELS_FILE, TEACHER, metadata) as sink:
            for label_set in teacher.label_sets:
                rows.update(write(folder, label_set, _parts(teacher, label_set, sink, tally)))
        if options.features and votes is not None:
            features = _exported_features(votes, teacher)
            done["features"] = rows[FEATURES_FILE] = features.height
            with _parquet(folder / FEATURES_FILE, FEATURES, metadata) as sink:
                sink.write(_arrow(check_features(features)))
        text = card(tally=tally, exams=teacher.exams, label_sets=teacher.label_sets, options=options, about=about)
        (folder / CARD_FILE).write_text(text, encoding="utf-8")
        write_manifest(folder, about=_about(to, teacher, about, done), rows=rows)
    return Exported(folder=out, **done)


def _check(
    label_sets: Sequence[LabelSet],
    to: str,
    options: ExportOptions,
    votes: pl.DataFrame | pl.LazyFrame | None,
    columns: CsvColumns,
) -> None:
    if to not in FORMATS:
        raise ConfigError(f"--to {to}: there are {', '.join(FORMATS)}")
    ids = [one.id for one in label_sets]
    if not ids:
        raise ConfigError("no label set to export; name one with --label-set")
    if len(set(ids)) < len(ids):
        raise ConfigError("--label-set: a label set is named twice")
    unsafe = [one for one in ids if not is_safe_name(one)]
    if unsafe:
        raise ConfigError(f"label set {unsafe[0]}: its id cannot be the name of a file")
    if to == "ct-rate" and ids != [columns.ct_rate.label_set]:
        raise ConfigError(f"--to ct-rate holds the label set {columns.ct_rate.label_set} and no other; name only it")
    if to == "datasets":
        require_datasets()
    if options.features and votes is None:
        raise ConfigError("--features needs the votes table")


def _writer(to: str, teacher: Teacher, columns: CsvColumns) -> FormatWriter:
    writers: dict[str, FormatWriter] = {
        "parquet": _no_view,
        "datasets": write_datasets,
        "monai": write_monai,
        "chexpert": partial(write_chexpert, columns=columns.chexpert, exams=teacher.exams),
        "ct-rate": partial(write_ct_rate, columns=columns.ct_rate),
    }
    return writers[to]


def _no_view(_: Path, __: LabelSet, parts: Parts) -> dict[str, int]:
    for _part in parts:
        pass
    return {}


def _parts(teacher: Teacher, label_set: LabelSet, sink: ParquetSink, tally: Tally) -> Iterator[Wide]:
    """The views of a label set part by part; each part is in the canonical table and counted before it is viewed."""
    for batch in teacher.batches(label_set):
        sink.write(_arrow(batch))
        tally.add(batch, teacher.exams)
        yield widen(batch, label_set)


def _exported_features(votes: pl.DataFrame | pl.LazyFrame, teacher: Teacher) -> pl.DataFrame:
    """Features of the exported exams and label sets."""
    exams = teacher.labels.select("exam_id", "label_set").unique().collect()
    features = input_features(votes.lazy().filter(pl.col("label_set").is_in(exams["label_set"].unique().implode())))
    return features.join(exams, on=["exam_id", "label_set"], how="semi", maintain_order="left").join(
        teacher.policies, on=["label_set", "finding"], how="semi", maintain_order="left"
    )


def _summary(
    teacher: Teacher, labels: pl.DataFrame | pl.LazyFrame, exams: pl.DataFrame, images: pl.DataFrame | None
) -> dict[str, Any]:
    used = teacher.exams
    by_split = {split: used.filter(pl.col("split") == split) for split in SPLITS}
    counts = used["images"].list.len()
    of_sets = dict(labels.lazy().group_by("label_set").len().collect().iter_rows())
    exported = sum(of_sets.get(one.id, 0) for one in teacher.label_sets)
    return {
        "exams": {split: one.height for split, one in by_split.items()},
        "patients": {split: one["patient_id"].n_unique() for split, one in by_split.items()},
        "labels": exported,
        "labels_of_other_sets": sum(of_sets.values()) - exported,
        "exams_without_label": exams.height - used.height,
        "exams_without_image": None if images is None else int((counts == 0).sum()),
        "images_of_no_exam": None if images is None else images.height - int(counts.sum() or 0),
        "empty_label_sets": tuple(one.id for one in teacher.label_sets if one.id not in of_sets),
        "features": None,
    }


def _about(to: str, teacher: Teacher, about: About, done: dict[str, Any]) -> dict[str, Any]:
    return {
        "to": to,
        "versions": {"reportlabel": about.version, **_versions(("polars", "pyarrow", *_PACKAGES[to]))},
        "as_of": about.as_of,
        "protocol": about.protocol,
        **({} if about.study is None else {"study": dict(about.study)}),
        "rules_sha256": list(about.rules_hash),
        "model_version": list(about.model_version),
        "label_sets": [
            {
                "id": one.id,
                "findings": [entry.id for entry in one.findings],
                "values": [entry.id for entry in one.values],
            }
            for one in teacher.label_sets
        ],
        "options": teacher.options.model_dump(mode="json"),
        "counts": done,
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _distinct(rows: pl.LazyFrame, column: str) -> tuple[str, ...]:
    return tuple(sorted(rows.select(pl.col(column).drop_nulls().unique()).collect()[column]))


def _parquet(path: Path, schema: pl.Schema, metadata: dict[str, str]) -> ParquetSink:
    return ParquetSink(path, _arrow(pl.DataFrame(schema=schema)).schema, metadata=metadata)


def _arrow(frame: pl.DataFrame) -> Any:
    """Arrow with the plain string type, which every reader of Parquet knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
