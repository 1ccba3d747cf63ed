"""A data set in one format -> the same in another, with its pictures, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from focaldet.data.dataset import FORMAT_NAMES, Dataset, Format, Kind
from focaldet.data.formats import Split, ignored_in, open_as_written
from focaldet.data.listing import NoSplitError
from focaldet.data.writers import LAYOUTS, coco_content, what_classes_lose, what_is_lost, without_regions, write_classes
from focaldet.engine.progress import Listener, Quiet
from focaldet.errors import FocaldetError, UsageError, did_you_mean
from focaldet.results.files import write_json


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        target: the folder or file.
        format: its format.
        splits: (pictures, objects) of each split that is there.
        notes: what was left out or changed on the way, a line each.
    """

    target: Path
    format: Format
    splits: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a json document."""
        splits = {split: {"pictures": counts[0], "objects": counts[1]} for split, counts in self.splits.items()}
        return {"target": str(self.target), "format": self.format, "splits": splits, "notes": list(self.notes)}


def convert(
    source: str | Path,
    target: str | Path,
    format: str | None = None,
    *,
    source_format: str | None = None,
    split: Split | None = None,
    link: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
) -> Conversion:
    """Write a data set in another format.

    Args:
        source: a data set's folder or file, as `open_dataset` takes it.
        target: a folder that is not there yet; or a .json, which gets one split's labels alone, and names the pictures
            where they are.
        format: of the target, one of those in `writers.LAYOUTS`; of a .json it is "coco".
        source_format: decides where the source has several.
        split: the only one to take; None takes those that there are.
        link: link pictures instead of copying them.
        overwrite: replace what is there.
        listener: hears about progress.

    Raises:
        UsageError: a format that cannot be written, or a target that is there.
        FocaldetError: the source cannot be read, or the disk refuses; then nothing is written.
    """
    source, target = Path(source), Path(target)
    chosen = _check_target(target, format, overwrite)
    datasets = _open(source, source_format, split, chosen)
    if target.suffix == ".json" and len(datasets) > 1:
        raise UsageError(f"{target} takes one split of {source}; say which by --split train or --split val")
    notes = _notes(datasets, chosen)
    datasets = [without_regions(dataset, chosen) for dataset in datasets]
    if target.suffix == ".json":
        (dataset,) = datasets
        names = [_relative(dataset.path(k), target.parent) for k in range(len(dataset))]
        write_json(target, coco_content(dataset, names))
        if any(name.startswith("..") for name in names):
            notes.append(f"the pictures lie outside of the folder of {target.name}: read it with --allow-outside")
    else:
        with _written_beside(target) as folder:
            for dataset in datasets:
                names = _place_pictures(dataset, folder, LAYOUTS[chosen].pictures, link, listener or Quiet())
                LAYOUTS[chosen].write(dataset, names, folder)
            written = [dataset.split for dataset in datasets]
            write_classes(datasets[0].classes, written, ignored_in(source), chosen, folder)
    counts = {dataset.split: (len(dataset), dataset.num_objects) for dataset in datasets}
    return Conversion(target, chosen, counts, tuple(notes))


def _check_target(target: Path, format: str | None, overwrite: bool) -> Format:
    """Return the target's format, if it can be written there."""
    is_json = target.suffix == ".json"
    format = format or ("coco" if is_json else None)
    known = ", ".join(LAYOUTS)
    if format is None:
        raise UsageError(f"the format of {target} is not clear; name one by --format: {known}")
    if format not in LAYOUTS:
        raise UsageError(f"format {format!r} cannot be written{did_you_mean(format, LAYOUTS)}; use {known}")
    if is_json and format != "coco":
        raise UsageError(f"{target} is a json file, which {FORMAT_NAMES[format]} is not; name a folder")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already; add --overwrite to replace it, or name another")
    if target.exists() and target.is_dir() == is_json:
        raise UsageError(f"{target} is a {'folder' if is_json else 'file'}; name another target")
    return next(name for name in LAYOUTS if name == format)


def _open(source: Path, source_format: str | None, split: Split | None, format: Format) -> list[Dataset]:
    """Open the splits that there are, with the boxes that the target can hold where the source has both kinds."""
    kind: Kind | None = None if format == "coco" else "rbox" if LAYOUTS[format].rotated else "hbox"
    wanted: Sequence[Split] = get_args(Split) if split is None else (split,)
    if source.suffix == ".json":
        wanted = wanted[:1]  # a json is every split
    found = []
    for name in wanted:
        try:
            found.append(open_as_written(source, name, source_format, kind, with_ignored=False))
        except NoSplitError:
            if split is not None:
                raise
    return _with_one_class_list(found)


def _with_one_class_list(datasets: list[Dataset]) -> list[Dataset]:
    """Return the splits with the classes of all, in the order of the first, under the same numbers."""
    classes = list(dict.fromkeys(name for dataset in datasets for name in dataset.classes))
    joined = [dataset.with_classes(classes, missing_ok=True) for dataset in datasets]
    return [replace(dataset, category_ids=joined[0].category_ids) for dataset in joined]


def _notes(datasets: Sequence[Dataset], format: Format) -> list[str]:
    notes = []
    for dataset in datasets:
        left_out = (f"left out: {note}" for note in dataset.left_out)
        notes += [f"{dataset.split}: {note}" for note in (*dataset.notes, *left_out, *what_is_lost(dataset, format))]
    used = {label for dataset in datasets for label in dataset.labels.tolist()}
    return notes + what_classes_lose(datasets[0].classes, used, format)


def _place_pictures(dataset: Dataset, root: Path, folder: str, link: bool, listener: Listener) -> list[str]:
    """Copy or link a split's pictures; return their names relative to where the format looks for them."""
    place = root / folder.format(split=dataset.split)
    place.mkdir(parents=True, exist_ok=True)
    listener.start(len(dataset), f"{'linking' if link else 'copying'} pictures of {dataset.split}")
    stems: dict[str, Path] = {}
    names = []
    for index in range(len(dataset)):
        path = dataset.path(index)
        if path.stem in stems or (place / path.name).exists():
            other = stems.get(path.stem, place / path.name)
            raise FocaldetError(f"{other} and {path} would both be called {path.stem!r}; rename one")
        stems[path.stem] = path
        names.append(path.name)
        if link:
            (place / path.name).symlink_to(path.resolve())
        else:
            shutil.copyfile(path, place / path.name)
        listener.advance()
    listener.finish()
    return names


@contextlib.contextmanager
def _written_beside(target: Path) -> Iterator[Path]:
    """Make a folder next to the target, and rename it onto that once all is in it."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        beside.mkdir(parents=True)
        yield beside
        if target.exists():
            target.rename(old)
        beside.rename(target)
    except OSError as error:
        raise FocaldetError(
            f"cannot write {target}: {error.strerror or error}; free some space or name another folder"
        ) from error
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (beside, old):
            shutil.rmtree(folder, ignore_errors=True)


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
