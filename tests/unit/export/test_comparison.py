"""Programs beside readers, from the tables of a study."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import pytest

from reportlabel.evaluate.software import VALUES
from reportlabel.export.comparison import compare_labels, compare_software
from reportlabel.export.deliverable_rules import load_deliverables
from reportlabel.export.skin import DIAGNOSES, LINKS
from reportlabel.protocol import load_protocol
from reportlabel.rulebook.load import load_rules
from reportlabel.schema import EXAM_LABELS, READINGS

CODES = [f"G-00000000A{at}" for at in range(8)]


def read(exam: str, reader: str, label_set: str, finding: str, value: str) -> dict[str, Any]:
    return {
        "exam_id": exam,
        "reader": reader,
        "label_set": label_set,
        "finding": finding,
        "value": value,
        "read_at": datetime(2026, 1, 1),
    }


def test_B5_B6_software_against_readers() -> None:
    protocol, rules = load_protocol("gunma_bone_scan"), load_deliverables().bone_scan
    exams = pl.DataFrame(
        {
            "exam_id": [f"E{at}" for at in range(8)],
            "patient_id": CODES,
            "tracer_id": ["HMDP"] * 6 + ["MDP", None],
        }
    )
    counts = [0, 0, 0, 4, 7, 2, 0, 1]
    readings = pl.DataFrame(
        [
            row
            for at, count in enumerate(counts)
            for reader in ("yamada", "sato", "suzuki")
            for row in (
                read(f"E{at}", reader, rules.label_set, rules.metastasis, "present" if count else "absent"),
                read(f"E{at}", reader, rules.label_set, rules.count, str(count)),
            )
        ],
        schema=READINGS,
    )
    labels = pl.DataFrame(
        [
            {
                "exam_id": f"E{at}",
                "label_set": rules.label_set,
                "finding": rules.metastasis,
                "value": "present" if count or at == 0 else "absent",
            }
            for at, count in enumerate(counts)
        ],
        schema=EXAM_LABELS,
    )
    values = pl.DataFrame(
        [(CODES[at], "HMDP", "VSBONE", "2.0", "Hotspot", float(score)) for at, score in enumerate([0, 1, 0, 5, 6, 1])]
        + [(CODES[7], "MDP", "BoneNAVI", None, "BSI", 1.0), (CODES[0], "MDP", "BoneNAVI", None, "BSI", 1.0)],
        schema=VALUES,
        orient="row",
    )
    made = compare_software(values, exams, labels, readings, protocol, rules)
    figures = made.tables["figures"].filter(pl.col("condition") == 4, pl.col("measure") != "spearman")
    # three with, three without metastases; one of those without is above 0, and ties with the smallest of those with
    assert figures.select("measure", "n_diseased", "n_healthy", "value").rows() == [
        ("roc_area", 3, 3, pytest.approx(8.5 / 9)),
        ("sensitivity", 3, 3, 1.0),
        ("specificity", 3, 3, pytest.approx(2 / 3)),
    ]
    agreement = made.tables["agreement"].filter(pl.col("measure") == "icc_2_1")
    assert agreement.select("readers", "n", "value").rows() == [("reader-01;reader-02;reader-03", 8, 1.0)]
    # a patient without a known tracer, and one who was given the other
    assert sorted(made.inside["rejected"]["number"]) == ["B2", "B4"]
    assert made.inside["disagreements"]["patient_code"].to_list() == CODES[:1]
    assert made.counts["values_in"] == made.counts["values_used"] + made.counts["values_rejected"] == 8
    said = str({name: table.to_dicts() for name, table in made.tables.items()})
    assert not any(word in said for word in ("yamada", "sato", "suzuki", *CODES))


def test_T6_labels_of_reports_beside_dermatologists() -> None:
    rules = load_deliverables().skin
    label_set = load_rules().label_sets[rules.label_set]
    votes = [
        [{"function_id": "rule/melanoma", "kind": "rule", "value": "present", "evidence": "0-3"}],
        # what the specimen itself has said must not count for the program that is judged by the specimen
        [{"function_id": "record/pathology", "kind": "record", "value": "present", "evidence": "C0"}],
        [],
    ]
    labels = pl.DataFrame(
        [
            {
                "exam_id": f"E{at}",
                "label_set": label_set.id,
                "finding": "melanoma",
                "value": "present",
                "evidence": some,
            }
            for at, some in enumerate(votes)
        ],
        schema=EXAM_LABELS,
    )
    readings = pl.DataFrame(
        [read(f"E{at}", "yamada", label_set.id, "melanoma", "present") for at in range(3)], schema=READINGS
    )
    images = pl.DataFrame({"image_id": ["I0", "I1", "I2", "I3"], "exam_id": ["E0", "E1", "E2", "E3"]})
    links = pl.DataFrame(
        [{"image_id": f"I{at}", "record_id": f"C{at}", "role": "pathological"} for at in range(4)], schema=LINKS
    )
    diagnoses = pl.DataFrame(
        [("C0", "melanoma"), ("C1", "melanoma"), ("C2", "dysplastic_naevus"), ("C3", "L40")], DIAGNOSES, orient="row"
    )
    made = compare_labels(labels, readings, images, links, diagnoses, label_set, rules)
    table = made.tables["beside_readers"].filter(pl.col("finding") == "melanoma")
    columns = ("rater", "n_diseased", "n_healthy", "sensitivity", "specificity")
    assert table.select(columns).rows() == [("program", 2, 1, 0.5, 1.0), ("reader-01", 2, 1, 1.0, 0.0)]
    # a category of a code is no diagnosis of the label set
    assert made.counts["exams_with_pathology"] == 3 and made.counts["readers"] == 1
