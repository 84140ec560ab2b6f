"""Every example of the rules for linked records gives the votes it says, through windows, links and votes."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.link.windows import link_records
from reportlabel.rulebook.linked import KINDS, LinkedExample, LinkedRules, load_linked
from reportlabel.rulebook.load import Rulebook, rules_folder
from reportlabel.schema import EXAMS, RECORDS
from reportlabel.vote.records import record_votes, text_reader

DAY = datetime(2024, 5, 10, 14, 30)


@cache
def linked_rules() -> LinkedRules:
    return load_linked(rules_folder())


@pytest.fixture(scope="module")
def voted(shipped: Rulebook, annotator: Annotator) -> dict[tuple[str, str], dict[str, str]]:
    """(function, exam) -> the labels it votes for; one patient an example."""
    linked = linked_rules()
    exams, records, scope = [], [], []
    for one in linked.rules:
        for at, example in enumerate(one.rule.examples):
            name = f"{one.rule.id}-{at}"
            exams.append(exam_of(example, name))
            records.append(record_of(example, name, one.kind))
            scope.append((name, example.exam.label_set))
    tables = pl.DataFrame(exams, schema=EXAMS), pl.DataFrame(records, schema=RECORDS)
    signed = pl.DataFrame(schema={"exam_id": pl.String, "signed_at": pl.Datetime("us")})
    votes = record_votes(
        *tables,
        link_records(*tables, linked.windows, signed=signed),
        scope=pl.DataFrame(scope, schema=["exam_id", "label_set"], orient="row"),
        label_sets=shipped.label_sets,
        rules=shipped,
        linked=linked,
        annotator=text_reader(annotator, linked),
    )
    found: dict[tuple[str, str], dict[str, str]] = {}
    for function, exam, label, value in votes.select("function_id", "exam_id", "finding", "value").iter_rows():
        found.setdefault((function, exam), {})[label] = value
    return found


def exam_of(example: LinkedExample, name: str) -> dict[str, object]:
    given = example.exam.model_dump(exclude={"label_set"})
    return dict.fromkeys(EXAMS.names()) | given | {"exam_id": name, "patient_id": name, "started_at": DAY}


def record_of(example: LinkedExample, name: str, kind: str) -> dict[str, object]:
    record = example.record
    given = record.model_dump(exclude={"days", "until"})
    end = None if record.until is None else DAY + timedelta(days=record.until)
    when = {"start_at": DAY + timedelta(days=record.days), "end_at": end}
    return dict.fromkeys(RECORDS.names()) | given | when | {"record_id": name, "patient_id": name, "kind": kind}


@pytest.mark.parametrize("rule_id", [one.rule.id for one in linked_rules().rules])
def test_examples_of(rule_id: str, voted: dict[tuple[str, str], dict[str, str]]) -> None:
    (one,) = [one for one in linked_rules().rules if one.rule.id == rule_id]
    for at, example in enumerate(one.rule.examples):
        line = one.document.line((*one.place, "examples", at))
        told = voted.get((one.function_id, f"{rule_id}-{at}"), {})
        assert told == example.votes, f"{one.document.path.name}:{line}"


def test_all_kinds_and_label_sets_are_served(shipped: Rulebook) -> None:
    linked = linked_rules()
    assert len(linked.rules) >= 60
    assert {one.kind for one in linked.rules} == set(KINDS)
    served = {example.exam.label_set for one in linked.rules for example in one.rule.examples if example.votes}
    assert served == set(shipped.label_sets)


def test_links_stay_few() -> None:
    """A record is linked once a window, so every kind has few of them."""
    kinds = [window.kind for window in linked_rules().windows]
    assert max(kinds.count(kind) for kind in KINDS) <= 3


def test_a_vote_names_its_evidence(voted: dict[tuple[str, str], dict[str, str]]) -> None:
    assert voted
    sources = [one.rule.source for one in linked_rules().rules if one.kind == "lab"]
    assert sum(source is not None for source in sources) >= len(sources) / 2


def test_diagnoses_are_never_sole() -> None:
    functions = linked_rules().functions()
    diagnoses = functions.filter(pl.col("record_kind") == "diagnosis")
    assert diagnoses["sole"].unique().to_list() == ["never"]
    assert diagnoses["group"].unique().to_list() == ["diagnosis"]
