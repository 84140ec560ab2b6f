"""A DICOM object without the person: each attribute, at every depth, as the policy of the study says.

    policy = load_policy("gunma_bone_scan")
    result = deidentify_dataset(dcmread(path), policy, patient_code="BS-0001", uid_key=key)

The order: what can never go out is put aside (unknown kinds of object, words burned into the picture); the age is
worked out while the birth date is there; each attribute is kept, emptied, replaced or removed; private attributes,
overlays and doubtful pictures wait for a decision or go; the patient code and a record of what was done are written in;
at last all remaining text is searched for what was taken out. Pixels are not touched.

UIDs are replaced by a keyed hash (HMAC-SHA-256), so that one UID is the same new one in all files and runs, references
between objects hold, and without the key nobody finds the way back.

The object that goes in is not changed. For whole folders see :mod:`reportlabel.deidentify.dicom_folder`.
"""

from __future__ import annotations

import hmac
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from reportlabel.deidentify.dicom_policy import MethodName, Plan, TagPolicy
from reportlabel.deidentify.dicom_review import Decision, Decisions, ReviewItem, ReviewKey
from reportlabel.deidentify.dicom_scan import canaries_of, scan_dataset
from reportlabel.deidentify.dicom_types import attribute_type, is_known_sop_class
from reportlabel.errors import ConfigError
from reportlabel.ingest.dates import age_on, parse_day

__all__ = ["REASONS", "Action", "Result", "deidentify_dataset", "identifiers_of", "pseudo_uid", "shift_of"]

NO_SOP_CLASS = "The object has no SOP Class UID or SOP Instance UID."
UNKNOWN_SOP_CLASS = "The SOP class is unknown, so it is not known what its attributes must hold."
NOT_TAKEN = "The study does not take objects of this SOP class."
DOCUMENT = "The object holds a whole document or a file of another kind."
REPORT = "The object is a structured report, which has free text."
BURNED_IN = "The header says that words are burned into the picture."
OVERLAY_IN_PIXELS = "An overlay is written into the unused bits of the pixels."
PIXELS_UNDECIDED = "The picture may have words in it and nobody has decided on it."
PIXELS_REJECTED = "A reviewer decided that pictures of this kind do not go out."
PRIVATE_UNDECIDED = "The object has private attributes on which nobody has decided."
OVERLAY_UNDECIDED = "The object has overlays on which nobody has decided."
IDENTIFIER_LEFT = "A name or number that was removed stands in another attribute too."

REASONS = {
    NO_SOP_CLASS: "Correct the study in the archive.",
    UNKNOWN_SOP_CLASS: "Leave the object out, or convert it to a SOP class of the current standard.",
    NOT_TAKEN: "Nothing is to be done, or name the SOP class in the policy (sop_classes).",
    DOCUMENT: "Leave the object out; documents are de-identified by hand.",
    REPORT: "Leave the report out, or name its SOP class in the policy (structured_reports, clean).",
    BURNED_IN: "Leave the picture out, or export it from the device without words.",
    OVERLAY_IN_PIXELS: "Leave the picture out, or export it from the device without overlays.",
    PIXELS_UNDECIDED: "Look at such pictures, fill in the review sheet and run again with it.",
    PIXELS_REJECTED: "Nothing is to be done.",
    PRIVATE_UNDECIDED: "Fill in the review sheet and run again with it.",
    OVERLAY_UNDECIDED: "Fill in the review sheet and run again with it.",
    IDENTIFIER_LEFT: "Add a rule for the attribute to the policy; the table of actions names it.",
}
"""The reasons for which an object does not go out, and what mends it."""

Outcome = Literal["out", "quarantined", "excluded"]
Done = Literal[
    "kept", "emptied", "removed", "dummy", "replaced", "uid", "uid kept", "patient code", "age", "shifted", "cleaned",
    "found",
]  # fmt: skip

_PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
_TEXT = frozenset({"AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_NUMBERS = frozenset({"FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "AT", "US or SS", "US or SS or OW", "US or OW"})
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TIME_MODIFIED = {"keep": "UNMODIFIED", "shift": "MODIFIED", "remove": "REMOVED"}
_DAY_OR_TIME = re.compile(r"[\d.:+\- \\\[\]',]*")
_STRONGER = {"remove": 0, "empty": 1, "dummy": 2}
_FLOOR = {"Z": "empty", "D": "dummy", "Z/D": "empty"}
_BY_TYPE = {"1": "dummy", "1C": "dummy", "2": "empty", "2C": "empty", "3": "remove"}
# identifiers whose old value must not be anywhere in the new object; names of persons are all searched for
_SEARCHED = frozenset(
    {
        "PatientID", "OtherPatientIDs", "AccessionNumber", "PatientAddress", "PatientTelephoneNumbers",
        "MedicalRecordLocator", "AdmissionID", "InstitutionName", "InstitutionAddress",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Action:
    """What was done with an attribute: its tag, its keyword, the keywords of the sequences around it, and why.

    Private attributes have no keyword. An unlisted attribute that stays is no action.
    """

    tag: str
    keyword: str
    path: tuple[str, ...]
    done: Done
    basis: str


@dataclass(frozen=True)
class Result:
    """What became of an object.

    Attributes:
        outcome: out, quarantined (it waits for a person) or excluded (it is none of the study's).
        dataset: the new object with its file meta information, if it goes out.
        reason: why it does not; a key of `REASONS`.
        review: what is to be decided, decided or not.
        actions: what was done, in the order of the attributes.
        identifiers: what was taken out, to be searched for in what is written. Never show it.
    """

    outcome: Outcome
    dataset: Dataset | None
    reason: str | None
    review: tuple[ReviewItem, ...] = field(repr=False)
    actions: tuple[Action, ...] = field(repr=False)
    identifiers: tuple[str, ...] = field(default=(), repr=False)


def pseudo_uid(key: bytes, uid: str) -> str:
    """Another UID for a UID: ``2.25.`` and the first 128 bits of its HMAC-SHA-256 as a number (PS3.5 B.2).

    The same for the same key and UID; at most 44 characters.
    """
    digest = hmac.new(key, uid.strip(" \0").encode(), "sha256").digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def shift_of(key: bytes, patient_code: str, bounds: tuple[int, int]) -> timedelta:
    """By how much the dates of a patient move, back: the same in all files, and nobody knows it without the key."""
    least, most = bounds
    number = int.from_bytes(hmac.new(key, b"days\0" + patient_code.encode(), "sha256").digest()[:8], "big")
    return -timedelta(days=least + number % (most - least + 1))


def deidentify_dataset(
    dataset: Dataset,
    policy: TagPolicy,
    *,
    patient_code: str,
    uid_key: bytes,
    age: int | None = None,
    shift: timedelta | None = None,
    decisions: Decisions | None = None,
) -> Result:
    """De-identify one object.

    Args:
        dataset: as ``pydicom.dcmread`` gives it, with pixels; it is not changed.
        policy: what becomes of each attribute.
        patient_code: what stands for the patient; letters, digits, ``_``, ``.`` and ``-``.
        uid_key: the secret of the study for UIDs, 16 bytes or more; it is kept with the linkage store.
        age: in years, where the object has neither age nor birth date.
        shift: whole days that are added to the dates of the patient, where the policy shifts them, so that they move
            with those of the reports; without it the number comes from key and code.
        decisions: of a reviewer; see `read_decisions`.

    Raises:
        ConfigError: the patient code or the key cannot be used.
    """
    if not _CODE.fullmatch(patient_code):
        raise ConfigError("a patient code is made of letters, digits, '_', '.' and '-', 64 at most")
    if len(uid_key) < 16:
        raise ConfigError("the key for UIDs has less than 16 bytes; take the key of the linkage store")
    with warnings.catch_warnings():  # they quote values
        warnings.simplefilter("ignore")
        sop_class = _plain_text(dataset, "SOPClassUID")
        if policy.taken and sop_class and sop_class not in policy.taken:
            return Result("excluded", None, NOT_TAKEN, (), ())
        reason = _never(dataset, policy, sop_class)
        if reason:
            return Result("quarantined", None, reason, (), ())
        if shift is None:
            shift = shift_of(uid_key, patient_code, policy.file.shift_days)
        cleaner = _Cleaner(dataset, policy, patient_code, uid_key, _age(dataset, age, policy), shift, decisions or {})
        return cleaner.run()


def identifiers_of(value: Any, *, is_name: bool) -> list[str]:
    """The words of a value that would tell the person, or those who treated the person, anywhere.

    Of a name the whole and its parts: of two characters or more, kana of three, Latin letters of four. Of anything else
    the whole: a number of six digits, other values of four characters.
    """
    words: list[str] = []
    for one in _values(value):
        for group in str(one).split("=") if is_name else [str(one)]:
            parts = [part for part in re.split(r"[\^\s]+" if is_name else r"\^", group.strip(" \0")) if part.strip()]
            words += ["^".join(parts), *parts] if len(parts) > 1 else parts
    return [word for word in dict.fromkeys(words) if _is_rare(word, least=2 if is_name else 4)]


def _is_rare(word: str, *, least: int) -> bool:
    letters = word.replace("^", "")
    if letters.isdigit():
        return len(letters) >= 6
    if letters.isascii():
        return len(letters) >= 4
    kana = all("\u3040" <= one <= "\u30ff" or "\uff61" <= one <= "\uff9f" for one in letters)
    return len(letters) >= (max(3, least) if kana else least)


# --- before an attribute is looked at ---------------------------------------------------------------------------------


def _never(dataset: Dataset, policy: TagPolicy, sop_class: str) -> str | None:
    """Why an object cannot go out whatever a reviewer says."""
    if not sop_class or not _plain_text(dataset, "SOPInstanceUID"):
        return NO_SOP_CLASS
    if sop_class in policy.documents:
        return DOCUMENT
    if not is_known_sop_class(sop_class):
        return UNKNOWN_SOP_CLASS
    if sop_class in policy.reports and sop_class not in policy.cleaned_reports:
        return REPORT
    if _plain_text(dataset, "BurnedInAnnotation").upper() == "YES":
        return BURNED_IN
    if any(_is_in_pixels(dataset, group) for group in range(0x6000, 0x6100, 2)):
        return OVERLAY_IN_PIXELS
    return None


def _is_in_pixels(dataset: Dataset, group: int) -> bool:
    """An overlay of the retired kind without data of its own: it lies in a bit of the pixels (PS3.3 C.9.2, 2004)."""
    bits = _plain_text_at(dataset, group, 0x0100)
    return (group, 0x3000) not in dataset and bits not in ("", "0", "1")


def _age(dataset: Dataset, given: int | None, policy: TagPolicy) -> str | None:
    """The age at the exam as PS3.5 writes it: as it stands, else from the birth date, else as given."""
    written = _plain_text(dataset, "PatientAge")
    cap = policy.file.age_cap
    if re.fullmatch(r"\d{3}[DWMY]", written):
        over = cap is not None and written[3] == "Y" and int(written[:3]) > cap
        return f"{cap:03d}Y" if over else written
    born = parse_day(_plain_text(dataset, "PatientBirthDate"))
    days = (parse_day(_plain_text(dataset, f"{name}Date")) for name in ("Study", "Series", "Acquisition", "Content"))
    day = next((one for one in days if one), None)
    years = age_on(day, born) if day and born else None
    if day and born and (day.year, day.month, day.day) < (born.year + 2, born.month, born.day):
        return _age_of_a_child(day, born)
    years = given if years is None else years
    if years is None or not 0 <= years <= 150:
        return None
    return f"{years if cap is None else min(years, cap):03d}Y"


def _age_of_a_child(day: date, born: date) -> str | None:
    """Under four weeks in days, under two years in months."""
    days = (day - born).days
    if days < 0:
        return None
    months = (day.year - born.year) * 12 + day.month - born.month - (day.day < born.day)
    return f"{days:03d}D" if days < 28 else f"{max(months, 1):03d}M"


def _plain_text(dataset: Dataset, name: str) -> str:
    """The first value of an attribute; empty where there is none or it cannot be read."""
    try:
        value = dataset.get(name)
    except Exception:  # a value that does not fit its kind
        return ""
    if value is not None and not isinstance(value, str) and type(value).__name__ == "MultiValue":
        value = value[0] if value else None
    return "" if value is None else str(value).strip(" \0")


# --- an object --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _At:
    """An attribute on its way from one data set to another.

    `path`: the keywords of the sequences around it; `vr`: its value representation; `plan`: what is to be done with it.
    """

    tag: BaseTag
    vr: str
    keyword: str
    dataset: Dataset
    new: Dataset
    path: tuple[str, ...]
    plan: Plan

    @property
    def raw(self) -> DataElement | RawDataElement | None:
        """The element as it was read, not yet converted."""
        return self.dataset.get_item(self.tag)

    @property
    def element(self) -> DataElement | None:
        """The element with its value; None if the value does not fit its kind."""
        return _element(self.tag, self.dataset)

    def planned(self, action: str) -> _At:
        """The same attribute with another action."""
        return replace(self, plan=Plan(action, "kind"))

    def copy(self) -> None:
        """Into the new data set as it was written."""
        raw = self.raw
        if raw is not None:
            self.new[self.tag] = raw

    def write(self, value: Any) -> None:
        """Into the new data set with a value."""
        self.new[self.tag] = DataElement(self.tag, self.vr, value)


class _Cleaner:
    """One object on its way; `run` is called once."""

    def __init__(
        self,
        dataset: Dataset,
        policy: TagPolicy,
        patient_code: str,
        uid_key: bytes,
        age: str | None,
        shift: timedelta,
        decisions: Decisions,
    ) -> None:
        self.dataset = dataset
        self.policy = policy
        self.patient_code = patient_code
        self.uid_key = uid_key
        self.age = age
        self.shift = timedelta(days=shift.days)
        self.decisions = decisions
        self.sop_class = _plain_text(dataset, "SOPClassUID")
        self.is_report = self.sop_class in policy.reports
        self.actions: list[Action] = []
        self.review: list[ReviewItem] = []
        self.undecided: set[str] = set()
        self.kept: set[str] = set()
        """Groups of attributes that stay although the profile takes them out; "other" if no option allows it."""
        self.identifiers: dict[str, None] = {}

    def run(self) -> Result:
        new = self._clean(self.dataset, ())
        pixels = self._pixels()
        if pixels == "remove":
            return self._put_aside(PIXELS_REJECTED, "excluded")
        if pixels is None:
            return self._put_aside(PIXELS_UNDECIDED)
        for kind, reason, then in (
            ("private", PRIVATE_UNDECIDED, self.policy.file.private.undecided),
            ("overlay", OVERLAY_UNDECIDED, self.policy.file.overlays.undecided),
        ):
            if kind in self.undecided and then == "quarantine":
                return self._put_aside(reason)
        self._write_in(new)
        self._record(new)
        if self._left(new):
            return self._put_aside(IDENTIFIER_LEFT)
        new.file_meta = self._file_meta(new)
        new.preamble = b"\0" * 128
        return Result("out", new, None, tuple(self.review), tuple(self.actions), tuple(self.identifiers))

    def _put_aside(self, reason: str, outcome: Outcome = "quarantined") -> Result:
        return Result(outcome, None, reason, tuple(self.review), tuple(self.actions))

    # --- attributes

    def _clean(self, dataset: Dataset, path: tuple[str, ...]) -> Dataset:
        """A new data set with what stays of this one."""
        new = Dataset()
        implicit, little = dataset.original_encoding
        new.set_original_encoding(implicit, little, dataset.original_character_set)
        for tag in sorted(dataset.keys()):
            if tag.element == 0:
                continue  # lengths of groups are retired and would be wrong
            if tag.group % 2:
                self._private(tag, dataset, new, path)
            elif 0x6000 <= tag.group < 0x6100:
                self._overlay(tag, dataset, new, path)
            else:
                self._public(tag, dataset, new, path)
        return new

    def _public(self, tag: BaseTag, dataset: Dataset, new: Dataset, path: tuple[str, ...]) -> None:
        vr, keyword = _vr(tag, dataset), keyword_for_tag(tag)
        # what an attribute is the dictionary knows better than a file that calls a name a text
        plan = self.policy.plan(int(tag), dictionary_VR(tag) if keyword else vr)
        if path and path[-1] == "ContentSequence" and vr != "SQ" and self._tells_the_person(dataset, keyword):
            plan = Plan("D", "kind")
        at = _At(tag, vr, keyword, dataset, new, path, plan)
        act: dict[str, Callable[[_At], None]] = {
            "keep": self._keep, "K": self._keep, "uid": self._uid, "U": self._uid, "shift": self._move,
            "patient_code": self._code, "replace": self._replace, "age_at_exam": self._write_age, "X/Z/U*": self._keep,
        }  # fmt: skip
        stays = plan.action in ("keep", "K", "X/Z/U*")
        if vr == "SQ" and (stays or (keyword in self.policy.profile.cleaned_items and plan.action != "delete")):
            self._items(at)
        else:
            act.get(plan.action, self._take_out)(at)

    def _items(self, at: _At) -> None:
        """Each item of a sequence is cleaned in its turn."""
        if at.element is None or not isinstance(at.element.value, Sequence):
            self._take_out(at.planned("X"))
            return
        items = [self._clean(item, (*at.path, at.keyword)) for item in at.element.value]
        at.write(Sequence(items))
        if at.plan.listed:
            self._note(at, "cleaned")

    def _keep(self, at: _At) -> None:
        """As it was written, byte for byte; but not text that cannot be read, since nobody knows what it says."""
        no_time = at.plan.basis == "dates" and not _DAY_OR_TIME.fullmatch(_text_of(at.element))
        if no_time or (at.vr in _TEXT and _is_undecodable(at)):
            self._take_out(at.planned("X"))
            return
        at.copy()
        if at.plan.listed or at.plan.basis == "rule":
            self._note(at, "kept")
        if at.plan.listed and getattr(at.raw, "value", None):
            self.kept.add(at.plan.option or "other")

    def _uid(self, at: _At) -> None:
        """Another UID for each that names a thing; those of the standard itself stay."""
        if at.element is None:
            self._take_out(at.planned("X"))
        elif self.policy.file.uids == "keep":
            at.copy()
            self.kept.add("uids")
            self._note(at, "uid kept")
        else:
            uids = [str(one) for one in _values(at.element.value)]
            at.write([uid if _is_of_the_standard(uid) else pseudo_uid(self.uid_key, uid) for uid in uids] or None)
            self._note(at, "uid")

    def _move(self, at: _At) -> None:
        days = [None] if at.element is None else [_moved(str(one), self.shift) for one in _values(at.element.value)]
        if None in days:  # a day that cannot be moved may not stay
            self._take_out(at.planned("X"))
            return
        at.write(days or None)
        if days:
            self.kept.add("moved dates")
        self._note(at, "shifted")

    def _code(self, at: _At) -> None:
        self._remember(at)
        at.write(self.patient_code)
        self._note(at, "patient code")

    def _replace(self, at: _At) -> None:
        self._remember(at)
        at.write(at.plan.value)
        self._note(at, "replaced")

    def _write_age(self, at: _At) -> None:
        """In an item of a sequence the age may be that at another exam; it becomes that at this one."""
        if self.age is None:
            self._take_out(at.planned("X"))
            return
        at.write(self.age)
        self.kept.add("patient_characteristics")
        self._note(at, "age")

    def _take_out(self, at: _At) -> None:
        """The value goes; what stays of the attribute its Type in the object decides."""
        self._remember(at)
        its_type = attribute_type(self.sop_class, at.keyword, at.path) or "3"
        stays = max((_FLOOR.get(at.plan.action, "remove"), _BY_TYPE[its_type]), key=_STRONGER.__getitem__)
        if at.vr == "SQ":
            self._take_out_items(at, its_type)
        elif stays == "dummy" and at.vr == "UI" and at.element is not None:
            self._uid(at)
        elif stays == "dummy":
            at.write(self._dummy(at.vr, at.tag))
            self._note(at, "dummy")
        elif stays == "empty":
            at.write(None)
            self._note(at, "emptied")
        else:
            self._note(at, "removed")

    def _take_out_items(self, at: _At, its_type: str) -> None:
        """A sequence that must not be empty has its items cleaned, or one that says nothing; others go as a whole."""
        if at.keyword in self.policy.profile.dummy_items and its_type in ("1", "1C"):
            at.write(Sequence([_dummy_item(at.keyword)]))
            self._note(at, "dummy")
        elif its_type == "1" and at.element is not None and isinstance(at.element.value, Sequence):
            self._items(at)
        elif its_type in ("2", "2C") or _FLOOR.get(at.plan.action) == "empty":
            at.write(Sequence())
            self._note(at, "emptied")
        else:
            self._note(at, "removed")

    def _dummy(self, vr: str, tag: BaseTag) -> Any:
        if vr == "UI":
            return pseudo_uid(self.uid_key, f"{self.patient_code} {int(tag):08X}")
        if vr in _NUMBERS:
            return 0
        return self.policy.profile.dummies.get(vr, b"\0\0")

    # --- structured reports

    def _tells_the_person(self, item: Dataset, keyword: str) -> bool:
        """A value of a content item whose concept is a person or a number of the patient or the order."""
        if keyword not in ("Date", "DateTime", "Time", "TextValue", "PersonName", "UID"):
            return False
        names = item.get("ConceptNameCodeSequence") or ()
        return any(_plain_text(name, "CodeValue") in self.policy.profile.person_concepts for name in names)

    # --- private attributes, overlays, pixels

    def _private(self, tag: BaseTag, dataset: Dataset, new: Dataset, path: tuple[str, ...]) -> None:
        if tag.element < 0x0100:
            return  # names of creators come with what they created
        block = Tag(tag.group, tag.element >> 8)
        creator = _text_of(_element(block, dataset)) if block in dataset else ""
        element = _element(tag, dataset)
        vr = element.VR if element is not None else "UN"
        key = ReviewKey("private", creator, f"({tag.group:04X},xx{tag.element & 0xFF:02X})", vr)
        decision = self._decide_private(key, tag)
        if self.policy.file.private.action == "review" and not self._is_listed(key, tag):
            self.review.append(ReviewItem(key, _private_name(element), _shown(element)))
        at = _At(tag, vr, "", dataset, new, path, Plan("X", "kind"))
        self._remember(at)
        if vr == "SQ" and element is not None and decision != "remove":
            kept, n_actions = set(self.kept), len(self.actions)
            items = Sequence([self._clean(item, (*path, "private")) for item in element.value])
            if decision == "keep":
                at.write(items)
            else:  # looked at for the review only
                self.kept = kept
                del self.actions[n_actions:]
        elif decision == "keep" and element is not None:
            action = {"UI": "U", "PN": "X", "DA": self._dates(), "DT": self._dates()}.get(vr, "keep")
            act = {"U": self._uid, "shift": self._move, "keep": self._keep, "X": None}[action]
            if act is not None:
                act(at)
        if tag not in new:
            self._note(at, "removed")
            return
        if block not in new:
            new[block] = DataElement(block, "LO", creator)
        self.kept.add("private")
        if vr not in ("UI", "DA", "DT"):
            self._note(at, "kept")

    def _dates(self) -> str:
        return {"keep": "keep", "shift": "shift", "remove": "X"}[self.policy.file.dates]

    def _is_listed(self, key: ReviewKey, tag: BaseTag) -> bool:
        return (key.creator, int(tag.group), int(tag.element) & 0xFF) in self.policy.private_kept

    def _decide_private(self, key: ReviewKey, tag: BaseTag) -> Decision | None:
        if not key.creator:
            return "remove"  # without a creator nobody knows what it is
        if self._is_listed(key, tag):
            return "keep"
        if self.policy.file.private.action == "remove":
            return "remove"
        decision = self.decisions.get(key)
        if decision is None:
            self.undecided.add("private")
        return decision

    def _overlay(self, tag: BaseTag, dataset: Dataset, new: Dataset, path: tuple[str, ...]) -> None:
        """An overlay goes or stays as a whole; its label and description, which are free text, always go."""
        key = ReviewKey("overlay", "", f"({tag.group:04X},3000)", _plain_text_at(dataset, tag.group, 0x0040))
        decision: Decision | None = "remove"
        if self.policy.file.overlays.action == "review" and not path:
            decision = self.decisions.get(key)
            if tag.element == 0x3000:
                words = (_plain_text_at(dataset, tag.group, element) for element in (0x1500, 0x0022, 0x4000))
                size = "x".join(_plain_text_at(dataset, tag.group, element) for element in (0x0010, 0x0011))
                self.review.append(ReviewItem(key, "OverlayData", " ".join([size, *filter(None, words)])))
            if decision is None:
                self.undecided.add("overlay")
        at = _At(tag, _vr(tag, dataset), keyword_for_tag(tag), dataset, new, path, Plan("X", "profile", listed=True))
        if decision != "keep" or at.vr in _TEXT - {"CS"}:
            self._note(at, "removed")
            return
        at.copy()
        self.kept.add("overlay")
        self._note(at, "kept")

    def _pixels(self) -> Decision | None:
        """Whether the picture may go out; None if nobody has decided on such pictures."""
        dataset, risk = self.dataset, self.policy.profile.burned_in
        if not any(tag in dataset for tag in _PIXELS):
            return "keep"
        modality = _plain_text(dataset, "Modality").upper()
        kinds = [str(one).strip().upper() for one in _values(dataset.get("ImageType"))]
        risky = self.sop_class in self.policy.burned_in or modality in risk.modalities
        if not risky and not set(kinds) & set(risk.image_types):
            return "keep"
        makers = (_plain_text(dataset, name) for name in ("Manufacturer", "ManufacturerModelName"))
        device = " ".join(filter(None, makers))
        size = "x".join(_plain_text(dataset, name) for name in ("Rows", "Columns"))
        key = ReviewKey("pixels", device, _class_name(self.sop_class), " ".join([modality, "/".join(kinds), size]))
        self.review.append(ReviewItem(key, "PixelData", ""))
        if self.policy.file.pixels.burned_in == "quarantine":
            return None
        decision = self.decisions.get(key)
        if decision == "keep":
            self.kept.add("pixels looked at")
        return decision

    # --- what is written in

    def _write_in(self, new: Dataset) -> None:
        """Code and age also where their attributes were missing."""
        for number, rule in self.policy.rules.items():
            value = {"patient_code": self.patient_code, "age_at_exam": self.age}.get(rule.action)
            if number in new or value is None:
                continue
            tag = Tag(number)
            at = _At(tag, dictionary_VR(tag), keyword_for_tag(tag), self.dataset, new, (), Plan(rule.action, "rule"))
            at.write(value)
            self._note(at, "age" if rule.action == "age_at_exam" else "patient code")
            if rule.action == "age_at_exam":
                self.kept.add("patient_characteristics")

    def _record(self, new: Dataset) -> None:
        """That the identity was removed, how, and what stays (PS3.15 E.1.1, PS3.3 C.12.1.1.8)."""
        dates = self.policy.file.dates
        profile = self.policy.profile
        new.PatientIdentityRemoved = "YES"
        method = f"PS3.15 {profile.edition}, policy {self.policy.id}"
        new.DeidentificationMethod = method if len(method) <= 64 else method[:64]
        new.LongitudinalTemporalInformationModified = _TIME_MODIFIED[dates]
        names: dict[MethodName, bool] = {
            "basic": "other" not in self.kept,
            "clean_pixels": "pixels looked at" in self.kept,
            "clean_graphics": "overlay" in self.kept,
            "clean_structured_content": self.is_report,
            "full_dates": "dates" in self.kept and dates != "shift",
            "modified_dates": "moved dates" in self.kept,
            "patient_characteristics": "patient_characteristics" in self.kept,
            "device_identity": "device_identity" in self.kept,
            "uids": "uids" in self.kept,
            "safe_private": "private" in self.kept,
            "institution_identity": "institution_identity" in self.kept,
        }
        codes = []
        for name, holds in names.items():
            if not holds:
                continue
            code = profile.method_codes[name]
            item = Dataset()
            item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.code, "DCM", code.meaning
            codes.append(item)
        new.DeidentificationMethodCodeSequence = Sequence(codes)
        if "pixels looked at" in self.kept:
            new.BurnedInAnnotation = "NO"

    def _file_meta(self, new: Dataset) -> FileMetaDataset:
        """File meta information of our own: nothing of the program or the network that sent the file stays."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(self.sop_class)
        meta.MediaStorageSOPInstanceUID = new.SOPInstanceUID
        old = getattr(self.dataset, "file_meta", None)
        written = old.get("TransferSyntaxUID") if old is not None else None
        meta.TransferSyntaxUID = UID(str(written)) if written else _syntax(*self.dataset.original_encoding)
        return meta

    def _left(self, new: Dataset) -> bool:
        """Whether anything that was taken out stands in what stays; the table of actions then says where."""
        written = {self.patient_code, *self.policy.profile.dummies.values()}
        written |= {rule.value for rule in self.policy.rules.values() if rule.value}
        words = [word for word in self.identifiers if not any(word.casefold() in one.casefold() for one in written)]
        hits = scan_dataset(new, canaries_of(tuple(words)))
        # a word that also stands where it may stand is not searched for in the bytes of the file
        allowed = {hit.canary for hit in hits if _keyword_at(hit.where) in self.policy.profile.not_searched}
        self.identifiers = dict.fromkeys(word for index, word in enumerate(words) if index not in allowed)
        hits = [hit for hit in hits if _keyword_at(hit.where) not in self.policy.profile.not_searched]
        for where in dict.fromkeys(hit.where for hit in hits):
            self.actions.append(Action(where, "", (), "found", "search"))
        return bool(hits)

    # --- notes

    def _note(self, at: _At, done: Done) -> None:
        self.actions.append(Action(_shown_tag(at.tag), at.keyword, at.path, done, at.plan.basis))

    def _remember(self, at: _At) -> None:
        """Keep in mind what is taken out, to search for it at the end; of a sequence, what is in it."""
        if at.vr == "SQ":
            items = at.element.value if at.element is not None else ()
            for item in items if isinstance(items, Sequence) else ():
                for tag in list(item.keys()):
                    self._remember(_At(tag, _vr(tag, item), keyword_for_tag(tag), item, at.new, (), at.plan))
        elif (at.keyword in _SEARCHED or at.vr == "PN") and at.element is not None and at.element.value:
            self.identifiers.update(dict.fromkeys(identifiers_of(at.element.value, is_name=at.vr == "PN")))


# --- elements ---------------------------------------------------------------------------------------------------------


def _vr(tag: BaseTag, dataset: Dataset) -> str:
    """The value representation as it is written; where the writing has none, that of the dictionary."""
    raw = dataset.get_item(tag)
    vr = getattr(raw, "VR", None)
    if vr in (None, "UN") and dictionary_has_tag(tag):
        return dictionary_VR(tag)
    return vr or "UN"


def _element(tag: BaseTag, dataset: Dataset) -> DataElement | None:
    """The element with its value; None if the value does not fit its kind."""
    try:
        return dataset[tag]
    except Exception:  # whatever a damaged value makes the library raise
        return None


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    many = not isinstance(value, str | bytes) and hasattr(value, "__iter__") and type(value).__name__ != "PersonName"
    return list(value) if many else [value]


def _text_of(element: DataElement | None) -> str:
    return "" if element is None or element.value is None else str(element.value).strip(" \0")


def _plain_text_at(dataset: Dataset, group: int, element: int) -> str:
    tag = Tag(group, element)
    return _text_of(_element(tag, dataset)) if tag in dataset else ""


def _is_undecodable(at: _At) -> bool:
    """Whether a text is not written in the character set that the object names."""
    raw = at.raw
    if isinstance(raw, RawDataElement) and (raw.value is None or (raw.value.isascii() and b"\x1b" not in raw.value)):
        return False
    return at.element is None or any("\ufffd" in str(one) for one in _values(at.element.value))


def _moved(text: str, by: timedelta) -> str | None:
    """A date or a date and time, moved by whole days; None if it is not given to the day."""
    found = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})(.*)", text.strip(" \0"))
    if not found:
        return None if text.strip(" \0") else ""
    try:
        day = datetime(int(found[1]), int(found[2]), int(found[3])) + by
    except (ValueError, OverflowError):
        return None
    return f"{day:%Y%m%d}{found[4]}" if day.year >= 1000 else None


def _syntax(implicit: bool | None, little: bool | None) -> UID:
    """The transfer syntax of a file that does not say it."""
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian


def _shown_tag(tag: BaseTag) -> str:
    return f"({tag.group:04X},{tag.element:04X})"


def _keyword_at(where: str) -> str:
    """The keyword of the attribute at the end of the path of a `Hit`."""
    group, element = where.rpartition("(")[2].rstrip(")").split(",")
    return keyword_for_tag(int(group + element, 16))


def _private_name(element: DataElement | None) -> str:
    return "" if element is None else element.name.strip("[]")


def _shown(element: DataElement | None) -> str:
    """A value as a person reads it on the review sheet."""
    if element is None:
        return "[cannot be read]"
    if element.VR == "SQ":
        return f"[{len(element.value or ())} items]"
    value = element.value
    if isinstance(value, bytes):
        words = b" ".join(re.findall(rb"[\x20-\x7e]{4,}|(?:[\x81-\x9f\xe0-\xfc][\x40-\xfc]){2,}", value[:4096]))
        return f"[{len(value)} bytes] {words.decode('cp932', 'replace')[:150]}".strip()
    return "\\".join(str(one) for one in _values(value)[:50])


def _is_of_the_standard(uid: str) -> bool:
    return not uid or UID(uid).name != uid


def _class_name(sop_class: str) -> str:
    return UID(sop_class).name


def _dummy_item(keyword: str) -> Dataset:
    """An item that stands for a person and says nothing."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "ANONYMIZED", "99ANON", "ANONYMIZED"
    if tag_for_keyword(keyword) == 0x00401101:
        return code
    item = Dataset()
    item.PersonIdentificationCodeSequence = Sequence([code])
    return item
