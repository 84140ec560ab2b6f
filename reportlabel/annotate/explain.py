"""Where a mention got its status from: the clause that was looked at and the cue that decided, as spans of the report.

The annotator keeps neither, because no table needs them; here they are worked out again for the few reports that a
person reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.clause import Clauses, find_clauses
from reportlabel.annotate.match import Hits, find
from reportlabel.annotate.normalise import Compact, compact
from reportlabel.annotate.sections import Sentence

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Where:
    """Spans of the report as stored, end exclusive: the clause of a mention and its cue (``None``: it has none)."""

    clause: Span
    cue: Span | None


def locate(annotator: Annotator, text: str, mentions: Iterable[tuple[int, int, int, str | None]]) -> list[Where]:
    """Clause and cue of each mention of one text.

    Args:
        mentions: start, end, sentence and cue of each, as the mentions table has them.
    """
    normalised = annotator.normaliser(text)
    sentences = annotator.split(normalised)
    parsed: dict[int, _Parsed] = {}
    places = []
    for start, end, number, cue in mentions:
        if number not in parsed:
            parsed[number] = _parse(annotator, normalised, sentences[number])
        places.append(parsed[number].where(start, end, cue))
    return places


@dataclass(frozen=True, slots=True)
class _Parsed:
    """One sentence with its words and clauses; offsets inside it are those of its compact form."""

    sentence: Sentence
    compact: Compact
    hits: Hits
    clauses: Clauses

    def where(self, start: int, end: int, cue: str | None) -> Where:
        first, last = _compact_span(self.compact, start - self.sentence.start, end - self.sentence.start)
        clause = self.clauses.bounds(first, last)
        found = self._cue(cue, first, last, clause) if cue else None
        return Where(clause=self._in_report(_trimmed(self.compact.text, clause)), cue=found and self._in_report(found))

    def _cue(self, cue: str, first: int, last: int, clause: Span) -> Span | None:
        """The occurrence of the cue that is nearest: behind the mention in its clause, then in front, then anywhere."""
        spans = [match.span() for match in re.finditer(_any_digits(cue), self.compact.text)]
        known = {(hit.start, hit.end) for hit in self.hits.cues}
        outside = [span for span in spans if span[1] <= first or span[0] >= last] or spans

        def distance(span: Span) -> tuple[bool, bool, bool, int]:
            behind = span[0] >= last
            inside = clause[0] <= span[0] and span[1] <= clause[1]
            return (not inside, span not in known, not behind, span[0] - last if behind else first - span[1])

        return min(outside, key=distance, default=None)

    def _in_report(self, span: Span) -> Span:
        if span[0] >= span[1]:
            return self.sentence.start, self.sentence.start
        start, end = self.compact.span(*span)
        return self.sentence.start + start, self.sentence.start + end


def _parse(annotator: Annotator, normalised: str, sentence: Sentence) -> _Parsed:
    short = compact(normalised[sentence.start : sentence.end])
    hits = find(short.text, annotator.grammar.lexicon, annotator.words)
    clauses = find_clauses(short.text, hits.cues, short.gaps, annotator.grammar.clause)
    return _Parsed(sentence=sentence, compact=short, hits=hits, clauses=clauses)


def _compact_span(short: Compact, start: int, end: int) -> Span:
    if short.starts is None or short.ends is None:
        return start, end
    return _first_from(short.ends, start + 1), _first_from(short.starts, end)


def _first_from(offsets: Sequence[int], least: int) -> int:
    return next((at for at, offset in enumerate(offsets) if offset >= least), len(offsets))


def _any_digits(cue: str) -> str:
    """A pattern for the cue; the analysis of a sentence is shared by sentences with other numbers."""
    return re.sub(r"\d", r"\\d", re.escape(cue))


def _trimmed(text: str, span: Span) -> Span:
    """Without the comma or full stop around the clause."""
    start, end = span
    while start < end and text[start] in "、,。 ":
        start += 1
    while end > start and text[end - 1] in "、,。 ":
        end -= 1
    return start, end
