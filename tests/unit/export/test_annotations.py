"""Annotations carry study, annotator and version, and name nobody."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import ConfigError
from reportlabel.export.annotations import annotation_table, write_annotations
from reportlabel.export.deliverable_rules import load_deliverables
from reportlabel.export.dose import exam_table
from reportlabel.export.manifest import read_manifest
from reportlabel.protocol import Protocol, load_protocol
from reportlabel.schema import EXAMS, READINGS

KEY = bytes(range(32))
STUDY = pl.DataFrame(
    [{"exam_id": f"E{at}", "patient_id": f"P{at}", "site": "juntendo", "modality_class": "CT"} for at in range(3)],
    schema=EXAMS,
)


def reading(exam: str, reader: str, value: str, day: int) -> dict[str, object]:
    return {
        "exam_id": exam,
        "label_set": "lung_ct",
        "finding": "pleural_effusion",
        "reader": reader,
        "value": value,
        "spans": [{"start": 2, "end": 4}],
        "origin": "changed",
        "read_at": datetime(2026, 5, day),
        "annotation_id": f"{exam}/{day}",
        "sha256": "f" * 64,
    }


READ = pl.DataFrame(
    [
        reading("E0", "yamada@example.jp", "absent", 2),
        reading("E0", "yamada@example.jp", "present", 1),
        reading("E1", "sato@example.jp", "present", 3),
        reading("E9", "sato@example.jp", "present", 3),
    ],
    schema=READINGS,
)


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return load_protocol("jmid")


def test_J6_annotations_have_study_annotator_and_version(protocol: Protocol) -> None:
    made = annotation_table(READ, STUDY, protocol, profile="pseudonymised")
    assert made.table.select("study", "exam_id", "annotator", "version", "value").rows() == [
        ("jmid", "E0", "annotator-02", 1, "present"),
        ("jmid", "E0", "annotator-02", 2, "absent"),
        ("jmid", "E1", "annotator-01", 1, "present"),
    ]
    assert made.readings_of_other_exams == 1
    assert "example" not in str(made.table.to_dicts())


def test_J6_J8_without_linking_codes_and_numbered_as_in_the_exam_table(protocol: Protocol) -> None:
    made = annotation_table(READ, STUDY, protocol, profile="anonymised", key=KEY)
    assert {"exam_id", "read_at", "sha256", "annotation_id", "reader"}.isdisjoint(made.table.columns)
    exams = exam_table(STUDY, protocol, profile="anonymised", rules=load_deliverables().dose, key=KEY)
    assert set(made.table["exam_no"]) < set(exams.table["exam_no"])
    assert made.table.equals(annotation_table(READ, STUDY.reverse(), protocol, profile="anonymised", key=KEY).table)
    with pytest.raises(ConfigError, match="32 random bytes"):
        annotation_table(READ, STUDY, protocol, profile="anonymised")


def test_J6_X2_the_folder_is_of_the_profile_that_was_permitted(protocol: Protocol, tmp_path: Path) -> None:
    permission = protocol.gate(
        "export",
        today=date(2026, 12, 1),
        recipient="participating_institutions",
        purpose="diagnostic_ai",
        deliverable="annotations",
    )
    wrong = annotation_table(READ, STUDY, protocol, profile="pseudonymised")
    with pytest.raises(ConfigError, match="anonymised is what was permitted"):
        write_annotations(tmp_path / "out", wrong, protocol=protocol, permission=permission)
    made = annotation_table(READ, STUDY, protocol, profile="anonymised", key=KEY)
    write_annotations(tmp_path / "out", made, protocol=protocol, permission=permission)
    said = read_manifest(tmp_path / "out")
    assert said is not None
    assert said["counts"] == {"annotations": 3, "exams": 2, "annotators": 2, "readings_of_other_exams": 1}
