"""`reportlabel label` as a user runs it: real processes, real files, bad input."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

TEXT = "右上葉に12mm大の結節を認め、肺癌を疑います。胸水は認めません。"
CANARY_TEXT = "カナリア太郎の右下葉に結節を認めます。"
CANARY_ID = "PATIENT-4711-CANARY"


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reportlabel", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        check=False,
        timeout=300,
    )


def write(path: Path, rows: list[tuple[str, str]], *, encoding: str = "utf-8") -> Path:
    lines = ["report_id,text"] + [f'{report_id},"{text}"' for report_id, text in rows]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def label(source: Path, out: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    return run("label", source, "--label-set", "lung_ct", "-o", out, *more)


def value(out: Path, report_id: str, finding: str) -> str:
    rows = pl.read_parquet(out).filter((pl.col("report_id") == report_id) & (pl.col("finding") == finding))
    return str(rows["value"].item())


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_labels_and_mentions(tmp_path: Path) -> None:
    source = write(tmp_path / "reports.csv", [("a", TEXT), ("b", "異常なし。")])
    out, mentions = tmp_path / "labels.parquet", tmp_path / "mentions.parquet"
    done = label(source, out, "--mentions", mentions)
    assert done.returncode == 0, done.stderr
    assert value(out, "a", "nodule_or_mass") == "present"
    assert value(out, "a", "lung_cancer") == "uncertain"
    assert value(out, "a", "pleural_effusion") == "absent"
    assert value(out, "a", "primary_size_mm") == "12"
    assert value(out, "a", "primary_side") == "right"
    assert value(out, "a", "primary_lobe") == "upper"
    assert value(out, "b", "nodule_or_mass") == "not_mentioned"
    labels = pl.read_parquet(out)
    assert labels.height == 2 * 27
    for start, end, surface in (
        pl.read_parquet(mentions).filter(pl.col("report_id") == "a").select("start", "end", "surface").iter_rows()
    ):
        assert TEXT[start:end] == surface


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932"])
def test_encodings_give_the_same_labels(tmp_path: Path, encoding: str) -> None:
    source = write(tmp_path / "reports.csv", [("a", TEXT + "①髙㎜")], encoding=encoding)
    done = label(source, tmp_path / "labels.parquet")
    assert done.returncode == 0, done.stderr
    assert value(tmp_path / "labels.parquet", "a", "lung_cancer") == "uncertain"


def test_a_guessed_encoding_is_reported(tmp_path: Path) -> None:
    source = write(tmp_path / "reports.csv", [("a", TEXT)], encoding="cp932")
    done = label(source, tmp_path / "labels.parquet")
    assert "cp932" in done.stderr
    assert "--encoding" in done.stderr


def test_workers_do_not_change_the_result(tmp_path: Path) -> None:
    rows = [(f"r{number}", TEXT.replace("12mm", f"{number % 40 + 1}mm")) for number in range(4_500)]
    source = write(tmp_path / "reports.csv", rows)
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    assert label(source, one, "--mentions", tmp_path / "m1.parquet").returncode == 0
    assert label(source, two, "--mentions", tmp_path / "m2.parquet", "--workers", "2").returncode == 0
    assert pl.read_parquet(one).equals(pl.read_parquet(two))
    assert pl.read_parquet(tmp_path / "m1.parquet").equals(pl.read_parquet(tmp_path / "m2.parquet"))


def test_many_rows_and_three_broken_ones(tmp_path: Path) -> None:
    """Rows in = rows out + quarantined, and the broken rows are listed with reasons."""
    count = 200_000
    lines = ["report_id,text"]
    lines += [f"r{number},{'胸水なし。' if number % 2 else '右下葉に結節あり。'}" for number in range(count)]
    lines[10] = "r9,"
    lines[20] = "r18,重複"
    lines[30] = "r29,余計な,欄"
    source = tmp_path / "reports.csv"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "labels.parquet"
    done = label(source, out)
    assert done.returncode == 1, done.stderr
    quarantine = pl.read_parquet(tmp_path / "labels.quarantine.parquet")
    assert quarantine.height == 3
    assert set(quarantine["reason"]) == {"empty_text", "duplicate_report_id", "too_many_fields"}
    assert pl.scan_parquet(out).select(pl.col("report_id").n_unique()).collect().item() == count - 3


def test_one_megabyte_report_and_control_characters(tmp_path: Path) -> None:
    long = "右上葉に結節を認めます。\n胸水はありません。\n" * 45_000
    source = tmp_path / "reports.parquet"
    pl.DataFrame(
        {"report_id": ["long", "nul", "blank"], "text": [long, "胸水\0は\x07認めません\x1f。", " \n\t"]}
    ).write_parquet(source)
    started = time.monotonic()
    done = label(source, tmp_path / "labels.parquet", "--mentions", tmp_path / "mentions.parquet")
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - started < 120
    assert value(tmp_path / "labels.parquet", "long", "nodule_or_mass") == "present"
    assert value(tmp_path / "labels.parquet", "nul", "pleural_effusion") == "absent"
    assert pl.read_parquet(tmp_path / "labels.quarantine.parquet")["reason"].to_list() == ["empty_text"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["label", "{missing}", "--label-set", "lung_ct", "-o", "{out}"], ["missing.csv"]),
        (["label", "{folder}", "--label-set", "lung_ct", "-o", "{out}"], ["director"]),
        (["label", "{reports}", "--label-set", "lung_cr", "-o", "{out}"], ["lung_cr", "lung_ct"]),
        (["label", "{reports}", "--label-set", "lung_ct", "-o", "{reports}/x/labels.parquet"], ["labels.parquet"]),
        (["label", "{reports}", "--label-set", "lung_ct", "-o", "{folder}"], ["{folder}"]),
        (
            ["label", "{reports}", "--label-set", "lung_ct", "-o", "{out}", "--text-column", "honbun"],
            ["honbun", "text"],
        ),
        (["label", "{reports}", "--label-set", "lung_ct", "-o", "{out}", "--workers", "0"], ["--workers"]),
        (["label", "{reports}", "--label-set", "lung_ct", "-o", "{out}", "--rules", "{folder}"], ["anatomy.yaml"]),
        (["label", "{reports}", "--label-set", "lung_ct", "-o", "{out}", "--model", "{folder}"], ["model.yaml"]),
        (["label", "{broken}", "--label-set", "lung_ct", "-o", "{out}"], ["broken.parquet"]),
    ],
)
def test_usage_errors_give_one_clear_message(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is no parquet")
    places = {
        "missing": tmp_path / "missing.csv",
        "folder": folder,
        "reports": write(tmp_path / "reports.csv", [(CANARY_ID, CANARY_TEXT)]),
        "out": tmp_path / "labels.parquet",
        "broken": tmp_path / "broken.parquet",
    }
    before = left_behind(tmp_path)
    done = run(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 2
    for word in words:
        assert word.format(**places) in done.stderr
    assert "Traceback" not in done.stderr
    assert "カナリア" not in done.stderr + done.stdout
    assert CANARY_ID not in done.stderr + done.stdout
    assert left_behind(tmp_path) == before


def test_no_text_or_id_on_the_terminal(tmp_path: Path) -> None:
    source = write(tmp_path / "reports.csv", [(CANARY_ID, CANARY_TEXT), (CANARY_ID, "別の本文"), ("x", "")])
    done = label(source, tmp_path / "labels.parquet")
    assert done.returncode == 1
    assert CANARY_ID not in done.stdout + done.stderr
    assert "カナリア" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_leaves_the_old_result(tmp_path: Path, number: signal.Signals) -> None:
    source = write(tmp_path / "reports.csv", [(f"r{row}", TEXT) for row in range(60_000)])
    out = tmp_path / "labels.parquet"
    write(tmp_path / "small.csv", [("old", TEXT)])
    assert label(tmp_path / "small.csv", out).returncode == 0
    before = out.read_bytes()
    process = subprocess.Popen(
        [sys.executable, "-m", "reportlabel", "label", str(source), "--label-set", "lung_ct", "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(4)
    assert process.poll() is None, "the run ended before it could be stopped"
    process.send_signal(number)
    process.wait(timeout=60)
    assert out.read_bytes() == before
    visible = {name for name in left_behind(tmp_path) if not name.startswith(".")}
    assert visible == {"reports.csv", "small.csv", "labels.parquet"}
    assert label(tmp_path / "small.csv", out).returncode == 0
    assert left_behind(tmp_path) == {"reports.csv", "small.csv", "labels.parquet"}


def test_help_is_quick_and_loads_no_heavy_library() -> None:
    heavy = ("torch", "spacy", "transformers", "polars")
    code = f"import sys; import reportlabel.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
