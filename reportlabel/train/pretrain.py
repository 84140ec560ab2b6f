"""Masked-language training of the encoder on the sentences of a site, before the training itself.

J. Devlin et al., BERT, NAACL 2019; S. Gururangan et al., Don't stop pretraining, ACL 2020. No label is needed, so all
reports of an archive serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from reportlabel.train.model import make_encoder
from reportlabel.train.settings import TrainSettings

_ENCODER = "encoder."


def pretrain(
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    settings: TrainSettings,
    work: Path,
    start: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train the encoder to fill in masked pieces; returns weights for `reportlabel.train.fit.fit`.

    Args:
        texts: sentences as the model reads them.
        work: folder of checkpoints; where it holds some the training goes on from the last.
        start: weights to go on from.
    """
    set_seed(settings.fit.seed)
    encoder = make_encoder(settings.model, pieces=tokenizer.get_vocab_size())
    if start is not None:
        own = {name.removeprefix(_ENCODER): one for name, one in start.items() if name.startswith(_ENCODER)}
        encoder.load_state_dict(own)
    model = BertForMaskedLM(encoder.config)
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    wrap: Any = PreTrainedTokenizerFast
    wrapped = wrap(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106 - a piece of text, no password
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    rows = [[first, *one.ids[: settings.model.max_tokens], last] for one in encoded]
    sentences = Dataset.from_dict({"input_ids": rows})
    on_gpu = torch.cuda.is_available()
    steps = max(1, round(len(rows) / settings.pretrain.batch * settings.pretrain.epochs))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(work),
            per_device_train_batch_size=settings.pretrain.batch,
            learning_rate=settings.pretrain.learning_rate,
            max_steps=steps,
            warmup_steps=steps // 20,
            lr_scheduler_type="linear",
            weight_decay=settings.fit.weight_decay,
            save_strategy="steps",
            save_steps=max(1, steps // 4),
            save_total_limit=1,
            logging_steps=max(1, steps // 10),
            report_to=[],
            seed=settings.fit.seed,
            bf16=on_gpu,
            use_cpu=not on_gpu,
            dataloader_pin_memory=on_gpu,
            disable_tqdm=True,
        ),
        train_dataset=sentences,
        data_collator=DataCollatorForLanguageModeling(wrapped, mlm_probability=settings.pretrain.masked),
    )
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
    state = model.bert.cpu().state_dict()
    return {f"{_ENCODER}{name}": one for name, one in state.items()}
