"""The report of a run folder: the detector that it kept, scored once more on its validation pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from focaldet.data.dataset import Dataset
from focaldet.data.formats import open_dataset
from focaldet.engine.detector import Detector, load
from focaldet.engine.evaluate import evaluate_detector
from focaldet.engine.history import read_history
from focaldet.engine.progress import Listener
from focaldet.metrics.scores import Scores
from focaldet.report.collect import History, collect, validate
from focaldet.report.data import Operating
from focaldet.report.page import render
from focaldet.results.detections import Detections
from focaldet.results.files import write_beside


@dataclass(frozen=True)
class RunReport:
    """A page that was written.

    Attributes:
        path: where it is.
        detector: the one that the run kept.
        scores: what it reaches on the validation pictures; None where there are none.
        operating: the threshold with the best F1 there.
    """

    path: Path
    detector: Detector
    scores: Scores | None
    operating: Operating | None


def write_report(
    run_folder: Path,
    detector: Detector,
    dataset: Dataset | None,
    scores: Scores | None,
    *,
    history: History,
    detections: Sequence[Detections] | None = None,
    title: str | None = None,
) -> RunReport:
    """Write `report.html` into a run's folder.

    Args:
        run_folder: the run.
        detector: the trained one.
        dataset: what it was scored on; None where there was nothing.
        scores: the figures reached there.
        history: rows of metrics.csv, as `engine.history.read_history` returns them.
        detections: one for each picture, in the dataset's order; None detects again.
        title: heading of the page; None names recipe and classes.

    Raises:
        FocaldetError: the disk took no more; an earlier page is untouched.
    """
    validation = None
    if dataset is not None and scores is not None:
        detections = detections or evaluate_detector(detector, dataset).detections
        validation = validate(detector.classes, dataset, scores, detections)
    data = collect(run_folder, detector, dataset, validation, history=history, title=title)
    path = run_folder / "report.html"
    with write_beside(path, "w") as file:
        file.write(render(data))
    return RunReport(path, detector, scores, None if validation is None else validation.operating)


def report_run(
    folder: str | Path,
    data: str | Path,
    *,
    format: str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    listener: Listener | None = None,
    title: str | None = None,
) -> RunReport:
    """Score the detector of a run folder and write its `report.html`.

    Args:
        folder: a finished run.
        data: the dataset it was trained on; its validation pictures are scored, if it has some.
        format: of the data, one of FORMAT_NAMES, where several fit.
        device: where to compute.
        workers: processes that read pictures.
        listener: hears about progress.
        title: heading of the page; None names recipe and classes.

    Raises:
        FocaldetError: the folder holds no finished run, or the data do not fit it.
    """
    folder = Path(folder)
    detector, history = load(folder, device=device), read_history(folder / "metrics.csv")
    dataset = open_dataset(data, "val", kind=detector.recipe.kind, format=format, missing_ok=True)
    if dataset is None:
        return write_report(folder, detector, None, None, history=history, title=title)
    evaluation = evaluate_detector(detector, dataset, workers=workers, listener=listener)
    return write_report(
        folder, detector, dataset, evaluation.scores, history=history, detections=evaluation.detections, title=title
    )
