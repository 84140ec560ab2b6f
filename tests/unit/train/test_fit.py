"""Fitting a miniature network: it learns, it can be taken up again, its graph decides alike."""

# ruff: noqa: E402 - without the training libraries nothing here can be imported

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

for needed in ("torch", "transformers", "accelerate", "onnx", "onnxruntime", "tokenizers"):
    pytest.importorskip(needed)

import torch
from tokenizers import Tokenizer

from reportlabel.annotate.annotator import Annotator
from reportlabel.train.augment import Augmenter
from reportlabel.train.card import overall_figures
from reportlabel.train.examples import EXAMPLES, Statement, example_row
from reportlabel.train.export import agreement, fit_temperature, write_card
from reportlabel.train.fit import Fitted, decided, fit, outputs, statement_f1
from reportlabel.train.graph import quantised, write_finding_graph
from reportlabel.train.model import finding_loss
from reportlabel.train.pieces import train_pieces
from reportlabel.train.pretrain import pretrain
from reportlabel.train.settings import TrainSettings, load_train_settings
from reportlabel.vote.bert import (
    BertExtractor,
    ModelCard,
    ModelPart,
    NetworkSizes,
    Temperature,
    sha256_of,
)

FINDINGS = {"lung_nodule": "結節", "pleural_effusion": "胸水", "emphysema": "気腫"}
ENDINGS = {"present": "を認めます。", "uncertain": "を疑います。", "absent": "は認めません。"}
PLACES = ("右肺に", "左肺に", "両側に", "上葉に", "下葉に", "", "胸膜下に", "肺尖に")


def sentences() -> pl.DataFrame:
    """Every place with every finding and status; one place of each pair is held out, its words are not."""
    pairs = [(finding, status) for finding in FINDINGS for status in ENDINGS]
    rows = [
        example_row(
            "chest", "", f"{place}{FINDINGS[finding]}{ENDINGS[status]}",
            [Statement(finding, status, 1.0, FINDINGS[finding])], "frame",
            "validate" if at == number % len(PLACES) else "train",
        )
        for number, (finding, status) in enumerate(pairs)
        for at, place in enumerate(PLACES)
    ]  # fmt: skip
    silent = [example_row("chest", "", f"{place}著変ありません。", [], "frame", "train") for place in PLACES]
    return pl.DataFrame([*rows, *silent], schema=EXAMPLES, orient="row")


@pytest.fixture(scope="module")
def settings() -> TrainSettings:
    loaded = load_train_settings()
    model = loaded.model.model_copy(
        update={"pieces": 200, "width": 32, "layers": 1, "heads": 2, "inner": 32, "dropout": 0.05}
    )
    fitting = loaded.fit.model_copy(
        update={"epochs": 40, "batch": 16, "evaluations": 2, "learning_rate": 0.01, "patience": 5}
    )
    rates = dict.fromkeys(("synonym", "same_meaning", "other_meaning", "typo", "join", "other_context"), 0.0)
    augment = loaded.augment.model_copy(update=rates)
    first = loaded.pretrain.model_copy(update={"epochs": 2, "batch": 16})
    return loaded.model_copy(update={"model": model, "fit": fitting, "augment": augment, "pretrain": first})


@pytest.fixture(scope="module")
def tokenizer(settings: TrainSettings) -> Tokenizer:
    return train_pieces(sentences()["text"].to_list(), regions=["chest"], size=settings.model.pieces)


def train(settings: TrainSettings, tokenizer: Tokenizer, work: Path) -> Fitted:
    table = sentences()
    return fit(
        table.filter(pl.col("split") == "train"),
        table.filter(pl.col("split") == "validate"),
        tokenizer=tokenizer,
        findings=list(FINDINGS),
        regions=["chest"],
        augmenter=Augmenter.of(settings, {}, Annotator().normaliser),
        settings=settings,
        work=work,
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit") / "checkpoints"


@pytest.fixture(scope="module")
def fitted(settings: TrainSettings, tokenizer: Tokenizer, work: Path) -> Fitted:
    torch.set_num_threads(1)
    return train(settings, tokenizer, work)


def scored(fitted: Fitted, settings: TrainSettings, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    return outputs(
        fitted.model,
        sentences().filter(pl.col("split") == "validate"),
        tokenizer=tokenizer,
        findings=list(FINDINGS),
        regions=["chest"],
        settings=settings,
    )


def test_it_learns(fitted: Fitted, settings: TrainSettings, tokenizer: Tokenizer) -> None:
    logits, labels = scored(fitted, settings, tokenizer)
    assert statement_f1(decided(logits), labels)["f1"] > 0.9
    assert fitted.history[-1]["eval_f1"] > 0.9


def test_taken_up_again_it_ends_alike(
    fitted: Fitted, settings: TrainSettings, tokenizer: Tokenizer, work: Path, tmp_path: Path
) -> None:
    first = min(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    shutil.copytree(first, tmp_path / first.name)
    again = train(settings, tokenizer, tmp_path)
    for name, one in fitted.model.state_dict().items():
        assert torch.allclose(one, again.model.state_dict()[name], atol=1e-5), name


def test_the_graph_decides_as_the_network(
    fitted: Fitted, settings: TrainSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    write_finding_graph(fitted.model, tmp_path / "model.onnx")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    parts = {
        name: ModelPart(file=file, sha256=sha256_of(tmp_path / file))
        for name, file in (("graph", "model.onnx"), ("tokenizer", "tokenizer.json"))
    }
    card = ModelCard(
        id="tiny", version="0", kind="sentence_findings", **parts, findings=list(FINDINGS), regions=["chest"],
        context_tokens=settings.model.context_tokens, max_tokens=settings.model.max_tokens, mention_from=0.5,
        add_from=0.9,
        beside_from=0.9, temperature=Temperature(mention=1, status=1),
        network=NetworkSizes(width=32, layers=1, heads=2, inner=32), rules_sha256="", data_sha256="", seed=1,
        made_with="a test",
    )  # fmt: skip
    write_card(card, tmp_path)
    extractor = BertExtractor.load(tmp_path)
    assert extractor.card == card
    same = agreement(fitted.model, extractor, sentences())
    assert same.sentences == sentences().height
    assert same.decisions_equal > 0.99
    assert same.most_different < 0.02
    said = extractor.read(
        pl.DataFrame({"report_id": ["r"], "text": ["右肺に結節を認めます。"]}), region="chest", annotator=Annotator()
    )
    assert said.select("finding", "status").rows() == [("lung_nodule", "present")]


def test_a_matrix_in_eight_bits_is_nearly_the_same() -> None:
    matrix = np.array([[1.0, -0.02, 0.0], [-0.5, 0.01, 0.0]], np.float32)
    steps, scales = quantised(matrix)
    assert steps.dtype == np.int8
    assert np.abs(steps).max() == 63
    assert np.allclose(steps * scales, matrix, atol=scales.max() / 2)
    by_row, row_scales = quantised(matrix, axis=1)
    assert np.allclose(by_row * row_scales[:, np.newaxis], matrix, atol=row_scales.max() / 2)


def test_masked_words_come_first_where_they_are_wanted(
    settings: TrainSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    texts = sentences()["text"].to_list()
    weights = pretrain(texts, tokenizer=tokenizer, settings=settings, work=tmp_path)
    assert all(name.startswith("encoder.") for name in weights)
    again = pretrain(texts, tokenizer=tokenizer, settings=settings, work=tmp_path, start=weights)
    assert set(again) == set(weights)


def test_a_status_that_is_not_sure_is_a_soft_target() -> None:
    scores = torch.tensor([[[9.0, 5.0, 0.0, 0.0]]])
    labels, weights = torch.tensor([[1]]), torch.ones(1, 1)
    losses = [
        float(finding_loss(scores, labels, weights, torch.tensor([[sure]]), status_weight=1.0)) for sure in (1.0, 0.5)
    ]
    assert losses[0] < 0.1 < losses[1]
    none = finding_loss(scores, labels, torch.zeros(1, 1), status_weight=1.0)
    assert float(none) == 0.0
    assert float(finding_loss(scores, torch.tensor([[-1]]), weights, status_weight=1.0)) == 0.0


def test_calibration_finds_the_temperature() -> None:
    draw = np.random.default_rng(1)
    true = draw.normal(size=(4000, 1, 4)).astype(np.float32) * 2
    mentioned = draw.random((4000, 1)) < 1 / (1 + np.exp(-true[..., 0]))
    shares = np.exp(true[..., 1:]) / np.exp(true[..., 1:]).sum(-1, keepdims=True)
    status = (draw.random((4000, 1, 1)) > shares.cumsum(-1)).sum(-1)
    labels = np.where(mentioned, 1 + np.minimum(status, 2), 0).astype(np.int64)
    found = fit_temperature(true * 3, labels)
    assert found.mention == pytest.approx(3, rel=0.15)
    assert found.status == pytest.approx(3, rel=0.15)
    assert overall_figures(true * 3, labels, found, mention_from=0.5)["ece"] < 0.05
