"""One report made ready for a reader: its mentions with clause and cue, and the text cut where any of them begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.explain import Span, locate
from reportlabel.report.names import Called, change_name, count_name, finding_name, lobe_name, side_name, site_names
from reportlabel.rulebook.load import Rulebook


@dataclass(frozen=True, slots=True)
class ReadMention:
    """A mention with its names, clause and cue; spans are those of the report, end exclusive."""

    number: int
    span: Span
    clause: Span
    cue_span: Span | None
    finding: str
    name: Called
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


def read_mentions(text: str, mentions: pl.DataFrame, annotator: Annotator) -> list[ReadMention]:
    """The mentions of one report, in order, numbered from 1.

    Args:
        mentions: the rows of the mentions table that belong to this text.
    """
    rows = mentions.sort("start", "end", maintain_order=True)
    places = locate(annotator, text, rows.select("start", "end", "sentence", "cue").iter_rows())
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
            attributes=_attributes(row, annotator.rules),
            summary=_summary(row, annotator.rules),
            rule_id=row["rule_id"],
        )
        for number, (row, place) in enumerate(zip(rows.iter_rows(named=True), places, strict=True), start=1)
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


def _attributes(row: dict[str, object], rules: Rulebook) -> tuple[tuple[str, str], ...]:
    """Site, side, lobe, size, count, change and image reference: Japanese caption and value, only what is known."""
    shown = {
        "部位": _sites(row["site"], rules),
        "側": side_name(str(row["side"])).ja if row["side"] else "",
        "肺葉": lobe_name(str(row["lobe"])).ja if row["lobe"] else "",
        "大きさ": f"{row['size_mm']:g}mm" if row["size_mm"] is not None else "",
        "数": count_name(str(row["count"])) if row["count"] else "",
        "変化": change_name(str(row["change"])).ja if row["change"] else "",
        "画像": str(row["image_ref"] or ""),
    }
    return tuple((caption, value) for caption, value in shown.items() if value)


def _summary(row: dict[str, object], rules: Rulebook) -> str:
    """The attributes in a few words: 右上葉, 24mm, 不変."""
    captioned = dict(_attributes(row, rules))
    sites, lobe = captioned.get("部位", ""), captioned.get("肺葉", "")
    place = captioned.get("側", "") + " ".join(part for part in (sites, lobe if lobe not in sites else "") if part)
    others = [captioned.get(name, "") for name in ("大きさ", "数", "変化", "画像")]
    return ", ".join(part for part in (place, *others) if part)


def _sites(site: object, rules: Rulebook) -> str:
    if not site:
        return ""
    names = site_names(rules)
    return "・".join(names[one].ja if one in names else one for one in str(site).split(";"))
