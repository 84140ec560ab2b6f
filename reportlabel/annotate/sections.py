"""Sections, headings and sentences of a normalised report.

A line break ends a sentence only where the words say so: reports wrap in the middle of a sentence
(「肺癌⏎を否定できません」), and others leave the full stop out at the end of every line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from reportlabel.annotate.normalise import Normaliser
from reportlabel.rulebook.models import SectionRules

BODY = "findings"
Meaning = Literal["place", "finding", "other"]
# a heading and the colon or bracket that makes it one stand within so many characters
_HEAD = 48
# lines remembered
_MEMO_SIZE = 100_000
_MEMO_LINE = 200


class Sentence(NamedTuple):
    """A span of the report.

    Attributes:
        start, end: code points in the report, end exclusive, without blanks around.
        section: id of the section it stands in.
        topic: the heading in front of it when that is no section name (「肝」 of 「肝：SOLなし」), else ``""``.
        line: number of the line it begins on.
    """

    start: int
    end: int
    section: str
    topic: str
    line: int


class _Heading(NamedTuple):
    """A heading: its words, the section they name if they name one, and how far it holds."""

    name: str
    section: str | None
    alone: bool
    bracketed: bool


class _Block(NamedTuple):
    """A line by itself: the headings in front, and the spans of the sentences after them."""

    headings: tuple[_Heading, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Splitter:
    """Compiled ``rules/sections.yaml``."""

    headings: dict[str, str]
    silent: frozenset[str]
    heading: re.Pattern[str]
    may_head: re.Pattern[str]
    sentence_end: re.Pattern[str]
    closed: re.Pattern[str]
    goes_on: re.Pattern[str]
    starts: re.Pattern[str]
    wrap_width: int
    list_mark: re.Pattern[str]
    memo: dict[str, _Block] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_rules(cls, rules: SectionRules, normaliser: Normaliser) -> Splitter:
        def words(terms: list[str]) -> str:
            return "|".join(re.escape(normaliser(term)) for term in sorted(terms, key=len, reverse=True))

        headings = {_key(normaliser(term)): section.id for section in rules.sections for term in section.terms}
        opening, closing = re.escape(normaliser(rules.brackets.open)), re.escape(normaliser(rules.brackets.close))
        bullets = re.escape(normaliser(rules.bullets))
        ends = re.escape(normaliser(rules.sentence_ends))
        return cls(
            headings=headings,
            silent=frozenset(section.id for section in rules.sections if section.asserts != "current"),
            may_head=re.compile(rf"[:{opening}]"),
            # 【所見】, ■診断:, 肝: , Impression(…): — a bracketed word or a short word before a colon
            heading=re.compile(
                rf"[{bullets}\s]*(?:"
                rf"[【\[<〈《]\s*(?P<bracketed>[^【】\[\]<>〈〉《》\n。]{{1,24}}?)\s*[】\]>〉》]\s*:?"
                rf"|[{opening}]\s*(?P<enclosed>[^{closing}\n。、]{{1,16}}?)\s*[{closing}]\s*(?::|(?=\n|$))"
                rf"|(?P<colon>[^:。、\n]{{1,16}}?)\s*(?:\([^()\n]{{0,16}}\))?\s*:(?!\d)"
                rf")\s*"
            ),
            # A full stop of Latin text ends a sentence only before a blank; 2.3 is a number.
            sentence_end=re.compile(rf"[{ends}]+[」』）)]*|(?<![a-z0-9])\.|\.(?=\s|$)|\?(?=\s|$)"),
            closed=re.compile(rf"(?:[{ends}:】\].]|{words(rules.line_closers)})[」』)]*$"),
            goes_on=re.compile(rf"(?:{words(rules.line_openers)})$"),
            starts=re.compile(rf"(?:[{bullets}【\[<■]|{words(rules.starters)}|[^\u3041-\u3093、。)])"),
            wrap_width=rules.wrap_width,
            # #2 in front of a sentence counts it; #4R, and #7 before a particle, is a lymph node station
            list_mark=re.compile(
                rf"{re.escape(normaliser(rules.list_mark))}\s?\d{{1,2}}(?![\da-z]|\s?(?:{words(rules.no_list_mark)}))[:.、]?\s*"
            ),
        )

    def split(self, text: str, what_is: Callable[[str], Meaning] = lambda _: "place") -> list[Sentence]:
        """All sentences of a normalised report, in order. Blank text gives none.

        ``what_is`` tells what the words of a possible heading name. In front of a colon only a place is a heading
        (肝：), in brackets all but a finding (【胸水なし】 is a sentence). It must give the same answer for the same
        words at every call.
        """
        sentences: list[Sentence] = []
        section, topic = BODY, ""
        for number, (start, end) in enumerate(self._blocks(text)):
            line = text[start:end]
            block = self.memo.get(line)
            if block is None:
                block = self._block(line, what_is)
                if len(line) <= _MEMO_LINE:
                    if len(self.memo) >= _MEMO_SIZE:
                        self.memo.clear()
                    self.memo[line] = block
            here, line_topic = section, topic
            for heading in block.headings:
                if heading.section is not None:
                    here, topic, line_topic = heading.section, "", ""
                    # 「目的：X」 on one line says nothing of the lines after it
                    if heading.alone or heading.bracketed or heading.section not in self.silent:
                        section = here
                elif heading.bracketed or heading.alone:
                    # 【肝】 or 「肝：」 alone on its line holds until the next heading
                    topic = line_topic = heading.name
                    if heading.bracketed and section in self.silent:
                        section = here = BODY
                else:
                    line_topic = heading.name
            for first, last in block.spans:
                sentences.append(Sentence(start + first, start + last, here, line_topic, number))
        return sentences

    def _block(self, line: str, what_is: Callable[[str], Meaning]) -> _Block:
        """The headings in front of a line, and the spans of its sentences."""
        headings: list[_Heading] = []
        at, end = 0, len(line)
        while at < end and self.may_head.search(line, at, at + _HEAD) is not None:
            match = self.heading.match(line, at, end)
            if match is None:
                break
            name = match["bracketed"] or match["enclosed"] or match["colon"] or ""
            section = self.headings.get(_key(name))
            if section is None and not _is_heading(what_is(name), colon=match["colon"] is not None):
                break
            headings.append(_Heading(name, section, alone=match.end() >= end, bracketed=match["bracketed"] is not None))
            at = match.end()
        spans: list[tuple[int, int]] = []
        stops = [match.end() for match in self.sentence_end.finditer(line, at)]
        for stop in stops if stops and stops[-1] == end else [*stops, end]:
            part = line[at:stop]
            first, last = stop - len(part.lstrip()), at + len(part.rstrip())
            mark = self.list_mark.match(line, first, last)
            first = first if mark is None else mark.end()
            if last > first:
                spans.extend(_cut(line, first, last))
            at = stop
        return _Block(tuple(headings), tuple(spans))

    def _blocks(self, text: str) -> list[tuple[int, int]]:
        """Lines, with those joined that are one sentence wrapped."""
        lines = _lines(text)
        if len(lines) < 2:
            return lines
        blocks: list[tuple[int, int]] = []
        widest = max(end - start for start, end in lines)
        start, end = lines[0]
        for next_start, next_end in lines[1:]:
            if self._wraps(text, start, end, next_start, next_end, widest):
                end = next_end
            else:
                blocks.append((start, end))
                start, end = next_start, next_end
        blocks.append((start, end))
        return [(start, end) for start, end in blocks if end > start]

    def _wraps(self, text: str, start: int, end: int, next_start: int, next_end: int, widest: int) -> bool:
        if end == start or next_end == next_start or text[end - 1] in "。!?:】]":
            return False
        line = text[max(start, end - 12) : end].rstrip()
        after = text[next_start : next_start + 12].lstrip()
        if not line or not after or line[-1] in "。!?:】]":
            return False
        if self.heading.match(text, next_start, next_end) is not None:
            return False
        if self.goes_on.search(line) is not None and self.closed.search(line) is None:
            return True
        if self.starts.match(after) is None:
            return True
        if self.closed.search(line) is not None:
            return False
        last_line = end - (text.rfind("\n", start, end) + 1 or start)
        return last_line >= self.wrap_width and last_line >= 0.85 * widest


def _is_heading(meaning: Meaning, *, colon: bool) -> bool:
    return meaning == "place" if colon else meaning != "finding"


# No sentence of a report is so long; analysing one costs time with the square of its length.
_LONGEST = 1_000


def _cut(line: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """A sentence, or pieces of one that has no end for very long: cut behind a comma or blank where there is one."""
    while last - first > _LONGEST:
        at = 1 + max(line.rfind(mark, first, first + _LONGEST) for mark in "、, \n")
        at = at if at > first else first + _LONGEST
        yield first, first + len(line[first:at].rstrip())
        first = at + len(line[at:last]) - len(line[at:last].lstrip())
    if last > first:
        yield first, last


_BREAK = re.compile(r"\r\n|\n|\r")


def _lines(text: str) -> list[tuple[int, int]]:
    """Spans of the lines, also the empty ones; CR LF, LF and CR all end a line."""
    lines: list[tuple[int, int]] = []
    at = 0
    for match in _BREAK.finditer(text):
        lines.append((at, match.start()))
        at = match.end()
    lines.append((at, len(text)))
    return lines


def _key(name: str) -> str:
    return re.sub(r"[\s\u30fb/]", "", name)
