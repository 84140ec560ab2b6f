"""Report ids seen so far, in 16 bytes a report, so that duplicates are found across millions of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["SeenReports", "mark_duplicates"]

Hashes = npt.NDArray[np.uint64]


class _Run(NamedTuple):
    ids: Hashes  # sorted
    texts: Hashes  # in the order of ids


@dataclass
class SeenReports:
    """Hashes of ids and texts in sorted runs that are merged when they have grown to the same size.

    Ids are told apart by 64-bit hashes: among five million ids the chance of one false duplicate is below 1e-6, and
    it would be listed in the quarantine table like every other.
    """

    runs: list[_Run] = field(default_factory=list)

    def add(self, ids: Hashes, texts: Hashes) -> None:
        run = _sorted_run(ids, texts)
        while self.runs and len(self.runs[-1].ids) <= 2 * len(run.ids):
            last = self.runs.pop()
            run = _sorted_run(np.concatenate((last.ids, run.ids)), np.concatenate((last.texts, run.texts)))
        self.runs.append(run)

    def find(self, ids: Hashes) -> tuple[npt.NDArray[np.bool_], Hashes]:
        """For each id whether it was seen, and if so the hash of its text."""
        found = np.zeros(len(ids), dtype=np.bool_)
        texts = np.zeros(len(ids), dtype=np.uint64)
        for run in self.runs:
            if len(run.ids):
                at = np.minimum(np.searchsorted(run.ids, ids), len(run.ids) - 1)
                here = run.ids[at] == ids
                texts[here] = run.texts[at[here]]
                found |= here
        return found, texts


def _sorted_run(ids: Hashes, texts: Hashes) -> _Run:
    order = np.argsort(ids, kind="stable")
    return _Run(ids[order], texts[order])


def mark_duplicates(reports: pl.DataFrame, *, seen: SeenReports) -> pl.Series:
    """Which reports repeat an id, here or in what was `seen`; the others are added to `seen`.

    In: columns report_id and text, no nulls. Out: per row null (first with its id), `same_text` or `other_text`.
    """
    hashed = reports.select(
        id_hash=pl.col("report_id").hash(seed=1),
        text_hash=pl.col("text").hash(seed=2),
        is_first=pl.col("report_id").is_first_distinct(),
    ).with_columns(first_text=pl.col("text_hash").first().over("id_hash"))
    ids, texts = hashed["id_hash"].to_numpy(), hashed["text_hash"].to_numpy()
    was_seen, seen_texts = seen.find(ids)
    marked = hashed.with_columns(
        was_seen=pl.Series(was_seen, dtype=pl.Boolean), seen_text=pl.Series(seen_texts, dtype=pl.UInt64)
    ).select(
        is_new=~pl.col("was_seen") & pl.col("is_first"),
        same_text=pl.col("text_hash") == pl.when("was_seen").then("seen_text").otherwise("first_text"),
    )
    is_new = marked["is_new"].to_numpy()
    seen.add(ids[is_new], texts[is_new])
    return marked.select(
        pl.when("is_new").then(None).when("same_text").then(pl.lit("same_text")).otherwise(pl.lit("other_text"))
    ).to_series()
