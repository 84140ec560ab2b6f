"""The quality page: what a run made of the reports, as one HTML file that opens offline and needs no network.

It holds report texts. It is data like the reports themselves, and belongs where they may lie.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reportlabel.annotate.annotator import Annotator
from reportlabel.export.atomic import AtomicText
from reportlabel.ingest.report_table import ReadCounts
from reportlabel.report.names import MARKS, STATUSES, finding_name, label_names, value_name
from reportlabel.report.reading import Piece, ReadMention, cut, read_mentions
from reportlabel.rulebook.display import DisplayWords, load_display, named
from reportlabel.rulebook.models import LabelSet, Name
from reportlabel.vote.rules import label_of_finding

_TEMPLATE = "page.html.j2"
_MOST = 12
"""Cues and rules listed a label set."""


@dataclass(frozen=True)
class PageSet:
    """What the page shows of one label set.

    Attributes:
        reports: report_id and text of the reports that may be quoted; a sample will do.
        mentions, labels: the tables of all reports; they give the counts.
    """

    label_set: LabelSet
    reports: pl.DataFrame
    mentions: pl.DataFrame
    labels: pl.DataFrame


def write_page(
    path: Path,
    *,
    batches: Sequence[PageSet],
    annotator: Annotator,
    counts: ReadCounts,
    source: str,
    synthetic: bool = False,
    sample: int = 40,
    made_at: datetime | None = None,
) -> None:
    """Write the quality page.

    Args:
        batches: one a label set, in the order of the page.
        annotator: the one that made the mentions; it gives names, clauses and cues.
        counts: rows read, labelled and set aside.
        source: what was labelled, in a few words.
        synthetic: say on the page that no text is a patient's.
        sample: reports quoted a label set, chosen so that as many labels and values as possible are among them.
        made_at: time on the page (default: now).

    Raises:
        ConfigError: the page cannot be written.
    """
    page = render_page(
        batches=batches,
        annotator=annotator,
        counts=counts,
        source=source,
        synthetic=synthetic,
        sample=sample,
        made_at=made_at,
    )
    with AtomicText(path) as file:
        file.write(page)


def render_page(
    *,
    batches: Sequence[PageSet],
    annotator: Annotator,
    counts: ReadCounts,
    source: str,
    synthetic: bool = False,
    sample: int = 40,
    made_at: datetime | None = None,
) -> str:
    """The page as text; see `write_page`."""
    # report texts are shown as they are written: escaped, and with their line breaks
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    when = made_at or datetime.now().astimezone()
    words = load_display(annotator.rules.folder)
    page: str = environment.get_template(_TEMPLATE).render(
        sets=[_set_view(batch, annotator, words, sample=sample) for batch in batches],
        counts=counts,
        source=source,
        synthetic=synthetic,
        version=_version(),
        rules_hash=annotator.rules.sha256,
        made_at=when.strftime("%Y-%m-%d %H:%M"),
        statuses=[(status, MARKS[status], named(words.statuses, status)) for status in STATUSES],
        words=words.texts,
    )
    return page


def _version() -> str:
    try:
        return version("reportlabel")
    except PackageNotFoundError:  # run from a checkout
        return "not installed"


# --- one label set ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A finding in the table: reports by value, in the order of STATUSES."""

    id: str
    name: Name
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.counts)

    @property
    def mentioned(self) -> int:
        return sum(self.counts[:3])

    def share(self, at: int) -> float:
        return 100 * self.counts[at] / self.total if self.total else 0.0


@dataclass(frozen=True)
class _ValueRow:
    """A label that is no status: in how many reports it is given, and what they say."""

    id: str
    name: Name
    given: int
    says: str


@dataclass(frozen=True)
class _Often:
    """A cue or a rule, how often it decided, and for which status."""

    word: str
    note: str
    status: str
    count: int
    share: float


@dataclass(frozen=True)
class _Card:
    """A report as the page shows it."""

    report_id: str
    pieces: list[_Shown]
    chips: list[tuple[str, str, Name]]
    labels: str
    mentions: list[dict[str, Any]]


@dataclass(frozen=True)
class _Shown:
    """A piece of the text: its CSS classes, and the mentions whose words, cue and clause it belongs to."""

    text: str
    classes: str
    mentions: str
    cues: str
    clauses: str
    labels: str
    says: str = ""


@dataclass(frozen=True)
class _SetView:
    id: str
    name: Name
    reports: int
    mentions: int
    rows: list[_Row]
    values: list[_ValueRow]
    overall: _Row
    cues: list[_Often]
    rules: list[_Often]
    cards: list[_Card] = field(default_factory=list)


def _set_view(batch: PageSet, annotator: Annotator, words: DisplayWords, *, sample: int) -> _SetView:
    label_set = batch.label_set
    names = label_names(label_set)
    rows = [
        _Row(entry.id, names[entry.id], counts)
        for entry, counts in zip(label_set.findings, _status_counts(batch.labels, label_set), strict=True)
    ]
    current = batch.mentions.filter(pl.col("temporality") == "current")
    return _SetView(
        id=label_set.id,
        name=label_set.name,
        reports=batch.labels["report_id"].n_unique(),
        mentions=batch.mentions.height,
        rows=rows,
        values=_value_rows(batch.labels, label_set, words),
        overall=_Row(
            label_set.id,
            Name(ja="", en=""),
            tuple(sum(column) for column in zip(*(row.counts for row in rows), strict=True)),
        ),
        cues=_often(current.filter(pl.col("cue").is_not_null()), "cue", {}),
        rules=_often(current, "rule_id", _names_of_rules(current, annotator, words)),
        cards=_cards(batch, annotator, words, sample=sample),
    )


def _status_counts(labels: pl.DataFrame, label_set: LabelSet) -> Iterable[tuple[int, ...]]:
    counted = labels.group_by("finding", "value").len()
    known = {(finding, value): count for finding, value, count in counted.iter_rows()}
    for entry in label_set.findings:
        yield tuple(known.get((entry.id, status), 0) for status in STATUSES)


def _value_rows(labels: pl.DataFrame, label_set: LabelSet, words: DisplayWords) -> list[_ValueRow]:
    rows = []
    for entry in label_set.values:
        given = labels.filter((pl.col("finding") == entry.id) & (pl.col("value") != "not_mentioned"))["value"].to_list()
        rows.append(_ValueRow(entry.id, entry.name, len(given), _what_they_say(given, words)))
    return rows


def _what_they_say(values: Sequence[str], words: DisplayWords) -> str:
    """Median and range of numbers, else the most frequent values."""
    if not values:
        return ""
    numbers = [_number(value) for value in values]
    if len(set(values)) > 5 and all(number is not None for number in numbers):
        ordered = sorted(number for number in numbers if number is not None)
        middle = ordered[len(ordered) // 2]
        return words.texts.median.format(middle=f"{middle:g}", lowest=f"{ordered[0]:g}", highest=f"{ordered[-1]:g}")
    most = Counter(value_name(value, words) for value in values).most_common(5)
    return "、".join(f"{value} {count}" for value, count in most)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _often(mentions: pl.DataFrame, column: str, notes: Mapping[str, str]) -> list[_Often]:
    most = (
        mentions.group_by(column, "status")
        .len()
        .sort("len", column, "status", descending=[True, False, False])
        .head(_MOST)
        .iter_rows()
    )
    found = list(most)
    return [
        _Often(word, notes.get(word, ""), status, count, 100 * count / found[0][2]) for word, status, count in found
    ]


def _names_of_rules(mentions: pl.DataFrame, annotator: Annotator, words: DisplayWords) -> dict[str, str]:
    """Rule -> the findings it gave, by name: one rule gives several where the site decides."""
    pairs = mentions.select("rule_id", "finding").unique(maintain_order=True)
    names: dict[str, list[str]] = {}
    for rule, finding in pairs.iter_rows():
        names.setdefault(rule, []).append(finding_name(finding, annotator.rules).ja)
    return {rule: "、".join(some[:3]) + (words.texts.and_more if len(some) > 3 else "") for rule, some in names.items()}


# --- the reports that are quoted --------------------------------------------------------------------------------------


def _cards(batch: PageSet, annotator: Annotator, words: DisplayWords, *, sample: int) -> list[_Card]:
    names = label_names(batch.label_set)
    values = {entry.id for entry in batch.label_set.values}
    votes: dict[str, list[str]] = {}
    for finding, label in label_of_finding(batch.label_set, annotator.rules).select("finding", "label").iter_rows():
        votes.setdefault(finding, []).append(label)
    said = batch.labels.filter((pl.col("value") != "not_mentioned") & ~pl.col("finding").is_in(list(values)))
    labels_of: dict[str, list[tuple[str, str]]] = {}
    for report_id, label, value in said.select("report_id", "finding", "value").iter_rows():
        labels_of.setdefault(report_id, []).append((label, value))
    texts = dict(batch.reports.select("report_id", "text").iter_rows())
    chosen = representative({report_id: labels_of.get(report_id, []) for report_id in texts}, sample)
    mentions_of = batch.mentions.filter(pl.col("report_id").is_in(chosen)).partition_by("report_id", as_dict=True)
    nothing = batch.mentions.clear()
    cards = []
    for report_id in chosen:
        text = texts[report_id]
        mentions = read_mentions(text, mentions_of.get((report_id,), nothing), annotator, words)
        labels = labels_of.get(report_id, [])
        cards.append(
            _Card(
                report_id=report_id,
                pieces=[_shown(piece, mentions, votes, words) for piece in cut(text, mentions)],
                chips=[(label, value, names[label]) for label, value in labels if value in ("present", "uncertain")],
                labels=" ".join(f"{label}:{value}" for label, value in labels),
                mentions=[_tip(mention, words) for mention in mentions],
            )
        )
    return cards


def representative(labels: Mapping[str, Sequence[tuple[str, str]]], most: int) -> list[str]:
    """Reports among which as many (label, value) pairs as possible occur, in their own order; greedy set cover."""
    chosen: set[str] = set()
    covered: set[tuple[str, str]] = set()
    waiting = dict(labels)
    while waiting and len(chosen) < most:
        best = max(waiting, key=lambda report_id: len(set(waiting[report_id]) - covered))
        if not set(waiting[best]) - covered:
            # all that there is has been shown once: fill up with the first that are left
            chosen.update(list(waiting)[: most - len(chosen)])
            break
        covered.update(waiting.pop(best))
        chosen.add(best)
    return [report_id for report_id in labels if report_id in chosen]


def _shown(
    piece: Piece, mentions: Sequence[ReadMention], votes: Mapping[str, Sequence[str]], words: DisplayWords
) -> _Shown:
    own = [mentions[at] for at in piece.mentions]
    order = (*STATUSES, "other")
    tones = sorted((mention.status if mention.counts else "other" for mention in own), key=order.index)
    return _Shown(
        text=piece.text,
        classes=f"m {tones[0]}" if tones else "",
        mentions=_numbers(piece.mentions),
        cues=_numbers(piece.cues),
        clauses=_numbers(piece.clauses),
        labels=" ".join(
            sorted({label for mention in own if mention.counts for label in votes.get(mention.finding, ())})
        ),
        says="、".join(f"{mention.name.ja}: {_said(mention, words).ja}" for mention in own),
    )


def _numbers(places: Sequence[int]) -> str:
    return " ".join(str(at) for at in places)


def _said(mention: ReadMention, words: DisplayWords) -> Name:
    """The status; of what is not said of this exam, why it does not count."""
    if mention.counts:
        return named(words.statuses, mention.status)
    return named(words.temporality, mention.temporality)


def _tip(mention: ReadMention, words: DisplayWords) -> dict[str, Any]:
    """What the page shows when the reader points at a mention."""
    status = _said(mention, words)
    return {
        "tone": mention.status if mention.counts else "other",
        "name": mention.name.ja,
        "en": mention.name.en,
        "status": f"{status.ja} {status.en}",
        "facts": [
            *([[words.texts.cue, mention.cue]] if mention.cue else []),
            *([caption, value] for caption, value in mention.attributes),
            [words.texts.rule, mention.rule_id],
        ],
    }
