"""Public models: a tiny one is made here, made ready as a user would, and read without torch."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import yaml

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError, InputError, ReportLabelError
from reportlabel.vote.bert import PREDICTIONS, load_classifier, sha256_of
from reportlabel.vote.public import PublicModel

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "肺", "右", "に", "結節", "を", "認め", "ます", "。", "胸水", "は"]
TEXT = "右肺に結節を認めます。\n胸水は認めません。"


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


def make_source(folder: Path, labels: list[str], *, tokens: bool) -> None:
    """A tiny network whose answer depends on one piece alone: 結節 -> the second label, 胸水 -> the third."""
    folder.mkdir()
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, num_labels=len(labels), id2label=dict(enumerate(labels)),
    )  # fmt: skip
    torch.manual_seed(3)
    kind = transformers.BertForTokenClassification if tokens else transformers.BertForSequenceClassification
    network = kind(config).eval()
    if tokens:
        with torch.no_grad():
            for layer in network.bert.encoder.layer:  # let every piece speak for itself
                layer.attention.output.dense.weight.zero_()
                layer.output.dense.weight.zero_()
            network.bert.embeddings.position_embeddings.weight.zero_()
            states = network.bert(torch.arange(len(PIECES)).unsqueeze(0)).last_hidden_state[0]
            network.classifier.weight.zero_()
            network.classifier.bias.zero_()
            network.classifier.bias[0] = 8.0
            mean = states.mean(0)
            for label, piece in ((1, "結節"), (2, "胸水")):
                apart = states[PIECES.index(piece)] - mean
                network.classifier.weight[label] = apart * 40 / (apart @ apart)
                network.classifier.bias[label] = -float(network.classifier.weight[label] @ mean) - 12
    network.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")


def write_entry(folder: Path, **values: object) -> Path:
    entry = {
        "id": "tiny", "source": "source", "revision": "abc", "licence": "none", "tokenizer": "mecab", "int8": False,
        "weights_sha256": sha256_of(folder / "source" / "model.safetensors"), **values,
    }  # fmt: skip
    path = folder / "entry.yaml"
    path.write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def span_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reportlabel.train.public import convert_public

    folder = tmp_path_factory.mktemp("span")
    make_source(folder / "source", ["O", "B-nodule", "B-effusion"], tokens=True)
    means = {"nodule": {"finding": "lung_nodule"}, "effusion": {"finding": "pleural_effusion", "status": "absent"}}
    card = convert_public(write_entry(folder, level="span", scores="softmax", means=means), folder / "model")
    assert card.labels == ["O", "B-nodule", "B-effusion"]
    return folder / "model"


def test_spans_are_those_of_the_report(span_model: Path, annotator: Annotator) -> None:
    model = load_classifier(span_model)
    assert isinstance(model, PublicModel)
    said = model.read(pl.DataFrame({"report_id": ["r"], "text": [TEXT]}), region="chest", annotator=annotator)
    assert said.schema == PREDICTIONS
    told = [(row["surface"], row["finding"], row["status"]) for row in said.to_dicts()]
    assert told == [("結節", "lung_nodule", "present"), ("胸水", "pleural_effusion", "absent")]
    assert all(TEXT[row["start"] : row["end"]] == row["surface"] for row in said.to_dicts())
    assert (said["confidence"] > 0.9).all()


def test_an_altered_public_model_is_refused(span_model: Path) -> None:
    (span_model / "vocab.txt").write_text("\n".join([*PIECES, "別"]), encoding="utf-8")
    try:
        with pytest.raises(ConfigError, match=r"vocab.txt: SHA-256 is"):
            load_classifier(span_model)
    finally:
        (span_model / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")


@pytest.mark.parametrize(("level", "scores"), [("sentence", "softmax"), ("report", "sigmoid")])
def test_the_graph_says_what_the_network_says(tmp_path: Path, annotator: Annotator, level: str, scores: str) -> None:
    from reportlabel.train.public import convert_public

    make_source(tmp_path / "source", ["nothing", "nodule", "effusion"], tokens=False)
    means = {
        "nodule": {"finding": "lung_nodule", "threshold": 0.0001},
        "effusion": {"finding": "pleural_effusion", "threshold": 0.0001},
    }
    convert_public(write_entry(tmp_path, level=level, scores=scores, means=means), tmp_path / "model")
    model = PublicModel.load(tmp_path / "model")
    said = model.read(pl.DataFrame({"report_id": ["r"], "text": [TEXT]}), region=None, annotator=annotator)
    network = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "source").eval()
    first = TEXT if level == "report" else TEXT.split("\n", maxsplit=1)[0]
    ids = [2, *(piece.id for piece in model.tokens(first)), 3]
    with torch.inference_mode():
        logits = network(torch.tensor([ids])).logits[0]
    chances = logits.softmax(-1) if scores == "softmax" else logits.sigmoid()
    found = dict(said.filter(pl.col("sentence") == 0).select("finding", "confidence").iter_rows())
    assert found["lung_nodule"] == pytest.approx(float(chances[1]), abs=2e-4)
    assert found["pleural_effusion"] == pytest.approx(float(chances[2]), abs=2e-4)
    assert said["surface"][0] == first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"means": {"cyst": {"finding": "lung_nodule"}}}, "no label 'cyst'"),
        ({"weights_sha256": "0" * 64}, "SHA-256"),
        ({"tokenizer": "fast"}, "has no tokenizer.json"),
        ({"treshold": 1}, "treshold"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path: Path, values: dict[str, object], message: str) -> None:
    from reportlabel.train.public import convert_public

    make_source(tmp_path / "source", ["nothing", "nodule"], tokens=False)
    given = {"level": "sentence", "scores": "softmax", "means": {"nodule": {"finding": "lung_nodule"}}, **values}
    with pytest.raises(ReportLabelError, match=message):
        convert_public(write_entry(tmp_path, **given), tmp_path / "model")


def test_a_source_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reportlabel.train.public import convert_public

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_source(tmp_path / "source", ["nothing", "nodule"], tokens=False)
    given = {"level": "sentence", "scores": "softmax", "means": {"nodule": {"finding": "lung_nodule"}}}
    entry = write_entry(tmp_path, **given, source="nobody/nothing")
    with pytest.raises(InputError, match="nobody/nothing at abc cannot be fetched"):
        convert_public(entry, tmp_path / "model")


def test_a_finding_that_the_rules_lack_is_named(span_model: Path, annotator: Annotator) -> None:
    path = span_model / "model.yaml"
    before = path.read_text(encoding="utf-8")
    path.write_text(before.replace("finding: lung_nodule", "finding: long_noodle"), encoding="utf-8")
    try:
        model = load_classifier(span_model)
        with pytest.raises(ConfigError, match="long_noodle, which no rule file has"):
            model.read(pl.DataFrame({"report_id": ["r"], "text": [TEXT]}), region=None, annotator=annotator)
    finally:
        path.write_text(before, encoding="utf-8")
