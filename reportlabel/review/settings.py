"""``review.yaml``: what is worth reading, how readers are compared, and the words of the guide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self, get_args

from pydantic import Field, model_validator

from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Name, Strict, Value
from reportlabel.rulebook.read_yaml import parse, read_yaml

Sentence = Annotated[str, Field(pattern=r"\{phrase\}")]
Share = Annotated[float, Field(ge=0, le=1)]
REASONS = ("text_against_record", "rules_against_bert", "low_margin", "rare_finding", "audit")
"""Why an exam is worth reading; see `reportlabel.review.reasons`."""


class Reason(Strict):
    """A reason, its name on the screen, and its share of the exams that are asked for."""

    name: Name
    share: Share


class Selection(Strict):
    """What counts as rare, and how exams are ranked."""

    rare_up_to: Share
    exams_of_one_patient: Annotated[int, Field(ge=1)]
    steady: Annotated[float, Field(gt=0)]
    silent_text: Share
    doubtful_from: Share


class Readers(Strict):
    """How many exams are read twice, and by how many readers these are read."""

    overlap: Share
    readers_each: Annotated[int, Field(ge=2)]


class AgreementSettings(Strict):
    """Order of the values from no to yes; bootstrap resamples and confidence."""

    order: list[Value]
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _all_values(self) -> Self:
        if sorted(self.order) != sorted(get_args(Value)):
            raise ValueError(f"order must name each of {', '.join(get_args(Value))} once")
        return self


class Sentences(Strict):
    """An example of each status; {phrase} stands for the phrase."""

    present: Sentence
    uncertain: Sentence
    absent: Sentence


class SuggestionSettings(Strict):
    """Which phrases are told, and how an example is made of one.

    ``patients``: a phrase of fewer is withheld, since it could tell of one of them. ``misread_from``: share of readings
    that contradict a phrase from which it becomes an example. ``stops``: characters that end a
    clause.
    """

    patients: Annotated[int, Field(ge=3)]
    longest: Annotated[int, Field(ge=1)]
    misread_from: Share
    stops: Annotated[str, Field(min_length=1)]
    examples: Sentences


class GuideExample(Strict):
    """A report text, and what it gives for a label of a label set."""

    text: str
    label_set: str
    finding: str
    status: Value


class GuideSection(Strict):
    """A section of the general part: a heading, its points, and examples."""

    heading: str
    text: Annotated[list[str], Field(min_length=1)]
    examples: Annotated[list[GuideExample], Field(default_factory=list)]


class NotShown(Strict):
    """A word that rules read at a site where no reader would write it (a default site): the guide leaves it out."""

    finding: str
    at: Annotated[list[str], Field(min_length=1)]


class GuideWords(Strict):
    """The words of the guide; what stands in braces is filled in. ``most_…``: how much of the rules is shown.

    ``examples``: told for a label in front of those of its findings, where these do not fit the exam. ``not_shown``:
    pairs of a word and sites that help no reader. ``remarks``: label set → label → a sentence on what it takes in.
    """

    title: str
    made_by: Annotated[str, Field(pattern=r"\{file\}")]
    general: list[GuideSection]
    findings: str
    in_sets: str
    any_of: str
    at: str
    terms: str
    more: Annotated[str, Field(pattern=r"\{number\}")]
    composed: str
    composed_of: Annotated[str, Field(pattern=r"\{finding\}.*\{sites\}")]
    unsited: str
    exclude: str
    implied_by: str
    denied_by: str
    none_of_others: str
    else_absent: str
    label: str
    status: str
    example: str
    separator: str
    most_terms: Annotated[int, Field(ge=1)]
    most_examples: Annotated[int, Field(ge=1)]
    examples: Annotated[list[GuideExample], Field(default_factory=list)]
    not_shown: Annotated[list[NotShown], Field(default_factory=list)]
    remarks: Annotated[dict[str, dict[str, str]], Field(default_factory=dict)]


class ReviewSettings(Strict):
    """``review.yaml``."""

    reasons: dict[str, Reason]
    selection: Selection
    readers: Readers
    agreement: AgreementSettings
    suggestions: SuggestionSettings
    guide: GuideWords

    @model_validator(mode="after")
    def _reasons_add_up(self) -> Self:
        if sorted(self.reasons) != sorted(REASONS):
            raise ValueError(f"reasons must name each of {', '.join(REASONS)} once")
        total = sum(reason.share for reason in self.reasons.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the reasons must add up to 1, not {total:g}")
        return self


def load_settings(path: Path | None = None) -> ReviewSettings:
    """Read ``review.yaml`` (default: the one that came with the package).

    Raises:
        ConfigError: names file, line and key of what is wrong.
    """
    return parse(read_yaml(rules_folder() / "review.yaml" if path is None else path), ReviewSettings)
