"""The tables: names, columns, types. A table is checked where it is written.

Offsets are Unicode code points (``str`` indices), end exclusive, into ``reports.text`` as it is stored.
"""

from __future__ import annotations

import polars as pl

MENTIONS = pl.Schema(
    {
        "report_id": pl.String,
        "start": pl.Int32,
        "end": pl.Int32,
        "finding": pl.String,
        "surface": pl.String,
        "status": pl.String,
        "temporality": pl.String,
        "section": pl.String,
        "site": pl.String,
        "side": pl.String,
        "lobe": pl.String,
        "size_mm": pl.Float64,
        "count": pl.String,
        "change": pl.String,
        "image_ref": pl.String,
        "cue": pl.String,
        "rule_id": pl.String,
        "sentence": pl.Int32,
    }
)
"""One row a finding expression.

``site`` holds site ids joined by ``;`` (the organ first); ``sentence`` counts from 0.
"""

VOTES = pl.Schema(
    {
        "report_id": pl.String,
        "finding": pl.String,
        "function_id": pl.String,
        "value": pl.String,
        "confidence": pl.Float64,
        "group": pl.String,
        "kind": pl.String,
        "evidence": pl.String,
    }
)
"""One row a labelling function, report and label. ``evidence`` is ``start-end`` of the mention, or a record id."""

EVIDENCE = pl.List(
    pl.Struct({"start": pl.Int32, "end": pl.Int32, "surface": pl.String, "cue": pl.String, "rule_id": pl.String})
)

LABELS = pl.Schema(
    [
        ("report_id", pl.String),
        ("finding", pl.String),
        ("value", pl.String),
        ("p_present", pl.Float64),
        ("evidence", EVIDENCE),
    ]
)
"""One row a report and label of the label set, also for ``not_mentioned``."""
