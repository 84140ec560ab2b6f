"""An export as a study makes it: all label sets, real processes, later exports, and what must not get out."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from reportlabel.export.labels import export_labels
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.export.options import FORMATS, export_options
from reportlabel.rulebook.load import rules_folder
from reportlabel.rulebook.models import LabelSet
from reportlabel.rulebook.read_yaml import parse, read_yaml
from tests.unit.export import exam_tables

SETS = [parse(read_yaml(path), LabelSet) for path in sorted((rules_folder() / "label_sets").glob("*.yaml"))]

PROCESS = """
    import sys
    from pathlib import Path
    import polars as pl
    from reportlabel.export.labels import export_labels
    from reportlabel.export.options import export_options
    from reportlabel.rulebook.load import rules_folder
    from reportlabel.rulebook.models import LabelSet
    from reportlabel.rulebook.read_yaml import parse, read_yaml

    to, out, *names = sys.argv[1:]
    sets = [parse(read_yaml(rules_folder() / "label_sets" / f"{name}.yaml"), LabelSet) for name in names]
    labels, exams, votes = (pl.read_parquet(f"{name}.parquet") for name in ("labels", "exams", "votes"))
    options = export_options(features=True)
    export_labels(labels, exams, label_sets=sets, to=to, out=Path(out), votes=votes, options=options)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("to", FORMATS)
def test_every_process_writes_the_same_bytes(tmp_path: Path, to: str) -> None:
    if to == "datasets" and find_spec("datasets") is None:
        pytest.skip("datasets is not installed")
    exams = exam_tables.exams(80, patients=40)
    sets = [one for one in SETS if one.id == "ct_rate_18" or (to != "ct-rate" and one.id == "lung_ct")]
    exams.write_parquet(tmp_path / "exams.parquet")
    exam_tables.labels(exams, *sets).write_parquet(tmp_path / "labels.parquet")
    exam_tables.votes(exams, *sets).write_parquet(tmp_path / "votes.parquet")
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "HF_HUB_OFFLINE": "1", "TZ": f"UTC{seed}"}
        arguments = [to, f"out{seed}", *(one.id for one in sets)]
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROCESS), *arguments],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
            check=True,
            timeout=120,
        )
        assert verify_manifest(tmp_path / f"out{seed}") == []
    one, two = contents(tmp_path / "out1"), contents(tmp_path / "out2")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def test_every_label_set_can_be_exported(tmp_path: Path) -> None:
    exams = exam_tables.exams(60, patients=30)
    labels = exam_tables.labels(exams, *SETS)
    for to in ("parquet", "chexpert", "monai", *(["datasets"] if find_spec("datasets") else [])):
        done = export_labels(labels, exams, label_sets=SETS, to=to, out=tmp_path / to)
        assert done.labels == labels.height and done.empty_label_sets == ()
        assert verify_manifest(done.folder) == []


def test_a_later_export_keeps_every_patient_where_they_were(tmp_path: Path) -> None:
    [lung] = [one for one in SETS if one.id == "lung_ct"]
    exams = exam_tables.exams(300, patients=200)
    labels = exam_tables.labels(exams, lung)
    out = tmp_path / "out"

    def split(of: pl.DataFrame, **options: object) -> dict[str, str]:
        some = labels.join(of, on="exam_id", how="semi")
        export_labels(some, of, label_sets=[lung], to="parquet", out=out, options=export_options(**options))
        table = pl.read_parquet(out / "labels.parquet").select("patient_id", "split").unique()
        assert table["patient_id"].is_unique().all()
        return dict(table.iter_rows())

    first, later = split(exams.head(100)), split(exams)
    assert set(first) < set(later)
    assert {patient: later[patient] for patient in first} == first
    held_out = split(exams, hold_out_sites=["south"])
    of_south = set(exams.filter(pl.col("site") == "south")["patient_id"])
    assert {held_out[patient] for patient in of_south} == {"test"}
    assert all(held_out[patient] == later[patient] for patient in later if patient not in of_south)


def test_neither_words_nor_moments_get_out(tmp_path: Path) -> None:
    """Of an exam only keys and labels leave; order names, protocols and times stay."""
    canary = "カナリア花子"
    exams = exam_tables.exams(60, patients=30).with_columns(
        pl.lit(canary).alias("order_name"), pl.lit(canary).alias("protocol_name"), pl.lit(canary).alias("body_part")
    )
    [chest, ct] = [one for one in SETS if one.id in ("chexpert_14", "ct_rate_18")]
    labels = exam_tables.labels(exams, chest, ct)
    for to in FORMATS:
        if to == "datasets" and find_spec("datasets") is None:
            continue
        out = tmp_path / to
        export_labels(labels, exams, label_sets=[ct], to=to, out=out)
        files = contents(out)
        files["labels.parquet"] = repr(pl.read_parquet(out / "labels.parquet").to_dicts()).encode()
        assert not [name for name, content in files.items() if canary.encode() in content]
        described = (files["card.md"] + files["manifest.json"]).decode()
        assert not [key for column in ("exam_id", "patient_id") for key in exams[column] if f'"{key}"' in described]
    manifest = read_manifest(tmp_path / "parquet")
    assert manifest is not None and not {"date", "time", "created_at"} & set(manifest)


def test_no_training_library_is_imported_where_none_is_needed() -> None:
    program = (
        "import sys, reportlabel.export.labels; print({'datasets', 'torch', 'monai', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
