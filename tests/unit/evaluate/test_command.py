"""`run_evaluate`: files in, a printed page, a JSON file and an exit code out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from reportlabel.errors import ConfigError, InputError
from reportlabel.evaluate import run_evaluate
from reportlabel.evaluate.present import excerpt

GOLD = "report_id,finding,status\nr1,ascites,present\nr2,ascites,absent\n"
REPORTS = 'report_id,text\nr1,Fluid.\nr2,"No\nfluid [today]."\n'


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.parquet"
    pl.DataFrame(
        {"report_id": ["r1", "r2"], "finding": ["ascites", "ascites"], "value": ["present", "present"]}
    ).write_parquet(path)
    return path


def run(pred: Path, gold: Path, *, reports: Path | None = None, json_out: Path | None = None) -> tuple[int, str]:
    out = io.StringIO()
    console = Console(file=out, width=120)
    code = run_evaluate(pred, gold, reports=reports, json_out=json_out, bootstrap=50, seed=0, console=console)
    return code, out.getvalue()


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_prints_scores_and_the_text_of_disagreements(labels: Path, tmp_path: Path) -> None:
    gold, reports = written(tmp_path / "gold.csv", GOLD), written(tmp_path / "reports.csv", REPORTS)
    code, page = run(labels, gold, reports=reports)
    assert code == 0
    assert "2 rows of 2 reports scored" in page
    assert "four-way accuracy 0.500" in page
    assert "ascites r2: gold absent, predicted present" in page
    assert "No fluid [today]." in page
    assert "macro-F1 over 1 finding that gold has it for" in page


def test_json_holds_the_excerpts_and_leaves_no_draft_behind(labels: Path, tmp_path: Path) -> None:
    gold, reports = written(tmp_path / "gold.csv", GOLD), written(tmp_path / "reports.csv", REPORTS)
    target = tmp_path / "out" / "evaluation.json"
    target.parent.mkdir()
    run(labels, gold, reports=reports, json_out=target)
    assert json.loads(target.read_text(encoding="utf-8"))["disagreements"][0]["excerpt"] == "No fluid [today]."
    assert [path.name for path in target.parent.iterdir()] == ["evaluation.json"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_reads_the_encodings_of_hospital_exports(labels: Path, tmp_path: Path, encoding: str) -> None:
    extra = GOLD + "\u5831\u544a,ascites,absent\n"  # a report id in kanji
    code, page = run(labels, written(tmp_path / "gold.csv", extra, encoding))
    assert code == 1
    assert "1 gold row without a prediction (not scored), in 1 report: ascites 1" in page


def test_predictions_without_gold_are_reported_and_are_no_failure(labels: Path, tmp_path: Path) -> None:
    code, page = run(labels, written(tmp_path / "gold.csv", "report_id,finding,status\nr1,ascites,present\n"))
    assert code == 0
    assert "1 predicted row without a gold label" in page
    assert "no disagreements" in page


def test_gold_may_be_parquet(labels: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.parquet"
    pl.DataFrame({"report_id": ["r1"], "finding": ["ascites"], "value": ["present"]}).write_parquet(gold)
    assert run(labels, gold)[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "does not exist"),
        (".", None, "is a directory"),
        ("gold.csv", b"", "not a readable CSV"),
        ("gold.csv", b"report_id,finding,status\n\x81\xff\xfe,x,present\n", "not a readable CSV"),
        ("gold.parquet", b"report_id,finding,status\n", "not a readable Parquet"),
        ("gold.csv", b"report_id,finding,status\nr1,ascites,\n", "gold.csv, data row 1: no value"),
    ],
)
def test_unusable_files_are_refused_by_name(
    labels: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    gold = tmp_path / name
    if content is not None:
        gold.write_bytes(content)
    with pytest.raises(InputError, match=message):
        run(labels, gold)


def test_reports_without_text_are_refused(labels: Path, tmp_path: Path) -> None:
    gold, reports = written(tmp_path / "gold.csv", GOLD), written(tmp_path / "reports.csv", "report_id\nr1\n")
    with pytest.raises(InputError, match="text"):
        run(labels, gold, reports=reports)


def test_an_unwritable_result_is_refused(labels: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", GOLD)
    with pytest.raises(ConfigError, match="cannot write"):
        run(labels, gold, json_out=tmp_path / "no such folder" / "out.json")
    with pytest.raises(ConfigError, match="cannot write"):
        run(labels, gold, json_out=tmp_path)


def test_a_negative_number_of_resamples_is_refused(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--bootstrap"):
        run_evaluate(
            labels,
            written(tmp_path / "gold.csv", GOLD),
            reports=None,
            json_out=None,
            bootstrap=-1,
            seed=0,
            console=Console(),
        )


@pytest.mark.parametrize(
    "evidence",
    [
        '[{"rule": "a"}, {"start": 100, "end": 103}]',
        {"start": 100, "end": 103},
        [{"start": 100, "end": 103}, {"start": 0, "end": 1}],
    ],
)
def test_excerpt_is_cut_around_the_evidence(evidence: object) -> None:
    text = "a" * 100 + "HIT" + "b" * 100
    assert excerpt(text, evidence) == "…" + "a" * 60 + "HIT" + "b" * 60 + "…"


@pytest.mark.parametrize("evidence", [None, "not JSON", "[]", {"start": "x"}, 3])
def test_excerpt_without_a_span_is_the_beginning(evidence: object) -> None:
    assert excerpt("short text\nof two lines", evidence) == "short text of two lines"
    assert excerpt("a" * 400, evidence) == "a" * 300 + "…"
    assert excerpt(None, evidence) is None


def test_messages_quote_no_cell(labels: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", "report_id,finding,status\nsecret,ascites,present\nsecret,ascites,absent\n")
    with pytest.raises(InputError) as caught:
        run(labels, gold)
    assert "secret" not in str(caught.value)
    assert "data row 2" in str(caught.value)


def test_a_result_never_replaces_an_input(labels: Path, tmp_path: Path) -> None:
    gold = written(tmp_path / "gold.csv", GOLD)
    with pytest.raises(ConfigError, match="input"):
        run(labels, gold, json_out=gold)
    assert gold.read_text(encoding="utf-8") == GOLD
