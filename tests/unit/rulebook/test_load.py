"""Reading rule files: what is wrong is named with file, line and key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import load_rules
from reportlabel.rulebook.read_yaml import read_yaml

if TYPE_CHECKING:
    from conftest import Rules

ASCITES = "findings/abdomen/ascites"


def test_an_unknown_key_is_named_with_file_and_line(rules: Rules) -> None:
    rules.edit(ASCITES, lambda data: data.update(synonyms=["腹腔内液体"]))
    line = rules.line_of(ASCITES, "synonyms")
    with pytest.raises(ConfigError, match="unknown key 'synonyms'") as caught:
        load_rules(rules.folder)
    assert f"{rules.path(ASCITES)}:{line}:" in str(caught.value)


def test_an_unknown_key_inside_a_list_is_named_with_its_line(rules: Rules) -> None:
    rules.edit(ASCITES, lambda data: data["examples"][5].update(sidee="left"))
    with pytest.raises(ConfigError, match="unknown key 'sidee'") as caught:
        load_rules(rules.folder)
    assert f"{rules.path(ASCITES)}:{rules.line_of(ASCITES, 'sidee')}:" in str(caught.value)


def test_all_errors_of_a_file_are_told(rules: Rules) -> None:
    rules.edit(ASCITES, lambda data: data.update(one=1, two=2))
    with pytest.raises(ConfigError) as caught:
        load_rules(rules.folder)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("status", ["maybe", "Present", ""])
def test_a_status_that_does_not_exist(rules: Rules, status: str) -> None:
    rules.edit(ASCITES, lambda data: data["examples"][0].update(status=status))
    with pytest.raises(ConfigError, match=r"examples\.0\.status"):
        load_rules(rules.folder)


def test_the_file_name_is_the_id(rules: Rules) -> None:
    rules.edit(ASCITES, lambda data: data.update(id="hydrops"))
    with pytest.raises(ConfigError, match="must equal the file name 'ascites'"):
        load_rules(rules.folder)


def test_a_finding_in_two_regions(rules: Rules) -> None:
    rules.finding("general/ascites", terms=["腹水"])
    with pytest.raises(ConfigError, match="also defined in"):
        load_rules(rules.folder)


@pytest.mark.parametrize("name", ["assertion", "anatomy", "normalise", "context", "sections", "staging/primary_tumour"])
def test_a_file_is_missing(rules: Rules, name: str) -> None:
    rules.path(name).unlink()
    with pytest.raises(ConfigError, match="missing"):
        load_rules(rules.folder)


def test_there_is_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such rules folder"):
        load_rules(tmp_path / "none")


def test_a_key_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("id: a\nterms: [x]\nid: b\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.yaml:3: key 'id' is written twice"):
        read_yaml(path)


def test_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("id: a\nterms: [x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a\.yaml:\d: not valid YAML"):
        read_yaml(path)


def test_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("id: 腹水\n".encode("cp932"))
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(path)


def test_english_words_are_no_truth_values(tmp_path: Path) -> None:
    """YAML 1.1 reads ``no``, ``on`` and ``yes`` as truth values; here they are cues and terms."""
    path = tmp_path / "a.yaml"
    path.write_text("no: [no, On, yes, off, true, False]\n", encoding="utf-8")
    assert read_yaml(path).data == {"no": ["no", "On", "yes", "off", True, False]}


def test_the_hash_changes_with_any_file(rules: Rules) -> None:
    before = load_rules(rules.folder).sha256
    assert load_rules(rules.folder).sha256 == before
    rules.path("normalise").write_text(rules.path("normalise").read_text() + "# remark\n")
    assert load_rules(rules.folder).sha256 != before
