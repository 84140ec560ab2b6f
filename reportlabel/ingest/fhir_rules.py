"""What rules/ingest/fhir.yaml says, ready for the reader of FHIR, and what archive.yaml may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from reportlabel.ingest.codes import narrow
from reportlabel.ingest.ris_csv import RisCsvRules
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml

__all__ = ["FhirOptions", "FhirRules", "Words", "folded", "words"]

System = Literal["JLAC10", "ICD-10", "MEDIS", "YJ", "HOT9", "receipt", "K", "DCM"]
Kind = Literal["lab", "physiology", "diagnosis", "medication", "surgery"]
Names = list[str]


class PatientRules(Strict):
    """How a patient is told."""

    number_systems: Names
    number_types: Names
    sexes: dict[str, Literal["M", "F", "O"]]


class ReportKinds(Strict):
    """Codes of kinds of DiagnosticReport."""

    radiology: Names
    pathology: Names
    physiology: Names
    passed_over: Names


class ObservationKinds(Strict):
    """Codes of kinds of Observation."""

    lab: Names
    physiology: Names
    passed_over: Names
    physiology_codes: Names


class Parts(Strict):
    """Codes of the parts of a radiology report, and the category of such Observations."""

    category: Names
    findings: Names
    impression: Names


class Statuses(Strict):
    """What the states of resources mean."""

    report: dict[str, Literal["unread", "preliminary", "final", "amended", "cancelled"]]
    record: dict[str, Literal["unread", "preliminary", "final", "corrected", "cancelled"]]
    study: dict[str, Literal["final", "cancelled"]]
    act: dict[str, Literal["done", "not_done", "cancelled"]]
    verification: dict[str, Literal["confirmed", "suspected", "refuted", "cancelled"]]


class Suspicion(Strict):
    """How a suspected diagnosis is told."""

    modifiers: Names
    words: Names


class SideCodes(Strict):
    """Codes of sides."""

    right: Names
    left: Names
    bilateral: Names


class FhirRules(Strict):
    """rules/ingest/fhir.yaml."""

    patient: PatientRules
    accession_types: Names
    study_systems: Names
    record_systems: Names
    systems: dict[System, Names]
    preferred: dict[Kind, list[System]]
    reports: ReportKinds
    observations: ObservationKinds
    parts: Parts
    shortest_generated: Annotated[int, Field(ge=0)]
    passed_over: Names
    statuses: Statuses
    no_intent: Names
    suspected: Suspicion
    flags: dict[str, str]
    grades: dict[str, float]
    no_exam: Names
    main_modalities: Names
    side_codes: SideCodes
    body_part_codes: dict[Annotated[str, Field(pattern=r"^[A-Z]+$")], Names]
    generic_names: Names
    no_surgery: Names


class FhirOptions(Strict):
    """What archive.yaml may say of a source of FHIR.

    Attributes:
        patient_system: system of the identifier that is the hospital's number, where the rules do not know it.
        patient_id_is_resource_id: the id of the Patient resource is the hospital's number.
        patient_id_width: digits of the hospital's ids; lost zeros are put back.
        sites: site by number or name of the institution.
        site_of_folder: the site is the name of the folder below the source in which a file lies; ids of resources
            mean the same within such a folder alone.
    """

    patient_system: str | None = None
    patient_id_is_resource_id: bool = False
    patient_id_width: Annotated[int, Field(ge=1, le=20)] | None = None
    sites: dict[str, str] = Field(default_factory=dict)
    site_of_folder: bool = False


@dataclass(frozen=True)
class Words:
    """The rules, ready to look up."""

    rules: FhirRules
    system_of: Mapping[str, System]
    report_kinds: Mapping[str, str]
    observation_kinds: Mapping[str, str]
    findings: frozenset[str]
    impression: frozenset[str]
    imaging: frozenset[str]
    passed_over: frozenset[str]
    sides: Mapping[str, str]
    side_codes: Mapping[str, str]
    body_parts: Mapping[str, str]
    generic_names: frozenset[str]
    grades: Mapping[str, float]


@lru_cache(maxsize=1)
def words() -> Words:
    """The rules of this installation.

    Raises:
        ConfigError: a rule file is wrong; names file and line.
    """
    folder = rules_folder() / "ingest"
    rules = parse(read_yaml(folder / "fhir.yaml"), FhirRules)
    tables = parse(read_yaml(folder / "ris_csv.yaml"), RisCsvRules)
    body_parts = _by_word(tables.body_parts) | {folded(code): code for code in tables.body_parts}
    return Words(
        rules=rules,
        system_of={uri: name for name, uris in rules.systems.items() for uri in uris},
        report_kinds=_by_code(rules.reports.model_dump()),
        observation_kinds=_by_code(rules.observations.model_dump(exclude={"physiology_codes"})),
        findings=frozenset(rules.parts.findings),
        impression=frozenset(rules.parts.impression),
        imaging=frozenset(rules.parts.category),
        passed_over=frozenset(rules.passed_over),
        sides=_by_word({"right": ["right"], "left": ["left"], "bilateral": ["bilateral", "both"]})
        | _by_word(tables.sides.model_dump()),
        side_codes=_by_code(rules.side_codes.model_dump()),
        body_parts=body_parts | _by_word(rules.body_part_codes),
        generic_names=frozenset(map(folded, rules.generic_names)),
        grades={folded(word): grade for word, grade in rules.grades.items()},
    )


def folded(text: str) -> str:
    """What is compared of a word: no case, one width, no spaces."""
    return "".join(narrow(text).casefold().split())


def _by_code(lists: Mapping[str, Names]) -> dict[str, str]:
    return {code: name for name, codes in lists.items() for code in codes}


def _by_word(lists: Mapping[str, Names]) -> dict[str, str]:
    return {folded(word): name for name, some in lists.items() for word in some}
