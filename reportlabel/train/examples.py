"""Examples: sentences and what they say of each finding.

Three sources. Reports of the synthetic hospital: the status is that of the gold; which finding of the rules an
expression is comes from the rules where they know it, else from what its name in the gold is elsewhere. Sentences made
from the terms of the rules by the frames of ``rules/train.yaml``, and the examples of the rules: both are read by the
rules.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.rulebook.load import Rulebook
from reportlabel.synth.bank import Bank, load_bank
from reportlabel.synth.patient import PatientFile
from reportlabel.synth.simulate import simulate
from reportlabel.train.settings import DataSettings, TrainSettings
from reportlabel.vote.bert import STATUSES, model_text, report_sentences
from reportlabel.vote.rules import label_of_finding

EXAMPLES = pl.Schema(
    [
        ("region", pl.String),
        ("before", pl.String),
        ("text", pl.String),
        ("findings", pl.List(pl.String())),
        ("statuses", pl.List(pl.String())),
        ("weights", pl.List(pl.Float64())),
        ("surfaces", pl.List(pl.String())),
        ("sures", pl.List(pl.Float64())),
        ("source", pl.String),
        ("split", pl.String),
    ]
)
"""One row a distinct sentence with the one before it, as the model reads them.

``findings``, ``statuses``, ``weights``, ``surfaces``, ``sures``: what it says, item by item. ``surfaces`` holds the
expression where it stands in the text, else "". ``sures``: how likely the status is right; the rest of the probability
is that of the other two. A status ``not_mentioned`` is one that was wrongly read there. ``source``: hospital, frame,
example, archive or reading. ``split``: train, validate or held_out.
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a sentence says of one finding."""

    finding: str
    status: str
    weight: float
    surface: str
    sure: float = 1.0


NOT_MENTIONED = "not_mentioned"


def voting_findings(rules: Rulebook) -> dict[str, frozenset[str]]:
    """The findings that vote for some label -> regions of the label sets concerned."""
    regions: dict[str, set[str]] = defaultdict(set)
    for label_set in rules.label_sets.values():
        for finding in label_of_finding(label_set, rules)["finding"].unique():
            if finding in rules.findings:
                regions[finding].add(label_set.region)
    return {finding: frozenset(regions[finding]) for finding in sorted(regions)}


def make_examples(settings: TrainSettings, annotator: Annotator) -> pl.DataFrame:
    """All examples (`EXAMPLES`), in a fixed order; the same settings and rules give the same rows."""
    voting = voting_findings(annotator.rules)
    rows = [
        *hospital_rows(settings.data, annotator, voting),
        *frame_rows(settings, annotator, voting),
        *rule_example_rows(annotator, voting),
    ]
    table = pl.DataFrame(rows, schema=EXAMPLES, orient="row")
    # A sentence that was seen in a patient of training is no measure of validation.
    order = {"train": 0, "validate": 1, "held_out": 2}
    return (
        table.with_columns(pl.col("split").replace_strict(order, return_dtype=pl.Int8).alias("rank"))
        .sort("rank", maintain_order=True)
        .unique(["region", "before", "text"], keep="first", maintain_order=True)
        .drop("rank")
    )


def data_hash(examples: pl.DataFrame) -> str:
    """The SHA-256 of a table of examples."""
    return hashlib.sha256(examples.write_ndjson().encode()).hexdigest()


def thinned(examples: pl.DataFrame, settings: DataSettings) -> pl.DataFrame:
    """At most ``repeats`` examples of each combination of findings and statuses, ``silent`` that say nothing.

    Of each combination at least ``unread``, if there are so many, are sentences of the hospital with something that the
    rules do not read: there is the most to learn.
    """
    said = examples.with_columns(
        key=pl.concat_str(
            pl.col("findings").list.join(","), pl.col("statuses").list.join(","), "source", "region", separator="|"
        ),
        chance=pl.concat_str("region", "before", "text").hash(settings.seed),
        unread=(pl.col("source") == "hospital") & pl.col("surfaces").list.contains(""),
    ).sort("chance")
    silent = pl.col("findings").list.len() == 0
    few = said.filter(~silent).filter(
        (pl.int_range(pl.len()).over("key") < settings.repeats)
        | (pl.col("unread") & (pl.int_range(pl.len()).over("key", "unread") < settings.unread))
    )
    return pl.concat([few, said.filter(silent).head(settings.silent)]).sort("chance").drop("key", "chance", "unread")


# --- the synthetic hospital -------------------------------------------------------------------------------------------

_PATIENTS_AT_ONCE = 500


@dataclass
class _Batch:
    """Reports of some patients, read as of one region, with their gold."""

    region: str
    reports: dict[str, tuple[str, str]] = field(default_factory=dict)
    gold: dict[str, list[tuple[int, int, str, str]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Read:
    """One sentence with the mentions of rules and gold that begin in it."""

    region: str
    split: str
    before: str
    text: str
    said: tuple[tuple[int, int, str, str, str, str], ...]
    gold: tuple[tuple[int, int, str, str], ...]


def hospital_rows(
    settings: DataSettings, annotator: Annotator, voting: Mapping[str, frozenset[str]]
) -> Iterator[tuple[object, ...]]:
    """Rows of `EXAMPLES` of the reports of a synthetic hospital.

    Gold and rules are compared over all of it first: see `gold_names`.
    """
    bank = load_bank()
    read: dict[tuple[str, str, str, str], _Read] = {}
    pairs: Counter[tuple[str, str, str, bool]] = Counter()
    for first in range(1, settings.patients + 1, _PATIENTS_AT_ONCE):
        numbers = range(first, min(first + _PATIENTS_AT_ONCE, settings.patients + 1))
        files = [simulate(bank, seed=settings.seed, number=number) for number in numbers]
        for batch in _batches(files, bank, annotator.rules, settings):
            for one in _sentences(batch, annotator):
                for gold in one.gold:
                    for said in _overlapping(gold, one.said):
                        pairs[one.region, gold[2], said[2], said[3] == gold[3]] += 1
                read.setdefault((one.region, one.before, one.text, one.split), one)
    names = gold_names(pairs, settings.agree)
    for one in read.values():
        statements = _statements(one, names, voting, settings.weight_rules_only)
        if statements is not None:
            yield example_row(one.region, one.before, one.text, statements, "hospital", one.split)


def gold_names(pairs: Mapping[tuple[str, str, str, bool], int], agree: float) -> dict[tuple[str, str], str]:
    """Region and name in the gold -> the finding of the rules that it is.

    Args:
        pairs: how often an expression of the gold (region, name) was read by the rules as a finding, with the same
            status or another.
        agree: a name is the finding it is read as most often, if the status is the same in so large a share.
    """
    counts: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for (region, name, finding, agrees), count in pairs.items():
        counts[region, name][finding][int(agrees)] += count
    names: dict[tuple[str, str], str] = {}
    for key, findings in counts.items():
        best = max(sorted(findings), key=lambda finding: sum(findings[finding]))
        different, same = findings[best]
        whole = sum(sum(each) for each in findings.values())
        if same >= agree * (same + different) and same + different >= whole / 2:
            names[key] = best
    return names


def _batches(files: Sequence[PatientFile], bank: Bank, rules: Rulebook, settings: DataSettings) -> list[_Batch]:
    held_out = frozenset(settings.held_out_readers)
    batches: dict[str, _Batch] = {}
    for file in files:
        kinds = {exam.exam_id: exam.kind for exam in file.exams}
        gold: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)
        for mark in file.gold_mentions:
            if mark.status in STATUSES:
                gold[mark.report_id].append((mark.start, mark.end, mark.finding, mark.status))
        split = "validate" if file.number % settings.validate_each == 0 else "train"
        for report in {one.report_id: one for one in file.reports}.values():
            own = "held_out" if report.reader in held_out else split
            sets = bank.exams[kinds[report.exam_id]].kind.label_sets
            for region in sorted({rules.label_sets[name].region for name in sets}):
                batch = batches.setdefault(region, _Batch(region))
                batch.reports[report.report_id] = (report.text, own)
                batch.gold[report.report_id] = gold[report.report_id]
    return [batches[region] for region in sorted(batches)]


def _sentences(batch: _Batch, annotator: Annotator) -> Iterator[_Read]:
    reports = pl.DataFrame(
        [(report_id, text) for report_id, (text, _) in batch.reports.items()],
        schema={"report_id": pl.String, "text": pl.String},
        orient="row",
    )
    said: dict[str, list[tuple[int, int, str, str, str, str]]] = defaultdict(list)
    mentions = annotator.annotate(reports, region=batch.region)
    columns = ("start", "end", "finding", "status", "temporality", "surface")
    for report_id, *mention in mentions.select("report_id", *columns).iter_rows():
        said[report_id].append(tuple(mention))
    sentences = report_sentences(reports, annotator)
    for report_id, _, start, end, before, text in sentences.iter_rows():
        yield _Read(
            batch.region,
            batch.reports[report_id][1],
            before,
            text,
            tuple(one for one in said[report_id] if start <= one[0] < end),
            tuple(one for one in batch.gold[report_id] if start <= one[0] < end),
        )


def _overlapping(
    gold: tuple[int, int, str, str], said: Iterable[tuple[int, int, str, str, str, str]]
) -> Iterator[tuple[int, int, str, str, str, str]]:
    return (one for one in said if one[0] < gold[1] and gold[0] < one[1])


def _statements(
    one: _Read, names: Mapping[tuple[str, str], str], voting: Mapping[str, frozenset[str]], rules_only: float
) -> list[Statement] | None:
    """What a sentence says; None where the gold says something that no finding of the rules stands for."""
    statements: list[Statement] = []
    for start, end, finding, status, temporality, surface in one.said:
        same = [
            gold
            for gold in one.gold
            if gold[0] < end and start < gold[1] and names.get((one.region, gold[2])) == finding
        ]
        if same:
            statements.append(Statement(finding, same[0][3], 1.0, surface))
        elif temporality == "current":
            overlapped = any(gold[0] < end and start < gold[1] for gold in one.gold)
            statements.append(Statement(finding, status, 1.0 if overlapped else rules_only, surface))
    for gold in one.gold:
        if any(True for _ in _overlapping(gold, one.said)):
            continue
        name = names.get((one.region, gold[2]))
        if name is None:
            return None
        statements.append(Statement(name, gold[3], 1.0, ""))
    return distinct_statements(statement for statement in statements if statement.finding in voting)


def distinct_statements(statements: Iterable[Statement]) -> list[Statement]:
    """One statement a finding: the strongest."""
    best: dict[str, Statement] = {}
    strength = (*STATUSES, NOT_MENTIONED)
    for one in statements:
        known = best.get(one.finding)
        if known is None or strength.index(one.status) < strength.index(known.status):
            best[one.finding] = one
    return [best[finding] for finding in sorted(best)]


def example_row(
    region: str, before: str, text: str, statements: Sequence[Statement], source: str, split: str
) -> tuple[object, ...]:
    """A row of `EXAMPLES`; surfaces are brought into the form the model reads."""
    surfaces = [model_text(one.surface) if one.surface else "" for one in statements]
    return (
        region,
        before,
        text,
        [one.finding for one in statements],
        [one.status for one in statements],
        [one.weight for one in statements],
        [surface if surface in text else "" for surface in surfaces],
        [one.sure for one in statements],
        source,
        split,
    )


# --- frames and examples of the rules ---------------------------------------------------------------------------------


def finding_terms(
    rules: Rulebook, voting: Mapping[str, frozenset[str]], between: Sequence[str]
) -> dict[str, list[str]]:
    """Voting finding -> words for it: its terms, and places with the generic words it is composed of.

    In: ``between``, what may stand between a place and a generic word.
    """
    sites = {site.id: [term.text for term in site.terms if not term.within] for site in rules.anatomy.sites}
    terms: dict[str, list[str]] = {}
    for finding in voting:
        known = rules.findings[finding]
        own = [term.text for term in known.terms if term.means is None and term.measure is None]
        for compose in known.compose:
            generic = rules.findings.get(compose.finding)
            words = (
                [term.text for term in generic.terms if term.means is None and term.measure is None] if generic else []
            )
            places = [word for site in compose.at for word in sites.get(site, [])]
            chance = random.Random(f"{finding} {compose.finding}")  # noqa: S311 - nothing here is secret
            if words and places:
                own += [f"{chance.choice(places)}{chance.choice(between)}{chance.choice(words)}" for _ in range(24)]
        if own:
            terms[finding] = own
    return terms


def frame_rows(
    settings: TrainSettings, annotator: Annotator, voting: Mapping[str, frozenset[str]]
) -> Iterator[tuple[object, ...]]:
    """Rows of `EXAMPLES` made by the frames; those that the rules read otherwise than meant are left out."""
    rules = annotator.rules
    terms = finding_terms(rules, voting, settings.composed)
    chance = random.Random(f"frames {settings.data.seed}")  # noqa: S311 - nothing here is secret
    anywhere = [term.text for site in rules.anatomy.sites for term in site.terms if not term.text.isascii()]
    for region in sorted({region for regions in voting.values() for region in regions}):
        here = [finding for finding in terms if region in voting[finding]]
        made: list[tuple[str, str]] = []
        for finding in here:
            for _ in range(settings.data.frames_a_finding if settings.frames else 0):
                others = [chance.choice(here), chance.choice(here)]
                words = [chance.choice(terms[one]) for one in (finding, *others)]
                made.append((finding, _framed(words, anywhere, settings, chance)))
        reports = pl.DataFrame(
            [(str(at), text) for at, (_, text) in enumerate(made)],
            schema={"report_id": pl.String, "text": pl.String},
            orient="row",
        )
        yield from _read_by_rules(
            reports, annotator, voting, region, "frame", wanted={str(at): one for at, (one, _) in enumerate(made)}
        )


def _framed(words: Sequence[str], anywhere: Sequence[str], settings: TrainSettings, chance: random.Random) -> str:
    text = chance.choice(settings.frames)
    place = chance.choice(settings.places).replace("{site}", chance.choice(anywhere))
    for slot, word in (("{at}", place), *zip(("{a}", "{b}", "{c}"), words, strict=True)):
        text = text.replace(slot, word)
    for slot, group in (
        ("{+}", settings.predicates.present),
        ("{?}", settings.predicates.uncertain),
        ("{-}", settings.predicates.absent),
    ):
        while slot in text:
            text = text.replace(slot, chance.choice(group), 1)
    return text


def rule_example_rows(annotator: Annotator, voting: Mapping[str, frozenset[str]]) -> Iterator[tuple[object, ...]]:
    """Rows of `EXAMPLES` of the examples that stand with the findings, read by the rules."""
    rules = annotator.rules
    every = sorted({region for regions in voting.values() for region in regions})
    for region in every:
        texts = {
            example.text: None
            for finding, known in rules.findings.items()
            if region in voting.get(finding, ()) or rules.files[finding].region in (region, "general")
            for example in known.examples
        }
        reports = pl.DataFrame(
            [(str(at), text) for at, text in enumerate(texts)],
            schema={"report_id": pl.String, "text": pl.String},
            orient="row",
        )
        yield from _read_by_rules(reports, annotator, voting, region, "example", wanted=None)


def _read_by_rules(
    reports: pl.DataFrame,
    annotator: Annotator,
    voting: Mapping[str, frozenset[str]],
    region: str,
    source: str,
    *,
    wanted: Mapping[str, str] | None,
) -> Iterator[tuple[object, ...]]:
    said: dict[tuple[str, int], list[Statement]] = defaultdict(list)
    mentions = annotator.annotate(reports, region=region)
    columns = ("report_id", "sentence", "finding", "status", "temporality", "surface")
    for report_id, number, finding, status, temporality, surface in mentions.select(columns).iter_rows():
        if temporality == "current":
            said[report_id, number].append(Statement(finding, status, 1.0, surface))
    for report_id, number, _, _, before, text in report_sentences(reports, annotator).iter_rows():
        statements = distinct_statements(one for one in said[report_id, number] if one.finding in voting)
        if wanted is None or any(one.finding == wanted[report_id] for one in statements):
            yield example_row(region, before, text, statements, source, "train")
