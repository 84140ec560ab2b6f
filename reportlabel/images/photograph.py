"""A photograph without anything but its picture: no EXIF, GPS, thumbnail, comment or profile.

The picture is decoded, turned upright as its EXIF says, brought to sRGB and written anew; whatever else was in the
file, also behind its end, is not in the new one.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps

from reportlabel.export.deliverable_rules import PhotographRules

__all__ = ["REASONS", "Clean", "Unusable", "metadata_of", "without_metadata"]

UNREADABLE = "The picture cannot be read."
OTHER_FORMAT = "The file is of a format that is not handed over."
SEVERAL = "The file holds several pictures."
TOO_LARGE = "The picture is too large."
LEFT = "Something but the picture is left in the new file."

REASONS = {
    UNREADABLE: "Copy the file again from the camera or the archive.",
    OTHER_FORMAT: "Convert it to JPEG, PNG or TIFF.",
    SEVERAL: "Save each picture as a file of its own.",
    TOO_LARGE: "Make it smaller, or leave it out.",
    LEFT: "Leave it out and report the file format.",
}
"""Why a picture does not go out, and what mends it."""

_SAME_AS = {"MPO": "JPEG"}  # a JPEG of a telephone with a preview behind it
_MODES = {"JPEG": ("L", "RGB"), "PNG": ("L", "RGB", "RGBA", "I;16"), "TIFF": ("L", "RGB", "RGBA", "I;16")}
_PICTURE_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_PICTURE_TAGS = frozenset({*range(254, 260), 262, 266, 273, 277, 278, 279, 282, 283, 284, 296, 317, 320, 338, 339})
_START_OF_SCAN = 0xDA


class Unusable(Exception):
    """A picture that does not go out; ``reason`` is one of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Clean:
    """The new file: its bytes, format (JPEG, PNG, TIFF) and size in pixels; ``had``: what the old file had besides."""

    content: bytes
    format: str
    width: int
    height: int
    had: tuple[str, ...]


def without_metadata(content: bytes, rules: PhotographRules) -> Clean:
    """The picture of a file and nothing else.

    Raises:
        Unusable: it cannot be read, is of another format, holds several pictures, or the new file is not clean.
    """
    problem = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which goes anyway
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                kind = _SAME_AS.get(opened.format or "", opened.format or "")
                if kind not in rules.formats:
                    problem = OTHER_FORMAT
                elif opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
                    problem = SEVERAL
                else:
                    picture = _pixels(opened, kind)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problem = TOO_LARGE
    except (OSError, ValueError, SyntaxError, struct.error, EOFError, IndexError, KeyError, TypeError):
        problem = UNREADABLE  # what the libraries raise may quote the file
    if problem:
        raise Unusable(problem)
    stream = io.BytesIO()
    if kind == "JPEG":
        picture.save(stream, "JPEG", quality=rules.jpeg_quality, subsampling=0)
    elif kind == "PNG":
        picture.save(stream, "PNG")
    else:
        picture.save(stream, "TIFF", compression="tiff_lzw")
    new = stream.getvalue()
    if metadata_of(new):
        raise Unusable(LEFT)
    return Clean(new, kind, picture.width, picture.height, tuple(metadata_of(content)))


def metadata_of(content: bytes) -> list[str]:
    """What a file holds besides its picture: EXIF, GPS, thumbnail, XMP, IPTC, ICC profile, comment, text, other,
    trailing.

    Looks at the bytes of JPEG, PNG and TIFF files, not at what a library makes of them. A file that cannot be followed
    to its end has ``other``.
    """
    found: set[str] = set()
    try:
        if content.startswith(b"\xff\xd8"):
            found.update(_in_jpeg(content))
        elif content.startswith(b"\x89PNG\r\n\x1a\n"):
            found.update(_in_png(content))
        elif content[:4] in (b"II*\0", b"MM\0*"):
            found.update(_in_tiff(content))
        else:
            found.add("other")
    except (struct.error, IndexError):
        found.add("other")
    return sorted(found)


def _pixels(opened: Image.Image, kind: str) -> Image.Image:
    """Upright, in sRGB, and a new image that knows nothing of the old file."""
    profile = opened.info.get("icc_profile")
    picture = ImageOps.exif_transpose(opened)
    if picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if profile and picture.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            picture = converted or picture
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that is damaged says nothing of the colours
    if picture.mode not in _MODES[kind]:
        picture = picture.convert("RGB")
    return Image.frombytes(picture.mode, picture.size, picture.tobytes())


def _in_jpeg(content: bytes) -> Iterator[str]:
    at = 2
    while True:
        if content[at] != 0xFF:
            yield "other"
            return
        marker = content[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        part = content[at + 4 : at + 2 + length]
        yield from _in_segment(marker, part)
        at += 2 + length
        if marker == _START_OF_SCAN:
            break
    end = content.rfind(b"\xff\xd9")
    # a second picture ends with the same marker
    first = content.find(b"\xff\xd9", at)
    if end < 0 or first != end or content[end + 2 :]:
        yield "trailing"


def _in_segment(marker: int, part: bytes) -> Iterator[str]:
    if marker == 0xE0:
        if part[:5] == b"JFIF\0" and part[12:14] != b"\0\0":
            yield "thumbnail"
        elif part[:5] != b"JFIF\0":
            yield "thumbnail" if part[:4] == b"JFXX" else "other"
    elif marker == 0xE1:
        yield from (
            _in_exif(part[6:]) if part[:6] == b"Exif\0\0" else ("XMP" if b"adobe.com/x" in part[:60] else "other",)
        )
    elif marker == 0xE2:
        yield "ICC profile" if part[:11] == b"ICC_PROFILE" else "other"
    elif marker == 0xED:
        yield "IPTC"
    elif marker == 0xFE:
        yield "comment"
    elif 0xE3 <= marker <= 0xEF and not (marker == 0xEE and part[:5] == b"Adobe" and len(part) == 12):
        yield "other"


def _in_exif(tiff: bytes) -> Iterator[str]:
    yield "EXIF"
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack(f"{order}I", tiff[4:8])
    tags, following = _directory(tiff, first, order)
    if 0x8825 in tags:
        yield "GPS"
    if following:
        yield "thumbnail"


def _directory(tiff: bytes, at: int, order: str) -> tuple[set[int], int]:
    """The tags of a directory, and where the next one is; 0: there is none."""
    (count,) = struct.unpack(f"{order}H", tiff[at : at + 2])
    end = at + 2 + 12 * count
    tags = {struct.unpack(f"{order}H", tiff[place : place + 2])[0] for place in range(at + 2, end, 12)}
    (following,) = struct.unpack(f"{order}I", tiff[end : end + 4])
    return tags, following


def _in_png(content: bytes) -> Iterator[str]:
    at = 8
    names = {
        b"eXIf": "EXIF",
        b"iCCP": "ICC profile",
        b"tEXt": "text",
        b"zTXt": "text",
        b"iTXt": "text",
        b"tIME": "other",
    }
    while True:
        (length,) = struct.unpack(">I", content[at : at + 4])
        name = content[at + 4 : at + 8]
        if name not in _PICTURE_CHUNKS:
            yield names.get(name, "other")
        if name == b"eXIf":
            yield from _in_exif(content[at + 8 : at + 8 + length])
        at += 12 + length
        if name == b"IEND":
            break
    if content[at:]:
        yield "trailing"


def _in_tiff(content: bytes) -> Iterator[str]:
    order = "<" if content[:2] == b"II" else ">"
    (first,) = struct.unpack(f"{order}I", content[4:8])
    tags, following = _directory(content, first, order)
    names = {
        34665: "EXIF",
        34853: "GPS",
        700: "XMP",
        33723: "IPTC",
        34377: "IPTC",
        34675: "ICC profile",
        330: "thumbnail",
    }
    for tag in tags - _PICTURE_TAGS:
        yield names.get(tag, "text" if tag in (269, 270, 271, 272, 305, 306, 315, 316, 33432) else "other")
    if following:
        yield "thumbnail"
