"""The canonical table of an export: one row an exam and label. All other formats are views of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from reportlabel.errors import InputError
from reportlabel.export.images import IMAGE
from reportlabel.export.options import ExportOptions
from reportlabel.export.splits import SPLITS, split_patients
from reportlabel.export.targets import REVIEW_STATES, VALUES, policies, priors, with_targets, with_weights
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import EXAM_LABELS, EXAMS, VOTE_EVIDENCE

TEACHER = pl.Schema(
    [
        ("exam_id", pl.String),
        ("patient_id", pl.String),
        ("site", pl.String),
        ("split", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("value", pl.String),
        ("p_present", pl.Float64),
        ("policy", pl.String),
        ("policy_value", pl.Float64),
        ("loss_mask", pl.Int8),
        ("sample_weight", pl.Float64),
        ("conflict", pl.Boolean),
        ("n_votes", pl.Int32),
        ("method", pl.String),
        ("review_state", pl.String),
        ("evidence", VOTE_EVIDENCE),
        ("rules_hash", pl.String),
        ("model_version", pl.String),
        ("study_instance_uid", pl.String),
        ("accession_number", pl.String),
        ("images", pl.List(IMAGE)),
    ]
)
"""``labels.parquet``: sorted by label set, split, exam and the order of the label set."""

BATCH_EXAMS = 5_000

_SPLIT_ORDER = {split: order for order, split in enumerate(SPLITS)}
_OFFSETS = r"^\d+-\d+(;\d+-\d+)*$"
_AGAIN = "make the labels anew with `reportlabel run`"
_ROWS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Teacher:
    """What is exported. The labels stay where they are until a label set is asked for.

    Attributes:
        labels: labels of the exported sets; :data:`reportlabel.schema.EXAM_LABELS`.
        exams: one row an exam that is exported, by exam_id: the columns of the exams table, ``split`` and ``images``.
        policies: of :func:`reportlabel.export.targets.policies`.
        label_sets: those exported, by id.
    """

    labels: pl.LazyFrame
    exams: pl.DataFrame
    policies: pl.DataFrame
    label_sets: tuple[LabelSet, ...]
    options: ExportOptions

    def batches(self, label_set: LabelSet) -> Iterator[pl.DataFrame]:
        """The rows of one label set as `TEACHER` tables of whole exams, each of one split.

        Only the labels of this set are in memory.

        Raises:
            InputError: the labels contradict the exams, the label set or themselves.
        """
        known = self.policies.filter(pl.col("label_set") == label_set.id).drop("label_set")
        rows = self.labels.filter(pl.col("label_set") == label_set.id).collect().cast(EXAM_LABELS)
        order = check_labels(rows, self.exams, known)
        size = BATCH_EXAMS * known.height
        parts = [
            of_split.slice(start, size)
            for _, of_split in sorted(order.partition_by("split_order", as_dict=True, maintain_order=True).items())
            for start in range(0, of_split.height, size)
        ]

        def targets(part: pl.DataFrame) -> pl.DataFrame:
            return with_targets(rows[part["row"]].join(known, on="finding", how="left", maintain_order="left"))

        prior = priors(targets(part) for part in parts if part["split_order"][0] == _SPLIT_ORDER[SPLITS[0]])
        keys = self.exams.select(
            "exam_id", "patient_id", "site", "split", "study_instance_uid", "accession_number", "images"
        )
        for part in parts:
            yield (
                with_weights(targets(part).join(prior, on="finding", how="left", maintain_order="left"), self.options)
                .join(keys, on="exam_id", how="left", maintain_order="left")
                .select(TEACHER.names())
                .cast(TEACHER)
            )


def prepare(
    labels: pl.DataFrame | pl.LazyFrame,
    exams: pl.DataFrame,
    *,
    label_sets: Sequence[LabelSet],
    options: ExportOptions,
    images: pl.DataFrame | None = None,
) -> Teacher:
    """Put every exam into its split.

    Args:
        labels: :data:`reportlabel.schema.EXAM_LABELS`; rows of other label sets are left out.
        exams: :data:`reportlabel.schema.EXAMS`, all of the workspace: the split of a patient looks at all of them.
        images: ``exam_id`` and ``images``; None: no images table was given.

    Raises:
        InputError: there are no labels, or they contradict the exams.
        ConfigError: an option names what is not there.
    """
    known = policies(label_sets, options)
    rows = labels.lazy().select(EXAM_LABELS.names()).filter(pl.col("label_set").is_in([one.id for one in label_sets]))
    of_labels = rows.select("exam_id").unique().collect()
    if of_labels.is_empty():
        asked = ", ".join(one.id for one in label_sets)
        raise InputError(f"there are no labels of {asked}; run `reportlabel run` first, or name another label set")
    splits = split_patients(
        exams, salt=options.split_salt, shares=options.shares, hold_out_sites=options.hold_out_sites
    )
    every = exams.select(EXAMS.names()).cast(EXAMS)
    twice = every["exam_id"].is_duplicated().sum()
    if twice:
        raise InputError(f"{twice} exams have an exam_id that is there twice; {_AGAIN}")
    without = of_labels.join(every, on="exam_id", how="anti").height
    if without:
        raise InputError(f"the labels of {without} exams are of an exam that is not there; {_AGAIN}")
    chosen = every.join(of_labels, on="exam_id", how="semi").join(splits, on="patient_id", how="left").sort("exam_id")
    if images is None:
        chosen = chosen.with_columns(pl.lit(None, dtype=pl.List(IMAGE)).alias("images"))
    else:
        chosen = chosen.join(images, on="exam_id", how="left", maintain_order="left").with_columns(
            pl.col("images").fill_null([])
        )
    ordered = tuple(sorted(label_sets, key=lambda one: one.id))
    return Teacher(labels=rows, exams=chosen, policies=known, label_sets=ordered, options=options)


def check_labels(labels: pl.DataFrame, exams: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The order of the rows of one label set, if they fit its definition.

    Args:
        exams: ``exam_id`` and ``split``, sorted.
        known: ``finding``, ``order`` and ``policy`` of the label set.

    Returns:
        ``row`` (position in ``labels``), ``split_order``; sorted by split, exam and order.

    Raises:
        InputError: says what does not fit and how many rows; never which exam.
    """
    statuses = known.filter(pl.col("policy").is_not_null())["finding"]
    is_status = pl.col("finding").is_in(statuses.implode())
    value, p = pl.col("value"), pl.col("p_present")
    refused = {
        "labels are not in the label sets as the rules have them now": ~pl.col("finding").is_in(
            known["finding"].implode()
        ),
        f"labels have a value that is none of {', '.join(VALUES)}": is_status & ~value.is_in(VALUES),
        "labels have no value": value.is_null(),
        # NaN is not between 0 and 1 either
        "labels have a p_present outside 0 to 1": p.is_not_null() & ~p.is_between(0, 1),
        f"labels have a review_state that is none of {', '.join(REVIEW_STATES)}": ~pl.col("review_state")
        .is_in(REVIEW_STATES)
        .fill_null(False),
        "labels have evidence that is neither offsets nor a record id": _quotes(),
    }
    for what, wrong in refused.items():
        _refuse(labels, wrong, what)
    exam_order = exams.select(
        "exam_id", pl.col("split").replace_strict(_SPLIT_ORDER, return_dtype=pl.Int8).alias("split_order")
    ).with_row_index("exam")
    index = (
        labels.select("exam_id", "finding")
        .with_row_index("row")
        .join(exam_order, on="exam_id", how="left")
        .join(known.select("finding", "order"), on="finding", how="left")
        .select("row", "split_order", "exam", "order")
        .sort("split_order", "exam", "order")
    )
    _refuse(index, pl.struct("exam", "order").is_duplicated(), "labels are there twice", at_once=True)
    per_exam = index.group_by("exam").len()
    _refuse(per_exam, pl.col("len") < known.height, "exams lack labels of their label set")
    return index.select("row", "split_order")


def _quotes() -> pl.Expr:
    """Evidence read from a report is offsets: its words must not leave with the labels."""
    of_text = pl.element().struct.field("kind") != "record"
    span = pl.element().struct.field("evidence")
    named = span.is_not_null() & (span != "")
    return pl.col("evidence").list.eval(of_text.fill_null(True) & named & ~span.str.contains(_OFFSETS)).list.any()


def _refuse(rows: pl.DataFrame, wrong: pl.Expr, what: str, *, at_once: bool = False) -> None:
    """Count the rows that are wrong, piece by piece where each row stands for itself."""
    pieces = [rows] if at_once else rows.iter_slices(_ROWS_AT_ONCE)
    found = sum(int(piece.select(wrong.fill_null(False).sum()).item()) for piece in pieces)
    if found:
        raise InputError(f"{found} {what}; {_AGAIN}")


def is_safe_name(name: str) -> bool:
    """Whether an id can be the name of a file or folder."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is not None
