"""The search for what must not be there: every container a hospital or a training set has, every encoding."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import polars as pl
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from reportlabel.deidentify.search import Hit, Searcher, found_in
from reportlabel.errors import InputError

NAME, NUMBER, ADDRESS = "日下部　健", "00012345", "神奈川県湊ヶ浜市緑町2丁目20番10号"
NEEDLES = [("name", NAME), ("id", NUMBER), ("address", ADDRESS), ("roman", "KUSAKABE^KEN"), ("kana", "クサカベ　ケン")]
TEXT = "患者 日下部健、番号00012345です。"


@pytest.fixture(scope="module")
def searcher() -> Searcher:
    return Searcher(NEEDLES)


def parquet(path: Path) -> None:
    table = pl.DataFrame({"text": [TEXT] * 3, "spans": [[{"a": NUMBER}], [], []]})
    table.write_parquet(path, compression="zstd")


def lists_only(path: Path) -> None:
    values = {"spans": [[{"a": NUMBER, "b": [NAME]}]]}
    pl.DataFrame(values).write_parquet(path, compression="zstd")


def arrow(path: Path) -> None:
    pl.DataFrame({"text": [TEXT]}).write_ipc(path, compression="zstd")


def excel(path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["所見", TEXT])
    book.save(path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", TEXT)


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("b.csv.gz")
        content = gzip.compress(TEXT.encode("cp932"))
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def gzipped_tar(path: Path) -> None:
    inner = path.with_name("inner")
    tarred(inner)
    path.write_bytes(gzip.compress(inner.read_bytes()))
    inner.unlink()


def dicom(path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    data.PatientName = "KUSAKABE^KEN=日下部^健=クサカベ^ケン"
    data.PatientID = NUMBER
    data.save_as(path)
    assert pydicom.dcmread(path).PatientName.ideographic == "日下部^健"


def sqlite(path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE t (a TEXT)")
        base.execute("INSERT INTO t VALUES (?)", (TEXT,))


def encoded(encoding: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(TEXT.encode(encoding))

    write.__name__ = encoding
    return write


def json_escaped(path: Path) -> None:
    path.write_text(json.dumps({"text": TEXT}), encoding="ascii")


def xml_escaped(path: Path) -> None:
    path.write_bytes(TEXT.encode("ascii", "xmlcharrefreplace"))


WRITERS: list[Callable[[Path], None]] = [
    json_escaped,
    xml_escaped,
    parquet,
    lists_only,
    arrow,
    excel,
    zipped,
    tarred,
    gzipped_tar,
    dicom,
    sqlite,
]
WRITERS += [encoded(one) for one in ("utf-8", "cp932", "euc_jp", "utf-16-le", "iso2022_jp")]


@pytest.mark.parametrize("write", WRITERS, ids=lambda one: str(one.__name__))
def test_K10_a_needle_is_found(tmp_path: Path, searcher: Searcher, write: Callable[[Path], None]) -> None:
    write(tmp_path / "file.bin")
    kinds = {hit.kind for hit in searcher.in_folder(tmp_path)}
    assert {"name", "id"} <= kinds
    assert {hit.path for hit in searcher.in_folder(tmp_path)} == {"file.bin"}


def test_every_form_of_a_name_in_a_dicom_header_is_found(tmp_path: Path, searcher: Searcher) -> None:
    dicom(tmp_path / "a.dcm")
    assert {hit.kind for hit in searcher.in_folder(tmp_path)} == {"name", "id", "roman", "kana"}


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("日下部 健", {"name"}),
        ("日下部^健", {"name"}),
        ("日下部健", {"name"}),
        ("ｸｻｶﾍﾞ ｹﾝ", {"kana"}),
        ("ＫＵＳＡＫＡＢＥ　ＫＥＮ", {"roman"}),
        ("０００１２３４５", {"id"}),
        ("ＫＵＳＡＫＡＢＥ", set()),
        ("KUSAKABE KEN", {"roman"}),
        ("日下 部", set()),
        ("健", set()),
        ("番号 00012345。", {"id"}),
        ("番号:0001234500", set()),
        ("900012345", set()),
        ("1.2.392.00012345.1", {"id"}),
        ("x00012345y", {"id"}),
        ("", set()),
    ],
)
def test_what_counts_as_the_same(searcher: Searcher, text: str, kinds: set[str]) -> None:
    assert set(searcher.in_text(text)) == kinds
    assert set(searcher.in_bytes(text.encode())) == kinds
    assert set(searcher.in_bytes(text.encode("utf-16-le"))) == kinds


def test_names_of_files_and_folders_are_searched(tmp_path: Path) -> None:
    (tmp_path / "00012345").mkdir()
    (tmp_path / "00012345" / "日下部健.txt").write_text("nothing")
    assert found_in(tmp_path, NEEDLES) == [Hit("00012345", "id", 1), Hit("00012345/日下部健.txt", "name", 1)]


def test_a_hit_says_where_and_how_often_and_never_what(tmp_path: Path, searcher: Searcher) -> None:
    (tmp_path / "a.txt").write_text(TEXT * 3, encoding="utf-8")
    (tmp_path / "b.txt").write_text("none", encoding="utf-8")
    hits = searcher.in_folder(tmp_path)
    assert hits == [Hit("a.txt", "id", 3), Hit("a.txt", "name", 3)]
    assert "日下部" not in repr(hits)


def test_a_single_file_is_searched_too(tmp_path: Path, searcher: Searcher) -> None:
    (tmp_path / "a.csv").write_text(TEXT, encoding="cp932")
    assert {hit.kind for hit in searcher.in_folder(tmp_path / "a.csv")} == {"id", "name"}


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path, searcher: Searcher) -> None:
    with pytest.raises(InputError, match="no such"):
        searcher.in_folder(tmp_path / "misspelt")


@pytest.mark.parametrize("head", [b"PAR1", b"ARROW1", b"\x1f\x8b", b"PK\x03\x04", b"\0" * 257 + b"ustar"])
def test_what_only_looks_like_a_container_is_searched_as_bytes(tmp_path: Path, searcher: Searcher, head: bytes) -> None:
    (tmp_path / "broken").write_bytes(head + b" " + TEXT.encode() + b" " * 600)
    assert {hit.kind for hit in searcher.in_folder(tmp_path)} == {"name", "id"}


def test_what_is_too_short_to_mean_anything_is_counted() -> None:
    assert Searcher([*NEEDLES, ("name", "健"), ("id", "123"), ("id", " ")]).skipped == 3
    with pytest.raises(InputError, match="nothing to search for"):
        Searcher([("name", "健")])


@settings(max_examples=60, deadline=None)
@given(before=st.text(max_size=20), after=st.text(max_size=20), encoding=st.sampled_from(["utf-8", "utf-16-le"]))
def test_a_name_is_found_wherever_it_stands(before: str, after: str, encoding: str) -> None:
    text = f"{before}日下部健{after}".encode(encoding, "ignore")
    assert _ONE.in_bytes(text)["name"] >= 1


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, 10**6), after=st.integers(0, 10**6))
def test_a_longer_number_is_another_number(before: int, after: int) -> None:
    assert not _ONE.in_text(f"{before}{NUMBER}{after}")
    assert not _ONE.in_bytes(f"{before}{NUMBER}{after}".encode())
    assert _ONE.in_text(f"{before} {NUMBER}-{after}")["id"] == 1


_ONE = Searcher(NEEDLES)
