"""The shape of ``rules/deidentify.yaml``: the words that identify a person, and those that only look so."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = [
    "AddressNumbers",
    "AddressWords",
    "DateWords",
    "Era",
    "FamilyName",
    "IdWords",
    "InstitutionWords",
    "Kind",
    "NameWords",
    "PhoneWords",
    "Profile",
    "ProfileName",
    "RelativeDates",
    "TextRules",
    "WorkWords",
    "load_text_rules",
]

Kind = Literal[
    "person",
    "hospital",
    "date",
    "birth",
    "phone",
    "address",
    "postal",
    "id",
    "url",
    "email",
    "age",
    "workplace",
    "occupation",
]
"""What a masked stretch was."""

ProfileName = Literal["pseudonymised", "anonymised"]
"""仮名加工 and 匿名加工."""

Word = Annotated[str, Field(min_length=1)]
Character = Annotated[str, Field(min_length=1, max_length=1)]


class FamilyName(Strict):
    """A family name: as written, as read (hiragana), in Latin letters."""

    kanji: Word
    kana: Word
    roman: Word


def _family_names(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = []
    for entry in value.split(","):
        parts = entry.split()
        if len(parts) != 3:
            raise ValueError(f"'{entry.strip()}' is not: a name, its reading, its Latin letters")
        names.append(dict(zip(("kanji", "kana", "roman"), parts, strict=True)))
    return names


class Profile(Strict):
    """Which kinds stay as they are, and above which age the age is hidden (None: never)."""

    keep: list[Kind]
    oldest_age: Annotated[int, Field(ge=60, le=120)] | None


class NameWords(Strict):
    """Words around names."""

    titles: list[Word]
    honorifics: list[Word]
    titles_of_names: list[Word]
    not_a_title_before: dict[Word, list[Word]]
    titles_before: list[Word]
    labels: list[Word]
    weak_labels: list[Word]
    relatives: list[Word]
    signed: list[Word]
    roles: list[Word]
    departments: list[Word]
    not_names: list[Word]
    eponyms: list[Word]
    eponyms_before: list[Word]
    family_names: Annotated[list[FamilyName], BeforeValidator(_family_names)]


class InstitutionWords(Strict):
    """Words of hospitals and practices."""

    suffixes: list[Word]
    practices: list[Word]
    departments_need: list[Word]
    generic: list[Word]
    own: list[Word]
    latin_suffixes: list[Word]
    latin_generic: list[Word]


class Era(Strict):
    """A Japanese era: its first day, its Latin letter and its one-kanji form."""

    letter: Annotated[str, Field(pattern=r"^[a-z]$")]
    from_: Annotated[date, Field(alias="from")]
    short: Annotated[str, Field(min_length=1, max_length=1)]


class RelativeDates(Strict):
    """How a date is written that counts from the exam; ``{n}`` stands for the number."""

    same_day: Word
    days_before: Word
    days_after: Word
    same_month: Word
    months_before: Word
    months_after: Word
    same_year: Word
    years_before: Word
    years_after: Word


class DateWords(Strict):
    """Eras, and words beside which a few digits are a date or are none."""

    eras: Annotated[dict[Word, Era], Field(min_length=1)]
    cues_after: list[Word]
    cues_before: list[Word]
    strong_cues_after: list[Word]
    not_before: list[Word]
    not_after: list[Word]
    fractions: list[Annotated[str, Field(pattern=r"^\d{1,2}/\d{1,2}$")]]
    relative_years: dict[Word, int]
    not_after_month: list[Word]
    birth_labels: list[Word]
    birth_after: list[Word]
    birth_not_after: list[Word]
    relative: RelativeDates
    age_at_exam: Annotated[str, Field(pattern=r"\{n\}")]


class PhoneWords(Strict):
    """Words in front of telephone numbers; those of ``inside`` go with the number."""

    labels: list[Word]
    inside: list[Word]


class AddressNumbers(Strict):
    """Words behind the numbers of an address, by how sure they make it one and by what they count."""

    sure: list[Word]
    before_number: list[Word]
    further: list[Word]
    rooms: list[Word]
    houses: list[Word]
    between: list[Word]


class AddressWords(Strict):
    """Words of addresses; ``cities``, ``counties``, ``parts``, ``prefecture_suffixes``: what names of places end in."""

    labels: list[Word]
    prefectures: list[Word]
    cities: list[Word]
    counties: list[Word]
    parts: list[Word]
    prefecture_suffixes: list[Word]
    numbers: AddressNumbers
    postal_labels: list[Word]
    living: list[Word]


class IdWords(Strict):
    """Words in front of numbers of persons, exams, specimens and slips; patterns of the house; units of quantities."""

    labels: list[Word]
    number_words: list[Word]
    patterns: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], str]
    units: list[Word]

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern '{name}' is no regular expression: {error}") from error
            if compiled.match(""):
                raise ValueError(f"pattern '{name}' fits the empty text")
        return patterns


class AgeWords(Strict):
    """Units of an age."""

    units: list[Word]


class WorkWords(Strict):
    """Words of places of work, schools and occupations."""

    companies: list[Word]
    suffixes: list[Word]
    generic: list[Word]
    after_label: list[Word]
    labels: list[Word]
    occupation_labels: list[Word]


class TextRules(Strict):
    """``rules/deidentify.yaml``."""

    tokens: dict[Kind, Word]
    characters: dict[Character, Character]
    profiles: dict[ProfileName, Profile]
    names: NameWords
    institutions: InstitutionWords
    dates: DateWords
    phones: PhoneWords
    addresses: AddressWords
    ids: IdWords
    ages: AgeWords
    work: WorkWords

    @model_validator(mode="after")
    def _complete(self) -> TextRules:
        lacking = [kind for kind in get_args(Kind) if kind not in self.tokens]
        if lacking:
            raise ValueError(f"tokens lacks {', '.join(lacking)}")
        if len(set(self.tokens.values())) != len(self.tokens):
            raise ValueError("two kinds have the same token")
        absent = [name for name in get_args(ProfileName) if name not in self.profiles]
        if absent:
            raise ValueError(f"profiles lacks {', '.join(absent)}")
        return self


def load_text_rules(folder: Path | None = None) -> TextRules:
    """Read ``deidentify.yaml`` of a rules folder (default: the one that came with the package).

    Raises:
        ConfigError: it is missing or wrong; names file, line and key.
    """
    path = (rules_folder() if folder is None else folder) / "deidentify.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: missing; texts cannot be de-identified without it")
    return parse(read_yaml(path), TextRules)
