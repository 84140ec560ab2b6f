"""Patterns of language, and what looks like them, come out as ``language.yaml`` says."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from reportlabel.annotate.annotator import Annotator
from reportlabel.flow import label_batch
from reportlabel.rulebook.load import Rulebook, find_label_set

PATTERNS: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("language.yaml").read_text(encoding="utf-8")
)
CASES = [(pattern, case) for pattern, cases in PATTERNS.items() for case in cases]


@pytest.fixture(scope="module")
def labelled(shipped: Rulebook, annotator: Annotator) -> dict[str, dict[str, str]]:
    """The labels of every case, by its number; the reports of a label set are read together."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, (_, case) in enumerate(CASES):
        numbers[case["set"]].append(number)
    values: dict[str, dict[str, str]] = defaultdict(dict)
    for name, chosen in numbers.items():
        reports = pl.DataFrame(
            {"report_id": [str(at) for at in chosen], "text": [CASES[at][1]["text"] for at in chosen]}
        )
        labels = label_batch(reports, annotator, find_label_set(shipped, name)).labels
        for report, finding, value in labels.select("report_id", "finding", "value").iter_rows():
            values[report][finding] = value
    return values


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{pattern}-{at}" for at, (pattern, _) in enumerate(CASES)])
def test_pattern(number: int, labelled: dict[str, dict[str, str]]) -> None:
    case = CASES[number][1]
    got = labelled[str(number)]
    assert {finding: got[finding] for finding in case["labels"]} == case["labels"], case["text"]


def test_every_pattern_has_a_look_alike() -> None:
    assert all(len({value for case in cases for value in case["labels"].values()}) > 1 for cases in PATTERNS.values())
