"""Labels with evidence from Japanese radiology reports.

    reportlabel.label_reports(["右肺に結節を認めます。"], label_set="lung_ct")    one row a report and label
    nlp = reportlabel.load()                                             the same rules as a spaCy pipeline

Importing this package imports nothing heavy; what a function needs is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from spacy.language import Language

__all__ = ["__version__", "label_reports", "load"]

try:
    __version__ = version("reportlabel")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"


def load(*, rules: Path | None = None, region: str | None = None) -> Language:
    """A spaCy pipeline that finds, in Japanese radiology reports, what the rules know.

    The results are ``doc.spans["findings"]`` with ``span._.status``, ``span._.site`` and the other columns of the
    mentions table; components of your own can stand anywhere in between.

    Args:
        rules: a rules folder (default: the one that came with the package).
        region: region of ``rules/anatomy.yaml`` whose default site holds where a report names none.

    Raises:
        ConfigError: wrong rules or unknown region.
    """
    from reportlabel.annotate import pipeline

    return pipeline.load(rules=rules, region=region)


def label_reports(reports: Sequence[str] | pl.DataFrame, *, label_set: str, rules: Path | None = None) -> pl.DataFrame:
    """Label reports that are in memory; for files use ``reportlabel label``.

    Args:
        reports: texts (their ids count from 0), or a table with columns ``report_id`` and ``text``.
        label_set: id of a file in ``rules/label_sets``.
        rules: a rules folder (default: the one that came with the package).

    Returns:
        The labels table: one row a report and label, also for ``not_mentioned``.

    Raises:
        ConfigError: unknown label set or wrong rules.
        InputError: a column is missing, an id is there twice, or a text or an id is null.
    """
    from reportlabel.annotate.annotator import Annotator
    from reportlabel.flow import label_batch
    from reportlabel.rulebook.load import find_label_set, load_rules

    rulebook = load_rules(rules)
    chosen = find_label_set(rulebook, label_set)
    return label_batch(_table(reports), Annotator(rulebook), chosen).labels


def _table(reports: Sequence[str] | pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    from reportlabel.errors import InputError

    if isinstance(reports, str):
        raise InputError("give a list of texts, not one text")
    if not isinstance(reports, pl.DataFrame):
        ids = [str(number) for number in range(len(reports))]
        return pl.DataFrame(
            {"report_id": ids, "text": list(reports)}, schema={"report_id": pl.String, "text": pl.String}
        )
    for column in ("report_id", "text"):
        if column not in reports.columns:
            raise InputError(f"the table of reports lacks column '{column}'")
        if reports[column].null_count():
            raise InputError(f"column '{column}' of the reports holds nulls")
    if reports["report_id"].n_unique() < reports.height:
        raise InputError("column 'report_id' of the reports holds an id twice")
    return reports.select(pl.col("report_id", "text").cast(pl.String))
