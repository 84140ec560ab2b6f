"""Exams with dose and protocol fields, and the dose of each protocol in the manner of diagnostic reference levels.

    table = exam_table(exams, protocol, profile="anonymised", rules=rules, key=secrets.token_bytes(32))
    summary = dose_summary(exams, protocol, rules)

Nothing is guessed: what the headers do not say is empty, and `missing_values` counts it (J4).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.annotate.sections import Splitter
from reportlabel.errors import ConfigError, InputError
from reportlabel.export.deliverable_rules import DoseRules
from reportlabel.export.study_folder import about, check_permission, need_columns, write_tables
from reportlabel.protocol import Permission, Profile, Protocol
from reportlabel.schema import EXAMS

__all__ = [
    "MISSING",
    "ExamTable",
    "dose_summary",
    "exam_numbers",
    "exam_table",
    "missing_values",
    "request_reasons",
    "write_dose_summary",
    "write_exam_table",
]

MISSING = pl.Schema({"modality_class": pl.String, "column": pl.String, "exams": pl.Int64, "missing": pl.Int64})
"""One row a modality class and column: how many exams, and in how many of them the column is empty."""

SUPPRESSED = pl.Schema({"column": pl.String, "values": pl.Int64})

_DOSE = ("contrast_ml", "ctdi_vol", "dlp")
_SHOWN = (
    "site",
    "modality",
    "modality_class",
    "body_part",
    "order_name",
    "protocol_name",
    "contrast_agent",
    *_DOSE,
    "age_years",
    "sex",
    "height_cm",
    "weight_kg",
)
_WORDS = ("modality", "body_part", "order_name", "protocol_name", "contrast_agent", "sex")
_BANDS = {"height_cm": 10, "weight_kg": 10}
_SHORTEST_KEY = 16


@dataclass(frozen=True)
class ExamTable:
    """The exam table of one profile.

    Attributes:
        table: one row an exam. pseudonymised: exam_id, patient_id, started_at and what the items of the protocol allow,
            with request_reason where it was given. anonymised: exam_no, person_no, days_since_first in place of these.
        missing: columns of MISSING. suppressed: column, values: rare values that were taken out, by column.
    """

    table: pl.DataFrame
    missing: pl.DataFrame
    suppressed: pl.DataFrame
    profile: Profile


def exam_table(
    exams: pl.DataFrame,
    protocol: Protocol,
    *,
    profile: Profile,
    rules: DoseRules,
    reasons: pl.DataFrame | None = None,
    key: bytes = b"",
) -> ExamTable:
    """The exams of the study with dose, protocol and contrast fields.

    The anonymised table has no linking code: persons and exams are numbered in an order that only ``key`` gives, days
    count from the first exam of a person, free text is left out, ages above ``deid.age_top`` become it, and a value
    that fewer than ``deid.k`` persons have is emptied (heights and weights: by bands of ten).

    Args:
        exams: columns of the exams table. Empty, not positive or endless doses, heights and weights become null.
        reasons: exam_id, request_reason (`request_reasons`); pseudonymised only.
        key: random bytes, thrown away afterwards; needed for ``anonymised``.

    Raises:
        InputError: a column is missing, or an exam id stands twice.
        ConfigError: no key.
    """
    need_columns(exams, ("exam_id", "patient_id", "started_at", *_SHOWN), name="exams")
    if exams["exam_id"].n_unique() < exams.height:
        raise InputError("exams: an exam id stands twice; ids must differ between hospitals (J2): ingest again")
    allowed = protocol.columns_of("exams")
    clean = _clean(exams)
    missing = missing_values(clean, [name for name in rules.described if name in allowed])
    shown = [name for name in _SHOWN if name in allowed]
    if profile == "pseudonymised":
        table = clean.select("exam_id", "patient_id", *(["started_at"] if "started_at" in allowed else []), *shown)
        if reasons is not None:
            table = table.join(reasons.select("exam_id", "request_reason"), on="exam_id", how="left")
        return ExamTable(table.sort("exam_id"), missing, pl.DataFrame(schema=SUPPRESSED), profile)
    if len(key) < _SHORTEST_KEY:
        raise ConfigError(f"the anonymised exam table needs a key of {_SHORTEST_KEY} random bytes or more")
    table, suppressed = _rare_values_out(_numbered(clean, key), shown, protocol)
    columns = ["exam_no", "person_no", *(["days_since_first"] if "started_at" in allowed else []), *shown]
    return ExamTable(table.select(columns).sort("exam_no"), missing, suppressed, profile)


def missing_values(exams: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """How often each column is empty, by modality class; see MISSING. A dose of 0 is one that was not recorded."""
    counted = (
        _clean(exams)
        .group_by("modality_class")
        .agg(pl.len().alias("exams"), *(pl.col(name).null_count().alias(f"no {name}") for name in columns))
        .unpivot([f"no {name}" for name in columns], index=["modality_class", "exams"], variable_name="column")
        .with_columns(pl.col("column").str.strip_prefix("no "))
    )
    return (
        counted.select("modality_class", "column", "exams", missing="value")
        .cast(MISSING)
        .sort("modality_class", "column", nulls_last=True)
    )


def request_reasons(reports: pl.DataFrame, splitter: Splitter, rules: DoseRules) -> pl.DataFrame:
    """Why an exam was asked for, as its report says (依頼目的), for the appropriateness of indications (J14).

    Args:
        reports: exam_id, version, text (de-identified); the last version of an exam counts.

    Returns:
        exam_id, request_reason: the sentences of that section, a line each; null where the report has none.
    """
    need_columns(reports, ("exam_id", "version", "text"), name="reports")
    last = reports.sort("version", maintain_order=True).unique("exam_id", keep="last", maintain_order=True)
    reasons = []
    for text in last["text"].to_list():
        asked = [one for one in splitter.split(text or "") if one.section == rules.reason_section]
        reasons.append("\n".join((text or "")[one.start : one.end] for one in asked) or None)
    return last.select("exam_id", pl.Series("request_reason", reasons, dtype=pl.String)).sort("exam_id")


def dose_summary(
    exams: pl.DataFrame,
    protocol: Protocol,
    rules: DoseRules,
    *,
    by: Sequence[str] = ("modality_class", "protocol_name"),
) -> pl.DataFrame:
    """Percentiles of the dose of each protocol, in children by age, in adults of all and of standard weight.

    A row over fewer than ``deid.k`` persons has no numbers, and so has a row of standard weight that would tell them by
    subtraction (J13).

    Args:
        by: columns of the exams table that make a group; exams without one of them are left out.

    Returns:
        The columns ``by``, age_group, weight (all, standard), measure, n_exams, n_persons, one column a percentile (p25
        ..., linear interpolation), suppressed.

    Raises:
        ConfigError: a column of ``by`` that does not exist or is the code of a person or exam.
    """
    codes = {"exam_id", "patient_id", "study_instance_uid", "accession_number", "started_at"}
    if wrong := [name for name in by if name not in EXAMS or name in codes]:
        raise ConfigError(f"a dose summary cannot be made by {wrong[0]}; give names of protocols, body parts or sites")
    need_columns(exams, ("patient_id", "site", "age_years", "weight_kg", *rules.measures, *by), name="exams")
    k = protocol.deid.k
    names = {f"p{at}": at / 100 for at in rules.percentiles}
    person = pl.struct("site", "patient_id")
    long = (
        _clean(exams)
        .drop_nulls([*by, "age_years", "patient_id"])
        .with_columns(age_group=_age_group(rules))
        .unpivot(
            list(rules.measures),
            index=list(dict.fromkeys([*by, "site", "patient_id", "age_group", "weight_kg"])),
            variable_name="measure",
            value_name="dose",
        )
        .drop_nulls("dose")
    )
    keys = [*by, "age_group", "weight", "measure"]
    groups = [long.with_columns(weight=pl.lit("all"))]
    for group in rules.age_groups:
        if group.standard_weight_kg is not None:
            low, high = group.standard_weight_kg
            standard = (pl.col("age_group") == group.id) & pl.col("weight_kg").is_between(low, high)
            groups.append(long.filter(standard).with_columns(weight=pl.lit("standard")))
    counted = (
        pl.concat(groups)
        .group_by(keys)
        .agg(
            n_exams=pl.len().cast(pl.Int64),
            n_persons=person.n_unique().cast(pl.Int64),
            **{name: pl.col("dose").quantile(share, "linear") for name, share in names.items()},
        )
    )
    everyone = counted.filter(pl.col("weight") == "all").select(
        *(name for name in keys if name != "weight"), of_all="n_persons"
    )
    others = pl.col("of_all") - pl.col("n_persons")
    small = (pl.col("n_persons") < k) | ((pl.col("weight") == "standard") & (others > 0) & (others < k))
    numbers = ["n_exams", "n_persons", *names]
    return (
        counted.join(everyone, on=[name for name in keys if name != "weight"], how="left", nulls_equal=True)
        .with_columns(suppressed=small)
        .with_columns(pl.when(~pl.col("suppressed")).then(pl.col(name)).alias(name) for name in numbers)
        .select(*keys, *numbers, "suppressed")
        .sort(keys)
    )


def write_exam_table(
    out: Path, made: ExamTable, *, protocol: Protocol, permission: Permission, rules_sha256: str | None = None
) -> None:
    """A folder with the exam table, what is missing in it, and the manifest.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the table is of another profile than was
            permitted, or the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("exam_table",))
    if permission.profile != made.profile:
        raise ConfigError(f"the table is {made.profile}, but {permission.profile} is what was permitted")
    counts = {"exams": made.table.height, "suppressed_values": int(made.suppressed["values"].sum())}
    tables = {"exams": made.table, "missing": made.missing, "suppressed": made.suppressed}
    write_tables(out, tables, said=about(protocol, permission, counts=counts, rules_sha256=rules_sha256))


def write_dose_summary(
    out: Path, summary: pl.DataFrame, *, protocol: Protocol, permission: Permission, rules_sha256: str | None = None
) -> None:
    """A folder with the dose summary and the manifest.

    Raises:
        RefusedError: the permission is for something else. ConfigError: the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("dose_summary",))
    counts = {"rows": summary.height, "suppressed_rows": int(summary["suppressed"].sum())}
    said = about(protocol, permission, counts=counts, rules_sha256=rules_sha256, smallest_cell=protocol.deid.k)
    write_tables(out, {"dose_summary": summary}, said=said)


def _clean(exams: pl.DataFrame) -> pl.DataFrame:
    """Numbers that cannot be measured, and empty texts, as null."""
    numbers = [name for name in (*_DOSE, "height_cm", "weight_kg") if name in exams.columns]
    texts = [name for name in _WORDS if name in exams.columns]
    return exams.with_columns(
        *(pl.when((pl.col(name) > 0) & pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in numbers),
        *(pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)).alias(name) for name in texts),
    )


def _age_group(rules: DoseRules) -> pl.Expr:
    chain: pl.Expr = pl.lit(None, dtype=pl.String)
    for group in reversed(rules.age_groups):
        below = pl.lit(True) if group.below is None else pl.col("age_years") < group.below
        chain = pl.when(below).then(pl.lit(group.id)).otherwise(chain)
    return chain


def exam_numbers(exams: pl.DataFrame, key: bytes) -> pl.DataFrame:
    """Numbers of persons and exams from 1, in an order that the key alone gives.

    Args:
        exams: exam_id, site, patient_id; a patient is known by site and patient_id together.
        key: random bytes; the same key gives the same numbers for the same exams.

    Returns:
        exam_id, exam_no, person_no, in the order of ``exams``.
    """

    def order(*values: str) -> bytes:
        return hmac.new(key, "\0".join(values).encode(), hashlib.sha256).digest()

    who = [(str(site), str(patient)) for site, patient in exams.select("site", "patient_id").iter_rows()]
    ids = exams["exam_id"].to_list()
    person_no = {one: at for at, one in enumerate(sorted(set(who), key=lambda one: order("person", *one)), start=1)}
    exam_no = {one: at for at, one in enumerate(sorted(ids, key=lambda one: order("exam", one)), start=1)}
    return pl.DataFrame(
        {
            "exam_id": exams["exam_id"],
            "exam_no": pl.Series([exam_no[one] for one in ids], dtype=pl.Int64),
            "person_no": pl.Series([person_no[one] for one in who], dtype=pl.Int64),
        }
    )


def _numbered(exams: pl.DataFrame, key: bytes) -> pl.DataFrame:
    """The exams with exam_no, person_no, and days from the first exam of the person."""
    day = pl.col("started_at").dt.date()
    return exams.join(exam_numbers(exams, key), on="exam_id", how="left", maintain_order="left").with_columns(
        days_since_first=(day - day.min().over("person_no")).dt.total_days()
    )


def _rare_values_out(
    exams: pl.DataFrame, shown: Sequence[str], protocol: Protocol
) -> tuple[pl.DataFrame, pl.DataFrame]:
    k, top = protocol.deid.k, protocol.deid.age_top
    table = exams.with_columns(
        pl.min_horizontal("age_years", pl.lit(top, dtype=pl.Int32)).alias("age_years"),
        *(pl.col(name).round(0).alias(name) for name in _BANDS),
    )
    taken = []
    for name in shown:
        if name in _BANDS:
            value = (pl.col(name) / _BANDS[name]).floor()
        elif name in _WORDS or name == "age_years":
            value = pl.col(name)
        else:
            continue
        rare = pl.col("person_no").n_unique().over(value) < k
        found = table.select((rare & pl.col(name).is_not_null()).alias("rare"))["rare"]
        taken.append((name, int(found.sum())))
        table = table.with_columns(pl.when(~found).then(pl.col(name)).alias(name))
    return table, pl.DataFrame(taken, schema=SUPPRESSED, orient="row")
