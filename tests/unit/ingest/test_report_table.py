"""Reading reports: what comes out, what is set aside and why, and what is refused as a whole."""

from __future__ import annotations

import csv
import gzip
import io
import resource
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reportlabel.errors import ConfigError, ExitCode, InputError
from reportlabel.ingest import csv_rows as csv_module
from reportlabel.ingest import report_table
from reportlabel.ingest.csv_rows import CsvLayout, RawRows, csv_rows
from reportlabel.ingest.report_table import QUARANTINE, REASONS, ReportReader, read_reports
from reportlabel.rulebook.load import rules_folder

CANARY_TEXT = "右上葉に結節を認めます。カナリア"
CANARY_ID = "KANARIA-4711"
REPORT = "【所見】\n右上葉に28x24 mmの結節を認めます, 「境界不明瞭」。\r\n胸水は認めません。\n【診断】\n肺癌疑い"


def as_csv(
    rows: Iterable[Sequence[str]], *, header: Sequence[str] = ("report_id", "text"), delimiter: str = ","
) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([header, *rows])
    return stream.getvalue()


def reader_of(tmp_path: Path, data: bytes | str, *, name: str = "reports.csv", **options: object) -> ReportReader:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_reports(path, **options)  # type: ignore[arg-type]


def pairs(reader: ReportReader) -> list[tuple[str, str]]:
    return [row for batch in reader for row in batch.reports.select("report_id", "text").iter_rows()]


def reasons(reader: ReportReader) -> list[tuple[int, str]]:
    assert reader.quarantine.schema == QUARANTINE
    return list(reader.quarantine.select("row", "reason").iter_rows())


def assert_nothing_lost(reader: ReportReader) -> None:
    assert reader.counts.rows_in == reader.counts.rows_out + reader.counts.quarantined
    assert reader.counts.quarantined == reader.quarantine.height


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_texts_with_newlines_commas_and_quotes_come_out_as_stored(tmp_path: Path) -> None:
    rows = [("R1", REPORT), ("R2", 'a "quoted" word, and a comma'), ("R3", '"'), ("R4", "plain")]
    reader = reader_of(tmp_path, as_csv(rows))
    assert pairs(reader) == rows
    assert reader.counts == (4, 4, 0)
    assert reader.notes == ()
    assert reader.encoding == "utf-8"


def test_row_numbers_and_other_columns(tmp_path: Path) -> None:
    data = as_csv([("x", REPORT, "R1"), ("y", "", "R2"), ("z", "正常", "R3")], header=("検査日", "所見", "報告書番号"))
    reader = reader_of(tmp_path, data, id_column="報告書番号", text_column="所見")
    (batch,) = reader
    assert batch.reports["row"].to_list() == [1, 3]
    assert batch.reports["report_id"].to_list() == ["R1", "R3"]
    assert reader.columns == ("検査日", "所見", "報告書番号")
    assert reasons(reader) == [(2, "empty_text")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_newline_styles_blank_lines_and_no_newline_at_the_end(tmp_path: Path, newline: str) -> None:
    data = newline.join(["", "report_id,text", "R1,正常", "", 'R2,"a\nb"', "", "R3,胸水"])
    reader = reader_of(tmp_path, data)
    assert pairs(reader) == [("R1", "正常"), ("R2", "a\nb"), ("R3", "胸水")]
    assert reader.counts.rows_in == 3


def test_tsv_gzip_and_parquet_give_the_same(tmp_path: Path) -> None:
    rows = [("R1", REPORT), ("R2", "tab\tinside"), ("R3", "正常")]
    tsv = as_csv(rows, delimiter="\t")
    pl.DataFrame(rows, schema=["report_id", "text"], orient="row").write_parquet(tmp_path / "r.parquet")
    assert pairs(reader_of(tmp_path, tsv, name="r.tsv")) == rows
    assert pairs(reader_of(tmp_path, gzip.compress(tsv.encode()), name="r.TSV.GZ")) == rows
    assert pairs(reader_of(tmp_path, gzip.compress(as_csv(rows).encode()), name="r.csv.gz")) == rows
    assert pairs(read_reports(tmp_path / "r.parquet")) == rows


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (pa.array([1, 2], pa.int32()), pa.array(["a", "b"], pa.large_string())),
        (pa.array(["1", "2"]).dictionary_encode(), pa.array(["a", "b"]).dictionary_encode()),
        (pa.array(["1", "2"], pa.string_view()), pa.array(["a", "b"], pa.string_view())),
    ],
)
def test_parquet_types_of_ids_and_texts(tmp_path: Path, ids: pa.Array, texts: pa.Array) -> None:
    pa_parquet.write_table(pa.table({"report_id": ids, "text": texts}), tmp_path / "r.parquet")
    reader = read_reports(tmp_path / "r.parquet")
    assert pairs(reader) == [("1", "a"), ("2", "b")]
    assert reader.encoding is None


def test_nul_and_control_characters_stay(tmp_path: Path) -> None:
    rows = [("R1", "a\0b\x01\x0b\x1f\x7f\u200b"), ("R2", "正\0常")]
    assert pairs(reader_of(tmp_path, as_csv(rows))) == rows
    pl.DataFrame(rows, schema=["report_id", "text"], orient="row").write_parquet(tmp_path / "r.parquet")
    assert pairs(read_reports(tmp_path / "r.parquet")) == rows


def test_a_lone_nul_between_records_breaks_its_own_row_only(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, b"report_id,text\nR1,a\n\0\nR2,b\n")
    assert pairs(reader) == [("R1", "a"), ("R2", "b")]
    assert reasons(reader) == [(2, "too_few_fields")]


def test_a_report_of_one_megabyte_and_one_of_eight(tmp_path: Path) -> None:
    rows = [("R1", "結節, \n" * 200_000), ("R2", "正常"), ("R3", "あ" * 3_000_000 + '\n"終"')]
    assert pairs(reader_of(tmp_path, as_csv(rows))) == rows


def test_a_text_over_the_limit_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_table, "MAX_TEXT_CHARS", 10)
    reader = reader_of(tmp_path, as_csv([("R1", "あ" * 10), ("R2", "あ" * 11)]))
    assert pairs(reader) == [("R1", "あ" * 10)]
    assert reasons(reader) == [(2, "too_long")]


def test_batches_have_the_size_asked_for_and_memory_limits_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"R{number}", "正常") for number in range(25)]
    reader = reader_of(tmp_path, as_csv(rows), batch_rows=10)
    assert [batch.reports.height for batch in reader] == [10, 10, 5]
    monkeypatch.setattr(report_table, "BATCH_BYTES", 1)
    monkeypatch.setattr("reportlabel.ingest.encoding.BLOCK_BYTES", 64)
    small = reader_of(tmp_path, as_csv(rows), batch_rows=20)
    assert max(batch.reports.height for batch in small) < 20
    assert pairs(small) == rows


def test_a_reader_can_be_iterated_again(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, as_csv([("R1", "a"), ("R1", "b"), ("R2", " ")]))
    assert pairs(reader) == pairs(reader) == [("R1", "a")]
    assert reader.counts == (3, 1, 2)


def test_a_header_without_rows_gives_no_batches(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, "report_id,text\n")
    assert pairs(reader) == []
    assert reader.counts == (0, 0, 0)
    assert reader.quarantine.is_empty()


# --- what is set aside ------------------------------------------------------------------------------------------------


def test_each_bad_row_has_its_reason_its_place_and_a_remedy(tmp_path: Path) -> None:
    data = (
        "report_id,text\n"  # line 1
        'R1,"two\nlines"\n'  # row 1, lines 2-3
        ",no id\n"  # row 2, line 4
        "R3,\n"  # row 3, line 5
        'R4," \t\u3000\n"\n'  # row 4, lines 6-7
        "R1,another\n"  # row 5, line 8
        "R6,too,many\n"  # row 6, line 9
        "R7\n"  # row 7, line 10
        'R8,6" tube\n'  # row 8, line 11
        "R9,fine\n"
    )
    reader = reader_of(tmp_path, data)
    assert pairs(reader) == [("R1", "two\nlines"), ("R9", "fine")]
    assert list(reader.quarantine.select("row", "line", "report_id", "reason").iter_rows()) == [
        (2, 4, "", "missing_report_id"),
        (3, 5, "R3", "empty_text"),
        (4, 6, "R4", "empty_text"),
        (5, 8, "R1", "duplicate_report_id"),
        (6, 9, None, "too_many_fields"),
        (7, 10, None, "too_few_fields"),
        (8, 11, None, "stray_quote"),
    ]
    assert set(reader.quarantine["file"]) == {"reports.csv"}
    assert reader.quarantine["remedy"].null_count() == 0
    assert_nothing_lost(reader)


def test_parquet_nulls_and_blanks(tmp_path: Path) -> None:
    frame = pl.DataFrame({"report_id": ["R1", None, "R3", " "], "text": [None, "a", "b", "c"]})
    frame.write_parquet(tmp_path / "r.parquet")
    reader = read_reports(tmp_path / "r.parquet")
    assert pairs(reader) == [("R3", "b")]
    assert reasons(reader) == [(1, "empty_text"), (2, "missing_report_id"), (4, "missing_report_id")]
    assert reader.quarantine["line"].null_count() == 3


def test_parquet_text_that_is_not_valid_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"ok", b"\xff\xfe", "正常".encode()], pa.binary())
    text = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pa_parquet.write_table(pa.table({"report_id": ["R1", "R2", "R3"], "text": text}), tmp_path / "r.parquet")
    reader = read_reports(tmp_path / "r.parquet")
    assert pairs(reader) == [("R1", "ok"), ("R3", "正常")]
    assert reasons(reader) == [(2, "undecodable")]
    assert reader.quarantine["report_id"].to_list() == ["R2"]


def test_duplicates_across_batches_keep_the_first(tmp_path: Path) -> None:
    rows = [(f"R{number % 70}", f"text {number // 140}") for number in range(210)]
    pl.DataFrame(rows, schema=["report_id", "text"], orient="row").write_parquet(tmp_path / "r.parquet")
    for reader in (reader_of(tmp_path, as_csv(rows), batch_rows=7), read_reports(tmp_path / "r.parquet", batch_rows=7)):
        assert pairs(reader) == rows[:70]
        assert set(reader.quarantine["reason"]) == {"duplicate_report_id"}
        same, other = reader.quarantine["remedy"][0], reader.quarantine["remedy"][-1]
        assert "the same text" in same
        assert "another text" in other
        assert_nothing_lost(reader)


def test_a_bad_first_row_does_not_take_the_id(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, as_csv([("R1", ""), ("R1", "正常"), ("R1", "正常")]))
    assert pairs(reader) == [("R1", "正常")]
    assert reasons(reader) == [(1, "empty_text"), (3, "duplicate_report_id")]


BROKEN = {
    "closing quote missing": 'R0002,"右肺に結節\n3, 縦隔に腫大\n所見, なし\n',
    "inner quotes not doubled": 'R0002,"いわゆる"すりガラス"影, を\n認めます"\n',
    "text after the closing quote": 'R0002,"結節"あり\n',
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("at", [0, 1, 2])
def test_reading_goes_on_after_broken_quotes(tmp_path: Path, broken: str, at: int) -> None:
    good = ['R0001,"a\nb"\n', 'R0003,"c\n""d"", e"\n', 'R0004,"f"\n']
    records = [*good[:at], broken, *good[at:]]
    reader = reader_of(tmp_path, "report_id,text\n" + "".join(records))
    assert pairs(reader) == [("R0001", "a\nb"), ("R0003", 'c\n"d", e'), ("R0004", "f")]
    assert reasons(reader) == [(at + 1, "broken_quotes")]
    start = 2 + "".join(records[:at]).count("\n")
    assert reader.quarantine.select("line", "last_line").row(0) == (start, start + broken.count("\n") - 1)


def test_a_quote_that_is_never_closed_takes_its_own_row_only(tmp_path: Path) -> None:
    rows = "".join(f"R{number:04d},正常 {number}\n" for number in range(1000))
    reader = reader_of(tmp_path, "report_id,text\n" + rows.replace("R0500,", 'R0500,"'))
    assert len(pairs(reader)) == 999
    assert reasons(reader) == [(501, "broken_quotes")]


def test_the_last_record_broken(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, 'report_id,text\nR1,"a"\nR2,"b\nc')
    assert pairs(reader) == [("R1", "a")]
    assert reasons(reader) == [(2, "broken_quotes")]


def test_undecodable_rows_are_set_aside_not_the_file(tmp_path: Path) -> None:
    rows = [f"R{number},右上葉の結節 {number}\n".encode() for number in range(50)]
    rows[7] = b"R7,\x8c\x8b\x90\xdf\n"
    rows[9] = b"\xff,text\n"
    reader = reader_of(tmp_path, b"report_id,text\n" + b"".join(rows))
    assert len(pairs(reader)) == 48
    assert list(reader.quarantine.select("row", "line", "report_id", "reason").iter_rows()) == [
        (8, 9, "R7", "undecodable"),
        (10, 11, None, "undecodable"),
    ]
    assert reader.encoding == "utf-8"
    assert len(reader.notes) == 1


def test_two_hundred_thousand_rows_with_three_broken_ones(tmp_path: Path) -> None:
    texts = [f'"{REPORT} {number}"' for number in range(200_000)]
    texts[1_000] = f'"{REPORT}'  # no closing quote
    texts[100_000] = texts[100_000] + ",x"  # a field too many
    records = [f"R{number:06d},{text}\n".encode() for number, text in enumerate(texts)]
    records[199_998] = b'R199998,"\xff\xff"\n'
    path = tmp_path / "reports.csv"
    path.write_bytes(b"report_id,text\n" + b"".join(records))
    reader = read_reports(path)
    start = time.perf_counter()
    assert sum(batch.reports.height for batch in reader) == 199_997
    assert time.perf_counter() - start < 20
    assert reader.counts == (200_000, 199_997, 3)
    assert reasons(reader) == [(1_001, "broken_quotes"), (100_001, "too_many_fields"), (199_999, "undecodable")]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2_000_000


# --- what is refused --------------------------------------------------------------------------------------------------


def test_no_file_a_directory_an_empty_file_and_unknown_kinds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.csv: no such file"):
        read_reports(tmp_path / "nothing.csv")
    with pytest.raises(InputError, match="no such file"):
        read_reports(tmp_path / ("n" * 300 + ".csv"))
    (tmp_path / "folder.csv").mkdir()
    for folder in (tmp_path, tmp_path / "folder.csv"):
        with pytest.raises(InputError, match="is a directory; give one file"):
            read_reports(folder)
    with pytest.raises(InputError, match="is empty"):
        reader_of(tmp_path, b"")
    for name in ("reports.xlsx", "reports", "reports.gz", "reports.parquet.gz"):
        with pytest.raises(InputError, match="unknown kind of file"):
            reader_of(tmp_path, "report_id,text\n", name=name)


@pytest.mark.parametrize("data", [b"\n\n\r\n", b"\xef\xbb\xbf", b'"report_id', b'"report_id"x,text\nR1,a\n'])
def test_no_header(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="no header"):
        reader_of(tmp_path, data)


def test_a_missing_column_names_those_there_are_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        reader_of(tmp_path, "Report ID,text\nR1,a\n")
    message = str(caught.value)
    assert "no column 'report_id' (nearest: 'Report ID'); the columns are: 'Report ID', 'text'" in message
    assert "--id-column" in message
    with pytest.raises(InputError, match=r"no column 'text'; the columns are: 'report_id', '読影所見'.*--text-column"):
        reader_of(tmp_path, "report_id,読影所見\nR1,a\n")
    pl.DataFrame({"id": ["1"], "texts": ["a"]}).write_parquet(tmp_path / "r.parquet")
    with pytest.raises(InputError, match=r"nearest: 'texts'"):
        read_reports(tmp_path / "r.parquet", id_column="id")


def test_the_columns_that_are_named_end_as_the_rules_say(tmp_path: Path) -> None:
    right = (rules_folder() / "ingest" / "report_table.yaml").read_text(encoding="utf-8")
    (tmp_path / "ingest").mkdir()
    file = tmp_path / "ingest" / "report_table.yaml"
    file.write_text(right.replace(" 所見,", ""), encoding="utf-8")
    columns = ["読影所見", "氏名", "佐藤"]
    assert report_table._quotable_names(columns, report_table.load_report_table_rules()) == ["読影所見", "氏名"]
    assert report_table._quotable_names(columns, report_table.load_report_table_rules(tmp_path)) == ["氏名"]
    file.write_text(right.replace("header_endings", "endings"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"report_table\.yaml:\d+: unknown key 'endings'"):
        report_table.load_report_table_rules(tmp_path)


def test_a_column_that_occurs_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'text' occurs 2 times"):
        reader_of(tmp_path, "report_id,text,text\nR1,a,b\n")


def test_another_delimiter_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name the file \.tsv"):
        reader_of(tmp_path, "report_id\ttext\nR1\ta\n")
    with pytest.raises(InputError, match="save it with commas"):
        reader_of(tmp_path, "report_id;text\nR1;a\n")
    with pytest.raises(InputError, match=r"name the file \.csv"):
        reader_of(tmp_path, "report_id,text\nR1,a\n", name="r.tsv")


def test_files_that_are_not_what_their_name_says(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds Parquet data"):
        reader_of(tmp_path, b"PAR1xxxx")
    with pytest.raises(InputError, match="spreadsheet"):
        reader_of(tmp_path, b"PK\x03\x04xxxx")
    with pytest.raises(InputError, match=r"must end in \.gz"):
        reader_of(tmp_path, gzip.compress(b"report_id,text\n"))
    with pytest.raises(InputError, match=r"must end in \.gz"):
        reader_of(tmp_path, b"report_id,text\n", name="r.csv.gz")
    with pytest.raises(InputError, match="damaged or cut off"):
        reader_of(tmp_path, gzip.compress(as_csv([("R1", REPORT)]).encode())[:-12], name="r.csv.gz")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        reader_of(tmp_path, b"report_id,text\n", name="r.parquet")


def test_a_damaged_parquet_page_ends_with_one_message(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pl.DataFrame({"report_id": [f"R{n}" for n in range(5000)], "text": [CANARY_TEXT * 5] * 5000}).write_parquet(path)
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"r\.parquet: (damaged after row|not a readable)"):
        list(read_reports(path))


def test_columns_of_the_wrong_type(tmp_path: Path) -> None:
    pl.DataFrame({"report_id": [1.5], "text": [1]}).write_parquet(tmp_path / "r.parquet")
    with pytest.raises(InputError, match=r"column 'text' holds int64, not text"):
        read_reports(tmp_path / "r.parquet")
    pl.DataFrame({"report_id": [1.5], "text": ["a"]}).write_parquet(tmp_path / "r.parquet")
    with pytest.raises(InputError, match=r"column 'report_id' holds double"):
        read_reports(tmp_path / "r.parquet")


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        reader_of(tmp_path, "a,b\n", id_column="a", text_column="a")
    with pytest.raises(ConfigError):
        reader_of(tmp_path, "report_id,text\n", batch_rows=0)
    with pytest.raises(ConfigError, match=r"unknown encoding 'klingon'.*cp932"):
        reader_of(tmp_path, "report_id,text\n", encoding="klingon")


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reports.csv"
    path.write_text("report_id,text\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"reports\.csv: cannot be read: Permission denied"):
        read_reports(path)
    assert int(InputError.exit_code) == int(ExitCode.USAGE) == 2


# --- nothing of a patient in messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("r.csv", f"{CANARY_ID},{CANARY_TEXT}\n{CANARY_ID},{CANARY_TEXT}\n".encode()),
        ("r.csv", f"{CANARY_ID}\n{CANARY_TEXT}\n".encode()),
        ("r.csv", f"KANARIA,異常なしカナリア\nKANARIA,{CANARY_TEXT}\n".encode()[8:]),
        ("r.csv", f'report_id,text\n{CANARY_ID},"{CANARY_TEXT}'.encode()),
        ("r.csv", f"report_id,text\n{CANARY_ID},{CANARY_TEXT},{CANARY_TEXT}\n".encode()),
        ("r.csv", f"report_id,text\n{CANARY_ID},{CANARY_TEXT}\n".encode() + b"\xff\xff,\xff\n"),
        ("r.csv", f"report_id,text\n{CANARY_ID},{CANARY_TEXT}\n".encode("utf-16")[:-1]),
        ("r.csv.gz", gzip.compress(f"report_id,text\n{CANARY_ID},{CANARY_TEXT}\n".encode())[:-9]),
        ("r.parquet", f"{CANARY_ID},{CANARY_TEXT}\n".encode()),
    ],
    ids=["headerless", "one-column", "no-digits", "open-quote", "ragged", "bytes", "utf-16", "gzip", "not-parquet"],
)
def test_no_text_and_no_id_in_any_message(tmp_path: Path, name: str, data: bytes) -> None:
    said: list[str] = []
    try:
        reader = reader_of(tmp_path, data, name=name)
        list(reader)
        said += [*reader.notes, *reader.quarantine["reason"], *reader.quarantine["remedy"], repr(reader)]
    except InputError as error:
        said += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    assert said
    for message in said:
        assert "KANARIA" not in message
        assert "4711" not in message
        assert "カナリア" not in message


# --- properties -------------------------------------------------------------------------------------------------------

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
fragments = st.lists(
    st.sampled_from(["R1", "R2", "R03", "結節", '"', '""', ",", "\n", "\r\n", "\r", "\0", " ", "\u3000", "\t"]),
    max_size=40,
).map("".join)
some_bytes = st.one_of(
    fragments.map(str.encode),
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"R1,", b"\x8c\x8b", b'"', b"\n"])).map(b"".join),
)
once_per_path = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@once_per_path
@given(rows=st.lists(st.tuples(any_text, any_text), max_size=12))
def test_what_the_csv_module_writes_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    reader = reader_of(tmp_path, as_csv(rows), encoding="utf-8")
    kept: dict[str, str] = {}
    for report_id, text in rows:
        if report_id.strip() and text.strip():
            kept.setdefault(report_id, text)
    got = dict(pairs(reader))
    assert_nothing_lost(reader)
    assert reader.counts.rows_in == len(rows)
    # Python and polars disagree on whether U+001C-U+001F are white space; neither is wrong about a report.
    assert {key: value for key, value in got.items() if key.strip() and value.strip()} == kept


@once_per_path
@given(data=some_bytes, block=st.integers(1, 40))
@example(data=b'R1,"a\n', block=3)
@example(data=b"\r", block=1)
def test_rows_in_are_rows_out_and_quarantined_whatever_the_bytes(tmp_path: Path, data: bytes, block: int) -> None:
    whole = reader_of(tmp_path, b"report_id,text\n" + data, encoding="utf-8")
    expected = pairs(whole)
    assert_nothing_lost(whole)
    assert set(whole.quarantine["reason"]) <= set(REASONS)
    rows = [*whole.quarantine["row"], *(row for batch in whole for row in batch.reports["row"])]
    assert sorted(rows) == list(range(1, whole.counts.rows_in + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reportlabel.ingest.encoding.BLOCK_BYTES", block)
        assert pairs(whole) == expected
        assert_nothing_lost(whole)


@once_per_path
@given(
    data=st.one_of(fragments.map(str.encode), st.lists(st.tuples(any_text, any_text)).map(lambda r: as_csv(r).encode()))
)
def test_the_fast_and_the_careful_way_agree(data: bytes) -> None:
    layout = CsvLayout(delimiter=b",", width=2, id_index=0, text_index=1)

    def read(*, fast: bool) -> list[RawRows]:
        with pytest.MonkeyPatch.context() as patch:
            if not fast:
                patch.setattr(csv_module, "_clean_rows", lambda *_, **__: None)
            return list(csv_rows(iter([data]), layout=layout, rest=b"", line=1))

    fast, careful = read(fast=True), read(fast=False)
    for part in (0, 1):
        tables = [pl.concat([rows[part] for rows in result]) if result else None for result in (fast, careful)]
        if tables[0] is None or tables[1] is None:
            assert tables == [None, None]
        else:
            assert tables[0].equals(tables[1])
