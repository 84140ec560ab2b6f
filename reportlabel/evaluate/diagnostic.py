"""Statistics of a diagnostic test: sensitivity, specificity, ROC area, agreement of readers, and their intervals.

Everything is worked out with numpy from plain arrays; nothing here knows of tables, studies or software. ``truth`` is
an array of truth values (diseased or not), ``score`` a number that is higher where disease is likelier, ``called`` an
array of truth values (the test is positive or not). Paired functions take two tests of the same subjects in the same
order.

A figure whose denominator is zero, or whose variance cannot be estimated, is NaN and never 0 or 1. Inputs that cannot
be what they are taken for (unequal lengths, missing scores) are a ``ValueError`` that tells no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Comparison",
    "Interval",
    "McNemar",
    "RocArea",
    "TwoByTwo",
    "beta_cdf",
    "beta_quantile",
    "clopper_pearson",
    "cohen_kappa",
    "delong_test",
    "fisher_exact",
    "fleiss_kappa",
    "icc_2_1",
    "mcnemar",
    "newcombe",
    "roc_area",
    "spearman",
    "two_by_two",
    "unpaired_delong_test",
    "wilson",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Weights = Literal["none", "linear", "quadratic"]

_NORMAL = NormalDist()
_NAN = float("nan")
_MAX_STEPS = 10_000
_TINY = 1e-300


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval; bounds are NaN where none can be given."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class TwoByTwo:
    """Counts of a test against the truth."""

    tp: int
    fp: int
    fn: int
    tn: int

    def sensitivity(self, *, level: float = 0.95) -> Interval:
        """TP / (TP + FN) with the Wilson interval."""
        return wilson(self.tp, self.tp + self.fn, level=level)

    def specificity(self, *, level: float = 0.95) -> Interval:
        """TN / (TN + FP) with the Wilson interval."""
        return wilson(self.tn, self.tn + self.fp, level=level)


@dataclass(frozen=True)
class RocArea:
    """Area under the ROC curve: the share of pairs of a diseased and a healthy subject that the score puts in order.

    ``variance``: after DeLong; NaN with fewer than two subjects of a kind. ``low``, ``high``: see `roc_area`.
    """

    area: float
    variance: float
    low: float
    high: float
    n_diseased: int
    n_healthy: int


@dataclass(frozen=True)
class Comparison:
    """The difference of two figures (first - second), its interval, and whether it may be chance.

    ``statistic`` is standard normal where there is no difference; ``p_value`` is two-sided.
    """

    difference: float
    low: float
    high: float
    statistic: float
    p_value: float


@dataclass(frozen=True)
class McNemar:
    """Two tests of the same subjects: where they differ.

    Attributes:
        only_first, only_second: subjects on whom the first test alone, the second alone is right.
        n: subjects.
        p_exact: two-sided binomial test of the two numbers.
        statistic, p_corrected: chi-squared with one degree of freedom, with Edwards' correction for continuity.
    """

    only_first: int
    only_second: int
    n: int
    p_exact: float
    statistic: float
    p_corrected: float


# --- shares -----------------------------------------------------------------------------------------------------------


def two_by_two(truth: ArrayLike, called: ArrayLike) -> TwoByTwo:
    """Count a test against the truth."""
    real, test = _bools(truth, called)
    return TwoByTwo(
        tp=int((real & test).sum()),
        fp=int((~real & test).sum()),
        fn=int((real & ~test).sum()),
        tn=int((~real & ~test).sum()),
    )


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """A share and Wilson's score interval (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, 209-212)."""
    _check_count(successes, n)
    if n == 0:
        return Interval(_NAN, _NAN, _NAN)
    z = _z(level)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # at both ends the bound is the end itself; rounding must not leave it beside
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return Interval(share, low, high)


def clopper_pearson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """A share and the exact binomial interval (C. J. Clopper, E. S. Pearson, Biometrika 26, 1934, 404-413)."""
    _check_count(successes, n)
    if n == 0:
        return Interval(_NAN, _NAN, _NAN)
    tail = (1 - _checked_level(level)) / 2
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta_quantile(1 - tail, successes + 1, n - successes)
    return Interval(successes / n, low, high)


def newcombe(first: tuple[int, int], second: tuple[int, int], *, level: float = 0.95) -> Interval:
    """The difference of two shares of different subjects, each (successes, n), with its interval.

    The interval joins the Wilson intervals of both (R. G. Newcombe, Stat. Med. 17, 1998, 873-890, method 10).
    """
    a, b = wilson(*first, level=level), wilson(*second, level=level)
    difference = a.estimate - b.estimate
    return Interval(
        difference,
        difference - math.hypot(a.estimate - a.low, b.high - b.estimate),
        difference + math.hypot(a.high - a.estimate, b.estimate - b.low),
    )


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Two-sided p value of Fisher's exact test that two shares, each (successes, n), are the same.

    Tables with these margins that are no likelier than the one seen are added up; NaN where a group is empty.
    """
    (a, m), (b, n) = first, second
    _check_count(a, m)
    _check_count(b, n)
    if m == 0 or n == 0:
        return _NAN
    drawn = a + b
    counts = range(max(0, drawn - n), min(m, drawn) + 1)
    logs = np.array([_log_choose(m, k) + _log_choose(n, drawn - k) for k in counts])
    shares = np.exp(logs - logs.max())
    # equal probabilities differ in their last digits
    as_rare = shares <= shares[a - counts.start] * (1 + 1e-7)
    return float(min(1.0, shares[as_rare].sum() / shares.sum()))


def mcnemar(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> McNemar:
    """Compare two tests of the same subjects (Q. McNemar, Psychometrika 12, 1947, 153-157).

    For sensitivities give the diseased alone, for specificities the healthy alone. Without any subject on whom they
    differ there is no sign of a difference: both p values are 1.
    """
    real, a = _bools(truth, first)
    _, b = _bools(truth, second)
    only_first = int(((a == real) & (b != real)).sum())
    only_second = int(((a != real) & (b == real)).sum())
    apart = only_first + only_second
    if apart == 0:
        return McNemar(0, 0, len(real), 1.0, 0.0, 1.0)
    statistic = max(abs(only_first - only_second) - 1, 0) ** 2 / apart
    at_most = sum(
        math.exp(_log_choose(apart, k) - apart * math.log(2)) for k in range(min(only_first, only_second) + 1)
    )
    return McNemar(
        only_first, only_second, len(real), min(1.0, 2 * at_most), statistic, math.erfc(math.sqrt(statistic / 2))
    )


# --- ROC --------------------------------------------------------------------------------------------------------------


def roc_area(truth: ArrayLike, score: ArrayLike, *, level: float = 0.95) -> RocArea:
    """The ROC area with DeLong's variance.

    The interval is area ± z × standard error, cut at 0 and 1 (E. R. DeLong et al., Biometrics 44, 1988, 837-845). Where
    the score separates the groups wholly the variance is estimated as 0, which would make an interval without width:
    there the bounds are NaN.
    """
    real, numbers = _scores(truth, score)
    (area,), variance, n_diseased, n_healthy = _delong(real, numbers)
    spread = float(variance[0, 0])
    half = _z(level) * math.sqrt(spread) if spread > 0 else _NAN
    return RocArea(
        area=float(area),
        variance=spread,
        low=max(0.0, area - half) if half == half else _NAN,
        high=min(1.0, area + half) if half == half else _NAN,
        n_diseased=n_diseased,
        n_healthy=n_healthy,
    )


def delong_test(truth: ArrayLike, first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Comparison:
    """Compare the ROC areas of two scores of the same subjects (DeLong et al. 1988)."""
    real, a = _scores(truth, first)
    _, b = _scores(truth, second)
    areas, variance, _, _ = _delong(real, a, b)
    return _z_test(float(areas[0] - areas[1]), float(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1]), level=level)


def unpaired_delong_test(first: RocArea, second: RocArea, *, level: float = 0.95) -> Comparison:
    """Compare ROC areas of different subjects: the variances of both add up, the statistic is taken as normal."""
    return _z_test(first.area - second.area, first.variance + second.variance, level=level)


def _delong(truth: Bools, *scores: Floats) -> tuple[Floats, Floats, int, int]:
    """Areas of several scores of the same subjects, and the covariance matrix of the areas."""
    m, n = int(truth.sum()), int((~truth).sum())
    k = len(scores)
    if m == 0 or n == 0:
        return np.full(k, np.nan), np.full((k, k), np.nan), m, n
    of_diseased = np.stack([_placements(score[truth], score[~truth]) for score in scores])
    of_healthy = np.stack([1 - _placements(score[~truth], score[truth]) for score in scores])
    areas = of_diseased.mean(axis=1)
    if m < 2 or n < 2:
        return areas, np.full((k, k), np.nan), m, n
    covariance = np.atleast_2d(np.cov(of_diseased)) / m + np.atleast_2d(np.cov(of_healthy)) / n
    return areas, covariance, m, n


def _placements(values: Floats, others: Floats) -> Floats:
    """For each value the share of the others below it; equal ones count half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    not_above = np.searchsorted(ordered, values, side="right")
    return np.asarray((below + not_above) / (2 * len(others)), dtype=np.float64)


def _z_test(difference: float, variance: float, *, level: float) -> Comparison:
    z = _z(level)
    # a difference of two equal curves has the variance 0 but for rounding
    if not variance > 1e-18:
        same = difference == 0 and variance == variance
        return Comparison(difference, _NAN, _NAN, 0.0 if same else _NAN, 1.0 if same else _NAN)
    error = math.sqrt(variance)
    statistic = difference / error
    return Comparison(
        difference, difference - z * error, difference + z * error, statistic, math.erfc(abs(statistic) / math.sqrt(2))
    )


# --- agreement --------------------------------------------------------------------------------------------------------


def icc_2_1(ratings: ArrayLike, *, level: float = 0.95) -> Interval:
    """Intraclass correlation ICC(2,1): readers drawn from many, absolute agreement, one reading.

    Args:
        ratings: one row a subject, one column a reader, no gaps; at least two of each.

    Formula and interval: P. E. Shrout, J. L. Fleiss, Psychol. Bull. 86, 1979, 420-428; K. O. McGraw, S. P. Wong,
    Psychol. Methods 1, 1996, 30-46. NaN where nothing varies; bounds are NaN where the readers agree without
    any exception.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError("ICC needs at least two subjects and two readers")
    if not np.isfinite(table).all():
        raise ValueError("ICC needs a number of every reader for every subject; leave out subjects with gaps")
    n, k = table.shape
    rows, columns, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    between = k * float(((rows - mean) ** 2).sum()) / (n - 1)
    readers = n * float(((columns - mean) ** 2).sum()) / (k - 1)
    rest = table - rows[:, np.newaxis] - columns[np.newaxis, :] + mean
    error = float((rest**2).sum()) / ((n - 1) * (k - 1))
    if error < 1e-24 * max(1.0, mean * mean):
        error = 0.0
    total = between + (k - 1) * error + k * (readers - error) / n
    if total <= 0:
        return Interval(_NAN, _NAN, _NAN)
    icc = (between - error) / total
    if error == 0:
        return Interval(icc, _NAN, _NAN)
    ratio = readers / error
    share = n * (1 + (k - 1) * icc) - k * icc
    freedom = (k - 1) * (n - 1) * (k * icc * ratio + share) ** 2 / ((n - 1) * (k * icc * ratio) ** 2 + share**2)
    tail = 1 - (1 - _checked_level(level)) / 2
    up, down = _f_quantile(tail, n - 1, freedom), _f_quantile(tail, freedom, n - 1)
    others = k * readers + (k * n - k - n) * error
    return Interval(
        icc,
        n * (between - up * error) / (up * others + n * between),
        n * (down * between - error) / (others + n * down * between),
    )


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    categories: Sequence[Hashable] | None = None,
    weights: Weights = "none",
    level: float = 0.95,
) -> Interval:
    """Agreement of two readers beyond chance, with the interval kappa ± z × standard error.

    Args:
        first, second: what each said of the same subjects, in the same order.
        categories: in their order, which weights need; default: those that occur, sorted.
        weights: none: other is other; linear, quadratic: by how many steps apart.

    J. Cohen, Educ. Psychol. Meas. 20, 1960, 37-46, and Psychol. Bull. 70, 1968, 213-220; standard error of
    J. L. Fleiss, J. Cohen, B. S. Everitt, Psychol. Bull. 72, 1969, 323-327. NaN where both use one category throughout.
    """
    if len(first) != len(second):
        raise ValueError("both readers must have read the same subjects")
    known = list(categories) if categories is not None else _sorted({*first, *second})
    place = {category: at for at, category in enumerate(known)}
    if not {*first, *second} <= set(place):
        raise ValueError("a reader used a category that is not among those given")
    k, n = len(known), len(first)
    if n == 0:
        return Interval(_NAN, _NAN, _NAN)
    counts = np.zeros((k, k))
    for a, b in zip(first, second, strict=True):
        counts[place[a], place[b]] += 1
    share = counts / n
    agree = _agreement_weights(k, weights)
    by_first, by_second = share.sum(axis=1), share.sum(axis=0)
    seen = float((agree * share).sum())
    chance = float((agree * np.outer(by_first, by_second)).sum())
    if 1 - chance < 1e-12:
        return Interval(_NAN, _NAN, _NAN)
    kappa = (seen - chance) / (1 - chance)
    around = (agree @ by_second)[:, np.newaxis] + (by_first @ agree)[np.newaxis, :]
    squares = float((share * (agree - around * (1 - kappa)) ** 2).sum()) - (kappa - chance * (1 - kappa)) ** 2
    half = _z(level) * math.sqrt(max(squares, 0.0) / n) / (1 - chance)
    return Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))


def fleiss_kappa(counts: ArrayLike, *, level: float = 0.95) -> Interval:
    """Agreement of several readers beyond chance (J. L. Fleiss, Psychol. Bull. 76, 1971, 378-382).

    Args:
        counts: one row a subject, one column a category: how many readers chose it; the same number of readers, at
            least two, for every subject.

    The interval is kappa ± z × the jackknife standard error over subjects (B. Efron, 1982). NaN where all readers use
    one category throughout.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] == 0:
        raise ValueError("Fleiss' kappa needs one row a subject and one column a category")
    readers = table.sum(axis=1)
    if readers[0] < 2 or (readers != readers[0]).any():
        raise ValueError("Fleiss' kappa needs the same number of readers, two or more, for every subject")
    n, per = len(table), float(readers[0])
    agreeing = (table * (table - 1)).sum(axis=1) / (per * (per - 1))
    kappa = _fleiss(agreeing.sum(), table.sum(axis=0), n, per)
    if n < 3:
        return Interval(kappa, _NAN, _NAN)
    left_out = np.array(
        [_fleiss(agreeing.sum() - agreeing[i], table.sum(axis=0) - table[i], n - 1, per) for i in range(n)]
    )
    error = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    half = _z(level) * error
    return (
        Interval(kappa, max(-1.0, kappa - half), min(1.0, kappa + half))
        if half == half
        else Interval(kappa, _NAN, _NAN)
    )


def _fleiss(agreeing: float, totals: Floats, n: int, readers: float) -> float:
    chance = float(((totals / (n * readers)) ** 2).sum())
    return (float(agreeing) / n - chance) / (1 - chance) if 1 - chance > 1e-12 else _NAN


def _agreement_weights(k: int, weights: Weights) -> Floats:
    if weights == "none":
        return np.eye(k)
    steps = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / max(k - 1, 1)
    return np.asarray(1 - (steps if weights == "linear" else steps**2), dtype=np.float64)


def spearman(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Interval:
    """Rank correlation of two numbers of the same subjects; equal numbers have their middle rank.

    Interval by Fisher's z with the variance (1 + rho^2 / 2) / (n - 3) (D. G. Bonett, T. A. Wright, Psychometrika 65,
    2000, 23-28). NaN where one of the two does not vary; without bounds below four subjects or at a correlation of ±1.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError("both numbers must be of the same subjects")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("a number is missing; leave out the subjects without one")
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return Interval(_NAN, _NAN, _NAN)
    # the share below a value, equal ones half, is its rank but for scale
    rho = float(np.corrcoef(_placements(a, a), _placements(b, b))[0, 1])
    if len(a) < 4 or abs(rho) > 1 - 1e-12:
        return Interval(rho, _NAN, _NAN)
    half = _z(level) * math.sqrt((1 + rho * rho / 2) / (len(a) - 3))
    return Interval(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half))


# --- distributions ----------------------------------------------------------------------------------------------------


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b).

    Continued fraction 26.5.8 of M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, evaluated after Lentz.
    """
    if not (a > 0 and b > 0):
        raise ValueError("the parameters of a beta distribution are above 0")
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    # the fraction converges fast below the mean only
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    value, c, d = 1.0, 1.0, 0.0
    for step in range(_MAX_STEPS):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _not_zero(1 + term * d)
        c = _not_zero(1 + term / c)
        value *= c * d
        if step and abs(1 - c * d) < 1e-15:
            break
    return front * (value - 1)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, by halving the interval."""
    return _solve(lambda x: beta_cdf(x, a, b), p)


def _f_quantile(p: float, first: float, second: float) -> float:
    """Quantile of the F distribution with these degrees of freedom."""
    x = beta_quantile(p, first / 2, second / 2)
    return second * x / (first * (1 - x)) if x < 1 else math.inf


def _solve(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


# --- input ------------------------------------------------------------------------------------------------------------


def _bools(truth: ArrayLike, called: ArrayLike) -> tuple[Bools, Bools]:
    real, test = np.asarray(truth), np.asarray(called)
    if real.shape != test.shape or real.ndim != 1:
        raise ValueError("truth and test must be of the same subjects")
    for array in (real, test):
        if array.size and array.dtype != np.bool_:
            raise ValueError("truth and test must be arrays of true and false, without gaps")
    return real.astype(np.bool_), test.astype(np.bool_)


def _scores(truth: ArrayLike, score: ArrayLike) -> tuple[Bools, Floats]:
    real, numbers = np.asarray(truth), np.asarray(score, dtype=np.float64)
    if real.shape != numbers.shape or real.ndim != 1:
        raise ValueError("truth and score must be of the same subjects")
    if real.size and real.dtype != np.bool_:
        raise ValueError("truth must be an array of true and false, without gaps")
    if np.isnan(numbers).any():
        raise ValueError("a score is missing; leave out the subjects without one")
    return real.astype(np.bool_), numbers


def _check_count(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise ValueError("a share needs 0 <= successes <= n")


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError("the level of an interval lies between 0 and 1")
    return level


def _z(level: float) -> float:
    return _NORMAL.inv_cdf(1 - (1 - _checked_level(level)) / 2)


def _sorted(values: set[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        raise ValueError("name the categories in their order: these cannot be sorted") from None
