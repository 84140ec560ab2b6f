"""Reports of the synthetic hospital without its files: for benchmarks, tests and training."""

from __future__ import annotations

import polars as pl

from reportlabel.synth.bank import load_bank
from reportlabel.synth.simulate import simulate

SYNTHETIC_REPORTS = pl.Schema(
    {
        "report_id": pl.String,
        "exam_id": pl.String,
        "exam": pl.String,
        "label_set": pl.String,
        "reader": pl.String,
        "text": pl.String,
    }
)


def synthetic_reports(*, patients: int, seed: int = 0) -> pl.DataFrame:
    """The last version of every report of the first ``patients`` patients of a hospital.

    Returns:
        Columns report_id, exam_id, exam (kind of exam in the bank), label_set (its first; null where it has none),
        reader, text. The same seed gives the same rows.
    """
    bank = load_bank()
    rows = []
    for number in range(1, patients + 1):
        file = simulate(bank, seed=seed, number=number)
        kinds = {exam.exam_id: exam.kind for exam in file.exams}
        for report in {one.report_id: one for one in file.reports}.values():
            kind = kinds[report.exam_id]
            sets = bank.exams[kind].kind.label_sets
            rows.append((report.report_id, report.exam_id, kind, sets[0] if sets else None, report.reader, report.text))
    return pl.DataFrame(rows, schema=SYNTHETIC_REPORTS, orient="row")
