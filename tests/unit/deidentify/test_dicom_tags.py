"""The table of attributes of the bone-scan protocol, one test for each attribute and kind of object (B9, B10, B12)."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    NuclearMedicineImageStorage,
    RTPlanStorage,
    SecondaryCaptureImageStorage,
)

from reportlabel.deidentify.dicom import pseudo_uid
from reportlabel.deidentify.dicom_policy import TagPolicy, load_policy
from reportlabel.deidentify.dicom_types import attribute_type, known_sop_classes
from tests.unit.deidentify.dicom_objects import CODE, KEY, built, bundled, decided, opened, out, reread

# keyword, what is put in, what must come out: "code", "empty", "absent", "same", "uid" or a text
TABLE: list[tuple[str, Any, str]] = [
    ("PatientName", "AOYAMA^HANAKO=青山^花子=あおやま^はなこ", "code"),
    ("PatientID", "000123457", "code"),
    ("IssuerOfPatientID", "HOSPITAL X", "absent"),
    ("PatientBirthDate", "19520111", "empty"),
    ("PatientSex", "F", "same"),
    ("OtherPatientNames", "KOYAMA^HANAKO", "absent"),
    ("PatientAge", "067Y", "same"),
    ("PatientComments", "comment on the patient", "absent"),
    ("InstitutionName", "Hospital of the tests", "absent"),
    ("ReferringPhysicianName", "KIMURA^JIRO", "empty"),
    ("InstitutionAddress", "1-2-3 Street, Town", "absent"),
    ("StationName", "GAMMA1", "same"),
    ("InstitutionalDepartmentName", "Nuclear medicine", "absent"),
    ("PhysiciansOfRecord", "SASAKI^SABURO", "absent"),
    ("OperatorsName", "ISHIDA^SHIRO", "absent"),
    ("SOPInstanceUID", "1.2.3.4.5", "uid"),
    ("StudyDate", "20190612", "same"),
    ("AccessionNumber", "A0099887", "empty"),
    ("StudyDescription", "bone of HANAKO", "BONE SCINTIGRAPHY"),
    ("SeriesDescription", "anterior of HANAKO", "WHOLE BODY"),
    ("StudyInstanceUID", "1.2.3.4", "uid"),
    ("SeriesInstanceUID", "1.2.3.4.1", "uid"),
    ("StudyID", "S77", "empty"),
    ("StudyComments", "comment on the study", "absent"),
    ("AcquisitionComments", "comment on the acquisition", "absent"),
    ("PatientSize", "1.52", "same"),
    ("PatientWeight", "48.5", "same"),
]
TAGS = [
    "00100010",
    "00100020",
    "00100021",
    "00100030",
    "00100040",
    "00101001",
    "00101010",
    "00104000",
    "00080080",
    "00080090",
    "00080081",
    "00081010",
    "00081040",
    "00081048",
    "00081070",
    "00080018",
    "00080020",
    "00080050",
    "00081030",
    "0008103E",
    "0020000D",
    "0020000E",
    "00200010",
    "00324000",
    "00184000",
    "00101020",
    "00101030",
]
OBJECTS = ["JPEG-lossy.dcm", "examples_overlay.dcm", "NM", "CT", "SC", "RTPLAN"]
CLASSES = {
    "NM": NuclearMedicineImageStorage,
    "CT": CTImageStorage,
    "SC": SecondaryCaptureImageStorage,
    "RTPLAN": RTPlanStorage,
}


@cache
def policy() -> TagPolicy:
    return load_policy("gunma_bone_scan")


@cache
def before(name: str) -> Dataset:
    dataset = opened(name) if name.endswith(".dcm") else opened("JPEG-lossy.dcm")
    if name in CLASSES:
        dataset.SOPClassUID = CLASSES[name]
    if name == "RTPLAN":
        del dataset.PixelData
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value, _ in TABLE:
        setattr(dataset, keyword, value)
    return dataset


@cache
def after(name: str) -> Dataset:
    return out(before(name), policy())


def check(new: Dataset, old: Dataset, keyword: str, expected: str) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    if expected == "absent":
        assert keyword not in new
    elif expected == "empty":
        assert tag in new
        assert new[tag].is_empty
    elif expected == "same":
        assert new[tag].value == old[tag].value
    elif expected == "uid":
        assert new[tag].value == pseudo_uid(KEY, str(old[tag].value)) != old[tag].value
    else:
        assert new[tag].value == (CODE if expected == "code" else expected)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize(("keyword", "value", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_B9_each_attribute_of_the_table(name: str, keyword: str, value: Any, expected: str) -> None:
    if name == "RTPLAN" and keyword == "OperatorsName":
        expected = "empty"  # Type 2 in objects of radiotherapy
    check(after(name), before(name), keyword, expected)
    check(reread(after(name)), before(name), keyword, expected)


def test_B9_the_table_is_the_table_of_the_protocol() -> None:
    assert [f"{tag_for_keyword(keyword):08X}" for keyword, _, _ in TABLE] == TAGS
    assert sorted(policy().rules) == sorted(int(tag, 16) for tag in TAGS)


@pytest.mark.parametrize("name", OBJECTS)
def test_B9_the_uid_of_the_object_is_the_same_in_the_file_meta_information(name: str) -> None:
    again = reread(after(name))
    assert again.file_meta.MediaStorageSOPInstanceUID == again.SOPInstanceUID
    assert again.file_meta.MediaStorageSOPClassUID == before(name).SOPClassUID


@pytest.mark.parametrize("name", ["JPEG-lossy.dcm", "examples_overlay.dcm"])
def test_B9_pixels_and_transfer_syntax_are_those_of_the_file(name: str) -> None:
    old, again = opened(name), reread(after(name))
    assert again.PixelData == old.PixelData
    assert again.file_meta.TransferSyntaxUID == old.file_meta.TransferSyntaxUID
    assert bundled(name).read_bytes().count(bytes(old.PixelData[:64])) >= 1


@pytest.mark.parametrize("name", OBJECTS)
def test_B9_private_attributes_and_overlays_are_gone(name: str) -> None:
    new = reread(after(name))
    assert not [element.tag for element in new.iterall() if element.tag.is_private]
    assert not [tag for tag in list(new.keys()) if 0x6000 <= tag.group < 0x6100]


def test_B9_the_dates_of_series_and_acquisition_stay_with_that_of_the_study() -> None:
    old = opened("JPEG-lossy.dcm")
    new = out(old, policy())
    assert [new.get(f"{name}Date") for name in ("Study", "Series", "Acquisition", "Content")] == [
        old.get(f"{name}Date") for name in ("Study", "Series", "Acquisition", "Content")
    ]


def test_B9_attributes_with_no_row_in_the_table_follow_the_profile() -> None:
    named = ("PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "OtherPatientIDs")
    named += (
        "PatientAddress",
        "PatientTelephoneNumbers",
        "AdditionalPatientHistory",
        "DeviceSerialNumber",
        "ImageComments",
    )
    dataset = built(NuclearMedicineImageStorage, **dict.fromkeys(named, "a value"))
    new = out(dataset, policy())
    assert not [name for name in named if name in new]


def test_B9_a_missing_attribute_stays_missing_but_for_the_code() -> None:
    dataset = built(NuclearMedicineImageStorage)
    del dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate
    new = out(dataset, policy())
    assert (new.PatientName, new.PatientID) == (CODE, CODE)
    assert not [name for name in ("PatientBirthDate", "StudyDescription", "AccessionNumber") if name in new]


@pytest.mark.parametrize(
    ("birth_date", "study_date", "age", "expected"),
    [
        ("19520613", "20190612", None, "066Y"),
        ("19520612", "20190612", None, "067Y"),
        ("19000101", "20190612", None, "119Y"),
        ("20170613", "20190612", None, "023M"),
        ("20170612", "20190612", None, "002Y"),
        ("20190530", "20190612", None, "013D"),
        ("20190513", "20190612", None, "001M"),
        ("", "20190612", 48, "048Y"),
        ("20200101", "20190612", None, None),
        ("", "20190612", None, None),
    ],
)
def test_B9_the_age_is_that_at_the_exam(
    birth_date: str, study_date: str, age: int | None, expected: str | None
) -> None:
    dataset = built(NuclearMedicineImageStorage, StudyDate=study_date, PatientBirthDate=birth_date)
    new = out(dataset, policy(), age=age)
    assert new.get("PatientAge") == expected
    assert new["PatientBirthDate"].is_empty


def test_J3_ages_above_the_cap_become_the_cap() -> None:
    for dataset in (
        built(CTImageStorage, PatientBirthDate="19200101"),
        built(CTImageStorage, PatientAge="099Y"),
        built(CTImageStorage, PatientBirthDate="19290612"),
    ):
        new = out(dataset, load_policy("jmid"))
        assert new.PatientAge == "090Y"
        assert new["PatientBirthDate"].is_empty


# --- 削除 by Type


VALUES = {keyword: value for keyword, value, _ in TABLE}
DELETED = [keyword for keyword, _, expected in TABLE if expected in ("absent", "empty")]


def test_B10_deletion_goes_by_the_type_of_the_attribute_in_each_kind_of_object() -> None:
    checked = 0
    for sop_class in known_sop_classes():
        if sop_class in policy().reports | policy().documents:
            continue
        dataset = built(sop_class)
        for keyword in DELETED:
            setattr(dataset, keyword, VALUES[keyword])
        new = out(dataset, policy())
        for keyword in DELETED:
            its_type = attribute_type(sop_class, keyword)
            assert its_type in ("2", "2C", "3"), "no attribute that the protocol deletes is of Type 1"
            check(new, dataset, keyword, "absent" if its_type == "3" else "empty")
            checked += 1
    assert checked > 100 * len(DELETED)


@pytest.mark.parametrize(
    ("keyword", "value", "dummy"),
    [
        ("ConversionType", "WSD", "ANONYMIZED"),  # Type 1 in secondary captures
        ("Modality", "OT", "ANONYMIZED"),
        ("Rows", 512, 0),
        ("SOPInstanceUID", "1.2.3", None),
    ],
)
def test_B10_an_attribute_of_type_1_is_given_a_value_that_says_nothing(keyword: str, value: Any, dummy: Any) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None and attribute_type(SecondaryCaptureImageStorage, keyword) == "1"
    rules = {**policy().rules, tag: policy().rules[0x00100030]}
    strict = TagPolicy(policy().file, policy().profile, rules, policy().elements, policy().repeating)
    dataset = built(SecondaryCaptureImageStorage, **{keyword: value})
    new = reread(out(dataset, strict))
    assert dictionary_VR(tag) == new[tag].VR
    assert new[tag].value == (dummy if dummy is not None else new[tag].value) != value
    assert not new[tag].is_empty


def test_B12_name_and_id_are_the_code_and_nothing_else_is() -> None:
    dataset = built(CTImageStorage)
    result = decided(dataset, policy())
    assert result.dataset is not None
    holders = [element.keyword for element in result.dataset.iterall() if str(element.value) == CODE]
    assert holders == ["PatientName", "PatientID"]
    assert dataset.PatientID == "00012345", "the object that goes in is not changed"
