"""SS-MIX2: names and folders, bytes, segments and documents, read back by `hl7` and by an XML parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import hl7
import pytest
from lxml import etree

from reportlabel.synth.patient import PatientFile
from reportlabel.synth.write_ssmix2 import SsMix2Writer, site_dialects
from tests.unit.synth.written_patient import (
    FINDINGS_1,
    IMPRESSION_1,
    SITES,
    TEXT_1,
    TEXT_2,
    written_exam,
    written_patient,
    written_record,
)

CDA = {"cda": "urn:hl7-org:v3"}


def write(out: Path, *patients: PatientFile) -> SsMix2Writer:
    with SsMix2Writer(out, SITES) as writer:
        for patient in patients:
            writer.write(patient)
    return writer


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ssmix2")
    write(out, *(written_patient(site, 7 + place) for place, site in enumerate(SITES)))
    return out


def messages(out: Path, kind: str = "*", site: str = "*") -> list[Path]:
    found = sorted(path for path in out.glob(f"{site}/standard/*/*/*/*/{kind}/*"))
    assert found
    return found


def documents(out: Path, kind: str = "*", site: str = "*") -> list[Path]:
    found = sorted(path for path in out.glob(f"{site}/extended/*/*/*/*/{kind}/*/*"))
    assert found
    return found


def text_of(path: Path) -> str:
    return path.read_bytes().decode("iso2022_jp").strip()


def parsed(path: Path) -> hl7.Message:
    return hl7.parse(text_of(path))


def fields(path: Path, segment: str) -> list[list[str]]:
    """All segments of a kind, by the number of the field."""
    return [line.split("|") for line in text_of(path).split("\r") if line.startswith(f"{segment}|")]


def field(cells: list[str], at: int) -> str:
    return cells[at] if at < len(cells) else ""


# --- layout and bytes


def test_names_and_folders_agree(stored: Path) -> None:
    for path in messages(stored):
        patient, day, kind, order, stamp, department, flag = path.name.split("_")
        assert path.parts[-6:-1] == (patient[:3], patient[3:6], patient, day, kind)
        assert len(order) == 15 and order.isdigit() and flag in "012"
        assert datetime.strptime(stamp[:14], "%Y%m%d%H%M%S") and len(stamp) == 17 and stamp.isdigit()
        assert re.fullmatch(r"\d\d|-", department)
        assert (day == "-") == (kind in ("ADT-00", "PPR-01"))


def test_messages_are_iso_2022_jp_with_cr_alone(stored: Path) -> None:
    for path in messages(stored):
        raw = path.read_bytes()
        ends_with_separator = path.relative_to(stored).parts[0] == "aoba"
        assert raw.endswith(b"\r\x1c" if ends_with_separator else b"\r")
        assert b"\n" not in raw and b"\r\r" not in raw and raw.isascii()
        assert raw.startswith(b"MSH|^~\\&|")


def test_msh_differs_by_site(stored: Path) -> None:
    said = {}
    for path in messages(stored):
        head = parsed(path).segment("MSH")
        said[path.relative_to(stored).parts[0]] = (str(head[18]), str(head[20]))
        assert str(head[21]).startswith("SS-MIX2_1.20^SS-MIX2^")
    assert said["aoba"] == ("~ISO IR87", "ISO 2022-1994")
    assert said["minato"] == ("~ISOIR87", "ISO2022-1994")
    assert said["sato"] == ("~ISO IR87", "ISO2022-1994")


def test_every_type_is_written(stored: Path) -> None:
    kinds = {path.parent.name for path in messages(stored)}
    assert kinds == {
        "ADT-00", "PPR-01", "OML-11", "OMG-01", "OMG-11", "OMG-13", "OMP-01", "OMP-02", "OMP-11", "OMP-12",
    }  # fmt: skip


def test_there_is_no_report_and_no_operation_in_the_standardised_storage(stored: Path) -> None:
    for path in messages(stored):
        said = text_of(path)
        assert "縦隔リンパ節" not in said and "肺悪性腫瘍手術" not in said and "Adenocarcinoma" not in said


def test_the_same_patient_gives_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    write(tmp_path, *(written_patient(site, 7 + place) for place, site in reversed(list(enumerate(SITES)))))
    one, two = (
        {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} for out in (stored, tmp_path)
    )
    assert one == two


# --- who


def test_the_patient_is_in_pid(stored: Path) -> None:
    for path in messages(stored):
        (pid,) = fields(path, "PID")
        site, patient = path.relative_to(stored).parts[0], path.name.split("_")[0]
        assert pid[3] == (patient if site == "aoba" else f"{patient}^^^^PI")
        assert "~タカハシ^サチコ^" in pid[5] and pid[8] == "F"
        in_9 = site == "aoba" and path.parent.name == "OMG-13"
        assert (field(pid, 7), field(pid, 9)) == (("", "19481230") if in_9 else ("19481230", ""))


def test_addresses_stand_where_real_messages_have_them(stored: Path) -> None:
    has = {path.parent.name for path in messages(stored) if "206-0033^JPN^H^東京都陽光市" in text_of(path)}
    assert has == {"ADT-00", "OMG-01", "OMG-11", "OMP-01", "OMP-02", "OML-11"}
    phones = {path.parent.name for path in messages(stored) if "042-555-0123" in text_of(path)}
    assert phones == has - {"OML-11"}


def test_characters_outside_jis_are_replaced_as_the_site_does(stored: Path) -> None:
    names = {site: fields(messages(stored, "ADT-00", site)[-1], "PID")[0][5].split("^")[0] for site in SITES}
    assert names == {"aoba": "〓橋", "minato": "高橋", "sato": "■橋"}
    results = {site: text_of(messages(stored, "OMG-13", site)[0]) for site in SITES}
    assert "〓、〓、aVF" in results["aoba"] and "II、III、aVF" in results["minato"] and "■、■、aVF" in results["sato"]
    assert not re.search("[ⅠⅡⅢ]", "".join(results.values()))


def test_lost_characters_are_known(tmp_path: Path) -> None:
    writer = write(tmp_path, written_patient("aoba", 7))
    lost = [defect for defect in writer.defects if defect[1] == "character_lost"]
    assert lost and all((tmp_path / path).is_file() for path, _, _ in lost)
    assert {id_ for path, _, id_ in lost if "OMG-13" in path} == {"K00000070013"}


def test_patient_ids_that_differ_are_rare_and_known(tmp_path: Path) -> None:
    patients = [written_patient("sato", number) for number in range(1, 80)]
    writer = write(tmp_path, *patients)
    wrong = {
        str(path.relative_to(tmp_path))
        for path in messages(tmp_path)
        if not fields(path, "PID")[0][3].startswith(path.name.split("_")[0])
    }
    assert wrong == {path for path, kind, _ in writer.defects if kind == "patient_id_differs"}
    assert 0 < len(wrong) < len(messages(tmp_path)) / 200


# --- imaging


def test_orders_have_a_parent_and_a_child(stored: Path) -> None:
    for path in messages(stored, "OMG-01"):
        orders = fields(path, "ORC")
        assert [orc[1] for orc in orders] == ["NW", "PA", "CH"]
        parent, child = orders[1][2], orders[2][2]
        assert orders[2][8] == parent != child
        codes = [obr[4].split("^")[0] for obr in fields(path, "OBR")]
        assert [len(code) for code in codes] == [16, 16, 32]
        assert fields(path, "OBR")[2][29] == parent


def test_what_was_done_carries_the_study(stored: Path) -> None:
    for site, patient in ((site, written_patient(site, 7 + place)) for place, site in enumerate(SITES)):
        said = {}
        for path in messages(stored, "OMG-11", site):
            studies = {(ipc[1], ipc[3], ipc[5]) for ipc in fields(path, "IPC")}
            (said[path.name.split("_")[3]],) = studies
        assert said == {
            exam.order_number: (exam.accession_number, exam.study_instance_uid, f"{exam.modality}^^DCM")
            for exam in patient.exams
        }
        lengths = {len(fields(path, "OBR")[0][4].split("^")[0]) for path in messages(stored, "OMG-11", site)}
        assert lengths == ({15} if site == "minato" else {16})


def test_the_request_has_its_diagnosis_and_reason(stored: Path) -> None:
    said = {obx[3].split("^")[1]: obx[5] for obx in fields(messages(stored, "OMG-01", "aoba")[0], "OBX")}
    assert said == {
        "体重": "48.3",
        "臨床病名": "胸部異常陰影",
        "検査理由": "検診で右肺野に結節影。\\.br\\精査をお願いします。",
    }


def test_contrast_is_where_the_site_keeps_it(stored: Path) -> None:
    ze2 = [cells for path in messages(stored, "OMG-11", "aoba") for cells in fields(path, "ZE2")]
    assert [(cells[3].split("^")[1], cells[4], cells[5].split("^")[0]) for cells in ze2] == [
        ("イオパミドール370", "95", "ML"),
        ("Tc-99m HMDP", "740", "MBQ"),
    ]
    for site, kind in (("minato", "OMP-12"), ("sato", "OMP-11")):
        rows = [cells for path in messages(stored, kind, site) for cells in fields(path, "RXA")]
        assert [(cells[5].split("^")[1], cells[6]) for cells in rows] == [
            ("イオパミドール370", "95"),
            ("Tc-99m HMDP", "740"),
        ]
        assert not any(fields(path, "ZE2") for path in messages(stored, "OMG-11", site))


def test_an_amount_that_nobody_noted_is_empty(tmp_path: Path) -> None:
    patient = written_patient("minato")
    patient.exams = [written_exam(0, site="minato", contrast_ml=None)]
    patient.reports = []
    write(tmp_path, patient)
    (row,) = fields(messages(tmp_path, "OMP-12")[0], "RXA")
    assert row[6] == ""


def test_orders_that_came_to_nothing_have_another_flag(tmp_path: Path) -> None:
    patients = [written_patient("sato", number) for number in range(1, 40)]
    write(tmp_path, *patients)
    cancelled = [path for path in messages(tmp_path, "OMG-01") if path.name.endswith("_2")]
    done = {path.name.split("_")[3] for path in messages(tmp_path, "OMG-11")}
    assert 0 < len(cancelled) < 15
    assert not {path.name.split("_")[3] for path in cancelled} & done


# --- records


def results(path: Path) -> dict[str, list[str]]:
    return {obx[3].split("^")[1]: obx for obx in fields(path, "OBX")}


def test_laboratory(stored: Path) -> None:
    blood, marker, late = (messages(stored, "OML-11", "minato")[at] for at in (0, 1, 2))
    said = results(blood)
    white = said["白血球数"]
    assert (white[2], white[5], white[6].split("^")[0], white[7], field(white, 8), white[11]) == (
        "NM", "6500", "/μL", "3300-8600", "", "F",
    )  # fmt: skip
    assert (said["CRP"][5], said["CRP"][8]) == ("2.13", "H") and said["ヘモグロビン"][8] == "L"
    assert (said["尿潜血"][2], said["尿潜血"][5], said["尿糖"][5]) == ("ST", "2+", "(-)")
    assert (said["直接ビリルビン"][2], said["直接ビリルビン"][5]) == ("SN", "<^ 0.1")
    assert all(len(obx[3].split("^")[0]) == 17 and obx[14] == "202104050850" for obx in said.values())
    assert {spm[4].split("^")[0] for spm in fields(blood, "SPM")} == {"019", "023", "022", "001"}
    assert {spm[17] for spm in fields(blood, "SPM")} == {"202104050850"}
    assert set(results(marker)) == {"CEA", "PIVKA-II"}
    assert set(results(late)) == {"シフラ"} and late.name.split("_")[4].startswith("20210820100000")


def test_interim_results_are_replaced(tmp_path: Path) -> None:
    patients = [written_patient("aoba", number) for number in range(1, 60)]
    write(tmp_path, *patients)
    interim = [path for path in messages(tmp_path, "OML-11") if path.name.endswith("_0")]
    assert interim
    for path in interim:
        assert {obx[11] for obx in fields(path, "OBX")} == {"P"}
        order = path.name.split("_")[3]
        (final,) = (one for one in path.parent.iterdir() if f"_{order}_" in one.name and one != path)
        assert final.name.split("_")[4] > path.name.split("_")[4] and final.name.endswith("_1")
        assert set(results(path)) < set(results(final))


def test_physiology(stored: Path) -> None:
    for site in SITES:
        (path,) = messages(stored, "OMG-13", site)
        (obr,) = fields(path, "OBR")
        assert obr[4].startswith("9A110^") and obr[22] == "20210713163000"
        text, *numbers = fields(path, "OBX")
        assert text[2] == "TX" and text[3].startswith("9A100&IMP^")
        assert {obx[3].split("^")[0]: obx[5] for obx in numbers} == {
            "32769": "72", "32770": "156", "59136": "421", "58368&7": "2.61",
        }  # fmt: skip


def test_diagnoses(stored: Path) -> None:
    path = next(path for path in messages(stored, "PPR-01", "minato") if path.name.endswith("_1"))
    suspected, proven = fields(path, "PRB")
    assert (suspected[13], field(proven, 13)) == ("1", "")
    assert suspected[3] == "20085901^肺腺癌^MDCDX2" and suspected[10].split("^")[0] == "C349"
    assert suspected[10].split("^")[6] == "2013"
    assert (suspected[7], suspected[9], proven[7], field(proven, 9)) == ("20210405", "20210420", "20210420", "")
    assert proven[14] == "N^回復せず^HL70241" and proven[18].startswith("1^")
    modifiers = [zpr[5] for zpr in fields(path, "ZPR")]
    assert modifiers == ["GQPT^肺腺癌^MDCDX2~5395^の疑い^MDCDX2", "GQPT^肺腺癌^MDCDX2"]


def test_an_older_list_of_diagnoses_knows_nothing_of_later(stored: Path) -> None:
    old, new = messages(stored, "PPR-01", "aoba")
    assert (old.name[-1], new.name[-1]) == ("0", "1") and old.name.split("_")[4] < new.name.split("_")[4]
    (suspected,) = fields(old, "PRB")
    assert field(suspected, 9) == "" and suspected[14].startswith("N^")


def test_drugs_are_renewed_while_they_last(stored: Path) -> None:
    orders = {path.name.split("_")[1]: path for path in messages(stored, "OMP-01", "sato")}
    assert list(orders) == ["20201102", "20210125", "20210419", "20210802"]
    days = [fields(path, "TQ1")[0][6] for path in orders.values()]
    assert days == ["84^d", "84^d", "43^d", "5^d"]
    (rxe,) = fields(orders["20210802"], "RXE")
    assert (rxe[2], rxe[3], rxe[10]) == ("100000001^ロキソプロフェン錠60mg^HOT9", "1", "15")
    assert fields(orders["20210802"], "TQ1")[0][3] == "1013044400000000&1日3回毎食後&JAMISDP01"
    (injection,) = messages(stored, "OMP-02", "sato")
    assert fields(injection, "RXC")[0][2] == "100000002^セファゾリンNa注射用1g^HOT9"


def test_separators_in_texts_are_escaped(tmp_path: Path) -> None:
    patient = written_patient("aoba")
    name = "A|B^C&D~E\\F"
    patient.records = [
        written_record("physiology", 1, datetime(2021, 5, 1, 9), code="9A110", name="心電図", text=name),
    ]
    write(tmp_path, patient)
    message = parsed(messages(tmp_path, "OMG-13")[0])
    assert message.unescape(str(message.segment("OBX")[5])) == name


# --- documents


def test_documents_are_in_folders_of_their_kind(stored: Path) -> None:
    for path in documents(stored):
        kind, folder = path.parts[-3], path.parts[-2]
        local, _, _, loinc, _, system = kind.split("^")
        patient, day, form, _, stamp, _, flag = folder.split("_")
        assert path.parts[-7:-3] == (patient[:3], patient[3:6], patient, day)
        assert form == local and system == "LN" and len(stamp) == 17 and flag in "012" and path.stem == folder
        assert {"RAD01": "18748-4", "PAT01": "11529-5", "OPE01": "11504-8"}[local] == loinc
        assert len(path.name.encode()) < 255


def cda(path: Path) -> Any:
    return etree.parse(path, etree.XMLParser(resolve_entities=False)).getroot()


def section(root: Any, code: str) -> str | None:
    found = root.xpath(f"//cda:section[cda:code/@code='{code}']/cda:text", namespaces=CDA)
    if not found:
        return None
    for line in found[0].iter("{urn:hl7-org:v3}br"):
        line.tail = "\n" + (line.tail or "")
    return "".join(found[0].itertext())


def test_a_cda_report_has_its_sections_and_its_study(stored: Path) -> None:
    root = cda(documents(stored, "RAD01*", "aoba")[0])
    assert section(root, "18782-3") == FINDINGS_1 and section(root, "19005-8") == IMPRESSION_1
    exam = written_exam(0)
    roots = root.xpath("//cda:documentationOf//cda:id/@root", namespaces=CDA)
    assert roots == [exam.study_instance_uid]
    orders = root.xpath("//cda:inFulfillmentOf//cda:id/@extension", namespaces=CDA)
    assert orders == [exam.order_number, exam.accession_number]
    assert root.xpath("string(//cda:recordTarget//cda:id/@extension)", namespaces=CDA) == "00000007"
    assert root.xpath("string(//cda:birthTime/@value)", namespaces=CDA) == "19481230"


def test_a_site_writes_the_whole_report_as_one_section(stored: Path) -> None:
    path = documents(stored, "RAD01*", "sato")[0]
    assert path.read_bytes().startswith(b"\xef\xbb\xbf<?xml") and b"\r\n" in path.read_bytes()
    lines = cda(path).xpath("//cda:section/cda:text/cda:paragraph", namespaces=CDA)
    assert "\n".join(line.text or "" for line in lines) == TEXT_1


def test_a_site_writes_plain_text_in_cp932(stored: Path) -> None:
    raw = documents(stored, "RAD01*", "minato")[0].read_bytes()
    text = raw.decode("cp932")
    assert raw.count(b"\n") == raw.count(b"\r\n") and "患者ID：00000008　氏名：髙橋　佐知子" in text
    head, _, body = text.partition("-" * 60 + "\r\n")
    assert body.rstrip("\r\n").replace("\r\n", "\n") == TEXT_1.replace("〜", "～")
    assert written_exam(0, site="minato", number=8).study_instance_uid in head


@pytest.mark.parametrize(("site", "flags"), [("aoba", "001"), ("minato", "221"), ("sato", "111")])
def test_versions_of_a_report(stored: Path, site: str, flags: str) -> None:
    versions = [path for path in documents(stored, "RAD01*", site) if "/20210712/" in str(path)]
    assert "".join(path.stem[-1] for path in versions) == flags
    stamps = [path.stem.split("_")[4] for path in versions]
    assert stamps == sorted(stamps) and len({path.stem.split("_")[3] for path in versions}) == 1
    if site == "aoba":
        roots = [cda(path) for path in versions]
        assert [root.xpath("string(cda:versionNumber/@value)", namespaces=CDA) for root in roots] == ["1", "2", "3"]
        assert len({root.xpath("string(cda:setId/@extension)", namespaces=CDA) for root in roots}) == 1
        titles = [root.xpath("string(cda:title)", namespaces=CDA) for root in roots]
        assert titles == ["画像診断報告書（仮報告）", "画像診断報告書", "画像診断報告書（訂正版）"]
        assert not roots[0].xpath("cda:legalAuthenticator", namespaces=CDA)
        assert (section(roots[1], "18782-3") or "") + "\n" + (section(roots[1], "19005-8") or "") == TEXT_2


def test_pathology_with_its_addendum(stored: Path) -> None:
    first, last = documents(stored, "PAT01*", "aoba")
    assert section(cda(first), "35265-8") is None and first.stem.endswith("_0")
    assert section(cda(last), "35265-8") == "TTF-1（＋）、EGFR L858R陽性。" and last.stem.endswith("_1")
    assert section(cda(last), "22637-3") == "Adenocarcinoma, right upper lobe."


def test_operations_are_documents(stored: Path) -> None:
    (path,) = documents(stored, "OPE01*", "aoba")
    assert section(cda(path), "29554-3") == "胸腔鏡下肺悪性腫瘍手術（肺葉切除） K514-2 3（右）"
    assert section(cda(path), "10223-6") == "右上葉切除＋ND2a-1。\n出血量 35mL。"


# --- whole patients


def hypothetical() -> Iterator[PatientFile]:
    nothing = written_patient("aoba", 1)
    yield replace(nothing, exams=[], reports=[], records=[], stays=[])
    yield replace(written_patient("sato", 2), exams=[], reports=[])
    moved = written_patient("aoba", 3)
    moved.exams[1] = replace(moved.exams[1], site="minato", started_at=moved.exams[1].started_at + timedelta(days=1))
    yield moved


@pytest.mark.parametrize("patient", list(hypothetical()), ids=["nothing", "records only", "two sites"])
def test_unusual_patients_are_written(patient: PatientFile, tmp_path: Path) -> None:
    write(tmp_path, patient)
    assert all(len(parsed(path)) > 2 for path in messages(tmp_path))
    if patient.number == 3:
        assert len(messages(tmp_path, "OMG-11", "minato")) == 1
        assert {path.relative_to(tmp_path).parts[0] for path in messages(tmp_path, "ADT-00")} == {"aoba", "minato"}


def test_sites_take_the_dialects_in_turn() -> None:
    many = {f"site{number}": SITES["aoba"] for number in range(5)}
    assert [dialect.name for dialect in site_dialects(many).values()] == [
        "sections",
        "plain",
        "whole",
        "sections",
        "plain",
    ]
