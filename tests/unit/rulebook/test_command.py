"""`rules check`, `rules test`, `rules diff`: what is printed, what is written, and the exit codes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from rich.console import Console

from reportlabel.errors import ConfigError, InputError
from reportlabel.rulebook.command import run_check, run_diff, run_test
from reportlabel.rulebook.diff import CHANGES

if TYPE_CHECKING:
    from conftest import Rules


class Page:
    """A console and what was printed on it."""

    def __init__(self) -> None:
        self.out = io.StringIO()
        self.console = Console(file=self.out, width=100)

    @property
    def text(self) -> str:
        return self.out.getvalue()


@pytest.fixture
def page() -> Page:
    return Page()


@pytest.fixture
def tested(rules: Rules) -> Rules:
    """Rules whose examples are true."""
    for place, word in (("general/cyst", "嚢胞"), ("abdomen/liver_cyst", "肝嚢胞"), ("abdomen/ascites", "腹水")):
        examples = [
            {"text": f"{word}を認めます。", "status": "present"},
            {"text": f"{word}を認めません。", "status": "absent"},
        ]
        rules.edit(f"findings/{place}", lambda data, examples=examples: data.update(examples=examples * 4))
    return rules


def test_check_of_clean_rules(rules: Rules, page: Page) -> None:
    assert run_check(rules.folder, page.console) == 0
    assert page.text == "3 findings, 1 label sets: no problems\n"


def test_check_prints_file_line_and_code(rules: Rules, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rules.folder.parent)
    rules.finding("abdomen/other", terms=["石灰", "腹水"], exclude=["[red]" + "花崗岩" * 60])
    assert run_check(rules.folder, page.console) == 2
    first, second, summary = page.text.splitlines()
    assert first.startswith("rules/findings/abdomen/other.yaml:")
    assert ": duplicate_term: term '腹水' is also one of ascites" in first
    assert ": useless_exclusion: exclusion '[red]花崗岩" in second
    assert summary == "4 findings, 1 label sets: 1 duplicate_term, 1 useless_exclusion"


def test_test_of_true_examples(tested: Rules, page: Page) -> None:
    assert run_test(tested.folder, region=None, finding=None, console=page.console) == 0
    assert page.text == "24 passed, 0 failed\n"


def test_test_shows_a_wrong_example(tested: Rules, page: Page) -> None:
    wrong = {"text": "腹水なし。", "status": "present"}
    tested.edit("findings/abdomen/ascites", lambda data: data["examples"].append(wrong))
    assert run_test(tested.folder, region=None, finding=None, console=page.console) == 1
    line = tested.line_of("findings/abdomen/ascites", "腹水なし")
    assert f"ascites.yaml:{line}: 腹水なし。\n    expected present, got absent\n" in page.text
    assert page.text.endswith("24 passed, 1 failed\n")


def test_test_of_one_region_or_finding(tested: Rules, page: Page) -> None:
    assert run_test(tested.folder, region="general", finding=None, console=page.console) == 0
    assert run_test(tested.folder, region=None, finding="ascites", console=page.console) == 0
    assert page.text == "8 passed, 0 failed\n" * 2


@pytest.mark.parametrize(("region", "finding", "near"), [("abdomin", None, "abdomen"), (None, "acites", "ascites")])
def test_test_of_what_does_not_exist(
    tested: Rules, page: Page, region: str | None, finding: str | None, near: str
) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        run_test(tested.folder, region=region, finding=finding, console=page.console)


@pytest.fixture
def old(rules: Rules, tmp_path: Path) -> Path:
    """The rules before the change that ``rules`` gets."""
    shutil.copytree(rules.folder, tmp_path / "old")
    rules.finding("abdomen/ascites", terms=["腹水", "アサイテス"])
    return tmp_path / "old"


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    path.write_text("report_id,text\nsecret-1,腹水を認めます。\nsecret-2,氏名山田 アサイテスあり。\n", encoding="utf-8")
    return path


def test_diff_prints_rows_and_rules_but_no_report(rules: Rules, old: Path, reports: Path, page: Page) -> None:
    code = run_diff(old, reports, "small", rules_folder=rules.folder, json_out=None, console=page.console)
    assert code == 0
    assert "small: 1 labels of 1 of 2 reports change" in page.text
    assert "ascites/アサイテス" in page.text
    assert "2 rows in = 2 compared + 0 quarantined" in page.text
    assert "secret" not in page.text
    assert "山田" not in page.text


def test_diff_writes_json(rules: Rules, old: Path, reports: Path, page: Page, tmp_path: Path) -> None:
    out = tmp_path / "diff.json"
    run_diff(old, reports, "small", rules_folder=rules.folder, json_out=out, console=page.console)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["old_rules_sha256"] != written["new_rules_sha256"]
    assert (written["reports"], written["changed_reports"]) == (2, 1)
    assert written["by_rule"] == [{"rule": "ascites/アサイテス", "labels": 1}]
    [change] = written["changes"]
    assert (change["row"], change["report_id"]) == (2, "secret-2")
    assert (change["finding"], change["old_value"], change["new_value"]) == ("ascites", "not_mentioned", "present")


def test_diff_writes_parquet(rules: Rules, old: Path, reports: Path, page: Page, tmp_path: Path) -> None:
    out = tmp_path / "diff.parquet"
    run_diff(old, reports, "small", rules_folder=rules.folder, json_out=out, console=page.console)
    table = pl.read_parquet(out)
    assert table.schema == CHANGES
    assert table["report_id"].to_list() == ["secret-2"]


def test_diff_of_a_file_with_a_broken_row(rules: Rules, old: Path, reports: Path, page: Page) -> None:
    reports.write_text(reports.read_text(encoding="utf-8") + "secret-3,\n", encoding="utf-8")
    code = run_diff(old, reports, "small", rules_folder=rules.folder, json_out=None, console=page.console)
    assert code == 1
    assert "3 rows in = 2 compared + 1 quarantined" in page.text
    assert "row 3 quarantined" in page.text
    assert "secret" not in page.text


def test_diff_refuses_before_it_works(rules: Rules, old: Path, reports: Path, page: Page, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown label set"):
        run_diff(old, reports, "smol", rules_folder=rules.folder, json_out=None, console=page.console)
    with pytest.raises(ConfigError, match="not an existing directory"):
        run_diff(
            old, reports, "small", rules_folder=rules.folder, json_out=tmp_path / "no" / "x.json", console=page.console
        )
    with pytest.raises(ConfigError, match="no such rules folder"):
        run_diff(tmp_path / "none", reports, "small", rules_folder=rules.folder, json_out=None, console=page.console)
    with pytest.raises(InputError):
        run_diff(old, tmp_path / "none.csv", "small", rules_folder=rules.folder, json_out=None, console=page.console)
