"""`reportlabel synth`: a hospital of synthetic patients, written as hospitals hand their data over.

Patients are made in parts of a fixed number, each in any process, and the files are put together in the order of the
parts: the same seed gives the same bytes whatever the number of workers, and memory does not grow with the hospital.

    OUT/hospital.json     what was made: seed, counts, shares of distinct texts
    OUT/archive.yaml      the sources, for `reportlabel ingest`: all but FHIR, which has archive-fhir.yaml
    OUT/parquet/          patients, exams, reports, records, stays, refusals
    OUT/texts/            one file a label set: the last version of every report that it fits
    OUT/gold/             labels, mentions, states, records, identifiers, canaries, defects
    OUT/ssmix2/ fhir/ ris/ dpc/ dicom/     the same patients in the formats of hospitals
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from reportlabel.errors import ConfigError, ExitCode
from reportlabel.rulebook.load import load_rules
from reportlabel.synth.bank import Bank, labels_of, load_bank
from reportlabel.synth.patient import Canary, Exam, GoldLabel, PatientFile, Report, Site
from reportlabel.synth.simulate import simulate, staff
from reportlabel.synth.tables import ARCHIVE, GOLD, rows_of, schema_of, table_of
from reportlabel.synth.template import ABSENT

FORMATS = ("parquet", "ssmix2", "fhir", "ris", "dpc", "dicom")
PATIENTS_A_PART = 250
MANIFEST = "hospital.json"
_PARTS = ".parts"


class Writer(Protocol):
    """Writes the patients of one part in one format."""

    @property
    def defects(self) -> Sequence[tuple[str, str, str]]:
        """What was written wrong on purpose: path, kind, id."""

    def write(self, patient: PatientFile) -> None:
        """Write one patient."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True)
class Hospital:
    """What is to be made."""

    out: Path
    patients: int
    seed: int
    formats: tuple[str, ...]


@dataclass
class Made:
    """What was made, part by part."""

    counts: dict[str, int] = field(default_factory=dict)
    by_class: dict[str, int] = field(default_factory=dict)
    by_kind: dict[str, int] = field(default_factory=dict)
    defects: int = 0

    def add(self, other: Made) -> None:
        """Add the counts of another part."""
        for mine, theirs in (
            (self.counts, other.counts),
            (self.by_class, other.by_class),
            (self.by_kind, other.by_kind),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        self.defects += other.defects


@dataclass(frozen=True)
class _Part:
    made: Made
    texts: npt.NDArray[np.uint64]
    sentences: npt.NDArray[np.uint64]


def run_synth(out: Path, *, patients: int, seed: int, formats: Sequence[str], workers: int, console: Console) -> int:
    """Make a hospital and print what came of it; returns the exit code DONE.

    Raises:
        ConfigError: unknown format, a number below 1, or a folder that holds something else.
    """
    hospital = Hospital(out, patients, seed, _formats(formats))
    if patients < 1 or workers < 1:
        raise ConfigError("--patients and --workers: give 1 or more")
    began = time.monotonic()
    with Progress(
        TextColumn("synthetic patients"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=patients)
        summary = make_hospital(
            hospital, workers=workers, each_part=lambda: progress.advance(task, min(PATIENTS_A_PART, patients))
        )
    _show(summary, hospital, time.monotonic() - began, console)
    return int(ExitCode.DONE)


def _formats(names: Sequence[str]) -> tuple[str, ...]:
    unknown = sorted(set(names) - set(FORMATS))
    if unknown:
        raise ConfigError(f"unknown format {', '.join(unknown)}; there are: {', '.join(FORMATS)}")
    return tuple(name for name in FORMATS if name in names) or FORMATS


def make_hospital(
    hospital: Hospital, *, workers: int = 1, each_part: Callable[[], None] = lambda: None
) -> Mapping[str, Any]:
    """Write a hospital; what stood at its place before is replaced at the end, if it was such a hospital.

    Returns:
        The manifest: seed, patients, counts by table, exams by modality class, records by kind, shares of distinct
        texts and sentences.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    target = hospital.out.resolve()
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{hospital.out} holds something that is no synthetic hospital; give a new or empty folder")
    partial = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        manifest = _make(Hospital(partial, hospital.patients, hospital.seed, hospital.formats), workers, each_part)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as error:
        raise ConfigError(f"cannot write {hospital.out}: {error.strerror or 'the disk refused'}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _make(hospital: Hospital, workers: int, each_part: Callable[[], None]) -> Mapping[str, Any]:
    bank = load_bank()
    made = Made()
    texts: list[npt.NDArray[np.uint64]] = []
    sentences: list[npt.NDArray[np.uint64]] = []
    parts = -(-hospital.patients // PATIENTS_A_PART)
    (hospital.out / _PARTS).mkdir()
    (hospital.out / "gold").mkdir()
    with ExitStack() as stack:
        sinks = {
            name: stack.enter_context(_sink(hospital.out, name, schema))
            for name, schema in _tables(hospital, bank).items()
        }
        for number, part in enumerate(_all_parts(hospital, parts, workers)):
            made.add(part.made)
            texts.append(part.texts)
            sentences.append(part.sentences)
            for name, sink in sinks.items():
                _append(sink, hospital.out / _PARTS / f"{name.replace('/', '-')}-{number:05d}.arrow")
            each_part()
        known_staff = staff(bank)
        sinks["gold/canaries"].write_table(table_of(known_staff, Canary))
        made.counts["gold/canaries"] = made.counts.get("gold/canaries", 0) + len(known_staff)
    if "dpc" in hospital.formats:
        from reportlabel.synth.write_dpc import merge_dpc

        merge_dpc(hospital.out / "dpc")
    shutil.rmtree(hospital.out / _PARTS)
    manifest = {
        "reportlabel": version("reportlabel"),
        "seed": hospital.seed,
        "patients": hospital.patients,
        "formats": list(hospital.formats),
        "rows": dict(sorted(made.counts.items())),
        "exams_by_modality_class": dict(sorted(made.by_class.items())),
        "records_by_kind": dict(sorted(made.by_kind.items())),
        "report_texts": _distinct(texts),
        "sentences": _distinct(sentences),
    }
    _describe(hospital)
    (hospital.out / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return manifest


_READERS = {"ssmix2": "ssmix2", "ris": "ris_csv", "dpc": "dpc", "dicom": "dicom", "fhir": "fhir"}


def _describe(hospital: Hospital) -> None:
    """Write archive.yaml for `reportlabel ingest`: what the departments hand over; archive-fhir.yaml: the same as FHIR.

    With Parquet alone archive.yaml names that.
    """
    departments = [name for name in hospital.formats if name in _READERS and name != "fhir"]
    written = {"archive.yaml": departments, "archive-fhir.yaml": ["fhir"] if "fhir" in hospital.formats else []}
    for name, formats in written.items():
        sources = [
            f"  - {{path: {one}/{folder.name}, format: {_READERS[one]}, site: {folder.name}}}"
            for one in formats
            for folder in sorted((hospital.out / one).iterdir())
            if folder.is_dir()
        ]
        if not sources and name == "archive.yaml" and "parquet" in hospital.formats:
            sources = ["  - {path: parquet, format: parquet}"]
        if sources:
            lines = ["options: {patient_id_width: 8}", "sources:", *sources]
            (hospital.out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _distinct(hashes: Sequence[npt.NDArray[np.uint64]]) -> dict[str, float]:
    every = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    every.sort()
    distinct = int((every[1:] != every[:-1]).sum()) + bool(len(every))
    return {"all": len(every), "distinct": distinct, "share": round(distinct / max(1, len(every)), 4)}


# --- one part ---------------------------------------------------------------------------------------------------------


def _tables(hospital: Hospital, bank: Bank) -> dict[str, pa.Schema]:
    """The Parquet files of the hospital, with their schemas."""
    archive = ARCHIVE if "parquet" in hospital.formats else {}
    sets = sorted({name for exam in bank.exams.values() for name in exam.kind.label_sets})
    return {
        **{f"parquet/{name}": schema_of(row) for name, row in archive.items()},
        **{f"texts/{name}": _TEXTS for name in sets},
        **{f"gold/{name}": schema_of(row) for name, row in GOLD.items()},
        "gold/defects": _DEFECTS,
    }


_DEFECTS = pa.schema([("path", pa.string()), ("kind", pa.string()), ("id", pa.string())])
_TEXTS = pa.schema([(name, pa.string()) for name in ("report_id", "exam_id", "exam", "reader", "text")])


def _make_part(hospital: Hospital, part: int) -> _Part:
    """Make the patients of one part and write them; the tables go to a file each, for the parent to put together."""
    bank = load_bank()
    first = part * PATIENTS_A_PART
    numbers = range(first + 1, min(first + PATIENTS_A_PART, hospital.patients) + 1)
    files = [simulate(bank, seed=hospital.seed, number=number) for number in numbers]
    defects = _write_formats(hospital, files, part, bank.site_by_id)
    made = Made(defects=len(defects))
    for name in _tables(hospital, bank):
        table = _table(name, files, defects, bank)
        made.counts[name] = table.num_rows
        path = hospital.out / _PARTS / f"{name.replace('/', '-')}-{part:05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    for file in files:
        for exam in file.exams:
            made.by_class[exam.modality_class] = made.by_class.get(exam.modality_class, 0) + 1
        for record in file.records:
            made.by_kind[record.kind] = made.by_kind.get(record.kind, 0) + 1
    made.counts |= {"exams": sum(made.by_class.values()), "records": sum(made.by_kind.values())}
    made.counts["reports"] = len({report.report_id for file in files for report in file.reports})
    texts = pl.Series([report.text for report in _last(rows_of(files, Report))], dtype=pl.String)
    sentences = texts.str.replace_all("。", "。\n").str.split("\n").explode().str.strip_chars()
    return _Part(made, texts.hash(0).to_numpy(), sentences.filter(sentences.str.len_chars() > 0).hash(0).to_numpy())


def _last(reports: Sequence[Report]) -> list[Report]:
    """The last version of every report."""
    return list({report.report_id: report for report in reports}.values())


def _table(name: str, files: Sequence[PatientFile], defects: Sequence[tuple[str, str, str]], bank: Bank) -> pa.Table:
    if name == "gold/defects":
        return _strings(defects, _DEFECTS)
    folder, kind = name.split("/")
    if folder == "texts":
        return _texts(files, kind, bank)
    row = (ARCHIVE if folder == "parquet" else GOLD)[kind]
    rows = rows_of(files, row)
    if row is GoldLabel:
        return _all_labels(rows, rows_of(files, Exam), bank)
    return table_of(rows, row)


def _texts(files: Sequence[PatientFile], label_set: str, bank: Bank) -> pa.Table:
    """The last versions of the reports of the exams that a label set fits."""
    kinds = {
        exam.exam_id: exam.kind for exam in rows_of(files, Exam) if label_set in bank.exams[exam.kind].kind.label_sets
    }
    rows = [
        (one.report_id, one.exam_id, kinds[one.exam_id], one.reader, one.text)
        for one in _last(rows_of(files, Report))
        if one.exam_id in kinds
    ]
    return _strings(rows, _TEXTS)


def _strings(rows: Sequence[tuple[str, ...]], schema: pa.Schema) -> pa.Table:
    """Rows of words as a table."""
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in range(len(schema))]
    return pa.table(columns, schema=schema)


def _all_labels(spoken: Sequence[GoldLabel], exams: Sequence[Exam], bank: Bank) -> pa.Table:
    """One row an exam and label of its label sets, also for those that nobody speaks of.

    The truth of a label is absent where a state could have made it present and none does; null where no state can.
    """
    said = pl.DataFrame(table_of(spoken, GoldLabel)).rename({"value": "said", "truth": "true"}).drop("report_id")
    every = pl.DataFrame(
        {
            "exam_id": [exam.exam_id for exam in exams],
            "report_id": [exam.report_id for exam in exams],
            "kind": [exam.kind for exam in exams],
        },
        schema={"exam_id": pl.String, "report_id": pl.String, "kind": pl.String},
    )
    labels = (
        every.join(_universe(bank), on="kind", how="inner", maintain_order="left_right")
        .join(said, on=["exam_id", "label_set", "finding"], how="left", maintain_order="left")
        .select(
            "exam_id",
            "report_id",
            "label_set",
            "finding",
            value=pl.when(pl.col("report_id").is_not_null()).then(pl.col("said").fill_null("not_mentioned")),
            truth=pl.coalesce("true", "default"),
        )
    )
    return labels.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema_of(GoldLabel))


@cache
def _universe(bank: Bank) -> pl.DataFrame:
    """Kind of exam, label set, label, and its truth where no state makes it present."""
    rows = []
    label_sets = load_rules().label_sets
    for exam in bank.exams.values():
        for name in exam.kind.label_sets:
            possible = {
                label
                for entry in exam.kind.findings.values()
                for finding in entry.truth
                for label in labels_of(exam.kind, finding, name)
            }
            entries = label_sets[name]
            for label in [*(one.id for one in entries.findings), *(one.id for one in entries.values)]:
                rows.append((exam.kind.id, name, label, ABSENT if label in possible else None))
    return pl.DataFrame(
        rows,
        schema={"kind": pl.String, "label_set": pl.String, "finding": pl.String, "default": pl.String},
        orient="row",
    )


def _write_formats(
    hospital: Hospital, files: Sequence[PatientFile], part: int, sites: Mapping[str, Site]
) -> list[tuple[str, str, str]]:
    defects: list[tuple[str, str, str]] = []
    for name in hospital.formats:
        if name == "parquet":
            continue
        with _writer(name, hospital.out / name, sites, part) as writer:
            for file in files:
                writer.write(file)
        defects += [(f"{name}/{path}", kind, id_) for path, kind, id_ in writer.defects]
    return defects


def _writer(name: str, out: Path, sites: Mapping[str, Site], part: int) -> Writer:
    from reportlabel.synth.write_dicom import DicomWriter
    from reportlabel.synth.write_dpc import DpcWriter
    from reportlabel.synth.write_fhir import FhirWriter
    from reportlabel.synth.write_ris_csv import RisCsvWriter
    from reportlabel.synth.write_ssmix2 import SsMix2Writer

    writers: Mapping[str, Callable[..., Writer]] = {
        "ssmix2": SsMix2Writer,
        "fhir": FhirWriter,
        "ris": RisCsvWriter,
        "dpc": DpcWriter,
        "dicom": DicomWriter,
    }
    return writers[name](out, sites, part=part)


# --- all parts --------------------------------------------------------------------------------------------------------


def _all_parts(hospital: Hospital, parts: int, workers: int) -> Iterator[_Part]:
    """Parts in their order; at most two wait a worker."""
    if workers == 1 or parts == 1:
        for part in range(parts):
            yield _make_part(hospital, part)
        return
    context = multiprocessing.get_context("spawn")  # polars must not be forked
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting: deque[Future[_Part]] = deque()
        try:
            for part in range(parts):
                waiting.append(pool.submit(_make_part, hospital, part))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ConfigError("a worker died (out of memory?); nothing was written; give fewer --workers") from error


def _sink(out: Path, name: str, schema: pa.Schema) -> pq.ParquetWriter:
    path = out / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    return pq.ParquetWriter(path, schema, compression="zstd")


def _append(sink: pq.ParquetWriter, path: Path) -> None:
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        if table.num_rows:
            sink.write_table(table)
    path.unlink()


# --- what is printed --------------------------------------------------------------------------------------------------


def _show(manifest: Mapping[str, Any], hospital: Hospital, seconds: float, console: Console) -> None:
    rows = manifest["rows"]
    table = Table(show_edge=False, box=None, padding=(0, 2, 0, 0))
    for column in ("patients", "exams", "reports", "records"):
        table.add_column(column, justify="right")
    table.add_row(*(f"{count:,}" for count in (manifest["patients"], rows["exams"], rows["reports"], rows["records"])))
    console.print(table)
    exams = sum(manifest["exams_by_modality_class"].values()) or 1
    shares = [f"{name} {100 * count / exams:.0f}%" for name, count in _falling(manifest["exams_by_modality_class"])]
    console.print("exams    " + "  ".join(shares), highlight=False)
    kinds = [f"{name} {count:,}" for name, count in _falling(manifest["records_by_kind"])]
    console.print("records  " + "  ".join(kinds), highlight=False)
    for name, key in (("report texts", "report_texts"), ("sentences", "sentences")):
        one = manifest[key]
        console.print(f"{name}: {one['distinct']:,} of {one['all']:,} distinct ({one['share']:.1%})", highlight=False)
    console.print(f"{hospital.out}: {', '.join(hospital.formats)}, gold  ({seconds:.0f} s)", highlight=False)


def _falling(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
