"""Find every word of the rules in a compact sentence: one automaton pass, Latin edges, MeCab veto, longest wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import fugashi

from reportlabel.annotate.lexicon import Entry, Kind, Lexicon

Words = Callable[[str], list[tuple[int, int]]]


class Hit(NamedTuple):
    """A word of the rules in the compact sentence; ``end`` is exclusive."""

    start: int
    end: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class Hits:
    """All hits of a sentence, by kind and in order; without overlaps but for ``sides``.

    ``sides`` overlap: which one holds depends on the sites beside them (右側頭葉 is 右 + 側頭葉).
    ``heads`` gives, for a finding that is a compound (副腎転移), the shorter finding it ends in (転移): in
    「肝・副腎転移」 it speaks of the liver as well, and where a weak compound does not hold at its site it stands
    alone.
    """

    findings: list[Hit]
    heads: dict[tuple[int, int], Hit]
    sites: list[Hit]
    sides: list[Hit]
    cues: list[Hit]
    arguments: list[Hit]


def find(text: str, lexicon: Lexicon, words: Words) -> Hits:
    """All hits of a compact sentence.

    ``words`` gives the token spans of the text; it is called only when a fragile word was found.
    """
    by_kind: dict[Kind, list[Hit]] = {
        "finding": [],
        "exclude": [],
        "site": [],
        "site_exclude": [],
        "side": [],
        "cue": [],
        "argument": [],
    }
    for pattern, start, end in lexicon.automaton.find_matches_as_indexes(text, overlapping=True):
        latin_start, latin_end, code = lexicon.guards[pattern]
        if (latin_start or latin_end) and not _stands_free(text, start, end, latin_start, latin_end, code):
            continue
        for entry in lexicon.entries[pattern]:
            by_kind[entry.kind].append(Hit(start, end, entry))
    veto = _Veto(text, words)
    sites = veto.longest(by_kind["site"] + by_kind["site_exclude"])
    own_sites = [hit for hit in sites if hit.entry.kind == "site"]
    candidates = [hit for hit in by_kind["finding"] if not any(_strictly_inside(hit, site) for site in sites)]
    findings = veto.longest(candidates + by_kind["exclude"]) if candidates else []
    own_findings = [hit for hit in findings if hit.entry.kind == "finding"]
    if not own_findings:
        return Hits(findings=[], heads={}, sites=own_sites, sides=by_kind["side"], cues=[], arguments=[])
    return Hits(
        findings=own_findings,
        heads=_heads(own_findings, [hit for hit in candidates if hit.entry.name in lexicon.generic]),
        sites=own_sites,
        sides=by_kind["side"],
        cues=_cues(by_kind["cue"], [hit for hit in findings if hit.entry.name not in lexicon.transparent], veto),
        arguments=longest(by_kind["argument"]),
    )


class _Veto:
    """Longest hits of a sentence, without fragile words that are a part of another word (立ち in 目立ち).

    MeCab is asked only where a fragile word is among the longest.
    """

    def __init__(self, text: str, words: Words) -> None:
        self._text = text
        self._words = words

    @cached_property
    def _tokens(self) -> list[tuple[int, int]]:
        return self._words(self._text)

    def longest(self, hits: Sequence[Hit]) -> list[Hit]:
        chosen = longest(hits)
        if not any(hit.entry.fragile for hit in chosen):
            return chosen
        return longest([hit for hit in hits if not (hit.entry.fragile and _inside_word(hit, self._tokens))])


def _strictly_inside(hit: Hit, other: Hit) -> bool:
    return other.start <= hit.start and hit.end <= other.end and hit.end - hit.start < other.end - other.start


def _heads(findings: Sequence[Hit], words: Sequence[Hit]) -> dict[tuple[int, int], Hit]:
    heads: dict[tuple[int, int], Hit] = {}
    for finding in findings:
        inner = [
            word
            for word in words
            if word.end == finding.end and word.start > finding.start and not word.entry.at and not word.entry.fragile
        ]
        if inner:
            heads[finding.start, finding.end] = min(inner, key=lambda word: word.start)
    return heads


def longest(hits: Sequence[Hit]) -> list[Hit]:
    """The longest hits first, those that overlap them left out; several meanings of one span all stay."""
    if len(hits) < 2:
        return list(hits)
    chosen: list[Hit] = []
    spans: list[tuple[int, int]] = []
    for hit in sorted(hits, key=_longest_first):
        for start, end in spans:
            if hit.start < end and start < hit.end:
                if hit.start == start and hit.end == end:
                    chosen.append(hit)
                break
        else:
            chosen.append(hit)
            spans.append((hit.start, hit.end))
    return sorted(chosen, key=_in_order)


def _longest_first(hit: Hit) -> tuple[int, int]:
    return hit.start - hit.end, hit.start


def _in_order(hit: Hit) -> tuple[int, int]:
    return hit.start, hit.end


def _cues(cues: Sequence[Hit], findings: Sequence[Hit], veto: _Veto) -> list[Hit]:
    """The longest cues; one of certain findings only hides none of the others, nor does a finding hide it."""
    general = veto.longest(_outside([cue for cue in cues if not cue.entry.of], findings))
    special = longest([cue for cue in cues if cue.entry.of])
    return sorted([*general, *special], key=_in_order) if special else general


def _outside(cues: Sequence[Hit], findings: Sequence[Hit]) -> list[Hit]:
    """Cues that are no part of a finding at least as long."""
    return [
        cue
        for cue in cues
        if not any(
            finding.start < cue.end and cue.start < finding.end and finding.end - finding.start >= cue.end - cue.start
            for finding in findings
        )
    ]


def _stands_free(text: str, start: int, end: int, latin_start: bool, latin_end: bool, code: bool) -> bool:
    if latin_start and start > 0:
        before = text[start - 1]
        if before.isascii():
            if text[start].isdigit():
                if before.isdigit():
                    return False
            elif before.isalpha() and not (
                code and not (start > 1 and text[start - 2].isascii() and text[start - 2].isalpha())
            ):
                return False
    if latin_end and end < len(text):
        after = text[end]
        if after.isascii():
            if text[end - 1].isdigit():
                if after.isdigit():
                    return False
            elif after.isalpha():
                plural = after == "s" and not (
                    end + 1 < len(text) and text[end + 1].isascii() and text[end + 1].isalpha()
                )
                if not plural:
                    return False
    return True


def _inside_word(hit: Hit, tokens: Sequence[tuple[int, int]]) -> bool:
    return any(start <= hit.start and hit.end <= end and (start, end) != (hit.start, hit.end) for start, end in tokens)


class Tokenizer:
    """MeCab through fugashi with unidic-lite; spans of the surfaces as code points."""

    def __init__(self) -> None:
        self._tagger = fugashi.Tagger()

    def __call__(self, text: str) -> list[tuple[int, int]]:
        spans: list[tuple[int, int]] = []
        at = 0
        for node in self._tagger.parseToNodeList(text):
            at += len(node.white_space)
            end = at + len(node.surface)
            spans.append((at, end))
            at = end
        return spans
