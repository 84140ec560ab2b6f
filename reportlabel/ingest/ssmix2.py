"""SS-MIX2 storages: standardised (HL7 messages) and extended (CDA and text documents).

A storage is read file by file. Only files that count by their names give rows: flag 1, and the newest of each patient,
type and order. A file must be of the patient, day and type of its path; one that is not is quarantined as a whole, and
nothing of it is used. Data types that hold nothing for us are checked in the same way and give no rows.

The site is `Source.site`, else `sites` of archive.yaml by MSH-4 or the custodian of a document, else with
``site_of_folder`` the folder below the source. See `reportlabel.ingest.ssmix2_messages` and
`reportlabel.ingest.ssmix2_documents` for what comes out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from reportlabel.ingest import ssmix2_storage as storage
from reportlabel.ingest.codes import options_of, patient_number
from reportlabel.ingest.rows import Quarantined, Row, Source
from reportlabel.ingest.ssmix2_documents import DocumentRules, document_rows, kind_of
from reportlabel.ingest.ssmix2_messages import MessageRules, message_rows
from reportlabel.ingest.ssmix2_storage import REASONS, Item, Ssmix2Options, Stored
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["REASONS", "Ssmix2Options", "Ssmix2Rules", "depends", "files", "passed_over", "read", "recognise"]

_LOOKED_AT = 20
_DELETED = re.compile(r"_[02]$")
_DEEPEST = 4


class Ssmix2Rules(Strict):
    """rules/ingest/ssmix2.yaml."""

    messages: MessageRules
    documents: DocumentRules


def recognise(path: Path) -> bool:
    """Whether a file lies in a storage and is of one, or a folder holds storages in all of its folders."""
    if path.is_dir():
        return _holds_storages(path, _DEEPEST)
    stored = storage.place_of(path)
    if isinstance(stored, str):
        return False
    if stored.extended:
        return True
    try:
        with path.open("rb") as file:
            return b"MSH|" in file.read(8)
    except OSError:
        return False


def files(source: Source) -> Iterator[Path]:
    """The files in the order of their paths, without those whose name says that a newer one has taken their place.

    Files whose name says that they are deleted are among them: they hold no facts, but `read` tells where one lies with
    the wrong patient.
    """
    for path, fate in storage.stored_files(source.path):
        if fate == "read" or (fate == "deleted" and _DELETED.search(path.name)):
            yield path


def passed_over(source: Source) -> dict[str, int]:
    """How many files of a source are not read because of their names: deleted (flag 0 or 2) and superseded."""
    fates = Counter(fate for _, fate in storage.stored_files(source.path))
    return {fate: fates[fate] for fate in ("deleted", "superseded")}


def depends(path: Path, source: Source) -> list[Path]:  # noqa: ARG001 - the same for every reader
    """Files beside the message of an exam that say more of it: its order, and what was given for it."""
    stored = storage.place_of(path)
    return [] if isinstance(stored, str) else _beside(path, stored)


def read(path: Path, source: Source) -> Iterator[Row]:
    """The rows of one file; `row` of what is quarantined is the number of its segment.

    Raises:
        ConfigError: what archive.yaml says of the source makes no sense; never for what the file holds.
    """
    rows = _rows(path, source)
    if _DELETED.search(path.name):
        rows = (row for row in rows if isinstance(row, Quarantined) and row.reason == storage.DIFFERENT_PATIENT)
    yield from rows


# --- details ----------------------------------------------------------------------------------------------------------


def _rows(path: Path, source: Source) -> Iterator[Row]:
    options = options_of(source, Ssmix2Options)
    rules = _rules()
    stored = storage.place_of(path)
    try:
        data = path.read_bytes()
    except OSError:
        yield _quarantined(path, source, stored, storage.UNREADABLE)
        return
    if isinstance(stored, str):
        is_message = data.lstrip(b"\x0b\xef\xbb\xbf").startswith((b"MSH|", b"<"))
        yield _quarantined(
            path, source, stored, stored if is_message or stored == storage.BAD_NAME else storage.NOT_HL7
        )
        return
    item = _item(path, source, options, stored)
    if item is None:
        yield _quarantined(path, source, stored, storage.NO_PATIENT)
    elif stored.extended:
        kind = kind_of(stored, options, rules.documents)
        if kind is not None:
            yield from document_rows(data, item, kind, rules.documents)
    elif stored.type not in rules.messages.types:
        yield item.quarantined(None, "file", storage.UNKNOWN_TYPE)
    else:
        yield from message_rows(data, item, rules.messages, beside=lambda: _contents(path, source, options, stored))


@lru_cache(maxsize=1)
def _rules() -> Ssmix2Rules:
    return parse(read_yaml(rules_folder() / "ingest" / "ssmix2.yaml"), Ssmix2Rules)


def _item(path: Path, source: Source, options: Ssmix2Options, stored: Stored) -> Item | None:
    patient_id = patient_number(stored.patient_id, width=options.patient_id_width)
    return Item(path, source, options, stored, patient_id) if patient_id else None


def _quarantined(path: Path, source: Source, stored: Stored | str, reason: str) -> Quarantined:
    known = None if isinstance(stored, str) else stored
    return Quarantined(storage.shown(path, source, known), None, "file", reason, REASONS[reason])


def _beside(path: Path, stored: Stored) -> list[Path]:
    rules = _rules().messages
    of_exam = stored.type in rules.types and rules.types[stored.type].holds == "exams" and not stored.extended
    return storage.newest_beside(path, stored, tuple(rules.beside_exam)) if of_exam else []


def _contents(path: Path, source: Source, options: Ssmix2Options, stored: Stored) -> Iterator[tuple[Item, bytes]]:
    for one in _beside(path, stored):
        other = storage.place_of(one)
        if isinstance(other, str) or (item := _item(one, source, options, other)) is None:
            continue
        try:
            yield item, one.read_bytes()
        except OSError:
            continue  # quarantined where the file itself is read


def _holds_storages(folder: Path, depth: int) -> bool:
    """Whether a folder is a storage, or all of its folders, of which there is one at least, hold storages."""
    if storage.is_storage(folder):
        return True
    below = storage.folders_of(folder)
    return depth > 0 and bool(below) and all(_holds_storages(one, depth - 1) for one in islice(below, _LOOKED_AT))
