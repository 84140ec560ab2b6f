"""The Type of an attribute, against rows of the standard (PS3.3)."""

from __future__ import annotations

import importlib.util

import pytest
from pydicom.uid import (
    ComprehensiveSRStorage,
    CTImageStorage,
    MRImageStorage,
    NuclearMedicineImageStorage,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from reportlabel.deidentify import dicom_types
from reportlabel.deidentify.dicom_types import attribute_type, is_known_sop_class, known_sop_classes
from reportlabel.errors import ConfigError


@pytest.mark.parametrize(
    ("sop_class", "keyword", "path", "expected"),
    [
        (NuclearMedicineImageStorage, "PatientBirthDate", (), "2"),
        (NuclearMedicineImageStorage, "OperatorsName", (), "3"),
        (CTImageStorage, "OperatorsName", (), "3"),
        (RTPlanStorage, "OperatorsName", (), "2"),
        (RTDoseStorage, "OperatorsName", (), "2"),
        (RTStructureSetStorage, "StructureSetLabel", (), "1"),
        (SecondaryCaptureImageStorage, "ConversionType", (), "1"),
        (MRImageStorage, "InstitutionName", (), "3"),
        (CTImageStorage, "StudyInstanceUID", (), "1"),
        (CTImageStorage, "StudyComments", (), "3"),  # retired, in no module
        (ComprehensiveSRStorage, "ContentSequence", (), "1C"),
        (CTImageStorage, "CodeValue", ("PatientBreedCodeSequence",), "1C"),
        (CTImageStorage, "CodeMeaning", ("AnatomicRegionSequence",), "1"),
        (CTImageStorage, "CodeMeaning", (), "3"),
        ("1.2.840.10008.5.1.4.1.1.5", "PatientName", (), None),  # nuclear medicine, retired
        ("", "PatientName", (), None),
    ],
)
def test_B10_types_are_those_of_the_standard(
    sop_class: str, keyword: str, path: tuple[str, ...], expected: str | None
) -> None:
    assert attribute_type(sop_class, keyword, path) == expected


def test_the_classes_of_the_studies_are_known() -> None:
    assert {NuclearMedicineImageStorage, XRayRadiationDoseSRStorage, RTPlanStorage} <= set(known_sop_classes())
    assert is_known_sop_class(CTImageStorage) and not is_known_sop_class("1.2.3")


def test_missing_tables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install highdicom"):
        dicom_types._table("sop_class_iod_map.json")
