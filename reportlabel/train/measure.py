"""How good and how fast a model folder is: ``python -m reportlabel.train.measure WHAT MODEL …``.

reports    on reports with gold labels: rules, model, both
phrases    on a synthetic hospital, sentence by sentence: expressions that are terms of the rules, and others
sentences  on a CSV of sentences that each say one thing (label_set, label, status, text)
speed      sentences a second on one core: the int8 graph against torch in full precision, batch by batch in turn
label      `label_batch` with the model on distinct synthetic reports: reports a second, memory
round      a style that was never seen: before and after one training on readings of it
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.annotate.annotator import Annotator
from reportlabel.bench import BATCH, peak_rss_mib
from reportlabel.errors import ConfigError, ReportLabelError
from reportlabel.flow import label_batch
from reportlabel.schema import READINGS
from reportlabel.synth.bank import load_bank
from reportlabel.synth.simulate import simulate
from reportlabel.train.archive import WorkspaceTables, archive_examples
from reportlabel.train.run import Base, train_model
from reportlabel.train.score import (
    label_figures,
    label_table,
    read_three_ways,
    score_phrases,
    score_sentences,
)
from reportlabel.train.settings import load_train_settings, with_recipe
from reportlabel.vote.bert import BertExtractor, padded, report_sentences

_SPEED_SENTENCES = 4000
_SPEED_BATCH = 32


def main() -> int:
    """Entry point; returns an exit code."""
    parser = argparse.ArgumentParser(prog="python -m reportlabel.train.measure", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["reports", "phrases", "sentences", "speed", "label", "round"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--reports", type=Path, help="reports: CSV with report_id, text")
    parser.add_argument("--gold", type=Path, help="reports: CSV with report_id, finding, status")
    parser.add_argument("--label-set", default="lung_ct", help="reports, label")
    parser.add_argument("--sentences", type=Path, help="sentences: the CSV")
    parser.add_argument("--patients", type=int, default=400, help="phrases, speed: of the synthetic hospital")
    parser.add_argument("--seed", type=int, default=991, help="of the synthetic hospital; not that of the training")
    parser.add_argument("--count", type=int, default=20_000, help="label: reports")
    parser.add_argument("--readings", type=int, default=300, help="round: reports that the reader reads")
    given = parser.parse_args()
    console = Console(width=140)
    try:
        _WHAT[given.what](given, console)
    except ReportLabelError as error:
        Console(stderr=True).print(f"error: {error}", highlight=False)
        return int(error.exit_code)
    return 0


def _show(title: str, rows: pl.DataFrame, console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for name, kind in rows.schema.items():
        table.add_column(name, justify="right" if kind.is_numeric() else "left")
    for row in rows.iter_rows():
        table.add_row(*(f"{one:.3f}" if isinstance(one, float) else str(one) for one in row))
    console.print(table)


def _reports(given: argparse.Namespace, console: Console) -> None:
    if given.reports is None or given.gold is None:
        raise ConfigError("give --reports and --gold")
    annotator, extractor = Annotator(), BertExtractor.load(given.model)
    label_set = annotator.rules.label_sets[given.label_set]
    reports = pl.read_csv(given.reports).select("report_id", "text")
    gold = pl.read_csv(given.gold).select("report_id", "finding", value="status")
    read = read_three_ways(
        reports, region=label_set.region, label_set=label_set, annotator=annotator, extractor=extractor
    )
    figures = label_figures(label_table(reports, read, label_set, annotator.rules), gold)
    _show(f"{reports.height} reports, {gold.height} labels", figures, console)


def _phrases(given: argparse.Namespace, console: Console) -> None:
    score = score_phrases(BertExtractor.load(given.model), Annotator(), patients=given.patients, seed=given.seed)
    _show("recall of the expressions of the gold", score.recall, console)
    _show("precision of statements (sentence, label, status)", score.precision, console)


def _sentences(given: argparse.Namespace, console: Console) -> None:
    if given.sentences is None:
        raise ConfigError("give --sentences")
    score = score_sentences(
        pl.read_csv(given.sentences), annotator=Annotator(), extractor=BertExtractor.load(given.model)
    )
    _show(given.sentences.name, score, console)


# --- speed ------------------------------------------------------------------------------------------------------------


def _speed(given: argparse.Namespace, console: Console) -> None:
    import torch

    from reportlabel.train.model import FindingModel

    torch.set_num_threads(1)
    base, extractor = Base.load(given.model), BertExtractor.load(given.model, threads=1)
    sizes = {**base.card.network.model_dump(), **base.card.model_dump(include={"context_tokens", "max_tokens"})}
    settings = load_train_settings().model.model_copy(update=sizes)
    network = FindingModel(
        settings, pieces=extractor.reader.tokenizer.get_vocab_size(), findings=len(base.card.findings)
    )
    network.load_state_dict(base.weights())
    network.eval()
    bank = load_bank()
    texts = [
        report.text
        for number in range(1, given.patients + 1)
        for report in simulate(bank, seed=given.seed, number=number).reports
    ]
    reports = pl.DataFrame({"report_id": [str(at) for at in range(len(texts))], "text": texts})
    table = report_sentences(reports, Annotator()).select("before", "text").unique(maintain_order=True)
    table = table.head(_SPEED_SENTENCES)
    rows = sorted(
        extractor.reader(table["before"].to_list(), table["text"].to_list(), region="chest"),
        key=lambda one: len(one[1]),
    )
    seconds = {"torch fp32": 0.0, "int8 graph": 0.0}
    for first in range(0, len(rows), _SPEED_BATCH):
        inputs = padded(rows[first : first + _SPEED_BATCH])
        started = time.process_time()
        with torch.inference_mode():
            network.scores(**{name: torch.from_numpy(values) for name, values in inputs.items()})
        seconds["torch fp32"] += time.process_time() - started
        started = time.process_time()
        extractor.session.run(None, inputs)
        seconds["int8 graph"] += time.process_time() - started
    shown = pl.DataFrame(
        [(name, len(rows) / spent, seconds["torch fp32"] / spent) for name, spent in seconds.items()],
        schema=["by", "sentences a CPU second", "times torch"],
        orient="row",
    )
    _show(f"{len(rows):,} distinct sentences, one thread, batches of {_SPEED_BATCH}", shown, console)


def _label(given: argparse.Namespace, console: Console) -> None:
    annotator, extractor = Annotator(), BertExtractor.load(given.model)
    label_set = annotator.rules.label_sets[given.label_set]
    bank = load_bank()
    found: dict[str, None] = {}
    number = 0
    while len(found) < given.count:
        number += 1
        found |= dict.fromkeys(one.text for one in simulate(bank, seed=given.seed, number=number).reports)
    every = list(found)[: given.count]
    gc.collect()
    gc.freeze()
    spent = {"rules alone": 0.0, "rules and model": 0.0}
    sentences = 0
    for first in range(0, len(every), BATCH):
        batch = every[first : first + BATCH]
        reports = pl.DataFrame({"report_id": [str(first + at) for at in range(len(batch))], "text": batch})
        started = time.process_time()
        label_batch(reports, annotator, label_set)
        middle = time.process_time()
        label_batch(reports, annotator, label_set, extractor=extractor)
        spent["rules alone"] += middle - started
        spent["rules and model"] += time.process_time() - middle
        sentences += report_sentences(reports, annotator).height
    rows = pl.DataFrame(
        [(name, round(len(every) / one), one) for name, one in spent.items()],
        schema=["by", "reports a CPU second", "CPU seconds"],
        orient="row",
    )
    _show(f"{len(every):,} distinct reports of {number:,} synthetic patients, one core", rows, console)
    saved = 1 - extractor.n_read / sentences
    console.print(
        f"{sentences:,} sentences, {extractor.n_read:,} of them distinct and read ({saved:.1%} saved); "
        f"peak RSS {peak_rss_mib():,.0f} MiB",
        highlight=False,
    )


# --- a round of readings ----------------------------------------------------------------------------------------------


def style_reports(
    readers: list[str], *, reports: int, seed: int, others: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Reports written by some readers of a synthetic hospital, with their gold.

    Args:
        reports: how many.
        others: of all readers but these.

    Returns:
        report_id, exam_id, patient_id, label_set, text; gold labels (report_id, label_set, finding, value); gold
        mentions (report_id, start, end, finding, status).
    """
    bank = load_bank()
    rows: list[tuple[str, str, str, str, str]] = []
    gold: list[tuple[str, str, str, str]] = []
    marks: list[tuple[str, int, int, str, str]] = []
    number = 0
    while len(rows) < reports:
        number += 1
        file = simulate(bank, seed=seed, number=number)
        kinds = {exam.exam_id: bank.exams[exam.kind].kind for exam in file.exams}
        wanted: set[str] = set()
        for one in {each.report_id: each for each in file.reports}.values():
            sets = kinds[one.exam_id].label_sets
            if sets and (one.reader in readers) is not others:
                patient = f"{seed}-{number}"
                rows.append((one.report_id, one.exam_id, patient, sets[0], one.text))
                wanted.add(one.report_id)
        gold += [
            (one.report_id, one.label_set, one.finding, one.value)
            for one in file.gold_labels
            if one.report_id in wanted and one.report_id is not None
        ]
        marks += [
            (one.report_id, one.start, one.end, one.finding, one.status)
            for one in file.gold_mentions
            if one.report_id in wanted
        ]
    return (
        pl.DataFrame(rows, schema=["report_id", "exam_id", "patient_id", "label_set", "text"], orient="row"),
        pl.DataFrame(gold, schema=["report_id", "label_set", "finding", "value"], orient="row"),
        pl.DataFrame(marks, schema=["report_id", "start", "end", "finding", "status"], orient="row"),
    )


def style_figures(
    reports: pl.DataFrame, gold: pl.DataFrame, *, annotator: Annotator, extractor: BertExtractor
) -> pl.DataFrame:
    """`label_figures` over the reports of several label sets."""
    labels, known = [], []
    for (name,), own in reports.group_by("label_set", maintain_order=True):
        label_set = annotator.rules.label_sets[str(name)]
        texts = own.select("report_id", "text")
        read = read_three_ways(
            texts, region=label_set.region, label_set=label_set, annotator=annotator, extractor=extractor
        )
        table = label_table(texts, read, label_set, annotator.rules)
        labels.append(table.with_columns(finding=pl.format("{}/{}", pl.lit(name), "finding")))
        statuses = [entry.id for entry in label_set.findings if not entry.none_of_others]
        mine = gold.filter((pl.col("label_set") == name) & pl.col("finding").is_in(statuses))
        mine = mine.join(texts, on="report_id", how="semi")
        known.append(mine.select("report_id", pl.format("{}/{}", pl.lit(name), "finding").alias("finding"), "value"))
    return label_figures(pl.concat(labels), pl.concat(known))


def simulated_readings(
    reports: pl.DataFrame, gold: pl.DataFrame, marks: pl.DataFrame, label_sets: Mapping[str, object]
) -> WorkspaceTables:
    """A workspace in which a reader without fault has read every report and marked what he found.

    A span is marked for every label that the finding of a mention may stand for, if its status is the value of the
    label: a reader marks the words that his answer rests on. Labels have no probability of their own.
    """
    bank = load_bank()
    names: dict[tuple[str, str], set[str]] = {}
    for exam in bank.exams.values():
        for finding, entry in exam.kind.gold.items():
            for label_set in label_sets:
                for label in entry.get(label_set, ()):
                    names.setdefault((label_set, label), set()).add(finding)
    spans: dict[tuple[str, str, str], list[dict[str, int]]] = {}
    for report_id, start, end, finding, status in marks.iter_rows():
        spans.setdefault((report_id, finding, status), []).append({"start": start, "end": end})
    exam_of = dict(reports.select("report_id", "exam_id").iter_rows())
    set_of = dict(reports.select("report_id", "label_set").iter_rows())
    rows = []
    for report_id, label_set, finding, value in gold.iter_rows():
        if report_id not in exam_of or set_of[report_id] != label_set:
            continue
        marked = [
            span
            for name in sorted(names.get((label_set, finding), {finding}))
            for span in spans.get((report_id, name, value), [])
        ]
        rows.append((exam_of[report_id], label_set, finding, value, marked))
    schema = pl.Schema([(name, READINGS[name]) for name in ("exam_id", "label_set", "finding", "value", "spans")])
    readings = pl.DataFrame(rows, schema=schema, orient="row")
    labels = readings.select("exam_id", "label_set", "finding", p_present=pl.lit(None, dtype=pl.Float64))
    return WorkspaceTables(reports.select("report_id", "exam_id", "patient_id", "text"), labels, readings)


def _round(given: argparse.Namespace, console: Console) -> None:
    settings = with_recipe(load_train_settings(), "round")
    readers = settings.data.held_out_readers
    annotator, before = Annotator(), BertExtractor.load(given.model)
    reports, gold, marks = style_reports(readers, reports=2 * given.readings, seed=given.seed)
    # whole patients until there are enough, so that nobody is read and judged
    of_patient = reports.group_by("patient_id", maintain_order=True).len()
    begun = of_patient.filter(pl.col("len").cum_sum().shift(1, fill_value=0) < given.readings)
    read_by = reports.join(begun, on="patient_id", how="semi", maintain_order="left").head(given.readings)
    unread = reports.join(read_by.select("patient_id"), on="patient_id", how="anti")
    others, others_gold, _ = style_reports(readers, reports=given.readings, seed=given.seed + 1, others=True)
    tables = simulated_readings(read_by, gold, marks, annotator.rules.label_sets)
    archive = archive_examples(
        tables,
        label_sets=annotator.rules.label_sets,
        annotator=annotator,
        settings=settings.archive,
        extractor=before,
    )
    console.print(
        f"{read_by.height} reports read ({tables.readings.height:,} labels); "
        f"{archive.height:,} sentences, {(archive['source'] == 'reading').sum():,} settled by the reader",
        highlight=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        done = train_model(
            Path(folder) / before.card.id,
            settings=settings,
            work=Path(folder) / "work",
            annotator=annotator,
            archive=archive,
            base=Base.load(given.model),
            threads=1,
        )
        after = BertExtractor.load(done.folder)
    for name, table, known in (
        ("the style, reports nobody read", unread, gold),
        ("other styles", others, others_gold),
    ):
        figures = [
            style_figures(table, known, annotator=annotator, extractor=one).select(
                pl.lit(when).alias("model"),
                "by",
                "accuracy",
                "macro_f1_present",
                "present_f1",
                "uncertain_f1",
                "absent_f1",
            )
            for when, one in (("before", before), ("after", after))
        ]
        _show(f"{name}: {table.height} reports", pl.concat(figures), console)


_WHAT = {
    "reports": _reports,
    "phrases": _phrases,
    "sentences": _sentences,
    "speed": _speed,
    "label": _label,
    "round": _round,
}

if __name__ == "__main__":
    sys.exit(main())
