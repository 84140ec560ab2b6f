"""What must hold for every text whatsoever: offsets, sentences, normalisation, time."""

from __future__ import annotations

import random
import string
import time
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.language import Language

import reportlabel
from reportlabel.annotate.annotator import Annotator, Row
from reportlabel.annotate.normalise import compact
from reportlabel.annotate.pipeline import mentions_of

STATUSES = {"present", "uncertain", "absent"}
TEMPORALITIES = {"current", "past", "hypothetical"}
REGION = "chest"

FRAGMENTS = [
    # headings and layout
    *(
        "【所見】",
        "【診断】",
        "【依頼目的】",
        "■診断:",
        "Impression:",
        "肝:",
        "<比較>",
        "1. ",
        "・",
        "\n",
        "\r\n",
        "\r",
    ),
    *(" ", "\u3000", "\t", "。", "、", "，", "．", ".", "?", ":", "：", "(", ")", "（", "「", "」", "→", "【", "】"),
    # findings, sites, sides
    *("結節", "腫瘤", "⻑径", "胸水", "腹水", "リンパ節", "腫大", "肺癌", "転移", "無気肺", "胆石", "GGN", "nodule"),
    *("右", "左", "両側", "右肺上葉", "S2", "左下葉", "縦隔・肺門", "肝", "副腎", "胸膜", "膵", "甲状腺", "気管分岐下"),
    # predicates, cues, particles
    *("を認めます", "を認めません", "なし", "の疑い", "を疑います", "が疑われる", "は否定できない", "術後", "既知の"),
    *(
        "増大",
        "縮小",
        "著変なし",
        "消失",
        "前回",
        "除外目的",
        "s/o",
        "r/o",
        "no ",
        "n.p.",
        "認め、",
        "が、",
        "や",
        "の",
    ),
    # numbers, units, image references
    *("12mm", "１２ｍｍ", "28x24 mm", "28×24㎜", "約3.5cm", "㎝", "3個", "多発", "Se3 Im45", "2026年11月1日", "0", "9"),
    # characters that are not what they look like
    *("ｶﾞ", "ﾌﾟﾗｰｸ", "か\u3099", "ﾞ", "\u309a", "㍉", "①", "⼤", "⾻", "ﬁ", "\u0130", "ẞ", "e\u0301", "\u1100\u1161"),
    # characters that are in the way
    *("\x00", "\x01", "\x1b", "\x7f", "\x85", "\u2028", "\u200b", "\ufeff", "\u202e", "\ufffd", "\U0010ffff", "😀"),
]
LETTERS = "右左肺肝結節胸水腫瘤をはがのにや認疑なし。、(){}「」:【】 \n\x00ﾞﾟｶㇷ㎜0123mc" + string.ascii_letters

fragments = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)
words = st.text(st.sampled_from(LETTERS))
mixed = st.lists(st.one_of(fragments, words, st.text(max_size=8)), max_size=6).map("".join)
texts = st.one_of(st.text(), fragments, words, mixed)
# st.text() leaves lone surrogates out
surrogates = st.lists(st.one_of(fragments, st.just("\ud83d")), max_size=5).map("".join)
any_texts = st.one_of(texts, st.text(st.characters(codec=None)), surrogates)

often = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seldom = settings(often, max_examples=200)


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator()


@pytest.fixture(scope="module")
def nlp() -> Language:
    return reportlabel.load(region=REGION)


# --- normalisation


@given(text=any_texts)
@often
def test_the_normaliser_keeps_every_offset(annotator: Annotator, text: str) -> None:
    normalised = annotator.normaliser(text)
    assert len(normalised) == len(text)
    normalised.encode()
    assert "\x00" not in normalised


def test_normalised_text_is_normal(annotator: Annotator) -> None:
    every = "".join(map(chr, range(0x110000)))
    normalised = annotator.normaliser(every)
    again = annotator.normaliser(normalised)
    assert [every[at] for at in range(len(every)) if again[at] != normalised[at]] == []


@given(several=st.lists(any_texts, max_size=5))
@seldom
def test_many_texts_are_normalised_as_each_alone(annotator: Annotator, several: list[str]) -> None:
    assert annotator.normaliser.many(several) == [annotator.normaliser(text) for text in several]


@given(text=any_texts)
@often
def test_compact_spans_are_monotone(annotator: Annotator, text: str) -> None:
    sentence = annotator.normaliser(text)
    small = compact(sentence)
    spans = [small.span(at, at + 1) for at in range(len(small.text))]
    for start, end in spans:
        assert 0 <= start < end <= len(sentence)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start <= next_start
        assert end <= next_end
        # characters of one cluster share a span; others do not overlap
        assert (start, end) == (next_start, next_end) or end <= next_start
    covered = {at for start, end in spans for at in range(start, end)}
    assert all(sentence[at].isspace() for at in range(len(sentence)) if at not in covered)
    assert all(0 <= gap <= len(small.text) for gap in small.gaps)


# --- sentences


@given(text=any_texts)
@often
def test_sentences_are_in_order_and_without_blanks_around(annotator: Annotator, text: str) -> None:
    normalised = annotator.normaliser(text)
    at = line = 0
    for sentence in annotator.sentences(text):
        assert at <= sentence.start < sentence.end <= len(text)
        written = normalised[sentence.start : sentence.end]
        assert written == written.strip()
        assert sentence.line >= line
        at, line = sentence.end, sentence.line


@given(text=any_texts)
@often
def test_sentences_cover_all_but_headings_and_blanks(annotator: Annotator, text: str) -> None:
    normalised = annotator.normaliser(text)
    at = 0
    for sentence in annotator.sentences(text):
        assert _is_heading_or_blank(normalised[at : sentence.start], annotator)
        at = sentence.end
    assert _is_heading_or_blank(normalised[at:], annotator)


def _is_heading_or_blank(left_out: str, annotator: Annotator) -> bool:
    closing = annotator.normaliser(annotator.rules.sections.brackets.close)
    return not left_out.strip() or any(mark in left_out for mark in (":", *"】]>〉》", *closing))


# --- mentions


@given(text=any_texts)
@often
def test_mentions_lie_in_the_text_and_are_a_term(annotator: Annotator, text: str) -> None:
    sentences = annotator.sentences(text)
    for row in annotator.mentions(text, region=REGION):
        values = row._asdict()
        start, end = values["start"], values["end"]
        sentence = sentences[values["sentence"]]
        assert 0 <= start < end <= len(text)
        assert sentence.start <= start < end <= sentence.end
        assert values["section"] == sentence.section
        assert values["surface"] == text[start:end]
        assert values["surface"].strip() == values["surface"]
        assert values["status"] in STATUSES
        assert values["temporality"] in TEMPORALITIES
        assert values["size_mm"] is None or values["size_mm"] >= 0
        assert "" not in (values["site"], values["side"], values["lobe"], values["cue"], values["rule_id"])
        # a voice mark that its character cannot take (節ﾞ) stays with it
        surfaces = (values["surface"], values["surface"].rstrip("\u3099\u309aﾞﾟ"))
        assert any(_ends_in_term(annotator, surface, values["rule_id"]) for surface in surfaces)


def _ends_in_term(annotator: Annotator, surface: str, rule_id: str) -> bool:
    """Whether the words of the mention are a term of the rule; a compound may stand for the word it ends in."""
    small = compact(annotator.normaliser(surface)).text
    lexicon = annotator.grammar.lexicon
    return any(
        end == len(small) and any(entry.rule_id == rule_id for entry in lexicon.entries[pattern])
        for pattern, _, end in lexicon.automaton.find_matches_as_indexes(small, overlapping=True)
    )


@given(text=any_texts)
@seldom
def test_what_was_read_before_changes_nothing(annotator: Annotator, text: str) -> None:
    remembered = annotator.mentions(text, region=REGION)
    assert annotator.mentions(text, region=REGION) == remembered
    annotator._analyses.clear()
    annotator.context.forget()
    assert annotator.mentions(text, region=REGION) == remembered


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21])
def test_forgetting_in_the_middle_of_a_report_changes_nothing(
    annotator: Annotator, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    choice = random.Random(size)
    sentences = [
        f"{site}に{finding}{predicate}。"
        for site in ("右肺上葉", "左肺下葉", "肝S5", "縦隔", "胸膜", "両側腎")
        for finding in ("結節", "腫瘤", "肥厚", "嚢胞", "リンパ節腫大", "転移")
        for predicate in ("を認めます", "は認めません", "の疑いがあります", "があり、肺癌を疑います")
    ]
    reports = ["".join(choice.choices(sentences, k=choice.randint(1, 9))) for _ in range(300)]
    expected = [annotator.mentions(report) for report in reports]
    monkeypatch.setattr("reportlabel.annotate.annotator._CACHE_SIZE", size)
    annotator._analyses.clear()
    annotator.context.forget()
    assert [annotator.mentions(report) for report in reports] == expected


@given(several=st.lists(texts, max_size=4))
@seldom
def test_a_table_gives_the_mentions_of_each_text(annotator: Annotator, several: list[str]) -> None:
    ids = [str(number) for number in range(len(several))]
    reports = pl.DataFrame({"report_id": ids, "text": several}, schema={"report_id": pl.String, "text": pl.String})
    rows: list[Row] = [
        row
        for report_id, text in zip(ids, several, strict=True)
        for row in annotator.mentions(text, report_id=report_id, region=REGION)
    ]
    assert annotator.annotate(reports, region=REGION).rows() == rows


@given(text=any_texts)
@often
def test_the_pipeline_gives_the_mentions_of_the_batch_path(annotator: Annotator, nlp: Language, text: str) -> None:
    doc = nlp(text)
    assert len(doc.text) == len(text)
    assert doc.text == "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    assert mentions_of(doc) == annotator.mentions(text, region=REGION)
    for span in doc.spans["findings"]:
        assert span.start_char <= span._.start < span._.end <= span.end_char


# --- long reports

MEGABYTE = 1_000_000
REPORT = (
    "左舌区S4に⻑径28mm大の境界明瞭な不整形陰影が認められます。辺縁にはspiculaや胸膜陥入像を伴っており、T1bの肺癌として"
    "矛盾しません。\n右肺下葉には結節が認められます。胸水、腹水は認めません。\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        pytest.param(REPORT, id="a report again and again"),
        pytest.param(REPORT.replace("\n", ""), id="one line"),
        pytest.param("結節", id="one word without end"),
        pytest.param("右肺に結節を認め、", id="one sentence without end"),
        pytest.param("胸水、", id="one list without end"),
        pytest.param("(", id="brackets that never close"),
        pytest.param("(結節)", id="brackets"),
        pytest.param("【", id="headings that never close"),
        pytest.param("肝:", id="headings"),
        pytest.param("1", id="digits"),
        pytest.param("1.", id="numbers"),
        pytest.param("1x", id="sizes without unit"),
        pytest.param("1mm", id="sizes"),
        pytest.param("a", id="letters"),
        pytest.param("ｶﾞ", id="voice marks"),
        pytest.param(" ", id="blanks"),
        pytest.param("\n", id="empty lines"),
        pytest.param("結節の\n", id="lines that wrap"),
        pytest.param("\x00", id="NUL"),
    ],
)
def test_a_megabyte_takes_bounded_time(annotator: Annotator, unit: str) -> None:
    text = (unit * (MEGABYTE // len(unit) + 1))[:MEGABYTE]
    begin = time.process_time()
    for row in annotator.mentions(text, region=REGION):
        assert row.surface == text[row.start : row.end]
    assert time.process_time() - begin < 20


@pytest.mark.slow
def test_the_pipeline_reads_a_megabyte(annotator: Annotator, nlp: Language) -> None:
    text = (REPORT * (MEGABYTE // len(REPORT) + 1))[:MEGABYTE]
    begin = time.process_time()
    doc = nlp(text)
    assert time.process_time() - begin < 60
    assert mentions_of(doc) == annotator.mentions(text, region=REGION)
