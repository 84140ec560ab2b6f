"""What one sentence hands on to the next: places, sizes, and the rows of a whole report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reportlabel.annotate.attributes import longest_diameter
from reportlabel.annotate.sections import Sentence
from reportlabel.annotate.sentence import Analysis, Found, Grammar
from reportlabel.annotate.sites import Place
from reportlabel.rulebook.load import Rulebook

Row = tuple[
    str,
    int,
    int,
    str,
    str,
    str,
    str,
    str,
    str | None,
    str | None,
    str | None,
    float | None,
    str | None,
    str | None,
    str | None,
    str | None,
    str,
    int,
]
"""One row of the mentions table, in the order of :data:`reportlabel.schema.MENTIONS`."""

_FINDING, _TEMPORALITY = 3, 6
_CURRENT = "current"
# what a section that asserts nothing, or only the past, makes of a statement
_TEMPORALITY_OF = {"none": "hypothetical", "past": "past"}
# a size may follow its lesion at this many sentences
_LATE = 2

_Middle = tuple[str, str, str, str | None, str | None, str | None]
_Tail = tuple[str | None, str | None, str | None, str | None, str]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A finding id and the sites that made it so."""

    finding: str
    sites: tuple[str, ...]


class Context:
    """Turns the analyses of a report's sentences into rows. Remembers what it worked out for equal sentences."""

    def __init__(self, rules: Rulebook, grammar: Grammar) -> None:
        self._grammar = grammar
        self._memory = rules.context.memory
        self._asserts = {section.id: section.asserts for section in rules.sections.sections}
        self._composed: dict[str, list[tuple[str, frozenset[str], bool]]] = {}
        for finding in rules.findings.values():
            for compose in finding.compose:
                self._composed.setdefault(compose.finding, []).append(
                    (finding.id, frozenset(compose.at), compose.unsited)
                )
        self._rows_of: dict[tuple[int, str | None, str], list[tuple[str, _Middle, _Tail]]] = {}

    def forget(self) -> None:
        """Drop what was remembered; to be called when the analyses it was worked out from are dropped."""
        self._rows_of.clear()

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
        rows: list[Row] = []
        weak: list[int] = []
        late = _late_sizes(analyses)
        lesion: tuple[int, Place] | None = None
        organ: tuple[int, Place] | None = None
        for number, (sentence, analysis) in enumerate(zip(sentences, analyses, strict=True)):
            current = self._asserts.get(sentence.section, _CURRENT) == _CURRENT
            held = False
            for index, found in enumerate(analysis.found):
                if found.stands_in and held:
                    continue
                place = found.place
                if place is None and current:
                    if (found.inherits or analysis.anaphoric) and lesion and number - lesion[0] <= self._memory:
                        place = lesion[1]
                    elif organ and organ[0] == sentence.line and found.finding in self._composed:
                        place = organ[1]
                size = found.size and self._size(normalised, sentence, found.size)
                if size is None and (number, index) in late:
                    at = late[number, index]
                    size = self._size(normalised, sentences[at], analyses[at].loose_size)
                start, end = sentence.start + found.start, sentence.start + found.end
                parts = self._parts(found, place, default_site, sentence.section)
                held = bool(parts)
                for finding, middle, tail in parts:
                    if found.weak:
                        weak.append(len(rows))
                    rows.append((report_id, start, end, finding, text[start:end], *middle, size, *tail, number))
                if found.carrier and current:
                    handed = found.handed or place
                    if handed is None and default_site is not None:
                        handed = Place(sites=(default_site,), side=found.side)
                    if handed is not None:
                        lesion = (number, handed)
            if analysis.place is not None:
                organ = (sentence.line, analysis.place)
        return _without_weak(rows, weak) if weak else rows

    def _parts(
        self, found: Found, place: Place | None, default_site: str | None, section: str
    ) -> list[tuple[str, _Middle, _Tail]]:
        """The finding ids of a mention with the columns that do not depend on the report."""
        if place is not found.place:
            return self._make_parts(found, place, default_site, section)
        # the analyses are kept while this is, so that their identity may stand for them
        key = (id(found), default_site, section)
        parts = self._rows_of.get(key)
        if parts is None:
            parts = self._rows_of[key] = self._make_parts(found, place, default_site, section)
        return parts

    def _make_parts(
        self, found: Found, place: Place | None, default_site: str | None, section: str
    ) -> list[tuple[str, _Middle, _Tail]]:
        temporality = _TEMPORALITY_OF.get(self._asserts.get(section, _CURRENT), found.temporality)
        regions = place.regions if place else ()
        tail = (found.count, found.change, found.image, found.cue or None, found.rule_id)
        parts: list[tuple[str, _Middle, _Tail]] = []
        for resolved in self.resolve(found, place, default_site):
            sites = ";".join(dict.fromkeys((*resolved.sites, *regions))) or None
            side = found.side or (place.side if place else None)
            lobe = place.lobe if place else None
            parts.append((resolved.finding, (found.status, temporality, section, sites, side, lobe), tail))
        return parts

    def resolve(self, found: Found, place: Place | None, default_site: str | None) -> list[Resolved]:
        """The findings that a generic word is at its sites (腫瘤 at the liver is liver_mass); a weak term may be none."""
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
        return longest_diameter(normalised[sentence.start + span[0] : sentence.start + span[1]], self._grammar.attributes)


def _without_weak(rows: list[Row], weak: Sequence[int]) -> list[Row]:
    """Rows named as a cause only go where the report says more of the finding elsewhere."""
    dropped = set(weak)
    said = {row[_FINDING] for at, row in enumerate(rows) if at not in dropped and row[_TEMPORALITY] == _CURRENT}
    return [row for at, row in enumerate(rows) if not (at in dropped and row[_FINDING] in said)]


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
