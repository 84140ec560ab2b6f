"""Annotate reports: text in, mentions out.

One :class:`Annotator` is built from a rulebook and then annotates any number of reports. Sentences are analysed once
(see :mod:`reportlabel.annotate.sentence`); what one sentence hands on to the next is worked out report by report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from reportlabel.annotate.attributes import longest_diameter
from reportlabel.annotate.match import Tokenizer, Words, find
from reportlabel.annotate.normalise import Normaliser, compact
from reportlabel.annotate.sections import Sentence, Splitter
from reportlabel.annotate.sentence import EMPTY, Analysis, Found, Grammar, analyse, handed_on
from reportlabel.annotate.sites import Place, find_groups
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.schema import MENTIONS

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

# Sentences that differ only in these numbers share one analysis: measures in front of a unit, and dates.
_VARYING = re.compile(r"\d+(?:\.\d+)?(?=\s?(?:mm|cm|㎜|㎝|年|月|日|歳|分|時|秒|[x×*]\s?\d))")
_CACHE_SIZE = 200_000
_FINDING, _TEMPORALITY = 3, 6


@dataclass(frozen=True, slots=True)
class Resolved:
    """A finding id and the sites that made it so."""

    finding: str
    sites: tuple[str, ...]


class Annotator:
    """Rules compiled, ready to annotate. Not shared between threads; build one a process."""

    def __init__(self, rules: Rulebook | None = None) -> None:
        self.rules = load_rules() if rules is None else rules
        self.normaliser = Normaliser.from_rules(self.rules.normalise)
        self.splitter = Splitter.from_rules(self.rules.sections, self.normaliser)
        self.grammar = Grammar.from_rules(self.rules, self.normaliser)
        self._analyses: dict[tuple[str, str], Analysis] = {}
        self._topics: dict[str, Place | None] = {}
        self._resolutions: dict[tuple[str, Place | None, frozenset[str], str | None], tuple[Resolved, ...]] = {}
        self._asserts = {section.id: section.asserts for section in self.rules.sections.sections}

    @cached_property
    def words(self) -> Words:
        """MeCab's token spans; the dictionary is opened at the first fragile word."""
        return Tokenizer()

    @cached_property
    def _composed(self) -> dict[str, list[tuple[str, frozenset[str], bool]]]:
        composed: dict[str, list[tuple[str, frozenset[str], bool]]] = {}
        for finding in self.rules.findings.values():
            for compose in finding.compose:
                composed.setdefault(compose.finding, []).append((finding.id, frozenset(compose.at), compose.unsited))
        return composed

    def default_site(self, region: str | None) -> str | None:
        """The site a finding has in a region's reports when they name none."""
        return None if region is None else self.rules.default_sites.get(region)

    def annotate(self, reports: pl.DataFrame, *, region: str | None = None) -> pl.DataFrame:
        """All mentions of a table of reports.

        Args:
            reports: columns ``report_id`` and ``text``.
            region: region of ``rules/anatomy.yaml`` whose default site holds where a report names none.

        Returns:
            The mentions table, in order of reports and offsets; see :data:`reportlabel.schema.MENTIONS`.
        """
        ids: list[str] = reports.get_column("report_id").cast(pl.String).to_list()
        texts: list[str] = reports.get_column("text").to_list()
        site = self.default_site(region)
        rows: list[Row] = []
        for report_id, text, normalised in zip(ids, texts, self.normaliser.many(texts), strict=True):
            rows.extend(self._report(report_id, text, normalised, site))
        columns = zip(*rows, strict=True) if rows else ([] for _ in MENTIONS)
        return pl.DataFrame(
            {
                name: pl.Series(name, values, dtype=dtype)
                for (name, dtype), values in zip(MENTIONS.items(), columns, strict=True)
            }
        )

    def mentions(self, text: str, *, report_id: str = "", region: str | None = None) -> list[Row]:
        """The mentions of one text, as rows of the mentions table."""
        return list(self._report(report_id, text, self.normaliser(text), self.default_site(region)))

    def sentences(self, text: str) -> list[Sentence]:
        """The sentences of one text."""
        return self.splitter.split(self.normaliser(text))

    def _report(self, report_id: str, text: str, normalised: str, default_site: str | None) -> Iterator[Row]:
        sentences = self.splitter.split(normalised)
        analyses = [
            self.analysis(normalised[sentence.start : sentence.end], sentence.topic) for sentence in sentences
        ]
        rows = list(self._rows(report_id, text, normalised, sentences, analyses, default_site))
        if not any(weak for _, weak in rows):
            return (row for row, _ in rows)
        said = {row[_FINDING] for row, weak in rows if not weak and row[_TEMPORALITY] == "current"}
        return (row for row, weak in rows if not (weak and row[_FINDING] in said))

    def analysis(self, sentence: str, topic: str) -> Analysis:
        """The analysis of a normalised sentence under a heading, from the cache where an equal one was seen."""
        key = (_VARYING.sub(_zeros, sentence), topic)
        found = self._analyses.get(key)
        if found is None:
            found = analyse(compact(key[0]), self._topic(topic), self.grammar, self.words)
            if len(self._analyses) >= _CACHE_SIZE:
                self._analyses.clear()
            self._analyses[key] = found if found != EMPTY else EMPTY
        return found

    def _topic(self, topic: str) -> Place | None:
        if not topic:
            return None
        if topic not in self._topics:
            name = compact(topic).text
            hits = find(name, self.grammar.lexicon, self.words)
            groups = find_groups(name, hits.sites, hits.sides, self.grammar.sites)
            self._topics[topic] = groups[-1].place if groups and groups[-1].place.sites else None
        return self._topics[topic]

    def _rows(
        self,
        report_id: str,
        text: str,
        normalised: str,
        sentences: Sequence[Sentence],
        analyses: Sequence[Analysis],
        default_site: str | None,
    ) -> Iterator[tuple[Row, bool]]:
        memory = self.rules.context.memory
        late = _late_sizes(analyses)
        lesion: tuple[int, Place] | None = None
        organ: tuple[int, Place] | None = None
        for number, (sentence, analysis) in enumerate(zip(sentences, analyses, strict=True)):
            asserts = self._asserts.get(sentence.section, "current")
            held = False
            for index, found in enumerate(analysis.found):
                if found.stands_in and held:
                    continue
                place = found.place
                if place is None and asserts == "current":
                    if (found.inherits or analysis.anaphoric) and lesion is not None and number - lesion[0] <= memory:
                        place = lesion[1]
                    elif organ is not None and organ[0] == sentence.line and found.finding in self._composed:
                        place = organ[1]
                size = self._size(normalised, sentence, found.size)
                if size is None and (number, index) in late:
                    at = late[number, index]
                    size = self._size(normalised, sentences[at], analyses[at].loose_size)
                resolutions = self.resolve(found, place, default_site)
                held = bool(resolutions)
                for resolved in resolutions:
                    row = self._row(report_id, text, sentence, number, found, place, resolved, asserts, size)
                    yield row, found.weak
                if found.carrier and asserts == "current":
                    handed = handed_on(found, self.grammar.intrinsic) or place
                    if handed is None and default_site is not None:
                        handed = Place(sites=(default_site,), side=found.side)
                    if handed is not None:
                        lesion = (number, handed)
            if analysis.place is not None:
                organ = (sentence.line, analysis.place)

    def _row(
        self,
        report_id: str,
        text: str,
        sentence: Sentence,
        number: int,
        found: Found,
        place: Place | None,
        resolved: Resolved,
        asserts: str,
        size: float | None,
    ) -> Row:
        start, end = sentence.start + found.start, sentence.start + found.end
        temporality: str = found.temporality
        if asserts == "none":
            temporality = "hypothetical"
        elif asserts == "past":
            temporality = "past"
        return (
            report_id,
            start,
            end,
            resolved.finding,
            text[start:end],
            found.status,
            temporality,
            sentence.section,
            ";".join((*resolved.sites, *(place.regions if place else ()))) or None,
            found.side or (place.side if place else None),
            place.lobe if place else None,
            size,
            found.count,
            found.change,
            found.image,
            found.cue or None,
            found.rule_id,
            number,
        )

    def resolve(self, found: Found, place: Place | None, default_site: str | None) -> tuple[Resolved, ...]:
        """The findings that a generic word is at its sites (腫瘤 at the liver is liver_mass); a weak term may be none."""
        key = (found.finding, place, found.at, default_site)
        resolved = self._resolutions.get(key)
        if resolved is None:
            resolved = self._resolve(found, place, default_site)
            self._resolutions[key] = resolved
        return resolved

    def _resolve(self, found: Found, place: Place | None, default_site: str | None) -> tuple[Resolved, ...]:
        lies_in = self.grammar.sites.lies_in
        sites = place.sites if place else ()
        unsited = not sites
        candidates = sites or ((default_site,) if default_site else ())
        if found.at:
            regions = place.regions if place else ()
            if not any(lies_in(site, found.at) for site in (*candidates, *regions)):
                return ()
        composed = self._composed.get(found.finding, [])
        by_finding: dict[str, list[str]] = {}
        for site in candidates:
            for finding, at, allows_unsited in composed:
                if lies_in(site, at) and (not unsited or allows_unsited):
                    by_finding.setdefault(finding, []).append(site)
        if by_finding:
            return tuple(Resolved(finding, tuple(at)) for finding, at in by_finding.items())
        intrinsic = self.grammar.intrinsic.get(found.finding, ())
        own = sites or intrinsic
        return (Resolved(found.finding, tuple(own)),)

    def _size(self, normalised: str, sentence: Sentence, span: tuple[int, int] | None) -> float | None:
        if span is None:
            return None
        return longest_diameter(normalised[sentence.start + span[0] : sentence.start + span[1]], self.grammar.attributes)


def _zeros(match: re.Match[str]) -> str:
    return re.sub(r"\d", "0", match[0])


_LATE = 2


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
