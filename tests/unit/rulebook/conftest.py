"""A rules folder of three findings, clean as it stands; each test changes one thing in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.read_yaml import read_yaml

EXAMPLES = [{"text": f"所見{number}。", "status": "present" if number < 4 else "absent"} for number in range(8)]
FINDINGS: dict[str, dict[str, Any]] = {
    "general/cyst": {"terms": ["嚢胞"], "exclude": ["嚢胞液"]},
    "abdomen/liver_cyst": {"terms": ["肝嚢胞"], "compose": [{"finding": "cyst", "at": ["liver"]}]},
    "abdomen/ascites": {"terms": ["腹水", "液体貯留"]},
}
SITES = [
    {"id": "abdomen", "terms": ["腹部"]},
    {"id": "liver", "within": ["abdomen"], "terms": ["肝", "肝臓"]},
    {"id": "kidney", "within": ["abdomen"], "terms": ["腎"]},
]
LABEL_SET: dict[str, Any] = {
    "id": "small",
    "name": {"ja": "小", "en": "Small"},
    "source": "test",
    "region": "abdomen",
    "precedence": ["present", "uncertain", "absent"],
    "findings": [
        {"id": "liver_cyst", "name": {"ja": "肝嚢胞", "en": "Liver cyst"}, "any_of": ["liver_cyst"], "at": ["liver"]},
        {"id": "ascites", "name": {"ja": "腹水", "en": "Ascites"}, "any_of": ["ascites"]},
    ],
    "values": [{"id": "n", "name": {"ja": "数", "en": "Number"}, "value_of": "liver_cyst.count"}],
}

Edit = Callable[[Any], object]


class Rules:
    """A rules folder on disk. ``edit`` changes the data of one of its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    def write(self, name: str, data: Any) -> Path:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.dump(data, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return path

    def edit(self, name: str, change: Edit) -> Path:
        data = read_yaml(self.path(name)).data
        change(data)
        return self.write(name, data)

    def finding(self, place: str, **keys: Any) -> Path:
        finding_id = place.split("/")[1]
        name = {"ja": finding_id, "en": finding_id}
        data = {"id": finding_id, "name": name, "examples": EXAMPLES, **keys}
        return self.write(f"findings/{place}", {key: value for key, value in data.items() if value is not None})

    def line_of(self, name: str, text: str) -> int:
        """The line (from 1) of the last occurrence of ``text`` in a file."""
        lines = self.path(name).read_text(encoding="utf-8").splitlines()
        return max(number for number, line in enumerate(lines, start=1) if text in line)


@pytest.fixture
def rules(tmp_path: Path, clean_rules: Path) -> Rules:
    return Rules(shutil.copytree(clean_rules, tmp_path / "rules"))


@pytest.fixture(scope="session")
def clean_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = Rules(tmp_path_factory.mktemp("clean") / "rules")
    shipped = rules_folder()
    small.folder.mkdir()
    for name in ("assertion", "sections", "context", "normalise", "anatomy"):
        shutil.copy(shipped / f"{name}.yaml", small.path(name))
    small.edit(
        "context",
        lambda data: data.update({key: [] for key in ("carriers", "inherits", "targets", "unsized", "transparent")}),
    )
    small.edit("normalise", lambda data: data.update(spellings=[["癌", "がん"], ["腫瘍", "腫よう"]]))
    small.edit(
        "anatomy",
        lambda data: data.update(
            regions=[{"id": "general"}, {"id": "abdomen", "default_site": "liver"}],
            sites=SITES,
            nodal_regions=["abdomen"],
        ),
    )
    tumour = read_yaml(shipped / "staging" / "primary_tumour.yaml").data
    small.write(
        "staging/primary_tumour", {key: [] if isinstance(value, list) else value for key, value in tumour.items()}
    )
    for place, keys in FINDINGS.items():
        small.finding(place, **keys)
    small.write("label_sets/small", LABEL_SET)
    return small.folder
