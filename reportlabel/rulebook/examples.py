"""Run the examples of the rules: each is a report text and what its finding must come out as."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reportlabel.annotate.annotator import Annotator, Row
from reportlabel.rulebook.models import Example, Finding
from reportlabel.vote.rules import implied_by

NOT_MENTIONED = "not_mentioned"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One example and what came of it. ``problems`` is empty where it passes."""

    path: Path
    line: int
    finding: str
    example: Example
    problems: tuple[str, ...]


def run_examples(annotator: Annotator, *, region: str | None = None, finding: str | None = None) -> Iterator[Outcome]:
    """Run every example, or those of one region or finding."""
    for finding_id, file in annotator.rules.files.items():
        if (region is not None and file.region != region) or (finding is not None and finding_id != finding):
            continue
        generic = finding_id in annotator.grammar.generic
        wanted = {finding_id} | implied_by(finding_id, annotator.rules)
        for at, example in enumerate(file.finding.examples):
            rows = _with_denied(annotator.mentions(example.text, region=file.region), file.finding)
            yield Outcome(
                path=file.document.path,
                line=file.document.line(("examples", at)),
                finding=finding_id,
                example=example,
                problems=tuple(_problems(example, rows, finding_id, wanted, generic=generic)),
            )


def _with_denied(rows: Sequence[Row], finding: Finding) -> list[Row]:
    """A denied finding of ``denial_of`` reads as this one present."""
    return [
        row._replace(finding=finding.id, status="present")
        if row.finding in finding.denial_of and row.status == "absent"
        else row
        for row in rows
    ]


def _problems(
    example: Example, rows: Sequence[Row], finding_id: str, wanted: set[str], *, generic: bool
) -> Iterator[str]:
    """What differs from the example. A generic finding counts also where a site made it a specific one."""
    current = [
        row
        for row in rows
        if row.temporality == "current"
        and (row.finding in wanted or (generic and row.rule_id.startswith(f"{finding_id}/")))
        and (row.finding == finding_id or generic or row.status != "absent")
    ]
    statuses = {row.status for row in current}
    status = next((status for status in ("present", "uncertain", "absent") if status in statuses), NOT_MENTIONED)
    if status != example.status:
        yield f"expected {example.status}, got {status}"
        return
    deciding = [row for row in current if row.status == status]
    if example.size_mm is not None and example.size_mm not in {row.size_mm for row in deciding}:
        yield f"expected size {example.size_mm:g} mm, got {_listed(row.size_mm for row in deciding)}"
    if example.side is not None and example.side not in {row.side for row in deciding}:
        yield f"expected side {example.side}, got {_listed(row.side for row in deciding)}"
    if example.site is not None and not any(example.site in (row.site or "").split(";") for row in deciding):
        yield f"expected site {example.site}, got {_listed(row.site for row in deciding)}"
    if example.count is not None and example.count not in {row.count for row in deciding}:
        yield f"expected count {example.count}, got {_listed(row.count for row in deciding)}"
    if example.change is not None and example.change not in {row.change for row in deciding}:
        yield f"expected change {example.change}, got {_listed(row.change for row in deciding)}"


def _listed(values: Iterator[object]) -> str:
    return ", ".join(sorted({"nothing" if value is None else str(value) for value in values})) or "nothing"
