"""What the dictionary says of a run of characters: a family name, a given name, a place, or a common word.

UniDic (through fugashi) is asked only about the few runs that stand where a name may stand.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

__all__ = ["Dictionary", "Word"]

_MOST_KEPT = 50_000


class Word(NamedTuple):
    """A word of UniDic: surface, part of speech and its three finer classes."""

    surface: str
    pos: str
    fine: str
    finer: str
    finest: str


class Dictionary:
    """UniDic with a memory of what was asked; it is left out when the object is pickled."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[Word, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_asked": {}}

    def words(self, run: str) -> tuple[Word, ...]:
        """The words of a run of characters without line breaks."""
        found = self._asked.get(run)
        if found is None:
            if len(self._asked) >= _MOST_KEPT:
                self._asked.clear()
            found = tuple(
                Word(
                    node.surface,
                    node.feature.pos1 or "",
                    node.feature.pos2 or "",
                    node.feature.pos3 or "",
                    node.feature.pos4 or "",
                )
                for node in self._tagger(run.replace("\0", " "))
            )
            self._asked[run] = found
        return found

    def is_family_name(self, run: str) -> bool:
        """One word, a family name."""
        words = self.words(run)
        return len(words) == 1 and words[0].finest == "姓"

    def is_given_name(self, run: str) -> bool:
        """One word, a given name."""
        words = self.words(run)
        return len(words) == 1 and words[0].finest == "名"

    def is_full_name(self, run: str) -> bool:
        """A name of a person that is one word, or a family name and a given name of three characters or more."""
        words = self.words(run)
        if not 1 <= len(words) <= 2 or any(word.finer != "人名" for word in words):
            return False
        return len(words) == 1 or (len(run) > 2 and words[0].finest == "姓" and words[1].finest != "姓")

    def is_proper(self, run: str) -> bool:
        """Nothing but proper nouns: persons, places."""
        words = self.words(run)
        return bool(words) and all(word.fine == "固有名詞" for word in words)

    def is_deed_or_state(self, run: str) -> bool:
        """Holds a word that no name holds: something done (確認), a time (翌日), a state (軽度), a verb."""
        return any(
            word.pos in ("動詞", "形容詞", "形状詞", "副詞", "助動詞", "助詞", "代名詞", "感動詞", "接続詞")
            or word.fine == "助動詞語幹"
            or word.finer in ("サ変可能", "副詞可能", "サ変形状詞可能")
            or word.fine == "形状詞的"
            for word in self.words(run)
        )

    @cached_property
    def _tagger(self) -> Any:
        import fugashi

        return fugashi.Tagger()
