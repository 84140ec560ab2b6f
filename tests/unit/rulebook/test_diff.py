"""`diff_rules`: which labels of a report file change, and by which rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from reportlabel.errors import ConfigError
from reportlabel.rulebook.diff import CHANGES, diff_batches, diff_rules
from reportlabel.rulebook.load import Rulebook, load_rules

if TYPE_CHECKING:
    from conftest import Rules

REPORTS = pl.DataFrame(
    {
        "report_id": ["r1", "r2", "r3"],
        "text": ["腹水を認めます。", "アサイテスを認めます。", "アサイテスなし。肝嚢胞あり。"],
    }
)


@pytest.fixture
def old(rules: Rules) -> Rulebook:
    return load_rules(rules.folder)


def with_new_term(rules: Rules) -> Rulebook:
    rules.finding("abdomen/ascites", terms=["腹水", "アサイテス"])
    return load_rules(rules.folder)


def test_equal_rules_change_nothing(old: Rulebook) -> None:
    diff = diff_rules(old, old, REPORTS, label_set="small")
    assert diff.changes.is_empty()
    assert diff.changes.schema == CHANGES
    assert (diff.reports, diff.changed_reports) == (3, 0)


def test_a_new_term(rules: Rules, old: Rulebook) -> None:
    diff = diff_rules(old, with_new_term(rules), REPORTS, label_set="small")
    assert diff.changes.select("row", "report_id", "finding", "old_value", "new_value", "rules").rows() == [
        (2, "r2", "ascites", "not_mentioned", "present", ["ascites/アサイテス"]),
        (3, "r3", "ascites", "not_mentioned", "absent", ["ascites/アサイテス"]),
    ]
    assert diff.by_rule().rows() == [("ascites/アサイテス", 2)]
    assert diff.by_finding().rows() == [
        ("ascites", "not_mentioned", "absent", 1),
        ("ascites", "not_mentioned", "present", 1),
    ]
    assert (diff.reports, diff.changed_reports) == (3, 2)


def test_a_removed_term_is_named_by_its_old_rule(rules: Rules, old: Rulebook) -> None:
    diff = diff_rules(with_new_term(rules), old, REPORTS, label_set="small")
    assert diff.changes["old_rules"].to_list() == [["ascites/アサイテス"]] * 2
    assert diff.changes["new_rules"].to_list() == [[], []]
    assert diff.by_rule().rows() == [("ascites/アサイテス", 2)]


def test_a_changed_cue_leaves_the_words_as_they_were(rules: Rules, old: Rulebook) -> None:
    rules.edit("assertion", lambda data: data["phrases"].append({"effect": "deny", "terms": ["を認めます"]}))
    [change] = diff_rules(old, load_rules(rules.folder), REPORTS[:1], label_set="small").changes.to_dicts()
    assert (change["old_value"], change["new_value"]) == ("present", "absent")
    assert change["old_rules"] == change["new_rules"] == change["rules"] == ["ascites/腹水"]
    assert change["old_cues"] != change["new_cues"] == ["を認めます"]


def test_labels_that_only_one_label_set_has(rules: Rules, old: Rulebook) -> None:
    rules.edit("label_sets/small", lambda data: data["findings"].pop())
    diff = diff_rules(old, load_rules(rules.folder), REPORTS[:1], label_set="small")
    assert diff.changes.select("finding", "old_value", "new_value").rows() == [("ascites", "present", None)]


def test_values_are_compared_too(rules: Rules, old: Rulebook) -> None:
    rules.finding("abdomen/liver_cyst", terms=["肝囊胞様病変"])
    diff = diff_rules(old, load_rules(rules.folder), REPORTS[2:], label_set="small")
    assert ("n", "1", "not_mentioned") in diff.changes.select("finding", "old_value", "new_value").rows()


def test_batches_are_counted_through(rules: Rules, old: Rulebook) -> None:
    new = with_new_term(rules)
    whole = diff_rules(old, new, REPORTS, label_set="small")
    by_one = diff_batches(old, new, (REPORTS[at : at + 1] for at in range(3)), label_set="small")
    assert by_one.changes.equals(whole.changes)
    assert by_one.reports == 3


def test_an_unknown_label_set(old: Rulebook) -> None:
    with pytest.raises(ConfigError, match="smal"):
        diff_rules(old, old, REPORTS, label_set="smal")


def test_report_ids_may_be_numbers(rules: Rules, old: Rulebook) -> None:
    reports = REPORTS.with_columns(pl.Series("report_id", [11, 12, 13]))
    changes = diff_rules(old, with_new_term(rules), reports, label_set="small").changes
    assert changes["report_id"].to_list() == ["12", "13"]


def test_the_old_folder_is_not_touched(rules: Rules, tmp_path: Path) -> None:
    files = {path: path.read_bytes() for path in rules.folder.rglob("*.yaml")}
    diff_rules(load_rules(rules.folder), load_rules(rules.folder), REPORTS, label_set="small")
    assert {path: path.read_bytes() for path in rules.folder.rglob("*") if path.is_file()} == files
