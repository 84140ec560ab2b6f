"""Where FHIR resources stand in files, and how to find those that others refer to.

A file is NDJSON (a resource a line, or a Bundle a line), one resource, a Bundle, or an array of resources, as it is or
compressed with gzip. `resources` streams them with the bytes they take, so that `Archive` can find any of them again.

An archive remembers where a resource stands only if another refers to it or it stands there several times: a hash, a
file and two numbers each, 32 bytes. Nothing of a patient is kept. Building it reads every file once.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from reportlabel.errors import InputError

__all__ = [
    "BROKEN",
    "NOT_FHIR",
    "UNDECODABLE",
    "Archive",
    "Found",
    "Place",
    "Reading",
    "Resource",
    "build_archive",
    "names_of",
    "plain_reference",
    "references_in",
    "resources",
]

Resource = dict[str, Any]
Numbers = npt.NDArray[np.int64]

NOT_FHIR = "The file holds no FHIR resources in JSON."
BROKEN = "The resource is not valid JSON, or is cut off."
UNDECODABLE = "The resource has bytes or characters that are not valid UTF-8."

_HEAD_BYTES = 65_536
_BLOCK_BYTES = 1 << 20
_MOST_BYTES = 64 << 20
"""No resource is larger."""
_GZIP_BLOCK = 2 << 20
_GZIP_BLOCKS_KEPT = 8
_HANDLES_KEPT = 32
_BOM = codecs.BOM_UTF8
_BUNDLE = re.compile(rb'"resourceType"\s*:\s*"Bundle"')
_JSON_SPACE = re.compile(r"[ \t\r\n]*")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_REFERENCES = {
    "DiagnosticReport": ("subject", "result", "imagingStudy", "basedOn", "specimen"),
    "ImagingStudy": ("subject", "basedOn"),
    "Observation": ("subject",),
    "Condition": ("subject",),
    "Procedure": ("subject",),
    "MedicationRequest": ("subject", "medicationReference"),
    "MedicationAdministration": ("subject", "medicationReference"),
    "MedicationDispense": ("subject", "medicationReference"),
    "MedicationStatement": ("subject", "medicationReference"),
}
"""What of a resource is looked up in others."""


class Found(NamedTuple):
    """A resource in a file, or what is wrong there.

    ``row``: line, or entry of a Bundle, from 1. ``offset``, ``length``: bytes of the unpacked file. ``url``: fullUrl of
    the entry of a Bundle.
    """

    row: int
    offset: int
    length: int
    resource: Resource | None
    fault: str = ""
    url: str = ""


class Place(NamedTuple):
    """Where a resource stands: number of the file, and bytes of it."""

    file: int
    offset: int
    length: int


# --- files ------------------------------------------------------------------------------------------------------------


def resources(path: Path) -> Iterator[Found]:
    """The resources of a file, one by one, with their places.

    Raises:
        InputError: the file cannot be read, or its compressed data are damaged.
    """
    problem = ""
    try:
        with _open(path) as file:
            head = file.read(_HEAD_BYTES)
            start = len(_BOM) if head.startswith(_BOM) else 0
            form = _form(head[start:])
            file.seek(start)
            if not head[start:].strip():
                return  # of an export without resources of a type
            if form == "":
                yield Found(0, 0, 0, None, NOT_FHIR)
            elif form == "lines":
                yield from _of_lines(file, start)
            else:
                yield from _of_document(file, start)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        problem = "the compressed data are damaged or cut off; copy the file again"
    except OSError as error:
        problem = error.strerror or "reading failed"
    if problem:
        raise InputError(f"{path.name}: cannot be read: {problem}")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if _is_packed(path) else path.open("rb", buffering=_BLOCK_BYTES)


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _form(head: bytes) -> str:
    """How a file begins: lines, document (an object or an array over several lines), or nothing that is JSON."""
    head = head.lstrip()
    if not head.startswith((b"{", b"[")):
        return ""
    if head.startswith(b"["):
        return "document"
    line, newline, rest = head.partition(b"\n")
    if not newline:
        return "lines" if len(head) < _HEAD_BYTES // 2 or not _BUNDLE.search(line) else "document"
    if _object(line) is not None:
        return "lines"
    return "lines" if rest.startswith(b"{") else "document"


def _object(text: bytes) -> Resource | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _of_lines(file: BinaryIO, offset: int) -> Iterator[Found]:
    number = 0
    while line := file.readline(_MOST_BYTES):
        number += 1
        length = len(line)
        if length == _MOST_BYTES and not line.endswith(b"\n"):
            yield Found(number, offset, 0, None, BROKEN)
            while rest := file.readline(_MOST_BYTES):
                length += len(rest)
                if rest.endswith(b"\n"):
                    break
        elif line.strip(b" \t\r\n\x00\x1a"):
            yield from _of_line(line, number, offset)
        offset += length


def _of_line(line: bytes, number: int, offset: int) -> Iterator[Found]:
    try:
        text = line.decode()
        resource = json.loads(text)
        if _HALF_PAIR.search(line):
            json.dumps(resource, ensure_ascii=False).encode()
    except UnicodeError:
        yield Found(number, offset, len(line), None, UNDECODABLE)
        return
    except (ValueError, RecursionError):
        yield Found(number, offset, len(line), None, BROKEN)
        return
    if not isinstance(resource, dict):
        yield Found(number, offset, len(line), None, BROKEN)
    elif resource.get("resourceType") != "Bundle":
        yield Found(number, offset, len(line), resource)
    else:
        for found in _Walker(iter([text]), offset).resources():
            yield found._replace(row=number)


def _of_document(file: BinaryIO, offset: int) -> Iterator[Found]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def chunks() -> Iterator[str]:
        while block := file.read(_BLOCK_BYTES):
            yield decoder.decode(block)
        yield decoder.decode(b"", True)

    return _Walker(chunks(), offset).resources()


class _Broken(Exception):
    """Not JSON from here on."""


class _Walker:
    """Walks through JSON text without having all of it in memory: a Bundle is read entry by entry."""

    def __init__(self, chunks: Iterator[str], offset: int) -> None:
        self._chunks = chunks
        self._text = ""
        self._at = 0
        self._counted = 0
        self._offset = offset  # bytes up to _counted
        self._decode = json.JSONDecoder().raw_decode
        self._row = 0

    def resources(self) -> Iterator[Found]:
        try:
            while self._next():
                yield from self._top()
        except (_Broken, RecursionError):
            yield Found(self._row + 1, self._offset, 0, None, BROKEN)

    def _top(self) -> Iterator[Found]:
        start = self._byte()
        if self._take("["):
            yield from self._elements()
            return
        self._expect("{")
        known: Resource = {}
        url_of_bundle = False
        while not self._take("}"):
            key, _, _ = self._value()
            self._expect(":")
            if key == "entry" and self._next() == "[":
                url_of_bundle = True
                self._expect("[")
                yield from self._elements()
            else:
                known[key if isinstance(key, str) else ""], _, _ = self._value()
            if not self._take(",") and self._next() != "}":
                raise _Broken
        kind = known.get("resourceType")
        if kind != "Bundle" and not (url_of_bundle and kind is None):
            self._row += 1
            yield Found(self._row, start, self._byte() - start, known, self._fault_of(known))

    def _elements(self) -> Iterator[Found]:
        while not self._take("]"):
            self._row += 1
            entry, start, length = self._value()
            if not self._take(",") and self._next() != "]":
                raise _Broken
            if not isinstance(entry, dict):
                continue
            inner = entry.get("resource")
            url = entry.get("fullUrl")
            resource = inner if isinstance(inner, dict) else entry if "resourceType" in entry else None
            if resource is None:
                continue
            if resource.get("resourceType") == "Bundle":
                yield Found(self._row, start, length, None, BROKEN)
                continue
            url = url if isinstance(url, str) else ""
            yield Found(self._row, start, length, resource, self._fault_of(resource), url)

    @staticmethod
    def _fault_of(resource: Resource) -> str:
        try:
            json.dumps(resource, ensure_ascii=False).encode()
        except UnicodeError:
            return UNDECODABLE
        return ""

    def _more(self) -> bool:
        """Reads as much again as is waiting."""
        wanted = max(1, len(self._text) - self._at)
        if wanted > _MOST_BYTES:
            return False
        parts = []
        for chunk in self._chunks:
            parts.append(chunk)
            wanted -= len(chunk)
            if wanted <= 0:
                break
        if not any(parts):
            return False
        self._count(self._at)
        self._text = self._text[self._at :] + "".join(parts)
        self._at = self._counted = 0
        return True

    def _count(self, at: int) -> None:
        self._offset += len(self._text[self._counted : at].encode("utf-8", "surrogateescape"))
        self._counted = at

    def _byte(self) -> int:
        self._count(self._at)
        return self._offset

    def _next(self) -> str:
        """The next character that is no space; nothing at the end."""
        while True:
            space = _JSON_SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> bool:
        if self._next() != character:
            return False
        self._at += 1
        return True

    def _expect(self, character: str) -> None:
        if not self._take(character):
            raise _Broken

    def _value(self) -> tuple[Any, int, int]:
        """A value, its first byte and its bytes."""
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise _Broken from None
                continue
            if end < len(self._text) or not self._more():  # a number may go on
                break
        start = self._byte()
        self._at = end
        return value, start, self._byte() - start


# --- bytes of a place -------------------------------------------------------------------------------------------------


class _GzipPoint(NamedTuple):
    """A state of unpacking from which one can go on."""

    position: int
    waiting: bytes
    decoder: Any


@dataclass
class _GzipPoints:
    """States every `_GZIP_BLOCK` bytes of an unpacked file, as far as it has been read."""

    points: list[_GzipPoint] = field(default_factory=list)

    def block(self, file: BinaryIO, number: int) -> bytes:
        if not self.points:
            self.points.append(_GzipPoint(0, b"", zlib.decompressobj(31)))
        at = min(number, len(self.points) - 1)
        while True:
            point = self.points[at]
            data, following = self._unpack(file, point)
            if at + 1 == len(self.points):
                self.points.append(following)
            if at == number or not data:
                return data
            at += 1

    @staticmethod
    def _unpack(file: BinaryIO, point: _GzipPoint) -> tuple[bytes, _GzipPoint]:
        file.seek(point.position)
        position, waiting, decoder = point.position, point.waiting, point.decoder.copy()
        parts, wanted = [], _GZIP_BLOCK
        while wanted > 0:
            if not waiting:
                waiting = file.read(65_536)
                position += len(waiting)
                if not waiting:
                    break
            data = decoder.decompress(waiting, wanted)
            parts.append(data)
            wanted -= len(data)
            waiting = decoder.unconsumed_tail
            if decoder.eof:  # a file may have several members
                waiting = decoder.unused_data.lstrip(b"\0")
                decoder = zlib.decompressobj(31)
        return b"".join(parts), _GzipPoint(position, waiting, decoder)


class Reading:
    """Files of an archive held open while one file is read; use it in a ``with`` statement."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._handles: OrderedDict[int, BinaryIO] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()
        self._blocks.clear()

    def load(self, place: Place) -> Resource | None:
        """The resource at a place; None if it is not there any more."""
        try:
            text = self._bytes(place)
        except (OSError, EOFError, zlib.error):
            return None
        found = _object(text)
        inner = found.get("resource") if found is not None and "resourceType" not in found else found
        return inner if isinstance(inner, dict) else None

    def _bytes(self, place: Place) -> bytes:
        handle = self._handle(place.file)
        if not _is_packed(self._archive.paths[place.file]):
            handle.seek(place.offset)
            return handle.read(place.length)
        first, last = place.offset // _GZIP_BLOCK, (place.offset + place.length - 1) // _GZIP_BLOCK
        blocks = b"".join(self._block(place.file, number) for number in range(first, last + 1))
        start = place.offset - first * _GZIP_BLOCK
        return blocks[start : start + place.length]

    def _handle(self, file: int) -> BinaryIO:
        if file in self._handles:
            self._handles.move_to_end(file)
            return self._handles[file]
        if len(self._handles) >= _HANDLES_KEPT:
            self._handles.popitem(last=False)[1].close()
        handle = self._handles[file] = self._archive.paths[file].open("rb")
        return handle

    def _block(self, file: int, number: int) -> bytes:
        key = (file, number)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        if len(self._blocks) >= _GZIP_BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        points = self._archive.packed.setdefault(file, _GzipPoints())
        block = self._blocks[key] = points.block(self._handle(file), number)
        return block


# --- an archive -------------------------------------------------------------------------------------------------------


@dataclass
class Archive:
    """Where the resources stand that others refer to or that stand there several times.

    Attributes:
        paths: the files, sorted.
        scopes: of each file, within which ids mean the same resource.
        stamps: size and time of each file when it was read.
        packed: where unpacking of compressed files can go on.
    """

    paths: list[Path]
    scopes: list[str]
    stamps: list[tuple[int, int]]
    keys: Numbers
    places: Numbers
    referred: Numbers
    """Hashes of all that is referred to, sorted."""
    edges: dict[int, list[int]]
    """Files on which the rows of a file depend."""
    numbers: dict[Path, int]
    packed: dict[int, _GzipPoints] = field(default_factory=dict)

    def is_current(self, path: Path) -> bool:
        """Whether a file and those on which it depends are as they were."""
        number = self.numbers.get(path)
        if number is None:
            return False
        return all(_stamp(self.paths[one]) == self.stamps[one] for one in (number, *self.edges.get(number, [])))

    def is_as_it_was(self) -> bool:
        """Whether all files are as they were."""
        return list(map(_stamp, self.paths)) == self.stamps

    def candidates(self, reference: str, *, scope: str) -> list[Place]:
        """Where a resource stands: once, several times or nowhere. ``reference``: Type/id, a URL, or urn:uuid."""
        key = _key(scope, reference)
        first = int(np.searchsorted(self.keys, key, "left"))
        last = first
        places = []
        while last < len(self.keys) and self.keys[last] == key:
            file, offset, length = self.places[last]
            places.append(Place(int(file), int(offset), int(length)))
            last += 1
        return places

    def is_referred(self, reference: str, *, scope: str) -> bool:
        """Whether any resource refers to it."""
        key = _key(scope, reference)
        at = int(np.searchsorted(self.referred, key))
        return at < len(self.referred) and int(self.referred[at]) == key

    def nearest(self, places: list[Place], near: Path) -> list[Place]:
        """Those in the same file, else in the nearest folder: ids of two servers can be the same."""
        if len({place.file for place in places}) < 2:
            return places
        common = [_common(self.paths[place.file].parts, near.parts) for place in places]
        return [place for place, count in zip(places, common, strict=True) if count == max(common)]


def build_archive(paths: Sequence[Path], scopes: Sequence[str]) -> Archive:
    """Reads all files once. A file that cannot be read has no resources here: `read` says so."""
    paths = list(paths)
    keys, places = array("q"), array("q")
    referring: list[Numbers] = []
    stamps = []
    for number, path in enumerate(paths):
        stamps.append(_stamp(path))
        referred = array("q")
        try:
            for found in resources(path):
                if found.resource is None or found.fault:
                    continue
                for name in names_of(found.resource, found.url):
                    keys.append(_key(scopes[number], name))
                    places.extend((number, found.offset, found.length))
                last = 0
                for name in _references(found.resource):
                    key = _key(scopes[number], name)
                    if key != last:
                        referred.append(key)
                    last = key
        except InputError:
            pass
        referring.append(np.unique(np.frombuffer(referred, dtype=np.int64)))
    return _archive(paths, list(scopes), stamps, _numbers(keys), _numbers(places).reshape(-1, 3), referring)


def _archive(
    paths: list[Path],
    scopes: list[str],
    stamps: list[tuple[int, int]],
    keys: Numbers,
    places: Numbers,
    referring: list[Numbers],
) -> Archive:
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    files = places[:, 0]
    referred = np.unique(np.concatenate(referring)) if referring else np.empty(0, dtype=np.int64)
    twice = np.zeros(len(keys), dtype=np.bool_)
    same = keys[1:] == keys[:-1]
    twice[1:] |= same
    twice[:-1] |= same
    pairs = [_pairs_of_copies(keys, files)]
    for number, wanted in enumerate(referring):
        left, right = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        counts = right - left
        ends = np.cumsum(counts)
        found = np.unique(files[np.repeat(left - ends + counts, counts) + np.arange(counts.sum())])
        pairs.append(np.stack([np.full(len(found), number, dtype=np.int64), found], axis=1))
    edges: dict[int, list[int]] = {}
    for one, other in np.unique(np.concatenate(pairs), axis=0).tolist():
        if one != other:
            edges.setdefault(one, []).append(other)
    kept = twice | np.isin(keys, referred)
    return Archive(
        paths=paths,
        scopes=scopes,
        stamps=stamps,
        keys=keys[kept].copy(),
        places=places[kept].copy(),
        referred=referred,
        edges=edges,
        numbers={path: number for number, path in enumerate(paths)},
    )


def _pairs_of_copies(keys: Numbers, files: Numbers) -> Numbers:
    """Pairs of files that hold the same resource."""
    found: list[Numbers] = [np.empty((0, 2), dtype=np.int64)]
    for step in range(1, len(keys)):
        same = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(same):
            break
        pairs = np.unique(np.stack([files[same], files[same + step]], axis=1), axis=0)
        found += [pairs, pairs[:, ::-1]]
    return np.concatenate(found)


def names_of(resource: Resource, url: str = "") -> list[str]:
    """What others may call a resource: Type/id, and its fullUrl where that is a urn."""
    names = []
    kind, id_ = resource.get("resourceType"), resource.get("id")
    if isinstance(kind, str) and isinstance(id_, str) and id_:
        names.append(f"{kind}/{id_}")
    if url.startswith("urn:"):
        names.append(url)
    elif url and not names:
        names.append(plain_reference(url))
    return names


def plain_reference(reference: str) -> str:
    """Type/id of a reference, without server and version; a urn stays as it is."""
    if reference.startswith("urn:"):
        return reference
    parts = reference.split("/_history/", 1)[0].split("/")
    return "/".join(parts[-2:])


def references_in(value: Any) -> list[str]:
    """The references of a Reference or a list of them; none to what is contained."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return []
    found = [one.get("reference") for one in value if isinstance(one, dict)]
    return [one for one in found if isinstance(one, str) and one and not one.startswith("#")]


def _references(resource: Resource) -> Iterator[str]:
    for name in _REFERENCES.get(str(resource.get("resourceType")), ()):
        if value := resource.get(name):
            for reference in references_in(value):
                yield plain_reference(reference)


def _key(scope: str, name: str) -> int:
    return hash((scope, name))


def _numbers(numbers: array[int]) -> Numbers:
    return np.frombuffer(numbers, dtype=np.int64) if len(numbers) else np.empty(0, dtype=np.int64)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_size, found.st_mtime_ns


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
