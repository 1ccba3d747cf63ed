"""Read ICDAR's quadrilaterals around words into a Dataset: `gt_img_1.txt` for `img_1.jpg`, a word a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from focaldet.data.dataset import Dataset
from focaldet.data.rotated import RotatedObjects, build_rotated
from focaldet.errors import FocaldetError

CLASS = "text"
UNREADABLE = "###"
"""Transcription of words that are neither to be found nor false alarms."""


def read_icdar(pictures: Sequence[Path], labels: Path, split: str, source: Path) -> Dataset:
    """Read the words of some pictures, each of class `text`; those transcribed as ### become difficult.

    Args:
        pictures: their files, no two of one stem.
        labels: the folder that has a `gt_STEM.txt` of each.
        split: "train" or "val", for the record.
        source: folder or file to name in messages.

    Raises:
        FocaldetError: a picture has no label file, or a line is not `x1,y1,x2,y2,x3,y3,x4,y4,transcription`.
    """
    found = RotatedObjects()
    for number, picture in enumerate(pictures):
        path = labels / f"gt_{picture.stem}.txt"
        for place, line in enumerate(_lines(path, picture), 1):
            if line.strip():
                corners, text = _read_line(line, f"{path}:{place}")
                found.add(number, corners, CLASS, text.strip() == UNREADABLE, f"{path}:{place}")
    return build_rotated(found, pictures=pictures, classes=[CLASS], format="icdar", split=split, source=source)


def _lines(path: Path, picture: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as fault:
        raise FocaldetError(
            f"{path} does not exist, but {picture} needs it; an empty file stands for a picture without words"
        ) from fault
    except (OSError, UnicodeDecodeError) as fault:
        raise FocaldetError(f"{path}: cannot be read as text ({fault})") from fault


def _read_line(line: str, place: str) -> tuple[list[float], str]:
    words = line.split(",", 8)  # the transcription may have commas of its own
    try:
        corners = [float(word) for word in words[:8]]
    except ValueError:
        corners = []
    if len(words) != 9 or not all(map(math.isfinite, corners)) or len(corners) != 8:
        raise FocaldetError(f"{place} reads {line.strip()[:80]!r}; expected is x1,y1,x2,y2,x3,y3,x4,y4,transcription")
    return corners, words[8]
