"""Exams worth reading: each reason finds its exams, quotas are kept, and the same tables give the same exams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reportlabel.aggregate.settings import load_settings as load_aggregate
from reportlabel.errors import ConfigError, InputError
from reportlabel.review.reasons import CHOSEN, choose_exams, doubts_of, drawn_exams, hash_number, quotas_of
from reportlabel.review.settings import REASONS, ReviewSettings, load_settings
from reportlabel.rulebook.load import rules_folder
from reportlabel.schema import EXAM_LABELS, EXAM_VOTES, EXAMS

SETTINGS, AGGREGATE = load_settings(), load_aggregate()
DOUBTFUL = [one for one in range(2000) if one % 5 < 2]


def with_shares(settings: ReviewSettings = SETTINGS, **shares: float) -> ReviewSettings:
    data = settings.model_dump()
    for name in REASONS:
        data["reasons"][name]["share"] = shares.get(name, 0.0)
    return ReviewSettings.model_validate(data)


class Tables:
    """A workspace made by hand: exams of patients, one label each unless said otherwise."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {"labels": [], "votes": [], "exams": []}

    def exam(self, exam: str, *, patient: str | None = None) -> None:
        if exam not in [row["exam_id"] for row in self.rows["exams"]]:
            self.rows["exams"].append({"exam_id": exam, "patient_id": patient or f"P-{exam}"})

    def label(
        self,
        exam: str,
        *,
        value: str = "not_mentioned",
        p: float | None = 0.02,
        finding: str = "nodule",
        patient: str | None = None,
        state: str = "unreviewed",
        label_set: str = "lung_ct",
        votes: dict[str, str] | None = None,
    ) -> None:
        """``votes``: kind -> value; the kind ``weak`` is a record that never stands alone."""
        self.exam(exam, patient=patient)
        key = {"exam_id": exam, "label_set": label_set, "finding": finding}
        said = votes or {}
        self.rows["labels"].append(
            {**key, "value": value, "p_present": p, "n_votes": len(said), "review_state": state, "conflict": False}
        )
        for kind, vote in said.items():
            group = AGGREGATE.never_alone[0] if kind == "weak" else kind
            self.rows["votes"].append(
                {
                    **key,
                    "value": vote,
                    "kind": "record" if kind == "weak" else kind,
                    "group": group,
                    "function_id": kind,
                }
            )

    def fill(self, number: int, *, present: int = 0) -> None:
        """Exams of which nothing is doubtful, so many of them with the finding."""
        for one in range(number):
            if one < present:
                self.label(f"F{one:04}", value="present", p=1.0, votes={"rule": "present"})
            else:
                self.label(f"F{one:04}", value="absent", p=0.0, votes={"rule": "absent"})

    def choose(self, budget: int, settings: ReviewSettings = SETTINGS, **more: Any) -> pl.DataFrame:
        return choose_exams(**self.tables(), budget=budget, settings=settings, aggregate=AGGREGATE, **more)

    def doubts(self) -> dict[str, dict[str, float]]:
        tables = self.tables()
        found = doubts_of(tables["labels"], tables["votes"], settings=SETTINGS, aggregate=AGGREGATE)
        return {row["exam_id"]: row for row in found.iter_rows(named=True)}

    def tables(self) -> dict[str, pl.DataFrame]:
        return {
            "labels": pl.DataFrame(self.rows["labels"], schema=EXAM_LABELS),
            "votes": pl.DataFrame(self.rows["votes"], schema=EXAM_VOTES),
            "exams": pl.DataFrame(self.rows["exams"], schema=EXAMS),
        }


# --- the reasons


def test_text_against_record() -> None:
    tables = Tables()
    tables.fill(20)
    cases = {
        "denied_but_shown": ({"rule": "absent", "record": "present"}, 1.0),
        "said_but_refuted": ({"rule": "present", "record": "absent"}, 1.0),
        "silent_but_shown": ({"record": "present"}, SETTINGS.selection.silent_text),
        "open": ({"rule": "uncertain", "record": "present"}, 0.0),
        "same": ({"rule": "present", "record": "present"}, 0.0),
        "insurance": ({"rule": "absent", "weak": "present"}, 0.0),
        "silent_and_refuted": ({"record": "absent"}, 0.0),
    }
    for exam, (votes, _) in cases.items():
        tables.label(exam, p=0.5, votes=votes)
    found = tables.doubts()
    assert {exam: found[exam]["text_against_record"] for exam in cases} == {
        exam: strength for exam, (_, strength) in cases.items()
    }


def test_rules_against_bert() -> None:
    tables = Tables()
    cases = {
        "apart": ({"rule": "absent", "bert": "present"}, 1.0),
        "missed": ({"bert": "present"}, 1.0),
        "half": ({"rule": "uncertain", "bert": "present"}, 0.5),
        "same": ({"rule": "present", "bert": "present"}, 0.0),
        "denied": ({"bert": "absent"}, 0.0),
        "no_model": ({"rule": "present"}, 0.0),
    }
    for exam, (votes, _) in cases.items():
        tables.label(exam, p=0.5, votes=votes)
    found = tables.doubts()
    assert {exam: found[exam]["rules_against_bert"] for exam in cases} == {
        exam: strength for exam, (_, strength) in cases.items()
    }


def test_the_lower_the_margin_the_higher_the_score() -> None:
    tables = Tables()
    tables.fill(20)
    for exam, p in (("X1", 0.9), ("X2", 0.55), ("X3", 0.3)):
        tables.label(exam, p=p, votes={"rule": "uncertain"})
    tables.label("silent", p=0.5)  # nobody speaks of it
    chosen = tables.choose(3, with_shares(low_margin=1.0))
    assert chosen["exam_id"].to_list() == ["X2", "X3", "X1"]
    assert chosen["reason"].to_list() == ["low_margin"] * 3
    assert chosen["priority"].to_list() == [1, 2, 3]


def test_an_error_of_a_label_that_few_exams_have_weighs_more() -> None:
    tables = Tables()
    tables.fill(100, present=60)
    tables.label("common", p=0.5, votes={"rule": "uncertain"})
    tables.label("rare", p=0.5, finding="cavity", votes={"rule": "uncertain"})
    assert tables.choose(1, with_shares(low_margin=1.0))["exam_id"].to_list() == ["rare"]


def test_rare_findings() -> None:
    tables = Tables()
    tables.fill(200, present=50)
    for number in range(200):
        tables.label(f"F{number:04}", finding="cavity", p=0.0, value="not_mentioned")
    tables.label("X1", finding="cavity", value="present", p=1.0, votes={"rule": "present"})
    chosen = tables.choose(5, with_shares(rare_finding=1.0))
    rare = chosen.filter(pl.col("reason") == "rare_finding")
    assert rare.select("exam_id", "findings").rows() == [("X1", ["cavity"])]
    assert chosen["reason"].to_list().count("audit") == 4  # no other exam has a reason


def test_the_audit_is_drawn_whatever_the_labels_say() -> None:
    tables = Tables()
    tables.fill(500, present=100)
    chosen = tables.choose(100, with_shares(audit=1.0))
    assert chosen["exam_id"].n_unique() == 100
    share = chosen.join(tables.tables()["labels"].filter(pl.col("value") == "present"), on="exam_id", how="semi").height
    assert 8 <= share <= 34
    other = tables.choose(100, with_shares(audit=1.0), seed="another")
    assert set(other["exam_id"]) != set(chosen["exam_id"])


@pytest.mark.parametrize(("rounds", "budget"), [(1, 200), (1, 1500), (4, 300)])
def test_what_was_drawn_is_a_sample_of_all_exams_however_they_are_chosen(rounds: int, budget: int) -> None:
    """Two of five exams are doubtful, and read first; among those that were drawn they are two of five too."""
    tables = Tables()
    for one in range(2000):
        exam, votes = f"E{one:04}", {"rule": "uncertain"} if one % 5 < 2 else {}
        tables.rows["exams"].append({"exam_id": exam, "patient_id": exam})
        tables.rows["labels"].append(
            {"exam_id": exam, "label_set": "lung_ct", "finding": "nodule", "value": "uncertain" if votes else "absent",
             "p_present": 0.45 if votes else 0.0, "n_votes": len(votes), "review_state": "unreviewed"}
        )  # fmt: skip
    shares: list[float] = []
    for seed in ("a", "b", "c", "d", "e"):
        chosen = pl.DataFrame(schema=CHOSEN)
        for _ in range(rounds):
            more = tables.choose(budget, already=chosen["exam_id"].to_list(), seed=seed)
            assert more.height == budget
            chosen = pl.concat([chosen, more])
        drawn = drawn_exams(chosen, seed=seed)
        assert chosen.filter(pl.col("reason") == "audit").join(drawn, on="exam_id", how="anti").is_empty()
        in_order = sorted(tables.tables()["exams"]["exam_id"], key=lambda exam: hash_number(seed, exam))
        assert set(drawn["exam_id"]) == set(in_order[: drawn.height])
        shares.append(drawn["exam_id"].str.slice(1).cast(pl.Int64).is_in(DOUBTFUL).mean())  # type: ignore[arg-type]
    assert sum(shares) / len(shares) == pytest.approx(0.4, abs=0.08)


def test_where_nothing_was_drawn_nothing_is_a_sample() -> None:
    chosen = doubtful(10).choose(5, with_shares(low_margin=1.0))
    assert drawn_exams(chosen, seed="").is_empty()


# --- quotas


def doubtful(number: int) -> Tables:
    tables = Tables()
    tables.fill(number, present=number // 4)
    for one in range(number):
        tables.label(f"A{one:04}", p=0.5, votes={"rule": "absent", "record": "present"})
        tables.label(f"B{one:04}", p=0.4, votes={"rule": "absent", "bert": "present"})
        tables.label(f"C{one:04}", p=0.45, votes={"rule": "uncertain"})
    return tables


def test_quotas_are_kept() -> None:
    shares = {"text_against_record": 0.3, "rules_against_bert": 0.3, "low_margin": 0.2, "audit": 0.2}
    chosen = doubtful(60).choose(40, with_shares(**shares))
    counts = dict(chosen.group_by("reason").len().iter_rows())
    assert counts == {name: round(share * 40) for name, share in shares.items()}
    first = {"text_against_record": "A", "rules_against_bert": "B"}
    for reason, letter in first.items():
        assert {exam[0] for exam in chosen.filter(pl.col("reason") == reason)["exam_id"]} == {letter}


def test_what_a_reason_does_not_use_goes_to_the_others() -> None:
    tables = Tables()
    tables.fill(50)
    tables.label("X1", p=0.5, votes={"rule": "absent", "record": "present"})
    chosen = tables.choose(20)
    assert chosen["exam_id"].n_unique() == 20
    assert "X1" in chosen["exam_id"].to_list()
    assert tables.choose(1000)["exam_id"].n_unique() == 51
    assert tables.choose(0).is_empty()


@pytest.mark.parametrize("budget", [0, 1, 7, 200, 1001])
def test_quotas_add_up(budget: int) -> None:
    quotas = quotas_of(SETTINGS, budget)
    assert sum(quotas.values()) == budget
    for name, number in quotas.items():
        assert abs(number - SETTINGS.reasons[name].share * budget) < 1


def test_few_exams_of_one_patient() -> None:
    tables = Tables()
    tables.fill(10)
    for one in range(20):
        tables.label(f"X{one}", patient="P", p=0.5, votes={"rule": "uncertain"})
    chosen = tables.choose(15, with_shares(low_margin=1.0)).filter(pl.col("reason") == "low_margin")
    assert chosen["exam_id"].str.starts_with("X").sum() == SETTINGS.selection.exams_of_one_patient


# --- the table


def test_what_was_read_or_sent_is_not_chosen_again() -> None:
    tables = doubtful(10)
    tables.label("A0000", finding="cavity", state="reviewed")
    first = tables.choose(20)
    assert "A0000" not in first["exam_id"].to_list()
    second = tables.choose(100, already=first["exam_id"].to_list())
    assert second.join(first, on="exam_id", how="semi").is_empty()
    assert first["exam_id"].n_unique() + second["exam_id"].n_unique() == 39


def test_the_same_tables_in_another_order_give_the_same_exams() -> None:
    made = doubtful(40).tables()
    shuffled = {name: table.sample(fraction=1.0, shuffle=True, seed=5) for name, table in made.items()}
    both = [choose_exams(**tables, budget=30, settings=SETTINGS, aggregate=AGGREGATE) for tables in (made, shuffled)]
    assert both[0].equals(both[1])


def test_every_label_set_of_an_exam_has_a_row_with_its_own_reasons() -> None:
    tables = Tables()
    tables.fill(20)
    tables.label("X1", p=0.5, votes={"rule": "absent", "record": "present"})
    tables.label("X1", p=0.01, label_set="ct_rate_18", finding="lung_nodule", votes={"rule": "absent"})
    chosen = tables.choose(5, with_shares(text_against_record=1.0)).filter(pl.col("exam_id") == "X1")
    assert chosen.schema == CHOSEN
    assert chosen.select("label_set", "reason", "priority").rows() == [
        ("ct_rate_18", "text_against_record", 1),
        ("lung_ct", "text_against_record", 1),
    ]
    assert chosen["reasons"].to_list() == [[], ["text_against_record", "low_margin"]]
    assert chosen["findings"].to_list() == [[], ["nodule"]]


def test_values_that_are_no_status_give_no_reason() -> None:
    tables = Tables()
    tables.label("X1", finding="primary_size_mm", value="12", p=None, votes={"rule": "12"})
    assert tables.doubts() == {}


def test_numbers_of_the_hash_are_even_and_keyed() -> None:
    drawn = [hash_number("key", str(number)) for number in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.02)
    assert all(0 <= one < 1 for one in drawn)
    assert hash_number("key", "1") != hash_number("other", "1")


def test_wrong_input_is_named() -> None:
    tables = doubtful(3)
    with pytest.raises(ConfigError, match="0 or more"):
        tables.choose(-1)
    for name, column in (("labels", "n_votes"), ("votes", "kind"), ("exams", "patient_id")):
        made = tables.tables()
        with pytest.raises(InputError, match=f"{name}: column {column}"):
            choose_exams(**{**made, name: made[name].drop(column)}, budget=3, settings=SETTINGS, aggregate=AGGREGATE)


# --- review.yaml


def test_review_yaml_names_what_is_wrong(tmp_path: Path) -> None:
    text = (rules_folder() / "review.yaml").read_text(encoding="utf-8")
    path = tmp_path / "review.yaml"
    for old, new, message in (
        ("  rare_up_to: 0.02", "  rare_upto: 0.02", "unknown key 'rare_upto'"),
        ("    share: 0.45", "    share: 0.55", "must add up to 1"),
        ("  patients: 3", "  patients: 2", "greater than or equal to 3"),
        ("  order: [not_mentioned, absent, ", "  order: [absent, ", "name each of"),
        ("  low_margin:\n", "  margin:\n", "reasons must name each of"),
    ):
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load_settings(path)
