"""The study protocol: one schema for all studies, a file that says what a study may do, and the gate that obeys it.

A protocol file is rules/protocols/<study>.yaml. Where the public notice of a study contradicts itself or is silent,
the file must hold a decision: rules/protocols/gaps.yaml lists each gap with its number, what the notice says and the
key that answers it, and a file without the key or without the reason for its value does not load.

A hospital does not copy a protocol: its file says ``extends: STUDY`` and holds only what differs (sites, custodian,
recipients, decisions). Mappings are merged key by key, lists are replaced as a whole.

    protocol = load_protocol("keio_2017_0018")
    protocol.gate("export", today=date.today(), recipient="joint_laboratory", purpose="model_training",
                  deliverable="teacher_labels")
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import polars as pl
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator, model_validator

from reportlabel.errors import ConfigError, RefusedError
from reportlabel.link.windows import Choice
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Name, Strict
from reportlabel.rulebook.read_yaml import Document, Location, parse, read_yaml
from reportlabel.schema import EXAMS, RECORDS, REPORTS

__all__ = [
    "Action",
    "DecidedGap",
    "Gap",
    "Permission",
    "Protocol",
    "RefusedError",
    "anniversary",
    "days_left",
    "load_protocol",
    "shipped_protocols",
]


Action = Literal["ingest", "run", "review", "export", "export_linkage", "lookup", "withdraw", "destroy"]
Profile = Literal["pseudonymised", "anonymised"]
"""pseudonymised: 仮名加工; anonymised: 匿名加工 (no linking codes, no rare values)."""
Dates = Literal["keep", "shift", "relative"]
Level = Literal["pseudonymised", "anonymised", "aggregate"]
Role = Literal["internal", "joint", "contractor", "cloud", "addressee"]
RecordKind = Literal["pathology", "lab", "physiology", "surgery", "diagnosis", "medication"]
ModalityClass = Literal["CT", "MRI", "US", "XR", "RF", "XA", "NM", "RT", "OT"]
Relation = Literal[
    "patient",
    "agent",
    "spouse",
    "parent",
    "sibling",
    "child",
    "grandchild",
    "grandparent",
    "cohabiting_relative",
    "close_relative",
]
Case = Literal["deceased", "lacks_capacity", "unconscious", "disclosure_discretion", "minor"]
Rule = Literal[
    "validity",
    "dates",
    "sites",
    "kinds",
    "sex",
    "age",
    "prior_study",
    "count",
    "tracer",
    "finding_margin",
    "conditions",
    "completeness",
    "items",
    "refusal",
    "requester",
    "across_sites",
    "cutoff",
    "recipient",
    "purpose",
    "deliverable",
    "profile",
    "channel",
    "network",
    "linkage",
    "lookup",
    "reuse",
    "retention",
    "clearance",
    "custodian",
]
"""What a refusal or an exclusion can rest on; ``numbers`` of a file says which requirement that is in this study."""

Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
TagText = Annotated[str, Field(pattern=r"^\([0-9A-F]{4},[0-9A-F]{4}\)$")]

# from the least to the most that a recipient can learn of a person
_LEVELS: tuple[Level, ...] = ("aggregate", "anonymised", "pseudonymised")
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_TABLES: Mapping[str, pl.Schema] = {"exams": EXAMS, "reports": REPORTS, "records": RECORDS}
_KEYS = frozenset({"exam_id", "report_id", "record_id", "patient_id", "site", "kind", "version", "status"})
"""Columns that join and sort the tables; they hold codes and no content, so that the allow-list need not name them."""


def _first_day(value: object) -> object:
    found = _MONTH.fullmatch(value) if isinstance(value, str) else None
    return f"{value}-01" if found else value


def _last_day(value: object) -> object:
    found = _MONTH.fullmatch(value) if isinstance(value, str) else None
    if not found or not 1 <= int(found[2]) <= 12:
        return value
    return f"{value}-{calendar.monthrange(int(found[1]), int(found[2]))[1]:02d}"


FromDay = Annotated[date, BeforeValidator(_first_day)]
"""A day, or a month that stands for its first day."""
ToDay = Annotated[date, BeforeValidator(_last_day)]
"""A day, or a month that stands for its last day; periods include it."""


def anniversary(day: date, years: int) -> date:
    """The same day so many years later; 29 February becomes the 28th where there is none."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)


# --- cohort -----------------------------------------------------------------------------------------------------------


class StudySite(Strict):
    """A hospital that takes part, as the archive calls it, and its own dates where they differ.

    ``names``: further names under which a list of refusals may call it.
    """

    id: Text
    name: Name | None = None
    names: tuple[Text, ...] = ()
    since: Annotated[FromDay | None, Field(alias="from")] = None
    to: ToDay | None = None


class ExamKind(Strict):
    """Exams that belong to the study. An exam is of a kind if it meets every key that is given.

    ``words``: one of them stands in the name of the order, protocol, body part or tracer; ``not_words``: none does.
    ``modalities``: DICOM codes. ``defining``: where a kind is, only people with an exam of such a kind take part.
    """

    id: Id
    name: Name
    modality_classes: tuple[ModalityClass, ...] = ()
    modalities: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2,16}$")], ...] = ()
    words: tuple[Text, ...] = ()
    not_words: tuple[Text, ...] = ()
    defining: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.modality_classes or self.modalities or self.words):
            raise ValueError("give modality_classes, modalities or words")
        return self


class Tracer(Strict):
    """A tracer by its names, in exams, orders and reports. The first tracer of the list with a name in a text is it."""

    id: Text
    words: Annotated[tuple[Text, ...], Field(min_length=1)]


class Ages(Strict):
    """Years at the exam, both ends included."""

    min: int | None = None
    max: int | None = None


class Margin(Strict):
    """How many of each group the study plans."""

    by: Literal["tracer", "finding"]
    groups: dict[str, Count]


class Cohort(Strict):
    """Whose exams: dates (both ends included), hospitals, kinds of exam, sex, age, numbers, an earlier study.

    ``date_field``: exam: the exam lies in the period; visit: any visit of the patient does. ``cells``: what is done
    where only margins are planned. ``complete_items``: columns that must not be empty for a person to count as usable.
    """

    since: Annotated[FromDay, Field(alias="from")]
    to: ToDay
    date_field: Literal["exam", "visit"] = "exam"
    sites: Annotated[tuple[StudySite, ...], Field(min_length=1)]
    kinds: Annotated[tuple[ExamKind, ...], Field(min_length=1)]
    sex: tuple[Literal["M", "F"], ...] = ()
    age: Ages = Ages()
    count_unit: Literal["persons", "exams", "images", "records"] = "persons"
    expected: Count | None = None
    exact: bool = False
    tracers: tuple[Tracer, ...] = ()
    tracer_weeks: bool = False
    margins: tuple[Margin, ...] = ()
    cells: Literal["report_only"] | dict[str, Count] = "report_only"
    prior_study_ids: tuple[Text, ...] = ()
    complete_items: tuple[Text, ...] = ()
    complete_expected: Count | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.since > self.to:
            raise ValueError("'from' is later than 'to'")
        for name, ids in (("sites", [one.id for one in self.sites]), ("kinds", [one.id for one in self.kinds])):
            if len(set(ids)) < len(ids):
                raise ValueError(f"{name}: an id stands twice")
        known = {one.id for one in self.tracers}
        for margin in self.margins:
            if margin.by == "tracer" and set(margin.groups) != known:
                raise ValueError("margins by tracer must have a number for each of 'tracers' and no other")
        return self

    def period(self, site: str) -> tuple[date, date]:
        """First and last day of the exams of a hospital."""
        for one in self.sites:
            if one.id == site:
                return one.since or self.since, one.to or self.to
        return self.since, self.to


# --- items ------------------------------------------------------------------------------------------------------------


class Item(Strict):
    """One item of information that the notice lists, and the columns that hold it.

    ``says``: the words of the notice. ``kinds``: of records. ``table``: one of ours, or elsewhere: images, linkage.
    """

    says: Text
    table: Literal["exams", "reports", "records", "images", "readings", "linkage"]
    columns: tuple[str, ...] = ()
    kinds: tuple[RecordKind, ...] = ()

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        known = _TABLES.get(self.table)
        unknown = sorted(set(self.columns) - set(known)) if known is not None else []
        if unknown:
            raise ValueError(f"the table {self.table} has no column {', '.join(unknown)}")
        if self.kinds and self.table != "records":
            raise ValueError("kinds belong to the table records")
        if self.table == "records" and not self.kinds:
            raise ValueError("name the kinds of records")
        return self


# --- refusals ---------------------------------------------------------------------------------------------------------


class Requesters(Strict):
    """People who may refuse. ``cases``: the request counts only in one of them. ``adult``: minors may not."""

    id: Id
    relations: Annotated[tuple[Relation, ...], Field(min_length=1)]
    cases: tuple[Case, ...] = ()
    adult: bool = False


class OptOut(Strict):
    """Refusals: their scopes, who may refuse, up to when a refusal undoes everything.

    ``unentitled``: a request by someone the notice does not name is held (the patient stays out until the office has
    decided) or set aside (the patient stays in; the request is listed). ``across_sites``: a request received at any
    hospital counts for all. ``after_cutoff``: what a refusal received on or after ``cutoff`` does: remove like any
    other, or keep out of later exports only.
    """

    scopes: Annotated[tuple[Literal["all_research", "study"], ...], Field(min_length=1)]
    requesters: Annotated[tuple[Requesters, ...], Field(min_length=1)]
    unentitled: Literal["hold", "set_aside"] = "hold"
    across_sites: bool = True
    cutoff: date | None = None
    after_cutoff: Literal["remove", "later_exports"] = "remove"


# --- de-identification, linkage, retention ----------------------------------------------------------------------------


class Deid(Strict):
    """What leaves the hospital's own data behind. ``profile`` and ``dates``: one for all, or one a deliverable.

    ``legal_level``: what the result is in law; with a linkage table it is never anonymised (APPI, rule 34).
    ``k``: counts of persons below it are not published. ``age_top``: ages above are given as this one and more.
    """

    profile: Profile | dict[Id, Profile]
    dates: Dates | dict[Profile, Dates]
    legal_level: Profile
    k: Annotated[int, Field(ge=1)] = 5
    age_top: int = 90


class Dicom(Strict):
    """Which tag policy (rules/dicom/<policy>.yaml), and the answers the notice leaves open."""

    policy: Id
    default_action: Literal["ps3_15_basic", "remove", "keep"] = "ps3_15_basic"
    fixed_strings: dict[TagText, Text] = Field(default_factory=dict)
    uid_policy: Literal["replace", "keep_logged"] = "replace"


class Codes(Strict):
    """Random codes of patients: letters before the digits, and the DICOM tags that hold the code."""

    patient_prefix: Annotated[str, Field(pattern=r"^[A-Z]{1,8}-?$")]
    digits: Annotated[int, Field(ge=6, le=20)] = 10
    patient_code_tags: tuple[TagText, ...] = ()


class Linkage(Strict):
    """The table of codes: whether there is one, which identifiers it may hold, where it lies, until when."""

    keep: bool
    fields: tuple[Text, ...] = ()
    place: Text | None = None
    offline: bool = False
    destroy_on: date | None = None


class Retention(Strict):
    """When the data are destroyed: at a day, or years after the end of the study or after the publication."""

    basis: Literal["fixed", "study_end", "publication"]
    until: date | None = None
    years: Count | None = None
    published_on: date | None = None
    linkage_destroy_on: date | None = None
    recipient_copy: Literal["none", "destroyed_with_original", "destroyed_at_validity_end"] = "none"
    methods: tuple[Literal["erase_keys", "delete_files", "erase_media", "shred_paper"], ...] = (
        "erase_keys",
        "delete_files",
    )
    locked: bool = False

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.basis == "fixed" and self.until is None:
            raise ValueError("basis fixed needs 'until'")
        if self.basis != "fixed" and self.years is None:
            raise ValueError(f"basis {self.basis} needs 'years'")
        return self


# --- who gets what ----------------------------------------------------------------------------------------------------


class Recipient(Strict):
    """Who may get data, as what, for what, how much of it, and where it goes.

    ``hosts``: names of hosts it may be sent to over the network; none: by hand or post only.
    """

    id: Id
    name: Name
    role: Role
    purposes: Annotated[tuple[Id, ...], Field(min_length=1)]
    data_level: Level
    domestic: bool = True
    hosts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], ...] = ()
    until: date | None = None


class Deliverable(Strict):
    """What the study makes. ``internal``: it never leaves the hospital."""

    id: Id
    kind: Literal[
        "labels", "retrieval_list", "exam_table", "dose_summary", "dicom", "excel", "images", "index", "comparison",
        "annotations", "report",
    ]  # fmt: skip
    internal: bool = False


class Custodian(Strict):
    """The one office that keeps the linkage table (never a person's name)."""

    office: Text
    contact: str | None = None


class Validity(Strict):
    """First and last day on which the study may work with the data; ``approval``: the number of the approval."""

    since: Annotated[FromDay, Field(alias="from")]
    to: ToDay
    approval: str | None = None


class Transfer(Strict):
    """How data are handed over, in volumes of so many megabytes."""

    channel: Literal["none", "by_hand", "post", "https"]
    encrypted: bool = True
    volume_mb: int | None = None


class Security(Strict):
    """``network``: offline, or the hosts of the list; this machine itself is always allowed."""

    network: Literal["offline", "listed"]
    hosts: tuple[Annotated[str, Field(pattern=r"^[a-z0-9.-]+$")], ...] = ()
    encrypted_at_rest: bool = True


class Condition(Strict):
    """A result of one software for one tracer. Values of different conditions are never pooled."""

    number: Annotated[int, Field(ge=1)]
    tracer: Text
    software: Text
    version: str | None = None
    metric: Text


class Analyses(Strict):
    """Software comparison: its conditions, and how several readers become one."""

    conditions: Annotated[tuple[Condition, ...], Field(min_length=1)]
    readers: Count | None = None
    consensus: Literal["majority", "median", "all", "any"] = "majority"


class Excel(Strict):
    """The sheet of the bone scan study."""

    eod_missing_token: Text
    required: tuple[Text, ...] = ()
    optional: tuple[Text, ...] = ()
    height_unit: Literal["m", "cm"] = "m"


class ImageClearance(Strict):
    """Pictures of people: nothing leaves that a person has not looked at. ``rubric``: when a picture identifies."""

    required: bool = True
    rubric: Annotated[tuple[Text, ...], Field(min_length=1)]


class Reuse(Strict):
    """Data collected for another study may be used in this one: its opt-out notice and approval."""

    study: Text
    notice_published_on: date
    approval: Text


class Incidental(Strict):
    """Findings that matter to a patient: told by nobody, or through the custodian to those who wished it."""

    disclose: Literal["never", "through_custodian"]


class WindowChange(Strict):
    """A link window of this study, by the id of its rule; what is not given stays. null: without end."""

    before: int | None = None
    after: int | None = None
    choice: Choice | None = None
    reason: Text


class Decision(Strict):
    """Why the value at the key of a gap was chosen, by which office, when."""

    reason: Text
    decided_by: Text
    decided_on: date


# --- gaps -------------------------------------------------------------------------------------------------------------


class Gap(Strict):
    """A contradiction or silence of a notice: what it says, which keys answer it.

    ``if_true``: keys that are needed too where the first of ``keys`` is true.
    """

    number: Annotated[str, Field(pattern=r"^[A-Z]+C\d+$")]
    says: Text
    keys: Annotated[tuple[str, ...], Field(min_length=1)]
    if_true: tuple[str, ...] = ()


class _Gaps(Strict):
    notices: dict[str, tuple[Gap, ...]]


class DecidedGap(Strict):
    """A gap and its answer, for manifests."""

    number: str
    says: str
    values: dict[str, Any]
    reason: str
    decided_by: str
    decided_on: date


@dataclass(frozen=True)
class Permission:
    """What the gate let through; it goes into the manifest of what was made."""

    study: str
    action: Action
    on: date
    recipient: str | None = None
    purpose: str | None = None
    deliverable: str | None = None
    profile: Profile | None = None
    dates: Dates | None = None
    legal_level: Profile | None = None


@dataclass(frozen=True)
class _Origin:
    """Where a protocol comes from."""

    paths: tuple[Path, ...]
    sha256: str
    gaps: tuple[Gap, ...]
    data: Mapping[str, Any]


# --- the protocol -----------------------------------------------------------------------------------------------------

_AGGREGATE_KINDS = frozenset({"comparison", "dose_summary", "report"})
"""Deliverables that hold numbers over many persons only."""
_NEEDS_A_VALID_STUDY: frozenset[Action] = frozenset({"ingest", "run", "review", "export"})
"""The others must work after the end too: to withdraw, to answer a patient, to destroy."""


class Protocol(Strict):
    """``rules/protocols/<study>.yaml``.

    Attributes:
        id: the study; equal to the file name.
        notice: the public notice it follows; its gaps (gaps.yaml) must be decided.
        names: further names under which a refusal may call the study.
        numbers: rule -> the requirement that a refusal or exclusion by it cites; X1 where none is given.
        purposes: what the data may be used for at all.
        windows: changes to the windows of rules/linked, by rule id.
    """

    id: Id
    notice: Id
    name: Name
    names: tuple[Text, ...] = ()
    numbers: dict[Rule, Annotated[str, Field(pattern=r"^[A-Z]{1,4}\d+$")]]
    validity: Validity
    cohort: Cohort
    items: Annotated[tuple[Item, ...], Field(min_length=1)]
    items_confirmed_by: Text | None = None
    samples: tuple[Text, ...] = ()
    optout: OptOut
    deid: Deid
    codes: Codes
    dicom: Dicom | None = None
    image_clearance: ImageClearance | None = None
    linkage: Linkage
    custodian: Custodian
    retention: Retention
    purposes: Annotated[tuple[Id, ...], Field(min_length=1)]
    recipients: tuple[Recipient, ...]
    deliverables: Annotated[tuple[Deliverable, ...], Field(min_length=1)]
    transfer: Transfer
    security: Security
    reuse: tuple[Reuse, ...] = ()
    incidental: Incidental = Incidental(disclose="never")
    analyses: Analyses | None = None
    excel: Excel | None = None
    label_sets: Annotated[tuple[Id, ...], Field(min_length=1)]
    windows: dict[str, WindowChange] = Field(default_factory=dict)
    decisions: dict[str, Decision] = Field(default_factory=dict)

    _origin: _Origin = PrivateAttr()

    @field_validator("custodian", mode="before")
    @classmethod
    def _one_custodian(cls, value: object) -> object:
        if isinstance(value, list):
            raise ValueError(
                f"exactly one custodian (B23, BC3), {len(value)} are named; choose the office that keeps the table"
            )
        return value

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        problems = [
            *self._recipient_problems(),
            *self._deliverable_problems(),
            *self._linkage_problems(),
            *self._condition_problems(),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _recipient_problems(self) -> list[str]:
        ids = [one.id for one in self.recipients]
        problems = [f"recipients: '{one}' stands twice" for one in sorted({one for one in ids if ids.count(one) > 1})]
        for one in self.recipients:
            if unknown := sorted(set(one.purposes) - set(self.purposes)):
                problems.append(f"recipients: '{one.id}' has the purpose {', '.join(unknown)}, which 'purposes' lacks")
            if not one.domestic and one.role == "cloud":
                problems.append(f"recipients: '{one.id}' is a cloud outside the country")
            if self.security.network == "offline" and one.hosts:
                problems.append(f"recipients: '{one.id}' has hosts, but security.network is offline")
        return problems

    def _deliverable_problems(self) -> list[str]:
        ids = [one.id for one in self.deliverables]
        problems = [f"deliverables: '{one}' stands twice" for one in sorted({one for one in ids if ids.count(one) > 1})]
        if isinstance(self.deid.profile, dict) and set(self.deid.profile) != set(ids):
            problems.append("deid.profile: must name each of 'deliverables' and no other")
        if isinstance(self.deid.dates, dict) and len(self.deid.dates) < len(get_args(Profile)):
            # an export may be anonymised further than planned
            problems.append(f"deid.dates: give one for all, or one each for {' and '.join(get_args(Profile))}")
        kinds = {one.kind for one in self.deliverables}
        for kind, section in (("dicom", self.dicom), ("excel", self.excel), ("images", self.image_clearance)):
            if kind in kinds and section is None:
                problems.append(f"a deliverable is of kind {kind}: the section for it is missing")
        return problems

    def _linkage_problems(self) -> list[str]:
        problems = []
        table, ends = self.linkage, {self.linkage.destroy_on, self.retention.linkage_destroy_on} - {None}
        if table.keep and not ends:
            problems.append("linkage.keep: needs linkage.destroy_on or retention.linkage_destroy_on")
        if len(ends) > 1:
            problems.append("linkage.destroy_on and retention.linkage_destroy_on differ")
        if table.keep and self.deid.legal_level == "anonymised":
            problems.append("deid.legal_level: with a linkage table the data are not anonymised but pseudonymised")
        return problems

    def _condition_problems(self) -> list[str]:
        if self.analyses is None:
            return []
        known = {one.id for one in self.cohort.tracers}
        unknown = sorted({one.tracer for one in self.analyses.conditions} - known)
        return [f"analyses.conditions: no such tracer in the cohort: {', '.join(unknown)}"] if unknown else []

    # --- what it says

    def number(self, rule: Rule) -> str:
        """The requirement that a rule rests on in this study."""
        return self.numbers.get(rule, "X1")

    @property
    def sha256(self) -> str:
        """Hash over the bytes of its files and of the list of gaps."""
        return self._origin.sha256

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self._origin.paths[0]

    @cached_property
    def study_names(self) -> frozenset[str]:
        """Every name under which a refusal may mean this study."""
        return frozenset({self.id, self.notice, self.name.ja, self.name.en, *self.names})

    @property
    def linkage_destroy_on(self) -> date | None:
        """The day on which the table of codes must be gone; None: there is no table."""
        return self.linkage.destroy_on or self.retention.linkage_destroy_on

    def destroy_due(self, *, published_on: date | None = None) -> date | None:
        """The last day of the data; None while it hangs on a publication that has not come.

        Args:
            published_on: overrides ``retention.published_on``.
        """
        keep = self.retention
        if keep.basis == "fixed":
            return keep.until
        start = self.validity.to if keep.basis == "study_end" else published_on or keep.published_on
        return anniversary(start, keep.years or 0) if start else None

    def profile_of(self, deliverable: str) -> Profile:
        """How far a deliverable is de-identified."""
        return self.deid.profile[deliverable] if isinstance(self.deid.profile, dict) else self.deid.profile

    def dates_of(self, profile: Profile) -> Dates:
        """What happens to dates in a profile."""
        return self.deid.dates[profile] if isinstance(self.deid.dates, dict) else self.deid.dates

    def columns_of(self, table: str) -> frozenset[str]:
        """The columns of a table that the study may hold: its keys, and those of the items."""
        listed = {column for item in self.items if item.table == table for column in item.columns}
        schema = _TABLES.get(table)
        return frozenset(listed | (_KEYS & set(schema) if schema is not None else set()))

    def record_kinds(self) -> frozenset[str]:
        """The kinds of records that the study may hold."""
        return frozenset(kind for item in self.items for kind in item.kinds)

    def changed_windows(self) -> dict[str, dict[str, Any]]:
        """Window id -> what this study changes of it (`reportlabel.rulebook.linked.LinkedRules.with_windows`)."""
        return {
            name: change.model_dump(exclude_unset=True, exclude={"reason"}) for name, change in self.windows.items()
        }

    def decided(self) -> list[DecidedGap]:
        """Each gap of the notice with the value chosen and why, for manifests."""
        return [
            DecidedGap(
                number=gap.number,
                says=gap.says,
                values={key: _plain(_at(self._origin.data, key)) for key in _needed(gap, self._origin.data)},
                reason=self.decisions[gap.number].reason,
                decided_by=self.decisions[gap.number].decided_by,
                decided_on=self.decisions[gap.number].decided_on,
            )
            for gap in self._origin.gaps
        ]

    def manifest(self) -> dict[str, Any]:
        """What a manifest says of the protocol: id, hash, period, chosen values with reasons; JSON types only."""
        return {
            "protocol": self.id,
            "notice": self.notice,
            "protocol_sha256": self.sha256,
            "valid_from": self.validity.since.isoformat(),
            "valid_to": self.validity.to.isoformat(),
            "approval": self.validity.approval,
            "decisions": [one.model_dump(mode="json") for one in self.decided()],
        }

    # --- the gate

    def gate(
        self,
        action: Action,
        *,
        today: date,
        recipient: str | None = None,
        purpose: str | None = None,
        deliverable: str | None = None,
        profile: Profile | None = None,
        columns: Mapping[str, Collection[str]] | None = None,
        url: str | None = None,
        channel: str | None = None,
        encrypted: bool = True,
        data_of: str | None = None,
        role: str | None = None,
        published_on: date | None = None,
    ) -> Permission:
        """Let an action through, or refuse it.

        Args:
            action: what is about to happen. ``export`` is any hand-over, also inside the hospital.
            today: the day that counts.
            recipient, purpose, deliverable: of an export, by their ids; the first two are needed. A purpose is needed
                for ``lookup`` too.
            profile: how far the export is de-identified; default: as the protocol says.
            columns: table -> columns that are about to be read or handed over.
            url: where something is sent (review, export).
            channel: how it is handed over, where not over the network.
            encrypted: whether what is handed over is encrypted.
            data_of: the study for which the data were collected; default: this one.
            role: who acts (``custodian`` for lookups).
            published_on: the day of publication, where the end of retention hangs on it.

        Raises:
            RefusedError: names the number of the requirement, what is wrong and what to do.
        """
        if action == "export_linkage":
            raise self._refusal("linkage", "the table of codes never leaves its place; there is no option for it")
        if action in _NEEDS_A_VALID_STUDY:
            self._check_time(today, published_on)
            self._check_origin(data_of, today)
        if columns is not None:
            self._check_columns(columns)
        if action == "lookup":
            self._check_lookup(role, purpose, today)
        if action == "review" and url is not None:
            self._check_host(url, self.security.hosts, "security.hosts")
        if action != "export":
            return Permission(study=self.id, action=action, on=today, purpose=purpose)
        return self._check_export(today, recipient, purpose, deliverable, profile, url, channel, encrypted)

    def check_condition(self, *, tracer: str, software: str, version: str | None, metric: str) -> Condition:
        """The condition of a measured value.

        Raises:
            RefusedError: the software is not licensed for the tracer, or the study does not compare it.
        """
        for one in self.analyses.conditions if self.analyses else []:
            if (one.tracer, one.software, one.version, one.metric) == (tracer, software, version, metric):
                return one
        raise self._refusal(
            "conditions", f"{software} {version or ''} with {tracer} ({metric}) is none of analyses.conditions"
        )

    def _refusal(self, rule: Rule, message: str) -> RefusedError:
        return RefusedError(self.number(rule), message)

    def _check_time(self, today: date, published_on: date | None) -> None:
        valid = self.validity
        if not valid.since <= today <= valid.to:
            raise self._refusal("validity", f"{self.id} is valid from {valid.since} to {valid.to}; today is {today}")
        due = self.destroy_due(published_on=published_on)
        if due is not None and today > due:
            raise self._refusal(
                "retention", f"the data of {self.id} were to be destroyed by {due}; run `reportlabel destroy`"
            )

    def _check_origin(self, data_of: str | None, today: date) -> None:
        if data_of is None or data_of in self.study_names:
            return
        for one in self.reuse:
            if one.study == data_of and one.notice_published_on <= today:
                return
        raise self._refusal(
            "reuse",
            f"the data were collected for {data_of}; to use them in {self.id} needs an approval and an opt-out notice "
            "of its own: add both under 'reuse'",
        )

    def _check_columns(self, columns: Mapping[str, Collection[str]]) -> None:
        for table, names in columns.items():
            if table in _TABLES and (unlisted := sorted(set(names) - self.columns_of(table))):
                raise self._refusal("items", f"'items' does not list {', '.join(unlisted)} of the table {table}")

    def _check_lookup(self, role: str | None, purpose: str | None, today: date) -> None:
        if role != "custodian":
            raise self._refusal("lookup", f"only the custodian ({self.custodian.office}) looks up codes")
        if not purpose:
            raise self._refusal("lookup", "a lookup needs a purpose, which is logged")
        if not self.linkage.keep:
            raise self._refusal("linkage", f"{self.id} keeps no table of codes")
        end = self.linkage_destroy_on
        if end is not None and today > end:
            raise self._refusal(
                "linkage", f"the table of codes was to be destroyed by {end}; run `reportlabel destroy`"
            )

    def _check_host(self, url: str, hosts: Sequence[str], key: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise self._refusal("network", "the address is no URL") from None
        host = (parts.hostname or "").lower()
        if _is_this_machine(host):
            return
        if self.security.network == "offline":
            raise self._refusal("network", "the study works offline; nothing is sent over a network")
        if host not in hosts:
            raise self._refusal("network", f"the host is none of {key}")
        if parts.scheme != "https":
            raise self._refusal("network", "data go to another machine over https only")

    def _check_export(
        self,
        today: date,
        recipient: str | None,
        purpose: str | None,
        deliverable: str | None,
        profile: Profile | None,
        url: str | None,
        channel: str | None,
        encrypted: bool,
    ) -> Permission:
        one = self._recipient(recipient, today)
        if purpose is None or purpose not in one.purposes:
            raise self._refusal("purpose", f"{one.id} may get data for: {', '.join(one.purposes)}; name one of them")
        made = self._deliverable(deliverable, one)
        used: Profile = profile or self.profile_of(made.id)
        if _LEVELS.index(used) > _LEVELS.index(self.profile_of(made.id)):
            raise self._refusal("profile", f"{made.id} is handed over {self.profile_of(made.id)}, not {used}")
        holds: Level = "aggregate" if made.kind in _AGGREGATE_KINDS else used
        if _LEVELS.index(holds) > _LEVELS.index(one.data_level):
            raise self._refusal("recipient", f"{one.id} may get {one.data_level} data only; {made.id} is {holds}")
        if url is not None:
            self._check_host(url, one.hosts, f"the hosts of {one.id}")
        if one.role != "internal":
            self._check_transfer(one, url, channel, encrypted)
        return Permission(
            study=self.id,
            action="export",
            on=today,
            recipient=one.id,
            purpose=purpose,
            deliverable=made.id,
            profile=used,
            dates=self.dates_of(used),
            legal_level=self.deid.legal_level,
        )

    def _recipient(self, recipient: str | None, today: date) -> Recipient:
        listed = ", ".join(one.id for one in self.recipients) or "none"
        if recipient is None:
            raise self._refusal("recipient", f"an export needs a recipient; listed: {listed}")
        for one in self.recipients:
            if one.id == recipient:
                if one.until is not None and today > one.until:
                    raise self._refusal("recipient", f"{recipient} may get data until {one.until}")
                return one
        raise self._refusal("recipient", f"'{recipient}' is not listed; listed: {listed}")

    def _deliverable(self, deliverable: str | None, recipient: Recipient) -> Deliverable:
        listed = ", ".join(one.id for one in self.deliverables)
        for one in self.deliverables:
            if one.id == deliverable:
                if one.internal and recipient.role != "internal":
                    raise self._refusal("deliverable", f"{one.id} never leaves the hospital")
                return one
        raise self._refusal("deliverable", f"'{deliverable}' is none of the deliverables: {listed}")

    def _check_transfer(self, recipient: Recipient, url: str | None, channel: str | None, encrypted: bool) -> None:
        used = channel or ("https" if url is not None else self.transfer.channel)
        if self.transfer.channel == "none":
            raise self._refusal("channel", "nothing is handed over outside the hospital")
        if used != self.transfer.channel:
            raise self._refusal("channel", f"data are handed over by {self.transfer.channel}, not by {used}")
        if self.transfer.encrypted and not encrypted:
            raise self._refusal("channel", "what is handed over must be encrypted")
        if not recipient.domestic:
            raise self._refusal("network", f"{recipient.id} is outside the country")


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# --- loading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Merged:
    """The data of a protocol file with what it extends, and the file and line of every key."""

    paths: tuple[Path, ...]
    data: dict[str, Any]
    lines: dict[Location, tuple[Path, int]]

    def place(self, location: Location) -> str:
        """``file:line`` of the nearest enclosing key."""
        while location and location not in self.lines:
            location = location[:-1]
        path, line = self.lines.get(location, (self.paths[0], 1))
        return f"{path}:{line}"


def _protocols_folder() -> Path:
    return rules_folder() / "protocols"


def shipped_protocols() -> list[str]:
    """The names of the protocols that came with the package."""
    return sorted(path.stem for path in _protocols_folder().glob("*.yaml") if path.stem != "gaps")


def load_protocol(path_or_name: str | Path) -> Protocol:
    """Read a protocol: a shipped one by its name, or a file.

    Raises:
        ConfigError: no such file; an unknown key or a wrong value (file, line, key); a gap of the notice without a
            decision (its number, the key, what the notice says).
    """
    path = _find(path_or_name)
    merged = _read_merged(path, seen=())
    gaps_path = _protocols_folder() / "gaps.yaml"
    notices = parse(read_yaml(gaps_path), _Gaps).notices
    notice = str(merged.data.get("notice"))
    if "notice" in merged.data and notice not in notices and notice != merged.data.get("id"):
        raise ConfigError(
            f"{merged.place(('notice',))}: no notice '{notice}'; known: {', '.join(notices)}. A study of your own has "
            "its id as notice"
        )
    gaps = notices.get(notice, ())
    if problems := _undecided(merged, gaps):
        raise ConfigError("\n".join(problems))
    try:
        protocol = Protocol.model_validate(merged.data)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(merged, error))) from None
    if protocol.id != path.stem:
        raise ConfigError(f"{merged.place(('id',))}: id '{protocol.id}' must equal the file name '{path.stem}'")
    if protocol.dicom is not None and not (rules_folder() / "dicom" / f"{protocol.dicom.policy}.yaml").is_file():
        raise ConfigError(f"{merged.place(('dicom', 'policy'))}: there is no rules/dicom/{protocol.dicom.policy}.yaml")
    sets = rules_folder() / "label_sets"
    for at, name in enumerate(protocol.label_sets):
        if not (sets / f"{name}.yaml").is_file():
            raise ConfigError(f"{merged.place(('label_sets', at))}: there is no label set '{name}'")
    digest = hashlib.sha256()
    for one in (*merged.paths, gaps_path):
        digest.update(one.name.encode() + b"\0" + one.read_bytes() + b"\0")
    protocol._origin = _Origin(merged.paths, digest.hexdigest(), gaps, merged.data)
    return protocol


def _find(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"{path}: no such protocol file")
    shipped = _protocols_folder() / f"{path_or_name}.yaml"
    if path.name == str(path_or_name) and path.name != "gaps" and shipped.is_file():
        return shipped
    raise ConfigError(
        f"no protocol '{path_or_name}'; give a .yaml file or one of: {', '.join(shipped_protocols()) or 'none'}"
    )


def _read_merged(path: Path, seen: tuple[Path, ...]) -> _Merged:
    document = read_yaml(path)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}:1: a protocol is a mapping of keys")
    own = {location: (path, line) for location, line in document.lines.items() if location != ()}
    base_name = document.data.get("extends")
    if base_name is None:
        return _Merged((path,), document.data, own)
    if path.resolve() in seen:
        raise ConfigError(f"{path}:{document.line(('extends',))}: the protocol extends itself")
    beside = path.parent / str(base_name)
    base_path = beside if beside.suffix in (".yaml", ".yml") and beside.is_file() else _find(str(base_name))
    base = _read_merged(base_path, (*seen, path.resolve()))
    return _overlaid(base, document, own)


def _overlaid(base: _Merged, document: Document, own: dict[Location, tuple[Path, int]]) -> _Merged:
    replaced: list[Location] = []
    over = {key: value for key, value in document.data.items() if key != "extends"}
    data = _overlay(base.data, over, (), replaced)
    kept = {
        location: place
        for location, place in base.lines.items()
        if not any(location[: len(prefix)] == prefix for prefix in replaced)
    }
    return _Merged((document.path, *base.paths), data, {**kept, **own})


def _overlay(
    base: Mapping[str, Any], over: Mapping[str, Any], location: Location, replaced: list[Location]
) -> dict[str, Any]:
    """Mappings key by key; anything else, lists too, takes the place of what was there."""
    data = dict(base)
    for key, value in over.items():
        there = base.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            data[key] = _overlay(there, value, (*location, key), replaced)
        else:
            data[key] = value
            replaced.append((*location, key))
    return data


_MISSING = object()


def _at(data: Mapping[str, Any], key: str) -> Any:
    value: Any = data
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _MISSING
        value = value[part]
    return _MISSING if value is None else value


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if value is _MISSING:
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value


def _needed(gap: Gap, data: Mapping[str, Any]) -> tuple[str, ...]:
    return (*gap.keys, *gap.if_true) if _at(data, gap.keys[0]) is True else gap.keys


def _undecided(merged: _Merged, gaps: Sequence[Gap]) -> list[str]:
    """One line a gap that is not answered."""
    problems = []
    decisions = merged.data.get("decisions")
    for gap in gaps:
        for key in _needed(gap, merged.data):
            if _at(merged.data, key) is _MISSING:
                location: Location = tuple(key.split("."))
                problems.append(
                    f"{merged.place(location)}: {gap.number}: key '{key}' is missing. The notice says: {gap.says}. "
                    f"Decide, write the key, and the reason under decisions.{gap.number}"
                )
        if not isinstance(decisions, Mapping) or gap.number not in decisions:
            problems.append(
                f"{merged.place(('decisions',))}: {gap.number}: the reason for '{', '.join(gap.keys)}' is missing. "
                f"The notice says: {gap.says}. Write decisions.{gap.number} with reason, decided_by and decided_on"
            )
    return problems


def _problems(merged: _Merged, error: ValidationError) -> list[str]:
    problems = []
    for one in error.errors():
        location: Location = tuple(one["loc"])
        key = ".".join(str(part) for part in location)
        unknown = one["type"] == "extra_forbidden"
        message = f"unknown key '{location[-1]}'" if unknown else f"{key}: {one['msg']}" if key else one["msg"]
        problems.append(f"{merged.place(location)}: {message}")
    return problems


def days_left(protocol: Protocol, *, today: date, published_on: date | None = None) -> timedelta | None:
    """The time until the data must be destroyed, negative when that day has passed; None while it is not known."""
    due = protocol.destroy_due(published_on=published_on)
    return None if due is None else due - today
