"""`reportlabel linkage`, `reportlabel audit` and `reportlabel dicom`.

Original ids are shown by one command alone, `linkage lookup`, to the custodian; everything else shows codes and counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reportlabel.deidentify.options import (
    Actor,
    AskPassphrase,
    IdWidth,
    KeyEnv,
    KeyFileOption,
    PassphraseEnv,
    Persons,
    ProtocolName,
    Purpose,
    WorkspaceApart,
    key_source,
    login,
    open_store,
    read_persons,
    say,
    show,
)
from reportlabel.errors import ConfigError, ExitCode, InputError, RefusedError

if TYPE_CHECKING:
    import polars as pl

    from reportlabel.consent.refusals import RefusalList
    from reportlabel.consent.study_refusals import StudyRefusals
    from reportlabel.deidentify.dicom_folder import FolderResult
    from reportlabel.deidentify.dicom_policy import TagPolicy
    from reportlabel.deidentify.linkage import LinkageStore
    from reportlabel.protocol import Profile, Protocol

__all__ = ["audit_app", "dicom_app", "linkage_app"]

linkage_app = typer.Typer(help="The encrypted table of codes.", no_args_is_help=True)
audit_app = typer.Typer(help="Who used the table of codes.", no_args_is_help=True)
dicom_app = typer.Typer(help="DICOM files without the person.", no_args_is_help=True)

FOUND = 1
"""Exit code of `dicom scan` where a word was found."""
_SHOWN = 50
_UID = r"\d+(?:\.\d+){3,}"

Store = Annotated[Path, typer.Argument(help="The folder of the linkage store.")]
Site = Annotated[str, typer.Option("--site", help="The hospital that issued the patient ids.")]
Refusals = Annotated[Path, typer.Option("--refusals", help="The register of refusals; see `consent`.")]
Custodian = Annotated[str, typer.Option("--custodian", help="The custodian, as the protocol names the office.")]


# --- linkage ----------------------------------------------------------------------------------------------------------


@linkage_app.command()
def create(
    store: Annotated[Path, typer.Argument(help="A new or empty folder, apart from everything else.")],
    protocol: ProtocolName,
    purpose: Purpose = "study set up",
    actor: Actor = None,
    workspace: WorkspaceApart = None,
    exports: Annotated[
        list[Path] | None, typer.Option("--export", help="A folder that leaves; may be repeated.")
    ] = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option("--new-key-file", help="Make a key and write it into this file, apart from the store."),
    ] = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Make the linkage store of a study; its custodian and the form of its codes are those of the protocol."""
    from reportlabel.deidentify.linkage import KeyFile, LinkageStore, make_key_file

    loaded = _loaded(protocol)
    if not loaded.linkage.keep:
        raise RefusedError(loaded.number("linkage"), f"{loaded.id} keeps no table of codes")
    loaded.gate("run", today=_today())
    if new_key_file is None:
        source = key_source(key_file, key_env, passphrase_env, ask_passphrase, new=True)
    elif key_file or key_env or passphrase_env or ask_passphrase:
        raise ConfigError("--new-key-file: give no other key beside it")
    else:
        source = make_key_file(new_key_file)
    try:
        made = LinkageStore.create(
            store,
            study=loaded.id,
            key_source=source,
            custodian=loaded.custodian.office,
            actor=actor or login(),
            purpose=purpose,
            workspace=workspace,
            exports=exports or (),
            patient_prefix=loaded.codes.patient_prefix,
            digits=loaded.codes.digits,
        )
    except ConfigError:
        if new_key_file is not None and isinstance(source, KeyFile):
            new_key_file.unlink()  # a key of nothing
        raise
    say(f"linkage store of {made.study} in {store}; custodian: {made.custodian}")
    if new_key_file is not None:
        say(f"its key: {new_key_file}; keep a copy in a safe, without it nobody can open the store")


@linkage_app.command()
def issue(
    store: Store,
    patients: Annotated[Path, typer.Argument(help="CSV or Parquet with patient_id and, without --site, site.")],
    protocol: ProtocolName,
    purpose: Purpose,
    site: Annotated[str | None, typer.Option("--site", help="The hospital of rows that name none.")] = None,
    actor: Actor = None,
    workspace: WorkspaceApart = None,
    id_width: IdWidth = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Draw codes for the patients of a list who have none. Shows how many, neither ids nor codes."""
    from reportlabel.consent.refusals import read_refusals
    from reportlabel.deidentify.linkage import patient_key

    loaded = _loaded(protocol)
    loaded.gate("run", today=_today())
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=loaded.id, workspace=workspace)
    # of a list of patients: site and id alone, and nobody gets a code for a row that cannot be read
    found = read_refusals(patients, site=site, patient_id_width=id_width, keep_damaged=False)
    people = found.rows.select("site", "patient_id").unique(maintain_order=True)
    for one in people["site"].unique():
        _check_site(loaded, one)
    before = opened.counts()["patient"]
    keys = [patient_key(*one) for one in people.iter_rows()]
    opened.issue("patient", keys, actor=actor or login(), purpose=purpose)
    new = opened.counts()["patient"] - before
    rows_in = found.rows.height + found.quarantine.height
    say(f"{rows_in:,} rows in = {found.rows.height:,} read + {found.quarantine.height:,} quarantined")
    say(f"{people.height:,} patients: {new:,} new codes, {people.height - new:,} had one")
    raise typer.Exit(_tell_quarantine(found, "patients"))


@linkage_app.command()
def lookup(
    store: Store,
    codes: Annotated[list[str], typer.Argument(help="Codes of the study.")],
    protocol: ProtocolName,
    custodian: Custodian,
    purpose: Purpose,
    actor: Actor = None,
    workspace: WorkspaceApart = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Show the original ids of codes to the custodian; every try is logged."""
    loaded = _loaded(protocol)
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=loaded.id, workspace=workspace)
    who = actor or login()
    role = "custodian" if custodian.strip() == loaded.custodian.office else None
    try:
        loaded.gate("lookup", today=_today(), role=role, purpose=purpose.strip() or None)
    except RefusedError as error:
        opened.log.append(
            actor=who,
            action="lookup refused",
            purpose=purpose.strip() or "none given",
            details={"number": error.number, "asked": len(codes)},
        )
        raise
    found = opened.lookup(codes, custodian=custodian, actor=who, purpose=purpose)
    show("original ids", ("kind", "code", "original"), found.select("kind", "code", "original").iter_rows())


@linkage_app.command()
def export(store: Store, protocol: ProtocolName) -> None:
    """Refused, always: the table of codes never leaves its place."""
    loaded = _loaded(protocol)
    loaded.gate("export_linkage", today=_today())
    raise RefusedError(loaded.number("linkage"), f"{store} is not exported")


@linkage_app.command("export-refused")
def export_refused(
    store: Store,
    refusals: Annotated[Path, typer.Argument(help="The register of refusals.")],
    protocol: ProtocolName,
    purpose: Purpose,
    out: Annotated[Path, typer.Option("--out", help="CSV to write: patient_code, effect, number, reason.")],
    site: Annotated[str | None, typer.Option("--site", help="The hospital of rows that name none.")] = None,
    persons: Persons = None,
    actor: Actor = None,
    workspace: WorkspaceApart = None,
    id_width: IdWidth = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Write the codes of the people who have refused, for places that hold codes only. No original id is written."""
    from reportlabel.consent.refusals import apply_refusals
    from reportlabel.consent.study_refusals import refusals_of_study
    from reportlabel.deidentify.linkage import patients_of, refuse_overlap
    from reportlabel.deidentify.private_file import write_private
    from reportlabel.govern import study_of

    loaded = _loaded(protocol)
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    refuse_overlap(store, [("output", out)])
    opened = open_store(store, source, study=loaded.id, workspace=workspace)
    study = None if workspace is None else study_of(workspace)
    if id_width is None and study is not None:
        id_width = study.id_width
    asked = refusals_of_study(refusals, loaded, id_width=id_width, site=site, persons=read_persons(persons))
    patients = patients_of(opened.all_codes("patient", actor=actor or login(), purpose=purpose))
    applied = apply_refusals(patients, asked.listed.rows, loaded, today=_today(), stage="export", persons=asked.persons)
    table = applied.excluded.select("patient_code", "effect", "number", "reason").sort("patient_code")
    write_private(out, table.write_csv().encode("utf-8"))
    say(f"{patients.height:,} patients = {applied.kept.height:,} in + {table.height:,} out, whose codes are in {out}")
    raise typer.Exit(_tell_refusals(asked, loaded, patients))


@linkage_app.command()
def status(
    store: Store,
    workspace: WorkspaceApart = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Show the study, the custodian and how many codes there are, and check that nothing was altered."""
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=None, workspace=workspace)
    say(f"study: {opened.study}; custodian: {opened.custodian}")
    say(", ".join(f"{count:,} codes of kind {kind}" for kind, count in opened.counts().items()))
    raise typer.Exit(_told_problems(opened.problems()))


@linkage_app.command("change-key")
def change_key(
    store: Store,
    custodian: Custodian,
    purpose: Purpose,
    new_key_file: Annotated[
        Path | None, typer.Option("--new-key-file", help="Make the new key and write it into this file.")
    ] = None,
    new_key_env: Annotated[str | None, typer.Option("--new-key-env", help="Variable with the new key.")] = None,
    new_passphrase_env: Annotated[
        str | None, typer.Option("--new-passphrase-env", help="Variable with the new passphrase.")
    ] = None,
    actor: Actor = None,
    workspace: WorkspaceApart = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Let another key open the store, and the old one no longer."""
    from reportlabel.deidentify.linkage import make_key_file

    given = [one for one in (new_key_file, new_key_env, new_passphrase_env) if one is not None]
    if len(given) != 1:
        raise ConfigError("give one of --new-key-file, --new-key-env and --new-passphrase-env")
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=None, workspace=workspace)
    if new_key_file is None:
        new = key_source(None, new_key_env, new_passphrase_env, False)
    else:
        new = make_key_file(new_key_file)
    try:
        opened.change_key(new, custodian=custodian, actor=actor or login(), purpose=purpose)
    except ConfigError:
        if new_key_file is not None:
            new_key_file.unlink()  # a key of nothing
        raise
    say("the new key opens the store; destroy copies of the old linkage.key, which the old key still opens")


# --- audit ------------------------------------------------------------------------------------------------------------

Log = Annotated[Path, typer.Argument(help="The folder of the linkage store, or its audit.jsonl.")]


@audit_app.command("verify")
def verify_log(
    log: Log,
    head: Annotated[
        str | None, typer.Option("--head", help="NUMBER:HASH of a line, as `audit head` showed it earlier.")
    ] = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Check that no line was altered, removed or added; with the key also that nobody wrote log and head anew."""
    from reportlabel.deidentify.audit import verify

    path = _log_path(log)
    problems = verify(path, head=_head(head))
    if key_file or key_env or passphrase_env or ask_passphrase:
        source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
        opened = open_store(path.parent, source, study=None, workspace=None)
        problems += [one for one in opened.problems() if one not in problems]
    else:
        say("without the key it is not checked whether log and head were written anew together")
    raise typer.Exit(_told_problems(problems))


@audit_app.command("head")
def show_head(log: Log) -> None:
    """Show number and hash of the last line, to be kept in a second place (`audit verify --head`)."""
    from reportlabel.deidentify.audit import AuditLog

    number, digest = AuditLog(_log_path(log)).head()
    say(f"{number}:{digest}")


@audit_app.command("show")
def show_log(
    log: Log,
    last: Annotated[int, typer.Option("--last", help="So many lines from the end; 0: all.")] = 20,
    code: Annotated[str | None, typer.Option("--code", help="Only lines with this code.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this action: lookup, issue …")] = None,
) -> None:
    """Show who did what, when and why."""
    from reportlabel.deidentify.audit import entries, verify

    path = _log_path(log)
    if last < 0:
        raise ConfigError("--last: give 0 or more")
    found = [
        one
        for one in entries(path)
        if (code is None or code in one.records) and (action is None or one.action == action)
    ]
    shown = found[-last:] if last else found
    rows = [
        (
            one.seq,
            one.at_jst[:19].replace("T", " "),
            one.actor,
            one.action,
            one.purpose,
            len(one.records),
            ", ".join(f"{name} {value}" for name, value in one.details.items() if not name.endswith("sha256")),
        )
        for one in shown
    ]
    columns = ("line", "time (JST)", "actor", "action", "purpose", "codes", "details")
    show(f"{len(shown):,} of {len(found):,} lines", columns, rows, numbers=("line", "codes"))
    if problems := verify(path):
        raise typer.Exit(_told_problems(problems))


def _log_path(given: Path) -> Path:
    return given / "audit.jsonl" if given.is_dir() else given


def _head(given: str | None) -> tuple[int, str] | None:
    if given is None:
        return None
    number, _, digest = given.partition(":")
    if not number.isdigit() or len(digest) != 64:
        raise ConfigError("--head: give it as `reportlabel audit head` shows it, NUMBER:HASH")
    return int(number), digest


def _told_problems(problems: list[str]) -> int:
    for problem in problems:
        say(problem)
    say(f"{len(problems):,} problems" if problems else "nothing was altered")
    return int(ExitCode.USAGE if problems else ExitCode.DONE)


# --- dicom ------------------------------------------------------------------------------------------------------------


@dicom_app.command()
def deidentify(
    folder: Annotated[Path, typer.Argument(help="A folder of DICOM files, or one file.")],
    protocol: ProtocolName,
    out: Annotated[Path, typer.Option("--out", help="A new or empty folder for the new files.")],
    linkage: Annotated[Path, typer.Option("--linkage", help="The linkage store of the study.")],
    refusals: Refusals,
    purpose: Purpose,
    site: Site = "main",
    deliverable: Annotated[
        str | None,
        typer.Option(
            "--deliverable", help="What the files are for; default: the one of kind dicom, where there is one."
        ),
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option("--decisions", help="The review sheet of an earlier run, filled in.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--record", help="Folder for review sheet, manifest and files left out; default: OUT.record."),
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option("--canaries", help="Words, one a line, that must not be in any new file.")
    ] = None,
    persons: Persons = None,
    actor: Actor = None,
    workspace: WorkspaceApart = None,
    id_width: IdWidth = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Write files of a study anew as its protocol says. Patients who refuse, or have no code, stay out."""
    from reportlabel.consent.refusals import apply_refusals
    from reportlabel.consent.study_refusals import refusals_of_study
    from reportlabel.deidentify.dicom_folder import deidentify_folder, study_policy
    from reportlabel.deidentify.dicom_review import read_decisions
    from reportlabel.deidentify.dicom_scan import Canaries
    from reportlabel.deidentify.linkage import patients_of, refuse_overlap

    loaded = _loaded(protocol)
    loaded.gate("run", today=_today())
    _check_site(loaded, site)
    _refuse_empty(folder)
    profile = _profile(loaded, deliverable)
    policy = study_policy(loaded, profile)
    apart = record if record is not None else out.with_name(f"{out.name}.record")
    if _within(apart, out) or _within(out, apart):
        raise ConfigError(f"--record {apart}: it shows values of patients; give a folder apart from {out}")
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(linkage, source, study=loaded.id, workspace=workspace, exports=(out, apart))
    refuse_overlap(linkage, [("archive", folder)])
    who = actor or login()
    asked = refusals_of_study(refusals, loaded, id_width=id_width, site=site, persons=read_persons(persons))
    people = patients_of(opened.all_codes("patient", actor=who, purpose=purpose))
    if people.filter(site=site).is_empty():
        raise InputError(f"{linkage} has no code of a patient of {site}; run `reportlabel linkage issue` first")
    today = _today()
    applied = apply_refusals(people, asked.listed.rows, loaded, today=today, stage="export", persons=asked.persons)
    keys = _keys(opened, loaded, applied.kept.filter(site=site), policy, profile)
    done = deidentify_folder(
        folder,
        out,
        policy,
        codes=keys.codes,
        uid_key=keys.uid,
        shifts=keys.shifts,
        decisions=None if decisions is None else read_decisions(decisions),
        canaries=None if canaries is None else Canaries(_words(canaries)),
        id_width=id_width,
    )
    opened.log.append(
        actor=who,
        action="dicom",
        purpose=purpose,
        records=sorted(done.patients) if keys.linked else (),
        details={
            "files_in": done.files_in,
            "files_out": done.files_out,
            "patients": len(done.patients),
            "uids": policy.file.uids,
            "profile": profile,
        },
    )
    _write_record(apart, out, done, loaded, policy, profile, deliverable, decisions)
    say(
        f"{done.files_in:,} files in = {done.files_out:,} out + {done.quarantined:,} quarantined + "
        f"{done.excluded:,} excluded; {len(done.patients):,} patients"
    )
    _tell_reasons(done)
    if len(done.review):
        say(f"{len(done.review):,} rows to decide on: {apart / 'review.csv'} (stays in the hospital)")
    say(f"{applied.excluded.height:,} patients with a code are out by refusals; record: {apart}")
    quarantined = _tell_refusals(asked, loaded, people)
    raise typer.Exit(int(ExitCode.QUARANTINED) if done.quarantined else quarantined)


@dicom_app.command()
def review(
    sheet: Annotated[Path, typer.Argument(help="A review sheet, filled in.")],
) -> None:
    """Check a review sheet, and count what was decided. An empty decision removes."""
    from collections import Counter

    from reportlabel.deidentify.dicom_review import read_decisions

    decisions = read_decisions(sheet)
    counts = Counter((key.kind, decision) for key, decision in decisions.items())
    rows = [(kind, counts[kind, "keep"], counts[kind, "remove"]) for kind in sorted({key.kind for key in decisions})]
    show(f"{len(decisions):,} decisions", ("kind", "keep", "remove"), rows, numbers=("keep", "remove"))


@dicom_app.command()
def scan(
    folder: Annotated[Path, typer.Argument(help="A folder, or one file.")],
    canaries: Annotated[Path, typer.Option("--canaries", help="Words to search for, one a line, UTF-8.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write all hits as CSV: file, path, line, where.")] = None,
) -> None:
    """Search files, their texts, bytes and names, for words that must not be there. Words are shown by their line."""
    import polars as pl

    from reportlabel.deidentify.dicom_folder import named_in
    from reportlabel.deidentify.dicom_scan import Canaries, scan_bytes
    from reportlabel.deidentify.private_file import write_private
    from reportlabel.ingest.codes import files_below, shown_path
    from reportlabel.ingest.rows import Source

    _refuse_empty(folder)
    words = _words(canaries)
    ready = Canaries(words)
    if not ready:
        raise InputError(f"{canaries}: holds no word of two or more characters; write one a line")
    root = folder if folder.is_dir() else folder.parent
    source = Source("dicom", folder, root)
    hits: list[tuple[int, str, int, str]] = []
    searched = 0
    for searched, path in enumerate(files_below(folder), start=1):
        below = path.relative_to(root)
        named = named_in(below, ready)
        shown = f"file {searched}" if named else shown_path(path, source, suspicious=True)
        hits += [(searched, shown, canary + 1, "name of the file") for canary in sorted(named)]
        hits += [(searched, shown, hit.canary + 1, hit.where) for hit in scan_bytes(path, ready)]
    columns = ("file", "path", "line", "where")
    if out is not None:
        table = pl.DataFrame(
            hits, schema=dict(zip(columns, (pl.Int64, pl.String, pl.Int64, pl.String), strict=True)), orient="row"
        )
        write_private(out, table.write_csv().encode("utf-8"))
    if hits:
        show(f"{min(len(hits), _SHOWN):,} of {len(hits):,} hits", columns, hits[:_SHOWN], numbers=("file", "line"))
    found = len({hit[2] for hit in hits})
    say(f"{searched:,} files searched for {sum(map(bool, words)):,} words: {found:,} words found, {len(hits):,} hits")
    raise typer.Exit(FOUND if hits else int(ExitCode.DONE))


@dataclass(frozen=True)
class _Keys:
    """What stands for patients and UIDs, and by how much days move, in one folder of files.

    ``codes``: patient id -> code; ``shifts``: code -> days; ``linked``: whether the codes are those of the store.
    """

    codes: Mapping[str, str]
    uid: bytes = field(repr=False)
    shifts: Mapping[str, timedelta]
    linked: bool


def _keys(store: LinkageStore, protocol: Protocol, people: pl.DataFrame, policy: TagPolicy, profile: Profile) -> _Keys:
    """In anonymised files codes and UIDs are drawn for this folder alone, so that nothing links them to the store."""
    from reportlabel.deidentify.dicom_folder import study_shifts
    from reportlabel.deidentify.linkage import random_codes

    own = dict(people.select("patient_id", "patient_code").iter_rows())
    shifts = study_shifts(own.values(), store.date_key) if policy.file.dates == "shift" else {}
    if profile == "pseudonymised":
        return _Keys(own, store.uid_key, shifts, True)
    drawn = random_codes(protocol.codes.patient_prefix, protocol.codes.digits, len(own))
    codes = dict(zip(own, drawn, strict=True))
    moved = {codes[patient]: shifts[code] for patient, code in own.items() if code in shifts}
    return _Keys(codes, secrets.token_bytes(32), moved, False)


def _profile(protocol: Protocol, deliverable: str | None) -> Profile:
    """How far files are de-identified: as their deliverable; pseudonymised where the study hands over none."""
    of_dicom = [one.id for one in protocol.deliverables if one.kind == "dicom"]
    if deliverable is None:
        if len(of_dicom) > 1:
            raise ConfigError(f"--deliverable: {protocol.id} has {', '.join(of_dicom)}; say which")
        return protocol.profile_of(of_dicom[0]) if of_dicom else "pseudonymised"
    if deliverable not in {one.id for one in protocol.deliverables}:
        listed = ", ".join(one.id for one in protocol.deliverables)
        raise RefusedError(protocol.number("deliverable"), f"'{deliverable}' is none of the deliverables: {listed}")
    return protocol.profile_of(deliverable)


def _write_record(
    folder: Path,
    out: Path,
    done: FolderResult,
    protocol: Protocol,
    policy: TagPolicy,
    profile: Profile,
    deliverable: str | None,
    decisions: Path | None,
) -> None:
    """What the hospital keeps of a run: the manifest, the files that stayed behind, the review sheet."""
    import json

    from reportlabel import __version__
    from reportlabel.deidentify.dicom_review import read_decisions
    from reportlabel.deidentify.private_file import write_private

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"cannot make {folder}: {error.strerror}") from error
    manifest = {
        **protocol.manifest(),
        "made_on": _today().isoformat(),
        "reportlabel": __version__,
        "deliverable": deliverable,
        "profile": profile,
        "policy": policy.id,
        "dates": policy.file.dates,
        "uids": policy.file.uids,
        "files_in": done.files_in,
        "files_out": done.files_out,
        "quarantined": done.quarantined,
        "excluded": done.excluded,
        "patients": len(done.patients),
        "actions": done.actions.to_dicts(),
    }
    write_private(folder / "manifest.json", (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode())
    # old UIDs lead back to the patient as ids do; the number of the file finds it
    not_out = done.not_out.with_columns(done.not_out["path"].str.replace_all(_UID, "…"))
    write_private(folder / "not_out.csv", not_out.write_csv().encode("utf-8"))
    if len(done.review):
        made = None if decisions is None else read_decisions(decisions)
        done.review.write(folder / "review.csv", apart_from=[out], decisions=made)


def _tell_reasons(done: FolderResult) -> None:
    if done.not_out.is_empty():
        return
    counted = done.not_out.group_by("outcome", "reason", "remedy").len().sort("outcome", "reason")
    columns = ("outcome", "files", "reason", "remedy")
    show("not out", columns, counted.select("outcome", "len", "reason", "remedy").iter_rows(), numbers=("files",))


def _words(path: Path) -> list[str]:
    """The lines of a file; a line that is empty is no word."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); write one word a line, UTF-8") from None


# --- shared -----------------------------------------------------------------------------------------------------------


def _today() -> date:
    return date.today()


def _loaded(name: str) -> Protocol:
    from reportlabel.protocol import load_protocol

    return load_protocol(name)


def _check_site(protocol: Protocol, site: str) -> None:
    known = [one.id for one in protocol.cohort.sites]
    if site not in known:
        raise RefusedError(
            protocol.number("sites"), f"hospital '{site}' does not take part; listed: {', '.join(known)}"
        )


def _refuse_empty(folder: Path) -> None:
    """A folder without files is a mistake in its name: that nothing was found in it says nothing."""
    from reportlabel.ingest.codes import files_below

    if not folder.exists():
        raise InputError(f"{folder}: there is no such folder")
    if next(iter(files_below(folder)), None) is None:
        raise InputError(f"{folder}: holds no file")


def _within(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


def _tell_refusals(asked: StudyRefusals, protocol: Protocol, patients: pl.DataFrame) -> int:
    """Name the rows of the list that may have missed somebody; the exit code."""
    from reportlabel.consent.study_refusals import missed

    nobody = missed(asked.listed.rows, protocol, patients, persons=asked.persons)
    for line in nobody.told():
        say(f"refusals: {line}")
    code = _tell_quarantine(asked.listed, "refusals")
    return int(ExitCode.QUARANTINED) if nobody.zeros else code


def _tell_quarantine(found: RefusalList, what: str) -> int:
    """Name the rows of a list that could not be read; the exit code."""
    for row, reason, remedy in found.quarantine.select("row", "reason", "remedy").iter_rows():
        say(f"{what}, row {row} set aside: {reason}; {remedy}")
    return int(ExitCode.QUARANTINED if found.quarantine.height else ExitCode.DONE)
