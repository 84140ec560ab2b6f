"""`reportlabel explain`."""

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from reportlabel.errors import ConfigError, InputError
from reportlabel.report.explain import run_explain

ROWS = (
    "report_id,text\n"
    'SECRET-1,"【所見】右肺上葉に24x18mm大の結節を認めます。原発性肺癌が疑われます。胸水は認めません。"\n'
    'SECRET-2,"【依頼目的】肺癌疑い。\n【所見】異常なし"\n'
    "SECRET-3,\n"
    'SECRET-4,"本文のみ"\n'
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def explain(
    source: Path, report_id: str, *, label_set: str | None = None, width: int = 100, colour: bool = False
) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    code = run_explain(
        source,
        report_id,
        label_set=label_set,
        rules_folder=None,
        id_column="report_id",
        text_column="text",
        encoding=None,
        console=console,
    )
    assert code == 0
    return stream.getvalue()


def test_text_mentions_clauses_cues_and_rules(source: Path) -> None:
    shown = explain(source, "SECRET-1")
    for word in ("結節", "肺癌", "胸水", "認めません", "疑われます", "pleural_effusion/", "右上葉"):
        assert word in shown
    assert "SECRET-2" not in shown


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(source: Path, width: int) -> None:
    shown = explain(source, "SECRET-1", label_set="lung_ct", width=width)
    assert max(cell_len(line) for line in shown.splitlines()) <= width


def test_the_labels_and_what_decided_them(source: Path) -> None:
    shown = explain(source, "SECRET-1", label_set="lung_ct")
    line = next(line for line in shown.splitlines() if "nodule_or_mass" in line)
    assert "present" in line and "#1 結節" in line
    assert "not mentioned:" in shown
    assert any("primary_size_mm" in line and "24" in line for line in shown.splitlines())


def test_what_was_asked_is_shown_as_no_finding(source: Path) -> None:
    shown = explain(source, "SECRET-2", label_set="lung_ct")
    assert "hypothetical" in shown
    assert not any("lung_cancer" in line and "uncertain" in line for line in shown.splitlines())


def test_without_colours_numbers_stand_in_brackets(source: Path) -> None:
    assert "結節[1]" in explain(source, "SECRET-1")


def test_colours_by_status(source: Path) -> None:
    shown = explain(source, "SECRET-1", colour=True)
    for colour in ("48;2;184;48;74", "48;2;240;180;41", "48;2;43;108;176"):
        assert colour in shown


def test_a_report_without_findings(source: Path) -> None:
    assert "nothing in this report" in explain(source, "SECRET-4")


def test_markup_in_a_report_is_text(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_text('report_id,text\n[red]1,"[bold]胸水なし[/bold] [/]"\n', encoding="utf-8")
    assert "[bold]" in explain(path, "[red]1")


def test_an_unknown_id_says_how_to_list_the_ids_and_quotes_none(source: Path) -> None:
    with pytest.raises(InputError) as error:
        explain(source, "SECRET-9")
    assert "polars" in str(error.value) and "SECRET" not in str(error.value)


def test_a_report_that_was_set_aside_says_why(source: Path) -> None:
    with pytest.raises(InputError, match=r"row 3 .*empty_text") as error:
        explain(source, "SECRET-3")
    assert "SECRET" not in str(error.value)


def test_an_unknown_label_set_is_refused(source: Path) -> None:
    with pytest.raises(ConfigError, match="lung_ct"):
        explain(source, "SECRET-1", label_set="lungct")
