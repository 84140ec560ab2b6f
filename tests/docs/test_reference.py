"""What the documentation names exists, and what exists is named: options, rule keys, columns, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pydantic
import pytest
import typer

from reportlabel.annotate.annotator import Annotator
from reportlabel.cli import app
from reportlabel.ingest.report_table import QUARANTINE, REASONS
from reportlabel.rulebook import check, models
from reportlabel.rulebook.load import rules_folder
from reportlabel.schema import LABELS, MENTIONS

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "models").glob("*.md"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- the command line


def commands(command: click.Command, name: str = "reportlabel") -> Iterator[tuple[str, click.Command]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child, inner in children.items():
        yield from commands(inner, f"{name} {child}")


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented_on_the_page_of_its_command(name: str) -> None:
    options = {
        option
        for parameter in COMMANDS[name].params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("-") and option != "--help"
    }
    missing = {
        page.name: sorted(option for option in options if not re.search(rf"`[^`\n]*{option}(?![\w-])", text_of(page)))
        for page in (ROOT / "README.md", *DOCS)
        if re.search(rf"\b{name}(?![\w-])", text_of(page))
    }
    assert missing, f"no page names `{name}`"
    assert [] in missing.values(), f"{name}: undocumented options by page: {missing}"


def test_no_option_is_documented_that_does_not_exist() -> None:
    known = {"--help"} | {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = {
        (page.name, option)
        for page in (ROOT / "README.md", *DOCS)
        for code in re.findall(r"`([^`\n]*(?:reportlabel|^--)[^`\n]*|--[^`\n]*)`", text_of(page))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)
    }
    assert named
    assert {(page, option) for page, option in named if option not in known} == set()


# --- tables and rules


@pytest.mark.parametrize(
    "names",
    [list(LABELS), list(MENTIONS), list(QUARANTINE), list(REASONS)],
    ids=["labels", "mentions", "quarantine", "reasons"],
)
def test_columns_and_reasons_are_documented(names: list[str]) -> None:
    page = text_of(ROOT / "docs" / "label.md")
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_label_set_is_documented() -> None:
    page = text_of(ROOT / "docs" / "label.md")
    names = [path.stem for path in (rules_folder() / "label_sets").glob("*.yaml")]
    assert names
    assert [name for name in names if f"| `{name}` |" not in page] == []


def rule_keys(model: type[pydantic.BaseModel], seen: set[type]) -> set[str]:
    """Every key that a rule file of this kind can have."""
    if model in seen:
        return set()
    seen.add(model)
    keys = {field.alias or name for name, field in model.model_fields.items()}
    for field in model.model_fields.values():
        for inner in _models_in(field.annotation):
            keys |= rule_keys(inner, seen)
    return keys


def _models_in(annotation: object) -> Iterator[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("A finding", models.Finding),
        ("Label sets", models.LabelSet),
        ("anatomy.yaml", models.Anatomy),
        ("assertion.yaml", models.AssertionRules),
        ("sections.yaml", models.SectionRules),
        ("context.yaml", models.ContextRules),
        ("normalise.yaml", models.NormaliseRules),
        ("staging/primary_tumour.yaml", models.PrimaryTumour),
    ],
)
def test_every_rule_key_is_documented(heading: str, model: type[pydantic.BaseModel]) -> None:
    page = text_of(ROOT / "docs" / "rules.md")
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    # the names of a name are documented once
    keys = rule_keys(model, set()) - {"ja", "en"}
    assert sorted(key for key in keys if f"`{key}`" not in section) == []


def test_every_problem_of_the_rules_is_documented() -> None:
    source = text_of(Path(check.__file__))
    codes = set(re.findall(r'"((?:[a-z]+_)+[a-z]+|cycle)", ?(?:f"|"|message|\n)', source))
    page = text_of(ROOT / "docs" / "rules.md")
    assert len(codes) > 12
    assert sorted(code for code in codes if f"`{code}`" not in page) == []


# --- what the reading is said to be


def test_the_table_of_statuses_is_true() -> None:
    page = text_of(ROOT / "docs" / "5-annotate.md")
    table = page.split("| the report says | status |")[1].split("\n\n")[0]
    annotator = Annotator()
    checked = 0
    for line in table.splitlines()[2:]:
        _, text, said, _ = (cell.strip() for cell in line.split("|"))
        rows = annotator.mentions(f"{text}。", region="chest")
        for surface, status in re.findall(r"([^\s,:`]+) `(present|uncertain|absent|hypothetical)`", said):
            found = [(row.status, row.temporality) for row in rows if row.surface == surface]
            assert len(found) == 1 and status in found[0], f"{text}: {surface} is {found}"
            checked += 1
        for change in re.findall(r"change `(\w+)`", said):
            assert change in {row.change for row in rows}, text
        if "nothing about" in said:
            assert rows == []
    assert checked >= 10


# --- links


def links(page: Path) -> Iterator[str]:
    without_code = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    yield from re.findall(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)", without_code)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings as GitHub and MkDocs make them (alike for the headings that are linked to)."""
    without_code = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path, *, top: Path) -> list[str]:
    """Links of a page that lead nowhere, or out of the folder ``top``."""
    wrong = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        if not place.exists() or not place.is_relative_to(top) or (anchor and anchor not in anchors(place)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_internal_links_resolve(page: Path) -> None:
    # the site holds docs/ only
    assert broken_links(page, top=ROOT / "docs" if page in DOCS else ROOT) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading, 日本語\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#a-heading-日本語) [c](gone.md) [d](there.md#gone) [e](https://example.org/x)",
        encoding="utf-8",
    )
    assert broken_links(page, top=tmp_path) == ["gone.md", "there.md#gone"]


def test_every_page_is_in_the_navigation() -> None:
    site = text_of(ROOT / "mkdocs.yml")
    assert [page.name for page in DOCS if page.name not in site] == []


# --- the synthetic hospital


def test_the_printed_reports_are_those_of_the_generator() -> None:
    from reportlabel.synth.bank import load_bank
    from reportlabel.synth.preview import with_samples

    page = text_of(ROOT / "docs" / "synthetic.md")
    assert page.count("\n(20) ") == 7
    assert with_samples(page, load_bank()) == page, (
        "run: python -m reportlabel.synth.preview --samples docs/synthetic.md"
    )
