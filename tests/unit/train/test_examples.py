"""What a classifier learns from: examples of the synthetic hospital, of the rules and of a workspace."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.schema import READINGS
from reportlabel.train.archive import WorkspaceTables, agreed_readings, archive_examples, split_of
from reportlabel.train.examples import (
    EXAMPLES,
    Statement,
    data_hash,
    distinct_statements,
    gold_names,
    make_examples,
    thinned,
)
from reportlabel.train.settings import TrainSettings, load_train_settings, with_recipe

TEXT = "右肺上葉に結節を認めます。胸水は認めません。肝に嚢胞がみられます。"


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


@pytest.fixture(scope="module")
def settings() -> TrainSettings:
    loaded = load_train_settings()
    data = loaded.data.model_copy(update={"patients": 12, "frames_a_finding": 1, "validate_each": 4})
    return loaded.model_copy(update={"data": data})


@pytest.fixture(scope="module")
def examples(settings: TrainSettings, annotator: Annotator) -> pl.DataFrame:
    return make_examples(settings, annotator)


# --- the synthetic hospital and the rules


def test_examples_are_distinct_and_whole(examples: pl.DataFrame) -> None:
    assert examples.schema == EXAMPLES
    assert examples.select("region", "before", "text").is_unique().all()
    assert set(examples["source"]) == {"hospital", "frame", "example"}
    assert {"train", "validate"} <= set(examples["split"])
    lengths = examples.select(pl.col("findings", "statuses", "weights", "surfaces", "sures").list.len())
    assert lengths.select(pl.concat_list(pl.all()).list.n_unique().max()).item() == 1
    assert examples["text"].str.contains(r"[1-9１-９]").sum() == 0


def test_only_the_hospital_validates(examples: pl.DataFrame) -> None:
    assert set(examples.filter(pl.col("split") != "train")["source"]) == {"hospital"}


def test_a_surface_stands_in_its_sentence(examples: pl.DataFrame) -> None:
    for text, surfaces in examples.select("text", "surfaces").iter_rows():
        assert all(surface in text for surface in surfaces)


def test_equal_settings_give_equal_examples(
    examples: pl.DataFrame, settings: TrainSettings, annotator: Annotator
) -> None:
    assert data_hash(examples) == data_hash(make_examples(settings, annotator))


def test_the_frequent_is_thinned(examples: pl.DataFrame, settings: TrainSettings) -> None:
    few = settings.data.model_copy(update={"repeats": 1, "silent": 5})
    thin = thinned(examples, few)
    assert (thin["findings"].list.len() == 0).sum() == 5
    key = ["findings", "statuses", "source", "region"]
    assert thin.filter(pl.col("findings").list.len() > 0).select(key).is_unique().all()


def test_what_the_rules_do_not_read_is_kept(examples: pl.DataFrame, settings: TrainSettings) -> None:
    unread = (pl.col("source") == "hospital") & pl.col("surfaces").list.contains("")
    kept = thinned(examples, settings.data.model_copy(update={"repeats": 1, "unread": 1000}))
    assert examples.filter(unread).height > 0
    assert kept.filter(unread).height == examples.filter(unread).height
    assert kept.filter(~unread).height < examples.filter(~unread).height


def test_a_name_of_the_gold_is_what_the_rules_read_it_as() -> None:
    pairs = {
        ("chest", "nodule", "lung_nodule", True): 9,
        ("chest", "nodule", "lung_nodule", False): 1,
        ("chest", "nodule", "lung_cancer", True): 3,
        ("chest", "shadow", "lung_nodule", True): 5,
        ("chest", "shadow", "lung_nodule", False): 5,
    }
    assert gold_names(pairs, 0.8) == {("chest", "nodule"): "lung_nodule"}


def test_the_strongest_statement_counts() -> None:
    said = [Statement("a", "not_mentioned", 1, ""), Statement("a", "absent", 1, ""), Statement("a", "present", 1, "")]
    assert [one.status for one in distinct_statements(said)] == ["present"]


# --- settings


def test_a_recipe_changes_numbers(settings: TrainSettings) -> None:
    small = with_recipe(settings, "small")
    assert small.data.patients == settings.recipes["small"].patients
    assert small.fit.epochs == settings.recipes["small"].epochs
    assert small.model == settings.model
    with pytest.raises(ConfigError, match=r"--recipe tiny: train\.yaml has further, round, small"):
        with_recipe(settings, "tiny")


# --- a workspace


_READ = pl.Schema(
    [(name, kind) for name, kind in READINGS.items() if name in ("exam_id", "label_set", "finding", "value", "spans")]
)


def tables(readings: list[tuple[str, str, list[dict[str, int]]]], p_present: float = 0.9) -> WorkspaceTables:
    labels = [("e1", "lung_ct", "nodule_or_mass", p_present), ("e1", "lung_ct", "pleural_effusion", 0.1)]
    return WorkspaceTables(
        pl.DataFrame({"report_id": ["r1"], "exam_id": ["e1"], "patient_id": ["p1"], "text": [TEXT]}),
        pl.DataFrame(labels, schema=["exam_id", "label_set", "finding", "p_present"], orient="row"),
        pl.DataFrame(
            [("e1", "lung_ct", finding, value, spans) for finding, value, spans in readings],
            schema=_READ,
            orient="row",
        ),
    )


def read(annotator: Annotator, given: WorkspaceTables) -> dict[str, dict[str, object]]:
    found = archive_examples(
        given,
        label_sets={"lung_ct": annotator.rules.label_sets["lung_ct"]},
        annotator=annotator,
        settings=load_train_settings().archive,
    )
    assert found.schema == EXAMPLES
    return {row["text"]: row for row in found.to_dicts()}


def said(row: dict[str, object]) -> dict[str, str]:
    return dict(zip(row["findings"], row["statuses"], strict=True))  # type: ignore[call-overload]


def test_weak_labels_count_by_their_probability(annotator: Annotator) -> None:
    rows = read(annotator, tables([], p_present=0.7))
    nodule = rows["右肺上葉に結節を認めます。"]
    assert said(nodule)["lung_nodule"] == "present"
    at = nodule["findings"].index("lung_nodule")  # type: ignore[attr-defined]
    assert nodule["sures"][at] == pytest.approx(0.7)  # type: ignore[index]
    assert nodule["weights"][at] == pytest.approx(0.5 * 0.7)  # type: ignore[index]
    effusion = rows["胸水は認めません。"]
    assert effusion["sures"] == pytest.approx([0.9])
    assert {row["source"] for row in rows.values()} == {"archive"}


def test_a_reader_who_agrees_confirms(annotator: Annotator) -> None:
    rows = read(annotator, tables([("nodule_or_mass", "present", [])]))
    nodule = rows["右肺上葉に結節を認めます。"]
    assert nodule["source"] == "reading"
    assert max(nodule["weights"]) == load_train_settings().archive.reading_weight  # type: ignore[call-overload]


def test_a_reader_puts_a_statement_right(annotator: Annotator) -> None:
    rows = read(annotator, tables([("pleural_effusion", "uncertain", []), ("nodule_or_mass", "not_mentioned", [])]))
    assert said(rows["胸水は認めません。"]) == {"pleural_effusion": "uncertain"}
    assert said(rows["右肺上葉に結節を認めます。"])["lung_nodule"] == "not_mentioned"


def test_a_marked_sentence_learns_what_the_rules_do_not_know(annotator: Annotator) -> None:
    start = TEXT.index("肝に")
    spans = [{"start": start, "end": start + 4}]
    rows = read(annotator, tables([("emphysema", "present", spans)]))
    assert said(rows["肝に嚢胞がみられます。"])["emphysema"] == "present"


def test_readers_who_disagree_teach_nothing() -> None:
    def reading(reader: str, value: str, hour: int) -> tuple[object, ...]:
        return ("e1", "lung_ct", "f", reader, value, [], "changed", datetime(2024, 1, 1, hour), f"{reader}{hour}", "")

    def agreed(*rows: tuple[object, ...]) -> list[str]:
        return agreed_readings(pl.DataFrame(rows, schema=READINGS, orient="row"))["value"].to_list()

    assert agreed(reading("a", "present", 1), reading("b", "absent", 1)) == []
    assert agreed(reading("a", "present", 1), reading("b", "absent", 1), reading("b", "present", 2)) == ["present"]


def test_a_patient_is_in_one_split() -> None:
    splits = [split_of(f"p{number}", 10) for number in range(2000)]
    assert 120 < splits.count("validate") < 280
    assert split_of("p1", 10) == split_of("p1", 10)
