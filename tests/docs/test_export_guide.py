"""The examples of docs/9-export.md, one after another as a reader copies them: every format trains a network."""

from __future__ import annotations

import contextlib
import io
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.test_snippets import assert_output, blocks

PAGE = Path(__file__).parents[2] / "docs" / "9-export.md"
NEEDED = ("torch", "datasets", "monai")


@pytest.mark.slow
def test_every_format_trains_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if "torch" in missing:
        pytest.skip("torch is not installed")
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    skipped = []
    for block in blocks(PAGE.read_text(encoding="utf-8")):
        if block.language != "python":
            continue
        lacking = [name for name in missing if re.search(rf"\b(?:from|import) {name}\b", block.text)]
        if lacking:
            skipped += lacking
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, f"{PAGE.name}:{block.line}", "exec"), known)
        said = re.findall(r"^# Out: ?(.*)$", block.text, re.MULTILINE)
        if said:
            assert_output(printed.getvalue(), "\n".join(said), where=f"{PAGE.name}:{block.line}")
    if skipped:
        pytest.skip(f"run but for the examples of {', '.join(skipped)}, which are not installed")


def test_every_format_has_an_example() -> None:
    from reportlabel.export.options import FORMATS

    page = PAGE.read_text(encoding="utf-8")
    examples = re.split(r"^### ", page[page.index("## The formats") :], flags=re.MULTILINE)[1:]
    assert [example.split("\n")[0] for example in examples] == list(FORMATS)
    assert all("```python" in example and "train(" in example and "# Out:" in example for example in examples)


def test_every_column_is_explained() -> None:
    from reportlabel.export.features import FEATURES
    from reportlabel.export.teacher import TEACHER

    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in (*TEACHER, *FEATURES) if f"`{name}`" not in page] == []
