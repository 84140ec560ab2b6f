"""The studies, read back by pydicom with its strictest settings, and held against the IOD tables of highdicom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from reportlabel.synth.patient import Exam, PatientFile
from reportlabel.synth.write_dicom import STYLES, DicomWriter, site_styles
from reportlabel.synth.write_ris_csv import one_in
from tests.unit.synth.written_patient import SITES, written_exam, written_identity, written_patient

MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "XA", "RF", "NM", "PT", "OT")
BODY = {"MG": "BREAST", "MR": "BRAIN", "US": "ABDOMEN", "NM": "WHOLEBODY", "OT": "SKIN"}
DOSE = {"ctdi_vol": 9.8, "dlp": 412.5}


@pytest.fixture(autouse=True)
def _strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.RAISE)


def exam_of(modality: str, *, site: str = "aoba", serial: int = 1, **changes: Any) -> Exam:
    contrast = modality in ("CT", "XA")
    known: dict[str, Any] = {
        "exam_id": f"E{serial:010d}",
        "modality": modality,
        "body_part": BODY.get(modality, "CHEST"),
        "study_instance_uid": f"1.2.392.299999.139900101.20210405.{serial}",
        "contrast_agent": "イオパミドール370" if contrast else None,
        "contrast_ml": 95.0 if contrast else None,
        "tracer": {"NM": "99mTc-HMDP", "PT": "F-18 FDG"}.get(modality),
        "dose_mbq": {"NM": 740.0, "PT": 222.0}.get(modality),
        **(DOSE if modality == "CT" else {"ctdi_vol": None, "dlp": None}),
    }
    return written_exam(0, site=site, **(known | changes))


def patient_of(site: str, *exams: Exam, number: int = 7) -> PatientFile:
    return PatientFile(number, written_identity(site, number), exams=list(exams))


def written(out: Path, *files: PatientFile, instances: int = 1) -> DicomWriter:
    with DicomWriter(out, SITES, instances=instances) as writer:
        for file in files:
            writer.write(file)
    return writer


def study_of(tmp_path: Path, site: str, exam: Exam, *, instances: int = 1) -> dict[str, FileDataset]:
    """The files of one exam by name."""
    written(tmp_path, patient_of(site, exam), instances=instances)
    folder = tmp_path / site / "00000007" / exam.study_instance_uid
    return {path.name: dcmread(path) for path in sorted(folder.iterdir())}


def serial_of(*, yes: tuple[tuple[int, str], ...] = (), no: tuple[tuple[int, str], ...] = ()) -> int:
    """The number of an exam to which these quirks happen, and those do not."""
    return next(
        serial
        for serial in range(1, 100_000)
        if all(one_in(count, f"E{serial:010d}", name) for count, name in yes)
        and not any(one_in(count, f"E{serial:010d}", name) for count, name in no)
    )


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("site", SITES)
def test_every_modality_of_every_site(tmp_path: Path, site: str, modality: str) -> None:
    exam = exam_of(modality, site=site)
    files = study_of(tmp_path, site, exam, instances=2)
    dose = ["SR000001.dcm"] if modality in ("CT", "XA", "RF") else []
    assert list(files) == sorted([f"{modality}000001.dcm", f"{modality}000002.dcm", *dose])
    for name, dataset in files.items():
        for element in dataset.iterall():  # decodes and checks every value
            assert element.value is not None or element.is_empty
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
        assert dataset.StudyInstanceUID == exam.study_instance_uid
        assert dataset.PatientID == "00000007"
        assert dataset.AccessionNumber == exam.accession_number
        assert (dataset.StudyDate, dataset.StudyTime) == ("20210405", "094200")
        assert dataset.PatientBirthDate == "19481230" and dataset.PatientSex == "F"
        assert dataset.Modality == ("SR" if name.startswith("SR") else modality)
        for uid in uids_of(dataset):
            assert UID(uid).is_valid and len(uid) <= 64
        assert missing(dataset) == []
        if "PixelData" in dataset:
            shape: tuple[int, ...] = (dataset.Rows, dataset.Columns)
            frames = int(dataset.get("NumberOfFrames", 1))
            shape = (frames, *shape) if frames > 1 else shape
            shape = (*shape, 3) if dataset.SamplesPerPixel == 3 else shape
            assert dataset.pixel_array.shape == shape
            assert dataset.pixel_array.max() < 2**dataset.BitsStored
    images = [dataset for name, dataset in files.items() if not name.startswith("SR")]
    assert len({one.SOPInstanceUID for one in images}) == 2 and len({one.SeriesInstanceUID for one in images}) == 1
    assert len({one.SeriesInstanceUID for one in files.values()}) == 1 + len(dose)
    assert not np.array_equal(images[0].pixel_array, images[1].pixel_array)


def uids_of(dataset: FileDataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR == "UI" and not element.is_empty:
            yield from ([element.value] if element.VM == 1 else element.value)


@cache
def _tables() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    pytest.importorskip("highdicom")
    folder = resources.files("highdicom") / "_standard"
    names = ("sop_class_iod_map.json", "iod_module_map.json", "module_attribute_map.json")
    sop, iod, modules = (json.loads((folder / name).read_text()) for name in names)
    return sop, iod, modules


# Type 1 in their macro, which is there for another kind of content item than a container.
_OF_OTHER_CONTENT = {
    "ReferencedSOPSequence",
    "TemporalRangeType",
    "ConceptCodeSequence",
    "MeasuredValueSequence",
    "TabulatedValuesSequence",
    "GraphicData",
    "GraphicType",
    "ReferencedFrameOfReferenceUID",
}


def missing(dataset: FileDataset) -> list[str]:
    """Attributes of Type 1 (with a value) and 2 that the IOD asks for and the file lacks.

    Of modules that the user may leave out, and inside sequences, where the sequence is there; of a content tree only
    the root.
    """
    sop, iod, modules = _tables()
    found = []
    for module in iod[sop[dataset.SOPClassUID]]:
        for attribute in modules.get(module["key"], []):
            kind, path, keyword = attribute["type"], attribute["path"], attribute["keyword"]
            asked = "ContentSequence" not in path if path else module["usage"] == "M"
            if kind not in ("1", "2") or not asked or keyword in _OF_OTHER_CONTENT:
                continue
            for item in _items(dataset, path):
                if keyword not in item or (kind == "1" and item[keyword].is_empty):
                    found.append(f"{module['key']}: {'/'.join([*path, keyword])} (Type {kind})")
    return found


def _items(dataset: Any, path: list[str]) -> list[Any]:
    items = [dataset]
    for keyword in path:
        items = [inner for item in items for inner in item.get(keyword, None) or ()]
    return items


def test_the_check_of_types_sees_what_is_missing(tmp_path: Path) -> None:
    dataset = study_of(tmp_path, "aoba", exam_of("CT"))["CT000001.dcm"]
    del dataset.SliceThickness
    dataset.ImageType = None
    assert missing(dataset) == ["image-plane: SliceThickness (Type 2)", "ct-image: ImageType (Type 1)"]


@pytest.mark.parametrize(
    ("site", "charset", "name"),
    [
        ("aoba", ["", "ISO 2022 IR 87"], "TAKAHASHI^SACHIKO=高橋^佐知子=タカハシ^サチコ"),
        ("minato", ["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾀｶﾊｼ^ｻﾁｺ=高橋^佐知子=タカハシ^サチコ"),
        ("sato", "ISO_IR 192", "TAKAHASHI^SACHIKO=髙橋^佐知子=タカハシ^サチコ"),
    ],
)
def test_names_in_the_character_set_of_the_site(tmp_path: Path, site: str, charset: Any, name: str) -> None:
    exam = exam_of("CT", site=site)
    for dataset in study_of(tmp_path, site, exam).values():
        assert dataset.SpecificCharacterSet == charset
        assert str(dataset.PatientName) == name
        assert dataset.PatientName.ideographic.startswith(("高", "髙"))
        assert dataset.InstitutionName == SITES[site].name
        assert dataset.InstitutionAddress == SITES[site].address
        assert dataset.StudyDescription == "胸部CT"
        assert str(dataset.ReferringPhysicianName) == "=澤村^康弘"
        assert str(dataset.OperatorsName) == "=内海^翔太"
    raw = (tmp_path / site / "00000007" / exam.study_instance_uid / "CT000001.dcm").read_bytes()
    assert (b"\x1b$B" in raw) == (site != "sato")
    assert ("髙橋^佐知子".encode() in raw) == (site == "sato")


def test_what_a_console_lacks_is_counted(tmp_path: Path) -> None:
    exam = exam_of("CT", order_name="胸部CT②（㎜）⻑")
    writer = written(tmp_path, patient_of("aoba", exam))
    dataset = dcmread(next(tmp_path.rglob("CT*.dcm")))
    assert dataset.StudyDescription == "胸部CT2（mm）〓"
    assert writer.replaced["aoba"].keys() == {"髙", "⻑"}


def test_consoles_without_kanji_write_latin_letters(tmp_path: Path) -> None:
    for dataset in study_of(tmp_path, "aoba", exam_of("RF")).values():
        assert "SpecificCharacterSet" not in dataset
        assert str(dataset.PatientName) == "TAKAHASHI^SACHIKO"
        assert dataset.InstitutionName == "AOBAZAKA GENERAL HOSPITAL"
        assert dataset.StudyDescription == "Chest CT"
        assert dataset.ReferringPhysicianName == ""
        assert "InstitutionAddress" not in dataset


def test_body_machine_and_contrast(tmp_path: Path) -> None:
    dataset = study_of(tmp_path, "aoba", exam_of("CT"))["CT000001.dcm"]
    assert (dataset.PatientAge, dataset.PatientSize, dataset.PatientWeight) == ("072Y", 1.524, 48.3)
    assert (dataset.Manufacturer, dataset.ManufacturerModelName) == ("CANON_MEDICAL", "SYN Aquila CT80")
    assert (dataset.StationName, dataset.ProtocolName) == ("CT01", "Chest CT")
    assert (dataset.ContrastBolusAgent, dataset.ContrastBolusVolume) == ("イオパミドール370", 95)
    assert dataset.CTDIvol == 9.8
    (request,) = dataset.RequestAttributesSequence
    assert request.ScheduledProtocolCodeSequence[0].CodeValue == "6000000200000000"
    assert request.RequestedProcedureDescription == "胸部CT"
    assert "\n" not in request.ReasonForTheRequestedProcedure


@pytest.mark.parametrize(("site", "size"), [("aoba", None), ("minato", 0), ("sato", 0)])
def test_an_unknown_body_is_absent_or_zero(tmp_path: Path, site: str, size: int | None) -> None:
    exam = exam_of("MR", site=site, height_cm=None, weight_kg=None)
    dataset = study_of(tmp_path, site, exam)["MR000001.dcm"]
    assert (dataset.get("PatientSize"), dataset.get("PatientWeight")) == (size, size)


def test_tracers(tmp_path: Path) -> None:
    bone = study_of(tmp_path, "aoba", exam_of("NM"))["NM000001.dcm"]
    (told,) = bone.RadiopharmaceuticalInformationSequence
    assert (told.Radiopharmaceutical, told.RadionuclideTotalDose) == ("99mTc-HMDP", 740)  # MBq in nuclear medicine
    assert told.RadionuclideCodeSequence[0].CodeMeaning == "^99m^Technetium"
    pet = study_of(tmp_path, "aoba", exam_of("PT", serial=2))["PT000001.dcm"]
    (told,) = pet.RadiopharmaceuticalInformationSequence
    assert (told.Radiopharmaceutical, told.RadionuclideTotalDose) == ("F-18 FDG", 222_000_000)  # Bq in PET
    assert told.RadionuclideCodeSequence[0].CodeMeaning == "^18^Fluorine"


def test_one_site_sends_bone_scans_as_captures(tmp_path: Path) -> None:
    capture = study_of(tmp_path, "minato", exam_of("NM", site="minato"))["NM000001.dcm"]
    assert capture.SOPClassUID.name == "Secondary Capture Image Storage" and capture.Modality == "NM"
    assert "RadiopharmaceuticalInformationSequence" not in capture


def content(dataset: FileDataset, code: str) -> list[Any]:
    """Content items of a concept, anywhere in the tree."""

    def walk(item: Any) -> Iterator[Any]:
        for inner in item.get("ContentSequence", ()):
            if inner.ConceptNameCodeSequence[0].CodeValue == code:
                yield inner
            yield from walk(inner)

    return list(walk(dataset))


def numbers(dataset: FileDataset, code: str) -> list[float]:
    return [float(item.MeasuredValueSequence[0].NumericValue) for item in content(dataset, code)]


@pytest.mark.parametrize("contrast", ["イオパミドール370", None])
def test_the_dose_report_of_a_ct_says_what_the_exam_says(tmp_path: Path, contrast: str | None) -> None:
    exam = exam_of("CT", contrast_agent=contrast, dlp=412.51)
    report = study_of(tmp_path, "aoba", exam)["SR000001.dcm"]
    assert report.SOPClassUID.name == "X-Ray Radiation Dose SR Storage"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "10011"
    events = 2 if contrast else 1
    assert numbers(report, "113830") == [9.8] * events == [exam.ctdi_vol] * events
    assert sum(numbers(report, "113838")) == pytest.approx(412.51) and numbers(report, "113813") == [412.51]
    assert numbers(report, "113812") == [events] == [len(content(report, "113819"))]
    units = content(report, "113830")[0].MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    assert (units.CodeValue, units.CodingSchemeDesignator) == ("mGy", "UCUM")
    assert exam.study_instance_uid == content(report, "110180")[0].UID
    assert str(report.VerifyingObserverSequence[0].VerifyingObserverName) == "=内海^翔太"
    assert [str(item.PersonName) for item in content(report, "121008")] == ["=内海^翔太"]
    for code, path in (("113830", ["113819", "113829"]), ("113833", ["113819", "113822", "113831"])):
        items = [report]
        for step in path:
            items = [
                inner for item in items for inner in item.ContentSequence
                if inner.ConceptNameCodeSequence[0].CodeValue == step
            ]  # fmt: skip
        assert all(
            any(one.ConceptNameCodeSequence[0].CodeValue == code for one in item.ContentSequence) for item in items
        )


@pytest.mark.parametrize("modality", ["XA", "RF"])
def test_the_dose_report_of_fluoroscopy(tmp_path: Path, modality: str) -> None:
    report = study_of(tmp_path, "aoba", exam_of(modality))["SR000001.dcm"]
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "10001"
    assert numbers(report, "113722") == numbers(report, "122130") and numbers(report, "113722")[0] > 0
    assert len(content(report, "121008")) == (modality == "XA")


def test_a_ct_without_dose_has_no_report(tmp_path: Path) -> None:
    assert list(study_of(tmp_path, "aoba", exam_of("CT", ctdi_vol=None, dlp=None))) == ["CT000001.dcm"]


def test_private_elements_may_hold_names(tmp_path: Path) -> None:
    quiet = study_of(tmp_path, "aoba", exam_of("CT", serial=serial_of(no=((5, "private"),))))["CT000001.dcm"]
    assert quiet[0x7005, 0x0010].value == "TOSHIBA_MEC_CT3" and (0x7005, 0x1010) not in quiet
    exam = exam_of("CT", serial=serial_of(yes=((5, "private"),)), manufacturer="SIEMENS")
    told = study_of(tmp_path, "aoba", exam)["CT000001.dcm"]
    assert str(told[0x0029, 0x1010].value) == "TAKAHASHI^SACHIKO"
    assert "00000007" in told[0x0029, 0x1011].value
    assert told[0x0029, 0x1012].value[0][0x0029, 0x1002].value == "00000007"
    block = told.private_block(0x0029, "SIEMENS MEDCOM HEADER")
    assert block[0x01].value == "SYN Aquila CT80"


def test_overlays(tmp_path: Path) -> None:
    exam = exam_of("CR", serial=serial_of(yes=((12, "overlay"),)))
    dataset = study_of(tmp_path, "aoba", exam)["CR000001.dcm"]
    plane = dataset.overlay_array(0x6000)
    assert plane.shape == (dataset.Rows, dataset.Columns) and 0 < plane.sum() < 150
    assert "00000007" in dataset[0x6000, 0x0022].value


def test_digits_are_burned_into_some_captures(tmp_path: Path) -> None:
    burned, clean = serial_of(yes=((3, "burned"), (2, "stated"))), serial_of(no=((3, "burned"),))
    one, other = exam_of("US", serial=burned), exam_of("US", serial=clean)
    writer = written(tmp_path, patient_of("aoba", one, other))
    first, second = (
        dcmread(tmp_path / "aoba/00000007" / exam.study_instance_uid / "US000001.dcm") for exam in (one, other)
    )
    assert first.BurnedInAnnotation == "YES" and "BurnedInAnnotation" not in second
    changed = (first.pixel_array != second.pixel_array).any(axis=-1)
    assert changed[1:6, 1:33].any() and changed[6:].sum() == 0
    (region,) = first.SequenceOfUltrasoundRegions
    assert region.RegionLocationMinY0 > 6
    assert [kind for _, kind, exam_id in writer.defects if exam_id == one.exam_id][-1] == "burned_in"


@pytest.mark.parametrize(
    ("quirk", "kind", "keyword", "value"),
    [
        ((60, "accession"), "accession_missing", "AccessionNumber", ""),
        ((15, "id"), "patient_id_without_zeros", "PatientID", "7"),
        ((120, "birth"), "birth_date_missing", "PatientBirthDate", ""),
        ((150, "clock"), "clock", "SeriesDate", "19970101"),
    ],
)
def test_defects_are_recorded(tmp_path: Path, quirk: tuple[int, str], kind: str, keyword: str, value: str) -> None:
    exam = exam_of("MR", serial=serial_of(yes=(quirk,)))
    writer = written(tmp_path, patient_of("aoba", exam))
    assert dcmread(next(tmp_path.rglob("*.dcm"))).get(keyword) == value
    assert (f"aoba/00000007/{exam.study_instance_uid}", kind, exam.exam_id) in writer.defects


def test_what_people_type_identifies(tmp_path: Path) -> None:
    serial = serial_of(yes=((4, "address"), (6, "other names"), (6, "comments")))
    dataset = study_of(tmp_path, "aoba", exam_of("MR", serial=serial))["MR000001.dcm"]
    person = written_identity("aoba")
    assert person.address in dataset.PatientAddress and dataset.PatientTelephoneNumbers == person.phone
    assert dataset.OtherPatientIDs == "7" and str(dataset.OtherPatientNames) == str(dataset.PatientName)
    assert person.phone in dataset.PatientComments and "佐知子" in dataset.StudyComments
    assert dataset.AdditionalPatientHistory.startswith("検診で")


def test_the_same_patients_give_the_same_bytes(tmp_path: Path) -> None:
    files = [written_patient(site, number) for number, site in enumerate(SITES, start=1)]
    for folder, those in (("a", files), ("b", files[::-1])):
        written(tmp_path / folder, *those)
    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.dcm")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.dcm")}
    assert first == second and len(first) == 18
    names = sorted(path.name for path in (tmp_path / "a/aoba").rglob("*.dcm"))
    assert names == ["CR000001.dcm", "CT000001.dcm", "CT000001.dcm", "NM000001.dcm", "SR000001.dcm", "SR000001.dcm"]
    for path in first:
        site, patient, study, name = path.parts
        assert site in SITES and re.fullmatch(r"\d{8}", patient) and UID(study).is_valid and name.endswith(".dcm")


def test_sites_share_out_the_styles() -> None:
    assert list(site_styles(SITES).values()) == list(STYLES)


def test_a_child_and_an_odd_clock_are_fine(tmp_path: Path) -> None:
    exam = exam_of("DX", age_years=0, started_at=datetime(2024, 2, 29, 23, 59, 50), body_part="knee (left)")
    file = patient_of("sato", replace(exam, site="sato"))
    file.identity = replace(file.identity, birth_date=date(2024, 1, 1))
    written(tmp_path, file)
    dataset = dcmread(next(tmp_path.rglob("*.dcm")))
    assert (dataset.PatientAge, dataset.StudyDate, dataset.SeriesDate) == ("000Y", "20240229", "20240301")
    assert dataset.BodyPartExamined == "KNEE LEFT" and missing(dataset) == []
