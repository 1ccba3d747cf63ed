"""Pictures with boxes as HTML: truth on the left, what was seen on the right, the photo embedded once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
import PIL.Image

from focaldet.report.data import Mark, Picture

LONGEST_SIDE = 800
"""Pixels of an embedded photo; the boxes are drawn over it as vectors and stay sharp."""
JPEG_QUALITY = 85
NUM_TONES = 8


def encode_jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an (H, W, channels) uint8 picture as a JPEG of at most `LONGEST_SIDE` pixels.

    Of more than three channels the first three are shown, of two the first.
    """
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., 0]
    picture = PIL.Image.fromarray(np.ascontiguousarray(shown))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def picture_card(picture: Picture, number: int, threshold: float, labels: Sequence[str]) -> str:
    """Return the HTML of one picture: a line that counts, then both panels.

    Args:
        picture: photo and boxes.
        number: unique on the page; the second panel refers to the photo of the first by it.
        threshold: score from which a detection shows at first; a script on the page may move it.
        labels: names of the classes.
    """
    height, width = picture.size
    data = base64.b64encode(picture.jpeg).decode("ascii")
    photo = f'<image id="photo-{number}" width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>'
    again = f'<use href="#photo-{number}"/>'
    truth = "".join(_box(mark, picture, threshold, labels, by_class=True) for mark in picture.truth)
    seen = "".join(_box(mark, picture, threshold, labels, by_class=False) for mark in _covered_last(picture.seen))
    counts = {kind: sum(mark.kind == kind and shows(mark, threshold) for mark in picture.seen) for kind in COUNTED}
    told = ", ".join(f'<span data-count="{kind}">{counts[kind]}</span> {word}' for kind, word in COUNTED.items())
    return (
        f'<article class="card picture"><header><b>{escape(picture.name)}</b><span>{told}</span></header>'
        f'<div class="panels">{_panel("What is there", picture.size, photo + truth)}'
        f"{_panel('What was seen', picture.size, again + seen)}</div></article>"
    )


COUNTED = {"hit": "hits", "false": "false alarms", "missed": "missed"}
"""Kinds of marks that a picture's line counts, and how it calls them."""


def shows(mark: Mark, threshold: float) -> bool:
    """Say whether a mark shows at a threshold: detections from it upwards, truth that is found only below it."""
    return mark.score < threshold if mark.kind == "missed" else mark.score >= threshold


def _covered_last(marks: Sequence[Mark]) -> list[Mark]:
    """Order marks so that big boxes come first and small ones, drawn later, can be pointed at."""

    def area(mark: Mark) -> float:
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = mark.corners
        return abs((x2 - x0) * (y3 - y1) - (y2 - y0) * (x3 - x1))

    return sorted(marks, key=area, reverse=True)


def _panel(caption: str, size: tuple[int, int], content: str) -> str:
    height, width = size
    label = f'role="img" aria-label="{caption}"'
    drawing = f'<svg viewBox="0 0 {width} {height}" {label}>{content}</svg>'
    return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"


def _box(mark: Mark, picture: Picture, threshold: float, labels: Sequence[str], *, by_class: bool) -> str:
    """Return a box with its name; only detections and missed truth move with the threshold."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in mark.corners)
    left, top = min(x for x, _ in mark.corners), min(y for _, y in mark.corners)
    name = "ignored" if mark.kind == "ignored" else escape(labels[mark.label])
    tone = f"c{mark.label % NUM_TONES + 1}" if by_class and mark.kind == "truth" else mark.kind
    text = name if by_class or mark.kind == "missed" else f"{name} {mark.score:.2f}"
    moving = "" if by_class else f' data-score="{mark.score:.4f}"'
    hidden = "" if by_class or shows(mark, threshold) else " hidden"
    return (
        f'<g class="box {tone}"{moving}{hidden}><title>{text}, {WORDS[mark.kind]}</title>'
        f'<polygon class="edge" points="{points}"/>'
        f"{_tag(text, left, top, picture.size)}</g>"
    )


def _tag(text: str, x: float, y: float, size: tuple[int, int]) -> str:
    """Return a label whose lower left corner is the upper left one of a box, moved into the picture where it must."""
    font = max(size) / 50  # about 11 px where a panel is 540 px wide
    width, height = font * (0.5 + sum(0.72 if letter.isupper() else 0.62 for letter in text)), 1.2 * font
    left, top = max(min(x, size[1] - width), 0.0), max(y - height, 0.0)
    return (
        f'<rect class="tag" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        f'<text x="{left + 0.25 * font:.1f}" y="{top + 0.92 * font:.1f}" font-size="{font:.1f}" '
        f'textLength="{width - 0.5 * font:.1f}" lengthAdjust="spacingAndGlyphs">{text}</text>'
    )


WORDS = {"hit": "hit", "false": "false alarm", "missed": "missed", "truth": "truth", "ignored": "ignored in scoring"}
