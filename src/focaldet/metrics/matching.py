"""Which detections of one picture are hits, which false alarms, and which objects were missed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import corners_to_hbox, hbox_to_corners
from focaldet.geometry.iou import hbox_iou
from focaldet.geometry.quads import overlapping_pairs
from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.results.detections import Detections
from focaldet.structures import BACKGROUND, IGNORED, Truth


@dataclass(frozen=True)
class Matches:
    """What became of the detections and the objects of one picture.

    Attributes:
        owners: (N,) int64 object that each detection found, BACKGROUND for a false alarm, IGNORED for one that lies on
            an ignored object or has too low a score to count.
        ious: (N,) IoU of each hit with its object, else 0.
        missed: (M,) int64 objects that nothing found, ignored ones not among them.
    """

    owners: Tensor
    ious: Tensor
    missed: Tensor

    @property
    def hits(self) -> Tensor:
        """(H,) int64 detections that found an object."""
        return (self.owners >= 0).nonzero().squeeze(1)

    @property
    def false_alarms(self) -> Tensor:
        """(F,) int64 detections where there is no object of their class that is not found already."""
        return (self.owners == BACKGROUND).nonzero().squeeze(1)


def match(found: Detections, truth: Truth, *, iou: float = 0.5, score: float = 0.0) -> Matches:
    """Give detections their objects as COCO does.

    Best score first, each takes the free object of its class that it overlaps most.
    A detection that finds no free object but lies on an ignored one counts neither way; an ignored object takes any
    number. To lie on one means a share of the detection's area for upright boxes, as for COCO's crowds, and an IoU for
    rotated ones, as for DOTA's difficult objects.

    Args:
        found: detections of the picture.
        truth: G objects of the picture, in its pixels.
        iou: overlap that a hit needs at least.
        score: detections up to this score take no part.
    """
    ignored = torch.zeros(len(truth.labels), dtype=torch.bool) if truth.ignored is None else truth.ignored.cpu()
    overlaps = _rotated_overlaps(found, truth) if found.rotated else _upright_overlaps(found, truth, ignored)
    owners = torch.full((len(found),), IGNORED)
    free = ~ignored
    for number in range(int((found.scores > score).sum())):  # scores fall
        owners[number] = owner = _owner(overlaps[number], free, ignored, iou)
        if owner >= 0:
            free[owner] = False
    hits = (owners >= 0).nonzero().squeeze(1)
    ious = torch.zeros(len(found))
    ious[hits] = overlaps[hits, owners[hits]].float()
    return Matches(owners, ious, free.nonzero().squeeze(1))


def _upright_overlaps(found: Detections, truth: Truth, ignored: Tensor) -> Tensor:
    """Return the (N, G) overlaps of upright boxes, 0 between classes; those with ignored objects over the detection."""
    boxes, truths = found.hboxes.double(), _hboxes(truth)
    overlaps = hbox_iou(boxes, truths)
    overlaps[:, ignored] = hbox_iou(boxes, truths[ignored], over="first")
    overlaps[found.labels[:, None] != truth.labels.cpu()] = 0
    return overlaps


def _rotated_overlaps(found: Detections, truth: Truth) -> Tensor:
    """Return the (N, G) IoU of rotated boxes with objects as annotated, 0 between classes."""
    boxes = truth.boxes.cpu().double()
    if boxes.ndim == 2 and boxes.shape[1] in (4, 5):
        boxes = rbox_to_polygon(boxes).view(-1, 4, 2) if boxes.shape[1] == 5 else hbox_to_corners(boxes)
    if boxes.shape != (len(truth.labels), 4, 2):
        raise FocaldetError(
            f"{len(truth.labels)} labels need as many boxes (G, 5) or polygons (G, 4, 2), not {tuple(boxes.shape)}"
        )
    polygons = rbox_to_polygon(found.boxes.double()).view(-1, 4, 2)
    i, j, ious = overlapping_pairs(polygons.numpy(), found.labels.numpy(), boxes.numpy(), truth.labels.cpu().numpy())
    overlaps = torch.zeros(len(found), len(boxes), dtype=torch.float64)
    overlaps[torch.from_numpy(i), torch.from_numpy(j)] = torch.from_numpy(ious)
    return overlaps


def _hboxes(truth: Truth) -> Tensor:
    """Return the (G, 4) float64 hboxes of boxes or polygons."""
    boxes = truth.boxes.cpu().double()
    boxes = corners_to_hbox(boxes) if boxes.ndim == 3 else boxes
    if boxes.shape != (len(truth.labels), 4):
        raise FocaldetError(f"{len(truth.labels)} labels need as many boxes (G, 4), not {tuple(truth.boxes.shape)}")
    return boxes


def _owner(overlaps: Tensor, free: Tensor, ignored: Tensor, iou: float) -> int:
    """Return the object that a detection of (G,) overlaps takes, or BACKGROUND or IGNORED."""
    enough = overlaps >= min(iou, 1 - 1e-10)  # COCO's own guard: an IoU of 1 may come out a hair less
    candidates = overlaps * (enough & free)
    if bool((enough & free).any()):
        return len(candidates) - 1 - int(candidates.flip(0).argmax())  # COCO gives a tie to the later object
    return IGNORED if bool((enough & ignored).any()) else BACKGROUND
