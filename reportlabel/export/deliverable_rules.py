"""Words, columns and limits of what the studies hand over: ``rules/deliverables.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reportlabel.protocol import RecordKind
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["BoneScanRules", "DeliverableRules", "DoseRules", "PhotographRules", "SkinRules", "load_deliverables"]

Field9 = Literal[
    "patient_code", "exam_date", "findings", "eod", "metastasis", "age_years", "sex", "height", "weight_kg"
]  # fmt: skip
Positive = Annotated[int, Field(ge=1)]


class SheetColumn(Strict):
    """A column of the bone scan sheet: what stands in it, its header, its width in characters."""

    field: Field9
    header: Annotated[str, Field(min_length=1)]
    width: Positive


class MetastasisWords(Strict):
    """Patient level, yes or no."""

    present: str
    absent: str


class BoneScanRules(Strict):
    """``bone_scan`` of rules/deliverables.yaml."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9_]+\.xlsx$")]
    title: Annotated[str, Field(min_length=1, max_length=31)]
    label_set: str
    metastasis: str
    count: str
    eod: str
    columns: Annotated[tuple[SheetColumn, ...], Field(min_length=9, max_length=9)]
    metastasis_words: MetastasisWords
    sex_words: dict[Literal["F", "M"], str]
    eod_grades: tuple[int, ...]
    thresholds: dict[str, tuple[float, ...]]
    counted: tuple[str, ...] = ()


class AgeGroup(Strict):
    """Ages from the group before (or 0) to below ``below``. ``standard_weight_kg``: also given for these alone."""

    id: str
    below: Positive | None = None
    standard_weight_kg: tuple[float, float] | None = None


class DoseRules(Strict):
    """``dose`` of rules/deliverables.yaml."""

    measures: Annotated[tuple[Literal["ctdi_vol", "dlp", "contrast_ml"], ...], Field(min_length=1)]
    percentiles: Annotated[tuple[Annotated[int, Field(gt=0, lt=100)], ...], Field(min_length=1)]
    age_groups: Annotated[tuple[AgeGroup, ...], Field(min_length=1)]
    reason_section: str
    described: tuple[str, ...]


class Nationality(Strict):
    """Words for Japanese and for anything else; words for not known."""

    japanese: tuple[str, ...]
    other: tuple[str, ...]
    unknown: tuple[str, ...]


class MelanomaHistory(Strict):
    """Which diagnoses of which records count as an earlier melanoma."""

    findings: tuple[str, ...]
    kinds: tuple[RecordKind, ...]


class Around(Strict):
    """Days before and after the picture, both included."""

    before: Annotated[int, Field(ge=0)]
    after: Annotated[int, Field(ge=0)]


class SkinRules(Strict):
    """``skin`` of rules/deliverables.yaml."""

    label_set: str
    nationality: Nationality
    melanoma_history: MelanomaHistory
    pathology: Around
    clinical: Around
    lesion_sites: Annotated[tuple[str, ...], Field(min_length=1)]
    specimen_words: tuple[str, ...]
    unspecific: tuple[str, ...] = ()
    diagnosis_codes: tuple[Annotated[str, Field(pattern=r"^[A-Z](\d\d)?$")], ...]
    diagnoses: tuple[str, ...]


class Cascade(Strict):
    """One of OpenCV's cascade files. ``mirrored``: the picture is searched mirrored too."""

    finds: Literal["face", "eye"]
    file: Annotated[str, Field(pattern=r"^haarcascade_[a-z0-9_]+\.xml$")]
    scale: Annotated[float, Field(gt=1)]
    neighbours: Positive
    mirrored: bool = False


class Sieve(Strict):
    """How pictures are searched for faces and eyes. ``smallest``: share of the shorter side."""

    longest_side: Positive
    cascades: Annotated[tuple[Cascade, ...], Field(min_length=1)]
    smallest: Annotated[float, Field(gt=0, lt=1)]


class Hints(Strict):
    """What the boxes of the sieve are called."""

    face: str
    eye: str


class ClearanceWords(Strict):
    """The question to the person who decides, and the two answers."""

    question: str
    cleared: str
    not_cleared: str
    hints: Hints


class PhotographRules(Strict):
    """``photographs`` of rules/deliverables.yaml."""

    formats: dict[Literal["JPEG", "PNG", "TIFF"], Annotated[str, Field(pattern=r"^\.[a-z]{3,4}$")]]
    jpeg_quality: Annotated[int, Field(ge=50, le=100)]
    sieve: Sieve
    clearance: ClearanceWords


class DeliverableRules(Strict):
    """``rules/deliverables.yaml``."""

    bone_scan: BoneScanRules
    dose: DoseRules
    skin: SkinRules
    photographs: PhotographRules


def load_deliverables(folder: Path | None = None) -> DeliverableRules:
    """Read ``deliverables.yaml`` of a rules folder; None: the installed one.

    Raises:
        ConfigError: the file is wrong; names file and line.
    """
    return parse(read_yaml((folder or rules_folder()) / "deliverables.yaml"), DeliverableRules)
