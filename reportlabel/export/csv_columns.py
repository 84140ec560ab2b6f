"""The headers of public CSV schemas, from ``rules/export.yaml``."""

from __future__ import annotations

from pathlib import Path

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import LabelSet, Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml


class Files(Strict):
    """The file of each split."""

    train: str
    validation: str
    test: str

    def of(self, split: str) -> str:
        """The file name of a split."""
        return str(getattr(self, split))


class Sex(Strict):
    """The column of the sex and its words for the codes of DICOM."""

    column: str
    values: dict[str, str]
    otherwise: str


class CheXpert(Strict):
    """``chexpert``: which label set has the public columns, and what they are called."""

    label_set: str
    files: Files
    targets: str
    image: str
    sex: Sex
    age: str
    empty: list[str]
    columns: dict[str, str]


class CtRate(Strict):
    """``ct_rate``."""

    label_set: str
    files: Files
    masks: Files
    volumes: str
    image: str
    columns: dict[str, str]


class CsvColumns(Strict):
    """``rules/export.yaml``."""

    chexpert: CheXpert
    ct_rate: CtRate


def load_columns(folder: Path | None = None) -> CsvColumns:
    """Read ``export.yaml`` of a rules folder; None: the installed one.

    Raises:
        ConfigError: the file is wrong; names file and line.
    """
    return parse(read_yaml((folder or rules_folder()) / "export.yaml"), CsvColumns)


def column_order(columns: dict[str, str], label_set: LabelSet) -> list[int]:
    """Positions in the label set of the public columns, in their order.

    Raises:
        ConfigError: the label set has not just these findings.
    """
    ids = [entry.id for entry in label_set.findings]
    if set(ids) != set(columns):
        odd = sorted(set(ids) ^ set(columns))
        raise ConfigError(f"label set {label_set.id} and rules/export.yaml do not name the same findings: {odd[0]}")
    return [ids.index(finding) for finding in columns]
