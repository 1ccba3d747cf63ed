"""Rotated scores: beside the original program's, COCO's own evaluator, and plain loops over a matrix of overlaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry.polygon import polygon_to_rbox
from focaldet.geometry.quads import overlapping_pairs
from focaldet.geometry.rbox import convert_boxes, rbox_to_polygon
from focaldet.metrics import kernels
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.dota import COLUMNS, IOUS, precision_at_hits, rotated_scores, voc_ap
from focaldet.metrics.kernels import HIT, UNCOUNTED, match_coco, match_voc
from focaldet.results.tables import DetectionTable, TruthTable

CLASSES = ("plane", "ship")
HERE, BESIDE, HALF, AWAY = (0, 0, 10, 10), (1, 0, 10, 10), (0, 0, 10, 5), (50, 50, 10, 10)  # x, y, w, h
Box = tuple[float, float, float, float]


def polygons_of(boxes: list[Box]) -> Any:
    x, y, w, h = np.array(boxes, dtype=np.float64).reshape(-1, 4).T
    return np.stack([x, y, x + w, y, x + w, y + h, x, y + h], axis=1).reshape(-1, 4, 2)


def truth_of(*objects: tuple[int, Box, int, bool], pictures: int = 2) -> TruthTable:
    """Truth from (picture, box, label, difficult)."""
    return TruthTable(
        pictures=tuple(f"P{number}" for number in range(pictures)),
        classes=CLASSES,
        polygons=polygons_of([item[1] for item in objects]),
        owners=np.array([item[0] for item in objects], dtype=np.int64),
        labels=np.array([item[2] for item in objects], dtype=np.int64),
        difficult=np.array([item[3] for item in objects], dtype=bool),
    )


def found_of(*detections: tuple[int, Box, int, float], pictures: int = 2) -> DetectionTable:
    """Detections from (picture, box, label, score)."""
    return DetectionTable(
        pictures=tuple(f"P{number}" for number in range(pictures)),
        classes=CLASSES,
        polygons=polygons_of([item[1] for item in detections]),
        owners=np.array([item[0] for item in detections], dtype=np.int64),
        labels=np.array([item[2] for item in detections], dtype=np.int64),
        scores=np.array([item[3] for item in detections], dtype=np.float64),
    )


@pytest.fixture(scope="module")
def units(golden: Path) -> dict[str, Any]:
    with np.load(golden / "tf" / "unit" / "rtr.npz") as stored:
        return {name: stored[name] for name in stored.files if name.startswith("voc_")}


@pytest.mark.golden
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_the_original_programs_evaluation(units: dict[str, Any], label: int, threshold: float) -> None:
    """It compares least-area rectangles of the annotated corners, with OpenCV; no pair lies at a threshold."""
    truth, found = units["voc_eval.in.gt"], units["voc_eval.in.det"]
    truth, found = truth[truth[:, 10] == label], found[found[:, 1] == label]
    found = found[::-1][np.argsort(-found[::-1, 2], kind="stable")]  # the recorded sort left equal scores turned round
    boxes = torch.from_numpy(found[:, 3:].copy())
    boxes[:, 2:4] = boxes[:, 2:4].clamp(min=0)  # of a few the sides are negative; they find nothing there either
    boxes = convert_boxes(boxes, "tf90", "le90")
    rectangles = polygon_to_rbox(torch.from_numpy(truth[:, 1:9].astype(np.float64)))
    polygons = [rbox_to_polygon(some).view(-1, 4, 2).numpy() for some in (boxes, rectangles)]
    owners = [some[:, 0].astype(np.int64) for some in (found, truth)]
    i, j, ious = overlapping_pairs(polygons[0], owners[0], polygons[1], owners[1], floor=0.4)
    outcome, difficult = np.zeros(len(found), np.int8), truth[:, 9] > 0
    match_voc(np.searchsorted(i, np.arange(len(found) + 1)), j, ious, difficult, threshold, outcome)
    hits, counted = np.cumsum(outcome == HIT), np.cumsum(outcome != UNCOUNTED)
    objects = int((~difficult).sum())
    for rule, points in (("07", "11"), ("area", "area")):
        expected = {
            name: units[f"voc_eval.out.class{label}.{rule}.{threshold}.{name}"] for name in ("rec", "prec", "ap")
        }
        assert np.array_equal(hits / objects, expected["rec"])
        assert np.array_equal(hits / np.maximum(counted, np.finfo(np.float64).eps), expected["prec"])
        precision, places = precision_at_hits(outcome)
        ap = voc_ap(hits[places] / objects, precision, points)  # type: ignore[arg-type]
        assert ap == pytest.approx(float(expected["ap"]), abs=1e-15)


@pytest.mark.golden
def test_the_original_programs_average_precision(units: dict[str, Any]) -> None:
    recall, precision = units["voc_ap.in.rec"], units["voc_ap.in.prec"]
    assert voc_ap(recall, precision, "11") == pytest.approx(float(units["voc_ap.out.07"]), abs=1e-15)
    assert voc_ap(recall, precision, "area") == pytest.approx(float(units["voc_ap.out.area"]), abs=1e-15)


sides = st.sampled_from([8, 16, 32, 40, 96, 104])
spots = st.tuples(st.integers(0, 6).map(lambda k: 8 * k), st.integers(0, 6).map(lambda k: 8 * k), sides, sides)
objects_ = st.lists(st.tuples(st.integers(0, 1), spots, st.integers(0, 1), st.booleans()), max_size=8)
detections_ = st.lists(
    st.tuples(st.integers(0, 1), spots, st.integers(0, 1), st.sampled_from([0.2, 0.5, 0.7, 0.9])), max_size=10
)


@given(objects=objects_, detections=detections_)
def test_upright_boxes_get_cocos_own_figures(objects: list[Any], detections: list[Any]) -> None:
    """Without difficult objects, and in the order of pictures, which decides between equal scores there."""
    detections = sorted(detections, key=lambda item: item[0])
    truth = {
        "images": [{"id": 0}, {"id": 1}],
        "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES)],
        "annotations": [
            {"id": k, "image_id": item[0], "category_id": item[2], "bbox": list(item[1])}
            for k, item in enumerate(objects)
        ],
    }
    results = [
        {"image_id": item[0], "category_id": item[2], "bbox": list(item[1]), "score": item[3]} for item in detections
    ]
    coco = coco_scores(truth, results, limits=(1000,)).to_dict()
    ours = rotated_scores(truth_of(*((*item[:3], False) for item in objects)), found_of(*detections)).to_dict()
    for figures, expected in ((ours, coco), *zip(ours["classes"].values(), coco["classes"].values(), strict=True)):
        for name in (
            "AP",
            "AP50",
            "AP75",
            *(f"{kind}_{size}" for kind in ("AP", "AR") for size in ("small", "medium", "large")),
        ):
            assert figures[name] == (None if expected[name] is None else pytest.approx(expected[name])), name
        assert figures["AR"] == (None if expected["AR_1000"] is None else pytest.approx(expected["AR_1000"]))


def overlap(one: Box, other: Box) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def plain_voc(objects: list[Any], detections: list[Any], label: int) -> list[str]:
    """The devkit's loop; "hit", "false" or "ignored" for each detection by falling score."""
    outcome, taken = [], set()
    for picture, box, _, _ in sorted((item for item in detections if item[2] == label), key=lambda item: -item[3]):
        there = [k for k, item in enumerate(objects) if item[0] == picture and item[2] == label]
        ious = [overlap(box, objects[k][1]) for k in there]
        best = there[int(np.argmax(ious))] if there and max(ious) > 0.5 else None
        if best is None:
            outcome.append("false")
        elif objects[best][3]:
            outcome.append("ignored")
        else:
            outcome.append("false" if best in taken else "hit")
            taken.add(best)
    return outcome


def plain_coco(objects: list[Any], detections: list[Any], label: int, iou: float, low: float, high: float) -> list[str]:
    """COCO's loop, with difficult objects that take any number of detections."""
    outcome, taken = [], set()

    def size_of(box: Box) -> bool:
        return low <= box[2] * box[3] <= high

    for picture, box, _, _ in sorted((item for item in detections if item[2] == label), key=lambda item: -item[3]):
        there = [k for k, item in enumerate(objects) if item[0] == picture and item[2] == label and k not in taken]
        there = [k for k in there if overlap(box, objects[k][1]) >= iou]
        wanted = [k for k in there if not objects[k][3] and size_of(objects[k][1])]
        best = max(wanted or there, key=lambda k: (overlap(box, objects[k][1]), k), default=None)
        if best is None:
            outcome.append("false" if size_of(box) else "ignored")
        else:
            outcome.append("hit" if wanted else "ignored")
            taken |= set() if objects[best][3] else {best}
    return outcome


def plain_ap(outcome: list[str], objects: int, levels: Any) -> float:
    """The mean over levels of recall of the best precision there or later."""
    hits, counted, points = 0, 0, []
    for item in outcome:
        hits, counted = hits + (item == "hit"), counted + (item != "ignored")
        points.append((hits / objects, hits / max(counted, 1)))
    return float(np.mean([max((p for r, p in points if r >= level), default=0.0) for level in levels]))


@given(objects=objects_, detections=detections_)
def test_every_figure_of_a_class_is_that_of_plain_loops(objects: list[Any], detections: list[Any]) -> None:
    scores = rotated_scores(truth_of(*objects), found_of(*detections))
    borders = {"": (0, 1e9), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, 1e9)}
    for label, name in enumerate(CLASSES):
        figures = scores.classes[name]
        mine = [item for item in objects if item[2] == label and not item[3]]
        assert figures["objects"] == len(mine)
        if not mine:
            assert {figures[key] for key in COLUMNS} == {None}
            continue
        outcome = plain_voc(objects, detections, label)
        assert figures["AP50_voc07"] == pytest.approx(plain_ap(outcome, len(mine), np.arange(0.0, 1.1, 0.1)))
        for size, (low, high) in borders.items():
            some = sum(low <= item[1][2] * item[1][3] <= high for item in mine)
            outcomes = [plain_coco(objects, detections, label, iou, low, high) for iou in IOUS]
            if not some:
                assert figures[f"AP{size}"] is figures[f"AR{size}"] is None
                continue
            each = [plain_ap(outcome, some, np.linspace(0, 1, 101)) for outcome in outcomes]
            assert figures[f"AP{size}"] == pytest.approx(np.mean(each))
            assert figures[f"AR{size}"] == pytest.approx(np.mean([outcome.count("hit") / some for outcome in outcomes]))


@given(objects=objects_, detections=detections_, seed=st.integers(0, 99))
def test_order_decides_nothing_but_equal_scores(objects: list[Any], detections: list[Any], seed: int) -> None:
    """Truth of equal overlap apart, which the rules themselves take by its order."""
    rng = np.random.default_rng(seed)
    objects = [
        (p, (x + k / 7, y + k / 11, w, h), label, hard) for k, (p, (x, y, w, h), label, hard) in enumerate(objects)
    ]
    detections = [(p, box, label, score + k / 1000) for k, (p, box, label, score) in enumerate(detections)]
    mixed = (
        [objects[k] for k in rng.permutation(len(objects))],
        [detections[k] for k in rng.permutation(len(detections))],
    )
    one = rotated_scores(truth_of(*objects), found_of(*detections))
    other = rotated_scores(truth_of(*mixed[0]), found_of(*mixed[1]))
    assert one.to_dict() == other.to_dict()


@given(objects=objects_, detections=detections_)
def test_the_loops_run_without_numba_too(objects: list[Any], detections: list[Any]) -> None:
    truth, found = truth_of(*objects), found_of(*detections)
    scores = rotated_scores(truth, found)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("match_voc", "match_coco"):
            patch.setattr(kernels, name, getattr(getattr(kernels, name), "py_func", getattr(kernels, name)))
        patch.setattr("focaldet.geometry.quads._numba", lambda: False)
        assert rotated_scores(truth, found).to_dict() == scores.to_dict()
    assert callable(match_coco)


def test_equal_scores_keep_the_order_of_the_files() -> None:
    truth = truth_of((0, HERE, 0, False))
    right, wrong = (0, HERE, 0, 0.5), (1, AWAY, 0, 0.5)
    assert rotated_scores(truth, found_of(right, wrong))["AP50_voc12"] == 1.0
    assert rotated_scores(truth, found_of(wrong, right))["AP50_voc12"] == 0.5


def test_the_devkit_looks_at_one_truth_only() -> None:
    """The second detection overlaps the taken object most: a false alarm there; by COCO's rule it finds the other."""
    truth = truth_of((0, HERE, 0, False), (0, (2, 0, 10, 10), 0, False))
    found = found_of((0, HERE, 0, 0.9), (0, (0.5, 0, 10, 10), 0, 0.8))
    scores = rotated_scores(truth, found)
    assert scores["AP50_voc12"] == 0.5
    assert scores["AP50"] == 1.0


def test_an_overlap_of_exactly_a_half() -> None:
    scores = rotated_scores(truth_of((0, HERE, 0, False)), found_of((0, HALF, 0, 0.9)))
    assert scores["AP50_voc07"] == scores["AP50_voc12"] == 0.0
    assert scores["AP50"] == 1.0
    assert scores["AP"] == pytest.approx(0.1)


def test_difficult_objects_are_neither_counted_nor_penalised() -> None:
    truth = truth_of((0, HERE, 0, True), (1, AWAY, 0, False))
    found = found_of((0, HERE, 0, 0.9), (0, BESIDE, 0, 0.8), (1, AWAY, 0, 0.7))
    scores = rotated_scores(truth, found)
    assert [scores[name] for name in ("AP50_voc07", "AP50_voc12", "AP50", "AR")] == [1.0] * 4
    assert scores["AP"] == pytest.approx(0.85)  # the second overlaps by 9/11: a false alarm at 0.85, 0.90 and 0.95
    assert scores.classes["plane"]["objects"] == 1


def test_only_difficult_objects_or_none_of_a_class() -> None:
    truth = truth_of((0, HERE, 0, True), (0, HERE, 1, False))
    scores = rotated_scores(truth, found_of((0, HERE, 0, 0.9), (0, HERE, 1, 0.9)))
    assert scores.classes["plane"] == {name: None for name in scores.classes["plane"]} | {"objects": 0}
    assert scores["AP"] == scores["AP50_voc07"] == 1.0  # of ships alone
    assert scores.notes == ("nothing to find of plane: left out of all means",)
    nothing = rotated_scores(truth_of(), found_of((0, HERE, 0, 0.9)))
    assert set(nothing.figures.values()) == {None}
    assert " - " in nothing.table()


def test_no_detections() -> None:
    scores = rotated_scores(truth_of((0, HERE, 0, False), (1, HERE, 1, False)), found_of())
    assert scores["AP50_voc07"] == scores["AP50_voc12"] == scores["AP"] == scores["AR"] == 0.0
    assert scores["AP_large"] is None


def test_duplicates_are_found_one_by_one() -> None:
    truth = truth_of((0, HERE, 0, False), (0, HERE, 0, False))
    found = found_of((0, HERE, 0, 0.9), (0, HERE, 0, 0.8), (0, HERE, 0, 0.7))
    scores = rotated_scores(truth, found)
    assert scores["AR"] == 1.0
    assert scores["AP50_voc12"] == 0.5  # the devkit always looks at the first of the two


def test_there_is_no_limit_on_detections() -> None:
    boxes = [(20.0 * (k % 40), 20.0 * (k // 40), 10.0, 10.0) for k in range(400)]
    scores = rotated_scores(
        truth_of(*((0, box, 0, False) for box in boxes)), found_of(*((0, box, 0, 0.5) for box in boxes))
    )
    assert scores["AP"] == scores["AR"] == 1.0


def test_unknown_pictures_and_classes_are_said() -> None:
    truth = truth_of((0, HERE, 0, False), pictures=1)
    found = found_of((0, HERE, 0, 0.9), (1, HERE, 0, 0.95), (0, HERE, 1, 0.99), (1, AWAY, 0, 0.7))
    only_planes = TruthTable(**{**vars(truth), "classes": ("plane",)})
    scores = rotated_scores(only_planes, found)
    assert scores["AP50_voc12"] == 1.0
    assert scores.notes == (
        "left out: 2 detections of pictures that the truth does not have: P1 (2)",
        "left out: 1 detections of classes that the truth does not have: ship (1)",
    )
    assert scores.to_dict()["notes"] == list(scores.notes)
    assert scores.table().startswith(scores.notes[0])


@pytest.mark.parametrize(
    ("pictures", "classes", "words"),
    [
        (
            ("P0003__1__0___0",),
            CLASSES,
            r"no detection is of a picture that the truth has: .*P0003__1__0___0 \(1\).*tiles",
        ),
        (("Q9",), CLASSES, r"of a picture that the truth has.*: detections are of Q9 \(1\); the truth has P0, P1;"),
        (("P0",), ("shipp",), r"of a class that the truth has \(did you mean 'ship'\?\)"),
    ],
)
def test_nothing_that_the_truth_knows(pictures: tuple[str, ...], classes: tuple[str, ...], words: str) -> None:
    found = DetectionTable(**{**vars(found_of((0, HERE, 0, 0.9))), "pictures": pictures, "classes": classes})
    with pytest.raises(FocaldetError, match=words):
        rotated_scores(truth_of((0, HERE, 0, False)), found)


def test_each_unknown_in_its_own_way() -> None:
    found = DetectionTable(
        **{**vars(found_of((0, HERE, 1, 0.9), (1, HERE, 0, 0.9))), "pictures": ("P0", "Q"), "classes": ("plane", "car")}
    )
    with pytest.raises(FocaldetError, match="no detection is of a picture and of a class that the truth has"):
        rotated_scores(truth_of((0, HERE, 0, False)), found)


def test_scores_that_are_no_numbers() -> None:
    with pytest.raises(FocaldetError, match="score of detection 1 is not a number"):
        rotated_scores(truth_of((0, HERE, 0, False)), found_of((0, HERE, 0, 0.9), (0, HERE, 0, np.nan)))


def test_a_detection_that_crosses_itself_finds_nothing() -> None:
    found = found_of((0, HERE, 0, 0.9))
    bow = DetectionTable(**{**vars(found), "polygons": found.polygons[:, [0, 1, 3, 2]]})
    assert rotated_scores(truth_of((0, HERE, 0, False)), bow)["AP50"] == 0.0


def test_general_quadrilaterals_are_compared_as_they_are() -> None:
    """A kite of half the area of its least rectangle: found by itself, not by that rectangle."""
    kite = np.array([[[5.0, 0], [10, 5], [5, 10], [0, 5]]]) + np.array([[[0, 0], [9, 0], [0, 0], [0, 0]]])
    truth = TruthTable(**{**vars(truth_of((0, HERE, 0, False))), "polygons": kite})
    rectangle = rbox_to_polygon(polygon_to_rbox(torch.from_numpy(kite.reshape(1, 8)))).view(1, 4, 2).numpy()
    for polygons, expected in ((kite, 1.0), (kite[:, ::-1], 1.0), (rectangle, 0.0)):
        found = DetectionTable(**{**vars(found_of((0, HERE, 0, 0.9))), "polygons": polygons})
        assert rotated_scores(truth, found)["AP75"] == expected


def test_the_rule_and_the_curves() -> None:
    scores = rotated_scores(truth_of((0, HERE, 0, False)), found_of((0, HERE, 0, 0.75)))
    for words in ("11 points", "area under the curve", "101 points", "IoU > 0.50", "IoU >= 0.50:0.95", "no limit"):
        assert words in scores.rule
    precision, score = scores.curves.at(0.75)["plane"]
    assert precision.tolist() == [1.0] * 101
    assert score.tolist() == [0.75] * 101
    assert scores.table().splitlines()[5].split() == ["class", *COLUMNS, "objects"]
