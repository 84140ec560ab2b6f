"""From settings to a model folder. What is finished is kept in a work folder and not made again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from reportlabel.annotate.annotator import Annotator
from reportlabel.errors import ConfigError
from reportlabel.train.augment import Augmenter
from reportlabel.train.examples import (
    EXAMPLES,
    data_hash,
    finding_terms,
    make_examples,
    thinned,
    voting_findings,
)
from reportlabel.train.pieces import train_pieces
from reportlabel.train.settings import TrainSettings
from reportlabel.vote.bert import (
    BertExtractor,
    ModelCard,
    ModelPart,
    NetworkSizes,
    check_parts,
    model_text,
    read_card,
    sha256_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from reportlabel.train.export import Agreement
    from reportlabel.train.model import FindingModel

_VALIDATED = 4000
_COMPARED = 1000
_PLAN = "plan.json"
_EXAMPLES = "examples.parquet"
_NETWORK = "network.pt"
_TOKENIZER = "tokenizer.json"
_WEIGHTS = "weights.safetensors"
_OWN_SOURCES = ("archive", "reading")


@dataclass(frozen=True)
class Base:
    """The model that a training goes on from: its folder and what ``model.yaml`` says."""

    folder: Path
    card: ModelCard

    @classmethod
    def load(cls, folder: Path) -> Base:
        """Read and check a model folder with weights.

        Raises:
            ConfigError: no such folder, a missing or altered file, or a model without weights.
        """
        card = read_card(folder)
        if card.weights is None:
            raise ConfigError(f"--base {folder}: the model has no weights, only a graph; take one made by this version")
        check_parts(folder, [card.weights])
        return cls(folder, card)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the network, in full precision."""
        from safetensors.torch import load_file

        assert self.card.weights is not None
        return {name: one.float() for name, one in load_file(self.folder / self.card.weights.file).items()}


@dataclass(frozen=True)
class TrainRun:
    """What a training made.

    Attributes:
        folder: the model folder.
        card: its ``model.yaml``.
        figures: finding, examples (of training), mentions (of validation), precision, recall, f1 (finding and status).
        overall: figures over all findings by split (validate, held_out).
        agreement: how often the exported graph decides as the network.
    """

    folder: Path
    card: ModelCard
    figures: pl.DataFrame
    overall: dict[str, dict[str, float]]
    agreement: Agreement


def train_model(
    out: Path,
    *,
    settings: TrainSettings,
    work: Path,
    annotator: Annotator | None = None,
    archive: pl.DataFrame | None = None,
    base: Base | None = None,
    sentences: Sequence[str] = (),
    readings_share: float | None = None,
    made_with: str = "reportlabel train",
    threads: int | None = None,
) -> TrainRun:
    """Train a classifier and write its folder.

    Args:
        out: the model folder to write; its name is the id of the model.
        work: folder for what is half done. A second call with the same settings, rules and archive goes on from there.
        archive: more examples (`EXAMPLES`), such as those of `reportlabel.train.archive.archive_examples`; of these
            none is left out.
        base: a model from whose network, tokenizer and findings this training goes on.
        sentences: as the model reads them, without labels; the encoder first learns to fill in their masked pieces.
        readings_share: the share of patients whose readings are in the archive (`reportlabel.vote.taught`). Where it
            has readings and this is not given, the card says that those of all patients taught.
        made_with: the command line that made it, for the card.
        threads: threads of torch.

    Raises:
        ConfigError: the extra ``train`` is not installed; the work folder belongs to other settings; nothing to learn.
    """
    torch_threads(threads)
    from reportlabel.train import card as cards
    from reportlabel.train.export import GRAPH, agreement, fit_temperature, save_weights, write_card
    from reportlabel.train.fit import outputs
    from reportlabel.train.graph import write_finding_graph

    annotator = Annotator() if annotator is None else annotator
    rules = annotator.rules
    if base is not None:
        sizes_of = {**base.card.network.model_dump(), **base.card.model_dump(include={"context_tokens", "max_tokens"})}
        settings = settings.model_copy(update={"model": settings.model.model_copy(update=sizes_of)})
    examples = _examples(settings, annotator, archive, work, base, sentences)
    digest = data_hash(examples)
    train = training_rows(examples, settings)
    findings = _learned(train, settings.data.least) if base is None else base.card.findings
    if not findings:
        raise ConfigError("no finding has enough examples; give more patients or a lower data.least in train.yaml")
    regions = sorted(examples["region"].unique()) if base is None else base.card.regions
    validate = _some(examples.filter(pl.col("split") == "validate"), _VALIDATED)
    held_out = _some(examples.filter(pl.col("split") == "held_out"), _VALIDATED)
    terms = finding_terms(rules, voting_findings(rules), settings.composed)
    tokenizer = _tokenizer(examples, terms, regions, annotator, settings, work, base)
    model = _network(
        train, validate, tokenizer, findings, regions, Augmenter.of(settings, terms, annotator.normaliser), settings,
        work, base, sentences,
    )  # fmt: skip
    sizes = {"tokenizer": tokenizer, "findings": findings, "regions": regions, "settings": settings}
    logits, labels = outputs(model, validate, **sizes)  # type: ignore[arg-type]
    temperature = fit_temperature(logits, labels)
    out.mkdir(parents=True, exist_ok=True)
    write_finding_graph(model, out / GRAPH)
    tokenizer.save(str(out / _TOKENIZER))
    save_weights(model, out / _WEIGHTS)
    card = ModelCard(
        id=out.name,
        version=version("reportlabel"),
        kind="sentence_findings",
        graph=ModelPart(file=GRAPH, sha256=sha256_of(out / GRAPH)),
        tokenizer=ModelPart(file=_TOKENIZER, sha256=sha256_of(out / _TOKENIZER)),
        findings=list(findings),
        regions=list(regions),
        context_tokens=settings.model.context_tokens,
        max_tokens=settings.model.max_tokens,
        mention_from=settings.decide.mention_from,
        add_from=settings.decide.add_from,
        beside_from=settings.decide.beside_from,
        temperature=temperature,
        network=NetworkSizes(**settings.model.model_dump(include={"width", "layers", "heads", "inner"})),
        weights=ModelPart(file=_WEIGHTS, sha256=sha256_of(out / _WEIGHTS)),
        readings_share=_readings_share(archive, base, readings_share),
        rules_sha256=rules.sha256,
        data_sha256=digest,
        seed=settings.fit.seed,
        made_with=made_with,
    )
    write_card(card, out)
    figures = cards.finding_figures(logits, labels, findings, train, temperature, mention_from=card.mention_from)
    overall = {"validate": cards.overall_figures(logits, labels, temperature, mention_from=card.mention_from)}
    if held_out.height:
        other = outputs(model, held_out, **sizes)  # type: ignore[arg-type]
        overall["held_out"] = cards.overall_figures(*other, temperature, mention_from=card.mention_from)
    compared = _some(examples.filter(pl.col("split") != "train"), _COMPARED)
    compared = compared if compared.height else _some(examples, _COMPARED)
    same = agreement(model, BertExtractor.load(out), compared)
    run = TrainRun(out, card, figures, overall, same)
    (out / "README.md").write_text(
        cards.card_text(
            run.card,
            figures,
            overall,
            same,
            examples=examples,
            train=train,
            settings=settings,
            base=None if base is None else base.card,
        ),
        encoding="utf-8",
    )
    return run


def torch_threads(threads: int | None) -> None:
    """Check that the extra is there, and set the threads.

    Raises:
        ConfigError: a package of the extra ``train`` is missing; names it and what to install.
    """
    try:
        import accelerate  # noqa: F401
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tokenizers  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"training needs {error.name}, which is not installed: pip install 'reportlabel[train]'"
        ) from error
    if threads is not None:
        torch.set_num_threads(threads)


def _readings_share(archive: pl.DataFrame | None, base: Base | None, given: float | None) -> float | None:
    """What the card says: the base's readings have taught this model, too."""
    if given is None and archive is not None and (archive["source"] == "reading").any():
        given = 1.0
    known = [share for share in (given, None if base is None else base.card.readings_share) if share is not None]
    return max(known, default=None)


# --- the steps, each kept in the work folder --------------------------------------------------------------------------


def _examples(
    settings: TrainSettings,
    annotator: Annotator,
    archive: pl.DataFrame | None,
    work: Path,
    base: Base | None,
    sentences: Sequence[str],
) -> pl.DataFrame:
    """The examples, from the work folder where an equal plan made them."""
    plan = {
        "settings": hashlib.sha256(settings.model_dump_json(exclude={"decide"}).encode()).hexdigest(),
        "rules": annotator.rules.sha256,
        "archive": None if archive is None else data_hash(archive),
        "base": None if base is None or base.card.weights is None else base.card.weights.sha256,
        "sentences": hashlib.sha256("\0".join(sentences).encode()).hexdigest() if sentences else None,
    }
    work.mkdir(parents=True, exist_ok=True)
    kept = work / _PLAN
    if kept.is_file() and json.loads(kept.read_text(encoding="utf-8")) != plan:
        raise ConfigError(f"{work}: holds a training with other settings, rules or data; give another work folder")
    kept.write_text(json.dumps(plan), encoding="utf-8")
    file = work / _EXAMPLES
    if file.is_file():
        return pl.read_parquet(file)
    made = make_examples(settings, annotator)
    if archive is not None:
        made = pl.concat([archive.select(EXAMPLES.names()), made]).unique(
            ["region", "before", "text"], keep="first", maintain_order=True
        )
    _replace(file, made)
    return made


def _replace(file: Path, table: pl.DataFrame) -> None:
    """Write a Parquet file so that a half-written one is never taken for whole."""
    partial = file.with_name(f".{file.name}.partial")
    table.write_parquet(partial)
    partial.replace(file)


def _learned(train: pl.DataFrame, least: int) -> list[str]:
    counts = train.explode("findings").drop_nulls("findings").group_by("findings").len()
    return sorted(counts.filter(pl.col("len") >= least)["findings"])


def training_rows(examples: pl.DataFrame, settings: TrainSettings) -> pl.DataFrame:
    """The examples that are trained on: all of the archive, and of the others at most so many of a kind."""
    train = examples.filter(pl.col("split") == "train")
    own = pl.col("source").is_in(_OWN_SOURCES)
    return pl.concat([train.filter(own), thinned(train.filter(~own), settings.data)])


def _some(table: pl.DataFrame, most: int) -> pl.DataFrame:
    return table.sample(min(most, table.height), seed=1)


def _tokenizer(
    examples: pl.DataFrame,
    terms: Mapping[str, Sequence[str]],
    regions: Sequence[str],
    annotator: Annotator,
    settings: TrainSettings,
    work: Path,
    base: Base | None,
) -> Tokenizer:
    from tokenizers import Tokenizer

    file = work / _TOKENIZER
    if base is not None:
        return Tokenizer.from_file(str(base.folder / base.card.tokenizer.file))
    if not file.is_file():
        words = [model_text(annotator.normaliser(word)) for every in terms.values() for word in every]
        texts = [*examples["text"].unique(maintain_order=True), *words]
        train_pieces(texts, regions=regions, size=settings.model.pieces).save(str(file))
    return Tokenizer.from_file(str(file))


def _network(
    train: pl.DataFrame,
    validate: pl.DataFrame,
    tokenizer: Tokenizer,
    findings: Sequence[str],
    regions: Sequence[str],
    augmenter: Augmenter,
    settings: TrainSettings,
    work: Path,
    base: Base | None,
    sentences: Sequence[str],
) -> FindingModel:
    import torch

    from reportlabel.train.fit import fit
    from reportlabel.train.model import FindingModel

    file = work / _NETWORK
    if file.is_file():
        model = FindingModel(settings.model, pieces=tokenizer.get_vocab_size(), findings=len(findings))
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    start = None if base is None else base.weights()
    if sentences:
        start = _pretrained(sentences, tokenizer, settings, work, start)
    fitted = fit(
        train,
        validate,
        tokenizer=tokenizer,
        findings=findings,
        regions=regions,
        augmenter=augmenter,
        settings=settings,
        work=work / "checkpoints",
        start=start,
    )
    partial = file.with_name(f".{file.name}.partial")
    torch.save(fitted.model.state_dict(), partial)
    partial.replace(file)
    return fitted.model


def _pretrained(
    sentences: Sequence[str],
    tokenizer: Tokenizer,
    settings: TrainSettings,
    work: Path,
    start: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    """Weights with an encoder that has read the sentences."""
    import torch

    from reportlabel.train.pretrain import pretrain

    file = work / "encoder.pt"
    if not file.is_file():
        encoder = pretrain(sentences, tokenizer=tokenizer, settings=settings, work=work / "pretraining", start=start)
        partial = file.with_name(f".{file.name}.partial")
        torch.save(encoder, partial)
        partial.replace(file)
    return {**(start or {}), **torch.load(file, weights_only=True)}
