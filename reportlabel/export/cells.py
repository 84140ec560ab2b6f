"""Small cells of tables of counts: a count of few people could tell who they are.

Small counts are hidden and all others rounded, so that the difference of two tables does not tell a small one: the way
of the hospital statistics of NHS England (HES Analysis Guide: counts from 1 to 7 hidden, others rounded to the nearest
5). What is left is the rare case in which all numbers of a sum were rounded the same way.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cells:
    """How counts are told. ``k``: counts from 1 to k - 1 are hidden and the others rounded to it; None: all as is."""

    k: int | None = None

    def count(self, number: int, persons: int | None = None) -> int | None:
        """The count to show; None: hidden. ``persons``: how many people it is of, where that is known."""
        if self.k is None or number == 0:
            return number
        if number < self.k or (persons is not None and persons < self.k):
            return None
        return (2 * number + self.k) // (2 * self.k) * self.k

    def share(self, part: int, whole: int, persons: int | None = None) -> float | None:
        """part / whole from what is shown of them; None: hidden, or of nothing.

        Hidden too where the rest of the whole is small. ``persons``: of the part.
        """
        of, told, rest = self.count(whole), self.count(part, persons), self.count(whole - part)
        if not of or told is None or rest is None:
            return None
        return min(1.0, told / of)

    def text(self, number: int, persons: int | None = None) -> str:
        """The count as text, with ``<k`` where it is hidden."""
        told = self.count(number, persons)
        return f"<{self.k}" if told is None else f"{told:,}"

    def enough(self, *numbers: int) -> bool:
        """Whether figures may be told that rest on so many."""
        return self.k is None or all(number >= self.k for number in numbers)
