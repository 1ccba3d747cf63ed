"""`focaldet demo`: from nothing to two detectors, of upright and of rotated boxes, on pictures that ship with us."""

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
from focaldet.engine.run import Run
from focaldet.engine.train import train
from focaldet.errors import UsageError
from focaldet.metrics.scores import Scores
from focaldet.report.data import Operating
from focaldet.report.run import report_run

NUM_PREDICTED = 12
"""Pictures that are drawn into the folder `predictions`."""
MARK = "demo.json"
"""File that says that a folder is the demo's own and may be replaced by the next one."""


@dataclass(frozen=True)
class Lesson:
    """One half of the demo: something to learn from pictures that ship with the package.

    Attributes:
        recipe: what is trained.
        data: name of the data among the assets.
        folder: of the run, within the demo's.
        subject: what the pictures show.
        objects: what is to be found there.
        figures: the scores that are printed.
        rule: what these figures are, in a few words; the page has the whole rule.
        compare: a sentence on what to hold them against.
    """

    recipe: str
    data: str
    folder: str
    subject: str
    objects: str
    figures: tuple[str, ...]
    rule: str
    compare: str


UPRIGHT = Lesson(
    recipe="retinanet-small",
    data="bccd",
    folder=".",
    subject="blood cells",
    objects="cells",
    figures=("AP50", "AP"),
    rule="COCO: 101 points; at IoU 0.50, and mean over IoU 0.50 to 0.95",
    compare="To compare: a prototype of such a network reached AP50 0.88 and AP 0.54 in one CPU-minute.",
)
ROTATED = Lesson(
    recipe="retinanet-h-small",
    data="hit_uav",
    folder="rotated",
    subject="people and vehicles from a drone, by their warmth",
    objects="objects",
    figures=("AP50_voc12", "AP50"),
    rule="at IoU 0.50: VOC 2012's area, and COCO's 101 points",
    compare="The frames it is scored on are of other flights than those it learned from.",
)
LESSONS = (UPRIGHT, ROTATED)


@dataclass(frozen=True)
class LessonResult:
    """What one half of the demo did and where to look.

    Attributes:
        lesson: which half.
        run: the training.
        scores: on the validation pictures.
        operating: the score from which its answers are best.
        report: the page.
        predictions: the folder of drawn pictures.
    """

    lesson: Lesson
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
        reached = ", ".join(f"{name} {self.scores[name] or 0.0:.3f}" for name in self.lesson.figures)
        return "\n".join(
            (
                f"Trained {run.recipe.name} on {self.lesson.subject}: {run.steps} steps in {duration(run.seconds)} "
                f"({duration(run.cpu_seconds)} of CPU time).",
                f"On pictures it never saw: {reached} ({self.lesson.rule}).",
                self.lesson.compare,
                f"From a score of {operating.score:.2f} on, {operating.precision:.0%} of what it says is right, "
                f"and it finds {operating.recall:.0%} of the {self.lesson.objects} (IoU at least 0.5).",
                "",
                f"Look at   {self.report}",
                f"          {self.predictions}",
                f"Use it    focaldet predict {run.folder} PICTURES... --output FOLDER score={operating.score:.2f}",
            )
        )


@dataclass(frozen=True)
class DemoResult:
    """What the demo did, half by half; the first one's page is the demo's.

    Attributes:
        lessons: one result for each of LESSONS.
    """

    lessons: tuple[LessonResult, ...]

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.lessons[0].report

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings: the first half's, and the others' by the name of their recipe."""
        first, *others = self.lessons
        return {**first.to_dict(), **{result.lesson.recipe: result.to_dict() for result in others}}

    def summary(self) -> str:
        """Return what was reached and where to look."""
        return "\n\n".join(result.summary() for result in self.lessons)


def run_demo(
    output: str | Path = "runs/demo",
    *,
    minutes: float = 5.0,
    listener: Listener | None = None,
    workers: int | None = None,
) -> DemoResult:
    """Train the small recipes on real pictures, score them, predict on pictures they have not seen, write pages.

    Args:
        output: the run folder of the first half, the second's lies inside; one that an earlier demo left is replaced.
        minutes: of training in each half, at most; validation and page come on top and take seconds.
        listener: hears about progress.
        workers: processes that read pictures; None for one where there is a second core.

    Raises:
        UsageError: the folder holds something that is not a demo's.
    """
    folder, listener = Path(output), listener or Quiet()
    workers = min((os.cpu_count() or 1) - 1, 1) if workers is None else workers
    claim(folder)
    return DemoResult(tuple(run_lesson(lesson, folder, minutes, listener, workers) for lesson in LESSONS))


def run_lesson(lesson: Lesson, demo: Path, minutes: float, listener: Listener, workers: int) -> LessonResult:
    """Do one half of the demo, in its place within the demo's folder."""
    folder, data = demo / lesson.folder, asset_path(lesson.data)
    precision = "bf16" if bf16_is_native(torch.device("cpu")) else "float32"
    run = train(
        lesson.recipe,
        data,
        folder,
        workers=workers,
        overwrite=True,
        max_minutes=minutes,
        listener=listener,
        precision=precision,
    )
    title = f"focaldet demo: {lesson.subject}"
    report = report_run(folder, data, workers=workers, listener=listener, title=title)
    assert report.scores is not None and report.operating is not None  # these data have validation pictures
    validation = open_dataset(data, "val", kind=report.detector.recipe.kind)
    pictures = [validation.path(index) for index in range(NUM_PREDICTED)]
    predictions = folder / "predictions"
    predict_folder(
        report.detector, pictures, predictions, score=report.operating.score, overwrite=True, listener=listener
    )
    return LessonResult(lesson, run, report.scores, report.operating, report.path, predictions)


def claim(folder: Path) -> None:
    """Mark a folder as the demo's.

    Raises:
        UsageError: there is something in it that no demo left.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UsageError(f"{folder} holds something that is no demo; name another folder with --output")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(json.dumps({lesson.recipe: lesson.data for lesson in LESSONS}) + "\n", encoding="utf-8")
