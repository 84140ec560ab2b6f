"""What a YAML file may not hold is said with its place, never as an error of the library."""

from __future__ import annotations

from pathlib import Path

import pytest

from reportlabel.errors import ConfigError
from reportlabel.rulebook.read_yaml import read_yaml


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: x\0y\n", "2: not valid YAML: character 5 "),
        ("\0", "1: not valid YAML: character 1 "),
        ("日本語: 肝\n嚢胞: 腎\x07\n", "2: not valid YAML: character 6 "),
        ("a: 1\n" * 4000 + "b: \x1b[0m\n", "4001: not valid YAML: character 4 "),
        ("a: [\n  1,\n  \x7f]\n", "3: not valid YAML: character 3 "),
    ],
)
def test_characters_that_are_no_text_are_named_by_their_place(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "archive.yaml"
    path.write_bytes(text.encode())
    with pytest.raises(ConfigError, match=f"archive.yaml:{place}.*control character.*delete it"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nday: 2023-02-30\n", r"archive.yaml:2: no date.*quotes"),
        ("a: &x [*x]\n", r"archive.yaml.*not valid YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, r"archive.yaml: not valid YAML.*too deeply"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "archive.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_yaml(path)
