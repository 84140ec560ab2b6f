"""Word pieces of Japanese models keep their place in the stored text."""

from __future__ import annotations

from pathlib import Path

import pytest

from reportlabel.errors import ConfigError
from reportlabel.vote.bert import ModelPart
from reportlabel.vote.word_pieces import MecabEntry, MecabTokens, nfkc_with_spans

VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "結節",
    "を",
    "認め",
    "##る",
    "る",
    "mm",
    "12",
    "大",
    "の",
    "ct",
    "ガ",
]


def tokens(folder: Path, **values: object) -> MecabTokens:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    part = ModelPart(file="vocab.txt", sha256="0" * 64)
    return MecabTokens(MecabEntry.model_validate({"kind": "mecab", "vocabulary": part, **values}), folder)


@pytest.mark.parametrize("text", ["ｶﾞﾝ㎜Ⅲ", "か\u3099ん", "①②①", "ﾌﾟﾗｰｸ １２㎜", "a\u0301b", ""])
def test_every_character_has_its_span(text: str) -> None:
    form, spans = nfkc_with_spans(text, lower_case=False)
    assert len(form) == len(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert spans == sorted(spans)


def test_clusters_are_composed() -> None:
    assert nfkc_with_spans("ｶﾞ㎜", lower_case=False) == ("ガmm", [(0, 2), (2, 3), (2, 3)])


def test_pieces_are_found_and_placed(tmp_path: Path) -> None:
    text = "１２㎜大の結節を認める\n"
    found = tokens(tmp_path)(text)
    told = [(VOCABULARY[piece.id], text[piece.start : piece.end]) for piece in found]
    assert ("結節", "結節") in told
    assert ("mm", "㎜") in told
    assert ("12", "１２") in told
    assert [piece.start for piece in found] == sorted(piece.start for piece in found)


def test_a_word_that_cannot_be_cut_is_one_unknown_piece(tmp_path: Path) -> None:
    text = "肺気腫と結節"
    told = [(VOCABULARY[piece.id], text[piece.start : piece.end]) for piece in tokens(tmp_path)(text)]
    assert told[-1] == ("結節", "結節")
    assert {name for name, _ in told[:-1]} == {"[UNK]"}
    assert "".join(part for _, part in told) == text


def test_pieces_may_be_characters(tmp_path: Path) -> None:
    text = "大を認める"
    told = [
        (VOCABULARY[piece.id], text[piece.start : piece.end]) for piece in tokens(tmp_path, pieces="character")(text)
    ]
    assert [part for _, part in told] == list(text)
    assert told[0] == ("大", "大") and told[2] == ("[UNK]", "認")


def test_letters_are_made_small_where_the_model_wants_it(tmp_path: Path) -> None:
    assert [VOCABULARY[piece.id] for piece in tokens(tmp_path, lower_case=True)("CT")] == ["ct"]


def test_a_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no piece \[BEGIN\]"):
        tokens(tmp_path, first="[BEGIN]")
