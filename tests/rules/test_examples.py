"""Every example of the rules is what it says it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.rulebook.check import check_rules
from reportlabel.rulebook.examples import Outcome, run_examples
from reportlabel.rulebook.load import Rulebook, rules_folder
from reportlabel.rulebook.models import Example

FINDINGS = sorted(f"{path.parent.name}/{path.stem}" for path in (rules_folder() / "findings").glob("*/*.yaml"))


def failures(outcomes: Iterator[Outcome]) -> list[str]:
    return [
        f"{outcome.path.name}:{outcome.line}: {outcome.example.text}: {'; '.join(outcome.problems)}"
        for outcome in outcomes
        if outcome.problems
    ]


@pytest.mark.parametrize("place", FINDINGS)
def test_examples_of(place: str, annotator: Annotator) -> None:
    outcomes = list(run_examples(annotator, finding=place.split("/")[1]))
    assert outcomes, "no examples"
    assert failures(iter(outcomes)) == []


def test_every_file_is_tested(shipped: Rulebook) -> None:
    assert {place.split("/")[1] for place in FINDINGS} == set(shipped.files)


def test_there_are_enough_examples(shipped: Rulebook) -> None:
    examples = [example for finding in shipped.findings.values() for example in finding.examples]
    assert len(examples) >= 900
    assert sum(example.status != "present" for example in examples) >= len(examples) / 3


def test_the_rules_have_no_problem(shipped: Rulebook) -> None:
    assert [
        f"{problem.path}:{problem.line}: {problem.code}: {problem.message}" for problem in check_rules(shipped)
    ] == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Example(text="胸水を認めません。", status="present"), "expected present, got absent"),
        (Example(text="胸水を認めます。", status="not_mentioned"), "expected not_mentioned, got present"),
        (Example(text="胸水を疑います。", status="absent"), "expected absent, got uncertain"),
        (Example(text="右胸水を認めます。", status="present", side="left"), "expected side left, got right"),
        (Example(text="胸水を認めます。", status="present", size_mm=12), "expected size 12 mm, got nothing"),
    ],
)
def test_a_wrong_example_fails(shipped: Rulebook, annotator: Annotator, wrong: Example, told: str) -> None:
    file = shipped.files["pleural_effusion"]
    broken = replace(file, finding=file.finding.model_copy(update={"examples": [wrong]}))
    rules = replace(shipped, files={**shipped.files, "pleural_effusion": broken})
    [failure] = failures(run_examples(_with(annotator, rules), finding="pleural_effusion"))
    assert failure.endswith(told)


def _with(annotator: Annotator, rules: Rulebook) -> Annotator:
    """The annotator, its words as they are, with other examples."""
    other = Annotator.__new__(Annotator)
    other.__dict__.update(annotator.__dict__, rules=rules)
    return other
