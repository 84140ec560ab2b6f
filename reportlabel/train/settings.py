"""``rules/train.yaml``: what a classifier learns from, how sentences are varied, the sizes of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

Share = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[list[str], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


class DataSettings(Strict):
    """What the examples are made from."""

    patients: Count
    seed: int
    validate_each: Annotated[int, Field(ge=2)]
    held_out_readers: list[str]
    repeats: Count
    unread: Annotated[int, Field(ge=0)]
    silent: Annotated[int, Field(ge=0)]
    frames_a_finding: Annotated[int, Field(ge=0)]
    least: Count
    weight_rules_only: Share
    agree: Share


class ModelSettings(Strict):
    """Sizes: pieces of the tokenizer, tokens read at once, width and depth of the encoder."""

    pieces: Annotated[int, Field(ge=200)]
    context_tokens: Annotated[int, Field(ge=0)]
    max_tokens: Annotated[int, Field(ge=8)]
    width: Count
    layers: Count
    heads: Count
    inner: Count
    dropout: Share

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class FitSettings(Strict):
    """The schedule of the training."""

    seed: int
    epochs: Annotated[float, Field(gt=0)]
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    warm_up: Share
    weight_decay: Annotated[float, Field(ge=0)]
    patience: Count
    evaluations: Count
    status_weight: Annotated[float, Field(gt=0)]


class Decide(Strict):
    """From which probability a finding counts as mentioned, and from which a status counts beside the rules."""

    mention_from: Annotated[float, Field(gt=0, lt=1)]
    add_from: Annotated[float, Field(gt=0, lt=1)]
    beside_from: Annotated[float, Field(gt=0, lt=1)]


class Augment(Strict):
    """How often each change is made."""

    synonym: Share
    same_meaning: Share
    other_meaning: Share
    typo: Share
    join: Share
    no_context: Share
    other_context: Share
    piece_dropout: Share


class ArchiveSettings(Strict):
    """What the sentences of a workspace count: a statement of the rules, and one that a reader settled.

    ``readings_share``: of so many of the patients readings teach; those of the others judge the model.
    """

    weak_weight: Annotated[float, Field(gt=0, le=1)]
    reading_weight: Annotated[float, Field(gt=1)]
    readings_share: Annotated[float, Field(gt=0, lt=1)]
    validate_each: Annotated[int, Field(ge=2)]


class PretrainSettings(Strict):
    """Masked-language training of the encoder on the sentences of a workspace."""

    epochs: Annotated[float, Field(gt=0)]
    batch: Count
    learning_rate: Annotated[float, Field(gt=0)]
    masked: Annotated[float, Field(gt=0, lt=1)]
    most: Count


class Recipe(Strict):
    """Other numbers for another training: data of the synthetic hospital (of another seed, if named), epochs, step."""

    seed: int | None = None
    patients: Count
    repeats: Count
    unread: Annotated[int, Field(ge=0)]
    silent: Annotated[int, Field(ge=0)]
    frames_a_finding: Annotated[int, Field(ge=0)]
    epochs: Annotated[float, Field(gt=0)]
    learning_rate: Annotated[float, Field(gt=0)]


class Predicates(Strict):
    """Predicates behind a finding, by what they say of it."""

    present: Words
    uncertain: Words
    absent: Words


class TrainSettings(Strict):
    """``train.yaml``."""

    data: DataSettings
    model: ModelSettings
    fit: FitSettings
    decide: Decide
    augment: Augment
    archive: ArchiveSettings
    pretrain: PretrainSettings
    recipes: dict[str, Recipe]
    predicates: Predicates
    frames: list[str]
    places: Words
    composed: Words
    confused: list[Annotated[list[str], Field(min_length=2)]]


def with_recipe(settings: TrainSettings, name: str) -> TrainSettings:
    """The settings with the numbers of a recipe.

    Raises:
        ConfigError: there is no such recipe; lists those there are.
    """
    recipe = settings.recipes.get(name)
    if recipe is None:
        raise ConfigError(f"--recipe {name}: train.yaml has {', '.join(sorted(settings.recipes))}")
    data = recipe.model_dump(
        include={"seed", "patients", "repeats", "unread", "silent", "frames_a_finding"}, exclude_none=True
    )
    fit = recipe.model_dump(include={"epochs", "learning_rate"})
    return settings.model_copy(
        update={"data": settings.data.model_copy(update=data), "fit": settings.fit.model_copy(update=fit)}
    )


def load_train_settings(path: Path | None = None) -> TrainSettings:
    """Read ``train.yaml`` (default: of the rules that came with the package).

    Raises:
        ConfigError: names file and line of every unknown key or wrong value.
    """
    return parse(read_yaml(rules_folder() / "train.yaml" if path is None else path), TrainSettings)
