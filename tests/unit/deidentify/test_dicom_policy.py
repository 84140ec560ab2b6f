"""Policies: those of the package, and what is wrong in a file is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag

from reportlabel.deidentify.dicom_policy import PERSON_TIMES, load_policy
from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder

NAMES = ["gunma_bone_scan", "jmid", "keio"]


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(f"id: study\ntitle: a study\n{text}", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_X1_the_policies_of_the_package_load_and_differ(name: str) -> None:
    policy = load_policy(name)
    assert policy.id == name
    assert policy == load_policy(rules_folder() / "dicom" / f"{name}.yaml")
    assert policy.file != load_policy(NAMES[NAMES.index(name) - 1]).file


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_keeps_a_name_an_id_or_a_day_of_birth(name: str) -> None:
    policy = load_policy(name)
    for tag in policy.elements:
        keyword = keyword_for_tag(tag)
        vr = dictionary_VR(tag) if keyword else "LO"
        plan = policy.plan(tag, vr)
        if (
            vr == "PN"
            or tag in PERSON_TIMES
            or keyword in ("PatientID", "OtherPatientIDs", "AccessionNumber", "PatientAddress")
        ):
            assert plan.action not in ("keep", "K", "shift"), keyword
        if vr == "UI":
            assert plan.action in ("uid", "U"), keyword
    assert policy.plan(0x00080005, "CS").action == "keep"
    assert policy.plan(0x00080016, "UI").action == "keep"
    assert policy.plan(0x00404099, "LO").action == "X", "an attribute that the dictionary does not know"
    assert policy.plan(0x00189999, "PN").action == "X"


def test_BC4_the_profile_has_the_attributes_of_the_table_of_the_standard() -> None:
    policy = load_policy("gunma_bone_scan")
    assert len(policy.profile.elements) == 651
    assert len(set(policy.elements) - set(policy.rules)) > 593
    assert set(policy.rules) <= set(policy.elements)
    for tag in (
        0x00081050,
        0x00081060,
        0x00321032,
        0x00101000,
        0x00101040,
        0x00102154,
        0x001021B0,
        0x00400275,
        0x00204000,
    ):
        assert policy.plan(tag, "LO").action == "X"
    assert policy.plan(0x60003000, "OW").action == policy.plan(0x50100010, "US").action == "X"


def test_BC9_fixed_strings_and_uids_and_dates_come_from_the_protocol() -> None:
    policy = load_policy("gunma_bone_scan")
    chosen = policy.choose(fixed_strings={"(0008,1030)": "BS"}, uids="keep")
    assert (chosen.rules[0x00081030].value, chosen.file.uids) == ("BS", "keep")
    assert policy.rules[0x00081030].value == "BONE SCINTIGRAPHY"
    assert chosen.plan(0x00081030, "LO").value == "BS"
    assert load_policy("keio").choose(dates="keep").plan(0x00080020, "DA").action == "keep"
    with pytest.raises(ConfigError, match=re.escape("(0010,0010) has a fixed string")):
        policy.choose(fixed_strings={"(0010,0010)": "X"})
    with pytest.raises(ConfigError, match="StudyDate is kept although dates are shifted"):
        policy.choose(dates="shift")
    with pytest.raises(ConfigError, match="is no tag"):
        policy.choose(fixed_strings={"study": "X"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dates: keep\nother: 1\n", "study.yaml:4: unknown key 'other'"),
        ("rules: {}\n", "dates"),
        ("dates: sometimes\n", "study.yaml:3: dates"),
        (
            'dates: keep\nrules:\n  "(0010,0010) PatientID": keep\n',
            r"study.yaml:5: \(0010,0010\) is PatientName, not PatientID",
        ),
        ('dates: keep\nrules:\n  "(0010,0998) Nothing": keep\n', "study.yaml:5: .* is unknown"),
        ('dates: keep\nrules:\n  "PatientName": delete\n', "study.yaml:5: 'PatientName' is no attribute"),
        ('dates: keep\nrules:\n  "(0008,1030) StudyDescription": replace\n', "needs a value"),
        ('dates: keep\nrules:\n  "(0008,1030) StudyDescription": {action: keep, value: x}\n', "no other action"),
        ('dates: keep\nrules:\n  "(0010,0030) PatientBirthDate": keep\n', "cannot be kept"),
        ('dates: shift\nrules:\n  "(0008,0020) StudyDate": keep\n', "remove its rule"),
        ("dates: shift\nshift_days: [9, 3]\n", "least number"),
        ("dates: keep\nsop_classes: [CTImage]\n", "study.yaml:4: 'CTImage' is no SOP class"),
        ("dates: keep\nstructured_reports: {clean: [Reports]}\n", "'Reports' is no SOP class"),
        ("dates: keep\nprivate: {keep: ['(0019,100C) ACME']}\n", "private.keep"),
        ("dates: keep\ndefault: nothing\n", "nothing.yaml"),
    ],
)
def test_what_is_wrong_in_a_policy_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy(written(tmp_path, text))


def test_a_policy_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match="gunma_bone_scan, jmid, keio"):
        load_policy("tohoku")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dummy_items: [Person", "dummy_items: [Persons, Person", "'Persons' is no attribute"),
        ("documents: [Enc", "documents: [Nothing, Enc", "'Nothing' is no SOP class"),
        ("(0008,0050) AccessionNumber", "(0008,0050) StudyID", "is AccessionNumber, not StudyID"),
    ],
)
def test_what_is_wrong_in_the_profile_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (rules_folder() / "dicom" / "ps3_15_basic.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"mine.yaml:\d+: .*{message}"):
        load_policy(written(tmp_path, "dates: keep\ndefault: mine\n"))
