"""The search for words in DICOM data finds them however they are written, and does not find what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage

from reportlabel.deidentify.dicom_scan import Canaries, Hit, scan_bytes
from reportlabel.errors import InputError
from tests.unit.deidentify.dicom_objects import as_file, built, bundled, put

NAME = "山田^太郎"


def found(dataset: Dataset, *words: str) -> set[int]:
    return {hit.canary for hit in scan_bytes(as_file(dataset), words)}


@pytest.mark.parametrize(
    ("character_set", "written"),
    [
        ("ISO_IR 192", "山田^太郎"),
        (["", "ISO 2022 IR 87"], "YAMADA^TAROU=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("ISO_IR 192", "山田　太郎"),
        ("ISO_IR 192", "山田太郎"),
    ],
)
def test_a_name_is_found_in_every_character_set(character_set: str | list[str], written: str) -> None:
    dataset = built(CTImageStorage, SpecificCharacterSet=character_set)
    dataset.PatientName = written
    assert found(dataset, NAME, "佐藤^次郎") == {0}


def test_kana_are_found_in_either_width() -> None:
    dataset = built(CTImageStorage, SpecificCharacterSet="ISO_IR 13", PatientName="ﾔﾏﾀﾞ^ﾀﾛｳ")
    assert found(dataset, "ヤマダ^タロウ", "ﾔﾏﾀﾞ", "ヤマダ", "サトウ") == {0, 1, 2}


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "euc_jp", "iso2022_jp", "utf-16-le"])
@pytest.mark.parametrize("word", ["山田太郎", "ヤマダタロウ", "AOYAMA HANAKO", "00012345"])
def test_words_hidden_in_pixels_are_found_in_every_encoding(encoding: str, word: str) -> None:
    raw = word.encode(encoding).removeprefix(b"\x1b$B").removesuffix(b"\x1b(B")
    pixels = bytes(range(128, 256)) * 64 + raw + bytes(range(128, 256)) * 64
    dataset = built(CTImageStorage, PixelData=pixels, BitsAllocated=8)
    dataset.PatientID = "other"
    assert scan_bytes(as_file(dataset), [word]) == [Hit(0, "bytes")]


def test_words_in_the_preamble_and_behind_the_end_are_found() -> None:
    data = as_file(built(CTImageStorage))
    assert not scan_bytes(data, ["AOYAMA"])
    assert scan_bytes(b"AOYAMA".ljust(128, b"\0") + data[128:], ["AOYAMA"]) == [Hit(0, "bytes")]
    assert scan_bytes(data + b"AOYAMA", ["AOYAMA"]) == [Hit(0, "bytes")]


def test_a_hit_says_where_and_never_what() -> None:
    inner = Dataset()
    inner.ImageComments = "seen by Aoyama"
    dataset = built(CTImageStorage, ReferencedImageSequence=Sequence([Dataset(), inner]))
    hits = scan_bytes(as_file(dataset), ["AOYAMA"])
    assert hits == [Hit(0, "(0008,1140)[1]/(0020,4000)"), Hit(0, "bytes")]
    assert "oyama" not in repr(hits).lower()


def test_short_words_are_found_in_text_and_in_small_binary_values() -> None:
    dataset = built(CTImageStorage)
    dataset.PatientName = "X"
    put(dataset, 0x00091001, "OB", "山田".encode("cp932") + b"  ")
    assert found(dataset, "山田") == {0}
    assert not found(
        built(CTImageStorage, PatientName="X", PixelData="山田".encode("cp932") * 4000, BitsAllocated=8), "山田"
    ), "by chance in pixels"


@pytest.mark.parametrize(
    ("word", "text", "there"),
    [
        ("12345", "no 12345.", True),
        ("12345", "P12345", True),
        ("12345", "1.2.392.12345.7", True),
        ("12345", "2.25.9123456", False),
        ("ABE", "Abe, T", True),
        ("ABE", "LABEL", False),
        ("ABE", "ABE12", True),
        ("太郎", "健太郎", True),
        ("A", "A", False),
        ("", "A", False),
        ("ＡＢＥ", "abe", True),
        ("SATO^ICHIRO", "sato ichiro", True),
        ("SATO^ICHIRO", "satoichiro", True),
        ("SATO^ICHIRO", "sato", False),
    ],
)
def test_where_a_word_ends(word: str, text: str, there: bool) -> None:
    assert bool(Canaries([word]).in_text(text)) is there


def test_every_word_is_named_by_its_place_in_the_list() -> None:
    canaries = Canaries([f"NAME{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(600)][:600])
    assert canaries.in_text("x NAMEBC y NAMECD") == {26 + 2, 52 + 3}
    assert canaries.in_bytes(b"\0NAMEBC\0\0nameCD") == {28, 55}
    assert not Canaries([]) and Canaries(["ab"])
    assert not scan_bytes(as_file(built(CTImageStorage)), [])


def test_the_search_finds_the_name_in_the_files_of_pydicom() -> None:
    for name in ("chrH31.dcm", "chrH32.dcm"):
        assert {hit.canary for hit in scan_bytes(bundled(name), [NAME, "やまだ^たろう", "佐藤"])} == {0, 1}


def test_what_is_no_dicom_is_searched_as_bytes(tmp_path: Path) -> None:
    assert scan_bytes("山田".encode(), ["山田"]) == [Hit(0, "bytes")]
    assert scan_bytes(b"x" * 5000 + b"AOYAMA", ["AOYAMA"]) == [Hit(0, "bytes")]
    (tmp_path / "AOYAMA.dcm").write_bytes(as_file(built(CTImageStorage))[:400])
    assert isinstance(scan_bytes(tmp_path / "AOYAMA.dcm", ["AOYAMA"]), list)
    with pytest.raises(InputError, match="cannot be read"):
        scan_bytes(tmp_path / "none.dcm", ["AOYAMA"])


@settings(deadline=None, max_examples=60)
@given(
    word=st.text(st.sampled_from("山田太郎花子佐藤高橋ヤマダタロウがぎぷ"), min_size=2, max_size=6),
    before=st.text(st.sampled_from("胸部単純CT 123^\\"), max_size=8),
)
def test_a_word_is_found_wherever_it_stands_in_text(word: str, before: str) -> None:
    dataset = built(CTImageStorage, PatientName="X", ImageComments=f"{before}{word}様")
    assert found(dataset, word) == {0}
