"""What becomes of each attribute of a DICOM file: the policy of a study on top of the profile of the standard.

    policy = load_policy("gunma_bone_scan")

A policy (rules/dicom/<name>.yaml) names the attributes its protocol speaks of. Every other attribute has the action of
the profile that the policy names (rules/dicom/ps3_15_basic.yaml). What neither knows stays if it is an attribute of the
standard, and goes if it is not; names of persons go, UIDs are replaced and dates follow the policy wherever they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import pydicom.uid
from pydantic import BeforeValidator, Field, model_validator
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import Document, parse, read_yaml

__all__ = ["DATES", "PERSON_TIMES", "MethodName", "Plan", "Profile", "Rule", "TagPolicy", "load_policy"]

Standard = Literal["K", "X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U*"]
Kept = Literal["patient_characteristics", "device_identity", "institution_identity", "dates"]
Text = Annotated[str, Field(min_length=1)]
Dates = Literal["keep", "shift", "remove"]
Undecided = Literal["remove", "quarantine"]

DATES = ("DA", "DT", "TM")
PERSON_TIMES = (0x00100030, 0x00100032, 0x00100033, 0x00100034)
"""Birth and death: no policy keeps or shifts them with the other dates."""

_KEY = re.compile(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\) ([A-Za-z0-9]+)")
_REPEATING = re.compile(r"\((50|60)xx,([0-9A-Fa-f]{4}|xxxx)\) ([A-Za-z]+)")
_PRIVATE = re.compile(r"\(([0-9A-Fa-f]{4}),xx([0-9A-Fa-f]{2})\) (\S.*)")


# --- the profile (ps3_15_basic.yaml)


class Element(Strict):
    """The action of the standard on an attribute, and the option of the standard under which it may stay."""

    action: Standard
    option: Kept | None = None


def _element(value: object) -> object:
    return {"action": value} if isinstance(value, str) else value


class MethodCode(Strict):
    """A code of PS3.16 CID 7050."""

    code: Annotated[str, Field(pattern=r"^\d{6}$")]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class BurnedIn(Strict):
    """Which images may have words in the picture."""

    sop_classes: list[str]
    modalities: list[str]
    image_types: list[str]


MethodName = Literal[
    "basic", "clean_pixels", "clean_graphics", "clean_structured_content", "full_dates", "modified_dates",
    "patient_characteristics", "device_identity", "uids", "safe_private", "institution_identity",
]  # fmt: skip


class Profile(Strict):
    """rules/dicom/ps3_15_basic.yaml: what holds where a policy says nothing; the file explains its keys."""

    edition: str
    method_codes: dict[MethodName, MethodCode]
    dummies: dict[str, str]
    uids_kept: list[str]
    dummy_items: list[str]
    cleaned_items: list[str]
    person_concepts: list[str]
    not_searched: list[str]
    structured_reports: list[str]
    burned_in: BurnedIn
    documents: list[str]
    beyond: dict[str, Annotated[Element, BeforeValidator(_element)]]
    elements: dict[str, Annotated[Element, BeforeValidator(_element)]]


# --- the policy of a study


class Rule(Strict):
    """What a protocol says of an attribute.

    ``keep``: as it is. ``delete``: by the Type of the attribute (1 a dummy value, 2 empty, 3 removed). ``replace``: by
    ``value``, where the attribute is there. ``uid``: by another UID. ``patient_code``: by the code of the patient, also
    where the attribute is missing. ``age_at_exam``: the age as it is written, else from the birth date.
    """

    action: Literal["keep", "delete", "replace", "uid", "patient_code", "age_at_exam"]
    value: Text | None = None

    @model_validator(mode="after")
    def _value_where_it_is_used(self) -> Rule:
        if (self.action == "replace") != (self.value is not None):
            raise ValueError("action replace needs a value, and no other action has one")
        return self


def _rule(value: object) -> object:
    return {"action": value} if isinstance(value, str) else value


class Private(Strict):
    """Private attributes: removed but for those of ``keep``, or shown to a reviewer first.

    ``undecided``: what becomes of a file with attributes that nobody has decided on: they go, or the file waits.
    ``keep``: tag and creator, ``(0019,xx0C) SIEMENS MR HEADER``.
    """

    action: Literal["remove", "review"] = "remove"
    undecided: Undecided = "remove"
    keep: tuple[Annotated[str, Field(pattern=f"^{_PRIVATE.pattern}$")], ...] = ()


class Overlays(Strict):
    """Overlay planes (groups 60xx): as ``Private``, but that no list keeps them."""

    action: Literal["remove", "review"] = "remove"
    undecided: Undecided = "remove"


class Pixels(Strict):
    """Images that may have words in the picture: shown to a reviewer first, or never let out."""

    burned_in: Literal["review", "quarantine"] = "review"


class StructuredReports(Strict):
    """``clean``: keywords of the SOP classes whose reports go out without free text; all other reports wait."""

    clean: tuple[str, ...] = ()


class PolicyFile(Strict):
    """One file of rules/dicom: the answers of a protocol.

    Attributes:
        default: the profile for attributes without a rule: the name of a file beside this one.
        retain: groups of attributes that stay although the profile removes them (options of PS3.15 E.3).
        dates: kept, moved back by the same number of days in all files of a patient, or removed by the profile.
        shift_days: the least and the greatest number of days.
        uids: replaced, or kept where other programs need them.
        age_cap: ages above it become it.
        sop_classes: keywords of the SOP classes that the study takes; empty: all that are known.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    title: Text
    default: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "ps3_15_basic"
    rules: dict[str, Annotated[Rule, BeforeValidator(_rule)]] = Field(default_factory=dict)
    retain: tuple[Literal["patient_characteristics", "device_identity", "institution_identity"], ...] = ()
    dates: Dates
    shift_days: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(le=3650)]] = (1, 365)
    uids: Literal["replace", "keep"] = "replace"
    age_cap: Annotated[int, Field(ge=1, le=120)] | None = None
    private: Private = Private()
    overlays: Overlays = Overlays()
    pixels: Pixels = Pixels()
    structured_reports: StructuredReports = StructuredReports()
    sop_classes: tuple[str, ...] = ()


# --- policy and profile together


@dataclass(frozen=True)
class Plan:
    """What is to be done with an attribute, and why.

    Attributes:
        action: of `Rule`, or of the standard (`Standard`), or ``shift``.
        basis: where the action comes from.
        value: what replaces the old value.
        option: the group of attributes the profile counts it to.
        listed: whether the profile names it, so that keeping it is an exception to the profile.
    """

    action: str
    basis: Literal["rule", "profile", "dates", "kind"]
    value: str | None = None
    option: str | None = None
    listed: bool = False


@dataclass(frozen=True)
class TagPolicy:
    """A policy that is ready to be used; `load_policy` makes it."""

    file: PolicyFile
    profile: Profile
    rules: Mapping[int, Rule]
    elements: Mapping[int, Element]
    repeating: Mapping[tuple[int, int | None], Element]
    _plans: dict[tuple[int, str], Plan] = field(default_factory=dict, repr=False, compare=False)

    @property
    def id(self) -> str:
        """The name of the policy."""
        return self.file.id

    def choose(
        self,
        *,
        fixed_strings: Mapping[str, str] | None = None,
        uids: Literal["replace", "keep"] | None = None,
        dates: Dates | None = None,
        age_cap: int | None = None,
    ) -> TagPolicy:
        """The policy with the answers of a study protocol in place of its own.

        Args:
            fixed_strings: tag, ``(0008,1030)``, -> the text that replaces the value; its rule must be ``replace``.
            uids: see `PolicyFile`.
            dates: see `PolicyFile`.
            age_cap: the greatest age that stays; a lower one of the policy counts.

        Raises:
            ConfigError: a fixed string for an attribute without a rule ``replace``, or dates that rules forbid.
        """
        rules = dict(self.rules)
        for text, value in (fixed_strings or {}).items():
            tag = _tag(f"{text} Any")
            if tag not in rules or rules[tag].action != "replace" or not value:
                raise ConfigError(f"dicom policy {self.id}: {text} has a fixed string but no rule 'replace'")
            rules[tag] = Rule(action="replace", value=value)
        caps = [one for one in (self.file.age_cap, age_cap) if one is not None]
        changes = {"uids": uids, "dates": dates, "age_cap": min(caps, default=None)}
        changes = {name: value for name, value in changes.items() if value is not None}
        chosen = replace(self, file=self.file.model_copy(update=changes), rules=rules, _plans={})
        problem = _date_problem(chosen.rules, chosen.file.dates)
        if problem:
            raise ConfigError(f"dicom policy {self.id}: {problem}")
        return chosen

    def plan(self, tag: int, vr: str) -> Plan:
        """What is to be done with a public attribute, by its tag and value representation."""
        known = self._plans.get((tag, vr))
        if known is None:
            known = self._plans[tag, vr] = self._find_plan(tag, vr)
        return known

    def _find_plan(self, tag: int, vr: str) -> Plan:
        rule = self.rules.get(tag)
        element = self._element(tag)
        option = element.option if element else None
        listed = element is not None and element.action not in ("K", "U")
        if rule is not None:
            return Plan(rule.action, "rule", rule.value, option, listed)
        if tag not in PERSON_TIMES and (option == "dates" or (element is None and vr in DATES)):
            if self.file.dates == "keep":
                return Plan("keep", "dates", option="dates", listed=listed)
            if self.file.dates == "shift":  # a clock time and a time zone stay, only days move
                return Plan("shift" if vr in ("DA", "DT") else "keep", "dates", option="dates", listed=listed)
            return Plan(element.action if element else "X", "profile" if element else "dates")
        if element is not None:
            if option in self.file.retain:
                return Plan("U" if element.action == "U" else "keep", "rule", option=option, listed=listed)
            # a dummy UID would be the same in many objects
            action = "U" if vr == "UI" and element.action == "D" else element.action
            return Plan(action, "profile", option=option, listed=listed)
        return Plan(self._by_kind(tag, vr), "kind")

    def _by_kind(self, tag: int, vr: str) -> str:
        """The action on an attribute of which neither rules nor profile speak."""
        keyword = keyword_for_tag(tag)
        if vr == "UI":
            return "keep" if keyword in self.profile.uids_kept else "U"
        if vr == "PN" or not keyword:
            return "X"
        return "keep"

    def _element(self, tag: int) -> Element | None:
        element = self.elements.get(tag)
        family = tag >> 24
        if element is None and family in (0x50, 0x60):
            element = self.repeating.get((family, tag & 0xFFFF)) or self.repeating.get((family, None))
        return element

    @cached_property
    def private_kept(self) -> frozenset[tuple[str, int, int]]:
        """Creator, group and last byte of the element of private attributes that stay."""
        kept = (_PRIVATE.fullmatch(key) for key in self.file.private.keep)
        return frozenset((one[3].strip(), int(one[1], 16), int(one[2], 16)) for one in kept if one)

    @cached_property
    def taken(self) -> frozenset[str]:
        """SOP Class UIDs that the study takes; empty: all."""
        return _uids(self.file.sop_classes)

    @cached_property
    def reports(self) -> frozenset[str]:
        """SOP Class UIDs of structured reports."""
        return _uids(self.profile.structured_reports)

    @cached_property
    def cleaned_reports(self) -> frozenset[str]:
        """SOP Class UIDs of the structured reports that go out without free text."""
        return _uids(self.file.structured_reports.clean)

    @cached_property
    def documents(self) -> frozenset[str]:
        """SOP Class UIDs of objects that never go out."""
        return _uids(self.profile.documents)

    @cached_property
    def burned_in(self) -> frozenset[str]:
        """SOP Class UIDs of images that may have words in the picture."""
        return _uids(self.profile.burned_in.sop_classes)


def load_policy(path: Path | str) -> TagPolicy:
    """Read a policy and the profile it names.

    Args:
        path: a YAML file, or the name of a policy of the package.

    Raises:
        ConfigError: the policy or the profile cannot be read, an attribute or SOP class is unknown, a keyword does not
            fit its tag, or rules contradict the policy; names file and line.
    """
    file = path if isinstance(path, Path) else rules_folder() / "dicom" / f"{path}.yaml"
    if not file.is_file():
        names = ", ".join(
            sorted(one.stem for one in (rules_folder() / "dicom").glob("*.yaml") if "ps3_15" not in one.stem)
        )
        raise ConfigError(f"there is no dicom policy {file}; policies of the package: {names}")
    document = read_yaml(file)
    policy = parse(document, PolicyFile)
    beside = file.with_name(f"{policy.default}.yaml")
    profile_document = read_yaml(beside if beside.is_file() else rules_folder() / "dicom" / f"{policy.default}.yaml")
    profile = parse(profile_document, Profile)

    elements: dict[int, Element] = {}
    repeating: dict[tuple[int, int | None], Element] = {}
    for key, element in profile.beyond.items():
        elements[_checked(key, profile_document, ("beyond", key))] = element
    for key, element in profile.elements.items():
        if found := _REPEATING.fullmatch(key):
            repeating[int(found[1], 16), None if found[2] == "xxxx" else int(found[2], 16)] = element
        else:
            elements[_checked(key, profile_document, ("elements", key), new=True)] = element
    rules = {_checked(key, document, ("rules", key)): rule for key, rule in policy.rules.items()}
    _check_names(profile, profile_document)
    _check_sop_classes(policy.sop_classes, document, ("sop_classes",))
    _check_sop_classes(policy.structured_reports.clean, document, ("structured_reports", "clean"))
    problem = _date_problem(rules, policy.dates)
    if not problem and policy.shift_days[0] > policy.shift_days[1]:
        problem = "shift_days: the least number of days comes first"
    if problem:
        raise ConfigError(f"{file}:{document.line(('rules',))}: {problem}")
    return TagPolicy(policy, profile, rules, elements, repeating)


def _date_problem(rules: Mapping[int, Rule], dates: Dates) -> str | None:
    """One date as it was beside moved ones tells by how many days they were moved."""
    for tag, rule in rules.items():
        if rule.action == "keep" and tag not in PERSON_TIMES and dates == "shift" and _vr(tag) in ("DA", "DT"):
            return f"{_shown(tag)} is kept although dates are shifted; remove its rule"
        if rule.action == "keep" and tag in PERSON_TIMES:
            return f"{_shown(tag)} tells the day of birth or death and cannot be kept"
    return None


def _check_names(profile: Profile, document: Document) -> None:
    for name in ("uids_kept", "dummy_items", "cleaned_items", "not_searched"):
        for keyword in getattr(profile, name):
            if tag_for_keyword(keyword) is None:
                raise ConfigError(f"{document.path}:{document.line((name,))}: '{keyword}' is no attribute of DICOM")
    _check_sop_classes(profile.structured_reports, document, ("structured_reports",))
    _check_sop_classes(profile.burned_in.sop_classes, document, ("burned_in", "sop_classes"))
    _check_sop_classes(profile.documents, document, ("documents",))


def _check_sop_classes(names: Iterable[str], document: Document, location: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(getattr(pydicom.uid, name, None), pydicom.uid.UID):
            raise ConfigError(f"{document.path}:{document.line(location)}: '{name}' is no SOP class")


def _checked(key: str, document: Document, location: tuple[str, str], *, new: bool = False) -> int:
    """The tag of a key with the keyword of the dictionary; `new`: the dictionary may not know the tag yet."""
    line = document.line(location)
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{document.path}:{line}: '{key}' is no attribute; write \"(0010,0010) PatientName\"")
    tag = _tag(key)
    keyword, (shown, written) = keyword_for_tag(tag), key.split(" ", maxsplit=1)
    if keyword != written and (keyword or not new):
        raise ConfigError(f"{document.path}:{line}: {shown} is {keyword or 'unknown'}, not {written}")
    return tag


def _tag(key: str) -> int:
    found = _KEY.fullmatch(key)
    if not found:
        raise ConfigError(f"'{key.removesuffix(' Any')}' is no tag; write it like (0010,0010)")
    return int(found[1] + found[2], 16)


def _uids(names: Iterable[str]) -> frozenset[str]:
    return frozenset(str(getattr(pydicom.uid, name)) for name in names)


def _vr(tag: int) -> str:
    return dictionary_VR(tag) if keyword_for_tag(tag) else "UN"


def _shown(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) {keyword_for_tag(tag)}"
