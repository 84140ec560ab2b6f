"""Hugging Face ``datasets``: a folder that ``load_from_disk`` opens as a DatasetDict of the splits.

The states of a finding are a ClassLabel column with the name of the finding; the vectors that a multi-label loss wants
stand beside them, in the order of ``findings``. All names are part of the features, so nobody needs a second file.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reportlabel.errors import ConfigError
from reportlabel.export.splits import SPLITS
from reportlabel.export.targets import VALUES
from reportlabel.export.wide import Parts, Wide
from reportlabel.rulebook.models import LabelSet

KEYS = ("image", "series_instance_uid", "exam_id", "patient_id", "site", "study_instance_uid")
VECTORS = ("soft", "target", "mask", "weight")


def require_datasets() -> Any:
    """The ``datasets`` package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise ConfigError("--to datasets needs the package datasets; run pip install 'reportlabel[train]'") from error


def write_datasets(folder: Path, label_set: LabelSet, parts: Parts) -> dict[str, int]:
    """Write ``<label set>/`` by ``DatasetDict.save_to_disk``.

    Returns:
        Rows of the Arrow file of each split.

    Raises:
        ConfigError: the package is not installed, or the name of a finding is that of another column.
    """
    datasets = require_datasets()
    features = _features(datasets, label_set)
    schema = features.arrow_schema
    tables = {split: [schema.empty_table()] for split in SPLITS}
    for part in parts:
        tables[part.split].append(_table(part, label_set, schema))
    found = datasets.DatasetDict()
    for split in SPLITS:
        table = pa.concat_tables(tables[split]).combine_chunks()
        info = datasets.DatasetInfo(description=f"{label_set.id}: {label_set.name.en}", features=features)
        found[split] = datasets.Dataset(
            datasets.table.InMemoryTable(table),
            info=info,
            split=datasets.NamedSplit(split),
            # what it would be otherwise depends on times and paths
            fingerprint=_fingerprint(table),
        )
    with _no_progress(datasets):
        found.save_to_disk(str(folder / label_set.id), num_shards=dict.fromkeys(SPLITS, 1))
    return {f"{label_set.id}/{split}/data-00000-of-00001.arrow": one.num_rows for split, one in found.items()}


def _features(datasets: Any, label_set: LabelSet) -> Any:
    text, number = datasets.Value("string"), datasets.Value("float32")
    ids = [entry.id for entry in label_set.findings]
    own = {*KEYS, *VECTORS, "findings"}
    taken = sorted(own & {*ids, *(entry.id for entry in label_set.values)})
    if taken:
        raise ConfigError(f"label set {label_set.id}: a dataset has a column {taken[0]} of its own; rename the label")
    width = len(ids)
    return datasets.Features(
        {
            **dict.fromkeys(KEYS, text),
            **{finding: datasets.ClassLabel(names=list(VALUES)) for finding in ids},
            **{entry.id: text for entry in label_set.values},
            "findings": datasets.List(datasets.ClassLabel(names=ids), length=width),
            **{name: datasets.List(number, length=width) for name in VECTORS},
        }
    )


def _table(part: Wide, label_set: LabelSet, schema: pa.Schema) -> pa.Table:
    height, width = part.codes.shape
    columns: dict[str, Any] = {name: part.keys[name].to_list() for name in KEYS}
    for at, finding in enumerate(part.findings):
        columns[finding] = part.codes[:, at].astype(np.int64)
    for entry in label_set.values:
        columns[entry.id] = part.values[entry.id].to_list()
    columns["findings"] = _lists(np.tile(np.arange(width, dtype=np.int64), (height, 1)))
    vectors = {"soft": part.p_present, "target": part.filled, "mask": part.mask, "weight": part.weight}
    for name, matrix in vectors.items():
        columns[name] = _lists(np.ascontiguousarray(matrix, dtype=np.float32))
    arrays = [
        pa.array(columns[field.name]) if not isinstance(columns[field.name], pa.Array) else columns[field.name]
        for field in schema
    ]
    return pa.table([array.cast(field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema)


def _lists(matrix: Any) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _fingerprint(table: pa.Table) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([str(field) for field in table.schema]).encode())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    digest.update(sink.getvalue())
    return digest.hexdigest()[:16]


@contextmanager
def _no_progress(datasets: Any) -> Iterator[None]:
    """No progress bars while a folder is written."""
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            datasets.utils.logging.enable_progress_bar()
