"""Running a detector over a dataset and scoring what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focaldet.data.dataset import Dataset, Kind
from focaldet.data.formats import Split, open_dataset
from focaldet.data.loader import PictureLoader, worker_deaths_told
from focaldet.data.sampler import InOrder
from focaldet.engine.build import build_collate, build_criterion, build_stage_targets, build_steps
from focaldet.engine.detector import Detector, Source, is_scene, load
from focaldet.engine.distributed import ALONE, Processes
from focaldet.engine.progress import Listener, Quiet
from focaldet.errors import FocaldetError
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.dota import rotated_scores
from focaldet.metrics.scores import Scores
from focaldet.results.coco import to_coco_results, write_coco_results
from focaldet.results.detections import Detections, write_detections
from focaldet.results.tables import DetectionTable, picture_key
from focaldet.structures import Batch


@dataclass(frozen=True)
class Evaluation:
    """What a detector reached on a dataset.

    Attributes:
        scores: the COCO figures.
        detections: one for each picture, in the dataset's order, labels in the detector's classes.
        losses: mean losses over the batches ("class", "box", "loss").
    """

    scores: Scores
    detections: list[Detections]
    losses: dict[str, float]


def evaluate(
    source: Source,
    data: str | Path,
    *,
    split: Split = "val",
    format: str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    output: str | Path | None = None,
    listener: Listener | None = None,
    **changes: Any,
) -> Scores:
    """Run a detector over a dataset's pictures and score it.

    Args:
        source: what `focaldet.load` takes, with weights.
        data: a dataset's folder or file.
        split: "val" or "train".
        format: of the data, one of FORMAT_NAMES, where several fit.
        device: where to compute.
        workers: processes that read pictures.
        output: a file for the detections: COCO results of an upright detector, a detections json of a rotated one.
        listener: hears about progress.
        **changes: fields of the recipe, such as `score=0.01`.
    """
    listener = listener or Quiet()
    detector = load(source, device=device, **changes)
    dataset = open_dataset(data, split, kind=detector.recipe.kind, format=format)
    listener.message(dataset.describe())
    evaluation = evaluate_detector(detector, dataset, workers=workers, listener=listener)
    if output is not None:
        write_answers(Path(output), dataset, evaluation.detections)
    return evaluation.scores


def evaluate_detector(
    detector: Detector,
    dataset: Dataset,
    *,
    workers: int = 0,
    listener: Listener | None = None,
    processes: Processes = ALONE,
) -> Evaluation:
    """Detect in every picture of a dataset, one pass for figures and losses.

    Scenes, which a rotated recipe looks at tile by tile, and pictures that are looked at several times have no losses.

    Raises:
        FocaldetError: the dataset names a class that the detector does not know, or a worker was killed.
    """
    refuse_unknown_classes(detector.classes, dataset)
    own = np.arange(processes.rank, len(dataset), processes.count)  # shares may differ by a picture, or be empty
    with processes.together(), worker_deaths_told():
        found, sums, counted = detect_in(detector, dataset.select(own), workers=workers, listener=listener or Quiet())
    parts = processes.collect((dict(zip(own.tolist(), found, strict=True)), sums, counted))
    by_index = {index: one for part, _, _ in parts for index, one in part.items()}
    detections = [by_index[index] for index in range(len(dataset))]
    pictures = max(sum(counted for _, _, counted in parts), 1)
    names = {name: None for _, sums, _ in parts for name in sums}
    losses = {name: sum(sums.get(name, 0.0) for _, sums, _ in parts) / pictures for name in names}
    scores = processes.told_by_first(lambda: score_detections(dataset, detections, detector.recipe.kind))
    return Evaluation(scores, detections, losses)


def detect_in(
    detector: Detector, dataset: Dataset, *, workers: int, listener: Listener
) -> tuple[list[Detections], dict[str, float], int]:
    """Return the detections of every picture, the sums of the losses, and over how many pictures these are."""
    criterion, targets = build_criterion(detector.recipe), build_stage_targets(detector.recipe)
    often = detector.looks > 1
    scenes = np.array([often or is_scene(detector.recipe, size) for size in dataset.sizes.tolist()], dtype=bool)
    pictures = np.flatnonzero(~scenes)
    found: dict[int, Detections] = {}
    sums: dict[str, float] = {}
    listener.start(len(dataset), "scoring")
    for index in np.flatnonzero(scenes).tolist():
        found[index] = detector.predict(dataset.path(index))
        listener.advance(1)
    for batch in _batches(detector, in_classes(dataset, detector.classes).select(pictures), workers):
        stages = detector.forward(batch.images)
        answers = [detector.finish(one) for one in detector.detect(batch, stages)]
        found |= zip(pictures[batch.indices].tolist(), answers, strict=True)
        with torch.inference_mode():
            losses: dict[str, Tensor] = criterion(stages, targets(stages, batch))
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        listener.advance(len(batch.ids))
    listener.finish()
    return [found[index] for index in range(len(dataset))], sums, len(pictures)


def _batches(detector: Detector, dataset: Dataset, workers: int) -> Iterator[Batch]:
    recipe = detector.recipe
    steps = PictureLoader(
        dataset,
        build_steps(recipe, train=False),
        InOrder(len(dataset)),
        build_collate(recipe, detector.model.anchors),
        workers=workers,
        seed=recipe.seed,
        channels=recipe.in_channels,
    )
    for step in steps:
        yield from step


def in_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Return a dataset with its labels counted in a longer class list, joined by name."""
    new_labels = np.array([classes.index(name) for name in dataset.classes], dtype=np.int64)
    labels = np.where(dataset.labels >= 0, new_labels[dataset.labels], dataset.labels)
    return dataclasses.replace(dataset, labels=labels)


def refuse_unknown_classes(classes: Sequence[str], dataset: Dataset) -> None:
    """Refuse a dataset that names a class which a detector of these classes was not trained on."""
    unknown = [name for name in dataset.classes if name not in classes]
    if unknown:
        raise FocaldetError(
            f"{dataset.source}: the detector does not know {', '.join(map(repr, unknown[:5]))}: it has the classes "
            f"{', '.join(classes)}; the data has {', '.join(dataset.classes)}"
        )


def score_detections(dataset: Dataset, detections: Sequence[Detections], kind: Kind) -> Scores:
    """Score what a detector answered, one a picture in the dataset's order, by the rules of its kind of box.

    Detections of classes that the dataset does not name count nowhere.
    """
    if kind == "hbox":
        return coco_scores(dataset.to_coco(), results_of(dataset, detections))
    return rotated_scores(dataset.to_truth(), table_of(dataset, detections))


def table_of(dataset: Dataset, detections: Sequence[Detections]) -> DetectionTable:
    """Return rotated detections as a table for scoring, joined with the dataset's pictures and classes by name."""
    parts = [(found.polygons.double().numpy(), found.scores.double().numpy(), found.names) for found in detections]
    counts = [len(found) for found in detections]
    names = [name for _, _, names in parts for name in names]
    known = np.array([name in dataset.classes for name in names], dtype=bool)
    place_of = {name: place for place, name in enumerate(dataset.classes)}
    return DetectionTable(
        pictures=tuple(picture_key(dataset.name(index)) for index in range(len(dataset))),
        classes=dataset.classes,
        polygons=np.concatenate([np.zeros((0, 4, 2)), *(polygons for polygons, _, _ in parts)])[known],
        owners=np.repeat(np.arange(len(detections)), counts)[known],
        labels=np.array([place_of[name] for name in names if name in place_of], dtype=np.int64),
        scores=np.concatenate([np.zeros(0), *(scores for _, scores, _ in parts)])[known],
    )


def write_answers(path: Path, dataset: Dataset, detections: Sequence[Detections]) -> None:
    """Write what a detector answered: COCO results of upright boxes, a detections json of rotated ones."""
    if dataset.kind == "hbox":
        write_coco_results(path, results_of(dataset, detections))
    else:
        named = [dataclasses.replace(found, image=dataset.name(index)) for index, found in enumerate(detections)]
        write_detections(path, named)


def results_of(dataset: Dataset, detections: Sequence[Detections]) -> list[dict[str, Any]]:
    """Return detections as COCO results under the dataset's own picture and category ids, joined by class name.

    Detections of classes that the dataset does not name are left out: it cannot say whether they are right.
    """
    category_of = dict(zip(dataset.classes, dataset.category_ids.tolist(), strict=True))
    results: list[dict[str, Any]] = []
    for image_id, found in zip(dataset.ids.tolist(), detections, strict=True):
        category_ids = [category_of.get(name, -1) for name in found.classes]
        results += [entry for entry in to_coco_results(found, image_id, category_ids) if entry["category_id"] != -1]
    return results
