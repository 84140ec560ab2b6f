"""Scores on a synthetic hospital: what is counted, and that the rules are neither perfect nor poor on it."""

from pathlib import Path

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import InputError
from reportlabel.evaluate.hospital import label_hospital, label_scores, mention_recall, run_evaluate_hospital
from reportlabel.schema import MENTIONS
from reportlabel.synth.hospital import Hospital, make_hospital


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluate") / "hospital"
    make_hospital(Hospital(out, 120, 9, ("parquet",)))
    return out


def test_precision_and_recall_of_a_status() -> None:
    rows = [("present", "present")] * 3 + [("present", "absent"), ("absent", "present"), ("not_mentioned", "present")]
    labels = pl.DataFrame(
        [("s", f"r{at}", "f", value, gold) for at, (gold, value) in enumerate(rows)],
        schema=["label_set", "report_id", "finding", "value", "gold"],
        orient="row",
    )
    row = label_scores(labels).row(0, named=True)
    assert row["present_gold"] == 4 and row["absent_gold"] == 1 and row["reports"] == 6
    assert row["present_precision"] == pytest.approx(0.6) and row["present_recall"] == pytest.approx(0.75)
    assert row["absent_recall"] == 0 and row["uncertain_gold"] == 0


def test_expressions_are_apart_by_whether_the_rules_know_them() -> None:
    rules = Annotator().rules
    gold = pl.DataFrame(
        [
            ("r", 0, 2, "present", "結節"),
            ("r", 5, 7, "absent", "胸水"),
            ("r", 9, 14, "present", "水の溜まり"),
            ("other", 0, 2, "present", "結節"),
        ],
        schema=["report_id", "start", "end", "status", "surface"],
        orient="row",
    )
    said = [("r", 0, 2, "present"), ("r", 5, 7, "present")]
    mentions = pl.DataFrame(
        [
            dict.fromkeys(MENTIONS.names()) | dict(zip(("report_id", "start", "end", "status"), one, strict=True))
            for one in said
        ],
        schema=MENTIONS,
    )
    found = mention_recall(gold, mentions, rules).rows(named=True)
    assert [row["in_rules"] for row in found] == [True, False]
    assert found[0]["expressions"] == 2 and found[0]["found"] == 1 and found[0]["right"] == 0.5
    assert found[1]["expressions"] == 1 and found[1]["found"] == 0


def test_the_rules_are_neither_perfect_nor_poor(hospital: Path) -> None:
    annotator = Annotator()
    labels, mentions = label_hospital(hospital, annotator)
    scores = label_scores(labels).filter(pl.col("present_gold") >= 10)
    assert 0.75 < float(scores["present_f1"].mean()) < 0.99  # type: ignore[arg-type]
    found = mention_recall(pl.read_parquet(hospital / "gold" / "mentions.parquet"), mentions, annotator.rules)
    known, other = found.rows(named=True)
    assert known["found"] > 0.95 and other["found"] < known["found"] - 0.15
    assert other["distinct"] > 0.2 * (known["distinct"] + other["distinct"])


def test_another_folder_is_refused(tmp_path: Path) -> None:
    from rich.console import Console

    with pytest.raises(InputError, match="no synthetic hospital"):
        run_evaluate_hospital(tmp_path, rules=None, json_out=None, console=Console())
