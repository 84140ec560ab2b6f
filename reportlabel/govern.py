"""A run under a study protocol: who takes part, what of them may be held, and codes in place of identities.

    assembled tables -> refusals -> cohort -> items -> codes, moved dates, masked texts -> the tables of the workspace

What stands between the archive and this stage (`reportlabel.ingest.raw`) holds the hospital's own ids and texts; it
lies in the staging folder, apart from the workspace. Codes, keys, offsets of masked texts and what was handed over lie
in the linkage store, apart from both. Nothing in the workspace says who a patient is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import polars as pl

from reportlabel.annotate.normalise import Normaliser
from reportlabel.consent.cohort import keep_items, select_cohort
from reportlabel.consent.refusals import (
    RefusalList,
    apply_refusals,
    refuse_in_tables,
    shipped_with,
    standing_refusals,
)
from reportlabel.consent.study_refusals import Missed, by_codes, missed, refusals_of_study, widened
from reportlabel.consent.withdrawal import Removed, people_there, people_to_remove, remove_people
from reportlabel.deidentify.dates import DatePolicy
from reportlabel.deidentify.linkage import KeySource, LinkageStore, patient_key, patients_of, refuse_overlap
from reportlabel.deidentify.text import Deidentifier, KnownNames, mask_table
from reportlabel.deidentify.text_rules import TextRules, load_text_rules
from reportlabel.errors import ConfigError, InputError
from reportlabel.export.study_folder import read_table
from reportlabel.ingest.archive import open_archive
from reportlabel.ingest.assemble import Assembled
from reportlabel.ingest.raw import RawStore, part_of
from reportlabel.protocol import Dates, Profile, Protocol, load_protocol, shipped_protocols
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import NormaliseRules
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.schema import ATTRITION, COHORT, EXAMS, RECORDS, REPORTS
from reportlabel.store import Workspace

SHIPPED = pl.Schema(
    [("bundle", pl.String), ("recipient", pl.String), ("shipped_on", pl.Date), ("patient_code", pl.String)]
)
"""What was handed over: one row a bundle and patient; kept in the linkage store under the name ``shipped``."""

IMAGES = pl.Schema(
    [
        ("exam_id", pl.String),
        ("site", pl.String),
        ("study_instance_uid", pl.String),
        ("accession_number", pl.String),
        ("started_at", pl.Datetime("us")),
    ]
)
"""Which pictures an exam of the study has in the archive of the hospital; kept in the linkage store."""

_MARKER = "study.json"
_DATES = {
    "exams": ("started_at",),
    "reports": ("confirmed_at",),
    "records": ("start_at", "end_at", "reported_at"),
}


@dataclass(frozen=True, kw_only=True)
class Governance:
    """Under what a run stands.

    Attributes:
        today: the day that counts for the period of the study and for refusals.
        staging: where the rows as they were read are kept; linkage: the folder of the linkage store.
        key: what opens the linkage store; actor, purpose: for its log.
        refusals: the list of the consent office.
        persons: site, patient_id, person; prior: study, site, patient_id; visits: site, patient_id, day: where the
            protocol needs them (`reportlabel.consent`).
        known: what the hospital knows of its patients (site, patient_id, name, kana, roman, postal_code, address,
            phone), searched in the texts; read and never written.
        staff: names of doctors and technologists.
        id_width: digits of the hospital's patient ids, to which lists are brought that have lost leading zeros.
    """

    protocol: Protocol
    today: date
    staging: Path
    linkage: Path
    key: KeySource
    actor: str
    purpose: str
    refusals: RefusalList = field(repr=False)
    persons: pl.DataFrame | None = field(default=None, repr=False)
    prior: pl.DataFrame | None = field(default=None, repr=False)
    visits: pl.DataFrame | None = field(default=None, repr=False)
    known: pl.DataFrame | None = field(default=None, repr=False)
    staff: tuple[str, ...] = field(default=(), repr=False)
    id_width: int | None = None

    @property
    def profile(self) -> Profile:
        """How far the workspace itself is de-identified: as the least de-identified of what is made of it."""
        given = self.protocol.deid.profile
        profiles: set[Profile] = set(given.values()) if isinstance(given, dict) else {given}
        return "pseudonymised" if "pseudonymised" in profiles else "anonymised"

    @property
    def dates(self) -> Dates:
        """What happens to dates in the workspace."""
        return self.protocol.dates_of(self.profile)

    def signature(self) -> str:
        """Changes where the tables of every part would: not with refusals, which concern single parts."""
        digest = hashlib.sha256((rules_folder() / "deidentify.yaml").read_bytes())
        digest.update(json.dumps([self.protocol.sha256, self.profile, self.dates, sorted(self.staff)]).encode())
        for table in (self.prior, self.visits, self.known):
            digest.update(b"-" if table is None else table.write_ipc(None).getvalue())
        return digest.hexdigest()


PERSONS = pl.Schema({"site": pl.String, "patient_id": pl.String, "person": pl.String})
PRIOR = pl.Schema({"study": pl.String, "site": pl.String, "patient_id": pl.String})
VISITS = pl.Schema([("site", pl.String), ("patient_id", pl.String), ("day", pl.Date)])
KNOWN = pl.Schema(
    {
        "site": pl.String,
        "patient_id": pl.String,
        "name": pl.String,
        "kana": pl.String,
        "roman": pl.String,
        "postal_code": pl.String,
        "address": pl.String,
        "phone": pl.String,
    }
)
STAFF = pl.Schema({"name": pl.String})


def read_governance(
    protocol: str,
    *,
    archive: Path,
    workspace: Path,
    linkage: Path,
    key: KeySource,
    actor: str,
    purpose: str,
    refusals: Path,
    staging: Path | None = None,
    persons: Path | None = None,
    prior: Path | None = None,
    visits: Path | None = None,
    known: Path | None = None,
    staff: Path | None = None,
    today: date | None = None,
) -> Governance:
    """What a run under a protocol needs, from the files that the hospital gives (CSV or Parquet).

    Args:
        archive: patient ids of the tables are brought to the width that archive.yaml says.
        staging: default: beside the workspace, its name with ``.staging``.
        persons, prior, visits, known, staff: columns of `PERSONS`, `PRIOR`, `VISITS`, `KNOWN`, `STAFF`.

    Raises:
        ConfigError, InputError: the protocol does not load, or a file cannot be read; names file, row and column.
    """
    sources = open_archive(archive, site=None).sources
    widths = {int(width) for source in sources if (width := source.options.get("patient_id_width"))}
    width = widths.pop() if len(widths) == 1 else None

    def table(path: Path | None, schema: pl.Schema) -> pl.DataFrame | None:
        if path is None:
            return None
        needed = [name for name in schema if name not in _NOT_NEEDED]
        rows = read_table(path, schema, required=needed)
        return widened(rows, width) if "patient_id" in rows.columns else rows

    doctors = table(staff, STAFF)
    loaded = load_protocol(protocol)
    asked = refusals_of_study(refusals, loaded, id_width=width, persons=table(persons, PERSONS))
    return Governance(
        protocol=loaded,
        today=today or date.today(),
        staging=staging or workspace.with_name(workspace.name + ".staging"),
        linkage=linkage,
        key=key,
        actor=actor,
        purpose=purpose,
        refusals=asked.listed,
        persons=asked.persons,
        prior=table(prior, PRIOR),
        visits=table(visits, VISITS),
        known=table(known, KNOWN),
        staff=() if doctors is None else tuple(doctors["name"].drop_nulls()),
        id_width=width,
    )


_NOT_NEEDED = ("kana", "roman", "postal_code", "address", "phone")


# --- the study of a workspace -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyOfWorkspace:
    """What a workspace remembers of the study that it belongs to.

    ``protocol``: name or file that the run was given; ``linkage``: the folder of the linkage store at the last run;
    ``store``: the store itself, which may have been moved; ``id_width``: digits of patient ids, see `Governance`.
    """

    study: str
    protocol: str
    protocol_sha256: str
    linkage: Path
    store: str
    staging: Path
    id_width: int | None = None

    def load(self) -> Protocol:
        """The protocol, as it was when the last run was made.

        Raises:
            ConfigError: it cannot be read, or has changed since.
        """
        protocol = load_protocol(self.protocol)
        if protocol.sha256 != self.protocol_sha256:
            raise ConfigError(
                f"the protocol {self.protocol} has changed since the last run; run `reportlabel run {self.protocol}` "
                "again, so that the workspace follows it"
            )
        return protocol


def study_of(workspace: Path) -> StudyOfWorkspace | None:
    """The study of a workspace; None: it belongs to none.

    Raises:
        ConfigError: the note cannot be read.
    """
    marker = workspace / _MARKER
    if not marker.is_file():
        return None
    try:
        said = json.loads(marker.read_text(encoding="utf-8"))
        return StudyOfWorkspace(
            said["study"],
            said["protocol"],
            said["protocol_sha256"],
            Path(said["linkage"]),
            said["store"],
            Path(said["staging"]),
            said["id_width"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{marker} cannot be read; restore it, or make a new workspace") from error


def check_store(study: StudyOfWorkspace, store: LinkageStore) -> None:
    """Make sure that a store holds the codes of a workspace: another one of the same study knows nobody in it, so that
    refusals would pass unnoticed.

    Raises:
        ConfigError: it is another store.
    """
    if store.store_id != study.store:
        raise ConfigError(
            f"{store.folder} is not the linkage store that this workspace was made with ({study.linkage}); give that "
            "one"
        )


def claim(workspace: Workspace, governance: Governance | None, store: LinkageStore | None = None) -> None:
    """Note whose workspace it is, and with which linkage store it was made; refuse one of another study, or of none.

    Args:
        store: of `open_store`, where there is a governance.

    Raises:
        ConfigError: it belongs to another study or store, or to a run without a protocol.
    """
    before = study_of(workspace.folder)
    if governance is None or store is None:
        if before is not None:
            raise ConfigError(
                f"{workspace.folder} belongs to the study {before.study}; give its protocol: "
                f"`reportlabel run {before.protocol} …`"
            )
        return
    if before is None and workspace.exists("exams"):
        raise ConfigError(
            f"{workspace.folder} was made without a study protocol and holds the hospital's own ids; give a new folder"
        )
    if before is not None and before.study != governance.protocol.id:
        raise ConfigError(
            f"{workspace.folder} belongs to the study {before.study}; each study has a workspace of its own"
        )
    if before is not None:
        check_store(before, store)
    said = {
        "study": governance.protocol.id,
        "protocol": _called(governance.protocol),
        "protocol_sha256": governance.protocol.sha256,
        "linkage": str(governance.linkage.absolute()),
        "store": store.store_id,
        "staging": str(governance.staging.absolute()),
        "id_width": governance.id_width,
    }
    beside = workspace.folder / f"{_MARKER}.new"
    beside.write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    beside.replace(workspace.folder / _MARKER)


def _called(protocol: Protocol) -> str:
    """What `load_protocol` finds it by: the id of a shipped one, else its file."""
    return protocol.id if protocol.id in shipped_protocols() else str(protocol.path.absolute())


def open_store(governance: Governance, workspace: Path) -> LinkageStore:
    """The linkage store of the study; a new one is made where there is none and the workspace has none yet.

    Raises:
        ConfigError: wrong key, another study or store, or it overlaps with workspace or staging.
    """
    refuse_overlap(governance.linkage, [("workspace", workspace), ("staging folder", governance.staging)])
    _refuse_within(governance.staging, workspace)
    folder = governance.linkage
    protocol = governance.protocol
    before = study_of(workspace)
    if not folder.exists() or not any(folder.iterdir()):
        if before is not None:
            raise ConfigError(
                f"--linkage {folder} holds no linkage store, but {workspace} was made with one ({before.linkage}); "
                "give that one, or where it was moved to"
            )
        return LinkageStore.create(
            folder,
            study=protocol.id,
            key_source=governance.key,
            custodian=protocol.custodian.office,
            actor=governance.actor,
            purpose=governance.purpose,
            workspace=workspace,
            exports=[governance.staging],
            patient_prefix=protocol.codes.patient_prefix,
            digits=protocol.codes.digits,
        )
    opened = LinkageStore.open(
        folder, key_source=governance.key, study=protocol.id, workspace=workspace, exports=[governance.staging]
    )
    if before is not None and before.study == protocol.id:
        check_store(before, opened)
    return opened


def _refuse_within(staging: Path, workspace: Path) -> None:
    real, study = staging.resolve(), workspace.resolve()
    if real == study or real.is_relative_to(study) or study.is_relative_to(real):
        raise ConfigError(
            f"the staging folder {staging} and the workspace {workspace} overlap; the staging folder holds the "
            "hospital's own ids and texts and must lie apart"
        )


# --- who is out -------------------------------------------------------------------------------------------------------


def people_out(governance: Governance) -> pl.DataFrame:
    """Everyone who has refused: site, patient_id, effect, reason, number."""
    listed = [governance.refusals.rows.select("site", "patient_id")]
    if governance.persons is not None:
        listed.append(governance.persons.select("site", "patient_id"))
    everyone = pl.concat(listed).unique(maintain_order=True)
    applied = apply_refusals(
        everyone, governance.refusals.rows, governance.protocol, today=governance.today, persons=governance.persons
    )
    return applied.excluded


def refusals_of_parts(out: pl.DataFrame, parts: int) -> dict[int, list[str]]:
    """Part -> who of it is out, as texts to make a signature of."""
    found: dict[int, list[str]] = {}
    for site, patient, effect in out.select("site", "patient_id", "effect").iter_rows():
        found.setdefault(part_of(site, patient, parts), []).append(f"{site}/{patient}/{effect}")
    return {part: sorted(said) for part, said in found.items()}


@dataclass(frozen=True)
class Withdrawn:
    """Who was taken out of a workspace at the beginning of a run.

    Attributes:
        removed: rows by table, and what a search found afterwards.
        shipped: bundle, recipient, shipped_on, patient_code, received: hand-overs that hold somebody who is out.
        doubtful, set_aside: rows of the list that were read in favour of the person, and that name nobody.
        missed: requests of hospitals that neither the archive nor the protocol has, and that lack zeros.
    """

    removed: Removed
    shipped: pl.DataFrame
    doubtful: int
    set_aside: int
    missed: Missed


def withdraw(workspace: Workspace, raw: RawStore, governance: Governance, store: LinkageStore) -> Withdrawn:
    """Take everyone who has refused out of all tables and off the disk, and say who holds a bundle with them.

    Earlier versions of the tables can no longer be read where somebody was removed: they held that person. People who
    are on hold are left out of what the run makes, but what is known of them is not deleted yet.
    """
    actor, purpose = governance.actor, governance.purpose
    codes = patients_of(store.all_codes("patient", actor=actor, purpose=purpose))
    rows, persons = governance.refusals.rows, governance.persons
    meant, same = by_codes(rows, persons, codes)
    there = people_there(workspace, [raw])
    people = people_to_remove(workspace, [raw], meant, governance.protocol, today=governance.today, persons=same)
    removed = remove_people(workspace, [raw], people, held=True)
    if removed.rows["removed"].sum():
        known = set(codes["patient_code"])
        store.log.append(
            actor=actor,
            action="withdraw",
            purpose=purpose,
            records=[code for code in removed.patients if code in known],
            details={name.replace("/", "_"): count for name, count, _ in removed.rows.iter_rows()},
        )
    standing = standing_refusals(rows, governance.protocol, today=governance.today)
    handed = shipped_of(store, actor=actor, purpose=purpose)
    return Withdrawn(
        removed=removed,
        shipped=shipped_with(standing, handed, codes, persons=persons),
        doubtful=governance.refusals.doubtful.height,
        set_aside=governance.refusals.quarantine.height,
        missed=missed(rows, governance.protocol, there, persons=persons),
    )


def shipped_of(store: LinkageStore, *, actor: str, purpose: str) -> pl.DataFrame:
    """What was handed over, columns of `SHIPPED`."""
    try:
        return store.get("shipped", actor=actor, purpose=purpose).cast(SHIPPED)
    except InputError:
        return pl.DataFrame(schema=SHIPPED)


def read_table_of_store(store: LinkageStore, name: str, schema: pl.Schema, *, actor: str, purpose: str) -> pl.DataFrame:
    """A table that was put into the store part by part."""
    parts = [one for one in store.tables() if one.startswith(f"{name}_")]
    tables = [store.get(one, actor=actor, purpose=purpose).select(schema.names()).cast(schema) for one in parts]
    return pl.concat([pl.DataFrame(schema=schema), *tables])


def in_study(workspace: Workspace) -> pl.DataFrame:
    """The exams of a study with their kind and tracer (columns of `EXAMS` and `COHORT`)."""
    return workspace.read("exams").join(workspace.read("cohort"), on="exam_id", how="inner", maintain_order="left")


# --- one part ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Governed:
    """The tables of one part as the study may hold them.

    Attributes:
        assembled: exams, reports and records with codes; the quarantine and the attrition of this stage behind those
            of the assembly.
        cohort: columns of `COHORT`.
    """

    assembled: Assembled
    cohort: pl.DataFrame


def govern(assembled: Assembled, part: int, governance: Governance, store: LinkageStore) -> Governed:
    """Let the protocol act on the tables of one part.

    Offsets of the masked texts and the pictures of the exams go into the linkage store.
    """
    protocol = governance.protocol
    refused = refuse_in_tables(
        {"exams": assembled.exams, "reports": assembled.reports, "records": assembled.records},
        governance.refusals.rows,
        protocol,
        today=governance.today,
        persons=governance.persons,
    )
    chosen = select_cohort(
        refused.tables["exams"],
        refused.tables["reports"],
        refused.tables["records"],
        protocol,
        prior=governance.prior,
        visits=governance.visits,
    )
    steps = pl.concat([refused.attrition, chosen.attrition])
    kept = {
        "exams": keep_items("exams", chosen.exams.select(EXAMS.names()), protocol)[0].cast(EXAMS),
        "reports": keep_items("reports", chosen.reports, protocol)[0].cast(REPORTS),
        "records": keep_items("records", chosen.records, protocol)[0].cast(RECORDS),
    }
    coded = _coded(kept, chosen.exams, part, governance, store)
    names = coded.names.select("exam_id", "code")
    cohort = (
        chosen.exams.select("exam_id", "kind", *(one for one in _TRACER if one in chosen.exams.columns))
        .with_columns(pl.lit(None, dtype=pl.String).alias(one) for one in _TRACER if one not in chosen.exams.columns)
        .join(names, on="exam_id", how="left", maintain_order="left")
        .select(exam_id="code", kind="kind", tracer_id="tracer_id", tracer_source="tracer_source")
        .cast(COHORT)
    )
    attrition = pl.concat([assembled.attrition, _attrition(steps)])
    return Governed(
        Assembled(
            coded.tables["exams"], coded.tables["reports"], coded.tables["records"], assembled.quarantine, attrition
        ),
        cohort,
    )


_TRACER = ("tracer_id", "tracer_source")


def _attrition(steps: pl.DataFrame) -> pl.DataFrame:
    """The steps of the study as rows of the workspace's attrition table."""
    rows: list[tuple[str, str, str, str, int]] = []
    for (stage, table), of_table in steps.group_by("stage", "table", maintain_order=True):
        rows.append((str(stage), str(table), "in", "", int(of_table["rows_in"][0])))
        rows += [
            (str(stage), str(table), "excluded", f"{reason} ({number})", int(excluded))
            for reason, number, excluded in of_table.select("reason", "number", "excluded").iter_rows()
            if excluded
        ]
        rows.append((str(stage), str(table), "out", "", int(of_table["rows_out"][-1])))
    return pl.DataFrame(rows, schema=ATTRITION, orient="row")


@dataclass(frozen=True)
class _Coded:
    tables: Mapping[str, pl.DataFrame]
    names: pl.DataFrame


def _coded(
    tables: Mapping[str, pl.DataFrame], exams: pl.DataFrame, part: int, governance: Governance, store: LinkageStore
) -> _Coded:
    """Codes for ids, moved dates, masked texts, keyed UIDs."""
    from reportlabel.deidentify.dicom import pseudo_uid

    actor, purpose = governance.actor, governance.purpose
    people = (
        pl.concat([tables["exams"].select("site", "patient_id"), tables["records"].select("site", "patient_id")])
        .unique(maintain_order=True)
        .sort("site", "patient_id")
    )
    keys = [patient_key(site, patient) for site, patient in people.iter_rows()]
    patients = people.with_columns(
        _code=store.issue("patient", keys, actor=actor, purpose=purpose)["code"] if keys else pl.lit("")
    )
    shifts = _shifts(patients["_code"], governance, store)
    patients = patients.join(shifts, on="_code", how="left")
    codes = {
        kind: _issue(kind, tables[f"{kind}s"][f"{kind}_id"], store, governance) for kind in ("exam", "report", "record")
    }
    patient_of_exam = tables["exams"].select("exam_id", "site", "patient_id", exam_day="started_at")
    reports = (
        tables["reports"]
        .join(patient_of_exam, on="exam_id", how="left", maintain_order="left")
        .join(patients, on=["site", "patient_id"], how="left", maintain_order="left")
    )
    masker = _masker(patients, exams, governance, store)
    masked_reports = mask_table(
        reports.with_row_index("_row").with_columns(pl.col("_row").cast(pl.String)),
        masker,
        id_column="_row",
        patient_column="_code",
        day_column="exam_day",
    )
    records = tables["records"].join(patients, on=["site", "patient_id"], how="left", maintain_order="left")
    masked_records = mask_table(records, masker, id_column="record_id", patient_column="_code", day_column="start_at")
    named_records = _masked_names(masked_records.table, _RECORD_NAMES, masker, day="start_at")
    images = exams.select("exam_id", "site", "study_instance_uid", "accession_number", "started_at")
    store.put(
        f"images_{part:04}",
        _renamed(images, "exam_id", codes["exam"]).cast(IMAGES),
        actor=actor,
        purpose=purpose,
    )
    offsets = masked_reports.offsets.join(
        masked_reports.table.select(report_id="_row", _id="report_id", version="version"), on="report_id", how="left"
    )
    offsets = offsets.with_columns(report_id=pl.col("_id")).drop("_id")
    store.put(f"offsets_{part:04}", _renamed(offsets, "report_id", codes["report"]), actor=actor, purpose=purpose)
    of_exams = tables["exams"].join(patients, on=["site", "patient_id"], how="left", maintain_order="left")
    of_exams = _masked_names(of_exams, _EXAM_NAMES, masker, day="started_at")
    uids = {
        uid: pseudo_uid(store.uid_key, uid) for uid in of_exams["study_instance_uid"].drop_nulls().unique().to_list()
    }
    top = governance.protocol.deid.age_top
    made = {
        "exams": _renamed(_moved(of_exams, "exams"), "exam_id", codes["exam"])
        .with_columns(
            patient_id="_code",
            study_instance_uid=pl.col("study_instance_uid").replace_strict(uids, default=None, return_dtype=pl.String),
            accession_number=pl.lit(None, dtype=pl.String),
            age_years=pl.col("age_years").clip(upper_bound=top),
        )
        .select(EXAMS.names())
        .cast(EXAMS),
        "reports": _renamed(
            _renamed(_moved(masked_reports.table, "reports"), "report_id", codes["report"]), "exam_id", codes["exam"]
        )
        .select(REPORTS.names())
        .cast(REPORTS),
        "records": _renamed(_moved(_without_numbers(named_records), "records"), "record_id", codes["record"])
        .with_columns(patient_id="_code")
        .select(RECORDS.names())
        .cast(RECORDS),
    }
    # in the order of codes nothing of the order in the archive is left
    ordered = {name: table.sort(table.columns[0]) for name, table in made.items()}
    return _Coded(ordered, codes["exam"].rename({"original": "exam_id"}))


_EXAM_NAMES = ("order_name", "protocol_name", "body_part", "contrast_agent", "tracer")
_RECORD_NAMES = ("name", "body_site")
_FROM_CATALOGUES = ("lab", "medication")
"""Kinds of records whose names come from the catalogues of laboratory and pharmacy."""


def _masked_names(table: pl.DataFrame, columns: Sequence[str], masker: Deidentifier, *, day: str) -> pl.DataFrame:
    """Short texts that somebody may have typed a name or number into, masked as the long ones are."""
    typed = table if "kind" not in table.columns else table.filter(~pl.col("kind").is_in(_FROM_CATALOGUES))
    for column in columns:
        pairs = typed.select(column, "_code", pl.col(day).dt.date().alias("_day")).drop_nulls(column).unique()
        hidden = [
            (text, code, on, masked)
            for text, code, on in pairs.iter_rows()
            if (masked := masker.mask(text, patient=code, exam_day=on, signed=False).text) != text
        ]
        if hidden:
            key = [column, "_code", "_day"]
            schema = {column: pl.String, "_code": pl.String, "_day": pl.Date, "_masked": pl.String}
            found = pl.DataFrame(hidden, schema=schema, orient="row")
            table = (
                table.with_columns(_day=pl.col(day).dt.date())
                .join(found, on=key, how="left", nulls_equal=True, maintain_order="left")
                .with_columns(pl.coalesce("_masked", column).alias(column))
                .drop("_day", "_masked")
            )
    return table


def _without_numbers(records: pl.DataFrame) -> pl.DataFrame:
    """The code of a pathology record that is of no code system is the number of the specimen: it leads to the patient.

    Every reader of archives puts it there, so that specimens can be told apart; no rule on records reads it.
    """
    number = (pl.col("kind") == "pathology") & (pl.col("code_system").fill_null("local") == "local")
    return records.with_columns(
        pl.when(number).then(None).otherwise(pl.col(name)).alias(name) for name in ("code_system", "code")
    )


def _issue(kind: str, ids: pl.Series, store: LinkageStore, governance: Governance) -> pl.DataFrame:
    """Columns original, code."""
    distinct = ids.unique(maintain_order=True).to_list()
    if not distinct:
        return pl.DataFrame(schema={"original": pl.String, "code": pl.String})
    return store.issue(kind, distinct, actor=governance.actor, purpose=governance.purpose)  # type: ignore[arg-type]


def _renamed(table: pl.DataFrame, column: str, codes: pl.DataFrame) -> pl.DataFrame:
    return (
        table.join(codes.rename({"original": column, "code": "_to"}), on=column, how="left", maintain_order="left")
        .with_columns(pl.col("_to").alias(column))
        .drop("_to")
    )


def _shifts(codes: pl.Series, governance: Governance, store: LinkageStore) -> pl.DataFrame:
    """Columns _code, _shift: by how much the dates of a patient move; nothing where dates are kept."""
    moved: list[timedelta | None] = [None] * len(codes)
    if governance.dates != "keep":
        policy = DatePolicy("shift", key=store.date_key)
        moved = [policy.shift_of(code) for code in codes]
    return pl.DataFrame({"_code": codes, "_shift": pl.Series(moved, dtype=pl.Duration("us"))})


def _moved(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """Dates of the columns moved with their patient, so that windows and intervals stay true."""
    return table.with_columns(
        (pl.col(column) + pl.col("_shift").fill_null(pl.duration(days=0))).alias(column) for column in _DATES[name]
    )


def _masker(
    patients: pl.DataFrame,
    exams: pl.DataFrame,
    governance: Governance,
    store: LinkageStore,
) -> Deidentifier:
    dates = governance.dates
    known = None
    if governance.known is not None:
        known = governance.known.join(patients, on=["site", "patient_id"], how="semi")
    numbers: Iterable[str | None] = [*patients["patient_id"], *exams["accession_number"]]
    rules, normaliser = _text_rules()
    return Deidentifier(
        rules,
        known=KnownNames.from_tables(
            known, staff=governance.staff, identifiers=[("id", number) for number in numbers if number]
        ),
        date_policy=DatePolicy(dates, key=store.date_key) if dates == "shift" else DatePolicy(dates),
        profile=governance.profile,
        normaliser=normaliser,
    )


@cache
def _text_rules() -> tuple[TextRules, Normaliser]:
    """Read once a process: every part needs them."""
    folder = rules_folder()
    return load_text_rules(), Normaliser.from_rules(parse(read_yaml(folder / "normalise.yaml"), NormaliseRules))
