"""The flow over whole archives: formats that agree, sums that fit, runs that are killed, reports that are amended."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake

from reportlabel.consent.refusals import read_refusals
from reportlabel.deidentify.linkage import LinkageStore, make_key_file
from reportlabel.errors import ConfigError
from reportlabel.govern import Governance
from reportlabel.ingest.assemble import reports_that_count
from reportlabel.protocol import load_protocol
from reportlabel.rulebook.load import rules_folder
from reportlabel.run import Options, open_workspace, run
from reportlabel.schema import READINGS, WORKSPACE
from reportlabel.study import Study, load_study
from reportlabel.synth.hospital import Hospital, make_hospital

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared" / "samples"
SITES = ("aoba", "minato", "sato")
OWN_COLUMNS = ("run_id",)
"""What may differ between two runs of the same archive."""


def archive(hospital: Path, name: str, *formats: tuple[str, str]) -> Path:
    sources = "".join(f"  - {{path: {f}/{site}, format: {r}, site: {site}}}\n" for f, r in formats for site in SITES)
    path = hospital / name
    path.write_text(f"options: {{patient_id_width: 8}}\nsources:\n{sources}", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "hospital"
    make_hospital(Hospital(out, 120, 5, ("parquet", "ssmix2", "fhir", "ris")))
    return out


@pytest.fixture(scope="module")
def departments(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of the archive as SS-MIX2 and tables."""
    folder = tmp_path_factory.mktemp("departments") / "workspace"
    run(archive(hospital, "a.yaml", ("ssmix2", "ssmix2"), ("ris", "ris_csv")), folder, Options(parts=4))
    return folder


@pytest.fixture(scope="module")
def resources(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of the archive as FHIR."""
    folder = tmp_path_factory.mktemp("resources") / "workspace"
    run(archive(hospital, "b.yaml", ("fhir", "fhir")), folder, Options(parts=4))
    return folder


def labels(workspace: Path) -> pl.DataFrame:
    return open_workspace(workspace).read("labels").drop(OWN_COLUMNS).sort("exam_id", "label_set", "finding")


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


# --- two archives of one hospital


def touched_by_defects(hospital: Path, exams: pl.DataFrame) -> pl.Series:
    """Patients of whom one of the archives has lost something on purpose (misfiled, damaged, retracted)."""
    harmless = ["narrative_only", "burned_in", "clock", "birth_date_missing"]
    ids = pl.read_parquet(hospital / "gold" / "defects.parquet").filter(~pl.col("kind").is_in(harmless))["id"]
    tables = hospital / "parquet"
    named = [
        pl.read_parquet(tables / "exams.parquet").filter(
            pl.col("exam_id").is_in(ids.implode()) | pl.col("report_id").is_in(ids.implode())
        ),
        pl.read_parquet(tables / "records.parquet").filter(pl.col("record_id").is_in(ids.implode())),
        pl.read_parquet(tables / "patients.parquet").filter(pl.col("patient_id").is_in(ids.implode())),
    ]
    return pl.concat([one.select("patient_id") for one in named])["patient_id"].unique()


def test_two_archives_of_one_hospital_give_the_same_tables(hospital: Path, departments: Path, resources: Path) -> None:
    one, two = open_workspace(departments), open_workspace(resources)
    exams = [workspace.read("exams").sort("exam_id") for workspace in (one, two)]
    lost = touched_by_defects(hospital, exams[0])
    whole = [table.filter(~pl.col("patient_id").is_in(lost.implode())) for table in exams]
    assert whole[0].height > 150
    # JP Core has no place for these, SS-MIX2 none for the protocol
    missing = ["protocol_name", "contrast_agent", "contrast_ml", "ctdi_vol", "dlp", "tracer", "height_cm", "weight_kg"]
    assert whole[0].drop(missing).equals(whole[1].drop(missing))

    ids = whole[0].select("exam_id")
    counting = [
        reports_that_count(workspace.read("reports")).join(ids, on="exam_id", how="semi").sort("report_id")
        for workspace in (one, two)
    ]
    assert counting[0]["report_id"].equals(counting[1]["report_id"])
    assert counting[0]["confirmed_at"].equals(counting[1]["confirmed_at"])
    same = (counting[0]["text"] == counting[1]["text"]).mean()
    assert isinstance(same, float) and same > 0.9  # the rest: whole narratives, in which the request stands as well

    records = [
        workspace.read("records").filter(~pl.col("patient_id").is_in(lost.implode())).sort("record_id")
        for workspace in (one, two)
    ]
    assert records[0]["record_id"].equals(records[1]["record_id"])
    assert records[0].select("kind", "value", "unit", "flag").equals(records[1].select("kind", "value", "unit", "flag"))

    told = [
        table.join(ids, on="exam_id", how="semi").select("exam_id", "label_set", "finding", "value")
        for table in (labels(departments), labels(resources))
    ]
    assert told[0].select("exam_id", "label_set", "finding").equals(told[1].select("exam_id", "label_set", "finding"))
    assert told[0].height > 3000
    differing = told[0].filter(told[0]["value"] != told[1]["value"])
    assert differing.is_empty(), differing


def test_rows_in_are_rows_out_at_every_stage(departments: Path, resources: Path) -> None:
    for folder in (departments, resources):
        attrition = open_workspace(folder).read("attrition")
        sums = attrition.group_by("stage", "table").agg(
            pl.col("rows").filter(pl.col("outcome") == "in").sum().alias("came"),
            pl.col("rows").filter(pl.col("outcome") != "in").sum().alias("went"),
        )
        assert sums.height == 6 and (sums["came"] == sums["went"]).all(), sums
        assert (sums["came"] > 0).all()
        reasons = attrition.filter(pl.col("outcome").is_in(["excluded", "quarantined"]))["reason"]
        assert (reasons.str.len_chars() > 10).all()


def test_every_label_of_every_exam_in_scope_is_there_once(departments: Path) -> None:
    workspace = open_workspace(departments)
    told = workspace.read("labels")
    assert told.select("exam_id", "label_set", "finding").is_unique().all()
    sizes = told.group_by("exam_id", "label_set").len().group_by("label_set").agg(pl.col("len").n_unique())
    assert (sizes["len"] == 1).all()
    assert told["p_present"].is_between(0, 1).sum() + told["p_present"].null_count() == told.height
    votes = workspace.read("votes")
    assert set(votes["kind"]) == {"rule", "record"}
    links = workspace.read("links").select("exam_id", "record_id")
    linked = votes.filter(pl.col("kind") == "record").select("exam_id", record_id="evidence")
    assert linked.join(links, on=["exam_id", "record_id"], how="anti").is_empty()


def test_nothing_that_identifies_is_on_the_disk(hospital: Path, departments: Path, resources: Path) -> None:
    canaries = pl.read_parquet(hospital / "gold" / "canaries.parquet").filter(
        pl.col("kind").is_in(["name", "kana", "roman", "address", "phone"]) & pl.col("patient_id").is_not_null()
    )
    assert canaries.height > 400
    given = everything(hospital / "fhir")
    for folder in (departments, resources):
        held = everything(folder)
        tables = pl.concat(
            [
                open_workspace(folder).read(name).select(pl.col(pl.String)).unpivot().select("value").unique()
                for name in ("exams", "records", "quarantine")
            ]
        )["value"].drop_nulls()
        text = "\n".join(tables)
        for value in canaries["value"]:
            assert value not in text
        addresses = canaries.filter(pl.col("kind").is_in(["address", "phone"]))["value"].to_list()
        assert not any(value.encode() in held for value in addresses)
    assert any(value.encode() in given for value in addresses)  # so the search works


# --- the second run


def small_archive(folder: Path) -> Path:
    folder.mkdir()
    header = "患者ID,性別,受付番号,検査日,検査時刻,モダリティ,検査部位,所見,確定日時,版数,StudyInstanceUID\n"
    rows = "".join(
        f"{n:08d},女,A{n},2024/03/{n % 28 + 1:02d},09:00,CT,胸部CT,右上葉に{n % 30 + 5}mmの結節を認めます。胸水なし。,"
        f"2024/03/{n % 28 + 1:02d} 12:00:00,1,1.2.392.{n}\n"
        for n in range(60)
    )
    (folder / "reports.csv").write_text(header + rows, encoding="utf-8")
    return folder


def test_an_amended_report_replaces_its_labels_and_nothing_else_is_made_anew(tmp_path: Path) -> None:
    folder, workspace = small_archive(tmp_path / "archive"), tmp_path / "workspace"
    first = run(folder, workspace, Options(site="main", parts=8))
    assert (first.parts, first.snapshot) == (8, 0)
    idle = run(folder, workspace, Options(site="main"))
    assert (idle.read.files, idle.parts, idle.snapshot) == (0, 0, None)
    (folder / "amended.csv").write_text(
        "患者ID,受付番号,検査日,モダリティ,検査部位,所見,確定日時,状態,版数,StudyInstanceUID\n"
        "00000007,A7,2024/03/08,CT,胸部CT,右上葉の陰影は消退しています。結節を認めません。胸水を認めます。,"
        "2024/03/20 08:00:00,修正,2,1.2.392.7\n",
        encoding="utf-8",
    )
    third = run(folder, workspace, Options(site="main"))
    assert (third.read.files, third.read.unchanged, third.parts, third.snapshot) == (1, 1, 1, 1)
    opened = open_workspace(workspace)
    then, now = (opened.read("labels", version=opened.versions(n)["labels"]) for n in (0, 1))
    keys = ["exam_id", "label_set", "finding"]
    changed = then.join(now, on=keys, suffix="_now").filter(pl.col("value") != pl.col("value_now"))
    assert changed["exam_id"].n_unique() == 1
    by_finding = {(row["label_set"], row["finding"]): row["value_now"] for row in changed.iter_rows(named=True)}
    assert by_finding["lung_ct", "nodule_or_mass"] == "absent"
    assert by_finding["lung_ct", "pleural_effusion"] == "present"
    (chain,) = (
        opened.read("reports")
        .group_by("report_id")
        .agg("version", "status")
        .filter(pl.col("version").list.len() == 2)
        .iter_rows()
    )
    assert (chain[1], chain[2]) == ([1, 2], ["final", "amended"])


def test_what_is_wrong_in_a_new_file_is_told_though_no_patient_changes(tmp_path: Path) -> None:
    folder, workspace = small_archive(tmp_path / "archive"), tmp_path / "workspace"
    assert run(folder, workspace, Options(site="main", parts=3)).quarantined == 0
    (folder / "broken.csv").write_text(
        "患者ID,受付番号,検査日,モダリティ,検査部位,所見\n00000001,Z1,いつか,CT,胸部CT,異常なし\n", encoding="utf-8"
    )
    done = run(folder, workspace, Options(site="main"))
    assert (done.quarantined, done.exit_code, done.snapshot) == (1, 1, 1)
    told = open_workspace(workspace).read("quarantine").row(0, named=True)
    assert (told["stage"], told["path"], told["row"]) == ("read", "broken.csv", 2)
    (folder / "broken.csv").unlink()
    assert run(folder, workspace, Options(site="main", forget_gone=True)).quarantined == 0


def exported(workspace: Path, out: Path, *options: str) -> dict[str, bytes]:
    subprocess.run(
        [sys.executable, "-m", "reportlabel", "export", str(workspace), "--to", "parquet", "--out", str(out), *options],
        check=True,
        capture_output=True,
    )
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_an_earlier_version_gives_the_same_bytes_later(tmp_path: Path) -> None:
    folder, workspace = small_archive(tmp_path / "archive"), tmp_path / "workspace"
    run(folder, workspace, Options(site="main", parts=4))
    then = exported(workspace, tmp_path / "then", "--features")
    assert {"labels.parquet", "features.parquet", "card.md", "manifest.json"} <= set(then)
    text = (folder / "reports.csv").read_text(encoding="utf-8")
    (folder / "reports.csv").write_text(text.replace("結節を認めます", "結節は認めません"), encoding="utf-8")
    run(folder, workspace, Options(site="main"))
    now = exported(workspace, tmp_path / "now", "--features")
    again = exported(workspace, tmp_path / "again", "--as-of", "0", "--features")
    assert again == then
    assert now["labels.parquet"] != then["labels.parquet"]
    wrong = subprocess.run(
        [
            sys.executable,
            "-m",
            "reportlabel",
            "export",
            str(workspace),
            "--to",
            "parquet",
            "--out",
            "x",
            "--as-of",
            "9",
        ],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert wrong.returncode == 2 and "no version 9" in wrong.stderr and "Traceback" not in wrong.stderr


def test_only_what_was_known_at_reading_can_be_an_input(departments: Path, tmp_path: Path) -> None:
    exported(departments, tmp_path / "out", "--features")
    features = pl.read_parquet(tmp_path / "out" / "features.parquet")
    assert features.height > 10
    votes = open_workspace(departments).read("votes").filter(pl.col("kind") == "record")
    late = votes.filter(~pl.col("available_at_reading").fill_null(False))
    assert late.height > 10
    keys = ["exam_id", "label_set", "finding", "function_id", "evidence"]
    known = votes.filter(pl.col("available_at_reading")).select(keys).unique()
    assert features.select(keys).unique().join(known, on=keys, how="anti").is_empty()


def test_workers_do_not_change_the_result(tmp_path: Path, hospital: Path, departments: Path) -> None:
    two = tmp_path / "two"
    run(archive(hospital, "a.yaml", ("ssmix2", "ssmix2"), ("ris", "ris_csv")), two, Options(parts=4, workers=2))
    assert labels(two).equals(labels(departments))


def test_a_second_run_beside_the_first_is_refused(tmp_path: Path) -> None:
    import fcntl

    folder, workspace = small_archive(tmp_path / "archive"), tmp_path / "workspace"
    run(folder, workspace, Options(site="main", parts=2))
    with (workspace / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another run"):
            run(folder, workspace, Options(site="main"))


def started(folder: Path, workspace: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "reportlabel", "run", "--archive", str(folder), "--workspace", str(workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder.parent,
    )


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_labels(tmp_path: Path, hospital: Path) -> None:
    """Ten times: start, kill -9 at a random moment, start again; the moments spread over the whole run."""
    source = archive(hospital, "a.yaml", ("ssmix2", "ssmix2"), ("ris", "ris_csv"))
    whole = tmp_path / "whole"
    began = time.monotonic()
    process = started(source, whole)
    process.communicate(timeout=300)
    assert process.returncode in (0, 1)
    seconds = time.monotonic() - began
    expected = labels(whole)
    chance = random.Random(20261121)
    workspace = tmp_path / "killed"
    killed = 0
    ended = True
    for _ in range(100):
        anew = ended or chance.random() < 0.3  # some from nothing, some upon what the one before left
        if anew:
            shutil.rmtree(workspace, ignore_errors=True)
        process, began = started(source, workspace), time.monotonic()
        try:
            process.communicate(timeout=chance.uniform(0.1, 0.95) * seconds)
            ended = True  # there was nothing left to kill
            if anew:  # the machine is faster than before
                seconds = min(seconds, time.monotonic() - began)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            ended, killed = False, killed + 1
            if killed == 10:
                break
    assert killed == 10
    last = started(source, workspace)
    output, _ = last.communicate(timeout=300)
    assert last.returncode in (0, 1), output.decode()
    assert labels(workspace).equals(expected)
    for name in ("exams", "reports", "records", "links", "votes", "mentions"):
        tables = [open_workspace(one).read(name) for one in (whole, workspace)]
        assert tables[0].sort(tables[0].columns).equals(tables[1].sort(tables[1].columns)), name
    rows = list((workspace / "raw" / "rows").iterdir())
    assert rows and not any(one.name.startswith(".") for one in rows)


# --- killed between two writes, and then the input is what it was before


class Killed(BaseException):
    """Ends a run as a signal would: nothing catches it."""


@dataclass
class Writes:
    """Counts the commits of all tables and what is put into a linkage store; the run dies before number ``until``."""

    until: int | None = None
    done: int = 0

    def before(self) -> None:
        if self.done == self.until:
            raise Killed
        self.done += 1

    def restart(self, until: int | None) -> None:
        self.until, self.done = until, 0


@pytest.fixture(scope="module")
def compiled() -> Callable[..., Study]:
    """`load_study`, which reads the same rules once for all of these runs."""
    return cache(load_study)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Study]) -> Writes:
    counted = Writes()

    def counting(write: Callable[..., object]) -> Callable[..., object]:
        def written(*given: object, **options: object) -> object:
            counted.before()
            return write(*given, **options)

        return written

    monkeypatch.setattr("reportlabel.store.write_deltalake", counting(write_deltalake))
    monkeypatch.setattr(LinkageStore, "put", counting(LinkageStore.put))
    monkeypatch.setattr("reportlabel.run.load_study", compiled)
    monkeypatch.setattr(Study, "forget_readers", lambda _: None)
    return counted


ONE_SET = ("lung_ct",)
DATA = [name for name in WORKSPACE if name != "progress"]


def tables(workspace: Path) -> dict[str, pl.DataFrame]:
    """All tables as a reader of the last snapshot has them, and as they are, which must be the same."""
    opened = open_workspace(workspace)
    shown = opened.versions()
    found = {}
    for name in DATA:
        now = opened.read(name)
        assert now.equals(opened.read(name, version=shown[name])), f"{name}: not as in the last snapshot"
        kept = now.drop(column for column in OWN_COLUMNS if column in now.columns)
        found[name] = kept.sort([one for one, kind in kept.schema.items() if not kind.is_nested()])
    return found


def assert_same(workspace: Path, expected: dict[str, pl.DataFrame], when: object) -> None:
    for name, table in tables(workspace).items():
        assert table.equals(expected[name]), f"{name} after {when}"


def few_reports(folder: Path, *, patients: int = 6) -> Path:
    folder.mkdir()
    rows = "".join(
        f"{n:08d},女,A{n},2024/03/{n + 1:02d},09:00,CT,胸部CT,右上葉に12mmの結節を認めます。胸水なし。,"
        f"2024/03/{n + 1:02d} 12:00:00,1,1.2.392.{n}\n"
        for n in range(patients)
    )
    header = "患者ID,性別,受付番号,検査日,検査時刻,モダリティ,検査部位,所見,確定日時,版数,StudyInstanceUID\n"
    (folder / "reports.csv").write_text(header + rows, encoding="utf-8")
    return folder


def other_rules(folder: Path) -> Path:
    """The rules of the package, and the chest has another name in them."""
    shutil.copytree(rules_folder(), folder)
    exams = (folder / "exams.yaml").read_text(encoding="utf-8")
    assert "body_part: CHEST" in exams
    (folder / "exams.yaml").write_text(exams.replace("body_part: CHEST", "body_part: THORAX"), encoding="utf-8")
    return folder


def test_a_run_killed_before_any_write_and_the_rules_put_back(tmp_path: Path, writes: Writes) -> None:
    archive, first = few_reports(tmp_path / "archive"), tmp_path / "first"
    right = Options(site="main", parts=1, label_sets=ONE_SET)
    wrong = replace(right, rules=other_rules(tmp_path / "rules"), label_sets=("ct_rate_18",))
    run(archive, first, right)
    expected = tables(first)
    other = shutil.copytree(first, tmp_path / "other")
    writes.restart(None)
    run(archive, other, wrong)
    commits = writes.done
    assert commits > 12
    for name in ("exams", "votes", "choices", "labels"):
        assert not tables(other)[name].equals(expected[name]), name
    for until in range(commits):
        workspace = shutil.copytree(first, tmp_path / f"killed-{until}")
        writes.restart(until)
        with pytest.raises(Killed):
            run(archive, workspace, wrong)
        writes.restart(None)
        run(archive, workspace, right)
        assert_same(workspace, expected, f"{until} writes")


def test_runs_killed_again_and_again_while_the_rules_change_forth_and_back(tmp_path: Path, writes: Writes) -> None:
    archive, workspace = few_reports(tmp_path / "archive"), tmp_path / "workspace"
    right = Options(site="main", parts=2, label_sets=ONE_SET)
    wrong = replace(right, rules=other_rules(tmp_path / "rules"), label_sets=("ct_rate_18",))
    run(archive, workspace, right)
    commits, expected = writes.done, tables(workspace)
    chance = random.Random(20261122)
    for turn in range(4):
        for _ in range(3):
            writes.restart(chance.randrange(commits))
            with suppress(Killed):
                run(archive, workspace, chance.choice([right, wrong]))
        writes.restart(None)
        run(archive, workspace, right)
        assert_same(workspace, expected, f"turn {turn}")


def test_a_run_killed_before_any_write_and_the_readings_put_back(tmp_path: Path, writes: Writes) -> None:
    folder, first = few_reports(tmp_path / "archive"), tmp_path / "first"
    options = Options(site="main", parts=2, label_sets=ONE_SET)
    run(folder, first, options)
    expected = tables(first)
    exams = expected["exams"].select("exam_id")
    read = {"label_set": "lung_ct", "finding": "nodule_or_mass", "reader": "r1", "value": "absent", "origin": "changed"}
    opinions = exams.select(
        *(
            "exam_id" if name == "exam_id" else pl.lit(read.get(name), dtype=kind).alias(name)
            for name, kind in READINGS.items()
        )
    ).with_columns(read_at=datetime(2026, 1, 1))

    def go(workspace: Path, readings: pl.DataFrame, until: int | None = None) -> None:
        writes.restart(None)
        open_workspace(workspace).replace("readings", readings)
        writes.restart(until)
        run(folder, workspace, options)

    other = shutil.copytree(first, tmp_path / "other")
    go(other, opinions)
    commits = writes.done
    assert commits > 5 and not tables(other)["labels"].equals(expected["labels"])
    for until in range(commits):
        workspace = shutil.copytree(first, tmp_path / f"killed-{until}")
        with pytest.raises(Killed):
            go(workspace, opinions, until)
        go(workspace, opinions.clear())
        assert_same(workspace, expected, f"{until} writes")


def governance(folder: Path) -> Governance:
    """What a run of a study over the archive of one hospital needs; nobody has refused."""
    protocol, refusals = folder / "our_keio.yaml", folder / "refusals.csv"
    protocol.write_text(
        "extends: keio_2017_0018\nid: our_keio\ncohort:\n  from: 2005-01-01\n  sites:\n"
        "    - {id: main, name: {ja: main, en: main}}\n",
        encoding="utf-8",
    )
    refusals.write_text("site,patient_id,received,scope\n", encoding="utf-8")
    (folder / "keys").mkdir()
    return Governance(
        protocol=load_protocol(str(protocol)),
        today=date(2026, 4, 1),
        staging=folder / "staging",
        linkage=folder / "safe",
        key=make_key_file(folder / "keys" / "study.key"),
        actor="night",
        purpose="labels",
        refusals=read_refusals(refusals),
        id_width=8,
    )


@pytest.mark.parametrize("until", [0, 1, 3, 6, 10, 14, 18])
def test_a_study_killed_while_somebody_is_taken_out_by_mistake(tmp_path: Path, writes: Writes, until: int) -> None:
    """The list is put right before the next run: no table may hold what another has lost."""
    archive, refusals = few_reports(tmp_path / "archive", patients=3), tmp_path / "mistake.csv"
    refusals.write_text("site,patient_id,received,scope\nmain,00000001,2026-01-01,all_research\n", encoding="utf-8")
    under = governance(tmp_path)
    options = Options(site="main", parts=1, label_sets=ONE_SET, governance=under)
    workspace = tmp_path / "workspace"
    run(archive, workspace, options)
    writes.restart(until)
    with pytest.raises(Killed):
        run(archive, workspace, replace(options, governance=replace(under, refusals=read_refusals(refusals))))
    writes.restart(None)
    run(archive, workspace, options)
    opened = open_workspace(workspace)
    exams, reports = opened.read("exams")["exam_id"], opened.read("reports")
    assert set(reports["exam_id"]) == set(exams)
    assert set(opened.read("labels")["exam_id"]) == set(exams)
    assert set(opened.read("mentions")["report_id"]) == set(reports["report_id"])
    kept = LinkageStore.open(under.linkage, key_source=under.key, workspace=None)
    assert set(kept.get("images_0000", actor="a", purpose="p")["exam_id"]) == set(exams)


# --- files that others wrote


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="../shared/samples is not there")
def test_files_that_others_wrote(tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "ssmix2", tmp_path / "archive" / "ssmix2")
    shutil.copytree(SAMPLES / "dpc", tmp_path / "archive" / "dpc")
    process = subprocess.run(
        [sys.executable, "-m", "reportlabel", "ingest", "archive", "--workspace", "study"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert process.returncode == 1, process.stderr
    opened = open_workspace(tmp_path / "study")
    reasons = dict(opened.read("quarantine").group_by("reason").len().iter_rows())
    assert reasons.pop("The patient in the file is not the one of its path.") == 12
    assert reasons.pop("The file is no HL7 message.") == 1
    assert reasons.pop("The birth date does not stand in PID-7 but beside it, so it was not read.") == 1
    # the licences beside the samples
    assert all("name of the file" in one or "format of the file" in one or "columns" in one for one in reasons), reasons
    assert opened.read("records").height > 20
    held = everything(tmp_path / "study") + process.stdout.encode() + process.stderr.encode()
    for path in (tmp_path / "archive" / "ssmix2").rglob("*_1"):
        for segment in path.read_bytes().replace(b"\n", b"\r").split(b"\r"):
            fields = segment.decode("iso2022_jp", "replace").split("|")
            if fields[0] == "PID":
                for field in (fields[i] for i in (11, 13, 14) if i < len(fields)):
                    for part in field.replace("~", "^").split("^"):
                        assert len(part) < 6 or part.encode() not in held
