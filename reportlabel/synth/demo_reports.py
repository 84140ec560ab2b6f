"""A small synthetic hospital: invented reports of eleven kinds of exam, to see the program at work.

The cases stand in ``hospital/*.yaml``. Each is written once, in the words of one radiologist; a seed chooses the values
of its slots, the layout it is typed in, and the order of the archive. No patient stands behind any of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import BeforeValidator, Field

from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

DEMO_REPORTS = pl.Schema(
    {"report_id": pl.String, "exam_id": pl.String, "modality": pl.String, "label_set": pl.String, "text": pl.String}
)
HOSPITAL = Path(__file__).with_name("hospital")


def demo_reports(*, seed: int = 0) -> pl.DataFrame:
    """The reports of the synthetic hospital; one seed always gives the same reports.

    Returns:
        Columns report_id, exam_id, modality (key of `modality_names`), label_set (the one that fits the exam), text.
    """
    chance = random.Random(seed)  # noqa: S311 - nothing here is secret
    written = [report for department in _departments() for report in _write_all(department, chance)]
    chance.shuffle(written)
    return pl.DataFrame(
        [
            (f"R{number:04d}", f"E{number:04d}", report.modality, report.label_set, report.text)
            for number, report in enumerate(written, start=1)
        ],
        schema=DEMO_REPORTS,
        orient="row",
    )


def modality_names() -> dict[str, tuple[str, str]]:
    """Modality -> its Japanese and English name, in the order of the files."""
    return {one.modality.id: (one.modality.ja, one.modality.en) for one in _departments()}


# --- the files --------------------------------------------------------------------------------------------------------


class Modality(Strict):
    """A kind of exam."""

    id: str
    ja: str
    en: str


Words = Annotated[str, BeforeValidator(str)]


class Case(Strict):
    """One report with slots. A line that begins with ``~`` is left out of about half of its copies."""

    id: str
    copies: Annotated[int, Field(ge=1)]
    label_set: str | None = None
    slots: dict[str, Annotated[list[Words], Field(min_length=1)]] = Field(default_factory=dict)
    indication: str | None = None
    technique: str | None = None
    comparison: str | None = None
    findings: str
    impression: str


class Department(Strict):
    """One file: a kind of exam, the label set that fits it, and its cases."""

    modality: Modality
    label_set: str
    cases: Annotated[list[Case], Field(min_length=1)]


@cache
def _departments() -> tuple[Department, ...]:
    return tuple(parse(read_yaml(path), Department) for path in sorted(HOSPITAL.glob("*.yaml")))


# --- from case to text ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Written:
    modality: str
    label_set: str
    text: str


@dataclass(frozen=True)
class _Layout:
    """How a radiologist types.

    Attributes:
        heads: section -> its heading.
        inline: a heading and a single line share a line.
        bullet: in front of the lines of an impression that has several; ``#`` numbers them.
        wide_digits: numbers in full-width digits.
        wrap: the terminal breaks lines after so many characters.
    """

    heads: dict[str, str]
    inline: bool = False
    bullet: str = ""
    wide_digits: bool = False
    wrap: int | None = None


_SECTIONS = ("indication", "technique", "comparison", "findings", "impression")


def _heads(*names: str) -> dict[str, str]:
    return dict(zip(_SECTIONS, names, strict=True))


_BRACKETS = _heads("【依頼目的】", "【撮影方法】", "【比較】", "【所見】", "【診断】")
_LAYOUTS = (
    _Layout(_BRACKETS),
    _Layout(_BRACKETS, wrap=34),
    _Layout(_heads("＜臨床情報＞", "＜検査方法＞", "＜比較＞", "＜所見＞", "＜診断＞"), wide_digits=True),
    _Layout(_heads("■依頼目的：", "■検査方法：", "■比較：", "■所見：", "■診断："), inline=True, bullet="・"),
    _Layout(_heads("Indication:", "Technique:", "Comparison:", "Findings:", "Impression:"), inline=True, bullet="#"),
    _Layout(_heads("目的：", "方法：", "比較：", "所見：", "診断："), inline=True),
)
_WIDE = str.maketrans("0123456789", "０１２３４５６７８９")


def _write_all(department: Department, chance: random.Random) -> Iterator[_Written]:
    for case in department.cases:
        # the copies of a case walk through the values of each slot, so that no two copies are equal
        first = {name: chance.randrange(len(values)) for name, values in case.slots.items()}
        layouts = chance.sample(_LAYOUTS, k=min(case.copies, len(_LAYOUTS)))
        for copy in range(case.copies):
            values = {name: choices[(first[name] + copy) % len(choices)] for name, choices in case.slots.items()}
            text = _write(case, values, layouts[copy % len(layouts)], chance)
            yield _Written(department.modality.id, case.label_set or department.label_set, text)


def _write(case: Case, values: dict[str, str], layout: _Layout, chance: random.Random) -> str:
    parts: list[str] = []
    for section in _SECTIONS:
        source: str | None = getattr(case, section)
        if source is None:
            continue
        lines = [line for line in source.splitlines() if not line.startswith("~") or chance.random() < 0.5]
        filled = [line.removeprefix("~").format_map(values) for line in lines]
        parts.append(_section(filled, section, layout))
    text = "\n".join(parts)
    return text.translate(_WIDE) if layout.wide_digits else text


def _section(lines: Sequence[str], section: str, layout: _Layout) -> str:
    head = layout.heads[section]
    if section == "impression" and layout.bullet and len(lines) > 1:
        lines = [f"{number}) {line}" if layout.bullet == "#" else f"・{line}" for number, line in enumerate(lines, 1)]
    wrapped = [piece for line in lines for piece in _wrapped(line, layout.wrap)]
    if layout.inline and len(wrapped) == 1:
        blank = " " if head.isascii() else ""
        return f"{head}{blank}{wrapped[0]}"
    return "\n".join([head, *wrapped])


def _wrapped(line: str, width: int | None) -> list[str]:
    """Broken where a terminal breaks: after so many characters, and no full stop or comma begins a line."""
    pieces = []
    while width is not None and len(line) > width:
        at = width + 1 if line[width] in "。、）)" else width
        pieces.append(line[:at])
        line = line[at:]
    return [*pieces, line] if line else pieces
