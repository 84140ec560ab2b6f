"""One patient made by hand, with one of everything a writer has to write, and the sites of the hospital.

Offsets of gold are looked up in the text, so that a test can change the text. `written_patient` takes the site and the
number; nothing else differs between two patients but what identifies them.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from reportlabel.synth.patient import (
    Canary,
    Exam,
    GoldLabel,
    GoldMention,
    GoldState,
    IdentifierSpan,
    Identity,
    PatientFile,
    Record,
    Refusal,
    Report,
    Site,
    Stay,
)

SITES = {
    "aoba": Site(
        id="aoba",
        name="青葉坂総合病院",
        english="AOBAZAKA GENERAL HOSPITAL",
        facility_code="139900101",
        insurance_number="1319990101",
        address="東京都陽光市青葉坂2丁目14番7号",
        phone="042-900-0001",
    ),
    "minato": Site(
        id="minato",
        name="湊ヶ浜大学附属病院",
        english="MINATOGAHAMA UNIVERSITY HOSPITAL",
        facility_code="149900202",
        insurance_number="1419990202",
        address="神奈川県湊ヶ浜市汐見町88番地",
        phone="046-900-0002",
    ),
    "sato": Site(
        id="sato",
        name="里山記念病院",
        english="SATOYAMA MEMORIAL HOSPITAL",
        facility_code="119900303",
        insurance_number="1119990303",
        address="埼玉県緑野市里山1番地の3",
        phone="048-900-0003",
    ),
}

FINDINGS_1 = (
    "右肺S3に12㎜大の結節を認めます。胸膜陥入（＋）、spicula & vascular convergenceを伴います。\n"
    "縦隔リンパ節：①気管前〜②分岐下に短径<10mmのものを散見します。\n"
    "胸水なし。※技師：PHS 6123まで連絡済み。"
)
IMPRESSION_1 = "#1 右上葉肺癌疑い（cT1bN0M0 Stage ⅠA2相当）。\n#2 肺気腫。"
TEXT_1 = f"【所見】\n{FINDINGS_1}\n【診断】\n{IMPRESSION_1}"
FINDINGS_2 = "前回2021/04/05のCTと比べ、右S3の結節は18×15mmへ増大しています。左⻑径5㎜の結節は不変。"
IMPRESSION_2 = "右上葉肺癌、増大。"
TEXT_2 = f"{FINDINGS_2}\n{IMPRESSION_2}"
ADDENDUM_2 = "\n【追記】肝S8に嚢胞あり。髙橋"
TEXT_3 = "骨シンチグラフィ：第5腰椎に集積を認める。退行性変化を考える。"


def written_identity(site: str = "aoba", number: int = 7) -> Identity:
    """Who the patient is: an id with leading zeros, a name with a character that JIS X 0208 lacks."""
    return Identity(
        patient_id=f"{number:08d}",
        site=site,
        name="髙橋　佐知子",
        kana="タカハシ　サチコ",
        roman="TAKAHASHI^SACHIKO",
        sex="F",
        birth_date=date(1948, 12, 30),
        postal_code="206-0033",
        address="東京都陽光市桜木町3丁目2番1号 グランド緑町1102号室",
        phone="042-555-0123",
    )


def written_exam(place: int, *, site: str = "aoba", number: int = 7, **changes: Any) -> Exam:
    """The exam at a place: a chest CT with contrast, the next one without, a bone scan, and a radiograph never read."""
    serial = number * 1000 + place
    base: dict[str, Any] = {
        "exam_id": f"E{serial:010d}",
        "site": site,
        "kind": "chest_ct",
        "modality": "CT",
        "modality_class": "CT",
        "body_part": "CHEST",
        "jj1017": "6000000200000000",
        "order_name": "胸部CT",
        "accession_number": f"{20_210_000_000 + serial}",
        "order_number": f"{serial * 11:015d}",
        "study_instance_uid": f"1.2.392.299999.{SITES[site].facility_code}.20210405.{serial}",
        "started_at": datetime(2021, 4, 5, 9, 42),
        "protocol_name": "Chest CT",
        "department": "呼吸器内科",
        "requesting_doctor": "澤村 康弘",
        "technologist": "内海 翔太",
        "manufacturer": "CANON_MEDICAL",
        "model": "SYN Aquila CT80",
        "station": "CT01",
        "indication": "検診で右肺野に結節影。\n精査をお願いします。",
        "diagnosis": "胸部異常陰影",
        "setting": "outpatient",
        "age_years": 72,
        "height_cm": 152.4,
        "weight_kg": 48.3,
        "contrast_agent": "イオパミドール370",
        "contrast_ml": 95.0,
        "ctdi_vol": 9.8,
        "dlp": 412.5,
        "tracer": None,
        "dose_mbq": None,
        "report_id": f"R{serial:010d}",
    }
    no_contrast: dict[str, Any] = {"contrast_agent": None, "contrast_ml": None}
    places: list[dict[str, Any]] = [
        {},
        {"started_at": datetime(2021, 7, 12, 0, 15), "setting": "emergency", **no_contrast},
        {
            "kind": "bone_scintigraphy",
            "modality": "NM",
            "modality_class": "NM",
            "body_part": "WHOLEBODY",
            "jj1017": "C300000800000000",
            "order_name": "骨シンチグラフィ",
            "protocol_name": "Bone scintigraphy",
            "started_at": datetime(2021, 7, 20, 13, 5),
            "manufacturer": "GE MEDICAL SYSTEMS",
            "model": "SYN Infina",
            "station": "NM01",
            "tracer": "Tc-99m HMDP",
            "dose_mbq": 740.0,
            "ctdi_vol": None,
            "dlp": None,
            "height_cm": None,
            "weight_kg": None,
            "setting": "inpatient",
            **no_contrast,
        },
        {
            "kind": "chest_radiograph",
            "modality": "CR",
            "modality_class": "XR",
            "jj1017": "",
            "order_name": "胸部正面",
            "protocol_name": "Chest radiograph",
            "started_at": datetime(2021, 7, 21, 8, 30),
            "ctdi_vol": None,
            "dlp": None,
            "report_id": None,
            "station": "CR01",
            "model": "SYN FCR",
            **no_contrast,
        },
    ]
    return Exam(**(base | places[place] | changes))


def written_reports(exams: list[Exam]) -> list[Report]:
    """A final report, a preliminary one with its final and amended versions, and a report without sections."""

    def report(
        exam: Exam, version: int, status: str, hours: float, text: str, findings: str, impression: str
    ) -> Report:
        assert exam.report_id is not None
        return Report(
            report_id=exam.report_id,
            exam_id=exam.exam_id,
            version=version,
            status=status,
            confirmed_at=exam.started_at + timedelta(hours=hours),
            reader="設楽 美咲",
            second_reader=None if status == "preliminary" else "桐生 一馬",
            text=text,
            findings_text=findings,
            impression_text=impression,
        )

    first, second, third = exams[:3]
    return [
        report(first, 1, "final", 2.5, TEXT_1, FINDINGS_1, IMPRESSION_1),
        report(second, 1, "preliminary", 1, FINDINGS_2, FINDINGS_2, ""),
        report(second, 2, "final", 20, TEXT_2, FINDINGS_2, IMPRESSION_2),
        report(second, 3, "amended", 70, TEXT_2 + ADDENDUM_2, FINDINGS_2 + ADDENDUM_2, IMPRESSION_2),
        report(third, 1, "final", 26, TEXT_3, TEXT_3, ""),
    ]


def written_record(
    kind: str, serial: int, start: datetime, *, site: str = "aoba", number: int = 7, **rest: Any
) -> Record:
    """A record with empty fields but for those given."""
    fields: dict[str, Any] = {
        "record_id": f"K{number * 10_000 + serial:011d}",
        "kind": kind,
        "site": site,
        "patient_id": f"{number:08d}",
        "start_at": start,
        "end_at": None,
        "reported_at": None,
        "code_system": "",
        "code": "",
        "name": "",
        "text": "",
        "value": None,
        "unit": "",
        "reference_low": None,
        "reference_high": None,
        "flag": "",
        "certainty": "final",
        "body_site": "",
        "side": None,
        "doctor": "澤村 康弘",
    }
    return Record(**(fields | rest))


def written_records(site: str = "aoba", number: int = 7) -> list[Record]:
    """Two diagnoses, two draws of blood, urine, an ECG, pathology with addendum, surgery, and three drugs."""
    serial = 0

    def record(kind: str, start: datetime, **rest: Any) -> Record:
        nonlocal serial
        serial += 1
        return written_record(kind, serial, start, site=site, number=number, **rest)

    def lab(
        start: datetime,
        name: str,
        code: str,
        value: float,
        unit: str,
        low: float | None,
        high: float | None,
        **rest: Any,
    ) -> Record:
        flag = "H" if high is not None and value > high else "L" if low is not None and value < low else ""
        known = rest.pop("reported_at", start + timedelta(minutes=70))
        return record(
            "lab",
            start,
            code_system="JLAC10",
            code=code,
            name=name,
            value=value,
            unit=unit,
            reference_low=low,
            reference_high=high,
            flag=flag,
            reported_at=known,
            **rest,
        )

    blood, later = datetime(2021, 4, 5, 8, 50), datetime(2021, 7, 12, 8, 31)
    chemistry, markers = {"codes": {"panel": "chemistry"}}, {"codes": {"panel": "tumour_markers_lung"}}
    operated = datetime(2021, 7, 26, 9, 10)
    return [
        record(
            "diagnosis",
            datetime(2021, 4, 5),
            code_system="ICD-10",
            code="C349",
            name="肺腺癌",
            certainty="suspected",
            end_at=datetime(2021, 4, 20),
            codes={"MEDIS": "20085901", "exchange": "GQPT"},
            details={"outcome": "changed"},
        ),
        record(
            "diagnosis",
            datetime(2021, 4, 20),
            code_system="ICD-10",
            code="C349",
            name="肺腺癌",
            certainty="confirmed",
            codes={"MEDIS": "20085901", "exchange": "GQPT"},
        ),
        lab(blood, "白血球数", "2A010000001930101", 6500.0, "/μL", 3300, 8600, **chemistry),
        lab(blood, "ヘモグロビン", "2A030000001930101", 11.0, "g/dL", 11.6, 14.8, **chemistry),
        lab(blood, "CRP", "5C070000002306201", 2.13, "mg/dL", 0, 0.14, **chemistry),
        lab(blood, "直接ビリルビン", "3J015000002327101", 0.0, "mg/dL", 0, 0.4, **chemistry),
        lab(blood, "PT-INR", "2B030000002231157", 1.05, "", 0.85, 1.15),
        lab(blood, "尿潜血", "1A100000000191111", 2.0, "", 0, 0),
        lab(blood, "尿糖", "1A020000000191111", 0.0, "", 0, 0),
        lab(later, "CEA", "5D010000002305101", 12.5, "ng/mL", 0, 5.0, **markers),
        lab(later, "PIVKA-Ⅱ", "5D520000002205101", 28.0, "mAU/mL", 0, 40, **markers),
        lab(later, "シフラ", "5D325000002305101", 4.2, "ng/mL", 0, 3.5, reported_at=datetime(2021, 8, 20, 10, 0)),
        record(
            "physiology",
            datetime(2021, 7, 13, 14, 0),
            code_system="JLAC10",
            code="9A110",
            name="標準12誘導心電図",
            text="Ⅱ、Ⅲ、aVFでST低下。心筋虚血疑い。",
            reported_at=datetime(2021, 7, 13, 16, 30),
            details={"HR": "72 /min", "PR": "156 msec", "QTc": "421 msec", "RV5": "2.61 mV"},
        ),
        record(
            "pathology",
            datetime(2021, 4, 12, 10, 5),
            code_system="local",
            code="A21-00007",
            name="肺生検",
            text="Adenocarcinoma, right upper lobe.\n異型細胞が腺管構造を形成する。",
            body_site="lung",
            side="right",
            certainty="corrected",
            reported_at=datetime(2021, 4, 19, 17, 0),
            details={
                "specimen": "肺生検",
                "method": "経気管支肺生検",
                "diagnosis": "Adenocarcinoma, right upper lobe.",
                "findings": "異型細胞が腺管構造を形成する。",
                "addendum": "TTF-1（＋）、EGFR L858R陽性。",
            },
        ),
        record(
            "surgery",
            operated,
            code_system="K",
            code="K514-2 3",
            name="胸腔鏡下肺悪性腫瘍手術（肺葉切除）",
            text="右上葉切除＋ND2a-1。\n出血量 35mL。",
            body_site="lung",
            side="right",
            end_at=operated.replace(hour=13),
            reported_at=operated + timedelta(hours=6),
            codes={"receipt": "150355810"},
        ),
        record(
            "medication",
            datetime(2020, 11, 2, 9, 0),
            code_system="YJ",
            code="2171022F1614",
            name="アムロジピンOD錠5mg「トーワ」",
            end_at=datetime(2021, 6, 1),
            codes={"HOT9": "135869396", "receipt": "622366194"},
            details={"dose": "1", "unit": "錠", "usage": "1日1回朝食後", "route": "PO"},
        ),
        record(
            "medication",
            datetime(2021, 8, 2, 9, 0),
            code_system="YJ",
            code="6139504F1010",
            name="ロキソプロフェン錠60mg",
            end_at=datetime(2021, 8, 7),
            codes={"HOT9": "100000001", "receipt": "620000001"},
            details={"dose": "3", "unit": "錠", "usage": "1日3回毎食後", "route": "PO"},
        ),
        record(
            "medication",
            datetime(2021, 8, 2, 9, 0),
            code_system="YJ",
            code="6132424D1010",
            name="セファゾリンNa注射用1g",
            end_at=datetime(2021, 8, 4),
            codes={"HOT9": "100000002", "receipt": "620000002"},
            details={"dose": "1", "unit": "瓶", "usage": "点滴静注", "route": "IV"},
        ),
    ]


def written_patient(site: str = "aoba", number: int = 7) -> PatientFile:
    """The patient with everything."""
    identity = written_identity(site, number)
    exams = [written_exam(place, site=site, number=number) for place in range(4)]
    reports = written_reports(exams)
    records = written_records(site, number)
    return PatientFile(
        number=number,
        identity=identity,
        disease="肺腺癌",
        exams=exams,
        reports=reports,
        records=records,
        stays=[
            Stay(
                stay_id=f"S{number * 100:010d}",
                site=site,
                admitted=date(2021, 7, 24),
                discharged=date(2021, 8, 4),
                department="呼吸器外科",
                main_diagnosis=records[1].record_id,
            )
        ],
        refusals=[
            Refusal(
                patient_id=identity.patient_id,
                site=site,
                received=date(2022, 3, 14),
                scope="study",
                study="jmid",
                requester="spouse",
                case="lacks_capacity",
            )
        ],
        gold_mentions=_mentions(reports),
        gold_labels=_labels(exams, reports),
        gold_states=[
            GoldState(
                exam_id=exam.exam_id,
                patient_id=identity.patient_id,
                state="lung_primary",
                side="right",
                place="上葉 S3",
                size_mm=size,
                stage="",
                reported=exam.report_id is not None,
                known=exam.started_at > datetime(2021, 4, 19),
            )
            for exam, size in zip(exams, (12.0, 18.0, 18.4, 18.4), strict=True)
        ],
        canaries=[
            Canary("name", identity.name, identity.patient_id),
            Canary("kana", identity.kana, identity.patient_id),
            Canary("roman", identity.roman, identity.patient_id),
            Canary("address", identity.address, identity.patient_id),
            Canary("phone", identity.phone, identity.patient_id),
            Canary("patient_id", identity.patient_id, identity.patient_id),
            *(Canary("accession_number", exam.accession_number, identity.patient_id) for exam in exams),
        ],
        identifier_spans=[
            IdentifierSpan(
                reports[0].report_id, TEXT_1.index("PHS 6123"), TEXT_1.index("PHS 6123") + 8, "phone", "PHS 6123"
            )
        ],
    )


def _mentions(reports: list[Report]) -> list[GoldMention]:
    said = [
        (reports[0], "nodule", "present", "結節", "lung_primary", "right", 12.0),
        (reports[0], "pleural_effusion", "absent", "胸水", None, None, None),
        (reports[0], "lung_cancer", "uncertain", "肺癌", "lung_primary", "right", None),
        (reports[3], "nodule", "present", "結節", "lung_primary", "right", 18.0),
        (reports[4], "hot_spot", "present", "集積", None, None, None),
    ]
    found = []
    for report, finding, status, surface, state, side, size in said:
        start = report.text.index(surface)
        mention = GoldMention(
            report.report_id, start, start + len(surface), finding, status, surface, state, side, size
        )
        found.append(mention)
    return found


def _labels(exams: list[Exam], reports: list[Report]) -> list[GoldLabel]:
    one, two = exams[:2]
    return [
        GoldLabel(one.exam_id, reports[0].report_id, "lung_ct", "nodule_or_mass", "present", "present"),
        GoldLabel(one.exam_id, reports[0].report_id, "lung_ct", "pleural_effusion", "absent", None),
        GoldLabel(two.exam_id, reports[3].report_id, "lung_ct", "nodule_or_mass", "present", "present"),
        GoldLabel(exams[3].exam_id, None, "chexpert_14", "lung_lesion", "not_mentioned", "present"),
    ]
