"""Clauses: where in a sentence a predicate stops to reach. Brackets are levels of their own."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from reportlabel.annotate.match import Hit
from reportlabel.annotate.normalise import Normaliser
from reportlabel.rulebook.models import AssertionRules

_OPEN, _CLOSE = "(「『[〔{", ")」』]〕}"


@dataclass(frozen=True)
class ClauseWords:
    """Compiled clause words of ``rules/assertion.yaml``."""

    subject: str
    list_end: re.Pattern[str]
    clause_end: re.Pattern[str]

    @classmethod
    def from_rules(cls, rules: AssertionRules, normaliser: Normaliser) -> ClauseWords:
        return cls(
            subject=rules.particles.subject,
            list_end=re.compile(rf"(?:{alternatives(rules.list_particles, normaliser)})$"),
            clause_end=re.compile(alternatives(rules.clause_ends, normaliser)),
        )


@dataclass(frozen=True, slots=True)
class Clauses:
    """``level[i]`` is the bracket group of character ``i`` (0 outside); ``ends[g]`` the clause ends of group ``g``."""

    level: list[int]
    groups: list[tuple[int, int]]
    ends: dict[int, list[int]]

    def bounds(self, start: int, end: int) -> tuple[int, int]:
        """The clause around a span: start and end, within its bracket group."""
        group = self.level[start]
        first, last = self.groups[group]
        ends = self.ends.get(group, [])
        before = bisect_right(ends, start)
        after = bisect_left(ends, end)
        return (max(first, ends[before - 1]) if before else first), (
            min(last, ends[after]) if after < len(ends) else last
        )


def alternatives(words: Sequence[str], normaliser: Normaliser) -> str:
    """A regular expression for any of the words, longest first."""
    return "|".join(re.escape(normaliser(word)) for word in sorted(words, key=len, reverse=True))


def find_clauses(text: str, cues: Sequence[Hit], gaps: frozenset[int], words: ClauseWords) -> Clauses:
    """Cut a compact sentence into clauses.

    A clause ends after a linking predicate (認め、), after a predicate before a comma or が, after a comma that does
    not stand in a list, and at words that always end one (ので, →). A blank left out after a predicate ends one too.
    """
    level, groups = _brackets(text)
    ends: set[int] = {match.end() for match in words.clause_end.finditer(text)}
    in_front = {(cue.start, cue.end) for cue in cues if cue.entry.before}
    for cue in cues:
        if (cue.start, cue.end) in in_front:
            continue
        after = text[cue.end : cue.end + 1]
        # 「疑い、」「なし、」「認めるが」 end a clause, 「疑い」 before a noun does not
        if (cue.entry.form == "linking" and not cue.entry.adjacent) or after in {"、", ","} or cue.end in gaps:
            ends.add(cue.end)
        elif after == words.subject and not cue.entry.adjacent:
            ends.add(cue.end + 1)
    for at, character in enumerate(text):
        if character in "、," and _ends_clause(text, at, words):
            ends.add(at)
    by_group: dict[int, list[int]] = {}
    for end in sorted(ends):
        by_group.setdefault(level[end - 1] if end else 0, []).append(end)
    return Clauses(level=level, groups=groups, ends=by_group)


_HIRAGANA = re.compile("[\u3041-\u3093]")


def _ends_clause(text: str, at: int, words: ClauseWords) -> bool:
    before = text[max(0, at - 8) : at]
    if not before or _HIRAGANA.match(before[-1]) is None:
        return False
    if before[-1] == words.subject:
        # a verb before it makes it a conjunction; after a noun it marks the subject
        return len(before) > 1 and _HIRAGANA.match(before[-2]) is not None
    return words.list_end.search(before) is None


def _brackets(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    level = [0] * len(text)
    groups = [(0, len(text))]
    if not any(character in _OPEN for character in text):
        return level, groups
    stack: list[int] = []
    current = 0
    for at, character in enumerate(text):
        if character in _OPEN:
            close = _matching(text, at)
            if close is not None:
                stack.append(current)
                groups.append((at + 1, close))
                level[at] = current
                current = len(groups) - 1
                continue
        elif character in _CLOSE and stack and at == groups[current][1]:
            current = stack.pop()
        level[at] = current
    return level, groups


def _matching(text: str, at: int) -> int | None:
    depth = 0
    wanted = _CLOSE[_OPEN.index(text[at])]
    for place in range(at, min(len(text), at + 400)):
        if text[place] == text[at]:
            depth += 1
        elif text[place] == wanted:
            depth -= 1
            if depth == 0:
                return place
    return None
