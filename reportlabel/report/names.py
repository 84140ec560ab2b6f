"""What findings, labels, sites and values are called where a person reads them: Japanese first, English beside it."""

from __future__ import annotations

from reportlabel.rulebook.display import DisplayWords, named
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet, Name

STATUSES = ("present", "uncertain", "absent", "not_mentioned")
"""In the order in which they are shown everywhere."""
MARKS = {"present": "+", "uncertain": "?", "absent": "-", "not_mentioned": " "}
"""Shown beside the colours, for those who do not see them. ASCII: circles are one cell wide here, two there."""


def finding_name(finding: str, rules: Rulebook) -> Name:
    """The display name of a finding of the rules; its id where the rules no longer have it."""
    known = rules.findings.get(finding)
    return known.name if known else Name(ja=finding, en=finding)


def label_names(label_set: LabelSet) -> dict[str, Name]:
    """The display names of the labels of a label set, in its order."""
    findings = {entry.id: entry.name for entry in label_set.findings}
    values = {entry.id: entry.name for entry in label_set.values}
    return findings | values


def site_names(rules: Rulebook) -> dict[str, Name]:
    """Site id -> display name."""
    return {site.id: site.name or Name(ja=site.id, en=site.id) for site in rules.anatomy.sites}


def count_name(count: str, words: DisplayWords) -> str:
    """A number of lesions."""
    return words.counts.get(count, count)


def value_name(value: str, words: DisplayWords) -> str:
    """A label that is no status: a side, a lobe, a number."""
    for known in (words.sides, words.lobes):
        if value in known:
            name = named(known, value)
            return f"{name.ja} {name.en}"
    return count_name(value, words)
