"""The wheel, installed into an empty environment, labels a file from another folder, and needs no torch."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]
NO_NETWORK = re.compile(r"NewConnectionError|Failed to establish|NameResolutionError|ConnectTimeout|ProxyError")


def run(*command: str | Path, cwd: Path, needs_network: bool = False) -> str:
    """Standard output of a command that sees nothing of this checkout but what it is given."""
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        check=False,
        cwd=cwd,
        env=plain | {"PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        encoding="utf-8",
        timeout=600,
    )
    if needs_network and done.returncode and NO_NETWORK.search(done.stderr) and os.environ.get("CI") is None:
        pytest.skip("no network and not all packages in pip's cache")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    # with hatchling at hand no environment needs to be made for the build
    isolation = [] if importlib.util.find_spec("hatchling") is None else ["--no-isolation"]
    run(
        sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", folder, ROOT,
        cwd=folder, needs_network=not isolation,
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_rules_and_models_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    rules = {f"reportlabel/rules/{path.relative_to(ROOT / 'rules')}" for path in (ROOT / "rules").rglob("*.yaml")}
    assert len(rules) > 100
    assert rules <= names
    assert {"reportlabel/py.typed", "reportlabel/models/README.md", "reportlabel/report/page.html.j2"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


@pytest.mark.slow
def test_it_labels_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile",
        "-c", ROOT / "constraints.txt", wheel,
        cwd=tmp_path, needs_network=True,
    )  # fmt: skip
    listing = "from importlib.metadata import distributions as d; print(*(i.name.lower() for i in d()), sep='\\n')"
    installed = set(run(python, "-c", listing, cwd=tmp_path).split())
    assert "reportlabel" in installed
    assert not installed & {"torch", "transformers", "datasets", "ray", "label-studio-sdk", "pytest"}

    elsewhere.mkdir()
    (elsewhere / "reports.csv").write_text(
        "report_id,text\na,右上葉に12mm大の結節を認めます。胸水は認めません。\n", encoding="utf-8"
    )
    command = environment / "bin" / "reportlabel"
    run(
        command, "label", "reports.csv", "--label-set", "lung_ct", "-o", "labels.parquet", "--mentions", "m.parquet",
        cwd=elsewhere,
    )  # fmt: skip
    labels = dict(pl.read_parquet(elsewhere / "labels.parquet").select("finding", "value").iter_rows())
    assert len(labels) == 27
    assert (labels["nodule_or_mass"], labels["pleural_effusion"]) == ("present", "absent")
    assert (labels["primary_size_mm"], labels["primary_lobe"]) == ("12", "upper")
    assert pl.read_parquet(elsewhere / "m.parquet").height >= 2
    # the same rules as a spaCy pipeline, found by the names that the wheel registers
    program = (
        "import sys, spacy, reportlabel; reportlabel.load().to_disk('pipeline'); "
        "doc = spacy.load('pipeline')('胸水は認めません。'); "
        "print(doc.spans['findings'][0]._.status, 'torch' in sys.modules)"
    )
    assert run(python, "-c", program, cwd=elsewhere).split() == ["absent", "False"]
