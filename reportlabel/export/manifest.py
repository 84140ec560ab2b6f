"""``manifest.json``: what an export holds, and what it was made from.

It has no date and no host name: the same tables and options give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FORMAT = "reportlabel export"
FORMAT_VERSION = 1

_BLOCK = 1 << 20


def write_manifest(folder: Path, *, about: Mapping[str, Any], rows: Mapping[str, int]) -> None:
    """Describe all files of the folder.

    Args:
        about: what else is said: versions, options, label sets, counts.
        rows: file (relative, with ``/``) -> rows; of tables.
    """
    files = [
        {"path": name, "sha256": _sha256(folder / name), "bytes": (folder / name).stat().st_size}
        | ({"rows": rows[name]} if name in rows else {})
        for name in _names(folder)
        if name != MANIFEST
    ]
    manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, **about, "files": files}
    text = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an export; None where there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def is_export(folder: Path) -> bool:
    """Whether the folder holds an export of this program."""
    return read_manifest(folder) is not None


def foreign_files(folder: Path) -> list[str]:
    """Files of the folder that the manifest does not name."""
    listed = {MANIFEST, *(file["path"] for file in _listed(read_manifest(folder) or {}))}
    return [name for name in _names(folder) if name not in listed]


def verify_manifest(folder: Path) -> list[str]:
    """What is not as the manifest says, one sentence each; an empty list if all is well."""
    manifest = read_manifest(folder)
    if manifest is None:
        return [f"{folder}: no {MANIFEST} of an export"]
    problems = []
    for file in _listed(manifest):
        path = folder / file["path"]
        if not path.is_file():
            problems.append(f"{file['path']}: missing")
        elif path.stat().st_size != file["bytes"]:
            problems.append(f"{file['path']}: {path.stat().st_size} bytes, not {file['bytes']}")
        elif _sha256(path) != file["sha256"]:
            problems.append(f"{file['path']}: changed since the export")
    return problems + [f"{name}: not of the export" for name in foreign_files(folder)]


def _listed(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    files = manifest.get("files")
    wanted = {"path": str, "sha256": str, "bytes": int}
    return [
        file
        for file in (files if isinstance(files, list) else [])
        if isinstance(file, dict) and all(isinstance(file.get(key), kind) for key, kind in wanted.items())
    ]


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
