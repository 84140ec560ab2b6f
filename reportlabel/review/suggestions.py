"""What rules should learn from readings: phrases that no rule knows, and phrases that rules read wrongly.

- *Missed*: a reader marked words for a label, and no finding expression of that label lies there.
- *Misread*: the report, as the rules read it, says something else than the reader. Those expressions are named that
  made it say so: their words up to the end of the clause. A reader also sees linked records: where one of them says
  what the reader says, it explains the reading, and the report may have been read rightly. ``agreed`` says on how many
  exams the same words were right.

Phrases are words of reports. They are told only where so many patients have the same words that they can be of none of
them (``patients`` of review.yaml, at least 3), and they are written nowhere but into the workspace.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.errors import ConfigError, InputError
from reportlabel.export.atomic import AtomicText
from reportlabel.ingest.assemble import reports_that_count
from reportlabel.review.readers import settled
from reportlabel.review.settings import SuggestionSettings
from reportlabel.rulebook.load import Rulebook
from reportlabel.rulebook.models import LabelEntry, LabelSet

SUGGESTIONS = pl.Schema(
    [
        ("kind", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("concept", pl.String),
        ("file", pl.String),
        ("phrase", pl.String),
        ("rule_id", pl.String),
        ("said", pl.String),
        ("read", pl.String),
        ("exams", pl.Int64),
        ("patients", pl.Int64),
        ("agreed", pl.Int64),
    ]
)
"""One row a phrase, what the rules say of it and what readers say.

``kind``: missed or misread. ``concept``, ``file``: the finding of the rules that it belongs to, and its file in the
rules folder. ``rule_id``: of what read it wrongly, null for missed. ``exams``, ``patients``: that were corrected so;
``agreed``: exams with the same words and the same statement of the rules which readers found right.
"""

FEW, LONG, NO_SPAN, NO_PLACE, EXPLAINED = (
    "Too few patients have the same words.",
    "The words are too long, or are none.",
    "The reader marked no words.",
    "The words are not in the report that counts now.",
    "A linked record says what the reader says.",
)

_KEY = ["exam_id", "label_set", "finding"]
_TOLD = ("present", "uncertain", "absent")


@dataclass(frozen=True)
class Suggested:
    """``phrases``: `SUGGESTIONS`, those that most patients have first. ``withheld``: reason -> corrections not told."""

    phrases: pl.DataFrame
    withheld: dict[str, int]


def suggest(
    readings: pl.DataFrame,
    *,
    votes: pl.DataFrame,
    mentions: pl.DataFrame,
    reports: pl.DataFrame,
    exams: pl.DataFrame,
    rules: Rulebook,
    label_sets: Mapping[str, LabelSet],
    settings: SuggestionSettings,
    adjudicators: Collection[str] = (),
) -> Suggested:
    """Compare what readers said with what the rules made of the same reports.

    Args:
        readings: `reportlabel.schema.READINGS`. Labels on which readers disagree teach nothing.
        votes, mentions, reports, exams: tables of the same workspace.

    Raises:
        InputError: a table lacks a column.
    """
    for name, table, columns in (
        ("votes", votes, (*_KEY, "function_id", "value", "kind", "evidence")),
        ("mentions", mentions, ("report_id", "start", "end", "finding", "cue", "rule_id", "region")),
        ("exams", exams, ("exam_id", "patient_id")),
    ):
        missing = [column for column in columns if column not in table.columns]
        if missing:
            raise InputError(f"{name}: column {', '.join(missing)} is missing; run `reportlabel run` again")
    entries = {(name, entry.id): entry for name, one in label_sets.items() for entry in one.findings}
    read = _read(readings, exams, entries, adjudicators)
    texts = reports_that_count(reports).select("exam_id", "report_id", "text")
    texts = texts.join(read.select("exam_id").unique(), on="exam_id", how="semi")
    here = mentions.join(texts.select("report_id"), on="report_id", how="semi")
    withheld: Counter[str] = Counter()
    found = pl.concat(
        [
            _misread(_with_records(read, votes), _said(votes, texts, here, label_sets), settings, withheld),
            _missed(read, texts, here, entries, label_sets, settings, withheld),
        ]
    )
    counted = (
        found.group_by("kind", "label_set", "finding", "concept", "phrase", "rule_id", "said", "read")
        .agg(
            exams=pl.col("exam_id").filter("wrong").n_unique().cast(pl.Int64),
            patients=pl.col("patient_id").filter("wrong").n_unique().cast(pl.Int64),
            agreed=pl.col("exam_id").filter(~pl.col("wrong")).n_unique().cast(pl.Int64),
        )
        # what was right counts beside every way in which the same words were wrong
        .with_columns(pl.col("agreed").sum().over("kind", "label_set", "finding", "phrase", "rule_id", "said"))
        .filter(pl.col("exams") > 0)
    )
    few = counted.filter(pl.col("patients") < settings.patients)
    withheld[FEW] += int(few["exams"].sum())
    files = {name: _file(rules, name) for name in rules.findings}
    phrases = (
        counted.filter(pl.col("patients") >= settings.patients)
        .with_columns(file=pl.col("concept").replace_strict(files, default=None, return_dtype=pl.String))
        .sort(
            ["patients", "exams", "label_set", "finding", "phrase", "rule_id", "said", "read"],
            descending=[True, True, *[False] * 6],
        )
    )
    return Suggested(phrases.select(SUGGESTIONS.names()).cast(SUGGESTIONS), {k: n for k, n in withheld.items() if n})


def _file(rules: Rulebook, finding: str) -> str:
    return rules.files[finding].document.path.relative_to(rules.folder).as_posix()


def _read(
    readings: pl.DataFrame,
    exams: pl.DataFrame,
    entries: Mapping[tuple[str, str], LabelEntry],
    adjudicators: Collection[str],
) -> pl.DataFrame:
    """exam_id, label_set, finding, read, spans, patient_id: labels that are a status, and on which readers agree."""
    known = pl.DataFrame(list(entries), schema={"label_set": pl.String, "finding": pl.String}, orient="row")
    counts = settled(readings, adjudicators=adjudicators)
    spans = readings.select(*_KEY, "reader", "value", "spans").join(
        counts.select(*_KEY, "reader", "value"), on=[*_KEY, "reader", "value"], how="semi"
    )
    return (
        spans.group_by(_KEY, maintain_order=True)
        .agg(
            pl.col("value").n_unique().alias("opinions"),
            pl.col("value").first().alias("read"),
            pl.col("spans").explode(),
        )
        .filter(pl.col("opinions") == 1)
        .with_columns(pl.col("spans").list.drop_nulls())
        .join(known, on=["label_set", "finding"], how="semi")
        .join(exams.select("exam_id", "patient_id"), on="exam_id", how="inner")
        .with_columns(pl.col("patient_id").fill_null(pl.col("exam_id")))
        .drop("opinions")
    )


def _said(
    votes: pl.DataFrame, texts: pl.DataFrame, mentions: pl.DataFrame, label_sets: Mapping[str, LabelSet]
) -> pl.DataFrame:
    """exam_id, label_set, finding, said, concept, rule_id, start, end, cue, text: expressions that make the statement.

    ``said`` is the statement of the report: the first value in the precedence of the label set.
    """
    regions = {name: one.region for name, one in label_sets.items()}
    order = {(name, value): place for name, one in label_sets.items() for place, value in enumerate(one.precedence)}
    ranks = pl.DataFrame(
        [(*key, place) for key, place in order.items()],
        schema={"label_set": pl.String, "value": pl.String, "rank": pl.Int64},
        orient="row",
    )
    places = pl.col("evidence").str.extract_groups(r"^(?<start>\d+)-(?<end>\d+)$")
    return (
        votes.filter(pl.col("kind") == "rule")
        .join(texts, on="exam_id", how="inner")
        .join(ranks, on=["label_set", "value"], how="inner")
        .filter(pl.col("rank") == pl.col("rank").min().over(_KEY))
        .with_columns(
            start=places.struct.field("start").cast(pl.Int32),
            end=places.struct.field("end").cast(pl.Int32),
            rule_id=pl.col("function_id").str.strip_prefix("rule/"),
            region=pl.col("label_set").replace_strict(regions, return_dtype=pl.String),
        )
        .join(
            mentions.select("report_id", "start", "end", "rule_id", "region", "cue", concept="finding").unique(
                ["report_id", "start", "end", "rule_id", "region"], maintain_order=True
            ),
            on=["report_id", "start", "end", "rule_id", "region"],
            how="inner",
        )
        .select(*_KEY, "concept", "rule_id", "start", "end", "cue", "text", said="value")
    )


_FOUND = pl.Schema(
    [
        ("kind", pl.String),
        *((name, pl.String) for name in (*_KEY, "patient_id", "concept", "phrase", "rule_id", "said", "read")),
        ("wrong", pl.Boolean),
    ]
)


def _with_records(read: pl.DataFrame, votes: pl.DataFrame) -> pl.DataFrame:
    """``read`` and ``explained``: whether a linked record says the same; not mentioned is as good as absent."""
    same = pl.col("value") == pl.col("read").replace({"not_mentioned": "absent"})
    records = (
        votes.filter(pl.col("kind") == "record")
        .join(read.select(*_KEY, "read"), on=_KEY, how="inner")
        .filter(same)
        .select(_KEY)
        .unique()
        .with_columns(explained=pl.lit(True))
    )
    return read.join(records, on=_KEY, how="left").with_columns(pl.col("explained").fill_null(False))


def _misread(
    read: pl.DataFrame, said: pl.DataFrame, settings: SuggestionSettings, withheld: Counter[str]
) -> pl.DataFrame:
    rows = []
    explained: set[tuple[str, ...]] = set()
    for row in read.join(said, on=_KEY, how="inner").iter_rows(named=True):
        wrong = row["said"] != row["read"]
        if wrong and row["explained"]:
            explained.add(tuple(row[name] for name in _KEY))
            continue
        phrase = clause(row["text"], row["start"], row["end"], cue=row["cue"], settings=settings)
        if phrase is None:
            withheld[LONG] += wrong
            continue
        rows.append({**row, "kind": "misread", "phrase": phrase, "wrong": wrong})
    withheld[EXPLAINED] += len(explained)
    return pl.DataFrame([{name: row[name] for name in _FOUND} for row in rows], schema=_FOUND)


def _missed(
    read: pl.DataFrame,
    texts: pl.DataFrame,
    mentions: pl.DataFrame,
    entries: Mapping[tuple[str, str], LabelEntry],
    label_sets: Mapping[str, LabelSet],
    settings: SuggestionSettings,
    withheld: Counter[str],
) -> pl.DataFrame:
    held: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for report, region, concept, start, end in mentions.select(
        "report_id", "region", "finding", "start", "end"
    ).iter_rows():
        held.setdefault((report, region, concept), []).append((start, end))
    rows = []
    for row in read.filter(pl.col("read").is_in(_TOLD)).join(texts, on="exam_id", how="inner").iter_rows(named=True):
        entry, region = entries[row["label_set"], row["finding"]], label_sets[row["label_set"]].region
        known = [place for concept in entry.any_of for place in held.get((row["report_id"], region, concept), [])]
        if not row["spans"]:
            withheld[NO_SPAN] += not known and row["read"] != "absent"  # to deny what nobody mentions misses nothing
            continue
        for span in row["spans"]:
            if not 0 <= span["start"] < span["end"] <= len(row["text"]):
                withheld[NO_PLACE] += 1
                continue
            if any(start < span["end"] and span["start"] < end for start, end in known):
                continue
            phrase = plain(row["text"][span["start"] : span["end"]], settings)
            if phrase is None:
                withheld[LONG] += 1
                continue
            told = {"kind": "missed", "phrase": phrase, "concept": entry.any_of[0], "rule_id": None, "said": None}
            rows.append({**row, **told, "wrong": True})
    return pl.DataFrame([{name: row[name] for name in _FOUND} for row in rows], schema=_FOUND)


def plain(words: str, settings: SuggestionSettings) -> str | None:
    """The words without line breaks and marks at their ends, in one width (NFKC); None where too long or empty."""
    text = unicodedata.normalize("NFKC", words.replace("\n", "")).strip().strip(settings.stops).strip()
    return text if 0 < len(text) <= settings.longest else None


def clause(text: str, start: int, end: int, *, cue: str | None, settings: SuggestionSettings) -> str | None:
    """The words from an expression to the end of the clause that its cue stands in; None where too long."""
    behind = text.find(cue, end) if cue else -1
    # a cue further away than a phrase may be long is another one with the same words
    last = behind + len(cue or "") if 0 <= behind <= end + settings.longest else end
    while last < len(text) and text[last] not in settings.stops:
        last += 1
    return plain(text[start:last], settings)


# --- stubs


def stubs(phrases: pl.DataFrame, *, label_sets: Mapping[str, LabelSet], settings: SuggestionSettings) -> dict[str, str]:
    """YAML to merge into the rules, by file of the rules folder.

    Missed phrases become terms, each with an example. Misread ones become examples that fail until the rules are mended
    (`reportlabel rules test`), where readers contradict at least the share ``misread_from`` of what was read so.
    Nothing takes effect by itself: a radiologist decides.

    Args:
        phrases: `SUGGESTIONS`.
    """
    made: dict[str, str] = {}
    for (file,), group in phrases.filter(pl.col("file").is_not_null()).group_by("file", maintain_order=True):
        terms: list[tuple[str, str]] = []
        examples: list[tuple[str, str, str]] = []
        lines: list[str] = []
        told: set[tuple[str, str]] = set()
        for row in group.iter_rows(named=True):
            if row["kind"] == "misread" and row["exams"] < settings.misread_from * (row["exams"] + row["agreed"]):
                continue
            count = f"{row['exams']} exams of {row['patients']} patients"
            if row["kind"] == "missed":
                others = _others(label_sets, row)
                if row["phrase"] not in [term for term, _ in terms]:
                    terms.append((row["phrase"], f"{count}, {row['label_set']}/{row['finding']}{others}"))
                text = str(getattr(settings.examples, row["read"])).replace("{phrase}", row["phrase"])
            else:
                text = row["phrase"] + "。"
                count += f", {row['agreed']} right; the rules say {row['said']} ({row['rule_id']})"
            if (text, row["read"]) not in told:
                told.add((text, row["read"]))
                examples.append((text, row["read"], count))
        if terms:
            lines += ["terms:", *(f"  - {_quoted(term)}  # {count}" for term, count in terms)]
        if not examples:
            continue
        lines += ["examples:"]
        lines += [f"  - {{text: {_quoted(text)}, status: {status}}}  # {count}" for text, status, count in examples]
        made[str(file)] = "\n".join(lines) + "\n"
    return made


def _others(label_sets: Mapping[str, LabelSet], row: Mapping[str, str]) -> str:
    """The other findings that the label may mean."""
    entry = next(one for one in label_sets[row["label_set"]].findings if one.id == row["finding"])
    return f"; or {', '.join(entry.any_of[1:])}" if len(entry.any_of) > 1 else ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def write_stubs(made: Mapping[str, str], workspace: Path) -> Path:
    """Write the stubs below the workspace, the only place for words of its reports; returns the folder.

    What an earlier call wrote and this one does not is removed.

    Raises:
        ConfigError: it cannot be written.
    """
    folder = workspace / "suggestions"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.rglob("*.yaml"):
            old.unlink()
        for name in made:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from None
    for name, text in sorted(made.items()):
        with AtomicText(folder / name) as file:
            file.write(text)
    return folder
