"""Tiles and scales back to the scene: move what was found in each tile to its place, then suppress what is there twice.

Section 3.5 of the specification of the DOTA rows. Detections come from a detector, tile by tile (`merge_tiles`, or
`merge_upright_tiles`), or from files, as polygons of tiles that are known by their names (`merge_table`); all suppress
by one function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import area_hbox
from focaldet.geometry.iou import hbox_iou
from focaldet.geometry.nms import Equal, batched_rotated_nms, nms_hbox
from focaldet.geometry.polygon import polygon_to_rbox, polygon_to_rbox_truncated
from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.postprocess.detect import rank_in_class
from focaldet.results.detections import Detections
from focaldet.results.dota import place_of_tile
from focaldet.results.tables import DetectionTable, number_names

_AFTER_2020 = {
    "roundabout": 0.1,
    "tennis-court": 0.3,
    "swimming-pool": 0.1,
    "storage-tank": 0.2,
    "soccer-ball-field": 0.3,
    "small-vehicle": 0.2,
    "ship": 0.2,
    "plane": 0.3,
    "large-vehicle": 0.1,
    "helicopter": 0.2,
    "harbor": 0.0001,
    "ground-track-field": 0.3,
    "bridge": 0.0001,
    "basketball-court": 0.3,
    "baseball-diamond": 0.3,
}
_SINGLE_SCALE = _AFTER_2020 | {"ship": 0.05}
MERGE_THRESHOLDS: dict[str, dict[str, float]] = {
    "single-scale": _SINGLE_SCALE,
    "multi-scale": _SINGLE_SCALE | {"storage-tank": 0.1, "small-vehicle": 0.05, "large-vehicle": 0.05},
    "after-2020": _AFTER_2020,
}
"""IoU over which the worse of two boxes of a class goes, as the original program merges tiles: rows 1 to 17, row 18,
and its last state."""

BORDER = 1 / 200
"""Share of its tile's side within which an upright box that ends near the tile's border counts as cut off there."""
COVERED = 0.5
"""Share of an upright box that was cut off which has to lie in a larger one for that to count as the whole object."""


@dataclass(frozen=True)
class MergeRule:
    """How the detections of a scene's tiles become those of the scene.

    Attributes:
        nms: of two boxes of a class whose IoU is over this, the worse is dropped: one number, or one a class name.
        other: the same for classes that `nms` does not name.
        equal: of rotated boxes, whether an IoU equal to it is over it: "suppress" (the original program's CPU code) or
            "keep".
        max_per_class: at most so many of a class and scene; None: all.
        corners: of rotated boxes; quirks of the original program, which truncated corners to whole pixels and took the
            least-area rectangle of that. "exact": does not. "compared-whole": rectangles of truncated corners, in the
            scene, are compared and the boxes stay as they are (its last state). "whole": boxes become such rectangles,
            in pixels of their tiles (until August 2020).
    """

    nms: float | Mapping[str, float] = 0.1
    other: float = 0.1
    equal: Equal = "keep"
    max_per_class: int | None = None
    corners: Literal["exact", "compared-whole", "whole"] = "exact"

    def __post_init__(self) -> None:
        named = dict(self.nms) if isinstance(self.nms, Mapping) else {"nms": self.nms}
        for name, threshold in {**named, "other": self.other}.items():
            if not 0 <= threshold <= 1:
                raise FocaldetError(f"the threshold of merging {name}={threshold} must lie between 0 and 1")
        if self.max_per_class is not None and self.max_per_class < 1:
            raise FocaldetError(f"max_per_class={self.max_per_class} must be above 0, or None for no limit")

    def threshold(self, name: str) -> float:
        """Return the IoU over which boxes of a class are suppressed.

        >>> MergeRule({"ship": 0.05}).threshold("ship"), MergeRule({"ship": 0.05}).threshold("crane")
        (0.05, 0.1)
        """
        return self.nms.get(name, self.other) if isinstance(self.nms, Mapping) else self.nms


def merge_tiles(
    found: Sequence[Detections], places: Sequence[tuple[float, float]], rule: MergeRule, classes: Sequence[str]
) -> Detections:
    """Bring the detections of one scene's tiles together; tiles may be of several scales.

    Args:
        found: rotated detections of each tile, in pixels of the scene counted from the tile's corner.
        places: (x, y) of each tile's upper left corner in the scene.
        rule: what is suppressed.
        classes: C names, those of every tile.

    Returns:
        Rotated detections in pixels of the scene, best first; equal scores in the order of the tiles.

    Raises:
        FocaldetError: another number of places, upright boxes, or other classes.

    >>> tile = Detections(torch.tensor([[8.0, 4, 6, 4, 0]]), torch.tensor([0.9]), torch.tensor([0]), ("ship",))
    >>> merge_tiles([tile, tile], [(100, 0), (450, 0)], MergeRule(), ["ship"]).boxes[:, 0]
    tensor([108., 458.])
    """
    _check(found, places, tuple(classes))
    moved = [_in_scene(tile.boxes, place, rule) for tile, place in zip(found, places, strict=True)]
    boxes = torch.cat([torch.zeros(0, 5), *moved])
    scores = torch.cat([torch.zeros(0), *(tile.scores for tile in found)])
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(tile.labels for tile in found)])
    compared = polygon_to_rbox_truncated(rbox_to_polygon(boxes)) if rule.corners == "compared-whole" else boxes
    kept = suppress(compared, scores, labels, rule, classes)
    return Detections(boxes[kept], scores[kept], labels[kept], tuple(classes))


def merge_upright_tiles(
    found: Sequence[Detections],
    windows: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
    rule: MergeRule,
    classes: Sequence[str],
) -> Detections:
    """Bring the upright detections of one scene's tiles together; tiles may be of several scales.

    A tile shows only a part of an object on its border, and the box of a part overlaps that of the whole, which a
    neighbour sees, by any IoU. So a box that ends at a border of its tile, but not of the scene, goes if half of it
    lies in a larger box of its class from another tile, whatever their scores; NMS decides on the rest. Of an object
    that no tile shows whole, since it is longer than tiles overlap, parts remain.

    Args:
        found: upright detections of each tile, in pixels of the scene counted from the tile's corner.
        windows: x1, y1, x2, y2 of each tile in the scene.
        size: (height, width) of the scene.
        rule: what is suppressed.
        classes: C names, those of every tile.

    Returns:
        Upright detections in pixels of the scene, best first; equal scores in the order of the tiles.

    Raises:
        FocaldetError: another number of windows, rotated boxes, or other classes.

    >>> scores, labels = torch.tensor([0.9]), torch.tensor([0])
    >>> part = Detections(torch.tensor([[90.0, 10, 100, 30]]), scores, labels, ("car",))
    >>> whole = Detections(torch.tensor([[20.0, 10, 50, 30]]), scores - 0.5, labels, ("car",))
    >>> windows = [(0, 0, 100, 100), (70, 0, 170, 100)]
    >>> merge_upright_tiles([part, whole], windows, (100, 170), MergeRule(0.5), ["car"]).boxes
    tensor([[ 90.,  10., 120.,  30.]])
    """
    _check(found, windows, tuple(classes), rotated=False)
    moved = [
        tile.boxes + tile.boxes.new_tensor([*place, *place])
        for tile, (*place, _, _) in zip(found, windows, strict=True)
    ]
    boxes = torch.cat([torch.zeros(0, 4), *moved])
    scores = torch.cat([torch.zeros(0), *(tile.scores for tile in found)])
    labels = torch.cat([torch.zeros(0, dtype=torch.int64), *(tile.labels for tile in found)])
    tiles = torch.arange(len(found)).repeat_interleave(torch.tensor([len(tile) for tile in found], dtype=torch.int64))
    shown = torch.tensor(windows, dtype=torch.float32).view(-1, 4)
    cut = cut_off(boxes, shown[tiles], size)
    left = (~are_covered(boxes, labels, tiles, shown, cut)).nonzero().squeeze(1)
    kept = left[suppress(boxes[left], scores[left], labels[left], rule, classes)]
    return Detections(boxes[kept], scores[kept], labels[kept], tuple(classes))


def cut_off(boxes: Tensor, windows: Tensor, size: tuple[int, int]) -> Tensor:
    """Tell (N,) which hboxes (N, 4) end at a border of their windows (N, 4) that is not one of the scene.

    All are in pixels of the scene, of (height, width).

    >>> windows = torch.tensor([[0.0, 0, 100, 100]]).expand(2, 4)
    >>> cut_off(torch.tensor([[0.0, 10, 30, 100], [60, 60, 100, 90]]), windows, (100, 300)).tolist()
    [False, True]
    """
    margin = BORDER * (windows[:, 2:] - windows[:, :2])
    low = (windows[:, :2] > 0) & (boxes[:, :2] <= windows[:, :2] + margin)
    high = (windows[:, 2:] < windows.new_tensor(size[::-1])) & (boxes[:, 2:] >= windows[:, 2:] - margin)
    return (low | high).any(dim=1)


def are_covered(boxes: Tensor, labels: Tensor, tiles: Tensor, windows: Tensor, cut: Tensor) -> Tensor:
    """Tell (N,) which of the cut ones among hboxes lie for `COVERED`, a half, in a larger one of another tile.

    Whatever covers half of a box covers its centre too. So its tile shows the centre, and few have to be compared.

    Args:
        boxes: (N, 4) in pixels of the scene, each inside the window of its tile.
        labels: (N,) int64; only boxes of one class cover one another.
        tiles: (N,) int64 which tile each comes from, rising.
        windows: (T, 4) of the tiles, in pixels of the scene.
        cut: (N,) bool; others are never covered.
    """
    covered, areas, parts = torch.zeros_like(cut), area_hbox(boxes), cut.nonzero().squeeze(1)
    centres = (boxes[parts, :2] + boxes[parts, 2:]) / 2
    counts = torch.bincount(tiles, minlength=len(windows)).tolist()
    for tile, rivals in enumerate(torch.split(torch.arange(len(boxes)), counts)):
        window = windows[tile]
        shown = ((centres >= window[:2]) & (centres <= window[2:])).all(dim=1) & (tiles[parts] != tile)
        some = parts[shown]
        larger = (labels[rivals] == labels[some, None]) & (areas[rivals] > areas[some, None])
        covered[some] |= (larger & (hbox_iou(boxes[some], boxes[rivals], over="first") >= COVERED)).any(dim=1)
    return covered


def merge_table(table: DetectionTable, rule: MergeRule) -> DetectionTable:
    """Bring detections in tiles back to their scenes, tiles being known by their names (`place_of_tile`).

    A picture whose name is not that of a tile is a scene of its own. Overlaps are those of the least-area rectangles.

    Args:
        table: detections, each in pixels of its tile.
        rule: what is suppressed.

    Returns:
        Those kept, by falling score, in pixels of the scenes; a note says how many there were.
    """
    places = [place_of_tile(name) for name in table.pictures]
    scenes, scene_of = number_names([scene for scene, _, _ in places])
    offsets = np.array([offset for _, offset, _ in places], dtype=np.float64).reshape(-1, 2)
    rates = np.array([rate for _, _, rate in places], dtype=np.float64)
    owners, corners = scene_of[table.owners], torch.from_numpy(table.polygons.reshape(-1, 8))
    if rule.corners == "whole":
        corners = rbox_to_polygon(polygon_to_rbox_truncated(corners))
    polygons = (corners.numpy().reshape(-1, 4, 2) + offsets[table.owners][:, None]) / rates[table.owners][:, None, None]
    corners = torch.from_numpy(polygons.reshape(-1, 8))
    compared = (polygon_to_rbox_truncated if rule.corners == "compared-whole" else polygon_to_rbox)(corners)
    scores, labels = torch.from_numpy(table.scores), torch.from_numpy(table.labels)
    kept = suppress(compared, scores, labels, rule, table.classes, torch.from_numpy(owners)).numpy()
    return replace(
        table,
        pictures=scenes,
        polygons=polygons[kept],
        owners=owners[kept],
        labels=table.labels[kept],
        scores=table.scores[kept],
        notes=(*table.notes, _note(table, len(kept), len(scenes), rule)),
    )


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    rule: MergeRule,
    classes: Sequence[str],
    scenes: Tensor | None = None,
) -> Tensor:
    """Return the places (K,) of the boxes that the rule keeps, by falling score; equal scores in their given order.

    Args:
        boxes: (N, 5) rboxes in pixels of their scenes, or (N, 4) hboxes of one.
        scores: (N,).
        labels: (N,) int64, places in `classes`.
        rule: thresholds and the limit.
        classes: C names.
        scenes: (N,) int64 which scene each box lies in; None where it is one.
    """
    thresholds = [rule.threshold(name) for name in classes]
    of_box = torch.tensor(thresholds, dtype=torch.float64)[labels]
    kept = []
    for threshold in sorted(set(thresholds)):  # classes of one threshold need one walk
        here = (of_box == threshold).nonzero().squeeze(1)
        images = None if scenes is None else scenes[here]
        kept.append(here[_best(boxes[here], scores[here], labels[here], threshold, images, rule.equal)])
    together = torch.cat([labels[:0], *kept]).sort().values  # the stable sort leaves equal scores in their given order
    together = together[scores[together].argsort(descending=True, stable=True)]
    if rule.max_per_class is not None:
        group = labels if scenes is None else scenes * len(classes) + labels
        together = together[rank_in_class(group[together]) < rule.max_per_class]
    return together


def _best(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, scenes: Tensor | None, equal: Equal
) -> Tensor:
    """Return the places (K,) of those that one threshold keeps."""
    if boxes.shape[1] == 4:
        assert scenes is None, "upright boxes of several scenes are not merged at once"
        return nms_hbox(boxes, scores, labels, threshold)
    return batched_rotated_nms(boxes, scores, labels, threshold, scenes, equal)


def _in_scene(boxes: Tensor, place: tuple[float, float], rule: MergeRule) -> Tensor:
    """Return the rboxes (N, 5) of a tile in pixels of the scene."""
    if rule.corners == "whole":
        boxes = polygon_to_rbox_truncated(rbox_to_polygon(boxes))
    return boxes + boxes.new_tensor([*place, 0.0, 0.0, 0.0])


def _note(table: DetectionTable, kept: int, scenes: int, rule: MergeRule) -> str:
    over = "class by class" if isinstance(rule.nms, Mapping) else f"at IoU > {rule.nms:g}"
    return (
        f"merged {len(table):,} detections of {len(table.pictures):,} tiles and pictures into {kept:,} of "
        f"{scenes:,} scenes, NMS {over}"
    )


def _check(
    found: Sequence[Detections], places: Sequence[Sequence[float]], classes: tuple[str, ...], rotated: bool = True
) -> None:
    if len(found) != len(places):
        raise FocaldetError(f"{len(found)} tiles have {len(places)} places; give (x, y) of each tile")
    for number, tile in enumerate(found):
        if tile.rotated != rotated:
            kinds = ("upright", "rotated") if rotated else ("rotated", "upright")
            raise FocaldetError(f"the detections of tile {number} are {kinds[0]}, but {kinds[1]} ones are merged here")
        if tile.classes != classes:
            raise FocaldetError(
                f"the classes of tile {number} are {', '.join(tile.classes)}, but {', '.join(classes)} are asked for"
            )
