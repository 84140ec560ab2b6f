"""Texts without what identifies a person, and where every character of them came from.

    deidentifier = Deidentifier(load_text_rules(), known=KnownNames.from_tables(patients))
    masked = deidentifier.mask(text, patient="P-…", exam_day=date(2024, 3, 1))
    masked.text, masked.offsets, masked.spans

What the hospital's tables know is searched exactly as it is; the rules of ``rules/deidentify.yaml`` find what else
there is. Each masked stretch leaves a token of its kind (［人名］); titles stay outside. Two stretches that overlap
become one, of the surer kind. When in doubt, a stretch is masked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import get_args

import polars as pl

from reportlabel.annotate.normalise import Normaliser
from reportlabel.deidentify.characters import Hit, Source, View, joined_view, plain_view
from reportlabel.deidentify.dates import DateFinder, DatePolicy, FoundDate, relative_date, rewritten
from reportlabel.deidentify.known import KnownNames, KnownSearch
from reportlabel.deidentify.numbers import NumberFinder
from reportlabel.deidentify.offsets import OFFSETS, OffsetMap, offsets_table
from reportlabel.deidentify.persons import PersonFinder
from reportlabel.deidentify.places import PlaceFinder
from reportlabel.deidentify.text_rules import Kind, ProfileName, TextRules
from reportlabel.deidentify.words import Dictionary
from reportlabel.errors import ConfigError, InputError
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import NormaliseRules
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["Deidentifier", "KnownNames", "Masked", "MaskedSpan", "MaskedTable", "mask_table"]

_SURER = {source: rank for rank, source in enumerate(get_args(Source))}


@dataclass(frozen=True, slots=True)
class MaskedSpan:
    """A masked stretch: offsets in the original, what it was, and the rule that found it. Holds no text."""

    start: int
    end: int
    kind: Kind
    rule: str


@dataclass(frozen=True)
class Masked:
    """A masked text, the map between its offsets and those of the original, and what was masked."""

    text: str
    offsets: OffsetMap
    spans: tuple[MaskedSpan, ...]


class Deidentifier:
    """Masks texts. Build it once; `mask` then depends on its arguments alone.

    In: ``known``, what the hospital's tables know (default: nothing); ``date_policy`` (default: dates relative to the
    exam); ``profile``, ``pseudonymised`` (仮名加工) or ``anonymised`` (匿名加工: also hides great ages); ``normaliser``
    (default: that of the rules that came with the package).

    Raises:
        ConfigError: an unknown profile, or dates that are kept in an anonymised text.
    """

    def __init__(
        self,
        rules: TextRules,
        *,
        known: KnownNames | None = None,
        date_policy: DatePolicy | None = None,
        profile: ProfileName = "pseudonymised",
        normaliser: Normaliser | None = None,
    ) -> None:
        if profile not in rules.profiles:
            raise ConfigError(f"no de-identification profile '{profile}'; one of {', '.join(rules.profiles)}")
        self.rules = rules
        self.date_policy = DatePolicy("relative") if date_policy is None else date_policy
        self.profile = rules.profiles[profile]
        self._fold = _Fold(_normaliser() if normaliser is None else normaliser, rules.characters)
        known = KnownNames() if known is None else known
        dictionary = Dictionary()
        self._known = KnownSearch(known, self._fold)
        self._numbers = NumberFinder(rules, self._fold, oldest_age=self.profile.oldest_age)
        self._places = PlaceFinder(rules, self._fold, dictionary)
        self._persons = PersonFinder(rules.names, self._fold, dictionary, known.surnames(self._fold))
        self._dates = DateFinder(rules.dates, self._fold)

    def mask(
        self, text: str, *, patient: str | None = None, exam_day: date | None = None, signed: bool = True
    ) -> Masked:
        """One text without identifiers.

        In: ``patient``, the key of the patient's shift of dates (needed for that policy only); ``exam_day``, from which
        relative dates count and which gives 3/12 its year. A date that cannot be moved or counted becomes a token.
        ``signed``: a line that is nothing but a name may be a signature; not so where the text is a title (食道・胃).

        Raises:
            ConfigError: the policy shifts dates and ``patient`` is missing.
        """
        shift = timedelta()
        if self.date_policy.kind == "shift":
            if not patient:
                raise ConfigError("dates are shifted per patient; give the patient of every text")
            shift = self.date_policy.shift_of(patient)
        plain = plain_view(text, self._fold)
        hits = self._stored(plain, self._hits(plain, text, shift, exam_day, whole_lines=signed))
        joined = joined_view(plain)
        if joined is not None:
            hits += self._stored(joined, self._hits(joined, text, shift, exam_day, whole_lines=False))
        return self._masked(text, hits)

    def _hits(
        self, view: View, stored: str, shift: timedelta, exam_day: date | None, *, whole_lines: bool
    ) -> Iterator[Hit]:
        yield from self._known.find(view)
        yield from self._places.find(view, stored)
        yield from self._persons.find(view, whole_lines=whole_lines)
        dates = list(self._dates.find(view.text, exam_day))
        for found in dates:
            hit = self._date(view, stored, found, shift, exam_day)
            if hit is not None:
                yield hit
        days = {(found.start, found.end) for found in dates}
        for hit in self._numbers.find(view):
            # eight digits that are a day are one, unless a label says that they are a number
            if hit.source != "doubt" or (hit.start, hit.end) not in days:
                yield hit

    def _date(self, view: View, stored: str, found: FoundDate, shift: timedelta, exam_day: date | None) -> Hit | None:
        meant = found.resolved(exam_day)
        policy = self.date_policy.kind
        if found.birth:
            return Hit(found.start, found.end, "birth", "date", "birth", self._age(found, exam_day))
        if policy == "keep":
            return None
        hit = Hit(found.start, found.end, "date", "date", f"date.{policy}")
        if policy == "mask" or meant is None:
            return hit
        if policy == "relative":
            if exam_day is None:
                return hit
            return hit._replace(replacement=relative_date(found, meant, exam_day, self.rules.dates.relative))
        try:
            moved = meant + shift
        except OverflowError:
            return hit
        if view.starts is None:
            return hit._replace(replacement=rewritten(stored, found, moved, self.rules.dates))
        return hit._replace(replacement=rewritten(view.text, found, moved, self.rules.dates))

    def _age(self, found: FoundDate, exam_day: date | None) -> str | None:
        """A birth date counts as the age on the day of the exam."""
        if exam_day is None or found.year is None:
            return None
        known_day = found.month is not None and found.day is not None
        before_birthday = known_day and (exam_day.month, exam_day.day) < (found.month, found.day)
        years = exam_day.year - found.year - int(before_birthday)
        if years < 0:
            return None
        if self.profile.oldest_age is not None and years > self.profile.oldest_age:
            return self.rules.tokens["age"]
        return self.rules.dates.age_at_exam.format(n=years)

    def _stored(self, view: View, hits: Iterable[Hit]) -> list[Hit]:
        placed = []
        for hit in hits:
            if hit.kind not in self.profile.keep:
                start, end = view.span(hit.start, hit.end)
                placed.append(hit._replace(start=start, end=end))
        return placed

    def _masked(self, text: str, hits: list[Hit]) -> Masked:
        spans: list[MaskedSpan] = []
        replacements: list[tuple[int, int, int]] = []
        pieces: list[str] = []
        at = 0
        taken = [(start, start + len(token)) for token in self.rules.tokens.values() for start in _places(text, token)]
        hits = [hit for hit in hits if not any(start < hit.end and hit.start < end for start, end in taken)]
        for group in _overlapping(hits):
            surest = min(group, key=lambda hit: (_SURER[hit.source], hit.start - hit.end))
            start, end = min(hit.start for hit in group), max(hit.end for hit in group)
            alone = surest.replacement is not None and (surest.start, surest.end) == (start, end)
            new = surest.replacement if alone and surest.replacement is not None else self.rules.tokens[surest.kind]
            pieces += [text[at:start], new]
            at = end
            spans.append(MaskedSpan(start, end, surest.kind, surest.rule))
            replacements.append((start, end, len(new)))
        pieces.append(text[at:])
        return Masked("".join(pieces), OffsetMap.replacing(replacements), tuple(spans))


class _Fold:
    """Normalises character by character; ``characters`` are those of this rule file."""

    def __init__(self, normaliser: Normaliser, characters: Mapping[str, str]) -> None:
        self._normaliser = normaliser
        self._table = str.maketrans(dict(characters))

    def __call__(self, text: str) -> str:
        return self._normaliser(text).translate(self._table)


def _normaliser() -> Normaliser:
    return Normaliser.from_rules(parse(read_yaml(rules_folder() / "normalise.yaml"), NormaliseRules))


def _places(text: str, token: str) -> Iterator[int]:
    at = text.find(token)
    while at >= 0:
        yield at
        at = text.find(token, at + 1)


def _overlapping(hits: list[Hit]) -> Iterator[list[Hit]]:
    """Hits in groups that share characters, in order."""
    group: list[Hit] = []
    end = -1
    for hit in sorted(hits):
        if hit.start >= end and group:
            yield group
            group = []
        group.append(hit)
        end = max(end, hit.end) if len(group) > 1 else hit.end
    if group:
        yield group


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskedTable:
    """A table with masked texts, the offsets of each (`OFFSETS`), and how many stretches of each kind there were."""

    table: pl.DataFrame
    offsets: pl.DataFrame
    counts: dict[Kind, int]


def mask_table(
    table: pl.DataFrame,
    deidentifier: Deidentifier,
    *,
    id_column: str = "report_id",
    text_column: str = "text",
    patient_column: str | None = None,
    day_column: str | None = None,
) -> MaskedTable:
    """Mask one column of texts; nulls stay nulls, all other columns and the order of the rows stay.

    In: ``id_column``, unique; ``patient_column``, the key of the shift of dates; ``day_column``, the day of the exam.

    Raises:
        InputError: a column is missing, or an id is there twice.
    """
    needed = [column for column in (id_column, text_column, patient_column, day_column) if column is not None]
    lacking = [column for column in needed if column not in table.columns]
    if lacking:
        raise InputError(f"the table of texts lacks column '{lacking[0]}'")
    if table[id_column].is_duplicated().any():
        raise InputError(f"column '{id_column}' holds an id twice; offsets could not be told apart")
    texts: list[str | None] = []
    maps: dict[str, OffsetMap] = {}
    counts: Counter[Kind] = Counter()
    for row in table.select(needed).iter_rows(named=True):
        if row[text_column] is None:
            texts.append(None)
            continue
        day = row[day_column] if day_column is not None else None
        masked = deidentifier.mask(
            row[text_column],
            patient=row[patient_column] if patient_column is not None else None,
            exam_day=day.date() if isinstance(day, datetime) else day,
        )
        texts.append(masked.text)
        maps[str(row[id_column])] = masked.offsets
        counts.update(span.kind for span in masked.spans)
    return MaskedTable(
        table.with_columns(pl.Series(text_column, texts, dtype=pl.String)),
        offsets_table(maps) if maps else pl.DataFrame(schema=OFFSETS),
        dict(counts),
    )
