"""Each deliverable of each shipped protocol, from tables as a workspace of a study holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.evaluate.software import VALUES
from reportlabel.export import deliverable
from reportlabel.export.deliverable import HandedOver, Photographs, Sources, StudyTables, write_deliverable
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.protocol import load_protocol
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.schema import COHORT, EXAM_LABELS, EXAM_MENTIONS, EXAMS, READINGS, RECORDS, REPORTS, WORKSPACE
from reportlabel.store import Workspace

PATIENTS = [f"P-0000000{at:03}" for at in range(12)]
EXAM_IDS = [f"E-0000000{at:03}" for at in range(12)]


@pytest.fixture(autouse=True)
def one_rulebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are read and compiled once for all tests."""
    monkeypatch.setattr(deliverable, "load_rules", lambda _folder: _rules())
    monkeypatch.setattr(deliverable, "Annotator", lambda _book: _annotator())


@cache
def _rules() -> Rulebook:
    return load_rules()


@cache
def _annotator() -> Annotator:
    return Annotator(_rules())


def tables(site: str, modality_class: str, **exam: Any) -> StudyTables:
    """Twelve patients with an exam each; their reports name a melanoma or a metastasis in the first six."""
    exams = [
        {
            "exam_id": EXAM_IDS[at],
            "patient_id": PATIENTS[at],
            "site": site,
            "started_at": datetime(2019, 7, 1 + at, 9),
            "modality_class": modality_class,
            "protocol_name": "CHEST",
            "dlp": 100.0 + at,
            "age_years": 50,
            "sex": "F",
            "weight_kg": 55.0,
            **exam,
        }
        for at in range(12)
    ]
    texts = [f"【依頼目的】\n転移の検索。\n【所見】\n{'多発する' if at < 6 else '異常'}集積。" for at in range(12)]
    reports = [
        {"report_id": f"R-0000000{at:03}", "exam_id": EXAM_IDS[at], "version": 1, "text": text}
        for at, text in enumerate(texts)
    ]
    labels, readings = [], []
    for at, exam_id in enumerate(EXAM_IDS):
        for label_set, finding in (("bone_scintigraphy", "bone_metastasis"), ("skin_tumour", "melanoma")):
            said = {"exam_id": exam_id, "label_set": label_set, "finding": finding}
            value = "present" if at < 6 else "absent"
            labels.append({**said, "value": value, "rules_hash": "f" * 64})
            readings.append({**said, "value": value, "reader": "yamada", "read_at": datetime(2026, 1, 1)})
    mentions = [
        {
            "report_id": f"R-0000000{at:03}",
            "finding": "melanoma",
            "status": "present",
            "site": "skin_face",
            "side": "left",
            "size_mm": 8.0 if at else None,
        }
        for at in range(12)
    ]
    records = [
        {
            "record_id": f"C-0000000{number:03}",
            "kind": kind,
            "patient_id": PATIENTS[at],
            "site": site,
            "start_at": datetime(2019, 7, 20),
            "name": name,
            "body_site": "skin",
        }
        for number, (at, kind, name) in enumerate(
            ((0, "pathology", "基底細胞癌"), (0, "diagnosis", "悪性黒色腫"), (1, "diagnosis", "悪性黒色腫"))
        )
    ]
    kind = {"NM": "bone_scintigraphy", "OT": "dermoscopy"}.get(modality_class, "ct")
    cohort = [
        {"exam_id": exam_id, "kind": kind, "tracer_id": ("HMDP", "MDP")[at % 2] if modality_class == "NM" else None}
        for at, exam_id in enumerate(EXAM_IDS)
    ]
    return StudyTables(
        exams=pl.DataFrame(exams, schema=EXAMS),
        reports=pl.DataFrame(reports, schema=REPORTS),
        records=pl.DataFrame(records, schema=RECORDS),
        mentions=pl.DataFrame(mentions, schema=EXAM_MENTIONS),
        labels=pl.DataFrame(labels, schema=EXAM_LABELS),
        readings=pl.DataFrame(readings, schema=READINGS),
        cohort=pl.DataFrame(cohort, schema=COHORT),
    )


ASKED: dict[str, dict[str, Any]] = {
    "keio_2017_0018": {"today": date(2026, 1, 1), "recipient": "radiology", "purpose": "image_retrieval"},
    "jmid": {"today": date(2026, 12, 1), "recipient": "participating_institutions", "purpose": "dose_analysis"},
    "gunma_bone_scan": {
        "today": date(2025, 6, 1),
        "recipient": "nihon_medi_physics",
        "purpose": "software_comparison",
    },
    "shinshu_skin": {"today": date(2023, 1, 1), "recipient": "shinshu_university", "purpose": "data_set"},
    "tohoku_skin": {"today": date(2026, 1, 1), "recipient": "dermatology", "purpose": "image_database"},
}


def handed_over(
    name: str, of: str, given: StudyTables, out: Path, sources: Sources | None = None, **asked: Any
) -> HandedOver:
    done = write_deliverable(name, given, load_protocol(of), out, sources=sources, **{**ASKED[of], **asked})
    said = read_manifest(out)
    assert said is not None and verify_manifest(out) == []
    assert (said["protocol"], said["permission"]["deliverable"], said["counts"]) == (of, name, done.counts)
    assert said["decisions"] and said["rules_sha256"] == "f" * 64
    return done


def table(done: HandedOver, name: str) -> pl.DataFrame:
    return pl.read_parquet(done.folder / f"{name}.parquet")


def test_K7_X2_keio_list_of_images(tmp_path: Path) -> None:
    given = tables("keio", "CT")
    uids = given.exams.select(
        "exam_id", study_instance_uid=pl.format("1.2.{}", pl.int_range(pl.len())), accession_number=pl.lit("A")
    ).with_columns(pl.lit("keio").alias("site"))
    done = handed_over("image_list", "keio_2017_0018", given, tmp_path / "out", Sources(uids=uids))
    assert table(done, "image_list")["study_instance_uid"].to_list() == [f"1.2.{at}" for at in range(12)]
    assert done.patients == tuple(PATIENTS)
    with pytest.raises(ConfigError, match=r"Sources\.uids"):
        handed_over("image_list", "keio_2017_0018", given, tmp_path / "none")
    with pytest.raises(RefusedError, match=r"K7.*never leaves"):
        handed_over("image_list", "keio_2017_0018", given, tmp_path / "no", recipient="joint_laboratory",
                    purpose="teacher_labels")  # fmt: skip
    assert not (tmp_path / "no").exists()


def test_J4_J14_X2_jmid_exam_table_and_dose_summary(tmp_path: Path) -> None:
    given = tables("juntendo", "CT")
    done = handed_over("exam_table", "jmid", given, tmp_path / "exams")
    assert {"patient_id", "exam_id", "started_at"}.isdisjoint(table(done, "exams").columns)
    assert table(done, "exams")["dlp"].sort().to_list() == [100.0 + at for at in range(12)]
    assert table(done, "missing").filter(pl.col("column") == "ctdi_vol")["missing"].to_list() == [12]
    inside = handed_over("exam_table", "jmid", given, tmp_path / "own", recipient="institution")
    assert "request_reason" not in table(inside, "exams").columns  # the exam table is anonymised, whoever gets it
    dose = handed_over("dose_summary", "jmid", given, tmp_path / "dose")
    row = table(dose, "dose_summary").filter(pl.col("measure") == "dlp", pl.col("weight") == "all").row(0, named=True)
    assert (row["n_persons"], row["p50"], row["suppressed"]) == (12, 105.5, False)
    assert dose.patients == ()  # figures hold nobody


def test_J6_jmid_annotations(tmp_path: Path) -> None:
    done = handed_over("annotations", "jmid", tables("juntendo", "CT"), tmp_path / "out", purpose="diagnostic_ai")
    assert table(done, "annotations")["annotator"].unique().to_list() == ["annotator-01"]
    assert done.patients == tuple(PATIENTS)


def dicom(folder: Path, code: str, day: str) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.PatientName, data.PatientID, data.StudyDate = code, code, day
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.20", generate_uid()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    (folder / code).mkdir(parents=True)
    data.save_as(folder / code / "1.dcm", enforce_file_format=True)


@pytest.mark.parametrize("name", ["sheet", "images"])
def test_B3_B7_B12_B13_X2_gunma_sheet_and_dicom_in_volumes(tmp_path: Path, name: str) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    given = tables("gunma", "NM", height_cm=150.0)
    for at in range(11):
        dicom(tmp_path / "dicom", PATIENTS[at], f"201907{1 + at:02}")
    dicom(tmp_path / "dicom", "P-9999999999", "20190701")
    done = handed_over(name, "gunma_bone_scan", given, tmp_path / "out", Sources(dicom=tmp_path / "dicom"))
    volume = done.folder / "volume-01"
    page = openpyxl.load_workbook(volume / "bone_scan.xlsx").active
    lines = list(page.iter_rows(values_only=True))
    assert [line[0] for line in lines[1:]] == PATIENTS[:11] == list(done.patients)
    assert [line[4] for line in lines[1:]] == ["有"] * 6 + ["無"] * 5
    assert sorted(path.parent.name for path in volume.rglob("*.dcm")) == PATIENTS[:11]
    assert done.counts["patients_in"] == 12 == done.counts["patients_out"] + done.counts["patients_with_problems"]
    assert done.inside["problems"].select("patient_code", "number").rows() == [(PATIENTS[11], "B12")]
    assert done.inside["files_left_out"].height == 2  # a file of nobody, somebody without a file
    cells = {(tracer, finding): count for tracer, finding, count in done.inside["cells"].iter_rows()}
    assert cells == {("HMDP", "present"): 3, ("MDP", "present"): 3, ("HMDP", "absent"): 3, ("MDP", "absent"): 2}
    assert done.inside["plan"].filter(pl.col("what") == "all")["difference"].to_list() == [-89]


def test_B4_B5_B6_gunma_comparison(tmp_path: Path) -> None:
    given = tables("gunma", "NM")
    values = pl.DataFrame(
        [(PATIENTS[at], "HMDP", "VSBONE", "2.0", "BSI", float(12 - at)) for at in range(0, 12, 2)],
        schema=VALUES,
        orient="row",
    )
    done = handed_over("comparison", "gunma_bone_scan", given, tmp_path / "out", Sources(values=values))
    area = table(done, "figures").filter(pl.col("measure") == "roc_area", pl.col("condition") == 3)
    assert area.select("n_diseased", "n_healthy", "value").rows() == [(3, 3, 1.0)]
    assert done.patients == () and done.counts["values_used"] == 6
    with pytest.raises(ConfigError, match=r"Sources\.values"):
        handed_over("comparison", "gunma_bone_scan", given, tmp_path / "none")
    with pytest.raises(InputError, match="values: lacks the columns metric"):
        handed_over("comparison", "gunma_bone_scan", given, tmp_path / "no", Sources(values=values.drop("metric")))


def test_S2_S3_S8_X2_shinshu_nine_items(tmp_path: Path) -> None:
    given = tables("gunma", "OT")
    images = pl.DataFrame({"image_id": EXAM_IDS[:8], "nationality": ["日本"] * 7 + [None], "device": "DermLite"})
    done = handed_over("nine_items", "shinshu_skin", given, tmp_path / "out", Sources(images=images))
    made = table(done, "nine_items")
    # the first has no size, the last no nationality; of those between one alone has a diagnosis on record
    assert made["image_id"].to_list() == [EXAM_IDS[1]]
    assert made.drop("image_id", "patient_id", "lesion_id").row(0) == (
        "dermoscopy", "japanese", 50, "F", "no", "left skin_face", 8.0, "melanoma", "DermLite", "no",
    )  # fmt: skip
    steps = {step: (rows_in, rows_out) for step, rows_in, rows_out in
             table(done, "attrition").select("step", "rows_in", "rows_out").iter_rows()}  # fmt: skip
    assert steps["nationality"] == (8, 7) and steps["melanoma_history"] == (7, 2) and steps["lesion_size_mm"] == (2, 1)
    assert done.patients == (PATIENTS[1],)
    assert done.inside["evidence"].filter(pl.col("item") == "pathology_done")["image_id"].to_list() == [EXAM_IDS[0]]


def test_S3_pictures_of_exams_that_nobody_has_listed(tmp_path: Path) -> None:
    given = tables("gunma", "OT")
    for wrong, message in (
        (pl.DataFrame({"image_id": ["a"], "colour": ["red"]}), "unknown columns colour"),
        (pl.DataFrame({"image_id": ["a", "a"]}), "stands twice"),
        (pl.DataFrame({"image_id": ["a"], "age_years": ["fifty"]}), "another type than they should be: age_years"),
    ):
        with pytest.raises(InputError, match=message):
            handed_over("nine_items", "shinshu_skin", given, tmp_path / "out", Sources(images=wrong))


def photographs(folder: Path, ids: list[str]) -> Photographs:
    from PIL import Image

    from reportlabel.export.deliverable_rules import load_deliverables
    from reportlabel.images.handover import strip_pictures

    for name in ("originals", "stripped"):
        (folder / name).mkdir()
    for at, one in enumerate(ids):
        Image.new("RGB", (32, 24), (100 + at, 80, 60)).save(folder / "originals" / f"{one}.jpg")
    sources = {one: folder / "originals" / f"{one}.jpg" for one in ids}
    made = strip_pictures(sources, folder / "stripped", load_deliverables().photographs)
    made.pictures.write_parquet(folder / "pictures.parquet")
    choice = {"type": "choices", "value": {"choices": ["cleared"]}}
    box = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["病変"]}
    looked, marked = [], []
    for at, (one, sha256) in enumerate(made.pictures.select("image_id", "sha256").iter_rows()):
        data = {"image_id": one, "sha256": sha256}
        by = {"completed_by": 7, "created_at": "2023-01-01T09:00:00Z"}
        if at:  # nobody has looked at the first
            looked.append({"data": data, "annotations": [{**by, "result": [choice]}]})
        if at in (1, 2):
            result = [{"type": "rectanglelabels", "value": box, "original_width": 32, "original_height": 24}]
            marked.append({"data": data, "annotations": [{**by, "result": result}]})
    for name, tasks in (("clearance", looked), ("regions", marked)):
        (folder / f"{name}.json").write_text(json.dumps(tasks), encoding="utf-8")
    return Photographs.read(
        folder / "stripped",
        pictures=folder / "pictures.parquet",
        clearance=folder / "clearance.json",
        regions=folder / "regions.json",
    )


@pytest.mark.parametrize("of", ["shinshu_skin", "tohoku_skin"])
def test_S4_T5_X2_photographs_in_two_sets(tmp_path: Path, of: str) -> None:
    given = tables("gunma", "OT")
    sources = Sources(photographs=photographs(tmp_path, EXAM_IDS[:6]))
    done = handed_over("images", of, given, tmp_path / "out", sources)
    rows = table(done, "images")
    assert rows["image_id"].to_list() == EXAM_IDS[1:6]  # the first was not cleared
    assert rows.filter(pl.col("set") == "labelled")["image_id"].to_list() == EXAM_IDS[1:3]
    for name, sha256 in rows.select("file", "sha256").iter_rows():
        assert hashlib.sha256((done.folder / name).read_bytes()).hexdigest() == sha256
    assert done.patients == tuple(PATIENTS[1:6])


def test_T3_T4_T5_T6_tohoku_indexes_and_comparison(tmp_path: Path) -> None:
    given = tables("tohoku", "OT")
    sources = Sources(photographs=photographs(tmp_path, EXAM_IDS[:4]))
    done = handed_over("index", "tohoku_skin", given, tmp_path / "out", sources)
    clinical = dict(table(done, "by_clinical_diagnosis").select("diagnosis", "image_ids").iter_rows())
    assert clinical["melanoma"] == EXAM_IDS[:2] and clinical[None] == EXAM_IDS[2:]
    assert table(done, "by_pathological_diagnosis")["diagnosis"].to_list()[0] == "basal_cell_carcinoma"
    assert table(done, "disagreements").select("image_id", "clinical", "pathological").rows() == [
        (EXAM_IDS[0], ["melanoma"], ["basal_cell_carcinoma"])
    ]
    assert table(done, "sets").filter(pl.col("set") == "labelled")["image_id"].to_list() == EXAM_IDS[1:3]
    links = table(done, "links").filter(pl.col("image_id") == EXAM_IDS[0]).select("record_id", "role", "delta_days")
    assert sorted(links.rows()) == [("C-0000000000", "pathological", 19), ("C-0000000001", "clinical", 19)]
    beside = handed_over("comparison", "tohoku_skin", given, tmp_path / "beside")
    melanoma = table(beside, "beside_readers").filter(pl.col("finding") == "melanoma")
    # the one with a specimen has no melanoma: the reader said so, the report holds no vote
    assert melanoma.select("rater", "n_healthy", "specificity").rows() == [("program", 1, 1.0), ("reader-01", 1, 0.0)]
    with pytest.raises(RefusedError, match="T8"):
        handed_over("index", "tohoku_skin", given, tmp_path / "no", recipient="shinshu_university")


def test_K10_X2_a_workspace_of_no_study_is_refused(tmp_path: Path) -> None:
    given = tables("gunma", "OT")
    own = replace(given, exams=given.exams.with_columns(patient_id=pl.lit("00012345")))
    with pytest.raises(RefusedError, match=r"S5.*1 values of patient_id are no codes") as refused:
        handed_over("nine_items", "shinshu_skin", own, tmp_path / "out")
    assert "00012345" not in str(refused.value)
    exams = given.exams.with_columns(exam_id=pl.format("X{}", pl.int_range(pl.len())))
    with pytest.raises(RefusedError, match="12 values of exam_id are no codes"):
        handed_over("nine_items", "shinshu_skin", replace(given, exams=exams), tmp_path / "out")


def test_J8_J9_pictures_are_handed_over_through_the_gate(tmp_path: Path) -> None:
    given = tables("juntendo", "CT")
    for code in ("J-0000000001", "J-0000000002"):
        dicom(tmp_path / "dicom", code, "20190701")
    sources = Sources(dicom=tmp_path / "dicom")
    done = handed_over("images", "jmid", given, tmp_path / "out", sources)
    assert (done.counts["files_in"], done.counts["files"], done.patients) == (2, 2, ())  # anonymised: no link
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 2
    assert verify_manifest(tmp_path / "out") == []
    with pytest.raises(ConfigError, match=r"Sources\.dicom"):
        handed_over("images", "jmid", given, tmp_path / "none")
    next((tmp_path / "dicom").rglob("*.dcm")).rename(tmp_path / "dicom" / "stray.dcm")
    with pytest.raises(RefusedError, match="1 files do not lie in a folder"):
        handed_over("images", "jmid", given, tmp_path / "stray", sources)


@pytest.mark.parametrize(
    ("name", "of", "made_by"),
    [
        ("teacher_labels", "tohoku_skin", "--to FORMAT"),
    ],
)
def test_what_other_commands_make_is_said_so(tmp_path: Path, name: str, of: str, made_by: str) -> None:
    with pytest.raises(ConfigError, match=made_by):
        handed_over(name, of, tables("x", "CT"), tmp_path / "out", purpose=ASKED[of]["purpose"]
                    if of != "keio_2017_0018" else "evaluation")  # fmt: skip


def test_tables_of_a_snapshot(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "ws", WORKSPACE, create=True, parts=1)
    given = tables("gunma", "NM")
    workspace.replace_part("exams", 0, given.exams)
    workspace.take_snapshot("run", datetime(2026, 1, 1))
    workspace.replace_part("exams", 0, given.exams.head(1))
    read = StudyTables.of(workspace, workspace.versions())
    assert read.exams.height == 12 and read.records.is_empty() and read.exams_of_cohort()["kind"].null_count() == 12


def test_what_reviewers_left_must_be_readable(tmp_path: Path) -> None:
    def read(**changed: Path) -> Callable[[], Photographs]:
        paths = {"pictures": tmp_path / "pictures.parquet", "clearance": tmp_path / "clearance.json", **changed}
        return lambda: Photographs.read(tmp_path / "stripped", **paths)

    photographs(tmp_path, EXAM_IDS[:2])
    (tmp_path / "wrong.json").write_text('{"a": 1', encoding="utf-8")
    (tmp_path / "object.json").write_text("{}", encoding="utf-8")
    for call, message in (
        (read(pictures=tmp_path / "none.parquet"), "cannot be read as Parquet"),
        (read(clearance=tmp_path / "wrong.json"), "cannot be read as JSON"),
        (read(clearance=tmp_path / "object.json"), "not a list of tasks"),
        (read(regions=tmp_path / "none.json"), "cannot be read as JSON"),
    ):
        with pytest.raises(InputError, match=message):
            call()
