"""A hand-over under a study protocol: the gate, refusals once more, the bundle, its seal, and the note of who is in it.

    workspace of a study -> gate -> refusals as of today -> labels or another deliverable -> sealed file -> ``shipped``

Every hand-over is remembered in the linkage store with the codes of the patients in it, so that a later withdrawal can
say who holds what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from reportlabel.consent.refusals import apply_refusals
from reportlabel.consent.study_refusals import Missed, by_codes, missed, refusals_of_study
from reportlabel.deidentify.linkage import KeySource, LinkageStore, patients_of, random_codes
from reportlabel.errors import ConfigError, RefusedError
from reportlabel.export.deliverable import Sources, StudyTables, write_deliverable
from reportlabel.export.labels import Exported, export_labels
from reportlabel.export.manifest import MANIFEST
from reportlabel.export.options import ExportOptions
from reportlabel.export.seal import SEALED, recipient_key, seal, unsealed_folder
from reportlabel.export.study_folder import about
from reportlabel.govern import IMAGES, SHIPPED, StudyOfWorkspace, check_store, read_table_of_store
from reportlabel.protocol import Permission, Profile, Protocol
from reportlabel.report.quality_numbers import RunTables
from reportlabel.rulebook.models import LabelSet
from reportlabel.store import Workspace

LABELS = "labels"
"""The kind of the deliverable that `export --to FORMAT` makes."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who is to get what, and what opens the linkage store.

    Attributes:
        deliverable: id in the protocol; None: the labels, where the protocol has one such deliverable.
        refusals: the list of the consent office, as it is today.
        seal_to: public key of the recipient (age1…), for whom alone the bundle is encrypted; None: a folder.
        channel: how it goes out; None: as the protocol says.
    """

    recipient: str
    purpose: str
    refusals: Path
    key: KeySource
    actor: str
    deliverable: str | None = None
    profile: Profile | None = None
    seal_to: str | None = None
    channel: str | None = None
    persons: pl.DataFrame | None = None


@dataclass(frozen=True)
class Handed:
    """What was handed over: the folder, or the sealed file in its place; ``bundle``: its name in the ledger.

    Attributes:
        refused: exams that were left out because somebody has refused since the last run.
        set_aside: rows of the list of refusals that name nobody.
        inside: tables that stay in the hospital, by name (`reportlabel.export.deliverable.HandedOver`).
        missed: requests of hospitals that the study does not know, and that lack zeros in front of the id.
    """

    place: Path
    bundle: str
    permission: Permission
    patients: int
    refused: int
    set_aside: int
    exported: Exported | None
    counts: Mapping[str, int]
    inside: Mapping[str, pl.DataFrame]
    missed: Missed


def deliverable_of(protocol: Protocol, name: str | None, *, labels: bool) -> str:
    """The deliverable that is meant: the one named, or the only one that is made of labels.

    Raises:
        RefusedError: there is none of that name, or labels are no deliverable of the study.
        ConfigError: there are several, or the one named is made in another way.
    """
    of_labels = [one.id for one in protocol.deliverables if one.kind == LABELS]
    if name is None:
        if len(of_labels) == 1:
            return of_labels[0]
        if not of_labels:
            raise RefusedError(protocol.number("deliverable"), f"{protocol.id} hands over no labels")
        raise ConfigError(f"--deliverable: {protocol.id} has {', '.join(of_labels)}; say which")
    known = {one.id: one.kind for one in protocol.deliverables}
    if name in known and (known[name] == LABELS) != labels:
        way = "--to FORMAT" if known[name] == LABELS else "--deliverable alone, without --to"
        raise ConfigError(f"{name} is made with {way}")
    return name


def hand_over(
    workspace: Workspace,
    study: StudyOfWorkspace,
    request: Request,
    out: Path,
    *,
    versions: Mapping[str, int],
    today: date,
    to: str | None = None,
    as_of: str | None = None,
    label_sets: Callable[[pl.LazyFrame], Sequence[LabelSet]] | None = None,
    options: ExportOptions | None = None,
    images: pl.DataFrame | None = None,
    sources: Sources | None = None,
    rules: Path | None = None,
) -> Handed:
    """Make a bundle of a study's workspace for a recipient.

    Args:
        versions: of the tables (`Workspace.versions`).
        to, label_sets, options, images: of labels; see `reportlabel.export.labels.export_labels`.
        sources: what another deliverable needs (`reportlabel.export.deliverable.Sources`).

    Raises:
        RefusedError: the protocol forbids it; names the requirement.
        ConfigError, InputError: the protocol has changed, the store cannot be opened, or the bundle cannot be made.
    """
    protocol = study.load()
    wanted = deliverable_of(protocol, request.deliverable, labels=to is not None)
    permission = protocol.gate(
        "export",
        today=today,
        recipient=request.recipient,
        purpose=request.purpose,
        deliverable=wanted,
        profile=request.profile,
        channel=request.channel,
        encrypted=request.seal_to is not None,
    )
    sealed_to = None if request.seal_to is None else recipient_key(request.seal_to)
    place = out if sealed_to is None else out.with_name(out.name + SEALED)
    if sealed_to is not None and place.exists():
        raise ConfigError(f"{place} exists; a sealed bundle is never replaced, give another name")
    store = LinkageStore.open(
        study.linkage, key_source=request.key, study=study.study, workspace=workspace.folder, exports=[out]
    )
    check_store(study, store)
    out_now = _refused(store, request, study, protocol, today)
    tables = _without(StudyTables.of(workspace, versions), out_now.codes)
    refused = workspace.read("exams", version=versions["exams"], columns=["exam_id"]).height - tables.exams.height
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: its folder cannot be made: {error.strerror}") from error
    with nullcontext() if sealed_to is None else unsealed_folder(study.staging) as hidden:
        folder = out if hidden is None else hidden / out.name
        exported: Exported | None = None
        counts: Mapping[str, int] = {}
        inside: Mapping[str, pl.DataFrame] = {}
        if to is not None:
            exported, patients = _labels(
                workspace, versions, tables, protocol, permission, folder, to, as_of, label_sets, options, images
            )
        else:
            given = sources or Sources()
            kind = next(one.kind for one in protocol.deliverables if one.id == wanted)
            if given.run is None and kind == "report":
                given = replace(given, run=RunTables.of(workspace, as_of=None if as_of is None else int(as_of)))
            if given.uids is None and kind == "retrieval_list":
                uids = read_table_of_store(store, "images", IMAGES, actor=request.actor, purpose=request.purpose)
                given = replace(given, uids=uids)
            done = write_deliverable(
                wanted,
                tables,
                protocol,
                folder,
                today=today,
                recipient=request.recipient,
                purpose=request.purpose,
                sources=given,
                profile=request.profile,
                channel=request.channel,
                encrypted=sealed_to is not None,
                rules=rules,
            )
            patients, counts, inside = done.patients, done.counts, done.inside
        bundle = f"{wanted}-{sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]}"
        _remember(store, bundle, permission, patients, request, today)
        if sealed_to is not None:
            seal(folder, place, sealed_to)
    return Handed(
        place=place,
        bundle=bundle,
        permission=permission,
        patients=len(patients),
        refused=refused,
        set_aside=out_now.set_aside,
        exported=exported,
        counts=counts,
        inside=inside,
        missed=out_now.missed,
    )


# --- refusals ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _OutNow:
    """The codes of everyone who is out of what is handed over from now on; the rest as in `Handed`."""

    codes: list[str]
    set_aside: int
    missed: Missed


def _refused(
    store: LinkageStore, request: Request, study: StudyOfWorkspace, protocol: Protocol, today: date
) -> _OutNow:
    codes = patients_of(store.all_codes("patient", actor=request.actor, purpose=request.purpose))
    asked = refusals_of_study(request.refusals, protocol, id_width=study.id_width, persons=request.persons)
    rows, same = by_codes(asked.listed.rows, asked.persons, codes)
    people = codes.select("site", patient_id="patient_code")
    out = apply_refusals(people, rows, protocol, today=today, stage="export", persons=same).excluded
    nobody = missed(asked.listed.rows, protocol, codes, persons=asked.persons)
    return _OutNow(out["patient_id"].to_list(), asked.listed.quarantine.height, nobody)


def _without(tables: StudyTables, patients: Sequence[str]) -> StudyTables:
    exams = tables.exams.filter(~pl.col("patient_id").is_in(patients))
    alive = exams["exam_id"].implode()
    reports = tables.reports.filter(pl.col("exam_id").is_in(alive))
    return StudyTables(
        exams=exams,
        reports=reports,
        records=tables.records.filter(~pl.col("patient_id").is_in(patients)),
        mentions=tables.mentions.filter(pl.col("report_id").is_in(reports["report_id"].implode())),
        labels=tables.labels.filter(pl.col("exam_id").is_in(alive)),
        readings=tables.readings.filter(pl.col("exam_id").is_in(alive)),
        cohort=tables.cohort.filter(pl.col("exam_id").is_in(alive)),
    )


# --- labels -----------------------------------------------------------------------------------------------------------


def _labels(
    workspace: Workspace,
    versions: Mapping[str, int],
    tables: StudyTables,
    protocol: Protocol,
    permission: Permission,
    folder: Path,
    to: str,
    as_of: str | None,
    label_sets: Callable[[pl.LazyFrame], Sequence[LabelSet]] | None,
    options: ExportOptions | None,
    images: pl.DataFrame | None,
) -> tuple[Exported, tuple[str, ...]]:
    assert label_sets is not None
    exams, labels = tables.exams, tables.labels
    sets = label_sets(labels.lazy())
    told: dict[str, Any] = {}
    patient_of = dict(exams.select("exam_id", "patient_id").iter_rows())
    if permission.profile == "anonymised":
        if images is not None or (options is not None and options.features):
            raise RefusedError(
                protocol.number("profile"), "anonymised labels go without keys of images and without input features"
            )
        hidden = _anonymised(exams, labels, sets, protocol)
        exams, labels, sets, told, patient_of = hidden.exams, hidden.labels, hidden.sets, hidden.told, hidden.patient_of
    votes = workspace.scan("votes", version=versions["votes"]) if options is not None and options.features else None
    kept = exams["exam_id"].implode()
    said = about(protocol, permission, counts={}, rules_sha256=None)
    exported = export_labels(
        labels,
        exams,
        label_sets=sets,
        to=to,
        out=folder,
        options=options,
        images=images,
        votes=None if votes is None else votes.filter(pl.col("exam_id").is_in(kept)),
        choices=workspace.read("choices", version=versions.get("choices", -1)),
        as_of=as_of,
        protocol=protocol.id,
        study={key: said[key] for key in said if key not in ("counts", "rules_sha256")} | told,
    )
    shipped = pl.read_parquet(folder / "labels.parquet", columns=["exam_id"])["exam_id"].unique().to_list()
    return exported, tuple(sorted({patient_of[exam] for exam in shipped}))


@dataclass(frozen=True)
class _Anonymised:
    exams: pl.DataFrame
    labels: pl.DataFrame
    sets: list[LabelSet]
    told: dict[str, Any]
    patient_of: dict[str, str]


def _anonymised(exams: pl.DataFrame, labels: pl.DataFrame, sets: Sequence[LabelSet], protocol: Protocol) -> _Anonymised:
    """Labels that nothing links to a patient: codes drawn for this bundle alone, no keys, no evidence, nothing rare.

    The Act on the Protection of Personal Information, enforcement rules article 34: linking codes and rare values go. A
    finding that is present in fewer patients than ``deid.k`` is left out of its label set, and so are labels that are
    no status (sizes, sides), which single a patient out.
    """
    k, digits = protocol.deid.k, protocol.codes.digits
    patients = exams["patient_id"].unique(maintain_order=True).to_list()
    drawn = dict(zip(patients, random_codes("A", digits, len(patients)), strict=True))
    drawn_exams = dict(zip(exams["exam_id"], random_codes("AE", digits, exams.height), strict=True))
    counts = (
        labels.join(exams.select("exam_id", "patient_id"), on="exam_id", how="left")
        .filter(pl.col("value") == "present")
        .group_by("label_set", "finding")
        .agg(pl.col("patient_id").n_unique())
    )
    enough = {(one, finding) for one, finding, count in counts.iter_rows() if count >= k}
    cut = [
        one.model_copy(
            update={"findings": [entry for entry in one.findings if (one.id, entry.id) in enough], "values": []}
        )
        for one in sets
    ]
    kept = pl.DataFrame(
        [(one.id, entry.id) for one in cut for entry in one.findings],
        schema={"label_set": pl.String, "finding": pl.String},
        orient="row",
    )
    left_out = [f"{one.id}.{entry.id}" for one in sets for entry in one.findings if (one.id, entry.id) not in enough]
    shown = labels.join(kept, on=["label_set", "finding"], how="semi", maintain_order="left").with_columns(
        evidence=pl.lit([], dtype=labels.schema["evidence"]),
        exam_id=pl.col("exam_id").replace_strict(drawn_exams, return_dtype=pl.String),
    )
    held = ("exam_id", "patient_id", "site", "modality_class", "sex")
    blank = exams.with_columns(
        pl.lit(None, dtype=exams.schema[name]).alias(name) for name in exams.columns if name not in held
    ).with_columns(
        exam_id=pl.col("exam_id").replace_strict(drawn_exams, return_dtype=pl.String),
        patient_id=pl.col("patient_id").replace_strict(drawn, return_dtype=pl.String),
    )
    of_exam = dict(exams.select("exam_id", "patient_id").iter_rows())
    return _Anonymised(
        exams=blank.sort("exam_id"),
        labels=shown.sort("exam_id", maintain_order=True),
        sets=[one for one in cut if one.findings],
        told={"anonymised": {"k": k, "left_out_because_rare": left_out}},
        patient_of={drawn_exams[exam]: patient for exam, patient in of_exam.items()},
    )


# --- what is remembered -----------------------------------------------------------------------------------------------


def _remember(
    store: LinkageStore, bundle: str, permission: Permission, patients: Sequence[str], request: Request, today: date
) -> None:
    """Add the bundle to the ledger in the linkage store; the same bundle is there once."""
    rows = pl.DataFrame({"patient_code": sorted(set(patients))}, schema={"patient_code": pl.String}).select(
        bundle=pl.lit(bundle),
        recipient=pl.lit(permission.recipient),
        shipped_on=pl.lit(today),
        patient_code="patient_code",
    )
    store.add("shipped", rows.cast(SHIPPED), actor=request.actor, purpose=request.purpose)
    said = {key: str(value) for key, value in asdict(permission).items() if value is not None}
    store.log.append(
        actor=request.actor,
        action="export",
        purpose=request.purpose,
        records=sorted(set(patients)),
        details={"bundle": bundle, "permission": json.dumps(said, sort_keys=True)},
    )


def check_no_study(workspace: Path, study: StudyOfWorkspace | None, request: object | None) -> None:
    """Make sure that a workspace of a study is exported under its protocol, and no other is.

    Raises:
        RefusedError: it is a study's, and no recipient is named. ConfigError: it is none's, and one is.
    """
    if study is not None and request is None:
        raise RefusedError(
            study.load().number("recipient"),
            f"{workspace} belongs to the study {study.study}: say for whom and why, with --recipient, --purpose and "
            "--refusals",
        )
    if study is None and request is not None:
        raise ConfigError(f"{workspace} belongs to no study; leave --recipient and --purpose out")
