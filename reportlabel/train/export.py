"""From a trained network to a model folder: ONNX, int8, calibration, and the check that both decide alike."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
import yaml
from torch import nn
from torch.nn import functional

from reportlabel.errors import ConfigError
from reportlabel.train.fit import decided
from reportlabel.train.model import FindingModel
from reportlabel.vote.bert import MODEL_FILE, BertExtractor, ModelCard, Temperature, padded

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
_OPSET = 17


def write_onnx(network: nn.Module, target: Path, *, inputs: Sequence[str], int8: bool) -> None:
    """Write a network of tables of integers (rows, tokens) as an ONNX graph with one output, ``scores``.

    Args:
        int8: store matrices of constants in 8 bits, a scale for each column; the rest stays float.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    one = torch.ones(2, 8, dtype=torch.int64)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its successor and about shapes that do not change
        plain = Path(folder) / "plain.onnx" if int8 else target
        torch.onnx.export(
            network.eval(),
            (one,) * len(inputs),
            str(plain),
            input_names=list(inputs),
            output_names=["scores"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in inputs} | {"scores": {0: "rows"}},
            opset_version=_OPSET,
            dynamo=False,
        )
        if int8:
            quantize_dynamic(
                str(plain),
                str(target),
                weight_type=QuantType.QInt8,
                per_channel=True,
                extra_options={"MatMulConstBOnly": True},
            )


def save_weights(model: FindingModel, target: Path) -> None:
    """Write the weights of the network in half precision: enough to train on from them."""
    from safetensors.torch import save

    target.write_bytes(save({name: one.half().contiguous() for name, one in model.state_dict().items()}))


def fit_temperature(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Temperature:
    """The temperatures under which the probabilities of known labels come true best (least log loss).

    C. Guo et al., On calibration of modern neural networks, ICML 2017: one number for "mentioned", one for the status.
    """
    scores, known = torch.from_numpy(logits), torch.from_numpy(labels)
    mention = _least(lambda by: functional.binary_cross_entropy_with_logits(scores[..., 0] / by, (known > 0).float()))
    said = known > 0
    status = _least(lambda by: functional.cross_entropy(scores[..., 1:][said] / by, known[said] - 1))
    return Temperature(mention=mention, status=status)


def _least(loss: Any) -> float:
    """The number between 0.25 and 8 with the least loss, on a fine grid of its logarithm."""
    grid = np.exp(np.linspace(np.log(0.25), np.log(8), 61))
    return round(float(min(grid, key=lambda by: float(loss(by)))), 3)


@dataclass(frozen=True)
class Agreement:
    """How often the exported graph decides as the network: sentences, and sentence-finding pairs."""

    sentences: int
    sentences_equal: float
    decisions_equal: float
    most_different: float


def agreement(model: FindingModel, extractor: BertExtractor, examples: pl.DataFrame) -> Agreement:
    """Compare the decisions of the graph with those of the network on the sentences of a table of `EXAMPLES`."""
    equal_rows: list[bool] = []
    equal = 0.0
    different = 0.0
    for (region,), own in examples.group_by("region", maintain_order=True):
        rows = list(extractor.reader(own["before"].to_list(), own["text"].to_list(), region=str(region)))
        for first in range(0, len(rows), 32):
            inputs = padded(rows[first : first + 32])
            ours = extractor.session.run(None, inputs)[0]
            with torch.inference_mode():
                theirs = model.scores(**{name: torch.from_numpy(values) for name, values in inputs.items()}).numpy()
            same = decided(ours) == decided(theirs)
            equal_rows += same.all(axis=1).tolist()
            equal += float(same.mean(axis=1).sum())
            different = max(different, float(np.abs(_chance(ours) - _chance(theirs)).max()))
    count = len(equal_rows)
    return Agreement(count, sum(equal_rows) / count, equal / count, different)


def _chance(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-scores[..., 0].astype(np.float64))))


def write_card(card: ModelCard, folder: Path) -> None:
    """Write ``model.yaml``."""
    text = yaml.safe_dump(card.model_dump(mode="json"), allow_unicode=True, sort_keys=False, width=120)
    try:
        (folder / MODEL_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {folder / MODEL_FILE}: {error.strerror or 'the disk refused'}") from error
