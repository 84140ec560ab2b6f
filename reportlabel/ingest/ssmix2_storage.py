"""Where an SS-MIX2 storage keeps things, and what can be wrong with them (storage specification, Ver. 1.2).

    <id 1-3>/<id 4-6>/<id>/<day or ->/<type>/<file>                                              standardised storage
    <id 1-3>/<id 4-6>/<id>/<day or ->/<local^name^system^LOINC^name^LN>/<folder>/<document>      extended storage

The file, and the folder of a document, is called ``id_day_type_order_timestamp_department_flag``. Names alone tell what
counts: flag 1 (0 is deleted, 2 was not done), and of several files of the same patient, type and order the newest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from reportlabel.errors import InputError
from reportlabel.ingest.codes import files_below, listed, shown_path
from reportlabel.ingest.rows import Quarantined, Source
from reportlabel.rulebook.models import Strict

__all__ = [
    "REASONS",
    "Fate",
    "Item",
    "Ssmix2Options",
    "Stored",
    "documents_of",
    "folders_of",
    "is_storage",
    "newest_beside",
    "place_of",
    "shown",
    "stored_files",
]

UNREADABLE = "The file cannot be read."
BAD_NAME = "The name of the file is none of an SS-MIX2 storage."
MISPLACED = "The file lies in the folder of another patient, day or data type than its name says."
UNKNOWN_TYPE = "The data type of the folder is not known."
NOT_HL7 = "The file is no HL7 message."
BAD_ENCODING = "The file has bytes that do not fit its encoding."
WRONG_TYPE = "The message is of another type than the data type of its folder."
SHIFTED = "Fields stand in the wrong places."
SHIFTED_BIRTH = "The birth date does not stand in PID-7 but beside it, so it was not read."
NO_PATIENT = "The file does not say whose it is."
DIFFERENT_PATIENT = "The patient in the file is not the one of its path."
NO_SITE = "It is not known of which hospital the file is."
NO_DATE = "What matters has no date."
BAD_DATE = "The date cannot be read."
NO_CODE = "The segment has neither a code nor a name."
NO_VALUE = "Results without a value were not used."
DELETED = "Entries that the hospital has deleted or cancelled were not used."
BAD_END = "Ends that lie before their start were not used."
NOT_A_DOCUMENT = "The document is neither CDA nor text."
BROKEN_XML = "The document is damaged XML, or has a document type of its own."
NO_TEXT = "The document has no text that can be read."
NO_HEAD = "It cannot be told where the head of the text ends and the report begins."

REASONS = {
    UNREADABLE: "Copy the file again, or take it out if it is a link that leads nowhere.",
    BAD_NAME: "Take it out of the storage, or write the storage again.",
    MISPLACED: "Find out whose it is; move it, or take it out of the storage.",
    UNKNOWN_TYPE: "Take it out of the storage, or add the type to rules/ingest/ssmix2.yaml.",
    NOT_HL7: "Take it out of the storage, or write the message again.",
    BAD_ENCODING: "Write the message again in the encoding that MSH-18 names.",
    WRONG_TYPE: "Write the message into the folder of its type.",
    SHIFTED: "Correct the interface that writes the message; write it again.",
    SHIFTED_BIRTH: "Correct the interface that writes the message; the birth date of ADT-00 counts.",
    NO_PATIENT: "Write the file again, with the patient id (PID-3; recordTarget).",
    DIFFERENT_PATIENT: "Find out whose it is; nothing of it was used.",
    NO_SITE: "Name the hospital in archive.yaml (site, or sites by MSH-4 or custodian).",
    NO_DATE: "Fill in the date and write the message again.",
    BAD_DATE: "Correct the date (YYYYMMDD or YYYYMMDDHHMMSS) and write the message again.",
    NO_CODE: "Fill in the code and write the message again.",
    NO_VALUE: "Nothing, if there was no result.",
    DELETED: "Nothing: what was deleted is no fact.",
    BAD_END: "Correct the dates and write the message again.",
    NOT_A_DOCUMENT: "Export the document as CDA or text, or hand in a table of the reports.",
    BROKEN_XML: "Write the document again.",
    NO_TEXT: "Export the document with its text, or hand in a table of the reports.",
    NO_HEAD: "Say in rules/ingest/ssmix2.yaml which line ends the head (documents: plain: head_ends).",
}
"""The reasons for which a file or segment is quarantined, and what mends it."""

Fate = Literal["read", "deleted", "superseded"]

_NAME = re.compile(
    r"(?P<patient_id>[^_]+)_(?P<day>\d{8}|-)_(?P<type>[^_]+)_(?P<order>.*)_(?P<stamp>\d{14,17})_(?P<department>[^_]*)"
    r"_(?P<flag>[012])",
    re.ASCII,
)
_NO_ORDER = re.compile(r"9+|-*")
_LOOKED_AT = 20
_MARK = "^"
"""Stands between the parts of the name of a data type of the extended storage."""


class Ssmix2Options(Strict):
    """What archive.yaml may say of SS-MIX2 storages.

    Attributes:
        sites: site by MSH-4 (facility) or the custodian of documents.
        site_of_folder: the site is the name of the folder below the source in which a file lies.
        patient_id_width: digits of the hospital's ids; lost zeros are put back.
        documents: kind of a document by its local code, where LOINC does not tell.
        accession_root: OID of accession numbers in CDA. Without it, an order number of the document that is not the
            one of its path is taken for the accession number.
    """

    sites: dict[str, str] = Field(default_factory=dict)
    site_of_folder: bool = False
    patient_id_width: Annotated[int, Field(ge=1, le=20)] | None = None
    documents: dict[str, Literal["radiology", "pathology", "operation"]] = Field(default_factory=dict)
    accession_root: str | None = None


class Stored(NamedTuple):
    """What the place of a file says. ``loinc`` is empty in the standardised storage, or where a folder has none."""

    patient_id: str
    day: str
    type: str
    order: str
    stamp: str
    department: str
    flag: str
    extended: bool = False
    loinc: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A file that is being read: where it lies, and whose it is."""

    path: Path
    source: Source
    options: Ssmix2Options
    stored: Stored
    patient_id: str

    def site(self, code: str) -> str | None:
        """The site of a file that names its facility; None: it is not known."""
        if self.source.site is not None:
            return self.source.site
        if code in self.options.sites:
            return self.options.sites[code]
        if self.options.site_of_folder:
            parts = self.path.relative_to(self.source.path).parts
            return parts[0] if len(parts) > 1 else None
        return None

    def quarantined(self, row: int | None, kind: str, reason: str, *, count: int | None = None) -> Quarantined:
        """The file or its segment `row` (from 1), for a reason; `count` says of how many things."""
        remedy = REASONS[reason] if count is None else f"{REASONS[reason]} Number: {count}."
        return Quarantined(shown(self.path, self.source, self.stored), row, kind, reason, remedy)


def shown(path: Path, source: Source, stored: Stored | None) -> str:
    """The path as a message may show it: without patient, day and order, also where the id is cut up into folders."""
    patient_id = stored.patient_id if stored else None
    parts = shown_path(path, source, patient_id=patient_id, suspicious=stored is None).split("/")
    if stored and any(sign.isdigit() for sign in stored.order):
        parts = [part.replace(stored.order, "…") for part in parts]
    folders = path.absolute().parts
    for at in range(2, len(parts)):
        if _is_of_patient(*folders[len(folders) - len(parts) + at - 2 :][:3]):
            parts[at - 2 : at + 1] = ["…", "…", "…"]
    return "/".join(parts)


def place_of(path: Path) -> Stored | str:
    """What name and folders of a file say, or the reason why they say nothing: BAD_NAME or MISPLACED."""
    folders = ("", "", "", "", *path.absolute().parts[:-1])
    kind = folders[-2]
    if _MARK in kind:  # .../<id>/<day>/<type>/<folder>/<document>
        found = _NAME.fullmatch(folders[-1])
        said = kind.split(_MARK)
        place = (*folders[-4:-2], said[0])
    else:
        found = _NAME.fullmatch(path.name)
        said = []
        place = folders[-3:]
    if found is None:
        return BAD_NAME
    stored = Stored(**found.groupdict(), extended=bool(said), loinc=said[3] if len(said) > 3 else "")
    return stored if (stored.patient_id, stored.day, stored.type) == place else MISPLACED


def stored_files(top: Path) -> Iterator[tuple[Path, Fate]]:
    """All files below a folder in the order of their paths, and what becomes of each; one patient at a time."""
    if not top.is_dir():
        yield top, "read"
        return
    first, second, patient_id = ("", "", "", *top.absolute().parts)[-3:]
    yield from _below(str(top), first, second, patient_id)


def is_storage(folder: Path) -> bool:
    """Whether patients lie below a folder as they do in a storage."""
    return any(
        _is_of_patient(first.name, second.name, patient.name)
        for first in folders_of(folder)[:_LOOKED_AT]
        for second in folders_of(first)[:_LOOKED_AT]
        for patient in folders_of(second)[:_LOOKED_AT]
    )


def folders_of(folder: Path) -> list[Path]:
    """The folders in a folder, sorted."""
    return [folder / name for name, is_folder in _listed(str(folder)) if is_folder]


def newest_beside(path: Path, stored: Stored, types: tuple[str, ...]) -> list[Path]:
    """The valid files of the same patient, day and order in the folders of other data types."""
    found = []
    for kind in types:
        if kind == stored.type:
            continue
        folder = path.parent.parent / kind
        newest = ("", "")
        for name, is_folder in _listed(str(folder)):
            one = None if is_folder else _NAME.fullmatch(name)
            if one and (one["patient_id"], one["order"], one["flag"]) == (stored.patient_id, stored.order, "1"):
                newest = max(newest, (one["stamp"], name))
        if newest[1]:
            found.append(folder / newest[1])
    return found


def documents_of(folder: Path) -> list[Path]:
    """The documents in the folder of one: its XML files, else all; what lies beside XML are its pictures and sheets."""
    files = list(files_below(folder))
    documents = [one for one in files if one.suffix.lower() == ".xml"]
    return documents or files


# --- details ----------------------------------------------------------------------------------------------------------


def _is_of_patient(first: str, second: str, patient_id: str) -> bool:
    return bool(patient_id) and first == patient_id[:3] and second == patient_id[3:6]


def _listed(folder: str) -> list[tuple[str, bool]]:
    """Names in a folder, sorted, and which are folders; nothing where there is no such folder.

    Raises:
        InputError: the folder cannot be listed; does not name it, because its path may hold the id of a patient.
    """
    try:
        return listed(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        problem = error.strerror or "reading failed"
    raise InputError(f"a folder of an SS-MIX2 storage cannot be listed ({problem}); correct its rights")


def _below(folder: str, first: str, second: str, last: str) -> Iterator[tuple[Path, Fate]]:
    """The files below a folder; `first`, `second` and `last` are the names of it and of those above it."""
    if _is_of_patient(first, second, last):
        yield from _of_patient(folder, last)
        return
    for name, is_folder in _listed(folder):
        if is_folder:
            yield from _below(f"{folder}/{name}", second, last, name)
        else:
            yield Path(folder, name), "read"


def _of_patient(folder: str, patient_id: str) -> Iterator[tuple[Path, Fate]]:
    """The files of one patient; of those that say the same of the same order only the newest is read."""
    found = list(_entries(folder))
    newest: dict[tuple[str, ...], tuple[str, str]] = {}
    keys: list[tuple[str, ...] | None] = []
    for path, day, kind, name in found:
        one = _NAME.fullmatch(name) if kind else None
        key: tuple[str, ...] | None = None
        fits = one is not None and (one["patient_id"], one["day"]) == (patient_id, day)
        if one is not None and fits and one["type"] == kind.split(_MARK)[0]:
            if one["flag"] != "1":
                key = ()
            elif not _NO_ORDER.fullmatch(one["order"]):
                key = (kind, one["order"])
            elif day == "-":  # all that is known of the patient
                key = (kind,)
        keys.append(key)
        if key and one is not None:
            newest[key] = max(newest.get(key, ("", "")), (one["stamp"], path))
    for (path, _, kind, _), key in zip(found, keys, strict=True):
        fate: Fate = "read"
        if key == ():
            fate = "deleted"
        elif key and newest[key][1] != path:
            fate = "superseded"
        if _MARK in kind and Path(path).is_dir():
            yield from ((one, fate) for one in documents_of(Path(path)))
        else:
            yield Path(path), fate


def _entries(folder: str) -> Iterator[tuple[str, str, str, str]]:
    """Path, day, type and name of the files, and of the folders of documents; what lies elsewhere has no type."""
    for day, is_day in _listed(folder):
        if not is_day:
            yield f"{folder}/{day}", "", "", day
            continue
        for kind, is_kind in _listed(f"{folder}/{day}"):
            where = f"{folder}/{day}/{kind}"
            if not is_kind:
                yield where, day, "", kind
                continue
            for name, is_folder in _listed(where):
                if not is_folder or _MARK in kind:
                    yield f"{where}/{name}", day, kind, name
                else:
                    for one in files_below(Path(where, name)):
                        yield str(one), day, "", one.name
