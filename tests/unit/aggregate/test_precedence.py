"""From texts to labels of a label set: precedence, unions, limits, derived labels and values."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.aggregate.precedence import label_reports
from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.flow import label_batch
from reportlabel.rulebook.models import ValueEntry
from reportlabel.schema import LABELS, MENTIONS

STRENGTH = {"present": 3, "uncertain": 2, "absent": 1, "not_mentioned": 0}


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


def values(annotator: Annotator, label_set: str, text: str) -> dict[str, str]:
    reports = pl.DataFrame({"report_id": ["r"], "text": [text]})
    labels = label_batch(reports, annotator, annotator.rules.label_sets[label_set]).labels
    return dict(labels.select("finding", "value").iter_rows())


STATEMENTS = {
    "右上葉に結節を認めます。": "present",
    "左下葉に結節を疑います。": "uncertain",
    "右中葉に結節は認めません。": "absent",
    "肺野は清明です。": "not_mentioned",
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(STATEMENTS)), min_size=1, max_size=5))
def test_the_strongest_statement_wins(annotator: Annotator, sentences: list[str]) -> None:
    strongest = max((STATEMENTS[sentence] for sentence in sentences), key=STRENGTH.__getitem__)
    assert values(annotator, "lung_ct", "\n".join(sentences))["nodule_or_mass"] == strongest


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(sorted(STATEMENTS)), max_size=4), st.sampled_from(sorted(STATEMENTS)))
def test_one_more_statement_never_weakens_a_label(annotator: Annotator, sentences: list[str], more: str) -> None:
    before = values(annotator, "lung_ct", "\n".join(sentences) or " ")["nodule_or_mass"]
    after = values(annotator, "lung_ct", "\n".join([*sentences, more]))["nodule_or_mass"]
    assert STRENGTH[after] >= STRENGTH[before]


def test_every_report_has_every_label(annotator: Annotator) -> None:
    label_set = annotator.rules.label_sets["lung_ct"]
    labels = label_reports(pl.Series(["a", "b"]), pl.DataFrame(schema=MENTIONS), label_set, annotator.rules)
    assert labels.schema == LABELS
    assert labels["report_id"].to_list() == ["a"] * 27 + ["b"] * 27
    assert labels["finding"].to_list()[:2] == ["nodule_or_mass", "ground_glass"]
    assert set(labels["value"]) == {"not_mentioned"}
    assert labels["evidence"].list.len().sum() == 0


@pytest.mark.parametrize(
    ("label_set", "text", "expected"),
    [
        ("lung_ct", "右上葉にすりガラス結節を認めます。", {"nodule_or_mass": "present", "ground_glass": "present"}),
        ("lung_ct", "間質性肺炎を認めます。", {"interstitial_lung_disease": "present", "pneumonia": "not_mentioned"}),
        ("ct_rate_18", "浸潤影なし。", {"consolidation": "absent", "lung_opacity": "absent"}),
        ("brain_mri", "出血や梗塞は認めません。", {"acute_infarction": "absent", "intracranial_haemorrhage": "absent"}),
        ("chexpert_14", "異常所見なし。", {"no_finding": "present"}),
        ("chexpert_14", "右胸水を認めます。その他異常なし。", {"no_finding": "absent", "pleural_effusion": "present"}),
        (
            "bone_scintigraphy",
            "膝に変性による集積を認めます。",
            {"degenerative_uptake": "present", "abnormal_uptake": "present"},
        ),
        ("mammography", "腋窩リンパ節腫大を認めます。", {"axillary_lymphadenopathy": "present"}),
        ("mammography", "縦隔リンパ節腫大を認めます。", {"axillary_lymphadenopathy": "not_mentioned"}),
        ("mammography", "カテゴリー4。", {"category": "4"}),
        ("bone_scintigraphy", "EOD 2です。", {"eod": "2"}),
        ("bone_scintigraphy", "L3椎体に骨転移を認めます。", {"n_metastases": "1", "metastasis_sites": "lumbar_spine"}),
        ("bone_scintigraphy", "多発骨転移を認めます。", {"n_metastases": "many"}),
        ("bone_scintigraphy", "骨転移は認めません。", {"n_metastases": "not_mentioned"}),
    ],
)
def test_labels_of_a_set(annotator: Annotator, label_set: str, text: str, expected: dict[str, str]) -> None:
    labels = values(annotator, label_set, text)
    assert {finding: labels[finding] for finding in expected} == expected


@pytest.mark.parametrize(
    ("text", "size", "side", "lobe"),
    [
        ("右上葉に18×15mmの結節を認め、肺癌を疑います。", "18", "right", "upper"),
        ("左下葉に結節を認めます。長径は12mmです。肺癌を疑います。", "12", "left", "lower"),
        ("右S4に2.4cm大の腫瘤を認め、肺癌と考えます。", "24", "right", "middle"),
        ("左S4に20mmの腫瘤を認め、肺癌と考えます。", "20", "left", "lingula"),
        ("左肺門部に腫瘤を認めます。", "not_mentioned", "left", "hilum"),
        ("右肺尖部の結節は前回9mm、今回12mmです。肺癌を疑います。", "12", "right", "upper"),
        ("右下葉に8mmの結節、左上葉に30mmの腫瘤を認めます。", "30", "left", "upper"),
        ("既知の左下葉肺癌は増大（32mm→41mm）。#7リンパ節は12mm大に腫大。", "41", "left", "lower"),
        ("胸水を認めます。", "not_mentioned", "not_mentioned", "not_mentioned"),
        ("右上葉に結節は認めません。", "not_mentioned", "not_mentioned", "not_mentioned"),
    ],
)
def test_primary_tumour(annotator: Annotator, text: str, size: str, side: str, lobe: str) -> None:
    labels = values(annotator, "lung_ct", text)
    assert (labels["primary_size_mm"], labels["primary_side"], labels["primary_lobe"]) == (size, side, lobe)


def test_the_evidence_is_that_of_the_value(annotator: Annotator) -> None:
    text = "右上葉に結節を認めます。左肺に結節はありません。"
    reports = pl.DataFrame({"report_id": ["r"], "text": [text]})
    labels = label_batch(reports, annotator, annotator.rules.label_sets["lung_ct"]).labels
    (evidence,) = labels.filter(pl.col("finding") == "nodule_or_mass")["evidence"].to_list()
    assert [(item["start"], item["end"], item["surface"]) for item in evidence] == [(4, 6, "結節")]


def test_an_unknown_value_is_an_error(annotator: Annotator) -> None:
    label_set = annotator.rules.label_sets["lung_ct"]
    wrong = ValueEntry(id="x", name=label_set.name, value_of="primary_tumour.colour")
    broken = label_set.model_copy(update={"values": [wrong]})
    with pytest.raises(ConfigError, match=r"primary_tumour\.colour"):
        label_reports(pl.Series(["a"]), pl.DataFrame(schema=MENTIONS), broken, annotator.rules)
