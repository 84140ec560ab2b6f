"""``rules/display.yaml``: what statuses, attributes and captions are called where a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from reportlabel.errors import ConfigError
from reportlabel.rulebook.models import Change, Name, Side, Strict, Value
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["DISPLAY_FILE", "AttributeCaptions", "DisplayTexts", "DisplayWords", "load_display", "named"]

DISPLAY_FILE = "display.yaml"

Temporality = Literal["current", "past", "hypothetical"]
Word = Annotated[str, Field(min_length=1)]


def _median(text: str) -> str:
    fields = {field for _, field, _, _ in Formatter().parse(text) if field is not None}
    if fields != {"middle", "lowest", "highest"}:
        raise ValueError("must hold {middle}, {lowest} and {highest}, and nothing else in braces")
    return text


class AttributeCaptions(Strict):
    """Captions of what is known of a mention."""

    site: Word
    side: Word
    lobe: Word
    size: Word
    count: Word
    change: Word
    image: Word


class DisplayTexts(Strict):
    """Words of the terminal and the pages; those in braces are filled in."""

    not_this_exam: Name
    cue: Word
    rule: Word
    median: Annotated[str, AfterValidator(_median)]
    and_more: Word


class DisplayWords(Strict):
    """``display.yaml``; statuses, temporalities, sides and changes have a name each."""

    statuses: dict[Value, Name]
    temporality: dict[Temporality, Name]
    sides: dict[Side, Name]
    lobes: dict[str, Name]
    changes: dict[Change, Name]
    counts: dict[str, Word]
    attributes: AttributeCaptions
    between_sites: str
    texts: DisplayTexts

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key, there, wanted in (
            ("statuses", set(self.statuses), get_args(Value)),
            ("temporality", set(self.temporality), get_args(Temporality)),
            ("sides", set(self.sides), get_args(Side)),
            ("changes", set(self.changes), get_args(Change)),
        ):
            lacking = [one for one in wanted if one not in there]
            if lacking:
                raise ValueError(f"{key} lacks {', '.join(lacking)}")
        return self


def named(known: Mapping[Any, Name], value: str) -> Name:
    """The name of a value; the value itself where it has none."""
    return known.get(value) or Name(ja=value, en=value)


def load_display(folder: Path) -> DisplayWords:
    """Read ``display.yaml`` of a rules folder.

    Raises:
        ConfigError: it is missing or wrong; names file, line and key.
    """
    path = folder / DISPLAY_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: missing; nothing can be shown without it")
    return parse(read_yaml(path), DisplayWords)
