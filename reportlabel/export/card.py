"""The data card: what an export holds, for those who train on it. Counts only; small ones are not shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from reportlabel.export.cells import Cells
from reportlabel.export.options import ExportOptions
from reportlabel.export.splits import SPLITS
from reportlabel.export.targets import VALUES, policies
from reportlabel.rulebook.models import LabelSet

SMALLEST = 5
CELLS = Cells(SMALLEST)

_PLACE = ("split", "modality_class", "site")
_OF_EXAMS = ("n_reviewed", "n_present")
_CHOICE_COLUMNS = (
    "label_set", "finding", "method", *_OF_EXAMS, "f1_a", "f1_b", "brier_a", "brier_b", "ece_a", "ece_b",
    "calibration", "n_functions",
)  # fmt: skip


@dataclass
class Tally:
    """Counts gathered while an export is written, so that the whole table need not be held.

    Attributes:
        values: label_set, finding, split, modality_class, site, value, loss_mask, review_state, conflict, method, n.
        sources: kind, function_id (of records; null else), n.
    """

    values: list[pl.DataFrame] = field(default_factory=list)
    sources: list[pl.DataFrame] = field(default_factory=list)

    def add(self, teacher: pl.DataFrame, exams: pl.DataFrame) -> None:
        """Count the rows of a canonical table; ``exams`` gives ``modality_class``."""
        rows = teacher.join(exams.select("exam_id", "modality_class"), on="exam_id", how="left")
        keys = ("label_set", "finding", *_PLACE, "value", "loss_mask", "review_state", "conflict", "method")
        self.values.append(rows.group_by(keys).len("n"))
        evidence = teacher.select(pl.col("evidence").explode()).drop_nulls().unnest("evidence")
        self.sources.append(
            evidence.select(
                "kind",
                # the ids of text functions are words of reports; records are named by their rule
                pl.when(pl.col("kind") == "record").then("function_id").alias("function_id"),
            )
            .group_by("kind", "function_id")
            .len("n")
        )

    def table(self) -> pl.DataFrame:
        """All value counts."""
        return pl.concat(self.values) if self.values else pl.DataFrame()


@dataclass(frozen=True)
class About:
    """What the card says beside the counts.

    Attributes:
        version: of reportlabel.
        as_of: version of the tables that were read; None: as they were.
        protocol: id of the study protocol; None: none. study: what the manifest says of it.
        choices: which method made the labels and how it did on reviewed exams; may be empty.
        exams_without_image, images_of_no_exam: None where no images table was given.
    """

    version: str
    rules_hash: Sequence[str]
    model_version: Sequence[str]
    as_of: str | None = None
    protocol: str | None = None
    study: Mapping[str, Any] | None = None
    choices: pl.DataFrame | None = None
    exams_without_image: int | None = None
    images_of_no_exam: int | None = None


def card(
    *, tally: Tally, exams: pl.DataFrame, label_sets: Sequence[LabelSet], options: ExportOptions, about: About
) -> str:
    """The card as Markdown.

    Args:
        exams: those exported: ``patient_id``, ``split``, ``modality_class``, ``site``.
    """
    sections = [
        "# Data card",
        _what(label_sets, about),
        "## Exams and patients",
        *_counts(exams, about),
        "## How often each finding is there",
        _PREVALENCE_NOTE,
        *(_prevalence(tally, label_set, column) for label_set in label_sets for column in _PLACE),
        "## Where the labels come from",
        *_sources(tally),
        "## How the labels were decided",
        *_methods(tally, about),
        "## How the targets were made",
        _targets(label_sets, options),
        "## Known limits",
        _LIMITS,
        "## How to cite",
        _cite(label_sets, about),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


_PREVALENCE_NOTE = (
    f"Exams by value. Here and in all tables of this card counts from 1 to {SMALLEST - 1} are shown as "
    f"<{SMALLEST} and all others rounded to the nearest {SMALLEST}, so that a difference of two does not tell "
    "a small one. % present is of all exams of the row, from the rounded counts; left out where one of them is small."
)

_LIMITS = """\
- The labels say what reports and linked records say, not what an image shows: radiologists who label reports and
  radiologists who label the images agree only moderately.
- `not_mentioned` is no observation. Silence mostly means that nothing worth telling was seen, but findings that matter
  little for the question asked (calcified arteries, old scars) are often left out though they are there.
- `uncertain` is the state that programs read worst; its policy is a choice, stated above.
- `p_present` is calibrated only where the table above shows reviewed exams; elsewhere it orders labels and no more.
- Labels that rest on records known only after the reading are sound as labels. They must not be inputs of a model;
  `features.parquet`, where it was written, holds only what was known when the report was signed.
- Sites write in their own style. Compare test results by site before a model is used at another one."""


def _what(label_sets: Sequence[LabelSet], about: About) -> str:
    rows = [
        ("label sets", "; ".join(f"{one.id} ({one.name.en}; source: {one.source})" for one in label_sets)),
        ("reportlabel", about.version),
        ("rules (SHA-256)", ", ".join(about.rules_hash) or "not recorded"),
        ("model version", ", ".join(about.model_version) or "none"),
        ("tables as of", about.as_of or "the newest version"),
        ("study protocol", about.protocol or "none"),
    ]
    mixed = len(about.rules_hash) > 1 or len(about.model_version) > 1
    note = "\n\n**The labels were made by more than one version of rules or models.**" if mixed else ""
    return markdown(("", ""), rows) + note


def _counts(exams: pl.DataFrame, about: About) -> list[str]:
    by_split = [
        (split, one.height, one["patient_id"].n_unique())
        for split in SPLITS
        for one in [exams.filter(pl.col("split") == split)]
    ]
    parts = [markdown(("split", "exams", "patients"), [(split, shown(n), shown(m)) for split, n, m in by_split])]
    for column, name in (("modality_class", "modality class"), ("site", "site")):
        known = exams.with_columns(pl.col(column).fill_null("not known"))
        places = sorted(known[column].unique())
        counts = [
            [known.filter((pl.col(column) == place) & (pl.col("split") == split)).height for split in SPLITS]
            for place in places
        ]
        table = [(place, *map(shown, row)) for place, row in zip(places, counts, strict=True)]
        parts.append(markdown((name, *SPLITS), table))
    if about.exams_without_image is not None:
        parts.append(
            f"{shown(about.exams_without_image)} exams have no image in the images table: they have labels in "
            f"`labels.parquet` and no row in tables of images. {shown(about.images_of_no_exam or 0)} images of the "
            "table are of no exported exam and were not used."
        )
    return parts


def _prevalence(tally: Tally, label_set: LabelSet, column: str) -> str:
    values = tally.table()
    if values.is_empty():
        return ""
    values = values.filter(pl.col("label_set") == label_set.id).with_columns(pl.col(column).fill_null("not known"))
    counted = {
        (finding, place, value): n
        for finding, place, value, n in values.group_by("finding", column, "value").agg(pl.col("n").sum()).iter_rows()
    }
    places = sorted(
        {place for _, place, _ in counted}, key=lambda one: (SPLITS.index(one) if one in SPLITS else 0, one)
    )
    rows: list[tuple[str, ...]] = []
    for entry in label_set.findings:
        for place in places:
            counts = [int(counted.get((entry.id, place, value), 0)) for value in VALUES]
            share = CELLS.share(counts[0], sum(counts))
            rows.append((entry.id, place, *map(shown, counts), "" if share is None else f"{100 * share:.1f}"))
    if not rows:
        return ""
    name = column.replace("_", " ")
    return f"### {label_set.id} by {name}\n\n" + markdown(("finding", name, *VALUES, "% present"), rows)


def _sources(tally: Tally) -> list[str]:
    if not tally.sources:
        return []
    found = pl.concat(tally.sources).group_by("kind", "function_id").agg(pl.col("n").sum())
    found = found.sort("kind", "function_id", nulls_last=False)
    rows = [(kind or "not known", function or "all", shown(n)) for kind, function, n in found.iter_rows()]
    if not rows:
        return ["No label names evidence."]
    text = (
        "Votes that the labels name as evidence. Kind `rule` is the text of the report read by rules, `bert` by a "
        "model, `record` a linked record, `reader` a radiologist."
    )
    return [text, markdown(("kind", "function", "votes"), rows)]


def _methods(tally: Tally, about: About) -> list[str]:
    values = tally.table()
    parts = []
    if not values.is_empty():
        counted = values.group_by("method", "review_state").agg(
            pl.col("n").sum(), pl.col("n").filter(pl.col("conflict")).sum().alias("conflict")
        )
        rows = [
            (method or "not known", state, shown(n), shown(conflict))
            for method, state, n, conflict in counted.sort("method", "review_state").iter_rows()
        ]
        parts.append(markdown(("method", "review state", "labels", "with conflict"), rows))
    choices = about.choices
    if choices is None or choices.is_empty():
        parts.append("No comparison of methods on reviewed exams was recorded: figures of quality are not known.")
        return parts
    columns = [name for name in _CHOICE_COLUMNS if name in choices.columns]
    ordered = choices.sort([name for name in ("label_set", "finding") if name in choices.columns])
    table = []
    for row in ordered.iter_rows(named=True):
        table.append([shown(row[name]) if name in _OF_EXAMS else _cell(row[name]) for name in columns])
    parts.append(
        "Method and, by cross-validation over patients on reviewed exams, how (a) precedence and weighted majority and "
        "(b) the label model did; lower Brier score and expected calibration error (ECE) are better."
    )
    parts.append(markdown(columns, table))
    return parts


def _targets(label_sets: Sequence[LabelSet], options: ExportOptions) -> str:
    chosen = policies(label_sets, options).filter(pl.col("policy").is_not_null())
    rows = [
        (label_set, policy, silence, ", ".join(findings))
        for label_set, policy, silence, findings in chosen.group_by(
            "label_set", "policy", "silence", maintain_order=True
        )
        .agg("finding")
        .iter_rows()
    ]
    shares = ", ".join(f"{split} {share:g}" for split, share in zip(SPLITS, options.shares, strict=True))
    held = ", ".join(options.hold_out_sites) or "none"
    return (
        markdown(("label set", "uncertain becomes", "not_mentioned becomes", "findings"), rows)
        + f"""

- Patients are split by SHA-256 of a salt and the patient: {shares}; sites held out for test: {held}.
- Sample weight = loss mask × certainty × review × silence × class. Review: {options.reviewed_weight:g} reviewed,
  {options.adjudicated_weight:g} adjudicated, else 1. Silence: {options.silence_weight:g}. Exponent of the class
  weight: {options.balance:g}."""
    )


def _cite(label_sets: Sequence[LabelSet], about: About) -> str:
    names = ", ".join(one.id for one in label_sets)
    rules = ", ".join(one[:12] for one in about.rules_hash) or "not recorded"
    return (
        f"Name reportlabel {about.version}, the label sets ({names}), the rules ({rules}), the model version "
        f"({', '.join(about.model_version) or 'none'}), and the SHA-256 of `manifest.json`, which stands for every "
        "byte of this export. Say which uncertainty policy and which reading of not_mentioned were used."
    )


def shown(count: int) -> str:
    """A count, rounded, or that it is small."""
    return CELLS.text(count)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
