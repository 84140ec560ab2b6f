"""Any deliverable of any study: asks the gate, makes the tables, writes the folder.

    tables = StudyTables.of(workspace, versions)
    done = write_deliverable(
        "exam_table", tables, protocol, out, today=day, recipient="institution", purpose="dose_analysis"
    )

What is made depends on the kind of the deliverable and on the sections of the protocol; each kind is a function of its
own in `reportlabel.export` and `reportlabel.evaluate`, and can be called alone.
"""

from __future__ import annotations

import importlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.normalise import Normaliser
from reportlabel.annotate.sections import Splitter
from reportlabel.consent.cohort import cells, count_report
from reportlabel.deidentify.audit import CODE
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.evaluate.software import VALUES
from reportlabel.export.annotations import annotation_table, write_annotations
from reportlabel.export.bone_scan import match_dicom, patient_metastasis, sheet_rows, without_files, write_bundle
from reportlabel.export.comparison import Comparison, compare_labels, compare_software, write_comparison
from reportlabel.export.deliverable_rules import DeliverableRules, load_deliverables
from reportlabel.export.dose import dose_summary, exam_table, request_reasons, write_dose_summary, write_exam_table
from reportlabel.export.folder import check_replaceable, new_folder
from reportlabel.export.manifest import read_manifest, write_manifest
from reportlabel.export.retrieval import retrieval_list, write_retrieval_list
from reportlabel.export.skin import (
    images_of_exams,
    link_records_to_images,
    nine_items,
    record_diagnoses,
    write_indexes,
    write_nine_items,
)
from reportlabel.export.study_folder import about, need_columns
from reportlabel.images.sets import REGIONS, regions_of
from reportlabel.protocol import Deliverable, Permission, Profile, Protocol
from reportlabel.report.quality import write_quality_folder
from reportlabel.report.quality_numbers import RunTables
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.store import Workspace

__all__ = ["HandedOver", "Photographs", "Sources", "StudyTables", "write_deliverable"]


Several = Literal["problem", "first", "last"]
"""What several bone scans of a patient are: a problem, or the first or last counts."""


@dataclass(frozen=True)
class StudyTables:
    """The tables of a study, as in a workspace: after consent, cohort and de-identification.

    ``patient_id`` and ``exam_id`` are codes of the study; texts are masked. ``cohort``: kind and tracer of each exam.
    """

    exams: pl.DataFrame
    reports: pl.DataFrame
    records: pl.DataFrame
    mentions: pl.DataFrame
    labels: pl.DataFrame
    readings: pl.DataFrame
    cohort: pl.DataFrame

    @classmethod
    def of(cls, workspace: Workspace, versions: Mapping[str, int]) -> StudyTables:
        """The tables of a workspace at the versions of a snapshot (`Workspace.versions`)."""
        return cls(**{one.name: workspace.read(one.name, version=versions.get(one.name, -1)) for one in fields(cls)})

    def exams_of_cohort(self) -> pl.DataFrame:
        """The exams with ``kind``, ``tracer_id`` and ``tracer_source``."""
        return self.exams.join(self.cohort, on="exam_id", how="left", maintain_order="left")


@dataclass(frozen=True)
class Photographs:
    """Stripped pictures that reviewers have looked at.

    Attributes:
        folder: where `strip_pictures` wrote them. pictures: its table. clearance: columns of
            `reportlabel.images.clearance.CLEARANCE`. regions: of `regions_of`; None: no picture is marked.
    """

    folder: Path
    pictures: pl.DataFrame
    clearance: pl.DataFrame
    regions: pl.DataFrame | None = None

    @classmethod
    def read(
        cls, folder: Path, *, pictures: Path, clearance: Path, regions: Path | None = None, rules: Path | None = None
    ) -> Photographs:
        """What the steps before have left on the disk.

        Args:
            folder: of `strip_pictures`. pictures: its table as Parquet. clearance, regions: exports of the two Label
                Studio projects (JSON). rules: another rules folder.

        Raises:
            InputError: a file cannot be read or is not what it should be. ConfigError: Pillow is not installed.
        """
        images = _images()
        try:
            table = pl.read_parquet(pictures)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{pictures}: cannot be read as Parquet ({type(error).__name__})") from None
        need_columns(table, images.handover.STRIPPED, name=str(pictures))
        words = load_deliverables(rules).photographs.clearance
        return cls(
            folder,
            table,
            images.clearance.clearance_of(_tasks(clearance), words),
            None if regions is None else regions_of(_tasks(regions)),
        )


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # the text of the error may quote the file
        raise InputError(f"{path}: cannot be read as JSON ({type(error).__name__}); export it again") from None
    if not isinstance(tasks, list) or not all(isinstance(one, dict) for one in tasks):
        raise InputError(f"{path}: not a list of tasks; export the project from Label Studio as JSON")
    return tasks


@dataclass(frozen=True)
class Sources:
    """What a deliverable needs beside the tables of a workspace; each is needed by some kinds only.

    Attributes:
        dicom: folder that the DICOM de-identification wrote, for the sheet and the pictures of the bone scan study.
        uids: exam_id, study_instance_uid, accession_number as the hospital has them, from the linkage store, for the
            list of images.
        values: columns of `reportlabel.evaluate.software.VALUES`, for the comparison of software.
        images: the hospital's table of pictures (`images_of_exams`), for the skin studies.
        photographs: for pictures of the skin studies.
        several: of a patient with several bone scans: a problem, the first, or the last.
        confirmed_only: whether a metastasis that no reader has confirmed keeps the patient out of the sheet.
        key: random bytes that order the numbers of an anonymised table; give the same for tables that belong
            together, then throw it away. None: drawn anew.
        split_salt: of splits by patient.
        run: the other tables of the run, for the quality report.
    """

    dicom: Path | None = None
    uids: pl.DataFrame | None = None
    values: pl.DataFrame | None = None
    images: pl.DataFrame | None = None
    photographs: Photographs | None = None
    several: Several = "problem"
    confirmed_only: bool = True
    key: bytes | None = None
    split_salt: str = "reportlabel"
    run: RunTables | None = None


@dataclass(frozen=True)
class HandedOver:
    """What was made.

    Attributes:
        folder: with the manifest. permission: of the gate. counts: those of the manifest.
        patients: codes of the patients who have a row or a file in the folder, in order; none where it holds figures
            only. Keep them with the linkage store: a withdrawal asks which hand-overs hold a patient.
        inside: tables that stay in the hospital, by name: who and what is not in the folder and why, evidence.
    """

    folder: Path
    permission: Permission
    counts: Mapping[str, int]
    patients: tuple[str, ...]
    inside: Mapping[str, pl.DataFrame]


@dataclass(frozen=True)
class _Work:
    name: str
    tables: StudyTables
    exams: pl.DataFrame
    sources: Sources
    protocol: Protocol
    permission: Permission
    profile: Profile
    rules: DeliverableRules
    rules_folder: Path | None
    rules_sha256: str | None
    out: Path

    @cached_property
    def book(self) -> Rulebook:
        return load_rules(self.rules_folder)

    def missing(self, option: str, what: str) -> ConfigError:
        return ConfigError(f"{self.name} of {self.protocol.id} needs {what}: give Sources.{option}")


def write_deliverable(
    name: str,
    tables: StudyTables,
    protocol: Protocol,
    out: Path,
    *,
    today: date,
    recipient: str,
    purpose: str,
    sources: Sources | None = None,
    profile: Profile | None = None,
    channel: str | None = None,
    url: str | None = None,
    encrypted: bool = True,
    data_of: str | None = None,
    rules: Path | None = None,
) -> HandedOver:
    """Make a deliverable of a study as a folder with a manifest (X2).

    The gate is asked before anything is read. Refusals must have been applied to the tables
    (`reportlabel.consent.refusals.refuse_in_tables`).

    Args:
        name: the id of a deliverable in the protocol.
        out: the folder; it appears whole or not at all, and replaces nothing but an earlier export.
        today, recipient, purpose, profile, channel, url, encrypted, data_of: for the gate, see `Protocol.gate`. Who
            hands over answers for ``encrypted``: what is carried or sent must be, by the means of the hospital.
        rules: another rules folder.

    Raises:
        RefusedError: the gate says no, or the tables are not de-identified; names the requirement.
        ConfigError: something is needed that was not given, the deliverable is made by another command, or ``out``
            cannot be written.
        InputError: a table cannot be used; says why.
    """
    permission = protocol.gate(
        "export",
        today=today,
        recipient=recipient,
        purpose=purpose,
        deliverable=name,
        profile=profile,
        channel=channel,
        url=url,
        encrypted=encrypted,
        data_of=data_of,
    )
    wanted = next(one for one in protocol.deliverables if one.id == name)
    make = _maker(wanted, protocol)
    _check_codes(tables, protocol)
    check_replaceable(out)
    hashes = sorted(tables.labels["rules_hash"].drop_nulls().unique())
    work = _Work(
        name=name,
        tables=tables,
        exams=tables.exams_of_cohort(),
        sources=sources or Sources(),
        protocol=protocol,
        permission=permission,
        profile=permission.profile or protocol.profile_of(name),
        rules=load_deliverables(rules),
        rules_folder=rules,
        rules_sha256=";".join(hashes) or None,
        out=out,
    )
    patients, inside = make(work)
    counts = (read_manifest(out) or {}).get("counts", {})
    return HandedOver(out, permission, counts, tuple(sorted(set(patients))), inside)


def _check_codes(tables: StudyTables, protocol: Protocol) -> None:
    """Make sure that nobody hands over the tables of a run without a protocol."""
    for name, table, column in (
        ("exams", tables.exams, "patient_id"),
        ("exams", tables.exams, "exam_id"),
        ("records", tables.records, "patient_id"),
    ):
        wrong = sum(one is None or not CODE.fullmatch(one) for one in table[column].unique())
        if wrong:
            raise RefusedError(
                protocol.number("profile"),
                f"{name}: {wrong} values of {column} are no codes of a study; make the workspace with "
                f"`reportlabel run {protocol.id}`",
            )


_Made = tuple[Iterable[str], Mapping[str, pl.DataFrame]]
"""Patients in the folder, and the tables that stay inside."""


def _maker(wanted: Deliverable, protocol: Protocol) -> Callable[[_Work], _Made]:
    makers: dict[str, Callable[[_Work], _Made]] = {
        "retrieval_list": _retrieval_list,
        "exam_table": _nine_items if protocol.cohort.complete_items else _exam_table,
        "dose_summary": _dose_summary,
        "annotations": _annotations,
        "index": _index,
        "images": _photographs,
        "dicom": _dicom_files,
        "comparison": _software if protocol.analyses else _labels_beside_readers,
        "report": _quality,
    }
    if protocol.excel is not None:
        makers |= {"excel": _bone_scan, "dicom": _bone_scan}
    if wanted.kind in makers:
        return makers[wanted.kind]
    by = {
        "labels": "`reportlabel export WORKSPACE --to FORMAT`",
    }
    raise ConfigError(f"{wanted.id} of {protocol.id} is made by {by.get(wanted.kind, 'another command')}")


# --- keio_2017_0018 ---------------------------------------------------------------------------------------------------


def _retrieval_list(work: _Work) -> _Made:
    if work.sources.uids is None:
        raise work.missing("uids", "the UIDs of the picture archive, from the linkage store")
    made = retrieval_list(work.exams, work.tables.labels, work.sources.uids)
    write_retrieval_list(
        work.out, made, protocol=work.protocol, permission=work.permission, rules_sha256=work.rules_sha256
    )
    listed = work.exams.join(made.rows, on="exam_id", how="semi")
    return listed["patient_id"], {"without_uid": made.without_uid}


def _quality(work: _Work) -> _Made:
    """Figures of the exams of the tables, without those who have refused; they hold nobody."""
    if work.sources.run is None:
        raise work.missing("run", "the other tables of the run")
    run = work.sources.run.within(work.tables.exams, work.tables.labels)
    write_quality_folder(
        work.out,
        run,
        work.book,
        protocol=work.protocol,
        permission=work.permission,
        rules_sha256=work.rules_sha256,
    )
    return (), {}


# --- jmid -------------------------------------------------------------------------------------------------------------


def _exam_table(work: _Work) -> _Made:
    reasons = None
    if work.profile == "pseudonymised" and "text" in work.protocol.columns_of("reports"):
        splitter = Splitter.from_rules(work.book.sections, Normaliser.from_rules(work.book.normalise))
        reasons = request_reasons(work.tables.reports, splitter, work.rules.dose)
    made = exam_table(
        work.exams,
        work.protocol,
        profile=work.profile,
        rules=work.rules.dose,
        reasons=reasons,
        key=_key(work.sources),
    )
    write_exam_table(work.out, made, protocol=work.protocol, permission=work.permission, rules_sha256=work.rules_sha256)
    return work.exams["patient_id"], {}


def _key(sources: Sources) -> bytes:
    return secrets.token_bytes(32) if sources.key is None else sources.key


def _dose_summary(work: _Work) -> _Made:
    summary = dose_summary(work.exams, work.protocol, work.rules.dose)
    write_dose_summary(
        work.out, summary, protocol=work.protocol, permission=work.permission, rules_sha256=work.rules_sha256
    )
    return (), {}


def _annotations(work: _Work) -> _Made:
    made = annotation_table(
        work.tables.readings, work.exams, work.protocol, profile=work.profile, key=_key(work.sources)
    )
    write_annotations(
        work.out, made, protocol=work.protocol, permission=work.permission, rules_sha256=work.rules_sha256
    )
    said = work.exams.join(work.tables.readings, on="exam_id", how="semi")
    return said["patient_id"], {}


# --- gunma_bone_scan --------------------------------------------------------------------------------------------------


def _bone_scan(work: _Work) -> _Made:
    """The sheet and the DICOM files of the same patients: whoever gets one needs the other (B12)."""
    if work.sources.dicom is None or not work.sources.dicom.is_dir():
        raise work.missing("dicom", "the folder of the de-identified DICOM files")
    tables, folder, rules = work.tables, work.sources.dicom, work.rules.bone_scan
    decided = patient_metastasis(work.exams, tables.labels, tables.readings, work.protocol, rules)
    sheet = sheet_rows(
        work.exams,
        tables.reports,
        tables.labels,
        decided.patients,
        work.protocol,
        rules,
        several=work.sources.several,
        confirmed_only=work.sources.confirmed_only,
    )
    files, wrong = match_dicom(sheet.rows, sorted(folder.rglob("*.dcm")), folder, work.protocol)
    sheet = without_files(sheet, files, work.protocol, rules)
    write_bundle(
        work.out,
        sheet,
        files,
        folder=folder,
        protocol=work.protocol,
        permission=work.permission,
        rules=rules,
        rules_sha256=work.rules_sha256,
    )
    plan, table = _plan(work, decided.patients, sheet.rows)
    return sheet.rows["patient_code"], {
        "problems": sheet.problems,
        "disagreements": decided.disagreements,
        "files": files,
        "files_left_out": wrong,
        "plan": plan,
        "cells": table,
    }


def _dicom_files(work: _Work) -> _Made:
    """The files that `dicom deidentify` wrote, of people who are still in the study.

    Anonymised files have codes of their own that nothing links to a person: all of them go, and nobody is remembered.
    They are as old as the list of refusals that `dicom deidentify` was given: make them on the day.
    """
    folder = work.sources.dicom
    if folder is None or not folder.is_dir():
        raise work.missing("dicom", "the folder of the de-identified DICOM files")
    paths = sorted(folder.rglob("*.dcm"))
    if not paths:
        raise InputError(f"{folder}: holds no .dcm file; it is the folder that `reportlabel dicom deidentify` wrote")
    codes = [path.relative_to(folder).parts[0] for path in paths]
    wrong = sum(not CODE.fullmatch(code) or _patient_of(path) != code for path, code in zip(paths, codes, strict=True))
    if wrong:
        raise RefusedError(
            work.protocol.number("profile"),
            f"{wrong} files do not lie in a folder with the code of their patient; hand over what "
            "`reportlabel dicom deidentify` wrote",
        )
    alive = set(work.exams["patient_id"]) if work.profile == "pseudonymised" else set(codes)
    kept = [path for path, code in zip(paths, codes, strict=True) if code in alive]
    counts = {"files_in": len(paths), "files": len(kept), "files_left_out": len(paths) - len(kept)}
    with new_folder(work.out) as out:
        for path in kept:
            place = out / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        write_manifest(
            out, about=about(work.protocol, work.permission, counts=counts, rules_sha256=work.rules_sha256), rows={}
        )
    return (code for code in codes if code in alive and work.profile == "pseudonymised"), {}


def _patient_of(path: Path) -> str | None:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        return str(dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID"))
    except (InvalidDicomError, OSError):
        return None


def _plan(work: _Work, decided: pl.DataFrame, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The numbers of the plan against those of the sheet, and people by tracer and finding (B1-B3)."""
    chosen = rows.select("exam_date", patient_id="patient_code")
    exams = work.exams.with_columns(exam_date=pl.col("started_at").dt.date()).join(
        chosen, on=["patient_id", "exam_date"], how="semi"
    )
    findings = exams.join(decided.select("value", patient_id="patient_code"), on="patient_id", how="inner").select(
        "site", "patient_id", finding="value"
    )
    return count_report(exams, work.protocol, findings=findings), cells(exams, findings)


def _software(work: _Work) -> _Made:
    values = work.sources.values
    if values is None:
        raise work.missing("values", "the values of the programs")
    need_columns(values, VALUES, name="values")
    tables = work.tables
    made = compare_software(
        values,
        work.exams,
        tables.labels,
        tables.readings,
        work.protocol,
        work.rules.bone_scan,
    )
    return _compared(work, made)


def _compared(work: _Work, made: Comparison) -> _Made:
    write_comparison(work.out, made, protocol=work.protocol, permission=work.permission, rules_sha256=work.rules_sha256)
    return (), made.inside


# --- shinshu_skin, tohoku_skin ----------------------------------------------------------------------------------------


def _skin(work: _Work) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Pictures, their records, and the diagnoses of these."""
    tables, rules = work.tables, work.rules.skin
    images = images_of_exams(work.exams, tables.reports, tables.mentions, rules, given=work.sources.images)
    links = link_records_to_images(images, tables.records, rules)
    return images, links, record_diagnoses(tables.records, Annotator(work.book), rules)


def _nine_items(work: _Work) -> _Made:
    images, links, diagnoses = _skin(work)
    made = nine_items(images, work.tables.records, links, diagnoses, work.protocol, work.rules.skin)
    write_nine_items(work.out, made, protocol=work.protocol, permission=work.permission, rules_sha256=work.rules_sha256)
    return made.table["patient_id"], {"excluded": made.excluded, "evidence": made.evidence}


def _index(work: _Work) -> _Made:
    images, links, diagnoses = _skin(work)
    given = work.sources.photographs
    write_indexes(
        work.out,
        images,
        links,
        diagnoses,
        protocol=work.protocol,
        permission=work.permission,
        regions=None if given is None else given.regions,
        salt=work.sources.split_salt,
        rules_sha256=work.rules_sha256,
    )
    return images["patient_id"], {}


def _labels_beside_readers(work: _Work) -> _Made:
    images, links, diagnoses = _skin(work)
    label_set = work.book.label_sets.get(work.rules.skin.label_set)
    if label_set is None:
        raise ConfigError(f"rules/deliverables.yaml: skin: there is no label set '{work.rules.skin.label_set}'")
    tables = work.tables
    made = compare_labels(tables.labels, tables.readings, images, links, diagnoses, label_set, work.rules.skin)
    return _compared(work, made)


class _Images(NamedTuple):
    handover: ModuleType
    clearance: ModuleType


def _images() -> _Images:
    try:
        return _Images(*(importlib.import_module(f"reportlabel.images.{name}") for name in _Images._fields))
    except ImportError:
        raise ConfigError("photographs need Pillow; install it with `pip install 'reportlabel[images]'`") from None


def _photographs(work: _Work) -> _Made:
    given = work.sources.photographs
    if given is None:
        raise work.missing("photographs", "the stripped pictures and what reviewers said of them")
    images = images_of_exams(
        work.exams,
        work.tables.reports,
        work.tables.mentions,
        work.rules.skin,
        given=work.sources.images,
    )
    attrition = _images().handover.write_photographs(
        work.out,
        images,
        given.pictures,
        given.clearance,
        pl.DataFrame(schema=REGIONS) if given.regions is None else given.regions,
        folder=given.folder,
        protocol=work.protocol,
        permission=work.permission,
        salt=work.sources.split_salt,
        rules_sha256=work.rules_sha256,
    )
    shipped = pl.read_parquet(work.out / "images.parquet", columns=["patient_id"])
    return shipped["patient_id"], {"attrition": attrition}
