"""Record votes: from the records of an exam's windows to votes for its labels.

Every rule of ``rules/linked`` is one labelling function. What a record is (code, name, organ, number, text) is decided
once a record, what an exam is once a kind of exam, so that the cost grows with the links, not with links times rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.link.windows import plain_code, plain_name
from reportlabel.rulebook.linked import KindRule, LinkedRules, RecordVote, RecordWords, Threshold, When
from reportlabel.rulebook.load import FindingFile, Rulebook
from reportlabel.rulebook.models import Finding, LabelSet, Name
from reportlabel.rulebook.read_yaml import Document
from reportlabel.rulebook.units import Units
from reportlabel.schema import EXAM_VOTES
from reportlabel.vote.rules import label_of_finding

KIND = "record"
_FEE = ("K", "D", "J", "M", "N", "local")
"""The chapters of the fee schedule; their codes begin with the chapter, so a system that calls them local is right."""
_ORDER = ("present", "uncertain", "absent")
_UNIT = r"\s*([%％‰a-zA-Zμµ/^0-9]*[%％‰a-zA-Zμµ])?"
_BEHIND_WORD = r"[^0-9、。,;\n]{0,15}?"


def text_reader(annotator: Annotator, linked: LinkedRules) -> Annotator:
    """An annotator for the texts of records: the grammar of ``annotator``, the words of ``rules/linked/words.yaml``.

    The mentions it gives carry the id of a concept as their finding. Give it to :func:`record_votes` to compile it
    once for many calls.
    """
    files = {
        concept.id: FindingFile(
            finding=Finding(
                id=concept.id, name=Name(ja=concept.id, en=concept.id), terms=concept.terms, exclude=concept.exclude
            ),
            region="general",
            document=Document(path=annotator.rules.folder / "linked" / "words.yaml", data=None),
        )
        for concept in linked.words.concepts
    }
    return Annotator(replace(annotator.rules, files=files))


def record_votes(
    exams: pl.DataFrame,
    records: pl.DataFrame,
    links: pl.DataFrame,
    *,
    scope: pl.DataFrame,
    label_sets: Mapping[str, LabelSet],
    rules: Rulebook,
    linked: LinkedRules,
    annotator: Annotator,
) -> pl.DataFrame:
    """Votes of all rules for linked records.

    A suspected diagnosis votes uncertain where its rule says present, and not at all where it says absent. A number
    whose unit cannot be converted lets no rule fire; :func:`unconverted_units` counts them.

    Args:
        exams: exam_id, modality_class, body_part, order_name, protocol_name, sex.
        records, links: the tables of these names; links made with ``linked.windows``.
        scope: exam_id, label_set: which label sets fit which exam.
        annotator: of ``rules``, or better its :func:`text_reader`.

    Returns:
        The votes table, one row an exam, label, function and record, sorted by these.

    Raises:
        ConfigError: a rule names a finding that ``rules`` does not have.
    """
    linked_ids = links.select("record_id").unique()
    facts = Facts.of(
        records.join(linked_ids, on="record_id", how="semi"), linked=linked, rules=rules, annotator=annotator
    )
    hits = [_hits(number, one, facts) for number, one in enumerate(linked.rules)]
    meta = _meta(linked.rules)
    found = (
        pl.concat([_NO_HITS, *hits])
        .join(meta, on="number", how="inner")
        .join(
            links.select("exam_id", "record_id", "available_at_reading", "delta_days", window="rule_id"),
            on=["record_id", "window"],
            how="inner",
        )
        .filter(
            pl.col("days_from").is_null() | (pl.col("delta_days") >= pl.col("days_from")),
            pl.col("days_to").is_null() | (pl.col("delta_days") <= pl.col("days_to")),
        )
        .join(_profiles(exams, linked.words), on="exam_id", how="inner")
        .join(facts.places, on="record_id", how="left")
    )
    votes = _fitting(found, linked.rules).join(scope.select("exam_id", "label_set"), on="exam_id", how="inner")
    return _to_labels(votes, linked.rules, label_sets=label_sets, rules=rules)


def unconverted_units(records: pl.DataFrame, linked: LinkedRules) -> pl.DataFrame:
    """Records that a rule means, but whose number is in a unit that cannot be converted to the rule's.

    Returns:
        function_id, unit (empty: there is none), n: one row a function and unit; these records gave no vote.
    """
    rows: list[tuple[str, str, int]] = []
    for kind, some in records.partition_by("kind", as_dict=True).items():
        whats = _whats(some)
        for one in linked.rules:
            threshold = one.rule.when.value
            if one.kind != kind[0] or threshold is None or threshold.words:
                continue
            meant = some.join(whats.filter(_is_meant(one.rule.when)), on=_WHAT, how="semi", nulls_equal=True)
            units = meant.filter(pl.col("value").is_not_null())["unit"].fill_null("").value_counts()
            rows += [
                (one.function_id, unit, n)
                for unit, n in units.iter_rows()
                if linked.units.factor(unit, threshold.unit) is None
            ]
    schema = {"function_id": pl.String, "unit": pl.String, "n": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("function_id", "unit")


# --- records ----------------------------------------------------------------------------------------------------------

_WHAT = ["code_system", "code", "name"]
_NO_HITS = pl.DataFrame(schema={"record_id": pl.String, "number": pl.Int32, "read": pl.String})
_SAID = {"record_id": pl.String, "concept": pl.String, "status": pl.String}


@dataclass(frozen=True)
class Facts:
    """What is known of records, worked out once for all rules.

    Attributes:
        kinds: kind -> its records, with ``organ`` (list of site ids), ``specimen`` and ``side`` read from their words.
        whats: kind -> the distinct codes and names of its records.
        said: record_id, concept, status: what the text says, the strongest status of each concept.
    """

    kinds: Mapping[str, pl.DataFrame]
    whats: Mapping[str, pl.DataFrame]
    said: pl.DataFrame
    words: RecordWords
    units: Units
    parents: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, records: pl.DataFrame, *, linked: LinkedRules, rules: Rulebook, annotator: Annotator) -> Facts:
        """Read the words, and the texts of those records for whose kind a rule reads texts."""
        placed = _placed(records, linked.words)
        kinds = {str(kind): some for (kind,), some in placed.partition_by("kind", as_dict=True).items()}
        reading = {one.kind for one in linked.rules if one.rule.when.says}
        texts = placed.filter(pl.col("kind").is_in(sorted(reading)), pl.col("text").is_not_null())
        return cls(
            kinds=kinds,
            whats={kind: _whats(some) for kind, some in kinds.items()},
            said=_said(texts, linked, annotator),
            words=linked.words,
            units=linked.units,
            parents=rules.site_parents,
        )

    @cached_property
    def places(self) -> pl.DataFrame:
        """record_id, organ, record_side, certainty of every record."""
        columns = ["record_id", "organ", "record_side", "certainty"]
        schema = pl.Schema(
            [
                ("record_id", pl.String),
                ("organ", pl.List(pl.String)),
                ("record_side", pl.String),
                ("certainty", pl.String),
            ]
        )
        return pl.concat([pl.DataFrame(schema=schema), *(some.select(columns) for some in self.kinds.values())])


def _hits(number: int, one: KindRule, facts: Facts) -> pl.DataFrame:
    """The records that fit a rule; ``read`` is the status of what their text says, where the rule reads it."""
    if one.kind not in facts.kinds:
        return _NO_HITS
    when = one.rule.when
    fitting = facts.kinds[one.kind]
    if when.codes or when.names or when.not_names:
        meant = facts.whats[one.kind].filter(_is_meant(when))
        if meant.is_empty():
            return _NO_HITS
        fitting = fitting.join(meant, on=_WHAT, how="semi", nulls_equal=True)
    if when.sites:
        within = [site for site, parents in facts.parents.items() if not parents.isdisjoint(when.sites)]
        fitting = fitting.filter(pl.col("organ").list.eval(pl.element().is_in(within)).list.any())
    if when.specimens:
        fitting = fitting.filter(pl.col("specimen").is_in(when.specimens))
    if when.flags:
        fitting = fitting.filter(pl.col("flag").is_in(when.flags))
    if when.certainty:
        fitting = fitting.filter(pl.col("certainty").is_in(when.certainty))
    if when.value is not None:
        fitting = _reaching(fitting, when.value, facts.words, facts.units)
    if fitting.is_empty():
        return _NO_HITS
    read = fitting.select("record_id").with_columns(read=pl.lit(None, dtype=pl.String))
    if when.unless:
        others = facts.said.filter(pl.col("concept").is_in(when.unless), pl.col("status") != "absent")
        read = read.join(others, on="record_id", how="anti")
    if when.says:
        wanted = facts.said.filter(pl.col("concept").is_in(when.says))
        strongest = _strongest(wanted, ["record_id"]).filter(pl.col("status").is_in(when.status))
        read = read.drop("read").join(strongest.select("record_id", read="status"), on="record_id", how="inner")
    return read.select("record_id", pl.lit(number, dtype=pl.Int32).alias("number"), "read")


def _whats(records: pl.DataFrame) -> pl.DataFrame:
    return (
        records.select(_WHAT)
        .unique(maintain_order=True)
        .with_columns(plain_code=plain_code(pl.col("code")), plain_name=plain_name(pl.col("name")))
    )


def _is_meant(when: When) -> pl.Expr:
    """Of distinct codes and names: whether a rule means them. Without codes and names it means all."""
    meant: list[pl.Expr] = []
    for system, starts in when.codes.items():
        of_system = pl.col("code_system").is_in(_FEE if system == "fee" else (system,))
        begins = pl.any_horizontal(*(_begins(_plain_code(start)) for start in starts))
        meant.append(of_system & begins)
    if when.names:
        meant.append(_holds(when.names))
    wanted = pl.any_horizontal(*(one.fill_null(False) for one in meant)) if meant else pl.lit(True)
    return wanted & ~_holds(when.not_names) if when.not_names else wanted


def _begins(code: str) -> pl.Expr:
    """A code that ends with a dollar sign is meant as a whole."""
    plain = pl.col("plain_code")
    return plain == code.removesuffix("$") if code.endswith("$") else plain.str.starts_with(code)


def _holds(names: Sequence[str]) -> pl.Expr:
    return pl.col("plain_name").str.contains_any([_plain_name(name) for name in names]).fill_null(False)


def _plain_code(code: str) -> str:
    return re.sub(r"[\s.]", "", code.upper())


def _plain_name(name: str) -> str:
    return "".join(unicodedata.normalize("NFKC", name).lower().split())


# --- numbers ----------------------------------------------------------------------------------------------------------


def _reaching(records: pl.DataFrame, threshold: Threshold, words: RecordWords, units: Units) -> pl.DataFrame:
    """The records whose number, in the unit of the threshold, reaches it."""
    if threshold.words:
        return records.filter(pl.col("record_id").is_in(_written(records, threshold, units).implode()))
    spellings = records["unit"].fill_null("").unique().to_list()
    if not spellings:
        return records
    factors = {spelling: units.factor(spelling, threshold.unit) for spelling in spellings}
    value = pl.col("value") * pl.col("unit").fill_null("").replace_strict(factors, return_dtype=pl.Float64)
    # a comparator says that the true number lies on one side of the written one
    sign = pl.col("text").fill_null("").str.strip_chars()
    lower, higher = sign.is_in(words.comparators.below), sign.is_in(words.comparators.above)
    reached = pl.lit(True)
    if threshold.above is not None:
        reached &= (value > threshold.above) & ~lower
    if threshold.at_least is not None:
        reached &= (value >= threshold.at_least) & ~lower
    if threshold.below is not None:
        reached &= (value < threshold.below) & ~higher
    if threshold.at_most is not None:
        reached &= (value <= threshold.at_most) & ~higher
    return records.filter(reached.fill_null(False))


def _written(records: pl.DataFrame, threshold: Threshold, units: Units) -> pl.Series:
    """Ids of records of which one number behind a word of the threshold reaches it: in the text, or as their value."""
    alternatives = "|".join(re.escape(_narrow(word)) for word in sorted(threshold.words, key=len, reverse=True))
    number = re.compile(rf"(?:{alternatives}){_BEHIND_WORD}(-?\d+(?:\.\d+)?){_UNIT}", re.IGNORECASE)
    named = re.compile(rf"(?:{alternatives})", re.IGNORECASE)
    ids: list[str] = []
    reaching: dict[str, bool] = {}
    for record_id, name, text, value, unit in records.select("record_id", "name", "text", "value", "unit").iter_rows():
        if value is not None and name and named.search(_narrow(name)):
            reached = _reaches(value, unit, threshold, units)
        else:
            if text is not None and text not in reaching:
                found = number.findall(_narrow(text))
                # a word behind a number that is no unit belongs to what follows (ABI 1.02 PWV 1480)
                measured = [(float(figure), one if units.known(one) else None) for figure, one in found]
                reaching[text] = any(_reaches(figure, one, threshold, units) for figure, one in measured)
            reached = text is not None and reaching[text]
        if reached:
            ids.append(record_id)
    return pl.Series(ids, dtype=pl.String)


def _reaches(value: float, unit: str | None, threshold: Threshold, units: Units) -> bool:
    factor = units.factor(unit, threshold.unit)
    if factor is None:
        return False
    number = value * factor
    return (
        (threshold.above is None or number > threshold.above)
        and (threshold.at_least is None or number >= threshold.at_least)
        and (threshold.below is None or number < threshold.below)
        and (threshold.at_most is None or number <= threshold.at_most)
    )


def _narrow(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


# --- words ------------------------------------------------------------------------------------------------------------


class _Finder:
    """Finds which things the words of a name speak of; the longest word wins."""

    def __init__(self, things: Iterable[tuple[str, Sequence[str]]]) -> None:
        self._ids = {_plain_name(term): name for name, terms in things for term in (name, *terms)}
        words = sorted(self._ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def find(self, text: str | None) -> list[str]:
        """Their ids, in order of appearance."""
        if not text or self._pattern is None:
            return []
        return list(dict.fromkeys(self._ids[found] for found in self._pattern.findall(_plain_name(text))))


def _placed(records: pl.DataFrame, words: RecordWords) -> pl.DataFrame:
    """Records with ``organ`` (site ids), ``specimen`` and ``record_side``.

    ``body_site`` is the organ in the words of the source, and the side behind a semicolon (``lung;right``). Where it
    names no organ, the name of the record does.
    """
    sites = _Finder((one.id, one.terms) for one in words.sites)
    specimens = _Finder((one.id, one.terms) for one in words.specimens)
    sides = _Finder((one.id, one.terms) for one in words.sides)
    rows = []
    keys = records.select("kind", "body_site", "name").unique()
    for kind, body_site, name in keys.iter_rows():
        organ, _, side = (body_site or "").partition(";")
        named = kind in ("pathology", "surgery", "physiology")
        site = sites.find(organ) or (sites.find(name) if named else [])
        specimen = specimens.find(name) if named else []
        found = sides.find(side) or sides.find(organ)
        rows.append((kind, body_site, name, site or None, specimen[0] if specimen else None, _one_side(found)))
    schema = pl.Schema(
        [
            ("kind", pl.String),
            ("body_site", pl.String),
            ("name", pl.String),
            ("organ", pl.List(pl.String)),
            ("specimen", pl.String),
            ("record_side", pl.String),
        ]
    )
    read = pl.DataFrame(rows, schema=schema, orient="row")
    return records.join(read, on=["kind", "body_site", "name"], how="left", nulls_equal=True, maintain_order="left")


def _one_side(sides: Sequence[str]) -> str | None:
    """Right, left, or None for both and for none: then no exam shows only the other side."""
    return sides[0] if len(sides) == 1 and sides[0] != "bilateral" else None


def _said(records: pl.DataFrame, linked: LinkedRules, annotator: Annotator) -> pl.DataFrame:
    """record_id, concept, status: each distinct text is read once."""
    texts = records.select("text").unique(maintain_order=True).with_row_index("report_id")
    concepts = {concept.id for concept in linked.words.concepts}
    if texts.is_empty() or not concepts:
        return pl.DataFrame(schema=_SAID)
    reader = annotator if concepts == set(annotator.rules.files) else text_reader(annotator, linked)
    remove = re.compile("|".join(f"(?:{pattern})" for pattern in linked.words.remove) or "(?!)")
    cut = pl.DataFrame(
        {
            "report_id": texts["report_id"].cast(pl.String),
            # a full stop: what stands behind must not be read as one statement with what stands before
            "text": [remove.sub("。", _narrow(text)) for text in texts["text"].to_list()],
        }
    )
    mentions = reader.annotate(cut).filter(pl.col("temporality") == "current")
    strongest = _strongest(mentions, ["report_id", "finding"]).select("report_id", "status", concept="finding")
    return (
        records.select("record_id", "text")
        .join(texts.with_columns(pl.col("report_id").cast(pl.String)), on="text", how="inner")
        .join(strongest, on="report_id", how="inner")
        .select("record_id", "concept", "status")
    )


def _strongest(rows: pl.DataFrame, by: list[str], column: str = "status") -> pl.DataFrame:
    """One row of each group: present before uncertain before absent."""
    rank = pl.col(column).replace_strict(dict(zip(_ORDER, range(3), strict=True)), return_dtype=pl.Int8)
    return rows.sort(rank, maintain_order=True).unique(by, keep="first", maintain_order=True)


# --- exams ------------------------------------------------------------------------------------------------------------

_PROFILE = ["modality_class", "body_part", "sex", "exam_side"]


def _meta(rules: Sequence[KindRule]) -> pl.DataFrame:
    rows = [(at, one.rule.window, one.rule.when.days_from, one.rule.when.days_to) for at, one in enumerate(rules)]
    schema = {"number": pl.Int32, "window": pl.String, "days_from": pl.Int32, "days_to": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _profiles(exams: pl.DataFrame, words: RecordWords) -> pl.DataFrame:
    """exam_id and what rules ask of an exam; ``exam_side`` is the one side that its order names, if any."""
    sides = _Finder((one.id, one.terms) for one in words.sides)
    names = exams.select("order_name", "protocol_name").unique()
    read = [(*row, _one_side(sides.find(row[0]) or sides.find(row[1]))) for row in names.iter_rows()]
    schema = {"order_name": pl.String, "protocol_name": pl.String, "exam_side": pl.String}
    return exams.join(
        pl.DataFrame(read, schema=schema, orient="row"),
        on=["order_name", "protocol_name"],
        how="left",
        nulls_equal=True,
    ).select("exam_id", *_PROFILE)


def _fitting(found: pl.DataFrame, rules: Sequence[KindRule]) -> pl.DataFrame:
    """The rows whose exam is one that the rule is for; decided once for each rule and kind of exam."""
    seen = found.select("number", *_PROFILE, "record_side").unique()
    fits = [_fits(row, rules) for row in seen.iter_rows()]
    return found.join(
        seen.filter(pl.Series(fits, dtype=pl.Boolean)),
        on=["number", *_PROFILE, "record_side"],
        how="semi",
        nulls_equal=True,
    )


def _fits(row: tuple[object, ...], rules: Sequence[KindRule]) -> bool:
    number, modality_class, body_part, sex, exam_side, record_side = row
    assert isinstance(number, int)
    wanted = rules[number].rule.exams
    return (
        (not wanted.modality_classes or modality_class in wanted.modality_classes)
        and (not wanted.body_parts or body_part in wanted.body_parts)
        and (wanted.sex is None or sex == wanted.sex)
        and not (wanted.same_side and exam_side is not None and record_side is not None and exam_side != record_side)
    )


# --- labels -----------------------------------------------------------------------------------------------------------

_KEY = ["exam_id", "label_set", "finding", "function_id", "evidence"]
_MEANINGS = {
    "number": pl.Int32,
    "read": pl.String,
    "suspected": pl.Boolean,
    "label_set": pl.String,
    "finding": pl.String,
    "value": pl.String,
    "confidence": pl.Float64,
    "vote_site": pl.String,
}
_SUSPECTED = "suspected"


def _to_labels(
    votes: pl.DataFrame, linked_rules: Sequence[KindRule], *, label_sets: Mapping[str, LabelSet], rules: Rulebook
) -> pl.DataFrame:
    """The votes table of rows of exam, label set, record and rule."""
    functions = pl.DataFrame(
        [(at, one.function_id, one.rule.group) for at, one in enumerate(linked_rules)],
        schema={"number": pl.Int32, "function_id": pl.String, "group": pl.String},
        orient="row",
    )
    meant = votes.with_columns(suspected=pl.col("certainty").eq_missing(_SUSPECTED)).join(
        _meanings(linked_rules, label_sets, rules),
        on=["number", "read", "suspected", "label_set"],
        how="inner",
        nulls_equal=True,
    )
    named = _inside(meant, label_sets, rules).join(functions, on="number", how="left").rename({"record_id": "evidence"})
    return (
        _strongest(named.sort("confidence", descending=True, maintain_order=True), _KEY, "value")
        .with_columns(kind=pl.lit(KIND))
        .select(EXAM_VOTES.names())
        .cast(EXAM_VOTES)
        .sort(_KEY)
    )


def _meanings(linked_rules: Sequence[KindRule], label_sets: Mapping[str, LabelSet], rules: Rulebook) -> pl.DataFrame:
    """What each rule votes in each label set; ``read`` is the status that its text must have, for votes as read.

    A label that unites findings is denied only by a rule that denies them all: that there is no cancer does not say
    that there is no nodule.
    """
    united = {(name, entry.id): frozenset(entry.any_of) for name, one in label_sets.items() for entry in one.findings}
    meant = {name: _labels_of(label_set, rules) for name, label_set in label_sets.items()}
    rows: list[tuple[object, ...]] = []
    for number, one in enumerate(linked_rules):
        denied = {vote.finding for vote in one.rule.votes if vote.value in ("absent", "as_read")}
        for vote in one.rule.votes:
            if vote.finding is not None and vote.finding not in rules.findings:
                raise ConfigError(f"rule {one.rule.id} votes for a finding that the rules do not have: {vote.finding}")
            confidence = vote.confidence or one.rule.confidence
            for name in one.rule.exams.label_sets or label_sets:
                if name not in label_sets or (vote.label_sets and name not in vote.label_sets):
                    continue
                for read, suspected, status in _statuses(one, vote):
                    rows += [
                        (number, read, suspected, name, label, value, confidence, vote.site)
                        for label, value in _labels(vote, status, name, meant[name])
                        if value != "absent" or vote.finding not in united[name, label] or united[name, label] <= denied
                    ]
    return pl.DataFrame(rows, schema=_MEANINGS, orient="row")


def _statuses(one: KindRule, vote: RecordVote) -> Iterable[tuple[str | None, bool, str]]:
    """What the text must say, whether the record is a suspicion, and what the vote then is."""
    if not one.rule.when.says:
        read: list[tuple[str | None, str]] = [(None, vote.value)]
    elif vote.value == "as_read":
        read = [(status, status) for status in one.rule.when.status]
    else:
        read = [(status, vote.value) for status in one.rule.when.status]
    for said, status in read:
        yield said, False, status
        if status != "absent":
            yield said, True, "uncertain"


def _labels_of(label_set: LabelSet, rules: Rulebook) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(finding, status) -> labels and their values."""
    labels: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for finding, status, label, value in label_of_finding(label_set, rules).iter_rows():
        labels.setdefault((finding, status), []).append((label, value))
    return labels


def _labels(
    vote: RecordVote, status: str, label_set: str, meant: Mapping[tuple[str, str], list[tuple[str, str]]]
) -> list[tuple[str, str]]:
    if vote.finding is not None:
        return meant.get((vote.finding, status), [])
    return [(vote.label or "", status)] if vote.label_set == label_set else []


def _inside(votes: pl.DataFrame, label_sets: Mapping[str, LabelSet], rules: Rulebook) -> pl.DataFrame:
    """Without votes whose site lies outside the sites that their label is limited to; no site lies in all."""
    limits = {
        (name, entry.id): frozenset(entry.at)
        for name, label_set in label_sets.items()
        for entry in label_set.findings
        if entry.at
    }
    placed = votes.with_columns(
        at=pl.when(pl.col("vote_site").is_not_null())
        .then(pl.concat_list("vote_site"))
        .otherwise(pl.col("organ"))
        .list.join(";")
    )
    keys = ["label_set", "finding", "at"]
    seen = placed.select(keys).unique()
    inside = [
        at is None
        or (label_set, label) not in limits
        or any(not limits[label_set, label].isdisjoint(rules.site_parents.get(site, {site})) for site in at.split(";"))
        for label_set, label, at in seen.iter_rows()
    ]
    return placed.join(seen.filter(pl.Series(inside, dtype=pl.Boolean)), on=keys, how="semi", nulls_equal=True)
