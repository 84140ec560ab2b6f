"""Labels that are no status: size, side and lobe of the primary tumour, counts, sites and grades."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet, PrimaryTumour, ValueEntry

NOT_MENTIONED = "not_mentioned"
PRIMARY_TUMOUR = "primary_tumour"
_TUMOUR_VALUES = ("size_mm", "side", "lobe")
_FINDING_VALUES = ("count", "sites", "grade")


class Mention(NamedTuple):
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
    count: str | None  # type: ignore[assignment] # a column name; nothing counts in a mention
    cue: str | None
    rule_id: str
    sentence: int


_COLUMNS = Mention._fields
Value = tuple[str, list[Mention]]
Values = dict[str, Value]


def value_labels(report_ids: pl.Series, mentions: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """One row a report and value of the label set: the labels table plus ``label_order``.

    Raises:
        ConfigError: the label set asks for a value that nothing computes.
    """
    wanted = [(entry.id, *_subject(entry, label_set, rules)) for entry in label_set.values]
    subjects = list(dict.fromkeys(subject for _, subject, _ in wanted))
    findings = set().union(*(_findings(subject, rules) for subject in subjects))
    by_report = _by_report(
        mentions.filter(
            (pl.col("temporality") == "current") & (pl.col("status") != "absent") & pl.col("finding").is_in(findings)
        )
    )
    ids = report_ids.cast(pl.String)
    values: list[str] = []
    evidence: list[tuple[int, Mention]] = []
    for report_id in ids:
        found = by_report.get(report_id, [])
        known = {subject: _values(subject, found, rules) for subject in subjects} if found else {}
        for _, subject, attribute in wanted:
            value, why = known[subject][attribute] if found else (NOT_MENTIONED, [])
            evidence.extend((len(values), mention) for mention in why)
            values.append(value)
    rows = pl.DataFrame({"report_id": ids}).join(
        pl.DataFrame({"finding": [label for label, _, _ in wanted]}, schema={"finding": pl.String}).with_row_index(
            "label_order"
        ),
        how="cross",
        maintain_order="left_right",
    )
    return (
        rows.with_columns(
            pl.Series("value", values, dtype=pl.String), pl.lit(None, dtype=pl.Float64).alias("p_present")
        )
        .with_row_index("row")
        .join(_evidence(evidence), on="row", how="left", maintain_order="left")
        .with_columns(pl.col("evidence").fill_null([]))
        .drop("row")
    )


def _evidence(evidence: Sequence[tuple[int, Mention]]) -> pl.DataFrame:
    """Row number -> list of mentions, built flat: nested Python objects are slow to convert."""
    flat = pl.DataFrame(
        {
            "row": pl.Series([row for row, _ in evidence], dtype=pl.UInt32),
            "start": pl.Series([mention.start for _, mention in evidence], dtype=pl.Int32),
            "end": pl.Series([mention.end for _, mention in evidence], dtype=pl.Int32),
            "surface": pl.Series([mention.surface for _, mention in evidence], dtype=pl.String),
            "cue": pl.Series([mention.cue for _, mention in evidence], dtype=pl.String),
            "rule_id": pl.Series([mention.rule_id for _, mention in evidence], dtype=pl.String),
        }
    )
    return flat.group_by("row", maintain_order=True).agg(
        pl.struct("start", "end", "surface", "cue", "rule_id").alias("evidence")
    )


def _subject(entry: ValueEntry, label_set: LabelSet, rules: Rulebook) -> tuple[str, str]:
    subject, _, attribute = entry.value_of.partition(".")
    known = _TUMOUR_VALUES if subject == PRIMARY_TUMOUR else _FINDING_VALUES if subject in rules.findings else ()
    if attribute not in known:
        raise ConfigError(
            f"label set '{label_set.id}': value '{entry.id}' asks for '{entry.value_of}', which nothing computes; "
            f"known are {PRIMARY_TUMOUR}.{'|'.join(_TUMOUR_VALUES)} and <finding>.{'|'.join(_FINDING_VALUES)}"
        )
    return subject, attribute


def _findings(subject: str, rules: Rulebook) -> set[str]:
    tumour = rules.primary_tumour
    return {*tumour.diagnosis, *tumour.lesions, *tumour.parts} if subject == PRIMARY_TUMOUR else {subject}


def _values(subject: str, found: Sequence[Mention], rules: Rulebook) -> Values:
    if subject == PRIMARY_TUMOUR:
        return primary_tumour(found, rules.primary_tumour)
    own = [mention for mention in found if mention.finding == subject]
    return {"count": _count(own, rules), "sites": _sites(own, rules), "grade": _grade(own)}


def _by_report(mentions: pl.DataFrame) -> dict[str, list[Mention]]:
    rows: Iterable[Mention] = (Mention._make(row) for row in mentions.select(_COLUMNS).iter_rows())
    return {report_id: list(group) for report_id, group in groupby(rows, key=lambda mention: mention.report_id)}


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
        named = (mention.site or "").split(";")
        for site in named:
            # one side is kept for all places of a mention, so that it is only sure where there is one place
            sites[site, mention.side if len(named) == 1 else None] = None
    parents = rules.site_parents
    leaves = [
        (site, side)
        for site, side in sites
        if not any(other != site and site in parents.get(other, frozenset()) for other, _ in sites)
    ]
    names = [f"{side} {site}" if side in ("right", "left") else site for site, side in leaves]
    return (";".join(names), present) if names else (NOT_MENTIONED, [])


def _grade(found: Sequence[Mention]) -> Value:
    graded = [mention for mention in found if mention.count and mention.count.isdigit()]
    return (
        (max(graded, key=lambda m: int(m.count or 0)).count or NOT_MENTIONED, graded) if graded else (NOT_MENTIONED, [])
    )


def primary_tumour(found: Sequence[Mention], rules: PrimaryTumour) -> Values:
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
            return {name: (NOT_MENTIONED, []) for name in _TUMOUR_VALUES}
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

    def _counts(size: Mention | None) -> bool:
        return size is not None and (size.finding not in rules.sizes_in_sentence or size.sentence == diagnosis.sentence)

    everything = [own, *tumours] if diagnosis.lobe else [*tumours, own]
    return _Tumour(
        size=diagnosis
        if diagnosis.size_mm is not None
        else next((it.size for it in everything if _counts(it.size)), None),
        side=next((tumour.side for tumour in everything if tumour.side), None),
        lobe=next((tumour.lobe for tumour in everything if tumour.lobe), None),
    )


def _agree(diagnosis: Mention, lesion: Mention) -> bool:
    """Whether side and lobe of the two do not contradict each other."""
    return all(
        one is None or other is None or one == other or "bilateral" in (one, other)
        for one, other in ((diagnosis.side, lesion.side), (diagnosis.lobe, lesion.lobe))
    )
