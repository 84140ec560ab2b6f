"""One report made ready for a reader: its mentions with clause and cue, and the text cut where any of them begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.explain import Span, locate
from reportlabel.report.names import count_name, finding_name, site_names
from reportlabel.rulebook.display import DisplayWords, named
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import Name


@dataclass(frozen=True, slots=True)
class ReadMention:
    """A mention with its names, clause and cue; spans are those of the report, end exclusive."""

    number: int
    span: Span
    clause: Span
    cue_span: Span | None
    finding: str
    name: Name
    surface: str
    status: str
    temporality: str
    cue: str
    attributes: tuple[tuple[str, str], ...]
    summary: str
    rule_id: str

    @property
    def counts(self) -> bool:
        """Whether it speaks of this exam; only then it votes."""
        return self.temporality == "current"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the text, and the mentions (by place in the list) it is the words, the cue or the clause of."""

    text: str
    mentions: tuple[int, ...]
    cues: tuple[int, ...]
    clauses: tuple[int, ...]
    ends: tuple[int, ...]


def read_mentions(text: str, mentions: pl.DataFrame, annotator: Annotator, words: DisplayWords) -> list[ReadMention]:
    """The mentions of one report, in order, numbered from 1.

    Args:
        mentions: the rows of the mentions table that belong to this text.
        words: what attributes and their values are called.
    """
    rows = mentions.sort("start", "end", maintain_order=True)
    places = locate(annotator, text, rows.select("start", "end", "sentence", "cue").iter_rows())
    known = [_attributes(row, annotator.rules, words) for row in rows.iter_rows(named=True)]
    captions = words.attributes.model_dump()
    return [
        ReadMention(
            number=number,
            span=(row["start"], row["end"]),
            clause=place.clause,
            cue_span=place.cue,
            finding=row["finding"],
            name=finding_name(row["finding"], annotator.rules),
            surface=one_line(row["surface"]),
            status=row["status"],
            temporality=row["temporality"],
            cue=row["cue"] or "",
            attributes=tuple((captions[key], value) for key, value in said.items()),
            summary=_summary(said),
            rule_id=row["rule_id"],
        )
        for number, (row, place, said) in enumerate(
            zip(rows.iter_rows(named=True), places, known, strict=True), start=1
        )
    ]


def cut(text: str, mentions: Sequence[ReadMention]) -> list[Piece]:
    """The whole text in pieces, none of which begins or ends a mention, cue or clause in its middle."""
    spans = [span for mention in mentions for span in (mention.span, mention.clause, mention.cue_span) if span]
    edges = sorted({0, len(text), *(edge for span in spans for edge in span)})
    return [
        Piece(
            text=text[start:end],
            mentions=_covering([mention.span for mention in mentions], start, end),
            cues=_covering([mention.cue_span for mention in mentions], start, end),
            clauses=_covering([mention.clause for mention in mentions], start, end),
            ends=tuple(at for at, mention in enumerate(mentions) if mention.span[1] == end),
        )
        for start, end in pairwise(edges)
    ]


def one_line(text: str) -> str:
    """Words that a line break cuts in two, in one piece."""
    return "".join(text.split("\n")).replace("\r", "")


def _covering(spans: Sequence[Span | None], start: int, end: int) -> tuple[int, ...]:
    return tuple(at for at, span in enumerate(spans) if span and span[0] <= start and end <= span[1])


def _attributes(row: Mapping[str, Any], rules: Rulebook, words: DisplayWords) -> dict[str, str]:
    """Key of the caption -> value: site, side, lobe, size, count, change and image reference, only what is known."""
    shown = {
        "site": _sites(row["site"], rules, words),
        "side": named(words.sides, row["side"]).ja if row["side"] else "",
        "lobe": named(words.lobes, row["lobe"]).ja if row["lobe"] else "",
        "size": f"{row['size_mm']:g}mm" if row["size_mm"] is not None else "",
        "count": count_name(row["count"], words) if row["count"] else "",
        "change": named(words.changes, row["change"]).ja if row["change"] else "",
        "image": row["image_ref"] or "",
    }
    return {key: value for key, value in shown.items() if value}


def _summary(known: Mapping[str, str]) -> str:
    """The attributes in a few words: 右上葉, 24mm, 不変."""
    sites, lobe = known.get("site", ""), known.get("lobe", "")
    place = known.get("side", "") + " ".join(part for part in (sites, lobe if lobe not in sites else "") if part)
    others = [known.get(name, "") for name in ("size", "count", "change", "image")]
    return ", ".join(part for part in (place, *others) if part)


def _sites(site: str | None, rules: Rulebook, words: DisplayWords) -> str:
    if not site:
        return ""
    names = site_names(rules)
    return words.between_sites.join(named(names, one).ja for one in site.split(";"))
