"""Varied sentences: the same statement in other words, another statement in the same words, slips of the hand.

Width and line wraps need no variation: both vanish when a sentence is normalised (`reportlabel.vote.bert.model_text`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reportlabel.annotate.normalise import Normaliser
from reportlabel.train.settings import TrainSettings
from reportlabel.vote.bert import STATUSES, model_text

Said = tuple[str, str, float, str, float]
_STRENGTH = (*STATUSES, "not_mentioned")


@dataclass(frozen=True, slots=True)
class Example:
    """One row of `reportlabel.train.examples.EXAMPLES`; ``said``: finding, status, weight, surface, sureness."""

    region: str
    before: str
    text: str
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Augmenter:
    """Makes another example of an example; all words come from ``rules/train.yaml`` and the terms of the rules."""

    settings: TrainSettings
    terms: Mapping[str, Sequence[str]]
    endings: tuple[tuple[str, str], ...]
    """Predicates with the status they give, the longest first."""
    groups: Mapping[str, Sequence[str]]
    confused: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, settings: TrainSettings, terms: Mapping[str, Sequence[str]], normaliser: Normaliser) -> Augmenter:
        """Bring all words into the form the model reads."""

        def read(words: Sequence[str]) -> list[str]:
            return [model_text(normaliser(word)) for word in words]

        groups = {status: read(getattr(settings.predicates, status)) for status in STATUSES}
        endings = sorted(((word, status) for status, words in groups.items() for word in words), key=_longest)
        confused: dict[str, list[str]] = {}
        for group in settings.confused:
            for word in read(group):
                others = [other for other in read(group) if other != word]
                if others:  # what normalisation makes equal cannot be confused
                    confused.setdefault(word, []).extend(others)
        return cls(settings, {key: read(words) for key, words in terms.items()}, tuple(endings), groups, confused)

    def __call__(self, example: Example, chance: random.Random, *, other: Example | None = None) -> Example:
        """Another example; ``other`` is a sentence of the same region that may be joined."""
        rates = self.settings.augment
        if chance.random() < rates.synonym:
            example = self.synonym(example, chance)
        if chance.random() < rates.other_meaning:
            example = self.ending(example, chance, same=False)
        elif chance.random() < rates.same_meaning:
            example = self.ending(example, chance, same=True)
        if other is not None and chance.random() < rates.join:
            example = joined(example, other)
        if chance.random() < rates.typo:
            example = replace(example, text=self.slip(example.text, chance))
        if chance.random() < rates.no_context:
            example = replace(example, before="")
        elif other is not None and chance.random() < rates.other_context:
            example = replace(example, before=other.text)
        return example

    def synonym(self, example: Example, chance: random.Random) -> Example:
        """One expression by another term of its finding; nothing where it is the expression of two findings."""
        places = [one for one in example.said if one[3] and example.text.count(one[3]) == 1 and one[0] in self.terms]
        if not places:
            return example
        finding, status, weight, surface, sure = chance.choice(places)
        if sum(surface in one[3] or one[3] in surface for one in example.said if one[3]) != 1:
            return example
        word = chance.choice(self.terms[finding])
        said = tuple((finding, status, weight, word, sure) if one[0] == finding else one for one in example.said)
        return replace(example, text=example.text.replace(surface, word), said=said)

    def ending(self, example: Example, chance: random.Random, *, same: bool) -> Example:
        """The predicate right behind the only expression by another, of the same status or of another one."""
        if len(example.said) != 1 or not example.said[0][3]:
            return example
        finding, status, weight, surface, sure = example.said[0]
        at = example.text.find(surface) + len(surface)
        tail = example.text[at:].rstrip("。.")
        found = next((own for word, own in self.endings if word == tail), None)
        if found is None or found != status:
            return example
        wanted = status if same else chance.choice([one for one in STATUSES if one != status])
        stop = example.text[at + len(tail) :]
        text = f"{example.text[:at]}{chance.choice(self.groups[wanted])}{stop}"
        return replace(example, text=text, said=((finding, wanted, weight, surface, sure),))

    def slip(self, text: str, chance: random.Random) -> str:
        """One slip: a character left out, doubled, exchanged with the next, or taken for another."""
        if len(text) < 6:
            return text
        at = chance.randrange(len(text) - 2)
        possible = [word for word in self.confused if word in text]
        kind = chance.randrange(5 if possible else 3)
        if kind == 0:
            return text[:at] + text[at + 1 :]
        if kind == 1:
            return text[:at] + text[at] + text[at:]
        if kind == 2:
            return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        word = chance.choice(possible)
        return text.replace(word, chance.choice(self.confused[word]), 1)


def joined(one: Example, other: Example) -> Example:
    """Two sentences as one; of a finding that both speak of the strongest status counts."""
    said: dict[str, Said] = {}
    for item in (*one.said, *other.said):
        known = said.get(item[0])
        if known is None or _STRENGTH.index(item[1]) < _STRENGTH.index(known[1]):
            said[item[0]] = item
    return replace(one, text=f"{one.text.rstrip('。')}、{other.text}", said=tuple(said.values()))


def _longest(item: tuple[str, str]) -> int:
    return -len(item[0])
