"""A folder of DICOM files without the persons, file by file, in bounded memory.

    policy = study_policy(protocol, "pseudonymised")
    codes = {"00012345": "BS-0001"}
    done = deidentify_folder(archive, out, policy, codes=codes, uid_key=key, shifts=study_shifts(codes.values(), key))
    done.review.write(sheet, apart_from=[out])

Every file that goes in goes out, is quarantined (it waits for a person) or is excluded (it is none of the study's):
``files_in == files_out + quarantined + excluded``. What is written is searched, byte for byte, for what was taken out,
before it takes its name.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from reportlabel.deidentify.dates import DatePolicy
from reportlabel.deidentify.dicom import IDENTIFIER_LEFT, Result, deidentify_dataset, identifiers_of
from reportlabel.deidentify.dicom import REASONS as OBJECT_REASONS
from reportlabel.deidentify.dicom_policy import Dates, TagPolicy, load_policy
from reportlabel.deidentify.dicom_review import Decisions, ReviewSheet
from reportlabel.deidentify.dicom_scan import Canaries, canaries_of, scan_bytes
from reportlabel.deidentify.dicom_types import attribute_type
from reportlabel.errors import ConfigError, InputError
from reportlabel.export.atomic import AtomicFile
from reportlabel.ingest.codes import files_below, patient_number, shown_path
from reportlabel.ingest.rows import Source
from reportlabel.protocol import Profile, Protocol

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["REASONS", "FolderResult", "deidentify_folder", "is_uid", "named_in", "study_policy", "study_shifts"]

UNREADABLE = "The file cannot be read."
NOT_DICOM = "The file is no DICOM file."
DAMAGED = "The file is a damaged or cut off DICOM file."
DIRECTORY = "The file is a DICOMDIR, which lists other files."
NO_PATIENT = "The file has no patient id."
NOT_IN_STUDY = "The patient is not among those of the study."
SAME = "The same object was in an earlier file."
TWICE = "Another object with the same SOP Instance UID was in an earlier file."
NO_UID = "A UID of study, series or object is none: digits and dots, at most 64."
CANARY = "A word that must not go out stands in the new file."

REASONS = {
    **OBJECT_REASONS,
    UNREADABLE: "Copy the file again.",
    NOT_DICOM: "Take it out of the folder.",
    DAMAGED: "Send the study again from the archive.",
    DIRECTORY: "Nothing is to be done.",
    NO_PATIENT: "Correct the study in the archive.",
    NOT_IN_STUDY: "Nothing is to be done.",
    SAME: "Nothing is to be done.",
    TWICE: "Find out which of the two is right and leave the other out.",
    NO_UID: "Correct the object in the archive.",
    CANARY: "Add a rule for the attribute to the policy.",
}
"""The reasons for which a file does not go out, and what mends it."""

_DEFAULT_ACTION = "ps3_15_basic"
"""What becomes of attributes that a policy does not name; the engine knows no other way."""
_DATES: Mapping[str, Dates] = {"keep": "keep", "shift": "shift", "relative": "shift"}
"""Dates of a protocol -> of a file: the header has no place for a day before another day, so days move instead."""

_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_NOT_OUT = pl.Schema(
    {"file": pl.Int64, "path": pl.String, "outcome": pl.String, "reason": pl.String, "remedy": pl.String}
)
_ACTIONS = pl.Schema({"tag": pl.String, "keyword": pl.String, "done": pl.String, "basis": pl.String, "n": pl.Int64})


@dataclass
class FolderResult:
    """What became of a folder.

    Attributes:
        files_in, files_out, quarantined, excluded: counts; the first is the sum of the others.
        not_out: one row for each file that did not go out: `file` (its number in the order of names), `path` (below the
            folder; without ids and names), `outcome`, `reason`, `remedy`.
        actions: what was done in the files that went out: `tag`, `keyword` (empty: private), `done`, `basis`, `n`.
        review: what is to be decided.
        patients: the codes of the patients of whom a file went out.
    """

    files_in: int
    files_out: int
    quarantined: int
    excluded: int
    not_out: pl.DataFrame
    actions: pl.DataFrame
    review: ReviewSheet = field(repr=False)
    patients: frozenset[str] = frozenset()


def deidentify_folder(
    source: Path,
    out: Path,
    policy: TagPolicy,
    *,
    codes: Mapping[str, str],
    uid_key: bytes,
    decisions: Decisions | None = None,
    ages: Mapping[str, int] | None = None,
    shifts: Mapping[str, timedelta] | None = None,
    canaries: Canaries | None = None,
    id_width: int | None = None,
) -> FolderResult:
    """De-identify all DICOM files below a folder.

    A file goes to ``out/<patient code>/<study>/<series>/<object>.dcm``, named by its new UIDs; it appears whole or not
    at all. A run that was stopped leaves whole files and is begun again in an empty folder.

    Args:
        source: the folder, or one file.
        out: a folder that does not exist or is empty, so that nothing of an earlier run stays in it.
        policy: what becomes of each attribute.
        codes: patient id -> patient code; files of other patients are excluded.
        uid_key: the secret of the study for UIDs.
        decisions: of a reviewer; without them what the policy wants to be reviewed waits or goes.
        ages: patient code -> age, for files with neither age nor birth date.
        shifts: patient code -> whole days that are added to dates, where the policy shifts them.
        canaries: words that must not be in any new file, beside what is taken out of each.
        id_width: the digits of the hospital's patient ids; lost zeros are put back before `codes` is asked.

    Raises:
        InputError: the source does not exist.
        ConfigError: the folders lie in each other, `out` is not empty, two patients have one code, or a file cannot be
            written.
    """
    _check_folders(source, out)
    if len(set(codes.values())) != len(codes):
        raise ConfigError("two patient ids have the same code; codes are one-to-one")
    work = _Work(source, out, policy, codes, uid_key, decisions, ages or {}, shifts or {}, canaries, id_width)
    for number, path in enumerate(files_below(source), start=1):
        work.take(number, path)
    return work.result()


def study_policy(protocol: Protocol, profile: Profile) -> TagPolicy:
    """What becomes of each attribute in a study: the policy that its protocol names, with the answers of the protocol.

    Dates are kept or moved as the protocol says for the profile; dates that are relative in texts are moved in files.
    In anonymised files ages above ``deid.age_top`` become it.

    Raises:
        ConfigError: the study has no DICOM files, or the engine or the policy cannot do what the protocol asks.
    """
    asked = protocol.dicom
    if asked is None:
        raise ConfigError(f"{protocol.path}: the study has no DICOM files: 'dicom' is missing")
    if asked.default_action != _DEFAULT_ACTION:
        raise ConfigError(
            f"{protocol.path}: dicom.default_action '{asked.default_action}' is not known to this program, which does "
            f"{_DEFAULT_ACTION} with attributes that no rule names; no file was written"
        )
    policy = load_policy(asked.policy)
    coded = {
        f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag, rule in policy.rules.items() if rule.action == "patient_code"
    }
    if missing := sorted(set(protocol.codes.patient_code_tags) - coded):
        raise ConfigError(
            f"{protocol.path}: codes.patient_code_tags names {', '.join(missing)}, but the policy {policy.id} does not "
            "write the patient code there"
        )
    return policy.choose(
        fixed_strings=asked.fixed_strings,
        uids="keep" if asked.uid_policy == "keep_logged" else "replace",
        dates=_DATES[protocol.dates_of(profile)],
        age_cap=protocol.deid.age_top if profile == "anonymised" else None,
    )


def study_shifts(codes: Iterable[str], date_key: bytes) -> dict[str, timedelta]:
    """Patient code -> by how many days the dates of the patient move: the same as in the texts of the reports.

    Args:
        codes: of the patients in the linkage store.
        date_key: `LinkageStore.date_key`.
    """
    dates = DatePolicy("shift", key=date_key)
    return {code: dates.shift_of(code) for code in codes}


def _check_folders(source: Path, out: Path) -> None:
    if not source.exists():
        raise InputError(f"{source}: there is no such folder")
    inner, outer = out.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ConfigError(f"{out}: give a folder that is neither in {source} nor around it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        empty = not any(out.iterdir())
    except OSError as error:
        raise ConfigError(f"{out}: cannot be used as a folder for files: {error.strerror}") from None
    if not empty:
        raise ConfigError(f"{out}: is not empty; files of an earlier run could be of patients who have since refused")


class _File(AtomicFile):
    """A DICOM file that appears whole or not at all."""

    def write(self, data: bytes) -> None:
        self._open_stream().write(data)


@dataclass
class _Work:
    """The state of a run over a folder."""

    source: Path
    out: Path
    policy: TagPolicy
    codes: Mapping[str, str]
    uid_key: bytes
    decisions: Decisions | None
    ages: Mapping[str, int]
    shifts: Mapping[str, timedelta]
    canaries: Canaries | None
    id_width: int | None
    counts: Counter[str] = field(default_factory=Counter)
    not_out: list[tuple[int, str, str, str, str]] = field(default_factory=list)
    actions: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    review: ReviewSheet = field(default_factory=ReviewSheet)
    patients: set[str] = field(default_factory=set)
    written: dict[str, bytes] = field(default_factory=dict)
    """New SOP Instance UID -> the first bytes of the hash of its file."""

    def take(self, number: int, path: Path) -> None:
        """One file."""
        names: list[str] = []
        outcome, reason = self._take(path, names)
        self.counts[outcome] += 1
        if reason is not None:
            shown = _shown(path, self.source, names, number)
            self.not_out.append((number, shown, outcome, reason, REASONS[reason]))

    def _take(self, path: Path, names: list[str]) -> tuple[str, str | None]:
        with warnings.catch_warnings():  # they quote values
            warnings.simplefilter("ignore")
            dataset, problem = _read(path)
            if dataset is None:
                return ("excluded" if problem == DIRECTORY else "quarantined"), problem
            try:
                patient_id = patient_number(str(dataset.get("PatientID") or "").strip(" \0"), width=self.id_width)
                names += [patient_id] if patient_id else []
                names += identifiers_of(dataset.get("PatientName"), is_name=True)
                if patient_id is None:
                    return "quarantined", NO_PATIENT
                code = self.codes.get(patient_id)
                if code is None:
                    return "excluded", NOT_IN_STUDY
                result = deidentify_dataset(
                    dataset,
                    self.policy,
                    patient_code=code,
                    uid_key=self.uid_key,
                    age=self.ages.get(code),
                    shift=self.shifts.get(code),
                    decisions=self.decisions,
                )
                data = _bytes(result.dataset) if result.dataset is not None else b""
            except ConfigError:
                raise
            except Exception:  # whatever a damaged value makes the library raise
                return "quarantined", DAMAGED
        self.review.add(result.review)
        if result.dataset is None:
            return result.outcome, result.reason
        return self._write(result, result.dataset, data, code)

    def _write(self, result: Result, dataset: Dataset, data: bytes, code: str) -> tuple[str, str | None]:
        study, series, uid = (
            str(dataset.get(name) or "").strip(" \0")
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        )
        if not is_uid(uid) or not all(one == "" or is_uid(one) for one in (study, series)):
            return "quarantined", NO_UID
        known, digest = self.written.get(uid), sha256(data).digest()[:12]
        if known is not None:
            return ("excluded", SAME) if known == digest else ("quarantined", TWICE)
        if canaries_of(result.identifiers).in_bytes(data):  # its texts have been searched already
            return "quarantined", IDENTIFIER_LEFT
        if self.canaries is not None and scan_bytes(data, self.canaries):
            return "quarantined", CANARY
        folder = self.out / code / (study or "none") / (series or "none")
        if not folder.resolve().is_relative_to(self.out.resolve()):
            raise ConfigError(f"a file would lie outside {self.out}; it was not written")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write below {self.out}: {error.strerror}") from None
        with _File(folder / f"{uid}.dcm") as file:
            file.write(data)
        self.written[uid] = digest
        self.patients.add(code)
        self.actions.update((one.tag, one.keyword, one.done, one.basis) for one in result.actions)
        return "out", None

    def result(self) -> FolderResult:
        """The counts and tables of the run."""
        actions = [(*key, n) for key, n in sorted(self.actions.items())]
        return FolderResult(
            files_in=sum(self.counts.values()),
            files_out=self.counts["out"],
            quarantined=self.counts["quarantined"],
            excluded=self.counts["excluded"],
            not_out=pl.DataFrame(self.not_out, schema=_NOT_OUT, orient="row"),
            actions=pl.DataFrame(actions, schema=_ACTIONS, orient="row"),
            review=self.review,
            patients=frozenset(self.patients),
        )


_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether a text is a UID: numbers with dots between them, 64 characters at most (DICOM PS3.5 chapter 9).

    Zeros in front of a number, which the standard forbids and archives hold, are let pass. What is a UID is safe as a
    name of a file: it has no slash, and no two dots follow each other.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _read(path: Path) -> tuple[Dataset | None, str]:
    """The data set of a file, or why there is none."""
    from pydicom import dcmread

    try:
        with path.open("rb") as file:
            head = file.read(140)
            marked = head[128:132] == b"DICM"
            # a file without a preamble begins with an element of group 0008 that is not longer than a header may be
            if not marked and not (head[:2] == b"\x08\x00" and head[3:4] == b"\x00" and len(head) > 16):
                return None, NOT_DICOM
            file.seek(0)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                dataset = dcmread(file, force=not marked)
            if _is_cut_off(dataset) or any(str(one.message).startswith("End of file") for one in said):
                return None, DAMAGED
            classes = {str(dataset.get("SOPClassUID")), str(dataset.file_meta.get("MediaStorageSOPClassUID"))}
            return (None, DIRECTORY) if _DIRECTORY_CLASS in classes else (dataset, "")
    except OSError as error:  # one without a number is the library's word for a file that ends too early
        return None, DAMAGED if error.errno is None else UNREADABLE
    except Exception:  # whatever a damaged file makes the library raise
        return None, DAMAGED


def _is_cut_off(dataset: Dataset) -> bool:
    """Whether the file ends too early: the library reads what there is, and part of a picture would pass for it all."""
    from pydicom.dataelem import RawDataElement

    for tag in list(dataset.keys()):
        raw = dataset.get_item(tag)
        if isinstance(raw, RawDataElement) and raw.length != 0xFFFFFFFF and len(raw.value or b"") < raw.length:
            return True
    pixels = [name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in dataset]
    needed = attribute_type(str(dataset.get("SOPClassUID")), "PixelData") in ("1", "1C")
    return needed and not pixels and bool(dataset.get("Rows"))


def _bytes(dataset: Dataset) -> bytes:
    from pydicom import dcmwrite

    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _shown(path: Path, source: Path, names: list[str], number: int) -> str:
    """The path as a message may show it: only the number of the file where the path names the patient."""
    root = source if source.is_dir() else source.parent
    shown = shown_path(path, Source("dicom", source, root), patient_id=next(iter(names), None), suspicious=True)
    return f"file {number}" if named_in(Path(shown), Canaries(names)) else shown


def named_in(path: Path, canaries: Canaries) -> set[int]:
    """The canaries in a path; separators of words in names of files count as blanks."""
    return canaries.in_text(path.as_posix().replace("_", " "))
