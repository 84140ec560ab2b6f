"""The network: a small BERT encoder and one head for all findings.

For each finding a learned query looks at the tokens of the sentence (label-wise attention: J. Mullenbach et al., NAACL
2018); from what it sees come one logit for "mentioned" and three for the status. The status weights are the same for
all findings, so that a denial learned with one finding holds for the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reportlabel.train.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import BertModel

_BARELY = -4.0  # at first no finding is mentioned
IGNORE = -1
LOOK_SCALE = 4.0
"""By what the products of queries and keys are divided before the softmax over tokens."""


def make_encoder(settings: ModelSettings, *, pieces: int) -> BertModel:
    """A BERT encoder of these sizes, untrained."""
    from transformers import BertConfig, BertModel

    sizes: dict[str, Any] = {
        "vocab_size": pieces,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "num_attention_heads": settings.heads,
        "intermediate_size": settings.inner,
        "hidden_dropout_prob": settings.dropout,
        "attention_probs_dropout_prob": settings.dropout,
        "max_position_embeddings": settings.context_tokens + settings.max_tokens + 8,
        "pad_token_id": 0,
        "attn_implementation": "eager",  # the other kinds have no operators in the graph
    }
    return BertModel(BertConfig(**sizes), add_pooling_layer=False)


class FindingModel(nn.Module):
    """Encoder and head; ``forward`` gives (rows, findings, 4): logits of mention, present, uncertain, absent."""

    def __init__(self, settings: ModelSettings, *, pieces: int, findings: int, status_weight: float = 1.0) -> None:
        super().__init__()
        self.encoder = make_encoder(settings, pieces=pieces)
        self.status_weight = status_weight
        self.query = nn.Linear(settings.width, findings, bias=False)
        self.mention = nn.Linear(settings.width, findings, bias=False)
        self.bias = nn.Parameter(torch.full((findings,), _BARELY))
        self.key = nn.Linear(settings.width, settings.width)
        self.value = nn.Linear(settings.width, settings.width)
        self.stance = nn.Linear(settings.width, settings.width)
        self.status = nn.Linear(settings.width, 3)

    def scores(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The logits."""
        hidden = self.encoder(
            input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask
        ).last_hidden_state
        own = (token_type_ids * attention_mask).unsqueeze(1)
        # Every token has its logits, and a finding takes the mean of those it looks at: the states that the
        # findings see (rows x findings x width) need never be built.
        looks = torch.softmax(self.query(self.key(hidden)).transpose(1, 2) / LOOK_SCALE + (1.0 - own) * -1e4, dim=-1)
        mention = (looks * self.mention(self.value(hidden)).transpose(1, 2)).sum(-1) + self.bias
        status = torch.matmul(looks, self.status(functional.gelu(self.stance(hidden))))
        return torch.cat([mention.unsqueeze(-1), status], dim=-1)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        sures: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits, and the loss where ``labels`` are given.

        Args:
            labels: (rows, findings): 0 not mentioned, 1 present, 2 uncertain, 3 absent, -1 unknown.
            weights: (rows, findings): how much each counts.
            sures: (rows, findings): probability that a status is right.
        """
        scores = self.scores(input_ids, token_type_ids, attention_mask)
        result = {"logits": scores}
        if labels is not None:
            result["loss"] = finding_loss(scores, labels, weights, sures, status_weight=self.status_weight)
        return result


def finding_loss(
    scores: Tensor, labels: Tensor, weights: Tensor | None, sures: Tensor | None = None, *, status_weight: float
) -> Tensor:
    """Binary cross-entropy of "mentioned" summed over findings, and cross-entropy of the status where it is mentioned.

    Both are means over rows; unknown labels (-1) do not count. A status that is not sure is a soft target: the other
    two share the rest.
    """
    counted = (labels != IGNORE).float()
    if weights is not None:
        counted = counted * weights
    mentioned = (labels > 0).float()
    mention = functional.binary_cross_entropy_with_logits(scores[..., 0], mentioned, weight=counted, reduction="sum")
    said = labels > 0
    status = scores.new_zeros(())
    if bool(said.any()):
        logs = functional.log_softmax(scores[..., 1:][said], dim=-1)
        right = logs.gather(-1, (labels[said] - 1).unsqueeze(-1)).squeeze(-1)
        sure = torch.ones_like(right) if sures is None else sures[said]
        each = -(sure * right + (1 - sure) / 2 * (logs.sum(-1) - right))
        status = (each * counted[said]).sum()
    return (mention + status_weight * status) / labels.shape[0]
