"""Other programs for rotated boxes, each by the interface it offers, those that can be imported.

docs/benchmarks-geometry.md says how to have them. Boxes are put into a program's own units before the clock starts,
such as degrees; into its own objects, such as polygons, while it runs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focaldet.bench.clock import Task
from focaldet.bench.geometry import Peer
from focaldet.bench.scenes import Contest, Scene
from focaldet.geometry import rbox_to_hbox, rbox_to_polygon
from focaldet.structures import BACKGROUND
from focaldet.targets.assign import AssignRule

MODULES = ("torchvision", "cv2", "shapely", "detectron2", "mmcv", "mmdet", "mmrotate")
"""Whose versions belong to the figures."""


def importable_peers(devkit: Path | None) -> tuple[list[Peer], list[str]]:
    """Return the peers that can be imported, and of each other one a sentence why not.

    Args:
        devkit: folder of DOTA_devkit, with its `polyiou` compiled.
    """
    peers, missing = [], []
    makers: dict[str, Callable[[], Peer]] = {
        "torchvision": torchvision,
        "OpenCV": opencv,
        "shapely": shapely,
        "detectron2": detectron2,
        "mmcv": mmcv,
        "mmdetection": mmdetection,
        "mmrotate": mmrotate,
        "DOTA_devkit": functools.partial(dota_devkit, devkit),
    }
    for name, make in makers.items():
        try:
            peers.append(make())
        except (ImportError, AttributeError) as error:  # of what is compiled with them, much may be missing
            missing.append(f"Not measured: {name} ({error}).")
    return peers, missing


def in_degrees(boxes: Tensor) -> Tensor:
    """Return rboxes (N, 5) with theta in degrees, counter-clockwise."""
    return torch.cat([boxes[:, :4], -boxes[:, 4:].rad2deg()], dim=1)


def torchvision() -> Peer:
    """IoU of its C++ operator; assignment as its RetinaNet's, on the matrix of all pairs. It has no rotated NMS."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    torch.ops.torchvision.box_iou_rotated  # noqa: B018 - older ones have none

    def iou(boxes1: Tensor, boxes2: Tensor) -> Task:
        return functools.partial(box_iou, in_degrees(boxes1), in_degrees(boxes2), fmt="cxcywhr")

    def assign(anchors: Tensor, truths: Tensor, rule: AssignRule) -> Task:
        matcher = Matcher(rule.positive, rule.negative, allow_low_quality_matches=True)
        given = in_degrees(truths), in_degrees(anchors)
        return lambda: matcher(box_iou(*given, fmt="cxcywhr"))  # its numbers for background and ignored are ours

    return Peer("torchvision", iou=iou, assign=assign)


def opencv() -> Peer:
    """A loop over the pairs whose upright hulls meet; NMS class by class, from and to its lists."""
    import cv2

    cv2.setNumThreads(1)

    def rectangles(boxes: Any) -> list[Any]:
        return [((x, y), (w, h), degrees) for x, y, w, h, degrees in boxes]

    def area(box1: Any, box2: Any) -> float:
        _, points = cv2.rotatedRectangleIntersection(box1, box2)
        return 0.0 if points is None else float(cv2.contourArea(cv2.convexHull(points)))

    def in_clockwise_degrees(boxes: Tensor) -> list[Any]:
        return rectangles(torch.cat([boxes[:, :4], boxes[:, 4:].rad2deg()], dim=1).tolist())

    def ious(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        rows, columns = hulls_that_meet(rbox_to_hbox(boxes1), rbox_to_hbox(boxes2))
        first, second = in_clockwise_degrees(boxes1), in_clockwise_degrees(boxes2)
        areas = [area(first[i], second[j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)]
        return over_union(boxes1, boxes2, rows, columns, torch.tensor(areas))

    def kept(scene: Scene, threshold: float) -> Tensor:
        indices = []
        for label in np.unique(scene.labels):
            group = np.flatnonzero(scene.labels == label)
            boxes = in_clockwise_degrees(torch.from_numpy(scene.boxes[group]))
            indices.append(group[cv2.dnn.NMSBoxesRotated(boxes, scene.scores[group].tolist(), 0.0, threshold)])
        return torch.from_numpy(np.concatenate(indices))

    return Peer(
        "OpenCV",
        iou=lambda boxes1, boxes2: functools.partial(ious, boxes1, boxes2),
        nms=lambda scene, threshold: functools.partial(kept, scene, threshold),
    )


def shapely() -> Peer:
    """GEOS, all pairs that a tree finds in one call."""
    import shapely

    def polygons(boxes: Tensor) -> Any:
        return shapely.polygons(rbox_to_polygon(boxes.double()).view(-1, 4, 2).numpy())

    def ious(boxes1: Tensor, boxes2: Tensor) -> Tensor:
        first, second = polygons(boxes1), polygons(boxes2)
        rows, columns = shapely.STRtree(second).query(first)
        areas = shapely.area(shapely.intersection(first[rows], second[columns]))
        found = (torch.from_numpy(numbers) for numbers in (rows, columns, areas))
        return over_union(boxes1, boxes2, *found)

    return Peer("shapely", iou=lambda boxes1, boxes2: functools.partial(ious, boxes1, boxes2))


def hulls_that_meet(hulls1: Tensor, hulls2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places (P,), (P,) of the hboxes (N, 4) and (M, 4) that overlap."""
    (left1, top1, right1, bottom1), (left2, top2, right2, bottom2) = hulls1.T[..., None], hulls2.T
    meet = (left1 < right2) & (left2 < right1) & (top1 < bottom2) & (top2 < bottom1)
    rows, columns = meet.nonzero(as_tuple=True)
    return rows, columns


def over_union(boxes1: Tensor, boxes2: Tensor, rows: Tensor, columns: Tensor, areas: Tensor) -> Tensor:
    """Return the IoUs (N, M) of which some pairs have an intersection."""
    sizes1, sizes2 = boxes1[:, 2] * boxes1[:, 3], boxes2[:, 2] * boxes2[:, 3]
    answer = torch.zeros(len(boxes1), len(boxes2))
    answer[rows, columns] = (areas / (sizes1[rows] + sizes2[columns] - areas)).float()
    return answer


def detectron2() -> Peer:
    """Its compiled operators; NMS with classes shifted apart, as it does."""
    importlib.import_module("detectron2._C")
    from detectron2.layers import batched_nms_rotated
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    def iou(boxes1: Tensor, boxes2: Tensor) -> Task:
        return functools.partial(pairwise_iou_rotated, in_degrees(boxes1), in_degrees(boxes2))

    def nms(scene: Scene, threshold: float) -> Task:
        boxes, scores, labels = map(torch.from_numpy, scene)
        return functools.partial(batched_nms_rotated, in_degrees(boxes), scores, labels, threshold)

    return Peer("detectron2", iou=iou, nms=nms)


def mmcv() -> Peer:
    """Its compiled operators; NMS with classes shifted apart, as its detectors do, or class by class from 10,000 on."""
    from mmcv.ops import batched_nms, box_iou_rotated

    def iou(boxes1: Tensor, boxes2: Tensor) -> Task:
        return functools.partial(box_iou_rotated, boxes1, boxes2)

    def nms(scene: Scene, threshold: float) -> Task:
        boxes, scores, labels = map(torch.from_numpy, scene)
        rule = {"type": "nms_rotated", "iou_threshold": threshold}
        return lambda: batched_nms(boxes, scores, labels, rule)[1]

    return Peer("mmcv", iou=iou, nms=nms)


def mmdetection() -> Peer:
    """Its assigner on mmcv's matrix of all pairs, as mmrotate has it."""
    from mmcv.ops import box_iou_rotated
    from mmdet.models.task_modules.assigners import MaxIoUAssigner
    from mmengine.structures import InstanceData

    def assign(anchors: Tensor, truths: Tensor, rule: AssignRule) -> Task:
        assigner = MaxIoUAssigner(rule.positive, rule.negative, min_pos_iou=0, ignore_iof_thr=-1)
        assigner.iou_calculator = box_iou_rotated
        priors = InstanceData(priors=anchors)
        objects = InstanceData(bboxes=truths, labels=torch.zeros(len(truths), dtype=torch.int64))
        return lambda: assigner.assign(priors, objects).gt_inds + BACKGROUND  # it counts truths from 1

    return Peer("mmdetection with mmcv", assign=assign, claim="ties-overwrite")


def mmrotate() -> Peer:
    """eval_rbbox_map, from arrays; its processes are replaced by this one, whose time is what is measured."""
    from mmrotate.evaluation.functional import mean_ap

    pool = SimpleNamespace(starmap=lambda function, given: [*itertools.starmap(function, given)], close=lambda: None)
    mean_ap.get_context = lambda method: SimpleNamespace(Pool=lambda processes: pool)

    def score(contest: Contest) -> Task:
        found, truth = boxes_of_pictures(contest)
        options = {"iou_thr": 0.5, "use_07_metric": True, "logger": "silent"}
        return lambda: mean_ap.eval_rbbox_map(found, truth, **options)[0]

    return Peer("mmrotate", score=score)


def boxes_of_pictures(contest: Contest) -> tuple[list[list[Any]], list[dict[str, Any]]]:
    """Return detections (n, 6), with scores, by picture and class, and the truth by picture, as mmrotate has them."""
    table, num_classes = contest.found, len(contest.found.classes)
    scored = np.column_stack([contest.found_boxes, table.scores])
    segments, places = table.owners * num_classes + table.labels, np.arange(len(table.pictures) * num_classes + 1)
    order = np.argsort(segments, kind="stable")
    parts = np.split(scored[order], np.searchsorted(segments[order], places))[1:-1]
    found = [parts[i : i + num_classes] for i in range(0, len(parts), num_classes)]

    truth = []
    for picture in range(len(contest.truth.pictures)):
        here = contest.truth.owners == picture
        kinds = {"": here & ~contest.truth.difficult, "_ignore": here & contest.truth.difficult}
        boxes = {f"bboxes{kind}": contest.truth_boxes[some] for kind, some in kinds.items()}
        truth.append(boxes | {f"labels{kind}": contest.truth.labels[some] for kind, some in kinds.items()})
    return found, truth


def dota_devkit(folder: Path | None) -> Peer:
    """voc_eval of its Task 1, from files, as it can do no other; each class reads all of the truth again."""
    if folder is None:
        raise ImportError("no --devkit FOLDER was given")
    sys.path.insert(0, str(folder))
    from dota_evaluation_task1 import voc_eval

    def score(contest: Contest) -> Task:
        return functools.partial(mean_of_classes, written(contest), contest.truth.classes)

    def mean_of_classes(files: tempfile.TemporaryDirectory[str], classes: Sequence[str]) -> float:
        found, truth, pictures = (
            f"{files.name}/{name}" for name in ("Task1_{}.txt", "labelTxt/{}.txt", "pictures.txt")
        )
        with contextlib.redirect_stdout(io.StringIO()):
            aps = [voc_eval(found, truth, pictures, name, ovthresh=0.5, use_07_metric=True)[2] for name in classes]
        return float(np.mean(aps))

    return Peer("DOTA_devkit, from files", score=score)


def written(contest: Contest) -> tempfile.TemporaryDirectory[str]:
    """Write label files, Task 1 files and the list of pictures into a folder that goes when it is no longer held."""
    files = tempfile.TemporaryDirectory()
    folder, (truth, found) = Path(files.name), contest[:2]
    (folder / "pictures.txt").write_text("\n".join(truth.pictures))
    (folder / "labelTxt").mkdir()
    labels = lines_of(
        truth.polygons, (f"{truth.classes[c]} {int(d)}" for c, d in zip(truth.labels, truth.difficult, strict=True))
    )
    for number, picture in enumerate(truth.pictures):
        here = np.flatnonzero(truth.owners == number)
        (folder / "labelTxt" / f"{picture}.txt").write_text("".join(f"{labels[i]}\n" for i in here))
    for number, name in enumerate(found.classes):
        here = np.flatnonzero(found.labels == number)
        heads = (f"{found.pictures[found.owners[i]]} {float(found.scores[i])!r}" for i in here)
        corners = lines_of(found.polygons[here])
        text = "".join(f"{head} {line}\n" for head, line in zip(heads, corners, strict=True))
        (folder / f"Task1_{name}.txt").write_text(text)
    return files


def lines_of(polygons: Any, tails: Iterator[str] | None = None) -> list[str]:
    """Write polygons (N, 4, 2) as eight numbers each, with all their digits, and something after them."""
    lines = [" ".join(map(repr, corners)) for corners in polygons.reshape(-1, 8).tolist()]
    return lines if tails is None else [f"{line} {tail}" for line, tail in zip(lines, tails, strict=True)]
