"""`reportlabel consent`: the register of refusals, what each request does in a study, and withdrawals.

The terminal shows numbers of rows, days and reasons, never a patient id: those stand in the register.
"""

from __future__ import annotations

import sys
from datetime import date
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
    key_source,
    login,
    open_store,
    read_persons,
    say,
    show,
)
from reportlabel.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    import polars as pl

    from reportlabel.consent.refusals import RefusalList
    from reportlabel.consent.study_refusals import StudyRefusals
    from reportlabel.deidentify.linkage import LinkageStore
    from reportlabel.govern import StudyOfWorkspace
    from reportlabel.protocol import Protocol

__all__ = ["consent_app"]

consent_app = typer.Typer(help="Refusals and withdrawals.", no_args_is_help=True)

Register = Annotated[Path, typer.Argument(help="The register, or any list of refusals: CSV or Parquet.")]
Site = Annotated[str | None, typer.Option("--site", help="The hospital of rows that name none.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Encoding of a CSV; found out where not given.")]
MaybeProtocol = Annotated[
    str | None, typer.Option("--protocol", help="A protocol of the package, or a .yaml file: what it means there.")
]


@consent_app.command()
def add(
    register: Annotated[Path, typer.Argument(help="The register; made on first use.")],
    requests: Annotated[
        Path | None, typer.Option("--list", help="Take in all requests of this list: CSV or Parquet.")
    ] = None,
    site: Annotated[str | None, typer.Option("--site", help="The hospital that issued the patient id.")] = None,
    scope: Annotated[str | None, typer.Option("--scope", help="all_research or study.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="The study that is refused.")] = None,
    requester: Annotated[str, typer.Option("--requester", help="patient, or the relation to the patient.")] = "patient",
    case: Annotated[str | None, typer.Option("--case", help="Why somebody else asks.")] = None,
    minor: Annotated[
        bool | None, typer.Option("--minor/--adult", help="Whether the requester is a minor, if known.")
    ] = None,
    received: Annotated[str | None, typer.Option("--received", help="The day it came in; default: today.")] = None,
    id_width: IdWidth = None,
    encoding: Encoding = None,
) -> None:
    """Write a request into the register, or those of a list. The patient id is asked for, or read from a pipe."""
    from reportlabel.consent.refusals import read_refusals, request_of
    from reportlabel.consent.register import add_requests

    if requests is not None:
        if scope or study or case or received or minor is not None:
            raise ConfigError("--list: the list says scope, study, case and day of each request; leave the options out")
        found = read_refusals(requests, site=site, encoding=encoding, patient_id_width=id_width)
        done = add_requests(register, found.rows)
        rows_in = found.rows.height + found.quarantine.height
        say(
            f"{rows_in:,} requests in = {done.added:,} added + {done.known:,} already there + "
            f"{found.quarantine.height:,} quarantined"
        )
        _tell_doubts(found)
        raise typer.Exit(_exit_code(found))
    if site is None or scope is None:
        raise ConfigError("a request needs --site and --scope (all_research, or study with --study); or give a --list")
    given = {
        "site": site,
        "scope": scope,
        "study": study or "",
        "requester": requester,
        "case": case or "",
        "requester_minor": "" if minor is None else str(minor).lower(),
        "received": received or _today().isoformat(),
        "patient_id": _typed_id(),
    }
    done = add_requests(register, request_of(given, patient_id_width=id_width))
    say("added" if done.added else "already there; nothing was added")


@consent_app.command("list")
def list_requests(
    register: Register, protocol: MaybeProtocol = None, site: Site = None, encoding: Encoding = None
) -> None:
    """Show the requests by the number of their row, with a protocol what each does in that study."""
    from reportlabel.consent.refusals import standing_refusals

    found, loaded = _read(register, protocol, site, encoding)
    if loaded is None:
        columns = ("row", "received", "scope", "study", "requester", "case", "doubt")
        show(f"{found.rows.height:,} requests", columns, found.rows.select(columns).iter_rows(), numbers=("row",))
    else:
        standing = standing_refusals(found.rows, loaded, today=_today())
        meant = ("row", "received", "effect", "number", "reason")
        show(
            f"{loaded.id}: {standing.height:,} of {found.rows.height:,} requests concern the study",
            meant,
            standing.select(meant).iter_rows(),
            numbers=("row",),
        )
        _tell_elsewhere(found.rows, loaded)
    _tell_quarantine(found)
    raise typer.Exit(_exit_code(found))


@consent_app.command()
def check(register: Register, protocol: MaybeProtocol = None, site: Site = None, encoding: Encoding = None) -> None:
    """Name the rows that the consent office should look at: unreadable, doubtful, on hold, of another study or site."""
    from reportlabel.consent.refusals import requests_of_other_studies, standing_refusals

    found, loaded = _read(register, protocol, site, encoding)
    _tell_doubts(found)
    if loaded is not None:
        for row in standing_refusals(found.rows, loaded, today=_today()).iter_rows(named=True):
            if row["effect"] in ("hold", "set_aside"):
                say(f"row {row['row']}: {row['effect']} ({row['number']}): {row['reason']}")
        if others := requests_of_other_studies(found.rows, loaded):
            say(f"of other studies than {loaded.id}: rows {', '.join(map(str, others))}")
        _tell_elsewhere(found.rows, loaded)
    say(
        f"{found.rows.height:,} requests read, {found.doubtful.height:,} of them doubtful; "
        f"{found.quarantine.height:,} rows set aside"
    )
    raise typer.Exit(_exit_code(found))


@consent_app.command("holdings")
def show_holdings(
    workspace: Annotated[Path, typer.Argument(help="The workspace of the study.")],
    site: Annotated[str, typer.Option("--site", help="The hospital that issued the patient id.")],
    custodian: Annotated[str, typer.Option("--custodian", help="The custodian, as the protocol names the office.")],
    purpose: Purpose,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Show the custodian what a study holds of a patient. The patient id is asked for, or read from a pipe."""
    from reportlabel.consent.holdings import holdings
    from reportlabel.consent.study_refusals import site_of_study
    from reportlabel.govern import study_of
    from reportlabel.ingest.codes import patient_number
    from reportlabel.run import open_workspace

    study = study_of(workspace)
    if study is None:
        raise ConfigError(f"{workspace} belongs to no study")
    loaded = study.load()
    role = "custodian" if custodian.strip() == loaded.custodian.office else None
    loaded.gate("lookup", today=_today(), role=role, purpose=purpose.strip() or None)
    hospital = site_of_study(site, loaded)
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    store = open_store(study.linkage, source, study=study.study, workspace=workspace)
    patient = patient_number(_typed_id(), width=study.id_width)
    if patient is None:
        raise ConfigError("no patient id was given")
    found = holdings(
        open_workspace(workspace), store, site=hospital, patient_id=patient, custodian=custodian,
        actor=actor or login(), purpose=purpose,
    )  # fmt: skip
    if found.is_empty():
        say(f"{study.study} holds nothing of this patient")
    else:
        show(f"held by {study.study}", found.columns, found.iter_rows(), numbers=("rows",))


@consent_app.command()
def withdraw(
    register: Register,
    workspace: Annotated[Path, typer.Option("--workspace", help="The workspace that the people must leave.")],
    protocol: ProtocolName,
    linkage: Annotated[
        Path | None, typer.Option("--linkage", help="The linkage store; default: that of the workspace's study.")
    ] = None,
    shipped: Annotated[
        Path | None,
        typer.Option("--shipped", help="What was handed over; default: what the linkage store remembers."),
    ] = None,
    staging: Annotated[
        Path | None,
        typer.Option("--staging", help="Rows as they were read; default: as the study, else WORKSPACE.staging."),
    ] = None,
    exams_to: Annotated[
        Path | None, typer.Option("--exams-to", help="Write the ids of the exams that are gone, for the review server.")
    ] = None,
    forget: Annotated[
        bool, typer.Option("--forget", help="Also take the codes of these people out of the linkage store.")
    ] = False,
    custodian: Annotated[
        str | None, typer.Option("--custodian", help="The custodian, through whom codes are forgotten.")
    ] = None,
    site: Site = None,
    encoding: Encoding = None,
    id_width: IdWidth = None,
    persons: Persons = None,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Take everybody who has refused the study out of a workspace, from the disk too, and prove it."""
    from reportlabel.consent.study_refusals import refusals_of_study
    from reportlabel.govern import check_store, study_of

    loaded = _loaded(protocol)
    loaded.gate("withdraw", today=_today())
    study = study_of(workspace)
    if study is not None and study.study != loaded.id:
        raise ConfigError(f"{workspace} belongs to the study {study.study}, not to {loaded.id}; give its protocol")
    if study is not None:
        linkage, staging = linkage or study.linkage, staging or study.staging
        id_width = _width_of(study, id_width)
    if (shipped is not None or forget) and linkage is None:
        raise ConfigError("--shipped and --forget need the codes of the people: give --linkage")
    if forget and custodian is None:
        raise ConfigError("--forget needs --custodian")
    store = None
    if linkage is not None:
        source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
        try:
            store = open_store(linkage, source, study=loaded.id, workspace=workspace)
        except ConfigError as error:
            raise ConfigError(
                f"{workspace} holds codes, and without the linkage store nobody can be found in it: {error}"
            ) from None
        if study is not None:
            check_store(study, store)
    asked = refusals_of_study(
        register, loaded, id_width=id_width, site=site, encoding=encoding, persons=read_persons(persons)
    )
    who = actor or login()
    left, may_have_missed = _withdraw(asked, loaded, workspace, staging, store, shipped, exams_to, who)
    if forget and store is not None and custodian is not None and not left:
        codes = _codes_of_refused(asked, loaded, store, who)
        count = store.forget(codes, custodian=custodian, actor=who, purpose="withdrawal")
        say(f"{count:,} codes forgotten")
    _tell_quarantine(asked.listed)
    if left:
        raise ConfigError(f"{left:,} rows of these people are still in {workspace}; run the command again")
    raise typer.Exit(int(ExitCode.QUARANTINED) if may_have_missed else _exit_code(asked.listed))


def _width_of(study: StudyOfWorkspace, given: int | None) -> int | None:
    """The digits of the study's patient ids; an option may say them where the study does not."""
    if study.id_width is not None and given is not None and given != study.id_width:
        raise ConfigError(
            f"--id-width {given}: ids of {study.study} have {study.id_width} digits; leave the option out"
        )
    return given if study.id_width is None else study.id_width


def _withdraw(
    asked: StudyRefusals,
    protocol: Protocol,
    workspace: Path,
    staging: Path | None,
    store: LinkageStore | None,
    shipped: Path | None,
    exams_to: Path | None,
    actor: str,
) -> tuple[int, bool]:
    """Remove, and say what was removed.

    Returns:
        How many rows are left, and whether a request may have missed somebody for zeros in front of the id.
    """
    import polars as pl

    from reportlabel.consent.refusals import standing_refusals
    from reportlabel.consent.study_refusals import by_codes, missed
    from reportlabel.consent.withdrawal import (
        loose_rows,
        people_there,
        people_to_remove,
        raw_stores,
        read_shipped,
        remembered_shipped,
        remove_people,
        shipped_to,
    )
    from reportlabel.deidentify.linkage import patients_of
    from reportlabel.export.seal import clear_unsealed
    from reportlabel.run import open_workspace

    opened = open_workspace(workspace)
    meant, same = asked.listed.rows, asked.persons
    codes = None
    if store is not None:
        codes = patients_of(store.all_codes("patient", actor=actor, purpose="withdrawal"))
        meant, same = by_codes(meant, same, codes)
        given = remembered_shipped(store, actor=actor) if shipped is None else read_shipped(shipped)
        standing = standing_refusals(asked.listed.rows, protocol, today=_today())
        across = asked.persons if protocol.optout.across_sites else None
        bundles = shipped_to(standing, given, codes, persons=across)
        if bundles.height:
            show("handed over with people who have refused", bundles.columns, bundles.iter_rows(), numbers=("people",))
        else:
            say(f"none of {given['bundle'].n_unique():,} hand-overs holds somebody who has refused")
    raw = raw_stores(opened, staging)
    with opened.alone():
        there = people_there(opened, raw)
        people = people_to_remove(opened, raw, meant, protocol, today=_today(), persons=same)
        done = remove_people(opened, raw, people, held=True, exams_to=exams_to)
    for one in raw:
        clear_unsealed(one.folder)
    if done.people:
        show("rows", done.rows.columns, done.rows.iter_rows(), numbers=("removed", "left"))
    say(
        f"{done.people:,} people, {len(done.exams):,} exams, {done.rows['removed'].sum():,} rows removed; "
        f"{done.files:,} files of earlier versions deleted; {done.rows['left'].sum():,} rows found afterwards"
    )
    if done.paths:
        say(
            f"{done.paths:,} names of files in the archive hold a number of these people; the workspace remembers them "
            "until the files leave the archive (`--forget-gone`)"
        )
    for name, count in loose_rows(opened).items():
        say(
            f"{count:,} rows of {name} are of exams that are not there: run the study again; readings go with "
            "`reportlabel review withdraw --gone`"
        )
    known = there if codes is None else pl.concat([there, codes.select("site", "patient_id")])
    nobody = missed(asked.listed.rows, protocol, known, persons=asked.persons)
    for line in nobody.told():
        say(line)
    return int(done.rows["left"].sum()), bool(nobody.zeros)


def _codes_of_refused(asked: StudyRefusals, protocol: Protocol, store: LinkageStore, actor: str) -> list[str]:
    import polars as pl

    from reportlabel.consent.refusals import apply_refusals
    from reportlabel.deidentify.linkage import patients_of

    codes = patients_of(store.all_codes("patient", actor=actor, purpose="withdrawal"))
    out = apply_refusals(codes, asked.listed.rows, protocol, today=_today(), persons=asked.persons).excluded
    return out.filter(pl.col("effect") == "remove")["patient_code"].to_list()


# --- incidental findings ----------------------------------------------------------------------------------------------

incidental_app = typer.Typer(
    help="Findings that matter to a patient: told through the custodian.", no_args_is_help=True
)
consent_app.add_typer(incidental_app, name="incidental")

Store = Annotated[Path, typer.Argument(help="The folder of the linkage store.")]
ExamCode = Annotated[str, typer.Argument(help="The code of the exam.")]


@incidental_app.command("note")
def note_finding(
    store: Store,
    exam: ExamCode,
    protocol: ProtocolName,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Note the exam at which something was found; what it is, is not written down."""
    from reportlabel.consent.incidental import note

    loaded = _loaded(protocol)
    loaded.gate("run", today=_today())
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=loaded.id, workspace=None)
    note(opened, loaded, exam, today=_today(), actor=actor or login())
    say("noted; the investigators decide, and the custodian tells")


@incidental_app.command("list")
def list_findings(
    store: Store,
    protocol: ProtocolName,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Show the noted exams by their codes, those first on which nothing is decided."""
    from reportlabel.consent.incidental import open_findings

    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=_loaded(protocol).id, workspace=None)
    found = open_findings(opened, actor=actor or login())
    show(f"{found.height:,} exams noted", found.columns, found.iter_rows())


@incidental_app.command("decide")
def decide_finding(
    store: Store,
    exam: ExamCode,
    decision: Annotated[str, typer.Argument(help="disclose, withhold, or told.")],
    wish: Annotated[str, typer.Option("--wish", help="Whether the patient wished to be told: yes, no or unknown.")],
    custodian: Annotated[str, typer.Option("--custodian", help="The custodian, as the protocol names the office.")],
    protocol: ProtocolName,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
    ask_passphrase: AskPassphrase = False,
) -> None:
    """Write down what was decided, or that the patient was told. Who the patient is: `linkage lookup`."""
    from reportlabel.consent.incidental import decide

    loaded = _loaded(protocol)
    role = "custodian" if custodian.strip() == loaded.custodian.office else None
    loaded.gate("lookup", today=_today(), role=role, purpose="incidental finding")
    source = key_source(key_file, key_env, passphrase_env, ask_passphrase)
    opened = open_store(store, source, study=loaded.id, workspace=None)
    decide(
        opened,
        loaded,
        exam,
        decision,  # type: ignore[arg-type]  # checked there
        wish=wish,  # type: ignore[arg-type]
        custodian=custodian,
        today=_today(),
        actor=actor or login(),
    )
    say(f"{decision}; written into the linkage store and its log")


# --- showing ----------------------------------------------------------------------------------------------------------


def _typed_id() -> str:
    """Asked for where somebody sits at the terminal, else the first line of what is piped in."""
    if sys.stdin.isatty():
        return str(typer.prompt("patient id", err=True))
    return sys.stdin.readline().strip()


def _today() -> date:
    return date.today()


def _loaded(name: str) -> Protocol:
    from reportlabel.protocol import load_protocol

    return load_protocol(name)


def _read(
    register: Path, protocol: str | None, site: str | None, encoding: str | None
) -> tuple[RefusalList, Protocol | None]:
    """A list to be looked at, as a study reads it where one is named. No id is compared or shown: it has any width."""
    from reportlabel.consent.refusals import read_refusals
    from reportlabel.consent.study_refusals import refusals_of_study

    if protocol is None:
        return read_refusals(register, site=site, encoding=encoding), None
    loaded = _loaded(protocol)
    return refusals_of_study(register, loaded, id_width=None, site=site, encoding=encoding).listed, loaded


def _tell_elsewhere(rows: pl.DataFrame, protocol: Protocol) -> None:
    from reportlabel.consent.study_refusals import Missed, elsewhere

    for line in Missed(elsewhere(rows, protocol), ()).told():
        say(line)


def _tell_quarantine(found: RefusalList) -> None:
    for row, reason, remedy in found.quarantine.select("row", "reason", "remedy").iter_rows():
        say(f"row {row} set aside: {reason}; {remedy}")


def _tell_doubts(found: RefusalList) -> None:
    _tell_quarantine(found)
    for row, doubt in found.doubtful.iter_rows():
        say(f"row {row} is doubtful, and counts: {doubt}")


def _exit_code(found: RefusalList) -> int:
    return int(ExitCode.QUARANTINED if found.quarantine.height else ExitCode.DONE)
