"""Record votes: what is compared, what is read, what is counted, and what never depends on chance."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.link.windows import link_records
from reportlabel.rulebook.linked import LinkedRules, load_linked
from reportlabel.rulebook.load import rules_folder
from reportlabel.schema import EXAM_VOTES, EXAMS, RECORDS
from reportlabel.vote.records import record_votes, text_reader, unconverted_units

DAY = datetime(2024, 5, 10, 14, 30)
CRP = {"kind": "lab", "code_system": "JLAC10", "code": "5C070000002306201", "name": "CRP"}
BIOPSY = {"kind": "pathology", "name": "肺生検", "body_site": "肺"}


class Scene:
    """The shipped rules, and one patient with one exam a label set."""

    def __init__(self) -> None:
        self.main = Annotator()
        self.linked = load_linked(rules_folder())
        self.reader = text_reader(self.main, self.linked)

    def votes(
        self,
        *records: dict[str, Any],
        label_set: str = "lung_ct",
        linked: LinkedRules | None = None,
        annotator: Annotator | None = None,
        **exam: Any,
    ) -> pl.DataFrame:
        linked = linked or self.linked
        exams = pl.DataFrame(
            [dict.fromkeys(EXAMS.names()) | {"exam_id": "E", "patient_id": "P", "started_at": DAY} | exam], schema=EXAMS
        )
        table = records_table(*records)
        signed = pl.DataFrame({"exam_id": ["E"], "signed_at": [DAY + timedelta(hours=2)]})
        return record_votes(
            exams,
            table,
            link_records(exams, table, linked.windows, signed=signed),
            scope=pl.DataFrame({"exam_id": ["E"], "label_set": [label_set]}),
            label_sets=self.main.rules.label_sets,
            rules=self.main.rules,
            linked=linked,
            annotator=annotator or self.reader,
        )

    def said(self, *records: dict[str, Any], label_set: str = "lung_ct", **exam: Any) -> dict[str, str]:
        votes = self.votes(*records, label_set=label_set, **exam)
        return dict(votes.select("finding", "value").iter_rows())


def records_table(*records: dict[str, Any]) -> pl.DataFrame:
    rows = [
        dict.fromkeys(RECORDS.names())
        | {"record_id": f"K{at}", "patient_id": "P"}
        | {"start_at": DAY + timedelta(days=record.get("days", 0))}
        | {key: value for key, value in record.items() if key != "days"}
        for at, record in enumerate(records)
    ]
    return pl.DataFrame(rows, schema=RECORDS)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


def test_a_vote_says_why_and_when_it_was_known(scene: Scene) -> None:
    late = {**BIOPSY, "days": 8, "text": "肺（左下葉S8）、経気管支肺生検：Adenocarcinoma"}
    early = {**CRP, "days": -1, "value": 0.05, "unit": "mg/dL"}
    votes = scene.votes(late, early)
    assert votes.schema == EXAM_VOTES
    [cancer] = votes.filter(pl.col("finding") == "lung_cancer").to_dicts()
    assert cancer == {
        "exam_id": "E",
        "label_set": "lung_ct",
        "finding": "lung_cancer",
        "function_id": "record/pathology_lung_carcinoma",
        "value": "present",
        "confidence": 0.9,
        "group": "pathology_lung",
        "kind": "record",
        "evidence": "K0",
        "available_at_reading": False,
    }
    [pneumonia] = votes.filter(pl.col("finding") == "pneumonia").to_dicts()
    assert (pneumonia["evidence"], pneumonia["available_at_reading"]) == ("K1", True)


@pytest.mark.parametrize(
    ("value", "unit", "fires"),
    [
        (0.2, "mg/dL", True),
        (0.2, "㎎/㎗", True),
        (2.0, "mg/L", True),
        (0.3, "mg/dL", False),
        (4.0, "mg/L", False),
        (0.2, None, False),
        (0.2, "U/L", False),
        (0.2, "錠", False),
    ],
)
def test_numbers_are_compared_in_one_unit(scene: Scene, value: float, unit: str | None, fires: bool) -> None:
    assert ("pneumonia" in scene.said({**CRP, "value": value, "unit": unit})) == fires


@pytest.mark.parametrize(("sign", "value", "fires"), [("<", 0.1, True), (">", 0.1, False), ("", 0.1, True)])
def test_a_comparator_says_on_which_side_the_number_lies(scene: Scene, sign: str, value: float, fires: bool) -> None:
    record = {**CRP, "value": value, "unit": "mg/dL", "text": sign}
    assert ("pneumonia" in scene.said(record)) == fires


def test_what_cannot_be_converted_is_counted(scene: Scene) -> None:
    records = records_table(
        {**CRP, "value": 0.1, "unit": "mg/dL"},
        {**CRP, "value": 0.1, "unit": None},
        {**CRP, "value": 0.1, "unit": "mmol/L"},
        {**CRP, "value": None, "unit": None, "text": "(-)"},
        {"kind": "diagnosis", "code_system": "ICD-10", "code": "C349"},
    )
    counted = unconverted_units(records, scene.linked)
    low = counted.filter(pl.col("function_id") == "record/lab_crp_low")
    assert low.select("unit", "n").rows() == [("", 1), ("mmol/L", 1)]
    assert set(counted["function_id"]) == {"record/lab_crp_low", "record/lab_crp_high_chest"}
    assert unconverted_units(records.clear(), scene.linked).is_empty()


@pytest.mark.parametrize(
    ("text", "votes"),
    [
        ("肺腺癌（右下葉、生検材料）。", "present"),
        ("Lung, TBLB: Adenocarcinoma. TTF-1(+)、p40(-)、断端陰性", "present"),
        ("扁平上皮癌、深部断端陰性。", "present"),
        ("腺癌の疑いがあります。", "uncertain"),
        ("悪性所見なし。", "absent"),
        ("No evidence of malignancy.", "absent"),
        ("腺癌の転移に矛盾しない。", None),
        ("肺胞組織のみ。", None),
    ],
)
def test_pathology_is_read_by_the_assertion_code(scene: Scene, text: str, votes: str | None) -> None:
    assert scene.said({**BIOPSY, "text": text, "days": 3}).get("lung_cancer") == votes


@pytest.mark.parametrize(
    ("organ", "order", "fires"),
    [
        ("乳腺;left", "マンモグラフィ", True),
        ("乳腺;left", "左マンモグラフィ", True),
        ("乳腺;left", "右マンモグラフィ", False),
        ("乳腺;bilateral", "右マンモグラフィ", True),
        ("左乳房", "右マンモグラフィ", False),
        ("乳腺", "右マンモグラフィ", True),
        ("胃", "マンモグラフィ", False),
        (None, "マンモグラフィ", True),
    ],
)
def test_organ_and_side_must_match(scene: Scene, organ: str | None, order: str, fires: bool) -> None:
    record = {"kind": "pathology", "name": "乳腺針生検", "body_site": organ, "text": "浸潤性乳管癌。", "days": 5}
    assert ("breast_cancer" in scene.said(record, label_set="mammography", order_name=order)) == fires


def test_a_denied_cancer_denies_no_nodule(scene: Scene) -> None:
    record = {**BIOPSY, "name": "肺手術材料", "text": "Granuloma. No malignancy.", "days": 20}
    assert scene.said(record) == {"lung_cancer": "absent", "nodule_or_mass": "present"}
    assert scene.said(record, label_set="chexpert_14") == {}


def test_a_suspected_diagnosis_is_uncertain(scene: Scene) -> None:
    diagnosis = {"kind": "diagnosis", "code_system": "ICD-10", "code": "J84.9", "name": "間質性肺炎"}
    assert scene.said({**diagnosis, "certainty": "confirmed"}) == {"interstitial_lung_disease": "present"}
    assert scene.said({**diagnosis, "certainty": "suspected"}) == {"interstitial_lung_disease": "uncertain"}


def test_numbers_in_texts(scene: Scene) -> None:
    echo = {"kind": "physiology", "name": "経胸壁心エコー検査"}
    assert scene.said({**echo, "text": "LVDd 62 mm、LVDs 50 mm"}) == {"cardiomegaly": "present"}
    assert scene.said({**echo, "text": "LVDs 62 mm"}) == {}
    assert scene.said({**echo, "text": "ＬＶＤｄ：６．２ｃｍ"}) == {"cardiomegaly": "present"}
    assert scene.said({**echo, "text": "LVDd 62"}) == {}
    assert scene.said({**echo, "text": "LVDd 62 LVDs 40 mm"}) == {}
    assert scene.said({**echo, "text": "HR=72/min;LVDd=62mm;LVDs=40mm"}) == {"cardiomegaly": "present"}
    assert scene.said({**echo, "name": "LVDd", "value": 45.0, "unit": "mm"}) == {"cardiomegaly": "absent"}


@pytest.mark.parametrize(
    "text", ["右ABI 0.61、左ABI 1.02", "ABI_right=0.61;baPWV_right=1720 cm/s", "ABI 0.61 PWV 1720"]
)
def test_pure_numbers_in_texts(scene: Scene, text: str) -> None:
    record = {"kind": "physiology", "name": "血圧脈波検査", "text": text}
    assert scene.said(record, label_set="angiography_ivr") == {"arterial_stenosis": "present"}


def test_windows_can_be_changed(scene: Scene) -> None:
    late = {**BIOPSY, "days": 300, "text": "肺腺癌（右下葉、生検材料）。"}
    assert scene.votes(late).is_empty()
    changed = scene.linked.with_windows({"pathology": {"after": 365}})
    assert not scene.votes(late, linked=changed).is_empty()
    assert changed.windows != scene.linked.windows
    wrongs: list[dict[str, dict[str, Any]]] = [
        {"none": {}},
        {"pathology": {"afterwards": 3}},
        {"pathology": {"choice": "some"}},
        {"pathology": {"id": "other"}},
    ]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="windows: "):
            scene.linked.with_windows(wrong)


def test_the_main_annotator_serves_as_well(scene: Scene) -> None:
    record = {**BIOPSY, "text": "肺腺癌（右下葉、生検材料）。", "days": 3}
    assert scene.votes(record, annotator=scene.main).equals(scene.votes(record))


def test_nothing_gives_nothing(scene: Scene) -> None:
    assert scene.votes().schema == EXAM_VOTES
    assert scene.votes(linked=LinkedRules()).is_empty()
    assert scene.votes({**BIOPSY, "name": None, "body_site": None, "text": None}).is_empty()


def test_rules_travel_to_workers(scene: Scene) -> None:
    record = {**CRP, "value": 0.1, "unit": "mg/dL"}
    copied = pickle.loads(pickle.dumps(scene.linked))
    assert scene.votes(record, linked=copied).equals(scene.votes(record))


@settings(max_examples=8, deadline=None)
@given(
    records=st.lists(
        st.sampled_from(
            [
                {**CRP, "value": 0.05, "unit": "mg/dL"},
                {**CRP, "value": 14.0, "unit": "mg/dL", "days": -2},
                {**BIOPSY, "text": "悪性所見なし。", "days": 2},
                {**BIOPSY, "text": "肺腺癌（右下葉、生検材料）。", "days": 9},
                {"kind": "diagnosis", "code_system": "ICD-10", "code": "J849", "certainty": "confirmed", "days": -900},
                {"kind": "surgery", "code_system": "K", "code": "K514-2 3", "days": 30},
                {"kind": "unheard", "text": "x"},
            ]
        ),
        max_size=8,
    ),
    order=st.randoms(use_true_random=False),
)
def test_order_does_not_matter_and_votes_are_single(scene: Scene, records: list[dict[str, Any]], order: Any) -> None:
    named = [{**record, "record_id": f"R{at}"} for at, record in enumerate(records)]
    votes = scene.votes(*named)
    shuffled = list(named)
    order.shuffle(shuffled)
    assert scene.votes(*shuffled).equals(votes)
    assert votes.select("exam_id", "label_set", "finding", "function_id", "evidence").is_duplicated().sum() == 0
    assert votes["value"].is_in(["present", "uncertain", "absent"]).all()
    assert votes["confidence"].is_between(0, 1).all()


# --- rule files -------------------------------------------------------------------------------------------------------

RULE = """
kind: lab
windows:
  - {id: week, before: 7, after: 7, reason: test}
rules:
  - id: one
    window: week
    group: some
    confidence: 0.5
    reason: test
    when: {names: [CRP], value: {above: 1, unit: mg/dL}}
    votes: [{finding: pneumonia, value: present}]
    examples:
      - {exam: {label_set: lung_ct}, record: {name: CRP}, votes: {pneumonia: present}}
      - {exam: {label_set: lung_ct}, record: {name: CRP}, votes: {}}
"""


def folder_with(tmp_path: Path, text: str, name: str = "lab.yaml") -> Path:
    shipped = rules_folder()
    for place in ("findings", "label_sets", "anatomy.yaml"):
        (tmp_path / place).symlink_to(shipped / place)
    (tmp_path / "linked").mkdir()
    for place in ("words.yaml", "units.yaml"):
        (tmp_path / "linked" / place).symlink_to(shipped / "linked" / place)
    (tmp_path / "linked" / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_right_file_is_read(tmp_path: Path) -> None:
    linked = load_linked(folder_with(tmp_path, RULE))
    assert [(window.rule_id, window.names) for window in linked.windows] == [("week", ("CRP",))]
    assert linked.functions().row(0) == ("record/one", "some", "lab", True, "counts")
    assert load_linked(tmp_path / "findings") == LinkedRules()


SHAPES = (
    ("reason: test}", "reason: test, wide: 3}", "lab.yaml:4: unknown key 'wide'"),
    (
        "{above: 1, unit",
        "{unit",
        "lab.yaml:11: rules.0.when.value: Value error, needs above, at_least, below or at_most",
    ),
    ("finding: pneumonia, ", "label_set: lung_ct, ", "needs either finding, or label_set and label"),
)
MEANINGS = (
    ("window: week", "window: year", "lab.yaml:7: one: there is no window 'year'"),
    ("finding: pneumonia", "finding: sneeze", "lab.yaml:12: one: there is no finding 'sneeze'"),
    ("unit: mg/dL", "unit: spoons", "lab.yaml:11: one: unit 'spoons' is not known"),
    ("votes: {pneumonia: present}", "votes: {}", "lab.yaml:13: one: needs an example that fires and one that does not"),
    ("when: {names: [CRP], value", "when: {unless: [flu], value", "lab.yaml:11: one: unless: 'flu' is not known"),
    ("group: some", "group: diagnosis", "lab.yaml:8: one: the group of diagnoses, and of nothing else"),
    ("kind: lab", "kind: surgery", "lab.yaml:2: kind 'surgery' must equal the file name"),
    ("value: present}]", "value: as_read}]", "lab.yaml:12: one: value as_read needs when.says, and one_way: false"),
    ("value: as_read}]", "value: as_read, site: moon}]", "lab.yaml:12: one: anatomy.yaml has no site 'moon'"),
)


@pytest.mark.parametrize("faults", [SHAPES, MEANINGS])
def test_all_faults_are_told_with_file_and_line(tmp_path: Path, faults: tuple[tuple[str, str, str], ...]) -> None:
    text = RULE
    for right, wrong, _ in faults:
        assert right in text
        text = text.replace(right, wrong, 1)
    with pytest.raises(ConfigError) as error:
        load_linked(folder_with(tmp_path, text))
    for _, _, told in faults:
        assert told in str(error.value)


def test_a_rule_means_some_records(tmp_path: Path) -> None:
    text = RULE.replace("names: [CRP], value", "value").replace("finding: pneumonia", "label_set: lung_ct, label: cold")
    with pytest.raises(ConfigError) as error:
        load_linked(folder_with(tmp_path, text))
    for told in ("says of no record that it is meant", "label set 'lung_ct' has no label 'cold'"):
        assert told in str(error.value)


def test_a_diagnosis_is_never_sure(tmp_path: Path) -> None:
    text = RULE.replace("kind: lab", "kind: diagnosis").replace("confidence: 0.5", "confidence: 0.7")
    with pytest.raises(ConfigError) as error:
        load_linked(folder_with(tmp_path, text, "diagnosis.yaml"))
    for told in ("at most 0.6", "is 'diagnosis'", "sole: never"):
        assert told in str(error.value)
