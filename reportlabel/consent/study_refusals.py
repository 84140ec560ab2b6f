"""The list of refusals as a study reads it: the one place where ids and hospitals become those of its tables.

    asked = refusals_of_study(Path("refusals.csv"), protocol, id_width=8, persons=persons)
    rows, same = by_codes(asked.listed.rows, asked.persons, codes)      # where tables hold codes

A spreadsheet takes the zeros in front of an id away, an office spells a hospital in its own way, and a workspace holds
codes in place of ids: whoever compares a list with tables without minding all three misses people, and does not see it.
Every command therefore reads its list here, and tells what still fits nobody (`missed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from reportlabel.consent.refusals import (
    RefusalList,
    in_codes,
    plain,
    read_refusals,
    requests_of_other_studies,
    site_names,
    sites_named,
)
from reportlabel.errors import ConfigError
from reportlabel.ingest.codes import patient_number
from reportlabel.ingest.raw import LONG_NUMBER
from reportlabel.protocol import Protocol

__all__ = [
    "ELSEWHERE",
    "NOT_OF_THIS_STUDY",
    "Missed",
    "StudyRefusals",
    "by_codes",
    "elsewhere",
    "lacking_zeros",
    "missed",
    "refusals_of_study",
    "site_of_study",
    "widened",
]

NOT_OF_THIS_STUDY = "site is not of this study"

ELSEWHERE = pl.Schema([("site", pl.String), ("rows", pl.List(pl.Int64))])
"""Hospitals of requests that no table and no protocol knows, as the list calls them, and the numbers of their rows."""


@dataclass(frozen=True)
class StudyRefusals:
    """A list of refusals, and who is the same person in several hospitals, as the study writes ids and hospitals.

    Attributes:
        listed: rows with ids of the width of the study, and the protocol's ids of hospitals; and what was set aside.
        persons: site, patient_id, person, likewise; None: not given.
    """

    listed: RefusalList
    persons: pl.DataFrame | None


def refusals_of_study(
    path: Path,
    protocol: Protocol,
    *,
    id_width: int | None,
    site: str | None = None,
    encoding: str | None = None,
    persons: pl.DataFrame | None = None,
) -> StudyRefusals:
    """Read a list of refusals for a study.

    Args:
        id_width: digits of the patient ids in the tables of the study (`reportlabel.govern.StudyOfWorkspace`); None:
            the ids of the list are as in the tables.
        site, encoding: see `reportlabel.consent.refusals.read_refusals`.
        persons: columns site, patient_id, person.

    Raises:
        InputError: the list cannot be used.
    """
    listed = read_refusals(path, site=site, encoding=encoding, patient_id_width=id_width)
    return StudyRefusals(
        listed=replace(listed, rows=sites_named(listed.rows, protocol)),
        persons=None if persons is None else sites_named(widened(persons, id_width), protocol),
    )


def widened(rows: pl.DataFrame, width: int | None) -> pl.DataFrame:
    """A table with its ``patient_id`` as the archive has them; rows without one are left out."""
    ids = [None if one is None else patient_number(one, width=width) for one in rows["patient_id"]]
    return rows.with_columns(patient_id=pl.Series(ids, dtype=pl.String)).drop_nulls("patient_id")


def by_codes(
    rows: pl.DataFrame, persons: pl.DataFrame | None, codes: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Requests and persons by their own ids and by the codes of the study.

    By their own ids too: rows as they were read have them, and a request at a hospital where the person has no code
    counts through the table of persons.

    Args:
        rows, persons: of `StudyRefusals`; codes: site, patient_id, patient_code.
    """
    same = None if persons is None else pl.concat([persons, in_codes(persons, codes)])
    return pl.concat([rows, in_codes(rows, codes)]), same


def site_of_study(name: str, protocol: Protocol) -> str:
    """The protocol's id of a hospital.

    Raises:
        ConfigError: it is none of the study.
    """
    found = site_names(protocol).get(plain(name))
    if found is None:
        known = ", ".join(one.id for one in protocol.cohort.sites)
        raise ConfigError(f"--site: the hospital is none of {protocol.id}; there are {known}")
    return found


# --- what fits nothing ------------------------------------------------------------------------------------------------


def elsewhere(
    rows: pl.DataFrame, protocol: Protocol, *, sites: Iterable[str | None] = (), persons: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Requests that concern the study, of hospitals that nobody knows: a joint register has them, and a slip makes one.

    Args:
        rows: columns of `reportlabel.consent.refusals.REFUSALS`, as `refusals_of_study` gives them.
        sites: hospitals of the tables, beside those of the protocol.
        persons: who is in it counts wherever the person is, and is not told.

    Returns:
        Columns of `ELSEWHERE`, in the order of the list.
    """
    known = {*site_names(protocol), *(plain(one) for one in sites if one is not None)}
    asked = _concerning(rows, protocol)
    if persons is not None and protocol.optout.across_sites:
        asked = asked.join(persons, on=["site", "patient_id"], how="anti", maintain_order="left")
    found: dict[str, list[int]] = {}
    for site, row in asked.select("site", "row").iter_rows():
        if plain(site) not in known:
            # a field of a damaged row may be anything: a number in it is not shown
            found.setdefault(LONG_NUMBER.sub("…", site), []).append(row)
    return pl.DataFrame(list(found.items()), schema=ELSEWHERE, orient="row")


def lacking_zeros(rows: pl.DataFrame, protocol: Protocol, there: pl.DataFrame) -> list[int]:
    """Requests whose id nobody has, while somebody of the hospital has it with other zeros in front: row numbers.

    Args:
        rows: as for `elsewhere`; there: site and patient_id of the tables.
    """
    known = sites_named(there.select("site", "patient_id").drop_nulls().unique(), protocol)
    exact = set(known.iter_rows())
    without = {(site, patient.lstrip("0")) for site, patient in exact if patient.isdigit()}
    asked = _concerning(rows, protocol).select("row", "site", "patient_id")
    return [
        row
        for row, site, patient in asked.iter_rows()
        if (site, patient) not in exact and (site, patient.lstrip("0")) in without
    ]


@dataclass(frozen=True)
class Missed:
    """Requests that concern the study and may have missed somebody.

    Attributes:
        elsewhere: columns of `ELSEWHERE`; zeros: see `lacking_zeros`.
    """

    elsewhere: pl.DataFrame
    zeros: tuple[int, ...]

    def told(self, *, option: str = "--id-width") -> list[str]:
        """A sentence each; ``option``: where the digits of the hospital's ids are given."""
        said = []
        if self.elsewhere.height:
            count = self.elsewhere["rows"].list.len().sum()
            named = "; ".join(f"'{site}': {_rows(rows)}" for site, rows in self.elsewhere.iter_rows())
            said.append(
                f"{count:,} requests count nowhere, {NOT_OF_THIS_STUDY}: {named}; mend the name where a hospital of "
                "the study is meant"
            )
        if self.zeros:
            said.append(
                f"{len(self.zeros):,} requests name nobody, but for zeros in front of the id: {_rows(self.zeros)}; "
                f"give the digits of the hospital's ids with {option}"
            )
        return said


def missed(
    rows: pl.DataFrame, protocol: Protocol, there: pl.DataFrame, *, persons: pl.DataFrame | None = None
) -> Missed:
    """What of a list fits nobody and should.

    Args:
        rows, persons: of `StudyRefusals`; there: site and patient_id of the tables, as the hospital writes them.
    """
    strange = elsewhere(rows, protocol, sites=there["site"].unique(), persons=persons)
    return Missed(strange, tuple(lacking_zeros(rows, protocol, there)))


def _rows(numbers: Iterable[int]) -> str:
    shown = [str(one) for one in numbers]
    return f"{'row' if len(shown) == 1 else 'rows'} {', '.join(shown)}"


def _concerning(rows: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    return rows.filter(~pl.col("row").is_in(requests_of_other_studies(rows, protocol)))
