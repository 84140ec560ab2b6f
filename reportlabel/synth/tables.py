"""The hospital as tables: the columns of each, made of the dataclasses of `reportlabel.synth.patient`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from reportlabel.synth.patient import (
    Canary,
    Exam,
    GoldLabel,
    GoldMention,
    GoldRecord,
    GoldState,
    IdentifierSpan,
    Identity,
    PatientFile,
    Record,
    Refusal,
    Report,
    Stay,
)

_TYPES: Mapping[str, pa.DataType] = {
    "str": pa.string(),
    "str | None": pa.string(),
    "int": pa.int32(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
    "datetime | None": pa.timestamp("us"),
    "dict[str, str]": pa.string(),
}


@dataclass(frozen=True, slots=True)
class ArchivedExam(Exam):
    """An exam in the table of exams, which names its patient too."""

    patient_id: str


ARCHIVE: Mapping[str, type] = {
    "patients": Identity,
    "exams": ArchivedExam,
    "reports": Report,
    "records": Record,
    "stays": Stay,
    "refusals": Refusal,
}
"""What a hospital hands over."""

GOLD: Mapping[str, type] = {
    "labels": GoldLabel,
    "mentions": GoldMention,
    "states": GoldState,
    "records": GoldRecord,
    "identifiers": IdentifierSpan,
    "canaries": Canary,
}
"""What only a synthetic hospital knows."""

_EXAM_COLUMNS = tuple(one.name for one in fields(Exam))


def _archived(exam: Exam, patient_id: str) -> ArchivedExam:
    return ArchivedExam(**{name: getattr(exam, name) for name in _EXAM_COLUMNS}, patient_id=patient_id)


_ROWS: Mapping[type, Callable[[PatientFile], Sequence[Any]]] = {
    Identity: lambda file: [file.identity],
    Exam: lambda file: file.exams,
    ArchivedExam: lambda file: [_archived(exam, file.identity.patient_id) for exam in file.exams],
    Report: lambda file: file.reports,
    Record: lambda file: file.records,
    Stay: lambda file: file.stays,
    Refusal: lambda file: file.refusals,
    GoldLabel: lambda file: file.gold_labels,
    GoldMention: lambda file: file.gold_mentions,
    GoldState: lambda file: file.gold_states,
    GoldRecord: lambda file: file.gold_records,
    IdentifierSpan: lambda file: file.identifier_spans,
    Canary: lambda file: file.canaries,
}


def schema_of(row: type) -> pa.Schema:
    """The Arrow schema of a dataclass; a mapping becomes JSON text with sorted keys."""
    return pa.schema([(one.name, _TYPES[str(one.type)]) for one in fields(row)])


def rows_of(files: Iterable[PatientFile], row: type) -> list[Any]:
    """All rows of one kind, in the order of the patients."""
    take = _ROWS[row]
    return [one for file in files for one in take(file)]


def table_of(rows: Sequence[Any], row: type) -> pa.Table:
    """Rows as an Arrow table."""
    schema = schema_of(row)
    columns = []
    for one in schema:
        values: list[Any] = [getattr(each, one.name) for each in rows]
        if values and isinstance(values[0], dict):
            values = [json.dumps(value, ensure_ascii=False, sort_keys=True) for value in values]
        columns.append(pa.array(values, type=one.type))
    return pa.table(columns, schema=schema)
