"""A simulated workspace whose truth is known, and how long and how much memory its aggregation takes.

    python -m tests.unit.aggregate.simulated [EXAMS]

prints time, peak memory beyond the input, and rows, for 100 labels in four sets of which each exam fits two, and about
15 votes an exam; without and with reviewed exams.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from reportlabel.aggregate.combine import aggregate
from reportlabel.aggregate.settings import load_settings
from reportlabel.rulebook.models import LabelSet
from reportlabel.schema import EXAM_VOTES

READINGS = {"exam_id": pl.String, "label_set": pl.String, "finding": pl.String, "value": pl.String}


@dataclass(frozen=True)
class Source:
    """A labelling function: how often it is right where the finding is there and where not, and how often it speaks."""

    function_id: str
    kind: str
    sensitivity: float
    specificity: float
    coverage: float
    confidence: float = 1.0
    group: str | None = None
    says: Sequence[str] = ("present", "absent")


def label_set(name: str, findings: Sequence[str], **options: dict[str, Any]) -> LabelSet:
    """A label set with these labels; ``options``: keys of single entries."""
    return LabelSet.model_validate(
        {
            "id": name,
            "name": {"ja": name, "en": name},
            "source": "made up",
            "region": "chest",
            "exams": [{"modality_classes": ["CT"]}],
            "precedence": ["present", "uncertain", "absent"],
            "findings": [
                {"id": one, "name": {"ja": one, "en": one}, "any_of": [one], **options.get(one, {})} for one in findings
            ],
        }
    )


def vote_table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """EXAM_VOTES from rows; what is not given is usual."""
    usual = {
        "exam_id": "e1",
        "label_set": "chest",
        "finding": "nodule",
        "function_id": "rule/nodule",
        "value": "present",
        "confidence": 1.0,
        "group": None,
        "kind": "rule",
        "evidence": "0-2",
        "available_at_reading": None,
    }
    return pl.DataFrame([{**usual, **row} for row in rows], schema=EXAM_VOTES)


def exam_table(exams: int, *, patients: int | None = None, classes: Sequence[str | None] = ("CT",)) -> pl.DataFrame:
    numbers = np.arange(exams)
    return pl.DataFrame(
        {
            "exam_id": [f"e{number}" for number in numbers],
            "patient_id": [f"p{number % (patients or exams)}" for number in numbers],
            "modality_class": [classes[number % len(classes)] for number in numbers],
        },
        schema={"exam_id": pl.String, "patient_id": pl.String, "modality_class": pl.String},
    )


def simulate(
    truth: np.ndarray, sources: Sequence[Source], chance: np.random.Generator, *, name: str = "chest", finding: str
) -> pl.DataFrame:
    """Votes of independent sources about exams e0, e1, … of which ``truth`` says 1 or 0."""
    tables = []
    for source in sources:
        right = chance.random(len(truth)) < np.where(truth == 1, source.sensitivity, source.specificity)
        says = np.where(np.where(right, truth, 1 - truth) == 1, "present", "absent")
        speaks = (chance.random(len(truth)) < source.coverage) & np.isin(says, source.says)
        at = np.flatnonzero(speaks)
        tables.append(
            pl.DataFrame(
                {
                    "exam_id": [f"e{number}" for number in at],
                    "label_set": name,
                    "finding": finding,
                    "function_id": source.function_id,
                    "value": says[at],
                    "confidence": source.confidence,
                    "group": source.group,
                    "kind": source.kind,
                    "evidence": "0-2",
                    "available_at_reading": None,
                },
                schema=EXAM_VOTES,
            )
        )
    return pl.concat(tables)


def readings_of(
    truth: np.ndarray, exams: Sequence[int] | np.ndarray, *, name: str = "chest", finding: str
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "exam_id": [f"e{number}" for number in exams],
            "label_set": name,
            "finding": finding,
            "value": ["present" if truth[number] else "absent" for number in exams],
        },
        schema=READINGS,
    )


# --- the figures ------------------------------------------------------------------------------------------------------


class _Peak:
    """Highest resident memory of this process, looked at every few milliseconds."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.highest = _resident()

    def __enter__(self) -> _Peak:
        self.before = self.highest = _resident()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, _resident())


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _measure(exams: int) -> None:
    chance = np.random.default_rng(0)
    table = exam_table(exams, patients=max(1, exams // 2), classes=("CT", "MRI"))
    sets = {f"set{number}": label_set(f"set{number}", [f"f{at}" for at in range(25)]) for number in range(4)}
    names = list(sets)
    scope = pl.concat(
        [
            table.select("exam_id", pl.lit(names[(start + shift) % 4]).alias("label_set"))[start::2]
            for start in (0, 1)
            for shift in (0, 2)
        ]
    )
    votes, readings = [], []
    for start, name in ((number % 2, names[number]) for number in range(4)):
        inside = np.arange(start, exams, 2)
        for label in range(25):
            prevalence = 0.002 + 0.3 * chance.random() ** 3
            truth = np.zeros(exams, dtype=np.int64)
            truth[inside] = chance.random(len(inside)) < prevalence
            mentioned = np.where(truth == 1, 0.8, min(1.0, 0.8 * prevalence))
            spoken = chance.random(exams) < mentioned
            sources = [
                Source("rule/one", "rule", 0.93, 0.97, 1.0),
                Source("bert/model", "bert", 0.9, 0.95, 0.9, 0.9),
                *(
                    Source(
                        f"record/r{at}",
                        "record",
                        0.3,
                        0.9,
                        0.5,
                        0.6,
                        "diagnosis" if at > 2 else None,
                        ("present",),
                    )
                    for at in range(6)
                ),
            ]
            made = simulate(truth, sources, chance, name=name, finding=f"f{label}")
            keep = made["exam_id"].str.slice(1).cast(pl.Int64).to_numpy()
            votes.append(made.filter(pl.Series(spoken[keep] & (keep % 2 == start))))
            readings.append(
                readings_of(truth, chance.choice(inside, 400, replace=False), name=name, finding=f"f{label}")
            )
    all_votes = pl.concat(votes).sample(fraction=1.0, shuffle=True, seed=1)
    del votes
    print(f"{exams} exams, {len(scope)} cases, {len(all_votes)} votes, {len(all_votes) / exams:.1f} an exam")  # noqa: T201
    for title, read in (
        ("nothing reviewed", pl.DataFrame(schema=READINGS)),
        ("400 reviewed a label", pl.concat(readings)),
    ):
        with _Peak() as peak:
            start_time = time.perf_counter()
            done = aggregate(all_votes, scope, exams=table, label_sets=sets, readings=read, settings=load_settings())
            judged = time.perf_counter() - start_time
        with _Peak() as parts:
            rows = sum(len(part) for part in done.label_parts())
        print(  # noqa: T201
            f"{title}: aggregate {judged:.1f} s, +{peak.highest - peak.before:.0f} MB; "
            f"label_parts {time.perf_counter() - start_time - judged:.1f} s, "
            f"+{parts.highest - parts.before:.0f} MB, {rows} rows; "
            f"label model chosen for {(done.choices['method'] == 'label_model').sum()} of {len(done.choices)} labels"
        )


if __name__ == "__main__":
    _measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
