"""Everything that a sentence says by itself: its findings with assertion, place and attributes.

The result depends on the sentence alone, so that equal sentences of an archive are analysed once. Sizes are kept as
spans: sentences that differ in their millimetres alone share one analysis.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from reportlabel.annotate.assertion import (
    Assertion,
    AssertionWords,
    Temporality,
    assess,
    invert,
    no_share,
    open_choices,
)
from reportlabel.annotate.attributes import (
    AttributeWords,
    Size,
    assign_nearest,
    count_of,
    find_changes,
    find_sizes,
)
from reportlabel.annotate.clause import Clauses, ClauseWords, alternatives, find_clauses
from reportlabel.annotate.lexicon import Lexicon, build_lexicon
from reportlabel.annotate.match import Hit, Hits, Words, find
from reportlabel.annotate.normalise import Compact, Normaliser
from reportlabel.annotate.sites import LIVER, Group, Place, SiteWords, find_groups, place_in_clause
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import Change, Side, Status


@dataclass(frozen=True)
class Grammar:
    """A rulebook compiled for sentences."""

    lexicon: Lexicon
    clause: ClauseWords
    assertion: AssertionWords
    sites: SiteWords
    attributes: AttributeWords
    carriers: frozenset[str]
    inherits: frozenset[str]
    targets: frozenset[str]
    anaphora: tuple[str, ...]
    intrinsic: dict[str, tuple[str, ...]]
    unsized: frozenset[str]
    named_lesions: frozenset[str]
    graded: frozenset[str]
    composed_of: dict[str, frozenset[str]]
    generic: frozenset[str]
    after_size: re.Pattern[str]
    hindrance: re.Pattern[str]
    liver_words: re.Pattern[str]

    @classmethod
    def from_rules(cls, rules: Rulebook, normaliser: Normaliser) -> Grammar:
        context = rules.context
        lexicon = build_lexicon(rules, normaliser)
        carriers = frozenset(context.carriers)
        composed = {
            finding.id: finding.compose
            for finding in rules.findings.values()
            if any(compose.finding in carriers for compose in finding.compose)
        }
        return cls(
            lexicon=lexicon,
            clause=ClauseWords.from_rules(rules.assertion, normaliser),
            assertion=AssertionWords.from_rules(rules.assertion, normaliser),
            sites=SiteWords.from_rules(rules, normaliser),
            attributes=AttributeWords.from_rules(rules.assertion, normaliser),
            carriers=carriers | composed.keys(),
            inherits=frozenset(context.inherits),
            targets=frozenset(context.targets),
            anaphora=tuple(normaliser(word) for word in context.anaphora),
            intrinsic={
                finding.id: sites
                for finding in rules.findings.values()
                for sites in [tuple({site: None for compose in finding.compose for site in compose.at})]
                if len(sites) == 1
            },
            unsized=frozenset(context.unsized),
            named_lesions=frozenset(rules.primary_tumour.diagnosis),
            after_size=re.compile(rf"[。、]|{alternatives(rules.assertion.particles.after_size, normaliser)}"),
            hindrance=re.compile(alternatives(context.hindrances, normaliser)),
            liver_words=re.compile(alternatives(rules.anatomy.segments.liver_words, normaliser)),
            generic=lexicon.generic,
            composed_of={
                finding.id: frozenset(compose.finding for compose in finding.compose)
                for finding in rules.findings.values()
            },
            graded=frozenset(
                entry.value_of.removesuffix(".grade")
                for label_set in rules.label_sets.values()
                for entry in label_set.values
                if entry.value_of.endswith(".grade")
            ),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """One finding of a sentence. Offsets are those of the sentence, end exclusive.

    Attributes:
        place: what the sentence says of where it is; ``None``: nothing.
        at: sites one of which a weak term needs.
        size: span of its size in the sentence.
        carrier: a lesion that later sentences may speak of.
        inherits: takes the place of the last lesion where it has none of its own.
        nested: sites named inside the word (骨 in 骨硬化), which count where nothing else gives one.
        handed: the place a lesion hands on to what is said of it later.
        weak: named as a cause only; dropped where the report says more of it elsewhere.
        plain: an artefact is what is spoken of; no site makes a specific finding of it.
        stands_in: the head of the compound before it; it counts only where that one did not hold at its site.
    """

    start: int
    end: int
    finding: str
    rule_id: str
    status: Status
    temporality: Temporality
    cue: str
    place: Place | None
    side: Side | None
    at: frozenset[str]
    size: tuple[int, int] | None
    count: str | None
    change: Change | None
    image: str | None
    carrier: bool
    inherits: bool
    stands_in: bool = False
    weak: bool = False
    handed: Place | None = None
    nested: tuple[str, ...] = ()
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Analysis:
    """A sentence, understood.

    Attributes:
        found: findings in order of their place in the text.
        place: the last organ the sentence names, for the sentences after it.
        loose_size: a size that no finding of the sentence owns (長径は12mmです。).
        loose_change: likewise a change since the prior exam.
        anaphoric: the sentence begins by pointing back.
    """

    found: tuple[Found, ...]
    place: Place | None
    loose_size: tuple[int, int] | None
    loose_change: Change | None
    anaphoric: bool


def analyse(sentence: Compact, topic: Place | None, grammar: Grammar, words: Words) -> Analysis:
    """Analyse one compact sentence; ``topic`` is the place its heading gives."""
    text = sentence.text
    hits = find(text, grammar.lexicon, words)
    organ_said = topic
    if topic is None and grammar.liver_words.search(text) is not None:
        organ_said = LIVER
    groups = find_groups(text, hits.sites, hits.sides, grammar.sites, topic=organ_said)
    sizes = [size for size in find_sizes(text, grammar.attributes) if not size.prior]
    changes = find_changes(text, grammar.attributes)
    anaphoric = text.startswith(grammar.anaphora)
    organ = _last_organ(groups)
    if not hits.findings:
        return Analysis(
            found=(),
            place=organ,
            loose_size=sentence.span(sizes[0].start, sizes[0].end) if sizes else None,
            loose_change=changes[0][2] if changes else None,
            anaphoric=anaphoric,
        )
    clauses = find_clauses(text, hits.cues, sentence.gaps, grammar.clause)
    bounds = [clauses.bounds(hit.start, hit.end) for hit in hits.findings]
    owner, loose = _own_sizes(
        text, sizes, hits.findings, bounds, grammar.unsized, grammar.named_lesions, grammar.after_size
    )
    change_of: dict[int, Change] = {}
    for start, _, change in changes:
        if any(hit.start <= start < hit.end for hit in hits.findings):
            continue
        nearest = assign_nearest(start, hits.findings, bounds)
        if nearest is not None:
            change_of.setdefault(nearest, change)
    found = _found(sentence, hits, groups, clauses, bounds, topic, grammar, owner, change_of)
    return Analysis(
        found=found,
        place=organ,
        loose_size=sentence.span(loose.start, loose.end) if loose else None,
        loose_change=None,
        anaphoric=anaphoric,
    )


def _found(
    sentence: Compact,
    hits: Hits,
    groups: Sequence[Group],
    clauses: Clauses,
    bounds: Sequence[tuple[int, int]],
    topic: Place | None,
    grammar: Grammar,
    sizes: dict[int, Size],
    changes: dict[int, Change],
) -> tuple[Found, ...]:
    text = sentence.text
    heads = sorted([*hits.findings, *_outside(hits.arguments, [*hits.findings, *hits.cues])], key=lambda hit: hit.start)
    outer = [group for group in groups if not _nested(group, hits.findings)]
    image = _image(text, grammar)
    choices = open_choices(text, hits.findings, [*hits.sites, *hits.sides], grammar.assertion)
    hindered = grammar.hindrance.search(text) is not None
    result: list[Found] = []
    for index, hit in enumerate(hits.findings):
        assertion = _assertion(text, hit, heads, hits.cues, clauses, grammar)
        if assertion is None or assertion.status is None:
            continue
        if index in choices and assertion.status == "present":
            assertion = replace(assertion, status="uncertain", cue=choices[index])
        stop = next((cue.start for cue in hits.cues if cue.start >= hit.end and not cue.entry.before), bounds[index][1])
        reach = _Reach(
            clauses=clauses,
            groups=groups,
            outer=outer,
            stop=stop,
            topic=topic,
            earlier=result,
            cues=hits.cues,
            last_hit=hits.findings[index - 1] if index else None,
            hindered=hindered,
        )
        size = sizes.get(index)
        said = _Said(
            assertion=assertion,
            size=sentence.span(size.start, size.end) if size else None,
            count=_count(text, hit, bounds[index], grammar) or _count_before(hit, result, grammar),
            change=changes.get(index),
            image=image,
        )
        placed = _one(sentence, hit, said, reach, grammar)
        result.append(placed)
        head = hits.heads.get((hit.start, hit.end))
        if head is None:
            continue
        listed = any(group.start < hit.start < group.end and len(group.place.sites) > 1 for group in groups) or (
            # 大動脈弓から冠動脈にかけて壁在石灰化: the word names one of the places, what it is made of is at both
            head.entry.name in grammar.composed_of[hit.entry.name]
            and len(placed.place.sites if placed.place else ()) > 1
        )
        if listed or hit.entry.at:
            result.append(_one(sentence, head, said, reach, grammar, compound=hit, stands_in=not listed))
    return tuple(result)


class _Reach(NamedTuple):
    """Where a finding may take its place from."""

    clauses: Clauses
    groups: Sequence[Group]
    outer: Sequence[Group]
    stop: int
    topic: Place | None
    earlier: Sequence[Found]
    cues: Sequence[Hit]
    last_hit: Hit | None
    hindered: bool


class _Said(NamedTuple):
    """What the sentence says of a finding, wherever that is."""

    assertion: Assertion
    size: tuple[int, int] | None
    count: str | None  # type: ignore[assignment] # an attribute of the finding; nothing counts in this tuple
    change: Change | None
    image: str | None


def _one(
    sentence: Compact,
    hit: Hit,
    said: _Said,
    reach: _Reach,
    grammar: Grammar,
    *,
    compound: Hit | None = None,
    stands_in: bool = False,
) -> Found:
    text, name, assertion = sentence.text, hit.entry.name, said.assertion
    whole = compound or hit
    inherits, target, generic = name in grammar.inherits, name in grammar.targets, name in grammar.generic
    own = [group for group in reach.groups if whole.start < group.end <= whole.end]
    place, side = place_in_clause(
        text, whole, [*own, *reach.outer], reach.clauses, grammar.sites, target=target, generic=generic, stop=reach.stop
    )
    place = _apposed(hit, reach) or place
    before = _place_before(hit, reach, inherits=inherits, target=target)
    if place is None:
        place = before
    elif own and before is not None and place == own[-1].place and _refines(before, place, grammar):
        place = replace(place, regions=before.sites, side=place.side or before.side, lobe=place.lobe or before.lobe)
    if place is None:
        place = reach.topic
    if place is None:
        place = _listed(text, whole, reach, grammar)
    if place is None and hit.entry.at and reach.earlier:
        place = reach.earlier[-1].handed
    if place is None:
        place = _touched(whole, reach)
    start, end = sentence.span(whole.start, whole.end)
    assert assertion.status is not None
    return Found(
        start=start,
        end=end,
        finding=name,
        rule_id=hit.entry.rule_id,
        status=assertion.status,
        temporality=assertion.temporality,
        cue=assertion.cue,
        place=place,
        side=side or (place.side if place else None),
        at=hit.entry.at,
        size=said.size,
        count=said.count,
        change=said.change,
        image=said.image,
        carrier=name in grammar.carriers and assertion.status != "absent" and _holds(hit, place, grammar),
        inherits=inherits,
        stands_in=stands_in,
        weak=assertion.weak,
        handed=place if hit.entry.at else _handed(name, place, side, grammar.intrinsic),
        nested=own[-1].place.sites if own else (),
        plain=reach.hindered and name in grammar.lexicon.transparent,
    )


def _holds(hit: Hit, place: Place | None, grammar: Grammar) -> bool:
    """Whether a weak word stands at a site it needs, as far as the sentence tells."""
    return not hit.entry.at or place is None or any(grammar.sites.lies_in(site, hit.entry.at) for site in place.sites)


def _listed(text: str, hit: Hit, reach: _Reach, grammar: Grammar) -> Place | None:
    """The place of the finding in front, where the two are one list (胸膜の肥厚と石灰化)."""
    last = reach.last_hit
    if last is None or not reach.earlier or any(last.end <= cue.start < hit.start for cue in reach.cues):
        return None
    if grammar.assertion.joined.match(text, last.end, hit.start) is None:
        return None
    return reach.earlier[-1].handed


def _touched(hit: Hit, reach: _Reach) -> Place | None:
    """Side and lobe of what a lesion only touches or follows, where nothing else is named."""
    start, _ = reach.clauses.bounds(hit.start, hit.end)
    for group in reversed(reach.outer):
        if start <= group.start and group.end <= hit.start and (group.place.side or group.place.lobe):
            return Place(side=group.place.side, lobe=group.place.lobe)
    return None


def _refines(before: Place, place: Place, grammar: Grammar) -> bool:
    """Whether a place named earlier in the sentence lies in the one a word holds in itself (中葉 … 肺炎)."""
    wanted = frozenset(place.sites)
    return bool(before.sites) and all(grammar.sites.lies_in(site, wanted) for site in before.sites)


_APPOSITION = 12


def _apposed(hit: Hit, reach: _Reach) -> Place | None:
    """The place of the lesion that this one is said to be (腫大リンパ節と思われる軟部影)."""
    if not reach.earlier or not reach.earlier[-1].carrier:
        return None
    last = reach.last_hit
    if last is None or not 0 < hit.start - last.end <= _APPOSITION:
        return None
    between = [cue for cue in reach.cues if last.end <= cue.start and cue.end <= hit.start]
    if len(between) != 1 or between[0].entry.effect not in ("believe", "hedge") or between[0].end != hit.start:
        return None
    return reach.earlier[-1].handed


def _count_before(hit: Hit, earlier: Sequence[Found], grammar: Grammar) -> str | None:
    """What a lesion is held for is as many as the lesion (多数の集積を認め、転移と考えます)."""
    if hit.entry.name not in grammar.inherits:
        return None
    return next((found.count for found in reversed(earlier) if found.carrier), None)


def _count(text: str, hit: Hit, bounds: tuple[int, int], grammar: Grammar) -> str | None:
    if hit.entry.name in grammar.graded:
        match = _GRADE.match(text, hit.end)
        return (match[1] or _ROMAN[match[2]]) if match else None
    return count_of(text, hit, *bounds, grammar.attributes)


_LIST_END = frozenset({"", "、", ",", "。", "."})
_GRADE = re.compile(r"[^\d、。]{0,8}?(?:([0-6])|(?<![a-z])(iv|i{1,3})(?![a-z]))")
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}
_NUMBER = re.compile(r"[^\d、。]{0,6}?(\d+(?:\.\d+)?)\s?")


def _assertion(
    text: str, hit: Hit, heads: Sequence[Hit], cues: Sequence[Hit], clauses: Clauses, grammar: Grammar
) -> Assertion | None:
    measure = hit.entry.measure
    if measure is not None:
        match = _NUMBER.match(text, hit.end)
        if match is None or not text.startswith(measure.unit, match.end()):
            return None
        status: Status = "present" if float(match[1]) >= measure.present_from else "absent"
        return Assertion(status, "current", match[0].strip())
    if hit.entry.inverse and text[hit.end : hit.end + 1] in _LIST_END:
        # a normal statement stands for itself: the denial after it (CPA sharp、心拡大なし) is of something else
        return Assertion("absent", "current", "")
    assertion = assess(text, hit, heads, cues, clauses, grammar.assertion)
    if assertion.status == "present":
        share = no_share(text, hit, grammar.assertion)
        if share is not None:
            assertion = replace(assertion, status="absent", cue=share)
    return invert(assertion) if hit.entry.inverse else assertion


def _place_before(hit: Hit, reach: _Reach, *, inherits: bool, target: bool) -> Place | None:
    """The place from an earlier clause: what an invasion touches, else the last lesion, else the last organ."""
    before = [group for group in reach.outer if group.end <= hit.start and group.place.sites]
    if target and before:
        return before[-1].place
    if inherits:
        for found in reversed(reach.earlier):
            if found.carrier and found.handed is not None:
                return found.handed
    fixed = [group for group in before if not group.relational]
    return fixed[-1].place if fixed else None


def _handed(
    finding: str, place: Place | None, side: Side | None, intrinsic: dict[str, tuple[str, ...]]
) -> Place | None:
    """The place a lesion hands on to what is said of it later.

    A word that is a place by itself (腫大リンパ節) hands that on, refined by what stood in front of it.
    """
    sites = intrinsic.get(finding)
    if sites is None:
        return place
    if place is None:
        return Place(sites=sites, side=side)
    regions = tuple(site for site in (*place.sites, *place.regions) if site not in sites)
    return Place(sites=sites, regions=regions, side=place.side, lobe=place.lobe)


def _own_sizes(
    text: str,
    sizes: Sequence[Size],
    findings: Sequence[Hit],
    bounds: Sequence[tuple[int, int]],
    unsized: frozenset[str],
    named_lesions: frozenset[str],
    after_size: re.Pattern[str],
) -> tuple[dict[int, Size], Size | None]:
    """Finding index -> size, and a size that none owns.

    A size right in front of a finding is its own (8mm大の結節), else it belongs to the one before.
    """
    owner: dict[int, Size] = {}
    loose: Size | None = None
    sized = [index for index, hit in enumerate(findings) if hit.entry.name not in unsized]
    sized = sized or [index for index, hit in enumerate(findings) if hit.entry.name in named_lesions]
    for size in sizes:
        following = next((index for index in sized if findings[index].start >= size.end), None)
        if following is not None and after_size.search(text, size.end, findings[following].start) is None:
            nearest: int | None = following
        else:
            at = assign_nearest(size.start, [findings[index] for index in sized], [bounds[index] for index in sized])
            nearest = None if at is None else sized[at]
        if nearest is None:
            loose = loose or size
        elif nearest not in owner or (owner[nearest].part and not size.part):
            owner[nearest] = size
    return owner, loose


def _outside(arguments: Sequence[Hit], others: Sequence[Hit]) -> list[Hit]:
    """Argument nouns that are no part of a finding or of a predicate (増大 in 増大する)."""
    return [
        argument
        for argument in arguments
        if not any(other.start < argument.end and argument.start < other.end for other in others)
    ]


def _nested(group: Group, findings: Sequence[Hit]) -> bool:
    return any(finding.start < group.end <= finding.end for finding in findings)


def _last_organ(groups: Sequence[Group]) -> Place | None:
    return next((group.place for group in reversed(groups) if group.place.sites and not group.relational), None)


def _image(text: str, grammar: Grammar) -> str | None:
    match = grammar.attributes.image.search(text)
    return match[0] if match else None
