"""Public models as a source of votes: any classifier of texts, sentences or tokens, named in a ``model.yaml``.

The entry says where the model comes from (source and revision), which files it has (with their SHA-256), on what it
decides (``level``), and which finding and status each of its labels stands for. The network is an ONNX graph, made once
by ``reportlabel train --public`` (`reportlabel.train.public`), so that reading needs neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import Field, model_validator

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.rulebook.models import Status, Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.vote.bert import (
    MODEL_FILE,
    PREDICTIONS,
    STATUSES,
    ModelPart,
    check_parts,
    no_model,
    open_session,
    report_sentences,
)
from reportlabel.vote.word_pieces import FastEntry, Piece, TokenizerEntry, Tokens, open_tokens

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_ROWS_A_BATCH = 16
_OUTSIDE = "O"


class Target(Strict):
    """What a label of the model says: a finding of the rules, its status, and the probability from which it counts."""

    finding: str
    status: Status = "present"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class PublicCard(Strict):
    """``model.yaml`` of a public model.

    Attributes:
        source, revision: repository of the Hugging Face hub, or a folder, and the commit it was taken at.
        level: ``report`` (the whole text), ``sentence`` (one at a time) or ``span`` (labels of tokens, B-/I- or plain).
        scores: ``sigmoid`` where labels do not exclude each other, ``softmax`` where one of them holds.
        labels: labels of the model in the order of its outputs.
        means: label -> what it says. Of ``span`` models without B- and I-. Other labels say nothing.
        max_tokens: pieces read at once, with the special ones; a longer text is read in parts.
        add_from, beside_from: beside the rules a status counts from this confidence on, in sentences in which the rules
            found nothing, and in others.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["public"]
    source: str
    revision: Annotated[str, Field(min_length=1)]
    licence: str
    graph: ModelPart
    tokenizer: TokenizerEntry
    level: Literal["report", "sentence", "span"]
    scores: Literal["sigmoid", "softmax"]
    labels: Annotated[list[str], Field(min_length=1)]
    means: Annotated[dict[str, Target], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=8)] = 512
    add_from: Annotated[float, Field(gt=0, lt=1)] = 0.9
    beside_from: Annotated[float, Field(gt=0, lt=1)] = 0.97

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        known = {_plain(label) for label in self.labels} if self.level == "span" else set(self.labels)
        unknown = sorted(set(self.means) - known)
        if unknown:
            raise ValueError(f"means: the model has no label {unknown[0]!r}")
        if self.level == "span" and self.scores == "sigmoid":
            raise ValueError("scores: labels of tokens exclude each other; give softmax")
        return self


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece of text that is read by itself."""

    report_id: str
    sentence: int
    start: int
    text: str


@dataclass
class PublicModel:
    """A loaded public model; texts that were read are remembered, up to ``memory`` of them."""

    card: PublicCard
    session: InferenceSession
    tokens: Tokens
    memory: int = 100_000
    _known: dict[str, tuple[tuple[int, int, str, str, float], ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> PublicModel:
        """Check and load a model folder.

        Raises:
            ConfigError: a library is not installed, a file is missing or altered, a wrong entry (file and line).
        """
        card = read_public_card(folder)
        return cls(card, open_session(folder / card.graph.file, threads=threads), open_tokens(card.tokenizer, folder))

    def read(self, reports: pl.DataFrame, *, region: str | None, annotator: Annotator) -> pl.DataFrame:
        """Columns ``report_id`` and ``text`` of reports -> `reportlabel.vote.bert.PREDICTIONS`.

        Args:
            region: of the label set; a public model knows none.

        Raises:
            ConfigError: a label stands for a finding that the rules do not have.
        """
        del region
        for label, target in self.card.means.items():
            if target.finding not in annotator.rules.findings:
                raise ConfigError(
                    f"{self.card.id}: label {label!r} stands for {target.finding}, which no rule file has"
                )
        units = list(self._units(reports, annotator))
        new = list(dict.fromkeys(one.text for one in units if one.text not in self._known))
        if len(self._known) + len(new) > self.memory:
            wanted = {one.text for one in units}
            self._known = {text: said for text, said in self._known.items() if text in wanted}
        self._known.update(zip(new, self.judge(new), strict=True))
        rows = [
            (
                one.report_id,
                one.sentence,
                one.start + start,
                one.start + end,
                finding,
                status,
                confidence,
                one.text[start:end],
            )
            for one in units
            for start, end, finding, status, confidence in self._known[one.text]
        ]
        table = pl.DataFrame(rows, schema=PREDICTIONS, orient="row")
        keys = ["report_id", "sentence", "start", "finding"]
        return table.unique(keys, keep="first", maintain_order=True)

    def judge(self, texts: Sequence[str]) -> list[tuple[tuple[int, int, str, str, float], ...]]:
        """What each text says: start, end, finding, status, confidence."""
        room = self.card.max_tokens - 2
        parts: list[tuple[int, list[Piece]]] = []
        for row, text in enumerate(texts):
            pieces = self.tokens(text)
            parts += [(row, pieces[at : at + room]) for at in range(0, max(1, len(pieces)), room)]
        parts.sort(key=lambda part: len(part[1]))
        said: list[dict[tuple[int, int, str, str], float]] = [{} for _ in texts]
        for first in range(0, len(parts), _ROWS_A_BATCH):
            batch = parts[first : first + _ROWS_A_BATCH]
            for (row, pieces), chances in zip(batch, self._chances([own for _, own in batch]), strict=True):
                found = (
                    self._spans(pieces, chances[1 : 1 + len(pieces)])
                    if self.card.level == "span"
                    else self._whole(len(texts[row]), chances)
                )
                for key, confidence in found:
                    said[row][key] = max(confidence, said[row].get(key, 0.0))
        return [tuple((*key, round(chance, 4)) for key, chance in sorted(one.items(), key=_in_order)) for one in said]

    def _units(self, reports: pl.DataFrame, annotator: Annotator) -> Iterator[_Unit]:
        texts = dict(zip(reports["report_id"].cast(pl.String), reports["text"], strict=True))
        if self.card.level == "report":
            yield from (_Unit(report_id, 0, 0, text) for report_id, text in texts.items())
            return
        places = report_sentences(reports, annotator).select("report_id", "sentence", "start", "end")
        for report_id, number, start, end in places.iter_rows():
            yield _Unit(report_id, number, start, texts[report_id][start:end])

    def _chances(self, rows: Sequence[Sequence[Piece]]) -> npt.NDArray[np.float64]:
        width = max(len(pieces) for pieces in rows) + 2
        input_ids = np.zeros((len(rows), width), np.int64)
        attention_mask = np.zeros_like(input_ids)
        for at, pieces in enumerate(rows):
            ids = [self.tokens.first, *(piece.id for piece in pieces), self.tokens.last]
            input_ids[at, : len(ids)] = ids
            attention_mask[at, : len(ids)] = 1
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": np.zeros_like(input_ids)}
        names = {one.name for one in self.session.get_inputs()}
        output = self.session.run(None, {name: values for name, values in given.items() if name in names})[0]
        scores = np.asarray(output, dtype=np.float64)
        if scores.shape[-1] != len(self.card.labels):
            raise ConfigError(f"{self.card.id}: the model has {scores.shape[-1]} labels, {MODEL_FILE} names others")
        if self.card.scores == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-scores)))
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True))

    def _whole(
        self, length: int, chances: npt.NDArray[np.float64]
    ) -> Iterator[tuple[tuple[int, int, str, str], float]]:
        for label, chance in zip(self.card.labels, chances, strict=True):
            target = self.card.means.get(label)
            if target is not None and chance >= target.threshold:
                yield (0, length, target.finding, target.status), float(chance)

    def _spans(
        self, pieces: Sequence[Piece], chances: npt.NDArray[np.float64]
    ) -> Iterator[tuple[tuple[int, int, str, str], float]]:
        """Runs of pieces with one label; the confidence is the mean over the pieces of a run."""
        run: list[tuple[Piece, float]] = []
        label = _OUTSIDE
        for piece, row in zip(pieces, chances, strict=True):
            best = int(row.argmax())
            name = self.card.labels[best]
            if run and (_plain(name) != label or name.startswith("B-")):
                yield from self._run(run, label)
                run = []
            label = _plain(name)
            if label != _OUTSIDE:
                run.append((piece, float(row[best])))
        if run:
            yield from self._run(run, label)

    def _run(self, run: Sequence[tuple[Piece, float]], label: str) -> Iterator[tuple[tuple[int, int, str, str], float]]:
        target = self.card.means.get(label)
        chance = sum(one for _, one in run) / len(run)
        if target is not None and chance >= target.threshold:
            yield (run[0][0].start, run[-1][0].end, target.finding, target.status), chance


def read_public_card(folder: Path) -> PublicCard:
    """Read the ``model.yaml`` of a public model and check the files it names.

    Raises:
        ConfigError: no such folder, a wrong entry (file and line), a file missing or with another hash.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ConfigError(no_model(folder))
    card = parse(read_yaml(path), PublicCard)
    check_parts(folder, [card.graph, tokenizer_part(card.tokenizer)])
    return card


def tokenizer_part(entry: TokenizerEntry) -> ModelPart:
    """The file of a tokenizer."""
    return entry.file if isinstance(entry, FastEntry) else entry.vocabulary


def _plain(label: str) -> str:
    return label[2:] if label[:2] in ("B-", "I-") else label


def _in_order(item: tuple[tuple[int, int, str, str], float]) -> tuple[int, int, str, int]:
    start, end, finding, status = item[0]
    return start, end, finding, STATUSES.index(status)
