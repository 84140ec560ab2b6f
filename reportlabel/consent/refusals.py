"""Refusals: read the list of the consent office, judge each request by the protocol, take the people out.

A refusal must never be lost for a slip of the pen. A row is set aside only where it cannot be told whom it concerns;
everything else that is doubtful (an unreadable date, scope or relation, a comma too many) is read in favour of the
person who refuses, and listed as doubtful so that the office can mend it. A hospital is the same however its name is
spelt: case, width and blanks do not matter, and the names that the protocol gives it mean the same.

Commands read a list through `reportlabel.consent.study_refusals`, which also knows how the study writes ids.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError
from pydantic import Field

from reportlabel.consent.attrition import ATTRITION, Funnel
from reportlabel.errors import InputError
from reportlabel.ingest.codes import patient_number
from reportlabel.ingest.dates import parse_day
from reportlabel.ingest.encoding import choose_encoding, utf8_blocks
from reportlabel.protocol import Protocol
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = [
    "REFUSALS",
    "STANDING",
    "Applied",
    "RefusalList",
    "RefusedTables",
    "apply_refusals",
    "in_codes",
    "plain",
    "read_refusals",
    "refuse_in_tables",
    "request_of",
    "requests_of_other_studies",
    "shipped_with",
    "site_names",
    "sites_named",
    "standing_refusals",
]

_BETWEEN_STUDIES = re.compile(r"[;；,，、/／\s]+")
Stage = Literal["run", "export"]
Effect = Literal["remove", "later_exports", "hold", "set_aside"]

REFUSALS = pl.Schema(
    {
        "row": pl.Int64,
        "site": pl.String,
        "patient_id": pl.String,
        "received": pl.Date,
        "scope": pl.String,
        "study": pl.String,
        "requester": pl.String,
        "case": pl.String,
        "requester_minor": pl.Boolean,
        "doubt": pl.String,
    }
)
"""One row a request. ``row``: its number in the file, from 1. ``scope``: all_research or study; ``requester``: patient
or a relation; ``doubt``: what could not be read, in words, else null. Null where nothing or nothing readable is given.
"""

QUARANTINE = pl.Schema(
    {"path": pl.String, "row": pl.Int64, "kind": pl.String, "reason": pl.String, "remedy": pl.String}
)

STANDING = pl.Schema(
    {
        "row": pl.Int64,
        "site": pl.String,
        "patient_id": pl.String,
        "received": pl.Date,
        "effect": pl.String,
        "reason": pl.String,
        "number": pl.String,
    }
)
"""What each request that concerns the study does. ``effect``: remove (gone from everything), later_exports (out of
what is handed over from now on), hold (out until the office has decided), set_aside (nothing; listed).
"""


class RefusalWords(Strict):
    """``ingest/refusals.yaml``."""

    columns: dict[str, list[str]]
    scopes: dict[str, list[str]]
    requesters: dict[str, list[str]]
    cases: dict[str, list[str]]
    truths: dict[Literal["true", "false"], list[str]] = Field(min_length=2)


@dataclass(frozen=True)
class RefusalList:
    """A list as it was read: rows_in = rows + quarantine.

    Attributes:
        rows: columns of `REFUSALS`; ``quarantine``: rows that name nobody, with reason and remedy.
    """

    rows: pl.DataFrame
    quarantine: pl.DataFrame

    @property
    def doubtful(self) -> pl.DataFrame:
        """The rows that were read in favour of the person, and what could not be read: row, doubt."""
        return self.rows.filter(pl.col("doubt").is_not_null()).select("row", "doubt")


@dataclass(frozen=True)
class Applied:
    """A table without the people who refuse. Rows in = kept + excluded.

    Attributes:
        kept: the rows that stay, unchanged.
        excluded: the columns of the table, and effect, reason, number.
        attrition: one row a reason.
    """

    kept: pl.DataFrame
    excluded: pl.DataFrame
    attrition: pl.DataFrame


# --- reading ----------------------------------------------------------------------------------------------------------


def read_refusals(
    path: Path,
    *,
    site: str | None = None,
    encoding: str | None = None,
    patient_id_width: int | None = None,
    keep_damaged: bool = True,
) -> RefusalList:
    """Read a list of refusals: CSV (header in Japanese or English, UTF-8 or cp932) or Parquet.

    Args:
        path: columns patient_id and, unless ``site`` is given, site; further received, scope, study, requester, case,
            requester_minor. Headers and words: rules/ingest/refusals.yaml.
        site: the hospital of rows without one.
        encoding: of a CSV; found out where not given.
        patient_id_width: digits of the hospital's ids, where a spreadsheet may have taken leading zeros away.
        keep_damaged: rows with fields too many or too few, or with bytes that are no text, refuse everything where it
            can be told whom they concern. False, for lists that are none of refusals: they are set aside.

    Raises:
        InputError: the file is missing, cannot be read, is empty or lacks a column that is needed.
    """
    cells = _parquet_cells(path) if path.suffix.lower() in (".parquet", ".pq") else _csv_cells(path, encoding)
    header = next(cells, None)
    if header is None:
        raise InputError(f"{path}: is empty; a list of refusals has a header with patient_id, site, received, scope")
    places = _places([cell or "" for cell in header])
    needed = ["patient_id"] if site is not None else ["patient_id", "site"]
    if missing := [name for name in needed if name not in places]:
        raise InputError(
            f"{path}: the header lacks {' and '.join(missing)}; name the column so, or as "
            "rules/ingest/refusals.yaml does"
        )
    rows, quarantine = [], []
    for number, one in enumerate(cells, start=1):
        if not any(cell and cell.strip() for cell in one):
            continue
        damage = _damage(one, len(header))
        if damage is None:
            given = _given(one, places)
            person, problem = _person(given, site, patient_id_width)
            if person is not None:
                rows.append((number, *person, *_read_row(given)))
        else:
            person = _person_of_damaged(one, len(header), places, site, patient_id_width) if keep_damaged else None
            problem = damage
            if person is not None:
                rows.append((number, *person, *_WIDEST, f"{damage[0]}: read as a refusal of everything"))
        if person is None:
            quarantine.append((path.name, number, "refusal", *problem))
    return RefusalList(
        rows=pl.DataFrame(rows, schema=REFUSALS, orient="row"),
        quarantine=pl.DataFrame(quarantine, schema=QUARANTINE, orient="row"),
    )


def request_of(given: Mapping[str, str], *, patient_id_width: int | None = None) -> pl.DataFrame:
    """One request as somebody types it in: a row of `REFUSALS`.

    Who types can mend it at once, so what `read_refusals` would read in favour of the person is an error here.

    Args:
        given: column -> words, as in a list; site and patient_id are needed.
        patient_id_width: as in `read_refusals`.

    Raises:
        InputError: says what cannot be read, without saying what it is.
    """
    person, problem = _person(given, None, patient_id_width)
    if person is None:
        raise InputError("; ".join(problem))
    cells = _read_row(given)
    if doubt := cells[-1]:
        raise InputError(f"{doubt}; the words are those of rules/ingest/refusals.yaml, a day is written 2026-04-01")
    return pl.DataFrame([(1, *person, *cells)], schema=REFUSALS, orient="row")


def _csv_cells(path: Path, encoding: str | None) -> Iterator[list[str | None]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    choice = choose_encoding(path, encoding=encoding)
    text = b"".join(utf8_blocks(path, encoding=choice.name)).decode("utf-8", errors="replace").replace("\0", "\ufffd")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        whole = all(len(row) in (0, len(rows[0])) for row in rows)
    except csv.Error:
        whole = False
    # an open quote swallows the rows below it: then every line is a row of its own, and the broken one goes alone
    for row in rows if whole else map(_one_line, text.splitlines()):
        yield list(row)


def _one_line(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return [line]


def _parquet_cells(path: Path) -> Iterator[list[str | None]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = pl.read_parquet(path)
        yield list(table.columns)
        yield from (list(row) for row in table.select(pl.all().cast(pl.String)).iter_rows())
    except (PolarsError, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({type(error).__name__}); write it again") from None


@lru_cache(maxsize=1)
def _words() -> RefusalWords:
    return parse(read_yaml(rules_folder() / "ingest" / "refusals.yaml"), RefusalWords)


def _folded(text: str) -> str:
    """Letters and digits alone, so that hyphens and brackets do not matter; a sign alone stays."""
    narrow = unicodedata.normalize("NFKC", text).casefold().strip()
    return "".join(character for character in narrow if character.isalnum()) or narrow


@lru_cache(maxsize=8)
def _meanings(kind: Literal["columns", "scopes", "requesters", "cases", "truths"]) -> Mapping[str, str]:
    lists: Mapping[str, list[str]] = getattr(_words(), kind)
    return {_folded(word): meaning for meaning, words in lists.items() for word in words}


def _places(header: Iterable[str]) -> dict[str, int]:
    """Column -> its place; of two columns with the same meaning the first counts."""
    places: dict[str, int] = {}
    for at, name in enumerate(header):
        if meaning := _meanings("columns").get(_folded(name)):
            places.setdefault(meaning, at)
    return places


_Problem = tuple[str, str]
"""Reason and remedy."""
_NOBODY: _Problem = ("no patient id that can be read", "write the id as text, as the hospital writes it")
_NOWHERE: _Problem = ("no site", "write the hospital that issued the patient id")


def _given(cells: Sequence[str | None], places: Mapping[str, int]) -> dict[str, str]:
    return {name: (cells[at] or "").strip() for name, at in places.items()}


def _person(
    given: Mapping[str, str], site: str | None, width: int | None
) -> tuple[tuple[str, str], _Problem] | tuple[None, _Problem]:
    """Site and patient id of a row, or what is wrong."""
    # digits as a Japanese keyboard writes them (full width) are digits
    identified = patient_number(unicodedata.normalize("NFKC", given.get("patient_id", "")), width=width)
    place = given.get("site") or site
    if identified is None:
        return None, _NOBODY
    if not place:
        return None, _NOWHERE
    return (place, identified), _NOBODY


def _damage(cells: Sequence[str | None], width: int) -> _Problem | None:
    """What is wrong with a row as a whole."""
    if len(cells) != width:
        return (
            "the row has more or fewer fields than the header",
            "quote fields that hold a comma; one row a request",
        )
    if any("\ufffd" in cell for cell in cells if cell):
        return "the bytes of the row do not fit the encoding", "export the file as UTF-8"
    return None


def _person_of_damaged(
    cells: Sequence[str | None], columns: int, places: Mapping[str, int], site: str | None, width: int | None
) -> tuple[str, str] | None:
    """Whom a damaged row concerns; None where that cannot be told.

    Nobody knows which comma is too many or which field is missing: of all ways in which the row fits the header, that
    counts by which most of its other fields can be read. Where two of these name different people, neither counts.
    """
    texts = [cell or "" for cell in cells]
    if len(texts) == 1 and columns > 1:
        texts = texts[0].replace('"', "").split(",")  # a line with an open quote, which came as one field
    found: list[tuple[int, tuple[str, str]]] = []
    for fitted in _fitted(texts, columns):
        given = _given(fitted, places)
        person, _ = _person(given, site, width)
        if person is None or not _may_be_a_person(*person):
            continue
        doubt = _read_row(given)[-1]
        found.append((0 if doubt is None else len(doubt.split("; ")), person))
    least = min((doubts for doubts, _ in found), default=0)
    people = {person for doubts, person in found if doubts == least}
    return people.pop() if len(people) == 1 else None


def _fitted(cells: list[str], columns: int) -> Iterator[list[str]]:
    """All ways to leave out as many neighbouring fields as there are too many, or to add those that lack."""
    over = len(cells) - columns
    if over == 0:
        yield cells
    elif over > 0:
        yield from (cells[:at] + cells[at + over :] for at in range(columns + 1))
    else:
        yield from (cells[:at] + [""] * -over + cells[at:] for at in range(len(cells) + 1))


def _may_be_a_person(site: str, patient: str) -> bool:
    """Whether two fields of a damaged row can be a hospital and an id: neither is damaged itself, neither is a day."""
    if "\ufffd" in site or not patient.isascii() or not any(character.isdigit() for character in patient):
        return False
    return not any(parse_day(text) is not None and not text.isalnum() for text in (site, patient))


_Cells = tuple[date | None, str | None, str | None, str | None, str | None, bool | None, str | None]
_WIDEST = (None, None, None, None, None, None)
"""received, scope, study, requester, case, requester_minor of a row of which these cannot be relied upon: a refusal by
the patient, of everything, before every cut-off."""


def _read_row(given: Mapping[str, str]) -> _Cells:
    """received, scope, study, requester, case, requester_minor, doubt."""
    doubts = []

    def meaning(column: str, kind: Literal["scopes", "requesters", "cases", "truths"]) -> str | None:
        text = given.get(column, "")
        found = _meanings(kind).get(_folded(text)) if text else None
        if text and found is None:
            doubts.append(f"{column} cannot be read")
        return found

    received = parse_day(given.get("received"))
    if received is None:
        doubts.append("no date of receipt that can be read")
    scope = meaning("scope", "scopes")
    study = given.get("study") or None
    if scope is None and not given.get("scope") and study is None:
        doubts.append("no scope")
    if scope is None and study is not None and not given.get("scope"):
        scope = "study"
    if scope == "study" and study is None:
        doubts.append("no study")
    requester = meaning("requester", "requesters")
    if requester is None and not given.get("requester"):
        doubts.append("no requester")
    # a word that is none of ours is not the patient: the office decides
    requester = requester or ("unknown" if given.get("requester") else None)
    case = meaning("case", "cases")
    minor = meaning("requester_minor", "truths")
    return (
        received,
        scope,
        study,
        requester,
        case,
        None if minor is None else minor == "true",
        "; ".join(doubts) or None,
    )


# --- judging ----------------------------------------------------------------------------------------------------------


def standing_refusals(refusals: pl.DataFrame, protocol: Protocol, *, today: date) -> pl.DataFrame:
    """What each request does in this study; requests for other studies are not among them.

    Args:
        refusals: columns of `REFUSALS`; `row` and `doubt` may be missing.
        today: a request dated later counts all the same (a slip, or time travel): nobody is used against their will.

    Returns:
        Columns of `STANDING`, in the order of the list.
    """
    names = _study_names(protocol)
    judged = []
    for number, row in enumerate(refusals.iter_rows(named=True), start=1):
        if not _concerns(row, names):
            continue
        effect, reason, rule = _effect(row, protocol, today)
        judged.append(
            (row.get("row") or number, row["site"], row["patient_id"], row.get("received"), effect, reason, rule)
        )
    return sites_named(pl.DataFrame(judged, schema=STANDING, orient="row"), protocol)


def requests_of_other_studies(refusals: pl.DataFrame, protocol: Protocol) -> list[int]:
    """The numbers of the rows that name another study: for the office, in case one of them is a slip."""
    names = _study_names(protocol)
    return [
        row.get("row") or number
        for number, row in enumerate(refusals.iter_rows(named=True), start=1)
        if not _concerns(row, names)
    ]


def _study_names(protocol: Protocol) -> frozenset[str]:
    return frozenset(_folded(name) for name in protocol.study_names)


def _concerns(row: Mapping[str, object], names: frozenset[str]) -> bool:
    """Whether a request is of this study; one cell may name several."""
    named = row.get("study")
    if row.get("scope") != "study" or not isinstance(named, str):
        return True
    return any(_folded(part) in names for part in (named, *_BETWEEN_STUDIES.split(named)) if part)


def _effect(row: Mapping[str, object], protocol: Protocol, today: date) -> tuple[Effect, str, str]:
    optout = protocol.optout
    if why := _not_entitled(row, protocol):
        return optout.unentitled, why, protocol.number("requester")
    scope, received = row.get("scope"), row.get("received")
    if scope is not None and scope not in optout.scopes:
        return "hold", "the notice has no refusal of this scope; the office decides", protocol.number("refusal")
    if optout.cutoff is not None and isinstance(received, date) and received >= optout.cutoff:
        reason = f"refused on or after {optout.cutoff}; what was shipped before is listed"
        return optout.after_cutoff, reason, protocol.numbers.get("cutoff", protocol.number("refusal"))
    reason = "refused all research" if scope == "all_research" else "refused this study"
    if scope is None:
        reason = "refused; how much cannot be read"
    if isinstance(received, date) and received > today:
        reason += " (dated in the future)"
    return "remove", reason, protocol.number("refusal")


def _not_entitled(row: Mapping[str, object], protocol: Protocol) -> str | None:
    """Why the requester cannot refuse for the patient; None where they can. No requester: the patient."""
    relation = row.get("requester") or "patient"
    groups = [group for group in protocol.optout.requesters if relation in group.relations]
    if not groups:
        return "requested by somebody whom the notice does not name"
    for group in groups:
        if group.adult and row.get("requester_minor") is True:
            continue
        if group.cases and row.get("case") not in group.cases:
            continue
        return None
    if any(group.adult for group in groups) and row.get("requester_minor") is True:
        return "requested by a minor"
    return "requested by a relative outside the cases of the notice"


# --- hospitals --------------------------------------------------------------------------------------------------------


def plain(name: str) -> str:
    """The name of a hospital without what does not matter: width, case and blanks."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def site_names(protocol: Protocol) -> Mapping[str, str]:
    """Plain name -> id of the hospitals of a study; a name that two of them have is none."""
    found: dict[str, set[str]] = {}
    for one in protocol.cohort.sites:
        for name in (*one.names, *((one.name.ja, one.name.en) if one.name is not None else ())):
            found.setdefault(plain(name), set()).add(one.id)
    names = {name: next(iter(ids)) for name, ids in found.items() if len(ids) == 1}
    return names | {plain(one.id): one.id for one in protocol.cohort.sites}


def sites_named(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """A table whose ``site`` is the protocol's id of the hospital; of one that is not of the study its `plain` name."""
    names = site_names(protocol)
    known = {one: names.get(plain(one), plain(one)) for one in table["site"].drop_nulls().unique()}
    return table.with_columns(pl.col("site").replace(known)) if known else table


def _keyed(table: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """A table with `_KEY`: the same for the same patient, however hospital and number are spelt."""
    return table.with_columns(
        _site=sites_named(table.select("site"), protocol)["site"],
        _patient=pl.col("patient_id").str.normalize("NFKC").str.strip_chars(),
    )


_KEY = ["_site", "_patient"]


# --- taking out -------------------------------------------------------------------------------------------------------

_STRENGTH: Mapping[str, int] = {"remove": 0, "later_exports": 1, "hold": 2, "set_aside": 3}


def apply_refusals(
    table: pl.DataFrame,
    refusals: pl.DataFrame,
    protocol: Protocol,
    *,
    today: date,
    stage: Stage = "run",
    persons: pl.DataFrame | None = None,
) -> Applied:
    """Take the people who refuse out of a table.

    Args:
        table: has the columns site and patient_id; a patient is known by both together, however the site is spelt
            (`site_names`).
        refusals: columns of `REFUSALS`.
        today: the day that counts.
        stage: ``export``: also those who are only out of later exports.
        persons: site, patient_id, person: the same person has the same value in all hospitals. Where the protocol
            says so, a refusal then counts wherever the person is (J11). People who are not in it are themselves.

    Returns:
        Rows in = kept + excluded. Rows without site or patient are excluded: nobody can say that they did not refuse.
    """
    out = _people_out(standing_refusals(refusals, protocol, today=today), protocol, stage=stage, persons=persons)
    with_at = table.with_row_index("_at")
    nobody = with_at.filter(pl.col("site").is_null() | pl.col("patient_id").is_null()).with_columns(
        effect=pl.lit("hold"),
        reason=pl.lit("no patient or site: a refusal could not be seen"),
        number=pl.lit(protocol.number("refusal")),
    )
    refused = _keyed(with_at, protocol).join(out, on=_KEY, how="inner", maintain_order="left").drop(_KEY)
    excluded = pl.concat([refused, nobody]).sort("_at")
    kept = with_at.join(excluded.select("_at"), on="_at", how="anti", maintain_order="left").drop("_at")
    excluded = excluded.drop("_at")
    return Applied(kept, excluded, _attrition_of(table.height, excluded, "table", protocol))


def _people_out(
    standing: pl.DataFrame, protocol: Protocol, *, stage: Stage, persons: pl.DataFrame | None
) -> pl.DataFrame:
    """`_KEY`, effect, reason, number of everyone who is out; the strongest effect of each."""
    effects = ["remove", "hold", "later_exports"] if stage == "export" else ["remove", "hold"]
    asked = _keyed(standing.filter(pl.col("effect").is_in(effects)), protocol)
    out = asked.select(*_KEY, "effect", "reason", "number")
    if persons is not None and protocol.optout.across_sites:
        known = _keyed(persons, protocol).select(*_KEY, "person").drop_nulls().unique()
        number = protocol.numbers.get("across_sites", protocol.number("refusal"))
        elsewhere = (
            out.join(known, on=_KEY, how="inner")
            .join(known, on="person", how="inner", suffix="_there")
            .filter((pl.col("_site") != pl.col("_site_there")) | (pl.col("_patient") != pl.col("_patient_there")))
            .select(
                _site="_site_there",
                _patient="_patient_there",
                effect="effect",
                reason=pl.col("reason") + ", received at another hospital",
                number=pl.lit(number),
            )
        )
        out = pl.concat([out, elsewhere])
    return (
        out.with_columns(_strength=pl.col("effect").replace_strict(_STRENGTH, return_dtype=pl.Int8))
        .sort("_strength", "reason", maintain_order=True)
        .unique(_KEY, keep="first", maintain_order=True)
        .drop("_strength")
    )


def _attrition_of(rows_in: int, excluded: pl.DataFrame, table: str, protocol: Protocol) -> pl.DataFrame:
    rows = []
    left = rows_in
    counts = excluded.group_by("reason", "number", maintain_order=True).len().sort("reason")
    for reason, number, count in counts.iter_rows():
        rows.append(("consent", table, "refusals", left, left - count, count, reason, number))
        left -= count
    if not rows:
        rows.append(
            ("consent", table, "refusals", left, left, 0, "nobody in it has refused", protocol.number("refusal"))
        )
    return pl.DataFrame(rows, schema=ATTRITION, orient="row")


@dataclass(frozen=True)
class RefusedTables:
    """All tables of a study without the people who refuse.

    Attributes:
        tables: as given, without those rows.
        attrition: one row a table and reason; in each, rows in = rows out + excluded.
        people: site, patient_id, effect, reason, number of everyone who is out and stands in a table.
    """

    tables: dict[str, pl.DataFrame]
    people: pl.DataFrame
    attrition: pl.DataFrame


def refuse_in_tables(
    tables: Mapping[str, pl.DataFrame],
    refusals: pl.DataFrame,
    protocol: Protocol,
    *,
    today: date,
    stage: Stage = "run",
    persons: pl.DataFrame | None = None,
) -> RefusedTables:
    """Take the people who refuse out of every table of a study.

    Args:
        tables: name -> table. A table has site and patient_id, or else exam_id (then ``exams`` must be among them),
            or else report_id (then ``reports`` too). Rows whose exam or report is not there any more go as well.

    Raises:
        ValueError: a table has none of these keys.
    """
    kept: dict[str, pl.DataFrame] = {}
    attrition, people = [], []
    # exams before what hangs on exams, reports before what hangs on reports
    order = sorted(tables, key=lambda name: (name != "exams", name != "reports", name))
    for name in order:
        table = tables[name]
        if {"site", "patient_id"} <= set(table.columns):
            applied = apply_refusals(table, refusals, protocol, today=today, stage=stage, persons=persons)
            kept[name] = applied.kept
            people.append(applied.excluded.select("site", "patient_id", "effect", "reason", "number"))
            attrition.append(applied.attrition.with_columns(table=pl.lit(name)))
            continue
        parent, key = ("exams", "exam_id") if "exam_id" in table.columns else ("reports", "report_id")
        if key not in table.columns or parent not in kept:
            raise ValueError(f"table {name}: neither site and patient_id nor a key of {parent}")
        funnel = Funnel("consent", name, keys=[key])
        alive = kept[parent][key].drop_nulls().unique()
        kept[name] = funnel.keep(
            table,
            pl.col(key).is_in(alive.implode()),
            step="refusals",
            reason=f"of people who refuse, or of {parent} that are not there",
            number=protocol.number("refusal"),
        )
        attrition.append(funnel.attrition())
    empty = STANDING.to_frame().select("site", "patient_id", "effect", "reason", "number")
    return RefusedTables(
        tables={name: kept[name] for name in tables},
        people=pl.concat([empty, *people]).drop_nulls(["site", "patient_id"]).unique(maintain_order=True),
        attrition=pl.concat([ATTRITION.to_frame(), *attrition]),
    )


def in_codes(table: pl.DataFrame, codes: pl.DataFrame) -> pl.DataFrame:
    """Refusals, or persons, by the codes of the study: at an export the tables hold codes and no original ids.

    Args:
        table: has site and patient_id.
        codes: site, patient_id, patient_code, from the table of codes; both together are one patient.

    Returns:
        The table with the code as patient_id; rows of people without a code, who are not in the study, are left out.
    """
    return (
        table.join(codes.select("site", "patient_id", "patient_code"), on=["site", "patient_id"], how="inner")
        .with_columns(patient_id="patient_code")
        .select(table.columns)
    )


def shipped_with(
    standing: pl.DataFrame, shipped: pl.DataFrame, codes: pl.DataFrame, *, persons: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The hand-overs that hold people who refuse: whom to ask for what.

    Args:
        standing: columns of `STANDING`; those that are set aside ask for nothing.
        shipped: bundle, recipient, shipped_on, patient_code: one row a hand-over and patient.
        codes: site, patient_id, patient_code, from the table of codes.
        persons: as in `apply_refusals`.

    Returns:
        bundle, recipient, shipped_on, patient_code, received; no original ids.
    """
    asks = standing.filter(pl.col("effect") != "set_aside").select("site", "patient_id", "received")
    if persons is not None:
        known = persons.select("site", "patient_id", "person").drop_nulls().unique()
        elsewhere = (
            asks.join(known, on=["site", "patient_id"], how="inner")
            .drop("site", "patient_id")
            .join(known, on="person", how="inner")
            .select("site", "patient_id", "received")
        )
        asks = pl.concat([asks, elsewhere])
    people = (
        asks.join(codes.select("site", "patient_id", "patient_code"), on=["site", "patient_id"], how="inner")
        .group_by("patient_code")
        .agg(pl.col("received").min())
    )
    return (
        shipped.select("bundle", "recipient", "shipped_on", "patient_code")
        .unique()
        .join(people, on="patient_code", how="inner")
        .sort("shipped_on", "bundle", "patient_code")
    )
