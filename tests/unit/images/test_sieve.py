"""The first sieve for faces and eyes."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from reportlabel.errors import ConfigError
from reportlabel.export.deliverable_rules import load_deliverables
from reportlabel.images.sieve import HITS, FaceSieve, sieve_pictures
from tests.unit.images.drawn_pictures import exif, face, jpeg, png, skin

RULES = load_deliverables().photographs.sieve


@pytest.fixture(scope="module")
def sieve() -> FaceSieve:
    pytest.importorskip("cv2", reason="OpenCV (the extra 'images') is not installed")
    return FaceSieve(RULES)


@pytest.mark.parametrize("size", [160, 320, 1200])
def test_S4_T2_a_face_and_its_eyes_are_found(sieve: FaceSieve, size: int) -> None:
    hits = sieve.find(png(face(size)))
    assert hits is not None
    assert {hit.finds for hit in hits} == {"face", "eye"}
    where = next(hit for hit in hits if hit.finds == "face")
    assert where.x < 0.4 < where.x + where.width and where.y < 0.5 < where.y + where.height
    assert all(0 <= place <= 1 for hit in hits for place in (hit.x, hit.y, hit.width, hit.height))


def test_S4_T2_a_face_that_lies_on_its_side_is_found_as_the_camera_says(sieve: FaceSieve) -> None:
    lying = jpeg(face().transpose(Image.Transpose.ROTATE_90).convert("RGB"), exif=exif(orientation=6))
    hits = sieve.find(lying)
    assert hits and "face" in {hit.finds for hit in hits}


def test_S4_T2_skin_is_no_face_and_every_picture_has_a_row(sieve: FaceSieve) -> None:
    rows = sieve_pictures([("a", png(face())), ("b", jpeg(skin(400, 300))), ("c", b"no picture"), ("d", b"")], sieve)
    assert rows.schema == HITS
    assert set(rows["image_id"]) == {"a", "b", "c", "d"}
    assert rows.filter(image_id="b").select("read", "finds").rows() == [(True, None)]
    assert rows.filter(~rows["read"])["image_id"].to_list() == ["c", "d"]


def test_without_opencv_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"reportlabel\[images\]"):
        FaceSieve(RULES)


def test_a_cascade_that_opencv_does_not_have_is_named(sieve: FaceSieve) -> None:
    wrong = RULES.cascades[0].model_copy(update={"file": "haarcascade_nose.xml"})
    with pytest.raises(ConfigError, match="haarcascade_nose"):
        FaceSieve(RULES.model_copy(update={"cascades": (wrong,)}))
