"""What one sentence hands on to the next: places, sizes, and the rows of a whole report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from reportlabel.annotate.attributes import longest_diameter
from reportlabel.annotate.sections import Sentence
from reportlabel.annotate.sentence import Analysis, Found, Grammar
from reportlabel.annotate.sites import SEGMENT, Place, settle_segment
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import Change


class Row(NamedTuple):
    """One row of the mentions table, in the order of :data:`reportlabel.schema.MENTIONS`."""

    report_id: str
    start: int
    end: int
    finding: str
    surface: str
    status: str
    temporality: str
    section: str
    site: str | None
    side: str | None
    lobe: str | None
    size_mm: float | None
    count: str | None  # type: ignore[assignment] # a column name of the table; nothing counts in a row
    change: str | None
    image_ref: str | None
    cue: str | None
    rule_id: str
    sentence: int


_CURRENT = "current"
# what a section that asserts nothing, or only the past, makes of a statement
_TEMPORALITY_OF = {"none": "hypothetical", "past": "past"}
# a size may follow its lesion at this many sentences
_LATE = 2
# more findings than this never share a span
_SAME_SPAN = 12


class Part(NamedTuple):
    """The columns of a mention that do not depend on the report it stands in; few, shared by many mentions."""

    finding: str
    status: str
    temporality: str
    section: str
    site: str | None
    side: str | None
    lobe: str | None
    count: str | None  # type: ignore[assignment] # as in Row
    change: str | None
    image_ref: str | None
    cue: str | None
    rule_id: str


Placed = tuple[int, int, int, float | None, int]
"""A mention of a report: start, end, number of its part, size in mm, number of its sentence."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A finding id and the sites that made it so."""

    finding: str
    sites: tuple[str, ...]


class _Plan(NamedTuple):
    """The mentions of a sentence (start, end, part, span of the size) and the place of the last lesion it names."""

    mentions: list[tuple[int, int, int, tuple[int, int] | None]]
    lesion: Place | None


class Context:
    """Turns the analyses of a report's sentences into rows. Remembers what it worked out for equal sentences."""

    def __init__(self, rules: Rulebook, grammar: Grammar) -> None:
        self._grammar = grammar
        self._memory = rules.context.memory
        self._unplaced = frozenset(rules.context.unplaced)
        self._coverings = frozenset(rules.context.coverings)
        self._asserts = {section.id: section.asserts for section in rules.sections.sections}
        self._composed: dict[str, list[tuple[str, frozenset[str], bool]]] = {}
        for finding in rules.findings.values():
            for compose in finding.compose:
                self._composed.setdefault(compose.finding, []).append(
                    (finding.id, frozenset(compose.at), compose.unsited)
                )
        self._numbers: dict[Part, int] = {}
        self._parts_of: dict[tuple[int, Place | None, str | None, str], list[int]] = {}
        self._plans: dict[tuple[int, str | None, str], _Plan | None] = {}
        self.parts: list[Part] = []

    def forget(self) -> None:
        """Drop what was remembered; to be called when the analyses it was worked out from are dropped."""
        self._parts_of.clear()
        self._plans.clear()

    def renew(self, size: int) -> None:
        """Start the parts anew when there are more than ``size``; to be called between batches."""
        if len(self.parts) > size:
            self.forget()
            self.parts, self._numbers = [], {}

    def rows(
        self,
        report_id: str,
        text: str,
        normalised: str,
        *,
        sentences: Sequence[Sentence],
        analyses: Sequence[Analysis],
        default_site: str | None,
    ) -> list[Row]:
        """The mentions of one report.

        Args:
            text, normalised: the report as it is stored, and normalised (same offsets).
            sentences, analyses: its sentences and what each says by itself.
            default_site: the site of findings that the report places nowhere.
        """
        return [
            Row(report_id, start, end, part.finding, text[start:end], *part[1:7], size, *part[7:], number)
            for start, end, part_number, size, number in self.place(
                normalised, sentences=sentences, analyses=analyses, default_site=default_site
            )
            for part in (self.parts[part_number],)
        ]

    def place(
        self,
        normalised: str,
        *,
        sentences: Sequence[Sentence],
        analyses: Sequence[Analysis],
        default_site: str | None,
    ) -> list[Placed]:
        """The mentions of one report, each with the number of its part in :attr:`parts`; see :meth:`rows`."""
        placed: list[Placed] = []
        weak: list[int] = []
        late = _late_sizes(analyses)
        late_changes = _late_changes(analyses)
        lesion: tuple[int, Place] | None = None
        organ: tuple[int, Place] | None = None
        for number, (sentence, analysis) in enumerate(zip(sentences, analyses, strict=True)):
            if not analysis.found:
                if analysis.place is not None and SEGMENT not in analysis.place.sites:
                    organ = (sentence.line, analysis.place)
                continue
            plan = None if late or late_changes else self._plan(analysis, default_site, sentence.section)
            if plan is not None:
                base = sentence.start
                for first, last, part, span in plan.mentions:
                    size = span and self._size(normalised, sentence, span)
                    placed.append((base + first, base + last, part, size, number))
                lesion = lesion if plan.lesion is None else (number, plan.lesion)
                organ = organ if analysis.place is None else (sentence.line, analysis.place)
                continue
            current = self._asserts.get(sentence.section, _CURRENT) == _CURRENT
            held = False
            for index, found in enumerate(analysis.found):
                if found.stands_in and held:
                    continue
                place = found.place
                if place is not None and SEGMENT in place.sites:
                    place = settle_segment(place, organ[1] if organ else None, self._grammar.sites)
                elif place is None and current:
                    if (found.inherits or analysis.anaphoric) and lesion and number - lesion[0] <= self._memory:
                        place = lesion[1]
                    elif organ and organ[0] == sentence.line and found.finding in self._composed:
                        place = organ[1] if self._fits(found, organ[1], default_site) else None
                size = found.size and self._size(normalised, sentence, found.size)
                if size is None and (number, index) in late:
                    at = late[number, index]
                    size = self._size(normalised, sentences[at], analyses[at].loose_size)
                start, end = sentence.start + found.start, sentence.start + found.end
                if found.change is None and (number, index) in late_changes:
                    # a copy has no place in the memory of parts, which goes by identity
                    changed = replace(found, change=late_changes[number, index])
                    parts = self._number(changed, place, default_site, sentence.section)
                else:
                    parts = self._part_numbers(found, place, default_site, sentence.section)
                held = bool(parts)
                if index and found.start == analysis.found[index - 1].start:
                    # two words of one span may come to the same finding; a mention is named once
                    known = {self.parts[part].finding for at, _, part, _, _ in placed[-_SAME_SPAN:] if at == start}
                    parts = [part for part in parts if self.parts[part].finding not in known]
                for part in parts:
                    if found.weak:
                        weak.append(len(placed))
                    placed.append((start, end, part, size, number))
                if found.carrier and current:
                    own = place if place is not found.place else found.handed or place
                    handed = own or _default_place(found, default_site)
                    lesion = lesion if handed is None else (number, handed)
            if analysis.place is not None and SEGMENT not in analysis.place.sites:
                organ = (sentence.line, analysis.place)
        return self._without_weak(placed, weak) if weak else placed

    def _plan(self, analysis: Analysis, default_site: str | None, section: str) -> _Plan | None:
        """The mentions of a sentence that needs nothing from the sentences before it; ``None``: it does."""
        key = (id(analysis), default_site, section)
        if key not in self._plans:
            self._plans[key] = self._make_plan(analysis, default_site, section) if self._closed(analysis) else None
        return self._plans[key]

    def _closed(self, analysis: Analysis) -> bool:
        starts = [found.start for found in analysis.found]
        if len(set(starts)) < len(starts) or (analysis.place is not None and SEGMENT in analysis.place.sites):
            return False
        return all(
            not found.weak
            and not found.stands_in
            and (
                SEGMENT not in found.place.sites
                if found.place is not None
                else not (found.inherits or analysis.anaphoric or found.finding in self._composed)
            )
            for found in analysis.found
        )

    def _make_plan(self, analysis: Analysis, default_site: str | None, section: str) -> _Plan:
        current = self._asserts.get(section, _CURRENT) == _CURRENT
        mentions: list[tuple[int, int, int, tuple[int, int] | None]] = []
        lesion: Place | None = None
        for found in analysis.found:
            for part in self._number(found, found.place, default_site, section):
                mentions.append((found.start, found.end, part, found.size))
            if found.carrier and current:
                lesion = found.handed or found.place or _default_place(found, default_site) or lesion
        return _Plan(mentions, lesion)

    def _part_numbers(self, found: Found, place: Place | None, default_site: str | None, section: str) -> list[int]:
        # the analyses are kept while this is, so that their identity may stand for them
        key = (id(found), None if place is found.place else place, default_site, section)
        numbers = self._parts_of.get(key)
        if numbers is None:
            numbers = self._parts_of[key] = self._number(found, place, default_site, section)
        return numbers

    def _number(self, found: Found, place: Place | None, default_site: str | None, section: str) -> list[int]:
        temporality = _TEMPORALITY_OF.get(self._asserts.get(section, _CURRENT), found.temporality)
        regions = place.regions if place else ()
        side = found.side or (place.side if place else None)
        lobe = place.lobe if place else None
        said = (found.count, found.change, found.image, found.cue or None, found.rule_id)
        numbers: list[int] = []
        for resolved in self.resolve(found, place, default_site):
            site = ";".join(dict.fromkeys((*resolved.sites, *regions))) or None
            part = Part(resolved.finding, found.status, temporality, section, site, side, lobe, *said)
            number = self._numbers.get(part)
            if number is None:
                number = self._numbers[part] = len(self.parts)
                self.parts.append(part)
            numbers.append(number)
        return numbers

    def _without_weak(self, placed: list[Placed], weak: Sequence[int]) -> list[Placed]:
        """Mentions named as a cause only go where the report says more of the finding elsewhere."""
        dropped = set(weak)
        findings = [self.parts[part].finding for _, _, part, _, _ in placed]
        said = {
            findings[at]
            for at, (_, _, part, _, _) in enumerate(placed)
            if at not in dropped and self.parts[part].temporality == _CURRENT
        }
        return [mention for at, mention in enumerate(placed) if not (at in dropped and findings[at] in said)]

    def resolve(self, found: Found, place: Place | None, default_site: str | None) -> list[Resolved]:
        """What a generic word is at its sites (腫瘤 at the liver is liver_mass); a weak term may be nothing."""
        if found.plain:
            return [Resolved(found.finding, place.sites if place else ())]
        lies_in = self._grammar.sites.lies_in
        sites = place.sites if place else ()
        candidates = sites or ((default_site,) if default_site else ())
        if found.at:
            regions = place.regions if place else ()
            if not any(lies_in(site, found.at) for site in (*candidates, *regions)):
                return []
        composed = self._compose(found.finding, candidates, sited=bool(sites))
        if not composed and not sites:
            composed = self._compose(found.finding, found.nested, sited=True)
        if composed:
            return composed
        return [Resolved(found.finding, sites or found.nested or self._grammar.intrinsic.get(found.finding, ()))]

    def _fits(self, found: Found, organ: Place, default_site: str | None) -> bool:
        """Whether a finding without a place is of the organ named last.

        Where it is nothing there and something at the site of the exam, a denial is of that
        (皮膚は肥厚。石灰化なし of a mammogram denies calcification of the breast).
        """
        lies_in = self._grammar.sites.lies_in
        if default_site is None:
            return True
        covering = all(lies_in(site, self._coverings) for site in organ.sites)
        if covering and not lies_in(default_site, self._coverings):
            return False
        if found.finding in self._unplaced:
            return not self._compose(found.finding, (default_site,), sited=False)
        if found.status != "absent" or self._compose(found.finding, organ.sites, sited=True):
            return True
        return not self._compose(found.finding, (default_site,), sited=False)

    def _compose(self, finding: str, sites: Sequence[str], *, sited: bool) -> list[Resolved]:
        lies_in = self._grammar.sites.lies_in
        by_finding: dict[str, list[str]] = {}
        for site in sites:
            for specific, at, unsited in self._composed.get(finding, []):
                if lies_in(site, at) and (sited or unsited):
                    by_finding.setdefault(specific, []).append(site)
        return [Resolved(specific, tuple(at)) for specific, at in by_finding.items()]

    def _size(self, normalised: str, sentence: Sentence, span: tuple[int, int] | None) -> float | None:
        if span is None:
            return None
        return longest_diameter(
            normalised[sentence.start + span[0] : sentence.start + span[1]], self._grammar.attributes
        )


def _default_place(found: Found, default_site: str | None) -> Place | None:
    return None if default_site is None else Place(sites=(default_site,), side=found.side)


def _late_sizes(analyses: Sequence[Analysis]) -> dict[tuple[int, int], int]:
    """(sentence, finding) -> the later sentence that gives its size (結節を認めます。長径は12mmです。)."""
    late: dict[tuple[int, int], int] = {}
    for number, analysis in enumerate(analyses):
        if analysis.loose_size is None:
            continue
        for before in range(number - 1, max(-1, number - 1 - _LATE), -1):
            owners = [at for at, found in enumerate(analyses[before].found) if found.carrier]
            if owners:
                if analyses[before].found[owners[-1]].size is None:
                    late.setdefault((before, owners[-1]), number)
                break
    return late


def _late_changes(analyses: Sequence[Analysis]) -> dict[tuple[int, int], Change]:
    """(sentence, finding) -> its change, told by the next sentence alone (結節を認めます。前回と著変ありません。)."""
    late: dict[tuple[int, int], Change] = {}
    for number, analysis in enumerate(analyses):
        if analysis.loose_change is None or number == 0:
            continue
        owners = [at for at, found in enumerate(analyses[number - 1].found) if found.status != "absent"]
        if owners:
            late[number - 1, owners[-1]] = analysis.loose_change
    return late
