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


# --- the tables of a workspace, one row set an exam -------------------------------------------------------------------

EXAM_VOTES = pl.Schema(
    {
        "exam_id": pl.String,
        "label_set": pl.String,
        "finding": pl.String,
        "function_id": pl.String,
        "value": pl.String,
        "confidence": pl.Float64,
        "group": pl.String,
        "kind": pl.String,
        "evidence": pl.String,
        "available_at_reading": pl.Boolean,
    }
)
"""The votes table of a workspace: one row a labelling function, exam and label.

``kind``: rule, bert, record or reader. ``evidence``: ``start-end`` in the report that counts, or a record id.
``available_at_reading``: of a record vote, as in `LINKS`; null for what was read from the report itself.
"""

VOTE_EVIDENCE = pl.List(
    pl.Struct({"function_id": pl.String, "kind": pl.String, "value": pl.String, "evidence": pl.String})
)

EXAM_LABELS = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("value", pl.String),
        ("p_present", pl.Float64),
        ("conflict", pl.Boolean),
        ("n_votes", pl.Int32),
        ("method", pl.String),
        ("review_state", pl.String),
        ("evidence", VOTE_EVIDENCE),
        ("rules_hash", pl.String),
        ("model_version", pl.String),
        ("run_id", pl.String),
    ]
)
"""The labels table of a workspace: one row an exam and label of each label set that fits the exam.

``p_present``: calibrated where exams were reviewed; null for labels that are no status (size, side). ``conflict``:
functions contradict each other. ``method``: precedence, label_model or reader. ``review_state``: unreviewed, reviewed
or adjudicated.
"""

READINGS = pl.Schema(
    [
        ("exam_id", pl.String),
        ("label_set", pl.String),
        ("finding", pl.String),
        ("reader", pl.String),
        ("value", pl.String),
        ("spans", pl.List(pl.Struct({"start": pl.Int32, "end": pl.Int32}))),
        ("origin", pl.String),
        ("read_at", pl.Datetime("us")),
        ("annotation_id", pl.String),
        ("sha256", pl.String),
    ]
)
"""What radiologists said, append-only. ``origin``: confirmed, changed or added."""

QUARANTINE = pl.Schema(
    [
        ("stage", pl.String),
        ("kind", pl.String),
        ("path", pl.String),
        ("row", pl.Int32),
        ("reason", pl.String),
        ("remedy", pl.String),
    ]
)
"""What could not be used, and why: never what it says. ``path``: of the file in the archive, without patient ids."""

ATTRITION = pl.Schema(
    {"stage": pl.String, "table": pl.String, "outcome": pl.String, "reason": pl.String, "rows": pl.Int64}
)
"""What became of the rows of each stage. ``outcome``: in, out, excluded or quarantined; in = the sum of the others."""

PROGRESS = pl.Schema([("stage", pl.String), ("signature", pl.String)])
"""Of a part: what the last finished stage was made of; equal signatures need no new work."""

EXAM_MENTIONS = pl.Schema([*MENTIONS.items(), ("region", pl.String())])
"""The mentions table of a workspace: `MENTIONS`, and the region as whose report it was read (its default site)."""

CHOICES = pl.Schema(
    [
        ("label_set", pl.String),
        ("finding", pl.String),
        ("method", pl.String),
        ("n_reviewed", pl.Int64),
        ("n_present", pl.Int64),
        ("f1_a", pl.Float64),
        ("f1_b", pl.Float64),
        ("brier_a", pl.Float64),
        ("brier_b", pl.Float64),
        ("ece_a", pl.Float64),
        ("ece_b", pl.Float64),
        ("calibration", pl.String),
        ("prevalence", pl.Float64),
        ("n_functions", pl.Int64),
        ("groups", pl.List(pl.List(pl.String))),
    ]
)
"""How each label is judged, and why; see `reportlabel.aggregate.combine`."""

ANALYSIS = pl.Schema(
    {
        "label_set": pl.String,
        "finding": pl.String,
        "function_id": pl.String,
        "kind": pl.String,
        "group": pl.String,
        "one_way": pl.Boolean,
        "n_votes": pl.Int64,
        "n_present": pl.Int64,
        "n_uncertain": pl.Int64,
        "n_absent": pl.Int64,
        "coverage": pl.Float64,
        "overlap": pl.Float64,
        "conflict": pl.Float64,
        "n_reviewed": pl.Int64,
        "empirical_accuracy": pl.Float64,
        "estimated_accuracy": pl.Float64,
    }
)
"""What each labelling function does for each label; see `reportlabel.aggregate.analyse`."""

COHORT = pl.Schema({"exam_id": pl.String, "kind": pl.String, "tracer_id": pl.String, "tracer_source": pl.String})
"""Exams of a study: as what kind of the protocol they belong to it, and their tracer where it counts tracers."""

WORKSPACE: dict[str, pl.Schema] = {
    "exams": EXAMS,
    "reports": REPORTS,
    "records": RECORDS,
    "links": LINKS,
    "mentions": EXAM_MENTIONS,
    "votes": EXAM_VOTES,
    "labels": EXAM_LABELS,
    "choices": CHOICES,
    "analysis": ANALYSIS,
    "readings": READINGS,
    "quarantine": QUARANTINE,
    "attrition": ATTRITION,
    "progress": PROGRESS,
    "cohort": COHORT,
}
"""The tables of a workspace."""
