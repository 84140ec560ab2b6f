"""Review value: chosen exams against random ones, on votes that are wrong where they contradict each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.evaluate.review_value import Bench, bench_of, main, review_value
from reportlabel.schema import EXAM_VOTES, EXAMS
from reportlabel.study import load_study

EXAMS_MADE = 600
FINDINGS = ("pleural_effusion", "consolidation", "emphysema")


@cache
def bench() -> Bench:
    """A record contradicts one statement of the report in seven, and is right as often as the report."""
    generator = np.random.default_rng(0)
    names = [f"X{number:04}" for number in range(EXAMS_MADE)]
    votes, truth = [], []
    for exam in names:
        for finding in FINDINGS:
            so = bool(generator.random() < 0.25)
            contradicted = generator.random() < 0.15
            wrong = contradicted and generator.random() < 0.5
            key = {"exam_id": exam, "label_set": "lung_ct", "finding": finding, "confidence": 1.0}
            said = "present" if so != wrong else "absent"
            votes.append({**key, "function_id": "rule/x", "kind": "rule", "group": "rule", "value": said})
            if contradicted:
                against = "absent" if said == "present" else "present"
                votes.append({**key, "function_id": "record/x", "kind": "record", "group": "x", "value": against})
            truth.append({"exam_id": exam, "label_set": "lung_ct", "finding": finding, "truth": so})
    return Bench(
        exams=pl.DataFrame(
            {"exam_id": names, "patient_id": names, "modality_class": ["CT"] * len(names)},
            schema={name: EXAMS[name] for name in ("exam_id", "patient_id", "modality_class")},
        ),
        votes=pl.DataFrame(votes, schema=EXAM_VOTES),
        scope=pl.DataFrame({"exam_id": names}).with_columns(label_set=pl.lit("lung_ct")),
        truth=pl.DataFrame(truth),
        study=load_study(label_sets=["lung_ct"]),
    )


def test_exams_chosen_by_reasons_are_worth_at_least_twice_as_much() -> None:
    found = review_value(bench(), budget=60, draws=3)
    assert found.chosen.exams == 60
    assert all(arm.exams == 60 for arm in found.random)
    chosen, random = found.gain("f1_all")
    assert chosen >= 2 * random > 0
    assert found.chosen.wrong > max(arm.wrong for arm in found.random)
    assert sum(exams for exams, _ in found.chosen.by_reason.values()) == 60
    assert sum(errors for _, errors in found.chosen.by_reason.values()) == found.chosen.wrong


def test_reading_everything_makes_everything_right() -> None:
    found = review_value(bench(), budget=EXAMS_MADE, draws=1)
    assert found.before.f1_all < 1
    assert found.chosen.f1_all == found.random[0].f1_all == 1.0
    assert found.chosen.f1_pooled == 1.0


def test_wrong_arguments_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        review_value(bench(), budget=0, draws=1)
    with pytest.raises(InputError, match="reportlabel synth"):
        bench_of(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert "reportlabel synth" in capsys.readouterr().err.replace("\n", " ")
