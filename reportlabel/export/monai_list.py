"""A MONAI datalist: JSON that ``monai.data.load_decathlon_datalist`` reads for classification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reportlabel.export.targets import VALUES
from reportlabel.export.wide import Parts, Wide
from reportlabel.rulebook.models import LabelSet

LISTS = {"train": "training", "validation": "validation", "test": "test"}


def write_monai(folder: Path, label_set: LabelSet, parts: Parts) -> dict[str, int]:
    """Write ``<label set>.json``: one item a line; a split without images has no list.

    Returns:
        Rows of the file.
    """
    name = f"{label_set.id}.json"
    head: dict[str, Any] = {
        "name": label_set.id,
        "description": label_set.name.en,
        "label_names": [entry.id for entry in label_set.findings],
        "label_titles": [entry.name.en for entry in label_set.findings],
        "states": list(VALUES),
    }
    rows = 0
    split = ""  # of the list that is open
    with (folder / name).open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("{\n" + ",\n".join(f"{json.dumps(key)}: {_json(value)}" for key, value in head.items()))
        for part in parts:
            for item in _items(part):
                if part.split != split:
                    stream.write(("\n]" if split else "") + f',\n"{LISTS[part.split]}": [\n')
                    split = part.split
                else:
                    stream.write(",\n")
                stream.write(_json(item))
                rows += 1
        stream.write(("\n]" if split else "") + "\n}\n")
    return {name: rows}


def _items(part: Wide) -> list[dict[str, Any]]:
    """``label`` is 0 where it does not count, since JSON has no NaN; ``mask`` and ``weight`` are 0 there."""
    numbers = zip(
        part.keys.iter_rows(named=True),
        part.filled.tolist(),
        part.mask.tolist(),
        part.weight.tolist(),
        part.codes.tolist(),
        part.values.iter_rows(named=True) if part.values.width else [{}] * part.keys.height,
        strict=True,
    )
    return [
        {
            "image": key["image"],
            "label": label,
            "mask": mask,
            "weight": weight,
            "state": states,
            **({"values": values} if values else {}),
            **{name: key[name] for name in ("exam_id", "patient_id", "site")},
        }
        for key, label, mask, weight, states, values in numbers
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
