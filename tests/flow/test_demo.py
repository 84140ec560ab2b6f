"""`reportlabel demo`: the whole flow, and its page in a real browser."""

import io
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from reportlabel.errors import ConfigError
from reportlabel.schema import LABELS, MENTIONS
from reportlabel.synth.demo import run_demo

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=3000",
)


def demo(out: Path) -> str:
    stream = io.StringIO()
    assert run_demo(out, console=Console(file=stream, width=100)) == 0
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "reportlabel-demo"
    demo(out)
    return out


def test_it_is_quick_and_can_be_run_again(tmp_path: Path) -> None:
    began = time.monotonic()
    first = demo(tmp_path / "demo")
    labels = pl.read_parquet(tmp_path / "demo" / "labels.parquet")
    second = demo(tmp_path / "demo")
    assert "\n0 files read: " in second  # what was read before is not read again
    assert second == re.sub(r"[\d,]+ files read: ", "0 files read: ", first)
    assert time.monotonic() - began < 90
    assert pl.read_parquet(tmp_path / "demo" / "labels.parquet").equals(labels)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "archive",
        "labels.parquet",
        "mentions.parquet",
        "report.html",
        "reports.parquet",
        "workspace",
    ]


def test_the_summary_shows_label_sets_evidence_and_the_page(tmp_path: Path) -> None:
    shown = demo(tmp_path / "demo")
    for word in ("lung_ct", "skin_tumour", "肺結節", "→", "cue", "report.html"):
        assert word in shown
    assert str((tmp_path / "demo" / "report.html").resolve()) in shown
    assert len(re.findall(r"^ +→", shown, re.MULTILINE)) == 3


def test_every_report_has_every_label_of_its_set(folder: Path) -> None:
    reports, labels, mentions = (
        pl.read_parquet(folder / f"{name}.parquet") for name in ("reports", "labels", "mentions")
    )
    assert labels.columns == ["label_set", *LABELS.names()] and mentions.columns == MENTIONS.names()
    per_report = labels.group_by("report_id", "label_set").len()
    assert per_report.join(reports, on=["report_id", "label_set"], how="inner").height == reports.height
    assert per_report.group_by("label_set").agg(pl.col("len").n_unique())["len"].max() == 1
    # present and absent occur in nearly every kind of exam; skin reports deny little
    statuses = labels.filter(pl.col("value").is_in(["present", "absent"])).group_by("label_set", "value").len()
    assert statuses.height >= 2 * reports["label_set"].n_unique() - 2


def test_mentions_point_at_their_words(folder: Path) -> None:
    reports, mentions = (pl.read_parquet(folder / f"{name}.parquet") for name in ("reports", "mentions"))
    texts = dict(reports.select("report_id", "text").iter_rows())
    for report_id, start, end, surface in mentions.select("report_id", "start", "end", "surface").iter_rows():
        assert texts[report_id][start:end] == surface


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file")
    with pytest.raises(ConfigError, match="--out"):
        demo(tmp_path / "demo")


@pytest.mark.browser
def test_the_page_works_in_a_browser(folder: Path, tmp_path: Path) -> None:
    opened, log = opened_page(folder / "report.html", "", tmp_path)
    assert "CONSOLE" not in log
    shown = re.findall(r"<section id=\"(\w+)\"[^>]*?( hidden=\"\")?>", opened)
    assert [name for name, hidden in shown if not hidden] == ["overview"]
    assert re.search(r"<html[^>]*data-theme=\"(?:light|dark)\"", opened)


@pytest.mark.browser
def test_the_reader_points_at_a_mention_and_filters(folder: Path, tmp_path: Path) -> None:
    script = """
      location.hash = "#lung_ct";
      setTimeout(() => {
        document.querySelector('#lung_ct tr[data-finding="pleural_effusion"]').click();
        document.querySelector("#lung_ct article:not([hidden]) .m.wanted").focus();
      }, 200);
    """
    opened, log = opened_page(folder / "report.html", script, tmp_path)
    assert "CONSOLE" not in log
    tip = opened[opened.index('id="tip"') :]
    assert "胸水" in tip and "Pleural effusion" in tip and "規則" in tip
    assert "in-clause" in opened and "in-cue" in opened
    cards = re.findall(r"<article[^>]*data-labels=\"([^\"]*)\"[^>]*?>", opened[opened.index('id="lung_ct"') :])
    shown = [
        labels
        for labels, tag in zip(
            cards, re.findall(r"<article[^>]*>", opened[opened.index('id="lung_ct"') :]), strict=True
        )
        if "hidden" not in tag and "pleural_effusion:" in labels
    ]
    assert shown


def opened_page(page: Path, script: str, tmp_path: Path) -> tuple[str, str]:
    """The page as the browser has it after its scripts and this one, and what it logged."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        missing = "no browser: apt-get install -y chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    copy = tmp_path / "page.html"
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    run = subprocess.run(
        [browser, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return run.stdout.decode("utf-8"), run.stderr.decode("utf-8", "replace")
