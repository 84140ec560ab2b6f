"""`reportlabel explain WORKSPACE EXAM_ID`: every vote behind each label of an exam."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from reportlabel.errors import ConfigError, InputError
from reportlabel.report.explain_exam import run_explain_exam
from reportlabel.run import Options, open_workspace, run

RADIOLOGY = (
    "患者ID,性別,生年月日,受付番号,検査日,検査時刻,モダリティ,検査部位,所見,確定日時,StudyInstanceUID\n"
    "00000001,女,1950/01/01,A1,2024/03/04,09:00,CT,胸部CT,"
    "右上葉に12mmの結節を認め、肺癌を疑います。胸水なし。,2024/03/04 12:00:00,1.2.3\n"
)
PATHOLOGY = (
    "患者ID,病理番号,採取日,報告日,臓器,検体,診断\n00000001,S24-1,2024/03/20,2024/03/25,肺,右上葉TBLB,肺腺癌。\n"
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "archive").mkdir()
    (folder / "archive" / "radiology.csv").write_text(RADIOLOGY, encoding="utf-8")
    (folder / "archive" / "pathology.csv").write_text(PATHOLOGY, encoding="utf-8")
    run(folder / "archive", folder / "workspace", Options(site="main", parts=2, label_sets=("lung_ct", "ct_rate_18")))
    return folder / "workspace"


def printed(workspace: Path, exam_id: str, label_set: str | None) -> str:
    console = Console(width=110, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    run_explain_exam(workspace, exam_id, label_set=label_set, rules_folder=None, console=console)
    return console.export_text()


def test_words_and_records_stand_behind_their_labels(workspace: Path) -> None:
    (exam_id,) = open_workspace(workspace).read("exams")["exam_id"]
    shown = " ".join(printed(workspace, exam_id, "lung_ct").split())
    assert "CT · 胸部CT · 2024-03-04 · 74 y · F" in shown
    assert "uncertain 肺癌" in shown and "record/pathology_lung" in shown
    assert "not known at reading" in shown and "肺腺癌" in shown
    assert "label of ct_rate_18" not in shown
    assert "label of ct_rate_18" in printed(workspace, exam_id, None)


def test_an_unknown_exam_or_label_set_is_told(workspace: Path) -> None:
    with pytest.raises(InputError, match="no such exam"):
        run_explain_exam(workspace, "X1", label_set=None, rules_folder=None, console=Console())
    with pytest.raises(ConfigError, match="unknown label set"):
        run_explain_exam(workspace, "X1", label_set="lung", rules_folder=None, console=Console())
