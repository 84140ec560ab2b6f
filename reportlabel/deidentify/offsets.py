"""Where a character of a masked text stood in the original, and the other way round.

Offsets are Unicode code points, end exclusive. A masked stretch has no inside: a span that touches one is widened to
the whole of it, in both directions, so that a label never points into half a name.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

__all__ = ["OFFSETS", "OffsetMap", "Piece", "maps_of", "offsets_table"]

OFFSETS = pl.Schema(
    {
        "report_id": pl.String,
        "old_start": pl.Int32,
        "old_end": pl.Int32,
        "new_start": pl.Int32,
        "new_end": pl.Int32,
    }
)
"""One row a replaced stretch of a text; a text without any has no row. Holds positions only, no text."""


class Piece(NamedTuple):
    """A replaced stretch: where it stood in the original and where its replacement stands."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


@dataclass(frozen=True)
class OffsetMap:
    """The replaced stretches of one text, in order and without overlaps."""

    pieces: tuple[Piece, ...] = ()

    @classmethod
    def replacing(cls, replacements: Iterable[tuple[int, int, int]]) -> OffsetMap:
        """The map of a text in which stretches were replaced.

        In: (start, end, length of the replacement) in the original, in order, without overlaps; none is empty on
        either side. Raises `ValueError` where that does not hold.
        """
        pieces: list[Piece] = []
        at, moved = 0, 0
        for start, end, length in replacements:
            if start < at or end <= start or length < 1:
                raise ValueError("replacements must be in order, without overlaps, and not empty")
            pieces.append(Piece(start, end, start + moved, start + moved + length))
            moved += length - (end - start)
            at = end
        return cls(tuple(pieces))

    def to_new(self, start: int, end: int) -> tuple[int, int]:
        """The span of the masked text that stands for a span of the original."""
        return _move(start, end, self._old, self._new)

    def to_old(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that a span of the masked text stands for."""
        return _move(start, end, self._new, self._old)

    def touches(self, start: int, end: int) -> bool:
        """Whether a span of the original holds a character that was replaced."""
        starts, ends = self._old
        return start < end and bisect_right(ends, start) < bisect_left(starts, end)

    @cached_property
    def _old(self) -> tuple[list[int], list[int]]:
        return [piece.old_start for piece in self.pieces], [piece.old_end for piece in self.pieces]

    @cached_property
    def _new(self) -> tuple[list[int], list[int]]:
        return [piece.new_start for piece in self.pieces], [piece.new_end for piece in self.pieces]


_Side = tuple[list[int], list[int]]


def _move(start: int, end: int, source: _Side, target: _Side) -> tuple[int, int]:
    if not 0 <= start <= end:
        raise ValueError("a span starts at 0 or later and does not end before it starts")
    if start == end:
        point = _place(start, source, target, widen_to=0)
        return point, point
    return _place(start, source, target, widen_to=0), _place(end, source, target, widen_to=1)


def _place(at: int, source: _Side, target: _Side, *, widen_to: int) -> int:
    """One border. Inside a stretch it goes to the start (``widen_to`` 0) or end (1) of what stands there."""
    starts, ends = source
    before = bisect_right(ends, at)  # stretches that end at or before the border
    if before < len(starts) and starts[before] < at:
        return target[widen_to][before]
    return at + (target[1][before - 1] - ends[before - 1] if before else 0)


def offsets_table(maps: Mapping[str, OffsetMap]) -> pl.DataFrame:
    """The maps of many texts as a table of schema `OFFSETS`. In: report id -> map."""
    rows = [(report_id, *piece) for report_id, one in maps.items() for piece in one.pieces]
    return pl.DataFrame(rows, schema=OFFSETS, orient="row")


def maps_of(table: pl.DataFrame, report_ids: Sequence[str]) -> dict[str, OffsetMap]:
    """The maps of the given texts, read from a table of schema `OFFSETS`; the empty map where it has no row."""
    wanted = table.filter(pl.col("report_id").is_in(list(report_ids))).sort("report_id", "old_start")
    pieces: dict[str, list[Piece]] = {report_id: [] for report_id in report_ids}
    for report_id, *piece in wanted.select(OFFSETS.names()).iter_rows():
        pieces[report_id].append(Piece(*piece))
    return {report_id: OffsetMap(tuple(one)) for report_id, one in pieces.items()}
