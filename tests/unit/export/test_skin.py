"""Nine items a picture, and pictures by clinical and by pathological diagnosis."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.consent.attrition import unbalanced
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.export.deliverable_rules import SkinRules, load_deliverables
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.export.skin import (
    DISAGREEMENTS,
    IMAGES,
    INDEX,
    LINKS,
    NINE,
    NineItems,
    diagnosis_index,
    disagreements,
    link_records_to_images,
    nine_items,
    record_diagnoses,
    write_indexes,
    write_nine_items,
)
from reportlabel.protocol import Permission, Protocol, load_protocol
from reportlabel.schema import RECORDS

DAY = date(2015, 5, 10)


@pytest.fixture(scope="module")
def shinshu() -> Protocol:
    return load_protocol("shinshu_skin")


@pytest.fixture(scope="module")
def tohoku() -> Protocol:
    return load_protocol("tohoku_skin")


@pytest.fixture(scope="module")
def rules() -> SkinRules:
    return load_deliverables().skin


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


def image(image_id: str, patient: str = "A", **changed: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "site": "gunma",
        "patient_id": patient,
        "lesion_id": f"{patient}1",
        "kind": "dermoscopy",
        "captured_on": DAY,
        "nationality": "日本",
        "age_years": 61,
        "sex": "F",
        "lesion_site": "背部",
        "lesion_size_mm": 8.5,
        "device": "DermLite",
        **changed,
    }


def images(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=IMAGES)


def record(record_id: str, kind: str, days: int, *, patient: str = "A", **changed: Any) -> dict[str, Any]:
    return {
        "record_id": record_id,
        "kind": kind,
        "site": "gunma",
        "patient_id": patient,
        "start_at": datetime.combine(DAY, datetime.min.time()) + timedelta(days=days, hours=10),
        "certainty": "confirmed" if kind == "diagnosis" else None,
        **changed,
    }


def records(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RECORDS)


def built(
    pictures: pl.DataFrame, history: pl.DataFrame, protocol: Protocol, rules: SkinRules, annotator: Annotator
) -> NineItems:
    links = link_records_to_images(pictures, history, rules)
    return nine_items(pictures, history, links, record_diagnoses(history, annotator, rules), protocol, rules)


# --- diagnoses of records (T3) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"kind": "diagnosis", "name": "悪性黒色腫"}, ["melanoma"]),
        (
            {"kind": "diagnosis", "name": "基底細胞癌", "code_system": "ICD-10", "code": "C44.3"},
            ["basal_cell_carcinoma"],
        ),
        ({"kind": "diagnosis", "name": "悪性黒色腫", "certainty": "suspected"}, []),
        ({"kind": "diagnosis", "name": "尋常性乾癬", "code_system": "ICD-10", "code": "L40.0"}, ["L40"]),
        ({"kind": "diagnosis", "name": None, "code_system": "ICD10", "code": "C439"}, ["melanoma"]),
        ({"kind": "diagnosis", "name": "高血圧症", "code_system": "ICD-10", "code": "I10"}, []),
        ({"kind": "diagnosis", "name": "なにか"}, []),
        ({"kind": "pathology", "name": "皮膚手術材料", "text": "色素性母斑。悪性所見なし。"}, ["melanocytic_naevus"]),
        ({"kind": "pathology", "name": "皮膚手術材料", "text": "悪性黒色腫の所見はありません。"}, []),
        ({"kind": "pathology", "name": "皮膚生検", "text": "脂漏性角化症です。"}, ["seborrhoeic_keratosis"]),
        ({"kind": "lab", "name": "悪性黒色腫"}, []),
        # a malignant growth that is named is not a second, unnamed one
        (
            {
                "kind": "pathology",
                "name": "皮膚生検",
                "text": "有棘細胞癌（左頬部）。\n異型有棘細胞の浸潤を認める。癌真珠形成あり。",
            },
            ["squamous_cell_carcinoma_skin"],
        ),
    ],
)
def test_T3_what_a_record_says(
    rules: SkinRules, annotator: Annotator, changed: dict[str, Any], wanted: list[str]
) -> None:
    found = record_diagnoses(records({**record("r", "diagnosis", 0), **changed}), annotator, rules)
    assert found["diagnosis"].to_list() == wanted


def test_T3_a_finding_that_does_not_exist_is_named(rules: SkinRules, annotator: Annotator) -> None:
    with pytest.raises(ConfigError, match="melanomma"):
        record_diagnoses(records(), annotator, rules.model_copy(update={"diagnoses": ("melanomma",)}))


def test_T3_links_have_source_date_and_distance(rules: SkinRules) -> None:
    history = records(
        record("p", "pathology", 12, body_site="背部"),
        record("d", "diagnosis", -20),
        record("late", "pathology", rules.pathology.after + 1, body_site="skin"),
        record("edge", "pathology", rules.pathology.after, body_site="skin"),
        record("stomach", "pathology", 3, body_site="stomach", name="胃生検", text="印環細胞癌。"),
        record("old", "diagnosis", -rules.clinical.before - 1),
        record("lab", "lab", 0),
        record("other", "pathology", 0, patient="B"),
        record("undated", "pathology", 0, start_at=None),
    )
    links = link_records_to_images(images(image("i")), history, rules)
    assert links.schema == LINKS
    assert links.rows() == [
        ("i", "d", "clinical", DAY - timedelta(days=20), -20, "patient"),
        ("i", "p", "pathological", DAY + timedelta(days=12), 12, "lesion"),
        ("i", "edge", "pathological", DAY + timedelta(days=rules.pathology.after), rules.pathology.after, "patient"),
    ]


def test_S8_a_specimen_of_another_lesion_is_not_of_this_one(rules: SkinRules) -> None:
    two = images(
        image("back"), image("cheek", lesion_id="A2", lesion_site="右頬部"), image("unknown", lesion_site=None)
    )
    history = records(record("p", "pathology", 3, name="皮膚手術材料", text="母斑（右頬部）。"))
    assert dict(link_records_to_images(two, history, rules).select("image_id", "linked_by").iter_rows()) == {
        "cheek": "lesion",
        "unknown": "patient",
    }


# --- S2, S3, S8 -------------------------------------------------------------------------------------------------------


def test_S3_nine_columns_with_value_sets(shinshu: Protocol, rules: SkinRules, annotator: Annotator) -> None:
    pictures = images(
        image("a"),
        image("b", "B", nationality="ブラジル", sex="M", melanoma_history="yes", diagnosis="lentigo"),
        image("c", "C", nationality="Japanese"),
    )
    history = records(
        record("a0", "diagnosis", -400, name="悪性黒色腫"),
        record("a1", "pathology", 9, body_site="背部", text="色素性母斑。"),
        record("a2", "diagnosis", 1, name="脂漏性角化症"),
        record("b1", "pathology", 9, patient="B", name="皮膚生検", text="悪性黒色腫。"),
        record("c1", "diagnosis", 0, patient="C", name="基底細胞癌"),
    )
    made = built(pictures, history, shinshu, rules, annotator)
    assert made.table.columns == ["image_id", "patient_id", "lesion_id", "kind", *NINE]
    assert tuple(shinshu.cohort.complete_items) == NINE
    assert [row[4:] for row in made.table.rows()] == [
        ("japanese", 61, "F", "yes", "背部", 8.5, "melanocytic_naevus", "DermLite", "yes"),
        ("other", 61, "M", "yes", "背部", 8.5, "lentigo", "DermLite", "yes"),
        ("japanese", 61, "F", "no", "背部", 8.5, "basal_cell_carcinoma", "DermLite", "no"),
    ]
    # S8: each item that was worked out names its record
    assert made.evidence.rows() == [
        ("a", "diagnosis", "a1"),
        ("a", "melanoma_history", "a0"),
        ("a", "pathology_done", "a1"),
        ("b", "pathology_done", "b1"),
        ("c", "diagnosis", "c1"),
    ]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("日本", "japanese"),
        (" ＪＰＮ", "japanese"),
        ("Japan", "japanese"),
        ("中国", "other"),
        ("日本人以外", "other"),
        ("不明", None),
        ("", None),
        (None, None),
    ],
)
def test_S3_nationality_is_one_of_two(
    shinshu: Protocol, rules: SkinRules, annotator: Annotator, said: str | None, wanted: str | None
) -> None:
    made = built(
        images(image("a", nationality=said)),
        records(record("d", "diagnosis", 0, name="悪性黒色腫")),
        shinshu,
        rules,
        annotator,
    )
    assert made.table["nationality"].to_list() == ([wanted] if wanted else [])


def test_S2_attrition_from_all_persons_to_the_complete_ones(
    shinshu: Protocol, rules: SkinRules, annotator: Annotator
) -> None:
    pictures = images(
        image("a1"),
        image("a2", lesion_size_mm=None),  # the person has a complete picture; this one is not
        image("b", "B", nationality=None),
        image("c", "C", lesion_size_mm=0.0),
        image("d", "D"),  # without any record: nothing is known of a melanoma, nor of a diagnosis
        image("e", "E", device=" "),
        image("f", "F", age_years=None, nationality=None),
    )
    history = records(
        *(record(who, "diagnosis", 0, patient=who, name="悪性黒色腫") for who in "ABCEF"),
    )
    made = built(pictures, history, shinshu, rules, annotator)
    assert made.table["image_id"].to_list() == ["a1"]
    assert unbalanced(made.attrition) == []
    assert made.attrition.select("step", "rows_in", "rows_out").rows() == [
        ("nationality", 6, 4),
        ("age_years", 4, 4),
        ("sex", 4, 4),
        ("melanoma_history", 4, 3),
        ("lesion_site", 3, 3),
        ("lesion_size_mm", 3, 2),
        ("diagnosis", 2, 2),
        ("device", 2, 1),
        ("pathology_done", 1, 1),
    ]
    assert set(made.attrition["number"]) == {"S2"}
    counts = made.counts
    assert (counts["persons_in"], counts["persons_out"], made.excluded.height) == (6, 1, 5)
    assert counts["images_in"] == sum(
        counts[name] for name in ("images_out", "images_incomplete", "images_of_incomplete_persons")
    )
    assert (counts["persons_expected"], counts["complete_expected"]) == (1537, 1000)


def test_S11_a_picture_stands_once(shinshu: Protocol, rules: SkinRules, annotator: Annotator) -> None:
    with pytest.raises(InputError, match="S11"):
        built(images(image("a"), image("a")), records(), shinshu, rules, annotator)
    with pytest.raises(InputError, match="lacks the columns device"):
        nine_items(
            images(image("a")).drop("device"), records(), pl.DataFrame(schema=LINKS), pl.DataFrame(), shinshu, rules
        )


def test_S3_a_melanoma_of_the_same_day_is_no_history(shinshu: Protocol, rules: SkinRules, annotator: Annotator) -> None:
    made = built(images(image("a")), records(record("d", "diagnosis", 0, name="悪性黒色腫")), shinshu, rules, annotator)
    assert made.table.select("melanoma_history", "diagnosis").row(0) == ("no", "melanoma")


# --- T4 ---------------------------------------------------------------------------------------------------------------


def database() -> tuple[pl.DataFrame, pl.DataFrame]:
    pictures = images(image("a1"), image("a2"), image("b", "B"), image("c", "C"), image("d", "D"))
    history = records(
        record("ac", "diagnosis", 0, name="悪性黒色腫"),
        record("ap", "pathology", 5, body_site="skin", text="色素性母斑。"),
        record("bc", "diagnosis", 0, patient="B", name="基底細胞癌"),
        record("bp", "pathology", 5, patient="B", body_site="skin;left", text="基底細胞癌。"),
        record("cc", "diagnosis", 0, patient="C", name="尋常性乾癬", code_system="ICD-10", code="L400"),
    )
    return pictures, history


def test_T4_two_indexes_and_the_disagreements(rules: SkinRules, annotator: Annotator) -> None:
    pictures, history = database()
    links = link_records_to_images(pictures, history, rules)
    diagnoses = record_diagnoses(history, annotator, rules)
    clinical = diagnosis_index(pictures, links, diagnoses, role="clinical")
    assert clinical.schema == INDEX
    assert clinical.rows() == [
        ("melanoma", 1, 2, ["a1", "a2"]),
        ("L40", 1, 1, ["c"]),
        ("basal_cell_carcinoma", 1, 1, ["b"]),
        (None, 1, 1, ["d"]),
    ]
    pathological = diagnosis_index(pictures, links, diagnoses, role="pathological")
    assert pathological.rows() == [
        ("melanocytic_naevus", 1, 2, ["a1", "a2"]),
        ("basal_cell_carcinoma", 1, 1, ["b"]),
        (None, 2, 2, ["c", "d"]),
    ]
    apart = disagreements(pictures, links, diagnoses)
    assert apart.schema == DISAGREEMENTS
    assert apart.rows() == [(name, "A", "A1", ["melanoma"], ["melanocytic_naevus"]) for name in ("a1", "a2")]


# --- files ------------------------------------------------------------------------------------------------------------


def allowed(protocol: Protocol, **what: str) -> Permission:
    return protocol.gate("export", today=date(2024, 1, 1), **what)  # type: ignore[arg-type]


def test_X2_S5_T8_the_folders(
    shinshu: Protocol, tohoku: Protocol, rules: SkinRules, annotator: Annotator, tmp_path: Path
) -> None:
    pictures, history = database()
    links = link_records_to_images(pictures, history, rules)
    diagnoses = record_diagnoses(history, annotator, rules)
    made = nine_items(pictures, history, links, diagnoses, shinshu, rules)
    permission = allowed(shinshu, recipient="shinshu_university", purpose="data_set", deliverable="nine_items")
    write_nine_items(tmp_path / "nine", made, protocol=shinshu, permission=permission)
    inside = allowed(tohoku, recipient="dermatology", purpose="image_database", deliverable="index")
    write_indexes(tmp_path / "index", pictures, links, diagnoses, protocol=tohoku, permission=inside)
    for name, study in (("nine", shinshu), ("index", tohoku)):
        said = read_manifest(tmp_path / name)
        assert said is not None and said["protocol"] == study.id and said["counts"]
        assert verify_manifest(tmp_path / name) == []
    held = (tmp_path / "nine/nine_items.csv").read_text(encoding="utf-8-sig")
    assert held.count("\n") == made.table.height + 1
    # records stay inside, and dates are relative in both studies
    for path in tmp_path.rglob("*.csv"):
        text = path.read_text(encoding="utf-8-sig")
        assert "2015" not in text
    with pytest.raises(RefusedError, match="T8"):
        allowed(tohoku, recipient="shinshu_university", purpose="image_database", deliverable="index")
    with pytest.raises(RefusedError, match="S5"):
        write_nine_items(tmp_path / "no", made, protocol=shinshu, permission=inside)
