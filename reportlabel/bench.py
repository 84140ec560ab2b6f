"""`reportlabel bench`: the rule path against MeCab alone, over the same reports in the same process.

The machine's speed drifts, so both are timed in turn, batch by batch, in CPU seconds of one core; the ratio is what
counts. MeCab alone is ``fugashi.Tagger.parseToNodeList`` with unidic-lite, the floor of every pipeline that tokenises.
"""

from __future__ import annotations

import gc
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fugashi
import polars as pl
from rich.console import Console
from rich.table import Table

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, ExitCode
from reportlabel.flow import label_batch
from reportlabel.ingest.report_table import read_reports
from reportlabel.label import BATCH_ROWS
from reportlabel.rulebook.load import find_label_set, load_rules

BATCH = BATCH_ROWS
_PATIENTS = 300


@dataclass(frozen=True)
class Speed:
    """CPU seconds over all reports, and what was done in them."""

    reports: int
    characters: int
    mecab_s: float
    rules_s: float
    distinct_sentences: int
    mentions: int
    peak_rss_mib: float

    @property
    def ratio(self) -> float:
        """Speed of the rule path in units of the speed of MeCab alone."""
        return self.mecab_s / self.rules_s


def measure(texts: list[str], *, count: int, label_set: str, seed: int = 0) -> Speed:
    """Time MeCab alone and the rule path (annotate, vote, aggregate) over ``count`` variations of ``texts``."""
    rules = load_rules()
    chosen = find_label_set(rules, label_set)
    annotator = Annotator(rules)
    tagger = fugashi.Tagger()
    # what was loaded lives as long as the process: keep the garbage collector from walking it again and again
    gc.collect()
    gc.freeze()
    mecab_s = rules_s = 0.0
    characters = mentions = 0
    for number, batch in enumerate(_batches(distinct(texts, count=count, seed=seed))):
        reports = pl.DataFrame({"report_id": [f"{number}-{row}" for row in range(len(batch))], "text": batch})
        characters += sum(map(len, batch))
        mecab_s += _seconds(lambda batch=batch: _tokenise(tagger, batch))  # type: ignore[misc]
        started = time.process_time()
        labelled = label_batch(reports, annotator, chosen)
        rules_s += time.process_time() - started
        mentions += labelled.mentions.height
    return Speed(
        reports=count,
        characters=characters,
        mecab_s=mecab_s,
        rules_s=rules_s,
        distinct_sentences=annotator.known_sentences,
        mentions=mentions,
        peak_rss_mib=peak_rss_mib(),
    )


def distinct(texts: list[str], *, count: int, seed: int) -> Iterator[str]:
    """``count`` reports, no two equal: the texts in turn with every digit drawn anew, else with a serial number."""
    draw = random.Random(seed)  # noqa: S311 - a repeatable benchmark, no secret
    seen: set[int] = set()
    for number in range(count):
        text = texts[number % len(texts)]
        varied = re.sub("[0-9]", lambda _: str(draw.randrange(10)), text)
        if hash(varied) in seen:
            varied = f"{varied}\n{number}"
        seen.add(hash(varied))
        yield varied


def peak_rss_mib() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def run_bench(reports: Path | None, *, count: int, label_set: str, console: Console) -> int:
    """Measure and print; the reports default to the built-in synthetic ones."""
    if count < 1:
        raise ConfigError(f"--count {count}: give 1 or more")
    speed = measure(_texts(reports), count=count, label_set=label_set)
    table = Table(
        title=f"{speed.reports:,} distinct reports, {speed.characters:,} characters, one core", title_justify="left"
    )
    for column in ("", "CPU s", "reports/s", "characters/s"):
        table.add_column(column, justify="left" if not column else "right")
    for name, seconds in (("MeCab alone", speed.mecab_s), ("rules to labels", speed.rules_s)):
        table.add_row(name, f"{seconds:.2f}", f"{speed.reports / seconds:,.0f}", f"{speed.characters / seconds:,.0f}")
    console.print(table)
    console.print(f"speed of the rule path in units of MeCab alone: [bold]{speed.ratio:.2f}[/]", highlight=False)
    console.print(
        f"{speed.mentions:,} mentions; {speed.distinct_sentences:,} sentences analysed once; "
        f"peak RSS {speed.peak_rss_mib:,.0f} MiB",
        highlight=False,
    )
    return int(ExitCode.DONE)


def _texts(reports: Path | None) -> list[str]:
    if reports is None:
        from reportlabel.synth.reports import synthetic_reports

        return synthetic_reports(patients=_PATIENTS)["text"].to_list()
    return [text for batch in read_reports(reports) for text in batch.reports["text"]]


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _tokenise(tagger: fugashi.Tagger, texts: list[str]) -> None:
    for text in texts:
        for _ in tagger.parseToNodeList(text):
            pass
