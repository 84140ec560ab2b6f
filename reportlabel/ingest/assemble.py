"""From the rows of all sources to exams, reports and records.

Several sources know the same exam: the order, the images, the report. They are one exam when they share the
StudyInstanceUID, or the accession number at one site; each column is taken from the source that is believed first
(rules/ingest/assembly.yaml). Nothing is lost on the way: rows in = rows out + excluded + quarantined.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.ingest.dates import age_on
from reportlabel.link.readings import match_reports
from reportlabel.rulebook.exams import ExamReader
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.schema import ATTRITION, EXAMS, QUARANTINE, RECORDS, REPORTS

STAGE = "assemble"
SHARED_UID = "The StudyInstanceUID belongs to more than one patient."
NO_EXAM_DATE = "No source gives the date of the exam."
NO_RECORD_DATE = "The record has no date."
NO_TEXT = "The report has no text."
MERGED = "The same exam from another source or series."
SAME_REPORT = "The same version of the report from another source."
CANCELLED = "The report was cancelled."
SAME_RECORD = "The same record from another source."
EARLIER = "An earlier version of the record."
RENEWED = "A renewal of the same drug."
CONTRAST = "The contrast medium or tracer of an exam."

REMEDIES = {
    SHARED_UID: "Find the right patient in the image archive; give patient_id_width if one source lost leading zeros.",
    NO_EXAM_DATE: "Give the exam a date in one of the sources.",
    NO_RECORD_DATE: "Give the record a date.",
    NO_TEXT: "Export the report again, with its text.",
}
_NO_EXAM_REMEDY = "Hand over the exam too, or give the report the StudyInstanceUID or accession number of its exam."


class AssemblyRules(Strict):
    """``ingest/assembly.yaml``."""

    order: list[str]
    prefer: dict[str, list[str]]
    same_record: dict[str, list[str]]
    renewed_within_days: int
    lost_characters: list[str]
    certainty: list[str]
    status: list[str]


@dataclass(frozen=True)
class RawRows:
    """The raw tables of one part (`reportlabel.ingest.raw`)."""

    patients: pl.DataFrame
    exams: pl.DataFrame
    reports: pl.DataFrame
    records: pl.DataFrame


@dataclass(frozen=True)
class Assembled:
    """The tables of one part, and what became of every row."""

    exams: pl.DataFrame
    reports: pl.DataFrame
    records: pl.DataFrame
    quarantine: pl.DataFrame
    attrition: pl.DataFrame


def load_assembly_rules(folder: Path | None = None) -> AssemblyRules:
    """Read ``ingest/assembly.yaml`` of a rules folder.

    Raises:
        ConfigError: names file, line and key.
    """
    return parse(read_yaml((folder or rules_folder()) / "ingest" / "assembly.yaml"), AssemblyRules)


def assemble(
    raw: RawRows,
    *,
    rules: AssemblyRules,
    exam_reader: ExamReader,
    shared_uids: Sequence[str] = (),
    paths: pl.DataFrame | None = None,
) -> Assembled:
    """Make the tables of one part.

    Args:
        shared_uids: StudyInstanceUIDs that stand with several patients, anywhere in the archive.
        paths: reading, path: for the quarantine; without identifiers.
    """
    log = _Log(paths)
    people = _people(raw.patients, rules)
    exams = _exams(raw.exams, people, rules, exam_reader, shared_uids, log)
    reports = _reports(raw.reports, exams, rules, log)
    records = _records(raw.records, exams, rules, log)
    return Assembled(exams, reports, records, log.quarantine(), log.attrition())


def reports_that_count(reports: pl.DataFrame) -> pl.DataFrame:
    """The last final or amended version of each report; a report that is only preliminary does not count yet."""
    return (
        reports.filter(pl.col("status").is_in(["final", "amended"]))
        .sort("report_id", "version")
        .unique("report_id", keep="last", maintain_order=True)
    )


# --- what became of the rows ------------------------------------------------------------------------------------------


class _Log:
    """Counts of outcomes, and the quarantine."""

    def __init__(self, paths: pl.DataFrame | None) -> None:
        self._paths = paths
        self._counts: list[tuple[str, str, str, str, int]] = []
        self._bad: list[pl.DataFrame] = []

    def count(self, table: str, outcome: str, rows: int, reason: str = "") -> None:
        if rows or outcome in ("in", "out"):
            self._counts.append((STAGE, table, outcome, reason, rows))

    def set_aside(self, table: str, rows: pl.DataFrame, reason: str | None = None, remedy: str | None = None) -> None:
        """Quarantine rows (with a column reading); ``reason`` None: it stands in a column."""
        if rows.is_empty():
            return
        named = rows if reason is None else rows.with_columns(reason=pl.lit(reason))
        for (one,), group in named.group_by("reason", maintain_order=True):
            self.count(table, "quarantined", group.height, str(one))
        self._bad.append(
            named.select(
                "reading",
                "reason",
                stage=pl.lit(STAGE),
                kind=pl.lit(table),
                row=pl.lit(None, dtype=pl.Int32),
                remedy=pl.lit(remedy if reason is None else REMEDIES[reason]),
            )
        )

    def quarantine(self) -> pl.DataFrame:
        if not self._bad:
            return pl.DataFrame(schema=QUARANTINE)
        rows = pl.concat(self._bad)
        if self._paths is None:
            rows = rows.with_columns(path=pl.lit(None, dtype=pl.String))
        else:
            rows = rows.join(self._paths, on="reading", how="left", maintain_order="left")
        return rows.select(QUARANTINE.names()).cast(QUARANTINE)

    def attrition(self) -> pl.DataFrame:
        return pl.DataFrame(self._counts, schema=ATTRITION, orient="row")


# --- exams ------------------------------------------------------------------------------------------------------------


def _ranked(rows: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """Rows in the order in which their sources are believed; of one source in the order in which they were read."""
    rank = pl.col("format").replace_strict({name: n for n, name in enumerate(order)}, default=len(order))
    return rows.with_columns(_rank=rank.cast(pl.Int32)).sort("_rank", maintain_order=True)


def _first(column: str) -> pl.Expr:
    return pl.col(column).drop_nulls().first()


def _people(patients: pl.DataFrame, rules: AssemblyRules) -> pl.DataFrame:
    return (
        _ranked(patients, rules.order)
        .group_by("site", "patient_id", maintain_order=True)
        .agg(known_sex=_first("sex"), birth_date=_first("birth_date"))
    )


def _one_wave_dash(column: str) -> pl.Expr:
    """cp932 makes a full-width tilde of the wave dash of JIS X 0208; a text has one sign, whatever its encoding was."""
    return pl.col(column).str.replace_all("\uff5e", "\u301c", literal=True)


_EXAM_COLUMNS = (
    "started_at", "order_name", "protocol_name", "contrast_agent", "contrast_ml", "ctdi_vol", "dlp", "tracer",
    "study_instance_uid", "accession_number", "body_part", "age_years", "sex", "height_cm", "weight_kg",
)  # fmt: skip


def _exams(
    rows: pl.DataFrame,
    people: pl.DataFrame,
    rules: AssemblyRules,
    reader: ExamReader,
    shared_uids: Sequence[str],
    log: _Log,
) -> pl.DataFrame:
    log.count("exams", "in", rows.height)
    shared = pl.col("study_instance_uid").is_in(list(shared_uids)).fill_null(False)
    log.set_aside("exams", rows.filter(shared), SHARED_UID)
    keyed = _with_exam_key(_with_uid_of_accession(rows.filter(~shared)))
    ranked = _ranked(keyed, rules.order)
    merged = ranked.group_by("site", "patient_id", "key", maintain_order=True).agg(
        *(_first(name) for name in _EXAM_COLUMNS),
        pl.col("modality").drop_nulls().unique(maintain_order=True).alias("modalities"),
        pl.col("reading").first(),
        pl.len().alias("rows"),
    )
    merged = _preferred(merged, keyed, rules)
    undated = merged.filter(pl.col("started_at").is_null())
    # an exam is quarantined as a whole, with all its rows
    log.set_aside("exams", undated.select(pl.col("reading").repeat_by("rows").explode()), NO_EXAM_DATE)
    dated = merged.filter(pl.col("started_at").is_not_null())
    log.count("exams", "excluded", int(dated["rows"].sum() or 0) - dated.height, MERGED)
    log.count("exams", "out", dated.height)
    described = _described(dated, people, reader)
    return described.sort("patient_id", "started_at", "exam_id").select(EXAMS.names()).cast(EXAMS)


def _with_uid_of_accession(rows: pl.DataFrame) -> pl.DataFrame:
    """Give rows without StudyInstanceUID the one of their accession number, where it has exactly one."""
    known = (
        rows.filter(pl.col("study_instance_uid").is_not_null() & pl.col("accession_number").is_not_null())
        .group_by("site", "patient_id", "accession_number")
        .agg(_uid=pl.col("study_instance_uid").first(), _uids=pl.col("study_instance_uid").n_unique())
        .filter(pl.col("_uids") == 1)
        .drop("_uids")
    )
    return (
        rows.join(known, on=["site", "patient_id", "accession_number"], how="left", maintain_order="left")
        .with_columns(study_instance_uid=pl.coalesce("study_instance_uid", "_uid"))
        .drop("_uid")
    )


def _with_exam_key(rows: pl.DataFrame) -> pl.DataFrame:
    """A row with neither number is an exam of its own, told by time, modality and name."""
    own = pl.concat_str(
        [
            pl.lit("t:"),
            pl.col("started_at").dt.to_string("iso").fill_null("-"),
            pl.col("modality").fill_null("-"),
            pl.col("order_name").fill_null("-"),
        ],
        separator="|",
    )
    return rows.with_columns(
        key=pl.when(pl.col("study_instance_uid").is_not_null())
        .then(pl.format("u:{}", "study_instance_uid"))
        .when(pl.col("accession_number").is_not_null())
        .then(pl.format("a:{}", "accession_number"))
        .otherwise(own)
    )


def _preferred(merged: pl.DataFrame, rows: pl.DataFrame, rules: AssemblyRules) -> pl.DataFrame:
    """Take the columns that have an order of their own by it."""
    for order in {tuple(order) for order in rules.prefer.values()}:
        columns = [name for name, own in rules.prefer.items() if tuple(own) == order]
        best = (
            _ranked(rows.filter(pl.col("format").is_in(list(order))), order)
            # the dose report stands beside the images: it knows the whole exam
            .sort(pl.col("dlp").is_null(), maintain_order=True)
            .group_by("site", "patient_id", "key", maintain_order=True)
            .agg(_first(name).alias(f"_{name}") for name in columns)
        )
        merged = (
            merged.join(best, on=["site", "patient_id", "key"], how="left", maintain_order="left")
            .with_columns(pl.coalesce(f"_{name}", name).alias(name) for name in columns)
            .drop([f"_{name}" for name in columns])
        )
    return merged


def _described(exams: pl.DataFrame, people: pl.DataFrame, reader: ExamReader) -> pl.DataFrame:
    known = exams.join(people, on=["site", "patient_id"], how="left", maintain_order="left")
    strongest = {name: n for n, name in enumerate(reader.rules.strongest)}
    modality = [
        min(found, key=lambda one: strongest.get(one, len(strongest))) if len(found) else None
        for found in known["modalities"]
    ]
    known = known.with_columns(pl.Series("modality", modality, dtype=pl.String))
    names = known.select("modality", "order_name", "protocol_name", "body_part")
    seen = {row: reader.see(*row) for row in names.unique().iter_rows()}
    found = [seen[row] for row in names.iter_rows()]
    ages = [
        age_on(started.date(), birth) if birth is not None else given
        for started, birth, given in known.select("started_at", "birth_date", "age_years").iter_rows()
    ]
    return known.with_columns(
        pl.Series("exam_id", _hashed("X", known.select("site", "patient_id", "key")), dtype=pl.String),
        pl.Series("modality_class", [one.modality_class for one in found], dtype=pl.String),
        pl.Series("body_part", [one.body_part for one in found], dtype=pl.String),
        pl.Series("age_years", ages, dtype=pl.Int32),
        sex=pl.coalesce("known_sex", "sex"),
    )


def _hashed(letter: str, rows: pl.DataFrame) -> list[str]:
    """An id made of content: the same rows have the same id in every run, from whatever source they come."""
    return [
        letter
        + hashlib.blake2b("\0".join("" if v is None else str(v) for v in row).encode(), digest_size=10).hexdigest()
        for row in rows.iter_rows()
    ]


# --- reports ----------------------------------------------------------------------------------------------------------


def _reports(rows: pl.DataFrame, exams: pl.DataFrame, rules: AssemblyRules, log: _Log) -> pl.DataFrame:
    log.count("reports", "in", rows.height)
    blank = (pl.col("status") != "cancelled") & (pl.col("text").str.strip_chars() == "")
    log.set_aside("reports", rows.filter(blank), NO_TEXT)
    matched = match_reports(_ranked(rows.filter(~blank).with_columns(_one_wave_dash("text")), rules.order), exams)
    log.set_aside("reports", matched.quarantined, remedy=_NO_EXAM_REMEDY)
    found = matched.reports
    cancelled = found.filter(pl.col("status") == "cancelled").select("exam_id", "report_number").unique()
    kept = found.join(cancelled, on=["exam_id", "report_number"], how="anti", nulls_equal=True, maintain_order="left")
    log.count("reports", "excluded", found.height - kept.height, CANCELLED)
    chain = _chain(kept, rules)
    log.count("reports", "excluded", kept.height - chain.height, SAME_REPORT)
    log.count("reports", "out", chain.height)
    return (
        chain.with_columns(pl.Series("report_id", _hashed("R", chain.select("exam_id")), dtype=pl.String))
        .sort("exam_id", "version")
        .select(REPORTS.names())
        .cast(REPORTS)
    )


def _chain(reports: pl.DataFrame, rules: AssemblyRules) -> pl.DataFrame:
    """The versions of the report of each exam, numbered from 1 in the order in which they were confirmed."""
    strength = pl.col("status").replace_strict({name: n for n, name in enumerate(rules.status)}, default=-1)
    distinct = (
        reports.with_columns(_strength=strength.cast(pl.Int32))
        # two sources give one version each in their own way: with or without headings, seconds, what was asked
        .with_columns(_minute=pl.col("confirmed_at").dt.truncate("1m"))
        .sort("_rank", pl.col("version"), nulls_last=True, maintain_order=True)
        .pipe(_with_lost_characters, rules=rules)
        .pipe(_one_source_a_version)
        .sort("exam_id", "confirmed_at", "version", "_strength", nulls_last=False, maintain_order=True)
    )
    return distinct.with_columns(version=pl.int_range(1, pl.len() + 1).over("exam_id").cast(pl.Int32))


def _with_lost_characters(ranked: pl.DataFrame, *, rules: AssemblyRules) -> pl.DataFrame:
    """Put back characters that one source has lost, from the text of the same version in another source."""
    lost = pl.any_horizontal(pl.col("text").str.contains(sign, literal=True) for sign in rules.lost_characters)
    marked = ranked.with_columns(_lost=lost)
    broken = marked.filter("_lost")
    if broken.is_empty():
        return ranked
    whole = (
        marked.filter(~pl.col("_lost"))
        .join(broken.select("exam_id").unique(), on="exam_id", how="semi", maintain_order="left")
        .group_by("exam_id", "_minute")
        .agg(_whole=pl.col("text").first())
    )
    joined = marked.join(whole, on=["exam_id", "_minute"], how="left", nulls_equal=True, maintain_order="left")
    texts = [
        restored(text, other, rules.lost_characters) if is_lost and other is not None else text
        for text, other, is_lost in joined.select("text", "_whole", "_lost").iter_rows()
    ]
    return joined.with_columns(pl.Series("text", texts, dtype=pl.String)).drop("_whole", "_lost")


def restored(text: str, whole: str, signs: Sequence[str]) -> str:
    """The text with its lost characters, line by line, where the rest of the line stands in the whole text.

    ``signs``: what stands in place of one lost character.
    """
    any_sign = "|".join(re.escape(sign) for sign in signs)
    found = []
    for line in text.split("\n"):
        parts = re.split(any_sign, line)
        if len(parts) > 1 and any(part.strip() for part in parts):
            match = re.search(".".join(re.escape(part) for part in parts), whole)
            found.append(match[0] if match else line)
        else:
            found.append(line)
    return "\n".join(found)


def _one_source_a_version(ranked: pl.DataFrame) -> pl.DataFrame:
    """Of the texts confirmed in the same minute those of the source that is believed first, and no text twice."""
    first = ranked.group_by("exam_id", "_minute").agg(_best=pl.col("_rank").min())
    return (
        ranked.join(first, on=["exam_id", "_minute"], how="left", nulls_equal=True, maintain_order="left")
        .filter((pl.col("_rank") == pl.col("_best")) | pl.col("_minute").is_null())
        .unique(["exam_id", "_minute", "text"], keep="first", maintain_order=True)
    )


# --- records ----------------------------------------------------------------------------------------------------------


def _records(rows: pl.DataFrame, exams: pl.DataFrame, rules: AssemblyRules, log: _Log) -> pl.DataFrame:
    log.count("records", "in", rows.height)
    undated = pl.col("start_at").is_null()
    log.set_aside("records", rows.filter(undated), NO_RECORD_DATE)
    known = _with_codes_and_names(
        _ranked(rows.filter(~undated).with_columns(_one_wave_dash("text")), rules.order), rules
    )
    dated = _with_time_of_day(known).with_columns(
        body_site=pl.concat_str([pl.col("body_site"), pl.col("side")], separator=";", ignore_nulls=True).replace(
            "", None
        ),
    )
    others = _without_contrast(dated, exams)
    log.count("records", "excluded", dated.height - others.height, CONTRAST)
    latest = _latest(others, rules)
    log.count("records", "excluded", others.height - latest.height, EARLIER)
    merged: list[pl.DataFrame] = []
    for (kind,), group in latest.group_by("kind", maintain_order=True):
        key = ["site", "patient_id", "kind", *rules.same_record.get(str(kind), ["start_at", "what", "text"])]
        columns = [name for name in RECORDS.names() if name not in key and name != "record_id"]
        same = group.group_by(key, maintain_order=True).agg(
            *(pl.col(name).max() if name == "end_at" else _first(name) for name in columns)
        )
        log.count("records", "excluded", group.height - same.height, SAME_RECORD)
        if kind == "medication":
            joined = _joined(same, rules.renewed_within_days)
            log.count("records", "excluded", same.height - joined.height, RENEWED)
            same = joined
        ids = _hashed("C", same.select(*key))
        merged.append(same.with_columns(pl.Series("record_id", ids, dtype=pl.String)).select(RECORDS.names()))
    records = pl.concat([pl.DataFrame(schema=RECORDS), *(one.cast(RECORDS) for one in merged)])
    log.count("records", "out", records.height)
    return records.sort("patient_id", "kind", "start_at", "record_id")


def _with_codes_and_names(records: pl.DataFrame, rules: AssemblyRules) -> pl.DataFrame:
    """Fill codes by names and names by codes; a name with lost characters is kept where nobody has it whole."""
    lost = pl.any_horizontal(pl.col("name").str.contains(sign, literal=True) for sign in rules.lost_characters)
    whole = records.with_columns(
        _written=pl.col("name"), name=pl.when(lost & pl.col("code").is_not_null()).then(None).otherwise("name")
    )
    return _with_code_of_name(whole).with_columns(name=pl.coalesce("name", "_written")).drop("_written")


def _with_code_of_name(records: pl.DataFrame) -> pl.DataFrame:
    """Give records without a code that of their name, and without a name that of their code, where there is just one.

    Systems of one hospital differ in what they export.
    """
    for have, want in (("name", ["code", "code_system"]), ("code", ["name"])):
        known = (
            records.filter(pl.all_horizontal(pl.col(name).is_not_null() for name in (have, want[0])))
            .group_by("site", "kind", have)
            .agg(
                pl.col(want[0]).n_unique().alias("_choices"), *(pl.col(name).first().alias(f"_{name}") for name in want)
            )
            .filter((pl.col("_choices") == 1) | (have == "code"))
            .drop("_choices")
        )
        records = (
            records.join(known, on=["site", "kind", have], how="left", maintain_order="left")
            .with_columns(pl.coalesce(name, f"_{name}").alias(name) for name in want)
            .drop([f"_{name}" for name in want])
        )
    return records


def _without_contrast(records: pl.DataFrame, exams: pl.DataFrame) -> pl.DataFrame:
    """Contrast media and tracers are facts of an exam; some sources list them as drugs as well."""
    given = pl.concat(
        [
            exams.select("site", "patient_id", day=pl.col("started_at").dt.date(), name=pl.col(column))
            for column in ("contrast_agent", "tracer")
        ]
    ).filter(pl.col("name").is_not_null())
    rows = records.with_row_index("_row")
    drugs = rows.filter(pl.col("kind") == "medication").join(
        given.unique(), on=["site", "patient_id", "day", "name"], how="semi"
    )
    return rows.join(drugs.select("_row"), on="_row", how="anti", maintain_order="left").drop("_row")


def _with_time_of_day(records: pl.DataFrame) -> pl.DataFrame:
    """Days, what the record is of, and the time for records with a day only, from another source of the same record."""
    named = records.with_columns(day=pl.col("start_at").dt.date(), what=pl.coalesce("code", "name"))
    timed = pl.when(pl.col("start_at").dt.time() != pl.time(0, 0, 0)).then("start_at")
    earliest = timed.min().over("site", "patient_id", "kind", "day", "what")
    return named.with_columns(
        start_at=pl.when(pl.col("start_at").dt.time() == pl.time(0, 0, 0))
        .then(pl.coalesce(earliest, "start_at"))
        .otherwise("start_at")
    )


def _latest(records: pl.DataFrame, rules: AssemblyRules) -> pl.DataFrame:
    """Of the records with a number of their own the last version; of one source, because sources number differently."""
    strength = pl.col("certainty").replace_strict({name: n for n, name in enumerate(rules.certainty)}, default=-1)
    numbered = records.filter(pl.col("number").is_not_null())
    last = (
        numbered.with_columns(_strength=strength.cast(pl.Int32))
        .sort("reported_at", "_strength", nulls_last=False, maintain_order=True)
        # rows of one number that say different things (several tests of one order) are no versions of each other
        .unique(
            ["site", "patient_id", "kind", "format", "number", "code", "name", "start_at"],
            keep="last",
            maintain_order=True,
        )
        .drop("_strength")
    )
    return pl.concat([records.filter(pl.col("number").is_null()), last]).sort("_rank", maintain_order=True)


def _joined(drugs: pl.DataFrame, within_days: int) -> pl.DataFrame:
    """Prescriptions of one drug that follow each other become one."""
    who = ["site", "patient_id", "name"]
    ordered = drugs.sort(*who, "start_at", maintain_order=True).with_columns(
        _until=pl.coalesce("end_at", "start_at").cum_max().over(who)
    )
    gap = pl.col("start_at") - pl.col("_until").shift(1).over(who)
    episodes = ordered.with_columns(
        _episode=(gap.is_null() | (gap > pl.duration(days=within_days))).cast(pl.Int32).cum_sum().over(who)
    )
    others = [name for name in drugs.columns if name not in (*who, "start_at", "end_at")]
    return episodes.group_by(*who, "_episode", maintain_order=True).agg(
        pl.col("start_at").min(), pl.col("end_at").max(), *(_first(name) for name in others)
    )
