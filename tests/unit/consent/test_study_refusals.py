"""The list as a study reads it: one place, which no command can go round."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from reportlabel.consent.refusals import REFUSALS
from reportlabel.consent.study_refusals import (
    by_codes,
    elsewhere,
    lacking_zeros,
    missed,
    refusals_of_study,
    site_of_study,
)
from reportlabel.errors import ConfigError
from reportlabel.protocol import load_protocol

PACKAGE = Path(__file__).parents[3] / "reportlabel"
GUNMA = load_protocol("gunma_bone_scan")
JMID = load_protocol("jmid")
LIST = """site,patient_id,scope,study,requester
 Gunma,123,all,,patient
群馬大学医学部附属病院,00000456,all,,patient
far,7,all,,patient
near,8,study,another,patient
"""


def test_no_command_reads_a_list_of_refusals_in_another_way() -> None:
    """Who reads it as it stands compares ids, hospitals and codes that differ. Others show or keep it alone."""
    allowed = {
        "consent/refusals.py",
        "consent/study_refusals.py",
        "consent/register.py",  # the register is kept as it was written
        "consent/command.py: read_refusals(requests,",  # consent add --list
        "consent/command.py: read_refusals(register,",  # consent list, check without a protocol
        "deidentify/command.py: read_refusals(patients,",  # linkage issue: a list of patients
    }
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for call in re.findall(r"read_refusals\(\w*,?", path.read_text(encoding="utf-8")):
            found.add(name if name in allowed else f"{name}: {call}")
    assert found == allowed


def asked(tmp_path: Path, persons: pl.DataFrame | None = None) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    (tmp_path / "list.csv").write_text(LIST, encoding="utf-8")
    done = refusals_of_study(tmp_path / "list.csv", GUNMA, id_width=8, persons=persons)
    return done.listed.rows, done.persons


def test_ids_and_hospitals_are_those_of_the_study_and_codes_are_found(tmp_path: Path) -> None:
    given = pl.DataFrame({"site": ["GUNMA", "far"], "patient_id": ["5", "7"], "person": ["p", "p"]})
    rows, persons = asked(tmp_path, given)
    assert rows.select("site", "patient_id").rows() == [
        ("gunma", "00000123"), ("gunma", "00000456"), ("far", "00000007"), ("near", "00000008"),
    ]  # fmt: skip
    assert persons is not None
    assert persons.rows() == [("gunma", "00000005", "p"), ("far", "00000007", "p")]
    codes = pl.DataFrame(
        {"site": ["gunma", "gunma"], "patient_id": ["00000123", "00000005"], "patient_code": ["B1", "B2"]}
    )
    meant, same = by_codes(rows, persons, codes)
    assert meant.schema == REFUSALS
    assert meant["patient_id"].to_list()[4:] == ["B1"]
    assert same is not None
    assert same.rows()[2:] == [("gunma", "B2", "p")]


def test_hospitals_that_nobody_knows_are_named_with_their_rows(tmp_path: Path) -> None:
    rows, _ = asked(tmp_path)
    assert elsewhere(rows, GUNMA).rows() == [("far", [3])]
    assert elsewhere(rows, GUNMA, sites=["ＦＡＲ", None]).is_empty()
    there = pl.DataFrame({"site": ["gunma"], "patient_id": ["00000123"]})
    (line,) = missed(rows, GUNMA, there).told()
    assert "1 requests count nowhere, site is not of this study: 'far': row 3" in line
    assert missed(rows.clear(), GUNMA, there).told() == []


def test_J11_who_is_known_elsewhere_counts_and_is_not_told(tmp_path: Path) -> None:
    persons = pl.DataFrame({"site": ["far"], "patient_id": ["7"], "person": ["p"]})
    rows, same = asked(tmp_path, persons)
    alone = GUNMA.model_copy(update={"optout": GUNMA.optout.model_copy(update={"across_sites": False})})
    both = GUNMA.model_copy(update={"optout": GUNMA.optout.model_copy(update={"across_sites": True})})
    assert elsewhere(rows, both, persons=same).is_empty()
    assert elsewhere(rows, alone, persons=same)["site"].to_list() == ["far"]


def test_ids_that_lack_zeros_are_found(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(LIST, encoding="utf-8")
    rows = refusals_of_study(tmp_path / "list.csv", GUNMA, id_width=None).listed.rows
    there = pl.DataFrame({"site": ["Gunma", "gunma", "near", None], "patient_id": ["0123", "00000456", "08", "7"]})
    assert lacking_zeros(rows, GUNMA, there) == [1], "456 is there as it is; near is of another study"
    assert "row 1; give the digits of the hospital's ids with --id-width" in missed(rows, GUNMA, there).told()[-1]


def test_a_hospital_given_by_its_name() -> None:
    assert site_of_study("GUNMA", GUNMA) == "gunma"
    assert site_of_study("順天堂医院", JMID) == "juntendo"
    with pytest.raises(ConfigError, match="there are juntendo"):
        site_of_study("gunma", JMID)
