"""The examples of the page on deliverables run, and every deliverable of the shipped protocols is on it."""

from __future__ import annotations

from pathlib import Path

from reportlabel.protocol import load_protocol, shipped_protocols
from tests.docs.test_snippets import run_document

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "study-deliverables.md"


def test_the_examples_run(tmp_path: Path) -> None:
    assert run_document(PAGE.read_text(encoding="utf-8"), tmp_path, name=PAGE.name) == 2


def test_every_deliverable_of_the_studies_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    elsewhere = {"labels", "report"}
    for name in shipped_protocols():
        for one in load_protocol(name).deliverables:
            assert one.kind in elsewhere or f"`{one.id}`" in page, f"{name}: {one.id}"
