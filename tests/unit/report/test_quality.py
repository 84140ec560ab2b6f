"""The quality page: its numbers, what it hides, and that it names nobody."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from reportlabel.aggregate.settings import load_settings
from reportlabel.deidentify.search import Searcher
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.evaluate.diagnostic import TwoByTwo
from reportlabel.export import deliverable
from reportlabel.export.cells import Cells
from reportlabel.export.deliverable import HandedOver, Sources, StudyTables, write_deliverable
from reportlabel.export.manifest import read_manifest, verify_manifest
from reportlabel.protocol import load_protocol
from reportlabel.report import quality
from reportlabel.report.quality import render_quality_page, run_report, write_quality_page
from reportlabel.report.quality_numbers import (
    REVIEWED,
    RunTables,
    Score,
    attrition_of,
    functions_of,
    label_counts,
    next_of,
    present_by,
    progress_of,
    reliability_of,
    reviewed_of,
    scores_of,
)
from reportlabel.review.ledger import CHOSEN, Ledger
from reportlabel.rulebook.load import Rulebook, load_rules
from reportlabel.schema import (
    ANALYSIS,
    ATTRITION,
    CHOICES,
    EXAM_LABELS,
    EXAM_VOTES,
    EXAMS,
    QUARANTINE,
    READINGS,
    WORKSPACE,
)
from reportlabel.store import Workspace
from reportlabel.vote.taught import exams_that_teach
from tests.unit.export.study_workspace import RARE, World

EXAMS_OF_TEST = 60
EFFUSION, NODULE, SIZE = "pleural_effusion", "nodule_or_mass", "primary_size_mm"
READERS = ("山田太郎", "佐藤花子")
PATH = "reports/0001234567.hl7"


def patient(at: int) -> str:
    return f"P-{7_000_000_000 + at // 2:010}"  # two exams each


def exam(at: int) -> str:
    return f"E-{8_000_000_000 + at:010}"


def effusion(at: int) -> str:
    """30 present, 20 absent, 10 not mentioned."""
    return "present" if at < 30 else "absent" if at < 50 else "not_mentioned"


def nodule(at: int) -> str:
    """Present in two exams of one patient."""
    return "present" if at < 2 else "absent"


def label(at: int, finding: str, value: str) -> dict[str, object]:
    return {
        "exam_id": exam(at),
        "label_set": "lung_ct",
        "finding": finding,
        "value": value,
        "p_present": None if finding == SIZE else {"present": 0.95, "absent": 0.05}.get(value, 0.02),
        "conflict": finding == EFFUSION and at < 8,
        "n_votes": int(value != "not_mentioned"),
        "method": "precedence",
        "review_state": "unreviewed",
        "evidence": [],
        "rules_hash": book().sha256,
        "model_version": "rules",
        "run_id": "run",
    }


def vote(at: int, finding: str, value: str) -> dict[str, object]:
    return {
        "exam_id": exam(at),
        "label_set": "lung_ct",
        "finding": finding,
        "function_id": f"rule/{finding}/右胸水貯留",
        "value": value,
        "confidence": 1.0,
        "group": None,
        "kind": "rule",
        "evidence": "0-4",
        "available_at_reading": None,
    }


def reading(at: int, reader: str, value: str) -> dict[str, object]:
    return {
        "exam_id": exam(at),
        "label_set": "lung_ct",
        "finding": EFFUSION,
        "reader": reader,
        "value": value,
        "spans": [],
        "origin": "confirmed",
        "read_at": datetime(2026, 3, 1),
        "annotation_id": "1-77",
        "sha256": "c" * 64,
    }


@cache
def book() -> Rulebook:
    return load_rules()


@pytest.fixture(autouse=True)
def one_rulebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules are read once for all tests."""
    for module in (deliverable, quality):
        monkeypatch.setattr(module, "load_rules", lambda _folder: book())


def make(folder: Path, *, read: bool = True) -> Workspace:
    """A workspace with sixty CT exams of thirty people; of forty, readers have said something."""
    workspace = Workspace.open(folder, WORKSPACE, create=True, parts=2)
    exams = [
        dict.fromkeys(EXAMS)
        | {
            "exam_id": exam(at),
            "patient_id": patient(at),
            "site": "keio",
            "modality_class": "CT" if at % 4 else "MRI",
            "started_at": datetime(2022 + at % 3, 5, 1),
            "accession_number": f"A{at:07}",
        }
        for at in range(EXAMS_OF_TEST)
    ]
    labels, votes = [], []
    for at in range(EXAMS_OF_TEST):
        labels += [label(at, EFFUSION, effusion(at)), label(at, NODULE, nodule(at)), label(at, SIZE, "12")]
        votes += [vote(at, name, value) for name, value in ((EFFUSION, effusion(at)), (NODULE, nodule(at)))
                  if value != "not_mentioned"]  # fmt: skip
    attrition = [
        ("assemble", "exams", "in", "", 33),
        ("assemble", "exams", "out", "", 31),
        ("assemble", "exams", "excluded", "No final report.", 2),
        ("read", "rows", "in", "", 70),
        ("read", "rows", "quarantined", "Not a date.", 1),
        ("read", "rows", "out", "", 69),
    ]
    choices = [
        dict.fromkeys(CHOICES)
        | {
            "label_set": "lung_ct",
            "finding": name,
            "method": "precedence",
            "n_reviewed": 38 if read and name == EFFUSION else 0,
            "n_present": 19 if read and name == EFFUSION else 0,
            "calibration": "none",
            "prevalence": 0.5,
            "n_functions": 1,
            "groups": [["rule"]],
        }
        for name in (EFFUSION, NODULE)
    ]
    analysis = [
        {
            "label_set": "lung_ct", "finding": name, "function_id": "rule", "kind": "rule", "group": None,
            "one_way": False, "n_votes": n, "n_present": present, "n_uncertain": 0, "n_absent": n - present,
            "coverage": n / 60, "overlap": 0.0, "conflict": 0.0, "n_reviewed": 38 if read and name == EFFUSION else 0,
            "empirical_accuracy": 0.4 if read and name == EFFUSION else None, "estimated_accuracy": None,
        }
        for name, n, present in ((EFFUSION, 50, 30), (NODULE, 60, 2))
    ]  # fmt: skip
    readings = []
    if read:
        # right but for two of the first ten; the last two are uncertain; ten exams are read twice, of one mind but once
        for at in range(40):
            said = "absent" if at < 2 else "uncertain" if at > 37 else effusion(at)
            readings.append(reading(at, READERS[0], said))
        readings += [reading(at, READERS[1], "present" if at else "uncertain") for at in range(2, 12)]
        readings[-1]["value"] = "absent"
        with Ledger(folder) as ledger:
            rows: list[tuple[object, ...]] = [
                (exam(at), "lung_ct", "audit" if at < 20 else "low_margin", at + 1, [], []) for at in range(45)
            ]
            ledger.keep_chosen(pl.DataFrame(rows, schema=CHOSEN, orient="row"))
    for name, table in (
        ("exams", pl.DataFrame(exams, schema=EXAMS)),
        ("labels", pl.DataFrame(labels, schema=EXAM_LABELS)),
        ("votes", pl.DataFrame(votes, schema=EXAM_VOTES)),
    ):
        half = table["exam_id"].is_in([exam(at) for at in range(30)])
        workspace.replace_part(name, 0, table.filter(half))
        workspace.replace_part(name, 1, table.filter(~half))
    for part in (0, 1):
        workspace.replace_part("attrition", part, pl.DataFrame(attrition[:3], schema=ATTRITION, orient="row"))
    workspace.replace_part("attrition", 2, pl.DataFrame(attrition[3:], schema=ATTRITION, orient="row"))
    quarantine = [("read", "report", PATH, 3, "Not a date.", "Correct the date.")]
    workspace.replace_part("quarantine", 2, pl.DataFrame(quarantine, schema=QUARANTINE, orient="row"))
    workspace.replace("choices", pl.DataFrame(choices, schema=CHOICES))
    workspace.replace("analysis", pl.DataFrame(analysis, schema=ANALYSIS))
    workspace.append("readings", pl.DataFrame(readings, schema=READINGS))
    workspace.take_snapshot("run", datetime(2026, 4, 30, 2, 15))
    return workspace


@pytest.fixture(scope="module", autouse=True)
def _drawn_in_order() -> Iterator[None]:
    """The hash that draws the audit has the exams in the order of their numbers, so that no doubtful one is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reportlabel.review.reasons.hash_number", lambda _key, name: int(name.removeprefix("E-")))
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make(tmp_path_factory.mktemp("quality") / "workspace")


@pytest.fixture(scope="module")
def run(workspace: Workspace) -> RunTables:
    return RunTables.of(workspace)


@pytest.fixture(scope="module")
def study_page(run: RunTables) -> str:
    return render_quality_page(run, book(), protocol=load_protocol("keio_2017_0018"))


def cells_of(page: str, row: str) -> list[str]:
    """The cells of numbers of the first row of a table that begins with a name."""
    found = re.search(rf"<tr>(?:(?!</tr>).)*?>{re.escape(row)}(?:<|\s).*?</tr>", page, re.DOTALL)
    assert found is not None
    return re.findall(r'<td class="num[^"]*">([^<]*)', found.group())


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}">')[1].split("</section>", maxsplit=1)[0]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_attrition_of_all_parts_adds_up(run: RunTables) -> None:
    table = attrition_of(run.attrition)
    assert table.rows() == [
        ("read", "rows", "in", "", 70),
        ("read", "rows", "quarantined", "Not a date.", 1),
        ("read", "rows", "out", "", 69),
        ("assemble", "exams", "in", "", 66),
        ("assemble", "exams", "excluded", "No final report.", 4),
        ("assemble", "exams", "out", "", 62),
    ]


def test_counts_of_statuses_are_those_of_the_exams(run: RunTables) -> None:
    row = label_counts(run).row(by_predicate=pl.col("finding") == EFFUSION, named=True)
    assert [row[name] for name in ("n", "present", "uncertain", "absent", "not_mentioned")] == [60, 30, 0, 20, 10]
    assert (row["spoken"], row["conflicts"], row["present_persons"], row["conflicts_persons"]) == (50, 8, 15, 4)
    for place, names in (("modality_class", ["CT", "MRI"]), ("year", ["2022", "2023", "2024"])):
        parts = present_by(run, place).filter(pl.col("finding") == EFFUSION)
        assert parts["place"].to_list() == names
        assert (parts["n"].sum(), parts["present"].sum()) == (60, 30)


def test_K8_labels_of_the_audit_against_readers(run: RunTables) -> None:
    settings = load_settings(book().folder / "aggregate.yaml")
    found = reviewed_of(run, book().label_sets, settings)
    # exam 11: two readers differ; 38 and 39: the reader is uncertain
    assert (found.rows.height, found.apart, found.uncertain, found.unknown) == (37, 1, 2, 0)
    assert found.rows["teaches"].sum() == 19  # exams 0 to 19 but for the one on which readers differ
    score = scores_of(found.rows.filter(pl.col("teaches")))["lung_ct", EFFUSION]
    assert score.matrix == TwoByTwo(tp=17, fp=2, fn=0, tn=0)
    assert (score.precision().estimate, score.recall().estimate) == (17 / 19, 1.0)
    f1 = score.f1()
    assert f1.estimate == pytest.approx(2 * 17 / (2 * 17 + 2)) and f1.low < f1.estimate < f1.high


def test_readings_that_taught_the_model_are_not_compared_with_its_labels(run: RunTables) -> None:
    settings = load_settings(book().folder / "aggregate.yaml")
    before = reviewed_of(run, book().label_sets, settings)
    voted = replace(run, labels=run.labels.with_columns(model_version=pl.lit("ours@0123456789ab+readings0.5")))
    found = reviewed_of(voted, book().label_sets, settings)
    taught = exams_that_teach(run.exams, 0.5).join(run.gold, on="exam_id", how="semi").height
    assert before.taught == 0 and found.taught == taught
    left = found.rows.height + found.apart + found.uncertain
    assert 0 < left == before.rows.height + before.apart + before.uncertain - taught
    told = section(render_quality_page(voted, book(), protocol=None), "against")
    assert f"{taught} of patients whose readings taught the model that votes" in told
    assert "taught the model" not in section(render_quality_page(run, book(), protocol=None), "against")


def test_f1_interval_of_perfect_labels_is_not_one_to_one() -> None:
    few = Score(TwoByTwo(tp=4, fp=0, fn=0, tn=9)).f1()
    assert few.estimate == few.high == 1.0 and 0.6 < few.low < 0.7


def test_labels_the_rules_do_not_have_are_counted_and_not_compared(run: RunTables) -> None:
    settings = load_settings(book().folder / "aggregate.yaml")
    gold = run.gold.with_columns(finding=pl.lit("gone"))
    assert reviewed_of(replace(run, gold=gold), book().label_sets, settings).unknown == gold["exam_id"].n_unique()


def test_reliability_needs_enough_and_hides_small_bins() -> None:
    rows = [("lung_ct", EFFUSION, at < 30, "present", 0.95 if at < 32 else 0.05, True) for at in range(60)]
    table = pl.DataFrame(rows, schema=REVIEWED, orient="row")
    (one,) = reliability_of(table, cells=Cells())
    assert [(bin.n, bin.present.estimate) for bin in one.bins] == [(28, 0.0), (32, 30 / 32)]
    assert one.error == pytest.approx((28 * 0.05 + 32 * abs(0.95 - 30 / 32)) / 60)
    (hidden,) = reliability_of(table, cells=Cells(5))
    assert [bin.n for bin in hidden.bins] == [28]  # two of the others are not present
    assert reliability_of(table.head(40), cells=Cells()) == []


def test_functions_worst_first_and_below_chance(run: RunTables) -> None:
    counts = label_counts(run)
    table = functions_of(run, {"lung_ct": 60})
    assert table["finding"].to_list() == [EFFUSION, NODULE]
    assert table["chance"][0] == pytest.approx(0.5)  # half of the reviewed exams have it
    assert table["persons"].to_list() == [25, 30]
    found = next_of(counts, table, {("lung_ct", EFFUSION)}, shown=[("lung_ct", EFFUSION), ("lung_ct", NODULE)])
    assert found.below["finding"].to_list() == [EFFUSION]
    assert found.unread.select("finding", "present").rows() == [(NODULE, 2)]
    assert found.conflicts.select("finding", "conflicts").rows() == [(EFFUSION, 8)]


def test_review_given_and_read(run: RunTables) -> None:
    assert progress_of(run).rows() == [("lung_ct", "audit", 20, 20), ("lung_ct", "low_margin", 25, 20)]


@pytest.mark.parametrize(
    ("number", "persons", "shown"),
    [(0, 0, 0), (1, 1, None), (4, 4, None), (5, 5, 5), (7, 7, 5), (8, 8, 10), (52, 52, 50), (52, 4, None)],
)
def test_small_counts_are_hidden_and_others_rounded(number: int, persons: int, shown: int | None) -> None:
    assert Cells(5).count(number, persons) == shown
    assert Cells().count(number, persons) == number


def test_shares_do_not_give_a_hidden_count_away() -> None:
    hidden = Cells(5)
    assert hidden.share(4, 60) is None and hidden.share(57, 60) is None and hidden.share(3, 4) is None
    assert hidden.share(52, 62) == 50 / 60 and hidden.share(0, 60) == 0.0
    assert Cells().share(4, 60) == 4 / 60 and Cells().share(0, 0) is None


# --- the page ---------------------------------------------------------------------------------------------------------


def test_page_of_a_workspace_without_a_study(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    told = io.StringIO()
    assert run_report(workspace.folder, out, None, None, Console(file=told, width=300)) == 0
    page = out.read_text(encoding="utf-8")
    assert str(out) in told.getvalue()
    assert cells_of(section(page, "labels"), "胸水") == ["30", "0", "20", "10", "50.0%", "8"]
    assert cells_of(section(page, "attrition"), "assemble") == ["66", "62", "4", "0"]
    against = cells_of(section(page, "against"), "胸水")
    assert against[:3] == ["19", "17", "0.895"] and against[5:] == ["83.3%", "18", "0.0%"]
    assert "run of 2026-04-30 02:15 UTC" in page and book().sha256 in page
    assert "Random audit" in page and "Low margin" in page and "2022" in page
    assert not re.search(r"<script|https?://|src=|@import|url\(", page)  # nothing from a network


def test_page_of_a_study_hides_small_cells(study_page: str) -> None:
    labels = section(study_page, "labels")
    # two exams of one patient have a nodule, and the rest is rounded
    assert cells_of(labels, "肺結節・腫瘤")[:5] == ["&lt;5", "0", "60", "0", "–"]
    assert cells_of(labels, "胸水") == ["30", "0", "20", "10", "50%", "&lt;5"]  # eight exams of four people
    assert ">2022<" not in study_page and "dates are those of the calendar" in labels
    assert cells_of(section(study_page, "attrition"), "assemble") == ["65", "60", "&lt;5", "0"]
    assert cells_of(section(study_page, "against"), "胸水")[:3] == ["20", "15", "hidden"]
    assert "keio_2017_0018" in study_page


@pytest.mark.parametrize("of_study", [False, True])
def test_page_names_nobody(workspace: Workspace, run: RunTables, tmp_path: Path, of_study: bool) -> None:
    protocol = load_protocol("keio_2017_0018") if of_study else None
    (tmp_path / "page.html").write_text(render_quality_page(run, book(), protocol=protocol), encoding="utf-8")
    ids = [("exam", exam(at)) for at in range(EXAMS_OF_TEST)] + [("patient", patient(at)) for at in range(60)]
    more = [("reader", name) for name in READERS] + [
        ("path", PATH), ("number", "0001234567"), ("words", "右胸水貯留"), ("accession", "A0000007"),
        ("folder", str(workspace.folder)),
    ]  # fmt: skip
    searcher = Searcher([*ids, *more])
    assert searcher.in_folder(tmp_path) == []
    assert {hit.kind for hit in searcher.in_folder(workspace.folder)} >= {"exam", "patient", "reader", "number"}


def test_workspace_without_readings(tmp_path: Path) -> None:
    made = make(tmp_path / "workspace", read=False)
    page = render_quality_page(RunTables.of(made), book(), protocol=None)
    assert "No exam was read yet" in page and "No exam was given to readers" in page
    assert "Not known before a run has seen readings." in page and "Too few labels were drawn" in page


def test_workspace_without_labels(tmp_path: Path) -> None:
    made = Workspace.open(tmp_path / "workspace", WORKSPACE, create=True, parts=1)
    with pytest.raises(InputError, match="no finished run"):
        write_quality_page(made.folder, tmp_path / "page.html", as_of=None, rules=None)
    made.take_snapshot("run", datetime(2026, 4, 30))
    for protocol in (None, load_protocol("keio_2017_0018")):
        page = render_quality_page(RunTables.of(made), book(), protocol=protocol)
        assert "There are no labels in this version." in page and "No label was judged yet." in page
    with pytest.raises(InputError, match="no version 7"):
        write_quality_page(made.folder, tmp_path / "page.html", as_of=7, rules=None)
    with pytest.raises(ConfigError, match="is no workspace"):
        write_quality_page(tmp_path, tmp_path / "page.html", as_of=None, rules=None)
    with pytest.raises(ConfigError, match="cannot write"):
        write_quality_page(made.folder, tmp_path / "none" / "page.html", as_of=None, rules=None)
    assert not (tmp_path / "page.html").exists()


def test_an_earlier_version_and_other_rules(workspace: Workspace, tmp_path: Path) -> None:
    made = make(tmp_path / "workspace", read=False)
    for part in (0, 1):
        labels = made.read("labels", part=part).with_columns(rules_hash=pl.lit("0" * 64), value=pl.lit("absent"))
        made.replace_part("labels", part, labels)
    made.take_snapshot("again", datetime(2026, 5, 2))
    out = tmp_path / "page.html"
    last = write_quality_page(made.folder, out, as_of=None, rules=None).read_text(encoding="utf-8")
    assert "made with other rules" in last and cells_of(section(last, "labels"), "胸水")[0] == "0"
    first = write_quality_page(made.folder, out, as_of=0, rules=None).read_text(encoding="utf-8")
    assert "made with other rules" not in first and cells_of(section(first, "labels"), "胸水")[0] == "30"


# --- the deliverable --------------------------------------------------------------------------------------------------


def hand(
    workspace: Workspace, out: Path, sources: Sources | None, *, gone: str = "", recipient: str = "radiology"
) -> HandedOver:
    tables = StudyTables.of(workspace, workspace.versions())
    exams = tables.exams.filter(pl.col("patient_id") != gone)
    return write_deliverable(
        "quality_report",
        replace(tables, exams=exams, labels=tables.labels.join(exams, on="exam_id", how="semi")),
        load_protocol("keio_2017_0018"),
        out,
        today=date(2026, 5, 1),
        recipient=recipient,
        purpose="evaluation",
        sources=sources,
    )


def test_K8_X2_quality_report_of_a_study(workspace: Workspace, run: RunTables, tmp_path: Path) -> None:
    done = hand(workspace, tmp_path / "out", Sources(run=run), gone=patient(0))
    said = read_manifest(tmp_path / "out")
    assert said is not None and verify_manifest(tmp_path / "out") == []
    assert (said["protocol"], said["smallest_cell"], said["rules_sha256"]) == ("keio_2017_0018", 5, book().sha256)
    assert (done.patients, done.inside, done.counts) == ((), {}, {"exams": 60, "snapshot": 0})
    page = (tmp_path / "out" / "quality.html").read_text(encoding="utf-8")
    # who has refused since the run is not counted: nobody else has a nodule
    assert cells_of(section(page, "labels"), "肺結節・腫瘤")[:3] == ["0", "0", "60"]
    with pytest.raises(ConfigError, match=r"Sources\.run"):
        hand(workspace, tmp_path / "none", None)
    with pytest.raises(RefusedError, match="K15"):
        hand(workspace, tmp_path / "none", Sources(run=run), recipient="somebody")
    assert not (tmp_path / "none").exists()


def test_workspace_of_a_study_obeys_its_protocol(tmp_path: Path) -> None:
    world = World(tmp_path)  # thirty patients, and a nodule in two
    page = write_quality_page(world.workspace.folder, tmp_path / "page.html", as_of=None, rules=None)
    text = page.read_text(encoding="utf-8")
    assert "our_jmid" in text and "Small numbers are hidden" in text
    assert cells_of(section(text, "labels"), RARE)[0] == "&lt;10"
    found = Searcher([("code", code) for code in [*world.codes["code"], *world.exams["exam_id"]]])
    assert found.in_folder(page) == []
