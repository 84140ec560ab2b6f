"""Several readers: how they become one, how far they agree, and how a program does beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import numpy as np
import polars as pl

from reportlabel.errors import InputError
from reportlabel.evaluate.diagnostic import (
    Interval,
    clopper_pearson,
    cohen_kappa,
    fleiss_kappa,
    icc_2_1,
    mcnemar,
    two_by_two,
    wilson,
)

__all__ = [
    "AGREEMENT",
    "BESIDE_READERS",
    "READER_COUNTS",
    "Consensus",
    "beside_readers",
    "consensus_count",
    "consensus_status",
    "count_agreement",
    "reader_counts",
]

Consensus = Literal["majority", "median", "all", "any"]

READER_COUNTS = pl.Schema({"patient_code": pl.String, "reader": pl.String, "count": pl.Int64})
"""One row a patient and reader; ``count`` is null where the reader gave no number."""

AGREEMENT = pl.Schema(
    {
        "measure": pl.String,
        "readers": pl.String,
        "n": pl.Int64,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
)
"""One row a measure. ``readers``: joined by ``;``. Null where a figure cannot be given."""

BESIDE_READERS = pl.Schema(
    {
        "finding": pl.String,
        "rater": pl.String,
        "n_diseased": pl.Int64,
        "n_healthy": pl.Int64,
        "sensitivity": pl.Float64,
        "sensitivity_low": pl.Float64,
        "sensitivity_high": pl.Float64,
        "sensitivity_exact_low": pl.Float64,
        "sensitivity_exact_high": pl.Float64,
        "specificity": pl.Float64,
        "specificity_low": pl.Float64,
        "specificity_high": pl.Float64,
        "specificity_exact_low": pl.Float64,
        "specificity_exact_high": pl.Float64,
        "p_sensitivity": pl.Float64,
        "p_specificity": pl.Float64,
    }
)
"""One row a finding and rater. Intervals: Wilson, and exact (Clopper-Pearson). p: exact McNemar test, see the
function."""

_STATUS = ("present", "uncertain", "absent")


def consensus_status(values: Sequence[str | None], rule: Consensus) -> str | None:
    """What several readers say together of a finding: present, uncertain, absent, or None where they do not agree.

    majority, median: what more than half of them say. all: present where all say so, absent where one says absent. any:
    present where one says so, absent where all say absent.
    """
    said = [value for value in values if value in _STATUS]
    if not said:
        return None
    if rule in ("all", "any"):
        strong, weak = ("absent", "present") if rule == "all" else ("present", "absent")
        return strong if strong in said else weak if set(said) == {weak} else None
    value, votes = Counter(said).most_common(1)[0]
    return value if 2 * votes > len(said) else None


def consensus_count(counts: Sequence[int], rule: Consensus) -> float | None:
    """What several readers count together; None without a count.

    majority: the number that more than half of them name, else the median. all: what all see at least, the smallest.
    any: the largest.
    """
    if not counts:
        return None
    if rule == "all":
        return float(min(counts))
    if rule == "any":
        return float(max(counts))
    value, votes = Counter(counts).most_common(1)[0]
    return float(value) if rule == "majority" and 2 * votes > len(counts) else float(np.median(counts))


def reader_counts(
    exams: pl.DataFrame, readings: pl.DataFrame, *, label_set: str, count: str, finding: str
) -> pl.DataFrame:
    """The number of lesions that each reader gave for each patient.

    Args:
        exams: exam_id, patient_id. readings: the readings table; the latest reading of a reader counts.
        count: the label that holds the number; finding: the label that says whether there is any. Who says that there
            is none has counted 0.

    Returns:
        Columns of READER_COUNTS; of several exams of a patient the largest number.
    """
    latest = (
        readings.filter(pl.col("label_set") == label_set, pl.col("finding").is_in([count, finding]))
        .sort("read_at", maintain_order=True, nulls_last=False)
        .unique(["exam_id", "reader", "finding"], keep="last", maintain_order=True)
        .join(exams.select("exam_id", patient_code="patient_id"), on="exam_id", how="inner")
    )
    of_exam = latest.group_by("patient_code", "exam_id", "reader").agg(
        number=pl.col("value").filter(pl.col("finding") == count).first(),
        status=pl.col("value").filter(pl.col("finding") == finding).first(),
    )
    whole = pl.col("number").str.contains(r"^[0-9]{1,6}$")
    return (
        of_exam.with_columns(
            count=pl.when(pl.col("status") == "absent")
            .then(pl.lit(0, dtype=pl.Int64))
            .when(whole)
            .then(pl.col("number").cast(pl.Int64, strict=False))
        )
        .group_by("patient_code", "reader")
        .agg(pl.col("count").max())
        .sort("patient_code", "reader")
        .cast(READER_COUNTS)
    )


def count_agreement(counts: pl.DataFrame, *, level: float = 0.95) -> pl.DataFrame:
    """How far readers agree on numbers (ICC(2,1)) and on whether there is any (Fleiss, and Cohen for each pair).

    Args:
        counts: columns of READER_COUNTS. Patients whom not all readers have counted are left out of what needs all;
            ``n`` says how many were used.

    Returns:
        Columns of AGREEMENT.
    """
    readers = sorted(counts["reader"].unique())
    table = (
        counts.pivot("reader", index="patient_code", values="count").select(readers)
        if readers
        else pl.DataFrame(schema={})
    )
    rows: list[tuple[str, str, int, Interval]] = []
    whole = table.drop_nulls()
    numbers = whole.to_numpy()
    names = ";".join(readers)
    if len(readers) >= 2 and whole.height >= 2:
        rows.append(("icc_2_1", names, whole.height, icc_2_1(numbers, level=level)))
        found = (numbers > 0).sum(axis=1)
        votes = np.stack([found, len(readers) - found], axis=1)
        rows.append(("fleiss_kappa", names, whole.height, fleiss_kappa(votes, level=level)))
    for first, second in combinations(readers, 2):
        pair = table.select(first, second).drop_nulls()
        said = [[number > 0 for number in pair[name]] for name in (first, second)]
        kappa = cohen_kappa(said[0], said[1], categories=[False, True], level=level)
        rows.append(("cohen_kappa", f"{first};{second}", pair.height, kappa))
    return pl.DataFrame(
        [(measure, who, n, one.estimate, one.low, one.high) for measure, who, n, one in rows],
        schema=AGREEMENT,
        orient="row",
    ).with_columns(pl.col("value", "low", "high").fill_nan(None))


def beside_readers(ratings: pl.DataFrame, reference: pl.DataFrame, *, rater: str, level: float = 0.95) -> pl.DataFrame:
    """A program and readers against the same reference, finding by finding (T6).

    Args:
        ratings: exam_id, finding, rater, present (true or false): the program is one of the raters.
        reference: exam_id, finding, present: what is so, for instance by pathology. Never made from one of the raters.
        rater: the program. Each reader is compared with it on the exams that both have rated.

    Returns:
        Columns of BESIDE_READERS, the program first. ``p_sensitivity`` and ``p_specificity`` compare a reader with the
        program; null in the row of the program. Exams without reference are left out.

    Raises:
        InputError: an exam and finding stands twice for a rater or in the reference.
    """
    for table, keys in ((ratings, ["exam_id", "finding", "rater"]), (reference, ["exam_id", "finding"])):
        twice = table.height - table.select(keys).unique().height
        if twice:
            raise InputError(f"{twice} rows stand twice ({', '.join(keys)}); give one row each")
    joined = ratings.join(
        reference.select("exam_id", "finding", real="present"), on=["exam_id", "finding"], how="inner"
    ).drop_nulls(["present", "real"])
    own = joined.filter(pl.col("rater") == rater).select("exam_id", "finding", own="present")
    rows: list[dict[str, object]] = []
    groups = joined.sort("finding", pl.col("rater") != rater, "rater").group_by("finding", "rater", maintain_order=True)
    for (finding, name), some in groups:
        counts = two_by_two(some["real"].to_numpy(), some["present"].to_numpy())
        shares = {
            "sensitivity": (counts.tp, counts.tp + counts.fn),
            "specificity": (counts.tn, counts.tn + counts.fp),
        }
        row: dict[str, object] = {"finding": finding, "rater": name}
        row |= {"n_diseased": counts.tp + counts.fn, "n_healthy": counts.tn + counts.fp}
        both = some.join(own, on=["exam_id", "finding"], how="inner")
        for measure, (right, n) in shares.items():
            score, exact = wilson(right, n, level=level), clopper_pearson(right, n, level=level)
            group = both.filter(pl.col("real") == (measure == "sensitivity"))
            test = mcnemar(*(group[column].to_numpy() for column in ("real", "own", "present")))
            row |= {
                measure: score.estimate,
                f"{measure}_low": score.low,
                f"{measure}_high": score.high,
                f"{measure}_exact_low": exact.low,
                f"{measure}_exact_high": exact.high,
                f"p_{measure}": test.p_exact if name != rater and test.n else None,
            }
        rows.append(row)
    return pl.DataFrame(rows, schema=BESIDE_READERS).with_columns(pl.selectors.float().fill_nan(None))
