"""What a sentence classifier says: sentences in, a status of each finding out, as votes beside those of the rules.

A model is a folder: ``model.yaml`` (what it is, and the SHA-256 of its files), an ONNX graph and a tokenizer. It reads
one sentence with the one before it as context and says for every finding whether the sentence mentions it and with
which status. Only distinct sentences are read, short ones with short ones. Neither torch nor transformers is needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, Field

from reportlabel.annotate.annotator import Annotator
from reportlabel.annotate.normalise import compact
from reportlabel.errors import ConfigError
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelSet, Strict
from reportlabel.rulebook.read_yaml import parse, read_yaml
from reportlabel.schema import EXAM_VOTES, MENTIONS, VOTES
from reportlabel.vote.rules import supporting_mentions
from reportlabel.vote.taught import version_with_share

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

FUNCTION = "bert"
STATUSES = ("present", "uncertain", "absent")
MODEL_FILE = "model.yaml"
NEEDED = "a sentence classifier needs onnxruntime and tokenizers; one is missing: install reportlabel again"
_DEFAULT = "ja_findings_small"

SENTENCES = pl.Schema(
    {
        "report_id": pl.String,
        "sentence": pl.Int32,
        "start": pl.Int32,
        "end": pl.Int32,
        "before": pl.String,
        "text": pl.String,
    }
)
"""One row a sentence that is a statement about this exam.

``start`` and ``end`` are offsets in the report; ``before`` and ``text`` are as the model reads them: normalised,
without blanks and line breaks, every digit 0, the heading in front where that is no section name.
"""

PREDICTIONS = pl.Schema(
    {
        "report_id": pl.String,
        "sentence": pl.Int32,
        "start": pl.Int32,
        "end": pl.Int32,
        "finding": pl.String,
        "status": pl.String,
        "confidence": pl.Float64,
        "surface": pl.String,
    }
)
"""One row a sentence and finding that it mentions; ``confidence`` is the calibrated probability of this status.

``start``, ``end`` and ``surface``: the sentence as it stands in the report, or the expression where a model names one.
"""

# --- the model's folder -----------------------------------------------------------------------------------------------


class Classifier(Protocol):
    """What reads reports for the flow: a model of this project, or a public one (`reportlabel.vote.public`)."""

    @property
    def card(self) -> CardHead:
        """Its ``model.yaml``."""

    def read(self, reports: pl.DataFrame, *, region: str | None, annotator: Annotator) -> pl.DataFrame:
        """Columns ``report_id`` and ``text`` of reports -> `PREDICTIONS`."""


class CardHead(Protocol):
    """What the flow asks of a card: its id, and the confidences from which it is heard beside the rules."""

    @property
    def id(self) -> str: ...

    @property
    def add_from(self) -> float: ...

    @property
    def beside_from(self) -> float: ...


def default_model() -> Path:
    """The folder of the model that came with the package."""
    return models_folder() / _DEFAULT


def load_classifier(folder: Path) -> Classifier:
    """Load a model folder of either kind; see `BertExtractor.load` and `reportlabel.vote.public.PublicModel.load`.

    Raises:
        ConfigError: a missing or altered file, a wrong entry, a library that is not installed.
    """
    path = folder / MODEL_FILE
    if path.is_file() and _kind(path) == "public":
        from reportlabel.vote.public import PublicModel

        return PublicModel.load(folder)
    return BertExtractor.load(folder)


def _kind(path: Path) -> object:
    data = read_yaml(path).data
    return data.get("kind") if isinstance(data, dict) else None


def classifier_version(folder: Path) -> str:
    """``<folder>@<hash of model.yaml>``; as that file holds the hashes of the others, it stands for all of them.

    Behind it stands the share of patients whose readings taught the model, if any did; see `reportlabel.vote.taught`.

    Raises:
        ConfigError: there is no model, or ``model.yaml`` cannot be read.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ConfigError(no_model(folder))
    version = f"{folder.resolve().name}@{sha256_of(path)[:12]}"
    return version_with_share(version, parse(read_yaml(path), _Taught).readings_share)


def no_model(folder: Path) -> str:
    """What is said where a folder holds no model."""
    return f"{folder / MODEL_FILE}: missing; a model folder holds {MODEL_FILE}, an ONNX graph and a tokenizer"


class ModelPart(Strict):
    """A file of the model and the hash it must have."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Temperature(Strict):
    """By what the logits are divided so that the probabilities come true (Guo et al., ICML 2017)."""

    mention: Annotated[float, Field(gt=0)]
    status: Annotated[float, Field(gt=0)]


class NetworkSizes(Strict):
    """The sizes of the encoder."""

    width: Annotated[int, Field(ge=1)]
    layers: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    inner: Annotated[int, Field(ge=1)]


class _Taught(BaseModel):
    """Of a ``model.yaml`` of any kind: who taught the model."""

    readings_share: Annotated[float | None, Field(gt=0, le=1)] = None


class ModelCard(Strict):
    """``model.yaml``: what a model is, what it reads and what it says.

    Attributes:
        findings: ids in the order of the graph's output.
        regions: regions it was trained on; a report of another region is read without one.
        context_tokens, max_tokens: pieces of the sentence before, and of the sentence itself, that are read at once.
        mention_from: a sentence mentions a finding from this probability on.
        add_from: beside the rules a status counts from this confidence on, in sentences in which they found nothing.
        beside_from: the same in sentences in which they found another finding.
        weights: of the network before it became a graph, half precision; only training on from it needs them.
        readings_share: the share of patients whose readings taught it (`reportlabel.vote.taught`); None: none did.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    version: str
    kind: Literal["sentence_findings"]
    graph: ModelPart
    tokenizer: ModelPart
    findings: Annotated[list[str], Field(min_length=1)]
    regions: list[str]
    context_tokens: Annotated[int, Field(ge=0)]
    max_tokens: Annotated[int, Field(ge=8)]
    mention_from: Annotated[float, Field(gt=0, lt=1)]
    add_from: Annotated[float, Field(gt=0, lt=1)]
    beside_from: Annotated[float, Field(gt=0, lt=1)]
    temperature: Temperature
    network: NetworkSizes
    weights: ModelPart | None = None
    readings_share: Annotated[float | None, Field(gt=0, le=1)] = None
    rules_sha256: str
    data_sha256: str
    seed: int
    made_with: str


def models_folder() -> Path:
    """The models that came with the package: inside the wheel, or beside the package in a checkout.

    Raises:
        ConfigError: this installation has none.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "models", package.parent / "models"):
        if folder.is_dir():
            return folder
    raise ConfigError("the models folder is missing from this installation; install reportlabel again")


def read_card(folder: Path) -> ModelCard:
    """Read ``model.yaml`` and check the files it names.

    Raises:
        ConfigError: no such folder, a wrong entry (file and line), a file missing or with another hash.
    """
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ConfigError(no_model(folder))
    card = parse(read_yaml(path), ModelCard)
    check_parts(folder, [card.graph, card.tokenizer])  # weights: checked where training reads them
    return card


def check_parts(folder: Path, parts: Iterable[ModelPart]) -> None:
    """Check that files are there and have the hash that ``model.yaml`` names; raises ConfigError."""
    for part in parts:
        file = folder / part.file
        if not file.is_file():
            raise ConfigError(f"{file}: missing; fetch it again, or take another model folder")
        found = sha256_of(file)
        if found != part.sha256:
            raise ConfigError(
                f"{file}: SHA-256 is {found[:12]}…, {MODEL_FILE} says {part.sha256[:12]}…; the file was altered or "
                "cut short. Fetch it again, or train the model anew"
            )


def open_session(graph: Path, *, threads: int) -> InferenceSession:
    """An ONNX graph, ready to run on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(NEEDED) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises kinds of its own, down to the bare Exception
        raise ConfigError(f"{graph}: the model cannot be loaded ({type(error).__name__})") from error


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_tokenizer(file: Path) -> Tokenizer:
    """A ``tokenizer.json``.

    Raises:
        ConfigError: tokenizers is not installed, or cannot read the file.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(NEEDED) from error
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises the bare Exception
        raise ConfigError(f"{file}: the tokenizer cannot be loaded ({type(error).__name__})") from error


# --- what the model reads ---------------------------------------------------------------------------------------------

_DIGIT = re.compile(r"\d")


def model_text(normalised: str, topic: str = "") -> str:
    """A normalised sentence as the model reads it."""
    text = _DIGIT.sub("0", compact(normalised).text)
    return f"{_DIGIT.sub('0', compact(topic).text)}:{text}" if topic else text


def report_sentences(reports: pl.DataFrame, annotator: Annotator) -> pl.DataFrame:
    """The sentences of reports that are statements about the exam (`SENTENCES`), in order.

    Args:
        reports: columns ``report_id`` and ``text``.
    """
    ids: list[str] = reports.get_column("report_id").cast(pl.String).to_list()
    asserting = {"findings"} | {one.id for one in annotator.rules.sections.sections if one.asserts == "current"}
    rows: list[tuple[str, int, int, int, str, str]] = []
    for report_id, normalised in zip(ids, annotator.normaliser.many(reports.get_column("text").to_list()), strict=True):
        before = ""
        for number, one in enumerate(annotator.split(normalised)):
            text = model_text(normalised[one.start : one.end], one.topic)
            if one.section in asserting:
                rows.append((report_id, number, one.start, one.end, before, text))
                before = text
            else:
                before = ""
    return pl.DataFrame(rows, schema=SENTENCES, orient="row")


@dataclass(frozen=True)
class Reader:
    """Texts to token ids: ``[CLS] [region] before [SEP] sentence [SEP]``.

    ``first`` holds the ids of ``[CLS] [region]`` for each region, and of ``[CLS]`` for any other.
    """

    tokenizer: Tokenizer
    separator: int
    first: dict[str | None, list[int]]
    context_tokens: int
    max_tokens: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, regions: Sequence[str], context_tokens: int, max_tokens: int) -> Reader:
        """Look up the ids of the special tokens; raises ConfigError where the tokenizer lacks one."""
        tokenizer.no_padding()
        tokenizer.no_truncation()

        def id_of(token: str) -> int:
            found = tokenizer.token_to_id(token)
            if found is None:
                raise ConfigError(f"the tokenizer has no token {token}; it belongs to another model")
            return int(found)

        first: dict[str | None, list[int]] = {region: [id_of("[CLS]"), id_of(f"[{region}]")] for region in regions}
        first[None] = [id_of("[CLS]")]
        return cls(tokenizer, id_of("[SEP]"), first, context_tokens, max_tokens)

    def __call__(
        self, before: Sequence[str], texts: Sequence[str], *, region: str | None
    ) -> Iterator[tuple[int, list[int], int]]:
        """Row number, ids, and how many of them come before the sentence; a very long sentence gives several."""
        every = list(dict.fromkeys([*before, *texts]))
        encoded = self.tokenizer.encode_batch(every, add_special_tokens=False)
        pieces = dict(zip(every, (one.ids for one in encoded), strict=True))
        first = self.first.get(region, self.first[None])
        for row, (context, text) in enumerate(zip(before, texts, strict=True)):
            head = [*first, *(pieces[context][-self.context_tokens :] if self.context_tokens else ()), self.separator]
            ids = pieces[text]
            for at in range(0, max(1, len(ids)), self.max_tokens):
                yield row, [*head, *ids[at : at + self.max_tokens], self.separator], len(head)


# --- what the model says ----------------------------------------------------------------------------------------------

_TOKENS_A_BATCH = 1024
_ROWS_A_BATCH = 32


@dataclass
class BertExtractor:
    """A loaded model. Not shared between threads; build one a process.

    Sentences that were read are remembered, up to ``memory`` of them: a batch of reports pays only for new ones.
    """

    card: ModelCard
    session: InferenceSession
    reader: Reader
    memory: int = 200_000
    n_read: int = 0
    _known: dict[tuple[str | None, str, str], tuple[tuple[str, str, float], ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> BertExtractor:
        """Check and load a model folder.

        Raises:
            ConfigError: onnxruntime or tokenizers is not installed, a file is missing or altered, a wrong entry.
        """
        card = read_card(folder)
        session = open_session(folder / card.graph.file, threads=threads)
        tokenizer = open_tokenizer(folder / card.tokenizer.file)
        reader = Reader.of(
            tokenizer, regions=card.regions, context_tokens=card.context_tokens, max_tokens=card.max_tokens
        )
        return cls(card=card, session=session, reader=reader)

    def logits(
        self, before: Sequence[str], texts: Sequence[str], *, region: str | None
    ) -> Iterator[tuple[list[int], npt.NDArray[np.float32]]]:
        """Batches of row numbers and raw outputs (rows, findings, 4): mention, present, uncertain, absent."""
        rows = sorted(self.reader(before, texts, region=region), key=lambda one: len(one[1]))
        at = 0
        while at < len(rows):
            size = max(1, min(_ROWS_A_BATCH, _TOKENS_A_BATCH // len(rows[min(at + _ROWS_A_BATCH, len(rows)) - 1][1])))
            batch = rows[at : at + size]
            at += size
            yield [row for row, _, _ in batch], self.session.run(None, padded(batch))[0]

    def judge(
        self, before: Sequence[str], texts: Sequence[str], *, region: str | None
    ) -> list[tuple[tuple[str, str, float], ...]]:
        """What each sentence says: finding, status, confidence of all it mentions."""
        card = self.card
        least = float(np.log(card.mention_from / (1 - card.mention_from))) * card.temperature.mention
        said: list[list[tuple[str, str, float]]] = [[] for _ in texts]
        for rows, output in self.logits(before, texts, region=region):
            for at, finding in zip(*np.nonzero(output[:, :, 0] >= least), strict=True):
                mention, *status = output[at, finding].astype(np.float64)
                shares = np.exp((np.array(status) - max(status)) / card.temperature.status)
                best = int(shares.argmax())
                confidence = shares[best] / shares.sum() / (1 + np.exp(-mention / card.temperature.mention))
                said[rows[at]].append((card.findings[finding], STATUSES[best], round(float(confidence), 4)))
        return [tuple(sorted(_strongest(one))) for one in said]

    def read(self, reports: pl.DataFrame, *, region: str | None, annotator: Annotator) -> pl.DataFrame:
        """Read reports.

        Args:
            reports: columns ``report_id`` and ``text``.
            region: region of the label set (``rules/anatomy.yaml``): what a lesion without a place belongs to.
            annotator: cuts the reports into sentences.

        Returns:
            `PREDICTIONS`, in order of reports and sentences.
        """
        region = region if region in self.card.regions else None
        sentences = report_sentences(reports, annotator)
        keys = [(region, before, text) for before, text in sentences.select("before", "text").iter_rows()]
        distinct = list(dict.fromkeys(keys))
        new = [key for key in distinct if key not in self._known]
        if len(self._known) + len(new) > self.memory:
            self._known = {key: self._known[key] for key in distinct if key in self._known}
        self.n_read += len(new)
        judged = self.judge([before for _, before, _ in new], [text for _, _, text in new], region=region)
        self._known.update(zip(new, judged, strict=True))
        texts = dict(zip(reports["report_id"].cast(pl.String), reports["text"], strict=True))
        rows = [
            (*place, finding, status, confidence, texts[place[0]][place[2] : place[3]])
            for place, key in zip(
                sentences.select("report_id", "sentence", "start", "end").iter_rows(), keys, strict=True
            )
            for finding, status, confidence in self._known[key]
        ]
        return pl.DataFrame(rows, schema=PREDICTIONS, orient="row")


def padded(batch: Sequence[tuple[int, list[int], int]]) -> dict[str, npt.NDArray[np.int64]]:
    """The inputs of the graph: ids, which of them are of the sentence itself, and which are no padding."""
    width = max(len(ids) for _, ids, _ in batch)
    input_ids = np.zeros((len(batch), width), np.int64)
    token_type_ids = np.zeros_like(input_ids)
    attention_mask = np.zeros_like(input_ids)
    for at, (_, ids, head) in enumerate(batch):
        input_ids[at, : len(ids)] = ids
        token_type_ids[at, head : len(ids)] = 1
        attention_mask[at, : len(ids)] = 1
    return {"input_ids": input_ids, "token_type_ids": token_type_ids, "attention_mask": attention_mask}


def _strongest(said: Sequence[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    """Of several pieces of one sentence the strongest status of each finding, as within a report."""
    best: dict[str, tuple[str, str, float]] = {}
    for one in said:
        known = best.get(one[0])
        if known is None or (STATUSES.index(one[1]), -one[2]) < (STATUSES.index(known[1]), -known[2]):
            best[one[0]] = one
    return list(best.values())


# --- votes ------------------------------------------------------------------------------------------------------------


def as_mentions(predictions: pl.DataFrame, *, model: str) -> pl.DataFrame:
    """Predictions in the shape of `MENTIONS`, so that whatever counts mentions of the rules can count them.

    The whole sentence is the expression unless the model names one; site, side and size are not known. ``rule_id`` is
    ``bert/<model>``.
    """
    columns = {name: pl.lit(None, dtype=kind).alias(name) for name, kind in MENTIONS.items()}
    columns |= {
        name: pl.col(name) for name in ("report_id", "start", "end", "finding", "status", "sentence", "surface")
    }
    columns["temporality"] = pl.lit("current").alias("temporality")
    columns["rule_id"] = pl.lit(f"{FUNCTION}/{model}").alias("rule_id")
    return predictions.select(list(columns.values())).cast(MENTIONS)


def winning_predictions(predictions: pl.DataFrame, label_set: LabelSet, rules: Rulebook) -> pl.DataFrame:
    """One row a report and label that the model speaks of: the strongest status, and its surest sentence.

    Returns:
        Columns report_id, label, value, confidence, start, end.
    """
    strength = {status: rank for rank, status in enumerate(label_set.precedence)}
    confidence = predictions.select("report_id", "sentence", "finding", "confidence")
    return (
        supporting_mentions(as_mentions(predictions, model=""), label_set, rules)
        .join(confidence, on=["report_id", "sentence", "finding"], how="left", maintain_order="left")
        .with_columns(rank=pl.col("value").replace_strict(strength, return_dtype=pl.Int8))
        .sort("report_id", "label", "rank", "confidence", "start", descending=[False, False, False, True, False])
        .unique(["report_id", "label"], keep="first", maintain_order=True)
        .select("report_id", "label", "value", "confidence", "start", "end")
    )


def bert_votes(predictions: pl.DataFrame, label_set: LabelSet, rules: Rulebook, *, model: str) -> pl.DataFrame:
    """The votes of a model by report (`VOTES`): one row a report and label that it speaks of."""
    return (
        winning_predictions(predictions, label_set, rules)
        .select(
            "report_id",
            finding="label",
            function_id=pl.lit(f"{FUNCTION}/{model}"),
            value="value",
            confidence="confidence",
            group=pl.lit(FUNCTION),
            kind=pl.lit(FUNCTION),
            evidence=pl.format("{}-{}", "start", "end"),
        )
        .cast(VOTES)
    )


def bert_exam_votes(
    reports: pl.DataFrame,
    *,
    scope: pl.DataFrame,
    label_sets: dict[str, LabelSet],
    annotator: Annotator,
    extractor: Classifier,
) -> pl.DataFrame:
    """Let the reports that count be read by the model and vote; the counterpart of `reportlabel.vote.report`.

    Args:
        reports: report_id, exam_id, text; one row an exam.
        scope: exam_id, label_set: which label sets fit which exam.

    Returns:
        `EXAM_VOTES` of kind bert.
    """
    votes = [pl.DataFrame(schema=EXAM_VOTES)]
    regions = {name: one.region for name, one in label_sets.items()}
    wanted = scope.with_columns(region=pl.col("label_set").replace_strict(regions, return_dtype=pl.String))
    for region in sorted(set(wanted["region"])):
        fitting = wanted.filter(pl.col("region") == region)
        here = reports.join(fitting.select("exam_id").unique(), on="exam_id", how="semi", maintain_order="left")
        said = extractor.read(here.select("report_id", "text"), region=region, annotator=annotator)
        for name in sorted(set(fitting["label_set"])):
            exams = fitting.filter(pl.col("label_set") == name).select("exam_id")
            of_set = here.join(exams, on="exam_id", how="semi", maintain_order="left").select("report_id", "exam_id")
            own = said.join(of_set.select("report_id"), on="report_id", how="semi", maintain_order="left")
            votes.append(
                bert_votes(own, label_sets[name], annotator.rules, model=extractor.card.id)
                .join(of_set, on="report_id", how="inner", maintain_order="left")
                .with_columns(label_set=pl.lit(name), available_at_reading=pl.lit(None, dtype=pl.Boolean))
                .select(EXAM_VOTES.names())
                .cast(EXAM_VOTES)
            )
    return pl.concat(votes)


def added_mentions(
    predictions: pl.DataFrame,
    mentions: pl.DataFrame,
    label_set: LabelSet,
    rules: Rulebook,
    *,
    model: str,
    add_from: float,
    beside_from: float,
) -> pl.DataFrame:
    """What a model adds to the rules: its predictions (as mentions) that speak only of labels the rules are silent on.

    Args:
        predictions, mentions: of the same reports, by the model and by the rules.
        add_from: leave out what is less sure.
        beside_from: the same of sentences in which the rules found some other expression. They know the words of such a
            sentence, and what a model reads in it besides is more often wrong.

    Returns:
        `MENTIONS`; put behind those of the rules they give the labels of both.
    """
    derived = {entry.id for entry in label_set.findings if entry.none_of_others}
    spoken = supporting_mentions(mentions, label_set, rules).select("report_id", "label").unique()
    read = (
        predictions.select("report_id", "start", "end")
        .unique()
        .join(mentions.select("report_id", at="start"), on="report_id")
        .filter(pl.col("at").is_between("start", "end", closed="left"))
        .select("report_id", "start", "end", least=pl.lit(beside_from))
        .unique()
    )
    least = pl.col("least").fill_null(add_from)
    sure = as_mentions(
        predictions.join(read, on=["report_id", "start", "end"], how="left", maintain_order="left")
        .filter(pl.col("confidence") >= least)
        .drop("least"),
        model=model,
    )
    supports = supporting_mentions(sure, label_set, rules).select("report_id", "sentence", "finding", "label")
    taken = supports.filter(pl.col("label").is_in(derived)).select("report_id", "sentence", "finding")
    taken = pl.concat(
        [
            taken,
            supports.join(spoken, on=["report_id", "label"], how="semi").select("report_id", "sentence", "finding"),
        ]
    )
    keys = ["report_id", "sentence", "finding"]
    return sure.join(supports, on=keys, how="semi", maintain_order="left").join(
        taken, on=keys, how="anti", maintain_order="left"
    )


def with_confidence(
    labels: pl.DataFrame, predictions: pl.DataFrame, label_set: LabelSet, rules: Rulebook
) -> pl.DataFrame:
    """`LABELS` with the model's probability where a label is the model's alone; rules only order the statuses."""
    won = winning_predictions(predictions, label_set, rules).select("report_id", finding="label", sure="confidence")
    by_model = pl.col("evidence").list.first().struct.field("rule_id").str.starts_with(f"{FUNCTION}/").fill_null(False)
    sure = (
        pl.when(pl.col("value") == "present")
        .then("sure")
        .when(pl.col("value") == "absent")
        .then(1 - pl.col("sure"))
        .otherwise("p_present")
    )
    return (
        labels.join(won, on=["report_id", "finding"], how="left", maintain_order="left")
        .with_columns(p_present=pl.when(by_model & pl.col("sure").is_not_null()).then(sure).otherwise("p_present"))
        .drop("sure")
        .cast(labels.schema)
    )
