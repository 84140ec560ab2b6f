"""`reportlabel linkage`, `audit` and `dicom`: the protocol is obeyed, ids stay where they are, days move together."""

from __future__ import annotations

import csv
import json
import stat
from datetime import date, datetime
from pathlib import Path

import pytest
import typer
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, NuclearMedicineImageStorage
from typer.testing import CliRunner, Result

from reportlabel.deidentify import command
from reportlabel.deidentify.dates import DatePolicy
from reportlabel.deidentify.dicom_folder import study_policy, study_shifts
from reportlabel.deidentify.dicom_scan import scan_bytes
from reportlabel.deidentify.linkage import (
    KeyFile,
    LinkageStore,
    make_key_file,
    patient_key,
    patients_of,
    random_codes,
)
from reportlabel.deidentify.options import KEY_VARIABLE
from reportlabel.deidentify.text import Deidentifier
from reportlabel.deidentify.text_rules import load_text_rules
from reportlabel.errors import ConfigError, InputError, RefusedError, ReportLabelError
from reportlabel.protocol import Protocol, load_protocol
from tests.unit.deidentify.dicom_objects import as_file, built

TODAY = date(2026, 5, 1)
KEIO, JMID, GUNMA = "keio_2017_0018", "jmid", "gunma_bone_scan"
ANNA, BEN, CLEO = "00012345", "00012346", "00012347"
SECRET = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY="  # 32 bytes, for these tests alone
WHO = ("--actor", "data manager", "--purpose", "nightly run")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_today", lambda: TODAY)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def invoke(app: typer.Typer, *arguments: object, typed: str = "") -> Result:
    """Run a command; an error that a user can mend is raised, as it reaches `reportlabel.cli.main`."""
    done = CliRunner().invoke(app, [str(one) for one in arguments], input=typed)
    if isinstance(done.exception, ReportLabelError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def linkage(*arguments: object, typed: str = "") -> Result:
    return invoke(command.linkage_app, *arguments, typed=typed)


def audit(*arguments: object) -> Result:
    return invoke(command.audit_app, *arguments)


def dicom(*arguments: object) -> Result:
    return invoke(command.dicom_app, *arguments)


def site_of(study: str) -> str:
    return load_protocol(study).cohort.sites[0].id


class Place:
    """A hospital's folders for one study: key, store, refusals, archive."""

    def __init__(self, folder: Path, study: str, patients: tuple[str, ...] = (ANNA, BEN)) -> None:
        self.folder, self.study, self.site = folder, study, site_of(study)
        (folder / "keys").mkdir(parents=True)
        self.key = folder / "keys" / "study.key"
        self.store = folder / "linkage"
        self.archive = folder / "archive"
        self.refusals = folder / "refusals.csv"
        self.refusals.write_text("site,patient_id,scope,requester\n")
        linkage("create", self.store, "--protocol", study, "--new-key-file", self.key, "--actor", "admin")
        self.issue(*patients)

    def issue(self, *patients: str) -> Result:
        given = self.folder / "patients.csv"
        given.write_text("patient_id\n" + "".join(f"{one}\n" for one in patients))
        return linkage(
            "issue", self.store, given, "--site", self.site, "--protocol", self.study, "--key-file", self.key, *WHO
        )

    def opened(self) -> LinkageStore:
        return LinkageStore.open(self.store, key_source=KeyFile(self.key), workspace=None)

    def code(self, patient: str) -> str:
        table = patients_of(self.opened().all_codes("patient", actor="test", purpose="test"))
        return str(table.filter(site=self.site, patient_id=patient)["patient_code"].item())

    def file(self, name: str, dataset: Dataset) -> None:
        self.archive.mkdir(exist_ok=True)
        (self.archive / name).write_bytes(as_file(dataset))

    def deidentify(self, *options: object, out: str = "out") -> Result:
        return dicom(
            "deidentify", self.archive, "--out", self.folder / out, "--linkage", self.store, "--refusals",
            self.refusals, "--protocol", self.study, "--site", self.site, "--key-file", self.key, *WHO, *options,
        )  # fmt: skip

    def written(self, out: str = "out") -> list[Dataset]:
        return [dcmread(one) for one in sorted((self.folder / out).rglob("*.dcm"))]


@pytest.fixture
def keio(tmp_path: Path) -> Place:
    return Place(tmp_path, KEIO)


# --- linkage


def test_a_store_is_that_of_its_protocol(keio: Place) -> None:
    store, protocol = keio.opened(), load_protocol(KEIO)
    assert (store.study, store.custodian) == (KEIO, protocol.custodian.office)
    assert store.counts()["patient"] == 2
    prefix = protocol.codes.patient_prefix.removesuffix("-")
    letters, _, digits = keio.code(ANNA).partition("-")
    assert (letters, len(digits)) == (prefix, protocol.codes.digits)
    assert stat.S_IMODE(keio.key.stat().st_mode) == 0o600
    assert store.problems() == []


def test_codes_are_drawn_once_and_neither_they_nor_ids_are_shown(keio: Place) -> None:
    before = keio.code(ANNA)
    done = keio.issue(ANNA, CLEO, ANNA)
    assert "3 rows in = 3 read + 0 quarantined" in done.output
    assert "2 patients: 1 new codes, 1 had one" in done.output
    assert keio.code(ANNA) == before
    assert not any(word in done.output for word in (ANNA, CLEO, before))
    assert keio.issue("1.2E+10", BEN).exit_code == 1


def test_the_same_number_in_another_hospital_is_another_patient(keio: Place) -> None:
    store = keio.opened()
    store.issue("patient", [patient_key("elsewhere", ANNA)], actor="a", purpose="b")
    table = patients_of(store.all_codes("patient", actor="a", purpose="b"))
    assert table.filter(patient_id=ANNA)["patient_code"].n_unique() == 2
    with pytest.raises(ConfigError, match="slash"):
        patient_key("a/b", ANNA)


def test_patients_of_hospitals_outside_the_study_get_no_codes(keio: Place) -> None:
    (keio.folder / "patients.csv").write_text(f"patient_id,site\n{CLEO},elsewhere\n")
    with pytest.raises(RefusedError, match="elsewhere"):
        linkage("issue", keio.store, keio.folder / "patients.csv", "--protocol", KEIO, "--key-file", keio.key, *WHO)


def test_K11_the_custodian_looks_up_and_everybody_else_is_refused_and_logged(keio: Place) -> None:
    office = load_protocol(KEIO).custodian.office
    code = keio.code(ANNA)
    asked = ("lookup", keio.store, code, "--protocol", KEIO, "--key-file", keio.key, "--actor", "Dr. A")
    done = linkage(*asked, "--custodian", office, "--purpose", "incidental finding")
    assert f"{keio.site}/{ANNA}" in done.output
    for custodian, purpose in (("somebody", "curiosity"), (office, " ")):
        with pytest.raises(RefusedError) as refused:
            linkage(*asked, "--custodian", custodian, "--purpose", purpose)
        assert refused.value.number == "K11"
    shown = audit("show", keio.store, "--action", "lookup refused").output
    assert "2 of 2 lines" in shown
    assert "Dr. A" in shown
    assert ANNA not in audit("show", keio.store, "--last", "0").output


@pytest.mark.parametrize(("study", "number"), [(KEIO, "K13"), (GUNMA, "B8"), (JMID, "J7")])
def test_K13_J7_B8_the_table_of_codes_is_never_exported(study: str, number: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as refused:
        linkage("export", tmp_path, "--protocol", study)
    assert refused.value.number == number


def test_refusals_go_out_as_codes_alone(keio: Place) -> None:
    keio.refusals.write_text(
        f"site,patient_id,scope,requester\n{keio.site},{BEN},all,patient\n{keio.site},,all,patient\n"
    )
    out = keio.folder / "refused.csv"
    asked = ("export-refused", keio.store, keio.refusals, "--protocol", KEIO, "--key-file", keio.key, *WHO, "--out")
    done = linkage(*asked, out)
    assert done.exit_code == 1
    assert "2 patients = 1 in + 1 out" in done.output
    rows = out.read_text().splitlines()
    assert rows == ["patient_code,effect,number,reason", f"{keio.code(BEN)},remove,K3,refused all research"]
    assert BEN not in done.output
    with pytest.raises(ConfigError, match="lies in"):
        linkage(*asked, keio.store / "refused.csv")
    # as a spreadsheet and an office leave them: without zeros, by the name of the hospital
    keio.refusals.write_text(
        f"site,patient_id,scope,requester\n慶應義塾大学病院,{BEN.lstrip('0')},all,patient\nfar,1,all,patient\n",
        encoding="utf-8",
    )
    missed = linkage(*asked, out)
    assert missed.exit_code == 1
    assert "2 patients = 2 in + 0 out" in missed.output
    assert "1 requests name nobody, but for zeros in front of the id: row 1" in missed.output
    assert "site is not of this study: 'far': row 2" in missed.output
    persons = keio.folder / "persons.csv"
    persons.write_text(f"site,patient_id,person\nKEIO,{ANNA.lstrip('0')},p\nfar,1,p\n")
    done = linkage(*asked, out, "--id-width", 8, "--persons", persons)
    assert done.exit_code == 0
    assert "2 patients = 0 in + 2 out" in done.output


@pytest.mark.parametrize("options", [(), ("--key-env", "OWN"), ("--passphrase-env", "OWN"), ("--ask-passphrase",)])
def test_keys_come_from_variables_files_and_questions(
    options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "OWN" if options else KEY_VARIABLE
    monkeypatch.setenv(variable, SECRET)
    typed = {"create": f"{SECRET}\n{SECRET}\n", "status": f"{SECRET}\n"}
    linkage("create", tmp_path / "store", "--protocol", KEIO, *options, "--actor", "a", typed=typed["create"])
    done = linkage("status", tmp_path / "store", *options, typed=typed["status"])
    assert "study: keio_2017_0018" in done.output
    assert "0 codes of kind patient" in done.output
    assert "nothing was altered" in done.output
    assert SECRET not in done.output
    if "passphrase" not in str(options):
        monkeypatch.setenv(variable, SECRET.swapcase())
        with pytest.raises(ConfigError, match="wrong key"):
            linkage("status", tmp_path / "store", *options)


def test_no_option_takes_a_secret_as_its_value() -> None:
    for app in (command.linkage_app, command.audit_app, command.dicom_app):
        for one in typer.main.get_group(app).commands.values():
            names = {name for parameter in one.params for name in parameter.opts if name.startswith("--")}
            assert not names & {"--key", "--passphrase", "--password", "--secret"}


def test_what_a_store_refuses(keio: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", SECRET)
    with pytest.raises(ConfigError, match="one of --key-file"):
        linkage("status", keio.store, "--key-file", keio.key, "--key-env", "OWN")
    with pytest.raises(ConfigError, match="wrong key"):
        linkage("status", keio.store, "--key-env", "OWN")
    with pytest.raises(ConfigError, match="another study"):
        linkage("issue", keio.store, keio.refusals, "--protocol", JMID, "--key-file", keio.key, *WHO)
    inside = keio.folder / "workspace" / "store"
    new = ("--new-key-file", keio.folder / "keys" / "second.key")
    with pytest.raises(ConfigError, match="lies in the workspace"):
        linkage("create", inside, "--protocol", KEIO, "--workspace", keio.folder / "workspace", *new)
    assert not new[1].exists(), "a key of no store does not stay"
    monkeypatch.setattr(command, "_today", lambda: date(2031, 1, 1))
    with pytest.raises(RefusedError, match="valid from"):
        linkage("create", keio.folder / "late", "--protocol", KEIO, *new)
    asked = ("--protocol", KEIO, "--key-file", keio.key, "--custodian", load_protocol(KEIO).custodian.office, *WHO)
    with pytest.raises(RefusedError, match="destroyed by"):
        linkage("lookup", keio.store, "K-0000000000", *asked)


def test_another_key_opens_the_store(keio: Place) -> None:
    office, new = load_protocol(KEIO).custodian.office, keio.folder / "keys" / "new.key"
    asked = ("change-key", keio.store, "--key-file", keio.key, "--purpose", "new custodian")
    with pytest.raises(ConfigError, match="custodian"):
        linkage(*asked, "--new-key-file", new, "--custodian", "somebody")
    assert not new.exists()
    linkage(*asked, "--new-key-file", new, "--custodian", office)
    with pytest.raises(ConfigError, match="wrong key"):
        linkage("status", keio.store, "--key-file", keio.key)
    assert linkage("status", keio.store, "--key-file", new).exit_code == 0
    with pytest.raises(ConfigError, match="one of --new-key-file"):
        linkage(*asked, "--custodian", office)


def test_codes_of_a_study_have_its_letters(tmp_path: Path) -> None:
    key = make_key_file(tmp_path / "study.key")
    given = {"study": "s", "key_source": key, "custodian": "c", "actor": "a", "purpose": "p", "workspace": None}
    for prefix in ("E", "toolower", ""):
        with pytest.raises(ConfigError, match="capital letters"):
            LinkageStore.create(tmp_path / "no", patient_prefix=prefix, **given)  # type: ignore[arg-type]
    store = LinkageStore.create(tmp_path / "yes", patient_prefix="BONE-", digits=6, **given)  # type: ignore[arg-type]
    code = store.issue("patient", ["x/1"], actor="a", purpose="p")["code"].item()
    assert code.startswith("BONE-")
    assert len(code) == 11
    assert store.lookup([code], custodian="c", actor="a", purpose="p")["original"].to_list() == ["x/1"]
    assert len(set(random_codes("K", 10, 50))) == 50


# --- audit


def test_an_altered_line_is_named(keio: Place) -> None:
    key = ("--key-file", keio.key)
    assert "nothing was altered" in audit("verify", keio.store, *key).output
    assert "without the key" in audit("verify", keio.store).output
    head = audit("head", keio.store).output.strip()
    assert audit("verify", keio.store / "audit.jsonl", "--head", head).exit_code == 0
    log = keio.store / "audit.jsonl"
    log.write_text(log.read_text().replace("data manager", "nobody at all"))
    done = audit("verify", keio.store)
    assert done.exit_code == 2
    assert "audit.jsonl:2: was altered" in done.output
    assert audit("show", keio.store).exit_code == 2
    with pytest.raises(ConfigError, match="NUMBER:HASH"):
        audit("verify", keio.store, "--head", "3")
    with pytest.raises(InputError, match="no such audit log"):
        audit("show", keio.folder / "nothing")


def test_the_log_is_shown_from_its_end(keio: Place) -> None:
    assert "1 of 2 lines" in audit("show", keio.store, "--last", "1").output
    assert "0 of 0 lines" in audit("show", keio.store, "--code", "K-0000000000").output
    with pytest.raises(ConfigError, match="--last"):
        audit("show", keio.store, "--last", "-1")


# --- dicom


def of(patient: str, number: int, sop_class: str = CTImageStorage, **attributes: object) -> Dataset:
    uid = f"1.2.826.0.1.3680043.8.498.{number}"
    given = {"PatientID": patient, "SOPInstanceUID": uid, "StudyInstanceUID": f"{uid}.1", **attributes}
    return built(sop_class, **given)


def test_files_of_a_study_go_out_by_its_protocol(keio: Place) -> None:
    keio.refusals.write_text(f"site,patient_id,scope,requester\n{keio.site},{BEN},all,patient\n")
    for number, patient in enumerate((ANNA, BEN, CLEO), start=1):
        keio.file(f"{of(patient, number).SOPInstanceUID}.dcm", of(patient, number))
    done = keio.deidentify()
    assert done.exit_code == 0
    assert "3 files in = 1 out + 0 quarantined + 2 excluded; 1 patients" in done.output
    assert "1 patients with a code are out by refusals" in done.output
    [new] = keio.written()
    assert (new.PatientName, new.PatientID) == (keio.code(ANNA),) * 2
    record = keio.folder / "out.record"
    manifest = json.loads((record / "manifest.json").read_text())
    assert (manifest["protocol"], manifest["policy"], manifest["dates"]) == (KEIO, "keio", "shift")
    assert {one["number"] for one in manifest["decisions"]} >= {"KC1", "KC4"}
    assert stat.S_IMODE(record.stat().st_mode) == 0o700
    told = done.output + "".join(path.read_text() for path in record.iterdir())
    assert not any(word in told for word in (ANNA, BEN, CLEO, "青山", "1.2.826.0"))
    shown = audit("show", keio.store, "--action", "dicom", "--code", keio.code(ANNA)).output
    assert "1 of 1 lines" in shown
    assert "files_out 1" in shown


def test_KC4_days_of_texts_and_of_files_move_together(keio: Place) -> None:
    """Relative dates of texts have no place in a header; there days move, as they do in texts that are shifted."""
    keio.file("1.dcm", of(ANNA, 1, SeriesDate="20190615"))
    keio.deidentify()
    [new] = keio.written()
    code, store = keio.code(ANNA), keio.opened()
    moved = datetime.strptime(new.StudyDate, "%Y%m%d").date() - date(2019, 6, 12)
    assert moved.days != 0
    assert moved == study_shifts([code], store.date_key)[code]
    assert datetime.strptime(new.SeriesDate, "%Y%m%d").date() == date(2019, 6, 15) + moved
    masker = Deidentifier(load_text_rules(), date_policy=DatePolicy("shift", key=store.date_key))
    text = masker.mask("2019年6月12日のCTと比較して", patient=code, exam_day=date(2019, 6, 12)).text
    day = date(2019, 6, 12) + moved
    assert text.startswith(f"{day.year}年{day.month}月{day.day}日")


@pytest.fixture
def while_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of the bone scan study."""
    monkeypatch.setattr(command, "_today", lambda: date(2024, 4, 1))


@pytest.mark.usefixtures("while_valid")
def test_dates_that_the_protocol_keeps_stay(tmp_path: Path) -> None:
    place = Place(tmp_path, GUNMA)
    place.file("1.dcm", of(ANNA, 1, NuclearMedicineImageStorage, Modality="NM"))
    assert place.deidentify().exit_code in (0, 1)
    [new] = place.written()
    assert new.StudyDate == "20190612"
    assert new.PatientID.startswith("G-")


def test_J8_anonymised_files_cannot_be_linked_by_the_store(tmp_path: Path) -> None:
    place = Place(tmp_path, JMID)
    place.file("1.dcm", of(ANNA, 1, PatientAge="095Y"))
    place.deidentify("--deliverable", "images")
    [new] = place.written()
    code = place.code(ANNA)
    assert new.PatientID.startswith("J-")
    assert new.PatientID != code
    assert new.StudyDate != "20190612"
    assert new.PatientAge == "090Y"
    place.deidentify("--deliverable", "images", out="again")
    [again] = place.written("again")
    assert again.PatientID != new.PatientID
    assert again.SOPInstanceUID != new.SOPInstanceUID
    assert again.StudyDate == new.StudyDate, "days move as those of the texts"
    assert "0 of 0 lines" in audit("show", place.store, "--code", new.PatientID).output
    place.deidentify("--deliverable", "teacher_labels", out="inside")
    assert place.written("inside")[0].PatientID == code
    with pytest.raises(RefusedError, match="none of the deliverables"):
        place.deidentify("--deliverable", "pictures", out="other")


def changed(tmp_path: Path, text: str, base: str = GUNMA) -> Protocol:
    path = tmp_path / "ours.yaml"
    path.write_text(f"extends: {base}\nid: ours\n{text}\n", encoding="utf-8")
    return load_protocol(path)


@pytest.mark.parametrize("action", ["remove", "keep"])
def test_BC4_a_default_action_that_the_program_does_not_know_is_refused(action: str, keio: Place) -> None:
    path = keio.folder / "ours.yaml"
    path.write_text(f"extends: {KEIO}\nid: ours\ndicom: {{default_action: {action}}}\n", encoding="utf-8")
    keio.file("1.dcm", of(ANNA, 1))
    with pytest.raises(ConfigError, match=r"ours\.yaml: dicom.default_action"):
        keio.deidentify("--protocol", path)
    assert not (keio.folder / "out").exists()


def test_a_protocol_and_its_policy_must_agree(tmp_path: Path) -> None:
    ours = changed(tmp_path, 'codes: {patient_code_tags: ["(0010,0010)", "(0008,0050)"]}')
    with pytest.raises(ConfigError, match=r"patient_code_tags names \(0008,0050\)"):
        study_policy(ours, "pseudonymised")
    kept = study_policy(changed(tmp_path, "dicom: {uid_policy: keep_logged}"), "pseudonymised")
    assert kept.file.uids == "keep"
    strings = 'dicom: {fixed_strings: {"(0008,1030)": BONE}}'
    assert study_policy(changed(tmp_path, strings), "pseudonymised").rules[0x00081030].value == "BONE"
    with pytest.raises(ConfigError, match="StudyDate is kept although dates are shifted"):
        study_policy(changed(tmp_path, "deid: {dates: relative}"), "pseudonymised")
    with pytest.raises(ConfigError, match="no DICOM files"):
        study_policy(load_protocol("tohoku_skin"), "pseudonymised")


@pytest.mark.usefixtures("while_valid")
def test_what_a_reviewer_decides_is_done_in_the_next_run(tmp_path: Path) -> None:
    place = Place(tmp_path, GUNMA)
    picture = of(ANNA, 1, NuclearMedicineImageStorage, Modality="NM")
    block = picture.private_block(0x0019, "A MAKER", create=True)
    block.add_new(0x0C, "LO", "a collimator")
    place.file("1.dcm", picture)
    first = place.deidentify()
    assert first.exit_code == 1
    assert "1 files in = 0 out + 1 quarantined" in first.output
    sheet = tmp_path / "out.record" / "review.csv"
    assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
    assert "a collimator" not in first.output
    filled = tmp_path / "filled.csv"
    rows = list(csv.DictReader(sheet.read_text(encoding="utf-8-sig").splitlines()))
    with filled.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "decision": "keep"} for row in rows)
    checked = dicom("review", filled).output
    assert "1 decisions" in checked
    assert "a collimator" not in checked
    second = place.deidentify("--decisions", filled, out="second")
    assert second.exit_code == 0
    [new] = place.written("second")
    assert new.private_block(0x0019, "A MAKER")[0x0C].value == "a collimator"


def test_what_dicom_refuses(keio: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keio.file("1.dcm", of(ANNA, 1))
    with pytest.raises(RefusedError, match="does not take part"):
        keio.deidentify("--site", "elsewhere")
    with pytest.raises(ConfigError, match="apart from"):
        keio.deidentify("--record", keio.folder / "out" / "record")
    with pytest.raises(ConfigError, match="linkage store"):
        keio.deidentify("--record", keio.store / "record")
    keio.deidentify()
    with pytest.raises(ConfigError, match="not empty"):
        keio.deidentify()
    empty = Place(keio.folder / "second", KEIO, patients=())
    empty.file("1.dcm", of(ANNA, 1))
    with pytest.raises(InputError, match="linkage issue"):
        empty.deidentify()
    monkeypatch.setattr(command, "_today", lambda: date(2031, 1, 1))
    with pytest.raises(RefusedError, match="K17"):
        keio.deidentify(out="late")


def test_canaries_are_found_in_the_archive_and_not_in_what_goes_out(keio: Place) -> None:
    keio.file(f"{ANNA}.dcm", of(ANNA, 1))
    words = keio.folder / "canaries.txt"
    words.write_text(f"青山^花子\n\n{ANNA}\nzzzzzzzz\n", encoding="utf-8")
    keio.deidentify("--canaries", words)
    raw = dicom("scan", keio.archive, "--canaries", words, "--out", keio.folder / "hits.csv")
    assert raw.exit_code == 1
    assert "1 files searched for 3 words: 2 words found" in raw.output
    assert "name of the file" in raw.output
    told = raw.output + (keio.folder / "hits.csv").read_text()
    assert ANNA not in told
    assert "青山" not in told
    clean = dicom("scan", keio.folder / "out", "--canaries", words)
    assert clean.exit_code == 0
    assert "0 words found, 0 hits" in clean.output
    assert scan_bytes(keio.archive / f"{ANNA}.dcm", [ANNA])
    words.write_text("\n")
    with pytest.raises(InputError, match="no word"):
        dicom("scan", keio.archive, "--canaries", words)
    with pytest.raises(InputError, match="no such folder"):
        dicom("scan", keio.folder / "nothing", "--canaries", words)
    (keio.folder / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        dicom("scan", keio.folder / "empty", "--canaries", words)


def test_a_word_that_must_not_go_out_keeps_a_file_in(keio: Place) -> None:
    keio.file("1.dcm", of(ANNA, 1, Manufacturer="Aoyama Works"))
    words = keio.folder / "canaries.txt"
    words.write_text("Aoyama Works\n", encoding="utf-8")
    done = keio.deidentify("--canaries", words)
    assert done.exit_code == 1
    assert "1 files in = 0 out + 1 quarantined" in done.output
