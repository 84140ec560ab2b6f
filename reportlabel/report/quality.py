"""The quality page of a workspace: where its labels come from, how good they are, and what to look at next.

One HTML file that opens offline and runs no script. It holds counts, shares, and names of findings, rules and reasons:
no text of a report, no id of a person, exam or reader, no path. Of a study it hides small numbers
(`reportlabel.export.cells.Cells`), and years where the dates of the study are not those of the calendar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from reportlabel import __version__
from reportlabel.aggregate.settings import load_settings as load_aggregate
from reportlabel.errors import ExitCode
from reportlabel.evaluate.diagnostic import Interval
from reportlabel.export.atomic import AtomicText, check_writable
from reportlabel.export.cells import Cells
from reportlabel.export.folder import new_folder
from reportlabel.export.manifest import write_manifest
from reportlabel.export.study_folder import about, check_permission
from reportlabel.govern import study_of
from reportlabel.protocol import Permission, Profile, Protocol
from reportlabel.report.names import STATUSES, label_names
from reportlabel.report.quality_numbers import (
    Reliability,
    Reviewed,
    RunTables,
    Score,
    attrition_of,
    functions_of,
    label_counts,
    made_of,
    names_of_readers,
    next_of,
    present_by,
    progress_of,
    quarantine_of,
    reader_agreement,
    reliability_of,
    reviewed_of,
    scores_of,
)
from reportlabel.review.settings import load_settings as load_review
from reportlabel.rulebook.display import load_display, named
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.rulebook.models import Name
from reportlabel.run import open_workspace

__all__ = ["render_quality_page", "run_report", "write_quality_folder", "write_quality_page"]

_TEMPLATE = "quality.html.j2"
_PAGE = "quality.html"
_WORST = 30
"""Functions that are listed at once; the others are in a part of the page that opens."""
_KINDS = {"rule": "the report, read by rules", "bert": "the report, read by a model"}
_MEASURES = ("observed", "gwet_ac1", "fleiss_kappa", "krippendorff_alpha")

Row = dict[str, Any]


def run_report(workspace: Path, out: Path, as_of: int | None, rules: Path | None, console: Console) -> int:
    """Write the quality page and say where it is; returns the exit code.

    Raises:
        ConfigError, InputError: see `write_quality_page`.
    """
    path = write_quality_page(workspace, out, as_of=as_of, rules=rules)
    console.print(f"quality page: {path}", highlight=False, soft_wrap=True)
    return int(ExitCode.DONE)


def write_quality_page(workspace: Path, out: Path, *, as_of: int | None, rules: Path | None) -> Path:
    """Write the quality page of a workspace as one HTML file.

    Args:
        as_of: the labels of this version; None: of the last. rules: the rules of the run, where they are not those
            installed: names of findings, and how exams that were read are judged again.

    Raises:
        ConfigError: no workspace, wrong rules, the protocol has changed since the run, or ``out`` cannot be written.
        InputError: no run has finished, or there is no such version.
    """
    check_writable(out)
    opened = open_workspace(workspace)
    study = study_of(workspace)
    protocol = None if study is None else study.load()
    run = RunTables.of(opened, as_of=as_of)
    page = render_quality_page(run, load_rules(rules), protocol=protocol)
    with AtomicText(out) as file:
        file.write(page)
    return out


def write_quality_folder(
    out: Path,
    run: RunTables,
    book: Rulebook,
    *,
    protocol: Protocol,
    permission: Permission,
    rules_sha256: str | None = None,
) -> None:
    """The quality page of a study as a deliverable: a folder with the page and the manifest (K8, X2).

    Raises:
        RefusedError: the permission is for something else. ConfigError: the folder cannot be written.
    """
    check_permission(protocol, permission, kinds=("report",))
    page = render_quality_page(run, book, protocol=protocol)
    cells = Cells(protocol.deid.k)
    counts = {"exams": cells.count(run.exams.height) or 0, "snapshot": run.snapshot}
    said = about(protocol, permission, counts=counts, rules_sha256=rules_sha256, smallest_cell=protocol.deid.k)
    with new_folder(out) as folder:
        (folder / _PAGE).write_text(page, encoding="utf-8")
        write_manifest(folder, about=said, rows={})


def render_quality_page(run: RunTables, book: Rulebook, *, protocol: Protocol | None) -> str:
    """The page as text.

    Args:
        protocol: of the study that the tables belong to; small numbers are then hidden. None: of none.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page: str = environment.get_template(_TEMPLATE).render(_Page(run, book, protocol).view())
    return page


# --- how numbers are told ---------------------------------------------------------------------------------------------


def _percent(share: float | None, *, whole: bool) -> str:
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.0f}%" if whole or share == 1 else f"{100 * share:.1f}%"


def _figure(number: float | None) -> str:
    return "–" if number is None or not math.isfinite(number) else f"{number:.3f}"


def _interval(given: Interval) -> Row:
    if not math.isfinite(given.estimate):
        return {"value": "–", "range": ""}
    bounds = f"{given.low:.2f}–{given.high:.2f}" if math.isfinite(given.low + given.high) else ""
    return {"value": f"{given.estimate:.3f}", "range": bounds}


@dataclass(frozen=True)
class _Names:
    """What label sets and findings are called; their ids where the rules do not have them."""

    book: Rulebook

    def label_set(self, name: str) -> Name:
        known = self.book.label_sets.get(name)
        return Name(ja=name, en=name) if known is None else known.name

    def finding(self, label_set: str, name: str) -> Name:
        known = self.book.label_sets.get(label_set)
        return named({} if known is None else label_names(known), name)

    def order(self, label_set: str) -> list[str]:
        known = self.book.label_sets.get(label_set)
        return [] if known is None else list(label_names(known))

    def is_value(self, label_set: str, name: str) -> bool:
        known = self.book.label_sets.get(label_set)
        return known is not None and any(entry.id == name for entry in known.values)


def _function(kind: str, function_id: str) -> str:
    # ids of functions on text may be words of reports; those of records are names of rules
    return function_id.removeprefix("record/") if kind == "record" else _KINDS.get(kind, kind)


# --- the page ---------------------------------------------------------------------------------------------------------


class _Page:
    """Everything the template shows, section by section."""

    def __init__(self, run: RunTables, book: Rulebook, protocol: Protocol | None) -> None:
        self.run = run
        self.book = book
        self.names = _Names(book)
        self.words = load_display(book.folder)
        self.protocol = protocol
        self.cells = Cells(None if protocol is None else protocol.deid.k)
        # shifted or relative days give no year of the calendar
        self.calendar = protocol is None or protocol.dates_of(_profile(protocol)) == "keep"
        self.counts = label_counts(run)
        self.count_of = {(row["label_set"], row["finding"]): row for row in self.counts.iter_rows(named=True)}
        self.by_class = present_by(run, "modality_class")
        self.by_year = present_by(run, "year") if self.calendar else self.by_class.clear()
        self.labels = self._labels()
        self.exams_of = self._exams_of()
        self.functions = functions_of(run, self.exams_of)
        self.reviewed: Reviewed = reviewed_of(run, book.label_sets, load_aggregate(book.folder / "aggregate.yaml"))
        self.audit = self.reviewed.rows.filter(pl.col("teaches"))
        self.scores = scores_of(self.audit)

    def view(self) -> Row:
        """What the template is given."""
        return {
            "head": self._head(),
            "k": self.cells.k,
            "calendar": self.calendar,
            "statuses": [(status, named(self.words.statuses, status)) for status in STATUSES],
            "attrition": self._attrition(),
            "quarantine": self._quarantine(),
            "sets": [self._set(name) for name in self.exams_of],
            "choices": self._choices(),
            "diagrams": [self._diagram(one) for one in reliability_of(self.audit, cells=self.cells)],
            "functions": self._functions(),
            "against": self._against(),
            "review": self._review(),
            "next": self._next(),
        }

    # --- 1 what it is

    def _head(self) -> Row:
        made = made_of(self.run)
        hashes = made["rules_hash"].drop_nulls().unique(maintain_order=True).to_list()
        years = self.run.exams["started_at"].dt.year().drop_nulls().sort()
        protocol = self.protocol
        return {
            "version": __version__,
            "snapshot": self.run.snapshot,
            "made_at": f"{self.run.made_at:%Y-%m-%d %H:%M} UTC",
            "rules": hashes,
            "other_rules": bool(hashes) and hashes != [self.book.sha256],
            "models": made["model_version"].drop_nulls().unique(maintain_order=True).to_list(),
            "study": None
            if protocol is None
            else {"id": protocol.id, "name": protocol.name, "sha256": protocol.sha256, "k": protocol.deid.k},
            "exams": self.cells.text(self.run.exams.height),
            "patients": self.cells.text(self.run.exams["patient_id"].n_unique()),
            "labels": self.cells.text(int(self.counts["n"].sum())),
            "read": self.cells.text(self.run.gold.select("exam_id").n_unique()),
            "years": "–".join(str(year) for year in (years[0], years[-1])) if self.calendar and len(years) else "",
        }

    # --- 2 attrition

    def _attrition(self) -> list[Row]:
        """One row a stage and table; the numbers of each add up: in = out + excluded + quarantined."""
        rows: list[Row] = []
        table = attrition_of(self.run.attrition)
        for (stage, name), group in table.group_by("stage", "table", maintain_order=True):
            total = {outcome: int(group.filter(pl.col("outcome") == outcome)["rows"].sum())
                     for outcome in ("in", "out", "excluded", "quarantined")}  # fmt: skip
            lost = group.filter(pl.col("outcome").is_in(["excluded", "quarantined"]) & (pl.col("rows") > 0))
            rows.append(
                {
                    "stage": stage,
                    "table": name,
                    **{outcome: self.cells.text(number) for outcome, number in total.items()},
                    "sums": total["in"] == total["out"] + total["excluded"] + total["quarantined"],
                    "reasons": [
                        {"outcome": outcome, "reason": reason, "rows": self.cells.text(number)}
                        for outcome, reason, number in lost.select("outcome", "reason", "rows").iter_rows()
                    ],
                }
            )
        return rows

    def _quarantine(self) -> list[Row]:
        return [
            {**row, "rows": self.cells.text(row["rows"])}
            for row in quarantine_of(self.run.quarantine).iter_rows(named=True)
        ]

    # --- 3 labels

    def _labels(self) -> list[tuple[str, str]]:
        """Labels that are a status, in the order of the label sets."""
        there = set(self.count_of)
        ordered = [
            (label_set, finding)
            for label_set in sorted({one for one, _ in there})
            for finding in (*self.names.order(label_set), *sorted(name for one, name in there if one == label_set))
            if (label_set, finding) in there and not self.names.is_value(label_set, finding)
        ]
        return list(dict.fromkeys(ordered))

    def _exams_of(self) -> dict[str, int]:
        """Label set -> exams that it fits."""
        most = self.counts.group_by("label_set").agg(pl.col("n").max()).sort("label_set")
        return {str(name): int(n) for name, n in most.iter_rows()}

    def _set(self, label_set: str) -> Row:
        rows = [self._finding(label_set, name) for one, name in self.labels if one == label_set]
        classes = self.by_class.filter(pl.col("label_set") == label_set)["place"].unique().fill_null("?")
        return {
            "id": label_set,
            "name": self.names.label_set(label_set),
            "exams": self.cells.text(self.exams_of[label_set]),
            "classes": ", ".join(sorted(classes)),
            "rows": rows,
            "panels": [row for row in rows if row["panel"]],
            "values": [
                {
                    "name": self.names.finding(label_set, row["finding"]),
                    "id": row["finding"],
                    "given": self.cells.text(row["given"], row["given_persons"]),
                    "n": self.cells.text(row["n"]),
                }
                for row in self.counts.filter(pl.col("label_set") == label_set).iter_rows(named=True)
                if self.names.is_value(label_set, row["finding"])
            ],
        }

    def _finding(self, label_set: str, finding: str) -> Row:
        row = self.count_of[label_set, finding]
        n, persons = row["n"], {status: row[f"{status}_persons"] for status in STATUSES}
        shares = [self.cells.share(row[status], n, persons[status]) for status in STATUSES]
        told = row["present"] and self.cells.count(row["present"], persons["present"]) is not None
        return {
            "id": finding,
            "name": self.names.finding(label_set, finding),
            "counts": [self.cells.text(row[status], persons[status]) for status in STATUSES],
            "none": [row[status] == 0 for status in STATUSES],
            "bar": [100 * (share or 0.0) for share in shares],
            "present": self._percent(shares[0]),
            "conflicts": self.cells.text(row["conflicts"], row["conflicts_persons"]),
            "panel": self._panel(label_set, finding) if told else None,
        }

    def _percent(self, share: float | None) -> str:
        return _percent(share, whole=self.cells.k is not None)

    def _panel(self, label_set: str, finding: str) -> Row:
        """Share of present by year and by modality class, of the exams of each."""
        own = (pl.col("label_set") == label_set) & (pl.col("finding") == finding)
        years = [self._bar(row) for row in _every_year(self.by_year.filter(own).drop_nulls("place"))]
        classes = [self._bar(row) for row in self.by_class.filter(own).iter_rows(named=True)]
        return {"years": _columns(years), "classes": _columns(classes) if len(classes) > 1 or not years else None}

    def _bar(self, row: Mapping[str, Any]) -> Row:
        share = self.cells.share(row["present"], row["n"], row["present_persons"])
        name, n, hidden = row["place"] or "?", row["n"], share is None and row["n"] > 0
        told = f"<{self.cells.k}" if hidden else self._percent(share)
        says = f"{name}: hidden" if hidden else f"{name}: {told} of {self.cells.text(n)} exams"
        return {"name": name, "share": share, "hidden": hidden, "says": says, "told": told}

    # --- 4 how labels are judged

    def _choices(self) -> Row:
        rows = []
        order = {label: at for at, label in enumerate(self.labels)}
        table = sorted(
            self.run.choices.iter_rows(named=True),
            key=lambda row: order.get((row["label_set"], row["finding"]), len(order)),
        )
        for row in table:
            enough = self.cells.enough(row["n_present"], row["n_reviewed"] - row["n_present"])
            rows.append(
                {
                    **self._called(row),
                    "method": row["method"].replace("_", " "),
                    "n": self.cells.text(row["n_reviewed"]),
                    "present": self.cells.text(row["n_present"]),
                    "figures": [
                        _figure(row[name] if enough else None)
                        for name in ("f1_a", "f1_b", "brier_a", "brier_b", "ece_a", "ece_b")
                    ],
                    "measured": enough and row["f1_a"] is not None,
                    "calibration": row["calibration"],
                    "functions": row["n_functions"],
                    "voices": len(row["groups"]),
                }
            )
        methods = self.run.choices["method"].value_counts().sort("method")
        return {
            "rows": rows,
            "measured": [row for row in rows if row["measured"]],
            "methods": [(name.replace("_", " "), count) for name, count in methods.iter_rows()],
            "calibrated": self.run.choices.filter(pl.col("calibration") != "none").height,
        }

    def _called(self, row: Mapping[str, Any]) -> Row:
        label_set, finding = str(row["label_set"]), str(row["finding"])
        return {
            "label_set": self.names.label_set(label_set),
            "name": self.names.finding(label_set, finding),
            "id": finding,
        }

    def _diagram(self, one: Reliability) -> Row:
        points = [
            {
                "x": 100 * bin.probability,
                "y": 100 - 100 * bin.present.estimate,
                "size": 1.4 + 2.2 * math.sqrt(bin.n / one.n),
                "low": 100 - 100 * bin.present.low,
                "high": 100 - 100 * bin.present.high,
                "says": f"{bin.probability:.2f} said, {bin.present.estimate:.2f} present, of {self.cells.text(bin.n)}",
            }
            for bin in one.bins
        ]
        return {
            "name": self.names.label_set(one.label_set),
            "points": points,
            "n": self.cells.text(one.n),
            "present": self.cells.text(one.present),
            "error": _figure(one.error),
        }

    # --- 5 labelling functions

    def _functions(self) -> Row:
        rows = [self._function_row(row) for row in self.functions.iter_rows(named=True)]
        return {"first": rows[:_WORST], "others": rows[_WORST:]}

    def _function_row(self, row: Mapping[str, Any]) -> Row:
        cases = row["cases"]
        persons = row["persons"]
        checked = self.cells.enough(row["n_reviewed"])
        said = ("n_present", "n_uncertain", "n_absent")
        return {
            **self._called(row),
            "function": _function(row["kind"], row["function_id"]),
            "kind": row["kind"],
            "votes": self.cells.text(row["n_votes"], persons),
            # how many people are behind each of these is not known: a study does not tell them
            "says": [f"{row[name]:,}" if self.cells.k is None else "–" for name in said],
            "coverage": self._percent(self.cells.share(row["n_votes"], cases, persons)),
            "overlap": self._percent(self.cells.share(row["n_overlap"], row["n_votes"])),
            "conflict": self._percent(self.cells.share(row["n_conflict"], row["n_votes"])),
            "reviewed": self.cells.text(row["n_reviewed"]),
            "accuracy": self._percent(row["empirical_accuracy"] if checked else None),
            "chance": self._percent(row["chance"] if checked else None),
            "estimated": self._percent(row["estimated_accuracy"]),
            "below": checked and row["above"] is not None and row["above"] <= 0,
        }

    # --- 6 labels against readers

    def _against(self) -> Row:
        chosen = scores_of(self.reviewed.rows.filter(~pl.col("teaches")))
        rows = []
        for label in self.labels:
            if label not in self.scores and label not in chosen:
                continue
            score, doubtful = self.scores.get(label), chosen.get(label)
            rows.append(
                {
                    **self._called({"label_set": label[0], "finding": label[1]}),
                    **self._score(score),
                    "coverage": self._percent(
                        self.cells.share(self.count_of[label]["spoken"], self.count_of[label]["n"])
                    ),
                    "chosen": self.cells.text(doubtful.n) if doubtful else "0",
                    "corrected": self._percent(
                        self.cells.share(doubtful.matrix.fp + doubtful.matrix.fn, doubtful.n) if doubtful else None
                    ),
                }
            )
        return {
            "rows": rows,
            "labels": len(self.labels),
            "unread": len(self.labels) - len(self.scores),
            "audit": self.cells.text(self.audit.height),
            "chosen": self.cells.text(self.reviewed.rows.height - self.audit.height),
            "uncertain": self.cells.text(self.reviewed.uncertain),
            "apart": self.cells.text(self.reviewed.apart),
            "unknown": self.cells.text(self.reviewed.unknown),
            "taught": self.cells.text(self.reviewed.taught) if self.reviewed.taught else "",
        }

    def _score(self, score: Score | None) -> Row:
        if score is None:
            return {"n": "0", "present": "0", "figures": [{"value": "–", "range": ""}] * 3}
        # each figure rests on the exams that have the finding, and tells of those that have it not
        told = self.cells.enough(score.present, score.n - score.present)
        figures = (score.precision(), score.recall(), score.f1())
        hidden = {"value": "hidden", "range": ""}
        return {
            "n": self.cells.text(score.n),
            "present": self.cells.text(score.present),
            "figures": [_interval(one) if told else hidden for one in figures],
        }

    # --- 7 review

    def _review(self) -> Row:
        progress = progress_of(self.run)
        reasons = load_review(self.book.folder / "review.yaml").reasons
        rows = [
            {
                "label_set": self.names.label_set(label_set),
                "reason": reasons[reason].name.en if reason in reasons else "not chosen here",
                "given": self.cells.text(given),
                "read": self.cells.text(read),
                "left": self.cells.text(given - read),
            }
            for label_set, reason, given, read in progress.iter_rows()
        ]
        given, read = int(progress["given"].sum()), int(progress["read"].sum())
        return {
            "rows": rows,
            "given": self.cells.text(given),
            "read": self.cells.text(read),
            "left": self.cells.text(given - read),
            "readers": names_of_readers(self.run),
            "agreement": self._agreement(),
        }

    def _agreement(self) -> list[Row]:
        figures = reader_agreement(self.run, load_review(self.book.folder / "review.yaml").agreement)
        rows = []
        for (label_set, finding), group in figures.group_by("label_set", "finding", maintain_order=True):
            by_measure = {row["measure"]: row for row in group.iter_rows(named=True)}
            exams = max(row["exams"] for row in by_measure.values())
            rows.append(
                {
                    "label_set": self.names.label_set(str(label_set)),
                    "name": self.names.finding(str(label_set), str(finding)) if finding else None,
                    "exams": self.cells.text(exams),
                    "figures": [self._measure(by_measure.get(name)) for name in _MEASURES],
                }
            )
        return rows

    def _measure(self, row: Mapping[str, Any] | None) -> Row:
        if row is None or row["value"] is None or not self.cells.enough(row["exams"]):
            return {"value": "–", "range": ""}
        return _interval(Interval(*(math.nan if row[name] is None else row[name] for name in ("value", "low", "high"))))

    # --- 8 what to look at next

    def _next(self) -> Row:
        found = next_of(self.counts, self.functions, set(self.scores), shown=self.labels)
        return {
            "conflicts": [
                {
                    **self._called(row),
                    "count": self.cells.text(row["conflicts"], row["conflicts_persons"]),
                    "n": self.cells.text(row["n"]),
                }
                for row in found.conflicts.iter_rows(named=True)
                if self.cells.count(row["conflicts"], row["conflicts_persons"]) is not None
            ],
            "unread": [
                {**self._called(row), "count": self.cells.text(row["present"], row["present_persons"])}
                for row in found.unread.iter_rows(named=True)
                if self.cells.count(row["present"], row["present_persons"]) is not None
            ],
            "below": [
                self._function_row(row)
                for row in found.below.iter_rows(named=True)
                if self.cells.enough(row["n_reviewed"])
            ],
            "checked": bool((self.functions["n_reviewed"] > 0).any()),
        }


def _profile(protocol: Protocol) -> Profile:
    """How far the workspace of a study is de-identified; see `reportlabel.govern.Governance.profile`."""
    given = protocol.deid.profile
    profiles = set(given.values()) if isinstance(given, dict) else {given}
    return "pseudonymised" if "pseudonymised" in profiles else "anonymised"


def _every_year(rows: pl.DataFrame) -> list[Row]:
    """The rows of `present_by` year, and empty ones of the years between that have no exam."""
    known = {int(row["place"]): row for row in rows.iter_rows(named=True)}
    empty = {"n": 0, "present": 0, "present_persons": 0}
    return (
        [known.get(year, {"place": str(year), **empty}) for year in range(min(known), max(known) + 1)] if known else []
    )


_WIDE, _HIGH = 150.0, 46.0
"""Of a small multiple, in its own units."""
_FEW = 5
"""Columns up to which each has its name and its number."""


def _columns(bars: Sequence[Row]) -> Row | None:
    """Columns of a small multiple: place and height of each; None where there are none."""
    if not bars:
        return None
    highest = max((bar["share"] or 0.0 for bar in bars), default=0.0)
    step = min(_WIDE / len(bars), _WIDE / _FEW)
    each = len(bars) <= _FEW
    top = next((bar["told"] for bar in bars if bar["share"] == highest), "")
    return {
        "top": "" if each else top,
        "first": bars[0]["name"],
        "last": bars[-1]["name"] if len(bars) > 1 else "",
        "each": each,
        "bars": [
            {
                "x": at * step,
                "wide": step * 0.8,
                "middle": (at + 0.4) * step,
                "high": _HIGH * bar["share"] / highest if bar["share"] and highest else 0.0,
                "hidden": bar["hidden"],
                "told": bar["told"],
                "name": bar["name"],
                "says": bar["says"],
            }
            for at, bar in enumerate(bars)
        ],
    }
