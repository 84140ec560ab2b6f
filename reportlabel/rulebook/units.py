"""Units as laboratories write them: ``rules/linked/units.yaml`` says what each spelling means, pint converts."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from reportlabel.errors import ConfigError
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import Document

if TYPE_CHECKING:
    import pint

    _Quantity = pint.Quantity[float]
    _Registry = pint.UnitRegistry[float]


class Dialect(Strict):
    """A unit in the words of pint, and the spellings that mean it."""

    unit: str
    words: Annotated[list[str], Field(min_length=1)]


class UnitRules(Strict):
    """``units.yaml``. ``define``: units that pint does not know, in its own notation."""

    define: list[str] = Field(default_factory=list)
    dialects: list[Dialect]


@dataclass(frozen=True)
class Units:
    """Knows units by all their spellings.

    Attributes:
        spellings: plain spelling -> unit in the words of pint.
        define: units that pint does not know.
    """

    spellings: Mapping[str, str] = field(default_factory=dict)
    define: tuple[str, ...] = ()

    @classmethod
    def from_rules(cls, document: Document, rules: UnitRules) -> Units:
        """Compile ``units.yaml``.

        Raises:
            ConfigError: pint does not understand a unit or definition, or a spelling means two units.
        """
        spellings: dict[str, str] = {}
        for at, dialect in enumerate(rules.dialects):
            for word in dialect.words:
                if spellings.setdefault(plain_unit(word), dialect.unit) != dialect.unit:
                    line = document.line(("dialects", at))
                    raise ConfigError(f"{document.path}:{line}: '{word}' means two units")
        units = cls(spellings=spellings, define=tuple(rules.define))
        for at, dialect in enumerate(rules.dialects):
            if units._quantity(dialect.unit) is None:
                line = document.line(("dialects", at))
                raise ConfigError(f"{document.path}:{line}: '{dialect.unit}' is no unit that pint knows")
        return units

    def __getstate__(self) -> dict[str, object]:
        """Without the registry, which a worker process builds anew."""
        return {"spellings": self.spellings, "define": self.define}

    def known(self, unit: str) -> bool:
        """Whether a unit, in any spelling, means anything."""
        return self._quantity(self._meant(unit)) is not None

    def factor(self, unit: str | None, target: str) -> float | None:
        """What a number in ``unit`` is multiplied with to be one in ``target``; None where they cannot be compared.

        A number without a unit is a pure number (a ratio, an index), never a percentage: units are not guessed.
        """
        if not plain_unit(unit or "") and plain_unit(target):
            return None
        given, wanted = self._quantity(self._meant(unit or "")), self._quantity(self._meant(target))
        if given is None or wanted is None or not given.is_compatible_with(wanted.units):
            return None
        return float(f"{(given / wanted).to_base_units().magnitude:.12g}")

    def _meant(self, unit: str) -> str:
        """The unit in the words of pint; what is a number (``1``, ``10^3``) names no unit unless it is listed."""
        plain = plain_unit(unit)
        known = self.spellings.get(plain)
        if known is not None or not plain:
            return known or ""
        return plain if plain == "%" or plain[0].isalpha() else "?"

    def _quantity(self, unit: str) -> _Quantity | None:
        """One of a unit; None if it is none."""
        import pint

        if unit not in self._quantities:
            try:
                self._quantities[unit] = self._registry.Quantity(unit or "1")
            except (pint.PintError, AttributeError, TypeError, ValueError, AssertionError, SyntaxError):
                self._quantities[unit] = None  # what pint's parser raises for words that are no unit
        return self._quantities[unit]

    @cached_property
    def _quantities(self) -> dict[str, _Quantity | None]:
        return {}

    @cached_property
    def _registry(self) -> _Registry:
        """Built at the first unit: it takes a moment."""
        import pint

        registry: _Registry = pint.UnitRegistry()
        for definition in self.define:
            registry.define(definition)
        return registry


def plain_unit(unit: str) -> str:
    """A unit as units are compared: NFKC, without blanks. Case counts: mU is not MU."""
    return "".join(unicodedata.normalize("NFKC", unit).split())
