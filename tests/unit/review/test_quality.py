"""Readings that may be slips come first."""

from __future__ import annotations

import sys
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.review.quality import LABEL_ERRORS, label_errors
from reportlabel.schema import READINGS


def tables(*, exams: int = 200, slips: int = 8) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Readings of a finding that half of the exams have, of which the first few are wrong, and good labels."""
    generator = np.random.default_rng(3)
    truth = np.arange(exams) % 2 == 0
    p = np.clip(np.where(truth, 0.9, 0.1) + generator.normal(0, 0.05, exams), 0.01, 0.99)
    read = np.where(np.arange(exams) < slips, ~truth, truth)
    names = [f"X{number:03}" for number in range(exams)]
    readings = pl.DataFrame(
        [
            {
                "exam_id": name,
                "label_set": "lung_ct",
                "finding": "nodule",
                "reader": "a",
                "value": "present" if one else "absent",
                "read_at": datetime(2026, 1, 1),
            }
            for name, one in zip(names, read, strict=True)
        ],
        schema=READINGS,
    )
    judged = pl.DataFrame({"exam_id": names, "p_present": p}).with_columns(
        label_set=pl.lit("lung_ct"), finding=pl.lit("nodule"), review_state=pl.lit("unreviewed")
    )
    return readings, judged


def test_slips_come_first() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab ranks label errors; pip install 'reportlabel[review]'")
    readings, judged = tables()
    ranked = label_errors(readings, judged)
    assert ranked.schema == LABEL_ERRORS
    assert ranked.height == 200
    assert sorted(ranked["exam_id"].head(8)) == [f"X{number:03}" for number in range(8)]
    assert 6 <= ranked["suspected"].sum() <= 8  # the threshold is a mean of the probabilities


def test_few_readings_and_one_value_are_ranked_too() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab ranks label errors; pip install 'reportlabel[review]'")
    readings, judged = tables()
    absent = readings.filter(pl.col("value") == "absent").head(4)
    ranked = label_errors(absent, judged)
    assert ranked["quality"].is_sorted()
    assert not ranked["suspected"].any()
    assert label_errors(readings.clear(), judged).is_empty()


def test_uncertain_readings_are_not_ranked() -> None:
    pytest.importorskip("cleanlab", reason="cleanlab ranks label errors; pip install 'reportlabel[review]'")
    readings, judged = tables()
    assert label_errors(readings.with_columns(value=pl.lit("uncertain")), judged).is_empty()


def test_labels_that_know_the_readings_are_refused() -> None:
    readings, judged = tables()
    with pytest.raises(InputError, match="cannot judge themselves"):
        label_errors(readings, judged.with_columns(review_state=pl.lit("reviewed")))
    with pytest.raises(InputError, match="p_present"):
        label_errors(readings, judged.drop("p_present"))


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ConfigError, match=r"reportlabel\[review\]"):
        label_errors(*tables())
