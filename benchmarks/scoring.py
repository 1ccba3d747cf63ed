"""`python benchmarks/scoring.py`: CPU time of scoring rotated boxes, ours beside the DOTA devkit's loop with OpenCV.

15 classes with 20,000 detections and 5,000 objects each on 458 pictures, made up from a seed, from arrays to all
figures. The devkit's loop gives one figure of one class (AP50_voc07); its time is multiplied by the number of classes.
It is run with the devkit's test by upright hulls first, and OpenCV in place of its own compiled intersection.
"""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import numpy.typing as npt
import torch

from focaldet.bench.clock import take_turns
from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.metrics.dota import rotated_scores, voc_ap
from focaldet.results.tables import DetectionTable, TruthTable

Floats = npt.NDArray[np.float64]
CLASSES, PICTURES, DETECTIONS, OBJECTS = 15, 458, 20_000, 5_000


def make(seed: int = 0) -> tuple[TruthTable, DetectionTable]:
    """Return objects in pictures of 2000 x 2000, a tenth of them difficult, and detections, half of them near one."""
    rng = np.random.default_rng(seed)
    total, found = CLASSES * OBJECTS, CLASSES * DETECTIONS
    long = np.exp(rng.uniform(np.log(8), np.log(200), total))
    objects = np.column_stack(
        [rng.uniform(0, 2000, (total, 2)), long, long * rng.uniform(0.2, 1, total), rng.uniform(-1.57, 1.57, total)]
    )
    owners = rng.integers(0, PICTURES, total)
    labels = np.repeat(np.arange(CLASSES), DETECTIONS)
    like = rng.integers(0, OBJECTS, found) + labels * OBJECTS
    near = rng.random(found) < 0.5
    boxes = objects[like]
    boxes[:, :2] += rng.normal(0, 0.08, (found, 2)) * boxes[:, 2:4]
    boxes[:, 2:4] *= np.exp(rng.normal(0, 0.1, (found, 2)))
    boxes[:, 4] += rng.normal(0, 0.05, found)
    boxes[~near, :2] = rng.uniform(0, 2000, (int((~near).sum()), 2))
    names, classes = tuple(f"P{k:04}" for k in range(PICTURES)), tuple(f"class-{k}" for k in range(CLASSES))
    truth = TruthTable(
        pictures=names,
        classes=classes,
        polygons=corners(objects),
        owners=owners,
        labels=np.repeat(np.arange(CLASSES), OBJECTS),
        difficult=rng.random(total) < 0.1,
    )
    detections = DetectionTable(
        pictures=names,
        classes=classes,
        polygons=corners(boxes),
        owners=np.where(near, owners[like], rng.integers(0, PICTURES, found)),
        labels=labels,
        scores=np.where(near, rng.beta(4, 2, found), rng.beta(2, 4, found)),
    )
    return truth, detections


def corners(boxes: Floats) -> Floats:
    return rbox_to_polygon(torch.from_numpy(boxes)).view(-1, 4, 2).numpy()


def devkits_loop(truth: TruthTable, found: DetectionTable, label: int) -> float:
    """Return AP50_voc07 of a class as the devkit goes about it: detection by detection, in Python."""
    mine, seen = np.flatnonzero(truth.labels == label), np.flatnonzero(found.labels == label)
    seen = seen[np.argsort(-found.scores[seen], kind="stable")]
    by_picture = {picture: mine[truth.owners[mine] == picture] for picture in range(PICTURES)}
    taken, hits, counted, points = set(), 0, 0, []
    for k in seen:
        there, polygon = by_picture[int(found.owners[k])], found.polygons[k]
        low = np.maximum(truth.polygons[there].min(axis=1), polygon.min(axis=0))
        high = np.minimum(truth.polygons[there].max(axis=1), polygon.max(axis=0))
        best, most = -1, 0.5
        for j in there[(low < high).all(axis=1)]:
            iou = opencv_iou(polygon, truth.polygons[j])
            best, most = (int(j), iou) if iou > most else (best, most)
        if best >= 0 and truth.difficult[best]:
            continue
        counted += 1
        if best >= 0 and best not in taken:
            taken.add(best)
            hits += 1
            points.append((hits, hits / counted))
    recall, precision = np.array(points).T
    return voc_ap(recall / (~truth.difficult[mine]).sum(), precision, "11")


def opencv_iou(one: Floats, other: Floats) -> float:
    pair = [(polygon - other[0]).astype(np.float32) for polygon in (one, other)]
    both = cv2.intersectConvexConvex(*pair)[0]
    return both / (cv2.contourArea(pair[0]) + cv2.contourArea(pair[1]) - both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth, found = make()
    scores = rotated_scores(truth, found)
    timing = take_turns({"ours": lambda: rotated_scores(truth, found)}, options.repeats)["ours"]
    print(f"focaldet, all figures of {CLASSES} classes: {timing.minimum:.3f} s least, {timing.median:.3f} s median")
    start = time.process_time()
    ap = devkits_loop(truth, found, 0)
    seconds = time.process_time() - start
    print(
        f"the devkit's loop with OpenCV, one figure of {CLASSES} classes: {seconds * CLASSES:.1f} s (one class, once)"
    )
    print(f"AP50_voc07 of the first class: {ap:.6f}, ours {scores.classes[truth.classes[0]]['AP50_voc07']:.6f}")


if __name__ == "__main__":
    main()
