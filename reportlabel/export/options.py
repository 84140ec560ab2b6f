"""What a user can choose about an export."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError

from reportlabel.errors import ConfigError
from reportlabel.rulebook.models import Strict

Format = Literal["parquet", "datasets", "monai", "chexpert", "ct-rate"]
FORMATS: tuple[str, ...] = get_args(Format)

Uncertain = Literal["ones", "zeros", "ignore", "soft", "keep"]
UNCERTAIN: tuple[str, ...] = get_args(Uncertain)

EVERY = "*"
"""In place of a finding: all findings."""


def _sum_to_one(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(shares) - 1) > 1e-9:
        raise ValueError("the shares of training, validation and test must add up to 1")
    return shares


Share = Annotated[float, Field(ge=0, le=1)]


class ExportOptions(Strict):
    """How labels become targets, weights and splits.

    Attributes:
        split_salt: key of the hash that puts patients into splits; the same salt gives the same splits for ever.
        shares: of training, validation and test patients.
        hold_out_sites: all patients ever examined there are test patients.
        uncertain: finding, ``label_set.finding`` or ``*`` -> what `uncertain` becomes; before the label set's own.
        not_mentioned: what silence becomes: ``zeros`` (a weak absent) or ``ignore``.
        silence_weight: factor of the weight of a target that rests on silence.
        reviewed_weight, adjudicated_weight: factor where a radiologist, or a second one, has decided.
        balance: exponent of the class weight; 0 none, 1 positives and negatives weigh the same in total.
        features: whether record votes that a model may take as inputs are written too.
    """

    split_salt: str = "reportlabel"
    shares: Annotated[tuple[Share, Share, Share], AfterValidator(_sum_to_one)] = (0.8, 0.1, 0.1)
    hold_out_sites: tuple[str, ...] = ()
    uncertain: dict[str, Uncertain] = Field(default_factory=dict)
    not_mentioned: Literal["zeros", "ignore"] = "zeros"
    silence_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    reviewed_weight: Annotated[float, Field(ge=1)] = 2.0
    adjudicated_weight: Annotated[float, Field(ge=1)] = 3.0
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5
    features: bool = False


def export_options(**given: Any) -> ExportOptions:
    """The options by name, checked.

    Raises:
        ConfigError: an unknown option or an impossible value; names the option.
    """
    try:
        return ExportOptions.model_validate(given)
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        raise ConfigError("export options: " + "; ".join(problems)) from None


def uncertain_policies(given: Iterable[str]) -> dict[str, str]:
    """``finding=policy`` texts of the command line as a mapping.

    Raises:
        ConfigError: no ``=``, an unknown policy, or a finding given twice.
    """
    policies: dict[str, str] = {}
    for text in given:
        finding, equals, policy = (part.strip() for part in text.partition("="))
        if not equals or not finding or policy not in UNCERTAIN:
            raise ConfigError(f"--uncertain {text}: give FINDING=POLICY, the policy one of {', '.join(UNCERTAIN)}")
        if policies.setdefault(finding, policy) != policy:
            raise ConfigError(f"--uncertain {finding}: given twice with different policies")
    return policies
