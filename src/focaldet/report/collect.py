"""A run and what it answers on a dataset, gathered into `ReportData`."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focaldet.data.dataset import ANY_CLASS, Dataset, Kind
from focaldet.engine.detector import Detector
from focaldet.engine.progress import duration
from focaldet.geometry.hbox import corners_to_hbox, hbox_to_corners
from focaldet.metrics.scores import Floats, Scores
from focaldet.report.curves import Line
from focaldet.report.data import ClassRow, Figure, Mark, Picture, ReportData, Validation
from focaldet.report.outcomes import Outcome, best_threshold, confusion, judge, score_histogram
from focaldet.report.pictures import NUM_TONES, encode_jpeg
from focaldet.results.detections import Detections
from focaldet.structures import Truth

History = Sequence[Mapping[str, float]]

NUM_PICTURES = 8
MOST_CONFUSED = 15
"""More classes than this make no readable table."""

RULES = {
    "AP": "mean over IoU 0.50 to 0.95 in steps of 0.05",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "AP50_voc07": "VOC 2007, 11 points, IoU over 0.50",
    "AP50_voc12": "VOC 2012, area, IoU over 0.50",
    "AP_small": "objects under 32² pixels",
    "AP_medium": "objects from 32² to 96² pixels",
    "AP_large": "objects over 96² pixels",
    "AR": "recall, all detections",
    "AR_1": "recall, best detection of a picture",
    "AR_10": "recall, best 10 detections",
    "AR_100": "recall, best 100 detections",
    "AR_small": "recall, objects under 32² pixels",
    "AR_medium": "recall, objects from 32² to 96² pixels",
    "AR_large": "recall, objects over 96² pixels",
}
"""COCO's figures and those of rotated boxes. Areas and recalls are means over the same ten IoUs as AP."""


def collect(
    run_folder: Path,
    detector: Detector,
    dataset: Dataset | None,
    validation: Validation | None,
    *,
    history: History,
    title: str | None = None,
) -> ReportData:
    """Gather what the page of a run shows.

    Args:
        run_folder: where the run's files are; the page names it in its commands.
        detector: the trained one.
        dataset: what it was scored on, None where there was nothing.
        validation: what it reached there.
        history: rows of metrics.csv.
        title: heading of the page; None names recipe and classes.
    """
    lead = "Trained without pictures to validate on."
    if dataset is not None:
        lead = (
            f"Scored on {len(dataset):,} pictures with {dataset.num_objects:,} objects, which the training never saw."
        )
    return ReportData(
        title=title or f"{detector.recipe.name}: {shortened(detector.classes)}",
        lead=lead,
        headline=headline(validation, history),
        history={column: column_of(history, column) for column in COLUMNS},
        validation=validation,
        facts=facts(detector, dataset, history, run_folder),
        recipe={name: str(value) for name, value in detector.recipe.to_dict().items()},
        usage=usage(run_folder, 0.5 if validation is None else validation.operating.score, detector.recipe.kind),
    )


COLUMNS = ("loss", "class", "box", "val_loss", "AP", "AP50", "AP75")
"""Columns of metrics.csv that the page draws."""


def validate(names: tuple[str, ...], dataset: Dataset, scores: Scores, detections: Sequence[Detections]) -> Validation:
    """Gather what a detector reached on a dataset.

    Args:
        names: the detector's classes; every class of the dataset is among them.
        dataset: pictures and objects.
        scores: the figures.
        detections: one for each picture, in the dataset's order.
    """
    outcomes = [
        judge(found, truth_of(dataset, index, names))
        for index, found in zip(range(len(dataset)), detections, strict=True)
    ]
    operating = best_threshold(outcomes)
    return Validation(
        rule=scores.rule,
        figures=tuple(
            Figure(name, scores.figures[name], rule) for name, rule in RULES.items() if name in scores.figures
        ),
        classes=class_rows(scores.classes),
        precision_recall=curves(scores.curves.at(iou=0.5), scores.curves.recalls),
        operating=operating,
        histogram=score_histogram(outcomes),
        confusion=confusion(outcomes, operating.score, names) if len(names) <= MOST_CONFUSED else None,
        labels=names,
        pictures=choose_pictures(dataset, outcomes, operating.score),
    )


def truth_of(dataset: Dataset, index: int, names: Sequence[str]) -> Truth:
    """Return the objects of one picture with labels in `names`, which hold every class of the dataset.

    What counts neither way (crowds, difficult objects) is ignored; a region of any class becomes one of each.
    """
    chosen = slice(int(dataset.starts[index]), int(dataset.starts[index + 1]))
    corners = torch.from_numpy(dataset.corners[chosen])
    boxes = corners if dataset.kind == "rbox" else corners_to_hbox(corners)
    labels = torch.from_numpy(dataset.labels[chosen])
    ignored = torch.from_numpy(dataset.crowd[chosen] | dataset.difficult[chosen])
    label_of = torch.tensor([names.index(name) for name in dataset.classes])
    single, every = labels != ANY_CLASS, boxes[labels == ANY_CLASS]
    return Truth(
        boxes=torch.cat([boxes[single], every.repeat_interleave(len(names), dim=0)]),
        labels=torch.cat([label_of[labels[single]], torch.arange(len(names)).repeat(len(every))]),
        ignored=torch.cat([ignored[single], torch.ones(len(every) * len(names), dtype=torch.bool)]),
    )


def column_of(history: History, column: str) -> tuple[tuple[float, float], ...]:
    """Return (epoch, value) where a column was measured."""
    return tuple((row["epoch"], row[column]) for row in history if column in row and math.isfinite(row[column]))


def headline(validation: Validation | None, history: History) -> tuple[tuple[str, str, str], ...]:
    """Return the figures on top of the page."""
    tiles = []
    if validation is not None:
        shown = {figure.name: figure for figure in validation.figures}
        best = [shown[name] for name in ("AP50", "AP", "AP75")]
        tiles = [(f"{figure.value:.3f}", figure.name, figure.rule) for figure in best if figure.value is not None]
        operating = validation.operating
        tiles.append((f"{operating.recall:.0%}", "found", f"at a score of {operating.score:.2f} or more, IoU 0.5"))
        tiles.append((f"{operating.precision:.0%}", "right", "of the detections at that score"))
    if history and "time_s" in history[-1]:
        cpu = f"{duration(history[-1]['cpu_s'])} of CPU time" if "cpu_s" in history[-1] else ""
        tiles.append((duration(history[-1]["time_s"]), "training", cpu))
    return tuple(tiles)


def class_rows(classes: Mapping[str, Mapping[str, Any]]) -> tuple[ClassRow, ...]:
    """Return a row a class."""
    return tuple(
        ClassRow(name, int(row["objects"]), row.get("AP"), row.get("AP50"), row.get("AP75"))
        for name, row in classes.items()
    )


def curves(measured: Mapping[str, tuple[Floats, Floats]], recalls: Floats) -> tuple[Line, ...]:
    """Return precision over recall of each class; of many classes thin ones under their mean.

    Args:
        measured: by class, precision (R,) at the recalls, and the scores there.
        recalls: (R,).
    """
    precisions = {name: precision for name, (precision, _) in measured.items()}
    if len(precisions) <= NUM_TONES:
        return tuple(Line(name, points(recalls, row), f"c{n}") for n, (name, row) in enumerate(precisions.items(), 1))
    thin = (Line(name, points(recalls, row), "c8 thin") for name, row in precisions.items())
    return (*thin, Line("mean of the classes", points(recalls, np.mean(list(precisions.values()), axis=0)), "c1"))


def points(x: Floats, y: Floats) -> tuple[tuple[float, float], ...]:
    """Pair coordinates as plain numbers."""
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


def choose_pictures(dataset: Dataset, outcomes: Sequence[Outcome], threshold: float) -> dict[str, tuple[Picture, ...]]:
    """Return the pictures with the best and with the worst F1; all of them where there are few."""
    order = sorted(range(len(outcomes)), key=lambda n: (-outcomes[n].f1(threshold), -len(outcomes[n].found)))
    if len(order) <= NUM_PICTURES:
        groups = {"All pictures, best first": order}
    else:
        half = NUM_PICTURES // 2
        groups = {"Where it does best": order[:half], "Where it does worst": order[: -half - 1 : -1]}
    return {
        heading: tuple(picture_of(dataset, index, outcomes[index]) for index in chosen)
        for heading, chosen in groups.items()
        if chosen
    }


def picture_of(dataset: Dataset, index: int, outcome: Outcome) -> Picture:
    """Return one picture with its boxes."""
    sample, seen, objects = dataset.sample(index), outcome.detections, outcome.truth
    outlines = objects.boxes if objects.boxes.ndim == 3 else hbox_to_corners(objects.boxes)
    there = list(zip(corners_of(outlines), objects.labels.tolist(), outcome.found.tolist(), strict=True))
    truth = [
        Mark(corners, label, "truth") if wanted else Mark(corners, 0, "ignored")
        for (corners, label, _), wanted in zip(there, outcome.wanted, strict=True)
    ]
    marks = [Mark(corners, label, "missed", score) for corners, label, score in compress(there, outcome.wanted)]
    said = zip(corners_of(seen.polygons), seen.labels.tolist(), seen.scores.tolist(), outcome.hit, strict=True)
    for corners, label, score, hit in compress(said, outcome.counted):
        marks.append(Mark(corners, label, "hit" if hit else "false", score))
    unique = tuple(dict.fromkeys(truth))  # an ignored region stands there once for each class
    return Picture(sample.name, encode_jpeg(sample.image), sample.size, unique, tuple(marks))


def corners_of(polygons: Tensor) -> list[tuple[tuple[float, float], ...]]:
    """Return the corners of (N, 4, 2) polygons as plain tuples."""
    return [tuple((x, y) for x, y in polygon) for polygon in polygons.tolist()]


def facts(detector: Detector, dataset: Dataset | None, history: History, run_folder: Path) -> dict[str, str]:
    """Return what was trained, for how long, where and when."""
    recipe = detector.recipe
    parameters = sum(parameter.numel() for parameter in detector.model.parameters())
    rows = {
        "recipe": recipe.name,
        "network": f"{recipe.backbone}, FPN of {recipe.neck_channels} channels, {parameters / 1e6:.2f} M parameters",
        "classes": shortened(recipe.classes, 20),
        "input": " or ".join(f"{long} x {short}" for long, short in recipe.sizes) + f" pixels, {recipe.precision}",
        "losses": f"focal (alpha {recipe.alpha:g}, gamma {recipe.gamma:g}) and {recipe.box_loss}",
        "optimizer": f"{recipe.optimizer}, learning rate {recipe.peak_lr:g}, {recipe.batch} pictures a step",
    }
    if history:
        last = history[-1]
        rows["trained"] = f"{last['epoch']:.0f} epochs, {last['step']:.0f} steps" + spent(last)
    rows |= {"machine": machine(), "written": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")}
    rows["program"] = f"focaldet {importlib.metadata.version('focaldet')}{at_commit()}, torch {version_of('torch')}"
    if dataset is not None:
        rows["scored on"] = dataset.describe()
    rows["run folder"] = str(run_folder)
    return rows


def spent(row: Mapping[str, float]) -> str:
    """Write the time of a row of the history, where it has one."""
    time = f" in {duration(row['time_s'])}" if "time_s" in row else ""
    return time + (f" ({duration(row['cpu_s'])} of CPU time)" if "cpu_s" in row else "")


def version_of(package: str) -> str:
    """Return a package's version."""
    return importlib.metadata.version(package)


def machine() -> str:
    """Describe the processor in a line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def at_commit() -> str:
    """Return " (commit abc1234)" where this program runs from a git clone, else nothing."""
    command = ["git", "-C", str(Path(__file__).parent), "ls-files", "--error-unmatch", Path(__file__).name]
    try:  # a package folder inside somebody else's clone is not under its control
        subprocess.run(command, check=True, capture_output=True, timeout=5)
        command[3:] = ["describe", "--always", "--dirty", "--exclude=*"]
        said = subprocess.run(command, check=True, capture_output=True, timeout=5, text=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" (commit {said})"


def shortened(names: Sequence[str], most: int = 5) -> str:
    """Write a list of names, a long one by its beginning.

    >>> shortened(["cat", "dog", "cow"], 2)
    'cat, dog and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def usage(run_folder: Path, score: float, kind: Kind) -> dict[str, str]:
    """Return commands and lines of Python that use the run."""
    numbers = "x1, y1, x2, y2" if kind == "hbox" else "x, y, w, h, theta"
    return {
        "From the command line": (
            f"focaldet predict {run_folder} PICTURES... --output found score={score:.2f}\n"
            f"focaldet eval {run_folder} DATA"
        ),
        "From Python": (
            "import focaldet\n\n"
            f'detector = focaldet.load("{run_folder}")\n'
            f'found = detector.predict("picture.jpg", score={score:.2f})\n'
            f"print(found.boxes, found.scores, found.names)  # boxes: {numbers}, in pixels\n"
            'found.draw("picture.jpg").save("seen.jpg")'
        ),
    }
