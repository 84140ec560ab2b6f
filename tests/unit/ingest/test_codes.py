"""Codes and identifiers, written one way."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from reportlabel.errors import ConfigError
from reportlabel.ingest.archive import FORMATS, open_archive, reader_of
from reportlabel.ingest.codes import (
    Measure,
    fee_code_system,
    files_below,
    icd10,
    is_damaged_number,
    jlac10_system,
    k_code,
    measure,
    narrow,
    options_of,
    patient_number,
    shown_path,
    study_uid,
)
from reportlabel.ingest.dpc import fee_items
from reportlabel.ingest.rows import Quarantined, Source
from reportlabel.ingest.stage import hidden_numbers, preview
from reportlabel.rulebook.models import Strict


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("K514-2 3", "K514-2 3"),
        ("Ｋ５１４－２　３", "K514-2 3"),
        ("K514−2 3", "K514-2 3"),
        ("K514ー2・3", "K514-2 3"),
        ("K514-2-3", "K514-2 3"),
        ("K514-23", "K514-2 3"),
        ("K51423", "K514-2 3"),
        ("k514-2 3 胸腔鏡下肺悪性腫瘍手術", "K514-2 3"),
        ("K5142", "K514-2"),
        ("K514-2", "K514-2"),
        ("K514 2", "K514 2"),
        ("K514", "K514"),
        ("K7211", "K721 1"),  # branches begin with 2
        ("K695 1ロ", "K695 1ロ"),
        ("K6951ﾛ", "K695 1ロ"),
        ("D415-5 1", "D415-5 1"),
        ("D41551", "D415-5 1"),
        ("N0001", "N000 1"),
        ("G0052", "G005-2"),
    ],
)
def test_codes_of_the_fee_schedule(written: str, code: str) -> None:
    assert k_code(written) == code
    assert k_code(code) == code


@pytest.mark.parametrize("written", ["", "手術", "K5", "514-2", "K514X", "KK514", "150357210"])
def test_what_is_no_code_of_the_fee_schedule(written: str) -> None:
    assert k_code(written) is None


@pytest.mark.parametrize(
    ("written", "code"),
    [("K7212", "K721 2"), ("D4132", "D413 2"), ("K51423", "K514-2 3"), ("K6722", "K672-2"), ("K5612イ", "K561 2イ")],
)
def test_items_that_look_like_branches(written: str, code: str) -> None:
    assert k_code(written, items=fee_items()) == code


@given(
    st.from_regex(r"[KD][0-9]{3}", fullmatch=True),
    st.sampled_from(["", *"23456789"]),
    st.sampled_from(["", *"123456789"]),
    st.sampled_from(["", "イ", "ロ"]),
)
def test_a_code_without_separators_is_read_back(base: str, branch: str, item: str, part: str) -> None:
    """Where it has a branch, or an item 1 and no branch: else it cannot be known."""
    code = base + (f"-{branch}" if branch else "") + (f" {item}{part}" if item else "")
    assert k_code(code) == code
    if branch or item in ("", "1"):
        assert k_code(code.replace("-", "").replace(" ", "")) == code


def test_code_systems() -> None:
    assert [fee_code_system(code) for code in ("K514-2 3", "D415", "N000 1", "J019")] == ["K", "D", "N", "local"]
    assert [jlac10_system(code) for code in ("9A110", "5C070000002306201", "LENDO1")] == ["JLAC10", "JLAC10", "local"]


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("C34.9", "C349"),
        ("C349", "C349"),
        ("Ｃ３４９", "C349"),
        ("c34", "C34"),
        ("C34.-", "C34"),
        ("A09.0†", "A090"),
        ("C34912", None),
        ("肺癌", None),
        ("", None),
    ],
)
def test_icd10(written: str, code: str | None) -> None:
    assert icd10(written) == code


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", Measure(12.0, "", "")),
        ("１２．５mg/dL", Measure(12.5, "", "mg/dL")),
        ("<0.5", Measure(0.5, "<", "")),
        ("＜０．５", Measure(0.5, "<", "")),
        ("≧10", Measure(10.0, ">=", "")),
        ("1,200 /μL", Measure(1200.0, "", "/μL")),
        ("3.5×10^4", Measure(35000.0, "", "")),
        ("−1.5", Measure(-1.5, "", "")),
        ("陰性", None),
        ("", None),
    ],
)
def test_numbers(written: str, value: Measure | None) -> None:
    assert measure(written) == (value and value._replace(unit=narrow(value.unit)))


@given(st.text(max_size=20))
def test_no_text_raises(text: str) -> None:
    k_code(text)
    k_code(text, items=fee_items())
    icd10(text)
    measure(text)
    patient_number(text, width=8)
    study_uid(text)


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("00000007", "00000007"),
        ("7", "00000007"),
        ("0000000007", "00000007"),
        ("123456789", "123456789"),
        ("A-7", "A-7"),
        ("2E5", "2E5"),
        ("2.0231E+07", None),
        ("########", None),
        ("#NAME?", None),
        ("  ", None),
    ],
)
def test_patient_numbers(written: str, number: str | None) -> None:
    assert patient_number(written, width=8) == number


def test_without_a_width_an_id_stays_as_it_is() -> None:
    assert patient_number("7") == "7"
    assert patient_number(" 0007 ") == "0007"


def test_texts_are_no_damaged_numbers() -> None:
    assert not any(map(is_damaged_number, ["#1", "# 結節", "20210405", "E+", ""]))


@pytest.mark.parametrize(
    ("written", "uid"),
    [
        ("1.2.392.3", "1.2.392.3"),
        ("urn:oid:1.2.392.3", "1.2.392.3"),
        ("1.2.392.3\0", "1.2.392.3"),
        ("1.2.", None),
        ("12", None),
        ("1." * 40 + "1", None),
        (None, None),
    ],
)
def test_uids(written: str | None, uid: str | None) -> None:
    assert study_uid(written) == uid


def test_paths_hide_patients(tmp_path: Path) -> None:
    source = Source("dicom", tmp_path / "dicom", tmp_path)

    def shown(path: str, patient_id: str | None = None, *, suspicious: bool = False) -> str:
        return shown_path(tmp_path / path, source, patient_id=patient_id, suspicious=suspicious)

    assert shown("dicom/00000007/1.2.392.3/CT000001.dcm") == "dicom/…/…/CT000001.dcm"
    assert shown("dicom/1.2.392.3/CT000001.dcm") == "dicom/1.2.392.3/CT000001.dcm"
    assert shown("dicom/P-07/CT_P-07.dcm", "P-07") == "dicom/…/CT_….dcm"
    assert shown("dicom/P12345/x.dcm", suspicious=True) == "dicom/P…/x.dcm"
    assert shown("csv/12345678.csv") == "csv/….csv"
    assert shown("csv/20230401.csv") == "csv/20230401.csv"
    assert shown("csv/7.csv", "00000007") == "csv/….csv"
    assert shown("csv/report7.csv", "00000007") == "csv/report7.csv"
    assert shown_path(Path("/elsewhere/report.csv"), source) == "report.csv"


def test_numbers_of_one_patient_are_hidden_and_the_file_can_be_found(tmp_path: Path) -> None:
    name = "00000007_20150921_OMG-11_000000000077022_20150921160900100_05_1"
    path = tmp_path / "store/20150921" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"MSH|")
    shown = shown_path(path, Source("ssmix2", tmp_path, tmp_path), patient_id="00000007")
    at, _, digits = shown.partition(" (sha256 ")
    assert at == "store/…/…_…_OMG-11_…_…_05_1"
    assert hashlib.sha256(b"MSH|").hexdigest().startswith(digits.strip(")").replace(" ", ""))
    assert hidden_numbers(shown) == shown
    path = tmp_path / "P-07/1.2.392.299999.119900303.77022.dcm"
    assert shown_path(path, Source("dicom", tmp_path, tmp_path), patient_id="P-07") == "…/….dcm"
    assert hidden_numbers("dicom/1.2.392.299999.11990.7/note.txt") == "dicom/…/note.txt"


def test_links_that_cannot_be_walked_into_are_files(tmp_path: Path) -> None:
    for name in ("a/one.csv", "b/two.csv", "c/three.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for link, target in (("nothing", "none"), ("self", "self"), ("up", "."), ("a/x", "../b"), ("b/y", "../a")):
        (tmp_path / link).symlink_to(target)
    (tmp_path / "out").symlink_to(tmp_path.parent)
    (tmp_path / "d").symlink_to("c")
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    several = ["a/one.csv", "a/x/two.csv", "a/x/y", "b/two.csv", "b/y/one.csv", "b/y/x", "c/three.csv", "d/three.csv"]
    assert found == [*several, "nothing", "out", "self", "up"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_reader_quarantines_a_link_that_leads_nowhere(tmp_path: Path, name: str) -> None:
    reader = reader_of(name)
    ending = ".parquet" if name == "parquet" else ".csv"
    for link, target in (("exams", "none"), ("patients", "."), ("reports", f"reports{ending}")):
        (tmp_path / f"{link}{ending}").symlink_to(target)
    source = Source(name, tmp_path, tmp_path, "aoba")
    paths = list(reader.files(source))
    assert len(paths) == 3
    for path in paths:
        (row,) = reader.read(path, source)
        assert isinstance(row, Quarantined) and row.remedy


def test_links_do_not_stop_an_archive(tmp_path: Path) -> None:
    (tmp_path / "reports.csv").write_text(
        "患者ID,検査日,モダリティ,所見,読影医\n7,2023/3/14,CT,結節,\n", encoding="utf-8"
    )
    for link, target in (("nothing.csv", "none"), ("loop", "."), ("self.csv", "self.csv")):
        (tmp_path / link).symlink_to(target)
    seen = preview(open_archive(tmp_path, site="aoba"), None)
    assert seen.by_kind["aoba", "reports"] == 1
    assert sum(seen.problems.values()) == 3


def test_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/10.txt", "a.txt", ".hidden", "b/Thumbs.db", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert found == ["a.txt", "b/10.txt", "b/2.txt", "c/d/e"]
    assert list(files_below(tmp_path / "a.txt")) == [tmp_path / "a.txt"]


class _Known(Strict):
    width: int | None = None
    sites: dict[str, str] = Field(default_factory=dict)


def test_options_are_checked(tmp_path: Path) -> None:
    def source(**options: object) -> Source:
        return Source("dpc", tmp_path, tmp_path, options=options)

    assert options_of(source(width=8), _Known).width == 8
    with pytest.raises(ConfigError, match=r"\(dpc\): option 'widht': unknown"):
        options_of(source(widht=8), _Known)
    with pytest.raises(ConfigError, match="option 'width': "):
        options_of(source(width="eight"), _Known)
