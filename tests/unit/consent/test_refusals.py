"""Refusals: reading the list, judging each request, taking people out. Tests of requirements carry their number."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reportlabel.consent.attrition import unbalanced
from reportlabel.consent.refusals import (
    REFUSALS,
    apply_refusals,
    in_codes,
    read_refusals,
    refuse_in_tables,
    requests_of_other_studies,
    shipped_with,
    site_names,
    standing_refusals,
)
from reportlabel.errors import InputError
from reportlabel.protocol import Protocol, load_protocol
from reportlabel.schema import EXAMS, RECORDS, REPORTS

KEIO, JMID, GUNMA, SHINSHU, TOHOKU = "keio_2017_0018", "jmid", "gunma_bone_scan", "shinshu_skin", "tohoku_skin"
STUDIES = [KEIO, JMID, GUNMA, SHINSHU, TOHOKU]
NUMBER = {KEIO: "K3", JMID: "J11", GUNMA: "B18", SHINSHU: "S6", TOHOKU: "T9"}
PROTOCOLS = {study: load_protocol(study) for study in STUDIES}
TODAY = date(2026, 11, 21)
CASES = ["deceased", "lacks_capacity", "unconscious", "disclosure_discretion", "minor"]
RELATIVES = [
    "spouse", "parent", "sibling", "child", "grandchild", "grandparent", "cohabiting_relative", "close_relative",
]  # fmt: skip


def refusals(*rows: dict[str, Any]) -> pl.DataFrame:
    """Requests; what is not given: patient 1 of site a, a blanket refusal by the patient, early."""
    usual = {
        "site": "a",
        "patient_id": "1",
        "received": date(2015, 1, 1),
        "scope": "all_research",
        "study": None,
        "requester": "patient",
    }
    return pl.DataFrame(
        [dict.fromkeys(REFUSALS) | usual | {"row": at, **row} for at, row in enumerate(rows, start=1)],
        schema=REFUSALS,
    )


def people(*ids: tuple[str | None, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(ids), schema={"site": pl.String, "patient_id": pl.String}, orient="row").with_row_index(
        "exam"
    )


def filled(schema: pl.Schema, columns: dict[str, list[str]]) -> pl.DataFrame:
    """A table with nulls in all other columns."""
    return pl.concat([schema.to_frame(), pl.DataFrame(columns)], how="diagonal")


TABLE = people(("a", "1"), ("a", "2"), ("b", "1"), ("b", "3"), ("a", "1"))


def variant(folder: Path, study: str, **optout: Any) -> Protocol:
    path = folder / "ours.yaml"
    path.write_text(yaml.safe_dump({"extends": study, "id": "ours", "optout": optout}), encoding="utf-8")
    return load_protocol(path)


def effect(of: str | Protocol, /, **row: Any) -> tuple[str, str] | None:
    """Effect and number of one request; None: it does not concern the study."""
    protocol = of if isinstance(of, Protocol) else PROTOCOLS[of]
    standing = standing_refusals(refusals(row), protocol, today=TODAY)
    return (standing["effect"][0], standing["number"][0]) if standing.height else None


# --- scopes


@pytest.mark.parametrize("study", STUDIES)
def test_K3_J11_B18_S6_T9_two_scopes(study: str) -> None:
    number = NUMBER[study]
    assert effect(study, scope="all_research") == ("remove", number)
    assert effect(study, scope="study", study=study) == ("remove", number)
    other = KEIO if study != KEIO else JMID
    assert effect(study, scope="study", study=other) is None
    # what cannot be read is read for the one who refuses
    assert effect(study, scope="study", study=None) == ("remove", number)
    assert effect(study, scope=None) == ("remove", number)


@pytest.mark.parametrize("name", ["keio_2017_0018", "2017-0018", "２０１７−００１８", "Keio-2017-0018"])
def test_K3_the_study_is_known_by_all_its_names(name: str) -> None:
    assert effect(KEIO, scope="study", study=name) == ("remove", "K3")


@pytest.mark.parametrize(
    "named", ["jmid；2017-0018", "2017-0018、jmid", "画像報告書からの教師データ作成とAI画像診断支援"]
)
def test_K3_a_cell_may_name_several_studies_or_the_title(named: str) -> None:
    assert effect(KEIO, scope="study", study=named) == ("remove", "K3")


def test_requests_of_other_studies_can_be_looked_through() -> None:
    rows = refusals({}, {"scope": "study", "study": KEIO}, {"scope": "study", "study": "2017-0081"}, {"scope": "study"})
    assert requests_of_other_studies(rows, PROTOCOLS[KEIO]) == [3]


def test_K3_K16_at_an_export_the_tables_hold_codes() -> None:
    codes = pl.DataFrame({"site": ["a", "b"], "patient_id": ["1", "1"], "patient_code": ["K7", "K8"]})
    rows = in_codes(refusals({}, {"patient_id": "9"}), codes)
    assert rows.schema == REFUSALS and rows.select("site", "patient_id").rows() == [("a", "K7")]
    done = apply_refusals(people(("a", "K7"), ("b", "K8")), rows, PROTOCOLS[KEIO], today=TODAY, stage="export")
    assert done.kept["patient_id"].to_list() == ["K8"]


def test_B18_a_refusal_of_the_prior_study_counts() -> None:
    assert effect(GUNMA, scope="study", study="HS-2022-005") == ("remove", "B18")


def test_K3_a_refused_patient_is_in_no_table() -> None:
    exams = filled(EXAMS, {"exam_id": ["e1", "e2", "e3"], "patient_id": ["1", "2", "1"], "site": ["a", "a", "b"]})
    reports = filled(REPORTS, {"report_id": ["r1", "r2", "r3"], "exam_id": ["e1", "e2", "e3"]})
    records = filled(
        RECORDS, {"record_id": ["x", "y"], "kind": ["lab", "lab"], "patient_id": ["1", "2"], "site": ["a", "a"]}
    )
    labels = pl.DataFrame({"exam_id": ["e1", "e2", "e3", None], "finding": ["f"] * 4})
    mentions = pl.DataFrame({"report_id": ["r1", "r1", "r2", "r3"]})
    done = refuse_in_tables(
        {"mentions": mentions, "labels": labels, "records": records, "reports": reports, "exams": exams},
        refusals({}),
        PROTOCOLS[KEIO],
        today=TODAY,
    )
    assert {name: table.height for name, table in done.tables.items()} == {
        "mentions": 2, "labels": 2, "records": 1, "reports": 2, "exams": 2,
    }  # fmt: skip
    assert done.tables["exams"]["exam_id"].to_list() == ["e2", "e3"]
    assert done.tables["mentions"]["report_id"].to_list() == ["r2", "r3"]
    assert done.people.rows() == [("a", "1", "remove", "refused all research", "K3")]
    assert unbalanced(done.attrition) == []
    assert done.attrition.filter(pl.col("table") == "labels")["excluded"].sum() == 2
    for name, table in (("exams", exams), ("labels", labels)):
        assert done.tables[name].schema == table.schema


def test_a_table_without_a_way_to_the_patient_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="loose"):
        refuse_in_tables({"loose": pl.DataFrame({"x": [1]})}, refusals(), PROTOCOLS[KEIO], today=TODAY)
    with pytest.raises(ValueError, match="labels"):
        refuse_in_tables({"labels": pl.DataFrame({"exam_id": ["1"]})}, refusals(), PROTOCOLS[KEIO], today=TODAY)


# --- who may refuse


@pytest.mark.parametrize("study", [KEIO, JMID, TOHOKU])
@pytest.mark.parametrize("requester", ["patient", "agent", *RELATIVES])
def test_K16_J11_T9_patient_or_anyone_who_acts_for_them(study: str, requester: str) -> None:
    assert effect(study, requester=requester) == ("remove", NUMBER[study])


@pytest.mark.parametrize("case", [*CASES, None])
@pytest.mark.parametrize("requester", RELATIVES)
def test_B17_relatives_in_the_five_cases(requester: str, case: str | None) -> None:
    expected = ("remove", "B18") if case else ("hold", "B17")
    assert effect(GUNMA, requester=requester, case=case) == expected


@pytest.mark.parametrize("case", CASES)
def test_B17_no_minor_acts_for_another(case: str) -> None:
    row = {"requester": "sibling", "case": case}
    assert effect(GUNMA, requester_minor=True, **row) == ("hold", "B17")
    assert effect(GUNMA, requester_minor=False, **row) == ("remove", "B18")
    assert effect(GUNMA, requester_minor=None, **row) == ("remove", "B18")


def test_B17_the_patient_needs_no_case() -> None:
    assert effect(GUNMA, requester="patient", case=None) == ("remove", "B18")
    assert effect(GUNMA, requester=None) == ("remove", "B18")


@pytest.mark.parametrize("requester", RELATIVES)
def test_S6_relatives_may_refuse(requester: str) -> None:
    assert effect(SHINSHU, requester=requester) == ("remove", "S6")


@pytest.mark.parametrize("study", [GUNMA, SHINSHU])
@pytest.mark.parametrize("requester", ["agent", "unknown"])
def test_B17_S6_a_request_by_others_holds_the_patient_out(study: str, requester: str, tmp_path: Path) -> None:
    effect_and_number = effect(study, requester=requester, case="deceased")
    assert effect_and_number == ("hold", {GUNMA: "B17", SHINSHU: "S6"}[study])
    rows = refusals({"requester": requester, "case": "deceased"})
    assert apply_refusals(TABLE, rows, PROTOCOLS[study], today=TODAY).excluded["effect"].to_list() == ["hold"] * 2
    lenient = variant(tmp_path, study, unentitled="set_aside")
    assert apply_refusals(TABLE, rows, lenient, today=TODAY).kept.equals(TABLE)
    assert standing_refusals(rows, lenient, today=TODAY)["effect"].to_list() == ["set_aside"]


def test_a_scope_that_the_notice_does_not_have_holds_the_patient_out(tmp_path: Path) -> None:
    only_this = variant(tmp_path, KEIO, scopes=["study"])
    assert effect(only_this, scope="all_research") == ("hold", "K3")
    assert effect(only_this, scope="study", study=KEIO) == ("remove", "K3")


# --- cut-off


@pytest.mark.parametrize(
    ("received", "after", "early"),
    [
        (date(2021, 1, 31), "remove", True),
        (date(2021, 2, 1), "remove", False),
        (date(2021, 1, 31), "later_exports", True),
        (date(2021, 2, 1), "later_exports", False),
        (date(2022, 5, 5), "later_exports", False),
        (None, "later_exports", True),
    ],
)
def test_S6_SC1_the_cut_off(received: date | None, after: str, early: bool, tmp_path: Path) -> None:
    protocol = variant(tmp_path, SHINSHU, after_cutoff=after)
    rows = refusals({"received": received})
    run = apply_refusals(TABLE, rows, protocol, today=TODAY, stage="run")
    export = apply_refusals(TABLE, rows, protocol, today=TODAY, stage="export")
    # never in a later export; before the cut-off gone everywhere
    assert export.kept.height == 3 and export.excluded.height == 2
    assert run.kept.height == (3 if early or after == "remove" else 5)
    assert set(export.excluded["number"]) == {"S6"}


def test_SC1_the_shipped_answer_takes_everybody_out() -> None:
    assert PROTOCOLS[SHINSHU].optout.cutoff == date(2021, 2, 1)
    assert effect(SHINSHU, received=date(2023, 1, 1)) == ("remove", "S6")


def test_K16_S6_shipped_bundles_with_the_patient_are_listed() -> None:
    standing = standing_refusals(
        refusals({"received": date(2022, 1, 1)}, {"patient_id": "3", "site": "b", "scope": "study", "study": "other"}),
        PROTOCOLS[KEIO],
        today=TODAY,
    )
    codes = pl.DataFrame(
        {"site": ["a", "a", "b", "b"], "patient_id": ["1", "2", "1", "3"], "patient_code": ["K1", "K2", "K3", "K4"]}
    )
    shipped = pl.DataFrame(
        {
            "bundle": ["first", "first", "second", "second", "second"],
            "recipient": ["marubeni"] * 5,
            "shipped_on": [date(2020, 1, 1)] * 2 + [date(2021, 1, 1)] * 3,
            "patient_code": ["K1", "K2", "K1", "K3", "K4"],
        }
    )
    found = shipped_with(standing, shipped, codes)
    assert found.select("bundle", "patient_code", "received").rows() == [
        ("first", "K1", date(2022, 1, 1)),
        ("second", "K1", date(2022, 1, 1)),
    ]
    assert not {"patient_id", "site"} & set(found.columns)
    persons = pl.DataFrame({"site": ["a", "b"], "patient_id": ["1", "1"], "person": ["p", "p"]})
    both = shipped_with(standing, shipped, codes, persons=persons)
    assert sorted(set(both["patient_code"])) == ["K1", "K3"]


def test_K16_a_later_withdrawal_takes_the_patient_out_of_the_next_run() -> None:
    before = apply_refusals(TABLE, refusals(), PROTOCOLS[KEIO], today=TODAY)
    after = apply_refusals(TABLE, refusals({"received": TODAY}), PROTOCOLS[KEIO], today=TODAY)
    assert before.kept.equals(TABLE) and after.kept["exam"].to_list() == [1, 2, 3]


def test_a_date_in_the_future_counts_all_the_same() -> None:
    standing = standing_refusals(refusals({"received": TODAY + timedelta(days=1)}), PROTOCOLS[KEIO], today=TODAY)
    assert standing["effect"].to_list() == ["remove"] and "future" in standing["reason"][0]


# --- hospitals


def test_J2_the_same_number_in_another_hospital_is_another_person() -> None:
    done = apply_refusals(TABLE, refusals({}), PROTOCOLS[JMID], today=TODAY)
    assert done.kept.select("site", "patient_id").rows() == [("a", "2"), ("b", "1"), ("b", "3")]


def test_J11_a_request_at_any_hospital_counts_for_all(tmp_path: Path) -> None:
    persons = pl.DataFrame(
        {"site": ["a", "b", "a", "c"], "patient_id": ["1", "3", "2", "9"], "person": ["p", "p", "q", "p"]}
    )
    for asked in ({"site": "a", "patient_id": "1"}, {"site": "b", "patient_id": "3"}, {"site": "c", "patient_id": "9"}):
        done = apply_refusals(TABLE, refusals(asked), PROTOCOLS[JMID], today=TODAY, persons=persons)
        assert done.kept.select("site", "patient_id").rows() == [("a", "2"), ("b", "1")]
        assert set(done.excluded["number"]) == {"J11"}
    keio = apply_refusals(
        TABLE, refusals({"site": "c", "patient_id": "9"}), PROTOCOLS[KEIO], today=TODAY, persons=persons
    )
    assert set(keio.excluded["number"]) == {"K3"}
    alone = variant(tmp_path, JMID, across_sites=False)
    done = apply_refusals(TABLE, refusals({"site": "b", "patient_id": "3"}), alone, today=TODAY, persons=persons)
    assert done.kept.height == 4


def test_J11_people_without_an_identity_across_hospitals_are_themselves() -> None:
    persons = pl.DataFrame({"site": ["a", "b"], "patient_id": ["2", "3"], "person": [None, None]}).cast(pl.String)
    done = apply_refusals(TABLE, refusals({"patient_id": "2"}), PROTOCOLS[JMID], today=TODAY, persons=persons)
    assert done.kept.height == 4


def test_rows_of_nobody_are_held() -> None:
    done = apply_refusals(people(("a", None), (None, "1"), ("a", "2")), refusals(), PROTOCOLS[KEIO], today=TODAY)
    assert done.kept["patient_id"].to_list() == ["2"]
    assert done.excluded["effect"].to_list() == ["hold", "hold"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("1234")), max_size=20),
    st.lists(
        st.fixed_dictionaries(
            {
                "site": st.sampled_from("ab"),
                "patient_id": st.sampled_from("1234"),
                "scope": st.sampled_from(["all_research", "study", None]),
                "study": st.sampled_from([None, *STUDIES]),
                "requester": st.sampled_from([None, "patient", "agent", "unknown", *RELATIVES]),
                "case": st.sampled_from([None, *CASES]),
                "received": st.none() | st.dates(date(2020, 1, 1), date(2022, 1, 1)),
            }
        ),
        max_size=6,
    ),
    st.sampled_from(STUDIES),
    st.sampled_from(["run", "export"]),
)
def test_X3_rows_in_are_rows_kept_and_excluded(
    rows: list[tuple[str, str]], asked: list[dict[str, Any]], study: str, stage: Any
) -> None:
    table = people(*rows)
    done = apply_refusals(table, refusals(*asked), PROTOCOLS[study], today=TODAY, stage=stage)
    assert sorted([*done.kept["exam"], *done.excluded["exam"]]) == table["exam"].to_list()
    assert unbalanced(done.attrition) == []
    assert done.attrition["excluded"].sum() == done.excluded.height
    # whoever has a request that concerns the study is out
    concerned = {(one["site"], one["patient_id"]) for one in standing_refusals(
        refusals(*asked), PROTOCOLS[study], today=TODAY).iter_rows(named=True)}  # fmt: skip
    assert concerned.isdisjoint(done.kept.select("site", "patient_id").rows())


# --- reading a list


def listed(path: Path, text: str, encoding: str = "utf-8", **options: Any) -> Any:
    path.write_bytes(text.encode(encoding))
    return read_refusals(path, **options)


def test_a_japanese_list_of_a_consent_office(tmp_path: Path) -> None:
    text = (
        "施設,患者ID,申出日,不同意区分,研究番号,続柄,事由\n"
        "aoba,00012345,令和5年3月1日,包括不同意,,本人,\n"
        "aoba,00012346,R5.3.2,個別,2017-0018,長女,認知症\n"
        "\n"
        "minato,777,2023/03/03,個別,jmid,妻,死亡\n"
    )
    for encoding in ("utf-8", "utf-8-sig", "cp932"):
        done = listed(tmp_path / "list.csv", text, encoding)
        assert done.rows.drop("row", "requester_minor").rows() == [
            ("aoba", "00012345", date(2023, 3, 1), "all_research", None, "patient", None, None),
            ("aoba", "00012346", date(2023, 3, 2), "study", "2017-0018", "child", "lacks_capacity", None),
            ("minato", "777", date(2023, 3, 3), "study", "jmid", "spouse", "deceased", None),
        ]
        assert done.quarantine.height == 0 and done.doubtful.height == 0


def test_bad_rows_are_set_aside_with_reason_and_remedy(tmp_path: Path) -> None:
    text = (
        "site,patient_id,received,scope\n"
        "a,,2023-01-01,all\n"
        "a,2.0231E+10,2023-01-01,all\n"
        ",5,2023-01-01,all\n"
        "a,6,2023-01-01\n"
        "a,7,2023-01-01,all,more\n"
        "a,8,2023-01-01,all\n"
    )
    done = listed(tmp_path / "list.csv", text)
    assert done.rows["patient_id"].to_list() == ["6", "7", "8"]
    assert done.quarantine["row"].to_list() == [1, 2, 3]
    assert done.quarantine.null_count().sum_horizontal().item() == 0
    shown = done.quarantine.write_csv()
    assert "2.0231" not in shown and "2023-01-01" not in shown
    assert listed(tmp_path / "list.csv", text, site="a").quarantine["row"].to_list() == [1, 2]


def test_an_open_quote_swallows_no_other_row(tmp_path: Path) -> None:
    text = 'site,patient_id,received,scope\na,1,2023-01-01,all\na,2,"2023-01-01,all\na,3,2023-01-01,all\na,4,"x",all\n'
    done = listed(tmp_path / "list.csv", text)
    assert done.rows["patient_id"].to_list() == ["1", "2", "3", "4"]
    assert done.quarantine.height == 0
    assert done.rows.filter(pl.col("doubt").str.contains("fields"))["row"].to_list() == [2]


def test_a_remark_of_two_lines_is_no_fault(tmp_path: Path) -> None:
    done = listed(tmp_path / "list.csv", 'site,patient_id,remark,scope\na,1,"two\nlines",all\na,2,,all\n')
    assert done.rows["patient_id"].to_list() == ["1", "2"] and done.quarantine.height == 0


def test_damaged_bytes_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    lines = [b"site,patient_id,scope", "青葉,1,包括".encode(), b"a,\xff\xfe2,all", "a,3,個別".encode()]
    path.write_bytes(b"\n".join(lines))
    done = read_refusals(path, encoding="utf-8")
    assert done.rows["patient_id"].to_list() == ["1", "3"] and done.quarantine["row"].to_list() == [2]


STUDY_OF_NOBODY = "2023-01-01,study,some-other-study"


@pytest.mark.parametrize(
    "line",
    [
        f"a,1,{STUDY_OF_NOBODY},patient,",
        f"a,1,{STUDY_OF_NOBODY},patient,,,",
        f"a,1,{STUDY_OF_NOBODY}",
        "a,1,2023-01-01",
        "a,1",
        "a,1,令和5年,1月1日,study,some-other-study,patient",
        'a,1,"2023-01-01,study,some-other-study,patient',
        f",a,1,{STUDY_OF_NOBODY},patient",
        "a,1,2023-01-01,study,\ufffd\ufffd,patient",
    ],
)
@pytest.mark.parametrize("study", STUDIES)
def test_a_damaged_row_that_names_somebody_refuses_everything(line: str, study: str, tmp_path: Path) -> None:
    """Whatever it says of scope, study and day: it is a refusal, and these are not to be relied upon."""
    header = "site,patient_id,received,scope,study,requester"
    done = listed(tmp_path / "list.csv", f"{header}\na,2,2023-01-01,study,some-other-study,patient\n{line}\n")
    assert done.quarantine.height == 0
    assert done.doubtful["row"].to_list() == [2]
    assert "some-other-study" not in done.doubtful["doubt"][0]
    out = apply_refusals(TABLE, done.rows, PROTOCOLS[study], today=TODAY)
    assert out.kept["exam"].to_list() == [1, 2, 3]
    assert out.excluded["effect"].to_list() == ["remove"] * 2


@pytest.mark.parametrize(
    "line",
    [
        "12,345,a,2023-01-01,all",  # the comma may be in the number: 12 or 345, or neither
        "a,2023-01-01,all",
        "all",
        "a,,2023-01-01,all,,",
        "a,1\ufffd,2023-01-01,all",
        'lines of a remark",all',
    ],
)
def test_a_damaged_row_that_may_name_anybody_is_set_aside(line: str, tmp_path: Path) -> None:
    header = "patient_id,site,received,scope" if line.startswith("12") else "site,patient_id,received,scope"
    done = listed(tmp_path / "list.csv", f"{header}\n{line}\n")
    assert done.rows.is_empty()
    assert done.quarantine["row"].to_list() == [1]


def test_damaged_rows_of_other_lists_are_set_aside(tmp_path: Path) -> None:
    text = "site,patient_id,remark\na,1,\na,2\na,3,x,y\n"
    done = listed(tmp_path / "list.csv", text, keep_damaged=False)
    assert done.rows["patient_id"].to_list() == ["1"]
    assert done.quarantine["row"].to_list() == [2, 3]


def test_digits_of_full_width_are_digits(tmp_path: Path) -> None:
    done = listed(tmp_path / "list.csv", "site,patient_id,scope\na,０１２３,all\n", patient_id_width=8)
    assert done.rows["patient_id"].to_list() == ["00000123"]


# --- the names of hospitals

OUR_SITES = """extends: keio_2017_0018
id: ours
cohort:
  sites:
    - {id: gunma, name: {ja: 群馬大学医学部附属病院, en: Gunma University Hospital}, names: [群大病院, 第一]}
    - {id: aoba, names: [第一]}
"""


@pytest.fixture
def ours(tmp_path: Path) -> Protocol:
    (tmp_path / "ours.yaml").write_text(OUR_SITES, encoding="utf-8")
    return load_protocol(tmp_path / "ours.yaml")


@pytest.mark.parametrize(
    "spelt",
    ["gunma", " Gunma ", "ＧＵＮＭＡ", "群馬大学医学部附属病院", "GUNMA  university　hospital", "群大病院"],
)
@pytest.mark.parametrize("there", ["gunma", "Gunma "])
def test_a_hospital_is_the_same_however_it_is_spelt(spelt: str, there: str, ours: Protocol, tmp_path: Path) -> None:
    rows = listed(tmp_path / "list.csv", f'patient_id,site,scope\n1,"{spelt}",all\n').rows
    assert standing_refusals(rows, ours, today=TODAY)["site"].to_list() == ["gunma"]
    table = people((there, "1"), (there, "2"), ("aoba", "1"))
    done = apply_refusals(table, rows, ours, today=TODAY)
    assert done.kept.rows() == table.rows()[1:]
    assert done.excluded["site"].to_list() == [there]
    persons = pl.DataFrame({"site": [spelt, "AOBA"], "patient_id": ["1", "1"], "person": ["p", "p"]})
    assert apply_refusals(table, rows, ours, today=TODAY, persons=persons).kept.rows() == table.rows()[1:2]


def test_a_name_that_two_hospitals_have_is_none(ours: Protocol) -> None:
    names = site_names(ours)
    assert "第一" not in names
    assert names["aoba"] == "aoba"


def test_hospitals_that_the_protocol_does_not_know_are_compared_as_they_are_spelt(ours: Protocol) -> None:
    done = apply_refusals(people(("Far", "1"), ("near", "1")), refusals({"site": "ＦＡＲ"}), ours, today=TODAY)
    assert done.kept["site"].to_list() == ["near"]


@pytest.mark.parametrize(
    ("row", "doubt"),
    [
        ("a,1,not a day,all,,patient", "date of receipt"),
        ("a,1,,all,,patient", "date of receipt"),
        ("a,1,2023-01-01,perhaps,,patient", "scope cannot be read"),
        ("a,1,2023-01-01,,,patient", "no scope"),
        ("a,1,2023-01-01,study,,patient", "no study"),
        ("a,1,2023-01-01,all,,", "no requester"),
        ("a,1,2023-01-01,all,,neighbour", "requester cannot be read"),
    ],
)
@pytest.mark.parametrize("study", STUDIES)
def test_what_cannot_be_read_is_read_for_the_one_who_refuses(row: str, doubt: str, study: str, tmp_path: Path) -> None:
    done = listed(tmp_path / "list.csv", f"site,patient_id,received,scope,study,requester\n{row}\n")
    assert doubt in done.doubtful["doubt"][0] and "neighbour" not in done.doubtful["doubt"][0]
    assert apply_refusals(TABLE, done.rows, PROTOCOLS[study], today=TODAY).kept["exam"].to_list() == [1, 2, 3]


def test_a_study_alone_says_the_scope(tmp_path: Path) -> None:
    done = listed(tmp_path / "list.csv", "site,patient_id,received,study,requester\na,1,2023-01-01,jmid,本人\n")
    assert done.rows["scope"].to_list() == ["study"] and done.doubtful.height == 0


def test_zeros_that_a_spreadsheet_took_away_come_back(tmp_path: Path) -> None:
    done = listed(tmp_path / "list.csv", "site,patient_id,scope\na,123,all\n", patient_id_width=8)
    assert done.rows["patient_id"].to_list() == ["00000123"]


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "patient_id": ["1", "2"], "site": ["a", "b"], "received": [date(2023, 1, 1), None],
            "scope": ["study", "all_research"], "study": ["jmid", None],
            "requester": ["cohabiting_relative", "patient"], "case": ["disclosure_discretion", None],
        }
    )  # fmt: skip
    rows.write_parquet(tmp_path / "list.parquet")
    done = read_refusals(tmp_path / "list.parquet")
    for column in rows.columns:
        assert done.rows[column].to_list() == rows[column].to_list()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file"),
        ("none.parquet", None, "no such file"),
        ("empty.csv", b"", "is empty"),
        ("other.csv", b"site,name\na,b\n", "lacks patient_id"),
        ("other.csv", b"name\nb\n", "lacks patient_id and site"),
        ("bad.parquet", b"PAR1nonsense", "cannot be read as Parquet"),
    ],
)
def test_a_list_that_cannot_be_used_is_an_error(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_refusals(tmp_path / name)
