"""The command line. Every command is one function here and does its work elsewhere.

Heavy imports stand inside the commands, so that ``reportlabel --help`` is quick and no command pays for another's.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from reportlabel.consent.command import consent_app
from reportlabel.deidentify.command import audit_app, dicom_app, linkage_app
from reportlabel.deidentify.options import Actor, KeyEnv, KeyFileOption, PassphraseEnv, Persons
from reportlabel.errors import ExitCode, ReportLabelError
from reportlabel.review.command import app as review_app

if TYPE_CHECKING:
    import polars as pl

# A traceback must never show local variables: they hold report texts.
app = typer.Typer(
    name="reportlabel",
    help="Teacher labels from Japanese radiology reports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(consent_app, name="consent")
app.add_typer(review_app, name="review")
app.add_typer(linkage_app, name="linkage")
app.add_typer(audit_app, name="audit")
app.add_typer(dicom_app, name="dicom")
rules_app = typer.Typer(help="Check, test and compare the rules.", no_args_is_help=True)
app.add_typer(rules_app, name="rules")

Reports = Annotated[Path, typer.Argument(help="CSV, TSV or Parquet with a report id and a text column.")]
LabelSetName = Annotated[str, typer.Option("--label-set", help="A label set of rules/label_sets.")]
RulesFolder = Annotated[Path | None, typer.Option("--rules", help="Another rules folder than the one installed.")]
IdColumn = Annotated[str, typer.Option("--id-column", help="Column with the report id.")]
TextColumn = Annotated[str, typer.Option("--text-column", help="Column with the report text.")]
Encoding = Annotated[str | None, typer.Option("--encoding", help="Encoding of a CSV; found out where not given.")]


Bert = Annotated[
    bool, typer.Option("--bert/--no-bert", help="A sentence classifier votes too; the one of the package.")
]
Model = Annotated[Path | None, typer.Option("--model", help="Folder of another sentence classifier.")]


def main() -> None:
    """Entry point: errors that a user can mend end with one message and an exit code, never a traceback.

    So do troubles of the machine: a full disk, a file that cannot be read or written, too little memory.
    """
    try:
        app()
    except ReportLabelError as error:
        _errors().print(f"[bold red]error:[/] {_escaped(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(int(error.exit_code))
    except KeyboardInterrupt:
        _errors().print("stopped; nothing was written")
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output (head, less) has gone; say nothing more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.DONE))
    except Exception as error:
        problem = _of_the_machine(error)
        if problem is None:
            raise
        _errors().print(f"[bold red]error:[/] {_escaped(problem)}", highlight=False, soft_wrap=True)
        sys.exit(int(ExitCode.USAGE))


_OS_ERROR = re.compile(r"\(os error (\d+)\)", re.ASCII)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def _of_the_machine(error: Exception) -> str | None:
    """What to say where files, disk or memory are the trouble; None for any other exception, which is a defect of ours.

    The libraries that write the tables of a workspace name the number of an error only in their text, and not all of
    their exceptions are an `OSError`.
    """
    if isinstance(error, MemoryError):
        return "the memory is not enough; run again with fewer --workers, or on a machine with more"
    named = _OS_ERROR.search(str(error))
    if not isinstance(error, OSError) and named is None:
        return None
    number = (error.errno if isinstance(error, OSError) else None) or (int(named[1]) if named else None)
    reason = os.strerror(number) if number else type(error).__name__
    if number in _FULL:
        remedy = "make room and run the same command again; nothing is lost, what was written before is whole"
    elif number in _FORBIDDEN:
        remedy = "correct the rights of the file or folder, or give another one, and run again"
    else:
        remedy = "mend that and run the same command again"
    file = error.filename if isinstance(error, OSError) else None
    return f"{_shown_file(file)}{reason}: {remedy}"


def _shown_file(name: object) -> str:
    """The file of an exception, without numbers that may be of patients."""
    if not isinstance(name, str | bytes | os.PathLike):
        return ""
    from reportlabel.ingest.stage import hidden_numbers

    return f"{hidden_numbers(os.fsdecode(name))}: "


@app.command()
def label(
    reports: Reports,
    label_set: LabelSetName,
    out: Annotated[Path, typer.Option("-o", "--out", help="Parquet of labels: one row a report and label.")],
    mentions: Annotated[Path | None, typer.Option("--mentions", help="Parquet of all finding expressions.")] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes.")] = 1,
    rules: RulesFolder = None,
    id_column: IdColumn = "report_id",
    text_column: TextColumn = "text",
    encoding: Encoding = None,
    bert: Bert = False,
    model: Model = None,
) -> None:
    """Label every report of a file."""
    from reportlabel.label import label_file

    with _errors().status("labelling …"):
        run = label_file(
            reports,
            label_set=label_set,
            out=out,
            mentions=mentions,
            rules=rules,
            workers=workers,
            id_column=id_column,
            text_column=text_column,
            encoding=encoding,
            model=_classifier(bert, model),
        )
    for note in run.notes:
        _errors().print(f"[yellow]note:[/] {_escaped(note)}", highlight=False, soft_wrap=True)
    console = _console()
    console.print(_value_table(run.values, title=label_set))
    counts = run.counts
    console.print(
        f"{counts.rows_in:,} rows in = {counts.rows_out:,} labelled + {counts.quarantined:,} quarantined",
        highlight=False,
    )
    if run.quarantine is not None:
        console.print(f"quarantined rows, with reasons: {run.quarantine}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(run.exit_code))


def _value_table(values: pl.DataFrame, *, title: str) -> Table:
    """Findings by status; labels that are no status (size, side) are left to the file."""
    statuses = ("present", "uncertain", "absent", "not_mentioned")
    table = Table(title=f"labels: {title}", title_justify="left")
    table.add_column("finding")
    for status in statuses:
        table.add_column(status.replace("_", " "), justify="right")
    for (finding,), rows in values.group_by("finding", maintain_order=True):
        counts = dict(rows.select("value", "reports").iter_rows())
        if set(counts) <= set(statuses):
            table.add_row(str(finding), *(f"{counts.get(status, 0):,}" for status in statuses))
    return table


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Argument(help="Parquet of labels, as `label` writes it.")],
    gold: Annotated[Path, typer.Argument(help="CSV or Parquet with report_id, finding, status.")],
    reports: Annotated[
        Path | None, typer.Option("--reports", help="Show the text of disagreements from this file.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything as JSON.")] = None,
    bootstrap: Annotated[int, typer.Option("--bootstrap", help="Resamples for the 95% intervals; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    label_set: Annotated[
        str | None, typer.Option("--label-set", help="Only the rows of this set, of tables with a column label_set.")
    ] = None,
) -> None:
    """Compare labels with a gold standard."""
    from reportlabel.evaluate.command import run_evaluate

    raise typer.Exit(
        run_evaluate(
            pred,
            gold,
            reports=reports,
            json_out=json_out,
            bootstrap=bootstrap,
            seed=seed,
            console=_console(),
            label_set=label_set,
        )
    )


@app.command("evaluate-hospital")
def evaluate_hospital(
    hospital: Annotated[Path, typer.Argument(help="A synthetic hospital, as `synth` makes it.")],
    rules: RulesFolder = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write both tables as JSON.")] = None,
) -> None:
    """Score the rules on a synthetic hospital: labels by finding, mentions by whether the rules know them."""
    from reportlabel.evaluate.hospital import run_evaluate_hospital

    raise typer.Exit(run_evaluate_hospital(hospital, rules=rules, json_out=json_out, console=_console()))


@app.command("evaluate-records")
def evaluate_records(
    hospital: Annotated[Path, typer.Argument(help="A synthetic hospital with Parquet tables, as `synth` makes it.")],
    reviewed: Annotated[
        float, typer.Option("--reviewed", help="Share of the patients whose exams are reviewed.")
    ] = 0.3,
    rules: RulesFolder = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """Score labels without and with linked records on a synthetic hospital, against what is so of each patient."""
    from reportlabel.evaluate.records import run_evaluate_records

    raise typer.Exit(
        run_evaluate_records(hospital, reviewed=reviewed, rules=rules, json_out=json_out, console=_console())
    )


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(help="CSV, TSV or Parquet of reports, or the folder of a workspace.")],
    key: Annotated[str, typer.Argument(help="Id of the report, or of the exam of a workspace.")],
    label_set: Annotated[str | None, typer.Option("--label-set", help="Also show the labels that result.")] = None,
    rules: RulesFolder = None,
    id_column: IdColumn = "report_id",
    text_column: TextColumn = "text",
    encoding: Encoding = None,
) -> None:
    """Show one report coloured: each mention, its clause, its cue, its rule; of a workspace also every vote."""
    if source.is_dir():
        from reportlabel.report.explain_exam import run_explain_exam

        raise typer.Exit(run_explain_exam(source, key, label_set=label_set, rules_folder=rules, console=_console()))
    from reportlabel.report.explain import run_explain

    raise typer.Exit(
        run_explain(
            source,
            key,
            label_set=label_set,
            rules_folder=rules,
            id_column=id_column,
            text_column=text_column,
            encoding=encoding,
            console=_console(),
        )
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("reportlabel-demo"),
) -> None:
    """Label a small built-in synthetic hospital and write a report page."""
    from reportlabel.synth.demo import run_demo

    raise typer.Exit(run_demo(out, console=_console()))


Archive = Annotated[Path, typer.Argument(help="A folder, whose formats are recognised, or an archive.yaml.")]
WorkspaceFolder = Annotated[Path, typer.Option("--workspace", help="The folder of the tables; made on first use.")]
Site = Annotated[str, typer.Option("--site", help="The hospital, for sources that do not say it.")]
EveryByte = Annotated[bool, typer.Option("--every-byte", help="Compare contents even of files with the same date.")]
ForgetGone = Annotated[
    bool, typer.Option("--forget-gone", help="Take out rows of files that are no longer in the archive.")
]


@app.command()
def ingest(
    archive: Archive,
    workspace: WorkspaceFolder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read, and what is wrong.")] = False,
    site: Site = "main",
    workers: Annotated[int, typer.Option("--workers", help="Processes.")] = 1,
    every_byte: EveryByte = False,
    forget_gone: ForgetGone = False,
    rules: RulesFolder = None,
) -> None:
    """Read a hospital's archive into exams, reports and records; only new and changed files are read again."""
    from reportlabel.report.run_summary import run_ingest
    from reportlabel.run import Options

    options = Options(rules=rules, site=site, workers=workers, every_byte=every_byte, forget_gone=forget_gone)
    raise typer.Exit(run_ingest(archive, workspace, options, dry_run=dry_run, console=_console()))


@app.command()
def run(
    archive: Annotated[Path, typer.Option("--archive", help="A folder or an archive.yaml, as for `ingest`.")],
    workspace: WorkspaceFolder,
    protocol: Annotated[
        str | None,
        typer.Argument(help="The study protocol: one of the package, or a .yaml file. Without: no study, raw ids."),
    ] = None,
    label_sets: Annotated[
        list[str] | None, typer.Option("--label-set", help="Only these label sets; may be repeated; default: all.")
    ] = None,
    records: Annotated[bool, typer.Option("--records/--no-records", help="Whether linked records vote.")] = True,
    bert: Bert = False,
    model: Model = None,
    site: Site = "main",
    workers: Annotated[int, typer.Option("--workers", help="Processes.")] = 1,
    every_byte: EveryByte = False,
    forget_gone: ForgetGone = False,
    rules: RulesFolder = None,
    linkage: Annotated[Path | None, typer.Option("--linkage", help="The linkage store; made on first use.")] = None,
    refusals: Annotated[Path | None, typer.Option("--refusals", help="The list of refusals (CSV or Parquet).")] = None,
    staging: Annotated[
        Path | None, typer.Option("--staging", help="Rows as they were read; default: WORKSPACE.staging.")
    ] = None,
    known: Annotated[
        Path | None, typer.Option("--known", help="Names, addresses, phones of patients, to be searched in texts.")
    ] = None,
    staff: Annotated[Path | None, typer.Option("--staff", help="Names of staff, to be searched in texts.")] = None,
    persons: Persons = None,
    prior: Annotated[Path | None, typer.Option("--prior", help="Who took part in an earlier study.")] = None,
    visits: Annotated[Path | None, typer.Option("--visits", help="Days on which patients visited.")] = None,
    purpose: Annotated[str, typer.Option("--purpose", help="Why, for the audit log.")] = "labels of the study",
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
) -> None:
    """From an archive to labels: ingest, consent, link, de-identify, annotate, vote, aggregate."""
    from reportlabel.report.run_summary import run_run
    from reportlabel.run import Options

    governance = None
    if protocol is not None:
        from reportlabel.deidentify.options import key_source, login
        from reportlabel.errors import ConfigError
        from reportlabel.govern import read_governance

        if linkage is None or refusals is None:
            raise ConfigError(
                "a run under a protocol needs --linkage and --refusals (a list with its header alone is one)"
            )
        governance = read_governance(
            protocol,
            archive=archive,
            workspace=workspace,
            linkage=linkage,
            key=key_source(key_file, key_env, passphrase_env, ask_passphrase=False),
            actor=actor or login(),
            purpose=purpose,
            refusals=refusals,
            staging=staging,
            persons=persons,
            prior=prior,
            visits=visits,
            known=known,
            staff=staff,
        )
    options = Options(
        rules=rules,
        label_sets=tuple(label_sets or ()),
        records=records,
        classifier=_classifier(bert, model),
        site=site,
        workers=workers,
        every_byte=every_byte,
        forget_gone=forget_gone,
        governance=governance,
    )
    raise typer.Exit(run_run(archive, workspace, options, console=_console()))


@app.command()
def export(
    workspace: Annotated[Path, typer.Argument(help="The folder of the tables.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make; an earlier export there is replaced.")],
    to: Annotated[
        str | None, typer.Option("--to", help="Labels as parquet, datasets, monai, chexpert or ct-rate.")
    ] = None,
    as_of: Annotated[int | None, typer.Option("--as-of", help="The labels of this version; default: the last.")] = None,
    label_sets: Annotated[
        list[str] | None, typer.Option("--label-set", help="Only these label sets; may be repeated; default: all.")
    ] = None,
    split_salt: Annotated[str, typer.Option("--split-salt", help="Key of the split by patient.")] = "reportlabel",
    hold_out_sites: Annotated[
        list[str] | None, typer.Option("--hold-out-site", help="A site for test data only; may be repeated.")
    ] = None,
    uncertain: Annotated[
        list[str] | None,
        typer.Option("--uncertain", help="FINDING=ones|zeros|ignore|soft|keep; * for all; may be repeated."),
    ] = None,
    not_mentioned: Annotated[str, typer.Option("--not-mentioned", help="What silence is: zeros or ignore.")] = "zeros",
    images: Annotated[
        Path | None, typer.Option("--images", help="CSV or Parquet: exam or study, and series or path of each image.")
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Also the record votes that were known at reading.")
    ] = False,
    rules: RulesFolder = None,
    deliverable: Annotated[
        str | None, typer.Option("--deliverable", help="Of the study protocol; default: its labels.")
    ] = None,
    recipient: Annotated[
        str | None, typer.Option("--recipient", help="Who gets it, as the study protocol lists them.")
    ] = None,
    purpose: Annotated[str | None, typer.Option("--purpose", help="What for, as the study protocol lists it.")] = None,
    refusals: Annotated[
        Path | None, typer.Option("--refusals", help="The list of refusals as it is today (of a study).")
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="pseudonymised or anonymised; default: as the protocol says.")
    ] = None,
    seal_to: Annotated[
        str | None, typer.Option("--seal-to", help="Public key of the recipient (age1…): one encrypted file.")
    ] = None,
    dicom: Annotated[
        Path | None, typer.Option("--dicom", help="Folder of `dicom deidentify`, for deliverables with pictures.")
    ] = None,
    values: Annotated[
        Path | None, typer.Option("--values", help="Values of software and readers, for a comparison.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="The hospital's table of photographs (skin studies).")
    ] = None,
    photographs: Annotated[
        Path | None, typer.Option("--photographs", help="Folder of stripped photographs (skin studies).")
    ] = None,
    stripped: Annotated[Path | None, typer.Option("--stripped", help="Their table (Parquet).")] = None,
    clearance: Annotated[
        Path | None, typer.Option("--clearance", help="What reviewers decided on them (Label Studio JSON).")
    ] = None,
    regions: Annotated[
        Path | None, typer.Option("--regions", help="What reviewers marked on them (Label Studio JSON).")
    ] = None,
    several: Annotated[
        str, typer.Option("--several", help="Several bone scans of a patient: problem, first or last.")
    ] = "problem",
    unconfirmed: Annotated[bool, typer.Option("--unconfirmed", help="Also what no reader has confirmed.")] = False,
    inside: Annotated[
        Path | None, typer.Option("--inside", help="Folder for the tables that stay in the hospital.")
    ] = None,
    persons: Persons = None,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
) -> None:
    """Write the labels of a workspace for training code, or another deliverable of a study."""
    from reportlabel.export.command import read_request, read_sources, run_export
    from reportlabel.export.options import export_options, uncertain_policies

    options = export_options(
        split_salt=split_salt,
        hold_out_sites=tuple(hold_out_sites or ()),
        uncertain=uncertain_policies(uncertain or ()),
        not_mentioned=not_mentioned,
        features=features,
    )
    request = None
    if recipient is not None or purpose is not None or deliverable is not None:
        from reportlabel.deidentify.options import key_source, login, read_persons

        request = read_request(
            recipient=recipient,
            purpose=purpose,
            refusals=refusals,
            deliverable=deliverable,
            profile=profile,
            seal_to=seal_to,
            persons=read_persons(persons),
            actor=actor or login(),
            key=key_source(key_file, key_env, passphrase_env, ask_passphrase=False),
        )
    raise typer.Exit(
        run_export(
            workspace,
            to=to,
            out=out,
            options=options,
            label_sets=label_sets or (),
            as_of=as_of,
            images=images,
            rules=rules,
            request=request,
            sources=read_sources(
                dicom=dicom,
                values=values,
                pictures=pictures,
                photographs=photographs,
                stripped=stripped,
                clearance=clearance,
                regions=regions,
                several=several,
                confirmed_only=not unconfirmed,
                split_salt=split_salt,
                rules=rules,
            ),
            inside=inside,
            console=_console(),
        )
    )


@app.command()
def report(
    workspace: Annotated[Path, typer.Argument(help="The folder of the tables.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("quality.html"),
    as_of: Annotated[int | None, typer.Option("--as-of", help="The labels of this version; default: the last.")] = None,
    rules: RulesFolder = None,
) -> None:
    """Write a page about the quality of a workspace's labels: counts, functions, reviewed exams, what is next."""
    from reportlabel.report.quality import run_report

    raise typer.Exit(run_report(workspace, out, as_of=as_of, rules=rules, console=_console()))


@app.command()
def destroy(
    workspace: Annotated[Path, typer.Argument(help="The workspace of the study.")],
    what: Annotated[
        str,
        typer.Option(
            "--what", help="linkage: the table of codes and the rows as they were read; everything: also the workspace."
        ),
    ],
    custodian: Annotated[str, typer.Option("--custodian", help="The custodian, as the protocol names the office.")],
    purpose: Annotated[str, typer.Option("--purpose", help="Why, for the certificate.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it is only said what would go.")] = False,
    actor: Actor = None,
    key_file: KeyFileOption = None,
    key_env: KeyEnv = None,
    passphrase_env: PassphraseEnv = None,
) -> None:
    """End a study: nothing can be linked to a patient again; a certificate says what was destroyed."""
    from reportlabel.deidentify.options import key_source, login
    from reportlabel.destroy import run_destroy

    raise typer.Exit(
        run_destroy(
            workspace,
            what=what,
            custodian=custodian,
            purpose=purpose,
            actor=actor or login(),
            key=key_source(key_file, key_env, passphrase_env, ask_passphrase=False),
            really=yes,
            console=_console(),
        )
    )


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make; an earlier synthetic hospital there is replaced.")],
    patients: Annotated[int, typer.Option("--patients", help="How many patients.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="parquet, ssmix2, fhir, ris, dpc or dicom; may be repeated; default: all."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes; the result does not depend on it.")] = 2,
) -> None:
    """Make a synthetic hospital: reports, linked records and gold, in the formats of hospitals."""
    from reportlabel.synth.hospital import run_synth

    raise typer.Exit(
        run_synth(out, patients=patients, seed=seed, formats=formats or [], workers=workers, console=_console())
    )


@app.command()
def train(
    workspace: Annotated[
        Path | None, typer.Argument(help="Its reports, labels and readings are learned from too; default: none.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="The model folder to write; its name is the id of the model.")
    ] = Path("model"),
    base: Annotated[Path | None, typer.Option("--base", help="A model folder to go on from.")] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Of train.yaml: small, further or round.")] = None,
    pretrain: Annotated[
        bool, typer.Option("--pretrain", help="First fill in masked words of all reports of the workspace.")
    ] = False,
    work: Annotated[Path | None, typer.Option("--work", help="Folder of what is half done; default: OUT.work.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", help="Another train.yaml.")] = None,
    rules: RulesFolder = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Of torch; default: all cores.")] = None,
    public: Annotated[
        Path | None, typer.Option("--public", help="Entry of a public model: make a model folder of it instead.")
    ] = None,
) -> None:
    """Train a sentence classifier: from the synthetic hospital, or a round more on a workspace."""
    from reportlabel.train.command import run_convert, run_train

    if public is not None:
        raise typer.Exit(run_convert(public, out, console=_console()))

    raise typer.Exit(
        run_train(
            out,
            workspace=workspace,
            base=base,
            recipe=recipe,
            pretrain=pretrain,
            work=work,
            settings=settings,
            rules=rules,
            threads=threads,
            console=_console(),
        )
    )


@app.command()
def bench(
    reports: Annotated[
        Path | None, typer.Option("--reports", help="Reports to vary; default: the built-in ones.")
    ] = None,
    count: Annotated[int, typer.Option("--count", help="Distinct reports to make of them.")] = 20_000,
    label_set: LabelSetName = "lung_ct",
) -> None:
    """Measure the rule path against fugashi alone on one core, and its peak memory."""
    from reportlabel.bench import run_bench

    raise typer.Exit(run_bench(reports, count=count, label_set=label_set, console=_console()))


@rules_app.command("check")
def rules_check(rules: RulesFolder = None) -> None:
    """Find unknown keys, duplicate and shadowed terms, unreachable exclusions, missing examples."""
    from reportlabel.rulebook.command import run_check

    raise typer.Exit(run_check(rules, _console()))


@rules_app.command("test")
def rules_test(
    region: Annotated[str | None, typer.Option("--region", help="Only one region folder.")] = None,
    finding: Annotated[str | None, typer.Option("--finding", help="Only one finding.")] = None,
    rules: RulesFolder = None,
) -> None:
    """Run the examples of the rules."""
    from reportlabel.rulebook.command import run_test

    raise typer.Exit(run_test(rules, region=region, finding=finding, console=_console()))


@rules_app.command("diff")
def rules_diff(
    old: Annotated[Path, typer.Argument(help="The rules folder to compare with.")],
    reports: Reports,
    label_set: LabelSetName,
    rules: RulesFolder = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the changed labels as JSON.")] = None,
) -> None:
    """Show which labels of a report file change, and by which rule."""
    from reportlabel.rulebook.command import run_diff

    raise typer.Exit(run_diff(old, reports, label_set, rules_folder=rules, json_out=out, console=_console()))


def _classifier(bert: bool, model: Path | None) -> Path | None:
    """The folder of the classifier that is asked for."""
    if model is not None or not bert:
        return model
    from reportlabel.vote.bert import default_model

    return default_model()


class _Output(Console):
    """A console that leaves a broken pipe to :func:`main`: the reader of the output (head) may go, that is no error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console() -> Console:
    """Standard output; where it goes to a file or a pipe, wide enough for the tables."""
    return _Output() if sys.stdout.isatty() else _Output(width=max(120, Console().width))


def _errors() -> Console:
    return Console(stderr=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
