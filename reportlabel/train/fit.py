"""Fitting: examples in, a trained network out. Resumable; equal seed, examples and settings give an equal network."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import EvalPrediction

from reportlabel.train.augment import Augmenter, Example
from reportlabel.train.model import FindingModel
from reportlabel.train.settings import TrainSettings
from reportlabel.vote.bert import STATUSES, Reader, padded

TARGETS = ("labels", "weights", "sures")
_SORTED_AT_ONCE = 50  # batches among which sentences are sorted by length


def examples_of(table: pl.DataFrame) -> list[Example]:
    """The rows of a table of `EXAMPLES` as examples."""
    columns = ("region", "before", "text", "findings", "statuses", "weights", "surfaces", "sures")
    return [
        Example(region, before, text, tuple(zip(*said, strict=True)))
        for region, before, text, *said in table.select(columns).iter_rows()
    ]


class Sentences(Dataset[dict[str, Any]]):
    """Examples as token ids and labels; varied anew in every epoch where there is an augmenter.

    Item ``n`` is the same at every run: its chance depends on the seed, the epoch and ``n`` alone, so that a resumed
    training sees what an uninterrupted one would have seen.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        reader: Reader,
        findings: Sequence[str],
        augmenter: Augmenter | None = None,
        seed: int = 0,
        epochs: int = 1,
        batch: int = 64,
    ) -> None:
        self.examples = examples
        self.reader = reader
        self.number = {finding: at for at, finding in enumerate(findings)}
        self.augmenter = augmenter
        self.seed = seed
        self.order = self._order(epochs, batch) if augmenter else list(enumerate(range(len(examples))))
        self.by_region: dict[str, list[int]] = {}
        for at, one in enumerate(examples):
            self.by_region.setdefault(one.region, []).append(at)

    def _order(self, epochs: int, batch: int) -> list[tuple[int, int]]:
        """All epochs one after another, shuffled, and within some batches sorted by length."""
        order: list[tuple[int, int]] = []
        number = 0
        for epoch in range(epochs):
            chance = random.Random(f"order {self.seed} {epoch}")  # noqa: S311 - nothing here is secret
            rows = list(range(len(self.examples)))
            chance.shuffle(rows)
            batches: list[list[int]] = []
            for first in range(0, len(rows), batch * _SORTED_AT_ONCE):
                some = sorted(rows[first : first + batch * _SORTED_AT_ONCE], key=self._length)
                parts = [some[at : at + batch] for at in range(0, len(some), batch)]
                last = parts.pop() if len(parts[-1]) < batch else []
                chance.shuffle(parts)
                batches += [*parts, *([last] if last else [])]
            for part in batches:
                for row in part:
                    order.append((number, row))
                    number += 1
        return order

    def _length(self, row: int) -> int:
        return len(self.examples[row].text) + len(self.examples[row].before)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, at: int) -> dict[str, Any]:
        number, row = self.order[at]
        example = self.examples[row]
        if self.augmenter is not None:
            chance = random.Random(f"{self.seed} {number}")  # noqa: S311 - nothing here is secret
            other = self.examples[chance.choice(self.by_region[example.region])]
            example = self.augmenter(example, chance, other=other)
        _, ids, head = next(self.reader([example.before], [example.text], region=example.region))
        return {"row": (0, ids, head), **self._targets(example)}

    def _targets(self, example: Example) -> dict[str, npt.NDArray[Any]]:
        labels = np.zeros(len(self.number), np.int64)
        weights = np.ones(len(self.number), np.float32)
        sures = np.ones(len(self.number), np.float32)
        for finding, status, weight, _, sure in example.said:
            at = self.number.get(finding)
            if at is not None:
                labels[at] = 1 + STATUSES.index(status) if status in STATUSES else 0
                weights[at], sures[at] = weight, sure
        return {"labels": labels, "weights": weights, "sures": sures}


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch of `Sentences`."""
    inputs = {name: torch.from_numpy(values) for name, values in padded([item["row"] for item in items]).items()}
    targets = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in TARGETS}
    return {**inputs, **targets}


def statement_f1(codes: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Micro-averaged F1 of statements (finding and status right), and of each status.

    Args:
        codes, labels: (rows, findings): 0 not mentioned, 1 present, 2 uncertain, 3 absent.
    """
    result = {"f1": _f1((codes > 0) & (codes == labels), codes > 0, labels > 0)}
    for at, status in enumerate(STATUSES, 1):
        result[f"f1_{status}"] = _f1((codes == at) & (labels == at), codes == at, labels == at)
    return result


def _f1(right: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], meant: npt.NDArray[np.bool_]) -> float:
    whole = int(said.sum()) + int(meant.sum())
    return 2 * int(right.sum()) / whole if whole else 0.0


def decided(logits: npt.NDArray[np.floating[Any]], *, mention_from: float = 0.5) -> npt.NDArray[np.int64]:
    """Logits (…, findings, 4) to codes: 0 not mentioned, 1 present, 2 uncertain, 3 absent."""
    least = np.log(mention_from / (1 - mention_from))
    codes: npt.NDArray[np.int64] = np.where(logits[..., 0] >= least, 1 + logits[..., 1:].argmax(-1), 0)
    return codes


def _codes(logits: Any, _: Any) -> Tensor:
    """What evaluation keeps of the logits."""
    scores = logits[0] if isinstance(logits, tuple) else logits
    return torch.where(scores[..., 0] >= 0, 1 + scores[..., 1:].argmax(-1), 0).to(torch.int8)


def _measures(prediction: EvalPrediction) -> dict[str, float]:
    labels = prediction.label_ids
    labels = labels[0] if isinstance(labels, tuple) else labels
    return statement_f1(np.asarray(prediction.predictions).astype(np.int64), np.asarray(labels))


@dataclass(frozen=True)
class Fitted:
    """A trained network, with the measures of each evaluation."""

    model: FindingModel
    history: list[dict[str, float]]


def fit(
    train: pl.DataFrame,
    validate: pl.DataFrame,
    *,
    tokenizer: Tokenizer,
    findings: Sequence[str],
    regions: Sequence[str],
    augmenter: Augmenter,
    settings: TrainSettings,
    work: Path,
    start: Mapping[str, Tensor] | None = None,
) -> Fitted:
    """Train; the network of the best evaluation is kept.

    Args:
        train, validate: tables of `EXAMPLES`.
        work: folder of checkpoints; where it holds some the training goes on from the last.
        start: weights to go on from instead of an untrained network; those it lacks stay as they are.
    """
    set_seed(settings.fit.seed)
    model = FindingModel(
        settings.model,
        pieces=tokenizer.get_vocab_size(),
        findings=len(findings),
        status_weight=settings.fit.status_weight,
    )
    if start is not None:
        model.load_state_dict(start, strict=False)
    plain = Tokenizer.from_str(tokenizer.to_str())
    varied = Tokenizer.from_str(tokenizer.to_str())
    varied.model.dropout = settings.augment.piece_dropout
    sizes = {"context_tokens": settings.model.context_tokens, "max_tokens": settings.model.max_tokens}
    batch = settings.fit.batch
    # The epochs stand one after another in the data set, so that an epoch of the trainer is all of them.
    sentences = Sentences(
        examples_of(train),
        reader=Reader.of(varied, regions=regions, **sizes),
        findings=findings,
        augmenter=augmenter,
        seed=settings.fit.seed,
        epochs=max(1, round(settings.fit.epochs)),
        batch=batch,
    )
    known = Sentences(examples_of(validate), reader=Reader.of(plain, regions=regions, **sizes), findings=findings)
    steps = -(-len(sentences) // batch)
    every = max(1, steps // settings.fit.evaluations)
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=2 * batch,
        learning_rate=settings.fit.learning_rate,
        warmup_steps=int(settings.fit.warm_up * steps),
        weight_decay=settings.fit.weight_decay,
        lr_scheduler_type="cosine",
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        greater_is_better=True,
        logging_steps=max(1, every // 4),
        report_to=[],
        seed=settings.fit.seed,
        bf16=on_gpu,
        use_cpu=not on_gpu,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        label_names=["labels"],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=sentences,
        eval_dataset=known,
        data_collator=collate,
        compute_metrics=_measures,
        preprocess_logits_for_metrics=_codes,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=settings.fit.patience)],
    )
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
    history = [one for one in trainer.state.log_history if "eval_f1" in one]
    return Fitted(model.eval().cpu(), history)


def outputs(
    model: FindingModel,
    table: pl.DataFrame,
    *,
    tokenizer: Tokenizer,
    findings: Sequence[str],
    regions: Sequence[str],
    settings: TrainSettings,
    batch: int = 128,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Logits and labels of a table of `EXAMPLES`, in its order."""
    reader = Reader.of(
        tokenizer,
        regions=regions,
        context_tokens=settings.model.context_tokens,
        max_tokens=settings.model.max_tokens,
    )
    sentences = Sentences(examples_of(table), reader=reader, findings=findings)
    logits: list[npt.NDArray[np.float32]] = []
    labels: list[npt.NDArray[np.int64]] = []
    with torch.inference_mode():
        for first in range(0, len(sentences), batch):
            items = [sentences[at] for at in range(first, min(first + batch, len(sentences)))]
            given = collate(items)
            labels.append(given["labels"].numpy())
            given = {name: values for name, values in given.items() if name not in TARGETS}
            logits.append(model.scores(**given).numpy())
    return np.concatenate(logits), np.concatenate(labels)
