"""No picture leaves that a person has not looked at (S4, T2): the flag, and the Label Studio task that sets it.

A flag holds for a file, by its hash: another file under the same name has no flag.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import polars as pl

from reportlabel.consent.attrition import Funnel
from reportlabel.errors import ConfigError, InputError
from reportlabel.export.deliverable_rules import ClearanceWords
from reportlabel.export.study_folder import need_columns
from reportlabel.protocol import Protocol

__all__ = ["CLEARANCE", "Cleared", "clearance_config", "clearance_of", "clearance_tasks", "keep_cleared"]

CLEARANCE = pl.Schema(
    [
        ("image_id", pl.String()),
        ("sha256", pl.String()),
        ("decision", pl.String()),
        ("reviewer", pl.String()),
        ("decided_at", pl.Datetime("us")),
    ]
)
"""One row a decision, append-only. ``decision``: cleared or not_cleared. ``sha256``: of the file that was looked at."""

_DECISIONS = ("cleared", "not_cleared")


@dataclass(frozen=True)
class Cleared:
    """``kept``: pictures that may go out; ``excluded``: image_id, step, reason, number; ``attrition``: the counts."""

    kept: pl.DataFrame
    excluded: pl.DataFrame
    attrition: pl.DataFrame


def keep_cleared(images: pl.DataFrame, clearance: pl.DataFrame, protocol: Protocol) -> Cleared:
    """The pictures that a person has cleared.

    The latest decision of each reviewer counts; one that says no is enough to keep a picture in.

    Args:
        images: image_id, sha256 (of the file as it is now), and whatever else. clearance: columns of CLEARANCE.

    Raises:
        ConfigError: the protocol has no section ``image_clearance``. InputError: a column is missing, a picture stands
            twice, or a decision is neither cleared nor not_cleared.
    """
    if protocol.image_clearance is None:
        raise ConfigError(f"{protocol.path}: the section 'image_clearance' is missing; pictures of people need it")
    need_columns(images, ("image_id", "sha256"), name="images")
    need_columns(clearance, CLEARANCE, name="clearance")
    twice = images.height - images["image_id"].n_unique()
    if twice:
        raise InputError(f"images: {twice} ids stand twice; each picture needs one of its own")
    unknown = clearance.filter(~pl.col("decision").is_in(_DECISIONS).fill_null(False)).height
    if unknown:
        raise InputError(f"clearance: {unknown} decisions are neither {' nor '.join(_DECISIONS)}; correct them")
    latest = (
        clearance.sort("decided_at", maintain_order=True, nulls_last=False)
        .unique(["image_id", "sha256", "reviewer"], keep="last", maintain_order=True)
        .group_by("image_id", "sha256")
        .agg(yes=(pl.col("decision") == "cleared").all())
    )
    seen = clearance.select("image_id").unique().with_columns(seen=pl.lit(True))
    rows = images.join(latest, on=["image_id", "sha256"], how="left").join(seen, on="image_id", how="left")
    funnel = Funnel("clearance", "images", keys=["image_id"])
    number = protocol.number("clearance")
    rows = funnel.keep(rows, pl.col("seen"), step="looked at", reason="nobody has looked at it", number=number)
    rows = funnel.keep(
        rows, pl.col("yes").is_not_null(), step="same file", reason="the file is not the one looked at", number=number
    )
    rows = funnel.keep(rows, pl.col("yes"), step="cleared", reason="it may identify the person", number=number)
    return Cleared(rows.drop("yes", "seen"), funnel.excluded(), funnel.attrition())


def clearance_config(words: ClearanceWords, protocol: Protocol) -> str:
    """The labelling configuration of Label Studio: the picture, the rubric of the protocol, one question.

    Raises:
        ConfigError: the protocol has no section ``image_clearance``.
    """
    if protocol.image_clearance is None:
        raise ConfigError(f"{protocol.path}: the section 'image_clearance' is missing; pictures of people need it")
    lines = enumerate(protocol.image_clearance.rubric, start=1)
    rubric = "\n".join(f'  <Text name="rubric{n}" value={quoteattr(line)}/>' for n, line in lines)
    hints = "\n".join(f"    <Label value={quoteattr(one)}/>" for one in (words.hints.face, words.hints.eye))
    return f"""<View>
  <Image name="image" value="$image" zoom="true"/>
  <RectangleLabels name="hint" toName="image">
{hints}
  </RectangleLabels>
{rubric}
  <Header value={quoteattr(words.question)}/>
  <Choices name="clearance" toName="image" choice="single-radio" required="true">
    <Choice value={quoteattr(words.cleared)} alias="cleared" hotkey="1"/>
    <Choice value={quoteattr(words.not_cleared)} alias="not_cleared" hotkey="2"/>
  </Choices>
</View>
"""


def clearance_tasks(
    images: pl.DataFrame, hits: pl.DataFrame, urls: Mapping[str, str], words: ClearanceWords
) -> list[dict[str, Any]]:
    """One Label Studio task a picture, those with candidates of the sieve first.

    Args:
        images: image_id, sha256. hits: columns of `reportlabel.images.sieve.HITS`. urls: image_id -> where Label Studio
            reads the stripped picture.

    Raises:
        InputError: a picture has no address.
    """
    boxes: dict[str, list[dict[str, Any]]] = {}
    names = words.hints.model_dump()
    for row in hits.drop_nulls("finds").iter_rows(named=True):
        value = {key: 100 * row[key] for key in ("x", "y", "width", "height")}
        said = {**value, "rotation": 0, "rectanglelabels": [names[row["finds"]]]}
        boxes.setdefault(row["image_id"], []).append(
            {"from_name": "hint", "to_name": "image", "type": "rectanglelabels", "value": said}
        )
    without = [one for one in images["image_id"].to_list() if one not in urls]
    if without:
        raise InputError(f"{len(without)} pictures have no address for Label Studio; give one each")
    tasks = []
    for image_id, sha256 in images.select("image_id", "sha256").iter_rows():
        found = boxes.get(image_id, [])
        task: dict[str, Any] = {"data": {"image": urls[image_id], "image_id": image_id, "sha256": sha256}}
        if found:
            task["predictions"] = [{"model_version": "face sieve", "score": 1.0, "result": found}]
        tasks.append(task)
    return sorted(tasks, key=lambda one: (-len(boxes.get(one["data"]["image_id"], [])), one["data"]["image_id"]))


def clearance_of(tasks: Iterable[Mapping[str, Any]], words: ClearanceWords) -> pl.DataFrame:
    """Decisions from an export of Label Studio (JSON); cancelled annotations are none.

    Returns:
        Columns of CLEARANCE; ``reviewer`` is the number of the user.

    Raises:
        InputError: a task is not one of `clearance_tasks`, or an answer is none of the two.
    """
    meaning = {"cleared": "cleared", "not_cleared": "not_cleared"}
    meaning |= {words.cleared: "cleared", words.not_cleared: "not_cleared"}
    rows: list[dict[str, Any]] = []
    for number, task in enumerate(tasks, start=1):
        data = task.get("data", {})
        if not {"image_id", "sha256"} <= set(data):
            raise InputError(f"task {number}: not a task of this program; export the project that it was pushed to")
        for annotation in task.get("annotations", []):
            if annotation.get("was_cancelled"):
                continue
            answers = [
                one["value"]["choices"][0] for one in annotation.get("result", []) if one.get("type") == "choices"
            ]
            if len(answers) != 1 or answers[0] not in meaning:
                raise InputError(f"task {number}: the answer is none of the two; read the picture again")
            by = annotation.get("completed_by")
            rows.append(
                {
                    "image_id": str(data["image_id"]),
                    "sha256": str(data["sha256"]),
                    "decision": meaning[answers[0]],
                    "reviewer": str(by["id"] if isinstance(by, Mapping) else by),
                    "decided_at": annotation.get("updated_at") or annotation.get("created_at"),
                }
            )
    table = pl.DataFrame(rows, schema=dict.fromkeys(CLEARANCE, pl.String))
    moment = pl.col("decided_at").str.slice(0, 19).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False)
    return table.with_columns(decided_at=moment.cast(pl.Datetime("us"))).cast(CLEARANCE)
