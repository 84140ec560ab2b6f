"""From a label to what a training loss needs: a target, whether it counts, and how much.

The value of a label is never changed: `present`, `uncertain`, `absent` and `not_mentioned` stay apart in every table.
The target is a second column that says how this export reads the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import polars as pl

from reportlabel.errors import ConfigError
from reportlabel.export.options import EVERY, ExportOptions
from reportlabel.rulebook.models import LabelSet

VALUES = ("present", "uncertain", "absent", "not_mentioned")
REVIEW_STATES = ("unreviewed", "reviewed", "adjudicated")

POLICIES = pl.Schema(
    [
        ("label_set", pl.String),
        ("finding", pl.String),
        ("order", pl.Int32),
        ("policy", pl.String),
        ("silence", pl.String),
    ]
)
"""One row a label. ``policy``: what uncertain becomes; ``silence``: what not_mentioned becomes.

Both are null for labels that are no status: size, side, stage."""

_SMALLEST_SHARE = 0.01  # of a class in the class weight: a finding seen once must not weigh as much as thousands
_DECIMALS = 6


def policies(label_sets: Sequence[LabelSet], options: ExportOptions) -> pl.DataFrame:
    """What each label's uncertain and not_mentioned become; see :data:`POLICIES`.

    A label that is there only where no other is (a normal study) says nothing by its silence, whatever the option says:
    a report that names no finding and does not say "normal" either is no sign that something was found.

    Raises:
        ConfigError: ``--uncertain`` names no finding of these label sets.
    """
    rows: list[tuple[str, str, int, str | None, str | None]] = []
    used: set[str] = set()
    for label_set in label_sets:
        for order, entry in enumerate(label_set.findings):
            names = (f"{label_set.id}.{entry.id}", entry.id, EVERY)
            used.update(name for name in names if name in options.uncertain)
            chosen = next((options.uncertain[name] for name in names if name in options.uncertain), entry.uncertain_as)
            silence = "ignore" if entry.none_of_others else options.not_mentioned
            rows.append((label_set.id, entry.id, order, chosen, silence))
        for order, value in enumerate(label_set.values, start=len(label_set.findings)):
            rows.append((label_set.id, value.id, order, None, None))
    unknown = sorted(set(options.uncertain) - used)
    if unknown:
        known = [row[1] for row in rows if row[3] is not None]
        near = get_close_matches(unknown[0].rpartition(".")[2], known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"--uncertain {unknown[0]}: no such finding in the exported label sets{hint}")
    return pl.DataFrame(rows, schema=POLICIES, orient="row")


def with_targets(labels: pl.DataFrame) -> pl.DataFrame:
    """Add ``policy_value`` (1, 0, a probability, or null) and ``loss_mask`` (1 where the target counts, else 0).

    ========================  ==================================================================================
    present, absent           1, 0
    uncertain                 by policy: ones 1, zeros 0, soft p_present, ignore and keep null
    not_mentioned             zeros 0, ignore null; 0 where a radiologist read the exam and set nothing
    a value that is no status  null
    ========================  ==================================================================================

    Args:
        labels: ``value``, ``p_present``, ``review_state``, and ``policy`` and ``silence`` of `policies`.
    """
    value, policy = pl.col("value"), pl.col("policy")
    target = (
        pl.when(policy.is_null())
        .then(None)
        .when(value == "present")
        .then(1.0)
        .when(value == "absent")
        .then(0.0)
        .when((value == "not_mentioned") & ((pl.col("silence") == "zeros") | _read()))
        .then(0.0)
        .when((value == "uncertain") & (policy == "ones"))
        .then(1.0)
        .when((value == "uncertain") & (policy == "zeros"))
        .then(0.0)
        .when((value == "uncertain") & (policy == "soft"))
        .then(pl.col("p_present"))
        .otherwise(None)
        .cast(pl.Float64)
        .alias("policy_value")
    )
    return labels.with_columns(target).with_columns(
        pl.col("policy_value").is_not_null().cast(pl.Int8).alias("loss_mask")
    )


def priors(training: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """How often each finding of a label set is there: the mean target of the training rows that count.

    Only training patients are looked at, so that nothing of validation and test gets into the weights.

    Args:
        training: tables of `with_targets`; rows of the training split.

    Returns:
        ``finding``, ``prior``.
    """
    sums = [
        part.filter(pl.col("loss_mask") == 1)
        .group_by("finding")
        .agg(pl.col("policy_value").sum().alias("sum"), pl.len().alias("n"))
        for part in training
    ]
    nothing = pl.DataFrame(schema={"finding": pl.String, "sum": pl.Float64, "n": pl.get_index_type()})
    return (
        pl.concat([nothing, *sums])
        .group_by("finding")
        .agg(pl.col("sum").sum(), pl.col("n").sum())
        # sums of floats depend on their order in the last bits
        .select("finding", (pl.col("sum") / pl.col("n")).round(9).alias("prior"))
        .sort("finding")
    )


def with_weights(labels: pl.DataFrame, options: ExportOptions) -> pl.DataFrame:
    """Add ``sample_weight``: how much a target counts in the loss.

        weight = loss_mask · certainty · review · silence · class

    - certainty: the probability that the target is right: p_present where it is 1, 1 − p_present where it is 0. 1 for a
      soft target, which carries its doubt itself. Where silence has no p_present, 1 − prior; other nulls 1.
    - review: 1, or the weight of a reviewed or adjudicated label.
    - silence: `silence_weight` where an absence rests on nobody having spoken of the finding, unless a radiologist
      read the exam; else 1.
    - class: (½ / π)^balance for positives and (½ / (1 − π))^balance for negatives, π the prior, at least 0.01 and at
      most 0.99; between both in proportion for a soft target. Balance 1 is the usual inverse class frequency.

    Args:
        labels: of `with_targets`, with ``prior`` of `priors` (null where no training row counts: π is ½).
    """
    target, p = pl.col("policy_value"), pl.col("p_present")
    silent = pl.col("value") == "not_mentioned"
    hard = target * p + (1 - target) * (1 - p)
    certainty = (
        pl.when((pl.col("value") == "uncertain") & (pl.col("policy") == "soft"))
        .then(1.0)
        .when(p.is_null() & silent)
        .then(1 - pl.col("prior").fill_null(0.5))
        .otherwise(hard.fill_null(1.0))
    )
    review = pl.col("review_state").replace_strict(
        dict(zip(REVIEW_STATES, (1.0, options.reviewed_weight, options.adjudicated_weight), strict=True)),
        return_dtype=pl.Float64,
    )
    silence = pl.when(silent & ~_read()).then(options.silence_weight).otherwise(1.0)
    share = pl.col("prior").fill_null(0.5).clip(_SMALLEST_SHARE, 1 - _SMALLEST_SHARE)
    of_class = target * (0.5 / share).pow(options.balance) + (1 - target) * (0.5 / (1 - share)).pow(options.balance)
    weight = pl.when(pl.col("loss_mask") == 1).then(certainty * review * silence * of_class).otherwise(0.0)
    return labels.with_columns(weight.round(_DECIMALS).alias("sample_weight"))


def _read() -> pl.Expr:
    return pl.col("review_state").is_in(["reviewed", "adjudicated"])
