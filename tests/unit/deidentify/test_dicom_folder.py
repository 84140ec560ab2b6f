"""Folders of DICOM files: every file is accounted for, references hold, nothing of a patient is left in a byte."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random

import pytest
from pydicom import dcmread
from pydicom.config import IGNORE, settings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage

from reportlabel.deidentify import dicom, dicom_folder
from reportlabel.deidentify.dicom import identifiers_of
from reportlabel.deidentify.dicom_folder import FolderResult, deidentify_folder
from reportlabel.deidentify.dicom_policy import TagPolicy, load_policy
from reportlabel.deidentify.dicom_review import read_decisions
from reportlabel.deidentify.dicom_scan import Canaries, scan_bytes
from reportlabel.errors import ConfigError, InputError
from tests.unit.deidentify.dicom_objects import KEY, as_file, built, bundled, dicomdir_patients

PATIENTS = {"98890234": "P-0001", "77654033": "P-0002"}


@cache
def policy() -> TagPolicy:
    return load_policy("keio")


def run(source: Path, out: Path, codes: dict[str, str] | None = None, **options: object) -> FolderResult:
    given = {"uid_key": KEY, **options}
    result = deidentify_folder(source, out, policy(), codes=codes or {"00012345": "P-0009"}, **given)  # type: ignore[arg-type]
    assert result.files_in == result.files_out + result.quarantined + result.excluded
    assert result.not_out.height == result.quarantined + result.excluded
    assert len(written(out)) == result.files_out
    assert not list(out.rglob(".*"))
    return result


def written(out: Path) -> list[Path]:
    return sorted(one for one in out.rglob("*") if one.is_file())


def headers(folder: Path) -> list[Dataset]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [dcmread(one, stop_before_pixels=True) for one in written(folder)]


def store(folder: Path, name: str, dataset: Dataset) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(as_file(dataset))
    return folder / name


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderResult, Path]:
    out = tmp_path_factory.mktemp("patients") / "out"
    return run(dicomdir_patients(), out, PATIENTS), out


def originals() -> dict[str, list[Dataset]]:
    """Patient id -> the files of pydicom's patients."""
    found: dict[str, list[Dataset]] = {one: [] for one in PATIENTS}
    for path in sorted(dicomdir_patients().rglob("*")):
        if path.is_file() and not path.name.startswith(("DICOMDIR", "README")):
            dataset = dcmread(path, stop_before_pixels=True)
            if dataset.PatientID in found:
                found[dataset.PatientID].append(dataset)
    return found


def test_every_file_is_accounted_for(patients: tuple[FolderResult, Path]) -> None:
    result, _ = patients
    assert result.files_out == sum(map(len, originals().values())) == 31
    reasons = Counter(result.not_out["reason"].to_list())
    assert reasons == {dicom_folder.NOT_IN_STUDY: 50, dicom_folder.DIRECTORY: 8, dicom_folder.NOT_DICOM: 2}
    assert set(reasons) <= set(dicom_folder.REASONS)
    assert result.patients == set(PATIENTS.values())


def test_one_study_goes_in_and_one_comes_out_and_so_with_series(patients: tuple[FolderResult, Path]) -> None:
    _, out = patients
    new = headers(out)
    for patient_id, files in originals().items():
        mine = [one for one in new if one.PatientID == PATIENTS[patient_id]]
        assert len(mine) == len(files)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            before, after = (Counter(one[name].value for one in some) for some in (files, mine))
            assert sorted(before.values()) == sorted(after.values())
            assert not set(before) & set(after)


def test_files_are_named_by_code_and_new_uids(patients: tuple[FolderResult, Path]) -> None:
    _, out = patients
    for path, header in zip(written(out), headers(out), strict=True):
        expected = (header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID, f"{header.SOPInstanceUID}.dcm")
        assert path.relative_to(out).parts == expected


def test_references_between_files_resolve_as_before(tmp_path: Path) -> None:
    def referring(uid: str, *others: str) -> Dataset:
        items = []
        for other in others:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, other
            items.append(item)
        return built(
            CTImageStorage,
            SOPInstanceUID=uid,
            ReferencedImageSequence=Sequence(items),
            SourceImageSequence=Sequence(items),
        )

    for name, dataset in {
        "a": referring("1.2.1"),
        "b": referring("1.2.2", "1.2.1"),
        "c": referring("1.2.3", "1.2.2", "9.9"),
    }.items():
        store(tmp_path / "in", f"{name}.dcm", dataset)
    assert run(tmp_path / "in", tmp_path / "out").files_out == 3
    files = headers(tmp_path / "out")
    known = {one.SOPInstanceUID for one in files}
    for name in ("ReferencedImageSequence", "SourceImageSequence"):
        references = [[item.ReferencedSOPInstanceUID for item in one[name].value] for one in files]
        assert sorted((len(one), len(known & set(one))) for one in references) == [(0, 0), (1, 1), (2, 1)]


@pytest.mark.parametrize("name", ["CT_small.dcm", "JPEG-lossy.dcm", "MR_small_implicit.dcm", "rtstruct.dcm"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
def test_a_file_that_was_cut_off_does_not_go_out(tmp_path: Path, name: str, part: float) -> None:
    data = bundled(name).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(data[: int(len(data) * part)])
    patient = str(dcmread(bundled(name), force=True).PatientID)
    result = run(tmp_path / "in", tmp_path / "out", {patient: "P-0001"})
    assert result.not_out["reason"].to_list() == [dicom_folder.DAMAGED]


def test_two_runs_agree_and_another_key_differs(patients: tuple[FolderResult, Path], tmp_path: Path) -> None:
    _, first = patients
    again, other = tmp_path / "again", tmp_path / "other"
    run(dicomdir_patients(), again, PATIENTS)
    run(dicomdir_patients(), other, PATIENTS, uid_key=KEY[::-1])
    contents = {one.relative_to(first): one.read_bytes() for one in written(first)}
    assert {one.relative_to(again): one.read_bytes() for one in written(again)} == contents
    assert not {one.name for one in written(other)} & {one.name for one in written(first)}
    assert not {one.StudyInstanceUID for one in headers(other)} & {one.StudyInstanceUID for one in headers(first)}


def test_K10_no_identifier_is_in_any_byte_and_the_search_finds_them_all_before(
    patients: tuple[FolderResult, Path],
) -> None:
    names = {str(one.PatientName) for some in originals().values() for one in some}
    words = [*names, *PATIENTS, *{one.StudyInstanceUID for some in originals().values() for one in some}]
    before: set[int] = set()
    for path in dicomdir_patients().rglob("*"):
        before |= {hit.canary for hit in scan_bytes(path, words)} if path.is_file() else set()
    assert before == set(range(len(words)))
    for path in written(patients[1]):
        assert not scan_bytes(path, words)
        assert not Canaries(words).in_text(str(path.relative_to(patients[1])))


def test_B11_nothing_goes_out_until_it_is_decided(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("JPEG-lossy.dcm", "CT_small.dcm", "examples_overlay.dcm"):
        shutil.copy(bundled(name), source)
    codes = {str(dcmread(one).PatientID): f"BS-{n}" for n, one in enumerate(sorted(source.iterdir()))}
    strict = load_policy("gunma_bone_scan")
    first = deidentify_folder(source, tmp_path / "first", strict, codes=codes, uid_key=KEY)
    assert (first.files_out, first.quarantined, first.excluded) == (0, 3, 0)
    first.review.write(tmp_path / "sheet.csv", apart_from=[tmp_path / "first"])
    text = (tmp_path / "sheet.csv").read_text(encoding="utf-8-sig")
    (tmp_path / "sheet.csv").write_text(
        text.replace(",院内限", ",院内限").replace("256,PixelData,1,0,,,", "256,PixelData,1,0,,keep,")
    )
    second = deidentify_folder(
        source, tmp_path / "second", strict, codes=codes, uid_key=KEY, decisions=read_decisions(tmp_path / "sheet.csv")
    )
    assert (second.files_out, second.quarantined, second.excluded) == (3, 0, 0)
    assert {header.BurnedInAnnotation for header in headers(tmp_path / "second") if "BurnedInAnnotation" in header} == {
        "NO"
    }


def test_files_that_cannot_go_out_are_listed_with_a_reason_and_no_name(tmp_path: Path) -> None:
    source = tmp_path / "in"
    good = store(source, "a.dcm", built(CTImageStorage))
    store(source, "b_AOYAMA_00012345.dcm", built(CTImageStorage, PatientID="", PatientName="AOYAMA^HANAKO"))
    store(source, "c_00055555.dcm", built(CTImageStorage, PatientID="00055555"))
    (source / "d.dcm").write_bytes(bundled("CT_small.dcm").read_bytes()[:30000])
    (source / "e.txt").write_text("00012345")
    shutil.copy(good, source / "f.dcm")
    store(source, "g.dcm", built(CTImageStorage, Modality="MR"))
    store(source, "h.dcm", built(CTImageStorage, ProtocolName="花子", SOPInstanceUID="1.2.3"))
    store(source, "i.dcm", built(CTImageStorage, BurnedInAnnotation="YES", SOPInstanceUID="1.2.4"))
    result = run(source, tmp_path / "out")
    assert result.files_out == 1 + (load_policy("keio").plan(0x00181030, "LO").action != "keep")
    reasons = dict(result.not_out.select("file", "reason").rows())
    assert reasons == {
        2: dicom_folder.NO_PATIENT,
        3: dicom_folder.NOT_IN_STUDY,
        4: dicom_folder.DAMAGED,
        5: dicom_folder.NOT_DICOM,
        6: dicom_folder.SAME,
        7: dicom_folder.TWICE,
        9: dicom.BURNED_IN,
    }
    shown = result.not_out["path"].to_list()
    assert shown[0] == "file 2"
    assert not Canaries(["00012345", "00055555", "AOYAMA"]).in_text(str(result) + str(result.not_out.rows()))
    assert all(result.not_out["remedy"].to_list())


@pytest.mark.parametrize("name", ["CT_small.dcm", "rtstruct.dcm", "JPEG-lossy.dcm", "chrH32.dcm"])
def test_damaged_files_never_break_the_run_nor_let_a_name_out(tmp_path: Path, name: str) -> None:
    random, data = Random(name), bundled(name).read_bytes()
    original = dcmread(bundled(name), force=True)
    source = tmp_path / "in"
    source.mkdir()
    for number in range(25):
        damaged = bytearray(data)
        for _ in range(random.randint(1, 6)):
            damaged[random.randrange(132, min(len(data), 2500))] = random.randrange(256)
        (source / f"{number:02d}.dcm").write_bytes(damaged)
    result = run(source, tmp_path / "out", {str(original.PatientID): "P-0001"})
    assert result.files_in == 25
    words = [word for word in identifiers_of(original.PatientName, is_name=True) if "^" in word]
    for path in written(tmp_path / "out"):
        assert not scan_bytes(path, words)


def test_a_word_of_the_study_that_is_left_quarantines_the_file(tmp_path: Path) -> None:
    store(tmp_path / "in", "a.dcm", built(CTImageStorage, BodyPartExamined="SASAKI"))
    result = run(tmp_path / "in", tmp_path / "out", canaries=Canaries(["SASAKI"]))
    assert result.not_out["reason"].to_list() == [dicom_folder.CANARY]


def test_names_written_into_pixels_as_text_are_found_in_the_bytes(tmp_path: Path) -> None:
    pixels = b"\x80" * 20000 + b"AOYAMA^HANAKO" + b"\x80" * 19987
    dataset = built(CTImageStorage, PatientName="AOYAMA^HANAKO", PixelData=pixels, BitsAllocated=8, Modality="CT")
    store(tmp_path / "in", "a.dcm", dataset)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.not_out["reason"].to_list() == [dicom.IDENTIFIER_LEFT]


def test_lost_zeros_of_patient_ids_are_put_back(tmp_path: Path) -> None:
    store(tmp_path / "in", "a.dcm", built(CTImageStorage, PatientID="12345"))
    assert run(tmp_path / "in", tmp_path / "one").files_out == 0
    assert run(tmp_path / "in", tmp_path / "two", id_width=8).files_out == 1


def test_ages_and_days_are_those_of_the_code(tmp_path: Path) -> None:
    store(tmp_path / "in", "a.dcm", built(CTImageStorage, PatientBirthDate=""))
    run(tmp_path / "in", tmp_path / "out", ages={"P-0009": 67}, shifts={"P-0009": -timedelta(days=10)})
    (header,) = headers(tmp_path / "out")
    assert (header.PatientAge, header.StudyDate) == ("067Y", "20190602")


def test_a_file_without_a_preamble_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(bundled("rtstruct.dcm"), tmp_path / "in")
    patient = str(dcmread(bundled("rtstruct.dcm"), force=True).PatientID)
    assert run(tmp_path / "in", tmp_path / "out", {patient: "P-0001"}).files_out == 1


@pytest.mark.parametrize("place", ["in/out", ".", "in"])
def test_the_folders_must_not_lie_in_each_other(tmp_path: Path, place: str) -> None:
    store(tmp_path / "in", "a.dcm", built(CTImageStorage))
    with pytest.raises(ConfigError, match=r"neither in .* nor around it"):
        run(tmp_path / "in", tmp_path / place)


def test_a_folder_that_holds_files_of_an_earlier_run_is_not_used(tmp_path: Path) -> None:
    store(tmp_path / "in", "a.dcm", built(CTImageStorage))
    run(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        run(tmp_path / "in", tmp_path / "out")


def test_a_source_that_is_not_there_and_codes_that_are_not_one_to_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "none", tmp_path / "out")
    store(tmp_path / "in", "a.dcm", built(CTImageStorage))
    with pytest.raises(ConfigError, match="one-to-one"):
        run(tmp_path / "in", tmp_path / "out", {"1": "A", "2": "A"})
    with pytest.raises(ConfigError, match="16 bytes"):
        deidentify_folder(tmp_path / "in", tmp_path / "out2", policy(), codes={"00012345": "A"}, uid_key=b"short")


def test_the_table_of_actions_counts_what_was_done(patients: tuple[FolderResult, Path]) -> None:
    result, _ = patients
    done = {(tag, what): n for tag, _, what, _, n in result.actions.rows()}
    assert done["(0010,0010)", "patient code"] == done["(0008,0018)", "uid"] == 31
    assert done["(0008,0020)", "shifted"] == 31
    assert not [tag for tag, what in done if what == "found"]


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("1.2.840.10008.1.1", True), ("0", True), ("1.02.3", True), ("1." * 31 + "12", True),
        ("", False), (".", False), ("..", False), ("1..2", False), (".1", False), ("1.", False), ("1/2", False),
        ("../1", False), ("1.2\\3", False), ("1.2 ", False), ("1.2\n", False), ("１.２", False), ("1.a", False),
        ("1." * 32 + "1", False), ("['1.2', '1.3']", False),
    ],
)  # fmt: skip
def test_what_a_uid_is(text: str, yes: bool) -> None:
    assert dicom_folder.is_uid(text) is yes


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("wrong", ["../../../escaped", "ABSOLUTE/escaped", "..", "1.2..3", "escaped", ["1.2", "1.3"]])
def test_a_uid_that_is_kept_leads_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: str | list[str]
) -> None:
    for side in ("reading", "writing"):
        monkeypatch.setattr(settings, f"{side}_validation_mode", IGNORE)
    dataset = built(CTImageStorage)
    if isinstance(wrong, str):
        wrong = wrong.replace("ABSOLUTE", str(tmp_path))
    dataset[name] = DataElement(name, "UI", wrong)
    store(tmp_path / "in", "a.dcm", dataset)
    store(tmp_path / "in", "b.dcm", built(CTImageStorage, SOPInstanceUID="1.02.3"))
    kept = policy().choose(uids="keep")
    out = tmp_path / "some" / "where" / "out"
    result = deidentify_folder(tmp_path / "in", out, kept, codes={"00012345": "P-0009"}, uid_key=KEY)
    assert (result.files_out, result.quarantined) == (1, 1)
    assert result.not_out["reason"].to_list() == [dicom_folder.NO_UID]
    assert "escaped" not in str(result.not_out.to_dicts())
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(tmp_path / "in")]
    assert path.relative_to(out).parts[0] == "P-0009"
    assert path.name == "1.02.3.dcm"


def test_nothing_is_written_outside_whatever_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_folder, "is_uid", lambda _: True)
    for side in ("reading", "writing"):
        monkeypatch.setattr(settings, f"{side}_validation_mode", IGNORE)
    dataset = built(CTImageStorage)
    dataset["StudyInstanceUID"] = DataElement("StudyInstanceUID", "UI", "../../../escaped")
    store(tmp_path / "in", "a.dcm", dataset)
    with pytest.raises(ConfigError, match="would lie outside") as refused:
        deidentify_folder(
            tmp_path / "in", tmp_path / "out", policy().choose(uids="keep"), codes={"00012345": "P-0009"}, uid_key=KEY
        )
    assert "escaped" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
