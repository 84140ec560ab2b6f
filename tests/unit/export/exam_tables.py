"""Small tables of a workspace: exams of invented patients and labels drawn by chance from a seed."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from reportlabel.rulebook.models import ExamKind, LabelEntry, LabelSet, Name, ValueEntry
from reportlabel.schema import EXAM_LABELS, EXAM_VOTES, EXAMS

SITES = ("north", "south")
P = {"present": 0.9, "uncertain": 0.4, "absent": 0.05, "not_mentioned": 0.02}


def entry(name: str, **more: Any) -> LabelEntry:
    return LabelEntry(id=name, name=Name(ja=name, en=name.replace("_", " ").capitalize()), any_of=[name], **more)


def label_set(name: str, *findings: LabelEntry, values: tuple[str, ...] = ()) -> LabelSet:
    return LabelSet(
        id=name,
        name=Name(ja=name, en=f"Set {name}"),
        source="a test",
        region="chest",
        exams=[ExamKind(modality_classes=["CT"])],
        precedence=["present", "uncertain", "absent"],
        findings=list(findings),
        values=[ValueEntry(id=one, name=Name(ja=one, en=one), value_of="primary_tumour") for one in values],
    )


SMALL = label_set(
    "small",
    entry("effusion", uncertain_as="ones"),
    entry("nodule", uncertain_as="soft"),
    entry("normal", none_of_others=True),
    values=("size",),
)


def exams(n: int = 40, *, patients: int = 15, seed: int = 1) -> pl.DataFrame:
    chance = random.Random(seed)
    rows = [
        {
            "exam_id": f"E{number:04d}",
            "patient_id": f"P{chance.randrange(patients):03d}",
            "site": chance.choice(SITES),
            "started_at": datetime(2024, 1, 1) + timedelta(days=number),
            "modality": "CT",
            "modality_class": chance.choice(["CT", "XR"]),
            "study_instance_uid": f"2.25.{number + 1}",
            "accession_number": f"A{number}",
            "age_years": 20 + number % 60,
            "sex": chance.choice(["M", "F", "O", None]),
        }
        for number in range(n)
    ]
    return pl.DataFrame(rows, schema=EXAMS)


def labels(of: pl.DataFrame, *sets: LabelSet, seed: int = 2) -> pl.DataFrame:
    chance = random.Random(seed)
    rows = []
    for exam_id in of["exam_id"]:
        for one in sets:
            for finding in one.findings:
                value = chance.choice(list(P))
                rows.append(label_row(exam_id, one.id, finding.id, value, review=chance.random() < 0.1))
            rows += [
                label_row(exam_id, one.id, value.id, chance.choice(["12.0", "not_mentioned"]), p=None)
                for value in one.values
            ]
    chance.shuffle(rows)
    return pl.DataFrame(rows, schema=EXAM_LABELS)


def label_row(
    exam_id: str, label_set: str, finding: str, value: str, *, p: float | None = -1, review: bool = False
) -> dict[str, Any]:
    return {
        "exam_id": exam_id,
        "label_set": label_set,
        "finding": finding,
        "value": value,
        "p_present": P.get(value) if p == -1 else p,
        "conflict": False,
        "n_votes": 1,
        "method": "reader" if review else "precedence",
        "review_state": "reviewed" if review else "unreviewed",
        "evidence": [
            {"function_id": "rule", "kind": "rule", "value": value, "evidence": "3-9"},
            {"function_id": "record/biopsy", "kind": "record", "value": value, "evidence": "R-7"},
        ],
        "rules_hash": "a" * 64,
        "model_version": "1",
        "run_id": "run",
    }


def images(of: pl.DataFrame, *, per_exam: int = 2) -> pl.DataFrame:
    rows = [
        {"exam_id": exam_id, "series_instance_uid": f"{exam_id}.{number}", "path": f"images/{exam_id}_{number}.npy"}
        for exam_id in of["exam_id"]
        for number in range(per_exam)
    ]
    return pl.DataFrame(rows).with_row_index("row", offset=1)


def votes(of: pl.DataFrame, *sets: LabelSet, seed: int = 3) -> pl.DataFrame:
    chance = random.Random(seed)
    rows = [
        {
            "exam_id": exam_id,
            "label_set": one.id,
            "finding": finding.id,
            "function_id": f"f{number}",
            "value": chance.choice(["present", "absent"]),
            "confidence": 0.8,
            "group": None,
            "kind": chance.choice(["rule", "bert", "record", "reader"]),
            "evidence": f"R{chance.randrange(1000)}",
            "available_at_reading": chance.choice([True, False, None]),
        }
        for exam_id in of["exam_id"]
        for one in sets
        for finding in one.findings
        for number in range(3)
    ]
    return pl.DataFrame(rows, schema=EXAM_VOTES)
