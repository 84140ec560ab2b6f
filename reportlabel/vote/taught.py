"""Readings that taught the model that votes: they cannot judge it.

Training learns from the readings of some patients only, chosen by a hash of the patient's id, and leaves the reports of
the other patients with readings alone. The model says by which share of the hashes it was done and holds nothing about
any patient; the same share tells which readings compare and calibrate its votes: those of the other patients.
"""

from __future__ import annotations

import hashlib
import re

import polars as pl

_SHARE = re.compile(r"\+readings([0-9.e-]+)$")
_PURPOSE = b"readings"  # so that the halves have nothing to do with folds and splits, which are hashes of the id, too


def teaches_models(patient_id: str, share: float) -> bool:
    """Whether readings of this patient's exams may teach a model: a hash of the id, as a number from 0 to 1, is below
    the share. A greater share has all patients of a smaller one."""
    digest = hashlib.blake2b(patient_id.encode(), digest_size=8, person=_PURPOSE).digest()
    return int.from_bytes(digest, "big") / 2**64 < share


def exams_that_teach(exams: pl.DataFrame, share: float) -> pl.DataFrame:
    """The exams whose readings may teach a model.

    Args:
        exams: exam_id and patient_id; an exam without a patient counts as a patient of its own.

    Returns:
        exam_id.
    """
    patient = pl.coalesce("patient_id", "exam_id").cast(pl.String)
    chosen = patient.map_elements(lambda one: teaches_models(one, share), return_dtype=pl.Boolean)
    return exams.filter(chosen).select("exam_id")


def version_with_share(version: str, share: float | None) -> str:
    """A model version that says from which share of the patients readings have taught the model; None: from none."""
    return version if share is None else f"{version}+readings{share!r}"


def share_of_version(version: str | None) -> float | None:
    """The share that a model version names; None: readings have taught the model nothing, or there is no model."""
    found = _SHARE.search(version or "")
    return None if found is None else float(found[1])


def judging(gold: pl.DataFrame, exams: pl.DataFrame, share: float | None) -> pl.DataFrame:
    """Readings of which those that may have taught the voting model teach label model and calibration nothing.

    Args:
        gold: exam_id and ``teaches``, as of `reportlabel.review.gold.gold_readings`.
        exams: exam_id, patient_id.
        share: of `share_of_version`; None: all stay as they are.
    """
    if share is None:
        return gold
    taught = exams_that_teach(exams.join(gold, on="exam_id", how="semi"), share)["exam_id"].implode()
    return gold.with_columns(teaches=pl.col("teaches") & ~pl.col("exam_id").is_in(taught))
