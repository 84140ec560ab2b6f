"""A synthetic hospital in every format, read back whole by readers that know nothing of it: no violations."""

import json
import warnings
from pathlib import Path

import hl7
import polars as pl
import pydicom
import pytest
from fhir.resources.R4B import get_fhir_model_class
from lxml import etree
from pydicom.uid import UID

from reportlabel.synth.hospital import FORMATS, Hospital, make_hospital

PATIENTS = 25


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("formats") / "hospital"
    make_hospital(Hospital(out, PATIENTS, 8, FORMATS))
    return out


def files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    assert found
    return found


def patients(hospital: Path) -> set[str]:
    return set(pl.read_parquet(hospital / "parquet" / "patients.parquet")["patient_id"])


def test_ss_mix2_messages_are_hl7_and_in_their_place(hospital: Path) -> None:
    wrong = set(pl.read_parquet(hospital / "gold" / "defects.parquet")["path"])
    messages = [path for path in files(hospital / "ssmix2") if "standard" in path.parts]
    kinds = set()
    for path in messages:
        raw = path.read_bytes().removesuffix(b"\x1c")  # some systems end a file with a file separator
        assert b"\n" not in raw and raw.endswith(b"\r")
        message = hl7.parse(raw.decode("iso2022_jp_2").strip())
        assert str(message.segment("MSH")[1]) == "|"
        patient, day, kind, order, stamp, _, flag = path.name.split("_")
        kinds.add(kind)
        assert path.parts[-4:-1] == (patient, day, kind)
        assert path.parts[-6:-4] == (patient[:3], patient[3:6])
        assert len(order) == 15 and len(stamp) == 17 and flag in "012"
        if str(path.relative_to(hospital)) not in wrong:
            assert str(message.segment("PID")[3]).split("^")[0] == patient
    assert {"ADT-00", "OML-11", "PPR-01", "OMG-01", "OMG-11", "OMG-13", "OMP-01"} <= kinds


def test_documents_of_the_extended_storage_are_xml_or_text(hospital: Path) -> None:
    documents = [path for path in files(hospital / "ssmix2") if "extended" in path.parts]
    assert any("18748-4" in str(path) for path in documents) and any("11529-5" in str(path) for path in documents)
    for path in documents:
        if path.suffix == ".xml":
            etree.parse(path, etree.XMLParser(resolve_entities=False))


def test_every_fhir_resource_is_valid_r4(hospital: Path) -> None:
    for path in files(hospital / "fhir"):
        for line in path.read_text(encoding="utf-8").splitlines():
            resource = json.loads(line)
            get_fhir_model_class(resource["resourceType"]).model_validate(resource)


def test_every_dicom_file_is_read_and_decoded(hospital: Path) -> None:
    studies = set()
    for path in files(hospital / "dicom"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = pydicom.dcmread(path)
            dataset.decode()
        studies.add(dataset.StudyInstanceUID)
        assert (
            UID(dataset.SOPInstanceUID).is_valid
            and dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        )
        if "PixelData" in dataset:
            assert dataset.pixel_array.size
    assert studies == set(pl.read_parquet(hospital / "parquet" / "exams.parquet")["study_instance_uid"])


def test_dpc_files_have_their_columns(hospital: Path) -> None:
    for path in files(hospital / "dpc"):
        text = path.read_bytes().decode("cp932")
        width = 31 if path.name.startswith("EF") else 17
        for line in text.splitlines():
            assert len(line.split("\t")) == width
    assert not list((hospital / "dpc").rglob(".parts"))


def test_report_system_files_hold_every_read_exam(hospital: Path) -> None:
    reports = pl.read_parquet(hospital / "parquet" / "reports.parquet")
    text = "".join(path.read_bytes().decode("cp932") for path in files(hospital / "ris"))
    assert "読影" in text and len(text) > reports["text"].str.len_chars().sum() * 0.8


@pytest.mark.parametrize("kind", ["ssmix2", "fhir", "ris", "dicom"])
def test_every_patient_is_in_every_format(hospital: Path, kind: str) -> None:
    seen = "".join(str(path) for path in files(hospital / kind))
    if kind in ("fhir", "ris"):
        codec = "utf-8" if kind == "fhir" else "cp932"
        seen += "".join(path.read_bytes().decode(codec) for path in files(hospital / kind))
    exams = pl.read_parquet(hospital / "parquet" / "exams.parquet").join(
        pl.read_parquet(hospital / "parquet" / "reports.parquet"), on="exam_id", how="semi"
    )
    assert not exams.is_empty()
    missing = [patient for patient in patients(hospital) if patient not in seen]
    # a spreadsheet takes leading zeros away; a patient without an exam has no study
    assert len(missing) <= (0 if kind in ("ssmix2", "fhir") else 4)
