"""Photographs without EXIF, GPS, thumbnails, comments and profiles."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from reportlabel.export.deliverable_rules import PhotographRules, load_deliverables
from reportlabel.images.photograph import (
    OTHER_FORMAT,
    REASONS,
    SEVERAL,
    UNREADABLE,
    Unusable,
    metadata_of,
    without_metadata,
)
from tests.unit.images.drawn_pictures import CANARY, exif, jpeg, png, skin, tiff

RULES = load_deliverables().photographs


@pytest.fixture
def rules() -> PhotographRules:
    return RULES


def full_files() -> dict[str, tuple[bytes, set[str]]]:
    """Files of each format with all that they can carry, and what that is."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x>" + CANARY.encode() + b"</x>"
    camera = jpeg(skin(), exif=exif(thumbnail=True), comment=CANARY.encode(), icc_profile=profile)
    app1 = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    iptc = b"\xff\xed" + (len(CANARY) + 2).to_bytes(2, "big") + CANARY.encode()
    return {
        "jpeg": (
            camera[:2] + app1 + iptc + camera[2:] + CANARY.encode(),
            {"EXIF", "GPS", "thumbnail", "XMP", "IPTC", "ICC profile", "comment", "trailing"},
        ),
        "png": (
            png(skin(), text=True, exif=exif(), icc_profile=profile) + CANARY.encode(),
            {"EXIF", "GPS", "ICC profile", "text", "trailing"},
        ),
        "tiff": (tiff(skin(), description=CANARY, software=CANARY, artist=CANARY), {"text"}),
    }


@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_S4_everything_but_the_picture_is_taken_out(rules: PhotographRules, kind: str) -> None:
    content, has = full_files()[kind]
    # the search finds it all in what came in
    assert CANARY.encode() in content
    assert set(metadata_of(content)) >= has
    clean = without_metadata(content, rules)
    assert set(clean.had) >= has
    assert metadata_of(clean.content) == []
    assert CANARY.encode() not in clean.content
    assert b"Exif" not in clean.content and b"GPS" not in clean.content
    with Image.open(io.BytesIO(clean.content)) as again:
        assert again.size == (clean.width, clean.height) == (90, 60)
        if kind != "tiff":  # whose picture itself is described by tags
            assert again.getexif() == {}
        assert "icc_profile" not in again.info and "comment" not in again.info


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_S4_the_picture_itself_stays(rules: PhotographRules, kind: str) -> None:
    write = {"png": png, "tiff": tiff}[kind]
    clean = without_metadata(write(skin()), rules)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(clean.content))), np.asarray(skin()))


def test_S4_a_jpeg_hardly_changes(rules: PhotographRules) -> None:
    before = jpeg(skin())
    clean = without_metadata(before, rules)
    pixels = [np.asarray(Image.open(io.BytesIO(one)), dtype=float) for one in (before, clean.content)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_S4_the_picture_is_turned_upright_before_the_tag_goes(rules: PhotographRules, orientation: int) -> None:
    turned = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = skin() if turned is None else skin().transpose(turned)
    clean = without_metadata(jpeg(stored, exif=exif(orientation=orientation)), rules)
    with Image.open(io.BytesIO(clean.content)) as upright:
        assert upright.size == (90, 60)
        assert min(upright.convert("RGB").getpixel((4, 4))) > 240  # type: ignore[arg-type, type-var]


def test_S4_16_bit_and_palette_pictures(rules: PhotographRules) -> None:
    deep = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    clean = without_metadata(png(deep), rules)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(clean.content))), np.asarray(deep))
    few = without_metadata(png(skin().quantize(8)), rules)
    assert (few.format, few.width) == ("PNG", 90)
    assert without_metadata(jpeg(skin().convert("CMYK")), rules).format == "JPEG"


def test_S4_a_preview_behind_the_picture_goes(rules: PhotographRules) -> None:
    stream = io.BytesIO()
    skin().save(stream, "MPO", save_all=True, append_images=[skin(30, 20)])
    assert "trailing" in metadata_of(stream.getvalue())
    clean = without_metadata(stream.getvalue(), rules)
    assert clean.format == "JPEG" and metadata_of(clean.content) == []


def several_pages() -> bytes:
    return tiff(skin(), save_all=True, append_images=[skin()])


def gif() -> bytes:
    stream = io.BytesIO()
    skin().save(stream, "GIF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", UNREADABLE),
        (b"no picture", UNREADABLE),
        (jpeg(skin())[:400], UNREADABLE),
        (png(skin())[:60], UNREADABLE),
        (gif(), OTHER_FORMAT),
        (several_pages(), SEVERAL),
    ],
)
def test_S4_what_cannot_be_cleaned_does_not_go_out(rules: PhotographRules, content: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as error:
        without_metadata(content, rules)
    assert error.value.reason == reason and REASONS[reason]


def test_S4_a_picture_that_would_fill_the_memory_is_refused(
    rules: PhotographRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Unusable, match="too large"):
        without_metadata(jpeg(skin()), rules)


FULL = full_files()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["jpeg", "png", "tiff"]), st.integers(0, 5000), st.integers(0, 255))
def test_S4_a_damaged_file_is_clean_or_unusable(kind: str, at: int, byte: int) -> None:
    content = bytearray(FULL[kind][0])
    content[at % len(content)] = byte
    metadata_of(bytes(content))
    try:
        clean = without_metadata(bytes(content), RULES)
    except Unusable:
        return
    assert metadata_of(clean.content) == [] and CANARY.encode() not in clean.content
