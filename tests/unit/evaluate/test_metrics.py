"""Measures against scikit-learn, and properties that hold for any labels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from reportlabel.evaluate import metrics
from reportlabel.evaluate.metrics import Codes

K = 4
labels = st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), min_size=1, max_size=60)


def codes(rows: list[tuple[int, int]], reports: list[int] | None = None) -> Codes:
    gold, predicted = np.array(rows, dtype=np.int64).T
    return Codes(np.array(reports if reports else range(len(rows)), dtype=np.int64), gold, predicted, K)


@given(labels)
def test_measures_equal_scikit_learn(rows: list[tuple[int, int]]) -> None:
    gold, predicted = zip(*rows, strict=True)
    counts = metrics.confusion(codes(rows))
    expected = precision_recall_fscore_support(gold, predicted, labels=range(K), zero_division=np.nan)

    np.testing.assert_array_equal(counts, confusion_matrix(gold, predicted, labels=range(K)))
    np.testing.assert_allclose(metrics.precision(counts), expected[0])
    np.testing.assert_allclose(metrics.recall(counts), expected[1])
    np.testing.assert_allclose(metrics.f1(counts), expected[2])
    np.testing.assert_array_equal(metrics.support(counts), expected[3])
    assert metrics.accuracy(counts) == pytest.approx(accuracy_score(gold, predicted))


@given(labels)
def test_kappa_equals_scikit_learn(rows: list[tuple[int, int]]) -> None:
    gold, predicted = zip(*rows, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where kappa is undefined; so is ours then
        expected = cohen_kappa_score(gold, predicted)
    assert float(metrics.kappa(metrics.confusion(codes(rows)))) == pytest.approx(expected, nan_ok=True)


def test_kappa_by_hand() -> None:
    # 20 + 15 of 50 agree (p_o = 0.7); marginals 25/25 and 30/20 expect half of them to (p_e = 0.5).
    assert float(metrics.kappa(np.array([[20.0, 5.0], [10.0, 15.0]]))) == pytest.approx(0.4)


@given(labels)
def test_measures_are_within_their_range_or_undefined(rows: list[tuple[int, int]]) -> None:
    counts = metrics.confusion(codes(rows))
    for measure in (metrics.precision, metrics.recall, metrics.f1, metrics.accuracy):
        values = measure(counts)
        assert np.all(np.isnan(values) | ((values >= 0) & (values <= 1)))
    assert np.isnan(metrics.kappa(counts)) or -1 <= metrics.kappa(counts) <= 1


@given(labels)
def test_swapping_the_sides_swaps_precision_and_recall(rows: list[tuple[int, int]]) -> None:
    counts = metrics.confusion(codes(rows))
    np.testing.assert_allclose(metrics.precision(counts), metrics.recall(counts.T))
    np.testing.assert_allclose(metrics.f1(counts), metrics.f1(counts.T))
    np.testing.assert_allclose(metrics.kappa(counts), metrics.kappa(counts.T))


def test_a_class_that_nobody_uses_is_undefined_and_not_zero() -> None:
    counts = metrics.confusion(codes([(0, 0), (1, 0)]))
    assert np.isnan(metrics.f1(counts)[2])
    assert np.isnan(metrics.precision(counts)[1])  # never predicted
    assert metrics.recall(counts)[1] == 0  # in gold, never found: a real zero


def test_macro_counts_only_findings_that_gold_has() -> None:
    values = np.array([[0.5, np.nan], [1.0, 0.0], [0.0, 0.7]])
    support = np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(metrics.macro(values, support), [0.75, 0.7])


def test_macro_without_any_supported_finding_is_undefined() -> None:
    assert np.isnan(metrics.macro(np.array([[np.nan]]), np.array([[0.0]])))[0]


@given(labels, st.data())
def test_resampled_counts_equal_a_plain_loop(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    reports = data.draw(st.lists(st.integers(0, 6), min_size=len(rows), max_size=len(rows)))
    (fast,) = metrics.bootstrap_confusions([codes(rows, reports)], n_reports=7, resamples=5, seed=3)
    draws = np.random.default_rng(3).integers(0, 7, size=(5, 7))
    for sample, drawn in zip(fast, draws, strict=True):
        slow = np.zeros((K, K))
        for report in drawn:
            for (gold, predicted), of in zip(rows, reports, strict=True):
                slow[gold, predicted] += of == report
        np.testing.assert_array_equal(sample, slow)


def test_resamples_keep_the_rows_of_a_report_together() -> None:
    first = codes([(0, 0), (1, 0)], [0, 1])
    second = codes([(2, 2), (3, 2)], [0, 1])
    one, two = metrics.bootstrap_confusions([first, second], n_reports=2, resamples=50, seed=0)
    np.testing.assert_array_equal(one[:, 0, 0], two[:, 2, 2])
    np.testing.assert_array_equal(one.sum(axis=(1, 2)), np.full(50, 2.0))


def test_chunks_of_resamples_cover_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_WEIGHTS_PER_CHUNK", 7)
    (samples,) = metrics.bootstrap_confusions([codes([(0, 0), (1, 1), (2, 2)])], n_reports=3, resamples=11, seed=0)
    np.testing.assert_array_equal(samples.sum(axis=(1, 2)), np.full(11, 3.0))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_percentile_interval_lies_within_the_samples(values: list[float]) -> None:
    low, high = metrics.percentile_interval(np.array(values)[:, np.newaxis])
    assert min(values) <= low[0] <= high[0] <= max(values)


def test_interval_of_a_mostly_undefined_measure_is_undefined() -> None:
    low, high = metrics.percentile_interval(np.array([[np.nan, 1.0], [np.nan, 1.0], [1.0, np.nan]]))
    assert np.isnan(low[0]) and np.isnan(high[0])
    assert low[1] == high[1] == 1.0


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        right = generator.random(150) < 0.8
        rows = [(0, 0) if ok else (0, 1) for ok in right]
        (samples,) = metrics.bootstrap_confusions([codes(rows)], n_reports=150, resamples=400, seed=seed)
        low, high = metrics.percentile_interval(metrics.accuracy(samples))
        covered += bool(low <= 0.8 <= high)
    assert 0.89 <= covered / 200 <= 0.99
