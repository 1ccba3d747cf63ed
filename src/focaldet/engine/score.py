"""Scoring files that exist already, upright boxes or rotated ones: which of the two is recognized by what they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from focaldet.data.dota import picture_name, read_coco_polygons, read_label_folder
from focaldet.errors import FocaldetError, UsageError
from focaldet.metrics.coco import OBJECT_CLASS, coco_scores
from focaldet.metrics.dota import rotated_scores
from focaldet.metrics.scores import Scores
from focaldet.postprocess.merge import MergeRule, merge_table
from focaldet.results.coco import check_coco_results, check_coco_truth
from focaldet.results.dota import read_task1
from focaldet.results.files import read_json
from focaldet.results.polygon_json import is_rotated, read_coco_entries, read_own_entries
from focaldet.results.tables import DetectionTable, TruthTable

Table = TypeVar("Table", TruthTable, DetectionTable)


def score(
    truth: str | Path,
    detections: str | Path,
    *,
    class_agnostic: bool = False,
    merge: float | None = None,
    pictures: str | Path | None = None,
) -> Scores:
    """Score files of detections against files of truth.

    Boxes are rotated, and scored by DOTA's rules (docs/scores.md), where truth or detections are a folder, or a json
    with boxes of five numbers or with `poly`. Else they are upright, and scored by COCO's rule.

    Args:
        truth: COCO annotations; or a folder of DOTA's labels (labelTxt).
        detections: COCO results, a list of {"image_id", "category_id", "bbox", "score"}; a folder of Task 1 files; or a
            detections json as `focaldet predict` writes it.
        class_agnostic: whether classes are left out of account.
        merge: take names SCENE__RATE__X___Y for tiles and bring their detections back to the scenes; of two of a class
            that overlap by more than this IoU, the better one stays.
        pictures: a text file with the names of the pictures of a label folder that count; None takes all.

    Raises:
        FocaldetError: a file is missing or of another form; the sentence says where.
    """
    truth, detections = Path(truth), Path(detections)
    wanted = None if truth.is_dir() else read_json(truth)
    found = None if detections.is_dir() else read_json(detections)
    if wanted is not None and found is not None and not _any_rotated(wanted, found):
        if merge is not None or pictures is not None:
            raise UsageError(f"{truth} and {detections} hold upright boxes; merge and pictures are for rotated ones")
        check_coco_truth(wanted, str(truth))
        check_coco_results(found, wanted, str(detections))
        return coco_scores(wanted, list(found), class_agnostic=class_agnostic)
    if merge is not None and not 0 <= merge <= 1:
        raise UsageError(f"merge={merge:g} should be an IoU, from 0 to 1")
    if pictures is not None and wanted is not None:
        raise UsageError(f"{pictures} names pictures of a label folder, but the truth is the json {truth}")
    objects = read_label_folder(truth, pictures) if wanted is None else read_coco_polygons(wanted, str(truth))
    table = read_task1(detections) if found is None else _read_entries(found, wanted, str(detections))
    table = table if merge is None else merge_table(table, MergeRule(merge))
    objects = replace(objects, notes=(_recognized(truth, detections, objects, table), *objects.notes))
    if class_agnostic:
        objects, table = _as_one_class(objects), _as_one_class(table)
        scores = rotated_scores(objects, table)
        return replace(scores, rule=f"{scores.rule}; classes ignored")
    return rotated_scores(objects, table)


def _any_rotated(truth: Any, detections: Any) -> bool:
    """Tell whether a json of truth or of detections has rotated boxes; what is neither is for others to complain of."""
    annotations = truth.get("annotations") if isinstance(truth, dict) else None
    return any(isinstance(entries, list) and any(map(is_rotated, entries)) for entries in (annotations, detections))


def _read_entries(entries: Any, truth: Any, where: str) -> DetectionTable:
    """Read a json of detections, in our form or in COCO's, which needs COCO annotations for the names."""
    if not isinstance(entries, list):
        raise FocaldetError(f"{where}: holds no list of detections; is it another kind of json?")
    if not any(isinstance(entry, dict) and "image_id" in entry for entry in entries):
        return read_own_entries(entries, where)
    if truth is None:
        raise FocaldetError(
            f"{where}: these are COCO results, which know pictures by number; a label folder knows them by name: give "
            "COCO annotations as truth, or detections with names"
        )
    pictures = {item["id"]: picture_name(item) for item in truth["images"]}
    classes = {item["id"]: str(item.get("name", item["id"])) for item in truth["categories"]}
    return read_coco_entries(entries, pictures, classes, where)


def _recognized(truth: Path, detections: Path, objects: TruthTable, table: DetectionTable) -> str:
    of_truth = "label files" if truth.is_dir() else "COCO json"
    of_detections = "Task 1 files" if detections.is_dir() else "json"
    return (
        f"rotated boxes: {truth} ({of_truth}): {len(objects.pictures):,} pictures, {len(objects):,} objects, "
        f"{int(objects.difficult.sum()):,} of them difficult; {detections} ({of_detections}): {len(table):,} detections"
    )


def _as_one_class(table: Table) -> Table:
    return replace(table, classes=(OBJECT_CLASS,), labels=np.zeros_like(table.labels))
