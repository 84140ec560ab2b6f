"""Pictures for tests: a face of ellipses, and files full of metadata."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageDraw, ImageFilter, PngImagePlugin

CANARY = "KANARIENVOGEL"
"""Stands in every piece of metadata that the files below have."""


def face(size: int = 320) -> Image.Image:
    """What a cascade takes for a face from the front; nobody's."""
    picture = Image.new("L", (size, size), 110)
    draw = ImageDraw.Draw(picture)
    scale = size / 320

    def ellipse(x0: float, y0: float, x1: float, y1: float, grey: int) -> None:
        draw.ellipse([x0 * scale, y0 * scale, x1 * scale, y1 * scale], fill=grey)

    ellipse(70, 20, 250, 300, 60)  # hair
    ellipse(85, 50, 235, 300, 205)  # skin
    for x in (120, 200):
        draw.rectangle([(x - 26) * scale, 128 * scale, (x + 26) * scale, 138 * scale], fill=80)  # brow
        ellipse(x - 24, 143, x + 24, 172, 130)
        ellipse(x - 18, 148, x + 18, 168, 235)
        ellipse(x - 9, 148, x + 9, 168, 30)
    ellipse(150, 150, 170, 225, 225)  # nose
    ellipse(142, 214, 178, 232, 150)
    ellipse(125, 246, 195, 272, 110)  # mouth
    draw.rectangle([130 * scale, 257 * scale, 190 * scale, 261 * scale], fill=60)
    return picture.filter(ImageFilter.GaussianBlur(3 * scale))


def skin(width: int = 90, height: int = 60) -> Image.Image:
    """A brown spot on skin; its upper left corner is white, so that one sees how it is turned."""
    picture = Image.new("RGB", (width, height), (224, 188, 160))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([width * 0.4, height * 0.4, width * 0.7, height * 0.8], fill=(90, 50, 30))
    draw.rectangle([0, 0, width // 5, height // 5], fill=(255, 255, 255))
    return picture


def exif(*, orientation: int = 1, gps: bool = True, thumbnail: bool = False) -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x0112], tags[0x013B] = CANARY, CANARY, orientation, CANARY
    tags.get_ifd(0x8769)[0x9286] = CANARY.encode()
    if gps:
        place = tags.get_ifd(0x8825)
        place[1], place[2], place[3], place[4] = "N", (36.0, 23.0, 0.0), "E", (139.0, 3.0, 0.0)
    content = tags.tobytes()
    if thumbnail:
        # a second directory behind the first, as cameras write it
        body = content.removeprefix(b"Exif\0\0")
        order = "little" if body[:2] == b"II" else "big"
        first = int.from_bytes(body[4:8], order)  # type: ignore[arg-type]
        count = int.from_bytes(body[first : first + 2], order)  # type: ignore[arg-type]
        at = first + 2 + 12 * count
        small = jpeg(skin(16, 12))
        where = len(body)
        entries = [(0x0103, 3, 1, 6), (0x0201, 4, 1, where + 2 + 36 + 4), (0x0202, 4, 1, len(small))]
        directory = (3).to_bytes(2, order)  # type: ignore[arg-type]
        for tag, kind, number, value in entries:
            size = 2 if kind == 3 else 4
            directory += b"".join(
                part.to_bytes(width, order)  # type: ignore[arg-type]
                for part, width in ((tag, 2), (kind, 2), (number, 4), (value, size))
            ).ljust(12, b"\0")
        body = body[:at] + where.to_bytes(4, order) + body[at + 4 :]  # type: ignore[arg-type]
        content = b"Exif\0\0" + body + directory + b"\0\0\0\0" + small
    return content


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


def png(picture: Image.Image, *, text: bool = False, **options: Any) -> bytes:
    stream = io.BytesIO()
    if text:
        info = PngImagePlugin.PngInfo()
        info.add_text("Author", CANARY)
        info.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta>{CANARY}</x:xmpmeta>")
        options["pnginfo"] = info
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


def tiff(picture: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "TIFF", **options)
    return stream.getvalue()
