"""Labels that are no status: size, side and lobe of the primary tumour, counts, sites and grades."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet, PrimaryTumour, ValueEntry
from reportlabel.schema import LABELS

NOT_MENTIONED = "not_mentioned"


@dataclass(frozen=True, slots=True)
class Mention:
    """The columns of the mentions table that values are worked out from."""

    report_id: str
    start: int
    end: int
    finding: str
    surface: str
    status: str
    site: str | None
    side: str | None
    lobe: str | None
    size_mm: float | None
    count: str | None
    cue: str | None
    rule_id: str
    sentence: int


_COLUMNS = tuple(Mention.__slots__)
Value = tuple[str, list[Mention]]
Reader = Callable[[Sequence[Mention]], Value]


def value_labels(report_ids: pl.Series, mentions: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """One row a report and value of the label set: the labels table plus ``label_order``.

    Raises:
        ConfigError: the label set asks for a value that nothing computes.
    """
    readers = [_reader(entry, label_set, rules) for entry in label_set.values]
    rows: list[tuple[str, str, str, None, list[dict[str, object]], int]] = []
    if readers:
        current = mentions.filter((pl.col("temporality") == "current") & (pl.col("status") != "absent"))
        by_report = _by_report(current)
        for report_id in report_ids.cast(pl.String):
            found = by_report.get(report_id, [])
            for order, (entry, read) in enumerate(zip(label_set.values, readers, strict=True)):
                value, why = read(found)
                rows.append((report_id, entry.id, value, None, [_evidence(mention) for mention in why], order))
    return pl.DataFrame(rows, schema={**LABELS, "label_order": pl.Int64}, orient="row")


def _by_report(mentions: pl.DataFrame) -> dict[str, list[Mention]]:
    rows: Iterable[Mention] = (Mention(*row) for row in mentions.select(_COLUMNS).iter_rows())
    return {report_id: list(group) for report_id, group in groupby(rows, key=lambda mention: mention.report_id)}


def _evidence(mention: Mention) -> dict[str, object]:
    return {
        "start": mention.start,
        "end": mention.end,
        "surface": mention.surface,
        "cue": mention.cue,
        "rule_id": mention.rule_id,
    }


def _reader(entry: ValueEntry, label_set: LabelSet, rules: Rulebook) -> Reader:
    subject, _, attribute = entry.value_of.partition(".")
    if subject == "primary_tumour" and attribute in ("size_mm", "side", "lobe"):
        return lambda found: primary_tumour(found, rules.primary_tumour)[attribute]
    if subject in rules.findings and attribute in ("count", "sites", "grade"):
        read = {"count": _count, "sites": _sites, "grade": _grade}[attribute]
        return lambda found: read([mention for mention in found if mention.finding == subject], rules)
    raise ConfigError(
        f"label set '{label_set.id}': value '{entry.id}' asks for '{entry.value_of}', which nothing computes; "
        "known are primary_tumour.size_mm|side|lobe and <finding>.count|sites|grade"
    )


def _count(found: Sequence[Mention], rules: Rulebook) -> Value:
    """A written number, ``many`` where the report says so without one, else the number of named sites."""
    present = [mention for mention in found if mention.status == "present"]
    numbers = [mention for mention in present if mention.count and mention.count.isdigit() and mention.count != "1"]
    if numbers:
        return str(sum(int(mention.count or 0) for mention in numbers)), numbers
    many = [mention for mention in present if mention.count == "many"]
    if many:
        return "many", many
    sites = _sites(present, rules)[0]
    if present and sites == NOT_MENTIONED:
        return str(len({mention.sentence for mention in present})), present
    return (str(len(sites.split(";"))), present) if present else (NOT_MENTIONED, [])


def _sites(found: Sequence[Mention], rules: Rulebook) -> Value:
    """The sites of what is present, in order of the text; a site that contains another named one is left out."""
    present = [mention for mention in found if mention.status == "present" and mention.site]
    sites: dict[tuple[str, str | None], None] = {}
    for mention in present:
        for site in (mention.site or "").split(";"):
            sites[site, mention.side] = None
    parents = rules.site_parents
    leaves = [
        (site, side)
        for site, side in sites
        if not any(other != site and site in parents.get(other, frozenset()) for other, _ in sites)
    ]
    names = [f"{side} {site}" if side in ("right", "left") else site for site, side in leaves]
    return (";".join(names), present) if names else (NOT_MENTIONED, [])


def _grade(found: Sequence[Mention], rules: Rulebook) -> Value:
    del rules
    graded = [mention for mention in found if mention.count and mention.count.isdigit()]
    return (max(graded, key=lambda m: int(m.count or 0)).count or NOT_MENTIONED, graded) if graded else (NOT_MENTIONED, [])


def primary_tumour(found: Sequence[Mention], rules: PrimaryTumour) -> dict[str, Value]:
    """Longest diameter (mm), side and lobe of the primary lung tumour of one report.

    Args:
        found: current mentions of the report that are present or uncertain, in order.
    """
    diagnoses = [mention for mention in found if mention.finding in rules.diagnosis]
    lesions = [mention for mention in found if mention.finding in rules.lesions]
    candidates = [_candidate(diagnosis, found, lesions, rules) for diagnosis in diagnoses]
    if candidates:
        chosen = min(
            enumerate(candidates),
            key=lambda item: (
                diagnoses[item[0]].status != "present",
                item[1].size is None,
                item[1].lobe is None,
                item[0],
            ),
        )[1]
    else:
        alone = [mention for mention in lesions if mention.finding in rules.alone]
        if not alone:
            return {name: (NOT_MENTIONED, []) for name in ("size_mm", "side", "lobe")}
        largest = max(alone, key=lambda mention: mention.size_mm or 0.0)
        chosen = _Tumour.of(largest, found, rules)
    return {
        "size_mm": _value(f"{chosen.size.size_mm:g}" if chosen.size and chosen.size.size_mm else None, chosen.size),
        "side": _value(chosen.side.side if chosen.side else None, chosen.side),
        "lobe": _value(chosen.lobe.lobe if chosen.lobe else None, chosen.lobe),
    }


def _value(value: str | None, mention: Mention | None) -> Value:
    return (NOT_MENTIONED, []) if value is None or mention is None else (value, [mention])


@dataclass(frozen=True, slots=True)
class _Tumour:
    """The mentions that give size, side and lobe."""

    size: Mention | None
    side: Mention | None
    lobe: Mention | None

    @classmethod
    def of(cls, lesion: Mention, found: Sequence[Mention], rules: PrimaryTumour) -> _Tumour:
        size = lesion if lesion.size_mm is not None else _part(lesion, found, rules)
        return cls(
            size=size,
            side=lesion if lesion.side in ("right", "left") else None,
            lobe=lesion if lesion.lobe else None,
        )


def _part(lesion: Mention, found: Sequence[Mention], rules: PrimaryTumour) -> Mention | None:
    return next(
        (
            mention
            for mention in found
            if mention.finding in rules.parts
            and mention.size_mm is not None
            and 0 <= mention.sentence - lesion.sentence <= rules.reach
        ),
        None,
    )


def _candidate(
    diagnosis: Mention, found: Sequence[Mention], lesions: Sequence[Mention], rules: PrimaryTumour
) -> _Tumour:
    """What is known of the tumour that a diagnosis names: from its lesion, then from the diagnosis itself."""
    near = [lesion for lesion in lesions if -1 <= diagnosis.sentence - lesion.sentence <= rules.reach]
    before = [lesion for lesion in near if lesion.start <= diagnosis.start]
    after = [lesion for lesion in near if lesion.start > diagnosis.start and lesion.sentence == diagnosis.sentence]
    ordered = [*reversed(before), *after]
    if not ordered:
        ordered = [lesion for lesion in near if lesion.start > diagnosis.start]
    if not ordered or (diagnosis.lobe and all(not _agree(diagnosis, lesion) for lesion in ordered)):
        ordered = sorted(
            (lesion for lesion in lesions if _agree(diagnosis, lesion)),
            key=lambda lesion: -(lesion.size_mm or 0.0),
        )
    tumours = [_Tumour.of(lesion, found, rules) for lesion in ordered if _agree(diagnosis, lesion)]
    own = _Tumour.of(diagnosis, found, rules)
    everything = [own, *tumours] if diagnosis.lobe else [*tumours, own]
    return _Tumour(
        size=next((tumour.size for tumour in everything if tumour.size), None),
        side=next((tumour.side for tumour in everything if tumour.side), None),
        lobe=next((tumour.lobe for tumour in everything if tumour.lobe), None),
    )


def _agree(diagnosis: Mention, lesion: Mention) -> bool:
    """Whether side and lobe of the two do not contradict each other."""
    return all(
        one is None or other is None or one == other or "bilateral" in (one, other)
        for one, other in ((diagnosis.side, lesion.side), (diagnosis.lobe, lesion.lobe))
    )
