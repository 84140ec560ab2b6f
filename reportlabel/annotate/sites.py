"""Where a finding is.

The anatomical groups of a sentence (右肺上葉S2, 肝や右副腎, 縦隔・肺門リンパ節), and which one a finding has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from reportlabel.annotate.clause import Clauses, alternatives
from reportlabel.annotate.match import Hit, longest
from reportlabel.annotate.normalise import Normaliser
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import Side

LYMPH_NODE = "lymph_node"
SEGMENT = "segment"
"""A bare segment number (S8に): which organ it is of is told by the sentences before it."""
_LOBE_SITES = {"upper": "upper_lobe", "middle": "middle_lobe", "lower": "lower_lobe", "lingula": "lingula"}


@dataclass(frozen=True, slots=True)
class Place:
    """Sites (ids; the organ that counts first), regions that only refine them, side and lobe."""

    sites: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    side: Side | None = None
    lobe: str | None = None


LIVER = Place(sites=("liver",))


@dataclass(frozen=True, slots=True)
class Group:
    """Coordinated places that stand together in the text."""

    start: int
    end: int
    place: Place
    relational: bool = False


@dataclass(frozen=True)
class SiteWords:
    """Compiled ``rules/anatomy.yaml``."""

    parents: dict[str, frozenset[str]]
    lung_segments: dict[int, dict[str, str]]
    liver_segments: int
    nodal: frozenset[str]
    relation: re.Pattern[str]
    inner: re.Pattern[str] = field(repr=False)
    joint: re.Pattern[str] = field(repr=False)
    behind: frozenset[str] = frozenset()
    orientation: tuple[str, ...] = ()
    parts: dict[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def from_rules(cls, rules: Rulebook, normaliser: Normaliser) -> SiteWords:
        anatomy = rules.anatomy
        genitive = rules.assertion.particles.genitive

        def any_of(terms: Sequence[str]) -> str:
            return alternatives(terms, normaliser)

        ordinal = any_of(anatomy.ordinals)
        return cls(
            parents=rules.site_parents,
            lung_segments={
                int(name[1:]): {"right": lobe.right, "left": lobe.left}
                for name, lobe in anatomy.segments.lung.items()
                if name[1:].isdigit()
            },
            liver_segments=len(anatomy.segments.liver),
            nodal=frozenset(anatomy.nodal_regions),
            relation=re.compile(rf"(?:{any_of(anatomy.touching)})*(?:{any_of(anatomy.relations)})"),
            # what may stand inside one place, and between the places of a list
            inner=re.compile(
                rf"\s?{genitive}?(?:(?:{ordinal})?[\u30fb、,~～\-]?\d[\d\u30fb、,~～\-./ ]*(?:{ordinal})?)?"
                rf"(?:{any_of(anatomy.inside)})*"
            ),
            joint=re.compile(
                rf"(?:{any_of(anatomy.before)})*\s?(?:{any_of(anatomy.between)})+(?:{any_of(anatomy.after)})?"
                rf"(?:(?:{ordinal})?\d[\d\u30fb,~～\-./ ]*(?:{ordinal})?)?"
            ),
            parts={normaliser(term): frozenset(part.of) for part in anatomy.parts for term in part.terms},
            orientation=tuple(normaliser(word) for word in anatomy.orientation),
            behind=frozenset(normaliser(word) for word in rules.assertion.particles.before_place),
        )

    def lies_in(self, site: str, wanted: frozenset[str]) -> bool:
        return not wanted.isdisjoint(self.parents.get(site, frozenset({site})))


_SEGMENT = re.compile(r"(?<![a-z0-9])s(10|[1-9])[a-c]?(?:\s?[+/\u30fb,~\-]\s?s?(10|[1-9])[a-c]?)*(?![0-9a-z])")


class _Token(NamedTuple):
    start: int
    end: int
    site: str | None
    side: Side | None
    lobe: str | None = None
    regions: tuple[str, ...] = ()
    segment: int | None = None
    oriented: bool = False


def settle_segment(place: Place, organ: Place | None, words: SiteWords) -> Place:
    """The place of a bare segment number: of the liver where that was spoken of last, else of the lung.

    Segments of the liver have no side, so one with a side (右S6) is of the lung.
    """
    of_liver = organ is not None and any(words.lies_in(site, frozenset({"liver"})) for site in organ.sites)
    if of_liver and place.side is None:
        settled, lobe = "liver", None
    else:
        settled, lobe = _LOBE_SITES.get(place.lobe or "", "lung"), place.lobe
    return Place(
        sites=tuple(settled if site == SEGMENT else site for site in place.sites),
        regions=place.regions,
        side=place.side,
        lobe=lobe,
    )


def find_groups(
    text: str, sites: Sequence[Hit], sides: Sequence[Hit], words: SiteWords, *, topic: Place | None = None
) -> list[Group]:
    """All groups of a compact sentence, in order; ``topic`` says which organ a bare segment number is of (肝: S5に)."""
    tokens = _tokens(text, _of_organs(text, sites, topic, words), sides, words)
    if not tokens:
        return []
    groups: list[Group] = []
    elements: list[list[_Token]] = [[tokens[0]]]
    for before, token in pairwise(tokens):
        gap = text[before.end : token.start]
        # 肝脾, 肝胆膵: single characters side by side are organs of a list
        listed = not gap and before.site and token.site and before.end - before.start == token.end - token.start == 1
        if listed:
            elements.append([token])
        elif words.inner.fullmatch(gap) and not (before.site and token.side and not token.site and not gap):
            elements[-1].append(token)
        elif words.joint.fullmatch(gap) or (before.site and token.side and not gap):
            elements.append([token])
        else:
            groups.append(_group(text, elements, words, topic))
            elements = [[token]]
    groups.append(_group(text, elements, words, topic))
    return groups


def _of_organs(text: str, sites: Sequence[Hit], topic: Place | None, words: SiteWords) -> list[Hit]:
    """The sites, a word that names a part of several organs (頸部) being of the organ of the heading or before it."""
    known: list[Hit] = []
    for at, hit in enumerate(sites):
        wanted = words.parts.get(text[hit.start : hit.end])
        following = sites[at + 1] if at + 1 < len(sites) else None
        if wanted is None or (following is not None and following.start == hit.end):
            known.append(hit)
            continue
        organ: str | None = None
        if known and words.joint.fullmatch(text, known[-1].end, hit.start) is None:
            organ = known[-1].entry.name
        elif topic is not None and topic.sites:
            organ = topic.sites[0]
        if organ is not None and words.lies_in(organ, wanted):
            known.append(hit._replace(entry=replace(hit.entry, name=organ, side=None, lobe=None, regions=())))
        else:
            known.append(hit)
    return known


def _tokens(text: str, sites: Sequence[Hit], sides: Sequence[Hit], words: SiteWords) -> list[_Token]:
    tokens = [
        _Token(
            hit.start,
            hit.end,
            hit.entry.name,
            hit.entry.side,
            hit.entry.lobe,
            hit.entry.regions,
            oriented=text.startswith(words.orientation, hit.end),
        )
        for hit in sites
    ]
    taken = [(hit.start, hit.end) for hit in sites]
    tokens += [
        _Token(hit.start, hit.end, None, hit.entry.side)
        for hit in longest(
            [hit for hit in sides if not any(start < hit.end and hit.start < end for start, end in taken)]
        )
    ]
    if "s" in text:
        tokens += [
            _Token(match.start(), match.end(), None, None, segment=int(match[1]))
            for match in _SEGMENT.finditer(text)
            if not any(start < match.end() and match.start() < end for start, end in taken)
        ]
    return sorted(tokens, key=lambda token: token[:2])


def _group(text: str, elements: Sequence[Sequence[_Token]], words: SiteWords, topic: Place | None) -> Group:
    start, end = elements[0][0].start, elements[-1][-1].end
    places: list[Place] = []
    side: Side | None = None
    organ: str | None = topic.sites[0] if topic and _has_segments(topic, words) else None
    for element in elements:
        place = _element(element, side, organ, words)
        side, organ = place.side or side, place.sites[0] if place.sites else organ
        places.append(place)
    merged = _merge(places, words)
    return Group(start, end, merged, relational=words.relation.match(text, end) is not None)


def _has_segments(place: Place, words: SiteWords) -> bool:
    return bool(place.sites) and words.lies_in(place.sites[0], frozenset({"liver", "lung"}))


def _element(element: Sequence[_Token], side: Side | None, organ: str | None, words: SiteWords) -> Place:
    """One place: its last organ is the head, earlier ones refine it; the lobe is the first one named."""
    sides = {token.side for token in element if token.side}
    own: Side | None = None
    if len(sides) == 1:
        own = next(iter(sides))
    elif sides:
        own = "bilateral"
    sites = [token for token in element if token.site]
    # 右上葉縦隔側 is a place in the upper lobe
    heads = [token.site for at, token in enumerate(sites) if token.site and not (at and token.oriented)]
    segment = next((token.segment for token in element if token.segment is not None), None)
    head = heads[-1] if heads else (organ if segment is not None else None)
    lobe = next((token.lobe for token in element if token.lobe), None)
    regions = dict.fromkeys([*heads[:-1], *(region for token in element for region in token.regions)])
    if segment is not None:
        if head is not None and "liver" in words.parents.get(head, frozenset()):
            head = "liver"
        elif head is None or "lung" in words.parents.get(head, frozenset()):
            by_side = words.lung_segments.get(segment, {})
            known = own or side
            if known in by_side:
                segment_lobe: str | None = by_side[known]
            else:
                segment_lobe = by_side.get("right") if len(set(by_side.values())) == 1 else None
            # a segment is finer than the lobe in front of it (左上葉S4 is lingula)
            lobe = segment_lobe or lobe
            head = SEGMENT if head is None else _LOBE_SITES.get(segment_lobe or "", head)
    if head is None:
        return Place(side=own)
    return Place(sites=(head,), regions=tuple(regions), side=own or side, lobe=lobe)


def _merge(places: Sequence[Place], words: SiteWords) -> Place:
    heads = [site for place in places for site in place.sites]
    regions = [region for place in places for region in place.regions]
    if heads and heads[-1] == LYMPH_NODE and len(heads) > 1:
        # 縦隔・肺門リンパ節: the regions in front name nodes as well
        keep: list[str] = []
        for site in heads:
            (regions if site in words.nodal else keep).append(site)
        heads = keep
    sides = {place.side for place in places if place.side}
    side: Side | None = next(iter(sides)) if len(sides) == 1 else ("bilateral" if sides else None)
    lobe = next((place.lobe for place in places if place.lobe), None)
    if lobe == "hilum":
        lobe = next((place.lobe for place in places if place.lobe and place.lobe != "hilum"), lobe)
    return Place(sites=tuple(dict.fromkeys(heads)), regions=tuple(dict.fromkeys(regions)), side=side, lobe=lobe)


def place_in_clause(
    text: str,
    finding: Hit,
    groups: Sequence[Group],
    clauses: Clauses,
    words: SiteWords,
    *,
    target: bool,
    generic: bool,
    stop: int,
) -> tuple[Place | None, Side | None]:
    """The place that the clause gives a finding, and the side nearest to it.

    Args:
        generic: a word such as 静脈瘤, whose own anatomy counts only where nothing else is named.
        target: the finding is named by what it reaches, so a site that is only touched counts.
        stop: start of the first predicate after the finding; a place behind the finding counts up to there.
    """
    level = clauses.level[finding.start]
    start, _ = clauses.bounds(finding.start, finding.end)
    side: Side | None = None
    inner = [group for group in groups if finding.start < group.end <= finding.end]
    own = inner[-1].place if inner and not (generic and inner[-1].start >= finding.start) else None
    for group in reversed(groups):
        if group.end > finding.start or group.start < start or clauses.level[group.start] != level:
            continue
        if side is None and group.place.side:
            side = group.place.side
        if not group.place.sites:
            continue
        if group.relational and not target:
            continue
        if own is not None and own.sites:
            return _refined(own, group), side or own.side
        return group.place, group.place.side or side
    listed = _behind(text, finding, groups, words, stop)
    if own is not None and own.sites:
        # 骨転移(Th5、Th9): the places in brackets are finer than the one in the word
        if listed is not None and all(words.lies_in(site, frozenset(own.sites)) for site in listed.sites):
            return listed, listed.side or side
        return own, own.side or side
    if listed is not None:
        return listed, listed.side or side
    return None, side


def _behind(text: str, finding: Hit, groups: Sequence[Group], words: SiteWords, stop: int) -> Place | None:
    """A place that follows the finding (結節を右肺に認める, metastasis in the liver)."""
    for group in groups:
        if finding.end <= group.start and group.end <= stop and group.place.sites and not group.relational:
            if text[finding.end : group.start] in words.behind:
                return group.place
            break
    return None


def _refined(own: Place, group: Group) -> Place:
    """A word that names its organ (肺結節) keeps it; the group in front refines it (右上葉に肺結節)."""
    return Place(
        sites=own.sites,
        regions=tuple(dict.fromkeys((*group.place.sites, *group.place.regions))),
        side=own.side or group.place.side,
        lobe=group.place.lobe or own.lobe,
    )
