"""How well readers agree: Cohen's kappa, Fleiss' kappa, Krippendorff's alpha, Gwet's AC1, with bootstrap intervals.

All figures are ratios of sums over exams, so every exam is first turned into a row of numbers (`Rows`); a resample is a
row of weights, and all resamples of a figure are one product of matrices.

With o the observed and e the expected agreement every figure is (o - e) / (1 - e), or 1 - D_o / D_e in terms of
disagreement; they differ in e. It is null where chance alone would agree always (everybody always says the same): then
nothing can be said. Gwet's AC1 stays defined there, and stays sensible for findings that few exams have, where kappa
falls to 0 although readers hardly ever disagree (Feinstein and Cicchetti, J Clin Epidemiol 1990).

Sources: Cohen, Educ Psychol Meas 1960, and Psychol Bull 1968 (weights); Fleiss, Psychol Bull 1971; Krippendorff,
Content Analysis, 4th ed. 2019, chapter 12; Gwet, Br J Math Stat Psychol 2008; Efron and Tibshirani 1993 (intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from reportlabel.review.readers import last_readings
from reportlabel.review.settings import AgreementSettings

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Weights = Literal["linear", "quadratic"]
Level = Literal["nominal", "ordinal"]

MISSING = -1

AGREEMENT = pl.Schema(
    [
        ("label_set", pl.String),
        ("finding", pl.String),
        ("reader", pl.String),
        ("other", pl.String),
        ("measure", pl.String),
        ("exams", pl.Int64),
        ("value", pl.Float64),
        ("low", pl.Float64),
        ("high", pl.Float64),
    ]
)
"""One row a figure.

``finding``: null for all labels of the set together. ``reader``, ``other``: the pair; of one reader against all others
``other`` is null; of all readers both are. ``exams``: how many entered it. ``low``, ``high``: bootstrap interval.
"""

_IN_A_BLOCK = 4_000_000  # weights of resamples held at a time


@dataclass(frozen=True)
class Rows:
    """A figure as numbers to add up over exams, and the formula that turns sums into the figure.

    Attributes:
        numbers: (exams, columns).
        formula: (resamples, columns) sums -> (resamples,) figures, nan where the figure is undefined.
    """

    numbers: Floats
    formula: Callable[[Floats], Floats]

    def value(self) -> float:
        """The figure itself; nan where it is undefined."""
        return float(self.formula(self.numbers.sum(axis=0, keepdims=True))[0])

    def interval(self, *, resamples: int, confidence: float, seed: int = 0) -> tuple[float, float]:
        """Percentile bootstrap over exams; nan where fewer than half of the resamples have a figure."""
        count = len(self.numbers)
        if count < 2:
            return float("nan"), float("nan")
        # many exams give the same numbers: drawing how often each kind comes is the same as drawing exams
        kinds, how_many = np.unique(self.numbers, axis=0, return_counts=True)
        generator = np.random.default_rng(seed)
        block = max(1, _IN_A_BLOCK // len(kinds))
        figures = [
            self.formula(
                generator.multinomial(count, how_many / count, size=min(block, resamples - start)).astype(np.float64)
                @ kinds
            )
            for start in range(0, resamples, block)
        ]
        drawn = np.concatenate(figures)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) * 2 < resamples:
            return float("nan"), float("nan")
        rest = (1 - confidence) / 2
        low, high = np.quantile(drawn, [rest, 1 - rest])
        return float(low), float(high)


def _ratio(over: Floats, under: Floats) -> Floats:
    """over / under, nan where nothing is expected to differ."""
    possible = under > 1e-12
    return np.where(possible, over / np.where(possible, under, 1.0), np.nan)


# --- the figures. ``codes`` is (exams, readers): number of a value, from 0 to ``values`` - 1, or MISSING


def cohen(codes: Codes, *, values: int, weights: Weights | None = None) -> Rows:
    """Cohen's kappa of two readers, over the exams that both read.

    Args:
        codes: (exams, 2).
        weights: how a disagreement grows with the distance of two values; None: each disagreement is as bad.
    """
    both = codes[(codes != MISSING).all(axis=1)]
    tables = np.zeros((len(both), values, values))
    tables[np.arange(len(both)), both[:, 0], both[:, 1]] = 1.0
    distance = np.abs(np.subtract.outer(np.arange(values), np.arange(values))).astype(np.float64)
    cost = np.where(distance > 0, 1.0, 0.0) if weights is None else distance ** (2 if weights == "quadratic" else 1)

    def formula(sums: Floats) -> Floats:
        table = sums.reshape(-1, values, values)
        total = table.sum(axis=(1, 2))
        expected = np.einsum("bi,bj,ij->b", table.sum(axis=2), table.sum(axis=1), cost)
        observed = (table * cost).sum(axis=(1, 2)) * total
        return 1 - _ratio(observed, expected)

    return Rows(tables.reshape(len(both), values**2), formula)


def fleiss(codes: Codes, *, values: int) -> Rows:
    """Fleiss' kappa, over the exams with as many readings as most have, at least two; who read them does not matter."""
    counts = _counts(codes, values)
    size = _usual(counts)
    counts = counts[counts.sum(axis=1) == size] if size > 1 else counts[:0]
    agree = (counts * (counts - 1)).sum(axis=1) / max(size * (size - 1), 1)
    numbers = np.column_stack([np.ones(len(counts)), agree, counts / max(size, 1)])

    def formula(sums: Floats) -> Floats:
        exams = np.maximum(sums[:, 0], 1.0)
        observed = sums[:, 1] / exams
        expected = ((sums[:, 2:] / exams[:, None]) ** 2).sum(axis=1)
        return _ratio(observed - expected, 1 - expected)

    return Rows(numbers, formula)


def krippendorff(codes: Codes, *, values: int, level: Level = "nominal") -> Rows:
    """Krippendorff's alpha; any number of readers, each may have read any of the exams.

    An exam with m readings adds 1 / (m - 1) for every ordered pair of them to the coincidences; with one reading it
    adds nothing. Ordinal: the distance of two values is how many readings lie between them, half of both ends
    included, squared.
    """
    counts = _counts(codes, values)
    many = counts.sum(axis=1)
    counts, many = counts[many > 1], many[many > 1]
    pairs = counts[:, :, None] * counts[:, None, :] - np.eye(values) * counts[:, :, None]
    numbers = (pairs / np.maximum(many - 1, 1.0)[:, None, None]).reshape(len(counts), values**2)

    def formula(sums: Floats) -> Floats:
        coincidence = sums.reshape(-1, values, values)
        size = coincidence.sum(axis=2)
        total = size.sum(axis=1)
        if level == "nominal":
            cost = np.broadcast_to(1 - np.eye(values), coincidence.shape)
        else:
            upto = np.cumsum(size, axis=1) - size / 2
            cost = (upto[:, :, None] - upto[:, None, :]) ** 2
        observed = (coincidence * cost).sum(axis=(1, 2)) * (total - 1)
        expected = np.einsum("bi,bj,bij->b", size, size, cost)
        return 1 - _ratio(observed, expected)

    return Rows(numbers, formula)


def gwet_ac1(codes: Codes, *, values: int) -> Rows:
    """Gwet's AC1; readers may have read different exams.

    Observed: mean over the exams with two readings or more. Expected: sum of s (1 - s) / (values - 1) over the values,
    s the share of a value, averaged over all exams that anybody read. ``values`` are those of the scale, also those
    that nobody gave.
    """
    counts = _counts(codes, values)
    many = counts.sum(axis=1)
    counts, many = counts[many > 0], many[many > 0]
    agree = np.where(many > 1, (counts * (counts - 1)).sum(axis=1) / np.maximum(many * (many - 1), 1), 0.0)
    numbers = np.column_stack([np.ones(len(counts)), many > 1, agree, counts / many[:, None]]).astype(np.float64)

    def formula(sums: Floats) -> Floats:
        observed = _ratio(sums[:, 2], sums[:, 1])
        share = sums[:, 3:] / np.maximum(sums[:, :1], 1.0)
        expected = (share * (1 - share)).sum(axis=1) / (values - 1)
        return _ratio(observed - expected, 1 - expected)

    return Rows(numbers, formula)


def observed_agreement(codes: Codes, *, values: int) -> Rows:
    """Share of pairs of readings of one exam that are the same, as a mean over exams with two readings or more."""
    counts = _counts(codes, values)
    many = counts.sum(axis=1)
    counts, many = counts[many > 1], many[many > 1]
    agree = (counts * (counts - 1)).sum(axis=1) / np.maximum(many * (many - 1), 1)
    return Rows(np.column_stack([np.ones(len(counts)), agree]), lambda sums: _ratio(sums[:, 1], sums[:, 0]))


def _counts(codes: Codes, values: int) -> Floats:
    """(exams, values) how many readers gave each value."""
    return np.stack([(codes == value).sum(axis=1) for value in range(values)], axis=1).astype(np.float64)


def _usual(counts: Floats) -> int:
    """How many readings most exams with two or more have; of two numbers as common the larger."""
    many = counts.sum(axis=1).astype(np.int64)
    often = np.bincount(many[many > 1])
    return int(len(often) - 1 - np.argmax(often[::-1])) if len(often) else 0


# --- the table


def agreement(
    readings: pl.DataFrame, *, settings: AgreementSettings, adjudicators: Collection[str] = (), seed: int = 0
) -> pl.DataFrame:
    """Every figure for each label and for all labels of a label set together (`AGREEMENT`).

    - All readers: ``observed``, ``fleiss_kappa``, ``krippendorff_alpha``, ``krippendorff_alpha_ordinal``, ``gwet_ac1``.
    - Each pair of readers: ``observed``, ``cohen_kappa``, ``cohen_kappa_linear``, ``cohen_kappa_quadratic``,
      ``gwet_ac1``.
    - Each reader against all others: ``observed``: mean over exams of the share of the others who said the same.

    For all labels together a label of an exam is a subject of its own, but resamples draw whole exams.

    Args:
        readings: `reportlabel.schema.READINGS`; the last word of each reader counts, values outside the order of
            ``settings`` (sizes, sides) are not compared.
        adjudicators: are left out: they have seen what the others said.

    Returns:
        No row for a figure without an exam that two readers read. Undefined figures are null.
    """
    last = last_readings(readings).filter(
        pl.col("value").is_in(settings.order) & ~pl.col("reader").is_in(list(adjudicators))
    )
    readers = sorted(last["reader"].unique())
    codes = {value: number for number, value in enumerate(settings.order)}
    wide = (
        last.with_columns(pl.col("value").replace_strict(codes, return_dtype=pl.Int64).alias("code"))
        .pivot("reader", index=["exam_id", "label_set", "finding"], values="code")
        .sort("label_set", "finding", "exam_id")
    )
    rows: list[tuple[object, ...]] = []
    for (label_set, finding), group in _groups(wide):
        table = group.select(pl.col(readers).fill_null(MISSING)).to_numpy().astype(np.int64)
        exams = group["exam_id"].to_numpy()
        for reader, other, measure, used, made in _figures(table, readers, values=len(codes)):
            if used.any():
                figure = _figure(made, exams[used], together=finding is None, settings=settings, seed=seed)
                rows.append((label_set, finding, reader, other, measure, len(np.unique(exams[used])), *figure))
    return pl.DataFrame(rows, schema=AGREEMENT, orient="row")


def _groups(wide: pl.DataFrame) -> list[tuple[tuple[object, object], pl.DataFrame]]:
    """Each label, and behind the labels of a set all of them, with null for the finding."""
    groups: list[tuple[tuple[object, object], pl.DataFrame]] = []
    for (label_set,), of_set in wide.group_by("label_set", maintain_order=True):
        groups += [((label_set, one), group) for (one,), group in of_set.group_by("finding", maintain_order=True)]
        groups.append(((label_set, None), of_set))
    return groups


_Figure = tuple[str | None, str | None, str, npt.NDArray[np.bool_], Rows]


def _figures(codes: Codes, readers: Sequence[str], *, values: int) -> list[_Figure]:
    """reader, other, measure, which rows of ``codes`` enter it, and the numbers of these."""
    made: list[_Figure] = []
    several = (codes != MISSING).sum(axis=1) > 1
    shared = codes[several]
    usual = _usual(_counts(codes, values))
    same_size = several & ((codes != MISSING).sum(axis=1) == usual)
    made += [
        (None, None, "observed", several, observed_agreement(shared, values=values)),
        (None, None, "fleiss_kappa", same_size, fleiss(codes[same_size], values=values)),
        (None, None, "krippendorff_alpha", several, krippendorff(shared, values=values)),
        (None, None, "krippendorff_alpha_ordinal", several, krippendorff(shared, values=values, level="ordinal")),
        (None, None, "gwet_ac1", several, gwet_ac1(shared, values=values)),
    ]
    for first, second in combinations(range(len(readers)), 2):
        both = (codes[:, [first, second]] != MISSING).all(axis=1)
        pair = codes[both][:, [first, second]]
        made += [
            (readers[first], readers[second], measure, both, rows)
            for measure, rows in (
                ("observed", observed_agreement(pair, values=values)),
                ("cohen_kappa", cohen(pair, values=values)),
                ("cohen_kappa_linear", cohen(pair, values=values, weights="linear")),
                ("cohen_kappa_quadratic", cohen(pair, values=values, weights="quadratic")),
                ("gwet_ac1", gwet_ac1(pair, values=values)),
            )
        ]
    for number, reader in enumerate(readers):
        used = several & (codes[:, number] != MISSING)
        others = np.delete(codes[used], number, axis=1)
        same = (others == codes[used][:, [number]]).sum(axis=1) / np.maximum((others != MISSING).sum(axis=1), 1)
        numbers = np.column_stack([np.ones(len(same)), same])
        made.append((reader, None, "observed", used, Rows(numbers, lambda sums: _ratio(sums[:, 1], sums[:, 0]))))
    return made


def _figure(
    rows: Rows, exams: npt.NDArray[np.object_], *, together: bool, settings: AgreementSettings, seed: int
) -> tuple[float | None, float | None, float | None]:
    """The figure and its interval; None where undefined."""
    if together:  # all labels of an exam are drawn together
        _, place = np.unique(exams, return_inverse=True)
        numbers = np.zeros((int(place.max()) + 1, rows.numbers.shape[1]))
        np.add.at(numbers, place.reshape(-1), rows.numbers)
        rows = Rows(numbers, rows.formula)
    interval = rows.interval(resamples=settings.resamples, confidence=settings.confidence, seed=seed)
    value, low, high = (None if np.isnan(one) else one for one in (rows.value(), *interval))
    return value, low, high
