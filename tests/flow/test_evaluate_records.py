"""Linked records make labels better, on a synthetic hospital whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from reportlabel.synth.hospital import Hospital, make_hospital


@pytest.mark.slow
def test_labels_with_records_beat_labels_of_texts_alone(tmp_path: Path) -> None:
    """F1 and Brier score over the findings that have record rules; docs/run.md has a larger hospital."""
    make_hospital(Hospital(tmp_path / "hospital", 600, 33, ("parquet",)), workers=2)
    process = subprocess.run(
        [sys.executable, "-m", "reportlabel", "evaluate-records", "hospital", "--json", "figures.json"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "lung_cancer" in process.stdout
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    pooled, by_label = figures["pooled"], pl.DataFrame(figures["by_label"])
    assert by_label.height > 30
    assert pooled["f1_records"] > pooled["f1_text"] + 0.005
    assert pooled["brier_records"] < pooled["brier_text"] * 0.97
    assert pooled["ece_records"] <= 0.03
    better = (by_label["f1_records"] > by_label["f1_text"]).sum()
    worse = (by_label["f1_records"] < by_label["f1_text"]).sum()
    assert better > 2 * worse


def test_what_is_no_hospital_is_refused(tmp_path: Path) -> None:
    for options, told in (([], "has no parquet"), (["--reviewed", "2"], "share between 0 and 1")):
        process = subprocess.run(
            [sys.executable, "-m", "reportlabel", "evaluate-records", str(tmp_path), *options],
            check=False,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 2 and told in process.stderr and "Traceback" not in process.stderr
