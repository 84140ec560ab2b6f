"""The Type of an attribute in a kind of DICOM object: must it be there, may it be empty (PS3.5 section 7.4).

The tables are those of the standard (PS3.3 and PS3.4) as highdicom ships them. Nothing of highdicom is run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from reportlabel.errors import ConfigError

__all__ = ["STRICTNESS", "attribute_type", "is_known_sop_class", "known_sop_classes"]

STRICTNESS = {"1": 0, "1C": 1, "2": 2, "2C": 3, "3": 4}
"""Types from the strictest on."""

_Attribute = tuple[tuple[str, ...], str]
"""The keywords of the sequences around an attribute, and its own."""


def is_known_sop_class(sop_class_uid: str) -> bool:
    """Whether the tables know what an object of this SOP class consists of."""
    return sop_class_uid in _objects()


def known_sop_classes() -> list[str]:
    """The SOP Class UIDs that the tables know."""
    return sorted(_objects())


def attribute_type(sop_class_uid: str, keyword: str, path: Sequence[str] = ()) -> str | None:
    """The Type of an attribute in an object: "1", "1C", "2", "2C" or "3"; None if the SOP class is unknown.

    An attribute that stands in several modules has the strictest of its Types, one in no module has Type 3.

    Args:
        sop_class_uid: the SOP Class UID of the object.
        keyword: of the attribute.
        path: the keywords of the sequences in which it stands, the outermost first.

    Raises:
        ConfigError: the tables are not installed.
    """
    types = _types(sop_class_uid)
    return None if types is None else types.get((tuple(path), keyword), "3")


@lru_cache(maxsize=32)
def _types(sop_class_uid: str) -> dict[_Attribute, str] | None:
    kind = _objects().get(sop_class_uid)
    if kind is None:
        return None
    strictest: dict[_Attribute, str] = {}
    for module in _modules_of_objects().get(kind, ()):
        for attribute, its_type in _attributes().get(module, ()):
            known = strictest.get(attribute)
            if known is None or STRICTNESS[its_type] < STRICTNESS[known]:
                strictest[attribute] = its_type
    return strictest


@lru_cache(maxsize=1)
def _objects() -> dict[str, str]:
    """SOP Class UID -> name of the information object."""
    return {str(uid): str(name) for uid, name in json.loads(_table("sop_class_iod_map.json")).items()}


@lru_cache(maxsize=1)
def _modules_of_objects() -> dict[str, list[str]]:
    """Name of the information object -> its modules, optional ones too."""
    table = json.loads(_table("iod_module_map.json"))
    return {name: [str(module["key"]) for module in modules] for name, modules in table.items()}


@lru_cache(maxsize=1)
def _attributes() -> dict[str, list[tuple[_Attribute, str]]]:
    """Module -> its attributes with their Types; the few without a Type are left out."""

    def narrowed(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if "keyword" not in found:
            return found
        return (tuple(found["path"]), str(found["keyword"])), str(found["type"])

    # attributes become tuples as they are read: the whole table as dictionaries takes three times the memory
    table = json.loads(_table("module_attribute_map.json"), object_pairs_hook=narrowed)
    return {module: [one for one in attributes if one[1] in STRICTNESS] for module, attributes in table.items()}


def _table(name: str) -> str:
    found = importlib.util.find_spec("highdicom")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the tables of the DICOM standard are missing; install them: pip install highdicom")
    try:
        return (Path(found.submodule_search_locations[0]) / "_standard" / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"highdicom is installed without its table {name}; install highdicom 0.28 or later again"
        ) from error
