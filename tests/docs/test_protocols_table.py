"""The table of requirements in docs/protocols.md: every number is there and has a test, and every test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocols.md"
COUNTS = {"K": 17, "J": 14, "B": 23, "S": 11, "T": 11, "X": 3}
"""How many requirements each notice has, and those of all."""
NUMBERS = [f"{letter}{number}" for letter, count in COUNTS.items() for number in range(1, count + 1)]
_ROW = re.compile(r"^\| (?P<numbers>[A-Z][^|]*?) \| (?P<what>[^|]+?) \| (?P<tests>[^|]+?) \|$", re.MULTILINE)
_NAME = re.compile(r"`(test_\w+)`")


def rows() -> dict[str, tuple[str, list[str]]]:
    """Number (or numbers) -> what does it, names of tests."""
    section = PAGE.read_text(encoding="utf-8").partition("## Requirements and tests")[2]
    return {row["numbers"]: (row["what"], _NAME.findall(row["tests"])) for row in _ROW.finditer(section)}


def known_tests() -> set[str]:
    """The names of all tests of the repository."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("number", NUMBERS)
def test_X1_a_requirement_has_a_test(number: str) -> None:
    what, named = rows()[number]
    assert named, f"{number}: {what}: no test"


def test_X1_every_test_of_the_table_exists() -> None:
    missing = {name for _, named in rows().values() for name in named} - known_tests()
    assert not missing


def test_X1_what_is_open_says_what_it_is() -> None:
    for number, (what, _) in rows().items():
        assert "*open*" not in what or re.search(r"\*open\*: \w.{10,}", what), number


def test_X1_no_number_of_a_test_is_unknown() -> None:
    """A name that begins with a number of a requirement has one that exists."""
    begins = re.compile(r"test_([KJBSTX]\d+)(?=_)")
    unknown = {name for name in known_tests() if (found := begins.match(name)) and found[1] not in NUMBERS}
    assert not unknown
