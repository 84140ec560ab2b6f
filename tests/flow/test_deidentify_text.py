"""De-identification of texts, measured on a synthetic hospital whose names no table lists.

Run as a program it prints the figures of any hospital: python tests/flow/test_deidentify_text.py HOSPITAL
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.normalise import Normaliser
from reportlabel.deidentify.dates import DatePolicy
from reportlabel.deidentify.offsets import maps_of
from reportlabel.deidentify.text import Deidentifier, KnownNames, mask_table
from reportlabel.deidentify.text_rules import TextRules, load_text_rules
from reportlabel.flow import label_batch
from reportlabel.rulebook.load import load_rules
from reportlabel.synth.hospital import Hospital, make_hospital

PATIENTS = 100
KEY = b"a key that nobody may know......"


@dataclass(frozen=True)
class Score:
    """Spans of identifiers in the gold, those that are masked whole, spans masked (without dates), those in the gold.

    Dates of this hospital's own exams are no identifiers in the gold, so that dates count for recall only.
    """

    gold: int
    found: int
    masked: int
    right: int

    @property
    def recall(self) -> float:
        return self.found / self.gold

    @property
    def precision(self) -> float:
        return self.right / self.masked


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hospital") / "out"
    make_hospital(Hospital(out, PATIENTS, 8, ("parquet",)))
    return out


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


def last_versions(hospital: Path) -> pl.DataFrame:
    reports = pl.read_parquet(hospital / "parquet" / "reports.parquet").sort("version")
    days = pl.read_parquet(hospital / "parquet" / "exams.parquet").select("exam_id", "started_at")
    return reports.group_by("report_id", maintain_order=True).last().join(days, on="exam_id", how="left")


def score(hospital: Path, deidentifier: Deidentifier) -> Score:
    gold: dict[str, list[tuple[int, int]]] = {}
    spans = pl.read_parquet(hospital / "gold" / "identifiers.parquet")
    for report_id, start, end in spans.select("report_id", "start", "end").iter_rows():
        gold.setdefault(report_id, []).append((start, end))
    found = masked = right = 0
    for report_id, text, day in last_versions(hospital).select("report_id", "text", "started_at").iter_rows():
        made = deidentifier.mask(text, exam_day=day.date())
        hidden = {at for span in made.spans for at in range(span.start, span.end)}
        found += sum(hidden.issuperset(range(start, end)) for start, end in gold.get(report_id, []))
        counted = [span for span in made.spans if span.kind != "date"]
        masked += len(counted)
        right += sum(
            any(start < span.end and span.start < end for start, end in gold.get(report_id, [])) for span in counted
        )
    return Score(spans.height, found, masked, right)


def without_names_of(hospital: Path, rules: TextRules) -> TextRules:
    """The rules without every family name of the hospital: names that neither a table nor the rules list."""
    fold = Normaliser.from_rules(load_rules().normalise)
    canaries = pl.read_parquet(hospital / "gold" / "canaries.parquet")
    full = canaries.filter(pl.col("kind").is_in(["name", "doctor"]))["value"]
    there = KnownNames.from_tables(staff=full).surnames(fold)
    kept = [name for name in rules.names.family_names if fold(name.kanji) not in there]
    assert len(kept) < len(rules.names.family_names)
    return rules.model_copy(update={"names": rules.names.model_copy(update={"family_names": kept})})


def changed_labels(hospital: Path, deidentifier: Deidentifier, annotator: Annotator) -> tuple[int, int]:
    """Decisions, and how many of them differ between the original and the masked texts."""
    days = pl.read_parquet(hospital / "parquet" / "exams.parquet").select("exam_id", "started_at")
    decisions = changed = 0
    for path in sorted((hospital / "texts").glob("*.parquet")):
        label_set = annotator.rules.label_sets[path.stem]
        texts = pl.read_parquet(path).join(days, on="exam_id", how="left", maintain_order="left")
        made = mask_table(texts, deidentifier, patient_column="exam_id", day_column="started_at")
        before = label_batch(texts.select("report_id", "text"), annotator, label_set).labels
        after = label_batch(made.table.select("report_id", "text"), annotator, label_set).labels
        both = before.join(after, on=["report_id", "finding"], suffix="_after")
        assert both.height == before.height == after.height
        decisions += both.height
        changed += both.filter(pl.col("value") != pl.col("value_after")).height
    return decisions, changed


def test_identifiers_are_found_without_any_table(hospital: Path) -> None:
    measured = score(hospital, Deidentifier(load_text_rules(), date_policy=DatePolicy("mask")))
    assert measured.gold >= 60
    assert measured.recall >= 0.99, measured
    assert measured.precision >= 0.95, measured


def test_identifiers_are_found_with_names_that_no_list_has(hospital: Path) -> None:
    rules = without_names_of(hospital, load_text_rules())
    measured = score(hospital, Deidentifier(rules, date_policy=DatePolicy("mask")))
    assert measured.recall >= 0.99, measured
    assert measured.precision >= 0.95, measured


def test_nothing_that_the_tables_know_is_left(hospital: Path) -> None:
    patients = pl.read_parquet(hospital / "parquet" / "patients.parquet")
    canaries = pl.read_parquet(hospital / "gold" / "canaries.parquet")
    doctors = canaries.filter(pl.col("kind") == "doctor")["value"]
    known = KnownNames.from_tables(patients, staff=doctors)
    deidentifier = Deidentifier(load_text_rules(), known=known, date_policy=DatePolicy("keep"))
    texts = last_versions(hospital).select("report_id", "text")
    wanted = [value for value in canaries.filter(pl.col("kind") != "birth_date")["value"] if len(value) > 3]

    def hits(column: pl.Series) -> int:
        return int(column.str.contains_any(wanted).sum())

    assert hits(texts["text"]) > 10, "the search finds them in the original"
    assert hits(mask_table(texts, deidentifier).table["text"]) == 0


@pytest.mark.parametrize("policy", ["relative", "shift"])
def test_labels_stay_what_they_were(hospital: Path, annotator: Annotator, policy: str) -> None:
    deidentifier = Deidentifier(load_text_rules(), date_policy=DatePolicy(policy, key=KEY))  # type: ignore[arg-type]
    decisions, changed = changed_labels(hospital, deidentifier, annotator)
    assert decisions > 5000
    assert changed <= 0.005 * decisions


def test_mentions_lie_where_they_lay(hospital: Path, annotator: Annotator) -> None:
    texts = pl.read_parquet(hospital / "texts" / "lung_ct.parquet").select("report_id", "text")
    made = mask_table(texts, Deidentifier(load_text_rules(), date_policy=DatePolicy("mask")))
    originals = dict(texts.iter_rows())
    maps = maps_of(made.offsets, list(originals))
    mentions = annotator.annotate(made.table, region="chest")
    assert mentions.height > 100
    for report_id, start, end, surface in mentions.select("report_id", "start", "end", "surface").iter_rows():
        old = maps[report_id].to_old(start, end)
        assert originals[report_id][slice(*old)] == surface


def main() -> None:
    """Print the figures of a hospital."""
    hospital, rules = Path(sys.argv[1]), load_text_rules()
    print("no table:", score(hospital, Deidentifier(rules, date_policy=DatePolicy("mask"))))  # noqa: T201
    unlisted = without_names_of(hospital, rules)
    print("no table, no list:", score(hospital, Deidentifier(unlisted, date_policy=DatePolicy("mask"))))  # noqa: T201
    for policy in ("keep", "relative", "shift", "mask"):
        deidentifier = Deidentifier(rules, date_policy=DatePolicy(policy, key=KEY))  # type: ignore[arg-type]
        print(policy, "decisions, changed:", changed_labels(hospital, deidentifier, Annotator()))  # noqa: T201


if __name__ == "__main__":
    main()
