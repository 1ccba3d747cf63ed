"""COCO's figures, as pycocotools gives them; the counting is done by faster-coco-eval, loaded when first needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from focaldet.errors import FocaldetError
from focaldet.metrics.scores import SIZES, Curves, Scores, mean_measured
from focaldet.results.coco import check_coco_results, check_coco_truth

OBJECT_CLASS = "object"
"""The one class there is when classes do not count."""


def coco_scores(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    limits: Sequence[int] = (1, 10, 100),
    ious: Sequence[float] | None = None,
    class_agnostic: bool = False,
) -> Scores:
    """Score COCO results against COCO annotations. Neither is changed, nothing is printed.

    AP is taken at 100 detections a picture if that is among `limits`, else at the largest; all other figures at the
    largest. That is pycocotools' rule, also where faster-coco-eval has another. Crowds are neither to be found nor
    false alarms; an annotation's `ignore` is overridden by its `iscrowd`. Ids may start from 0. An annotation without
    `area` has that of its box.

    Args:
        truth: COCO annotations: "images", "annotations", "categories". All pictures and categories count.
        results: {"image_id", "category_id", "bbox": [x, y, w, h], "score"} each. Equal scores of a picture keep their
            order.
        limits: the most detections a picture and class, rising; named in AR_1, AR_10, AR_100.
        ious: thresholds, rising; None for COCO's ten, 0.50 to 0.95.
        class_agnostic: a detection of any class may find an object.

    Raises:
        FocaldetError: if a result is not as it should be, or of an unknown picture or category.
    """
    check_coco_truth(truth)
    check_coco_results(results, truth)
    if not limits or list(limits) != sorted(set(limits)) or limits[0] < 1:
        raise FocaldetError(f"limits={limits!r} should be whole numbers above 0, rising")
    if ious is not None and (not ious or not all(0 < iou <= 1 for iou in ious) or list(ious) != sorted(set(ious))):
        raise FocaldetError(f"ious={ious!r} should be numbers above 0, up to 1, rising")
    classes = (OBJECT_CLASS,) if class_agnostic else _class_names(truth)
    curves = _curves(truth, results, tuple(limits), ious, classes, class_agnostic)
    rule = _rule(curves, class_agnostic)
    objects = _count_objects(truth, class_agnostic)
    each = {name: {**_figures(curves, c), "objects": objects[c]} for c, name in enumerate(classes)}
    return Scores(rule, _figures(curves), each, curves)


def _class_names(truth: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the categories' names, by rising id; a name that comes twice gets its id."""
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    names = [str(category.get("name", category["id"])) for category in categories]
    ids = [category["id"] for category in categories]
    return tuple(f"{name} ({key})" if names.count(name) > 1 else name for name, key in zip(names, ids, strict=True))


def _count_objects(truth: Mapping[str, Any], class_agnostic: bool) -> list[int]:
    ids = sorted(category["id"] for category in truth["categories"])
    found = Counter(item["category_id"] for item in truth["annotations"] if not item.get("iscrowd", 0))
    return [found.total()] if class_agnostic else [found[key] for key in ids]


def _curves(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    limits: tuple[int, ...],
    ious: Sequence[float] | None,
    classes: tuple[str, ...],
    class_agnostic: bool,
) -> Curves:
    """Run the evaluator on renumbered copies."""
    from faster_coco_eval import COCO, COCOeval_faster

    annotations, detections = _renumber(truth, results)
    evaluator = COCOeval_faster(COCO(annotations), COCO(detections), "bbox", print_function=_say_nothing)
    evaluator.params.maxDets = list(limits)
    evaluator.params.useCats = int(not class_agnostic)
    if ious is not None:
        evaluator.params.iouThrs = np.asarray(ious, dtype=np.float64)
    evaluator.evaluate()
    evaluator.accumulate()
    ten_ious, levels = evaluator.params.iouThrs, evaluator.params.recThrs
    shape = (len(ten_ious), len(levels), len(classes), len(SIZES), len(limits))
    return Curves(
        precision=np.asarray(evaluator.eval["precision"], dtype=np.float64).reshape(shape),
        scores=np.asarray(evaluator.eval["scores"], dtype=np.float64).reshape(shape),
        recall=np.asarray(evaluator.eval["recall"], dtype=np.float64).reshape(shape[:1] + shape[2:]),
        ious=np.asarray(ten_ious, dtype=np.float64),
        recalls=np.asarray(levels, dtype=np.float64),
        limits=limits,
        classes=classes,
    )


def _say_nothing(*_: object, **__: object) -> None:
    """Stand in for print."""


def _renumber(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return copies of annotations and results with all ids counted from 1.

    The evaluator takes annotation 0 for "no match" and so loses it. Pictures and categories keep their order, which
    decides between equal scores.
    """
    pictures = {key: new for new, key in enumerate(sorted(item["id"] for item in truth["images"]), start=1)}
    categories = {key: new for new, key in enumerate(sorted(item["id"] for item in truth["categories"]), start=1)}
    frame = {
        "images": [{"id": new} for new in pictures.values()],
        "categories": [{"id": new} for new in categories.values()],
    }

    def copy(number: int, item: Mapping[str, Any]) -> dict[str, Any]:
        box = [float(value) for value in item["bbox"]]
        return {
            "id": number,
            "image_id": pictures[item["image_id"]],
            "category_id": categories[item["category_id"]],
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }

    objects = [
        copy(number, item)
        | {"area": float(item.get("area", item["bbox"][2] * item["bbox"][3])), "iscrowd": int(item.get("iscrowd", 0))}
        for number, item in enumerate(truth["annotations"], start=1)
    ]
    found = [copy(number, item) | {"score": float(item["score"])} for number, item in enumerate(results, start=1)]
    return frame | {"annotations": objects}, frame | {"annotations": found}


def _rule(curves: Curves, class_agnostic: bool) -> str:
    ious = f"IoU {curves.ious[0]:.2f}" + (f":{curves.ious[-1]:.2f}" if len(curves.ious) > 1 else "")
    most = curves.limits[curves.limit(None)]
    return f"COCO, 101 points, {ious}, at most {most} detections" + (", classes ignored" if class_agnostic else "")


def _figures(curves: Curves, of_class: int | None = None) -> dict[str, float | None]:
    """Return the twelve figures, of all classes or of one."""
    chosen = slice(None) if of_class is None else slice(of_class, of_class + 1)
    precision, recall = curves.precision[:, :, chosen], curves.recall[:, chosen]
    last, at = len(curves.limits) - 1, curves.limit(None)

    def ap_at(iou: float) -> float | None:
        return mean_measured(precision[np.isclose(curves.ious, iou), :, :, 0, last])

    return {
        "AP": mean_measured(precision[..., 0, at]),
        "AP50": ap_at(0.5),
        "AP75": ap_at(0.75),
        **{f"AP_{name}": mean_measured(precision[..., s, last]) for s, name in enumerate(SIZES) if s},
        **{f"AR_{limit}": mean_measured(recall[..., 0, m]) for m, limit in enumerate(curves.limits)},
        **{f"AR_{name}": mean_measured(recall[..., s, last]) for s, name in enumerate(SIZES) if s},
    }
