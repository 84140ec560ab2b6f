"""A report cut into pieces."""

import polars as pl
import pytest

from reportlabel.annotate.annotator import Annotator
from reportlabel.report.reading import ReadMention, cut, read_mentions
from reportlabel.rulebook.display import load_display

TEXT = "右肺上葉に24mm大の結節を認め、\n転移が疑われます。胸水なし。"


@pytest.fixture(scope="module")
def mentions() -> list[ReadMention]:
    annotator = Annotator()
    report = pl.DataFrame({"report_id": ["1"], "text": [TEXT]})
    return read_mentions(
        TEXT, annotator.annotate(report, region="chest"), annotator, load_display(annotator.rules.folder)
    )


def test_names_attributes_and_numbers(mentions: list[ReadMention]) -> None:
    nodule = mentions[0]
    assert (nodule.number, nodule.name.ja, nodule.status, nodule.cue) == (1, "肺結節", "present", "認め")
    assert ("大きさ", "24mm") in nodule.attributes and ("側", "右") in nodule.attributes
    assert nodule.summary.startswith("右上葉") and "24mm" in nodule.summary
    assert [mention.number for mention in mentions] == list(range(1, len(mentions) + 1))


def test_the_pieces_are_the_whole_text(mentions: list[ReadMention]) -> None:
    pieces = cut(TEXT, mentions)
    assert "".join(piece.text for piece in pieces) == TEXT
    assert [piece.text for piece in pieces if 0 in piece.mentions] == ["結節"]
    assert "".join(piece.text for piece in pieces if 0 in piece.clauses) == "右肺上葉に24mm大の結節を認め"


def test_every_mention_ends_in_one_piece(mentions: list[ReadMention]) -> None:
    ends = [at for piece in cut(TEXT, mentions) for at in piece.ends]
    assert sorted(ends) == list(range(len(mentions)))


def test_a_text_without_mentions_is_one_piece() -> None:
    assert [piece.text for piece in cut("特記なし", [])] == ["特記なし"]
    assert cut("", []) == []
