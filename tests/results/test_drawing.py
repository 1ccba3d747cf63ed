"""Drawing: whatever is handed over is drawn on a copy, at any size, without labels on labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from focaldet.errors import FocaldetError
from focaldet.results.detections import Detections
from focaldet.results.drawing import Mark, colour_of, draw_marks, letter_size, line_width, to_pil

SQUARE = [(10, 10), (50, 10), (50, 40), (10, 40)]


def test_draws_on_a_copy() -> None:
    array = np.full((60, 80, 3), 90, np.uint8)
    before = array.copy()
    drawn = np.asarray(draw_marks(array, [Mark(SQUARE, (255, 0, 0))]))
    assert (array == before).all()
    assert drawn.shape == array.shape
    assert tuple(drawn[10, 30]) == (255, 0, 0)
    assert tuple(drawn[25, 30]) == (90, 90, 90)
    picture = Image.fromarray(array)
    draw_marks(picture, [Mark(SQUARE, (255, 0, 0))])
    assert (np.asarray(picture) == before).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_any_kind_of_picture(mode: str) -> None:
    assert to_pil(Image.new(mode, (30, 20))).mode == "RGB"


def test_files_grey_arrays_and_orientation(tmp_path: Path) -> None:
    assert to_pil(np.zeros((20, 30), np.uint8)).size == (30, 20)
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert to_pil(tmp_path / "turned.jpg").size == (20, 30)


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match=r"float32 \(4, 4, 3\) cannot be drawn on; give uint8"):
        to_pil(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(FocaldetError, match="cannot be drawn on"):
        to_pil(np.zeros((4, 4, 5), np.uint8))
    (tmp_path / "x.jpg").write_text("no picture")
    with pytest.raises(FocaldetError, match=r"x\.jpg: cannot be read as a picture"):
        to_pil(tmp_path / "x.jpg")


def test_dashes_have_gaps() -> None:
    drawn = np.asarray(draw_marks(np.zeros((60, 80, 3), np.uint8), [Mark(SQUARE, (0, 255, 0), dashed=True)]))
    top = drawn[10, 10:51, 1]
    assert top[0] == top[-1] == 255  # corners are closed
    assert (top == 0).any()


def test_colours_of_eighty_classes_differ() -> None:
    assert len({colour_of(label) for label in range(80)}) == 80


def test_lines_and_letters_grow_with_the_picture() -> None:
    assert line_width((640, 480)) < line_width((4000, 3000))
    assert letter_size((100, 100)) < letter_size((640, 480)) < letter_size((4000, 3000))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 40), (700, 500)])
def test_boxes_outside_tiny_or_huge_are_no_problem(size: tuple[int, int]) -> None:
    boxes = torch.tensor([[-50.0, -50, 900, 900], [5, 5, 5.5, 5.5], [690, 490, 720, 520], [800, 800, 900, 900]])
    many = Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 2, 0]), ("a", "long name", "ü"))
    assert many.draw(Image.new("RGB", size)).size == size


def test_labels_do_not_cover_labels() -> None:
    """Of two equal boxes the better one's label takes the first place; the other's goes elsewhere."""
    blank = np.zeros((200, 200, 3), np.uint8)
    box = [(40, 60), (120, 60), (120, 120), (40, 120)]
    lower, upper = Mark(box, (0, 0, 255), "lower"), Mark(box, (255, 0, 0), "upper")
    both, alone = (np.asarray(draw_marks(blank, marks)) for marks in ([lower, upper], [upper]))
    assert (both[:58] == alone[:58]).all()
    assert (both != alone).any()
