"""A first sieve for pictures that may show a face or an eye: OpenCV's cascades.

It finds candidates for a person to look at first. It clears nothing: a picture without a hit still needs a person.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.export.deliverable_rules import Sieve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["HITS", "FaceSieve", "Hit", "sieve_pictures"]

HITS = pl.Schema(
    {
        "image_id": pl.String,
        "read": pl.Boolean,
        "finds": pl.String,
        "x": pl.Float64,
        "y": pl.Float64,
        "width": pl.Float64,
        "height": pl.Float64,
    }
)
"""One row a hit; places are shares of the width and height. A picture without a hit has one row with ``finds`` null;
one that could not be read has ``read`` false."""


@dataclass(frozen=True)
class Hit:
    """A candidate; places are shares of the width and height of the picture, from its upper left corner."""

    finds: str
    x: float
    y: float
    width: float
    height: float


class FaceSieve:
    """The cascades, loaded once. Not shared between threads.

    Raises:
        ConfigError: OpenCV is not installed, or lacks a cascade file that the rules name.
    """

    def __init__(self, rules: Sieve) -> None:
        try:
            cv2 = importlib.import_module("cv2")
        except ImportError:
            raise ConfigError(
                "the search for faces needs OpenCV; install it with `pip install 'reportlabel[images]'`"
            ) from None
        self._rules = rules
        self._cv2: Any = cv2
        self._cascades = []
        for one in rules.cascades:
            path = Path(self._cv2.data.haarcascades) / one.file
            cascade = self._cv2.CascadeClassifier(str(path)) if path.is_file() else None
            if cascade is None or cascade.empty():
                raise ConfigError(f"rules/deliverables.yaml: OpenCV has no cascade {one.file}")
            self._cascades.append((one, cascade))

    def find(self, content: bytes) -> list[Hit] | None:
        """Candidates in a picture, upright as its EXIF says; None where it cannot be read.

        Args:
            content: the bytes of the file.
        """
        import numpy as np

        grey = (
            self._cv2.imdecode(np.frombuffer(content, dtype=np.uint8), self._cv2.IMREAD_GRAYSCALE) if content else None
        )
        return None if grey is None else self.find_in(grey)

    def find_in(self, grey: NDArray[np.uint8]) -> list[Hit]:
        """Candidates in a grey picture, one row a line of pixels."""
        height, width = grey.shape
        scale = min(1.0, self._rules.longest_side / max(height, width))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            grey = self._cv2.resize(grey, size, interpolation=self._cv2.INTER_AREA)
        grey = self._cv2.equalizeHist(grey)
        rows, columns = grey.shape
        least = max(1, round(min(rows, columns) * self._rules.smallest))
        hits = []
        for one, cascade in self._cascades:
            for mirrored in (False, True) if one.mirrored else (False,):
                searched = self._cv2.flip(grey, 1) if mirrored else grey
                boxes = cascade.detectMultiScale(
                    searched, scaleFactor=one.scale, minNeighbors=one.neighbours, minSize=(least, least)
                )
                for x, y, w, h in boxes:
                    left = columns - x - w if mirrored else x
                    places = (left / columns, y / rows, w / columns, h / rows)
                    hits.append(Hit(one.finds, *(float(place) for place in places)))
        return hits


def sieve_pictures(pictures: Iterable[tuple[str, bytes]], sieve: FaceSieve) -> pl.DataFrame:
    """Search pictures one after another.

    Args:
        pictures: image_id and the bytes of the file.

    Returns:
        Columns of HITS, at least one row a picture.
    """
    rows: list[tuple[Any, ...]] = []
    for image_id, content in pictures:
        hits = sieve.find(content)
        if hits:
            rows += [(image_id, True, one.finds, one.x, one.y, one.width, one.height) for one in hits]
        else:
            rows.append((image_id, hits is not None, None, None, None, None, None))
    return pl.DataFrame(rows, schema=HITS, orient="row")
