"""Detections: what was found in one picture, and the ways to look at it, hand it on and keep it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import hbox_to_corners
from focaldet.geometry.rbox import rbox_to_hbox, rbox_to_polygon
from focaldet.results.files import is_number, read_json, write_json

if TYPE_CHECKING:
    from PIL import Image

    from focaldet.results.drawing import Picture


class DetectionArrays(NamedTuple):
    """The numbers of `Detections` as numpy arrays: (N, D) float32, (N,) float32, (N,) int64."""

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found in one picture, best first.

    >>> found = Detections(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([0.9]), torch.tensor([1]), ("cat", "dog"))
    >>> found
    Detections(1: 1 dog)
    >>> found.polygons.tolist()
    [[[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]]]

    Attributes:
        boxes: (N, D) hboxes (D = 4) or rboxes (D = 5) in pixels of the picture given, float32 on the CPU.
        scores: (N,) float32, falling. What comes in another order is sorted; equal scores keep their order.
        labels: (N,) int64, places in `classes`.
        classes: C names.
        image: the picture's name, where it is known; goes into files.

    Raises:
        FocaldetError: if shapes do not fit together, a label has no name, or a score is not a number.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    image: str | None = field(default=None)

    def __post_init__(self) -> None:
        boxes, scores = (torch.as_tensor(item).detach().float().cpu() for item in (self.boxes, self.scores))
        labels, classes = torch.as_tensor(self.labels).detach().long().cpu(), tuple(self.classes)
        _check(boxes, scores, labels, classes)
        if bool((scores[1:] > scores[:-1]).any()):
            order = scores.argsort(descending=True, stable=True)
            boxes, scores, labels = boxes[order], scores[order], labels[order]
        for name, value in (("boxes", boxes), ("scores", scores), ("labels", labels), ("classes", classes)):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        counts = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        each = ", ".join(f"{count} {name}" for name, count in zip(self.classes, counts, strict=True) if count)
        where = f" in {self.image}" if self.image else ""
        return f"Detections({len(self)}{where}{': ' if each else ''}{each})"

    def numpy(self) -> DetectionArrays:
        """Return (boxes, scores, labels) as numpy arrays, by name too; they share memory with the tensors."""
        return DetectionArrays(self.boxes.numpy(), self.scores.numpy(), self.labels.numpy())

    @property
    def polygons(self) -> Tensor:
        """(N, 4, 2) corners, of upright boxes (x1, y1) (x2, y1) (x2, y2) (x1, y2), of rotated ones as turned."""
        return rbox_to_polygon(self.boxes).view(-1, 4, 2) if self.rotated else hbox_to_corners(self.boxes)

    @property
    def rotated(self) -> bool:
        """Whether the boxes are rboxes."""
        return self.boxes.shape[1] == 5

    @property
    def hboxes(self) -> Tensor:
        """(N, 4) enclosing hboxes."""
        return rbox_to_hbox(self.boxes) if self.rotated else self.boxes

    @property
    def names(self) -> list[str]:
        """Class names of the detections, N of them."""
        return [self.classes[label] for label in self.labels.tolist()]

    def filter(self, score: float) -> Detections:
        """Return the detections whose score is over `score`, strictly, as everywhere."""
        kept = int((self.scores > score).sum())  # scores fall, so they are the first
        return Detections(self.boxes[:kept], self.scores[:kept], self.labels[:kept], self.classes, self.image)

    def draw(self, picture: Picture, *, scores: bool = True, thickness: int | None = None) -> Image.Image:
        """Return a copy of the picture with the boxes, classes and scores on it.

        Args:
            picture: a PIL picture, an (H, W, 3) or (H, W) uint8 RGB array, or a file.
            scores: write them beside the class.
            thickness: of lines in pixels; None goes by the picture's size.
        """
        from focaldet.results.drawing import Mark, colour_of, draw_marks

        texts = [
            f"{name} {score:.2f}" if scores else name
            for name, score in zip(self.names, self.scores.tolist(), strict=True)
        ]
        rows = zip(self.polygons.tolist(), self.labels.tolist(), texts, strict=True)
        marks = [Mark(polygon, colour_of(label), text) for polygon, label, text in rows]
        return draw_marks(picture, marks[::-1], thickness)  # the best comes last and so lies on top

    def entries(self, image: str | None = None) -> list[dict[str, Any]]:
        """Return what goes into a detections json, one dictionary a detection.

        Args:
            image: the picture's name; None takes the one that the detections know.
        """
        rows = zip(
            self.labels.tolist(),
            self.names,
            self.scores.tolist(),
            self.boxes.tolist(),
            self.polygons.flatten(1).tolist(),
            strict=True,
        )
        name = self.image if image is None else image
        return [
            {"image": name, "label": label, "class": of_class, "score": score, "box": box, "polygon": polygon}
            for label, of_class, score, box, polygon in rows
        ]

    def to_json(self, path: str | Path, image: str | None = None) -> None:
        """Write the detections of this picture as a detections json; `write_detections` takes many pictures."""
        write_json(path, self.entries(image))

    def to_dota(self, folder: str | Path, stem: str) -> None:
        """Write the detections of this picture into DOTA's Task 1 files, a file a class.

        What the files have of this picture is replaced, the rest stays; `results.dota.write_task1` takes many pictures.

        Args:
            folder: holds Task1_CLASS.txt for each class, or will.
            stem: the picture's name in the files, without a suffix, such as "P0003".
        """
        from focaldet.results.dota import replace_in_task1

        replace_in_task1(folder, self, stem)

    def to_supervision(self) -> Any:
        """Return them as `supervision.Detections`, which needs that package.

        Raises:
            FocaldetError: if supervision is not installed.
        """
        try:
            import supervision  # type: ignore[import-not-found, unused-ignore]
        except ImportError as fault:
            raise FocaldetError("to_supervision needs the package supervision; pip install supervision") from fault
        arrays = self.numpy()
        return supervision.Detections(
            xyxy=self.hboxes.numpy(),
            confidence=arrays.scores,
            class_id=arrays.labels,
            data={"class_name": np.array(self.names, dtype=str)}
            | ({"xyxyxyxy": self.polygons.numpy()} if self.rotated else {}),
        )


def _check(boxes: Tensor, scores: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5):
        raise FocaldetError(
            f"boxes of shape {tuple(boxes.shape)} should be (N, 4): x1, y1, x2, y2, or (N, 5): x, y, w, h, theta"
        )
    if scores.shape != boxes.shape[:1] or labels.shape != boxes.shape[:1]:
        raise FocaldetError(
            f"{len(boxes)} boxes need as many scores and labels, but those have the shapes {tuple(scores.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if bool(scores.isnan().any()):
        raise FocaldetError(f"the score of detection {int(scores.isnan().nonzero()[0])} is not a number; leave it out")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise FocaldetError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but with {len(classes)} classes they must "
            f"lie between 0 and {len(classes) - 1}"
        )


def write_detections(path: str | Path, many: Iterable[Detections]) -> None:
    """Write the detections of many pictures as one detections json, whole or not at all."""
    write_json(path, [entry for detections in many for entry in detections.entries()])


def read_detections(path: str | Path, classes: Sequence[str] | None = None) -> dict[str, Detections]:
    """Read a detections json.

    Args:
        path: a file that `write_detections` or `Detections.to_json` wrote.
        classes: names to sort the labels by; entries are joined by class name. None takes the names in the order of
            the file's own labels.

    Returns:
        The detections of each picture that has any, by its name.

    Raises:
        FocaldetError: naming the file and the entry, where one is not as it should be.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise FocaldetError(f"{path}: holds no list of detections; is it another kind of json?")
    for number, entry in enumerate(entries):
        _check_entry(f"{path}: entry {number}", entry)
        if len(entry["box"]) != len(entries[0]["box"]):
            raise FocaldetError(f"{path}: entry {number} has a box of another kind than entry 0, upright or rotated")
    if classes is None:
        named = {entry["label"]: entry["class"] for entry in entries}
        classes = [named.get(label, f"class {label}") for label in range(max(named, default=-1) + 1)]
    pictures: dict[str, list[dict[str, Any]]] = {}
    for number, entry in enumerate(entries):
        if entry["class"] not in classes:
            raise FocaldetError(
                f"{path}: entry {number} is of class {entry['class']!r}, which is not among {', '.join(classes)}"
            )
        pictures.setdefault(entry["image"] or "", []).append(entry)
    return {image: _from_entries(some, tuple(classes), image) for image, some in pictures.items()}


def _check_entry(where: str, entry: Any) -> None:
    needed = ("image", "label", "class", "score", "box")
    if not isinstance(entry, dict) or any(name not in entry for name in needed):
        raise FocaldetError(f"{where} should be an object with {', '.join(needed)}")
    box = entry["box"]
    if not isinstance(box, list) or len(box) not in (4, 5) or not all(is_number(value) for value in box):
        raise FocaldetError(
            f"{where} has the box {box!r}, which should be four numbers: x1, y1, x2, y2, or five: x, y, w, h, theta"
        )
    if not is_number(entry["score"]):
        raise FocaldetError(f"{where} has the score {entry['score']!r}, which is no number")
    if not isinstance(entry["label"], int) or entry["label"] < 0:
        raise FocaldetError(f"{where} has the label {entry['label']!r}, which should be 0 or above")


def _from_entries(entries: Sequence[dict[str, Any]], classes: tuple[str, ...], image: str) -> Detections:
    return Detections(
        boxes=torch.tensor([[float(value) for value in entry["box"]] for entry in entries]),
        scores=torch.tensor([float(entry["score"]) for entry in entries]),
        labels=torch.tensor([classes.index(entry["class"]) for entry in entries]),
        classes=classes,
        image=image or None,
    )
