"""An archive: what a hospital hands over, and which reader reads which part of it.

An archive is a folder, whose formats are recognised, or an ``archive.yaml`` that names its sources:

    name: 2026-11                # optional; two archives read into one workspace need two names
    options: {patient_id_width: 8}
    sources:
      - {path: ssmix2/aoba, site: aoba}
      - {path: ris/aoba, format: ris_csv, site: aoba, options: {encoding: cp932}}

Paths are relative to the file. A source without a format is recognised; options of a source are those of its reader,
and options of the archive go to every reader that knows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Protocol, cast

from pydantic import BaseModel, Field

from reportlabel.errors import ConfigError, InputError
from reportlabel.ingest.codes import listed
from reportlabel.ingest.rows import Row, Source
from reportlabel.rulebook.models import Strict
from reportlabel.rulebook.read_yaml import Document, parse, read_yaml

FORMATS = {
    "ssmix2": "reportlabel.ingest.ssmix2",
    "parquet": "reportlabel.ingest.parquet_rows",
    "fhir": "reportlabel.ingest.fhir",
    "dicom": "reportlabel.ingest.dicom_headers",
    "dpc": "reportlabel.ingest.dpc",
    "ris_csv": "reportlabel.ingest.ris_csv",
}
"""Format -> module of its reader, in the order in which they are asked whether a file is theirs."""

_LOOKED_AT = 5


class Reader(Protocol):
    """What every module of `FORMATS` offers."""

    def recognise(self, path: Path) -> bool:
        """Whether a file or folder is of this format; cheap."""

    def files(self, source: Source) -> Iterator[Path]:
        """The files to read, sorted."""

    def read(self, path: Path, source: Source) -> Iterator[Row]:
        """The rows of one file; never raises for what it holds."""


class SourceEntry(Strict):
    """One source of an archive.yaml."""

    path: str
    format: str | None = None
    site: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class ArchiveFile(Strict):
    """``archive.yaml``."""

    name: str = "archive"
    options: dict[str, Any] = Field(default_factory=dict)
    sources: Annotated[list[SourceEntry], Field(min_length=1)]


@dataclass(frozen=True)
class Archive:
    """A recognised archive. ``unrecognised``: files that no reader knows, relative to the root."""

    name: str
    root: Path
    sources: tuple[Source, ...]
    unrecognised: tuple[Path, ...]


def reader_of(source_format: str) -> Reader:
    """The reader of a format.

    Raises:
        ConfigError: there is no such format.
    """
    if source_format not in FORMATS:
        raise ConfigError(f"no format '{source_format}'; there are: {', '.join(sorted(FORMATS))}")
    return cast(Reader, import_module(FORMATS[source_format]))


def open_archive(path: Path, *, site: str | None = None) -> Archive:
    """Find the sources of a folder or of an archive.yaml.

    Args:
        site: the hospital, for sources that do not say it.

    Raises:
        ConfigError: wrong archive.yaml, with file, line and key.
        InputError: there is nothing at the path, or nothing that any reader knows.
    """
    if not path.exists():
        raise InputError(f"{path}: no such folder or archive.yaml")
    if path.is_file():
        return _of_file(path, site)
    if (path / "archive.yaml").is_file():
        return _of_file(path / "archive.yaml", site)
    sources, unknown = _recognised(path, path, site)
    if not sources:
        raise InputError(
            f"{path}: holds nothing that can be read; formats are: {', '.join(sorted(FORMATS))}. "
            "An archive.yaml can say what is what"
        )
    return Archive("archive", path, tuple(sources), tuple(unknown))


def _of_file(path: Path, site: str | None) -> Archive:
    document = read_yaml(path)
    described = parse(document, ArchiveFile)
    root = path.parent
    sources: list[Source] = []
    unknown: list[Path] = []
    for number, entry in enumerate(described.sources):
        where = root / entry.path
        line = document.line(("sources", number))
        if not where.exists():
            raise ConfigError(f"{path}:{line}: there is no {entry.path}")
        found = _entry(entry, where, root, site, document, line)
        unknown += found[1]
        sources += [replace(one, options=_options(one.format, described.options, entry.options)) for one in found[0]]
    return Archive(described.name, root, tuple(sources), tuple(unknown))


def _entry(
    entry: SourceEntry, where: Path, root: Path, site: str | None, document: Document, line: int
) -> tuple[list[Source], list[Path]]:
    if entry.format is not None:
        if entry.format not in FORMATS:
            raise ConfigError(
                f"{document.path}:{line}: no format '{entry.format}'; there are: {', '.join(sorted(FORMATS))}"
            )
        return [Source(entry.format, where, root, entry.site or site)], []
    sources, unknown = _recognised(where, root, entry.site or site)
    if not sources:
        raise ConfigError(f"{document.path}:{line}: nothing in {entry.path} is of a known format; name its format")
    return sources, unknown


def _options(source_format: str, shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The options of a source; shared ones only where its reader knows them."""
    known = _option_names(cast(ModuleType, reader_of(source_format)))
    return {**{name: value for name, value in shared.items() if name in known}, **own}


def _option_names(module: ModuleType) -> set[str]:
    """Names of the options of a reader: the fields of its one model that ends in Options."""
    return {
        name
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, BaseModel) and one.__name__.endswith("Options")
        for name in one.model_fields
    }


def _recognised(
    path: Path, root: Path, site: str | None, *, is_folder: bool | None = None
) -> tuple[list[Source], list[Path]]:
    """The sources below a path: one a folder where all below it is of one format, else one a file.

    Links that lead nowhere, or to a folder in which they lie, are files that nobody knows.
    """
    if is_folder is None:
        is_folder = path.is_dir()
    if not is_folder:
        found = _format_of_file(path) if path.is_file() else None
        return ([Source(found, path, root, site)], []) if found else ([], [path.relative_to(root)])
    for folder_format in ("ssmix2", "parquet"):
        if reader_of(folder_format).recognise(path):
            return [Source(folder_format, path, root, site)], []
    try:
        children = listed(path)
    except OSError:
        return [], [path.relative_to(root)]
    folders = [path / name for name, is_below in children if is_below]
    files = [path / name for name, is_below in children if not is_below]
    sources: list[Source] = []
    unknown: list[Path] = []
    for folder in folders:
        below = _recognised(folder, root, site, is_folder=True)
        sources += below[0]
        unknown += below[1]
    if len(files) > _LOOKED_AT * 2 and (alike := _format_of_many(files)):
        # a folder of very many files (DICOM, single FHIR resources): what does not fit is quarantined when it is read
        sources += [Source(alike, one, root, site) for one in files] if folders else [Source(alike, path, root, site)]
        return sources, unknown
    for file in files:
        below = _recognised(file, root, site, is_folder=False)
        sources += below[0]
        unknown += below[1]
    formats = {one.format for one in sources}
    if len(formats) == 1 and formats <= {"dicom", "fhir", "ris_csv", "dpc"} and len(unknown) <= len(sources):
        # the reader quarantines what it cannot read
        return [Source(formats.pop(), path, root, site)], []
    return sources, unknown


def _format_of_file(path: Path) -> str | None:
    for name in FORMATS:
        if name != "ssmix2" and reader_of(name).recognise(path):
            return name
    return None


def _format_of_many(files: list[Path]) -> str | None:
    """The format of a folder of many files, if the first ones agree."""
    step = max(1, len(files) // _LOOKED_AT)
    formats = {_format_of_file(one) for one in islice(files, 0, None, step)}
    return formats.pop() if len(formats) == 1 else None
