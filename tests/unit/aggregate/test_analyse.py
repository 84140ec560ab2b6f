"""The table of labelling functions counts what it says it counts."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.schema import ANALYSIS
from tests.unit.aggregate.simulated import (
    READINGS,
    Source,
    exam_table,
    label_set,
    readings_of,
    simulate,
    vote_table,
)

SETS = {"chest": label_set("chest", ["nodule"])}


def analysis(votes: pl.DataFrame, exams: int, readings: pl.DataFrame | None = None) -> pl.DataFrame:
    table = exam_table(exams)
    return aggregate(
        votes,
        table.select("exam_id", pl.lit("chest").alias("label_set")),
        exams=table,
        label_sets=SETS,
        readings=pl.DataFrame(schema=READINGS) if readings is None else readings,
        settings=load_settings(),
    ).analysis


def vote(exam: int, function: str, value: str, group: str | None = None) -> dict[str, object]:
    return {
        "exam_id": f"e{exam}",
        "function_id": function,
        "value": value,
        "kind": function.split("/", maxsplit=1)[0],
        "group": group,
    }


def test_counts_by_hand() -> None:
    votes = vote_table(
        [
            vote(0, "rule/a", "present"),
            vote(0, "rule/b", "absent"),  # the same report: present
            vote(0, "record/x", "present", "blood"),
            vote(1, "rule/a", "absent"),
            vote(1, "record/x", "present", "blood"),
            vote(2, "rule/a", "uncertain"),
            vote(3, "bert/m", "absent"),
        ]
    )
    readings = readings_of(np.array([1, 0, 1, 1, 0]), [0, 1, 2, 3, 4], finding="nodule")
    rows = {row["function_id"]: row for row in analysis(votes, 10, readings).iter_rows(named=True)}
    assert list(rows) == ["bert/m", "record/x", "rule"]
    expected = {
        "rule": (3, 1, 1, 1, 0.3, 0.2, 0.1, 2, 1.0, None, False),
        "record/x": (2, 2, 0, 0, 0.2, 0.2, 0.1, 2, 0.5, "blood", True),
        "bert/m": (1, 0, 0, 1, 0.1, 0.0, 0.0, 1, 0.0, None, True),
    }
    columns = (
        "n_votes n_present n_uncertain n_absent coverage overlap conflict n_reviewed empirical_accuracy group one_way"
    )
    for function, figures in expected.items():
        assert tuple(rows[function][name] for name in columns.split()) == pytest.approx(figures, nan_ok=True)


def test_a_function_that_was_never_checked_has_no_accuracy() -> None:
    (row,) = analysis(vote_table([vote(0, "rule/a", "uncertain")]), 2).iter_rows(named=True)
    assert row["n_reviewed"] == 0 and row["empirical_accuracy"] is None and row["estimated_accuracy"] is None


def test_the_estimate_is_near_the_measured_accuracy() -> None:
    chance = np.random.default_rng(0)
    truth = (chance.random(8000) < 0.25).astype(np.int64)
    sources = [
        Source("rule/nodule", "rule", 0.85, 0.97, 0.9),
        Source("bert/m", "bert", 0.9, 0.95, 0.8),
        Source("record/x", "record", 0.7, 0.9, 0.7, 0.5),
        Source("record/y", "record", 0.8, 0.93, 0.6, 0.5),
    ]
    votes = simulate(truth, sources, chance, finding="nodule")
    table = analysis(votes, len(truth))
    assert table.schema == ANALYSIS and table["group"].null_count() == 4
    right = dict(
        votes.with_columns(
            (pl.Series(truth).gather(votes["exam_id"].str.slice(1).cast(pl.UInt32)) == 1).alias("truth"),
            (pl.col("value") == "present").alias("said"),
            pl.col("function_id").replace("rule/nodule", "rule"),
        )
        .group_by("function_id")
        .agg((pl.col("truth") == pl.col("said")).mean())
        .iter_rows()
    )
    for function, estimated in table.select("function_id", "estimated_accuracy").iter_rows():
        assert abs(estimated - right[function]) < 0.02
