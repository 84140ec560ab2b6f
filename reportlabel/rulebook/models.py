"""The shape of the rule files: one pydantic model a file kind, unknown keys forbidden.

Nothing here reads a file or compiles a word; see :mod:`reportlabel.rulebook.load` and
:mod:`reportlabel.annotate.lexicon`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Status = Literal["present", "uncertain", "absent"]
Value = Literal["present", "uncertain", "absent", "not_mentioned"]
Side = Literal["right", "left", "bilateral"]
Change = Literal["new", "increased", "decreased", "unchanged", "resolved"]
Effect = Literal[
    "affirm", "believe", "hedge", "deny", "neutral", "planned", "past", "supposed", "unassessed", "reference", "known"
]
Form = Literal["final", "linking"]


class Strict(BaseModel):
    """A model in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Name(Strict):
    """Japanese and English name."""

    ja: str
    en: str


class Codes(Strict):
    """Codes of other vocabularies: ICD-10 (WHO) and RadLex (RSNA)."""

    icd10: list[Annotated[str, Field(pattern=r"^[A-Z]\d\d(\.\d)?$")]] = []
    radlex: list[Annotated[str, Field(pattern=r"^RID\d+$")]] = []


class Measure(Strict):
    """The number after a term decides: at or above ``present_from`` present, below it absent."""

    unit: str
    present_from: float


class Term(Strict):
    """A word of a finding: where it counts, whether it denies, what number decides."""

    text: Annotated[str, Field(min_length=1)]
    at: list[str] = []
    means: Literal["absent"] | None = None
    measure: Measure | None = None


def _term(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


AnyTerm = Annotated[Term, BeforeValidator(_term)]


class Compose(Strict):
    """A generic finding at a site is this finding."""

    finding: str
    at: Annotated[list[str], Field(min_length=1)]
    unsited: bool = False


class Example(Strict):
    """A report text and what it must give for the finding; every example runs as a test."""

    text: str
    status: Value
    size_mm: float | None = None
    side: Side | None = None
    site: str | None = None
    count: str | None = None
    change: Change | None = None


class Finding(Strict):
    """One concept: its words, its codes, what makes it, and examples that run as tests.

    ``compose``: a generic finding at a site is this one. ``implied_by``: where one of these is there, so is this.
    ``denial_of``: where one of these is denied, this is there (no abnormality: a normal study).
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    name: Name
    codes: Codes = Codes()
    note: str | None = None
    terms: list[AnyTerm] = []
    compose: list[Compose] = []
    exclude: list[str] = []
    implied_by: list[str] = []
    denial_of: list[str] = []
    examples: list[Example] = []


# --- anatomy.yaml


class Region(Strict):
    """A folder of findings and the site that holds where a report of it names none."""

    id: str
    default_site: str | None = None


class SideWords(Strict):
    """Words that say right, left or both."""

    id: Side
    terms: list[str]


class SiteTerm(Strict):
    """A word for a site; it may fix side and lobe, and name the regions it lies in (#4R: right, mediastinum)."""

    text: str
    side: Side | None = None
    lobe: str | None = None
    within: list[str] = []


AnySiteTerm = Annotated[SiteTerm, BeforeValidator(_term)]


class Site(Strict):
    """An anatomical site, what it lies in, and its words."""

    id: Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$")]
    within: list[str] = []
    lobe: str | None = None
    side: Side | None = None
    name: Name | None = None
    terms: list[AnySiteTerm] = []


class LobeBySide(Strict):
    """The lobe of a lung segment on each side."""

    right: str
    left: str


class Segments(Strict):
    """Numbered segments of lung and liver."""

    lung: dict[str, LobeBySide]
    liver: list[str]
    liver_words: list[str]


class OrganPart(Strict):
    """Words that name a part of one of several organs; after such an organ they are a part of it."""

    terms: list[str]
    of: list[str]


class Anatomy(Strict):
    """``anatomy.yaml``."""

    regions: list[Region]
    sides: list[SideWords]
    sites: list[Site]
    segments: Segments
    exclude: list[str] = []
    relations: list[str] = []
    inside: list[str]
    ordinals: list[str]
    orientation: list[str]
    before: list[str]
    between: list[str]
    after: list[str]
    touching: list[str]
    nodal_regions: list[str] = []
    parts: list[OrganPart] = []


# --- assertion.yaml


class Paradigm(Strict):
    """Endings of a verb class, positive and negative, that end a sentence or go on."""

    final: list[str]
    linking: list[str]
    negative_final: list[str]
    negative_linking: list[str]


class Verb(Strict):
    """A stem, its class, and what it says affirmed and denied."""

    stem: str
    paradigm: Annotated[str, Field(alias="class")]
    effect: Effect
    negative: Effect
    argument: bool = False


class Phrase(Strict):
    """Cues that are not conjugated. ``adjacent``: only right behind the finding; ``of``: of these findings alone."""

    effect: Effect
    terms: list[str]
    form: Form = "final"
    direction: Literal["after", "before"] = "after"
    adjacent: bool = False
    of: list[str] = []


class Comparison(Strict):
    """Words of preference (A yori wa B)."""

    words: list[str]
    not_before: list[str]


class Alternatives(Strict):
    """Signs between two diagnoses of which neither is sure (A > B, A vs B)."""

    words: list[str]
    not_beside: list[str]


class AfterProcedure(Strict):
    """What makes a procedure one of the past (EVAR後の瘤径拡大)."""

    words: list[str]
    before: list[str]


class Share(Strict):
    """Percentages that are none: zero, and less than a small one (10%未満)."""

    unit: str
    links: list[str]
    below: list[str]
    at_most: float


class Prior(Strict):
    """Words that place a statement in an earlier exam."""

    words: list[str]


class ChangeWords(Strict):
    """Words of change since the prior exam."""

    new: list[str]
    increased: list[str]
    decreased: list[str]
    unchanged: list[str]
    resolved: list[str]
    denied: list[str]
    denied_link: list[str]


class CountWords(Strict):
    """Words that count lesions."""

    one: list[str]
    many: list[str]
    counters: list[str]


class SizeWords(Strict):
    """Units and neighbours of sizes."""

    units: dict[str, float]
    arrows: list[str]
    not_before: list[str]
    times: list[str]
    prior: list[str]
    not_prior: list[str]
    part: list[str]
    not_size: list[str]


class ImageWords(Strict):
    """Words in front of series and image numbers."""

    words: list[str]


class Particles(Strict):
    """The particles that the grammar itself looks at."""

    genitive: str
    subject: str
    arguments: list[str]
    topics: list[str]
    breaks: list[str]
    after_size: list[str]
    before_place: list[str]


class AssertionRules(Strict):
    """``assertion.yaml``."""

    precedence: list[Status]
    paradigms: dict[str, Paradigm]
    verbs: list[Verb]
    phrases: list[Phrase]
    comparison: Comparison
    alternatives: Alternatives
    share: Share
    blockers: list[str]
    light_nouns: list[str]
    argument_nouns: list[str]
    list_particles: list[str]
    clause_ends: list[str]
    coordinators: list[str]
    procedures: list[str]
    after_procedure: AfterProcedure
    modifiers: list[str]
    prior: Prior
    change: ChangeWords
    count: CountWords
    size: SizeWords
    image: ImageWords
    causes: list[str]
    specifiers: list[str]
    attributive: list[str]
    not_coordinated: list[str]
    particles: Particles
    adjacent_links: list[str]
    varying_units: list[str]


# --- sections.yaml


class Section(Strict):
    """A section, whether it asserts, and its headings."""

    id: str
    name: Name
    asserts: Literal["current", "none", "past"]
    terms: list[str]


class Brackets(Strict):
    """Brackets of headings."""

    open: str
    close: str


class SectionRules(Strict):
    """``sections.yaml``."""

    sections: list[Section]
    brackets: Brackets
    bullets: str
    sentence_ends: str
    list_mark: str
    no_list_mark: list[str]
    line_closers: list[str]
    line_openers: list[str]
    starters: list[str]
    wrap_width: int


# --- context.yaml, normalise.yaml


class ContextRules(Strict):
    """``context.yaml``."""

    carriers: list[str]
    inherits: list[str]
    targets: list[str]
    unsized: list[str]
    transparent: list[str]
    hindrances: list[str]
    coverings: list[str]
    unplaced: list[str]
    memory: int
    anaphora: list[str]


class NormaliseRules(Strict):
    """``normalise.yaml``."""

    characters: dict[str, str]
    spellings: list[list[str]] = []


# --- staging/*.yaml


class PrimaryTumour(Strict):
    """``staging/primary_tumour.yaml``."""

    id: str
    diagnosis: list[str]
    lesions: list[str]
    alone: list[str]
    parts: list[str]
    sizes_in_sentence: list[str]
    reach: int


# --- label_sets/*.yaml


class LabelEntry(Strict):
    """One label: a finding or a union of findings, possibly limited to sites.

    ``denied_by``: wider findings whose denial denies this one (no infarction: no acute infarction).
    ``none_of_others``: there only where no other label of the set is, but for those of ``except_for``.
    ``else_absent``: absent wherever it is not present, also where nobody speaks of it; only with ``none_of_others``.
    """

    id: str
    name: Name
    any_of: Annotated[list[str], Field(min_length=1)]
    at: list[str] = []
    denied_by: list[str] = []
    none_of_others: bool = False
    else_absent: bool = False
    except_for: list[str] = []
    uncertain_as: Literal["ones", "zeros", "ignore", "soft", "keep"] = "ignore"

    @model_validator(mode="after")
    def _only_a_normal_study_is_absent_else(self) -> Self:
        if self.else_absent and not self.none_of_others:
            raise ValueError("else_absent needs none_of_others")
        return self


class ValueEntry(Strict):
    """A label that is not a status: a size, a side, a count, a grade."""

    id: str
    name: Name
    value_of: str


class ExamKind(Strict):
    """Exams that a label set fits: all lists that are not empty must fit. Ids are those of ``exams.yaml``."""

    modality_classes: list[str] = []
    modalities: list[str] = []
    regions: list[str] = []


class LabelSet(Strict):
    """One file of ``label_sets/``."""

    id: str
    name: Name
    source: str
    region: str
    exams: list[ExamKind] = []
    precedence: list[Status]
    findings: Annotated[list[LabelEntry], Field(min_length=1)]
    values: list[ValueEntry] = []
