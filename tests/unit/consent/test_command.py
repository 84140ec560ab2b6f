"""`reportlabel consent`: requests are added and never lost, and who withdraws is nowhere afterwards."""

from __future__ import annotations

import csv
import stat
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner, Result

from reportlabel.consent import command
from reportlabel.consent.refusals import read_refusals
from reportlabel.consent.register import COLUMNS, add_requests
from reportlabel.consent.withdrawal import people_to_remove, raw_stores, read_shipped, remove_people
from reportlabel.deidentify.linkage import KeyFile, LinkageStore, make_key_file, patient_key
from reportlabel.deidentify.options import KEY_VARIABLE
from reportlabel.errors import ConfigError, InputError, ReportLabelError
from reportlabel.protocol import load_protocol
from reportlabel.run import open_workspace
from reportlabel.schema import WORKSPACE
from reportlabel.store import Workspace
from tests.unit.export.study_workspace import DAY, PATIENTS, World

TODAY = date(2024, 4, 1)
SITE = "gunma"
STUDY = "gunma_bone_scan"
ANNA, BEN, CLEO = "70000001", "70000002", "70000003"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_today", lambda: TODAY)


def invoke(*arguments: object, typed: str = "") -> Result:
    """Run a command; an error that a user can mend is raised, as it reaches `reportlabel.cli.main`."""
    done = CliRunner().invoke(command.consent_app, [str(one) for one in arguments], input=typed)
    if isinstance(done.exception, ReportLabelError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def add(register: Path, patient: str, *options: object) -> Result:
    given = ("--scope", "all_research") if "--scope" not in options else ()
    return invoke("add", register, "--site", SITE, *given, *options, typed=f"{patient}\n")


# --- the register


def test_a_request_is_added_once(tmp_path: Path) -> None:
    register = tmp_path / "register.csv"
    assert "added" in add(register, ANNA).output
    done = add(register, ANNA)
    assert "already there" in done.output
    assert ANNA not in done.output
    rows = list(csv.DictReader(register.open(encoding="utf-8")))
    assert len(rows) == 1
    assert (rows[0]["patient_id"], rows[0]["received"], rows[0]["requester"]) == (ANNA, "2024-04-01", "patient")
    assert stat.S_IMODE(register.stat().st_mode) == 0o600


def test_words_of_the_office_are_understood(tmp_path: Path) -> None:
    register = tmp_path / "register.csv"
    add(register, ANNA, "--scope", "個別", "--study", STUDY, "--requester", "長女", "--case", "死亡", "--adult")
    row = read_refusals(register).rows.row(0, named=True)
    assert (row["scope"], row["requester"], row["case"], row["requester_minor"]) == (
        "study",
        "child",
        "deceased",
        False,
    )
    assert row["doubt"] is None


@pytest.mark.parametrize(
    ("patient", "options", "told"),
    [
        ("#REF!", (), "no patient id"),
        (ANNA, ("--scope", "a little"), "scope cannot be read"),
        (ANNA, ("--scope", "study"), "no study"),
        (ANNA, ("--requester", "neighbour"), "requester cannot be read"),
        (ANNA, ("--received", "tomorrow"), "no date of receipt"),
    ],
)
def test_a_slip_at_the_keyboard_is_an_error(patient: str, options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    register = tmp_path / "register.csv"
    with pytest.raises(InputError, match=told) as error:
        add(register, patient, *options)
    assert patient not in str(error.value)
    assert not register.exists()


def test_site_and_scope_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--site"):
        invoke("add", tmp_path / "register.csv", typed=f"{ANNA}\n")
    with pytest.raises(ConfigError, match="--list"):
        invoke("add", tmp_path / "register.csv", "--list", tmp_path / "list.csv", "--scope", "study")


LIST = """患者ID,施設,申出日,不同意区分,研究番号,続柄
70000001,gunma,令和5年3月1日,包括,,本人
70000002,gunma,いつか,なにか,2017-0018,お隣さん
,gunma,2023-03-01,包括,,本人
70000003,gunma,2023-03-01,個別,jmid,妻
"""


def test_a_list_is_taken_in_and_means_the_same(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(LIST, encoding="cp932")
    register = tmp_path / "register.csv"
    done = invoke("add", register, "--list", tmp_path / "list.csv")
    assert done.exit_code == 1
    assert "4 requests in = 3 added + 0 already there + 1 quarantined" in done.output
    assert "row 3 set aside" in done.output
    assert "row 2 is doubtful" in done.output
    given, kept = read_refusals(tmp_path / "list.csv").rows, read_refusals(register).rows
    assert_frame_equal(given.drop("row", "doubt"), kept.drop("row", "doubt"))
    assert kept["doubt"][1] is not None, "an unreadable scope beside a study stays one"
    assert "0 added + 3 already there" in invoke("add", register, "--list", tmp_path / "list.csv").output


def test_nothing_in_a_register_is_changed(tmp_path: Path) -> None:
    register = tmp_path / "register.csv"
    add(register, ANNA)
    spoilt = register.read_bytes() + b"gunma,,2024-01-01,all_research,,patient,,\ngunma,70000009"  # no end of line
    register.write_bytes(spoilt)
    add(register, BEN)
    assert register.read_bytes().startswith(spoilt + b"\n")
    found = read_refusals(register)
    assert found.rows["patient_id"].to_list() == [ANNA, "70000009", BEN], "a refusal that was cut off counts"
    assert found.quarantine.height == 1


def test_a_list_of_another_form_is_no_register(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(LIST, encoding="utf-8")
    with pytest.raises(ConfigError, match="no register"):
        add(tmp_path / "list.csv", ANNA)
    assert (tmp_path / "list.csv").read_text(encoding="utf-8") == LIST


def test_a_request_without_any_row_makes_a_register(tmp_path: Path) -> None:
    add_requests(tmp_path / "register.csv", read_refusals_of(tmp_path, "患者ID,施設\n"))
    assert (tmp_path / "register.csv").read_text(encoding="utf-8") == ",".join(COLUMNS) + "\n"


def read_refusals_of(folder: Path, text: str) -> pl.DataFrame:
    (folder / "given.csv").write_text(text, encoding="utf-8")
    return read_refusals(folder / "given.csv").rows


# --- list and check


def test_requests_are_listed_by_row_and_what_they_do(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(LIST, encoding="utf-8")
    plain = invoke("list", tmp_path / "list.csv")
    assert plain.exit_code == 1
    assert "3 requests" in plain.output
    judged = invoke("list", tmp_path / "list.csv", "--protocol", "gunma_bone_scan").output
    assert "2 of 3 requests concern the study" in judged
    assert "remove" in judged
    assert "B18" in judged
    assert "hold" in judged
    for output in (plain.output, judged):
        assert not any(patient in output for patient in (ANNA, BEN, CLEO))


def test_check_names_what_the_office_should_look_at(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(LIST, encoding="utf-8")
    done = invoke("check", tmp_path / "list.csv", "--protocol", STUDY)
    assert done.exit_code == 1
    for told in (
        "row 3 set aside",
        "row 2 is doubtful",
        "row 2: hold (B17)",
        "of other studies than gunma_bone_scan: rows 4",
    ):
        assert told in done.output
    assert "3 requests read, 1 of them doubtful; 1 rows set aside" in done.output
    add(tmp_path / "register.csv", ANNA)
    assert invoke("check", tmp_path / "register.csv").exit_code == 0


# --- withdrawal


def table(name: str, *rows: dict[str, object]) -> pl.DataFrame:
    schema = WORKSPACE[name]
    return pl.DataFrame([{column: row.get(column) for column in schema} for row in rows], schema=schema, orient="row")


def workspace_of(folder: Path, people: list[tuple[str, str]]) -> Workspace:
    """One exam, report, record, link, mention, vote, label and reading each; and a row of the readers."""
    made = open_workspace(folder, create=True, parts=2)
    rows: dict[str, list[dict[str, object]]] = {}
    for number, (site, patient) in enumerate(people):
        exam, report, record = f"e{number}", f"r{number}", f"x{number}"
        keys = {"exam_id": exam, "report_id": report, "record_id": record, "site": site, "patient_id": patient}
        for name, extra in (
            ("exams", {}), ("reports", {"text": "結節", "version": 1}), ("records", {"kind": "lab"}),
            ("links", {"kind": "lab"}), ("mentions", {"start": 0, "end": 2}), ("votes", {}),
            ("labels", {}), ("readings", {}),
        ):  # fmt: skip
            rows.setdefault(name, []).append({**keys, **extra})
    for name, some in rows.items():
        if name == "readings":
            made.append(name, table(name, *some))
        else:
            for part in (0, 1):
                made.replace_part(name, part, table(name, *some[part::2]))
    batch = folder / "raw" / "rows" / "abc"
    batch.mkdir(parents=True)
    raw = pl.DataFrame(people, schema={"site": pl.String, "patient_id": pl.String}, orient="row")
    raw.with_columns(part=0, place=1, reading=pl.lit("q")).write_parquet(batch / "exams.parquet")
    made.take_snapshot("first", datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None))
    return made


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_K16_who_withdraws_is_in_no_table_and_in_no_earlier_version(tmp_path: Path) -> None:
    people = [(SITE, ANNA), (SITE, BEN), ("elsewhere", ANNA), (SITE, CLEO)]
    workspace = workspace_of(tmp_path / "ws", people)
    register = tmp_path / "register.csv"
    add(register, ANNA)
    add(register, CLEO, "--requester", "妻")  # held: the office has not decided
    done = invoke(
        "withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY, "--exams-to", tmp_path / "gone.csv"
    )
    assert done.exit_code == 0
    assert "1 people, 1 exams" in done.output
    assert "0 rows found afterwards" in done.output
    assert ANNA not in done.output
    for name in ("exams", "reports", "records", "links", "mentions", "votes", "labels", "readings"):
        left = workspace.read(name)
        assert left.height == 3, name
        for column, theirs in (("exam_id", "e0"), ("report_id", "r0"), ("record_id", "x0")):
            assert column not in left.columns or theirs not in left[column].to_list(), name
    there = workspace.read("exams").select("site", "patient_id").rows()
    assert sorted(there) == sorted([(SITE, BEN), ("elsewhere", ANNA), (SITE, CLEO)])
    raw = pl.read_parquet(tmp_path / "ws" / "raw" / "rows" / "abc" / "exams.parquet")
    assert (SITE, ANNA) not in raw.select("site", "patient_id").rows()
    assert raw.height == 3
    assert (tmp_path / "gone.csv").read_text() == "exam_id\ne0\n"
    # earlier versions cannot be read any more, the last one can
    with pytest.raises(InputError, match="removed"):
        workspace.read("exams", version=workspace.versions(0)["exams"])
    assert workspace.read("exams", version=workspace.versions()["exams"]).height == 3
    again = invoke("withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY)
    assert "0 people, 0 exams, 0 rows removed" in again.output


def test_no_byte_of_who_withdraws_is_left_on_the_disk(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path / "ws", [(SITE, ANNA), (SITE, BEN)])
    assert ANNA.encode() in bytes_of(tmp_path / "ws"), "the search works"
    rows = read_refusals_of(tmp_path, f"site,patient_id,scope,requester\n{SITE},{ANNA},all,patient\n")
    raw = raw_stores(workspace)
    people = people_to_remove(workspace, raw, rows, load_protocol(STUDY), today=TODAY)
    done = remove_people(workspace, raw, people)
    assert (done.people, done.exams, done.rows["left"].sum()) == (1, ("e0",), 0)
    assert ANNA.encode() not in bytes_of(tmp_path / "ws")
    assert BEN.encode() in bytes_of(tmp_path / "ws")


def test_a_run_that_is_at_work_is_not_disturbed(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    workspace = workspace_of(tmp_path / "ws", [(SITE, ANNA)])
    with (tmp_path / "ws" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="at work"):
            remove_people(workspace, [], pl.DataFrame({"site": [SITE], "patient_id": [ANNA]}))
    assert workspace.read("exams").height == 1


@pytest.fixture
def key(tmp_path: Path) -> KeyFile:
    (tmp_path / "keys").mkdir()
    return make_key_file(tmp_path / "keys" / "study.key")


def test_K16_a_workspace_of_codes_and_the_bundles_that_hold_the_person(tmp_path: Path, key: KeyFile) -> None:
    office = load_protocol(STUDY).custodian.office
    store = LinkageStore.create(
        tmp_path / "linkage", study=STUDY, key_source=key, custodian=office, actor="a", purpose="b", workspace=None
    )
    issued = store.issue("patient", [patient_key(SITE, one) for one in (ANNA, BEN)], actor="a", purpose="b")
    anna, ben = issued["code"]
    workspace = workspace_of(tmp_path / "ws", [(SITE, anna), (SITE, ben)])
    staging = tmp_path / "ws.staging" / "rows" / "abc"
    staging.mkdir(parents=True)
    rows = pl.DataFrame({"site": [SITE, SITE], "patient_id": [ANNA, BEN]})
    rows.write_parquet(staging / "exams.parquet")
    (tmp_path / "shipped.csv").write_text(
        f"bundle,recipient,shipped_on,patient_code\nb1,maker,2023-01-01,{anna}\nb1,maker,2023-01-01,{ben}\n"
        f"b2,maker,2023-02-01,{ben}\n"
    )
    register = tmp_path / "register.csv"
    add(register, ANNA)
    common = ("withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY)
    with pytest.raises(ConfigError, match="--linkage"):
        invoke(*common, "--forget", "--custodian", office)
    with pytest.raises(ConfigError, match="--custodian"):
        invoke(*common, "--linkage", store.folder, "--key-file", key.path, "--forget")
    done = invoke(
        *common, "--linkage", store.folder, "--key-file", key.path, "--shipped", tmp_path / "shipped.csv", "--forget",
        "--custodian", office, "--actor", "data manager",
    )  # fmt: skip
    assert "2 people, 1 exams" in done.output  # by code, and by number in the rows as they were read
    assert pl.read_parquet(staging / "exams.parquet")["patient_id"].to_list() == [BEN]
    assert "1 codes forgotten" in done.output
    assert "b1" in done.output
    assert "b2" not in done.output
    assert ANNA not in done.output
    assert workspace.read("exams")["patient_id"].to_list() == [ben]
    assert store.counts()["patient"] == 1
    assert store.problems() == []


# --- a workspace of a study, and ids as spreadsheets leave them


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(command, "_today", lambda: DAY)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    return World(tmp_path)


def withdrawn(world: World, *options: object) -> Result:
    protocol = world.folder / "our_jmid.yaml"
    return invoke(
        "withdraw", world.folder / "refusals.csv", "--workspace", world.workspace.folder, "--protocol", protocol,
        "--actor", "office", *options,
    )  # fmt: skip


def test_K16_a_workspace_of_a_study_knows_its_store_staging_and_ids(world: World) -> None:
    code = world.codes["code"][7]
    batch = world.under.staging / "rows" / "abc"
    batch.mkdir(parents=True)
    raw = pl.DataFrame({"site": ["aoba"], "patient_id": [world.id_of[code]]})
    raw.write_parquet(batch / "exams.parquet")
    world.refuse(world.id_of[code])  # without zeros in front
    done = withdrawn(world, "--key-file", world.folder / "keys" / "study.key")
    assert done.exit_code == 0
    assert "2 people, 1 exams" in done.output
    assert code not in world.workspace.read("exams")["patient_id"].to_list()
    assert world.workspace.read("exams").height == PATIENTS - 1
    assert pl.read_parquet(batch / "exams.parquet").is_empty()
    with pytest.raises(ConfigError, match="--id-width 7: ids of our_jmid have 8 digits"):
        withdrawn(world, "--key-file", world.folder / "keys" / "study.key", "--id-width", 7)


def test_K16_without_the_key_of_a_study_nobody_is_withdrawn_and_it_is_said(world: World) -> None:
    world.refuse(world.id_of[world.codes["code"][7]])
    with pytest.raises(ConfigError, match="holds codes, and without the linkage store nobody can be found"):
        withdrawn(world)
    with pytest.raises(ConfigError, match="belongs to the study our_jmid, not to gunma_bone_scan"):
        invoke("withdraw", world.folder / "refusals.csv", "--workspace", world.workspace.folder, "--protocol", STUDY)
    assert world.workspace.read("exams").height == PATIENTS


def test_J11_persons_are_brought_to_the_ids_of_the_study_too(world: World) -> None:
    code = world.codes["code"][3]
    (world.folder / "refusals.csv").write_text("site,patient_id,scope,requester\nfar,9,all,patient\n")
    persons = world.folder / "persons.csv"
    persons.write_text(f"site,patient_id,person\n Aoba,{world.id_of[code].lstrip('0')},p\nFar,9,p\n")
    done = withdrawn(world, "--key-file", world.folder / "keys" / "study.key", "--persons", persons)
    assert "1 people, 1 exams" in done.output
    assert code not in world.workspace.read("exams")["patient_id"].to_list()
    assert "site is not of this study" not in done.output, "the table of persons knows it"


def test_ids_of_a_workspace_without_a_study_have_a_width_too(tmp_path: Path) -> None:
    short = "0000001"
    workspace = workspace_of(tmp_path / "ws", [(SITE, f"0{short}"), (SITE, BEN)])
    register = tmp_path / "list.csv"
    register.write_text(f"site,patient_id,scope,requester\n{SITE},1,all,patient\nfar,1,all,patient\n")
    common = ("withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY)
    missed = invoke(*common)
    assert missed.exit_code == 1
    assert "1 requests name nobody, but for zeros in front of the id: row 1" in missed.output
    assert "--id-width" in missed.output
    assert workspace.read("exams").height == 2
    done = invoke(*common, "--id-width", 8)
    assert done.exit_code == 0
    assert "1 people, 1 exams" in done.output
    assert workspace.read("exams")["patient_id"].to_list() == [BEN]


def test_a_hospital_that_nobody_knows_is_told(tmp_path: Path) -> None:
    workspace_of(tmp_path / "ws", [(SITE, ANNA), ("Minato", BEN)])
    register = tmp_path / "list.csv"
    register.write_text(
        f"site,patient_id,scope,study,requester\n群馬大学医学部附属病院,{ANNA},all,,patient\n"
        f"gumma,{BEN},all,,patient\nminato,{BEN},all,,patient\ngumma,{CLEO},all,,patient\n"
        f"elsewhere,{CLEO},study,another,patient\n12345678,{CLEO},all,,patient\n"
    )
    told = "3 requests count nowhere, site is not of this study: 'gumma': rows 2, 4; '…': row 6"
    done = invoke("withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY)
    assert told in done.output
    assert "2 people, 2 exams" in done.output
    assert "elsewhere" not in done.output, "a request that does not concern the study"
    here = "4 requests count nowhere, site is not of this study: 'gumma': rows 2, 4; 'minato': row 3; '…': row 6"
    for name in ("list", "check"):
        assert here in invoke(name, register, "--protocol", STUDY).output


def test_K16_a_killed_withdrawal_tells_the_exams_when_it_is_finished(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path / "ws", [(SITE, ANNA), (SITE, BEN)])
    register = tmp_path / "register.csv"
    add(register, ANNA)
    common = ("withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY)
    with pytest.MonkeyPatch.context() as patched:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(Workspace, "vacuum", killed)
        CliRunner().invoke(command.consent_app, [str(one) for one in common])
    assert workspace.read("exams").height == 1
    done = invoke(*common, "--exams-to", tmp_path / "gone.csv")
    assert (tmp_path / "gone.csv").read_text() == "exam_id\ne0\n"
    assert "1 people, 1 exams" in done.output
    assert ANNA.encode() not in bytes_of(tmp_path / "ws")


def test_a_reading_of_an_exam_that_is_not_there_is_told(tmp_path: Path) -> None:
    workspace = workspace_of(tmp_path / "ws", [(SITE, ANNA), (SITE, BEN)])
    workspace.remove("exams", "exam_id", ["e1"])
    register = tmp_path / "register.csv"
    add(register, ANNA)
    done = invoke("withdraw", register, "--workspace", tmp_path / "ws", "--protocol", STUDY)
    assert "1 rows of readings are of exams that are not there" in done.output


def test_a_list_of_hand_overs_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "shipped.csv"
    for text, told in (
        ("bundle,recipient\n1,2\n", "shipped_on"),
        ("bundle,recipient,shipped_on,patient_code\n1,2,x,3\n", "day"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=told):
            read_shipped(path)
