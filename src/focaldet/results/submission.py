"""The zip that DOTA's server takes for Task 1: a flat file a class, checked before a byte is written."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from focaldet.errors import FocaldetError, did_you_mean
from focaldet.results.dota import DOTA_CLASSES, is_tile
from focaldet.results.files import write_beside
from focaldet.results.tables import DetectionTable

STAMP = (1980, 1, 1, 0, 0, 0)
"""Time of every file of the zip, so that the same detections give the same bytes."""


def write_submission(
    path: str | Path,
    table: DetectionTable,
    *,
    version: str | None = None,
    pictures: Iterable[str] | None = None,
    allow_missing: bool = False,
) -> dict[str, int]:
    """Check detections and write them as the zip for DOTA's server: scores to three digits, corners to one.

    Args:
        path: of the zip; whole or not at all.
        table: detections in scenes. Its `classes` are those that were looked for, whether found or not.
        version: "1.0", "1.5" or "2.0"; None: the first that has all classes of the table.
        pictures: names of the pictures that the server knows; None: any.
        allow_missing: give a class that was not looked for an empty file.

    Returns:
        class -> number of detections, in the devkit's order.

    Raises:
        FocaldetError: a class that the version does not have, or one of the version's that is missing; detections in
            tiles or in a picture that is not known, or with scores outside 0 to 1; a file that cannot be written.
    """
    classes = _classes_of(table, version, allow_missing)
    _check_pictures(table, pictures)
    _check_scores(table)
    lines = _lines(table)
    with write_beside(Path(path)) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in classes:
            entry = zipfile.ZipInfo(f"Task1_{name}.txt", STAMP)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, "".join(lines.get(name, ())))
    return {name: len(lines.get(name, ())) for name in classes}


def find_version(classes: Sequence[str]) -> str:
    """Return the first version of DOTA that has all the classes.

    Raises:
        FocaldetError: none has; the sentence names the class.

    >>> find_version(["plane", "container-crane"])
    '1.5'
    """
    for version, known in DOTA_CLASSES.items():
        if set(classes) <= set(known):
            return version
    latest = DOTA_CLASSES["2.0"]
    name = next(name for name in classes if name not in latest)
    raise FocaldetError(
        f"{name!r} is no class of DOTA{did_you_mean(name, latest)}; the server knows {', '.join(latest)}, and leaves "
        "detections of others out"
    )


def _classes_of(table: DetectionTable, version: str | None, allow_missing: bool) -> tuple[str, ...]:
    """Return the classes of the version, once they and those of the table are the same."""
    if version is not None and version not in DOTA_CLASSES:
        raise FocaldetError(f"there is no DOTA {version}; give one of {', '.join(DOTA_CLASSES)}")
    chosen = version or find_version(table.classes)
    known = DOTA_CLASSES[chosen]
    extra = [name for name in table.classes if name not in known]
    if extra:
        raise FocaldetError(
            f"{extra[0]!r} is no class of DOTA {chosen}{did_you_mean(extra[0], known)}; it has {', '.join(known)}"
        )
    missing = [name for name in known if name not in table.classes]
    if missing and not allow_missing:
        raise FocaldetError(
            f"nothing is said of {', '.join(missing)}, of the {len(known)} classes of DOTA {chosen}; add "
            f"Task1_{missing[0]}.txt, if only an empty one (`focaldet predict --format task1` writes them), or allow "
            "missing classes by --allow-missing"
        )
    return known


def _check_pictures(table: DetectionTable, pictures: Iterable[str] | None) -> None:
    known = None if pictures is None else set(pictures)
    for name in table.pictures:
        if is_tile(name) and (known is None or name not in known):
            raise FocaldetError(f"{name} is the name of a tile, and the server wants scenes: merge tiles first")
        if len(name.split()) != 1:
            raise FocaldetError(f"{name!r} cannot be a picture's name in Task 1 files; give one word, such as P0003")
        if known is not None and name not in known:
            raise FocaldetError(
                f"there are detections in {name}, which is not among the {len(known):,} pictures that were listed"
                f"{did_you_mean(name, known)}"
            )


def _check_scores(table: DetectionTable) -> None:
    wrong = np.flatnonzero(~((table.scores >= 0) & (table.scores <= 1)))
    if len(wrong):
        place = table.pictures[table.owners[wrong[0]]]
        raise FocaldetError(
            f"a detection in {place} has the score {table.scores[wrong[0]]:g}; scores lie between 0 and 1"
        )


def _lines(table: DetectionTable) -> dict[str, list[str]]:
    """Return each class's lines, in the order of the table."""
    lines: dict[str, list[str]] = {name: [] for name in table.classes}
    corners = (table.polygons.reshape(-1, 8).round(1) + 0.0).tolist()  # no -0.0
    rows = zip(table.labels.tolist(), table.owners.tolist(), table.scores.tolist(), corners, strict=True)
    for label, owner, score, numbers in rows:
        text = " ".join([f"{number:.1f}" for number in numbers])
        lines[table.classes[label]].append(f"{table.pictures[owner]} {score:.3f} {text}\n")
    return lines
