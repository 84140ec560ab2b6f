"""What a study protocol does to the tables of one part, and to whom a workspace belongs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.consent.refusals import RefusalList, read_refusals
from reportlabel.deidentify.audit import CODE, Entry, entries
from reportlabel.deidentify.linkage import LinkageStore, make_key_file
from reportlabel.deidentify.offsets import maps_of
from reportlabel.errors import ConfigError, InputError
from reportlabel.govern import (
    IMAGES,
    SHIPPED,
    Governance,
    Governed,
    claim,
    govern,
    open_store,
    people_out,
    read_governance,
    read_table_of_store,
    refusals_of_parts,
    shipped_of,
    study_of,
    withdraw,
)
from reportlabel.ingest.assemble import Assembled
from reportlabel.ingest.raw import RawStore, part_of
from reportlabel.protocol import Protocol, load_protocol
from reportlabel.schema import ATTRITION, COHORT, EXAMS, QUARANTINE, RECORDS, REPORTS, WORKSPACE
from reportlabel.store import Workspace

DAY = date(2026, 4, 1)
TEXT = """【所見】
右上葉に12mmの結節を認めます。前回(2024/2/20)と著変ありません。
病理診断(S23-01234)も参照。読影医：日下部健"""


@cache
def protocol(name: str, folder: Path) -> Protocol:
    """A shipped protocol with the hospitals of these tests."""
    path = folder / f"our_{name}.yaml"
    sites = "".join(f"    - {{id: {one}, name: {{ja: {one}, en: {one}}}}}\n" for one in ("aoba", "sato"))
    path.write_text(f"extends: {name}\nid: {path.stem}\ncohort:\n  from: 2005-01-01\n  sites:\n{sites}")
    return load_protocol(str(path))


@pytest.fixture(scope="module")
def protocols(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("protocols")


def refused(folder: Path, *rows: str) -> RefusalList:
    path = folder / "refusals.csv"
    path.write_text("\n".join(["site,patient_id,received,scope,study,requester", *rows, ""]), encoding="utf-8")
    return read_refusals(path, patient_id_width=8)


def governance(tmp_path: Path, protocols: Path) -> Governance:
    (tmp_path / "keys").mkdir()
    return Governance(
        protocol=protocol("keio_2017_0018", protocols),
        today=DAY,
        staging=tmp_path / "staging",
        linkage=tmp_path / "safe",
        key=make_key_file(tmp_path / "keys" / "study.key"),
        actor="night",
        purpose="labels",
        refusals=refused(tmp_path),
        id_width=8,
    )


@pytest.fixture
def under(tmp_path: Path, protocols: Path) -> Governance:
    return governance(tmp_path, protocols)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, protocols: Path) -> tuple[Governed, LinkageStore]:
    """The tables of `assembled` under the first study, and its store, to be looked at."""
    return made(governance(tmp_path_factory.mktemp("once"), protocols))


def rows(schema: pl.Schema, *given: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([dict.fromkeys(schema) | one for one in given], schema=schema, orient="row")


def assembled(**exam: Any) -> Assembled:
    """Two patients of aoba with the number of one of sato; three exams of each, a report and two records of each."""
    people = [("aoba", "00001234"), ("aoba", "00005678"), ("sato", "00001234")]
    exams, reports, records = [], [], []
    for at, (site, patient) in enumerate(people):
        for number in range(3):
            exams.append(
                {
                    "exam_id": f"{site}-x{patient}-{number}",
                    "patient_id": patient,
                    "site": site,
                    "started_at": datetime(2024, 3, 1 + number, 9, 30),
                    "modality": "CT",
                    "modality_class": "CT",
                    "order_name": "胸部CT（山田先生依頼）" if at == 0 else "食道・胃・十二指腸透視",
                    "protocol_name": "CHEST",
                    "ctdi_vol": 5.0,
                    "study_instance_uid": f"1.2.392.{at}.{number}",
                    "accession_number": f"77{at}00{number}111",
                    "age_years": 97 if at == 1 else 60,
                    "sex": "F",
                    "height_cm": 150.0,
                    **exam,
                }
            )
            reports.append(
                {
                    "report_id": f"r-{site}-{patient}-{number}",
                    "exam_id": exams[-1]["exam_id"],
                    "version": 1,
                    "status": "final",
                    "confirmed_at": datetime(2024, 3, 1 + number, 17),
                    "text": f"{TEXT}\nID {patient}",
                }
            )
        records += [
            {
                "record_id": f"rec-{site}-{patient}-{kind}",
                "kind": kind,
                "patient_id": patient,
                "site": site,
                "start_at": datetime(2024, 3, 8, 10),
                "code_system": system,
                "code": code,
                "name": name,
                "text": "腺癌。診断医 日下部健",
            }
            for kind, system, code, name in (
                ("pathology", "local", "S24-00077", "肺生検"),
                ("surgery", "local", "X99", "肺切除（山田先生執刀）"),
                ("lab", "JLAC10", "5D010000002305101", "シフラ"),
            )
        ]
    quarantine = rows(QUARANTINE, {"stage": "assemble", "kind": "reports", "reason": "The report has no text."})
    attrition = rows(ATTRITION, {"stage": "assemble", "table": "exams", "outcome": "in", "reason": "", "rows": 9})
    return Assembled(rows(EXAMS, *exams), rows(REPORTS, *reports), rows(RECORDS, *records), quarantine, attrition)


def made(under: Governance, tables: Assembled | None = None, part: int = 0) -> tuple[Governed, LinkageStore]:
    store = open_store(under, under.staging.with_name("workspace"))
    return govern(tables or assembled(), part, under, store), store


def original(store: LinkageStore, kind: Any) -> dict[str, str]:
    """Code -> original id."""
    return dict(store.all_codes(kind, actor="test", purpose="test").select("code", "original").iter_rows())


# --- codes, dates, texts, items


def test_K10_J7_nothing_of_the_hospital_is_left_but_the_findings(once: tuple[Governed, LinkageStore]) -> None:
    done, _ = once
    tables = done.assembled
    for name, schema in (("exams", EXAMS), ("reports", REPORTS), ("records", RECORDS)):
        table: pl.DataFrame = getattr(tables, name)
        assert table.schema == schema
        assert table.height == 9
        ids = [one for one in table.columns if one in ("exam_id", "patient_id", "report_id", "record_id")]
        assert all(CODE.fullmatch(value) for column in ids for value in table[column])
        # random digits may be any
        drawn = {*ids, "study_instance_uid"} & set(table.columns)
        written = table.drop(drawn).write_json()
        hidden = ("1234", "5678", "日下部", "山田", "S23-01234", "S24-00077", "1.2.392", "2024/2/20")
        assert [word for word in hidden if word in written] == []
    assert tables.exams["accession_number"].null_count() == 9
    assert tables.exams["study_instance_uid"].n_unique() == 9
    assert tables.exams["study_instance_uid"].str.starts_with("2.25.").all()
    assert tables.exams["patient_id"].n_unique() == 3, "the same number in another hospital is another patient"
    assert all("右上葉に12mmの結節を認めます" in text for text in tables.reports["text"])
    assert done.cohort.schema == COHORT
    assert set(done.cohort["exam_id"]) == set(tables.exams["exam_id"])
    assert done.cohort["kind"].unique().to_list() == ["ct"]


def test_X_short_texts_are_masked_and_titles_of_exams_stay(once: tuple[Governed, LinkageStore]) -> None:
    tables = once[0].assembled
    assert set(tables.exams["order_name"]) == {"胸部CT（［人名］先生依頼）", "食道・胃・十二指腸透視"}
    names = dict(tables.records.select("kind", "name").unique().iter_rows())
    assert names == {"pathology": "肺生検", "surgery": "肺切除（［人名］先生執刀）", "lab": "シフラ"}


def test_X_the_number_of_a_specimen_is_no_code_and_other_codes_stay(once: tuple[Governed, LinkageStore]) -> None:
    tables = once[0].assembled
    codes = {
        kind: (system, code) for kind, system, code in tables.records.select("kind", "code_system", "code").iter_rows()
    }
    assert codes == {"pathology": (None, None), "surgery": ("local", "X99"), "lab": ("JLAC10", "5D010000002305101")}


def test_KC4_the_dates_of_a_patient_move_together_and_keep_the_time_of_day(once: tuple[Governed, LinkageStore]) -> None:
    done, store = once
    before = assembled()
    moved: dict[str, set[Any]] = {}
    for name, key, column in (("exams", "exam", "started_at"), ("records", "record", "start_at")):
        was = dict(getattr(before, name).select(f"{key}_id", column).iter_rows())
        back = original(store, key)
        table: pl.DataFrame = getattr(done.assembled, name)
        for code, patient, at in table.select(f"{key}_id", "patient_id", column).iter_rows():
            moved.setdefault(patient, set()).add(at - was[back[code]])
    back = original(store, "report")
    patient_of = dict(done.assembled.exams.select("exam_id", "patient_id").iter_rows())
    was = dict(before.reports.select("report_id", "confirmed_at").iter_rows())
    for code, exam, at in done.assembled.reports.select("report_id", "exam_id", "confirmed_at").iter_rows():
        moved[patient_of[exam]].add(at - was[back[code]])
    assert [len(shifts) for shifts in moved.values()] == [1, 1, 1], "exams, reports and records of a patient alike"
    shifts = [next(iter(one)) for one in moved.values()]
    assert all(one.seconds == 0 and one.days for one in shifts)
    assert len(set(shifts)) > 1


def test_JC4_dates_stay_where_the_protocol_keeps_them(under: Governance, protocols: Path) -> None:
    done, _ = made(replace(under, protocol=protocol("jmid", protocols)))
    assert set(done.assembled.exams["started_at"].dt.date()) == {date(2024, 3, day) for day in (1, 2, 3)}
    assert "2024/2/20" in done.assembled.reports["text"][0]


def test_codes_are_stable_between_runs_and_different_between_studies(
    under: Governance, protocols: Path, tmp_path: Path
) -> None:
    first, second = made(under)[0].assembled, made(under)[0].assembled
    assert first.exams.equals(second.exams)
    assert first.reports.equals(second.reports)
    other = replace(under, protocol=protocol("jmid", protocols), linkage=tmp_path / "other_safe")
    there = made(other)[0].assembled
    for column in ("exam_id", "patient_id", "study_instance_uid"):
        assert set(first.exams[column]).isdisjoint(there.exams[column])
    assert all(code.startswith("K-") for code in first.exams["patient_id"])
    assert all(code.startswith("J-") for code in there.exams["patient_id"])


def test_the_order_of_the_rows_says_nothing(once: tuple[Governed, LinkageStore]) -> None:
    exams = once[0].assembled.exams
    assert exams["exam_id"].is_sorted()


def test_K9_J4_S3_T7_columns_outside_the_items_are_empty(under: Governance, protocols: Path) -> None:
    exams = made(under)[0].assembled.exams
    assert exams["ctdi_vol"].null_count() == exams["height_cm"].null_count() == 9, "keio takes no dose and no height"
    jmid = replace(under, protocol=protocol("jmid", protocols), linkage=under.linkage.with_name("j"))
    tables = made(jmid)[0].assembled
    assert tables.exams["ctdi_vol"].null_count() == tables.exams["height_cm"].null_count() == 0
    assert tables.records.is_empty(), "jmid takes no records"


def test_J3_ages_are_capped_where_the_protocol_says_so(under: Governance) -> None:
    deid = under.protocol.deid.model_copy(update={"age_top": 90})
    capped = replace(under, protocol=under.protocol.model_copy(update={"deid": deid}))
    assert set(made(capped)[0].assembled.exams["age_years"]) == {60, 90}


# --- who is out, and that nobody gets lost


def test_X3_rows_in_are_rows_out_and_excluded(under: Governance, tmp_path: Path) -> None:
    out = refused(tmp_path, "aoba,1234,2025-01-01,all_research,,patient")  # a spreadsheet has lost the zeros
    done, store = made(replace(under, refusals=out), assembled(modality_class="CT"))
    assert done.assembled.exams.height == 6
    assert done.assembled.records.height == 6
    assert "00001234" in " ".join(original(store, "patient").values()), "that of the other hospital"
    assert len(original(store, "patient")) == 2
    steps = done.assembled.attrition.filter(pl.col("stage") != "assemble")
    sums = steps.group_by("stage", "table").agg(
        into=pl.col("rows").filter(pl.col("outcome") == "in").sum(),
        out=pl.col("rows").filter(pl.col("outcome") != "in").sum(),
    )
    assert sums.height == 6
    assert sums.filter(pl.col("into") != pl.col("out")).is_empty()
    reasons = steps.filter(pl.col("outcome") == "excluded")["reason"].to_list()
    assert any("(K3)" in reason for reason in reasons)
    assert done.assembled.quarantine.height == 1


def test_K3_the_list_counts_however_the_hospital_is_spelt_and_what_fits_nobody_is_told(
    under: Governance, tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    described = tmp_path / "archive" / "archive.yaml"
    described.write_text("options: {patient_id_width: 8}\nsources:\n  - {path: ., format: ris_csv, site: aoba}\n")
    refused(tmp_path, " AOBA,1234,2025-01-01,all_research,,patient", "aobe,5678,2025-01-01,all_research,,patient")
    (tmp_path / "persons.csv").write_text("site,patient_id,person\nＡＯＢＡ,1234,p\nSato,1234,p\n", encoding="utf-8")
    found = read_governance(
        str(under.protocol.path), archive=described, workspace=tmp_path / "workspace", linkage=under.linkage,
        key=under.key, actor="a", purpose="p", refusals=tmp_path / "refusals.csv", persons=tmp_path / "persons.csv",
        staging=under.staging, today=DAY,
    )  # fmt: skip
    people = people_out(found).select("site", "patient_id").rows()
    assert people[0] == ("aoba", "00001234"), "as the tables write it: the part of the person is made anew"
    assert people[1:] == [("aobe", "00005678"), ("sato", "00001234")]
    done, store = made(found)
    assert set(done.assembled.exams["site"]) == {"aoba"}
    assert done.assembled.exams.height == 3
    gone = withdraw(workspace(tmp_path / "workspace"), RawStore(under.staging, 2), found, store)
    assert gone.missed.elsewhere.rows() == [("aobe", [2])]


def test_a_part_without_anybody_is_empty(under: Governance) -> None:
    tables = assembled(modality_class="OT")
    done, store = made(under, tables)
    assert [done.assembled.exams.height, done.assembled.reports.height, done.cohort.height] == [0, 0, 0]
    assert done.assembled.exams.schema == EXAMS
    assert original(store, "exam") == {}


def test_K3_refusals_are_counted_by_part(under: Governance, tmp_path: Path) -> None:
    out = people_out(replace(under, refusals=refused(tmp_path, "aoba,1234,2025-01-01,all_research,,patient")))
    assert out.select("site", "patient_id", "effect").rows() == [("aoba", "00001234", "remove")]
    assert refusals_of_parts(out, 4) == {part_of("aoba", "00001234", 4): ["aoba/00001234/remove"]}


def test_the_signature_follows_what_all_parts_depend_on(under: Governance, protocols: Path, tmp_path: Path) -> None:
    known = pl.DataFrame({"site": ["aoba"], "patient_id": ["00001234"], "name": ["日下部　健"]})
    others = [
        replace(under, known=known),
        replace(under, staff=("山田 花子",)),
        replace(under, protocol=protocol("jmid", protocols)),
    ]
    assert len({one.signature() for one in (under, *others)}) == 4
    same = replace(under, refusals=refused(tmp_path, "aoba,1,2025-01-01,all_research,,patient"), today=date(2027, 1, 1))
    assert same.signature() == under.signature()


# --- what lies in the linkage store


def test_offsets_of_the_store_lead_back_to_the_original(once: tuple[Governed, LinkageStore]) -> None:
    done, store = once
    texts = dict(assembled().reports.select("report_id", "text").iter_rows())
    back = original(store, "report")
    offsets = store.get("offsets_0000", actor="test", purpose="test")
    maps = maps_of(offsets.select("report_id", pl.exclude("report_id", "version")), list(back))
    for code, masked in done.assembled.reports.select("report_id", "text").iter_rows():
        for word in ("12mmの結節", "著変ありません", "病理診断"):
            at = masked.index(word)
            start, end = maps[code].to_old(at, at + len(word))
            assert texts[back[code]][start:end] == word


def test_K7_the_pictures_of_an_exam_are_found_through_the_store_alone(under: Governance) -> None:
    done, store = made(under)
    made(under, assembled(), part=3)
    images = read_table_of_store(store, "images", IMAGES, actor="test", purpose="test")
    assert images.schema == IMAGES
    assert images.height == 18, "two parts"
    assert set(images["exam_id"]) == set(done.assembled.exams["exam_id"])
    assert all(uid.startswith("1.2.392.") for uid in images["study_instance_uid"])
    raw = b"".join(path.read_bytes() for path in under.linkage.rglob("*") if path.is_file())
    assert b"1.2.392." not in raw
    assert store.problems() == []


def test_a_ledger_that_was_never_written_is_empty(once: tuple[Governed, LinkageStore]) -> None:
    _, store = once
    assert shipped_of(store, actor="test", purpose="test").schema == SHIPPED


# --- whose workspace it is


def workspace(folder: Path) -> Workspace:
    return Workspace.open(folder, WORKSPACE, create=True, parts=2)


def test_a_workspace_belongs_to_one_study(under: Governance, protocols: Path, tmp_path: Path) -> None:
    own = workspace(tmp_path / "workspace")
    claim(own, None)
    assert study_of(own.folder) is None
    store = open_store(under, own.folder)
    claim(own, under, store)
    study = study_of(own.folder)
    assert study is not None
    assert (study.study, study.linkage, study.staging, study.id_width) == (
        "our_keio_2017_0018", under.linkage, under.staging, 8,
    )  # fmt: skip
    assert study.load() == under.protocol
    with pytest.raises(ConfigError, match="belongs to the study our_keio_2017_0018; each study"):
        claim(own, replace(under, protocol=protocol("jmid", protocols)), store)
    with pytest.raises(ConfigError, match="give its protocol"):
        claim(own, None)
    plain = workspace(tmp_path / "plain")
    plain.replace_part("exams", 0, pl.DataFrame(schema=EXAMS))
    with pytest.raises(ConfigError, match="without a study protocol"):
        claim(plain, under, store)


def test_a_workspace_keeps_the_store_that_it_was_made_with(under: Governance, tmp_path: Path) -> None:
    """Another one knows none of its codes: who has refused would not be found by them."""
    own = workspace(tmp_path / "workspace")
    claim(own, under, open_store(under, own.folder))
    mistyped = replace(under, linkage=tmp_path / "another" / "linkgae")
    with pytest.raises(ConfigError, match="holds no linkage store"):
        open_store(mistyped, own.folder)
    assert not mistyped.linkage.exists()
    another = open_store(mistyped, tmp_path / "other_workspace")
    with pytest.raises(ConfigError, match="not the linkage store that this workspace was made with"):
        open_store(mistyped, own.folder)
    with pytest.raises(ConfigError, match="not the linkage store"):
        claim(own, mistyped, another)
    study = study_of(own.folder)
    assert study is not None and study.linkage == under.linkage
    moved = replace(under, linkage=tmp_path / "moved")
    under.linkage.rename(moved.linkage)
    claim(own, moved, open_store(moved, own.folder))
    study = study_of(own.folder)
    assert study is not None and study.linkage == moved.linkage


def test_a_protocol_that_has_changed_is_not_followed(under: Governance, tmp_path: Path) -> None:
    path = tmp_path / "changing.yaml"
    path.write_text(under.protocol.path.read_text().replace("id: our_keio_2017_0018", "id: changing"))
    changing = replace(under, protocol=load_protocol(str(path)))
    own = workspace(tmp_path / "workspace")
    claim(own, changing, open_store(changing, own.folder))
    path.write_text(path.read_text() + "deid: {k: 7}\n")
    study = study_of(own.folder)
    assert study is not None
    with pytest.raises(ConfigError, match="has changed since the last run"):
        study.load()


def test_a_damaged_note_is_named(tmp_path: Path, under: Governance) -> None:
    own = workspace(tmp_path / "workspace")
    (own.folder / "study.json").write_text(json.dumps({"study": "x"}))
    with pytest.raises(ConfigError, match=re.escape("study.json cannot be read")):
        study_of(own.folder)


@pytest.mark.parametrize("place", ["workspace", "workspace/rows", "."])
def test_staging_workspace_and_store_lie_apart(under: Governance, tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match=r"overlap|apart"):
        open_store(replace(under, staging=tmp_path / place), tmp_path / "workspace")
    assert not under.linkage.exists()


def test_another_study_or_key_does_not_open_the_store(under: Governance, protocols: Path, tmp_path: Path) -> None:
    open_store(under, tmp_path / "workspace")
    with pytest.raises(ConfigError, match="another study"):
        open_store(replace(under, protocol=protocol("jmid", protocols)), tmp_path / "workspace")
    with pytest.raises(ConfigError, match="key"):
        open_store(replace(under, key=make_key_file(tmp_path / "keys" / "other.key")), tmp_path / "workspace")


# --- withdrawal, files of the hospital


def test_K16_who_withdraws_leaves_and_the_bundles_are_listed(under: Governance, tmp_path: Path) -> None:
    own = workspace(tmp_path / "workspace")
    done, store = made(under)
    for name in ("exams", "reports", "records"):
        own.replace_part(name, 0, getattr(done.assembled, name))
    back = original(store, "patient")
    code = next(one for one, key in back.items() if "00005678" in key)
    handed = [("b-1", "marubeni", DAY, code), ("b-2", "marubeni", DAY, "K-OTHER")]
    ledger = pl.DataFrame(handed, schema=SHIPPED, orient="row")
    store.add("shipped", ledger, actor="test", purpose="test")
    raw = RawStore(under.staging, 2)
    nobody = withdraw(own, raw, under, store)
    assert (nobody.removed.people, nobody.shipped.height) == (0, 0)
    out = replace(under, refusals=refused(tmp_path, "aoba,5678,2025-01-01,all_research,,patient"))
    gone = withdraw(own, raw, out, store)
    assert gone.removed.people == 1
    assert gone.removed.rows["left"].sum() == 0
    assert gone.shipped["bundle"].to_list() == ["b-1"]
    assert code not in own.read("exams")["patient_id"]
    assert own.read("exams").height == 6
    assert [entry.records for entry in _entries(store) if entry.action == "withdraw"] == [(code,)]
    again = withdraw(own, raw, out, store)
    assert (again.removed.people, again.shipped["bundle"].to_list()) == (0, ["b-1"]), "it stays listed"


def _entries(store: LinkageStore) -> list[Entry]:
    return entries(store.log.path)


def test_lists_of_the_hospital_are_brought_to_its_ids(tmp_path: Path, under: Governance) -> None:
    archive = tmp_path / "archive"
    (archive / "ris").mkdir(parents=True)
    (archive / "archive.yaml").write_text(
        "options: {patient_id_width: 8}\nsources:\n  - {path: ris, format: ris_csv, site: aoba}\n"
    )
    refused(tmp_path, "aoba,1234,2025-01-01,all_research,,patient")
    (tmp_path / "known.csv").write_text("site,patient_id,name\naoba,1234,日下部　健\n", encoding="utf-8")
    (tmp_path / "staff.csv").write_text("name\n山田 花子\n", encoding="utf-8")

    def read(**more: Any) -> Governance:
        return read_governance(
            "keio_2017_0018", archive=archive / "archive.yaml", workspace=tmp_path / "w", linkage=tmp_path / "safe",
            key=under.key, actor="a", purpose="p", refusals=tmp_path / "refusals.csv", **more,
        )  # fmt: skip

    found = read(known=tmp_path / "known.csv", staff=tmp_path / "staff.csv", today=DAY)
    assert found.known is not None
    assert found.known["patient_id"].to_list() == ["00001234"]
    assert found.refusals.rows["patient_id"].to_list() == ["00001234"]
    assert (found.id_width, found.staff, found.today) == (8, ("山田 花子",), DAY)
    assert found.staging == tmp_path / "w.staging"
    (tmp_path / "known.csv").write_text("site,patient,name\naoba,1234,日下部　健\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"known\.csv.*patient"):
        read(known=tmp_path / "known.csv")
    assert "日下部" not in repr(found)
