"""Which readings count, and from which exams the models learn."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from reportlabel.review.gold import fingerprint, gold_readings, read_values
from reportlabel.review.ledger import CHOSEN, LEDGER_FILE, Ledger
from reportlabel.review.reasons import hash_number
from reportlabel.schema import EXAM_LABELS, READINGS


def readings(*rows: tuple[str, str, str, str, int]) -> pl.DataFrame:
    """Rows of exam, finding, reader, value and day."""
    made = [
        dict.fromkeys(READINGS)
        | {
            "exam_id": exam,
            "label_set": "lung_ct",
            "finding": finding,
            "reader": reader,
            "value": value,
            "read_at": datetime(2026, 1, day),
            "annotation_id": f"1/{day}",
        }
        for exam, finding, reader, value, day in rows
    ]
    return pl.DataFrame(made, schema=READINGS, orient="row")


SAID = readings(
    ("E1", "pneumonia", "A", "present", 1),
    ("E1", "pneumonia", "B", "absent", 1),
    ("E1", "pneumonia", "chief", "uncertain", 2),
    ("E2", "pneumonia", "A", "present", 1),
    ("E2", "pneumonia", "A", "absent", 3),
    ("E3", "pneumonia", "B", "present", 1),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """E1 was drawn at random, E2 because it is doubtful, E3 was never given out; the hash has E1 before E2."""
    rows = [("E1", "lung_ct", "audit", 1, [], ["A", "B"]), ("E2", "lung_ct", "low_margin", 2, ["pneumonia"], ["A"])]
    with Ledger(tmp_path) as ledger:
        while hash_number(key := ledger.key(), "E1") > hash_number(key, "E2"):
            with sqlite3.connect(tmp_path / LEDGER_FILE) as database:
                database.execute("DELETE FROM secret")
            database.close()
        ledger.keep_chosen(pl.DataFrame(rows, schema=CHOSEN, orient="row"))
        ledger.add_people("reader", ["A", "B"])
        ledger.add_people("adjudicator", ["chief"])
    return tmp_path


def test_the_adjudicator_settles_and_only_the_audit_teaches(folder: Path) -> None:
    found = gold_readings(folder, SAID).select("exam_id", "reader", "value", "review_state", "teaches")
    assert found.rows() == [
        ("E1", "chief", "uncertain", "adjudicated", True),
        ("E2", "A", "absent", "reviewed", False),
        ("E3", "B", "present", "reviewed", True),
    ]


def test_the_audit_of_one_label_set_is_none_of_another(folder: Path) -> None:
    with Ledger(folder) as ledger:
        row: list[tuple[object, ...]] = [("E2", "ct_rate_18", "audit", 1, [], [])]
        ledger.keep_chosen(pl.DataFrame(row, schema=CHOSEN, orient="row"))
    both = pl.concat([SAID, SAID.with_columns(label_set=pl.lit("ct_rate_18"))])
    found = gold_readings(folder, both).filter(exam_id="E2")
    assert dict(found.select("label_set", "teaches").iter_rows()) == {"ct_rate_18": True, "lung_ct": False}


def test_what_was_doubtful_and_would_have_been_drawn_teaches_too(folder: Path) -> None:
    with Ledger(folder) as ledger:
        last = max((f"X{one}" for one in range(100)), key=lambda exam: hash_number(ledger.key(), exam))
        row: list[tuple[object, ...]] = [(last, "lung_ct", "audit", 3, [], [])]
        ledger.keep_chosen(pl.DataFrame(row, schema=CHOSEN, orient="row"))
    assert gold_readings(folder, SAID)["teaches"].all(), "the audit went beyond E2 in the order of the hash"


def test_without_a_ledger_every_reading_teaches(tmp_path: Path) -> None:
    found = gold_readings(tmp_path, SAID)
    assert found["teaches"].all() and set(found["review_state"]) == {"reviewed"}
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_follows_what_counts(folder: Path) -> None:
    one = fingerprint(gold_readings(folder, SAID))
    assert fingerprint(gold_readings(folder, SAID.reverse())) == one
    with Ledger(folder) as ledger:
        ledger.add_people("adjudicator", ["B"])
    assert fingerprint(gold_readings(folder, SAID)) != one


def test_sizes_and_sides_that_readers_settled(folder: Path) -> None:
    said = readings(
        ("E1", "primary_side", "A", "left", 1),
        ("E2", "primary_side", "A", "left", 1),
        ("E2", "primary_side", "B", "right", 1),
    )
    rows = [
        dict.fromkeys(EXAM_LABELS)
        | {
            "exam_id": exam,
            "label_set": "lung_ct",
            "finding": "primary_side",
            "value": "right",
            "method": "precedence",
            "review_state": "unreviewed",
        }
        for exam in ("E1", "E2", "E3")
    ]
    labels = pl.DataFrame(rows, schema=EXAM_LABELS, orient="row")
    found = read_values(labels, gold_readings(folder, said))
    assert found.schema == EXAM_LABELS
    assert found.select("exam_id", "value", "method", "review_state").rows() == [
        ("E1", "left", "reader", "reviewed"),
        ("E2", "right", "precedence", "unreviewed"),
        ("E3", "right", "precedence", "unreviewed"),
    ]


def test_the_key_and_the_readers_stay(folder: Path) -> None:
    with Ledger(folder) as ledger:
        key = ledger.key()
        ledger.add_people("reader", ["C", "A"])
        assert ledger.people("reader") == ["A", "B", "C"]
    with Ledger(folder) as ledger:
        assert ledger.key() == key and len(key) == 32
