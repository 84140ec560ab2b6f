"""Annotate reports: text in, mentions out.

One :class:`Annotator` is built from a rulebook and then annotates any number of reports. Sentences are analysed once
(see :mod:`reportlabel.annotate.sentence`); what one sentence hands on to the next is worked out report by report
(see :mod:`reportlabel.annotate.context`).
"""

from __future__ import annotations

import re
from functools import cached_property

import polars as pl

from reportlabel.annotate.clause import alternatives
from reportlabel.annotate.context import Context, Part, Placed, Row
from reportlabel.annotate.match import Tokenizer, Words, find
from reportlabel.annotate.normalise import Normaliser, compact
from reportlabel.annotate.sections import Meaning, Sentence, Splitter
from reportlabel.annotate.sentence import Analysis, Grammar, analyse
from reportlabel.annotate.sites import Place, find_groups
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.schema import MENTIONS

__all__ = ["Annotator", "Row"]

_DIGIT = re.compile(r"\d")
_CACHE_SIZE = 100_000
_PARTS = pl.Schema({name: MENTIONS[name] for name in Part._fields})


class Annotator:
    """Rules compiled, ready to annotate. Not shared between threads; build one a process."""

    def __init__(self, rules: Rulebook | None = None) -> None:
        self.rules = load_rules() if rules is None else rules
        self.normaliser = Normaliser.from_rules(self.rules.normalise)
        self.splitter = Splitter.from_rules(self.rules.sections, self.normaliser)
        self.grammar = Grammar.from_rules(self.rules, self.normaliser)
        self.context = Context(self.rules, self.grammar)
        # Sentences that differ only in these numbers share one analysis: measures in front of a unit, and dates.
        units = alternatives(self.rules.assertion.varying_units, self.normaliser)
        times = alternatives(self.rules.assertion.size.times, self.normaliser)
        self._varying = re.compile(rf"(?<!\d)\d++(?:\.\d++)?(?=\s?(?:{units}|(?:{times})\s?\d))")
        self._analyses: dict[tuple[str, str], Analysis] = {}
        self._headings: dict[str, tuple[Place | None, bool]] = {}

    @cached_property
    def words(self) -> Words:
        """MeCab's token spans; the dictionary is opened at the first fragile word."""
        return Tokenizer()

    @property
    def known_sentences(self) -> int:
        """How many distinct sentences are remembered."""
        return len(self._analyses)

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
        mentioning: list[str] = []
        surfaces: list[str] = []
        placed: list[Placed] = []
        self.context.renew(_CACHE_SIZE)
        for report_id, text, normalised in zip(ids, texts, self.normaliser.many(texts), strict=True):
            sentences, analyses = self._analysed(normalised)
            found = self.context.place(normalised, sentences=sentences, analyses=analyses, default_site=site)
            placed += found
            mentioning += [report_id] * len(found)
            surfaces += [text[start:end] for start, end, _, _, _ in found]
        starts, ends, numbers, sizes, of_sentence = zip(*placed, strict=True) if placed else ((), (), (), (), ())
        # what does not depend on the report is kept once and gathered
        parts = pl.DataFrame(self.context.parts, schema=_PARTS, orient="row")
        return (
            parts[pl.Series(numbers, dtype=pl.UInt32)]
            .with_columns(
                pl.Series("report_id", mentioning, dtype=pl.String),
                pl.Series("surface", surfaces, dtype=pl.String),
                pl.Series("start", starts, dtype=pl.Int32),
                pl.Series("end", ends, dtype=pl.Int32),
                pl.Series("size_mm", sizes, dtype=pl.Float64),
                pl.Series("sentence", of_sentence, dtype=pl.Int32),
            )
            .select(MENTIONS.names())
        )

    def mentions(self, text: str, *, report_id: str = "", region: str | None = None) -> list[Row]:
        """The mentions of one text, as rows of the mentions table."""
        normalised = self.normaliser(text)
        sentences, analyses = self._analysed(normalised)
        return self.context.rows(
            report_id,
            text,
            normalised,
            sentences=sentences,
            analyses=analyses,
            default_site=self.default_site(region),
        )

    def sentences(self, text: str) -> list[Sentence]:
        """The sentences of one text."""
        return self.split(self.normaliser(text))

    def split(self, normalised: str) -> list[Sentence]:
        """The sentences of a normalised text."""
        return self.splitter.split(normalised, self._what_is)

    def make_room(self) -> None:
        """Forget sentences when too many are remembered. Only between reports: what is in use must not go."""
        if len(self._analyses) >= _CACHE_SIZE:
            self._analyses.clear()
            self.context.forget()

    def _analysed(self, normalised: str) -> tuple[list[Sentence], list[Analysis]]:
        self.make_room()
        sentences = self.split(normalised)
        return sentences, [self.analysis(normalised[it.start : it.end], it.topic) for it in sentences]

    def analysis(self, sentence: str, topic: str) -> Analysis:
        """The analysis of a normalised sentence under a heading, from the cache where an equal one was seen."""
        key = (self._varying.sub(_zeros, sentence), topic)
        found = self._analyses.get(key)
        if found is None:
            found = analyse(compact(key[0]), self._topic(topic), self.grammar, self.words)
            self._analyses[key] = found
        return found

    def _topic(self, topic: str) -> Place | None:
        return self._heading(topic)[0] if topic else None

    def _what_is(self, name: str) -> Meaning:
        place, names_finding = self._heading(name)
        return "finding" if names_finding else "place" if place is not None else "other"

    def _heading(self, name: str) -> tuple[Place | None, bool]:
        """The place a heading names, and whether it names a finding."""
        known = self._headings.get(name)
        if known is None:
            text = compact(name).text
            hits = find(text, self.grammar.lexicon, self.words)
            groups = find_groups(text, hits.sites, hits.sides, self.grammar.sites)
            place = groups[-1].place if groups and groups[-1].place.sites else None
            known = (place, bool(hits.findings))
            if len(self._headings) >= _CACHE_SIZE:
                self._headings.clear()
            self._headings[name] = known
        return known


def _zeros(match: re.Match[str]) -> str:
    return _DIGIT.sub("0", match[0])
