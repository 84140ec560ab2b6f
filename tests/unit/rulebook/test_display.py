"""What values are called where a person reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reportlabel.errors import ConfigError
from reportlabel.report.explain import legend, status_text
from reportlabel.report.names import value_name
from reportlabel.rulebook.display import load_display
from reportlabel.rulebook.load import load_rules, rules_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(rules_folder() / "display.yaml", tmp_path)
    return tmp_path


def edited(folder: Path, old: str, new: str) -> Path:
    path = folder / "display.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sides:\n", "side:\n", r"display\.yaml:\d+: unknown key 'side'"),
        ("  present: {", "  presnt: {", r"display\.yaml:\d+: statuses\.presnt"),
        ("  past: {ja: 過去のみ, en: past}\n", "", "temporality lacks past"),
        ("{middle}", "{mean}", r"display\.yaml:\d+: texts\.median: .*\{middle\}"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(folder: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_display(edited(folder, old, new))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"display\.yaml: missing"):
        load_display(tmp_path)


def test_the_words_are_those_of_the_file(folder: Path) -> None:
    words = load_display(edited(edited(folder, "ja: 疑い", "ja: うたがい"), "many: 多発", "several: 数個"))
    assert status_text("uncertain", words).plain == "? うたがい uncertain"
    assert "うたがい" in legend(words).plain
    assert [value_name(value, words) for value in ("left", "several", "many", "7")] == ["左 left", "数個", "many", "7"]


def test_no_label_depends_on_them(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(rules_folder(), tmp_path / "rules"))
    before = load_rules(folder).sha256
    (folder / "display.yaml").unlink()
    (folder / "ingest" / "report_table.yaml").unlink()
    assert load_rules(folder).sha256 == before
