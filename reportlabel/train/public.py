"""A public model made ready for reading: fetched once at a revision, written as an ONNX graph, its files hashed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field
from torch import Tensor, nn

from reportlabel.errors import ConfigError, InputError
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.train.export import GRAPH, write_onnx
from reportlabel.vote.bert import MODEL_FILE, ModelPart, sha256_of
from reportlabel.vote.public import PublicCard, Target, read_public_card
from reportlabel.vote.word_pieces import FastEntry, MecabEntry


class PublicEntry(Strict):
    """What a user writes of a public model; see `reportlabel.vote.public.PublicCard` for what the fields say.

    Attributes:
        source: repository of the Hugging Face hub, or a folder beside the entry.
        weights_sha256: hash that the file of weights must have (``model.safetensors`` or ``pytorch_model.bin``).
        tokenizer: ``fast`` where there is a ``tokenizer.json``; ``mecab`` for words of MeCab and a ``vocab.txt``.
        int8: whether the matrices are stored in 8 bits.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    source: str
    revision: Annotated[str, Field(min_length=1)]
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    licence: str
    level: Literal["report", "sentence", "span"]
    scores: Literal["sigmoid", "softmax"]
    tokenizer: Literal["fast", "mecab"]
    dictionary: Literal["unidic_lite", "ipadic"] = "unidic_lite"
    pieces: Literal["wordpiece", "character"] = "wordpiece"
    lower_case: bool = False
    means: Annotated[dict[str, Target], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=8)] = 512
    add_from: Annotated[float, Field(gt=0, lt=1)] = 0.9
    beside_from: Annotated[float, Field(gt=0, lt=1)] = 0.97
    int8: bool = True


class _Logits(nn.Module):
    """The network as a graph of three inputs and one output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        logits: Tensor = self.model(**given).logits
        return logits


def convert_public(entry: Path, out: Path) -> PublicCard:
    """Fetch a model, check its weights, write the model folder and read it back.

    Raises:
        ConfigError: a wrong entry (file and line), labels that the model does not have, a tokenizer file it lacks.
        InputError: the model cannot be fetched, or its weights have another hash.
    """
    wanted = parse(read_yaml(entry), PublicEntry)
    folder = _fetched(wanted, entry.parent)
    weights = next(
        (folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).is_file()), None
    )
    if weights is None or sha256_of(weights) != wanted.weights_sha256:
        found = "no weights" if weights is None else f"SHA-256 {sha256_of(weights)[:12]}…"
        raise InputError(
            f"{wanted.source}: {found}, {entry.name} says {wanted.weights_sha256[:12]}…; check the revision"
        )
    model = _model(wanted, folder)
    labels = [str(model.config.id2label[at]) for at in range(model.config.num_labels)]
    out.mkdir(parents=True, exist_ok=True)
    name = "tokenizer.json" if wanted.tokenizer == "fast" else "vocab.txt"
    if not (folder / name).is_file():
        raise ConfigError(f"{wanted.source} has no {name}; give the other kind of tokenizer in {entry.name}")
    shutil.copyfile(folder / name, out / name)
    write_onnx(_Logits(model), out / GRAPH, inputs=["input_ids", "attention_mask", "token_type_ids"], int8=wanted.int8)
    part = ModelPart(file=name, sha256=sha256_of(out / name))
    tokenizer = (
        FastEntry(kind="fast", file=part)
        if wanted.tokenizer == "fast"
        else MecabEntry(
            kind="mecab",
            vocabulary=part,
            dictionary=wanted.dictionary,
            pieces=wanted.pieces,
            lower_case=wanted.lower_case,
        )
    )
    shared = wanted.model_dump(include=set(PublicCard.model_fields) - {"tokenizer"})
    graph = {"file": GRAPH, "sha256": sha256_of(out / GRAPH)}
    written = {**shared, "kind": "public", "graph": graph, "tokenizer": tokenizer.model_dump(), "labels": labels}
    text = yaml.safe_dump(written, allow_unicode=True, sort_keys=False, width=120)
    (out / MODEL_FILE).write_text(text, encoding="utf-8")
    return read_public_card(out)


def _fetched(wanted: PublicEntry, beside: Path) -> Path:
    local = beside / wanted.source
    if local.is_dir():
        return local
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(wanted.source, revision=wanted.revision))
    except Exception as error:  # network, rights, name, revision: the library has a dozen kinds
        raise InputError(
            f"{wanted.source} at {wanted.revision} cannot be fetched ({type(error).__name__}); download it "
            "elsewhere and give its folder as source"
        ) from error


def _model(wanted: PublicEntry, folder: Path) -> Any:
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kind = AutoModelForTokenClassification if wanted.level == "span" else AutoModelForSequenceClassification
    try:
        return kind.from_pretrained(str(folder), attn_implementation="eager", local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise InputError(f"{wanted.source}: transformers cannot load it ({type(error).__name__})") from error
