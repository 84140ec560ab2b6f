"""`reportlabel synth`: a whole hospital on disk, read back by independent readers."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from reportlabel.errors import ConfigError
from reportlabel.synth.hospital import FORMATS, MANIFEST, Hospital, make_hospital

PATIENTS = 40


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "hospital"
    make_hospital(Hospital(out, PATIENTS, 3, FORMATS))
    return out


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def digest(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files(folder)}


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    several = 300  # more than one part
    one = make_hospital(Hospital(tmp_path / "one", several, 5, ("parquet", "ris", "dpc")), workers=1)
    two = make_hospital(Hospital(tmp_path / "two", several, 5, ("parquet", "ris", "dpc")), workers=2)
    assert one == two
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_every_format_gives_the_same_bytes_again(hospital: Path, tmp_path: Path) -> None:
    make_hospital(Hospital(tmp_path / "again", PATIENTS, 3, FORMATS))
    assert digest(tmp_path / "again") == digest(hospital)
    make_hospital(Hospital(tmp_path / "other", 3, 4, ("parquet",)))
    assert (tmp_path / "other" / "parquet" / "patients.parquet").read_bytes() != b""


def test_the_manifest_counts_what_is_there(hospital: Path) -> None:
    manifest = json.loads((hospital / MANIFEST).read_text())
    for name, rows in manifest["rows"].items():
        if "/" in name:
            assert pl.scan_parquet(hospital / f"{name}.parquet").select(pl.len()).collect().item() == rows
    assert manifest["rows"]["parquet/patients"] == PATIENTS
    assert sum(manifest["exams_by_modality_class"].values()) == manifest["rows"]["exams"]


def test_gold_points_at_its_words(hospital: Path) -> None:
    reports = pl.read_parquet(hospital / "parquet" / "reports.parquet").group_by("report_id").last()
    texts = dict(reports.select("report_id", "text").iter_rows())
    for name in ("mentions", "identifiers"):
        rows = pl.read_parquet(hospital / "gold" / f"{name}.parquet")
        assert not rows.is_empty()
        for report_id, start, end, surface in rows.select("report_id", "start", "end", "surface").iter_rows():
            assert texts[report_id][start:end] == surface and surface


def test_every_exam_has_every_label_of_its_sets(hospital: Path) -> None:
    labels = pl.read_parquet(hospital / "gold" / "labels.parquet")
    per_exam = labels.group_by("exam_id", "label_set").len()
    assert per_exam.group_by("label_set").agg(pl.col("len").n_unique())["len"].max() == 1
    assert labels.select("exam_id", "label_set", "finding").is_duplicated().sum() == 0
    # what is true is not always said, and what is said is not always true
    said = pl.col("value").is_in(["present", "uncertain"])
    assert labels.filter((pl.col("truth") == "present") & ~said).height > 0
    assert labels.filter((pl.col("truth") == "absent") & said).height > 0


def test_ids_hold_together(hospital: Path) -> None:
    tables = {path.stem: pl.read_parquet(path) for path in (hospital / "parquet").glob("*.parquet")}
    exams, reports, records = tables["exams"], tables["reports"], tables["records"]
    for column in ("exam_id", "accession_number", "order_number", "study_instance_uid"):
        assert exams[column].n_unique() == exams.height
    assert set(reports["exam_id"]) <= set(exams["exam_id"])
    assert records["record_id"].n_unique() == records.height
    assert tables["patients"]["patient_id"].n_unique() == PATIENTS
    assert set(records["patient_id"]) <= set(tables["patients"]["patient_id"])


def test_canaries_know_every_patient(hospital: Path) -> None:
    canaries = pl.read_parquet(hospital / "gold" / "canaries.parquet")
    patients = pl.read_parquet(hospital / "parquet" / "patients.parquet")
    for column in ("name", "kana", "address", "phone", "patient_id"):
        assert set(patients[column]) <= set(canaries.filter(pl.col("kind") == column)["value"])


def test_a_folder_with_something_else_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no synthetic hospital"):
        make_hospital(Hospital(tmp_path, 1, 0, ("parquet",)))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_earlier_hospital_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "hospital"
    make_hospital(Hospital(out, 4, 0, ("parquet",)))
    make_hospital(Hospital(out, 2, 0, ("parquet",)))
    assert pl.read_parquet(out / "parquet" / "patients.parquet").height == 2
    assert [path.name for path in tmp_path.iterdir()] == ["hospital"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "pdf"], "unknown format pdf; there are: parquet, ssmix2"),
        (["--patients", "0"], "--patients"),
        (["--workers", "0"], "--workers"),
    ],
)
def test_wrong_options_end_with_one_message(tmp_path: Path, arguments: list[str], said: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "reportlabel", "synth", str(tmp_path / "out"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2 and said in run.stderr and "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()
