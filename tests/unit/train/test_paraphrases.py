"""The hand-written paraphrases are what they say: sentences in words that neither rules nor generator know."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.train.score import known_phrases

FILE = Path(__file__).parents[2] / "paraphrases.csv"
BANK = Path(__file__).parents[3] / "reportlabel" / "synth" / "bank"


@pytest.fixture(scope="module")
def rules() -> Rulebook:
    return load_rules()


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return pl.read_csv(FILE)


def test_there_are_two_hundred_of_all_statuses(table: pl.DataFrame) -> None:
    assert table.height == 200
    assert table["text"].is_unique().all()
    assert set(table["status"]) == {"present", "uncertain", "absent"}
    assert (table.group_by("status").len()["len"] >= 40).all()


def test_each_has_a_label_and_its_phrase(table: pl.DataFrame, rules: Rulebook) -> None:
    for label_set, label, phrase, text in table.select("label_set", "label", "phrase", "text").iter_rows():
        assert label in {entry.id for entry in rules.label_sets[label_set].findings}
        assert phrase in text


def test_no_phrase_is_a_term(table: pl.DataFrame, rules: Rulebook) -> None:
    assert not known_phrases(table["phrase"], rules)["in_rules"].any()


def test_the_generator_does_not_know_them(table: pl.DataFrame) -> None:
    bank = "\n".join(path.read_text(encoding="utf-8") for path in sorted(BANK.rglob("*.yaml")))
    assert [phrase for phrase in table["phrase"] if phrase in bank] == []
