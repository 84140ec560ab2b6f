"""Assertion: which status a clause gives to a finding, by which cue.

The predicates of the clause that follow a finding are folded from left to right. A predicate counts only when it
governs the finding: in 「結節の増大は認めません」 the denial governs the growth, in 「胸水や腹水は認めません」 both
members of the list, in 「腫瘤は転移を疑う」 the hedge governs the metastasis alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reportlabel.annotate.clause import Clauses, alternatives
from reportlabel.annotate.match import Hit
from reportlabel.annotate.normalise import Normaliser
from reportlabel.rulebook.models import AssertionRules, Effect, Status

Temporality = Literal["current", "past", "hypothetical"]
_COMMA = "\u3001"  # the ideographic comma
_OPPOSITE: dict[Status, Status] = {"present": "absent", "absent": "present", "uncertain": "uncertain"}


@dataclass(frozen=True, slots=True)
class Assertion:
    """Status (``None``: the sentence says nothing of it), temporality and the cue that decided.

    ``weak``: named as a cause only (肺癌による無気肺); any other statement of the report about it goes first.
    """

    status: Status | None
    temporality: Temporality
    cue: str
    weak: bool = False


@dataclass(frozen=True)
class AssertionWords:
    """Compiled words of ``rules/assertion.yaml`` that are no cues themselves."""

    light: re.Pattern[str]
    light_end: re.Pattern[str]
    coordinated: re.Pattern[str]
    comparison: re.Pattern[str]
    blocker: re.Pattern[str]
    prior: re.Pattern[str]
    filler: re.Pattern[str]
    cause: re.Pattern[str]
    joined: re.Pattern[str]

    other_argument: re.Pattern[str]
    topic: re.Pattern[str]
    breaks: re.Pattern[str]
    adjacent: frozenset[str]
    specifier: re.Pattern[str]
    attributive: frozenset[str]
    procedures: frozenset[str]
    after_procedure: re.Pattern[str]
    alternative: re.Pattern[str]
    not_beside: tuple[str, ...]
    share: re.Pattern[str]
    share_at_most: float

    @classmethod
    def from_rules(cls, rules: AssertionRules, normaliser: Normaliser) -> AssertionWords:
        def any_of(words: Sequence[str]) -> str:
            return alternatives(words, normaliser)

        particles, comparison = rules.particles, rules.comparison
        genitive = re.escape(particles.genitive)
        light_words = any_of(rules.light_nouns)
        light = rf"(?:{genitive}?(?:{light_words}))*"
        marks = any_of(particles.arguments)
        closed = any_of(particles.breaks)
        joining = [word for word in rules.coordinators if normaliser(word) not in (_COMMA, "(", ")")]
        return cls(
            light=re.compile(light),
            light_end=re.compile(rf"(?:{light_words})$"),
            coordinated=re.compile(
                rf"{light}(?:\([^()]*\))?\s?(?:{any_of(rules.coordinators)})(?!{any_of(rules.not_coordinated)})"
                rf"(?:(?!{any_of([particles.subject, particles.arguments[0]])}).)*$"
            ),
            joined=re.compile(rf"{light}(?:\([^()]*\))?(?:{any_of(joining)})"),
            comparison=re.compile(
                rf"{light}(?:{any_of(comparison.words)})(?!{genitive}?(?:{any_of(comparison.not_before)}))"
            ),
            blocker=re.compile(rf"[^{_COMMA}]{{0,4}}?(?:{any_of(rules.blockers)})"),
            prior=re.compile(any_of(rules.prior.words)),
            filler=re.compile(rf"(?:{any_of(rules.modifiers)}|{_COMMA}|\s)+"),
            cause=re.compile(rf"{light}(?:{any_of(rules.causes)})"),
            other_argument=re.compile(
                rf"((?:(?!{marks}|{any_of(particles.topics)}|{_COMMA}).){{2,}}?)(?:{marks})(?:(?!{marks}).){{0,6}}$"
            ),
            topic=re.compile(rf"(?:{any_of(particles.topics)}){_COMMA}?"),
            breaks=re.compile(rf"[。{_COMMA}]|{closed}"),
            specifier=re.compile(any_of(rules.specifiers)),
            attributive=frozenset(normaliser(word) for word in rules.attributive),
            procedures=frozenset(rules.procedures),
            after_procedure=re.compile(
                rf"(?:{any_of(rules.after_procedure.words)})[^。{_COMMA}]{{1,20}}?(?:{any_of(rules.after_procedure.before)})"
            ),
            alternative=re.compile(rf"\s?(?<![a-z])(?:{any_of(rules.alternatives.words)})(?![a-z])\s?"),
            not_beside=tuple(normaliser(word) for word in rules.alternatives.not_beside),
            share=re.compile(
                rf"{light}(?:{any_of(rules.share.links)}|\s)*(?P<number>\d+(?:\.\d+)?)\s?"
                rf"{re.escape(normaliser(rules.share.unit))}(?P<below>{any_of(rules.share.below)})?"
            ),
            share_at_most=rules.share.at_most,
            adjacent=frozenset(normaliser(word) for word in rules.adjacent_links),
        )


def assess(
    text: str, finding: Hit, heads: Sequence[Hit], cues: Sequence[Hit], clauses: Clauses, words: AssertionWords
) -> Assertion:
    """The assertion of one finding.

    Args:
        text: compact sentence.
        finding: the finding in question.
        heads: all findings and argument nouns of the sentence, in order.
        cues: all cues of the sentence, in order.
    """
    group = clauses.level[finding.start]
    start, end = clauses.bounds(finding.start, finding.end)
    name = finding.entry.name
    cues = _of(name, cues)
    inside = [cue for cue in cues if clauses.level[cue.start] == group]
    after = [cue for cue in inside if cue.start >= finding.end and cue.end <= end and not _is_before(cue)]
    if group and not after:
        after, end = _after_bracket(text, finding, cues, clauses, end)
    status: Status = "present"
    decided = ""
    for cue in inside:
        if not (_is_before(cue) and start <= cue.start and cue.end <= finding.start):
            continue
        if _reaches(text, cue, finding, inside, words):
            status, decided = _fold(status, cue.entry.effect), text[cue.start : cue.end]
            if cue.entry.effect == "past":
                return Assertion("present", "past", decided)
    between = [head for head in heads if head.start >= finding.end and clauses.level[head.start] == group]
    tail = text[finding.end : end]
    if tail == ":":
        # a heading of its own line (胸水：) asks; nothing is said yet
        return Assertion(None, "current", "")
    if name in words.procedures and words.after_procedure.match(text, finding.end):
        return Assertion("present", "past", tail[:1])
    if words.blocker.match(tail):
        return Assertion(status, "current", decided)
    if words.comparison.match(tail) and any(cue.entry.effect in ("hedge", "believe", "neutral") for cue in after):
        return Assertion("uncertain", "current", tail[:3])
    last_deny: Hit | None = None
    for cue in after:
        if not _adjacent_enough(text, finding, cue, words):
            continue
        link = _link(text, finding, cue, between, inside, words)
        if link == "blocked" or (cue.entry.effect == "deny" and _stands_apart(text, start, finding, between, words)):
            break
        effect = cue.entry.effect
        if last_deny is not None and any(last_deny.end <= head.start < cue.start for head in between):
            break
        if effect == "planned":
            return Assertion(status, "hypothetical", text[cue.start : cue.end])
        if effect == "supposed":
            return Assertion(status, "hypothetical", text[cue.start : cue.end])
        if effect == "past":
            return Assertion(status, "past", text[cue.start : cue.end])
        if effect in ("unassessed", "reference"):
            # 「検出できないことがあります」 takes the denial back; after any other statement it says nothing
            if decided and status != "present" and (last_deny is None or cue.start > last_deny.end):
                break
            return Assertion(None, "current", text[cue.start : cue.end])
        if effect == "deny":
            last_deny = cue
        before = status
        status = _fold(status, effect)
        if status != before or not decided:
            decided = text[cue.start : cue.end]
    prior = words.prior.search(text, start, finding.start)
    temporality: Temporality = "current"
    if prior is not None and not _has_predicate(inside, prior.end(), finding.start):
        temporality = "past"
    weak = status == "present" and words.cause.match(tail) is not None
    return Assertion(status, temporality, decided, weak)


def open_choices(text: str, findings: Sequence[Hit], places: Sequence[Hit], words: AssertionWords) -> dict[int, str]:
    """Index of a finding that is one of two between which the reader has not decided (A > B, A vs B) -> the sign.

    ``places``: sites and sides; between these the sign compares how bright or large they are (肝>脾, 右>左).
    """
    chosen: dict[int, str] = {}
    for mark in words.alternative.finditer(text):
        first, last = mark.span()
        before, after = text[:first], text[last:]
        left = [
            at
            for at, hit in enumerate(findings)
            if hit.end <= first and _TAIL.fullmatch(text[hit.end + _matched(words.light, before[hit.end :]) : first])
        ]
        right = [at for at, hit in enumerate(findings) if hit.start == last]
        if not (left or right) or before.endswith(words.not_beside) or after.startswith(words.not_beside):
            continue
        if _is_quantity(before[-1:], left, [hit for hit in places if hit.end == first]):
            continue
        if _is_quantity(after[:1], right, [hit for hit in places if hit.start == last]):
            continue
        chosen.update(dict.fromkeys((*left, *right), mark[0].strip()))
    return chosen


def _is_quantity(beside: str, findings: Sequence[int], places: Sequence[Hit]) -> bool:
    return not findings and (not beside.strip("。、()") or beside.isdigit() or bool(places))


def no_share(text: str, finding: Hit, words: AssertionWords) -> str | None:
    """The percentage behind a finding where it is none (0%, 10%未満)."""
    match = words.share.match(text, finding.end)
    if match is None:
        return None
    number = float(match["number"])
    return match[0] if number == 0 or (match["below"] and number <= words.share_at_most) else None


def invert(assertion: Assertion) -> Assertion:
    """For a normal statement that names the thing (CPA sharp): what affirms it denies the finding."""
    if assertion.status is None:
        return assertion
    return Assertion(_OPPOSITE[assertion.status], assertion.temporality, assertion.cue)


def _of(name: str, cues: Sequence[Hit]) -> Sequence[Hit]:
    """The cues that speak of a finding: one that names it takes the place of those for all that it overlaps."""
    if not any(cue.entry.of for cue in cues):
        return cues
    own = [cue for cue in cues if name in cue.entry.of]
    return [
        cue
        for cue in cues
        if name in cue.entry.of
        or not (cue.entry.of or any(cue.start < other.end and other.start < cue.end for other in own))
    ]


def _fold(status: Status, effect: Effect) -> Status:
    if effect == "deny":
        return "absent"
    if effect == "hedge":
        return "uncertain"
    return status


def _is_before(cue: Hit) -> bool:
    return cue.entry.before


def _has_predicate(cues: Sequence[Hit], start: int, end: int) -> bool:
    return any(start <= cue.start and cue.end <= end and not _is_before(cue) for cue in cues)


_MAX_REACH = 60
# a bracket between a finding and the sign of a choice
_TAIL = re.compile(r"(?:\([^()]*\))?")
_BRACKETED = re.compile(r"\([^()]*\)")
_DESCRIBED = 12


def _reaches(text: str, cue: Hit, finding: Hit, cues: Sequence[Hit], words: AssertionWords) -> bool:
    """A Latin word in front reaches over a list (no nodule or effusion), not past a predicate or a later such word."""
    if finding.start - cue.end > _MAX_REACH:
        return False
    between = text[cue.end : finding.start]
    later = any(
        cue.end <= other.start and other.end <= finding.start and other is not cue and other.entry.effect != "neutral"
        for other in cues
    )
    return not later and words.breaks.search(between) is None


def _adjacent_enough(text: str, finding: Hit, cue: Hit, words: AssertionWords) -> bool:
    if not cue.entry.adjacent:
        return True
    gap = text[finding.end : cue.start]
    match = words.light.match(gap)
    rest = gap[match.end() :] if match else gap
    return rest in words.adjacent


Link = Literal["governed", "blocked"]


def _link(text: str, finding: Hit, cue: Hit, heads: Sequence[Hit], cues: Sequence[Hit], words: AssertionWords) -> Link:
    """Whether the cue speaks of the finding, of another head after it, or of something that belongs to it."""
    at, name = finding.end, finding.entry.name
    for head in heads:
        if head.start < at:
            at = max(at, head.end)
            continue
        if head.end > cue.start:
            break
        gap = _BRACKETED.sub("", text[at : head.start])
        argument = head.entry.kind == "argument"
        if not argument and (name in words.procedures) is not (head.entry.name in words.procedures):
            return "blocked"
        # a cue just before the noun describes it (明らかな変化) and is no predicate of the finding
        described = any(at <= cue.start and text[cue.end : head.start] in words.attributive for cue in cues)
        predicate = _has_predicate(cues, at, head.start) and not described
        if argument and not predicate and not words.joined.match(gap):
            return "blocked"
        if gap and not _has_predicate(cues, at, head.start) and not words.coordinated.match(gap):
            stripped = gap[_matched(words.light, gap) :]
            if stripped and not words.filler.fullmatch(stripped):
                return "blocked"
        at = head.end
    return (
        "blocked" if _other_argument(text[at : cue.start], _has_predicate(cues, at, cue.start), words) else "governed"
    )


def _stands_apart(text: str, start: int, finding: Hit, heads: Sequence[Hit], words: AssertionWords) -> bool:
    """Whether a finding before a comma is described, so that the denial of the next one is not its own."""
    following = next((head for head in heads if head.start >= finding.end), None)
    if following is None:
        return False
    after = finding.end + _matched(words.light, text[finding.end : following.start])
    comma = text.find(_COMMA, after, following.start)
    if comma < 0 or comma - after > _DESCRIBED:
        return False
    before = max(start, text.rfind(_COMMA, start, finding.start) + 1)
    return words.specifier.search(text, before, comma) is not None


def _other_argument(gap: str, predicate: bool, words: AssertionWords) -> bool:
    """Whether a noun phrase of its own stands between a topic and the predicate (結節は炎症後変化を疑う)."""
    if predicate:
        return False
    rest = gap[_matched(words.light, gap) :]
    topic = words.topic.match(rest)
    if topic is None:
        return False
    argument = words.other_argument.search(rest[topic.end() :])
    if argument is None:
        return False
    return words.light_end.search(argument[1]) is None


def _matched(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _after_bracket(text: str, finding: Hit, cues: Sequence[Hit], clauses: Clauses, end: int) -> tuple[list[Hit], int]:
    """A finding alone in brackets, such as an abbreviation, shares the predicate behind them."""
    group = clauses.level[finding.start]
    first, last = clauses.groups[group]
    if (last - first) - (finding.end - finding.start) > 4 or last + 1 >= len(text):
        return [], end
    outer = clauses.level[last]
    _, outer_end = clauses.bounds(last, last + 1)
    return (
        [
            cue
            for cue in cues
            if cue.start > last and cue.end <= outer_end and clauses.level[cue.start] == outer and not _is_before(cue)
        ],
        outer_end,
    )
