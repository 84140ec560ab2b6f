"""What must not be imported, so that commands start fast and run without the training libraries."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl
import pytest

import reportlabel
from reportlabel.errors import ConfigError, InputError

HEAVY = ("spacy", "thinc", "torch", "transformers", "onnxruntime", "datasets", "label_studio_sdk", "ray")


def modules_after(program: str, *arguments: str | Path) -> set[str]:
    """The top-level modules that a fresh interpreter holds when the program is done."""
    ending = "\nimport sys\nprint('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", program + ending, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = modules_after("import reportlabel; assert reportlabel.__version__")
    assert loaded.isdisjoint({*HEAVY, "polars", "pyarrow", "numpy", "pydantic", "fugashi"})


def test_the_command_line_imports_nothing_heavy() -> None:
    assert modules_after("import reportlabel.cli").isdisjoint(HEAVY)


def test_labelling_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    reports = tmp_path / "reports.csv"
    reports.write_text("report_id,text\n1,右肺に結節を認めます。\n", encoding="utf-8")
    program = (
        "import sys\n"
        "from reportlabel.cli import main\n"
        "sys.argv = ['reportlabel', 'label', sys.argv[1], '--label-set', 'lung_ct', '-o', sys.argv[2]]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
    )
    loaded = modules_after(program, reports, tmp_path / "labels.parquet")
    assert (tmp_path / "labels.parquet").is_file()
    assert loaded.isdisjoint(HEAVY)


def test_the_version_is_the_installed_one() -> None:
    try:
        assert reportlabel.__version__ == version("reportlabel")
    except PackageNotFoundError:
        assert reportlabel.__version__ == "0+unknown"


# --- labels of reports in memory


def test_texts_are_labelled() -> None:
    labels = reportlabel.label_reports(["右肺に結節を認めます。", "胸水を認めません。"], label_set="lung_ct")
    assert labels["report_id"].unique(maintain_order=True).to_list() == ["0", "1"]
    values = {
        (report, finding): value for report, finding, value in labels.select("report_id", "finding", "value").rows()
    }
    assert values["1", "pleural_effusion"] == "absent"
    assert values["0", "pleural_effusion"] == "not_mentioned"


def test_a_table_is_labelled() -> None:
    reports = pl.DataFrame({"report_id": [7], "text": ["胸水を認めます。"], "other": [0]})
    labels = reportlabel.label_reports(reports, label_set="lung_ct")
    found = labels.filter(pl.col("finding") == "pleural_effusion").row(0, named=True)
    assert (found["report_id"], found["value"]) == ("7", "present")
    assert found["evidence"][0]["surface"] == "胸水"


def test_no_reports_give_no_labels() -> None:
    assert reportlabel.label_reports([], label_set="lung_ct").height == 0


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ("胸水", "list of texts"),
        (pl.DataFrame({"text": ["胸水"]}), "lacks column 'report_id'"),
        (pl.DataFrame({"report_id": ["1", "1"], "text": ["a", "b"]}), "twice"),
        (pl.DataFrame({"report_id": ["1", "2"], "text": ["a", None]}), "nulls"),
    ],
)
def test_wrong_tables_are_named(reports: str | pl.DataFrame, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reportlabel.label_reports(reports, label_set="lung_ct")


def test_an_unknown_label_set_is_an_error() -> None:
    with pytest.raises(ConfigError, match="lung_ct"):
        reportlabel.label_reports(["胸水"], label_set="lung_tc")
