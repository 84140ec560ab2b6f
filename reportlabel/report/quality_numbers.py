"""What the quality page says, in numbers: from the tables of a run alone, never from a report.

Readings are compared with what the votes of the run say when nobody has read the exam: the labels table holds the
readers' word for those exams, which would agree with itself.

Under a study protocol small numbers are hidden: counts of fewer than k (``deid.k``) exams or people are not told, all
others are rounded to multiples of k, and shares are worked out from rounded counts, so that no sum or share gives a
hidden count away (the rule for Hospital Episode Statistics of the NHS, with k in place of 8 and 5).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from reportlabel.aggregate.calibrate import expected_calibration_error
from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.evaluate.diagnostic import Interval, TwoByTwo, wilson
from reportlabel.export.cells import Cells
from reportlabel.report.names import STATUSES
from reportlabel.review.agreement import agreement
from reportlabel.review.gold import gold_readings
from reportlabel.review.ledger import CHOSEN, LEDGER_FILE, Ledger
from reportlabel.review.settings import AgreementSettings
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import ATTRITION
from reportlabel.store import Workspace
from reportlabel.vote.taught import exams_that_teach, share_of_version

_KEY = ["exam_id", "label_set", "finding"]
_STAGES = ("read", "assemble", "consent", "cohort", "link", "vote")
_OUTCOMES = ("in", "excluded", "quarantined", "out")

_BINS = 10
_ENOUGH = 50
"""Labels, and a fifth of them present, from which a reliability diagram is drawn."""


# --- the tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunTables:
    """The tables of a run that the page is made of.

    Attributes:
        exams: exam_id, patient_id, modality_class, started_at. labels: `EXAM_LABELS`. votes: `EXAM_VOTES`.
        choices, analysis, attrition, quarantine, readings: as in `reportlabel.schema`.
        gold: the readings that count (`reportlabel.review.readers.SETTLED`). chosen: exams that were given to readers
            (`reportlabel.review.ledger.CHOSEN`). adjudicators: names, never shown.
        snapshot, made_at: of the run.
    """

    exams: pl.DataFrame
    labels: pl.LazyFrame
    votes: pl.LazyFrame
    choices: pl.DataFrame
    analysis: pl.DataFrame
    attrition: pl.DataFrame
    quarantine: pl.DataFrame
    readings: pl.DataFrame
    gold: pl.DataFrame
    chosen: pl.DataFrame
    adjudicators: tuple[str, ...]
    snapshot: int
    made_at: datetime

    @classmethod
    def of(cls, workspace: Workspace, *, as_of: int | None = None) -> RunTables:
        """The tables of a snapshot; None: of the last, with all readings that there are now.

        Raises:
            InputError: no run has finished, or there is no such snapshot any more. ConfigError: the ledger of the
                review cannot be opened.
        """
        versions = workspace.versions(as_of)
        known = workspace.snapshots()
        row = (known.tail(1) if as_of is None else known.filter(pl.col("snapshot") == as_of)).row(0, named=True)

        def read(name: str, *columns: str) -> pl.DataFrame:
            return workspace.read(name, version=versions.get(name, -1), columns=columns or None)

        readings = workspace.read("readings", version=None if as_of is None else versions.get("readings", -1))
        chosen, adjudicators = pl.DataFrame(schema=CHOSEN), tuple[str, ...]()
        if (workspace.folder / LEDGER_FILE).is_file():
            with Ledger(workspace.folder) as ledger:
                chosen, adjudicators = ledger.chosen(), tuple(ledger.people("adjudicator"))
        return cls(
            exams=read("exams", "exam_id", "patient_id", "modality_class", "started_at"),
            labels=workspace.scan("labels", version=versions.get("labels", -1)),
            votes=workspace.scan("votes", version=versions.get("votes", -1)),
            choices=read("choices"),
            analysis=read("analysis"),
            attrition=read("attrition"),
            quarantine=read("quarantine"),
            readings=readings,
            gold=gold_readings(workspace.folder, readings),
            chosen=chosen,
            adjudicators=adjudicators,
            snapshot=int(row["snapshot"]),
            made_at=row["made_at"],
        )

    def within(self, exams: pl.DataFrame, labels: pl.DataFrame) -> RunTables:
        """Only these exams (columns of ``exams``) and labels: those that are left when people have refused."""
        kept = exams["exam_id"].implode()
        own = pl.col("exam_id").is_in(kept)
        return RunTables(
            exams=exams.select(self.exams.columns),
            labels=labels.lazy(),
            votes=self.votes.filter(own),
            choices=self.choices,
            analysis=self.analysis,
            attrition=self.attrition,
            quarantine=self.quarantine,
            readings=self.readings.filter(own),
            gold=self.gold.filter(own),
            chosen=self.chosen.filter(own),
            adjudicators=self.adjudicators,
            snapshot=self.snapshot,
            made_at=self.made_at,
        )


# --- attrition and quarantine -----------------------------------------------------------------------------------------


def attrition_of(attrition: pl.DataFrame) -> pl.DataFrame:
    """`ATTRITION` summed over all parts, stages in the order of the flow; in = excluded + quarantined + out."""
    order = {name: at for at, name in enumerate(_STAGES)}
    return (
        attrition.group_by("stage", "table", "outcome", "reason")
        .agg(pl.col("rows").sum())
        .select(ATTRITION.names())
        .sort(
            pl.col("stage").replace_strict(order, default=len(order), return_dtype=pl.Int64),
            "stage",
            "table",
            pl.col("outcome").replace_strict({name: at for at, name in enumerate(_OUTCOMES)}, return_dtype=pl.Int64),
            "reason",
        )
    )


def quarantine_of(quarantine: pl.DataFrame) -> pl.DataFrame:
    """stage, kind, reason, remedy, rows; most rows first."""
    return (
        quarantine.group_by("stage", "kind", "reason", "remedy")
        .agg(rows=pl.len().cast(pl.Int64))
        .sort("rows", "stage", "kind", "reason", "remedy", descending=[True, *[False] * 4], nulls_last=True)
    )


# --- labels -----------------------------------------------------------------------------------------------------------


def label_counts(run: RunTables) -> pl.DataFrame:
    """One row a label_set and finding, with numbers of exams, and of people in them (``_persons``).

    ``n``: exams; ``given``: value other than not_mentioned; ``spoken``: somebody votes; ``conflicts``; and one column a
    status.
    """
    which = {
        **{status: pl.col("value") == status for status in STATUSES},
        "given": pl.col("value") != "not_mentioned",
        "conflicts": pl.col("conflict").fill_null(False),
    }
    return (
        _labels_of_people(run)
        .group_by("label_set", "finding")
        .agg(
            n=pl.len().cast(pl.Int64),
            spoken=(pl.col("n_votes") > 0).sum().cast(pl.Int64),
            **{name: so.sum().cast(pl.Int64) for name, so in which.items()},
            **{
                f"{name}_persons": pl.col("patient_id").filter(so).n_unique().cast(pl.Int64)
                for name, so in which.items()
            },
        )
        .collect()
        .sort("label_set", "finding")
    )


def present_by(run: RunTables, place: str) -> pl.DataFrame:
    """label_set, finding, place, n, present, present_persons: by ``modality_class`` or ``year`` of the exam."""
    present = pl.col("value") == "present"
    return (
        _labels_of_people(run)
        .group_by("label_set", "finding", pl.col(place).cast(pl.String).alias("place"))
        .agg(
            n=pl.len().cast(pl.Int64),
            present=present.sum().cast(pl.Int64),
            present_persons=pl.col("patient_id").filter(present).n_unique().cast(pl.Int64),
        )
        .collect()
        .sort("label_set", "finding", "place", nulls_last=True)
    )


def _labels_of_people(run: RunTables) -> pl.LazyFrame:
    place = run.exams.select("exam_id", "patient_id", "modality_class", year=pl.col("started_at").dt.year())
    return run.labels.select(*_KEY, "value", "n_votes", "conflict").join(place.lazy(), on="exam_id", how="left")


def made_of(run: RunTables) -> pl.DataFrame:
    """rules_hash, model_version, labels: which rules and model made the labels; most labels first."""
    return (
        run.labels.select("rules_hash", "model_version")
        .group_by("rules_hash", "model_version")
        .agg(labels=pl.len().cast(pl.Int64))
        .collect()
        .sort("labels", "rules_hash", "model_version", descending=[True, False, False])
    )


# --- labels against readers -------------------------------------------------------------------------------------------

REVIEWED = pl.Schema(
    [
        ("label_set", pl.String),
        ("finding", pl.String),
        ("present", pl.Boolean),
        ("said", pl.String),
        ("p_present", pl.Float64),
        ("teaches", pl.Boolean),
    ]
)
"""One row a label that readers settled as present or not. ``said``, ``p_present``: what the votes alone say.
``teaches``: whether the exam was drawn at random."""


@dataclass(frozen=True)
class Reviewed:
    """What readers settled.

    Attributes:
        rows: `REVIEWED`. uncertain: settled labels left out because the reader is uncertain; apart: because readers
            differ and nobody has adjudicated; unknown: labels that the rules or the run do not have; taught: those of
            patients whose readings taught the model that votes.
    """

    rows: pl.DataFrame
    uncertain: int = 0
    apart: int = 0
    unknown: int = 0
    taught: int = 0


def reviewed_of(run: RunTables, label_sets: Mapping[str, LabelSet], settings: AggregateSettings) -> Reviewed:
    """Judge the exams that were read once more, from their votes alone, and put the readers' word beside it.

    They are judged by precedence and weighted majority before calibration: the label model and calibration have learned
    from these very exams (their cross-validated figures are those of the choices). Exams of patients whose readings
    taught the model that votes are left out.
    """
    findings = pl.DataFrame(
        [(one.id, entry.id) for one in label_sets.values() for entry in one.findings],
        schema={"label_set": pl.String, "finding": pl.String},
        orient="row",
    )
    values = pl.DataFrame(
        [(one.id, entry.id) for one in label_sets.values() for entry in one.values],
        schema=findings.schema,
        orient="row",
    )
    status = run.gold.join(values, on=["label_set", "finding"], how="anti", maintain_order="left")
    exams = exams_that_teach(run.exams.join(status, on="exam_id", how="semi"), _taught_share(run))
    taught = status.join(exams, on="exam_id", how="semi").select(_KEY).n_unique()
    status = status.join(exams, on="exam_id", how="anti", maintain_order="left")
    settled = status.group_by(_KEY, maintain_order=True).agg(
        pl.col("value").first(), apart=pl.col("value").n_unique() > 1, teaches=pl.col("teaches").fill_null(False).all()
    )
    read = settled.select("exam_id", "label_set").unique()
    scope = (
        run.labels.select("exam_id", "label_set")
        .join(read.lazy(), on=["exam_id", "label_set"], how="semi")
        .unique()
        .collect()
        .sort("exam_id", "label_set")
    )
    if scope.is_empty():
        return Reviewed(pl.DataFrame(schema=REVIEWED), unknown=settled.height, taught=taught)
    votes = (
        run.votes.join(scope.lazy(), on=["exam_id", "label_set"], how="semi")
        .join(findings.lazy(), on=["label_set", "finding"], how="semi")
        .filter(pl.col("kind") != "reader")
        .collect()
    )
    judged = aggregate(
        votes,
        scope,
        exams=run.exams.join(scope, on="exam_id", how="semi"),
        label_sets=label_sets,
        readings=pl.DataFrame(schema=dict.fromkeys([*_KEY, "value"], pl.String)),
        settings=settings,
    ).labels
    together = settled.join(judged.select(*_KEY, "p_present", said="value"), on=_KEY, how="inner")
    sure = together.filter(~pl.col("apart") & (pl.col("value") != "uncertain"))
    return Reviewed(
        sure.select(pl.all().exclude("value"), present=pl.col("value") == "present")
        .select(REVIEWED.names())
        .cast(REVIEWED),
        uncertain=together.filter(~pl.col("apart") & (pl.col("value") == "uncertain")).height,
        apart=int(together["apart"].sum()),
        unknown=settled.height - together.height,
        taught=taught,
    )


def _taught_share(run: RunTables) -> float:
    """Of which share of the patients readings taught the model that votes; 0: of none, or none votes."""
    versions = run.labels.select(pl.col("model_version").unique()).collect()["model_version"]
    return max((share for one in versions if (share := share_of_version(one)) is not None), default=0.0)


@dataclass(frozen=True)
class Score:
    """Labels of one finding against readers: an exam counts as positive where the label is present, and only then.

    ``matrix``: label against reader. Precision and recall have Wilson intervals. F1 = 2 J / (1 + J), where J is the
    share of agreed among the exams that either calls present; its interval is that of J, carried over.
    """

    matrix: TwoByTwo

    @property
    def n(self) -> int:
        return self.present + self.matrix.fp + self.matrix.tn

    @property
    def present(self) -> int:
        return self.matrix.tp + self.matrix.fn

    def precision(self) -> Interval:
        """TP / (TP + FP)."""
        return wilson(self.matrix.tp, self.matrix.tp + self.matrix.fp)

    def recall(self) -> Interval:
        """TP / (TP + FN)."""
        return wilson(self.matrix.tp, self.present)

    def f1(self) -> Interval:
        """Harmonic mean of both."""
        shared = wilson(self.matrix.tp, self.present + self.matrix.fp)
        return Interval(*(2 * one / (1 + one) for one in (shared.estimate, shared.low, shared.high)))


def scores_of(reviewed: pl.DataFrame) -> dict[tuple[str, str], Score]:
    """(label set, finding) -> score, from rows of `REVIEWED`."""
    said = pl.col("said") == "present"
    counted = reviewed.group_by("label_set", "finding").agg(
        tp=(said & pl.col("present")).sum(),
        fp=(said & ~pl.col("present")).sum(),
        fn=(~said & pl.col("present")).sum(),
        tn=(~said & ~pl.col("present")).sum(),
    )
    return {(label_set, finding): Score(TwoByTwo(*cells)) for label_set, finding, *cells in counted.iter_rows()}


@dataclass(frozen=True)
class Bin:
    """Labels with about the same probability: mean probability, and the share that readers call present."""

    probability: float
    present: Interval
    n: int


@dataclass(frozen=True)
class Reliability:
    """Probabilities of a label set against readers. ``error``: expected calibration error over 15 bins."""

    label_set: str
    n: int
    present: int
    bins: tuple[Bin, ...]
    error: float


def reliability_of(reviewed: pl.DataFrame, *, cells: Cells) -> list[Reliability]:
    """One diagram a label set with enough settled labels; all findings of a set together, in ten bins of equal width.

    Bins with hidden counts are left out.
    """
    made = []
    for (label_set,), rows in reviewed.drop_nulls("p_present").group_by("label_set", maintain_order=True):
        p, truth = rows["p_present"].to_numpy(), rows["present"].to_numpy().astype(np.int64)
        if len(truth) < _ENOUGH or truth.sum() < _ENOUGH // 5:
            continue
        place = np.minimum((p * _BINS).astype(int), _BINS - 1)
        bins = []
        for number in range(_BINS):
            own = place == number
            n, present = int(own.sum()), int(truth[own].sum())
            if n and cells.enough(n) and cells.count(present) is not None and cells.count(n - present) is not None:
                bins.append(Bin(float(p[own].mean()), wilson(present, n), n))
        error = expected_calibration_error(p, truth)
        made.append(Reliability(str(label_set), len(truth), int(truth.sum()), tuple(bins), error))
    return sorted(made, key=lambda one: one.label_set)


# --- labelling functions ----------------------------------------------------------------------------------------------


def functions_of(run: RunTables, cases: Mapping[str, int]) -> pl.DataFrame:
    """The analysis of a run, worst first, with counts of exams: n_overlap, n_conflict, and ``chance``.

    ``chance``: share of right answers of a function that says present as often, but at random: s q + (1 - s)(1 - q)
    with s its share of present among its decided votes and q the share of present among reviewed exams (the agreement
    by chance of Cohen 1960). Null where nothing was reviewed. Worst first: what is furthest below or least above
    chance, then what others contradict most surely: the lower end of the interval of the share of its votes.

    ``persons``: people whose exams it speaks of.

    Args:
        cases: label set -> exams that it fits.
    """
    reviewed = run.choices.select("label_set", "finding", q=pl.col("n_present") / pl.col("n_reviewed"))
    decided = pl.col("n_present") + pl.col("n_absent")
    own = pl.col("n_present") / decided
    size = pl.col("label_set").replace_strict(dict(cases), default=0, return_dtype=pl.Int64)
    table = (
        run.analysis.with_columns(cases=size)
        .join(reviewed, on=["label_set", "finding"], how="left")
        .join(_people_of_functions(run), on=["label_set", "finding", "function_id"], how="left")
        .with_columns(
            n_overlap=(pl.col("overlap") * size).round().cast(pl.Int64),
            n_conflict=(pl.col("conflict") * size).round().cast(pl.Int64),
            chance=pl.when((decided > 0) & pl.col("q").is_not_nan())
            .then(own * pl.col("q") + (1 - own) * (1 - pl.col("q")))
            .otherwise(None),
        )
        .with_columns(above=pl.col("empirical_accuracy") - pl.col("chance"))
    )
    surely = [wilson(against, n).low for against, n in table.select("n_conflict", "n_votes").iter_rows()]
    return table.with_columns(surely=pl.Series(surely, dtype=pl.Float64)).sort(
        "above",
        "surely",
        "label_set",
        "finding",
        "function_id",
        descending=[False, True, False, False, False],
        nulls_last=True,
    )


def _people_of_functions(run: RunTables) -> pl.DataFrame:
    """label_set, finding, function_id, persons. All functions of one kind that read the report are one function."""
    return (
        run.votes.select(
            "exam_id",
            "label_set",
            "finding",
            function_id=pl.when(pl.col("kind") == "record").then("function_id").otherwise("kind"),
        )
        .join(run.exams.select("exam_id", "patient_id").lazy(), on="exam_id", how="inner")
        .group_by("label_set", "finding", "function_id")
        .agg(persons=pl.col("patient_id").n_unique().cast(pl.Int64))
        .collect()
    )


# --- the review -------------------------------------------------------------------------------------------------------


def progress_of(run: RunTables) -> pl.DataFrame:
    """label_set, reason, given, read: exams that were given to readers, by the reason they were chosen for.

    Exams that were read without being chosen here have no reason and count as given.
    """
    cases = ["exam_id", "label_set"]
    read = run.gold.select(cases).unique().with_columns(read=pl.lit(True))
    return (
        run.chosen.select(*cases, "reason")
        .unique(cases)
        .join(read, on=cases, how="full", coalesce=True)
        .group_by("label_set", "reason")
        .agg(given=pl.len().cast(pl.Int64), read=pl.col("read").fill_null(False).sum().cast(pl.Int64))
        .sort("label_set", "reason", nulls_last=True)
    )


def reader_agreement(run: RunTables, settings: AgreementSettings) -> pl.DataFrame:
    """Figures of all readers together (`reportlabel.review.agreement.AGREEMENT`); of exams that two or more read."""
    several = (
        run.readings.filter(~pl.col("reader").is_in(list(run.adjudicators)))
        .group_by("exam_id", "label_set")
        .agg(pl.col("reader").n_unique())
        .filter(pl.col("reader") > 1)
    )
    shared = run.readings.join(several, on=["exam_id", "label_set"], how="semi", maintain_order="left")
    return agreement(shared, settings=settings, adjudicators=run.adjudicators).filter(pl.col("reader").is_null())


def names_of_readers(run: RunTables) -> int:
    """How many people have read."""
    return run.readings["reader"].n_unique()


# --- what to look at next ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Next:
    """Labels and functions that are worth somebody's time, the most first.

    Attributes:
        conflicts: label_set, finding, conflicts, n: contradicted in most exams.
        unread: label_set, finding, present: present in most exams, and no exam was drawn and read for it.
        below: rows of `functions_of`: no better than chance on at least ``least`` reviewed exams.
    """

    conflicts: pl.DataFrame
    unread: pl.DataFrame
    below: pl.DataFrame


def next_of(
    counts: pl.DataFrame,
    functions: pl.DataFrame,
    read: Collection[tuple[str, str]],
    *,
    shown: Sequence[tuple[str, str]],
    least: int = 5,
    most: int = 10,
) -> Next:
    """What to look at next.

    Args:
        counts: of `label_counts`. functions: of `functions_of`. read: labels with settled exams of the audit.
        shown: labels that are a status.
    """
    labels = pl.DataFrame(list(shown), schema={"label_set": pl.String, "finding": pl.String}, orient="row")
    of_label = counts.join(labels, on=["label_set", "finding"], how="semi")
    known = pl.DataFrame(list(read), schema={"label_set": pl.String, "finding": pl.String}, orient="row")
    return Next(
        conflicts=of_label.filter(pl.col("conflicts") > 0)
        .sort("conflicts", "label_set", "finding", descending=[True, False, False])
        .head(most),
        unread=of_label.join(known, on=["label_set", "finding"], how="anti")
        .filter(pl.col("present") > 0)
        .sort("present", "label_set", "finding", descending=[True, False, False])
        .head(most),
        below=functions.filter((pl.col("n_reviewed") >= least) & (pl.col("above") <= 0)).head(most),
    )
