"""Agreement figures: equal to those of other packages, sensible where these give up, and honest intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from reportlabel.review.agreement import (
    MISSING,
    Codes,
    agreement,
    cohen,
    fleiss,
    gwet_ac1,
    krippendorff,
    observed_agreement,
)
from reportlabel.review.readers import disagreements
from reportlabel.review.settings import load_settings
from reportlabel.schema import READINGS

VALUES = 4


def simulated(
    *, exams: int = 300, readers: int = 2, prevalence: float = 0.3, missing: float = 0.0, seed: int = 0
) -> Codes:
    """Readers who see the same truth and err at rates of their own."""
    generator = np.random.default_rng(seed)
    truth = np.where(generator.random(exams) < prevalence, 3, generator.integers(0, 2, exams))
    codes = np.repeat(truth[:, None], readers, axis=1)
    for reader in range(readers):
        errs = generator.random(exams) < 0.05 + 0.1 * reader
        codes[errs, reader] = generator.integers(0, VALUES, int(errs.sum()))
    codes[generator.random(codes.shape) < missing] = MISSING
    return codes.astype(np.int64)


def readings_of(codes: Codes, *, order: Sequence[str], finding: str = "nodule") -> pl.DataFrame:
    rows = [
        {
            "exam_id": f"X{exam:04}",
            "label_set": "lung_ct",
            "finding": finding,
            "reader": f"r{reader}",
            "value": order[code],
            "origin": "confirmed",
            "read_at": datetime(2026, 1, 1),
            "annotation_id": f"{exam}-{reader}",
        }
        for exam, row in enumerate(codes)
        for reader, code in enumerate(row)
        if code != MISSING
    ]
    return pl.DataFrame(rows, schema=READINGS)


# --- other packages


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
@pytest.mark.parametrize("prevalence", [0.02, 0.3])
def test_cohens_kappa_is_that_of_scikit_learn(weights: str | None, prevalence: float) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn gives the reference values")
    for seed in range(5):
        codes = simulated(prevalence=prevalence, seed=seed)
        expected = metrics.cohen_kappa_score(codes[:, 0], codes[:, 1], weights=weights, labels=list(range(VALUES)))
        assert cohen(codes, values=VALUES, weights=weights).value() == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("readers", [2, 3, 5])
def test_fleiss_kappa_is_that_of_statsmodels(readers: int) -> None:
    reference = pytest.importorskip(
        "statsmodels.stats.inter_rater", reason="statsmodels gives the reference values; pip install statsmodels"
    )
    for seed in range(5):
        codes = simulated(readers=readers, seed=seed)
        counts = np.stack([(codes == value).sum(axis=1) for value in range(VALUES)], axis=1)
        expected = reference.fleiss_kappa(counts)
        assert fleiss(codes, values=VALUES).value() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.6])
def test_krippendorffs_alpha_is_that_of_the_package_of_that_name(level: str, missing: float) -> None:
    reference = pytest.importorskip(
        "krippendorff", reason="krippendorff gives the reference values; pip install krippendorff (GPL, tests only)"
    )
    for seed in range(5):
        codes = simulated(readers=4, missing=missing, seed=seed)
        data = np.where(codes == MISSING, np.nan, codes).T
        expected = reference.alpha(data, level_of_measurement=level, value_domain=list(range(VALUES)))
        assert krippendorff(codes, values=VALUES, level=level).value() == pytest.approx(expected, abs=1e-9)  # type: ignore[arg-type]


def test_gwets_ac1_is_what_its_definition_gives_pair_by_pair() -> None:
    codes = simulated(readers=4, missing=0.3, seed=3)
    agree, shares = [], []
    for row in codes:
        given = [int(code) for code in row if code != MISSING]
        if not given:
            continue
        shares.append([given.count(value) / len(given) for value in range(VALUES)])
        pairs = [(a, b) for i, a in enumerate(given) for j, b in enumerate(given) if i != j]
        if pairs:
            agree.append(sum(a == b for a, b in pairs) / len(pairs))
    share = np.mean(shares, axis=0)
    chance = sum(s * (1 - s) for s in share) / (VALUES - 1)
    expected = (np.mean(agree) - chance) / (1 - chance)
    assert gwet_ac1(codes, values=VALUES).value() == pytest.approx(float(expected), abs=1e-12)


def test_gwets_ac1_of_two_readers_and_two_values_by_hand() -> None:
    # 118 both yes, 5 and 2 apart, 0 both no: kappa is about 0 although 94 % agree
    codes = np.array([[1, 1]] * 118 + [[1, 0]] * 5 + [[0, 1]] * 2)
    chance = 2 * (243 / 250) * (7 / 250)
    assert gwet_ac1(codes, values=2).value() == pytest.approx((118 / 125 - chance) / (1 - chance), abs=1e-12)
    assert cohen(codes, values=2).value() == pytest.approx(-0.0234, abs=1e-4)


# --- edges


def test_agreement_is_one_where_all_agree_and_undefined_where_there_is_nothing_to_tell() -> None:
    same = np.array([[0, 0], [3, 3], [1, 1]])
    for figure in (
        cohen(same, values=4),
        fleiss(same, values=4),
        krippendorff(same, values=4),
        gwet_ac1(same, values=4),
    ):
        assert figure.value() == pytest.approx(1.0)
    always = np.zeros((20, 2), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(cohen(always, values=4).value())
        assert np.isnan(fleiss(always, values=4).value())
        assert np.isnan(krippendorff(always, values=4, level="ordinal").value())
        assert gwet_ac1(always, values=4).value() == pytest.approx(1.0)
        assert np.isnan(cohen(np.zeros((0, 2), dtype=np.int64), values=4).value())


def test_a_reading_alone_tells_nothing_of_agreement() -> None:
    codes = simulated(readers=3, missing=0.2, seed=1)
    alone = np.vstack([codes, [[2, MISSING, MISSING]] * 50])
    for figure in (krippendorff, observed_agreement, fleiss):
        assert figure(alone, values=VALUES).value() == pytest.approx(figure(codes, values=VALUES).value())


def test_fleiss_takes_the_exams_with_the_usual_number_of_readings() -> None:
    three = simulated(exams=200, readers=3)
    some = np.vstack([three, np.column_stack([simulated(exams=40, seed=9), np.full(40, MISSING)])])
    assert fleiss(some, values=VALUES).value() == pytest.approx(fleiss(three, values=VALUES).value())


def test_intervals_hold_what_they_promise() -> None:
    """Of samples from one population about 95 % of the intervals hold the kappa of the population."""
    population = cohen(simulated(exams=200_000, seed=1), values=VALUES).value()
    inside = 0
    for seed in range(100, 200):
        low, high = cohen(simulated(exams=200, seed=seed), values=VALUES).interval(resamples=400, confidence=0.95)
        inside += low <= population <= high
    assert 88 <= inside <= 99


# --- the table


def test_two_readers_with_known_error_rates() -> None:
    """Figures of the table equal the references, and the queue holds exactly the disagreements."""
    settings = load_settings().agreement
    codes = simulated(exams=500, seed=7)
    readings = readings_of(codes, order=settings.order)
    table = agreement(readings, settings=settings)
    one = {
        (row["reader"], row["other"], row["measure"]): row
        for row in table.filter(pl.col("finding") == "nodule").iter_rows(named=True)
    }
    assert one["r0", "r1", "cohen_kappa"]["value"] == pytest.approx(cohen(codes, values=4).value(), abs=1e-12)
    assert one[None, None, "fleiss_kappa"]["value"] == pytest.approx(fleiss(codes, values=4).value(), abs=1e-12)
    apart = codes[:, 0] != codes[:, 1]
    assert one["r0", None, "observed"]["value"] == pytest.approx(1 - apart.mean())
    assert one["r0", "r1", "cohen_kappa"]["exams"] == 500
    for row in one.values():
        assert row["low"] <= row["value"] <= row["high"]
    queue = disagreements(readings, key="k")
    assert queue["exam_id"].to_list() == [f"X{exam:04}" for exam in np.flatnonzero(apart)]


def test_all_labels_together_are_drawn_by_exam() -> None:
    settings = load_settings().agreement
    codes = simulated(exams=80, seed=2)
    twice = pl.concat([readings_of(codes, order=settings.order, finding=name) for name in ("nodule", "pneumonia")])
    table = agreement(twice, settings=settings).filter(pl.col("measure") == "krippendorff_alpha")
    single, together = table.filter(pl.col("finding") == "nodule"), table.filter(pl.col("finding").is_null())
    # the same labels twice say nothing new: the interval is as wide as that of one (alpha itself knows sample sizes)
    assert together["exams"].item() == 80
    width = [one["high"].item() - one["low"].item() for one in (single, together)]
    assert width[1] == pytest.approx(width[0], rel=0.1)


def test_adjudicators_and_other_values_are_left_out() -> None:
    settings = load_settings().agreement
    codes = simulated(exams=50)
    readings = readings_of(codes, order=settings.order)
    chief = readings.filter(pl.col("reader") == "r0").with_columns(reader=pl.lit("chief"))
    size = readings.with_columns(finding=pl.lit("primary_size_mm"), value=pl.lit("12"))
    table = agreement(pl.concat([readings, chief, size]), settings=settings, adjudicators=["chief"])
    assert table.equals(agreement(readings, settings=settings))
    assert agreement(readings.clear(), settings=settings).is_empty()
