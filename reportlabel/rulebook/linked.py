"""The rules for linked records: ``rules/linked/*.yaml``.

One file a kind of record (pathology, surgery, lab, physiology, diagnosis, medication) holds windows and rules;
``words.yaml`` says how sites, sides, specimens and texts of records are read, ``units.yaml`` how units are written.
Nothing here looks at a record; see :mod:`reportlabel.vote.records`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import polars as pl
from pydantic import Field, ValidationError, model_validator

from reportlabel.errors import ConfigError
from reportlabel.link.windows import Choice, Unended, Window
from reportlabel.rulebook.models import AnyTerm, Side, Status, Strict
from reportlabel.rulebook.read_yaml import Document, parse, read_yaml
from reportlabel.rulebook.units import UnitRules, Units

Kind = Literal["pathology", "surgery", "lab", "physiology", "diagnosis", "medication"]
System = Literal["JLAC10", "JLAC11", "ICD-10", "YJ", "HOT9", "receipt", "MEDIS", "fee"]
"""Code systems of the records table; ``fee`` is the medical fee schedule, whose codes carry their chapter (K672-2)."""

KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_OF_A_DIAGNOSIS = 0.6
"""A diagnosis is entered for billing as well: it never stands alone, and its confidence is at most this."""
_DIAGNOSIS_GROUP = "diagnosis"
_Id = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_Text = Annotated[str, Field(min_length=1)]


class WindowRule(Strict):
    """A window of days around the exam; the keys are those of :class:`reportlabel.link.windows.Window`.

    Without ``codes`` and ``names`` it links the records that one of its rules can mean, so that the links stay few.
    """

    id: _Id
    before: int | None
    after: int | None
    choice: Choice = "all"
    overlap: bool = False
    unended: Unended = "lasts"
    codes: list[_Text] = Field(default_factory=list)
    names: list[_Text] = Field(default_factory=list)
    reason: _Text


class Threshold(Strict):
    """What the number of a record must be. ``words``: the number stands in the text behind one of these words."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    unit: str
    words: list[_Text] = Field(default_factory=list)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if all(bound is None for bound in (self.above, self.at_least, self.below, self.at_most)):
            raise ValueError("needs above, at_least, below or at_most")
        return self


class When(Strict):
    """What a record must be. ``codes`` or ``names`` say which record is meant; everything else must hold as well."""

    codes: dict[System, Annotated[list[_Text], Field(min_length=1)]] = Field(default_factory=dict)
    names: list[_Text] = Field(default_factory=list)
    not_names: list[_Text] = Field(default_factory=list)
    sites: list[str] = Field(default_factory=list)
    specimens: list[str] = Field(default_factory=list)
    flags: list[_Text] = Field(default_factory=list)
    certainty: list[_Text] = Field(default_factory=list)
    value: Threshold | None = None
    says: list[str] = Field(default_factory=list)
    status: Annotated[tuple[Status, ...], Field(min_length=1)] = ("present",)
    unless: list[str] = Field(default_factory=list)
    days_from: int | None = None
    days_to: int | None = None


class ExamCondition(Strict):
    """What an exam must be; an empty list asks for nothing. ``same_side``: it does not show the other side only."""

    label_sets: list[str] = Field(default_factory=list)
    modality_classes: list[str] = Field(default_factory=list)
    body_parts: list[str] = Field(default_factory=list)
    sex: Literal["M", "F"] | None = None
    same_side: bool = True


class RecordVote(Strict):
    """One vote: for a finding (and so for every label that it is part of), or for one label of one set.

    ``label_sets``: only in these sets. ``site``: where the finding is, for labels that are limited to sites.
    """

    finding: str | None = None
    label_set: str | None = None
    label: str | None = None
    value: Status | Literal["as_read"]
    label_sets: list[str] = Field(default_factory=list)
    site: str | None = None
    confidence: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if (self.finding is None) == (self.label_set is None) or (self.label_set is None) != (self.label is None):
            raise ValueError("needs either finding, or label_set and label")
        return self


class ExampleExam(Strict):
    """The exam of an example."""

    label_set: str
    modality_class: str | None = None
    body_part: str | None = None
    order_name: str | None = None
    sex: Literal["M", "F"] | None = None


class ExampleRecord(Strict):
    """The record of an example: ``days`` from the exam to its start, ``until`` to its end."""

    days: int = 0
    until: int | None = None
    code_system: str | None = None
    code: str | None = None
    name: str | None = None
    text: str | None = None
    value: float | None = None
    unit: str | None = None
    flag: str | None = None
    certainty: str | None = None
    body_site: str | None = None


class LinkedExample(Strict):
    """An exam, a record, and every vote (label: value) that the rule gives for them; none where it does not fire."""

    exam: ExampleExam
    record: ExampleRecord
    votes: dict[str, Status]


class LinkedRule(Strict):
    """One labelling function over records.

    ``group``: functions that repeat the same fact share one. ``one_way``: it only ever says one value of a label.
    ``reason``: why it is evidence, and how far; ``source``: the guideline or standard behind it.
    """

    id: _Id
    window: str
    group: _Id
    confidence: Annotated[float, Field(gt=0, le=1)]
    one_way: bool = True
    reason: _Text
    source: str | None = None
    when: When
    exams: ExamCondition = ExamCondition()
    votes: Annotated[list[RecordVote], Field(min_length=1)]
    examples: Annotated[list[LinkedExample], Field(min_length=2)]


class LinkedFile(Strict):
    """One file of a kind. ``sole: never``: its votes are never the only ones for a positive label."""

    kind: Kind
    sole: Literal["counts", "never"] = "counts"
    windows: Annotated[list[WindowRule], Field(min_length=1)]
    rules: list[LinkedRule]


class Words(Strict):
    """A thing and the words for it in names of specimens, organs and orders."""

    id: str
    terms: Annotated[list[_Text], Field(min_length=1)]


class SideWords(Strict):
    """A side and the words for it."""

    id: Side
    terms: list[_Text]


class Concept(Strict):
    """What texts of records speak of: read like a finding of a report, with status."""

    id: _Id
    terms: Annotated[list[AnyTerm], Field(min_length=1)]
    exclude: list[_Text] = Field(default_factory=list)


class Comparators(Strict):
    """Signs in front of a number that say that the true one is below or above it."""

    below: list[str]
    above: list[str]


class RecordWords(Strict):
    """``words.yaml``. ``remove``: regular expressions of what is cut out of a text before it is read."""

    sides: list[SideWords]
    sites: list[Words]
    specimens: list[Words]
    comparators: Comparators
    remove: list[_Text]
    concepts: list[Concept]

    @model_validator(mode="after")
    def _patterns(self) -> Self:
        for pattern in self.remove:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"remove: not a regular expression: {pattern}") from error
        return self


_NO_WORDS = RecordWords(
    sides=[], sites=[], specimens=[], comparators=Comparators(below=[], above=[]), remove=[], concepts=[]
)


@dataclass(frozen=True)
class KindRule:
    """A rule, the kind of its records, and whether it may be the only one for a positive label."""

    rule: LinkedRule
    kind: Kind
    sole: Literal["counts", "never"]
    document: Document
    place: tuple[str | int, ...]

    @property
    def function_id(self) -> str:
        """As it stands in the votes table."""
        return f"record/{self.rule.id}"


@dataclass(frozen=True)
class LinkedRules:
    """All rules for linked records, in order of kind and file.

    Attributes:
        rules: the rules.
        window_rules: window id -> kind and window.
        words, units: how texts and units of records are read.
    """

    rules: tuple[KindRule, ...] = ()
    window_rules: Mapping[str, tuple[Kind, WindowRule]] = field(default_factory=dict)
    words: RecordWords = _NO_WORDS
    units: Units = field(default_factory=Units)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The windows for :func:`reportlabel.link.windows.link_records`."""
        made = []
        for kind, rule in self.window_rules.values():
            codes, names = (rule.codes, rule.names) if rule.codes or rule.names else self._meant(rule.id)
            made.append(
                Window(
                    rule_id=rule.id,
                    kind=kind,
                    before=rule.before,
                    after=rule.after,
                    choice=rule.choice,
                    overlap=rule.overlap,
                    unended=rule.unended,
                    codes=tuple(codes),
                    names=tuple(names),
                )
            )
        return tuple(made)

    def _meant(self, window: str) -> tuple[Sequence[str], Sequence[str]]:
        """Codes and names of all rules of a window; none where a rule means records by anything else."""
        rules = [one.rule.when for one in self.rules if one.rule.window == window]
        if not all(when.codes or when.names for when in rules):
            return (), ()
        codes = {start.removesuffix("$") for when in rules for starts in when.codes.values() for start in starts}
        return sorted(codes), sorted({name for when in rules for name in when.names})

    def with_windows(self, changes: Mapping[str, Mapping[str, Any]]) -> LinkedRules:
        """The same rules with other windows.

        Args:
            changes: window id -> keys of a window and their new values, such as ``{"pathology": {"after": 365}}``.

        Raises:
            ConfigError: there is no such window, or a key or value is wrong.
        """
        windows = dict(self.window_rules)
        for name, change in changes.items():
            if name not in windows:
                raise ConfigError(f"windows: there is no window '{name}'; known are {', '.join(windows) or 'none'}")
            if change.get("id", name) != name:
                raise ConfigError(f"windows: {name}: id: a window keeps its id, because rules refer to it")
            kind, rule = windows[name]
            try:
                windows[name] = kind, WindowRule.model_validate(rule.model_dump() | dict(change))
            except ValidationError as error:
                told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
                raise ConfigError(f"windows: {name}: {told}") from error
        return replace(self, window_rules=windows)

    def functions(self) -> pl.DataFrame:
        """What there is to know of the labelling functions: function_id, group, record_kind, one_way, sole."""
        rows = [(one.function_id, one.rule.group, one.kind, one.rule.one_way, one.sole) for one in self.rules]
        schema = {
            "function_id": pl.String,
            "group": pl.String,
            "record_kind": pl.String,
            "one_way": pl.Boolean,
            "sole": pl.String,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")


def load_linked(folder: Path) -> LinkedRules:
    """Read ``linked/`` of a rules folder; a rules folder without it has no rules for records.

    Raises:
        ConfigError: names file, line and key of every unknown key and wrong value, and of every window, finding, label,
            site, specimen, concept or unit that a rule names and that does not exist.
    """
    place = folder / "linked"
    if not place.is_dir():
        return LinkedRules()
    words_document, units_document = _needed(place / "words.yaml"), _needed(place / "units.yaml")
    words, units = (
        parse(words_document, RecordWords),
        Units.from_rules(units_document, parse(units_document, UnitRules)),
    )
    names = _Names.of(folder, words)
    rules: list[KindRule] = []
    windows: dict[str, tuple[Kind, WindowRule]] = {}
    problems = list(names.wrong_words(words_document))
    for path in sorted(place.glob("*.yaml")):
        if path.name in ("words.yaml", "units.yaml"):
            continue
        document = read_yaml(path)
        read = parse(document, LinkedFile)
        if read.kind != path.stem:
            problems.append(f"{path}:{document.line(('kind',))}: kind '{read.kind}' must equal the file name")
        for at, window in enumerate(read.windows):
            if window.id in windows:
                problems.append(f"{path}:{document.line(('windows', at))}: window '{window.id}' is defined twice")
            windows[window.id] = read.kind, window
        rules += [
            KindRule(rule=rule, kind=read.kind, sole=read.sole, document=document, place=("rules", at))
            for at, rule in enumerate(read.rules)
        ]
    problems += _problems(rules, windows, names, units)
    if problems:
        raise ConfigError("\n".join(problems))
    return LinkedRules(rules=tuple(rules), window_rules=windows, words=words, units=units)


def _needed(path: Path) -> Document:
    if not path.is_file():
        raise ConfigError(f"{path}: missing; rules for linked records need this file")
    return read_yaml(path)


@dataclass(frozen=True)
class _Names:
    """The names that rules may use."""

    findings: frozenset[str]
    labels: Mapping[str, frozenset[str]]
    sites: frozenset[str]
    words: RecordWords

    @classmethod
    def of(cls, folder: Path, words: RecordWords) -> _Names:
        labels: dict[str, frozenset[str]] = {}
        for path in sorted((folder / "label_sets").glob("*.yaml")):
            data = read_yaml(path).data
            entries = data.get("findings", []) if isinstance(data, dict) else []
            labels[path.stem] = frozenset(entry["id"] for entry in entries if isinstance(entry, dict) and "id" in entry)
        anatomy = read_yaml(folder / "anatomy.yaml").data
        return cls(
            findings=frozenset(path.stem for path in (folder / "findings").glob("*/*.yaml")),
            labels=labels,
            sites=frozenset(site["id"] for site in anatomy["sites"]),
            words=words,
        )

    def wrong_words(self, document: Document) -> Iterator[str]:
        for at, site in enumerate(self.words.sites):
            if site.id not in self.sites:
                line = document.line(("sites", at))
                yield f"{document.path}:{line}: sites: anatomy.yaml has no site '{site.id}'"
        for name in ("sides", "sites", "specimens", "concepts"):
            ids = [one.id for one in getattr(self.words, name)]
            for at, one in enumerate(ids):
                if one in ids[:at]:
                    yield f"{document.path}:{document.line((name, at))}: {name}: '{one}' is defined twice"


def _problems(
    rules: Sequence[KindRule], windows: Mapping[str, tuple[Kind, WindowRule]], names: _Names, units: Units
) -> Iterator[str]:
    seen: set[str] = set()
    for one in rules:
        for key, message in [
            *([(("id",), f"rule '{one.rule.id}' is defined twice")] if one.rule.id in seen else []),
            *_wrong_window(one, windows),
            *_wrong_names(one.rule, names),
            *_wrong_condition(one, units),
            *_wrong_examples(one.rule, names),
        ]:
            yield f"{one.document.path}:{one.document.line((*one.place, *key))}: {one.rule.id}: {message}"
        seen.add(one.rule.id)


_Problem = tuple[tuple[str | int, ...], str]


def _wrong_window(one: KindRule, windows: Mapping[str, tuple[Kind, WindowRule]]) -> Iterator[_Problem]:
    kind = windows.get(one.rule.window, (None,))[0]
    if kind is None:
        yield ("window",), f"there is no window '{one.rule.window}'"
    elif kind != one.kind:
        yield ("window",), f"window '{one.rule.window}' is of kind {kind}, the rule of kind {one.kind}"


def _wrong_names(rule: LinkedRule, names: _Names) -> Iterator[_Problem]:
    words = names.words
    for key, used, known in (
        ("sites", rule.when.sites, names.sites),
        ("specimens", rule.when.specimens, {one.id for one in words.specimens}),
        ("says", rule.when.says, {one.id for one in words.concepts}),
        ("unless", rule.when.unless, {one.id for one in words.concepts}),
    ):
        for name in used:
            if name not in known:
                yield ("when", key), f"{key}: '{name}' is not known"
    for name in rule.exams.label_sets:
        if name not in names.labels:
            yield ("exams", "label_sets"), f"there is no label set '{name}'"
    for at, vote in enumerate(rule.votes):
        if vote.finding is not None and vote.finding not in names.findings:
            yield ("votes", at), f"there is no finding '{vote.finding}'"
        if vote.label_set is not None and vote.label not in names.labels.get(vote.label_set, frozenset()):
            yield ("votes", at), f"label set '{vote.label_set}' has no label '{vote.label}'"
        for name in vote.label_sets:
            if name not in names.labels:
                yield ("votes", at), f"there is no label set '{name}'"
        if vote.site is not None and vote.site not in names.sites:
            yield ("votes", at), f"anatomy.yaml has no site '{vote.site}'"


def _wrong_condition(one: KindRule, units: Units) -> Iterator[_Problem]:
    rule, when = one.rule, one.rule.when
    if not (when.codes or when.names or when.sites or when.specimens or when.says):
        yield ("when",), "says of no record that it is meant: give codes, names, sites, specimens or says"
    if when.value is not None and not units.known(when.value.unit):
        yield ("when", "value"), f"unit '{when.value.unit}' is not known; add it to units.yaml"
    if any(vote.value == "as_read" for vote in rule.votes) and (rule.one_way or not when.says):
        yield ("votes",), "value as_read needs when.says, and one_way: false, because it says more than one value"
    confidences = [rule.confidence, *(vote.confidence for vote in rule.votes if vote.confidence is not None)]
    if one.kind == "diagnosis" and max(confidences) > MOST_OF_A_DIAGNOSIS:
        yield ("confidence",), f"a diagnosis has a confidence of at most {MOST_OF_A_DIAGNOSIS}"
    if (one.kind == "diagnosis") != (rule.group == _DIAGNOSIS_GROUP):
        yield ("group",), f"the group of diagnoses, and of nothing else, is '{_DIAGNOSIS_GROUP}'"
    if one.kind == "diagnosis" and one.sole != "never":
        yield (), "the file of diagnoses says sole: never"


def _wrong_examples(rule: LinkedRule, names: _Names) -> Iterator[_Problem]:
    if all(example.votes for example in rule.examples) or not any(example.votes for example in rule.examples):
        yield ("examples",), "needs an example that fires and one that does not"
    for at, example in enumerate(rule.examples):
        known = names.labels.get(example.exam.label_set)
        if known is None:
            yield ("examples", at), f"there is no label set '{example.exam.label_set}'"
        for label in _missing(example.votes, known or example.votes):
            yield ("examples", at), f"label set '{example.exam.label_set}' has no label '{label}'"


def _missing(used: Iterable[str], known: Iterable[str]) -> list[str]:
    return sorted(set(used) - set(known))
