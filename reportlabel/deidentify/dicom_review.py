"""What a person decides before it goes out: private attributes, overlays, images that may have words in the picture.

    sheet = ReviewSheet()
    sheet.add(result.review)
    sheet.write(path, apart_from=[out])          # a CSV to fill in
    decisions = read_decisions(path)             # and to read back

There is one row for each distinct creator, attribute and kind of value, with the values that occur: without them nobody
could decide. So the sheet holds whatever the attributes hold; it is for the hospital alone, only its owner may read the
file, and it is never written among what goes out.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from reportlabel.errors import ConfigError, InputError

__all__ = ["Decision", "Decisions", "ReviewItem", "ReviewKey", "ReviewSheet", "read_decisions"]

Kind = Literal["private", "overlay", "pixels"]
Decision = Literal["keep", "remove"]

NOTICE = "院内限・持出禁止 (confidential: never leaves the hospital)"
COLUMNS = ("kind", "creator", "tag", "vr", "name", "n_files", "n_values", "values", "decision", "notice")
_SHOWN_VALUES = 20
_COUNTED_VALUES = 1000
_LONGEST_VALUE = 200


class ReviewKey(NamedTuple):
    """What one decision is about, and all it is about.

    Attributes:
        kind: private, overlay or pixels.
        creator: of a private attribute; the device of pixels; else empty.
        tag: ``(0019,xx0C)``, ``(6000,3000)``, or the SOP class of pixels.
        vr: the value representation; of pixels modality, image type and size.
    """

    kind: Kind
    creator: str
    tag: str
    vr: str


Decisions: TypeAlias = Mapping[ReviewKey, Decision]


@dataclass(frozen=True)
class ReviewItem:
    """One such thing in one file: the name of the attribute, if it is known, and its value as a person reads it."""

    key: ReviewKey
    name: str
    value: str = field(repr=False)


@dataclass
class _Row:
    name: str
    n_files: int = 0
    values: dict[str, None] = field(default_factory=dict)


class ReviewSheet:
    """All that is to be decided in a set of files; memory grows with distinct attributes, not with files."""

    def __init__(self) -> None:
        self._rows: dict[ReviewKey, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def keys(self) -> list[ReviewKey]:
        """What is to be decided, in the order of the sheet."""
        return sorted(self._rows)

    def add(self, items: Iterable[ReviewItem]) -> None:
        """Add what one file holds."""
        seen: set[ReviewKey] = set()
        for item in items:
            row = self._rows.setdefault(item.key, _Row(item.name))
            row.n_files += item.key not in seen
            seen.add(item.key)
            if item.value and len(row.values) < _COUNTED_VALUES:
                row.values.setdefault(item.value[:_LONGEST_VALUE])

    def write(self, path: Path, *, apart_from: Sequence[Path] = (), decisions: Decisions | None = None) -> None:
        """Write the sheet as CSV (UTF-8 with a mark, so that Excel reads it), readable by its owner alone.

        Args:
            path: the file; it appears whole or not at all.
            apart_from: folders of what goes out, in which the sheet must not lie.
            decisions: those already made; they are written in.

        Raises:
            ConfigError: the path lies in one of the folders, or cannot be written.
        """
        target = path.resolve()
        for folder in apart_from:
            if target.is_relative_to(folder.resolve()):
                raise ConfigError(f"the review sheet shows values of patients: write it elsewhere than below {folder}")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for key in self.keys:
            row = self._rows[key]
            shown = " | ".join(list(row.values)[:_SHOWN_VALUES])
            more = "+" if len(row.values) >= _COUNTED_VALUES else ""
            cells = (
                *key,
                row.name,
                row.n_files,
                f"{len(row.values)}{more}",
                shown,
                (decisions or {}).get(key, ""),
                NOTICE,
            )
            writer.writerow([_harmless(str(cell)) for cell in cells])
        _write_privately(target, text.getvalue().encode("utf-8-sig"), shown=path)


def read_decisions(path: Path) -> dict[ReviewKey, Decision]:
    """Read a sheet that was filled in.

    In: ``decision`` is ``keep`` or ``remove``; left empty it is ``remove``, so that a sheet that is handed back as it
    was removes everything on it. What is not on the sheet stays undecided.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row has another word or repeats an earlier row.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
            names = set(rows[0]) if rows else set(COLUMNS)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); save the review sheet as CSV in UTF-8"
        ) from error
    needed = (*ReviewKey._fields, "decision")
    missing = [name for name in needed if name not in names]
    if missing:
        raise InputError(f"{path}: lacks column {', '.join(missing)}; fill in the sheet as it was written")
    decisions: dict[ReviewKey, Decision] = {}
    for number, row in enumerate(rows, start=2):
        kind, creator, tag, vr = (_as_written(row[name] or "") for name in ReviewKey._fields)
        said = (row["decision"] or "").strip().lower() or "remove"
        if kind not in get_args(Kind) or said not in get_args(Decision):
            raise InputError(f"{path}: row {number}: kind is private, overlay or pixels, decision is keep or remove")
        key = ReviewKey(kind, creator, tag, vr)  # type: ignore[arg-type]
        if key in decisions:
            raise InputError(f"{path}: row {number}: the same as an earlier row; delete one of them")
        decisions[key] = "keep" if said == "keep" else "remove"
    return decisions


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _as_written(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def _write_privately(path: Path, data: bytes, *, shown: Path) -> None:
    """A file that only its owner may read, whole or not at all."""
    try:
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")  # mode 0600
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {shown}: {error.strerror or type(error).__name__}") from None
