"""The order of the stages, and nothing else.

    reports -> annotate -> vote -> aggregate -> labels

Each stage is a plain function from tables to tables and can be run alone. A batch of reports goes through all of them
before the next is read, so that memory does not grow with the archive.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from reportlabel.aggregate.precedence import label_reports
from reportlabel.annotate.annotator import Annotator
from reportlabel.rulebook.models import LabelSet


@dataclass(frozen=True)
class Labelled:
    """What the flow makes of a batch of reports: one mentions and one labels table."""

    mentions: pl.DataFrame
    labels: pl.DataFrame


def label_batch(reports: pl.DataFrame, annotator: Annotator, label_set: LabelSet) -> Labelled:
    """Label a batch of reports.

    Args:
        reports: columns ``report_id`` and ``text``.

    Returns:
        Mentions of all findings of the rules, and one label a report and label-set entry.
    """
    mentions = annotator.annotate(reports, region=label_set.region)
    labels = label_reports(reports["report_id"], mentions, label_set, annotator.rules)
    return Labelled(mentions=mentions, labels=labels)
