"""Which exams are worth a radiologist's time, and why.

Every label of an exam that nobody has read yet can give a reason:

- ``text_against_record``: the report and a linked record contradict each other. A report that does not mention what a
  record shows counts ``silent_text`` of one that denies it. Groups that never stand alone (diagnoses) are no record.
- ``rules_against_bert``: the rules and a trained model read the report differently.
- ``low_margin``: the probability is near one half. The reason weighs what a reading is expected to set right: the
  probability that the label is wrong, min(p, 1 - p), as in uncertainty sampling (Lewis and Gale, SIGIR 1994). Labels
  of which nobody speaks do not count.
- ``rare_finding``: the exam may have a finding that few exams have.
- ``audit``: drawn by a hash, whatever the labels say. The hash puts all exams into one order, and the audit takes the
  first of it that nobody has read: with those of them that were read for another reason it is a sample of all exams
  (`drawn_exams`), however often exams are chosen.

An error weighs more the fewer exams have the finding: one more right among n moves its F1 by about 1/n. So that rare
findings do not take everything, n is at least ``steady`` times all exams. An exam's score for a reason is the sum over
its labels. Each reason fills its share of the budget from its highest scores; what it does not use goes to the other
reasons in the order of review.yaml.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from reportlabel.aggregate.settings import AggregateSettings
from reportlabel.errors import ConfigError, InputError
from reportlabel.review.settings import REASONS, ReviewSettings

CHOSEN = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("reason", pl.String),
        ("priority", pl.Int32),
        ("reasons", pl.List(pl.String)),
        ("findings", pl.List(pl.String)),
        ("score", pl.Float64),
    ]
)
"""One row an exam and label set that is to be read.

``reason``: for which the exam was chosen; ``reasons``: all that hold for this label set, that one first where it does.
``priority``: of the exam, 1 is read first. ``findings``: labels that gave a reason, the most doubtful first. ``score``:
labels that a reading is expected to set right, over all label sets of the exam, each weighed by 1 / exams with it.
"""

_KEY = ("exam_id", "label_set", "finding")
_SIDES = ("present", "absent")
_OF_LABELS = [name for name in REASONS if name != "audit"]


def choose_exams(
    labels: pl.DataFrame,
    votes: pl.DataFrame,
    exams: pl.DataFrame,
    *,
    budget: int,
    settings: ReviewSettings,
    aggregate: AggregateSettings,
    already: Sequence[str] = (),
    seed: str = "",
) -> pl.DataFrame:
    """Choose so many exams (`CHOSEN`); the same tables, budget and seed give the same exams.

    Args:
        labels: exam_id, label_set, finding, value, p_present, n_votes, review_state (of `EXAM_LABELS`).
        votes: exam_id, label_set, finding, value, group, kind (of `EXAM_VOTES`).
        exams: exam_id, patient_id.
        budget: exams to choose; fewer come back where there are no more.
        already: exams that were given to readers before; they and exams with a reading of any label are left out.
        seed: of the hash that draws the audit.

    Raises:
        ConfigError: the budget is negative. InputError: a table lacks a column.
    """
    if budget < 0:
        raise ConfigError(f"{budget} exams to review: give 0 or more")
    doubts = doubts_of(labels, votes, settings=settings, aggregate=aggregate)
    _check("exams", exams, ("exam_id", "patient_id"))
    read = pl.Series("exam_id", list(already), dtype=pl.String).to_frame()
    reviewed = labels.filter(pl.col("review_state") != "unreviewed").select("exam_id").unique()
    open_exams = (
        labels.select("exam_id")
        .unique()
        .join(pl.concat([read, reviewed]), on="exam_id", how="anti")
        .join(exams.select("exam_id", "patient_id"), on="exam_id", how="left")
        .with_columns(pl.col("patient_id").fill_null(pl.col("exam_id")))
    )
    scores = _scores(doubts, open_exams, seed)
    taken = _fill(scores, budget, settings)
    cases = labels.select("exam_id", "label_set").unique()
    return _rows(taken, doubts, cases, doubtful_from=settings.selection.doubtful_from)


def drawn_exams(chosen: pl.DataFrame, *, seed: str) -> pl.DataFrame:
    """Of the exams that were chosen, those that the hash drew (exam_id, label_set): a random sample of all exams.

    To the audit belong all exams up to the last that it took, in the order of the hash: one that was chosen for a doubt
    before its turn came stays in, or the sample would lack the doubtful.

    Args:
        chosen: exam_id, label_set, reason; of all rounds.
        seed: with which they were chosen.
    """
    chance = pl.Series("chance", [hash_number(seed, exam) for exam in chosen["exam_id"]], dtype=pl.Float64)
    last = pl.col("chance").filter(pl.col("reason") == "audit").max().over("label_set")
    return chosen.with_columns(chance).filter(pl.col("chance") <= last).select("exam_id", "label_set")


def doubts_of(
    labels: pl.DataFrame, votes: pl.DataFrame, *, settings: ReviewSettings, aggregate: AggregateSettings
) -> pl.DataFrame:
    """exam_id, label_set, finding, worth, and a strength from 0 to 1 for each reason but the audit.

    One row a label that some reason holds for. ``worth``: 1 / (exams with the finding + ``steady`` times all exams).
    """
    _check("labels", labels, (*_KEY, "value", "p_present", "n_votes", "review_state"))
    _check("votes", votes, (*_KEY, "value", "group", "kind"))
    judged = labels.filter(pl.col("p_present").is_not_null()).select(*_KEY, "value", "p_present", "n_votes")
    present = (pl.col("value") == "present").sum().over("label_set", "finding")
    said = (
        judged.with_columns(
            worth=1 / (present + settings.selection.steady * labels["exam_id"].n_unique()),
            share=present / pl.len().over("label_set", "finding"),
        )
        .join(_statement(votes, "rule", "text"), on=_KEY, how="left")
        .join(_statement(votes, "bert", "bert"), on=_KEY, how="left")
        .join(_records(votes, aggregate), on=_KEY, how="left")
    )
    silent = settings.selection.silent_text
    against = (
        pl.when((pl.col("text") == "present") & pl.col("record_absent"))
        .then(1.0)
        .when((pl.col("text") == "absent") & pl.col("record_present"))
        .then(1.0)
        .when(pl.col("text").is_null() & pl.col("record_present"))
        .then(silent)
        .otherwise(0.0)
    )
    apart = (
        pl.when(pl.col("bert").is_null() | (pl.col("bert") == pl.col("text")))
        .then(0.0)
        .when(pl.col("text").is_null() & (pl.col("bert") == "absent"))
        .then(0.0)  # not mentioned and denied are the same for an image
        .when((pl.col("bert") == "uncertain") | (pl.col("text") == "uncertain"))
        .then(0.5)
        .otherwise(1.0)
    )
    # where nobody speaks the probability is that of all such exams: it tells none of them from the others
    wrong = pl.when(pl.col("n_votes") > 0).then(pl.min_horizontal("p_present", 1 - pl.col("p_present")) * 2)
    rare = (pl.col("share") <= settings.selection.rare_up_to) & pl.col("value").is_in(["present", "uncertain"])
    return (
        said.select(
            *_KEY,
            "worth",
            text_against_record=against.fill_null(0.0),
            rules_against_bert=apart.fill_null(0.0),
            low_margin=wrong.otherwise(0.0),
            rare_finding=pl.when(rare).then(1.0).otherwise(0.0),
        )
        .filter(pl.max_horizontal(_OF_LABELS) > 0)
        .sort(_KEY)
    )


def _statement(votes: pl.DataFrame, kind: str, name: str) -> pl.DataFrame:
    """What one kind of reader of the text says of a label: present before uncertain before absent."""
    order = {"present": 0, "uncertain": 1, "absent": 2}
    return (
        votes.filter((pl.col("kind") == kind) & pl.col("value").is_in(list(order)))
        .with_columns(pl.col("value").replace_strict(order, return_dtype=pl.Int8).alias("rank"))
        .group_by(_KEY)
        .agg(pl.col("rank").min())
        .select(
            *_KEY, pl.col("rank").replace_strict({v: k for k, v in order.items()}, return_dtype=pl.String).alias(name)
        )
    )


def _records(votes: pl.DataFrame, aggregate: AggregateSettings) -> pl.DataFrame:
    """Whether any record that can stand alone says present, and whether one says absent."""
    weak = pl.col("group").is_in(aggregate.never_alone).fill_null(False)
    return (
        votes.filter((pl.col("kind") == "record") & ~weak)
        .group_by(_KEY)
        .agg(*((pl.col("value") == side).any().alias(f"record_{side}") for side in _SIDES))
    )


def _scores(doubts: pl.DataFrame, open_exams: pl.DataFrame, seed: str) -> pl.DataFrame:
    """exam_id, patient_id, a score for each reason, and ``chance``, a number that the hash draws."""
    summed = doubts.group_by("exam_id").agg(*((pl.col(name) * pl.col("worth")).sum() for name in _OF_LABELS))
    drawn = [hash_number(seed, exam) for exam in open_exams["exam_id"]]
    return (
        open_exams.with_columns(pl.Series("chance", drawn, dtype=pl.Float64))
        .join(summed, on="exam_id", how="left")
        .with_columns(pl.col(_OF_LABELS).fill_null(0.0), audit=1 - pl.col("chance"))
    )


def hash_number(key: str, name: str) -> float:
    """A number from 0 to 1, the same for a key and name in every run, and unrelated to the order of the names."""
    digest = hashlib.blake2b(name.encode(), key=hashlib.sha256(key.encode()).digest(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _fill(scores: pl.DataFrame, budget: int, settings: ReviewSettings) -> pl.DataFrame:
    """exam_id, reason, score, priority of the exams that are taken."""
    limit = settings.selection.exams_of_one_patient
    patients = dict(scores.select("exam_id", "patient_id").iter_rows())
    queues = {
        # rounded, so that the order of a sum does not matter
        name: scores.filter(pl.col(name) > 0)
        .sort(pl.col(name).round(12), "chance", "exam_id", descending=[True, False, False])["exam_id"]
        .to_list()
        for name in settings.reasons
    }
    reason_of: dict[str, str] = {}
    of_patient: dict[str, int] = {}

    def take(name: str, wanted: int) -> None:
        for exam in queues[name]:
            if wanted <= 0:
                return
            patient = patients[exam]
            if exam in reason_of or (name != "audit" and of_patient.get(patient, 0) >= limit):
                continue  # a sample of all exams has all exams of a patient
            reason_of[exam] = name
            of_patient[patient] = of_patient.get(patient, 0) + 1
            wanted -= 1

    # the audit first: what the other reasons took would be missing from a sample of all exams
    quotas = quotas_of(settings, budget)
    for name in ("audit", *(name for name in settings.reasons if name != "audit")):
        take(name, quotas[name])
    for name in settings.reasons:
        take(name, budget - len(reason_of))
    return (
        pl.DataFrame(
            {"exam_id": list(reason_of), "reason": list(reason_of.values())}, schema_overrides={"reason": pl.String}
        )
        .cast({"exam_id": pl.String})
        .join(scores.select("exam_id", "chance", score="low_margin"), on="exam_id", how="left")
        .sort(pl.col("score").round(12), "chance", descending=[True, False])
        .with_row_index("priority", offset=1)
    )


def quotas_of(settings: ReviewSettings, budget: int) -> dict[str, int]:
    """Reason -> exams; they add up to the budget (largest remainders)."""
    exact = {name: reason.share * budget for name, reason in settings.reasons.items()}
    quotas = {name: int(share + 1e-9) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: quotas[name] - exact[name])
    for name in by_rest[: budget - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _rows(taken: pl.DataFrame, doubts: pl.DataFrame, cases: pl.DataFrame, *, doubtful_from: float) -> pl.DataFrame:
    # every label is a little doubtful: named are those with another reason or a real chance to be wrong
    least = dict.fromkeys(_OF_LABELS, 0.0) | {"low_margin": 2 * doubtful_from}
    findings = (
        doubts.join(taken.select("exam_id"), on="exam_id", how="semi")
        .filter(pl.any_horizontal(pl.col(name) > least[name] for name in _OF_LABELS))
        .with_columns(doubt=pl.col("worth") * pl.max_horizontal(_OF_LABELS))
        .sort(pl.col("doubt").round(12), "finding", descending=[True, False])
        .group_by("exam_id", "label_set", maintain_order=True)
        .agg(pl.col("finding").alias("findings"), *((pl.col(name) > least[name]).any() for name in _OF_LABELS))
    )
    holds = pl.concat_list([pl.when(pl.col(name)).then(pl.lit(name)) for name in _OF_LABELS]).list.drop_nulls()
    return (
        cases.join(taken, on="exam_id", how="inner")
        .join(findings, on=["exam_id", "label_set"], how="left")
        .with_columns(pl.col(_OF_LABELS).fill_null(False), pl.col("findings").fill_null([]))
        .with_columns(holds=holds)
        .with_columns(
            reasons=pl.when(pl.col("reason") == "audit")
            .then(pl.concat_list(pl.lit("audit"), "holds"))
            .when(pl.col("holds").list.contains(pl.col("reason")))
            .then(pl.concat_list("reason", pl.col("holds").list.set_difference(pl.concat_list("reason"))))
            .otherwise("holds")
        )
        .sort("priority", "label_set")
        .select(CHOSEN.names())
        .cast(CHOSEN)
    )


def _check(name: str, table: pl.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{name}: column {', '.join(missing)} is missing; run `reportlabel run` again")
