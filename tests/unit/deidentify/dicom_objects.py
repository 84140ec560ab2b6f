"""DICOM objects for the tests: pydicom's own files, by name, with values put in."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread, dcmwrite
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from reportlabel.deidentify.dicom import Result, deidentify_dataset
from reportlabel.deidentify.dicom_policy import TagPolicy
from reportlabel.deidentify.dicom_review import Decision, ReviewKey

KEY = b"a key of the tests, 32 bytes long"
CODE = "BS-0417"


def bundled(name: str) -> Path:
    """The path of a file that comes with pydicom."""
    if name.startswith("chr"):
        return Path(get_charset_files(name)[0])
    found = get_testdata_file(name, download=False)
    assert found, f"pydicom does not come with {name}"
    return Path(str(found))


def opened(name: str) -> Dataset:
    """A file of pydicom, read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(bundled(name), force=True)


def dicomdir_patients() -> Path:
    """The folder of pydicom with patients of several studies."""
    return bundled("rtplan.dcm").parent / "dicomdirtests"


def built(sop_class: str, **attributes: Any) -> Dataset:
    """A small object with the attributes given and what every object has."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    dataset.PatientName, dataset.PatientID = "青山^花子", "00012345"
    dataset.StudyDate, dataset.PatientBirthDate = "20190612", "19520101"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def decided(dataset: Dataset, policy: TagPolicy, *, private: Decision = "remove", **given: Any) -> Result:
    """The result once a reviewer has looked: pixels let out, overlays removed, private attributes as said."""
    first = deidentify_dataset(dataset, policy, patient_code=CODE, uid_key=KEY, **given)
    answers: dict[str, Decision] = {"pixels": "keep", "overlay": "remove", "private": private}
    decisions: dict[ReviewKey, Decision] = {item.key: answers[item.key.kind] for item in first.review}
    return deidentify_dataset(dataset, policy, patient_code=CODE, uid_key=KEY, decisions=decisions, **given)


def out(dataset: Dataset, policy: TagPolicy, **given: Any) -> Dataset:
    """The new object; it must go out."""
    result = decided(dataset, policy, **given)
    assert result.outcome == "out", result.reason
    assert result.dataset is not None
    return result.dataset


def as_file(dataset: Dataset) -> bytes:
    """The bytes of the file."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def reread(dataset: Dataset) -> Dataset:
    """Written and read again, all of it, with warnings as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = dcmread(BytesIO(as_file(dataset)))
        for element in again.iterall():
            assert element.value is not NotImplemented
        return again


def content_item(value_type: str, concept: str, **attributes: Any) -> Dataset:
    """An item of a structured report."""
    name, item = Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = concept, "DCM", "a concept"
    item.RelationshipType, item.ValueType = "CONTAINS", value_type
    item.ConceptNameCodeSequence = Sequence([name])
    for key, value in attributes.items():
        setattr(item, key, value)
    return item


def put(dataset: Dataset, tag: int, vr: str, value: Any) -> None:
    """Put in an element by its tag."""
    dataset[tag] = DataElement(tag, vr, value)
