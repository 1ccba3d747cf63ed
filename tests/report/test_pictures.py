from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import numpy as np
import PIL.Image
import pytest

from focaldet.report.data import Mark, Picture
from focaldet.report.pictures import LONGEST_SIDE, encode_jpeg, picture_card

BOX = ((10.0, 20.0), (40.0, 20.0), (40.0, 50.0), (10.0, 50.0))


def _picture(*seen: Mark) -> Picture:
    return Picture("cat.jpg", b"jpeg", (90, 120), (Mark(BOX, 0, "truth"),), seen)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_jpeg_of_any_number_of_channels_is_made_smaller(channels: int) -> None:
    data = encode_jpeg(np.zeros((300, 2000, channels), np.uint8))
    assert PIL.Image.open(io.BytesIO(data)).size == (LONGEST_SIDE, 120)


def test_small_pictures_keep_their_size() -> None:
    assert PIL.Image.open(io.BytesIO(encode_jpeg(np.zeros((30, 20, 3), np.uint8)))).size == (20, 30)


def test_photo_is_embedded_once_and_shown_twice() -> None:
    text = picture_card(_picture(), 7, 0.5, ["cat"])
    assert text.count("base64") == 1
    assert 'id="photo-7"' in text and 'href="#photo-7"' in text


def test_marks_show_by_the_threshold() -> None:
    marks = (
        Mark(BOX, 0, "hit", 0.6),
        Mark(BOX, 0, "false", 0.4),
        Mark(BOX, 0, "missed", 0.6),
        Mark(BOX, 0, "missed", 0.1),
    )
    page = ET.fromstring(picture_card(_picture(*marks), 0, 0.5, ["cat"]).replace(" hidden>", ' hidden="">'))
    hidden = {
        (g.attrib["class"], g.attrib["data-score"]): "hidden" in g.attrib
        for g in page.iter("g")
        if "data-score" in g.attrib
    }
    assert hidden == {
        ("box hit", "0.6000"): False,
        ("box false", "0.4000"): True,
        ("box missed", "0.6000"): True,
        ("box missed", "0.1000"): False,
    }
    counts = {span.attrib["data-count"]: span.text for span in page.iter("span") if "data-count" in span.attrib}
    assert counts == {"hit": "1", "false": "0", "missed": "1"}


def test_labels_stay_on_the_picture() -> None:
    corner = Mark(((100.0, 0.0), (120.0, 0.0), (120.0, 10.0), (100.0, 10.0)), 0, "hit", 0.9)
    page = ET.fromstring(picture_card(_picture(corner), 0, 0.5, ["a class with a very long name"]))
    tags = [rect.attrib for rect in page.iter("rect") if rect.attrib["class"] == "tag"]
    assert all(float(tag["x"]) >= 0 and float(tag["y"]) >= 0 for tag in tags)
