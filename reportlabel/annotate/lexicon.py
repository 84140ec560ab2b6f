"""All words of the rules in one Aho-Corasick automaton.

Findings, exclusions, sites, sides and cues are looked for in one pass; what a literal stands for is in its
:class:`Entry` list. Spelling families, conjugation and the joints of Latin words are expanded here, once.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import ahocorasick_rs

from reportlabel.annotate.normalise import Normaliser, compact
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import Effect, Form, Measure, Paradigm, Side, Verb

Kind = Literal["finding", "exclude", "site", "site_exclude", "side", "cue", "argument"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a literal stands for. ``name`` is a finding, site or side id, or the canonical form of a cue."""

    kind: Kind
    name: str
    rule_id: str
    fragile: bool = False
    at: frozenset[str] = frozenset()
    inverse: bool = False
    measure: Measure | None = None
    side: Side | None = None
    lobe: str | None = None
    regions: tuple[str, ...] = ()
    effect: Effect = "neutral"
    form: Form = "final"
    before: bool = False
    adjacent: bool = False
    of: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Lexicon:
    """``entries[i]`` are the meanings of pattern ``i`` of the automaton; ``guards[i]`` its Latin edges.

    ``generic``: findings that a site makes a specific one. ``transparent``: findings whose words stay cues for others.
    """

    automaton: ahocorasick_rs.AhoCorasick
    generic: frozenset[str]
    transparent: frozenset[str]
    entries: list[tuple[Entry, ...]]
    guards: list[tuple[bool, bool, bool]]


def build_lexicon(rules: Rulebook, normaliser: Normaliser) -> Lexicon:
    """Compile every word of a rulebook."""
    literals: dict[str, list[Entry]] = defaultdict(list)
    spellings = _Spellings(rules.normalise.spellings, normaliser)
    for text, entry in itertools.chain(_finding_words(rules), _anatomy_words(rules)):
        for literal in spellings.variants(text):
            _add(literals, literal, entry)
    for text, entry in _cue_words(rules):
        literal = normal_term(text, normaliser)
        if literal:
            _add(literals, literal, entry)
    patterns = sorted(literals)
    return Lexicon(
        automaton=ahocorasick_rs.AhoCorasick(
            patterns,
            matchkind=ahocorasick_rs.MatchKind.Standard,
            implementation=ahocorasick_rs.Implementation.ContiguousNFA,
        ),
        generic=frozenset(compose.finding for finding in rules.findings.values() for compose in finding.compose),
        transparent=frozenset(rules.context.transparent),
        entries=[tuple(literals[pattern]) for pattern in patterns],
        guards=[_guard(pattern) for pattern in patterns],
    )


def normal_term(text: str, normaliser: Normaliser) -> str:
    """A term as the matcher sees text: normalised, without blanks around Japanese characters."""
    return compact(normaliser(text.strip())).text


def conjugate(verb: Verb, paradigm: Paradigm) -> Iterator[tuple[str, Effect, Form]]:
    """Every form of a verb with its effect and whether the clause goes on after it."""
    for effect, final, linking in (
        (verb.effect, paradigm.final, paradigm.linking),
        (verb.negative, paradigm.negative_final, paradigm.negative_linking),
    ):
        yield from ((verb.stem + ending, effect, "final") for ending in final)
        yield from ((verb.stem + ending, effect, "linking") for ending in linking)


def _add(literals: dict[str, list[Entry]], literal: str, entry: Entry) -> None:
    if entry not in literals[literal]:
        literals[literal].append(entry)


def _finding_words(rules: Rulebook) -> Iterator[tuple[str, Entry]]:
    for finding_id, file in rules.files.items():
        for term in file.finding.terms:
            yield (
                term.text,
                Entry(
                    kind="finding",
                    name=finding_id,
                    rule_id=f"{finding_id}/{term.text}",
                    fragile=_fragile(term.text, longest=4),
                    at=frozenset(term.at),
                    inverse=term.means == "absent",
                    measure=term.measure,
                ),
            )
        for text in file.finding.exclude:
            yield text, Entry(kind="exclude", name=finding_id, rule_id=f"{finding_id}/exclude")


def _anatomy_words(rules: Rulebook) -> Iterator[tuple[str, Entry]]:
    for site in rules.anatomy.sites:
        for term in site.terms:
            yield (
                term.text,
                Entry(
                    kind="site",
                    name=site.id,
                    rule_id=f"site/{site.id}",
                    side=term.side or site.side,
                    lobe=term.lobe or site.lobe,
                    regions=tuple(term.within),
                    fragile=_KANA.fullmatch(term.text) is not None and len(term.text) <= 3,
                ),
            )
    for text in rules.anatomy.exclude:
        yield text, Entry(kind="site_exclude", name=text, rule_id="site/exclude")
    for side in rules.anatomy.sides:
        for text in side.terms:
            yield text, Entry(kind="side", name=side.id, rule_id=f"side/{side.id}", side=side.id)


def _cue_words(rules: Rulebook) -> Iterator[tuple[str, Entry]]:
    assertion = rules.assertion
    for phrase in assertion.phrases:
        for text in phrase.terms:
            yield (
                text,
                Entry(
                    kind="cue",
                    name=text,
                    rule_id=f"cue/{phrase.effect}",
                    effect=phrase.effect,
                    form=phrase.form,
                    before=phrase.direction == "before",
                    adjacent=phrase.adjacent,
                    of=frozenset(phrase.of),
                ),
            )
    for verb in assertion.verbs:
        for text, effect, form in conjugate(verb, assertion.paradigms[verb.paradigm]):
            yield (
                text,
                Entry(kind="cue", name=text, rule_id=f"cue/{effect}", effect=effect, form=form),
            )
    for text in assertion.argument_nouns:
        yield text, Entry(kind="argument", name=text, rule_id="argument")


_KANA = re.compile("[\u3041-\u3096\u30a1-\u30f6\u30fc]+")


def _fragile(text: str, *, longest: int) -> bool:
    """Short kana words and single characters also occur inside other words; MeCab's tokens decide."""
    return len(text) == 1 or (len(text) <= longest and _KANA.fullmatch(text) is not None)


def _guard(pattern: str) -> tuple[bool, bool, bool]:
    """Whether the pattern begins and ends with an ASCII letter, and whether it is a code such as ``n2``."""
    return (
        pattern[0].isascii() and pattern[0].isalnum(),
        pattern[-1].isascii() and pattern[-1].isalnum(),
        re.fullmatch(r"[a-z]\d[a-z]?", pattern) is not None,
    )


class _Spellings:
    """Expands spelling families and the joints between Latin words."""

    def __init__(self, families: Iterable[list[str]], normaliser: Normaliser) -> None:
        self._normaliser = normaliser
        self._family: dict[str, list[str]] = {}
        for family in families:
            members = [normal_term(member, normaliser) for member in family]
            self._family.update((member, members) for member in members)
        words = "|".join(re.escape(word) for word in sorted(self._family, key=len, reverse=True))
        self._member = re.compile(words) if words else None

    def variants(self, text: str) -> set[str]:
        """All spellings of a term, normalised."""
        term = normal_term(text, self._normaliser)
        if not term:
            return set()
        return set(itertools.chain.from_iterable(_joints(spelling) for spelling in self._spell(term, at=0)))

    def _spell(self, term: str, *, at: int) -> Iterator[str]:
        match = self._member.search(term, at) if self._member else None
        if match is None:
            yield term
            return
        for member in self._family[match[0]]:
            spelled = term[: match.start()] + member + term[match.end() :]
            yield from self._spell(spelled, at=match.start() + len(member))


_JOINT = re.compile(r"(?<=[a-z0-9])[ -](?=[a-z0-9])")


def _joints(term: str) -> set[str]:
    parts = _JOINT.split(term)
    if len(parts) == 1:
        return {term}
    if len(parts) > 4:
        return {term, *(joint.join(parts) for joint in ("", " ", "-"))}
    return {
        "".join(itertools.chain.from_iterable(zip(parts, (*joints, ""), strict=True)))
        for joints in itertools.product(("", " ", "-"), repeat=len(parts) - 1)
    }
