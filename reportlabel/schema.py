"""The tables: names, columns, types. A table is checked where it is written.

Offsets are Unicode code points (``str`` indices), end exclusive, into ``reports.text`` as it is stored.
"""

from __future__ import annotations

import polars as pl

EXAMS = pl.Schema(
    [
        ("exam_id", pl.String),
        ("patient_id", pl.String),
        ("site", pl.String),
        ("started_at", pl.Datetime("us")),
        ("modality", pl.String),
        ("modality_class", pl.String),
        ("body_part", pl.String),
        ("order_name", pl.String),
        ("protocol_name", pl.String),
        ("contrast_agent", pl.String),
        ("contrast_ml", pl.Float64),
        ("ctdi_vol", pl.Float64),
        ("dlp", pl.Float64),
        ("tracer", pl.String),
        ("study_instance_uid", pl.String),
        ("accession_number", pl.String),
        ("age_years", pl.Int32),
        ("sex", pl.String),
        ("height_cm", pl.Float64),
        ("weight_kg", pl.Float64),
    ]
)
"""One row an imaging exam. ``modality``: DICOM code; ``modality_class``: one of CT, MRI, US, XR, RF, XA, NM, OT."""

REPORTS = pl.Schema(
    [
        ("report_id", pl.String),
        ("exam_id", pl.String),
        ("version", pl.Int32),
        ("status", pl.String),
        ("confirmed_at", pl.Datetime("us")),
        ("text", pl.String),
    ]
)
"""One row a version of a report; ``status`` is preliminary, final or amended."""

RECORDS = pl.Schema(
    [
        ("record_id", pl.String),
        ("kind", pl.String),
        ("patient_id", pl.String),
        ("site", pl.String),
        ("start_at", pl.Datetime("us")),
        ("end_at", pl.Datetime("us")),
        ("reported_at", pl.Datetime("us")),
        ("code_system", pl.String),
        ("code", pl.String),
        ("name", pl.String),
        ("text", pl.String),
        ("value", pl.Float64),
        ("unit", pl.String),
        ("flag", pl.String),
        ("certainty", pl.String),
        ("body_site", pl.String),
    ]
)
"""One row a record: kind is pathology, lab, physiology, surgery, diagnosis or medication."""

LINKS = pl.Schema(
    {
        "exam_id": pl.String,
        "record_id": pl.String,
        "rule_id": pl.String,
        "kind": pl.String,
        "delta_days": pl.Int32,
        "available_at_reading": pl.Boolean,
    }
)
"""One row an exam and record in its window.

``delta_days`` counts from the exam to the record, negative before it. ``available_at_reading`` says whether the record
was known when the report was signed; null where it cannot be told (record of the same day without a time). A record
that is not known to have been available may make labels, never an input of a model.
"""

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
