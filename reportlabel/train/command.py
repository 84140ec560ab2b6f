"""`reportlabel train`: a sentence classifier from the synthetic hospital, or one that goes on from a workspace."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, ExitCode
from reportlabel.rulebook.load import load_rules
from reportlabel.run import open_workspace
from reportlabel.train.archive import archive_examples, workspace_tables
from reportlabel.train.run import Base, TrainRun, torch_threads, train_model
from reportlabel.train.settings import load_train_settings, with_recipe
from reportlabel.vote.bert import BertExtractor, report_sentences

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def run_train(
    out: Path,
    *,
    workspace: Path | None = None,
    base: Path | None = None,
    recipe: str | None = None,
    pretrain: bool = False,
    work: Path | None = None,
    settings: Path | None = None,
    rules: Path | None = None,
    threads: int | None = None,
    console: Console,
) -> int:
    """Train, write the model folder and print its figures; returns the exit code DONE.

    Args:
        out: the model folder; its name is the id of the model.
        workspace: its reports, labels and readings are learned from beside the synthetic hospital.
        base: a model folder to go on from; it also says which sentences of the workspace are safe to learn from.
        recipe: of ``train.yaml``; by default ``round`` where there is a base, else the full numbers.
        pretrain: the encoder first fills in masked words of all reports of the workspace.
        work: folder of what is half done, by default ``OUT.work``; a second call goes on from there.
        settings: another ``train.yaml``.

    Raises:
        ConfigError: wrong settings or folders, or the extra ``train`` is not installed.
        InputError: the workspace cannot be read.
    """
    if not _NAME.fullmatch(out.name):
        raise ConfigError(
            f"--out {out}: the name of the folder is the id of the model; take small letters, digits and _"
        )
    if pretrain and workspace is None:
        raise ConfigError("--pretrain needs the reports of a workspace; name one")
    torch_threads(threads)
    chosen = load_train_settings(settings)
    name = recipe or ("round" if base is not None else None)
    chosen = chosen if name is None else with_recipe(chosen, name)
    annotator = Annotator(load_rules(rules))
    gc.collect()
    gc.freeze()
    start = None if base is None else Base.load(base)
    archive, sentences, readings_share = None, [], None
    if workspace is not None:
        tables = workspace_tables(open_workspace(workspace), readings_share=chosen.archive.readings_share)
        readings_share = tables.readings_share
        archive = archive_examples(
            tables,
            label_sets=annotator.rules.label_sets,
            annotator=annotator,
            settings=chosen.archive,
            extractor=None if base is None else BertExtractor.load(base),
        )
        if archive.is_empty():
            raise ConfigError(f"{workspace} has no labelled reports; run `reportlabel run` first")
        if pretrain:
            texts = report_sentences(tables.reports.select("report_id", "text"), annotator)["text"]
            sentences = texts.unique(maintain_order=True).head(chosen.pretrain.most).to_list()
    done = train_model(
        out,
        settings=chosen,
        work=work or out.with_name(f"{out.name}.work"),
        annotator=annotator,
        archive=archive,
        base=start,
        sentences=sentences,
        readings_share=readings_share,
        made_with=_command(out, workspace, base, recipe, pretrain=pretrain),
    )
    show_training(done, archive, console)
    return int(ExitCode.DONE)


def _command(out: Path, workspace: Path | None, base: Path | None, recipe: str | None, *, pretrain: bool) -> str:
    """The command line for the card: names of folders, no paths of this machine."""
    words = ["reportlabel train"]
    words += ["WORKSPACE"] if workspace is not None else []
    words += [f"--base {base.name}"] if base is not None else []
    words += [f"--recipe {recipe}"] if recipe is not None else []
    words += ["--pretrain"] if pretrain else []
    return " ".join([*words, f"--out models/{out.name}"])


def show_training(done: TrainRun, archive: pl.DataFrame | None, console: Console) -> None:
    """Print the figures of a training."""
    table = Table(title=f"{done.folder}: statements by finding and status", title_justify="left")
    for column in ("split", "sentences", "F1", "present", "uncertain", "absent", "calibration error"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, one in done.overall.items():
        table.add_row(
            split,
            f"{one['sentences']:,.0f}",
            *(f"{one[name]:.3f}" for name in ("f1", "f1_present", "f1_uncertain", "f1_absent", "ece")),
        )
    console.print(table)
    same = done.agreement
    console.print(
        f"{len(done.card.findings)} findings; the int8 graph decides as the network on {same.decisions_equal:.4%} of "
        f"the decisions of {same.sentences:,} sentences",
        highlight=False,
    )
    if archive is not None:
        counts = dict(archive.group_by("source").len().iter_rows())
        weak, settled = counts.get("archive", 0), counts.get("reading", 0)
        console.print(f"{weak:,} sentences of the workspace, {settled:,} that readers settled", highlight=False)


def run_convert(entry: Path, out: Path, *, console: Console) -> int:
    """Turn a public model into a model folder; returns the exit code DONE. See `reportlabel.train.public`."""
    torch_threads(None)
    from reportlabel.train.public import convert_public

    card = convert_public(entry, out)
    console.print(f"{out}: {card.id} from {card.source} at {card.revision}, {len(card.labels)} labels", highlight=False)
    return int(ExitCode.DONE)
