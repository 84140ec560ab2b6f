"""What statuses, sites and attributes are called where a person reads them: Japanese first, English beside it."""

from __future__ import annotations

from typing import NamedTuple

from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet

STATUSES = ("present", "uncertain", "absent", "not_mentioned")
"""In the order in which they are shown everywhere."""


class Called(NamedTuple):
    """A Japanese and an English name."""

    ja: str
    en: str


STATUS_NAMES = {
    "present": Called("あり", "present"),
    "uncertain": Called("疑い", "uncertain"),
    "absent": Called("なし", "absent"),
    "not_mentioned": Called("記載なし", "not mentioned"),
}
MARKS = {"present": "+", "uncertain": "?", "absent": "-", "not_mentioned": " "}
"""Shown beside the colours, for those who do not see them. ASCII: circles are one cell wide here, two there."""

TEMPORALITY_NAMES = {
    "current": Called("今回", "this exam"),
    "past": Called("過去のみ", "past"),
    "hypothetical": Called("目的・仮定", "hypothetical"),
}
_SIDES = {"right": Called("右", "right"), "left": Called("左", "left"), "bilateral": Called("両側", "bilateral")}
_LOBES = {
    "upper": Called("上葉", "upper lobe"),
    "middle": Called("中葉", "middle lobe"),
    "lower": Called("下葉", "lower lobe"),
    "lingula": Called("舌区", "lingula"),
    "hilum": Called("肺門", "hilum"),
}
_CHANGES = {
    "new": Called("新出", "new"),
    "increased": Called("増大・増加", "increased"),
    "decreased": Called("縮小・減少", "decreased"),
    "unchanged": Called("不変", "unchanged"),
    "resolved": Called("消失", "resolved"),
}


def finding_name(finding: str, rules: Rulebook) -> Called:
    """The display name of a finding of the rules; its id where the rules no longer have it."""
    known = rules.findings.get(finding)
    return Called(known.name.ja, known.name.en) if known else Called(finding, finding)


def label_names(label_set: LabelSet) -> dict[str, Called]:
    """The display names of the labels of a label set, in its order."""
    findings = {entry.id: Called(entry.name.ja, entry.name.en) for entry in label_set.findings}
    values = {entry.id: Called(entry.name.ja, entry.name.en) for entry in label_set.values}
    return findings | values


def site_names(rules: Rulebook) -> dict[str, Called]:
    """Site id -> display name."""
    return {
        site.id: Called(site.name.ja, site.name.en) if site.name else Called(site.id, site.id)
        for site in rules.anatomy.sites
    }


def side_name(side: str) -> Called:
    """Right, left or both sides."""
    return _SIDES.get(side, Called(side, side))


def lobe_name(lobe: str) -> Called:
    """A lobe of the lung."""
    return _LOBES.get(lobe, Called(lobe, lobe))


def change_name(change: str) -> Called:
    """A change since the exam before."""
    return _CHANGES.get(change, Called(change, change))


def count_name(count: str) -> str:
    """A number of lesions."""
    return "多発" if count == "many" else count


def value_name(value: str) -> str:
    """A label that is no status: a side, a lobe, a number."""
    name = _SIDES.get(value) or _LOBES.get(value)
    return f"{name.ja} {name.en}" if name else count_name(value)
