"""Incidental findings that may matter to a patient's life: noted by code, decided on, told through the custodian.

Who reads an exam of a study sees codes. Whoever finds something notes the code of the exam; nothing of the finding
itself is written here. The investigators decide; only a patient who wished to be told is told, by the custodian, who
looks the code up (`LinkageStore.lookup`). Every step is a row in the linkage store and a line of its log.
"""

from __future__ import annotations

from datetime import date
from typing import Literal, get_args

import polars as pl

from reportlabel.deidentify.linkage import LinkageStore
from reportlabel.errors import ConfigError, InputError, RefusedError
from reportlabel.protocol import Protocol

__all__ = ["STEPS", "Decision", "Wish", "decide", "note", "open_findings"]

Decision = Literal["disclose", "withhold", "told"]
Wish = Literal["yes", "no", "unknown"]
Step = Literal["noted", "disclose", "withhold", "told"]

STEPS = pl.Schema(
    [("exam_id", pl.String), ("step", pl.String), ("wish", pl.String), ("on", pl.Date), ("actor", pl.String)]
)
"""One row a step, in the linkage store under the name ``incidental``. ``wish``: whether the patient wished to be
told."""

_NAME = "incidental"
_BEFORE: dict[Decision, tuple[Step, ...]] = {
    "disclose": ("noted", "withhold"),
    "withhold": ("noted", "disclose"),
    "told": ("disclose",),
}


def note(store: LinkageStore, protocol: Protocol, exam_id: str, *, today: date, actor: str) -> None:
    """Note that something was found at an exam (its code).

    Raises:
        RefusedError: the protocol discloses nothing. InputError: no exam of the study has this code, or it is noted.
    """
    if protocol.incidental.disclose == "never":
        raise RefusedError(protocol.number("lookup"), f"{protocol.id} discloses no incidental findings")
    known = store.all_codes("exam", actor=actor, purpose=_PURPOSE)["code"]
    if exam_id not in known:
        raise InputError("no exam of the study has this code")
    if exam_id in _steps(store, actor)["exam_id"]:
        raise InputError("the exam is noted already; decide on it")
    _add(store, exam_id, "noted", "unknown", today, actor)


def decide(
    store: LinkageStore,
    protocol: Protocol,
    exam_id: str,
    decision: Decision,
    *,
    wish: Wish,
    custodian: str,
    today: date,
    actor: str,
) -> None:
    """Write down what was decided of a noted exam, or that the patient was told.

    Args:
        wish: whether the patient wished to be told, as the consent office has it.
        custodian: the one person through whom this is done.

    Raises:
        RefusedError: it would be told to somebody who did not wish it. ConfigError: another custodian.
        InputError: the exam is not noted, or the steps are in another order.
    """
    if decision not in get_args(Decision) or wish not in get_args(Wish):
        raise ConfigError(f"a decision is {', '.join(get_args(Decision))}; a wish {', '.join(get_args(Wish))}")
    store.lookup([], custodian=custodian, actor=actor, purpose=_PURPOSE)  # refuses and logs who is not the custodian
    theirs = _steps(store, actor).filter(pl.col("exam_id") == exam_id)
    if theirs.is_empty():
        raise InputError("the exam is not noted")
    last = theirs["step"][-1]
    if last not in _BEFORE[decision]:
        raise InputError(f"the exam is at '{last}'; before '{decision}' comes {' or '.join(_BEFORE[decision])}")
    if decision != "withhold" and wish != "yes":
        raise RefusedError(protocol.number("lookup"), "only a patient who wished to be told is told")
    _add(store, exam_id, decision, wish, today, actor)


def open_findings(store: LinkageStore, *, actor: str) -> pl.DataFrame:
    """The last step of each noted exam, columns of `STEPS`, those first on which nothing is decided."""
    order = {step: at for at, step in enumerate(("noted", "disclose", "told", "withhold"))}
    return (
        _steps(store, actor)
        .unique("exam_id", keep="last", maintain_order=True)
        .sort(pl.col("step").replace_strict(order, return_dtype=pl.Int8), "on", maintain_order=True)
    )


_PURPOSE = "incidental finding"


def _steps(store: LinkageStore, actor: str) -> pl.DataFrame:
    if _NAME not in store.tables():
        return pl.DataFrame(schema=STEPS)
    return store.get(_NAME, actor=actor, purpose=_PURPOSE).cast(STEPS)


def _add(store: LinkageStore, exam_id: str, step: Step, wish: Wish, today: date, actor: str) -> None:
    row = pl.DataFrame([(exam_id, step, wish, today, actor)], schema=STEPS, orient="row")
    store.add(_NAME, row, actor=actor, purpose=_PURPOSE)
