"""`evaluate`: predicted labels and gold labels in, an `Evaluation` out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from reportlabel.errors import InputError
from reportlabel.evaluate import metrics
from reportlabel.evaluate.compare import STATUSES, Kind, gold_labels, kinds, numbers_agree, pair, predicted_labels
from reportlabel.evaluate.metrics import Codes, Floats

NUMBER_CLASSES = ("not_mentioned", "same_number", "another_number")
"""Classes of a numeric finding: gold is the first or the second; a prediction can be any of the three."""


@dataclass(frozen=True)
class Estimate:
    """A measure with its 95 % bootstrap percentile interval; None where the measure, or the interval, is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ClassScore:
    """How well one value of one finding was found.

    ``support`` counts the gold rows with the value, ``predicted`` the predicted rows with it.
    """

    value: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class FindingScore:
    """One finding over its scored rows.

    ``confusion[i][j]`` counts rows whose gold value is ``labels[i]`` and whose predicted value is ``labels[j]``. A
    numeric finding has the labels of NUMBER_CLASSES, and no kappa and no classes: its numbers are not categories.
    """

    finding: str
    kind: Kind
    rows: int
    correct: int
    accuracy: Estimate
    kappa: Estimate
    classes: tuple[ClassScore, ...]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class StatusScore:
    """One status over all findings.

    Micro pools the rows of all findings. Macro-F1 is the mean of the findings' F1 over the ``macro_findings``
    findings that gold has the status for; ``unsupported_findings`` have false alarms and no gold row, so only micro
    counts those.
    """

    status: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    micro_f1: Estimate
    macro_f1: Estimate
    macro_findings: int
    unsupported_findings: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    ``accuracy``, ``kappa``, ``statuses`` and ``confusion`` are over all findings with the four statuses (None, or
    empty, without any); ``findings`` has one score per finding, others included. ``disagreements`` has report_id,
    finding, gold, predicted, p_present, evidence; ``gold_only`` and ``predicted_only`` have the rows that could not
    be scored.
    """

    reports: int
    rows: int
    bootstrap: int
    seed: int
    accuracy: Estimate
    kappa: Estimate
    statuses: tuple[StatusScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    findings: tuple[FindingScore, ...]
    disagreements: pl.DataFrame
    gold_only: pl.DataFrame
    predicted_only: pl.DataFrame

    def to_json(self) -> str:
        """The whole evaluation as JSON text; tables are lists of objects, undefined measures are null."""
        tables = {name: getattr(self, name).to_dicts() for name in ("disagreements", "gold_only", "predicted_only")}
        plain = {name: _plain(value) for name, value in vars(self).items() if name not in tables}
        return json.dumps(plain | {"status_labels": STATUSES} | tables, ensure_ascii=False, indent=2, default=str)


def evaluate(predicted: pl.DataFrame, gold: pl.DataFrame, *, bootstrap: int = 1000, seed: int = 0) -> Evaluation:
    """Score predicted labels against gold labels.

    ``predicted`` has report_id, finding, value and, where known, p_present and evidence. ``gold`` is long (report_id,
    finding, status or value) or wide (report_id and one column per finding; see `compare.gold_labels`). Only rows in
    both are scored; the others are in ``gold_only`` and ``predicted_only``. Intervals come from ``bootstrap``
    resamples of the reports (0: none).

    Raises InputError where a column is missing, a row is repeated or empty, values are not comparable, or no row
    matches; ValueError for a negative ``bootstrap``.
    """
    if bootstrap < 0:
        raise ValueError(f"bootstrap must be 0 or more, not {bootstrap}")
    labels = predicted_labels(predicted)
    return evaluate_checked(
        labels, gold_labels(gold, findings=labels["finding"].unique()), bootstrap=bootstrap, seed=seed
    )


def evaluate_checked(predicted: pl.DataFrame, gold: pl.DataFrame, *, bootstrap: int, seed: int) -> Evaluation:
    """`evaluate` for tables that `compare.predicted_labels` and `compare.gold_labels` have given."""
    pairs = pair(predicted, gold)
    _refuse_misspelt(gold, predicted)
    kind_of = kinds(pairs.scored)
    reports = pairs.scored["report_id"].unique().sort()
    tables = [_classed(rows, kind_of[finding]) for finding, rows in _by_finding(pairs.scored)]
    coded = [_codes(table, labels, reports) for table, labels in tables]
    resampled = metrics.bootstrap_confusions(coded, n_reports=len(reports), resamples=bootstrap, seed=seed)

    findings = tuple(
        _finding_score(finding, kind_of[finding], labels, metrics.confusion(codes), samples)
        for finding, (_, labels), codes, samples in zip(kind_of, tables, coded, resampled, strict=True)
    )
    with_status = [number for number, finding in enumerate(kind_of) if kind_of[finding] == "status"]
    counts = _stack([metrics.confusion(coded[number]) for number in with_status], axis=0)
    samples = _stack([resampled[number] for number in with_status], axis=1)
    pooled, pooled_samples = counts.sum(axis=0), samples.sum(axis=1)
    wrong = pl.concat([table.filter(pl.col("gold_class") != pl.col("predicted_class")) for table, _ in tables])
    return Evaluation(
        reports=len(reports),
        rows=pairs.scored.height,
        bootstrap=bootstrap,
        seed=seed,
        accuracy=_estimate(metrics.accuracy, pooled, pooled_samples),
        kappa=_estimate(metrics.kappa, pooled, pooled_samples),
        statuses=_status_scores(counts, samples) if with_status else (),
        confusion=_whole(pooled) if with_status else (),
        findings=findings,
        disagreements=wrong.drop("gold_class", "predicted_class", "gold_row", "predicted_row"),
        gold_only=pairs.gold_only,
        predicted_only=pairs.predicted_only,
    )


def _refuse_misspelt(gold: pl.DataFrame, predicted: pl.DataFrame) -> None:
    """Refuse gold values that are no status, of findings that are predicted with statuses, in whatever report.

    Alone they would pass for a set of values of its own, of which every prediction is wrong.
    """
    said = predicted.filter(pl.col("predicted") != "not_mentioned")
    with_status = said.group_by("finding").agg(pl.col("predicted").is_in(STATUSES).all().alias("only")).filter("only")
    wrong = gold.filter(~pl.col("gold").is_in(STATUSES)).join(with_status, on="finding", how="semi")
    if not wrong.is_empty():
        first = wrong.sort("gold_row").row(0, named=True)
        raise InputError(
            f"gold labels, data row {first['gold_row']}: the value for {first['finding']} is not one of "
            f"{', '.join(STATUSES)}, as the predictions of this finding are; correct it"
        )


def _by_finding(scored: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The rows of each finding, findings in alphabetical order as in `compare.kinds`."""
    groups = scored.sort("finding", "report_id").group_by("finding", maintain_order=True)
    return [(str(finding), rows) for (finding,), rows in groups]


def _classed(rows: pl.DataFrame, kind: Kind) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows with gold_class and predicted_class, and the classes there can be."""
    if kind == "number":
        return _number_classes(rows), NUMBER_CLASSES
    classed = rows.with_columns(gold_class="gold", predicted_class="predicted")
    if kind == "status":
        return classed, STATUSES
    values = set(rows["gold"]) | set(rows["predicted"])
    return classed, (*sorted(values - {"not_mentioned"}), "not_mentioned")


def _number_classes(rows: pl.DataFrame) -> pl.DataFrame:
    said = pl.col("predicted") != "not_mentioned"
    right = said & numbers_agree(pl.col("gold"), pl.col("predicted"))
    none, same, another = (pl.lit(name) for name in NUMBER_CLASSES)
    return rows.with_columns(
        gold_class=pl.when(pl.col("gold") == "not_mentioned").then(none).otherwise(same),
        predicted_class=pl.when(~said).then(none).when(right).then(same).otherwise(another),
    )


def _codes(rows: pl.DataFrame, labels: Sequence[str], reports: pl.Series) -> Codes:
    """Number the reports and the classes of one finding's rows."""
    position = {label: number for number, label in enumerate(labels)}
    return Codes(
        report=reports.search_sorted(rows["report_id"]).to_numpy().astype(np.int64),
        gold=np.array([position[value] for value in rows["gold_class"]], dtype=np.int64),
        predicted=np.array([position[value] for value in rows["predicted_class"]], dtype=np.int64),
        n_classes=len(labels),
    )


def _stack(arrays: Sequence[Floats], *, axis: int) -> Floats:
    """The findings' confusion counts as one array with a findings axis, also where there is no finding."""
    k = len(STATUSES)
    return np.stack(arrays, axis=axis) if arrays else np.zeros((0, k, k) if axis == 0 else (0, 0, k, k))


def _finding_score(finding: str, kind: Kind, labels: tuple[str, ...], counts: Floats, samples: Floats) -> FindingScore:
    numeric = kind == "number"
    return FindingScore(
        finding=finding,
        kind=kind,
        rows=int(counts.sum()),
        correct=int(metrics.true_positives(counts).sum()),
        accuracy=_estimate(metrics.accuracy, counts, samples),
        kappa=Estimate(None, None, None) if numeric else _estimate(metrics.kappa, counts, samples),
        classes=() if numeric else _class_scores(labels, counts, samples),
        labels=labels,
        confusion=_whole(counts),
    )


def _class_scores(labels: Sequence[str], counts: Floats, samples: Floats) -> tuple[ClassScore, ...]:
    support, predicted = metrics.support(counts), metrics.predicted_count(counts)
    precision, recall, f1 = (
        _estimates(measure, counts, samples) for measure in (metrics.precision, metrics.recall, metrics.f1)
    )
    return tuple(
        ClassScore(label, int(support[i]), int(predicted[i]), precision[i], recall[i], f1[i])
        for i, label in enumerate(labels)
    )


def _status_scores(counts: Floats, samples: Floats) -> tuple[StatusScore, ...]:
    """Scores of each status; ``counts`` is (findings, K, K) and ``samples`` (resamples, findings, K, K)."""
    pooled = _class_scores(STATUSES, counts.sum(axis=0), samples.sum(axis=1))
    macro_f1 = _estimates(_macro_f1, counts, samples)
    support, predicted = metrics.support(counts), metrics.predicted_count(counts)
    return tuple(
        StatusScore(
            status=score.value,
            support=score.support,
            predicted=score.predicted,
            precision=score.precision,
            recall=score.recall,
            micro_f1=score.f1,
            macro_f1=macro_f1[i],
            macro_findings=int((support[:, i] > 0).sum()),
            unsupported_findings=int(((support[:, i] == 0) & (predicted[:, i] > 0)).sum()),
        )
        for i, score in enumerate(pooled)
    )


def _macro_f1(counts: Floats) -> Floats:
    return metrics.macro(metrics.f1(counts), metrics.support(counts))


def _estimate(measure: Callable[[Floats], Floats], counts: Floats, samples: Floats) -> Estimate:
    """One measure of the counts, with its interval over the resamples (axis 0)."""
    low, high = metrics.percentile_interval(measure(samples))
    return Estimate(_defined(measure(counts)), _defined(low), _defined(high))


def _estimates(measure: Callable[[Floats], Floats], counts: Floats, samples: Floats) -> tuple[Estimate, ...]:
    """The same for a measure that gives one number per class."""
    values = measure(counts)
    low, high = metrics.percentile_interval(measure(samples))
    return tuple(Estimate(_defined(values[i]), _defined(low[i]), _defined(high[i])) for i in range(len(values)))


def _defined(value: Floats | np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None


def _whole(counts: Floats) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(cell) for cell in row) for row in counts)


def _plain(value: object) -> object:
    """Dataclasses and tuples of them as what JSON knows."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Estimate | FindingScore | StatusScore):
        return asdict(value)
    return value
