"""From a data set of big pictures to a folder of tiles, picture by picture, with a manifest of where each tile lies.

    OUTPUT/images/SCENE__SIDE__X___Y.png     what `data.tiles` plans and `data.cutter` writes
    OUTPUT/labelTxt/SCENE__SIDE__X___Y.txt   in DOTA's form, in pixels of the tile
    OUTPUT/train.txt, val.txt                tiles of each split, where the data has two
    OUTPUT/classes.txt, tiles.json           class names; the cut, and of each scene its tiles and objects

While it goes on there is tiles.jsonl, a line a scene, in place of the manifest; `resume` goes on behind it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from focaldet.data.cutter import Job, TileFormat, Window, cut_pictures
from focaldet.data.dataset import Dataset, Floats, Ints
from focaldet.data.formats import open_as_written
from focaldet.data.listing import SUFFIXES, NoSplitError, pictures_in, with_own_names
from focaldet.data.pictures import any_size as pictures_of_any_size
from focaldet.data.pictures import read_size
from focaldet.data.tiles import MANIFEST, Cut, label_text, objects_of_tiles, plan_tiles, tile_name
from focaldet.data.writers import dota_names, what_classes_lose
from focaldet.engine.progress import Listener, Quiet
from focaldet.errors import FocaldetError, UsageError
from focaldet.results.dota import is_tile
from focaldet.results.files import read_json, write_beside, write_json

SPLITS: tuple[Literal["train", "val"], ...] = ("train", "val")
JOURNAL = "tiles.jsonl"
VERSION = 1


Record = dict[str, Any]
"""What the manifest says of a scene; `tiles` lists x1, y1, x2, y2 and the number of objects of each tile."""


@dataclass(frozen=True)
class Scene:
    """A picture that is to be cut.

    Attributes:
        path: its file.
        split: "train" or "val"; None where there are no labels.
        size: (height, width).
        polygons: (N, 4, 2) corners of its objects in its pixels.
        names: N classes.
        difficult: N flags.
    """

    path: Path
    split: str | None
    size: tuple[int, int]
    polygons: Floats
    names: Sequence[str]
    difficult: Sequence[bool]

    @property
    def name(self) -> str:
        """Its name, by which tiles are called."""
        return self.path.stem


@dataclass(frozen=True)
class Tile:
    """A tile that is to be written.

    Attributes:
        name: of its files, without suffix.
        window: x1, y1, x2, y2 in pixels of the scene.
        objects: places of its objects among those of the scene.
    """

    name: str
    window: Window
    objects: Ints


@dataclass
class TileSummary:
    """What became of the scenes.

    Attributes:
        scenes: how many are cut, earlier sittings included.
        tiles: how many were written.
        left_out: tiles without objects that were not written.
        objects: objects of the scenes.
        copies: objects in the tiles; one that lies in several counts as often.
        lost: class name -> objects that are in no tile.
        failed: (picture, sentence) of each that could not be cut.
        notes: what else there is to say, a sentence each.
    """

    scenes: int = 0
    tiles: int = 0
    left_out: int = 0
    objects: int = 0
    copies: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        failed = [{"image": name, "error": sentence} for name, sentence in self.failed]
        counts = {name: getattr(self, name) for name in ("scenes", "tiles", "left_out", "objects", "copies")}
        return {**counts, "lost": dict(self.lost), "failed": failed, "notes": self.notes}

    def text(self) -> str:
        """Return the same for people."""
        without = f" ({self.left_out:,} without objects are not written)" if self.left_out else ""
        lost = ", ".join(f"{name} {count}" for name, count in self.lost.most_common())
        lines = [
            f"{self.scenes:,} pictures, {self.tiles:,} tiles{without}",
            f"{self.objects:,} objects, {self.copies:,} times in tiles; in no tile: {self.lost.total():,}"
            + (f" ({lost})" if lost else ""),
        ]
        if self.failed:
            lines.append(f"{len(self.failed):,} pictures could not be cut; mend them and add --resume")
        return "\n".join([*lines, *self.notes])


def tile(
    data: str | Path,
    output: str | Path,
    cut: Cut,
    *,
    format: TileFormat = "png",
    headers: bool = False,
    workers: int = 1,
    any_size: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    listener: Listener | None = None,
) -> TileSummary:
    """Cut the pictures of a data set into tiles.

    Args:
        data: a data set in any form that `open_dataset` knows, or a folder with nothing but pictures.
        output: the folder of the tiles.
        cut: how.
        format: of the tiles: "png" (without loss) or "jpg".
        headers: put DOTA's two header lines above the labels.
        workers: processes, each with one decoded picture at a time; 0 does all in this one.
        any_size: take pictures of more than two gigapixels.
        resume: keep what a broken-off call left; pictures that failed are tried again.
        overwrite: replace the tiles of an earlier call.
        dry_run: only count.
        listener: hears about progress.

    Raises:
        UsageError: the folder holds tiles already, or something else.
        FocaldetError: the data cannot be read, two pictures have one name, or the tiles there are of another cut.
    """
    with pictures_of_any_size(any_size):
        scenes, classes, notes = find_scenes(Path(data))
    if dry_run:
        return _summed([plan(scene, cut)[1] for scene in scenes], notes)
    folder = TileFolder(Path(output), {"version": VERSION, "cut": cut.to_dict(), "format": format, "headers": headers})
    records = folder.open(resume=resume, overwrite=overwrite)
    listener = listener or Quiet()
    listener.start(len(scenes), "cutting")
    listener.advance(len(records))
    planned: dict[str, Record] = {}

    def jobs() -> Iterator[Job]:
        for scene in scenes:
            if scene.name not in records:
                tiles, planned[str(scene.path)] = plan(scene, cut)
                yield folder.job(scene, tiles, cut, any_size)

    failed = []
    for job, sentence in cut_pictures(jobs(), workers):
        record = planned.pop(job.picture)
        if sentence is None:
            records[record["scene"]] = record
            folder.append(record)
        else:
            failed.append((job.picture, sentence))
        listener.advance(1)
    listener.finish()
    done = [records[scene.name] for scene in scenes if scene.name in records]
    folder.finish(done, classes)
    return replace(_summed(done, notes), failed=failed)


def find_scenes(data: Path) -> tuple[list[Scene], tuple[str, ...], list[str]]:
    """Return the pictures of a data set with their objects, the class names, and what there is to say.

    Raises:
        FocaldetError: the data cannot be read, or two pictures have one name.
    """
    if _only_pictures(data):
        nothing = np.zeros((0, 4, 2))
        paths = with_own_names(pictures_in(data))
        scenes = [Scene(path, None, read_size(path), nothing, (), ()) for path in paths]
        return scenes, (), [f"{data}: {len(scenes):,} pictures without labels"]
    scenes, datasets = [], list[Dataset]()
    for split in SPLITS:
        try:
            datasets.append(open_as_written(data, split, kind="rbox", with_ignored=False))
        except NoSplitError:
            continue
        known = {scene.path for scene in scenes}  # a COCO json without a split is each
        scenes += [scene for scene in _scenes_of(datasets[-1]) if scene.path not in known]
    with_own_names([scene.path for scene in scenes])
    named = tuple(dict.fromkeys(name for dataset in datasets for name in dataset.classes))
    notes = [dataset.describe() for dataset in datasets] + what_classes_lose(named, range(len(named)), "dota")
    return scenes, tuple(dota_names(named)), notes


def _only_pictures(data: Path) -> bool:
    """Tell whether there are pictures below a folder and no other files, but hidden ones."""
    if not data.is_dir():
        return False
    suffixes = {path.suffix.lower() for path in data.rglob("*") if path.is_file() and path.name[0] != "."}
    return bool(suffixes) and suffixes <= SUFFIXES


def _scenes_of(dataset: Dataset) -> Iterator[Scene]:
    polygons = dataset.corners.astype(np.float64) if dataset.polygons is None else dataset.polygons
    difficult, classes = dataset.difficult | dataset.crowd, dota_names(dataset.classes)
    for index, (start, end) in enumerate(pairwise(dataset.starts.tolist())):
        height, width = dataset.sizes[index].tolist()
        names = [classes[label] for label in dataset.labels[start:end].tolist()]
        path, flags = dataset.path(index), difficult[start:end].tolist()
        yield Scene(path, dataset.split, (height, width), polygons[start:end], names, flags)


def plan(scene: Scene, cut: Cut) -> tuple[list[Tile], Record]:
    """Return the tiles of a scene that are written, and what the manifest says of it."""
    windows, tiles = plan_tiles(scene.size, cut), []
    lost = np.ones(len(scene.names), dtype=np.bool_)
    own = objects_of_tiles(scene.polygons, windows, scene.size, cut)
    for (x1, y1, x2, y2), objects in zip(windows.tolist(), own, strict=True):
        lost[objects] = False
        if cut.empty or len(objects):
            window = (x1, y1, x2, y2)
            tiles.append(Tile(tile_name(scene.name, window), window, objects))
    return tiles, {
        "scene": scene.name,
        "picture": str(scene.path),
        "split": scene.split,
        "size": list(scene.size),
        "tiles": [[*tile.window, len(tile.objects)] for tile in tiles],
        "left_out": len(windows) - len(tiles),
        "objects": len(scene.names),
        "lost": dict(Counter(scene.names[k] for k in np.flatnonzero(lost).tolist())),
    }


def _summed(records: Sequence[Record], notes: list[str]) -> TileSummary:
    tiles = [tile for record in records for tile in record["tiles"]]
    lost = sum((Counter(record["lost"]) for record in records), Counter[str]())
    return TileSummary(
        scenes=len(records),
        tiles=len(tiles),
        left_out=sum(record["left_out"] for record in records),
        objects=sum(record["objects"] for record in records),
        copies=sum(number for *_, number in tiles),
        lost=lost,
        notes=notes,
    )


class TileFolder:
    """A folder of tiles: where its files go, what is done already, and whether it may be written to.

    Args:
        path: the folder.
        made: how its tiles are made; tiles that were made otherwise are refused.
    """

    def __init__(self, path: Path, made: dict[str, Any]) -> None:
        self.path, self.made = path, made

    def open(self, *, resume: bool, overwrite: bool) -> dict[str, Record]:
        """Return what is done already, by scene, and make the folder ready for more.

        Raises:
            UsageError: it holds tiles, or other things, and neither `resume` nor `overwrite` says what to do.
            FocaldetError: it is to be resumed, but its tiles were made otherwise.
        """
        there = read_tiles(self.path)
        if there is None and self.path.is_dir() and any(self.path.iterdir()):
            raise UsageError(f"{self.path} holds other things than tiles; name an empty or a new folder for --output")
        if there is not None and not resume and not overwrite:
            raise UsageError(
                f"{self.path} holds tiles already; add --resume to go on with them, --overwrite to replace them, or "
                "name another --output"
            )
        records: dict[str, Record] = {}
        if there is not None and resume:
            check_same(self.path, there[0], self.made)
            records = {record["scene"]: record for record in there[1]}
        self._clear(everything=not resume)
        for name in ("images", "labelTxt"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        with write_beside(self.path / JOURNAL, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in (self.made, *records.values()))
        (self.path / MANIFEST).unlink(missing_ok=True)
        return records

    def job(self, scene: Scene, tiles: Sequence[Tile], cut: Cut, any_size: bool) -> Job:
        """Return what is to be done for a scene."""
        labels = [(str(self._label(tile.name)), self._text(scene, tile)) for tile in tiles]
        return Job(
            picture=str(scene.path),
            size=scene.size,
            windows=[tile.window for tile in tiles],
            tiles=[str(self._picture(tile.name, self.made["format"])) for tile in tiles],
            labels=[] if scene.split is None else labels,
            pad=cut.pad,
            format=self.made["format"],
            any_size=any_size,
        )

    def _text(self, scene: Scene, tile: Tile) -> str:
        own = tile.objects.tolist()
        return label_text(
            scene.polygons[own],
            [scene.names[k] for k in own],
            [scene.difficult[k] for k in own],
            tile.window[:2],
            scene.name if self.made["headers"] else None,
        )

    def append(self, record: Record) -> None:
        """Note that a scene is done."""
        with (self.path / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def finish(self, records: Sequence[Record], classes: Sequence[str]) -> None:
        """Write lists, classes and the manifest; the journal goes."""
        if classes:
            self._write_lines("classes.txt", classes)
        else:
            (self.path / "labelTxt").rmdir()
        if any(record["split"] == "val" for record in records):
            for split in SPLITS:
                own = [record for record in records if record["split"] == split]
                self._write_lines(f"{split}.txt", [name for record in own for name in tile_names(record)])
        write_json(self.path / MANIFEST, {**self.made, "classes": list(classes), "scenes": list(records)})
        (self.path / JOURNAL).unlink()

    def _write_lines(self, name: str, lines: Sequence[str]) -> None:
        with write_beside(self.path / name, "w") as file:
            file.writelines(f"{line}\n" for line in lines)

    def _clear(self, *, everything: bool) -> None:
        """Take away tiles and what was written about them, or only files that a process left in the middle."""
        for path in [*self.path.glob("images/*"), *self.path.glob("labelTxt/*")]:
            if path.suffix == ".part" or (everything and is_tile(path.stem)):
                path.unlink()
        for name in ("train.txt", "val.txt", "classes.txt"):
            (self.path / name).unlink(missing_ok=True)

    def _picture(self, name: str, suffix: str) -> Path:
        return self.path / "images" / f"{name}.{suffix}"

    def _label(self, name: str) -> Path:
        return self.path / "labelTxt" / f"{name}.txt"


def read_tiles(folder: Path) -> tuple[dict[str, Any], list[Record]] | None:
    """Return how the tiles of a folder were made and what is done, a record a scene; None where there are none.

    A last line of the journal that was cut short is dropped.
    """
    if (folder / JOURNAL).exists():
        lines = (folder / JOURNAL).read_text(encoding="utf-8").splitlines(keepends=True)
        made, *records = (json.loads(line) for line in lines if line.endswith("\n"))
        return made, records
    if (folder / MANIFEST).exists():
        made = read_json(folder / MANIFEST)
        if not isinstance(made, dict) or not {"version", "cut", "scenes"} <= set(made):
            raise FocaldetError(f"{folder / MANIFEST} is not what `focaldet tile` writes; name another folder")
        return made, made.pop("scenes")
    return None


def check_same(folder: Path, there: dict[str, Any], made: dict[str, Any]) -> None:
    """Raise FocaldetError if tiles were made in another way than asked for; the sentence names the differences."""
    old, new = ({**kind["cut"], **kind} for kind in (there, made))
    differing = [
        f"{name}={old.get(name)} there and {new[name]} asked for"
        for name in new
        if name != "cut" and old.get(name) != new[name]
    ]
    if differing:
        raise FocaldetError(
            f"the tiles of {folder} are of another cut: {', '.join(differing)}; cut as there, or name another folder"
        )


def tile_names(record: Record) -> list[str]:
    """Return the names of a scene's tiles."""
    return [tile_name(record["scene"], tile[:4]) for tile in record["tiles"]]
