"""The tokenizer: byte-pair encoding of normalised text, cut at changes of script, every digit by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_pieces(texts: Iterable[str], *, regions: Sequence[str], size: int) -> Tokenizer:
    """Learn the pieces (R. Sennrich et al., ACL 2016) of texts as the model reads them.

    Every character of the texts is a piece, so that a word never seen is read by its characters. One special token a
    region stands for it.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))  # noqa: S106 - a token of text, no password
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.UnicodeScripts(),
            # the library takes kanji and kana for one script; endings must not grow into the nouns before them
            pre_tokenizers.Split(Regex(r"\p{Hiragana}+"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation(),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *(f"[{region}]" for region in regions)],
        show_progress=False,
        limit_alphabet=size // 2,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
