"""Training looks wrong? Draw it: truth after the transforms, anchors and what owns them, answers beside truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from focaldet.geometry.hbox import hbox_to_corners
from focaldet.metrics.matching import match
from focaldet.results.detections import Detections
from focaldet.results.drawing import (
    Colour,
    Mark,
    Picture,
    colour_of,
    draw_marks,
    font_of,
    letter_size,
    line_width,
    to_pil,
)
from focaldet.structures import AnchorGrid, Sample, Truth

HIT: Colour = (60, 200, 90)
FALSE_ALARM: Colour = (235, 60, 55)
MISSED: Colour = (255, 165, 30)
IGNORED_OBJECT: Colour = (170, 170, 170)
UNREACHED: Colour = FALSE_ALARM
REACHED: Colour = (255, 255, 255)


def draw_truth(picture: Picture, truth: Truth, classes: Sequence[str]) -> Image.Image:
    """Return the picture with its objects, coloured by class; ignored ones are grey and dashed.

    Args:
        picture: a PIL picture, an array or a file.
        truth: G objects in pixels of the picture.
        classes: C names.
    """
    ignored = [False] * len(truth.labels) if truth.ignored is None else truth.ignored.tolist()
    marks = [
        Mark(polygon, IGNORED_OBJECT, f"{classes[label]}, ignored", dashed=True)
        if skip
        else Mark(polygon, colour_of(label), classes[label])
        for polygon, label, skip in zip(_polygons(truth.boxes), truth.labels.tolist(), ignored, strict=True)
    ]
    return draw_marks(picture, marks)


def draw_sample(sample: Sample, classes: Sequence[str]) -> Image.Image:
    """Return a sample as it stands, with its objects: what a transform made of picture and boxes.

    Args:
        sample: at any place between file and batch, of 1 or 3 channels.
        classes: C names.
    """
    crowd = sample.crowd.tolist()
    rows = zip(sample.corners.tolist(), sample.labels.tolist(), crowd, strict=True)
    marks = [
        Mark(corners, IGNORED_OBJECT if skip else colour_of(label), classes[label], dashed=skip)
        for corners, label, skip in rows
    ]
    image = sample.image[..., 0] if sample.image.shape[-1] == 1 else sample.image[..., :3]
    return draw_marks(image, marks)


def draw_matches(
    picture: Picture, found: Detections, truth: Truth, *, score: float = 0.3, iou: float = 0.5
) -> Image.Image:
    """Return the picture with hits in green, false alarms in red, and missed objects in orange and dashed.

    Args:
        picture: a PIL picture, an array or a file.
        found: its detections.
        truth: its objects, in the same pixels; ignored ones are neither hit nor missed.
        score: detections up to this score are left out.
        iou: overlap that a hit needs at least.
    """
    matches = match(found, truth, iou=iou, score=score)
    polygons, names, scores = found.polygons.tolist(), found.names, found.scores.tolist()
    objects = _polygons(truth.boxes)
    marks = [
        Mark(objects[number], MISSED, f"{found.classes[int(truth.labels[number])]} missed", dashed=True)
        for number in matches.missed.tolist()
    ]
    for numbers, colour in ((matches.false_alarms, FALSE_ALARM), (matches.hits, HIT)):
        marks += [Mark(polygons[i], colour, f"{names[i]} {scores[i]:.2f}") for i in reversed(numbers.tolist())]
    return draw_marks(picture, marks)


def draw_beside(picture: Picture, found: Detections, truth: Truth, *, score: float = 0.3) -> Image.Image:
    """Return two panels: the picture with its truth, and with its detections over a score.

    Args:
        picture: a PIL picture, an array or a file.
        found: its detections.
        truth: its objects, in the same pixels.
        score: detections up to this score are left out.
    """
    plain = to_pil(picture)
    panels = (draw_truth(plain, truth, found.classes), found.filter(score).draw(plain))
    gap = max(4, plain.width // 100)
    sheet = Image.new("RGB", (2 * plain.width + gap, plain.height), (255, 255, 255))
    for panel, left in zip(panels, (0, plain.width + gap), strict=True):
        sheet.paste(panel, (left, 0))
    return sheet


def draw_anchors(picture: Picture, grid: AnchorGrid, truths: Tensor, positives: Tensor, owners: Tensor) -> Image.Image:
    """Return the picture with every positive anchor in the colour of its level, and the truth boxes they stand for.

    Truth boxes that own anchors are white and say how many; those that own none, so are never learned, are red.

    Args:
        picture: in the frame `input`: the anchors' own. Anchors may reach beyond it.
        grid: A anchors.
        truths: (G, 4) hboxes.
        positives: (P,) int64 positive anchors, levels joined.
        owners: (P,) int64 truth box of each.
    """
    canvas, legend, start = to_pil(picture), [], 0
    for level, count in enumerate(grid.counts):
        own = positives[(positives >= start) & (positives < start + count)] - start
        _anchors(canvas, grid.level(level)[own], colour_of(level))
        legend.append((f"stride {grid.strides[level]}: {len(own)} anchors", colour_of(level)))
        start += count
    shares = torch.bincount(owners, minlength=len(truths)).tolist()
    marks = [
        Mark(polygon, REACHED if share else UNREACHED, str(share) if share else "no anchor")
        for polygon, share in zip(_polygons(truths), shares, strict=True)
    ]
    unreached = shares.count(0)
    legend.append((f"{len(truths)} truth boxes, {unreached} without anchor", UNREACHED if unreached else REACHED))
    return draw_legend(draw_marks(canvas, marks), legend)


def _anchors(canvas: Image.Image, anchors: Tensor, colour: Colour) -> None:
    """Draw (P, 4) anchors as faint outlines, as hundreds of them cross, and their centres as dots."""
    drawing = ImageDraw.Draw(canvas, "RGBA")
    radius = line_width(canvas.size)
    for x1, y1, x2, y2 in anchors.tolist():
        drawing.rectangle([x1, y1, x2, y2], outline=(*colour, 60))
    for x1, y1, x2, y2 in anchors.tolist():
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        drawing.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(*colour, 255), outline=(0, 0, 0, 160))


def draw_legend(picture: Image.Image, lines: Sequence[tuple[str, Colour]]) -> Image.Image:
    """Return the picture with lines of words, each after a dot of its colour, on a dark strip below it."""
    size = letter_size(picture.size)
    row = round(size * 1.5)
    sheet = Image.new("RGB", (picture.width, picture.height + row * len(lines) + row // 2), (30, 30, 30))
    sheet.paste(picture, (0, 0))
    drawing = ImageDraw.Draw(sheet)
    for number, (text, colour) in enumerate(lines):
        top = picture.height + row // 4 + number * row
        drawing.ellipse([row // 2, top + row // 4, row, top + row * 3 // 4], fill=colour)
        drawing.text((row * 1.4, top + row / 2), text, fill=(235, 235, 235), font=font_of(size), anchor="lm")
    return sheet


def input_to_picture(
    image: Tensor, mean: Sequence[float], std: Sequence[float], channel_order: str = "rgb"
) -> npt.NDArray[np.uint8]:
    """Undo the normalization of one input of the network, to see what it sees.

    Args:
        image: (channels, H, W), normalized and padded.
        mean: one a channel, in the input's own order, as the recipe has it.
        std: likewise.
        channel_order: "rgb", or "bgr" for an input in that order.

    Returns:
        (H, W, 3) uint8 RGB; the padding shows as the mean. Of other numbers of channels the first is shown, (H, W).
    """
    array = image.detach().float().cpu().numpy().transpose(1, 2, 0) * np.asarray(std) + np.asarray(mean)
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    if pixels.shape[2] != 3:
        pixels = pixels[..., 0]
    elif channel_order == "bgr":
        pixels = pixels[..., ::-1].copy()
    return pixels


def _polygons(boxes: Tensor) -> list[list[list[float]]]:
    """Return the corners of (G, 4) hboxes or (G, 4, 2) polygons as lists."""
    corners: list[list[list[float]]] = (boxes if boxes.ndim == 3 else hbox_to_corners(boxes)).tolist()
    return corners
