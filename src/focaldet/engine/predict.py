"""Predicting on many pictures: each by itself, an unreadable one reported at the end, a broken-off run continued."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from focaldet.data.pictures import read_image
from focaldet.engine.detector import Detector
from focaldet.engine.progress import Listener, Quiet
from focaldet.errors import FocaldetError, UsageError
from focaldet.results.detections import Detections, read_detections
from focaldet.results.dota import write_task1
from focaldet.results.files import write_json

Format = Literal["json", "coco", "task1", "draw"]
FORMATS: tuple[Format, ...] = ("json", "coco", "task1", "draw")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
"""Files that a folder is searched for."""


@dataclass
class PredictSummary:
    """What became of the pictures.

    Attributes:
        done: pictures answered, earlier sittings included.
        failed: (picture, sentence) of each that could not be read.
        files: what was written.
    """

    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        failed = [{"image": name, "error": sentence} for name, sentence in self.failed]
        return {"done": self.done, "failed": failed, "files": [str(path) for path in self.files]}


def find_pictures(what: Iterable[str | Path]) -> list[Path]:
    """Return the pictures that paths, folders and patterns name, each once, in order.

    A file that does not exist stays in the list: it is reported beside those that cannot be read.

    Raises:
        UsageError: a folder or pattern holds no picture.
    """
    found: dict[Path, None] = {}
    for item in what:
        path = Path(item)
        if path.is_dir():
            matches = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        elif glob.has_magic(str(item)) and not path.exists():
            matches = sorted(Path(match) for match in glob.glob(str(item), recursive=True))
        else:
            matches = [path]
        if not matches:
            raise UsageError(f"{item} holds no picture ({', '.join(sorted(SUFFIXES))})")
        found.update(dict.fromkeys(matches))
    return list(found)


def predict_folder(
    detector: Detector,
    pictures: Sequence[str | Path],
    output: str | Path,
    *,
    formats: Sequence[Format] = ("json", "draw"),
    score: float | None = None,
    tta: bool | None = None,
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> PredictSummary:
    """Detect in many pictures and write what was found into a folder.

    Args:
        detector: what looks.
        pictures: files, folders and patterns.
        output: the folder: `detections.json` (api form), `coco.json` (results; image_id counts the pictures from 1, the
            names are in `coco-images.json`), `task1/` (DOTA's files, one a class), `drawn/`.
        formats: which of these.
        score: least score; None for the recipe's.
        tta: whether to look several times, as `Detector.predict` says; None for the recipe's.
        resume: keep the answers that an earlier, broken-off call left.
        overwrite: replace those of an earlier, finished one.
        listener: hears about progress.

    Raises:
        UsageError: no picture is named, or the folder holds answers already.
    """
    paths, folder, listener = find_pictures(pictures), Path(output), listener or Quiet()
    journal = Journal(folder / "detections.jsonl")
    goes_on = resume and journal.path.exists()
    if (folder / "detections.json").exists() and not overwrite and not goes_on:
        raise UsageError(f"{folder} holds detections already; add --overwrite to replace them, or name another folder")
    answered = journal.read() if resume else journal.clear()
    drawn = drawn_names(paths)
    summary = PredictSummary()
    listener.start(len(paths), "predicting")
    for path in paths:
        if str(path) not in answered:
            try:
                picture = read_image(path, detector.recipe.in_channels)
                found = detector.predict(picture, score=score, tta=tta)
            except FocaldetError as error:
                summary.failed.append((str(path), str(error)))
                listener.advance(1)
                continue
            if "draw" in formats:
                draw_beside(found, picture, folder / "drawn" / drawn[path])
            answered[str(path)] = found.entries(str(path))
            journal.append(str(path), answered[str(path)])
        summary.done += 1
        listener.advance(1)
    listener.finish()
    summary.files = write_answers(folder, [str(path) for path in paths], answered, detector.classes, formats)
    journal.remove()
    return summary


def draw_beside(found: Detections, picture: Image.Image, path: Path) -> None:
    """Write a picture with its detections drawn in; of bands that are not grey or RGB, the first three or one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if picture.mode not in ("L", "RGB"):
        bands = [Image.fromarray(np.asarray(band)) for band in picture.split()]
        picture = Image.merge("RGB", bands[:3]) if len(bands) >= 3 else bands[0]
    found.draw(picture).save(path, quality=92)


def drawn_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return a file name for each drawn picture; pictures of one name in several folders are numbered."""
    names: dict[Path, str] = {}
    used: set[str] = set()
    last: dict[str, int] = {}  # number that a stem had last; searching from 1 each time would be slow for many
    for path in paths:
        name = path.stem
        while name in used:
            last[path.stem] = last.get(path.stem, 1) + 1
            name = f"{path.stem}-{last[path.stem]}"
        used.add(name)
        names[path] = f"{name}.jpg"
    return names


def write_answers(
    folder: Path,
    names: Sequence[str],
    answered: dict[str, list[dict[str, Any]]],
    classes: Sequence[str],
    formats: Sequence[Format],
) -> list[Path]:
    """Write the collected answers; returns the files and folders that now stand there."""
    files = [folder / "detections.json"]
    write_json(files[0], [record for name in names for record in answered.get(name, [])])
    if "coco" in formats:
        files.append(folder / "coco.json")
        write_json(
            files[-1],
            [entry for number, name in enumerate(names, 1) for entry in coco_entries(answered.get(name, []), number)],
        )
        files.append(folder / "coco-images.json")
        images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
        categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
        write_json(files[-1], {"images": images, "annotations": [], "categories": categories})
    if "task1" in formats:
        files.append(folder / "task1")
        found = read_detections(files[0], classes)
        write_task1(files[-1], (found[name] for name in names if name in found), classes)
    if "draw" in formats:
        files.append(folder / "drawn")
    return files


def coco_entries(records: Sequence[dict[str, Any]], image_id: int) -> list[dict[str, Any]]:
    """Return records as COCO results; category ids count the classes from 1.

    Rotated boxes have their upright hull as `bbox`, and their corners as `segmentation`.
    """
    entries = []
    for record in records:
        (x1, x2), (y1, y2) = ((min(side), max(side)) for side in (record["polygon"][::2], record["polygon"][1::2]))
        bbox = {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": record["score"]}
        outline = {"segmentation": [record["polygon"]]} if len(record["box"]) == 5 else {}
        entries.append({"image_id": image_id, "category_id": record["label"] + 1, **bbox, **outline})
    return entries


class Journal:
    """The answers so far, a line a picture, so that a broken-off run loses none."""

    def __init__(self, path: Path) -> None:
        """Keep them in `path`; nothing is written yet."""
        self.path = path

    def read(self) -> dict[str, list[dict[str, Any]]]:
        """Return the answers by picture; a last line that was cut short is dropped, from the file too."""
        if not self.path.exists():
            return self.clear()
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            self.path.write_text("".join(whole), encoding="utf-8")
        entries = map(json.loads, whole)
        return {entry["image"]: entry["detections"] for entry in entries}

    def clear(self) -> dict[str, list[dict[str, Any]]]:
        """Begin anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("", encoding="utf-8")
        return {}

    def append(self, image: str, detections: list[dict[str, Any]]) -> None:
        """Keep one picture's answers."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"image": image, "detections": detections}) + "\n")

    def remove(self) -> None:
        """Drop the journal: the answers stand in their files."""
        self.path.unlink(missing_ok=True)
