"""The shipped rules, read and compiled once."""

from __future__ import annotations

import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.rulebook.load import Rulebook, load_rules


@pytest.fixture(scope="session")
def shipped() -> Rulebook:
    return load_rules()


@pytest.fixture(scope="session")
def annotator(shipped: Rulebook) -> Annotator:
    return Annotator(shipped)
