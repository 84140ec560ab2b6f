"""Several readers become one, agree more or less, and a program stands beside them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from reportlabel.errors import InputError
from reportlabel.evaluate.diagnostic import cohen_kappa, icc_2_1
from reportlabel.evaluate.readers import (
    AGREEMENT,
    BESIDE_READERS,
    beside_readers,
    consensus_count,
    consensus_status,
    count_agreement,
    reader_counts,
)
from reportlabel.schema import READINGS


def reading(exam: str, reader: str, finding: str, value: str, *, hour: int = 9) -> dict[str, Any]:
    return {
        "exam_id": exam,
        "label_set": "bone_scintigraphy",
        "finding": finding,
        "reader": reader,
        "value": value,
        "read_at": datetime(2026, 1, 1, hour),
    }


@pytest.mark.parametrize(
    ("values", "rule", "wanted"),
    [
        (["present", "present", "absent"], "majority", "present"),
        (["present", "absent", "uncertain"], "majority", None),
        (["present", "absent"], "majority", None),
        (["present", None, "not_mentioned"], "majority", "present"),
        (["present", "absent", "absent"], "any", "present"),
        (["absent", "absent"], "any", "absent"),
        (["absent", "uncertain"], "any", None),
        (["present", "present"], "all", "present"),
        (["present", "present", "absent"], "all", "absent"),
        (["present", "uncertain"], "all", None),
        ([], "majority", None),
    ],
)
def test_B5_readers_become_one(values: list[str | None], rule: Any, wanted: str | None) -> None:
    assert consensus_status(values, rule) == wanted


@pytest.mark.parametrize(
    ("counts", "rule", "wanted"),
    [
        ([3, 3, 9], "majority", 3),
        ([1, 3, 9], "majority", 3),
        ([1, 3, 9], "median", 3),
        ([1, 2], "median", 1.5),
        ([1, 3, 9], "all", 1),
        ([1, 3, 9], "any", 9),
        ([], "median", None),
    ],
)
def test_B5_counts_become_one(counts: list[int], rule: Any, wanted: float | None) -> None:
    assert consensus_count(counts, rule) == wanted


def test_B5_the_count_of_each_reader() -> None:
    exams = pl.DataFrame({"exam_id": ["E1", "E2", "E3"], "patient_id": ["A", "B", "B"]})
    readings = pl.DataFrame(
        [
            reading("E1", "r1", "n_metastases", "2", hour=8),
            reading("E1", "r1", "n_metastases", "5"),
            reading("E1", "r2", "n_metastases", "many"),
            reading("E1", "r2", "bone_metastasis", "present"),
            reading("E1", "r3", "n_metastases", "not_mentioned"),
            reading("E1", "r3", "bone_metastasis", "absent"),
            reading("E2", "r1", "n_metastases", "1"),
            reading("E3", "r1", "n_metastases", "4"),
            {**reading("E1", "r4", "n_metastases", "7"), "label_set": "another"},
        ],
        schema=READINGS,
    )
    counts = reader_counts(
        exams, readings, label_set="bone_scintigraphy", count="n_metastases", finding="bone_metastasis"
    )
    assert counts.rows() == [("A", "r1", 5), ("A", "r2", None), ("A", "r3", 0), ("B", "r1", 4)]


def test_B5_agreement_of_three_readers() -> None:
    table = [(0, 0, 1), (3, 4, 3), (10, 8, 9), (0, 0, 0), (2, 0, 1), (6, 6, 7)]
    rows = [(f"P{at}", f"r{who}", count) for at, row in enumerate(table) for who, count in enumerate(row)]
    rows += [("P9", "r0", 4), ("P9", "r1", None)]
    counts = pl.DataFrame(rows, schema=["patient_code", "reader", "count"], orient="row")
    agreement = count_agreement(counts)
    assert agreement.schema == AGREEMENT
    assert agreement["measure"].to_list() == ["icc_2_1", "fleiss_kappa", *["cohen_kappa"] * 3]
    assert agreement["n"].to_list() == [6] * 5
    assert agreement["value"][0] == pytest.approx(icc_2_1(table).estimate)
    first = cohen_kappa([row[0] > 0 for row in table], [row[1] > 0 for row in table])
    assert agreement["value"][2] == pytest.approx(first.estimate)
    assert agreement["readers"][2] == "r0;r1"


def test_B5_one_reader_or_none_agree_with_nobody() -> None:
    one = pl.DataFrame({"patient_code": ["A", "B"], "reader": ["r", "r"], "count": [1, 2]})
    assert count_agreement(one).is_empty()
    assert count_agreement(one.clear()).is_empty()


def test_T6_a_program_beside_readers() -> None:
    real = [True] * 6 + [False] * 4
    said = {
        "model": [True] * 6 + [False] * 3 + [True],
        "reader_a": [True] * 3 + [False] * 7,
        "reader_b": [True] * 6 + [False] * 4,
    }
    reference = pl.DataFrame({"exam_id": [f"E{n}" for n in range(10)], "finding": "melanoma", "present": real})
    ratings = pl.concat(
        pl.DataFrame({"exam_id": [f"E{n}" for n in range(10)], "finding": "melanoma", "rater": who, "present": values})
        for who, values in said.items()
    )
    table = beside_readers(ratings, reference, rater="model")
    assert table.schema == BESIDE_READERS
    assert table["rater"].to_list() == ["model", "reader_a", "reader_b"]
    assert table["sensitivity"].to_list() == [1, 0.5, 1]
    assert table["specificity"].to_list() == [0.75, 1, 1]
    assert table["p_sensitivity"].to_list() == [None, pytest.approx(0.25), 1]
    assert table.select(pl.col("n_diseased").unique(), pl.col("n_healthy").unique()).row(0) == (6, 4)
    assert (table["sensitivity_exact_low"] <= table["sensitivity"]).all()
    with pytest.raises(InputError, match="10 rows stand twice"):
        beside_readers(pl.concat([ratings, ratings.filter(pl.col("rater") == "model")]), reference, rater="model")


def test_T6_without_the_diseased_there_is_no_sensitivity() -> None:
    one = pl.DataFrame({"exam_id": ["E"], "finding": ["melanoma"], "present": [False]})
    row = beside_readers(one.with_columns(rater=pl.lit("model")), one, rater="model").row(0, named=True)
    assert row["sensitivity"] is None and row["specificity"] == 1
