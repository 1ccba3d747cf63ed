"""`focaldet demo`: from nothing to a detector, on the blood cell pictures that ship with the package."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from focaldet.assets import asset_path
from focaldet.data.formats import open_dataset
from focaldet.engine.build import bf16_is_native
from focaldet.engine.predict import predict_folder
from focaldet.engine.progress import Listener, Quiet, duration
from focaldet.engine.train import Run, train
from focaldet.errors import UsageError
from focaldet.metrics.scores import Scores
from focaldet.report.data import Operating
from focaldet.report.run import report_run

RECIPE = "retinanet-small"
DATA = "bccd"
NUM_PREDICTED = 12
"""Pictures that are drawn into the folder `predictions`."""
TITLE = "focaldet demo: blood cells"
MARK = "demo.json"
"""File that says that a folder is the demo's own and may be replaced by the next one."""
TO_COMPARE = {"AP50": 0.88, "AP": 0.54}
"""What a throw-away prototype of such a network reached on these pictures in one CPU-minute, at 320 x 240."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo did and where to look.

    Attributes:
        run: the training.
        scores: on the validation pictures.
        operating: the score from which its answers are best.
        report: the page.
        predictions: the folder of drawn pictures.
    """

    run: Run
    scores: Scores
    operating: Operating
    report: Path
    predictions: Path

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return {
            **self.run.to_dict(),
            "scores": self.scores.to_dict(),
            "score": self.operating.score,
            "precision": self.operating.precision,
            "recall": self.operating.recall,
            "report": str(self.report),
            "predictions": str(self.predictions),
        }

    def summary(self) -> str:
        """Return what was reached and where to look, in a few lines."""
        run, operating = self.run, self.operating
        reached = ", ".join(f"{name} {self.scores[name] or 0.0:.3f}" for name in TO_COMPARE)
        prototype = " and ".join(f"{name} {value:.2f}" for name, value in TO_COMPARE.items())
        return "\n".join(
            (
                f"Trained {run.recipe.name} on blood cells: {run.steps} steps in {duration(run.seconds)} "
                f"({duration(run.cpu_seconds)} of CPU time).",
                f"On pictures it never saw: {reached} ({self.scores.rule}).",
                f"To compare: a prototype of such a network reached {prototype} in one CPU-minute.",
                f"From a score of {operating.score:.2f} on, {operating.precision:.0%} of what it says is right, "
                f"and it finds {operating.recall:.0%} of the cells (IoU at least 0.5).",
                "",
                f"Look at   {self.report}",
                f"          {self.predictions}",
                f"Use it    focaldet predict {run.folder} PICTURES... --output FOLDER score={operating.score:.2f}",
            )
        )


def run_demo(
    output: str | Path = "runs/demo",
    *,
    minutes: float = 5.0,
    listener: Listener | None = None,
    workers: int | None = None,
) -> DemoResult:
    """Train the small recipe on real pictures, score it, predict on pictures it has not seen, write a page.

    Args:
        output: the run folder; one that an earlier demo left is replaced.
        minutes: of training, at most; validation and page come on top and take seconds.
        listener: hears about progress.
        workers: processes that read pictures; None for one where there is a second core.

    Raises:
        UsageError: the folder holds something that is not a demo's.
    """
    folder, listener = Path(output), listener or Quiet()
    workers = min((os.cpu_count() or 1) - 1, 1) if workers is None else workers
    data = asset_path(DATA)
    claim(folder)
    precision = "bf16" if bf16_is_native(torch.device("cpu")) else "float32"
    run = train(
        RECIPE,
        data,
        folder,
        workers=workers,
        overwrite=True,
        max_minutes=minutes,
        listener=listener,
        precision=precision,
    )
    report = report_run(folder, data, workers=workers, listener=listener, title=TITLE)
    assert report.scores is not None and report.operating is not None  # these data have validation pictures
    validation = open_dataset(data, "val", kind=report.detector.recipe.kind)
    pictures = [validation.path(index) for index in range(NUM_PREDICTED)]
    predictions = folder / "predictions"
    predict_folder(
        report.detector, pictures, predictions, score=report.operating.score, overwrite=True, listener=listener
    )
    return DemoResult(run, report.scores, report.operating, report.path, predictions)


def claim(folder: Path) -> None:
    """Mark a folder as the demo's.

    Raises:
        UsageError: there is something in it that no demo left.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UsageError(f"{folder} holds something that is no demo; name another folder with --output")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(json.dumps({"recipe": RECIPE, "data": DATA}) + "\n", encoding="utf-8")
