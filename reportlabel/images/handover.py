"""The folder of photographs that goes out: stripped pictures that a person has cleared, their rows, marks and
manifest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from reportlabel.errors import ConfigError, InputError
from reportlabel.export.deliverable_rules import PhotographRules
from reportlabel.export.folder import new_folder
from reportlabel.export.manifest import write_manifest
from reportlabel.export.study_folder import about, check_permission, need_columns
from reportlabel.images.clearance import keep_cleared
from reportlabel.images.photograph import LEFT, REASONS, UNREADABLE, Clean, Unusable, without_metadata
from reportlabel.images.sets import REGIONS, teacher_sets
from reportlabel.protocol import Permission, Protocol

__all__ = ["HANDED_OVER", "LEFT", "NOT_OUT", "STRIPPED", "Stripped", "strip_pictures", "write_photographs"]

HANDED_OVER = pl.Schema(
    {
        "image_id": pl.String,
        "patient_id": pl.String,
        "file": pl.String,
        "width": pl.Int64,
        "height": pl.Int64,
        "sha256": pl.String,
        "set": pl.String,
        "split": pl.String,
    }
)
"""One row a picture of the folder, by the code of the patient. ``set`` and ``split``: of `teacher_sets`."""

NOT_OUT = pl.Schema({"image_id": pl.String, "reason": pl.String, "remedy": pl.String})

STRIPPED = pl.Schema(
    {
        "image_id": pl.String,
        "file": pl.String,
        "sha256": pl.String,
        "width": pl.Int64,
        "height": pl.Int64,
        "had": pl.String,
    }
)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Stripped:
    """``pictures``: image_id, file (in the folder), sha256, width, height, had (what was taken out, joined by ``;``).
    ``not_out``: columns of NOT_OUT. Together all that came in."""

    pictures: pl.DataFrame
    not_out: pl.DataFrame


def strip_pictures(sources: Mapping[str, Path], folder: Path, rules: PhotographRules) -> Stripped:
    """Write each picture without metadata into a folder, under its id: what reviewers see and what goes out is this
    file.

    Args:
        sources: image_id -> the original file. folder: an empty folder inside the hospital.

    Raises:
        ConfigError: the folder is not an existing empty one. InputError: an id that cannot be the name of a file.
    """
    if not folder.is_dir() or any(folder.iterdir()):
        raise ConfigError(f"{folder}: give an existing, empty folder for the stripped pictures")
    wrong = sum(not _ID.fullmatch(one) for one in sources)
    if wrong:
        raise InputError(f"{wrong} picture ids are not letters, digits, '_' and '-' only; give codes, never file names")
    made: list[tuple[str, str, str, int, int, str]] = []
    left: list[tuple[str, str, str]] = []
    for image_id, path in sorted(sources.items()):
        clean = _stripped(path, rules)
        if isinstance(clean, str):
            left.append((image_id, clean, REASONS[clean]))
            continue
        name = image_id + rules.formats[clean.format]  # type: ignore[index]  # one of its keys
        (folder / name).write_bytes(clean.content)
        digest = hashlib.sha256(clean.content).hexdigest()
        made.append((image_id, name, digest, clean.width, clean.height, ";".join(clean.had)))
    return Stripped(pl.DataFrame(made, schema=STRIPPED, orient="row"), pl.DataFrame(left, schema=NOT_OUT, orient="row"))


def _stripped(path: Path, rules: PhotographRules) -> Clean | str:
    try:
        return without_metadata(path.read_bytes(), rules)
    except Unusable as error:
        return error.reason
    except OSError:
        return UNREADABLE


def write_photographs(
    out: Path,
    images: pl.DataFrame,
    pictures: pl.DataFrame,
    clearance: pl.DataFrame,
    regions: pl.DataFrame,
    *,
    folder: Path,
    protocol: Protocol,
    permission: Permission,
    salt: str,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    rules_sha256: str | None = None,
) -> pl.DataFrame:
    """A folder ``images/CODE/ID.jpg`` with its rows, marks and manifest. Only cleared pictures go in (S4, S5).

    Args:
        images: image_id, patient_id (code), site; one row a picture of the study.
        pictures: `Stripped.pictures`; folder: where they lie. clearance: columns of CLEARANCE. regions: of
        `regions_of`. salt, shares: of the splits by patient.

    Returns:
        The attrition table: pictures, from those given to those handed over.

    Raises:
        RefusedError: the permission is for something else. InputError: a table cannot be used, or a stripped file was
            changed. ConfigError: ``out`` cannot be written.
    """
    check_permission(protocol, permission, kinds=("images",))
    need_columns(images, ("image_id", "patient_id", "site"), name="images")
    wrong = sum(not _ID.fullmatch(str(one)) for one in images["patient_id"].to_list())
    if wrong:
        raise InputError(f"images: {wrong} rows have no patient code; run the de-identification first (S5)")
    known = images.join(pictures, on="image_id", how="left")
    cleared = keep_cleared(known, clearance, protocol)
    kept = cleared.kept.filter(pl.col("file").is_not_null())
    marks = regions.join(kept.select("image_id"), on="image_id", how="semi").select(list(REGIONS))
    sets = teacher_sets(kept.select("image_id", "patient_id", "site"), marks, salt=salt, shares=shares)
    table = (
        kept.join(sets.select("image_id", "set", "split"), on="image_id", how="left")
        .with_columns(source="file", file=pl.format("images/{}/{}", "patient_id", "file"))
        .sort("image_id")
    )
    counts = {
        "images_in": images.height,
        "images_out": table.height,
        "images_not_cleared": cleared.excluded.height,
        "patients": table["patient_id"].n_unique(),
        "labelled": int((table["set"] == "labelled").sum()),
        "unlabelled": int((table["set"] == "unlabelled").sum()),
        "regions": marks.height,
    }
    rubric = list(protocol.image_clearance.rubric) if protocol.image_clearance else []
    said = about(protocol, permission, counts=counts, rules_sha256=rules_sha256, rubric=rubric, split_salt=salt)
    with new_folder(out) as made:
        for source, name, sha256 in table.select("source", "file", "sha256").iter_rows():
            content = (folder / source).read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise InputError("a stripped picture was changed after it was looked at; strip and clear it again")
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        table.select(list(HANDED_OVER)).write_parquet(made / "images.parquet")
        marks.write_parquet(made / "regions.parquet")
        rows = {"images.parquet": table.height, "regions.parquet": marks.height}
        write_manifest(made, about=said, rows=rows)
    return cleared.attrition
