"""Size, count, change since the prior exam, and image references of a sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reportlabel.annotate.clause import alternatives
from reportlabel.annotate.match import Hit
from reportlabel.annotate.normalise import Normaliser
from reportlabel.rulebook.models import AssertionRules, Change

MANY = "many"


@dataclass(frozen=True, slots=True)
class Size:
    """A written size. ``start``/``end`` in the compact sentence; ``mm`` is the longest of its numbers.

    ``part`` marks the size of a component (充実部分は…), ``prior`` one of an earlier exam.
    """

    start: int
    end: int
    mm: float
    prior: bool
    part: bool


@dataclass(frozen=True)
class AttributeWords:
    """Compiled attribute words of ``rules/assertion.yaml``."""

    size: re.Pattern[str]
    number: re.Pattern[str]
    units: dict[str, float]
    prior: re.Pattern[str]
    part: re.Pattern[str]
    not_size: re.Pattern[str]
    not_before: re.Pattern[str]
    arrow: re.Pattern[str]
    denied: re.Pattern[str]
    changes: list[tuple[Change, re.Pattern[str]]]
    one: re.Pattern[str]
    many: re.Pattern[str]
    counted: re.Pattern[str]
    image: re.Pattern[str]

    @classmethod
    def from_rules(cls, rules: AssertionRules, normaliser: Normaliser) -> AttributeWords:
        def any_of(words: Sequence[str]) -> str:
            return alternatives(words, normaliser)

        number = r"\d+(?:\.\d+)?"
        unit = any_of(list(rules.size.units))
        times = any_of(rules.size.times)
        change = rules.change
        return cls(
            # 28mm, 28x24mm, 2.8cmx2.4cm: the last number carries a unit
            size=re.compile(
                rf"(?<![\d.])(?:{number}\s?(?:{unit})?\s?(?:{times})\s?){{0,2}}{number}\s?(?:{unit})(?![a-z0-9/])"
            ),
            number=re.compile(rf"({number})\s?({unit})?"),
            units={normaliser(word): factor for word, factor in rules.size.units.items()},
            prior=re.compile(rf"(?:{any_of(rules.size.prior)})(?!\w{{0,4}}?(?:{any_of(rules.size.not_prior)}))"),
            part=re.compile(any_of(rules.size.part)),
            not_size=re.compile(
                rf"(?:{any_of(rules.size.not_size)})(?:(?!{any_of(rules.particles.after_size)})[^、。]){{0,4}}$"
            ),
            not_before=re.compile(rf"\s?(?:{any_of(rules.size.not_before)})"),
            arrow=re.compile(any_of(rules.size.arrows)),
            denied=re.compile(rf"(?:{any_of(change.denied_link)}){{0,2}}(?:{any_of(change.denied)})"),
            changes=[
                ("new", re.compile(any_of(change.new))),
                ("increased", re.compile(any_of(change.increased))),
                ("decreased", re.compile(any_of(change.decreased))),
                ("unchanged", re.compile(any_of(change.unchanged))),
                ("resolved", re.compile(any_of(change.resolved))),
            ],
            one=re.compile(any_of(rules.count.one)),
            many=re.compile(any_of(rules.count.many)),
            counted=re.compile(rf"(?<![a-z\d.])(\d{{1,2}})\s?(?:{any_of(rules.count.counters)})"),
            image=re.compile(
                rf"(?<![a-z])(?:{any_of(rules.image.words)})\s?[.:#=]?\s?\d{{1,4}}(?:\s?[-/,]\s?\d{{1,4}})?"
                rf"(?:\s?[,/]?\s?(?:{any_of(rules.image.words)})\s?[.:#=]?\s?\d{{1,4}}(?:-\d{{1,4}})?)?"
            ),
        )


_DIGIT = re.compile(r"\d")


def find_sizes(text: str, words: AttributeWords) -> list[Size]:
    """All sizes of a compact sentence in order. Of 「12mm→15mm」 the first is prior."""
    sizes: list[Size] = []
    if _DIGIT.search(text) is None:
        return sizes
    for match in words.size.finditer(text):
        mm = longest_diameter(match[0], words)
        if mm is None:
            continue
        before = text[max(0, match.start() - 14) : match.start()]
        clause = re.split(r"[。、,]", before)[-1]
        if words.not_size.search(clause) or words.not_before.match(text, match.end()):
            continue
        arrow = words.arrow.match(text, match.end()) is not None
        sizes.append(
            Size(
                start=match.start(),
                end=match.end(),
                mm=mm,
                prior=arrow or words.prior.search(clause) is not None,
                part=words.part.search(clause) is not None,
            )
        )
    return sizes


def longest_diameter(written: str, words: AttributeWords) -> float | None:
    """Longest diameter in mm; a unit written once holds for all numbers (28x24mm)."""
    parts = words.number.findall(written)
    unit = next((unit for _, unit in reversed(parts) if unit), None)
    if unit is None:
        return None
    return max(float(number) * words.units[own or unit] for number, own in parts)


def find_changes(text: str, words: AttributeWords) -> list[tuple[int, int, Change]]:
    """Change words of a compact sentence. A denied growth (増大なし) is no change."""
    found: list[tuple[int, int, Change]] = []
    for change, pattern in words.changes:
        for match in pattern.finditer(text):
            if change in ("increased", "decreased", "new") and words.denied.match(text, match.end()):
                if change == "new":
                    continue
                found.append((match.start(), match.end(), "unchanged"))
            else:
                found.append((match.start(), match.end(), change))
    return sorted(found, key=lambda item: (item[0], -item[1]))


def count_of(text: str, finding: Hit, start: int, end: int, words: AttributeWords) -> str | None:
    """How many: a number, ``1`` for 単発, ``many`` for 多発; looked for right around the finding."""
    before, after = text[max(start, finding.start - 12) : finding.end], text[finding.start : min(end, finding.end + 8)]
    for part in (after, before):
        match = words.counted.search(part)
        if match:
            return match[1]
    for part in (before, after):
        if words.one.search(part):
            return "1"
        if words.many.search(part):
            return MANY
    return None


def assign_nearest(at: int, findings: Sequence[Hit], bounds: Sequence[tuple[int, int]]) -> int | None:
    """The finding an attribute at ``at`` belongs to: the nearest before it, else the first of its clause after it."""
    before = [index for index, finding in enumerate(findings) if finding.end <= at]
    after = [
        index
        for index, finding in enumerate(findings)
        if finding.start >= at and bounds[index][0] <= at <= bounds[index][1]
    ]
    same_clause = [index for index in before if bounds[index][0] <= at <= bounds[index][1]]
    if same_clause:
        return same_clause[-1]
    if after:
        return after[0]
    return before[-1] if before else None
