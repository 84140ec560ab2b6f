"""Encodings of report files: told from the bytes, said where it is a guess, overridden by the user."""

from __future__ import annotations

from pathlib import Path

import pytest

from reportlabel.errors import ConfigError, InputError
from reportlabel.ingest.encoding import choose_encoding, utf8_blocks
from reportlabel.ingest.report_table import ReportReader, read_reports

TEXT = "①髙﨑 28㎜の結節、ﾘﾝﾊﾟ節Ⅱ～③―を認めます"
LONG = "".join(f'R{number},"{TEXT}\n{number}"\n' for number in range(300))


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "reports.csv"
    path.write_bytes(data)
    return path


def texts(reader: ReportReader) -> list[str]:
    return [text for batch in reader for text in batch.reports["text"]]


@pytest.mark.parametrize(
    ("codec", "chosen", "notes"),
    [
        ("utf-8", "utf-8", 0),
        ("utf-8-sig", "utf-8", 0),
        ("cp932", "cp932", 1),
        ("utf-16", "utf-16", 0),
        ("utf-16-le", "utf-16-le", 1),
        ("utf-16-be", "utf-16-be", 1),
    ],
)
def test_the_encoding_is_told_from_the_bytes(tmp_path: Path, codec: str, chosen: str, notes: int) -> None:
    reader = read_reports(written(tmp_path, ("report_id,text\n" + LONG).encode(codec)))
    assert texts(reader) == [f"{TEXT}\n{number}" for number in range(300)]
    assert (reader.encoding, len(reader.notes)) == (chosen, notes)
    assert all("--encoding" in note and chosen in note for note in reader.notes)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "cp932", "euc_jp", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_characters_that_span_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, block: int) -> None:
    block = max(block, 3) if codec == "utf-8-sig" else block  # the mark itself is never cut
    monkeypatch.setattr("reportlabel.ingest.encoding.BLOCK_BYTES", block)
    text = "右上葉の結節、\nﾘﾝﾊﾟ節"
    reader = read_reports(written(tmp_path, f'report_id,text\nR1,"{text}"\n'.encode(codec)), encoding=codec)
    assert texts(reader) == [text]


def test_plain_ascii_needs_no_warning(tmp_path: Path) -> None:
    reader = read_reports(written(tmp_path, b"report_id,text\nR1,no nodule\n"))
    assert (reader.encoding, reader.notes) == ("utf-8", ())


def test_bytes_valid_in_both_are_reported_and_can_be_overridden(tmp_path: Path) -> None:
    both = "ﾂｱ".encode("cp932")  # two half-width katakana, or one character of two UTF-8 bytes
    path = written(tmp_path, b"report_id,text\nR1," + both + b"\n")
    guessed = read_reports(path)
    assert guessed.encoding == "utf-8"
    assert len(guessed.notes) == 1
    assert "valid cp932" in guessed.notes[0]
    assert "--encoding" in guessed.notes[0]
    told = read_reports(path, encoding="Shift_JIS")
    assert (told.encoding, told.notes, texts(told)) == ("cp932", (), ["ﾂｱ"])


def test_a_few_bad_rows_do_not_turn_utf8_into_cp932(tmp_path: Path) -> None:
    bad = b"R0,\x8c\x8b\x90\xdf\n"  # valid cp932
    reader = read_reports(written(tmp_path, b"report_id,text\n" + bad + LONG.encode() + bad.replace(b"R0", b"X0")))
    assert reader.encoding == "utf-8"
    assert len(texts(reader)) == 300
    assert reader.quarantine["reason"].to_list() == ["undecodable"] * 2
    assert "2 of" in reader.notes[0]


@pytest.mark.parametrize("broken", [b"\xff", b"\x81\n", b"\x80", b"\xa0", b"\xfc\xfc"])
def test_bad_rows_in_cp932(tmp_path: Path, broken: bytes) -> None:
    rows = b'B1,"' + broken + b'"\nB2,"\x8c"\nB3,ok\n'
    reader = read_reports(written(tmp_path, ("report_id,text\n" + LONG).encode("cp932") + rows))
    assert reader.encoding == "cp932"
    assert len(texts(reader)) == 301
    assert reader.quarantine.select("row", "report_id", "reason").rows() == [
        (301, "B1", "undecodable"),
        (302, "B2", "undecodable"),
    ]


def test_utf16_with_a_lone_surrogate_and_half_a_unit(tmp_path: Path) -> None:
    data = "report_id,text\nR1,a\nR2,\ud83d\nR3,b".encode("utf-16-le", "surrogatepass")
    reader = read_reports(written(tmp_path, b"\xff\xfe" + data + b"x"))
    assert texts(reader) == ["a"]
    assert reader.quarantine.select("row", "reason").rows() == [(2, "undecodable"), (3, "undecodable")]


def test_a_wrong_override_quarantines_what_it_cannot_read(tmp_path: Path) -> None:
    reader = read_reports(written(tmp_path, "report_id,text\nR1,正常\nR2,normal\n".encode("cp932")), encoding="utf-8")
    assert texts(reader) == ["normal"]
    assert reader.quarantine["reason"].to_list() == ["undecodable"]


def test_a_file_that_is_no_utf16_at_all_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_bytes("報告,所見\n".encode("cp932"))
    with pytest.raises(InputError, match=r"reports\.csv: is not utf-16; give the encoding it is in \(utf-8, cp932"):
        list(utf8_blocks(path, encoding="utf-16"))


def test_euc_jp_is_hinted_at(tmp_path: Path) -> None:
    data = "report_id,text\nR1,右上葉に結節を認めます\nR2,胸水は認めません\n".encode("euc_jp")
    reader = read_reports(written(tmp_path, data))
    assert "euc_jp" in reader.notes[0]
    assert texts(read_reports(reader.path, encoding="EUC-JP")) == ["右上葉に結節を認めます", "胸水は認めません"]


@pytest.mark.parametrize("alias", ["utf8", "UTF-8", "utf_8_sig", "sjis", "Windows-31J", "CP932", "UTF_16_LE"])
def test_names_of_encodings(tmp_path: Path, alias: str) -> None:
    assert choose_encoding(tmp_path / "unread.csv", encoding=alias).name in {"utf-8", "cp932", "utf-16-le"}


def test_unknown_encoding_and_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--encoding takes one of: utf-8, cp932"):
        choose_encoding(tmp_path / "unread.csv", encoding="latin-1")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(utf8_blocks(tmp_path / "missing.csv", encoding="cp932"))
