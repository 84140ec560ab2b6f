"""Exams from headers: the synthetic hospital, pydicom's files, headers by hand, and damage."""

from __future__ import annotations

import random
import warnings
from dataclasses import asdict, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, XRayRadiationDoseSRStorage

from reportlabel.errors import ConfigError
from reportlabel.ingest import dicom_headers
from reportlabel.ingest.dicom_headers import DicomRules, files, read, recognise
from reportlabel.ingest.rows import ExamRow, PatientRow, Quarantined, Row, Source
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.synth.patient import Exam
from reportlabel.synth.write_dicom import STYLES, DicomWriter, site_styles
from reportlabel.synth.write_ris_csv import one_in
from tests.unit.synth.written_patient import SITES, written_patient

CLEAN = next(
    number
    for number in range(1, 500)
    if not any(
        one_in(count, f"E{number * 1000 + place:010d}", name)
        for place in range(4)
        for count, name in ((60, "accession"), (15, "id"), (120, "birth"))
    )
)


def rows_of(path: Path, *, site: str | None = "aoba", **options: Any) -> list[Row]:
    source = Source("dicom", path, path if path.is_dir() else path.parent, site, options)
    return [row for one in files(source) for row in read(one, source)]


def exam_of(path: Path, **options: Any) -> ExamRow:
    (exam,) = (row for row in rows_of(path, **options) if isinstance(row, ExamRow))
    return exam


def reasons(rows: list[Row]) -> list[tuple[int | None, str]]:
    return [(row.row, row.reason) for row in rows if isinstance(row, Quarantined)]


def merged(rows: list[Row]) -> dict[str | None, dict[str, Any]]:
    """Exams by study; rows with a dose last, so that theirs counts."""
    studies: dict[str | None, dict[str, Any]] = {}
    for row in sorted((row for row in rows if isinstance(row, ExamRow)), key=lambda row: row.dlp is not None):
        known = studies.setdefault(row.study_instance_uid, {})
        known |= {name: value for name, value in asdict(row).items() if value is not None}
    return studies


def header(**attributes: Any) -> Dataset:
    known = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "StudyDate": "20230314",
        "StudyTime": "090507.123456",
        "Modality": "CT",
        "PatientID": "00000007",
        "PatientBirthDate": "19541203",
        "PatientSex": "M",
        "StudyInstanceUID": "1.2.3",
        **attributes,
    }
    dataset = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that no machine should write
        for name, value in known.items():
            if value is not None:
                setattr(dataset, name, value)
    return dataset


def saved(tmp_path: Path, dataset: Dataset | None = None, *, name: str = "x.dcm", **attributes: Any) -> Path:
    dataset = dataset if dataset is not None else header(**attributes)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    return path


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def coded(value: str, scheme: str = "DCM") -> Sequence:
    return Sequence([item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="x")])


def number(concept: str, value: str, unit: str) -> Dataset:
    measured = item(NumericValue=value, MeasurementUnitsCodeSequence=coded(unit, "UCUM"))
    return item(ValueType="NUM", ConceptNameCodeSequence=coded(concept), MeasuredValueSequence=Sequence([measured]))


def container(concept: str, *content: Dataset) -> Dataset:
    return item(ValueType="CONTAINER", ConceptNameCodeSequence=coded(concept), ContentSequence=Sequence(content))


def event(kind: str, ctdi: str | None, dlp: str | None, *, unit: str = "mGy.cm") -> Dataset:
    dose = [number("113830", ctdi, "mGy")] if ctdi else []
    dose += [number("113838", dlp, unit)] if dlp else []
    acquisition = item(
        ValueType="CODE", ConceptNameCodeSequence=coded("113820"), ConceptCodeSequence=coded(kind, "SCT")
    )
    return container("113819", acquisition, container("113829", *dose))


def dose_report(*content: Dataset) -> Dataset:
    return header(
        SOPClassUID=XRayRadiationDoseSRStorage,
        Modality="SR",
        ConceptNameCodeSequence=coded("113701"),
        ContentSequence=Sequence(content),
    )


# --- the synthetic hospital -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
def test_every_style_says_what_the_hospital_knows(tmp_path: Path, site: str) -> None:
    file = written_patient(site, CLEAN)
    with DicomWriter(tmp_path, SITES, instances=2) as writer:
        writer.write(file)
    assert recognise(tmp_path)
    rows = rows_of(tmp_path / site, site=site)
    assert not reasons(rows)
    people = {row for row in rows if isinstance(row, PatientRow)}
    assert people == {PatientRow(site, file.identity.patient_id, "F", date(1948, 12, 30))}
    studies = merged(rows)
    captured = site_styles(SITES)[site].nm_as_capture
    assert list(studies) == [exam.study_instance_uid for exam in file.exams]
    for exam, known in zip(file.exams, studies.values(), strict=True):
        expected = expected_exam(exam, file.identity.patient_id, captured=captured)
        assert known == {name: value for name, value in asdict(expected).items() if value is not None}
    doses = [row for row in rows if isinstance(row, ExamRow) and row.dlp is not None]
    assert [(row.dlp, row.ctdi_vol, row.modality) for row in doses] == [(412.5, 9.8, None)] * 2


def expected_exam(exam: Exam, patient_id: str, *, captured: bool) -> ExamRow:
    return ExamRow(
        site=exam.site,
        patient_id=patient_id,
        study_instance_uid=exam.study_instance_uid,
        accession_number=exam.accession_number,
        started_at=exam.started_at,
        modality=exam.modality,
        body_part=exam.body_part,
        order_name=exam.order_name,
        protocol_name=exam.protocol_name,
        contrast_agent=exam.contrast_agent,
        contrast_ml=exam.contrast_ml,
        ctdi_vol=exam.ctdi_vol,
        dlp=exam.dlp,
        tracer=None if captured else exam.tracer,
        age_years=exam.age_years,
        sex="F",
        height_cm=exam.height_cm,
        weight_kg=exam.weight_kg,
    )


def test_lost_zeros_of_an_id_are_put_back(tmp_path: Path) -> None:
    number = next(one for one in range(1, 999) if one_in(15, f"E{one * 1000:010d}", "id"))
    file = written_patient("aoba", number)
    file.exams = file.exams[:1]
    with DicomWriter(tmp_path, SITES) as writer:
        writer.write(file)
    assert {row.patient_id for row in rows_of(tmp_path) if isinstance(row, ExamRow)} == {str(number)}
    ids = {row.patient_id for row in rows_of(tmp_path, patient_id_width=8) if isinstance(row, ExamRow)}
    assert ids == {f"{number:08d}"}


def test_no_row_names_the_patient(tmp_path: Path) -> None:
    with DicomWriter(tmp_path, SITES) as writer:
        for site in SITES:
            for number in range(1, 9):
                writer.write(written_patient(site, number))
    said = "".join(map(repr, rows_of(tmp_path)))
    file = written_patient()
    kinds = ("name", "kana", "roman", "address", "phone")
    assert not [canary.value for canary in file.canaries if canary.kind in kinds and canary.value in said]
    assert not [name for name in ("高橋", "髙橋", "TAKAHASHI", "設楽", "内海", "病院") if name in said]
    assert len(STYLES) == len(SITES)


def test_nobody_is_named_by_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    dataset = header()
    dataset.add_new("PatientID", "LO", "P" * 80)
    dataset.add_new("PatientBirthDate", "DA", "30 December")
    saved(tmp_path, dataset)
    recwarn.clear()
    assert exam_of(tmp_path).patient_id == "P" * 80
    assert not list(recwarn)


# --- files of pydicom -------------------------------------------------------------------------------------------------


def pydicom_file(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def test_a_whole_body_bone_scan() -> None:
    exam = exam_of(pydicom_file("JPEG-lossy.dcm"))
    assert (exam.modality, exam.order_name, exam.started_at) == (
        "NM",
        "Whole Body Bone",
        datetime(2004, 8, 27, 7, 50, 59),
    )
    assert (exam.height_cm, exam.weight_kg, exam.tracer, exam.sex) == (None, None, None, "M")


def test_an_mr_with_an_agent() -> None:
    exam = exam_of(pydicom_file("examples_overlay.dcm"))
    assert (exam.modality, exam.body_part, exam.accession_number) == ("MR", "ABDOMEN", "8000000000330109")
    assert (exam.contrast_agent, exam.height_cm, exam.age_years) == ("11 ml Omniscan", 173.0, 58)


@pytest.mark.parametrize("name", ["rtplan.dcm", "rtdose.dcm"])
def test_objects_that_are_no_images_say_no_modality(name: str) -> None:
    assert exam_of(pydicom_file(name)).modality is None


def test_a_directory_of_files_is_no_exam() -> None:
    path = pydicom_file("DICOMDIR")
    assert recognise(path)
    assert rows_of(path) == []


@pytest.mark.parametrize("name", ["chrH31.dcm", "chrH32.dcm", "chrKoreanMulti.dcm"])
def test_character_sets(name: str) -> None:
    """These files have names alone: no study, no date."""
    (path,) = get_charset_files(name)
    assert {reason for _, reason in reasons(rows_of(Path(path)))} <= {
        dicom_headers.NO_DATE,
        dicom_headers.NO_STUDY,
        dicom_headers.NO_PATIENT,
    }


def test_every_file_of_pydicom_is_read_or_set_aside() -> None:
    folder = pydicom_file("CT_small.dcm").parent
    rows = rows_of(folder)
    assert sum(isinstance(row, ExamRow) for row in rows) > 30
    assert {reason for _, reason in reasons(rows)} <= set(dicom_headers.REASONS)


# --- headers by hand --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {"started_at": datetime(2023, 3, 14, 9, 5, 7), "age_years": 68, "sex": "M"}),
        ({"StudyTime": "0905"}, {"started_at": datetime(2023, 3, 14, 9, 5)}),
        ({"StudyTime": ""}, {"started_at": datetime(2023, 3, 14)}),
        ({"StudyDate": "", "SeriesDate": "20230315", "SeriesTime": "10"}, {"started_at": datetime(2023, 3, 15, 10)}),
        ({"TimezoneOffsetFromUTC": "+0000"}, {"started_at": datetime(2023, 3, 14, 18, 5, 7)}),
        ({"TimezoneOffsetFromUTC": "+0900"}, {"started_at": datetime(2023, 3, 14, 9, 5, 7)}),
        ({"PatientAge": "069Y"}, {"age_years": 69}),
        ({"PatientAge": "008M"}, {"age_years": 0}),
        ({"PatientAge": "000Y"}, {"age_years": 68}),
        ({"PatientAge": "000Y", "PatientBirthDate": ""}, {"age_years": None}),
        ({"PatientSex": ""}, {"sex": None}),
        ({"PatientSize": "1.724", "PatientWeight": "60.5"}, {"height_cm": 172.4, "weight_kg": 60.5}),
        ({"PatientSize": "172.4"}, {"height_cm": 172.4}),
        ({"PatientSize": "0", "PatientWeight": "0"}, {"height_cm": None, "weight_kg": None}),
        ({"PatientSize": "17.2", "PatientWeight": "6000"}, {"height_cm": None, "weight_kg": None}),
        ({"AccessionNumber": " "}, {"accession_number": None}),
        ({"Modality": "PR"}, {"modality": None}),
        ({"BodyPartExamined": "Chest"}, {"body_part": "CHEST"}),
        ({"ContrastBolusAgent": "NONE"}, {"contrast_agent": None}),
        (
            {"ContrastBolusAgent": "オムニパーク", "ContrastBolusVolume": "100"},
            {"contrast_agent": "オムニパーク", "contrast_ml": 100.0},
        ),
        ({"ContrastBolusAgentSequence": Sequence([item(CodeMeaning="Iohexol")])}, {"contrast_agent": "Iohexol"}),
        ({"CTDIvol": 9.8}, {"ctdi_vol": 9.8, "dlp": None}),
        ({"StudyDescription": "A", "RequestedProcedureDescription": "B"}, {"order_name": "B"}),
        (
            {
                "StudyDescription": "A",
                "RequestAttributesSequence": Sequence([item(RequestedProcedureDescription="胸部ＣＴ")]),
            },
            {"order_name": "胸部CT"},
        ),
        (
            {"RadiopharmaceuticalInformationSequence": Sequence([item(Radiopharmaceutical="F-18 FDG")])},
            {"tracer": "F-18 FDG"},
        ),
        (
            {
                "RadiopharmaceuticalInformationSequence": Sequence(
                    [item(RadionuclideCodeSequence=Sequence([item(CodeMeaning="^99m^Technetium")]))]
                )
            },
            {"tracer": "^99m^Technetium"},
        ),
    ],
)
def test_attributes(tmp_path: Path, attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    path = saved(tmp_path, SpecificCharacterSet="ISO_IR 192", **attributes)
    exam = exam_of(path)
    assert {name: getattr(exam, name) for name in expected} == expected


def test_a_dose_report_is_added_up(tmp_path: Path) -> None:
    """The scout has the least dose, bolus tracking the greatest CTDIvol; neither is the scan."""
    total = container("113811", number("113813", "999", "mGy.cm"))
    report = dose_report(
        total,
        event("113805", "0.11", "5.5"),
        event("113806", "60.2", "30.1"),
        event("116152004", "9.8", "300.25"),
        event("116152004", "11.2", "112.25"),
    )
    exam = exam_of(saved(tmp_path, report))
    assert (exam.ctdi_vol, exam.dlp, exam.modality) == (11.2, 448.1, None)


def test_a_dose_report_with_totals_alone(tmp_path: Path) -> None:
    exam = exam_of(saved(tmp_path, dose_report(container("113811", number("113813", "412.5", "mGy.cm")))))
    assert (exam.ctdi_vol, exam.dlp) == (None, 412.5)


def test_units_of_a_dose_report(tmp_path: Path) -> None:
    exam = exam_of(saved(tmp_path, dose_report(event("116152004", "9.8", "0.3", unit="Gy.cm"))))
    assert exam.dlp == pytest.approx(300)
    assert exam_of(saved(tmp_path, dose_report(event("116152004", None, "0.3", unit="m")))).dlp is None


def test_other_structured_reports_have_no_dose(tmp_path: Path) -> None:
    report = dose_report(event("116152004", "9.8", "300"))
    report.ConceptNameCodeSequence = coded("126000")
    exam = exam_of(saved(tmp_path, report))
    assert (exam.ctdi_vol, exam.dlp) == (None, None)


def test_a_file_without_a_preamble(tmp_path: Path) -> None:
    dataset = header()
    path = tmp_path / "old.dcm"
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[:2] == b"\x08\x00"
    assert recognise(path)
    assert exam_of(path).study_instance_uid == "1.2.3"


def test_where_the_site_comes_from(tmp_path: Path) -> None:
    path = saved(tmp_path / "aoba", IssuerOfPatientID="139900101", InstitutionName="Aobazaka", name="1/x.dcm")
    assert reasons(rows_of(tmp_path, site=None)) == [(None, dicom_headers.NO_SITE)]
    assert exam_of(tmp_path, site=None, site_of_folder=True).site == "aoba"
    assert exam_of(tmp_path, site=None, sites={"139900101": "first"}).site == "first"
    assert exam_of(tmp_path, site=None, sites={"Aobazaka": "second"}).site == "second"
    assert reasons(rows_of(path, site=None, site_of_folder=True)) == [(None, dicom_headers.NO_SITE)]
    with pytest.raises(ConfigError, match="option 'folder': unknown"):
        rows_of(path, folder=True)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PatientID": None}, dicom_headers.NO_PATIENT),
        ({"PatientID": " "}, dicom_headers.NO_PATIENT),
        ({"StudyInstanceUID": None}, dicom_headers.NO_STUDY),
        ({"StudyDate": ""}, dicom_headers.NO_DATE),
        ({"StudyDate": None}, dicom_headers.NO_DATE),
    ],
)
def test_what_an_exam_needs(tmp_path: Path, attributes: dict[str, Any], reason: str) -> None:
    path = saved(tmp_path, **attributes)
    assert reasons(rows_of(path)) == [(None, reason)]


def test_a_date_that_cannot_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"20230314", b"2023JAN4"))
    assert reasons(rows_of(path)) == [(None, dicom_headers.BAD_DATE)]


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "00000007").mkdir()
    for name, data in (
        ("a.txt", b"hello"),
        ("b.jpg", b"\xff\xd8" * 200),
        ("c00000007.dcm", b""),
        ("d.dcm", b"\0" * 500),
    ):
        (tmp_path / "00000007" / name).write_bytes(data)
    (tmp_path / "00000007/Thumbs.db").write_bytes(b"x")
    rows = rows_of(tmp_path)
    assert not recognise(tmp_path)
    assert reasons(rows) == [(None, dicom_headers.NOT_DICOM)] * 4
    shown = [row.path.partition(" (sha256 ")[0] for row in rows if isinstance(row, Quarantined)]
    assert shown == ["…/a.txt", "…/b.jpg", "…/c….dcm", "…/d.dcm"]


def test_damage_never_raises(tmp_path: Path) -> None:
    with DicomWriter(tmp_path, SITES) as writer:
        writer.write(replace_exams(2))
    chance = random.Random(7)
    for path in sorted(tmp_path.rglob("*.dcm")):
        data = path.read_bytes()[:6000]
        for _ in range(80):
            damaged = bytearray(data)
            for _ in range(chance.randrange(1, 12)):
                at = chance.randrange(132, len(damaged) - 1)
                if chance.random() < 0.7:
                    damaged[at] = chance.randrange(256)
                else:
                    del damaged[at : at + chance.randrange(1, 60)]
            path.write_bytes(bytes(damaged))
            assert {reason for _, reason in reasons(rows_of(path))} <= set(dicom_headers.REASONS)


def replace_exams(count: int) -> Any:
    file = written_patient("aoba", CLEAN)
    file.exams = [replace(exam) for exam in file.exams[:count]]
    return file


def test_pixels_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    path = saved(tmp_path)

    def spied(*args: Any, **options: Any) -> Any:
        asked.append(options)
        return dcmread(*args, **options)

    monkeypatch.setattr("pydicom.dcmread", spied)
    exam_of(path)
    assert asked[0]["stop_before_pixels"] is True
    assert "PatientName" not in asked[0]["specific_tags"]


def test_an_unknown_key_of_the_rules_names_file_and_line(tmp_path: Path) -> None:
    text = (rules_folder() / "ingest/dicom.yaml").read_text(encoding="utf-8")
    path = tmp_path / "dicom.yaml"
    path.write_text(text + "size: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"dicom.yaml:{text.count(chr(10)) + 1}: unknown key 'size'"):
        parse(read_yaml(path), DicomRules)
