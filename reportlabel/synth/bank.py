"""The bank: the words, states and courses of the synthetic hospital, read from ``bank/`` and compiled.

The bank belongs to the generator alone. It is written from the domain and shares nothing with ``rules/`` but the ids of
label sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from reportlabel.rulebook.models import Name, Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.synth.patient import Site
from reportlabel.synth.template import (
    ABSENT,
    JUDGED,
    PRESENT,
    UNCERTAIN,
    Sequence_,
    TemplateError,
    compile_template,
)

BANK = Path(__file__).with_name("bank")

M = TypeVar("M", bound=Strict)
Words = Annotated[str, BeforeValidator(str)]
Share = Annotated[float, Field(ge=0, le=1)]
Sex = Literal["M", "F"]
Setting = Literal["outpatient", "inpatient", "emergency", "screening"]


def _listed(value: object) -> object:
    return [] if value is None else value if isinstance(value, list) else [value]


Several = Annotated[list[Words], BeforeValidator(_listed)]
Pair = Annotated[
    tuple[float, float], BeforeValidator(lambda value: value if isinstance(value, list) else (value, value))
]


# --- what a patient has -----------------------------------------------------------------------------------------------


class State(Strict):
    """One state; see the head of states.yaml."""

    at: list[dict[str, Words]] = []
    draw: dict[str, list[Words]] = {}
    size: tuple[float, float] | None = None
    count: tuple[int, int] | None = None
    counts: dict[str, tuple[int, int]] = {}
    incidental: dict[Sex, dict[int, Share]] = {}
    fades: tuple[int, int] | None = None
    opposes: list[str] = []
    removes: list[str] = []
    sexes: list[Sex] = ["M", "F"]

    @property
    def attributes(self) -> frozenset[str]:
        """The slots it fills."""
        names = {name for place in self.at for name in place} | set(self.draw)
        names |= {"size", "size_mm", "prior", "changed"} if self.size else set()
        return frozenset(names | ({"count"} if self.count else set()))

    def prevalence(self, sex: str, age: float) -> float:
        """Share of people of this sex and age who have it without knowing: in line between the ages given."""
        known = sorted(self.incidental.get(sex, {}).items())  # type: ignore[call-overload]
        if not known or age < known[0][0]:
            return 0.0
        for (younger, low), (older, high) in pairwise(known):
            if age < older:
                return float(low + (high - low) * (age - younger) / (older - younger))
        return float(known[-1][1])


# --- how an exam is reported ------------------------------------------------------------------------------------------


class Said(Strict):
    """Sentences of a state: first seen, seen again, proven."""

    first: list[Words] = []
    follow: list[Words] = []
    known: list[Words] = []


class Reported(Strict):
    """How one state is reported in one kind of exam."""

    group: str
    seen: Share
    sure: Share = 0.5
    weight: float = 1
    truth: list[str] = []
    first: Annotated[list[Words], Field(min_length=1)]
    follow: list[Words] = []
    known: list[Words] = []
    impression: Said = Said()
    primary: bool = False


class Remark(Strict):
    """Sentences of normal or denied content, and what must not be there."""

    group: str
    unless: list[str] = []
    when: list[str] = []
    chance: Share = 1.0
    say: Annotated[list[Words], Field(min_length=1)]


class ExamKind(Strict):
    """One file of exams/."""

    id: str
    name: Name
    orders: Annotated[list[Words], Field(min_length=1)]
    modality: str
    modality_class: Literal["CT", "MRI", "US", "XR", "RF", "XA", "NM", "OT"]
    body_part: str
    jj1017: Words = ""
    label_sets: list[str]
    contrast: Share = 0.0
    tracer: Several = []
    compare_with: list[str] = []
    groups: Annotated[list[str], Field(min_length=1)]
    indications: dict[str, list[Words]] = {}
    techniques: list[Words] = []
    techniques_contrast: list[Words] = []
    words: dict[str, list[Words]] = {}
    gold: dict[str, dict[str, Any]] = {}
    findings: dict[str, Reported]
    remarks: list[Remark] = []
    normal_findings: list[Words] = []
    normal_impression: list[Words] = []
    sexes: list[Sex] = ["M", "F"]
    advice: list[Words] = []


# --- courses and records ----------------------------------------------------------------------------------------------


class Branch(Strict):
    """One way of several."""

    weight: float = 1
    steps: list[Step] = []


class Step(Strict):
    """One step of a course; its keys are done in this order."""

    after: Pair = (0, 1)
    begin: dict[str, dict[str, Any] | None] = {}
    change: dict[str, dict[str, Any]] = {}
    end: Several = []
    exam: str | None = None
    reason: Several = []
    setting: Setting = "outpatient"
    pathology: Several = []
    prove: Several = []
    diagnose: Several = []
    suspect: Several = []
    resolve: Several = []
    labs: list[str] | dict[str, str] | str = []
    surgery: Several = []
    physiology: Several = []
    start: Several = []
    stop: Several = []
    admit: Pair | None = None
    chance: Share = 1.0
    steps: list[Step] = []
    otherwise: list[Step] = Field(default=[], alias="else")
    one_of: list[Branch] = []
    repeat: tuple[int, int] | None = None


class Ages(Strict):
    """Age at the first step: normal distribution cut off at both ends."""

    mean: float
    sd: float
    min: float
    max: float


class Course(Strict):
    """One course of disease."""

    id: str
    disease: Words
    weight: float
    sex: dict[Sex, float]
    age: Ages
    department: str = "内科"
    steps: list[Step]


class Analyte(Strict):
    """One laboratory test: reference range, and the numbers of each level."""

    name: Words
    jlac10: Words
    unit: Words = ""
    low: float | None = None
    high: float | None = None
    sex_ranges: dict[Sex, tuple[float, float]] = {}
    decimals: int = 1
    values: dict[str, tuple[float, float]]


class Laboratory(Strict):
    """records/laboratory.yaml."""

    analytes: dict[str, Analyte]
    panels: dict[str, dict[str, str]]


class Specimen(Strict):
    """One kind of pathology report."""

    specimen: Words
    method: Words = ""
    about: str | None = None
    organ: str = ""
    diagnosis: list[Words]
    findings: list[Words] = []
    addendum: list[Words] = []


class Operation(Strict):
    """One operation or procedure."""

    name: Words
    k_code: Words
    receipt_code: Words = ""
    about: str | None = None
    organ: str = ""
    notes: list[Words] = []


class Drug(Strict):
    """One drug as it is ordered."""

    name: Words
    yj: Words
    hot9: Words = ""
    receipt_code: Words = ""
    dose: Words = ""
    unit: Words = ""
    usage: Words = ""
    route: Words = "PO"
    days: tuple[int, int] = (14, 56)


class Disease(Strict):
    """One name of the disease master."""

    name: Words
    icd10: Words
    byomei: Words = ""
    exchange: Words = ""


class Measurement(Strict):
    """One physiology test."""

    name: Words
    code: Words
    findings: list[Words]
    values: dict[str, tuple[float, float, Words]] = {}


class Chronic(Strict):
    """A comorbidity that stays: how often at an age, its names, drugs and laboratory levels."""

    share: dict[int, Share]
    diagnoses: list[str]
    drugs: list[str] = []
    labs: dict[str, str] = {}


# --- style, sites, identifiers ----------------------------------------------------------------------------------------


class Layout(Strict):
    """How sections are set."""

    heads: dict[str, str]
    inline: bool = False
    bullet: str = ""
    first: str | None = None


class Era(Strict):
    """A Japanese era."""

    from_: Any = Field(alias="from")
    name: str
    letter: str


class CharacterSet(Strict):
    """Characters that are typed as others."""

    from_: Words = Field(alias="from")
    to: Words


class Styles(Strict):
    """styles.yaml."""

    predicates: dict[str, dict[str, list[Words]]]
    continuing: dict[str, list[Words]]
    changed: dict[str, dict[str, list[Words]]]
    trends: dict[str, dict[str, list[Words]]]
    sizes: dict[str, list[Words]]
    measured: list[Words]
    sections: list[str]
    layouts: dict[str, Layout]
    comparison: list[Words]
    no_comparison: list[Words]
    numbers: dict[str, list[Words]]
    character_sets: dict[str, CharacterSet]
    slips: list[tuple[Words, Words]]
    signatures: list[Words]
    calls: list[Words]
    headers: list[Words]
    addenda: list[Words]
    missed_addendum: list[Words]
    agents: dict[str, list[Words]]
    contrast_words: list[Words]
    requests: list[Words]
    dates: dict[str, list[Words]]
    intervals: dict[str, str]
    eras: list[Era]
    sexes: dict[Sex, str]
    sides: dict[str, str | None]
    opposite: dict[str, str]
    lobes: dict[str, str]


class Reader(Strict):
    """A radiologist and their habits."""

    name: str
    registers: dict[Literal["polite", "plain", "terse"], float]
    verbose: float
    sizes: str
    habits: list[str]
    layouts: list[str]
    wrap: int | None = None


class SiteFile(Strict):
    """One hospital."""

    id: str
    name: str
    english: str
    facility_code: Words
    insurance_number: Words
    address: str
    phone: Words
    weight: float
    dates: str
    departments: list[str]
    layouts: list[str]
    headers: Share
    readers: list[Reader]

    @property
    def site(self) -> Site:
        """What the writers need of it."""
        return Site(
            self.id, self.name, self.english, self.facility_code, self.insurance_number, self.address, self.phone
        )


class Machine(Strict):
    """A scanner."""

    maker: str
    model: str
    station: str


class Sites(Strict):
    """sites.yaml."""

    sites: list[SiteFile]
    machines: dict[str, list[Machine]]
    doses: dict[str, dict[str, tuple[float, float] | None]]
    tracer_dose: dict[str, tuple[float, float]]


def _names(value: object) -> object:
    return [tuple(name.split()) for name in value.split(",")] if isinstance(value, str) else value


Names = Annotated[list[tuple[str, str, str]], BeforeValidator(_names)]


class RefusalShares(Strict):
    """How often, by whom and why people refuse."""

    share: Share
    studies: list[str]
    requesters: list[str]
    cases: list[str]


class Identifiers(Strict):
    """identifiers.yaml."""

    surnames: Names
    given_names: dict[Sex, Names]
    places: dict[str, list[str]]
    streets: list[str]
    house: str
    buildings: list[str]
    area_codes: dict[str, list[Words]]
    other_hospitals: list[str]
    refusals: RefusalShares


class Noise(Strict):
    """noise.yaml: shares of what goes wrong in an archive."""

    report_missing: Share
    report_preliminary: Share
    report_amended: Share
    report_slip: Share
    report_signature: Share
    report_call: Share
    report_wrong_side: Share
    contrast_unknown: Share
    record_missing: Share
    record_late: Share
    record_duplicated: Share
    record_amended: Share
    record_contradicting: Share
    size_unknown: Share
    body_unknown: Share


class Background(Strict):
    """background.yaml: what patients have beside their main course."""

    second_course: Share
    chronic: dict[str, Chronic]


# --- compiled ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sentence:
    """A compiled template, and the labels that it asserts or hedges, and that it denies."""

    source: str
    body: Sequence_
    slots: frozenset[str]
    marks: frozenset[tuple[str, str]]
    positive: frozenset[str]
    negative: frozenset[str]


@dataclass(frozen=True, slots=True)
class Variants:
    """Compiled sentences of one state in one kind of exam."""

    entry: Reported
    first: tuple[Sentence, ...]
    follow: tuple[Sentence, ...]
    known: tuple[Sentence, ...]
    impression_first: tuple[Sentence, ...]
    impression_follow: tuple[Sentence, ...]
    impression_known: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class CompiledRemark:
    """A remark with its compiled sentences."""

    unless: frozenset[str]
    when: frozenset[str]
    chance: float
    say: tuple[Sentence, ...]


@dataclass(frozen=True, slots=True)
class CompiledExam:
    """A kind of exam with everything compiled."""

    kind: ExamKind
    findings: Mapping[str, Variants]
    remarks: Mapping[str, tuple[CompiledRemark, ...]]
    normal_findings: tuple[Sentence, ...]
    normal_impression: tuple[Sentence, ...]
    advice: tuple[Sentence, ...]
    indications: Mapping[str, tuple[Sentence, ...]]
    techniques: tuple[Sentence, ...]
    techniques_contrast: tuple[Sentence, ...]


def without_contrast(exam: CompiledExam, words: Sequence[str]) -> CompiledExam:
    """The exam as it is reported where no contrast medium was given: without sentences that speak of enhancement."""

    def plain(sentences: tuple[Sentence, ...]) -> tuple[Sentence, ...]:
        return tuple(one for one in sentences if not any(word in one.source for word in words)) or sentences

    return replace(
        exam,
        findings={
            state: replace(
                own,
                first=plain(own.first),
                follow=plain(own.follow),
                known=plain(own.known),
                impression_first=plain(own.impression_first),
                impression_follow=plain(own.impression_follow),
                impression_known=plain(own.impression_known),
            )
            for state, own in exam.findings.items()
        },
        remarks={
            group: tuple(replace(one, say=plain(one.say)) for one in remarks) for group, remarks in exam.remarks.items()
        },
        normal_findings=plain(exam.normal_findings),
    )


def labels_of(kind: ExamKind, finding: str, label_set: str, *, denied: bool = False) -> Sequence[str]:
    """The labels of a set that a finding speaks of; a finding without an entry in ``gold`` is its own label."""
    entry = kind.gold.get(finding)
    if entry is None:
        return (finding,)
    if denied and label_set in entry.get("denies", {}):
        return list(entry["denies"][label_set])
    return list(entry.get(label_set, ()))


@dataclass(frozen=True, eq=False)
class Bank:
    """Everything; two banks are the same only if they are one object, so that results can be cached by bank."""

    states: Mapping[str, State]
    exams: Mapping[str, CompiledExam]
    plain_exams: Mapping[str, CompiledExam]
    """The exams for which contrast is given or not, as they are reported without it."""
    courses: Mapping[str, Course]
    laboratory: Laboratory
    pathology: Mapping[str, Specimen]
    surgery: Mapping[str, Operation]
    medication: Mapping[str, Drug]
    diagnosis: Mapping[str, Disease]
    physiology: Mapping[str, Measurement]
    styles: Styles
    sites: Sites
    identifiers: Identifiers
    noise: Noise
    background: Background

    @property
    def site_by_id(self) -> dict[str, Site]:
        """Site id -> what the writers need of it."""
        return {one.id: one.site for one in self.sites.sites}


@cache
def load_bank(folder: Path = BANK, only: str | None = None) -> Bank:
    """Read and compile the bank; with ``only`` one kind of exam and no course, for who edits it.

    Raises:
        ConfigError: a file breaks its model; TemplateError: a sentence cannot be read. Both name the file.
    """
    records = folder / "records"
    styles = parse(read_yaml(folder / "styles.yaml"), Styles)
    exams = {path.stem: _exam(path) for path in sorted((folder / "exams").glob(f"{only or '*'}.yaml"))}
    return Bank(
        states={
            name: state for path in sorted(folder.glob("states*.yaml")) for name, state in _mapping(path, State).items()
        },
        exams=exams,
        plain_exams={
            name: without_contrast(exam, styles.contrast_words)
            for name, exam in exams.items()
            if exam.kind.modality in styles.agents and 0 < exam.kind.contrast < 1
        },
        courses={
            path.stem: parse(read_yaml(path), Course)
            for path in sorted((folder / "courses").glob("*.yaml"))
            if not only
        },
        laboratory=parse(read_yaml(records / "laboratory.yaml"), Laboratory),
        pathology=_mapping(records / "pathology.yaml", Specimen),
        surgery=_mapping(records / "surgery.yaml", Operation),
        medication=_mapping(records / "medication.yaml", Drug),
        diagnosis=_mapping(records / "diagnosis.yaml", Disease),
        physiology=_mapping(records / "physiology.yaml", Measurement),
        styles=styles,
        sites=parse(read_yaml(folder / "sites.yaml"), Sites),
        identifiers=parse(read_yaml(folder / "identifiers.yaml"), Identifiers),
        noise=parse(read_yaml(folder / "noise.yaml"), Noise),
        background=parse(read_yaml(folder / "background.yaml"), Background),
    )


def _mapping(path: Path, model: type[M]) -> dict[str, M]:
    document = read_yaml(path)
    return {
        name: parse(type(document)(path, value or {}, document.lines), model)
        for name, value in (document.data or {}).items()
    }


def _exam(path: Path) -> CompiledExam:
    kind = parse(read_yaml(path), ExamKind)

    def compiled(sources: Sequence[str]) -> tuple[Sentence, ...]:
        try:
            return tuple(compile_sentence(source, kind) for source in sources)
        except TemplateError as error:
            raise TemplateError(f"{path}: {error}") from error

    findings = {
        state: Variants(
            entry=entry,
            first=compiled(entry.first),
            follow=compiled(entry.follow),
            known=compiled(entry.known),
            impression_first=compiled(entry.impression.first),
            impression_follow=compiled(entry.impression.follow),
            impression_known=compiled(entry.impression.known),
        )
        for state, entry in kind.findings.items()
    }
    remarks = {
        group: tuple(
            CompiledRemark(frozenset(one.unless), frozenset(one.when), one.chance, compiled(one.say))
            for one in kind.remarks
            if one.group == group
        )
        for group in kind.groups
    }
    return CompiledExam(
        kind=kind,
        findings=findings,
        remarks=remarks,
        normal_findings=compiled(kind.normal_findings),
        normal_impression=compiled(kind.normal_impression),
        advice=compiled(kind.advice),
        indications={name: compiled(texts) for name, texts in kind.indications.items()},
        techniques=compiled(kind.techniques),
        techniques_contrast=compiled(kind.techniques_contrast),
    )


def compile_sentence(source: str, kind: ExamKind | None = None) -> Sentence:
    """Compile a template with the words of an exam kind, and work out what it says for the label sets of that kind."""
    template = compile_template(source, kind.words if kind else {})
    said: dict[bool, set[str]] = {False: set(), True: set()}
    for status, finding in template.marks:
        if kind is None or status not in (PRESENT, UNCERTAIN, JUDGED, ABSENT):
            continue
        denied = status == ABSENT
        labels = [label for one in kind.label_sets for label in labels_of(kind, finding, one, denied=denied)]
        said[denied].update(labels or [finding])
    return Sentence(
        source=source,
        body=template.body,
        slots=template.slots,
        marks=template.marks,
        positive=frozenset(said[False]),
        negative=frozenset(said[True]),
    )
