"""The model card: what a model learned from, how good it is, and where its limits lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from reportlabel.train.settings import TrainSettings
from reportlabel.vote.bert import STATUSES, ModelCard, Temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from reportlabel.train.export import Agreement

_BINS = 10


def finding_figures(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    findings: Sequence[str],
    train: pl.DataFrame,
    temperature: Temperature,
    *,
    mention_from: float,
) -> pl.DataFrame:
    """One row a finding: examples of training, mentions of validation, precision, recall and F1 of its statements."""
    codes, _ = _codes(logits, temperature, mention_from)
    learned = dict(train.explode("findings").drop_nulls("findings").group_by("findings").len().iter_rows())
    rows = []
    for at, finding in enumerate(findings):
        said, meant = codes[:, at], labels[:, at]
        right, predicted, mentions = int(((said > 0) & (said == meant)).sum()), int((said > 0).sum()), (meant > 0).sum()
        rows.append(
            (
                finding,
                learned.get(finding, 0),
                int(mentions),
                right / predicted if predicted else None,
                right / int(mentions) if mentions else None,
                2 * right / (predicted + int(mentions)) if predicted + mentions else None,
            )
        )
    columns = ["finding", "examples", "mentions", "precision", "recall", "f1"]
    kinds = [pl.String, pl.Int64, pl.Int64, pl.Float64, pl.Float64, pl.Float64]
    return pl.DataFrame(rows, schema=dict(zip(columns, kinds, strict=True)), orient="row")


def overall_figures(
    logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: Temperature, *, mention_from: float
) -> dict[str, float]:
    """Sentences, micro-averaged F1 of statements and of each status, and the expected calibration error of votes.

    The calibration error is the mean distance between confidence and share right over ten bins of equal width, weighted
    by votes (C. Guo et al., ICML 2017).
    """
    codes, confidence = _codes(logits, temperature, mention_from)
    result: dict[str, float] = {"sentences": float(len(labels))}
    result["f1"] = _f1((codes > 0) & (codes == labels), codes > 0, labels > 0)
    for at, status in enumerate(STATUSES, 1):
        result[f"f1_{status}"] = _f1((codes == at) & (labels == at), codes == at, labels == at)
    voted = codes > 0
    sure, right = confidence[voted], (codes == labels)[voted]
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    error = sum(
        abs(float(sure[bins == at].mean() - right[bins == at].mean())) * float((bins == at).mean())
        for at in set(bins.tolist())
    )
    result["ece"] = error
    return result


def _codes(
    logits: NDArray[np.float32], temperature: Temperature, mention_from: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    mention = 1 / (1 + np.exp(-logits[..., 0].astype(np.float64) / temperature.mention))
    scaled = logits[..., 1:].astype(np.float64) / temperature.status
    shares = np.exp(scaled - scaled.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    codes = np.where(mention >= mention_from, 1 + shares.argmax(-1), 0)
    return codes, mention * shares.max(-1)


def _f1(right: NDArray[np.bool_], said: NDArray[np.bool_], meant: NDArray[np.bool_]) -> float:
    whole = int(said.sum()) + int(meant.sum())
    return 2 * int(right.sum()) / whole if whole else 0.0


def card_text(
    card: ModelCard,
    figures: pl.DataFrame,
    overall: Mapping[str, Mapping[str, float]],
    agreement: Agreement,
    *,
    examples: pl.DataFrame,
    train: pl.DataFrame,
    settings: TrainSettings,
    base: ModelCard | None = None,
) -> str:
    """The model card as Markdown; ``base`` is that of the model from which the training went on."""
    origin = "trained from nothing" if base is None else f"going on from the model made by `{base.made_with}`"
    sources = ", ".join(f"{count:,} {name}" for name, count in sorted(train.group_by("source").len().iter_rows()))
    splits = ", ".join(f"{count:,} {name}" for name, count in sorted(examples.group_by("split").len().iter_rows()))
    lines = [
        f"# {card.id}",
        "",
        f"A classifier of sentences of Japanese radiology reports: for each of {len(card.findings)} findings of the "
        "rules whether a sentence mentions it, and whether as present, uncertain or absent. It reads one sentence with "
        "the end of the one before it, and the region of the label set.",
        "",
        "## What it is for",
        "",
        "A vote beside the rules, in the words the rules do not know. It is no substitute for them, and what it says "
        "was not checked by a physician. It gives neither place nor side nor size.",
        "",
        "## How it was made",
        "",
        f"- command: `{card.made_with}` (settings: `rules/train.yaml`, seed {card.seed})",
        f"- encoder: {settings.model.layers} layers of width {settings.model.width}, {settings.model.pieces:,} pieces, "
        f"{origin}; int8 ONNX",
        f"- examples by split: {splits}; of training used: {sources}",
        "- text: the synthetic hospital, sentences made from the terms of the rules, and the examples of the rules. No "
        "report of a patient, unless the command names an archive",
        f"- readings: {_readings(card.readings_share)}",
        f"- SHA-256 of the examples: `{card.data_sha256}`",
        f"- SHA-256 of the rules: `{card.rules_sha256}`",
        "",
        "## How good it is",
        "",
        "On sentences like those it was trained on, of other patients (validate) and of readers whose reports were "
        "left out (held_out). F1: finding and status right. These figures say nothing of real reports.",
        "",
        "| split | sentences | F1 | present | uncertain | absent | calibration error |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {split} | {one['sentences']:,.0f} | {one['f1']:.3f} | {one['f1_present']:.3f} | "
            f"{one['f1_uncertain']:.3f} | {one['f1_absent']:.3f} | {one['ece']:.3f} |"
            for split, one in overall.items()
        ),
        "",
        f"The int8 graph decides as the network on {agreement.decisions_equal:.4%} of the decisions (sentence and "
        f"finding) of {agreement.sentences:,} sentences, and on all of {agreement.sentences_equal:.2%} of them.",
        "",
        "## Limits",
        "",
        "- It learned the wording of one generator and of the rules; other words it knows by their characters alone.",
        "- A finding in few examples, or without a mention in validation, is not to be trusted (table below).",
        "- The probabilities are calibrated on synthetic sentences: on others they are too high.",
        "- One sentence at a time: what only the whole report makes clear it cannot know.",
        "",
        "## Each finding",
        "",
        "| finding | examples | mentions in validation | precision | recall | F1 |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {finding} | {learned:,} | {mentions:,} | {_figure(p)} | {_figure(r)} | {_figure(f)} |"
            for finding, learned, mentions, p, r, f in figures.iter_rows()
        ),
        "",
    ]
    return "\n".join(lines)


def _readings(share: float | None) -> str:
    if share is None:
        return "no reader's word taught it"
    return (
        f"those of {share:.0%} of the patients taught it, by a hash of the patient's id; a workspace in which it votes "
        "judges it by those of the others"
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
