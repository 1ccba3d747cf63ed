"""From a folder of detections to the zip that DOTA's server takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from focaldet.errors import FocaldetError, UsageError, did_you_mean
from focaldet.postprocess.merge import MERGE_THRESHOLDS, MergeRule, merge_table
from focaldet.results.dota import read_task1, task1_files
from focaldet.results.files import read_json
from focaldet.results.polygon_json import read_own_entries
from focaldet.results.submission import write_submission
from focaldet.results.tables import DetectionTable, picture_key


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        path: of the zip.
        counts: class -> number of detections.
        pictures: how many pictures have any.
        notes: what else there is to say, a sentence each.
    """

    path: Path
    counts: dict[str, int]
    pictures: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return {
            "file": str(self.path),
            "detections": sum(self.counts.values()),
            "pictures": self.pictures,
            "classes": self.counts,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the same for people."""
        each = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        total = f"{sum(self.counts.values()):,} detections in {self.pictures:,} pictures"
        return "\n".join([*self.notes, f"{self.path}: {total}: {each}"])


def submit(
    source: str | Path,
    output: str | Path,
    *,
    merge: str | None = None,
    version: str | None = None,
    pictures: str | Path | None = None,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> Submission:
    """Write detections as the zip for Task 1 of DOTA's server.

    Args:
        source: a folder with Task 1 files, one that `focaldet predict` wrote, or its detections.json.
        output: the zip.
        merge: bring tiles back to their scenes first, with one IoU ("0.1") or by the thresholds of that name.
        version: of DOTA; None: by the classes.
        pictures: a text file that names the scenes, one a line, or a folder with them; others are refused.
        allow_missing: write empty files for classes of which nothing is said.
        overwrite: replace the zip.

    Raises:
        UsageError: the zip is there already, or `merge` is no rule.
        FocaldetError: there are no detections, or the server would not take them.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already; add --overwrite to replace it, or name another --output")
    rule = None if merge is None else merge_rule(merge)
    table = read_found(Path(source))
    table = table if rule is None else merge_table(table, rule)
    known = None if pictures is None else picture_names(Path(pictures))
    counts = write_submission(output, table, version=version, pictures=known, allow_missing=allow_missing)
    return Submission(output, counts, len(set(table.owners.tolist())), table.notes)


def merge_rule(text: str) -> MergeRule:
    """Return the rule that a user names: an IoU, or thresholds by class.

    >>> merge_rule("0.2").nms, merge_rule("after-2020").threshold("plane")
    (0.2, 0.3)
    """
    if text in MERGE_THRESHOLDS:
        return MergeRule(MERGE_THRESHOLDS[text])
    try:
        threshold = float(text)
    except ValueError:
        raise UsageError(
            f"merge={text!r} is neither an IoU nor one of {', '.join(MERGE_THRESHOLDS)}"
            f"{did_you_mean(text, MERGE_THRESHOLDS)}"
        ) from None
    if not 0 <= threshold <= 1:
        raise UsageError(f"merge={text} should be an IoU, from 0 to 1")
    return MergeRule(threshold)


def read_found(source: Path) -> DetectionTable:
    """Read what was detected: Task 1 files of a folder, or a detections json, by itself or in a folder.

    The folders of `focaldet predict` may hold Task 1 files beside the json, in task1. These tell which classes were
    looked for, found or not; the json has more digits.
    """
    if not source.exists():
        raise FocaldetError(f"{source} does not exist; name a folder that `focaldet predict` wrote, or Task 1 files")
    if source.is_dir() and task1_files(source):
        return read_task1(source)
    path = source / "detections.json" if source.is_dir() else source
    if source.is_dir() and not path.exists():
        run = "a run, but " if (source / "recipe.yaml").exists() else ""
        raise FocaldetError(
            f"{source} holds {run}no detections, neither Task1_CLASS.txt nor detections.json; `focaldet predict` makes "
            "them"
        )
    entries = read_json(path)
    if not isinstance(entries, list):
        raise FocaldetError(f"{path}: holds no list of detections; is it another kind of json?")
    table = read_own_entries(entries, str(path))
    looked_for = (file.stem.removeprefix("Task1_") for file in task1_files(path.parent / "task1"))
    return replace(table, classes=tuple(dict.fromkeys([*table.classes, *looked_for])))


def picture_names(place: Path) -> list[str]:
    """Return the names of scenes that a text file lists, or that a folder holds."""
    if place.is_dir():
        return [picture_key(path.name) for path in place.rglob("*") if path.is_file()]
    try:
        lines = place.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise FocaldetError(f"{place}: cannot be read as a list of pictures ({fault})") from fault
    return [picture_key(line.strip()) for line in lines if line.strip()]
