"""What an exam is and which label sets fit it: `rules/exams.yaml` and the `exams` of the label sets.

Names of orders differ between hospitals, so they are read by words; body parts of DICOM headers are often missing or
wrong and count only where the name of the order says nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import ExamKind, LabelSet, Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

OTHER = "OT"


class ModalityClass(Strict):
    """A class, the DICOM modalities that belong to it, and words without which they do not."""

    id: str
    modalities: Annotated[list[str], Field(min_length=1)]
    words: list[str] = Field(default_factory=list)


class Region(Strict):
    """A region of the body. ``holds``: smaller regions that are seen with it; ``within``: larger ones it is part of."""

    id: str
    body_part: str
    parts: list[str]
    words: list[str]
    excluded: list[str] = Field(alias="except", default_factory=list)
    holds: list[str] = Field(default_factory=list)
    within: list[str] = Field(default_factory=list)


class ExamRules(Strict):
    """``exams.yaml``."""

    modality_classes: list[ModalityClass]
    strongest: list[str]
    regions: list[Region]


@dataclass(frozen=True)
class Seen:
    """What is known of an exam: its class, the body part for the exams table, and the regions."""

    modality_class: str
    body_part: str | None
    regions: frozenset[str]


@dataclass(frozen=True)
class ExamReader:
    """Reads the kind of an exam from its modality and its names."""

    rules: ExamRules

    @cached_property
    def _parts(self) -> Mapping[str, Region]:
        return {_plain(part): region for region in self.rules.regions for part in reversed(region.parts)}

    def see(self, modality: str | None, order_name: str | None, protocol_name: str | None, part: str | None) -> Seen:
        """What an exam shows; a modality that no class names is of class OT."""
        order, protocol = _plain(order_name or ""), _plain(protocol_name or "")
        found = self._named(order) or self._named(protocol) or self._by_part(part)
        regions = {other for region in found for other in (region.id, *region.holds, *region.within)}
        body_part = found[0].body_part if found else (_plain(part) or None if part else None)
        return Seen(self._class(modality, order + protocol), body_part, frozenset(regions))

    def _class(self, modality: str | None, names: str) -> str:
        for one in self.rules.modality_classes:
            if modality in one.modalities and (not one.words or any(_plain(word) in names for word in one.words)):
                return one.id
        return OTHER

    def _named(self, names: str) -> list[Region]:
        found = []
        for region in self.rules.regions:
            text = names
            for word in region.excluded:
                text = text.replace(_plain(word), " ")
            if any(_plain(word) in text for word in region.words):
                found.append(region)
        return found

    def _by_part(self, part: str | None) -> list[Region]:
        region = self._parts.get(_plain(part)) if part else None
        return [region] if region else []


def load_exam_rules(folder: Path | None = None) -> ExamReader:
    """Read ``exams.yaml`` of a rules folder.

    Raises:
        ConfigError: names file, line and key; also where a region names another that does not exist.
    """
    path = (folder or rules_folder()) / "exams.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: missing; a rules folder needs this file")
    document = read_yaml(path)
    rules = parse(document, ExamRules)
    known = {region.id for region in rules.regions}
    for number, region in enumerate(rules.regions):
        if unknown := sorted({*region.holds, *region.within} - known):
            raise ConfigError(f"{path}:{document.line(('regions', number))}: no region {', '.join(unknown)}")
    return ExamReader(rules)


def scope_of(exams: pl.DataFrame, label_sets: Mapping[str, LabelSet], reader: ExamReader) -> pl.DataFrame:
    """Which label sets fit which exam: columns exam_id, label_set, in the order of the exams.

    Args:
        exams: exam_id, modality, modality_class, order_name, protocol_name, body_part.
    """
    keys = ["modality", "modality_class", "order_name", "protocol_name", "body_part"]
    exams = exams.select("exam_id", pl.col(keys).cast(pl.String))
    kinds = exams.select(keys).unique(maintain_order=True)
    rows = [
        (*row, name)
        for row in kinds.iter_rows()
        for name in label_sets_of(row[0], row[1], reader.see(row[0], *row[2:]).regions, label_sets)
    ]
    fits = pl.DataFrame(rows, schema=[*((key, pl.String) for key in keys), ("label_set", pl.String)], orient="row")
    return exams.join(fits, on=keys, how="inner", nulls_equal=True, maintain_order="left_right").select(
        "exam_id", "label_set"
    )


def label_sets_of(
    modality: str | None, modality_class: str | None, regions: frozenset[str], label_sets: Mapping[str, LabelSet]
) -> list[str]:
    """The label sets that fit one exam, sorted."""
    return sorted(
        name
        for name, label_set in label_sets.items()
        if any(_fits(kind, modality, modality_class, regions) for kind in label_set.exams)
    )


def _fits(kind: ExamKind, modality: str | None, modality_class: str | None, regions: frozenset[str]) -> bool:
    return (
        (not kind.modality_classes or modality_class in kind.modality_classes)
        and (not kind.modalities or modality in kind.modalities)
        and (not kind.regions or not regions.isdisjoint(kind.regions))
    )


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).upper().split()).replace("~", "〜")
