"""The cohort: which exams belong to a study, how many there are, and what of their data it may hold.

Nothing is chosen that the protocol does not decide. Where more people meet it than it plans, all are kept and the
surplus is reported; where there are fewer, the shortfall is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from reportlabel.consent.attrition import Funnel
from reportlabel.errors import InputError
from reportlabel.protocol import ExamKind, Protocol

__all__ = [
    "COUNTS",
    "Cohort",
    "Complete",
    "cells",
    "count_report",
    "derive_tracers",
    "keep_complete",
    "keep_items",
    "select_cohort",
    "tracer_weeks",
]

COUNTS = pl.Schema(
    {
        "what": pl.String,
        "unit": pl.String,
        "expected": pl.Int64,
        "found": pl.Int64,
        "difference": pl.Int64,
        "met": pl.Boolean,
        "number": pl.String,
    }
)
"""One row a planned number. ``difference``: found - expected. ``met``: null where the number is only compared."""

ODD_TRACERS = pl.Schema({"exam_id": pl.String, "week": pl.Date, "tracer_id": pl.String, "usual": pl.String})
TRACERS = pl.Schema({"exam_id": pl.String, "tracer": pl.String, "tracer_source": pl.String})
_PERSON = ["site", "patient_id"]


@dataclass(frozen=True)
class Cohort:
    """What belongs to a study.

    Attributes:
        exams: the exams kept, and ``kind`` (id of the kind of exam). With tracers also ``tracer_id`` and
            ``tracer_source`` (header, order, report).
        reports: of these exams; records: of their patients, of the kinds that the study may hold.
        excluded: exam_id, step, reason, number.
        attrition: columns of ATTRITION, for exams, reports and records.
        odd_tracers: `tracer_weeks` of the exams, where tracers take turns by week; else empty.
    """

    exams: pl.DataFrame
    reports: pl.DataFrame
    records: pl.DataFrame
    excluded: pl.DataFrame
    attrition: pl.DataFrame
    odd_tracers: pl.DataFrame


def select_cohort(
    exams: pl.DataFrame,
    reports: pl.DataFrame,
    records: pl.DataFrame,
    protocol: Protocol,
    *,
    prior: pl.DataFrame | None = None,
    visits: pl.DataFrame | None = None,
) -> Cohort:
    """The exams of a study, with their reports and the records of their patients.

    Args:
        exams, reports, records: tables of the schema; a patient is known by site and patient_id together.
        prior: study, site, patient_id: who took part in which earlier study; needed where the protocol asks for one.
        visits: site, patient_id, day: needed where the period of the protocol means visits.

    Raises:
        InputError: an exam id stands twice, or a table that the protocol needs is not given.
    """
    cohort = protocol.cohort
    if exams["exam_id"].n_unique() < exams.height:
        twice = exams.height - exams["exam_id"].n_unique()
        raise InputError(f"exams: {twice} exam ids stand twice; ids must differ between hospitals (J2): ingest again")
    funnel = Funnel("cohort", "exams", keys=["exam_id"])
    rows = funnel.keep(
        exams,
        pl.col("site").is_in([site.id for site in cohort.sites]),
        step="site",
        reason="of a hospital that does not take part",
        number=protocol.number("sites"),
    )
    rows = _in_period(rows, funnel, protocol, visits)
    rows = funnel.keep(
        rows.with_columns(kind=_kind_of(cohort.kinds)),
        pl.col("kind").is_not_null(),
        step="kind",
        reason="of a kind that the study does not use",
        number=protocol.number("kinds"),
    )
    if cohort.sex:
        rows = funnel.keep(
            rows,
            pl.col("sex").is_in(list(cohort.sex)),
            step="sex",
            reason="of another sex, or sex not recorded",
            number=protocol.number("sex"),
        )
    if cohort.age.min is not None or cohort.age.max is not None:
        low, high = cohort.age.min or 0, cohort.age.max if cohort.age.max is not None else 999
        rows = funnel.keep(
            rows,
            pl.col("age_years").is_between(low, high),
            step="age",
            reason=f"not aged {low} to {high}, or age not recorded",
            number=protocol.number("age"),
        )
    if cohort.prior_study_ids:
        rows = _in_prior_study(rows, funnel, protocol, prior)
    if any(kind.defining for kind in cohort.kinds):
        defining = [kind.id for kind in cohort.kinds if kind.defining]
        rows = funnel.keep(
            rows,
            pl.col("kind").is_in(defining).any().over(_PERSON),
            step="defining kind",
            reason=f"of people without an exam of the kind {', '.join(defining)}",
            number=protocol.number("kinds"),
        )
    if cohort.tracers:
        tracers = derive_tracers(rows, reports, protocol).rename({"tracer": "tracer_id"})
        rows = rows.join(tracers, on="exam_id", how="left", maintain_order="left")
    kept_reports, reports_out = _reports_of(rows, reports)
    kept_records, records_out = _records_of(rows, records, protocol)
    return Cohort(
        exams=rows,
        reports=kept_reports,
        records=kept_records,
        excluded=funnel.excluded(),
        attrition=pl.concat([funnel.attrition(), reports_out, records_out]),
        odd_tracers=tracer_weeks(rows) if cohort.tracers and cohort.tracer_weeks else ODD_TRACERS.to_frame(),
    )


def _in_period(exams: pl.DataFrame, funnel: Funnel, protocol: Protocol, visits: pl.DataFrame | None) -> pl.DataFrame:
    """Both ends included; each hospital has its own period or that of the study."""
    cohort = protocol.cohort
    periods = pl.DataFrame(
        [(site.id, *cohort.period(site.id)) for site in cohort.sites],
        schema={"site": pl.String, "_from": pl.Date, "_to": pl.Date},
        orient="row",
    )
    rows = exams.join(periods, on="site", how="left", maintain_order="left")
    inside = pl.col("started_at").dt.date().is_between("_from", "_to")
    if cohort.date_field == "visit":
        if visits is None:
            raise InputError("the period of this protocol means visits: give a table of visits (site, patient_id, day)")
        seen = (
            visits.select("site", "patient_id", "day")
            .join(periods, on="site", how="inner")
            .filter(pl.col("day").is_between("_from", "_to"))
            .select(*_PERSON, _seen=pl.lit(True))
            .unique()
        )
        rows = rows.join(seen, on=_PERSON, how="left", maintain_order="left")
        inside = pl.col("_seen")
    else:
        rows = funnel.keep(
            rows,
            pl.col("started_at").is_not_null(),
            step="dated",
            reason="without a date",
            number=protocol.number("dates"),
        )
    kept = funnel.keep(
        rows, inside, step="period", reason="outside the period of the study", number=protocol.number("dates")
    )
    return kept.drop("_from", "_to", "_seen", strict=False)


def _in_prior_study(
    exams: pl.DataFrame, funnel: Funnel, protocol: Protocol, prior: pl.DataFrame | None
) -> pl.DataFrame:
    number = protocol.number("prior_study")
    names = protocol.cohort.prior_study_ids
    if prior is None:
        raise InputError(
            f"{protocol.id} uses the people of {names[0]} ({number}): give the table of who took part "
            "(study, site, patient_id)"
        )
    members = prior.filter(pl.col("study").is_in(list(names))).select(*_PERSON, _member=pl.lit(True)).unique()
    kept = funnel.keep(
        exams.join(members, on=_PERSON, how="left", maintain_order="left"),
        pl.col("_member"),
        step="prior study",
        reason=f"of people who were not in {names[0]}",
        number=number,
    )
    return kept.drop("_member")


# --- kinds and tracers ------------------------------------------------------------------------------------------------


def _folded(column: str) -> pl.Expr:
    return pl.col(column).str.normalize("NFKC").str.to_uppercase()


def _fold(words: Iterable[str]) -> list[str]:
    return [unicodedata.normalize("NFKC", word).upper() for word in words]


def _kind_of(kinds: Sequence[ExamKind]) -> pl.Expr:
    """The id of the first kind that an exam meets; null where there is none."""
    text = pl.concat_str(
        [_folded(column) for column in ("order_name", "protocol_name", "body_part", "tracer")],
        separator="\n",
        ignore_nulls=True,
    )
    found = pl.lit(None, dtype=pl.String)
    for kind in reversed(kinds):
        meets = pl.lit(True)
        if kind.modality_classes:
            meets &= pl.col("modality_class").is_in(list(kind.modality_classes))
        if kind.modalities:
            meets &= pl.col("modality").is_in(list(kind.modalities))
        if kind.words:
            meets &= text.str.contains_any(_fold(kind.words))
        if kind.not_words:
            meets &= ~text.str.contains_any(_fold(kind.not_words))
        found = pl.when(meets).then(pl.lit(kind.id)).otherwise(found)
    return found


def derive_tracers(exams: pl.DataFrame, reports: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """The tracer of each exam: from its header or drug, else its order, else its report (B2).

    A text that names two tracers decides nothing. The last version of a report counts.

    Returns:
        exam_id, tracer (id in the protocol, or null), tracer_source (header, order, report, or null).
    """
    last = (
        reports.filter(pl.col("exam_id").is_in(exams["exam_id"].implode()))
        .sort("version", nulls_last=False)
        .unique("exam_id", keep="last")
        .select("exam_id", "text")
    )
    sources = {
        "header": _folded("tracer"),
        "order": pl.concat_str(_folded("order_name"), _folded("protocol_name"), separator="\n", ignore_nulls=True),
        "report": _folded("text"),
    }
    rows = exams.select("exam_id", "tracer", "order_name", "protocol_name").join(
        last, on="exam_id", how="left", maintain_order="left"
    )
    named = rows.select("exam_id", *(_tracer_in(text, protocol).alias(source) for source, text in sources.items()))
    return named.select(
        "exam_id",
        tracer=pl.coalesce(*sources),
        tracer_source=pl.coalesce(*(pl.when(pl.col(source).is_not_null()).then(pl.lit(source)) for source in sources)),
    ).cast(TRACERS)


def _tracer_in(text: pl.Expr, protocol: Protocol) -> pl.Expr:
    """The one tracer that a text names. The words of each are taken out before the next: HMDP holds MDP."""
    found: list[pl.Expr] = []
    for tracer in protocol.cohort.tracers:
        words = _fold(tracer.words)
        found.append(pl.when(text.str.contains_any(words)).then(pl.lit(tracer.id)))
        text = text.str.replace_many(words, [" "] * len(words))
    names = pl.concat_list(found).list.drop_nulls()
    return pl.when(names.list.len() == 1).then(names.list.first())


def tracer_weeks(exams: pl.DataFrame) -> pl.DataFrame:
    """Exams whose tracer is not the usual one of their week, where tracers take turns by week (B2).

    Args:
        exams: exam_id, started_at, tracer_id.

    Returns:
        exam_id, week (its Monday), tracer_id, usual: null where no tracer has the majority of the week.
    """
    dated = exams.filter(pl.col("tracer_id").is_not_null() & pl.col("started_at").is_not_null()).select(
        "exam_id", "tracer_id", week=pl.col("started_at").dt.date().dt.truncate("1w")
    )
    usual = (
        dated.group_by("week", "tracer_id")
        .len()
        .filter(pl.col("len") * 2 > pl.col("len").sum().over("week"))
        .select("week", usual="tracer_id")
    )
    return (
        dated.join(usual, on="week", how="left")
        .filter(pl.col("tracer_id").ne_missing(pl.col("usual")))
        .select("exam_id", "week", "tracer_id", "usual")
        .sort("week", "exam_id")
    )


# --- reports and records ----------------------------------------------------------------------------------------------


def _reports_of(exams: pl.DataFrame, reports: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    funnel = Funnel("cohort", "reports", keys=["report_id"])
    kept = funnel.keep(
        reports,
        pl.col("exam_id").is_in(exams["exam_id"].implode()),
        step="exams",
        reason="of exams outside the cohort",
        number="X3",
    )
    return kept, funnel.attrition()


def _records_of(exams: pl.DataFrame, records: pl.DataFrame, protocol: Protocol) -> tuple[pl.DataFrame, pl.DataFrame]:
    funnel = Funnel("cohort", "records", keys=["record_id"])
    kept = funnel.keep(
        records,
        pl.col("kind").is_in(sorted(protocol.record_kinds())),
        step="items",
        reason="of a kind that is no item of the study",
        number=protocol.number("items"),
    )
    people = exams.select(*_PERSON, _member=pl.lit(True)).unique()
    kept = funnel.keep(
        kept.join(people, on=_PERSON, how="left", maintain_order="left"),
        pl.col("_member"),
        step="patients",
        reason="of people outside the cohort",
        number="X3",
    )
    return kept.drop("_member"), funnel.attrition()


def keep_items(name: str, table: pl.DataFrame, protocol: Protocol) -> tuple[pl.DataFrame, list[str]]:
    """A table with nothing but the items of the study: other columns are emptied, records of other kinds left out.

    Args:
        name: exams, reports or records. Other tables hold nothing of a patient that these do not.

    Returns:
        The table with all its columns, and the names of those that were emptied.
    """
    allowed = protocol.columns_of(name)
    if name not in ("exams", "reports", "records"):
        return table, []
    if name == "records":
        table = table.filter(pl.col("kind").is_in(sorted(protocol.record_kinds())))
    emptied = [column for column in table.columns if column not in allowed]
    return table.with_columns(pl.lit(None, dtype=table.schema[one]).alias(one) for one in emptied), emptied


# --- numbers ----------------------------------------------------------------------------------------------------------


def count_report(
    exams: pl.DataFrame, protocol: Protocol, *, findings: pl.DataFrame | None = None, images: int | None = None
) -> pl.DataFrame:
    """The numbers of the plan against those found: in all, by margin, by cell.

    Args:
        exams: of the cohort, with ``tracer_id`` where the plan counts tracers.
        findings: site, patient_id, finding (present or absent), where the plan counts findings. People without one
            are counted in no group.
        images: how many, where the plan counts images or records.

    Returns:
        Columns of `COUNTS`; groups that nobody planned are listed with no expected number.
    """
    cohort = protocol.cohort
    rows: list[tuple[str, str, int | None, int, str]] = []
    found = _amount(exams, protocol, images)
    rows.append(("all", cohort.count_unit, cohort.expected, found, protocol.number("count")))
    for margin in cohort.margins:
        number = protocol.number("tracer" if margin.by == "tracer" else "finding_margin")
        people = _people(exams, findings, margin.by)
        seen = {group: count for group, count in people.group_by("group").len().iter_rows() if group is not None}
        for group in [*margin.groups, *sorted(set(seen) - set(margin.groups))]:
            rows.append((f"{margin.by}: {group}", "persons", margin.groups.get(group), seen.get(group, 0), number))
        unknown = people["group"].null_count()
        rows.append((f"{margin.by}: not known", "persons", 0, unknown, number))
    if isinstance(cohort.cells, dict) and findings is not None:
        table = {f"{tracer}/{finding}": count for tracer, finding, count in cells(exams, findings).iter_rows()}
        for cell, expected in cohort.cells.items():
            rows.append((f"cell: {cell}", "persons", expected, table.get(cell, 0), protocol.number("finding_margin")))
    return _counts(rows, exact=cohort.exact)


def _counts(rows: Sequence[tuple[str, str, int | None, int, str]], *, exact: bool) -> pl.DataFrame:
    """what, unit, expected, found, number -> columns of `COUNTS`."""
    return pl.DataFrame(
        [
            (
                what,
                unit,
                expected,
                count,
                None if expected is None else count - expected,
                (count == expected) if exact and expected is not None else None,
                number,
            )
            for what, unit, expected, count, number in rows
        ],
        schema=COUNTS,
        orient="row",
    )


def _amount(exams: pl.DataFrame, protocol: Protocol, images: int | None) -> int:
    unit = protocol.cohort.count_unit
    if unit == "persons":
        return exams.select(_PERSON).unique().height
    if unit == "exams":
        return exams.height
    if images is None:
        raise InputError(f"{protocol.id} counts {unit}: give their number")
    return images


def _people(exams: pl.DataFrame, findings: pl.DataFrame | None, by: str) -> pl.DataFrame:
    """site, patient_id, group: the one tracer of a person, or their finding; null where unknown or more than one."""
    people = exams.select(_PERSON).unique(maintain_order=True)
    if by == "tracer":
        groups = exams.select(*_PERSON, group="tracer_id")
    elif findings is None:
        groups = pl.DataFrame(schema={"site": pl.String, "patient_id": pl.String, "group": pl.String})
    else:
        groups = findings.select(*_PERSON, group="finding")
    one = (
        groups.drop_nulls("group")
        .unique()
        .group_by(_PERSON)
        .agg(group=pl.when(pl.len() == 1).then(pl.col("group").first()))
    )
    return people.join(one, on=_PERSON, how="left", maintain_order="left")


def cells(exams: pl.DataFrame, findings: pl.DataFrame) -> pl.DataFrame:
    """People by tracer and finding (B3): tracer, finding, persons; ``not known`` where there is none or two."""
    return (
        _people(exams, None, "tracer")
        .rename({"group": "tracer"})
        .join(_people(exams, findings, "finding").rename({"group": "finding"}), on=_PERSON)
        .with_columns(pl.col("tracer", "finding").fill_null("not known"))
        .group_by("tracer", "finding")
        .agg(persons=pl.len().cast(pl.Int64))
        .sort("tracer", "finding")
    )


@dataclass(frozen=True)
class Complete:
    """A table of persons whose items are all there. Rows in = kept + excluded. ``counts``: against the plan."""

    kept: pl.DataFrame
    excluded: pl.DataFrame
    attrition: pl.DataFrame
    counts: pl.DataFrame


def keep_complete(persons: pl.DataFrame, protocol: Protocol) -> Complete:
    """The persons with every item that the study needs (S2); one step an item, so that the table says what lacks.

    Args:
        persons: one row a person: site, patient_id and the columns of ``cohort.complete_items``.

    Raises:
        InputError: a column is missing.
    """
    wanted = protocol.cohort.complete_items
    if missing := [name for name in wanted if name not in persons.columns]:
        raise InputError(f"persons: lacks the columns {', '.join(missing)}")
    funnel = Funnel("complete", "persons", keys=_PERSON)
    rows = persons
    for name in wanted:
        there = pl.col(name).is_not_null()
        if persons.schema[name] == pl.String:
            there &= pl.col(name).str.strip_chars() != ""
        rows = funnel.keep(rows, there, step=name, reason=f"without {name}", number=protocol.number("completeness"))
    expected = protocol.cohort.complete_expected
    count = ("complete", "persons", expected, rows.height, protocol.number("completeness"))
    return Complete(rows, funnel.excluded(), funnel.attrition(), _counts([count], exact=False))
