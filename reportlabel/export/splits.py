"""Training, validation and test patients.

A patient's split depends on the salt, the shares and the patient alone: a later export with more patients moves nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import polars as pl

from reportlabel.errors import ConfigError, InputError

SPLITS = ("train", "validation", "test")


def position(patient_id: str, *, salt: str) -> float:
    """Where a patient stands in [0, 1): the first 53 bits of SHA-256 of the salt and the patient id."""
    digest = hashlib.sha256(f"{salt}\n{patient_id}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") >> 11) / float(1 << 53)


def split_of(patient_id: str, *, salt: str, shares: Sequence[float]) -> str:
    """The split of a patient who was at no held-out site. ``shares`` are those of `SPLITS` and add up to 1."""
    at = position(patient_id, salt=salt)
    if at < shares[0]:
        return SPLITS[0]
    # whatever is not training or validation is test: rounding of the shares must not leave a gap
    return SPLITS[1] if at < shares[0] + shares[1] else SPLITS[2]


def split_patients(
    exams: pl.DataFrame, *, salt: str, shares: Sequence[float], hold_out_sites: Sequence[str] = ()
) -> pl.DataFrame:
    """The split of every patient.

    Args:
        exams: columns ``patient_id`` and ``site``, of all exams of the workspace, also those that are not exported: a
            patient who was once at a held-out site is a test patient.

    Returns:
        ``patient_id``, ``split``; one row a patient, sorted.

    Raises:
        InputError: exams without a patient: they cannot be kept out of two splits.
        ConfigError: a held-out site has no exam.
    """
    missing = exams["patient_id"].null_count()
    if missing:
        raise InputError(f"{missing} exams have no patient_id and so cannot be split by patient; ingest them again")
    sites = set(exams["site"].drop_nulls().unique())
    unknown = sorted(set(hold_out_sites) - sites)
    if unknown:
        raise ConfigError(
            f"--hold-out-site {unknown[0]}: no exam is of this site; there are: {', '.join(sorted(sites))}"
        )
    patients = exams.group_by("patient_id").agg(
        pl.col("site").is_in(list(hold_out_sites)).fill_null(False).any().alias("held_out")
    )
    patients = patients.sort("patient_id")
    splits = [
        SPLITS[2] if held_out else split_of(patient, salt=salt, shares=shares)
        for patient, held_out in patients.iter_rows()
    ]
    return patients.select("patient_id", pl.Series("split", splits, dtype=pl.String))
