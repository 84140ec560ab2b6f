"""Codes, identifiers and paths, written one way; all readers use this module.

    k_code("K514-2 3"), k_code("Ｋ５１４－２　３"), k_code("K51423")    "K514-2 3"
    icd10("C34.9"), icd10("Ｃ３４９")                                   "C349"
    measure("<0.5"), measure("１２．５mg")                              Measure(0.5, "<", ""), Measure(12.5, "", "mg")
    patient_number("7", width=8)                                        "00000007"
    shown_path(path, source)                                            "dicom/…/…/CT000001.dcm (sha256 3fa9 c2d1)"

What cannot be read is None, never an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Container, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from reportlabel.errors import ConfigError
from reportlabel.ingest.rows import Source

__all__ = [
    "LONG_UID",
    "Measure",
    "fee_code_system",
    "files_below",
    "icd10",
    "is_damaged_number",
    "jlac10_system",
    "k_code",
    "listed",
    "measure",
    "narrow",
    "options_of",
    "patient_number",
    "shown_path",
    "study_uid",
]

_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc", "-"))
_MINUS = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_FEE_CODE = re.compile(r"([A-Z]\d{3})(.*)", re.ASCII | re.DOTALL)
_BRANCH = re.compile(r"\s*-\s*(\d)(.*)", re.ASCII | re.DOTALL)
_UNSEPARATED = re.compile(r"([2-9])(\d*)[ァ-ヶ]*", re.ASCII)
_BETWEEN = re.compile(r"[\s,.;:/()_\-・、]+")
_ITEM = re.compile(r" ?(\d{1,3})? ?([ァ-ヶ]{1,2}(?![ァ-ヿ\u3041-\u9fff]))?(?: |$)")
_ICD10 = re.compile(r"([A-Z]\d\d)\.?([0-9A-Z]{0,2})(?:[-.]?)", re.ASCII)
_EXPONENT = re.compile(r"[+-]?\d(?:[.,]\d+)?E\+\d+", re.ASCII | re.IGNORECASE)
_ERROR_OF_A_SPREADSHEET = re.compile(r"##+|#(?:NAME\?|VALUE!|REF!|NUM!|NULL!|DIV/0!|N/A|SPILL!|CALC!)")
_MEASURE = re.compile(
    r"(?P<sign><=|>=|=<|=>|≦|≧|≤|≥|<|>|-(?=\s*[<>]))?\s*(?P<value>[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|[+-]?\.\d+)"
    r"(?P<power>\s*[x×*]\s*10\s*\^?\s*(?P<exponent>[+-]?\d{1,2})|E(?P<short>[+-]?\d{1,2}))?\s*(?P<unit>.*)",
    re.ASCII | re.DOTALL,
)
_SIGNS = {"≦": "<=", "≤": "<=", "=<": "<=", "≧": ">=", "≥": ">=", "=>": ">="}
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+", re.ASCII)
_CHAPTERS = ("K", "D", "N")
_ONLY_DIGITS = re.compile(r"\d{5,}(\.\w{1,5})*", re.ASCII)
_DAY_IN_A_NAME = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(\.\w{1,5})*", re.ASCII)
_DIGITS = re.compile(r"\d{4,}", re.ASCII)

_ORDER_OR_TIME = re.compile(r"[\d…]*(?:\d{7,}|…)[\d…]*", re.ASCII)
LONG_UID = re.compile(r"(?<![\d.])[0-2](?:\.\d+){4,}(?![\d.]*\d)", re.ASCII)
"""A DICOM UID in a name, as studies, series and images have."""

_NO_DATA = (".", "~$", "Thumbs.db", "desktop.ini")

Options = TypeVar("Options", bound=BaseModel)


class Measure(NamedTuple):
    """A number with what stands around it. ``sign``: ``<``, ``<=``, ``>``, ``>=`` or nothing."""

    value: float
    sign: str
    unit: str


def narrow(text: str) -> str:
    """A name or a word with letters, digits and signs in half width and kana in full width (NFKC), stripped.

    Systems and masters differ in the width they write, so readers give every short name this way. Texts stay as they
    are. The wave dash is a tilde: cp932 has one sign for both.
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).replace("\u301c", "~").strip()


def _plain(text: str) -> str:
    """Narrow, upper case, and every dash a hyphen."""
    return narrow(text).translate(_DASHES).upper()


def k_code(text: str, *, items: Container[str] | None = None) -> str | None:
    """A code of the medical fee schedule (医科点数表) as the schedule writes it, or None if it is none.

    ``K514-2 3``: chapter and number, branch after a hyphen, item after a blank. DPC writes it without both
    (``K51423``): there a first digit 1 is an item, since branches begin with 2, and any other digit is taken for a
    branch.

    Args:
        items: codes of a letter and four digits whose last digit is an item although it could be a branch, where no
            digit follows: with K7212 among them it is ``K721 2``, else ``K721-2``.
    """
    return _fee_code(text) if items is None else _fee_code_with(_plain(text), items)


@lru_cache(maxsize=16_384)
def _fee_code(text: str) -> str | None:
    return _fee_code_with(_plain(text), ())


def _fee_code_with(text: str, items: Container[str]) -> str | None:
    found = _FEE_CODE.fullmatch(text)
    if found is None:
        return None
    base, rest = found[1], found[2]
    branch = ""
    if branched := _BRANCH.fullmatch(rest):
        branch, rest = f"-{branched[1]}", branched[2]
    elif (found := _UNSEPARATED.fullmatch(rest)) and (found[2] or base + found[1] not in items):
        branch, rest = f"-{found[1]}", rest[1:]
    item = _ITEM.match(_BETWEEN.sub(" ", rest))  # words may follow it
    if item is None:
        return None
    return f"{base}{branch} {item[1] or ''}{item[2] or ''}".rstrip()


def fee_code_system(code: str) -> str:
    """Which code system a code of the fee schedule belongs to: its chapter K, D or N, else local."""
    return code[0] if code[:1] in _CHAPTERS else "local"


def icd10(text: str) -> str | None:
    """An ICD-10 code without its dot, dagger and asterisk; None if it is none."""
    found = _ICD10.fullmatch(_plain(text).rstrip("†*+").strip())
    return found[1] + found[2] if found else None


def jlac10_system(code: str) -> str:
    """JLAC10 for a code of its form (17 characters, or 5 of the analyte), else local."""
    form = re.fullmatch(r"\d[A-Z]\d{3}(?:[0-9A-Z]{12})?", code, re.ASCII)
    return "JLAC10" if form else "local"


def measure(text: str) -> Measure | None:
    """A number with sign and unit: ``<0.5``, ``１２．５mg/dL``, ``1,200``, ``3.5×10^4``; None if there is none.

    The unit is what follows the number; the caller judges it.
    """
    found = _MEASURE.fullmatch(narrow(text).translate(_MINUS))
    if found is None:
        return None
    value = float(found["value"].replace(",", ""))
    power = found["exponent"] or found["short"]
    if power:
        value = float(f"{value!r}e{int(power)}") if "e" not in repr(value) else value * 10.0 ** int(power)
    sign = found["sign"] or ""
    return Measure(value, _SIGNS.get(sign, sign), found["unit"].strip())


def is_damaged_number(text: str) -> bool:
    """Whether a spreadsheet has made it unreadable: 2.0231E+10, ########, #NAME?."""
    return _EXPONENT.fullmatch(text) is not None or _ERROR_OF_A_SPREADSHEET.fullmatch(text) is not None


def patient_number(text: str, *, width: int | None = None) -> str | None:
    """The id of a patient as the hospital writes it; None where there is none or a spreadsheet has damaged it.

    ``width``: the number of digits of the hospital's ids; an id of digits alone gets the zeros it lacks and loses those
    it has too many (DPC writes ten digits).
    """
    number = text.strip()
    if not number or is_damaged_number(number):
        return None
    if width is not None and number.isascii() and number.isdigit():
        return number.lstrip("0").zfill(width)
    return number


def study_uid(text: str | None) -> str | None:
    """A DICOM UID, without ``urn:oid:`` and padding; None if it is none."""
    if not text:
        return None
    uid = text.strip(" \0").removeprefix("urn:oid:")
    return uid if len(uid) <= 64 and _UID.fullmatch(uid) else None


def files_below(path: Path) -> Iterator[Path]:
    """A file itself, or the files of a folder and its folders in the order of names, without those of the desktop.

    What cannot be walked into is given as if it were a file, so that who opens it says that it cannot be read: a link
    to nothing, a link to a folder in which it lies itself, a folder that may not be listed.
    """
    try:
        entries = listed(path) if path.is_dir() else None
    except OSError:
        entries = None
    if entries is None:
        yield path
        return
    for name, is_folder in entries:
        if is_folder:
            yield from files_below(path / name)
        else:
            yield path / name


def listed(folder: Path | str) -> list[tuple[str, bool]]:
    """The names in a folder, sorted, without those of the desktop, and which are folders that may be walked into.

    Raises:
        OSError: it cannot be listed.
    """
    with os.scandir(folder) as found:
        return sorted((one.name, _is_below(one)) for one in found if not one.name.startswith(_NO_DATA))


def _is_below(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, and no link to one in which the link lies."""
    if not entry.is_symlink():
        return entry.is_dir()
    if not os.path.isdir(entry.path):
        return False
    target = os.path.realpath(entry.path)
    # by every folder on the way, because the way may have led through other links
    above = (os.path.realpath(folder) for folder in Path(os.path.abspath(entry.path)).parents)
    return not any(Path(folder).is_relative_to(target) for folder in above)


def shown_path(path: Path, source: Source, *, patient_id: str | None = None, suspicious: bool = False) -> str:
    """The path in the archive as a message may show it: ids of patients in it are ``…``.

    Args:
        patient_id: of the row, where it is known; wherever it stands in the path it is hidden.
        suspicious: hide every long number but UIDs, for files whose patient is not known. Without it names that are
            long numbers and no dates are hidden.

    Where something is hidden the file is of one patient: then numbers of orders, times and UIDs are hidden as well, and
    the path ends in the first digits of the SHA-256 of the file (`sha256sum` finds it by them).
    """
    parts = path.parts[-1:]
    for real in (os.path.abspath, os.path.realpath):
        at, root = Path(real(path)), real(source.root)
        if at.is_relative_to(root):
            parts = at.relative_to(root).parts
            break
    shown = [_shown(part, patient_id, suspicious) for part in parts]
    if not any("…" in part for part in shown):
        return "/".join(shown)
    hidden = ("…" if study_uid(part) else _ORDER_OR_TIME.sub("…", LONG_UID.sub("…", part)) for part in shown)
    return "/".join(hidden) + _digits_of(path)


def _digits_of(path: Path) -> str:
    """In two blocks, because a long run of digits would be hidden; nothing of what cannot be read."""
    try:
        found = path.stat()
        digits = _sha256(path, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else ""
    except OSError:
        digits = ""
    return digits and f" (sha256 {digits[:4]} {digits[4:8]})"


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(part: str, patient_id: str | None, suspicious: bool) -> str:
    if study_uid(part):
        return part
    hidden = {patient_id, patient_id.lstrip("0")} if patient_id else set()
    for one in sorted((one for one in hidden if one), key=len, reverse=True):
        if len(one) > 2:
            part = part.replace(one, "…")
        elif part.split(".")[0] == one:
            part = "…" + part[len(one) :]
    if suspicious:
        return _DIGITS.sub("…", part)
    if (found := _ONLY_DIGITS.fullmatch(part)) and not _DAY_IN_A_NAME.fullmatch(part):
        return f"…{part[len(part.split('.')[0]) :]}" if found[1] else "…"
    return part


def options_of(source: Source, model: type[Options]) -> Options:
    """What archive.yaml says of a source, checked.

    Raises:
        ConfigError: an unknown option, or a value of the wrong type; names the source and the option.
    """
    problem = ""
    try:
        return model.model_validate(dict(source.options))
    except ValidationError as error:
        problem = "; ".join(
            f"option {'.'.join(str(part) for part in one['loc'])!r}: "
            + ("unknown" if one["type"] == "extra_forbidden" else one["msg"])
            for one in error.errors()
        )
    raise ConfigError(f"{source.path} ({source.format}): {problem}")
