"""`reportlabel export`: the labels of a workspace, as they are or as they were, as a folder for training code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import get_args

import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.deidentify.linkage import KeySource
from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.export.deliverable import Photographs, Several, Sources
from reportlabel.export.hand_over import Handed, Request, check_no_study, hand_over
from reportlabel.export.images import read_images
from reportlabel.export.labels import Exported, export_labels
from reportlabel.export.options import ExportOptions
from reportlabel.govern import study_of
from reportlabel.protocol import Profile
from reportlabel.rulebook.load import load_rules
from reportlabel.rulebook.models import LabelSet
from reportlabel.run import open_workspace


def run_export(
    workspace: Path,
    *,
    to: str | None,
    out: Path,
    options: ExportOptions,
    label_sets: Sequence[str] = (),
    as_of: int | None = None,
    images: Path | None = None,
    rules: Path | None = None,
    request: Request | None = None,
    sources: Sources | None = None,
    inside: Path | None = None,
    console: Console,
) -> int:
    """Export and say what was written; returns the exit code DONE.

    Args:
        to: format of labels; None: another deliverable of a study.
        label_sets: ids; none: all that the workspace has labels of.
        as_of: number of the version that a run left; None: the last one.
        request: for whom and why; needed for the workspace of a study, and for no other.
        sources: what another deliverable needs. inside: folder for the tables of it that stay in the hospital.

    Raises:
        RefusedError: the study protocol forbids it.
        ConfigError, InputError: no workspace, no such version, wrong options, or labels of other rules.
    """
    study = study_of(workspace)
    check_no_study(workspace, study, request)
    opened = open_workspace(workspace)
    versions = opened.versions(as_of)
    number = opened.snapshots().height - 1 if as_of is None else as_of
    if study is not None and request is not None:
        handed = hand_over(
            opened,
            study,
            request,
            out,
            versions=versions,
            today=date.today(),
            to=to,
            as_of=str(number),
            label_sets=lambda labels: _wanted(labels, label_sets, rules),
            options=options,
            images=None if images is None else read_images(images),
            sources=sources,
            rules=rules,
        )
        _show_handed(handed, number, console)
        _keep_inside(handed.inside, inside, handed.bundle, console)
        return int(ExitCode.DONE)
    if to is None:
        raise ConfigError("--to: say in which format: parquet, datasets, monai, chexpert or ct-rate")
    labels = opened.scan("labels", version=versions["labels"])
    exported = export_labels(
        labels,
        opened.read("exams", version=versions["exams"]),
        label_sets=_wanted(labels, label_sets, rules),
        to=to,
        out=out,
        options=options,
        images=None if images is None else read_images(images),
        votes=opened.scan("votes", version=versions["votes"]) if options.features else None,
        choices=opened.read("choices", version=versions.get("choices", -1)),
        as_of=str(number),
    )
    _show(exported, number, console)
    return int(ExitCode.DONE)


def read_request(
    *,
    recipient: str | None,
    purpose: str | None,
    refusals: Path | None,
    deliverable: str | None,
    profile: str | None,
    seal_to: str | None,
    persons: pl.DataFrame | None,
    actor: str,
    key: KeySource,
) -> Request:
    """A request as options say it.

    Raises:
        ConfigError: an option is missing, or is none of those there are.
    """
    given = {"--recipient": recipient, "--purpose": purpose, "--refusals": refusals}
    if missing := [name for name, value in given.items() if value is None]:
        raise ConfigError(f"an export of a study needs {' and '.join(missing)}")
    profiles: tuple[Profile, ...] = ("pseudonymised", "anonymised")
    if profile is not None and profile not in profiles:
        raise ConfigError(f"--profile {profile}: there are {' and '.join(profiles)}")
    assert recipient is not None
    assert purpose is not None
    assert refusals is not None
    return Request(
        recipient=recipient,
        purpose=purpose,
        refusals=refusals,
        key=key,
        actor=actor,
        deliverable=deliverable,
        profile=next((one for one in profiles if one == profile), None),
        seal_to=seal_to,
        persons=persons,
    )


def read_sources(
    *,
    dicom: Path | None,
    values: Path | None,
    pictures: Path | None,
    photographs: Path | None,
    stripped: Path | None,
    clearance: Path | None,
    regions: Path | None,
    several: str,
    confirmed_only: bool,
    split_salt: str,
    rules: Path | None,
) -> Sources:
    """What a deliverable needs beside the workspace.

    Raises:
        ConfigError: options that belong together are not all there. InputError: a table cannot be read.
    """
    from reportlabel.evaluate.software import VALUES
    from reportlabel.export.skin import PICTURES
    from reportlabel.export.study_folder import read_table

    ways: tuple[Several, ...] = get_args(Several)
    if several not in ways:
        raise ConfigError(f"--several {several}: there are {', '.join(ways)}")
    shown = None
    if photographs is not None:
        if stripped is None or clearance is None:
            raise ConfigError("--photographs needs --stripped and --clearance")
        shown = Photographs.read(photographs, pictures=stripped, clearance=clearance, regions=regions, rules=rules)
    return Sources(
        dicom=dicom,
        values=None if values is None else read_table(values, VALUES),
        images=None if pictures is None else read_table(pictures, PICTURES, required=["image_id"]),
        photographs=shown,
        several=next(one for one in ways if one == several),
        confirmed_only=confirmed_only,
        split_salt=split_salt,
    )


def _keep_inside(tables: Mapping[str, pl.DataFrame], folder: Path | None, bundle: str, console: Console) -> None:
    """Tables that stay in the hospital: written where they are asked for, else said by their rows."""
    told = {name: table.height for name, table in tables.items() if table.height}
    if not told:
        return
    if folder is None:
        where = "; --inside DIR writes them"
    else:
        place = folder / bundle
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name, table in tables.items():
                table.write_parquet(place / f"{name}.parquet")
        except OSError as error:
            raise ConfigError(f"cannot write {place}: {error.strerror}") from error
        where = f", in {place}"
    rows = ", ".join(f"{name} {count:,} rows" for name, count in told.items())
    console.print(f"stays inside: {rows}{where}", highlight=False, soft_wrap=True)


def _wanted(labels: pl.LazyFrame, names: Sequence[str], rules: Path | None) -> list[LabelSet]:
    known = load_rules(rules).label_sets
    there = sorted(labels.select(pl.col("label_set").unique()).collect()["label_set"])
    if not there:
        raise InputError("the workspace has no labels; run `reportlabel run` first")
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(f"--label-set {unknown[0]}: the workspace has labels of {', '.join(there)}")
    missing = [name for name in names or there if name not in known]
    if missing:
        raise ConfigError(f"label set {missing[0]} is not among the rules; give the rules of the run with --rules")
    return [known[name] for name in names or there]


def _show_handed(handed: Handed, number: int, console: Console) -> None:
    if handed.exported is not None:
        _show(replace(handed.exported, folder=handed.place), number, console)
    elif handed.counts:
        console.print("; ".join(f"{name} {count:,}" for name, count in handed.counts.items()), highlight=False)
    permission = handed.permission
    told = [
        f"{handed.place}: {permission.deliverable} for {permission.recipient}, {permission.purpose}",
        f"{permission.profile}",
        f"bundle {handed.bundle}, {handed.patients:,} patients",
    ]
    if handed.refused:
        told.append(f"{handed.refused:,} exams left out: refused since the last run")
    if handed.set_aside:
        told.append(f"{handed.set_aside:,} rows of the list of refusals name nobody: mend them")
    told += [f"list of refusals: {line}" for line in handed.missed.told(option="patient_id_width of archive.yaml")]
    console.print("; ".join(told), highlight=False, soft_wrap=True)


def _show(exported: Exported, number: int, console: Console) -> None:
    table = Table(title=f"{exported.folder}: labels of version {number}", title_justify="left")
    table.add_column("split")
    table.add_column("exams", justify="right")
    table.add_column("patients", justify="right")
    for split, exams in exported.exams.items():
        table.add_row(split, f"{exams:,}", f"{exported.patients[split]:,}")
    console.print(table)
    told = [f"{exported.labels:,} labels"]
    if exported.labels_of_other_sets:
        told.append(f"{exported.labels_of_other_sets:,} of other label sets not asked for")
    if exported.exams_without_label:
        why = "no final report, or no exported label set fits"
        told.append(f"{exported.exams_without_label:,} exams without these labels ({why})")
    if exported.exams_without_image is not None:
        told.append(f"{exported.exams_without_image:,} exams without an image")
        told.append(f"{exported.images_of_no_exam or 0:,} images of no exam")
    if exported.features is not None:
        told.append(f"{exported.features:,} input features")
    console.print("; ".join(told), highlight=False, soft_wrap=True)
