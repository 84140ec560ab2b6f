"""DICOM objects beyond the table of one protocol: UIDs, references, dates, private attributes, reports, left-overs."""

from __future__ import annotations

import warnings
from datetime import timedelta
from functools import cache
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    XRayRadiationDoseSRStorage,
)

from reportlabel.deidentify import dicom
from reportlabel.deidentify.dicom import Result, deidentify_dataset, identifiers_of, pseudo_uid
from reportlabel.deidentify.dicom_policy import PolicyFile, TagPolicy, load_policy
from reportlabel.deidentify.dicom_review import Decision, ReviewKey
from reportlabel.deidentify.dicom_scan import Canaries, scan_bytes
from reportlabel.errors import ConfigError
from tests.unit.deidentify.dicom_objects import (
    CODE,
    KEY,
    as_file,
    built,
    content_item,
    decided,
    opened,
    out,
    put,
    reread,
)

JAPANESE = ["chrH31.dcm", "chrH32.dcm", "chrJapMulti.dcm"]


@cache
def policy(name: str = "keio") -> TagPolicy:
    return load_policy(name)


def with_changes(base: TagPolicy, **changes: Any) -> TagPolicy:
    file = PolicyFile.model_validate({**base.file.model_dump(), **changes})
    return TagPolicy(file, base.profile, base.rules, base.elements, base.repeating)


def once(dataset: Dataset, chosen: TagPolicy | None = None, **given: Any) -> Result:
    return deidentify_dataset(dataset, chosen or policy(), **{"patient_code": CODE, "uid_key": KEY, **given})


def codes(dataset: Dataset) -> set[str]:
    return {item.CodeValue for item in dataset.DeidentificationMethodCodeSequence}


# --- what does not go out


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.5"}, dicom.UNKNOWN_SOP_CLASS),  # nuclear medicine, retired
        ({"SOPClassUID": "1.2.392.200036.9116.7.8.1.1.1"}, dicom.UNKNOWN_SOP_CLASS),
        ({"SOPClassUID": ""}, dicom.NO_SOP_CLASS),
        ({"SOPInstanceUID": None}, dicom.NO_SOP_CLASS),
        ({"SOPClassUID": EncapsulatedPDFStorage}, dicom.DOCUMENT),
        ({"SOPClassUID": ComprehensiveSRStorage}, dicom.REPORT),
        ({"BurnedInAnnotation": "YES"}, dicom.BURNED_IN),
        ({"SOPClassUID": UltrasoundImageStorage, "PixelData": b"\0\0"}, dicom.PIXELS_UNDECIDED),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "PixelData": b"\0\0"}, dicom.PIXELS_UNDECIDED),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "PixelData": b"\0\0", "BurnedInAnnotation": "NO"},
         dicom.PIXELS_UNDECIDED),
        ({"Modality": "US", "PixelData": b"\0\0"}, dicom.PIXELS_UNDECIDED),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"], "PixelData": b"\0\0"}, dicom.PIXELS_UNDECIDED),
    ],
)  # fmt: skip
def test_B11_what_cannot_be_judged_is_quarantined(attributes: dict[str, Any], reason: str) -> None:
    result = once(built(CTImageStorage, **attributes))
    assert (result.outcome, result.reason, result.dataset) == ("quarantined", reason, None)
    assert reason in dicom.REASONS


def test_B11_an_overlay_in_the_bits_of_the_pixels_is_quarantined() -> None:
    dataset = built(CTImageStorage, PixelData=b"\0\0")
    put(dataset, 0x60000100, "US", 16)
    put(dataset, 0x60000102, "US", 12)
    assert once(dataset).reason == dicom.OVERLAY_IN_PIXELS


def test_objects_without_pixels_need_no_look_at_them() -> None:
    assert once(built(CTImageStorage, Modality="US")).outcome == "out"


def test_J1_objects_that_the_study_does_not_take_are_excluded() -> None:
    result = once(built(NuclearMedicineImageStorage), policy("jmid"))
    assert (result.outcome, result.reason) == ("excluded", dicom.NOT_TAKEN)


def test_B11_pictures_go_out_once_a_reviewer_has_looked_at_them() -> None:
    dataset = opened("JPEG-lossy.dcm")
    assert once(dataset).reason == dicom.PIXELS_UNDECIDED
    new = out(dataset, policy())
    assert new.BurnedInAnnotation == "NO"
    assert "113101" in codes(new)


def test_B11_pictures_that_a_reviewer_rejects_are_excluded() -> None:
    first = once(opened("JPEG-lossy.dcm"))
    answers: dict[ReviewKey, Decision] = {item.key: "remove" for item in first.review}
    result = once(opened("JPEG-lossy.dcm"), decisions=answers)
    assert (result.outcome, result.reason) == ("excluded", dicom.PIXELS_REJECTED)


def test_pictures_with_words_never_go_out_where_the_policy_says_so() -> None:
    strict = with_changes(policy(), pixels={"burned_in": "quarantine"})
    assert decided(opened("JPEG-lossy.dcm"), strict).outcome == "quarantined"


@pytest.mark.parametrize("code", ["", "山田", "a/b", "../x", "A" * 65, "a b"])
def test_a_code_that_is_no_code_is_an_error(code: str) -> None:
    with pytest.raises(ConfigError, match="patient code"):
        once(built(CTImageStorage), patient_code=code)


def test_a_short_key_is_an_error() -> None:
    with pytest.raises(ConfigError, match="16 bytes"):
        once(built(CTImageStorage), uid_key=b"short")


# --- private attributes and overlays


def test_B11_all_179_private_attributes_are_shown_and_by_default_removed() -> None:
    dataset = opened("CT_small.dcm")
    private = [element.tag for element in dataset.iterall() if element.tag.is_private]
    assert len(private) == 179
    shown = [tag for tag in private if tag.element >= 0x0100]
    result = once(dataset, policy("gunma_bone_scan"))
    assert result.reason == dicom.PRIVATE_UNDECIDED
    assert [item.key.kind for item in result.review] == ["private"] * len(shown)
    new = reread(out(dataset, policy("gunma_bone_scan")))
    assert not [element.tag for element in new.iterall() if element.tag.is_private]
    assert new.PixelData == dataset.PixelData


def test_B11_private_attributes_that_a_reviewer_keeps_stay_with_their_creator() -> None:
    dataset = opened("CT_small.dcm")
    new = reread(out(dataset, policy("gunma_bone_scan"), private="keep"))
    block = new.private_block(0x0009, "GEMS_IDEN_01")
    assert block[0x01].value == dataset.private_block(0x0009, "GEMS_IDEN_01")[0x01].value
    assert "113111" in codes(new)


def test_private_attributes_of_the_list_of_the_policy_stay_without_a_review() -> None:
    chosen = with_changes(policy(), private={"keep": ["(0009,xx01) GEMS_IDEN_01"]})
    new = reread(out(opened("CT_small.dcm"), chosen))
    assert [element.tag for element in new if element.tag.is_private] == [0x00090010, 0x00091001]


def test_private_attributes_without_a_creator_go_whatever_is_decided() -> None:
    dataset = built(CTImageStorage)
    put(dataset, 0x00111001, "LO", "青山花子")
    assert 0x00111001 not in out(dataset, policy("gunma_bone_scan"), private="keep")


def test_B11_private_attributes_in_items_are_shown_and_removed_too() -> None:
    inner, dataset = Dataset(), built(CTImageStorage)
    inner.private_block(0x0011, "ACME", create=True).add_new(0x02, "LO", "inside")
    inner.PatientName = "青山^花子"
    dataset.private_block(0x0011, "ACME", create=True).add_new(0x01, "SQ", Sequence([inner]))
    nested = Dataset()
    nested.private_block(0x0011, "ACME", create=True).add_new(0x03, "LO", "nested")
    dataset.ReferencedImageSequence = Sequence([nested])
    result = once(dataset, policy("gunma_bone_scan"))
    assert {item.key.tag for item in result.review} == {"(0011,xx01)", "(0011,xx02)", "(0011,xx03)"}
    assert [one.path for one in result.actions if one.tag == "(0011,1002)"] == [], "the sequence goes as a whole"
    kept = reread(out(dataset, policy("gunma_bone_scan"), private="keep"))
    item = kept.private_block(0x0011, "ACME")[0x01].value[0]
    assert item.private_block(0x0011, "ACME")[0x02].value == "inside"
    assert item.PatientName == CODE
    assert not scan_bytes(as_file(out(dataset, policy("gunma_bone_scan"))), ["inside", "nested"])


def test_names_uids_and_dates_in_private_attributes_are_never_kept_as_they_are() -> None:
    dataset = built(CTImageStorage)
    block = dataset.private_block(0x0011, "ACME", create=True)
    block.add_new(0x01, "PN", "KIMURA^JIRO")
    block.add_new(0x02, "UI", "1.2.3.4")
    block.add_new(0x03, "DA", "20190612")
    chosen = with_changes(policy("gunma_bone_scan"), dates="shift", shift_days=(10, 10))
    new = out(dataset, TagPolicy(chosen.file, chosen.profile, {}, chosen.elements, {}), private="keep")
    kept = new.private_block(0x0011, "ACME")
    assert 0x01 not in kept
    assert (kept[0x02].value, kept[0x03].value) == (pseudo_uid(KEY, "1.2.3.4"), "20190602")


def test_B11_overlays_wait_for_a_decision_and_stay_without_their_words() -> None:
    dataset = opened("examples_overlay.dcm")
    put(dataset, 0x60000022, "LO", "drawn by KIMURA")
    chosen = policy("gunma_bone_scan")
    first = once(dataset, chosen)
    overlays = [item for item in first.review if item.key.kind == "overlay"]
    assert [item.key.tag for item in overlays] == ["(6000,3000)"]
    assert "drawn by KIMURA" in overlays[0].value
    removed: dict[ReviewKey, Decision] = {item.key: "remove" for item in first.review if item.key.kind == "private"}
    assert once(dataset, chosen, decisions=removed).reason == dicom.OVERLAY_UNDECIDED
    kept = once(dataset, chosen, decisions={**removed, overlays[0].key: "keep"}).dataset
    assert kept is not None
    assert kept[0x60003000].value == dataset[0x60003000].value
    assert 0x60000022 not in kept
    assert "113103" in codes(kept)


# --- UIDs and references


def test_uids_are_valid_short_and_depend_on_the_key() -> None:
    assert pseudo_uid(KEY, "1.2.3") == pseudo_uid(KEY, "1.2.3\0") != pseudo_uid(KEY[::-1], "1.2.3")
    for number in range(200):
        uid = pseudo_uid(KEY, f"1.2.{number}")
        assert len(uid) <= 44
        assert uid.startswith("2.25.") and not uid.startswith("2.25.0")


def test_uids_of_the_standard_and_of_kinds_of_things_stay() -> None:
    study, many = Dataset(), ["1.2.3", "1.2.4"]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = CTImageStorage, "1.2.840.10008.1.1.5.6"
    dataset = built(
        CTImageStorage,
        ReferencedImageSequence=Sequence([study]),
        FailedSOPInstanceUIDList=many,
        FrameOfReferenceUID="1.2.840.10008.1.4.1.1",
    )
    new = out(dataset, policy())
    assert new.ReferencedImageSequence[0].ReferencedSOPClassUID == CTImageStorage
    assert new.ReferencedImageSequence[0].ReferencedSOPInstanceUID == pseudo_uid(KEY, "1.2.840.10008.1.1.5.6")
    assert list(new.FailedSOPInstanceUIDList) == [pseudo_uid(KEY, one) for one in many]
    assert new.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1", "Talairach brain atlas, a UID of the standard"


def test_BC11_uids_stay_where_the_policy_says_so_and_the_codes_say_it() -> None:
    dataset = built(CTImageStorage)
    result = decided(dataset, policy().choose(uids="keep"))
    assert result.dataset is not None
    assert result.dataset.StudyInstanceUID == dataset.StudyInstanceUID
    assert "113110" in codes(result.dataset)
    assert {one.keyword for one in result.actions if one.done == "uid kept"} >= {"StudyInstanceUID", "SOPInstanceUID"}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # of the files of pydicom, as they are read
def test_J5_references_of_radiotherapy_objects_stay_resolvable() -> None:
    plan, dose, structures, image = (opened(f"{name}.dcm") for name in ("rtplan", "rtdose", "rtstruct", "CT_small"))
    plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID = structures.SOPInstanceUID
    dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = plan.SOPInstanceUID
    series = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    series.SeriesInstanceUID = image.SeriesInstanceUID
    slice_of = Dataset()
    slice_of.ReferencedSOPClassUID, slice_of.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    series.ContourImageSequence = Sequence([slice_of])
    structures.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = image.FrameOfReferenceUID

    plan, dose, structures, image = (reread(out(one, policy("jmid"))) for one in (plan, dose, structures, image))
    assert plan.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == structures.SOPInstanceUID
    assert dose.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == plan.SOPInstanceUID
    series = structures.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert series.ContourImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert structures.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == image.FrameOfReferenceUID
    assert all(one.SOPInstanceUID.startswith("2.25.") for one in (plan, dose, structures, image))


def test_J5_contours_keep_their_names_and_points_and_lose_their_labels() -> None:
    structures = opened("rtstruct.dcm")
    new = reread(out(structures, policy("jmid")))
    assert [roi.ROIName for roi in new.StructureSetROISequence] == [
        roi.ROIName for roi in structures.StructureSetROISequence
    ]
    assert new.ROIContourSequence[0].ContourSequence[0].ContourData == (
        structures.ROIContourSequence[0].ContourSequence[0].ContourData
    )
    assert new.StructureSetLabel == "ANONYMIZED"
    assert new["OperatorsName"].is_empty
    assert new.SOPClassUID == RTStructureSetStorage


# --- dates


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")  # the way dates were written before 1993
def test_KC4_dates_move_by_the_same_days_and_times_stay() -> None:
    item = Dataset()
    item.AcquisitionDateTime, item.ContentDate = "20190612093000.5+0900", "2019.06.13"
    dataset = built(
        CTImageStorage, StudyTime="0930", SeriesDate="20190612", ReferencedImageSequence=Sequence([item]),
        AcquisitionDateTime="201906", InstanceCreationDate="20200229",
    )  # fmt: skip
    new = out(dataset, policy(), shift=-timedelta(days=100))
    assert (new.StudyDate, new.SeriesDate, new.StudyTime) == ("20190304", "20190304", "0930")
    assert new.InstanceCreationDate == "20191121"
    inner = new.ReferencedImageSequence[0]
    assert (inner.AcquisitionDateTime, inner.ContentDate) == ("20190304093000.5+0900", "20190305")
    assert "AcquisitionDateTime" not in new, "a month cannot be moved by days"
    assert new["PatientBirthDate"].is_empty
    assert new.LongitudinalTemporalInformationModified == "MODIFIED"


def test_KC4_the_days_come_from_key_and_patient() -> None:
    dataset = built(CTImageStorage)
    first, again = (out(dataset, policy()).StudyDate for _ in range(2))
    others = {
        deidentify_dataset(dataset, policy(), patient_code=f"P{n}", uid_key=KEY).dataset.StudyDate  # type: ignore[union-attr]
        for n in range(20)
    }
    assert first == again != dataset.StudyDate
    assert len(others) > 10
    assert all("20180612" <= day < "20190612" for day in others)


def test_dates_go_where_the_policy_removes_them() -> None:
    dataset = built(CTImageStorage, SeriesDate="20190612", ContentDate="20190612", DateOfLastCalibration="20190101")
    put(dataset, 0x00189074, "DT", "20190612")
    new = out(dataset, policy().choose(dates="remove"))
    assert new["StudyDate"].is_empty
    assert "SeriesDate" not in new and "DateOfLastCalibration" not in new
    assert new.LongitudinalTemporalInformationModified == "REMOVED"
    assert not scan_bytes(as_file(new), ["20190612", "20190101"])


# --- what the headers say of it


@pytest.mark.parametrize(
    ("name", "attributes", "said"),
    [
        ("keio", {}, {"113100", "113107", "113108"}),
        ("keio", {"PatientSex": "F"}, {"113100", "113107", "113108"}),
        ("keio", {"PatientBirthDate": "", "StudyDate": ""}, {"113100"}),
        ("gunma_bone_scan", {}, {"113100", "113106", "113108"}),
        ("gunma_bone_scan", {"StationName": "GAMMA1"}, {"113100", "113106", "113108", "113109"}),
        ("jmid", {"DeviceSerialNumber": "77"}, {"113100", "113106", "113108", "113109"}),
        ("jmid", {"ProtocolName": "chest"}, {"113106", "113108"}),  # more stays than the profile and its options allow
    ],
)
def test_the_codes_say_what_stays(name: str, attributes: dict[str, Any], said: set[str]) -> None:
    new = reread(out(built(CTImageStorage, **attributes), policy(name)))
    assert codes(new) == said
    assert (new.PatientIdentityRemoved, new.DeidentificationMethod) == ("YES", f"PS3.15 2026c, policy {name}")
    for item in new.DeidentificationMethodCodeSequence:
        assert item.CodingSchemeDesignator == "DCM" and item.CodeMeaning


def test_file_meta_information_and_preamble_hold_nothing_of_the_sender() -> None:
    dataset = opened("CT_small.dcm")
    dataset.preamble = b"AOYAMA HANAKO".ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = "AOYAMA"
    new = reread(out(dataset, policy()))
    assert new.preamble == b"\0" * 128
    assert "SourceApplicationEntityTitle" not in new.file_meta
    assert not scan_bytes(as_file(new), ["AOYAMA", "CLUNIE1"])


# --- text


@pytest.mark.parametrize("name", JAPANESE)
def test_japanese_names_are_gone_and_the_search_finds_them_in_the_original(name: str) -> None:
    dataset = opened(name)
    words = ["山田^太郎", "やまだ^たろう", "ﾔﾏﾀﾞ", "ヤマダ", "山田", "Yamada^Tarou"]
    found = scan_bytes(_bytes_of(name), words)
    assert found, "the search works"
    result = decided(dataset, policy())
    assert result.dataset is not None, result.reason
    assert not scan_bytes(as_file(result.dataset), words)
    assert result.dataset.PatientName == CODE
    assert {"山田", "やまだ"} & set(result.identifiers)


def _bytes_of(name: str) -> bytes:
    from tests.unit.deidentify.dicom_objects import bundled

    return bundled(name).read_bytes()


def test_kept_text_in_japanese_stays_as_it_was_written() -> None:
    dataset = built(CTImageStorage, BodyPartExamined="CHEST", ProtocolName="胸部単純", StationName="ＣＴ１")
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "AOYAMA^HANAKO=青山^花子"
    read = dcmread(BytesIO(as_file(dataset)))
    new = reread(out(read, policy("jmid")))
    assert (new.ProtocolName, new.StationName) == ("胸部単純", "ＣＴ１")


def test_text_that_cannot_be_decoded_does_not_stay() -> None:
    dataset = built(CTImageStorage, ProtocolName="胸部単純")
    data = as_file(dataset).replace("胸部単純".encode(), b"\xff\xfe\xfa\xfb" * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = out(dcmread(BytesIO(data)), policy("jmid"))
    assert "ProtocolName" not in new


@pytest.mark.parametrize("text", ["PELVIS AOYAMA", "骨盤　青山様", "no 00012345", "AOYAMA^HANAKO"])
def test_J7_an_identifier_that_stands_in_kept_text_too_is_found(text: str) -> None:
    dataset = built(CTImageStorage, PatientName="AOYAMA^HANAKO=青山^花子", ProtocolName=text)
    result = once(dataset, policy("jmid"))
    assert (result.outcome, result.reason) == ("quarantined", dicom.IDENTIFIER_LEFT)
    assert [one.tag for one in result.actions if one.done == "found"] == ["(0018,1030)"]
    assert "AOYAMA" not in repr(result) and "青山" not in repr(result)


def test_J7_the_maker_of_the_device_may_have_the_name_of_a_hospital() -> None:
    dataset = built(MRImageStorage, Manufacturer="TOSHIBA", InstitutionName="TOSHIBA")
    assert once(dataset).outcome == "out"


@pytest.mark.parametrize(
    ("value", "is_name", "words"),
    [
        ("AOYAMA^HANAKO=青山^花子=あおやま^はな", True,
         ["AOYAMA^HANAKO", "AOYAMA", "HANAKO", "青山^花子", "青山", "花子", "あおやま^はな", "あおやま"]),
        ("ABE^ITO", True, ["ABE^ITO"]),
        ("0012345", False, ["0012345"]),
        ("12345", False, []),
        ("", True, []),
        (None, True, []),
        ("Hospital of the town", False, ["Hospital of the town"]),
    ],
)  # fmt: skip
def test_the_words_that_are_searched_for(value: str | None, is_name: bool, words: list[str]) -> None:
    assert identifiers_of(value, is_name=is_name) == words


def test_no_value_of_any_attribute_of_the_profile_is_left_at_any_depth() -> None:
    """Each attribute of the profile that can hold text, at the top and in a sequence, with a word of its own."""
    top, nested, words = built(CTImageStorage), Dataset(), []
    for tag, element in policy().elements.items():
        keyword = keyword_for_tag(tag)
        vr = dictionary_VR(tag) if keyword else "SQ"
        if vr not in ("LO", "LT", "PN", "SH", "ST", "UC", "UT") or element.option == "dates":
            continue
        word = f"Q{len(words):04d}ZK"
        words.append(word)
        for place in (top, nested):
            put(place, tag, vr, word)
    top.ReferencedImageSequence = Sequence([nested])
    assert len(words) > 250
    assert len({hit.canary for hit in scan_bytes(as_file(top), words)}) == len(words), "the search works"
    new = out(top, policy())
    assert not scan_bytes(as_file(new), words)


def test_words_where_a_time_should_be_do_not_stay_with_the_times() -> None:
    dataset = built(CTImageStorage, TimezoneOffsetFromUTC="+0900")
    assert out(dataset, policy("jmid")).TimezoneOffsetFromUTC == "+0900"
    dataset.TimezoneOffsetFromUTC = "SASAKI"
    assert "TimezoneOffsetFromUTC" not in out(dataset, policy("jmid"))


def test_a_name_goes_whatever_the_file_calls_it() -> None:
    unlisted = [tag for tag, row in DicomDictionary.items() if row[0] == "PN" and tag not in policy().elements]
    assert unlisted
    dataset = built(CTImageStorage)
    for tag in unlisted:
        put(dataset, tag, "LO", "SASAKI^SABURO")
    put(dataset, 0x00100010, "LO", "青山^花子")
    new = out(dataset, policy())
    assert not scan_bytes(as_file(new), ["SASAKI", "青山"])
    assert new.PatientName == CODE


def test_attributes_that_the_standard_does_not_know_do_not_stay() -> None:
    dataset = built(CTImageStorage)
    put(dataset, 0x00181234 - 1, "LO", "unknown words")
    put(dataset, 0x50000010, "LO", "a curve")
    assert not scan_bytes(as_file(out(dataset, policy())), ["unknown words", "a curve"])


def test_the_object_that_goes_in_is_not_changed() -> None:
    dataset = opened("rtstruct.dcm")
    before = dataset.to_json()
    once(dataset)
    assert dataset.to_json() == before


# --- structured reports


@pytest.mark.parametrize("name", ["test-SR.dcm", "reportsi.dcm"])
@pytest.mark.parametrize("policy_name", ["keio", "gunma_bone_scan"])
def test_structured_reports_wait_unless_the_policy_cleans_them(name: str, policy_name: str) -> None:
    assert once(opened(name), policy(policy_name)).reason == dicom.REPORT


@pytest.mark.parametrize("name", ["test-SR.dcm", "reportsi.dcm"])
def test_cleaned_reports_hold_no_names_and_no_free_text(name: str) -> None:
    clean = with_changes(policy(), structured_reports={"clean": ["ComprehensiveSRStorage", "BasicTextSRStorage"]})
    dataset = opened(name)
    dataset.PatientName = "AOYAMA^HANAKO"  # those of the files are words of the form: Last Name, Enter text
    for element in dataset.iterall():
        if element.keyword == "PersonName":
            element.value = "SASAKI^SABURO"
    dataset.ReferringPhysicianName = "KIMURA^JIRO"
    for observer in dataset.get("VerifyingObserverSequence", ()):
        observer.VerifyingObserverName = "ISHIDA^SHIRO"
    texts = [
        str(element.value)
        for element in dataset.iterall()
        if element.keyword
        in ("TextValue", "PersonName", "VerifyingObserverName", "PatientName", "ReferringPhysicianName")
        and len(str(element.value)) > 3
    ]
    assert texts
    new = reread(out(dataset, clean))
    assert not scan_bytes(as_file(new), texts)
    assert len(new.ContentSequence) == len(dataset.ContentSequence)
    assert "113104" in codes(new)


def test_J4_dose_reports_keep_their_numbers_and_lose_persons_and_words() -> None:
    measured = Dataset()
    measured.NumericValue = "512.5"
    items = [
        content_item("PNAME", "121008", PersonName="SASAKI^SABURO"),
        content_item("TEXT", "121012", TextValue="device of SASAKI"),
        content_item("DATE", "121031", Date="19520111"),
        content_item("DATETIME", "111526", DateTime="20190612093000"),
        content_item("UIDREF", "113769", UID="1.2.3.4"),
        content_item("NUM", "113813", MeasuredValueSequence=Sequence([measured])),
        content_item("CONTAINER", "113819", ContentSequence=Sequence([
            content_item("TEXT", "121030", TextValue="00012345"), content_item("UIDREF", "121022", UID="1.9.8")])),
    ]  # fmt: skip
    dataset = built(XRayRadiationDoseSRStorage, Modality="SR", ContentSequence=Sequence(items))
    new = reread(out(dataset, policy("jmid")))
    person, device, born, started, event, number, container = new.ContentSequence
    assert (person.PersonName, device.TextValue, born.Date) == ("ANONYMIZED", "ANONYMIZED", "19000101")
    assert (started.DateTime, event.UID) == ("20190612093000", pseudo_uid(KEY, "1.2.3.4"))
    assert number.MeasuredValueSequence[0].NumericValue == 512.5
    assert container.ContentSequence[0].TextValue == "ANONYMIZED"
    assert container.ContentSequence[1].UID not in ("1.9.8", "")
    assert not scan_bytes(as_file(new), Canaries(["SASAKI", "00012345", "19520111"]))


def test_people_in_sequences_that_must_not_be_empty_become_nobody() -> None:
    code, person = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "D-4711", "99STAFF", "Sasaki"
    person.PersonIdentificationCodeSequence, person.InstitutionName = Sequence([code]), "Hospital of the tests"
    observer = Dataset()
    observer.VerifyingObserverName, observer.VerifyingOrganization = "SASAKI^SABURO", "Hospital of the tests"
    observer.VerificationDateTime = "20190612"
    clean = with_changes(policy(), structured_reports={"clean": ["ComprehensiveSRStorage"]}).choose(dates="remove")
    dataset = built(
        ComprehensiveSRStorage,
        VerifyingObserverSequence=Sequence([observer]),
        OperatorIdentificationSequence=Sequence([person]),
    )
    new = reread(out(dataset, clean))
    assert new.VerifyingObserverSequence[0].VerifyingObserverName == "ANONYMIZED"
    assert not scan_bytes(as_file(new), ["SASAKI", "D-4711", "Hospital of the tests"])


# --- any file that comes with pydicom


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # of the files of pydicom, as they are read
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "waveform_ecg.dcm",
        "rtdose.dcm", "image_dfl.dcm", "JPEG2000.dcm", "ExplVR_BigEnd.dcm", "examples_ybr_color.dcm",
        "examples_rgb_color.dcm", "examples_palette.dcm", "J2K_pixelrep_mismatch.dcm",
    ],
)  # fmt: skip
def test_files_open_without_warnings_and_keep_their_pixels(name: str) -> None:
    dataset = opened(name)
    dataset.remove_private_tags()
    result = decided(dataset, policy())
    assert result.outcome == "out", result.reason
    assert result.dataset is not None
    again = reread(result.dataset)
    assert again.get("PixelData") == dataset.get("PixelData")
    assert again.file_meta.TransferSyntaxUID == dataset.file_meta.TransferSyntaxUID
    assert again.PatientID == CODE
    assert not scan_bytes(as_file(result.dataset), result.identifiers)
