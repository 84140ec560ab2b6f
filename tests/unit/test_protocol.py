"""Study protocols: what loads, what each says, what the gate lets through. Tests of requirements carry their number."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from reportlabel.errors import ConfigError, ExitCode
from reportlabel.protocol import (
    Protocol,
    RefusedError,
    anniversary,
    days_left,
    load_protocol,
    shipped_protocols,
)
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import read_yaml

KEIO, JMID, GUNMA, SHINSHU, TOHOKU = "keio_2017_0018", "jmid", "gunma_bone_scan", "shinshu_skin", "tohoku_skin"
STUDIES = [KEIO, JMID, GUNMA, SHINSHU, TOHOKU]
WORKING = {
    KEIO: date(2026, 11, 21),
    JMID: date(2026, 11, 21),
    GUNMA: date(2024, 4, 1),
    SHINSHU: date(2023, 4, 1),
    TOHOKU: date(2024, 4, 1),
}
"""A day on which each study may work."""
FOLDER = rules_folder() / "protocols"
GAPS = [
    (notice, gap["number"], key)
    for notice, gaps in read_yaml(FOLDER / "gaps.yaml").data["notices"].items()
    for gap in gaps
    for key in (*gap["keys"], *gap.get("if_true", []))
]

PROTOCOLS = {study: load_protocol(study) for study in STUDIES}


def data_of(study: str) -> dict[str, Any]:
    data: dict[str, Any] = read_yaml(FOLDER / f"{study}.yaml").data
    return data


def written(folder: Path, data: dict[str, Any]) -> Path:
    path = folder / f"{data.get('id', 'study')}.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def changed(folder: Path, study: str, change: Callable[[dict[str, Any]], object]) -> Path:
    data = data_of(study)
    change(data)
    return written(folder, data)


def without(data: dict[str, Any], key: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        data = data[parent]
    del data[last]


def refusal(study: str | Protocol, action: Any = "export", today: date | None = None, **options: Any) -> str:
    """The number of the requirement that refuses."""
    protocol = study if isinstance(study, Protocol) else PROTOCOLS[study]
    with pytest.raises(RefusedError) as error:
        protocol.gate(action, today=today or WORKING[protocol.notice], **options)
    assert error.value.exit_code is ExitCode.REFUSED
    assert error.value.number in str(error.value)
    return error.value.number


def allowed(study: str | Protocol, action: Any = "export", today: date | None = None, **options: Any) -> Any:
    protocol = study if isinstance(study, Protocol) else PROTOCOLS[study]
    return protocol.gate(action, today=today or WORKING[protocol.notice], **options)


# --- X1: one schema


def test_X1_one_schema_holds_all_five_and_they_differ() -> None:
    assert shipped_protocols() == sorted(STUDIES)
    for read in (
        lambda one: (one.cohort.since, one.cohort.to),
        lambda one: one.validity.to,
        lambda one: tuple(sorted(one.columns_of("exams") | one.record_kinds())),
        lambda one: one.codes.patient_prefix,
        lambda one: one.sha256,
    ):
        assert len({read(one) for one in PROTOCOLS.values()}) == 5


REQUIRED = [name for name, field in Protocol.model_fields.items() if field.is_required()]


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("study", [KEIO, GUNMA])
def test_X1_removing_a_required_key_fails(study: str, key: str, tmp_path: Path) -> None:
    path = changed(tmp_path, study, lambda data: data.pop(key)) if key != "id" else tmp_path / "study.yaml"
    if key == "id":
        data = data_of(study)
        del data["id"]
        written(tmp_path, data)
    with pytest.raises(ConfigError, match=rf"{key}"):
        load_protocol(path)


def test_X1_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    path = changed(tmp_path, KEIO, lambda data: data["cohort"].update(colour="blue"))
    line = next(at for at, text in enumerate(path.read_text().splitlines(), start=1) if "colour" in text)
    with pytest.raises(ConfigError, match=rf"{KEIO}\.yaml:{line}: unknown key 'colour'"):
        load_protocol(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["cohort"].update({"from": date(2031, 1, 1)}), "later"),
        (lambda data: data["cohort"]["sites"].append(data["cohort"]["sites"][0]), "sites: an id stands twice"),
        (lambda data: data["cohort"]["kinds"][0].pop("modality_classes"), "modality_classes, modalities or words"),
        (lambda data: data["recipients"].append(data["recipients"][0]), "stands twice"),
        (lambda data: data["recipients"][0]["purposes"].append("sale"), "sale"),
        (lambda data: data["recipients"][-1].update(domestic=False), "outside the country"),
        (lambda data: data["items"][0]["columns"].append("birth_date"), "no column birth_date"),
        (lambda data: data["items"][2].pop("kinds"), "name the kinds"),
        (lambda data: data["items"][1].update(kinds=["lab"]), "kinds belong to the table records"),
        (lambda data: data["linkage"].update(destroy_on=date(2029, 1, 1)), "differ"),
        (lambda data: data["deid"].update(legal_level="anonymised"), "pseudonymised"),
        (lambda data: data["deid"].update(profile={"teacher_labels": "pseudonymised"}), "each of 'deliverables'"),
        (lambda data: data["deid"].update(dates={"anonymised": "shift"}), "one each for pseudonymised and anonymised"),
        (lambda data: data["retention"].update(basis="fixed"), "until"),
        (lambda data: data["retention"].pop("years"), "years"),
        (lambda data: data["deliverables"].append({"id": "sheet", "kind": "excel"}), "section for it is missing"),
        (lambda data: data["dicom"].update(policy="no_such"), r"no rules/dicom/no_such\.yaml"),
        (lambda data: data["label_sets"].append("no_such_set"), "no label set 'no_such_set'"),
        (lambda data: data["security"].update(network="offline") or data["recipients"][-1]["hosts"].append("a.jp"),
         "offline"),
    ],
)  # fmt: skip
def test_X1_what_does_not_hold_together_is_named(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_protocol(changed(tmp_path, KEIO, change))


def test_the_file_name_is_the_id(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text((FOLDER / f"{KEIO}.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match="must equal the file name"):
        load_protocol(path)


def test_a_slip_in_the_notice_does_not_hide_its_gaps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no notice 'keio_2017'; known: keio_2017_0018"):
        load_protocol(changed(tmp_path, KEIO, lambda data: data.update(notice="keio_2017")))


def test_a_study_of_ones_own_has_its_own_notice(tmp_path: Path) -> None:
    def own(data: dict[str, Any]) -> None:
        data.update(id="ours", notice="ours", decisions={}, numbers={"validity": "P1"})

    ours = load_protocol(changed(tmp_path, KEIO, own))
    assert ours.decided() == [] and ours.number("validity") == "P1" and ours.number("recipient") == "X1"


@pytest.mark.parametrize("name", ["keio", "gaps", "../protocols/jmid", "nowhere.yaml"])
def test_an_unknown_protocol_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no protocol|no such protocol"):
        load_protocol(name)


def test_a_file_that_is_no_mapping_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping"):
        load_protocol(path)


# --- gaps


@pytest.mark.parametrize(("study", "number", "key"), GAPS, ids=[f"{number}-{key}" for _, number, key in GAPS])
def test_KC_JC_BC_SC_TC_a_gap_without_its_key_does_not_load(study: str, number: str, key: str, tmp_path: Path) -> None:
    for value in ("missing", "null"):
        data = data_of(study)
        if value == "missing":
            without(data, key)
        else:
            *parents, last = key.split(".")
            inner = data
            for parent in parents:
                inner = inner[parent]
            inner[last] = None
        with pytest.raises(ConfigError) as error:
            load_protocol(written(tmp_path, data))
        assert f"{number}: key '{key}' is missing. The notice says: " in str(error.value)
        assert f"{study}.yaml:" in str(error.value)


@pytest.mark.parametrize(("study", "number"), sorted({(study, number) for study, number, _ in GAPS}))
def test_KC_JC_BC_SC_TC_a_gap_without_a_reason_does_not_load(study: str, number: str, tmp_path: Path) -> None:
    path = changed(tmp_path, study, lambda data: data["decisions"].pop(number))
    with pytest.raises(ConfigError, match=rf"{number}: the reason for .* is missing. The notice says: "):
        load_protocol(path)
    path = changed(tmp_path, study, lambda data: data["decisions"][number].update(reason=""))
    with pytest.raises(ConfigError, match=rf"decisions\.{number}\.reason"):
        load_protocol(path)


def test_every_gap_of_the_notices_is_known() -> None:
    numbers = {number for _, number, _ in GAPS}
    counts = {"KC": 4, "JC": 6, "BC": 13, "SC": 6, "TC": 5}
    assert numbers == {f"{letters}{at}" for letters, last in counts.items() for at in range(1, last + 1)}


def test_all_gaps_are_named_at_once(tmp_path: Path) -> None:
    path = changed(tmp_path, GUNMA, lambda data: data.pop("decisions"))
    with pytest.raises(ConfigError) as error:
        load_protocol(path)
    assert all(f"BC{number}:" in str(error.value) for number in range(1, 14))


def test_SC6_without_a_table_of_codes_no_day_is_needed(tmp_path: Path) -> None:
    def no_table(data: dict[str, Any]) -> None:
        data["linkage"] = {"keep": False}

    assert load_protocol(changed(tmp_path, SHINSHU, no_table)).linkage_destroy_on is None


@pytest.mark.parametrize("study", STUDIES)
def test_X2_the_manifest_holds_the_chosen_values_and_reasons(study: str) -> None:
    manifest = json.loads(json.dumps(PROTOCOLS[study].manifest(), ensure_ascii=False))
    assert manifest["protocol"] == study and len(manifest["protocol_sha256"]) == 64
    decided = {one["number"]: one for one in manifest["decisions"]}
    assert set(decided) == {number for notice, number, _ in GAPS if notice == study}
    for notice, number, key in GAPS:
        if notice == study:
            assert decided[number]["values"][key] is not None
            assert decided[number]["reason"] and decided[number]["says"]


# --- a protocol of a hospital


def test_a_hospital_extends_a_protocol(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "extends": JMID,
            "id": "our_jmid",
            "cohort": {"sites": [{"id": "aoba", "from": date(2020, 1, 1)}, {"id": "minato"}]},
            "decisions": {"JC6": {"reason": "ours", "decided_by": "office", "decided_on": date(2026, 4, 1)}},
        },
    )
    ours = load_protocol(path)
    assert [site.id for site in ours.cohort.sites] == ["aoba", "minato"]
    assert ours.cohort.period("aoba") == (date(2020, 1, 1), date(2026, 4, 10))
    assert ours.cohort.period("minato") == (date(2016, 4, 10), date(2026, 4, 10))
    assert ours.decisions["JC6"].reason == "ours" and ours.decisions["JC5"] == PROTOCOLS[JMID].decisions["JC5"]
    assert ours.sha256 != PROTOCOLS[JMID].sha256
    assert pickle.loads(pickle.dumps(ours)).manifest() == ours.manifest()
    # a refusal of the study by its public name means ours too
    assert {"jmid", "our_jmid", "J-MID"} <= ours.study_names


def test_errors_of_an_extension_name_the_right_file(tmp_path: Path) -> None:
    path = written(tmp_path, {"extends": JMID, "id": "ours", "cohort": {"colour": "blue"}})
    with pytest.raises(ConfigError, match=r"ours\.yaml:4: unknown key 'colour'"):
        load_protocol(path)
    path = written(tmp_path, {"extends": JMID, "id": "ours", "retention": {"until": None}})
    with pytest.raises(ConfigError, match=r"ours\.yaml:4: JC5: key 'retention.until' is missing"):
        load_protocol(path)
    path = written(tmp_path, {"extends": JMID, "id": "ours", "deid": {"legal_level": "anonymised"}})
    with pytest.raises(ConfigError, match="pseudonymised"):
        load_protocol(path)


def test_extensions_of_extensions_and_circles(tmp_path: Path) -> None:
    written(tmp_path, {"extends": JMID, "id": "group", "codes": {"patient_prefix": "JG"}})
    path = written(tmp_path, {"extends": "group.yaml", "id": "ours"})
    assert load_protocol(path).codes.patient_prefix == "JG"
    written(tmp_path, {"extends": "ours.yaml", "id": "group"})
    with pytest.raises(ConfigError, match="extends itself"):
        load_protocol(path)
    with pytest.raises(ConfigError, match="no protocol 'nothing'"):
        load_protocol(written(tmp_path, {"extends": "nothing", "id": "ours"}))


# --- the gate: time


@pytest.mark.parametrize(
    ("study", "number"), [(KEIO, "K17"), (JMID, "J12"), (GUNMA, "B22"), (SHINSHU, "S10"), (TOHOKU, "T10")]
)
@pytest.mark.parametrize("action", ["ingest", "run", "review", "export"])
def test_K17_J12_B22_S10_T10_validity(study: str, number: str, action: str) -> None:
    valid = PROTOCOLS[study].validity
    options = export_of(study) if action == "export" else {}
    for today in (valid.since, valid.to):
        assert allowed(study, action, today, **options).study == study
    for today in (valid.since - timedelta(days=1), valid.to + timedelta(days=1)):
        assert refusal(study, action, today, **options) == number


def export_of(study: str) -> dict[str, str]:
    """An export inside the hospital that the study allows."""
    protocol = PROTOCOLS[study]
    inside = next(one for one in protocol.recipients if one.role == "internal")
    return {"recipient": inside.id, "purpose": inside.purposes[0], "deliverable": protocol.deliverables[0].id}


@pytest.mark.parametrize(
    ("study", "first", "last"),
    [
        (KEIO, date(2017, 5, 16), date(2030, 6, 30)),
        (JMID, date(2026, 4, 10), date(2028, 3, 31)),
        (GUNMA, date(2023, 1, 1), date(2025, 12, 31)),
        (SHINSHU, date(2021, 2, 1), date(2024, 10, 31)),
        (TOHOKU, date(2022, 4, 1), date(2027, 4, 30)),
    ],
)
def test_the_periods_of_validity(study: str, first: date, last: date) -> None:
    assert (PROTOCOLS[study].validity.since, PROTOCOLS[study].validity.to) == (first, last)


@pytest.mark.parametrize("action", ["withdraw", "destroy"])
def test_after_the_end_people_can_still_withdraw_and_data_be_destroyed(action: str) -> None:
    assert allowed(SHINSHU, action, date(2040, 1, 1)).action == action


def test_B20_ten_years_after_publication() -> None:
    gunma = PROTOCOLS[GUNMA]
    assert gunma.destroy_due() is None and days_left(gunma, today=date(2030, 1, 1)) is None
    assert gunma.destroy_due(published_on=date(2024, 2, 29)) == date(2034, 2, 28)
    due = gunma.destroy_due(published_on=date(2025, 3, 1))
    assert due == date(2035, 3, 1)
    left = [days_left(gunma, today=day, published_on=date(2025, 3, 1)) for day in (due, due + timedelta(days=1))]
    assert left == [timedelta(0), timedelta(days=-1)]


def test_B20_data_past_their_day_are_not_worked_with(tmp_path: Path) -> None:
    longer = load_protocol(changed(tmp_path, GUNMA, lambda data: data["validity"].update(to=date(2050, 1, 1))))
    published = date(2025, 3, 1)
    assert allowed(longer, "run", date(2035, 3, 1), published_on=published)
    assert refusal(longer, "run", date(2035, 3, 2), published_on=published) == "B20"


def test_S10_ten_years_after_the_end_of_the_study() -> None:
    assert PROTOCOLS[SHINSHU].destroy_due() == date(2034, 10, 31)
    assert {"shred_paper", "erase_media"} <= set(PROTOCOLS[SHINSHU].retention.methods)
    assert PROTOCOLS[SHINSHU].retention.locked


def test_J12_the_day_of_destruction_is_required(tmp_path: Path) -> None:
    assert PROTOCOLS[JMID].destroy_due() == date(2028, 3, 31)
    with pytest.raises(ConfigError, match=r"JC5: key 'retention\.until'"):
        load_protocol(changed(tmp_path, JMID, lambda data: data["retention"].pop("until")))


def test_anniversary_of_a_leap_day() -> None:
    assert anniversary(date(2020, 2, 29), 4) == date(2024, 2, 29)
    assert anniversary(date(2020, 2, 29), 1) == date(2021, 2, 28)


# --- the gate: who gets what


@pytest.mark.parametrize(
    ("recipient", "number"),
    [
        ("radiology", None),
        ("joint_laboratory", None),
        ("marubeni", None),
        ("infervision_japan", None),
        ("another_company", "K15"),
        ("", "K15"),
        (None, "K15"),
    ],
)
def test_K15_only_listed_recipients_get_data(recipient: str | None, number: str | None) -> None:
    options = {"recipient": recipient, "purpose": "teacher_labels", "deliverable": "teacher_labels"}
    if number is None:
        permission = allowed(KEIO, **options)
        assert (permission.recipient, permission.profile, permission.dates) == (recipient, "pseudonymised", "relative")
    else:
        assert refusal(KEIO, **options) == number


def test_K15_each_recipient_has_a_role() -> None:
    roles = {one.id: one.role for one in PROTOCOLS[KEIO].recipients}
    assert roles["joint_laboratory"] == "joint" and roles["domestic_cloud"] == "cloud"
    assert roles["marubeni"] == roles["infervision_japan"] == "contractor"


def test_KC3_a_recipient_without_role_or_level_does_not_load(tmp_path: Path) -> None:
    for key in ("role", "data_level"):
        with pytest.raises(ConfigError, match=rf"recipients\.0\.{key}"):
            load_protocol(changed(tmp_path, KEIO, lambda data, key=key: data["recipients"][0].pop(key)))


def test_B22_the_purpose_is_recorded_and_must_be_listed() -> None:
    options = {"recipient": "nihon_medi_physics", "deliverable": "images"}
    assert allowed(GUNMA, purpose="commercial_use", **options).purpose == "commercial_use"
    assert refusal(GUNMA, purpose="advertising", **options) == "B22"
    assert refusal(GUNMA, **options) == "B22"
    inside = {"recipient": "nuclear_medicine", "deliverable": "images"}
    assert refusal(GUNMA, purpose="commercial_use", **inside) == "B22"


def test_a_recipient_may_have_an_end(tmp_path: Path) -> None:
    def end(data: dict[str, Any]) -> None:
        data["recipients"][1]["until"] = date(2026, 1, 1)

    ours = load_protocol(changed(tmp_path, KEIO, end))
    options = {"recipient": "joint_laboratory", "purpose": "teacher_labels", "deliverable": "teacher_labels"}
    assert allowed(ours, today=date(2026, 1, 1), **options)
    assert refusal(ours, today=date(2026, 1, 2), **options) == "K15"


@pytest.mark.parametrize("recipient", ["dermatology", "company", "shinshu_university", None])
@pytest.mark.parametrize("deliverable", ["images", "index", "teacher_labels", "comparison"])
def test_T8_nothing_leaves_the_hospital(recipient: str | None, deliverable: str) -> None:
    options = {"recipient": recipient, "purpose": "model_training", "deliverable": deliverable}
    if recipient == "dermatology":
        assert allowed(TOHOKU, **options)
    else:
        assert refusal(TOHOKU, **options) == "T8"


def test_T8_not_even_to_a_recipient_that_somebody_adds(tmp_path: Path) -> None:
    def add(data: dict[str, Any]) -> None:
        data["recipients"].append(
            {
                "id": "company", "name": {"ja": "会社", "en": "Company"}, "role": "addressee",
                "purposes": ["model_training"], "data_level": "pseudonymised",
            }
        )  # fmt: skip
        data["deliverables"].append({"id": "open", "kind": "labels"})

    ours = load_protocol(changed(tmp_path, TOHOKU, add))
    options = {"recipient": "company", "purpose": "model_training"}
    assert refusal(ours, deliverable="index", **options) == "T8"
    assert refusal(ours, deliverable="open", **options) == "T8"


def test_K7_the_list_of_images_stays_inside() -> None:
    options = {"purpose": "teacher_labels", "deliverable": "image_list"}
    assert allowed(KEIO, recipient="radiology", **options)
    for recipient in ("joint_laboratory", "marubeni"):
        assert refusal(KEIO, recipient=recipient, **options) == "K7"


def test_a_deliverable_must_be_listed() -> None:
    assert refusal(KEIO, recipient="radiology", purpose="teacher_labels", deliverable="photographs") == "K7"
    assert refusal(KEIO, recipient="radiology", purpose="teacher_labels") == "K7"


@pytest.mark.parametrize("study", STUDIES)
def test_K13_J7_B8_S10_T7_the_table_of_codes_is_never_exported(study: str) -> None:
    number = {KEIO: "K13", JMID: "J7", GUNMA: "B8", SHINSHU: "S10", TOHOKU: "T7"}[study]
    assert refusal(study, "export_linkage", **export_of(study)) == number
    assert refusal(study, "export_linkage") == number


def test_J8_JC2_two_profiles_by_deliverable() -> None:
    outside = {"recipient": "participating_institutions", "purpose": "diagnostic_ai"}
    permission = allowed(JMID, deliverable="exam_table", **outside)
    assert (permission.profile, permission.dates) == ("anonymised", "relative")
    inside = {"recipient": "institution", "purpose": "diagnostic_ai"}
    permission = allowed(JMID, deliverable="teacher_labels", **inside)
    assert (permission.profile, permission.dates) == ("pseudonymised", "keep")
    # stricter than planned is always right, weaker never
    assert allowed(JMID, deliverable="teacher_labels", profile="anonymised", **inside).profile == "anonymised"
    assert refusal(JMID, deliverable="exam_table", profile="pseudonymised", **inside) == "J8"


def test_KC3_a_recipient_gets_no_more_than_its_level(tmp_path: Path) -> None:
    def lower(data: dict[str, Any]) -> None:
        data["recipients"][1]["data_level"] = "aggregate"

    ours = load_protocol(changed(tmp_path, KEIO, lower))
    options = {"recipient": "joint_laboratory", "purpose": "evaluation"}
    assert allowed(ours, deliverable="quality_report", **options)
    assert refusal(ours, deliverable="teacher_labels", **options) == "K15"


def test_SC3_the_company_of_the_training_gets_nothing() -> None:
    assert [one.id for one in PROTOCOLS[SHINSHU].recipients] == ["dermatology", "shinshu_university"]


def test_S5_the_data_set_goes_to_the_named_university_by_code() -> None:
    options = {"purpose": "data_set", "deliverable": "nine_items"}
    assert allowed(SHINSHU, recipient="shinshu_university", **options).profile == "pseudonymised"
    assert refusal(SHINSHU, recipient="casio", **options) == "S5"


# --- the gate: how it travels


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("https://cloud.example.jp/in", None),
        ("http://127.0.0.1:8080", None),
        ("http://[::1]:8080", None),
        ("http://localhost:8080", None),
        ("http://cloud.example.jp/in", "K14"),
        ("https://cloud.example.com/in", "K14"),
        ("https://cloud.example.jp.evil.com/in", "K14"),
        ("https://127.0.0.1.evil.com", "K14"),
        ("ftp://cloud.example.jp", "K14"),
        ("cloud.example.jp", "K14"),
        ("https://cloud.example.jp@evil.com", "K14"),
        ("http://[::1", "K14"),
    ],
)
def test_K14_listed_domestic_hosts_over_https_only(url: str, number: str | None, tmp_path: Path) -> None:
    ours = load_protocol(
        changed(tmp_path, KEIO, lambda data: data["recipients"][-1].update(hosts=["cloud.example.jp"]))
    )
    options = {"recipient": "domestic_cloud", "purpose": "model_training", "deliverable": "teacher_labels"}
    if number is None:
        assert allowed(ours, url=url, **options)
    else:
        assert refusal(ours, url=url, **options) == number


def test_K14_no_host_is_listed_until_the_hospital_does() -> None:
    options = {"recipient": "domestic_cloud", "purpose": "model_training", "deliverable": "teacher_labels"}
    assert refusal(KEIO, url="https://cloud.example.jp", **options) == "K14"


def test_K14_a_recipient_outside_the_country_gets_nothing(tmp_path: Path) -> None:
    ours = load_protocol(changed(tmp_path, KEIO, lambda data: data["recipients"][2].update(domestic=False)))
    assert refusal(ours, recipient="marubeni", purpose="model_training", deliverable="teacher_labels") == "K14"


def test_reviews_go_to_listed_hosts_only(tmp_path: Path) -> None:
    assert allowed(KEIO, "review", url="http://127.0.0.1:8080")
    assert refusal(KEIO, "review", url="https://labels.example.jp") == "K14"
    ours = load_protocol(changed(tmp_path, KEIO, lambda data: data["security"].update(hosts=["labels.example.jp"])))
    assert allowed(ours, "review", url="https://labels.example.jp")
    assert refusal(ours, "review", url="http://labels.example.jp") == "K14"


def test_B7_BC5_discs_from_hand_to_hand() -> None:
    options = {"recipient": "nihon_medi_physics", "purpose": "software_comparison", "deliverable": "images"}
    assert allowed(GUNMA, **options) and allowed(GUNMA, channel="by_hand", **options)
    assert refusal(GUNMA, channel="post", **options) == "B7"
    assert refusal(GUNMA, channel="https", **options) == "B7"
    assert refusal(GUNMA, encrypted=False, **options) == "B7"
    assert PROTOCOLS[GUNMA].transfer.volume_mb == 700


def test_B19_no_network() -> None:
    options = {"recipient": "nihon_medi_physics", "purpose": "software_comparison", "deliverable": "images"}
    assert refusal(GUNMA, url="https://example.jp", **options) == "B19"
    assert refusal(GUNMA, "review", url="https://example.jp") == "B19"
    assert allowed(GUNMA, "review", url="http://127.0.0.1:8080")


def test_S9_encrypted_at_rest_and_on_the_way() -> None:
    assert PROTOCOLS[SHINSHU].security.encrypted_at_rest
    options = {"recipient": "shinshu_university", "purpose": "data_set", "deliverable": "images"}
    assert refusal(SHINSHU, encrypted=False, **options) == "S5"


# --- the gate: lookups, other studies, items


@pytest.mark.parametrize(("study", "number"), [(KEIO, "K11"), (JMID, "J9"), (GUNMA, "B21"), (TOHOKU, "T11")])
def test_K11_J9_B21_T11_the_custodian_alone_looks_up_with_a_purpose(study: str, number: str) -> None:
    assert allowed(study, "lookup", role="custodian", purpose="withdrawal")
    assert refusal(study, "lookup", role="analyst", purpose="withdrawal") == number
    assert refusal(study, "lookup", purpose="withdrawal") == number
    assert refusal(study, "lookup", role="custodian") == number


def test_K12_no_lookup_after_the_table_had_to_go(tmp_path: Path) -> None:
    options = {"role": "custodian", "purpose": "withdrawal"}
    assert allowed(KEIO, "lookup", date(2030, 6, 30), **options)
    assert refusal(KEIO, "lookup", date(2030, 7, 1), **options) == "K13"
    without_table = load_protocol(
        changed(tmp_path, TOHOKU, lambda data: data.update(linkage={"keep": False, "fields": []}))
    )
    assert refusal(without_table, "lookup", **options) == "T7"


@pytest.mark.parametrize(("study", "number"), [(JMID, "J10"), (SHINSHU, "S7")])
def test_J10_S7_data_of_another_study_need_their_own_notice(study: str, number: str, tmp_path: Path) -> None:
    assert allowed(study, "run", data_of=study)
    assert refusal(study, "run", data_of=KEIO) == number

    def reuse(data: dict[str, Any]) -> None:
        data["reuse"] = [{"study": KEIO, "notice_published_on": WORKING[study], "approval": "X-1"}]

    ours = load_protocol(changed(tmp_path, study, reuse))
    assert allowed(ours, "run", data_of=KEIO)
    assert refusal(ours, "run", WORKING[study] - timedelta(days=1), data_of=KEIO) == number
    assert refusal(ours, "run", data_of=TOHOKU) == number


def test_B1_the_data_of_the_prior_study_are_the_data_of_this_one() -> None:
    for name in ("HS-2022-005", "HS2022-005"):
        assert allowed(GUNMA, "run", data_of=name)


@pytest.mark.parametrize(
    ("study", "table", "column", "number"),
    [
        (KEIO, "exams", "weight_kg", "K9"),
        (JMID, "records", "text", "J4"),
        (GUNMA, "exams", "dlp", "B13"),
        (SHINSHU, "exams", "weight_kg", "S3"),
        (TOHOKU, "records", "value", "T7"),
    ],
)
def test_K9_J4_B13_S3_T7_columns_outside_the_items_are_refused(
    study: str, table: str, column: str, number: str
) -> None:
    protocol = PROTOCOLS[study]
    assert column not in protocol.columns_of(table)
    assert refusal(study, columns={table: [column]}, **export_of(study)) == number
    assert refusal(study, "run", columns={table: [column]}) == number
    assert allowed(study, columns={table: sorted(protocol.columns_of(table))}, **export_of(study))


def test_J4_J14_dose_and_request_of_the_exam_are_items() -> None:
    columns = PROTOCOLS[JMID].columns_of("exams")
    assert {"started_at", "protocol_name", "contrast_agent", "contrast_ml", "ctdi_vol", "dlp", "weight_kg"} <= columns
    assert "text" in PROTOCOLS[JMID].columns_of("reports")


def test_J3_no_birth_date_is_an_item() -> None:
    for protocol in PROTOCOLS.values():
        assert not {"birth_date", "name", "address", "phone"} & protocol.columns_of("exams")
    assert {"age_years", "sex"} <= PROTOCOLS[JMID].columns_of("exams")


def test_KC1_K4_all_seven_tables_are_items_of_keio() -> None:
    keio = PROTOCOLS[KEIO]
    assert keio.record_kinds() == {"pathology", "lab", "physiology", "surgery", "diagnosis", "medication"}
    assert "text" in keio.columns_of("reports") and keio.items_confirmed_by


def test_JC3_findings_of_body_and_tests_are_no_items_of_jmid() -> None:
    assert PROTOCOLS[JMID].record_kinds() == frozenset()


def test_S3_the_nine_items() -> None:
    assert len(PROTOCOLS[SHINSHU].cohort.complete_items) == 9


def test_T7_TC2_the_chart_number_stands_in_the_table_of_codes_only() -> None:
    tohoku = PROTOCOLS[TOHOKU]
    assert tohoku.linkage.fields == ("patient_id",)
    assert tohoku.columns_of("linkage") == {"patient_id"}


# --- other sections


def test_B23_BC3_exactly_one_custodian(tmp_path: Path) -> None:
    path = changed(tmp_path, GUNMA, lambda data: data.update(custodian=[{"office": "放射線部"}, {"office": "核医学"}]))
    with pytest.raises(ConfigError, match=r"custodian: .*exactly one custodian \(B23, BC3\), 2 are named"):
        load_protocol(path)


def test_B4_BC1_six_conditions_and_no_other() -> None:
    gunma = PROTOCOLS[GUNMA]
    assert gunma.analyses is not None and [one.number for one in gunma.analyses.conditions] == [1, 2, 3, 4, 5, 6]
    assert gunma.check_condition(tracer="HMDP", software="VSBONE", version="3.0", metric="Hotspot").number == 6
    assert gunma.check_condition(tracer="MDP", software="BoneNAVI", version=None, metric="BSI").number == 1


@pytest.mark.parametrize(
    ("tracer", "software", "version"),
    [("HMDP", "BoneNAVI", None), ("MDP", "VSBONE", "2.0"), ("MDP", "VSBONE", "3.0"), ("HMDP", "VSBONE", "4.0")],
)
def test_B4_a_software_that_is_not_licensed_for_the_tracer_is_refused(
    tracer: str, software: str, version: str | None
) -> None:
    with pytest.raises(RefusedError) as error:
        PROTOCOLS[GUNMA].check_condition(tracer=tracer, software=software, version=version, metric="BSI")
    assert error.value.number == "B4"
    with pytest.raises(RefusedError):
        PROTOCOLS[KEIO].check_condition(tracer=tracer, software=software, version=version, metric="BSI")


def test_a_condition_of_an_unknown_tracer_does_not_load(tmp_path: Path) -> None:
    path = changed(tmp_path, GUNMA, lambda data: data["analyses"]["conditions"][0].update(tracer="FDG"))
    with pytest.raises(ConfigError, match="no such tracer"):
        load_protocol(path)


def test_BC2_BC4_BC7_BC9_BC11_BC12_cautious_answers() -> None:
    gunma = PROTOCOLS[GUNMA]
    assert gunma.excel is not None and gunma.excel.eod_missing_token
    assert gunma.dicom is not None and gunma.dicom.default_action == "ps3_15_basic"
    assert gunma.dicom.uid_policy == "replace" and set(gunma.dicom.fixed_strings) == {"(0008,1030)", "(0008,103E)"}
    assert gunma.codes.patient_code_tags == ("(0010,0010)", "(0010,0020)")
    assert gunma.deid.legal_level == "pseudonymised"


@pytest.mark.parametrize("study", [KEIO, JMID, GUNMA])
def test_BC4_BC9_BC11_the_tag_policy_says_the_same(study: str) -> None:
    chosen = PROTOCOLS[study].dicom
    assert chosen is not None
    policy = read_yaml(rules_folder() / "dicom" / f"{chosen.policy}.yaml").data
    assert policy["default"] == chosen.default_action
    assert policy["uids"] == {"replace": "replace", "keep_logged": "keep"}[chosen.uid_policy]
    for tag, text in chosen.fixed_strings.items():
        [rule] = [rule for key, rule in policy["rules"].items() if key.startswith(tag)]
        assert rule == {"action": "replace", "value": text}


def test_B13_B14_the_columns_of_the_sheet() -> None:
    sheet = PROTOCOLS[GUNMA].excel
    assert sheet is not None
    assert [*sheet.required, *sheet.optional] == [
        "患者符号",
        "検査日",
        "所見",
        "EOD",
        "転移の有無",
        "年齢",
        "性別",
        "身長",
        "体重",
    ]


def test_B21_disclosure_goes_through_the_custodian() -> None:
    assert PROTOCOLS[GUNMA].incidental.disclose == "through_custodian"
    assert {one.incidental.disclose for name, one in PROTOCOLS.items() if name != GUNMA} == {"never"}


@pytest.mark.parametrize("study", [SHINSHU, TOHOKU])
def test_S4_T2_SC4_pictures_need_clearance_by_a_rubric(study: str) -> None:
    clearance = PROTOCOLS[study].image_clearance
    assert clearance is not None and clearance.required and clearance.rubric


def test_J2_S11_codes_of_studies_cannot_collide() -> None:
    prefixes = [one.codes.patient_prefix for one in PROTOCOLS.values()]
    assert len(set(prefixes)) == 5


# --- windows


def test_windows_of_a_study(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["windows"] = {
            "pathology": {"after": 365, "reason": "breast audit"},
            "lab": {"before": None, "reason": "-"},
        }

    ours = load_protocol(changed(tmp_path, KEIO, change))
    assert ours.changed_windows() == {"pathology": {"after": 365}, "lab": {"before": None}}
    assert PROTOCOLS[KEIO].changed_windows() == {}


def test_a_window_needs_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"windows\.lab\.reason"):
        load_protocol(changed(tmp_path, KEIO, lambda data: data.update(windows={"lab": {"after": 3}})))


# --- docs/protocols.md

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocols.md"


def test_the_table_of_requirements_names_every_number_and_only_tests_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    last = {"K": 17, "J": 14, "B": 23, "S": 11, "T": 11, "X": 3}
    numbers = re.findall(r"^\| ([KJBSTX]\d+) \|", page, re.MULTILINE)
    assert numbers == [f"{letter}{at}" for letter, end in last.items() for at in range(1, end + 1)]
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named and sorted(named - tests) == []


def keys_of(model: type[pydantic.BaseModel]) -> set[str]:
    found = {field.alias or name for name, field in model.model_fields.items()}

    def models(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            yield annotation
        for inner in getattr(annotation, "__args__", ()):
            yield from models(inner)

    for field in model.model_fields.values():
        for inner in models(field.annotation):
            found |= keys_of(inner)
    return found


def test_every_key_of_a_protocol_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8").split("## The keys")[1].split("\n## ")[0]
    assert sorted(key for key in keys_of(Protocol) - {"ja", "en"} if not re.search(rf"\b{key}\b", page)) == []
