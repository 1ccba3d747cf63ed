"""Which detections of one picture are hits, which false alarms, and which objects were missed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import corners_to_hbox
from focaldet.geometry.iou import hbox_iou
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
    A detection that finds no free object but lies on an ignored one (share of the detection's area) counts neither way;
    an ignored object takes any number.

    Args:
        found: detections of the picture.
        truth: G objects of the picture, in its pixels.
        iou: overlap that a hit needs at least.
        score: detections up to this score take no part.
    """
    boxes, truths = found.hboxes.double(), _hboxes(truth)
    ignored = torch.zeros(len(truths), dtype=torch.bool) if truth.ignored is None else truth.ignored.cpu()
    overlaps = hbox_iou(boxes, truths)
    overlaps[:, ignored] = hbox_iou(boxes, truths[ignored], over="first")
    overlaps[found.labels[:, None] != truth.labels.cpu()] = 0
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
