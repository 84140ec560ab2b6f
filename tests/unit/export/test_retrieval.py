"""The list for taking pictures out of the archive covers the labelled exams and no other."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import InputError, RefusedError
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.export.retrieval import RETRIEVAL, UIDS, retrieval_list, write_retrieval_list
from reportlabel.protocol import load_protocol
from reportlabel.schema import EXAM_LABELS, EXAMS

EXAMS_OF_STUDY = pl.DataFrame(
    [
        {"exam_id": f"E{at}", "site": "keio", "modality_class": "CT", "study_instance_uid": f"2.25.{at}"}
        for at in range(4)
    ],
    schema=EXAMS,
)
LABELS = pl.DataFrame(
    [{"exam_id": f"E{at}", "label_set": "lung_ct", "finding": finding} for at in (2, 0, 1) for finding in ("a", "b")],
    schema=EXAM_LABELS,
)
FOUND = pl.DataFrame(
    [("E0", "1.2.0", "A0"), ("E1", None, "A1"), ("E2", None, " "), ("E3", "1.2.3", "A3")], UIDS, orient="row"
)


def test_K7_the_list_covers_all_labelled_exams_and_no_other() -> None:
    made = retrieval_list(EXAMS_OF_STUDY, LABELS, FOUND)
    assert made.rows.schema == RETRIEVAL
    # the UID of the archive, not the one that stands in the table of the study
    assert made.rows.rows() == [("E0", "keio", "CT", "1.2.0", "A0"), ("E1", "keio", "CT", None, "A1")]
    assert made.without_uid.rows() == [("E2",)]
    listed = {*made.rows["exam_id"], *made.without_uid["exam_id"]}
    assert listed == set(LABELS["exam_id"])


def test_K7_tables_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match=r"1 labelled exams are none of the exams.*K7"):
        retrieval_list(EXAMS_OF_STUDY.head(2), LABELS, FOUND)
    with pytest.raises(InputError, match="uids: 1 exam ids stand twice"):
        retrieval_list(EXAMS_OF_STUDY, LABELS, pl.concat([FOUND, FOUND.head(1)]))
    with pytest.raises(InputError, match="uids: lacks the columns accession_number"):
        retrieval_list(EXAMS_OF_STUDY, LABELS, FOUND.drop("accession_number"))


def test_K7_X2_the_list_is_written_for_the_hospital_itself(tmp_path: Path) -> None:
    protocol = load_protocol("keio_2017_0018")
    asked = {"today": date(2026, 1, 1), "purpose": "teacher_labels"}
    permission = protocol.gate(
        "export",
        recipient="radiology",
        deliverable="image_list",
        **asked,  # type: ignore[arg-type]
    )
    made = retrieval_list(EXAMS_OF_STUDY, LABELS, FOUND)
    write_retrieval_list(tmp_path / "out", made, protocol=protocol, permission=permission)
    said = read_manifest(tmp_path / "out")
    assert said is not None and verify_manifest(tmp_path / "out") == []
    assert said["counts"] == {"labelled_exams": 3, "exams_listed": 2, "exams_without_uid": 1}
    other = protocol.gate(
        "export",
        recipient="radiology",
        deliverable="teacher_labels",
        **asked,  # type: ignore[arg-type]
    )
    with pytest.raises(RefusedError, match="K7"):
        write_retrieval_list(tmp_path / "no", made, protocol=protocol, permission=other)
    assert not (tmp_path / "no").exists()
