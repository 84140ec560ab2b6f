"""From nothing to a model folder, to labels with it, and to a round of training on a workspace with readings."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from reportlabel import flow
from reportlabel.errors import ConfigError
from reportlabel.label import label_file
from reportlabel.run import Options, open_workspace, run
from reportlabel.schema import READINGS
from reportlabel.study import load_study
from reportlabel.synth.hospital import Hospital, make_hospital
from reportlabel.train.command import run_train
from reportlabel.train.run import train_model
from reportlabel.train.settings import TrainSettings, load_train_settings
from reportlabel.vote.bert import read_card
from reportlabel.vote.taught import exams_that_teach

for needed in ("torch", "transformers", "accelerate", "onnx", "onnxruntime", "tokenizers"):
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def settings() -> TrainSettings:
    loaded = load_train_settings()
    data = loaded.data.model_copy(
        update={"patients": 30, "repeats": 1, "silent": 200, "frames_a_finding": 1, "validate_each": 4, "least": 20}
    )
    model = loaded.model.model_copy(update={"pieces": 1200, "width": 32, "layers": 1, "heads": 2, "inner": 32})
    fitting = loaded.fit.model_copy(update={"epochs": 1, "evaluations": 2, "learning_rate": 0.005})
    decide = loaded.decide.model_copy(update={"mention_from": 0.01})  # so small a model is sure of nothing
    return loaded.model_copy(update={"data": data, "model": model, "fit": fitting, "decide": decide})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def model(folder: Path, settings: TrainSettings) -> Path:
    done = train_model(folder / "tiny", settings=settings, work=folder / "tiny.work", threads=1)
    assert done.agreement.decisions_equal > 0.99
    assert done.overall["validate"]["f1"] >= 0
    return done.folder


@pytest.fixture(scope="module")
def workspace(folder: Path) -> Path:
    make_hospital(Hospital(folder / "hospital", 25, 3, ("ssmix2", "ris")))
    run(folder / "hospital" / "archive.yaml", folder / "workspace", Options(parts=1))
    return folder / "workspace"


def test_the_folder_has_all_that_is_needed(model: Path) -> None:
    assert {path.name for path in model.iterdir()} == {
        "model.yaml", "README.md", "model.onnx", "tokenizer.json", "weights.safetensors",
    }  # fmt: skip
    card = read_card(model)
    assert card.id == "tiny" and len(card.findings) > 50
    text = (model / "README.md").read_text(encoding="utf-8")
    assert card.data_sha256 in text and "## Limits" in text
    assert all(f"| {finding} |" in text for finding in card.findings)


def test_a_second_call_trains_nothing_anew(model: Path, folder: Path, settings: TrainSettings) -> None:
    before = read_card(model)
    again = train_model(folder / "tiny", settings=settings, work=folder / "tiny.work", threads=1)
    assert again.card.graph == before.graph
    other = settings.model_copy(update={"fit": settings.fit.model_copy(update={"seed": 1})})
    with pytest.raises(ConfigError, match="other settings, rules or data"):
        train_model(folder / "tiny", settings=other, work=folder / "tiny.work", threads=1)


def test_workers_make_no_difference(model: Path, tmp_path: Path) -> None:
    reports = tmp_path / "reports.csv"
    rows = "".join(f"{number},右肺に結節を認めます。肝嚢胞{number}個。\n" for number in range(5))
    reports.write_text(f"report_id,text\n{rows}", encoding="utf-8")
    for workers in (1, 2):
        out = tmp_path / f"out{workers}.parquet"
        label_file(reports, label_set="lung_ct", out=out, model=model, workers=workers)
    one, two = (pl.read_parquet(tmp_path / f"out{workers}.parquet") for workers in (1, 2))
    assert one.equals(two)
    assert pl.read_parquet_metadata(tmp_path / "out1.parquet")["model"].startswith("tiny@")


def test_a_study_with_a_classifier_has_its_votes(model: Path, workspace: Path) -> None:
    tables = open_workspace(workspace)
    exams, reports, records = (tables.read(name) for name in ("exams", "reports", "records"))
    study = load_study(label_sets=["lung_ct"], classifier=model)
    assert (study.classifier_version or "").startswith("tiny@")
    votes = flow.vote(exams, reports, records, study).votes
    without = flow.vote(exams, reports, records, replace(study, classifier=None)).votes
    own = votes.filter(pl.col("kind") == "bert")
    assert own.height > 0 and set(own["function_id"]) == {"bert/tiny"} and set(own["group"]) == {"bert"}
    assert votes.filter(pl.col("kind") != "bert").equals(without)
    study.forget_readers()


def test_a_round_learns_from_the_workspace(
    model: Path, workspace: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, settings: TrainSettings
) -> None:
    tables = open_workspace(workspace)
    labels = tables.read("labels").filter((pl.col("value") == "present") & (pl.col("label_set") == "lung_ct"))
    some = labels.unique("exam_id", maintain_order=True)
    share = settings.archive.readings_share
    teaching = exams_that_teach(tables.read("exams").join(some, on="exam_id", how="semi"), share)
    assert 0 < teaching.height < some.height
    readings = some.select(
        "exam_id", "label_set", "finding", reader=pl.lit("a"), value=pl.lit("present"),
        spans=pl.lit([], dtype=READINGS["spans"]), origin=pl.lit("confirmed"),
        read_at=pl.lit(datetime(2024, 1, 1)), annotation_id=pl.lit("1"), sha256=pl.lit(""),
    )  # fmt: skip
    tables.append("readings", readings.cast(READINGS))
    short = settings.model_copy(
        update={"recipes": {"round": settings.recipes["small"].model_copy(update={
            "patients": 10, "repeats": 1, "silent": 50, "frames_a_finding": 0, "epochs": 1})},
            "pretrain": settings.pretrain.model_copy(update={"epochs": 0.5})}
    )  # fmt: skip
    monkeypatch.setattr("reportlabel.train.command.load_train_settings", lambda _: short)
    shown = StringIO()
    out = folder / "second"
    console = Console(file=shown, width=120)
    assert run_train(out, workspace=workspace, base=model, pretrain=True, threads=1, console=console) == 0
    card = read_card(out)
    assert card.findings == read_card(model).findings
    assert card.tokenizer.sha256 == read_card(model).tokenizer.sha256
    assert card.graph.sha256 != read_card(model).graph.sha256
    assert card.made_with == "reportlabel train WORKSPACE --base tiny --pretrain --out models/second"
    assert "that readers settled" in shown.getvalue() and " 0 that readers" not in shown.getvalue()
    assert card.readings_share == share and "those of 50% of the patients" in (out / "README.md").read_text("utf-8")

    # the readings that may have taught the model do not judge it; they judge one that no reading has taught
    for voting, judging in ((out, some.height - teaching.height), (model, some.height), (None, some.height)):
        run(folder / "hospital" / "archive.yaml", workspace, Options(parts=1, classifier=voting))
        choices = tables.read("choices").filter(pl.col("label_set") == "lung_ct")
        assert choices["n_reviewed"].sum() == judging
        settled = tables.read("labels").filter(pl.col("review_state") == "reviewed")
        assert settled.height == some.height  # the reader's word is the label all the same


def test_what_cannot_be_trained_is_said(folder: Path) -> None:
    console = Console(file=StringIO())
    with pytest.raises(ConfigError, match="the name of the folder is the id"):
        run_train(folder / "My Model", console=console)
    with pytest.raises(ConfigError, match="--pretrain needs the reports of a workspace"):
        run_train(folder / "third", pretrain=True, console=console)
    with pytest.raises(ConfigError, match="has further, round, small"):
        run_train(folder / "third", recipe="huge", console=console)
