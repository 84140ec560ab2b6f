"""What an exam is, and which label sets fit it."""

from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import ConfigError
from reportlabel.rulebook.exams import label_sets_of, load_exam_rules, scope_of
from reportlabel.rulebook.load import load_rules

READER = load_exam_rules()
LABEL_SETS = load_rules().label_sets


@pytest.mark.parametrize(
    ("modality", "order", "part", "modality_class", "body_part", "label_sets"),
    [
        ("CT", "胸部単純CT", None, "CT", "CHEST", ["ct_rate_18", "lung_ct"]),
        ("CT", "頸部〜骨盤造影CT", None, "CT", "CHEST", ["abdomen_ct", "ct_rate_18", "lung_ct"]),
        ("CT", "体幹部CT", None, "CT", "WHOLEBODY", ["abdomen_ct", "brain_mri", "ct_rate_18", "lung_ct"]),
        ("CT", "腰椎CT", "CHEST", "CT", "SPINE", []),
        ("CT", None, "chest", "CT", "CHEST", ["ct_rate_18", "lung_ct"]),
        ("CT", None, None, "CT", None, []),
        ("CR", "胸部Ｘ線（正面）", None, "XR", "CHEST", ["chexpert_14"]),
        ("DX", "胃部X線検査", None, "RF", "STOMACH", ["gi_fluoroscopy"]),
        ("RF", "注腸造影", None, "RF", "COLON", ["gi_fluoroscopy"]),
        ("MG", "マンモグラフィ", None, "XR", "BREAST", ["mammography"]),
        ("US", "乳腺エコー", None, "US", "BREAST", ["mammography"]),
        ("US", "腹部エコー", None, "US", "ABDOMEN", ["abdominal_ultrasound"]),
        ("MR", "頭部MRI・MRA", None, "MRI", "HEAD", ["brain_mri"]),
        ("PT", "FDG-PET/CT", None, "NM", "WHOLEBODY", ["pet_ct"]),
        ("NM", "全身骨シンチ", None, "NM", "WHOLEBODY", ["bone_scintigraphy"]),
        ("XA", "下肢血管造影・PTA", None, "XA", "LEG", ["angiography_ivr"]),
        ("OT", "ダーモスコピー", None, "OT", "SKIN", ["skin_tumour"]),
        ("XY", "何か", "HEAD", "OT", "HEAD", []),
    ],
)
def test_kinds_of_exams(
    modality: str,
    order: str | None,
    part: str | None,
    modality_class: str,
    body_part: str | None,
    label_sets: list[str],
) -> None:
    seen = READER.see(modality, order, None, part)
    assert (seen.modality_class, seen.body_part) == (modality_class, body_part)
    assert label_sets_of(modality, seen.modality_class, seen.regions, LABEL_SETS) == label_sets


def test_every_label_set_fits_some_exam_and_scope_keeps_the_order_of_exams() -> None:
    exams = pl.DataFrame(
        [
            ("b", "CT", "CT", "胸部CT", None, None),
            ("a", "MR", "MRI", "腰椎MRI", None, None),
            ("c", "CT", "CT", None, None, "CHEST"),
        ],
        schema=["exam_id", "modality", "modality_class", "order_name", "protocol_name", "body_part"],
        orient="row",
    )
    scope = scope_of(exams, LABEL_SETS, READER)
    assert scope.rows() == [("b", "ct_rate_18"), ("b", "lung_ct"), ("c", "ct_rate_18"), ("c", "lung_ct")]
    assert scope_of(exams.clear(), LABEL_SETS, READER).is_empty()
    assert all(label_set.exams for label_set in LABEL_SETS.values())


def test_a_region_that_is_no_region_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        load_exam_rules(tmp_path)
    (tmp_path / "exams.yaml").write_text(
        "modality_classes: []\nstrongest: []\nregions:\n"
        "  - {id: chest, body_part: CHEST, parts: [], words: [], within: [torso]}\n"
    )
    with pytest.raises(ConfigError, match=r"exams\.yaml:4.*torso"):
        load_exam_rules(tmp_path)
    (tmp_path / "exams.yaml").write_text("modality_classes: []\nstrongest: []\nregions: []\ncolour: red\n")
    with pytest.raises(ConfigError, match=r"exams\.yaml:4.*colour"):
        load_exam_rules(tmp_path)
