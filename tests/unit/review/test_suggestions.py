"""Phrases that readings teach: found, counted, withheld where they could be of one person, and ready for the rules."""

from __future__ import annotations

import shutil
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, InputError
from reportlabel.review.settings import load_settings
from reportlabel.review.suggestions import (
    EXPLAINED,
    FEW,
    LONG,
    NO_PLACE,
    NO_SPAN,
    SUGGESTIONS,
    Suggested,
    clause,
    stubs,
    suggest,
    write_stubs,
)
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.schema import EXAMS, READINGS, REPORTS
from reportlabel.vote.report import report_votes

UNKNOWN = "まだら影"
TEXT = f"右上葉に{UNKNOWN}を認めます。\n胸水は目立ちません。"


@cache
def rulebook() -> Rulebook:
    return load_rules()


@cache
def annotator() -> Annotator:
    return Annotator(rulebook())


def workspace(texts: dict[tuple[str, str], str]) -> dict[str, Any]:
    """The tables of (patient, exam) -> report text."""
    exams = pl.DataFrame([{"exam_id": exam, "patient_id": patient} for patient, exam in texts], schema=EXAMS)
    reports = pl.DataFrame(
        [
            {"report_id": f"R{exam}", "exam_id": exam, "version": 1, "status": "final", "text": text}
            for (_, exam), text in texts.items()
        ],
        schema=REPORTS,
    )
    sets = {"lung_ct": rulebook().label_sets["lung_ct"]}
    found = report_votes(
        reports,
        scope=exams.select("exam_id", label_set=pl.lit("lung_ct")),
        label_sets=sets,
        rules=rulebook(),
        annotator=annotator(),
    )
    return {
        "votes": found.votes,
        "mentions": found.mentions,
        "reports": reports,
        "exams": exams,
        "rules": rulebook(),
        "label_sets": sets,
        "settings": load_settings().suggestions,
    }


def reading(exam: str, finding: str, value: str, *spans: tuple[int, int], reader: str = "a") -> dict[str, object]:
    return {
        "exam_id": exam,
        "label_set": "lung_ct",
        "finding": finding,
        "reader": reader,
        "value": value,
        "spans": [{"start": start, "end": end} for start, end in spans],
        "origin": "changed",
        "read_at": datetime(2026, 1, 1),
        "annotation_id": f"{exam}-{reader}",
    }


def readings(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=READINGS)


def span_of(phrase: str, text: str = TEXT) -> tuple[int, int]:
    return text.index(phrase), text.index(phrase) + len(phrase)


def missed(patients: int, exams_each: int = 1, *, word: str = UNKNOWN) -> Suggested:
    text = TEXT.replace(UNKNOWN, word)
    tables = workspace({(f"P{p}", f"X{p}-{e}"): text for p in range(patients) for e in range(exams_each)})
    rows = [reading(exam, "nodule_or_mass", "present", span_of(word, text)) for exam in tables["exams"]["exam_id"]]
    return suggest(readings(*rows), **tables)


def test_a_phrase_that_no_rule_knows_is_told() -> None:
    found = missed(4, 2)
    assert found.phrases.schema == SUGGESTIONS
    [row] = found.phrases.iter_rows(named=True)
    assert row == {
        "kind": "missed",
        "label_set": "lung_ct",
        "finding": "nodule_or_mass",
        "concept": "lung_nodule",
        "file": row["file"],
        "phrase": UNKNOWN,
        "rule_id": None,
        "said": None,
        "read": "present",
        "exams": 8,
        "patients": 4,
        "agreed": 0,
    }
    assert (rulebook().folder / row["file"]).is_file()
    assert found.withheld == {}


def test_a_phrase_of_too_few_patients_is_withheld_and_counted() -> None:
    found = missed(2, 5)
    assert found.phrases.is_empty()
    assert found.withheld == {FEW: 10}
    assert UNKNOWN not in str(found)


def test_long_words_and_readings_without_a_place_are_counted() -> None:
    assert missed(3, word="まだら" * 20).withheld == {LONG: 3}
    tables = workspace({(f"P{n}", f"X{n}"): TEXT for n in range(3)})
    bare = [reading(f"X{n}", "nodule_or_mass", "present") for n in range(3)]
    assert suggest(readings(*bare), **tables).withheld == {NO_SPAN: 3}
    outside = [reading(f"X{n}", "nodule_or_mass", "present", (5, 500)) for n in range(3)]
    assert suggest(readings(*outside), **tables).withheld == {NO_PLACE: 3}


def test_words_that_a_rule_knows_are_not_missed() -> None:
    text = "右上葉に結節を認めます。"
    tables = workspace({(f"P{n}", f"X{n}"): text for n in range(4)})
    rows = [reading(f"X{n}", "nodule_or_mass", "present", span_of("結節", text)) for n in range(4)]
    assert suggest(readings(*rows), **tables).phrases.is_empty()


def test_a_misread_phrase_is_told_with_how_often_it_was_right() -> None:
    text = "右胸水貯留を認めます。結節を認めません。"
    tables = workspace({(f"P{n}", f"X{n}"): text for n in range(9)})
    rows = [reading(f"X{n}", "pleural_effusion", "absent" if n < 4 else "present") for n in range(9)]
    rows += [reading(f"X{n}", "nodule_or_mass", "absent") for n in range(9)]
    [row] = suggest(readings(*rows), **tables).phrases.iter_rows(named=True)
    assert (row["kind"], row["said"], row["read"], row["phrase"]) == (
        "misread",
        "present",
        "absent",
        "胸水貯留を認めます",
    )
    assert (row["exams"], row["patients"], row["agreed"]) == (4, 4, 5)
    assert row["rule_id"].startswith("pleural_effusion/")


def test_a_reading_that_a_record_explains_blames_no_rule() -> None:
    text = "右胸水を認めます。"
    tables = workspace({(f"P{n}", f"X{n}"): text for n in range(4)})
    rows = [reading(f"X{n}", "pleural_effusion", "absent") for n in range(4)]
    record = (
        tables["votes"]
        .head(4)
        .with_columns(
            exam_id=pl.Series([f"X{n}" for n in range(4)]),
            finding=pl.lit("pleural_effusion"),
            kind=pl.lit("record"),
            value=pl.lit("absent"),
            evidence=pl.lit("a record"),
        )
    )
    tables["votes"] = pl.concat([tables["votes"], record])
    found = suggest(readings(*rows), **tables)
    assert found.phrases.is_empty()
    assert found.withheld == {EXPLAINED: 4}


def test_a_phrase_that_is_mostly_right_becomes_no_example() -> None:
    tables = workspace({(f"P{n}", f"X{n}"): "右胸水を認めます。" for n in range(20)})
    rows = [reading(f"X{n}", "pleural_effusion", "absent" if n < 3 else "present") for n in range(20)]
    found = suggest(readings(*rows), **tables)
    assert found.phrases.select("exams", "agreed").rows() == [(3, 17)]
    assert stubs(found.phrases, label_sets=tables["label_sets"], settings=tables["settings"]) == {}


def test_only_the_expressions_that_made_the_statement_are_blamed() -> None:
    text = "右胸水を認めます。左胸水は認めません。"
    tables = workspace({(f"P{n}", f"X{n}"): text for n in range(3)})
    found = suggest(readings(*(reading(f"X{n}", "pleural_effusion", "absent") for n in range(3))), **tables)
    assert found.phrases["phrase"].to_list() == ["胸水を認めます"]


def test_labels_on_which_readers_disagree_teach_nothing() -> None:
    tables = workspace({(f"P{n}", f"X{n}"): TEXT for n in range(4)})
    rows = [
        reading(f"X{n}", "nodule_or_mass", value, *spans, reader=reader)
        for n in range(4)
        for reader, value, spans in (("a", "present", [span_of(UNKNOWN)]), ("b", "absent", []))
    ]
    assert suggest(readings(*rows), **tables).phrases.is_empty()
    chief = [reading(f"X{n}", "nodule_or_mass", "present", span_of(UNKNOWN), reader="chief") for n in range(4)]
    settled = suggest(readings(*rows, *chief), **tables, adjudicators=["chief"])
    assert settled.phrases["phrase"].to_list() == [UNKNOWN]


def test_two_readers_of_one_exam_count_as_one_exam() -> None:
    tables = workspace({(f"P{n}", f"X{n}"): TEXT for n in range(3)})
    rows = [
        reading(f"X{n}", "nodule_or_mass", "present", span_of(UNKNOWN), reader=reader)
        for n in range(3)
        for reader in "ab"
    ]
    [row] = suggest(readings(*rows), **tables).phrases.iter_rows(named=True)
    assert (row["exams"], row["patients"]) == (3, 3)


def test_no_readings_no_suggestions() -> None:
    tables = workspace({("P", "X"): TEXT})
    found = suggest(pl.DataFrame(schema=READINGS), **tables)
    assert found.phrases.is_empty() and found.withheld == {}
    with pytest.raises(InputError, match="cue"):
        suggest(pl.DataFrame(schema=READINGS), **{**tables, "mentions": tables["mentions"].drop("cue")})


def test_a_phrase_ends_with_its_clause() -> None:
    settings = load_settings().suggestions
    text = "胸水や\n腹水は認めません、結節あり。"
    assert clause(text, 0, 2, cue="認め", settings=settings) == "胸水や腹水は認めません"
    assert clause(text, 0, 2, cue=None, settings=settings) == "胸水や"
    assert clause("胸水(−)。", 0, 2, cue="(−)", settings=settings) == "胸水(−)"


def test_the_stubs_are_rules_that_read_the_phrase(tmp_path: Path) -> None:
    """Merged into the rules as they are, the new terms make their own examples come true."""
    found = missed(3)
    sets = {"lung_ct": rulebook().label_sets["lung_ct"]}
    made = stubs(found.phrases, label_sets=sets, settings=load_settings().suggestions)
    folder = write_stubs(made, tmp_path / "workspace")
    [path] = folder.rglob("*.yaml")
    stub = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert stub == {"terms": [UNKNOWN], "examples": [{"text": f"{UNKNOWN}を認めます。", "status": "present"}]}
    rules = tmp_path / "rules"
    shutil.copytree(rulebook().folder, rules)
    file = rules / path.relative_to(folder)
    merged = yaml.safe_load(file.read_text(encoding="utf-8"))
    for key, values in stub.items():
        merged[key] = merged.get(key, []) + values
    file.write_text(yaml.safe_dump(merged, allow_unicode=True), encoding="utf-8")
    report = pl.DataFrame({"report_id": ["1"], "text": [stub["examples"][0]["text"]]})
    mentions = Annotator(load_rules(rules)).annotate(report, region="chest")
    assert (merged["id"], "present") in mentions.select("finding", "status").rows()


def test_stubs_are_replaced_and_written_below_the_workspace(tmp_path: Path) -> None:
    first = write_stubs({"findings/chest/a.yaml": "examples: []\n"}, tmp_path)
    assert first.is_relative_to(tmp_path)
    write_stubs({"findings/chest/b.yaml": "examples: []\n"}, tmp_path)
    assert [path.name for path in first.rglob("*.yaml")] == ["b.yaml"]
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_stubs({"a.yaml": ""}, tmp_path / "file")
