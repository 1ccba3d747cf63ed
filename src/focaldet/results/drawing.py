"""Boxes and words on pictures: lines and letters that can be read on any background and at any size. Pillow only."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from focaldet.errors import FocaldetError

Picture = Image.Image | npt.NDArray[np.uint8] | str | Path
Colour = tuple[int, int, int]
Polygon = Sequence[Sequence[float]]
Rectangle = tuple[float, float, float, float]

HALO: Colour = (0, 0, 0)
"""Drawn softly along both sides of every line, so that a light line shows on a light ground."""


@dataclass(frozen=True)
class Mark:
    """One outline to draw.

    Attributes:
        polygon: corners (x, y) in pixels of the picture.
        colour: of line and label.
        text: label at the top left corner; empty for none.
        dashed: broken line, for what is not there.
    """

    polygon: Polygon
    colour: Colour
    text: str = ""
    dashed: bool = False


def colour_of(label: int) -> Colour:
    """Return the colour of a class: bright, and far from those of its neighbours, for any number of classes.

    >>> colour_of(0) != colour_of(1)
    True
    """
    hue = (0.58 + label * 0.618033988749895) % 1.0  # steps of the golden ratio never come back near a used hue soon
    saturation, value = ((0.75, 1.0), (0.55, 1.0), (0.9, 0.85))[label // 12 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_marks(picture: Picture, marks: Iterable[Mark], thickness: int | None = None) -> Image.Image:
    """Return an RGB copy of a picture with outlines and labels; later marks lie on top of earlier ones.

    Args:
        picture: a PIL picture, an (H, W, 3) or (H, W) uint8 array in RGB, or a file.
        marks: what to draw.
        thickness: of lines in pixels; None goes by the picture's size, as the letters always do.
    """
    canvas = to_pil(picture)
    marks = list(marks)
    line = thickness if thickness is not None else line_width(canvas.size)
    drawing = ImageDraw.Draw(canvas, "RGBA")
    for mark in marks:
        _outline(drawing, mark, line)
    font = font_of(letter_size(canvas.size))
    taken: list[Rectangle] = []
    for mark in reversed(marks):  # after all lines, so that no line crosses out a word; those on top choose first
        if mark.text:
            taken += _label(drawing, canvas.size, mark, font, taken)
    return canvas


def to_pil(picture: Picture) -> Image.Image:
    """Return a picture as a fresh RGB PIL picture; a file's EXIF orientation is applied.

    Raises:
        FocaldetError: if it is no picture.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    if isinstance(picture, (str, Path)):
        try:
            with Image.open(picture) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
        except OSError as fault:
            raise FocaldetError(f"{picture}: cannot be read as a picture ({fault})") from fault
    array = np.asarray(picture)
    grey_or_rgb = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if array.dtype != np.uint8 or not grey_or_rgb:
        raise FocaldetError(
            f"an array of {array.dtype} {array.shape} cannot be drawn on; give uint8 of shape (H, W, 3) or (H, W)"
        )
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def line_width(size: tuple[int, int]) -> int:
    """Return the line width in pixels that suits a picture of (width, height)."""
    return max(2, round(min(size) / 280))


def letter_size(size: tuple[int, int]) -> int:
    """Return the letter height in pixels that suits a picture of (width, height)."""
    return max(11, round(min(size) / 38))


@lru_cache(maxsize=32)
def font_of(size: int) -> Any:
    """Return the font that ships with Pillow, in a size in pixels."""
    return ImageFont.load_default(size)


def _outline(drawing: ImageDraw.ImageDraw, mark: Mark, line: int) -> None:
    corners = [(float(x), float(y)) for x, y in mark.polygon]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    pieces = [piece for start, end in edges for piece in _dashes(start, end, line * 5)] if mark.dashed else edges
    for colour, width in (((*HALO, 110), line + 2), ((*mark.colour, 255), line)):
        for start, end in pieces:
            drawing.line([start, end], fill=colour, width=width)


def _dashes(
    start: tuple[float, float], end: tuple[float, float], length: float
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Cut a straight line into dashes; both ends are dashes, so that corners stay closed."""
    (x1, y1), (x2, y2) = start, end
    distance = float(np.hypot(x2 - x1, y2 - y1))
    gaps = max(1, round((distance / length - 1) / 2))
    stops = np.linspace(0, 1, 2 * gaps + 2)
    points = [(x1 + (x2 - x1) * stop, y1 + (y2 - y1) * stop) for stop in stops.tolist()]
    return [(points[i], points[i + 1]) for i in range(0, len(points), 2)]


def _label(
    drawing: ImageDraw.ImageDraw, size: tuple[int, int], mark: Mark, font: Any, taken: Sequence[Rectangle]
) -> list[Rectangle]:
    """Write a label on a ground of the mark's colour where there is room; return the place, or nothing without room.

    Above the box if possible, else inside, else below; where all three hide other labels, the colour must suffice.
    """
    x1, y1, x2, y2 = drawing.textbbox((0, 0), mark.text, font=font)
    pad = max(2, round((y2 - y1) * 0.25))
    ascent, descent = font.getmetrics()
    width, height = x2 - x1 + 2 * pad, ascent + descent + pad  # by the font, not the word: all labels are equally high
    tops = [max(0.0, min(y for _, y in mark.polygon)), max(y for _, y in mark.polygon)]
    left = min(max(0.0, min(x for x, _ in mark.polygon) - 1), max(0.0, size[0] - width))
    for top in (tops[0] - height, tops[0], tops[1]):
        place = (left, top, left + width, top + height)
        if top >= 0 and top + height <= size[1] and not any(_overlap(place, other) for other in taken):
            drawing.rectangle(place, fill=(*mark.colour, 225))
            drawing.text((left + pad - x1, top + pad / 2), mark.text, fill=_ink(mark.colour), font=font)
            return [place]
    return []


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ink(ground: Colour) -> Colour:
    """Return black or white, whichever is read better on a ground (ITU-R BT.601 luma)."""
    red, green, blue = ground
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
