"""The five studies from the archive to the hand-over and to the end, on the command line, on one synthetic hospital.

Every identifier that the hospital knows is searched in everything that came of it. The search itself is proved by the
archive, where it finds them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import openpyxl
import polars as pl
import pydicom
import pytest
from pyrage import decrypt, x25519

from reportlabel.deidentify.linkage import KeyFile, LinkageStore, make_key_file, patients_of
from reportlabel.deidentify.search import Searcher
from reportlabel.export.manifest import verify_manifest
from reportlabel.review.config import load_screen
from reportlabel.review.tasks import read_exams, review_tasks
from reportlabel.rulebook.load import load_rules
from reportlabel.run import open_workspace
from reportlabel.schema import READINGS
from reportlabel.synth.hospital import Hospital, make_hospital

ROOT = Path(__file__).parents[2]
SITES = ("aoba", "minato", "sato")
PATIENTS, SEED = 120, 5
TODAY = "2026-11-21"
PRIOR_STUDY = "HS-2022-005"
OFFICE = "皮膚科 個人情報管理者"


@dataclass(frozen=True)
class Study:
    """A study as this hospital has it: what it extends, a day on which it works, its periods."""

    name: str
    extends: str
    day: str
    period: str
    options: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("fhir", "ris_csv")


STUDIES = {
    one.name: one
    for one in (
        Study("our_keio", "keio_2017_0018", TODAY, "from: 2005-01-01"),
        Study("our_jmid", "jmid", TODAY, "from: 2005-01-01", ("--known", "known.csv", "--staff", "staff.csv")),
        Study(
            "our_gunma",
            "gunma_bone_scan",
            "2024-04-01",
            "{from: 2005-01-01, to: 2025-12-31}",
            ("--prior", "prior.csv"),
            ("fhir", "ris_csv", "dicom"),
        ),
        Study("our_shinshu", "shinshu_skin", "2023-04-01", "to: 2025-12-31", ("--known", "known.csv")),
        Study("our_tohoku", "tohoku_skin", TODAY, "to: 2025-12"),
    )
}
KNOWN_GIVEN = ("our_jmid", "our_shinshu")
"""The studies whose texts are searched for what the tables know; in the others rules alone must hold."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, and what it printed on both streams."""

    code: int
    told: str


@dataclass
class World:
    """A hospital, its lists, and the studies made of it."""

    folder: Path
    identity: x25519.Identity
    commands: list[Ended] = field(default_factory=list)

    @property
    def hospital(self) -> Path:
        return self.folder / "hospital"

    @property
    def key(self) -> KeyFile:
        return KeyFile(self.folder / "study.key")

    def workspace(self, study: str) -> Path:
        return self.folder / "workspaces" / study

    def linkage(self, study: str) -> Path:
        return self.folder / "safe" / study

    def out(self, study: str) -> Path:
        return self.folder / "out" / study

    def arguments(self, *arguments: str | Path, day: str = TODAY) -> list[str]:
        command = [sys.executable] + (["-m", "reportlabel"] if day == TODAY else [str(DAY), day])
        return [*command, *map(str, arguments)]

    def do(self, *arguments: str | Path, day: str = TODAY) -> Ended:
        done = subprocess.run(
            self.arguments(*arguments, day=day),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            check=False,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=200,
        )
        ended = Ended(done.returncode, done.stdout + done.stderr)
        self.commands.append(ended)
        assert "Traceback" not in ended.told, ended.told[-3000:]
        return ended

    def run_arguments(self, study: Study, *, workspace: Path | None = None, linkage: Path | None = None) -> list[str]:
        return [
            "run",
            f"{study.name}.yaml",
            f"--archive=hospital/{study.name}.yaml",
            f"--workspace={workspace or self.workspace(study.name)}",
            f"--linkage={linkage or self.linkage(study.name)}",
            "--key-file=study.key",
            "--refusals=refusals.csv",
            "--actor=night",
            *study.options,
        ]

    def run(self, study: Study) -> Ended:
        open_workspace(self.workspace(study.name), create=True, parts=2)
        return self.do(*self.run_arguments(study), day=study.day)

    def export(self, study: Study, name: str, *options: str, sealed: bool = False) -> Ended:
        """Hand something over; what is sealed is opened beside it, as its recipient does."""
        self.out(study.name).mkdir(parents=True, exist_ok=True)
        out = self.out(study.name) / name
        seal = [f"--seal-to={self.identity.to_public()}"] if sealed else []
        done = self.do(
            "export",
            self.workspace(study.name),
            f"--out={out}",
            "--key-file=study.key",
            "--refusals=refusals.csv",
            "--actor=researcher",
            *seal,
            *options,
            day=study.day,
        )
        if sealed and not done.code:
            content = decrypt(out.with_name(f"{name}.tar.age").read_bytes(), [self.identity])
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(self.out(study.name), filter="data")
        return done

    def dicom(self, study: Study, site: str, name: str, *options: str) -> Ended:
        return self.do(
            "dicom",
            "deidentify",
            f"hospital/dicom/{site}",
            f"--protocol={study.name}.yaml",
            f"--out=pictures/{study.name}/{name}",
            f"--record=records/{study.name}/{name}",
            f"--linkage={self.linkage(study.name)}",
            "--key-file=study.key",
            "--refusals=refusals.csv",
            "--purpose=pictures of the study",
            f"--site={site}",
            "--id-width=8",
            *options,
            day=study.day,
        )

    def store(self, study: str) -> LinkageStore:
        return LinkageStore.open(self.linkage(study), key_source=self.key, workspace=self.workspace(study))

    def codes(self, study: str, kind: str) -> pl.DataFrame:
        return self.store(study).all_codes(kind, actor="test", purpose="test")  # type: ignore[arg-type]

    def patients(self, study: str) -> pl.DataFrame:
        """site, patient_id, patient_code."""
        return patients_of(self.codes(study, "patient"))

    @cached_property
    def canaries(self) -> pl.DataFrame:
        return pl.read_parquet(self.hospital / "gold" / "canaries.parquet")

    @cached_property
    def searcher(self) -> Searcher:
        return Searcher(self.canaries.select("kind", "value").iter_rows())


DAY = Path(__file__).with_name("on_a_day.py")


def environment() -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "PYTEST_CURRENT_TEST")}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return plain | {"PYTHONPATH": paths, "PYTHONUTF8": "1", "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("studies"), x25519.Identity.generate())
    make_hospital(Hospital(made.hospital, PATIENTS, SEED, ("parquet", "fhir", "ris", "dicom")))
    make_key_file(made.key.path)
    write_lists(made)
    for study in STUDIES.values():
        write_protocol(made, study)
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda work: work(made), (make_keio, make_jmid, make_gunma, make_skin, make_without_study)):
            pass
    return made


FOLDERS = {"fhir": "fhir", "ris_csv": "ris", "dicom": "dicom"}


def write_protocol(world: World, study: Study) -> None:
    """The file of the hospital, and the archive of the study."""
    sites = "".join(f"    - {{id: {site}, name: {{ja: {site}, en: {site}}}}}\n" for site in SITES)
    period = study.period.strip("{}").replace(", ", "\n  ")
    text = f"extends: {study.extends}\nid: {study.name}\ncohort:\n  {period}\n  sites:\n{sites}"
    (world.folder / f"{study.name}.yaml").write_text(text, encoding="utf-8")
    sources = "".join(
        f"  - {{path: {FOLDERS[one]}/{site}, format: {one}, site: {site}}}\n" for one in study.formats for site in SITES
    )
    archive = f"options: {{patient_id_width: 8}}\nsources:\n{sources}"
    (world.hospital / f"{study.name}.yaml").write_text(archive, encoding="utf-8")


def write_lists(world: World) -> None:
    """What the offices of the hospital give: refusals, names, who was in the earlier study."""
    tables = world.hospital / "parquet"
    exams = pl.read_parquet(tables / "exams.parquet")
    asked = pl.read_parquet(tables / "refusals.parquet").with_columns(pl.col("received").cast(pl.String))
    somebody = exams.filter(pl.col("modality_class") == "CT").sort("patient_id").select("site", "patient_id").head(1)
    asked = pl.concat([asked, somebody.with_columns(received=pl.lit("2020-01-06"), scope=pl.lit("all_research"),
                                                    requester=pl.lit("patient"))], how="diagonal")  # fmt: skip
    asked.write_csv(world.folder / "refusals.csv")
    known = pl.read_parquet(tables / "patients.parquet")
    names = ("site", "patient_id", "name", "kana", "roman", "postal_code", "address", "phone")
    known.select(name for name in names if name in known.columns).write_csv(world.folder / "known.csv")
    doctors = world.canaries.filter(pl.col("kind") == "doctor").select(name="value")
    doctors.write_csv(world.folder / "staff.csv")
    nuclear = exams.filter(pl.col("modality") == "NM").select("site", "patient_id").unique()
    nuclear.with_columns(study=pl.lit(PRIOR_STUDY)).sort("patient_id").write_csv(world.folder / "prior.csv")


def read_aloud(world: World, study: Study, label_set: str, finding: str) -> None:
    """Three readers confirm the report's value of every exam."""
    workspace = open_workspace(world.workspace(study.name))
    said = workspace.read("labels").filter((pl.col("label_set") == label_set) & (pl.col("finding") == finding))
    rows = [
        {"exam_id": exam, "label_set": label_set, "finding": finding, "reader": reader, "value": value, "spans": [],
         "origin": "confirmed", "read_at": datetime(2026, 1, 1), "annotation_id": f"{number}", "sha256": f"{number}"}
        for number, (exam, value) in enumerate(said.select("exam_id", "value").iter_rows())
        for reader in ("reader 1", "reader 2", "reader 3")
    ]  # fmt: skip
    workspace.append("readings", pl.DataFrame(rows, schema=READINGS))
    workspace.take_snapshot("review", datetime(2026, 1, 1))


def write_tasks(world: World, study: Study) -> None:
    """The tasks of the review screen as JSON, all exams of all label sets."""
    rules = load_rules()
    workspace = open_workspace(world.workspace(study.name))
    labels = workspace.read("labels").select("exam_id", "label_set").unique().sort("label_set", "exam_id")
    folder = world.out(study.name) / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    for (name,), exams in labels.group_by("label_set", maintain_order=True):
        wanted = exams.with_columns(reason=pl.lit("random"), priority=pl.int_range(1, exams.height + 1))
        tables = read_exams(workspace, exams["exam_id"].to_list(), str(name))
        tasks, problems = review_tasks(tables, wanted, rules.label_sets[str(name)], rules, load_screen(rules.folder))
        assert problems.is_empty()
        payloads = [task.payload() for task in tasks]
        (folder / f"{name}.json").write_text(json.dumps(payloads, ensure_ascii=False), encoding="utf-8")


def done(ended: Ended, *codes: int) -> None:
    assert ended.code in (codes or (0,)), ended.told[-3000:]


def make_keio(world: World) -> None:
    study = STUDIES["our_keio"]
    done(world.run(study), 0, 1)
    to_laboratory = ("--recipient=joint_laboratory", "--purpose=teacher_labels")
    done(world.export(study, "labels", "--to=parquet", *to_laboratory, sealed=True))
    done(world.export(study, "chexpert", "--to=chexpert", "--label-set=chexpert_14", "--recipient=marubeni",
                      "--purpose=model_training", sealed=True))  # fmt: skip
    inside = ("--deliverable=image_list", "--recipient=radiology", "--purpose=image_retrieval")
    done(world.export(study, "image_list", *inside))
    done(world.dicom(study, "aoba", "aoba"), 0, 1)
    write_tasks(world, study)


def make_jmid(world: World) -> None:
    study = STUDIES["our_jmid"]
    done(world.run(study), 0, 1)
    read_aloud(world, study, "lung_ct", "nodule_or_mass")
    inside = ("--recipient=institution", "--purpose=diagnostic_ai")
    done(world.export(study, "labels", "--to=parquet", *inside))
    done(world.export(study, "anonymised", "--to=parquet", "--profile=anonymised", *inside))
    for name in ("exam_table", "dose_summary", "annotations"):
        to_all = (f"--deliverable={name}", "--recipient=participating_institutions", "--purpose=dose_analysis")
        done(world.export(study, name, *to_all, sealed=True))
    write_tasks(world, study)


def make_gunma(world: World) -> None:
    study = STUDIES["our_gunma"]
    done(world.run(study), 0, 1)
    read_aloud(world, study, "bone_scintigraphy", "bone_metastasis")
    done(world.dicom(study, "minato", "minato_first"), 0, 1)
    sheet = world.folder / "records" / study.name / "minato_first" / "review.csv"
    rows = pl.read_csv(sheet, infer_schema=False)
    keep = pl.when(pl.col("kind") == "pixels").then(pl.lit("keep")).otherwise(pl.lit("remove"))
    rows.with_columns(decision=keep).write_csv(sheet)
    done(world.dicom(study, "minato", "minato", f"--decisions={sheet}"), 0, 1)
    pictures = world.folder / "pictures" / study.name
    shutil.rmtree(pictures / "minato_first")
    to_company = ("--recipient=nihon_medi_physics", "--purpose=software_comparison")
    asked = ("--deliverable=sheet", f"--dicom={pictures}", "--several=first", f"--inside={world.folder / 'inside'}")
    done(world.export(study, "sheet", *asked, *to_company, sealed=True))
    inside = ("--recipient=nuclear_medicine", "--purpose=software_comparison")
    values = world.folder / "values.csv"
    write_values(world, study, values)
    done(world.export(study, "comparison", "--deliverable=comparison", f"--values={values}", *inside))
    done(world.export(study, "labels", "--to=parquet", *inside))
    write_tasks(world, study)


def write_values(world: World, study: Study, path: Path) -> None:
    """Values of the programs, by patient code and tracer, invented."""
    workspace = open_workspace(world.workspace(study.name))
    people = workspace.read("exams").join(workspace.read("cohort"), on="exam_id").drop_nulls("tracer_id")
    rows = [
        {"patient_code": code, "tracer": tracer, "software": software, "version": version, "metric": metric,
         "value": float(at % 5)}
        for at, (code, tracer) in enumerate(people.select("patient_id", "tracer_id").unique().sort("patient_id").rows())
        for software, version in ((("BoneNAVI", None),) if tracer == "MDP" else (("VSBONE", "2.0"), ("VSBONE", "3.0")))
        for metric in ("BSI", "Hotspot")
    ]  # fmt: skip
    pl.DataFrame(rows).write_csv(path)


def make_skin(world: World) -> None:
    for study in (STUDIES["our_shinshu"], STUDIES["our_tohoku"]):
        done(world.run(study), 0, 1)
        write_tasks(world, study)
    shinshu, tohoku = STUDIES["our_shinshu"], STUDIES["our_tohoku"]
    to_shinshu = ("--recipient=shinshu_university", "--purpose=data_set")
    done(world.export(shinshu, "nine_items", "--deliverable=nine_items", *to_shinshu, sealed=True))
    inside = ("--recipient=dermatology", "--purpose=data_set")
    done(world.export(shinshu, "labels", "--to=parquet", *inside))
    inside = ("--recipient=dermatology", "--purpose=image_database")
    for name in ("index", "comparison"):
        done(world.export(tohoku, name, f"--deliverable={name}", *inside))
    done(world.export(tohoku, "labels", "--to=parquet", *inside))


def make_without_study(world: World) -> None:
    open_workspace(world.workspace("none"), create=True, parts=2)
    archive = "--archive=hospital/our_keio.yaml"
    done(world.do("run", archive, f"--workspace={world.workspace('none')}"), 0, 1)


# --- what is in it


DELIVERABLES = {
    "our_keio": ("labels", "chexpert", "image_list"),
    "our_jmid": ("labels", "anonymised", "exam_table", "dose_summary", "annotations"),
    "our_gunma": ("sheet", "comparison", "labels"),
    "our_shinshu": ("nine_items", "labels"),
    "our_tohoku": ("index", "comparison", "labels"),
}


@pytest.mark.parametrize(("study", "name"), [(one, name) for one, names in DELIVERABLES.items() for name in names])
def test_X2_every_deliverable_has_a_manifest_that_holds(world: World, study: str, name: str) -> None:
    folder = world.out(study) / name
    assert verify_manifest(folder) == []
    said = (folder / "manifest.json").read_text(encoding="utf-8")
    assert STUDIES[study].name in said


def told(text: str) -> None:
    """Shown with ``pytest -s``."""
    print(text)  # noqa: T201


INSIDE = ("image_list",)
"""What finds the pictures of an exam in the hospital must hold their keys."""


def everything(world: World) -> list[Path]:
    """All that came of the archive: workspaces, what was handed over and opened, pictures, tasks, stores."""
    out = [path for study in STUDIES for path in world.out(study).iterdir() if path.name not in INSIDE]
    workspaces = [world.workspace(study) for study in STUDIES]
    records = list(world.folder.glob("records/*/*/manifest.json"))
    return [*out, *workspaces, *records, *(world.folder / name for name in ("pictures", "safe", "inside"))]


def test_K6_K9_K10_J7_X_no_identifier_in_anything_that_came_of_the_archive(world: World) -> None:
    files = [one for path in everything(world) for one in ([path] if path.is_file() else path.rglob("*"))]
    assert sum(path.is_file() for path in files) > 500
    found = [(path.name, hit) for path in everything(world) for hit in hits(world, path)]
    found += [("printed", kind) for ended in world.commands for kind in world.searcher.in_text(ended.told)]
    assert found == []
    assert world.searcher.size > 4000
    told(f"{world.searcher.size} words in {len(files)} files and {len(world.commands)} outputs: {len(found)}")


def hits(world: World, path: Path) -> list[object]:
    if path.is_dir():
        return list(world.searcher.in_folder(path))
    return list(world.searcher.in_bytes(path.read_bytes()))


def test_the_same_search_finds_them_in_the_archive(world: World) -> None:
    """All but those that stand nowhere in it: Latin names of people without pictures, staff without an exam."""
    values = world.canaries.unique("value", maintain_order=True)
    numbered = Searcher((f"{at}", value) for at, value in enumerate(values["value"]))
    counts: Counter[str] = Counter()
    for form in ("fhir", "ris", "dicom"):
        for hit in numbered.in_folder(world.hospital / form):
            counts[hit.kind] += hit.count
    kinds = Counter(values["kind"][int(at)] for at in counts)
    told(f"in the archive: {len(counts)} of {values.height}, {counts.total()} times: {dict(kinds)}")
    assert set(kinds) == set(values["kind"])
    assert len(counts) >= 0.98 * values.height
    assert world.searcher.skipped == 0


def test_K9_nobody_writes_down_addresses_and_phones(world: World) -> None:
    kinds = ("name", "kana", "roman", "address", "phone", "postal_code", "birth_date")
    wanted = world.canaries.filter(pl.col("kind").is_in(kinds)).select("kind", "value")
    for study in STUDIES:
        staging = world.workspace(study).with_name(f"{study}.staging")
        assert staging.is_dir()
        assert Searcher(wanted.iter_rows()).in_folder(staging) == []


def test_K4_six_kinds_of_records_are_held_and_an_absent_source_is_counted(world: World) -> None:
    keio = open_workspace(world.workspace("our_keio"))
    kinds = {"pathology", "lab", "physiology", "surgery", "diagnosis", "medication"}
    assert set(keio.read("records")["kind"]) == set(keio.read("links")["kind"]) == kinds
    jmid = open_workspace(world.workspace("our_jmid"))
    counts = jmid.read("attrition").filter(stage="link", table="records", outcome="in")
    assert (counts.height, counts["rows"].sum()) == (2, 0), "a row that says none, in each part"
    assert jmid.read("links").schema == keio.read("links").schema


def test_K7_the_list_of_pictures_is_of_all_labelled_exams_with_the_keys_of_the_hospital(world: World) -> None:
    listed = pl.read_parquet(world.out("our_keio") / "image_list" / "image_list.parquet")
    assert set(listed["exam_id"]) == set(decided(world.workspace("our_keio"))["exam_id"])
    known = world.canaries.filter(kind="study_instance_uid")["value"]
    assert listed["study_instance_uid"].is_in(known.implode()).mean() == 1


def test_B12_a_code_is_the_same_in_sheet_and_pictures(world: World) -> None:
    sheet = world.out("our_gunma") / "sheet"
    book = openpyxl.load_workbook(next(sheet.rglob("*.xlsx"))).worksheets[0]
    rows = list(book.iter_rows(values_only=True))
    assert rows[0] == ("患者符号", "検査日", "所見", "EOD", "転移の有無", "年齢", "性別", "身長", "体重")
    codes = {row[0] for row in rows[1:]}
    pictures = [pydicom.dcmread(path, stop_before_pixels=True) for path in sheet.rglob("*.dcm")]
    assert len(codes) >= 2
    assert codes == {one.PatientID for one in pictures} == {str(one.PatientName) for one in pictures}
    assert codes <= set(world.patients("our_gunma")["patient_code"])


def test_B19_a_whole_study_passes_without_network(world: World) -> None:
    """All commands of the study ran where no connection can begin (`on_a_day`); that it cannot is shown here."""
    assert open_workspace(world.workspace("our_gunma")).read("labels").height > 0
    begin = (
        "from tests.flow.on_a_day import without_network as w; w(); import socket; socket.create_connection(('h', 1))"
    )
    tried = subprocess.run(
        [sys.executable, "-c", begin], cwd=ROOT, env=environment(), capture_output=True, check=False, encoding="utf-8"
    )
    assert "the network was asked for" in tried.stderr


def test_K3_J11_B18_S6_T9_who_refused_is_in_no_study(world: World) -> None:
    asked = pl.read_csv(world.folder / "refusals.csv", infer_schema=False).filter(scope="all_research")
    for study in STUDIES:
        assert world.patients(study).join(asked, on=["site", "patient_id"], how="semi").is_empty()
        counts = open_workspace(world.workspace(study)).read("attrition").filter(stage="read", outcome="excluded")
        assert counts["reason"].str.contains(r"people who have refused, deleted \([KJBST]\d+\)$").all()
        assert counts["rows"].sum() > 0


def test_X3_rows_in_are_rows_out_and_excluded(world: World) -> None:
    for study in STUDIES:
        counts = open_workspace(world.workspace(study)).read("attrition").group_by("stage", "table").agg(
            into=pl.col("rows").filter(pl.col("outcome") == "in").sum(),
            out=pl.col("rows").filter(pl.col("outcome") != "in").sum(),
        )  # fmt: skip
        assert counts.height > 8
        assert counts.filter(pl.col("into") != pl.col("out")).is_empty()


def decided(workspace: Path, names: pl.DataFrame | None = None) -> pl.DataFrame:
    """exam_id, label_set, finding, value; ``names``: original and code, to have original ids."""
    labels = open_workspace(workspace).read("labels").select("exam_id", "label_set", "finding", "value")
    if names is None:
        return labels
    known = names.select("original", exam_id="code")
    return labels.join(known, on="exam_id", how="left").with_columns(exam_id="original").drop("original")


def test_labels_are_those_of_the_texts_as_they_were(world: World) -> None:
    before = decided(world.workspace("none"))
    after = decided(world.workspace("our_keio"), world.codes("our_keio", "exam"))
    both = after.join(before, on=["exam_id", "label_set", "finding"], how="left", suffix="_before")
    same = (both["value"] == both["value_before"]).fill_null(False)
    told(f"{same.sum()} of {both.height} decisions are the same")
    assert both.height > 9000
    assert same.mean() >= 0.995  # type: ignore[operator]


# --- refused, each with its reason (acceptance 5)


def at_once(*calls: Callable[[], Ended]) -> list[Ended]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda call: call(), calls))


def test_K14_K15_T8_what_the_protocol_forbids_is_refused_by_number(world: World) -> None:
    keio, tohoku = STUDIES["our_keio"], STUDIES["our_tohoku"]
    labels, purpose = "--to=parquet", "--purpose=teacher_labels"
    laboratory = "--recipient=joint_laboratory"
    unlisted, plain, nobody, outside = at_once(
        lambda: world.export(keio, "x", labels, "--recipient=another_company", purpose),
        lambda: world.export(keio, "y", labels, laboratory, purpose),
        lambda: world.export(keio, "z", labels),
        lambda: world.export(tohoku, "x", labels, laboratory, "--purpose=model_training"),
    )
    assert [one.code for one in (unlisted, plain, nobody, outside)] == [3, 3, 3, 3]
    assert "(K15)" in unlisted.told
    assert "'another_company' is not listed" in unlisted.told
    assert "(K14)" in plain.told
    assert "must be encrypted" in plain.told
    assert "(K15)" in nobody.told
    assert "(T8)" in outside.told
    assert not [path for study in (keio, tohoku) for path in world.out(study.name).iterdir() if len(path.name) == 1]


def test_K17_B22_S10_an_expired_protocol_does_nothing(world: World) -> None:
    gunma = STUDIES["our_gunma"]
    late = replace(gunma, day=TODAY)
    to = ("--to=parquet", "--recipient=nuclear_medicine", "--purpose=software_comparison")
    run, export = at_once(
        lambda: world.do(*world.run_arguments(gunma)),
        lambda: world.export(late, "late", *to),
    )
    for refused in (run, export):
        assert refused.code == 3
        assert "(B22)" in refused.told
        assert "2025-12-31" in refused.told


def test_a_wrong_key_overlapping_paths_and_an_open_contradiction_are_told(world: World) -> None:
    tohoku = STUDIES["our_tohoku"]
    make_key_file(world.folder / "other.key")
    within = world.workspace("our_tohoku") / "safe"
    text = (world.folder / "our_keio.yaml").read_text(encoding="utf-8").replace("id: our_keio", "id: open")
    (world.folder / "open.yaml").write_text(f"{text}decisions: {{KC4: null}}\n", encoding="utf-8")
    wrong, overlap, staging, undecided = at_once(
        lambda: world.do(*world.run_arguments(tohoku), "--key-file=other.key"),
        lambda: world.do(*world.run_arguments(tohoku, linkage=within)),
        lambda: world.do(*world.run_arguments(tohoku), f"--staging={world.workspace('our_tohoku') / 'rows'}"),
        lambda: world.do("run", "open.yaml", *world.run_arguments(tohoku)[2:]),
    )
    assert [one.code for one in (wrong, overlap, staging, undecided)] == [2, 2, 2, 2]
    assert "key" in wrong.told
    assert "apart" in overlap.told
    assert not within.exists()
    assert "overlap" in staging.told
    assert "KC4" in undecided.told


def test_an_altered_line_of_the_log_is_found(world: World, tmp_path: Path) -> None:
    store = shutil.copytree(world.linkage("our_keio"), tmp_path / "store")
    verify = ("audit", "verify", store, "--key-file=study.key")
    assert world.do(*verify).code == 0
    log = store / "audit.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[5] = lines[5].replace('"night"', '"nobody"')
    log.write_text("".join(lines), encoding="utf-8")
    found = world.do(*verify)
    assert found.code == 2
    assert "nothing was altered" not in found.told


# --- a refusal that comes later (K16), a run that is killed, the end of a study


def kept_by(world: World, study: str, words: list[tuple[str, str]]) -> list[object]:
    places = [world.workspace(study), world.workspace(study).with_name(f"{study}.staging")]
    return [hit for place in places for hit in Searcher(words).in_folder(place)]


def test_K16_S6_who_refuses_later_leaves_every_byte_and_the_bundles_are_listed(world: World) -> None:
    study = STUDIES["our_shinshu"]
    person = world.patients(study.name).sort("patient_code").row(0, named=True)
    workspace = open_workspace(world.workspace(study.name))
    theirs = workspace.read("exams").filter(pl.col("patient_id") == person["patient_code"])["exam_id"].to_list()
    words = [("code", person["patient_code"]), ("id", person["patient_id"]), *(("exam", one) for one in theirs)]
    assert theirs
    assert {hit.kind for hit in kept_by(world, study.name, words)} == {"code", "id", "exam"}  # type: ignore[attr-defined]

    before = (world.folder / "refusals.csv").read_text(encoding="utf-8")
    columns = before.splitlines()[0].split(",")
    # a spreadsheet has lost the zeros in front
    said = {"site": person["site"], "patient_id": person["patient_id"].lstrip("0"), "scope": "all_research",
            "requester": "patient", "received": "2023-03-31"}  # fmt: skip
    row = ",".join(said.get(column, "") for column in columns)
    (world.folder / "refusals.csv").write_text(f"{before}{row}\n", encoding="utf-8")
    try:
        export = world.export(study, "after", "--to=parquet", "--recipient=dermatology", "--purpose=data_set")
        done(export)
        assert f"{len(theirs)} exams left out: refused since the last run" in export.told
        assert Searcher(words).in_folder(world.out(study.name) / "after") == []
        ended = world.run(study)
    finally:
        (world.folder / "refusals.csv").write_text(before, encoding="utf-8")
    done(ended, 0, 1)
    assert kept_by(world, study.name, words) == []
    assert "exams must leave the review server" in ended.told
    bundles = json.loads((world.out(study.name) / "labels" / "manifest.json").read_text(encoding="utf-8"))
    assert bundles
    assert "bundles hold somebody who has refused: " in ended.told
    listed = ended.told.partition("somebody who has refused: ")[2]
    assert "teacher_labels-" in listed
    assert person["patient_id"] not in ended.told


def test_a_run_that_is_killed_gives_the_same_labels(world: World, tmp_path: Path) -> None:
    study = STUDIES["our_keio"]
    workspace, linkage = tmp_path / "workspace", tmp_path / "safe"
    arguments = world.run_arguments(study, workspace=workspace, linkage=linkage)
    with subprocess.Popen(
        world.arguments(*arguments), cwd=world.folder, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    ) as running:  # fmt: skip
        end = time.monotonic() + 120
        while len(list(workspace.glob("votes/part=*"))) < 4 and time.monotonic() < end and running.poll() is None:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
    assert not (workspace / "labels").exists() or open_workspace(workspace).read("labels").is_empty()
    done(world.do(*arguments), 0, 1)
    store = LinkageStore.open(linkage, key_source=world.key, workspace=workspace)
    assert store.problems() == []
    names = store.all_codes("exam", actor="test", purpose="test")
    keys = ["exam_id", "label_set", "finding"]
    again = decided(workspace, names).sort(keys)
    assert again.height > 9000
    assert again.equals(decided(world.workspace(study.name), world.codes(study.name, "exam")).sort(keys))
    assert set(names["code"]).isdisjoint(world.codes(study.name, "exam")["code"])


def test_K12_J12_B20_S10_after_the_end_nothing_can_be_linked_and_labels_still_read(world: World) -> None:
    study = STUDIES["our_tohoku"]
    workspace, linkage = world.workspace(study.name), world.linkage(study.name)
    labels = decided(workspace)
    code = world.patients(study.name)["patient_code"][0]
    originals = [("id", one) for one in world.patients(study.name)["patient_id"]]
    lookup = ("linkage", "lookup", linkage, code, f"--protocol={study.name}.yaml", "--key-file=study.key",
              f"--custodian={OFFICE}", "--purpose=request", "--actor=office")  # fmt: skip
    done(world.do(*lookup))
    world.commands.pop()  # it shows the id: that is its purpose
    destroy = ("destroy", workspace, "--what=linkage", f"--custodian={OFFICE}", "--purpose=end of the study",
               "--key-file=study.key", "--actor=office")  # fmt: skip
    asked = world.do(*destroy)
    assert (asked.code, "would destroy" in asked.told, linkage.joinpath("linkage.key").exists()) == (0, True, True)
    done(world.do(*destroy, "--yes"))

    again = world.do(*lookup)
    assert again.code in (2, 3)
    assert "destroyed" in again.told
    staging = workspace.with_name(f"{workspace.name}.staging")
    assert not staging.exists()
    left = Searcher([*originals, *world.canaries.select("kind", "value").iter_rows()])
    assert left.in_folder(workspace) + left.in_folder(linkage) == []
    assert decided(workspace).equals(labels)
    certificate = json.loads((linkage / "certificate.json").read_text(encoding="utf-8"))
    assert (certificate["state"], certificate["counts"]["patient"] > 0) == ("done", True)
    went = json.loads((linkage / "destruction.json").read_text(encoding="utf-8"))
    assert [one["what"] for one in went["folders"]] == ["staging"]
    for refused in (
        world.export(study, "x", "--to=parquet", "--recipient=dermatology", "--purpose=image_database"),
        world.do(*world.run_arguments(study)),
        world.do(*destroy, "--yes"),
    ):
        assert refused.code == 2
        assert "destroyed" in refused.told
    exam = labels["exam_id"][0]
    done(world.do("explain", workspace, exam))
