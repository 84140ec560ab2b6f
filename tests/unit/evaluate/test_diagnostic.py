"""Statistics of the studies against reference programs, published examples and brute force."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.evaluate.diagnostic import (
    Interval,
    beta_cdf,
    beta_quantile,
    clopper_pearson,
    cohen_kappa,
    delong_test,
    fisher_exact,
    fleiss_kappa,
    icc_2_1,
    mcnemar,
    newcombe,
    roc_area,
    spearman,
    two_by_two,
    unpaired_delong_test,
    wilson,
)

# Albumin, total protein, 10 - the Kassirer-Gudmundsson score, and survival of the patients with ovarian cancer of
# DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, whose comparison of ROC curves is published with four digits.
# fmt: off
OVARIAN_CANCER = np.array([
    (3.0, 5.8, 0, 0), (3.2, 6.3, 5, 1), (3.9, 6.8, 7, 1), (2.8, 4.8, 4, 0), (3.2, 5.8, 7, 1), (0.9, 4.0, 5, 0),
    (2.5, 5.7, 2, 0), (1.6, 5.6, 5, 1), (3.8, 5.7, 5, 1), (3.7, 6.7, 4, 1), (3.2, 5.4, 6, 1), (3.8, 6.6, 4, 1),
    (4.1, 6.6, 5, 1), (3.6, 5.7, 5, 1), (4.3, 7.0, 6, 1), (3.6, 6.7, 6, 0), (2.3, 4.4, 4, 1), (4.2, 7.6, 6, 0),
    (4.0, 6.6, 4, 0), (3.5, 5.8, 4, 1), (3.8, 6.8, 3, 1), (3.0, 4.7, 2, 0), (4.5, 7.4, 5, 1), (3.7, 7.4, 5, 1),
    (3.1, 6.6, 4, 1), (4.1, 8.2, 4, 1), (4.3, 7.0, 5, 1), (4.3, 6.5, 6, 1), (3.2, 5.1, 5, 1), (2.6, 4.7, 4, 1),
    (3.3, 6.8, 4, 0), (1.7, 4.0, 3, 0), (3.7, 6.1, 5, 1), (3.3, 6.3, 3, 1), (4.2, 7.7, 4, 1), (3.5, 6.2, 5, 1),
    (2.9, 5.7, 1, 0), (2.1, 4.8, 3, 1), (2.8, 6.2, 2, 0), (4.0, 7.0, 3, 1), (3.3, 5.7, 4, 1), (3.7, 6.9, 5, 1),
    (3.6, 6.6, 5, 1),
])
# fmt: on

# Table 2 of Shrout and Fleiss, Psychol. Bull. 86, 1979: six subjects, four judges.
JUDGES = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]

# Ten subjects, fourteen raters, five categories: the example that encyclopedias print, with kappa 0.210.
FOURTEEN_RATERS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def cases(seed: int, n: int = 60) -> tuple[Any, Any, Any]:
    """Truth and two related scores with ties."""
    chance = np.random.default_rng(seed)
    truth = chance.random(n) < 0.4
    shared = chance.normal(size=n) + truth
    return truth, np.round(shared + chance.normal(size=n), 1), np.round(shared + 0.5 * chance.normal(size=n), 1)


def close(first: float, second: float, *, to: float = 1e-6) -> bool:
    return math.isclose(first, second, rel_tol=to, abs_tol=to)


def brute_delong(truth: Any, *scores: Any) -> tuple[Any, Any]:
    """Every pair, one by one."""
    kernel = np.array(
        [[[(x > y) + 0.5 * (x == y) for y in score[~truth]] for x in score[truth]] for score in scores], dtype=float
    )
    m, n = kernel.shape[1:]
    return kernel.mean(axis=(1, 2)), np.atleast_2d(np.cov(kernel.mean(axis=2))) / m + np.atleast_2d(
        np.cov(kernel.mean(axis=1))
    ) / n


# --- B6: sensitivity, specificity, ROC area ---------------------------------------------------------------------------


def test_B6_delong_gives_the_published_example() -> None:
    truth = OVARIAN_CANCER[:, 3] == 1
    albumin, protein, score = (OVARIAN_CANCER[:, at] for at in range(3))
    areas = [roc_area(truth, one) for one in (albumin, protein, score)]
    assert [(one.n_diseased, one.n_healthy) for one in areas] == [(31, 12)] * 3
    assert [f"{one.area:.4f}" for one in areas] == ["0.7366", "0.6478", "0.7258"]
    assert [f"{math.sqrt(one.variance):.4f}" for one in areas] == ["0.0927", "0.1000", "0.1028"]
    assert [f"{one.low:.4f} {one.high:.4f}" for one in areas] == ["0.5549 0.9182", "0.4518 0.8439", "0.5243 0.9273"]
    against_score = delong_test(truth, protein, score)
    assert (f"{against_score.difference:.4f}", f"{against_score.statistic**2:.4f}") == ("-0.0780", "0.5554")
    against_score = delong_test(truth, albumin, score)
    assert (f"{against_score.difference:.4f}", f"{against_score.statistic**2:.4f}") == ("0.0108", "0.0127")


@pytest.mark.parametrize("seed", range(5))
def test_B6_area_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    truth, first, second = cases(seed)
    for score in (first, second, -first):
        assert close(roc_area(truth, score).area, roc_auc_score(truth, score), to=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_B6_delong_is_brute_force(seed: int) -> None:
    from scipy.stats import norm

    truth, first, second = cases(seed)
    areas, covariance = brute_delong(truth, first, second)
    one, other = roc_area(truth, first), roc_area(truth, second)
    assert close(one.area, areas[0]) and close(one.variance, covariance[0, 0])
    half = norm.ppf(0.975) * math.sqrt(covariance[0, 0])
    assert close(one.low, max(0, areas[0] - half)) and close(one.high, min(1, areas[0] + half))
    paired = delong_test(truth, first, second)
    z = (areas[0] - areas[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert close(paired.statistic, z) and close(paired.p_value, 2 * norm.sf(abs(z)))
    unpaired = unpaired_delong_test(one, other)
    z = (areas[0] - areas[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1])
    assert close(unpaired.statistic, z) and close(unpaired.p_value, 2 * norm.sf(abs(z)))
    assert abs(unpaired.statistic) < abs(paired.statistic)


def test_B6_delong_variance_is_near_the_jackknife() -> None:
    truth, score, _ = cases(11, n=400)
    variance = 0.0
    for group in (truth, ~truth):
        at = np.flatnonzero(group)
        left_out = np.array([roc_area(np.delete(truth, i), np.delete(score, i)).area for i in at])
        variance += (len(at) - 1) / len(at) * float(((left_out - left_out.mean()) ** 2).sum())
    assert roc_area(truth, score).variance == pytest.approx(variance, rel=1e-9)


def test_B6_no_interval_without_width() -> None:
    wholly = roc_area([True, True, False, False], [4, 3, 2, 1])
    assert wholly.area == 1 and math.isnan(wholly.low) and math.isnan(wholly.high)
    one_kind = roc_area([True, True], [1, 2])
    assert math.isnan(one_kind.area) and math.isnan(one_kind.variance)
    assert math.isnan(roc_area([True, False], [1, 2]).variance)
    same = delong_test([True, True, False, False], [1, 3, 2, 1], [2, 6, 4, 2])
    assert (same.difference, same.p_value) == (0, 1)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (41, 50), (1, 1000), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_B6_share_intervals_are_those_of_statsmodels(successes: int, n: int, level: float) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    for method, ours in (("wilson", wilson), ("beta", clopper_pearson)):
        low, high = proportion.proportion_confint(successes, n, alpha=1 - level, method=method)
        assert ours(successes, n, level=level).estimate == successes / n
        assert close(ours(successes, n, level=level).low, low), method
        assert close(ours(successes, n, level=level).high, high), method


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (41, 50)])
def test_B6_share_intervals_are_those_of_scipy(successes: int, n: int) -> None:
    from scipy.stats import binomtest

    for method, ours in (("wilson", wilson), ("exact", clopper_pearson)):
        reference = binomtest(successes, n).proportion_ci(method=method)  # type: ignore[arg-type]
        found = ours(successes, n)
        assert close(found.low, reference.low) and close(found.high, reference.high), method


def test_B6_sensitivity_and_specificity() -> None:
    from sklearn.metrics import recall_score

    truth, first, _ = cases(3)
    called = first > 0.5
    counts = two_by_two(truth, called)
    assert counts.tp + counts.fp + counts.fn + counts.tn == len(truth)
    assert close(counts.sensitivity().estimate, recall_score(truth, called))
    assert close(counts.specificity().estimate, recall_score(~truth, ~called))
    assert math.isnan(two_by_two([False], [True]).sensitivity().estimate)


# --- B6: paired and unpaired tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_B6_mcnemar_is_that_of_statsmodels(seed: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is not installed")
    truth, first, second = cases(seed, n=80)
    a, b = first > 0.7, second > 0.2
    ours = mcnemar(truth, a, b)
    right_a, right_b = a == truth, b == truth
    table = [[(right_a & right_b).sum(), (right_a & ~right_b).sum()], [(~right_a & right_b).sum(), 0]]
    assert (ours.only_first, ours.only_second) == (table[0][1], table[1][0])
    assert close(ours.p_exact, tables.mcnemar(table, exact=True).pvalue)
    corrected = tables.mcnemar(table, exact=False, correction=True)
    if ours.only_first != ours.only_second:
        assert close(ours.statistic, corrected.statistic) and close(ours.p_corrected, corrected.pvalue)


def test_B6_mcnemar_exact_is_the_binomial_test_of_scipy() -> None:
    from scipy.stats import binomtest

    truth = np.ones(30, dtype=bool)
    first = np.arange(30) < 20
    second = (np.arange(30) < 9) | (np.arange(30) > 25)
    ours = mcnemar(truth, first, second)
    assert (ours.only_first, ours.only_second, ours.n) == (11, 4, 30)
    assert close(ours.p_exact, binomtest(4, 15).pvalue, to=1e-12)


def test_B6_mcnemar_without_a_difference() -> None:
    same = mcnemar([True, False], [True, True], [True, True])
    assert (same.p_exact, same.p_corrected, same.statistic) == (1, 1, 0)
    even = mcnemar([True, True], [True, False], [False, True])
    assert (even.statistic, even.p_corrected) == (0, 1)


@pytest.mark.parametrize(
    ("first", "second"), [((41, 50), (30, 50)), ((0, 9), (9, 9)), ((3, 7), (3, 7)), ((5, 40), (1, 8))]
)
def test_B6_unpaired_shares(first: tuple[int, int], second: tuple[int, int]) -> None:
    from scipy.stats import fisher_exact as reference

    (a, m), (b, n) = first, second
    assert close(fisher_exact(first, second), reference([[a, m - a], [b, n - b]]).pvalue)
    assert fisher_exact(first, second) == pytest.approx(fisher_exact(second, first))
    proportion = pytest.importorskip("statsmodels.stats.proportion", reason="statsmodels is not installed")
    low, high = proportion.confint_proportions_2indep(a, m, b, n, method="newcomb", compare="diff")
    difference = newcombe(first, second)
    assert close(difference.low, low) and close(difference.high, high)
    assert close(difference.estimate, a / m - b / n)


# --- B5: agreement of readers -----------------------------------------------------------------------------------------


def test_B5_icc_gives_the_published_example() -> None:
    icc = icc_2_1(JUDGES)
    assert f"{icc.estimate:.2f} {icc.low:.3f} {icc.high:.3f}" == "0.29 0.019 0.761"


@pytest.mark.parametrize("seed", range(4))
def test_B5_icc_is_that_of_an_analysis_of_variance(seed: int) -> None:
    pytest.importorskip("statsmodels", reason="statsmodels is not installed")
    import pandas as pd
    from scipy.stats import f
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    chance = np.random.default_rng(seed)
    n, k = 20, 3
    ratings = chance.poisson(4, size=(n, 1)) + chance.poisson(1, size=(n, k)) + np.array([0, 0, seed])
    long = pd.DataFrame(
        {"y": ratings.ravel(), "subject": np.repeat(np.arange(n), k), "reader": np.tile(np.arange(k), n)}
    )
    squares = anova_lm(ols("y ~ C(subject) + C(reader)", long).fit())["mean_sq"]
    r, c, e = squares["C(subject)"], squares["C(reader)"], squares["Residual"]
    icc = (r - e) / (r + (k - 1) * e + k * (c - e) / n)
    a, b = k * icc / (n * (1 - icc)), 1 + k * icc * (n - 1) / (n * (1 - icc))
    # McGraw and Wong give the interval in another form than the one that the program uses
    v = (a * c + b * e) ** 2 / ((a * c) ** 2 / (k - 1) + (b * e) ** 2 / ((n - 1) * (k - 1)))
    up, down = f.ppf(0.975, n - 1, v), f.ppf(0.975, v, n - 1)
    low = n * (r - up * e) / (up * (k * c + (k * n - k - n) * e) + n * r)
    high = n * (down * r - e) / (k * c + (k * n - k - n) * e + n * down * r)
    ours = icc_2_1(ratings)
    assert close(ours.estimate, icc) and close(ours.low, low) and close(ours.high, high)


def test_B5_icc_without_an_exception_or_without_anything() -> None:
    whole = icc_2_1([[1, 1], [2, 2], [5, 5]])
    assert whole.estimate == 1 and math.isnan(whole.low)
    assert math.isnan(icc_2_1([[1, 1], [1, 1]]).estimate)
    for wrong in ([[1, 2]], [[1], [2]], [[1, float("nan")], [2, 3]]):
        with pytest.raises(ValueError, match="ICC needs"):
            icc_2_1(wrong)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(3))
def test_B5_cohen_kappa_is_that_of_scikit_learn_and_statsmodels(seed: int, weights: Any) -> None:
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    chance = np.random.default_rng(seed)
    first = chance.integers(0, 4, size=60)
    second = np.where(chance.random(60) < 0.6, first, chance.integers(0, 4, size=60))
    ours = cohen_kappa(first.tolist(), second.tolist(), weights=weights)
    assert close(ours.estimate, cohen_kappa_score(first, second, weights=None if weights == "none" else weights))
    rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    reference = rater.cohens_kappa(confusion_matrix(first, second), wt=None if weights == "none" else weights)
    assert close(ours.estimate, reference.kappa)
    assert close(ours.low, reference.kappa_low) and close(ours.high, reference.kappa_upp)


def test_B5_cohen_kappa_of_words() -> None:
    assert cohen_kappa(["有", "無", "有"], ["有", "無", "有"]).estimate == 1
    assert math.isnan(cohen_kappa(["有"], ["有"]).estimate)
    assert math.isnan(cohen_kappa([], []).estimate)
    ordered = cohen_kappa(["低", "中", "高"], ["中", "中", "高"], categories=["低", "中", "高"], weights="linear")
    assert close(ordered.estimate, 4 / 7)
    with pytest.raises(ValueError, match="not among"):
        cohen_kappa(["a"], ["b"], categories=["a"])
    with pytest.raises(ValueError, match="same subjects"):
        cohen_kappa(["a"], [])


def test_B5_fleiss_kappa_is_that_of_statsmodels() -> None:
    ours = fleiss_kappa(FOURTEEN_RATERS)
    assert f"{ours.estimate:.3f}" == "0.210"
    assert ours.low < ours.estimate < ours.high
    rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    assert close(ours.estimate, rater.fleiss_kappa(np.array(FOURTEEN_RATERS)))
    chance = np.random.default_rng(1)
    for _ in range(5):
        counts = chance.multinomial(3, [0.5, 0.3, 0.2], size=40)
        assert close(fleiss_kappa(counts).estimate, rater.fleiss_kappa(counts))


def test_B5_fleiss_kappa_of_one_category_or_unequal_readers() -> None:
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]).estimate)
    with pytest.raises(ValueError, match="same number of readers"):
        fleiss_kappa([[3, 0], [2, 0]])


@pytest.mark.parametrize("seed", range(3))
def test_B5_rank_correlation_is_that_of_scipy(seed: int) -> None:
    from scipy.stats import spearmanr

    _, first, second = cases(seed)
    ours = spearman(first, second)
    assert close(ours.estimate, spearmanr(first, second).statistic, to=1e-9)
    half = 1.959963984540054 * math.sqrt((1 + ours.estimate**2 / 2) / (len(first) - 3))
    assert close(math.atanh(ours.high) - math.atanh(ours.low), 2 * half)
    assert math.isnan(spearman([1, 1], [1, 2]).estimate) and math.isnan(spearman([1, 2], [1, 2]).low)
    with pytest.raises(ValueError, match="same subjects"):
        spearman([1], [1, 2])


# --- distributions and input ------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.floats(0, 1), st.floats(0.1, 500), st.floats(0.1, 500))
def test_beta_distribution_is_that_of_scipy(x: float, a: float, b: float) -> None:
    from scipy.special import betainc

    assert beta_cdf(x, a, b) == pytest.approx(betainc(a, b, x), abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.5, 200), st.floats(0.5, 200))
def test_beta_quantile_undoes_the_distribution(p: float, a: float, b: float) -> None:
    assert beta_cdf(beta_quantile(p, a, b), a, b) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize(
    "call",
    [
        lambda: roc_area([True, False], [1.0, float("nan")]),
        lambda: roc_area([True, False], [1.0]),
        lambda: roc_area([1, 0], [1.0, 2.0]),
        lambda: two_by_two([True], [None]),
        lambda: two_by_two([True], [True, False]),
        lambda: wilson(3, 2),
        lambda: wilson(1, 2, level=1.0),
        lambda: beta_cdf(0.5, 0, 1),
    ],
)
def test_input_that_cannot_be_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        call()


def test_nothing_is_nan_and_not_zero() -> None:
    for empty in (wilson(0, 0), clopper_pearson(0, 0), newcombe((0, 0), (1, 2))):
        assert isinstance(empty, Interval) and math.isnan(empty.estimate)
    assert math.isnan(fisher_exact((0, 0), (1, 2)))
