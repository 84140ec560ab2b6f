"""``aggregate.yaml``: weights, thresholds and priors of the aggregate stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from reportlabel.aggregate.label_model import Prior
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

Probability = Annotated[float, Field(ge=0, le=1)]
Above = Annotated[float, Field(ge=0)]
Below = Annotated[float, Field(le=0)]
Some = Annotated[float, Field(gt=0)]
Row = Annotated[list[Above], Field(min_length=4, max_length=4)]


class Report(Strict):
    """The score that the text gives on its own. ``steady``: what an open statement holds against the other votes."""

    present: float
    uncertain: float
    absent: float
    silent: float
    steady: Above

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        """A stronger statement never gives a lower score, whatever the other votes add."""
        if not self.absent <= self.silent <= self.present:
            raise ValueError("absent, silent and present must be in this order")
        if self.uncertain - self.steady < max(self.absent, self.silent):
            raise ValueError("uncertain less steady must not be below absent or silent")
        if self.uncertain + self.steady > self.present:
            raise ValueError("uncertain plus steady must not be above present")
        return self


class Weight(Strict):
    """What a vote of a kind adds to the score at confidence 1."""

    present: Above
    uncertain: Above
    absent: Below

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.uncertain > self.present:
            raise ValueError("uncertain must not weigh more than present")
        return self


class Weights(Strict):
    """Weights by kind of function; the text has none, its statement is where the score begins."""

    bert: Weight
    record: Weight
    reader: Weight


class Limits(Strict):
    """No probability that votes give is lower or higher, calibrated or not."""

    lowest: Probability
    highest: Probability


class Thresholds(Strict):
    """Probabilities from which a value is present, and from which it is uncertain."""

    present: Probability
    uncertain: Probability

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.uncertain > self.present:
            raise ValueError("uncertain must not begin above present")
        return self


class ReadingProbability(Strict):
    """What each value of a reading is worth as a probability."""

    present: Probability
    uncertain: Probability
    absent: Probability
    not_mentioned: Probability


class Confusion(Strict):
    """Dirichlet pseudo-counts by kind: truth absent and present; columns absent, uncertain, present, silent."""

    rule: Annotated[list[Row], Field(min_length=2, max_length=2)]
    bert: Annotated[list[Row], Field(min_length=2, max_length=2)]
    record: Annotated[list[Row], Field(min_length=2, max_length=2)]
    reader: Annotated[list[Row], Field(min_length=2, max_length=2)]


class Share(Strict):
    """Pseudo-counts of exams without and with a finding."""

    absent: Some
    present: Some


class Prevalence(Strict):
    """Prior of the prevalence."""

    default: Share
    by_modality_class: Annotated[dict[str, Share], Field(default_factory=dict)]

    def of(self, modality_class: str | None) -> tuple[float, float]:
        """Pseudo-counts of absent and present exams of a modality class."""
        share = self.by_modality_class.get(modality_class or "", self.default)
        return share.absent, share.present


class CalibrationSettings(Strict):
    """How many reviewed exams calibration needs."""

    few: Annotated[int, Field(ge=1)]
    many: Annotated[int, Field(ge=1)]


class Choice(Strict):
    """When the label model takes the place of precedence."""

    folds: Annotated[int, Field(ge=2)]
    reviewed_each: Annotated[int, Field(ge=1)]
    better_by: Probability


class AggregateSettings(Strict):
    """``aggregate.yaml``."""

    report: Report
    weights: Weights
    uncertain_up_to: float
    never_alone: list[str]
    limits: Limits
    thresholds: Thresholds
    readings: ReadingProbability
    confusion: Confusion
    silence_speaks: list[Literal["rule", "bert", "record", "reader"]]
    prevalence: Prevalence
    calibration: CalibrationSettings
    choice: Choice

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        """Else a vote for present could lower the score of a report that leaves the finding open."""
        if self.uncertain_up_to > self.report.uncertain:
            raise ValueError("uncertain_up_to must not be above report.uncertain")
        return self

    def prior(self) -> Prior:
        """The prior of the label model; its prevalence is the default one."""
        return Prior(confusion=self.confusion.model_dump(), prevalence=self.prevalence.of(None))


def load_settings(path: Path | None = None) -> AggregateSettings:
    """Read ``aggregate.yaml`` (default: the one that came with the package).

    Raises:
        ConfigError: names file, line and key of what is wrong.
    """
    return parse(read_yaml(rules_folder() / "aggregate.yaml" if path is None else path), AggregateSettings)
