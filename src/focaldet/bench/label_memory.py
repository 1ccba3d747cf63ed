"""Memory of the processes that read a large data set, epoch after epoch, and the time that opening it takes.

    python -m focaldet.bench.label_memory FOLDER PICTURES BOXES WORKERS EPOCHS

prints a JSON line for each epoch. A fresh process each time: memory that a process once had does not all come back.
"""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from focaldet.data.batch import collate
from focaldet.data.formats import open_dataset
from focaldet.data.loader import PictureLoader
from focaldet.data.sampler import GroupedSampler
from focaldet.structures import Sample

SIDE = 64
"""Pixels of a picture's sides."""
LINKS = 10_000
"""Names that one file gets; file systems have a limit, often 65,000."""
CLASSES = 80
BATCH = 16
MEBIBYTE = 2**20
SMAPS = Path("/proc/self/smaps_rollup")
"""Where Linux tells what a process holds; other systems have no such sum."""


@dataclass(frozen=True)
class EpochMemory:
    """What was measured at one epoch's last step, while its workers are alive.

    Attributes:
        epoch: counted from 1.
        mebibytes: proportional set size (PSS) of this process and its workers together: a page that several of them
            share counts once.
        of_files: the part of it that pages of files are, mostly of libraries. Other programs of the machine share them
            too, so that it falls and rises with these, and what a run itself holds is the difference.
        opening: seconds of wall time that opening the data set took.
        opening_cpu: likewise of this process's CPU time.
        seconds: wall time of the epoch.
    """

    epoch: int
    mebibytes: float
    of_files: float
    opening: float
    opening_cpu: float
    seconds: float


def write_label_file(folder: Path, pictures: int, boxes: int) -> Path:
    """Write a COCO json of many pictures, all of which are the same small one under names of their own.

    Args:
        folder: is made, with `images` in it.
        pictures: how many.
        boxes: of all pictures together, dealt to them at random.

    Returns:
        The json.
    """
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    names = [f"{number:012d}.png" for number in range(1, pictures + 1)]
    for start in range(0, pictures, LINKS):
        first, *others = (folder / "images" / name for name in names[start : start + LINKS])
        picture.save(first)
        for other in others:
            other.hardlink_to(first)
    path = folder / "instances_train.json"
    with path.open("w", encoding="utf-8") as file:
        images = (
            f'{{"id": {k}, "file_name": "{name}", "height": {SIDE}, "width": {SIDE}}}' for k, name in enumerate(names)
        )
        categories = (f'{{"id": {k}, "name": "class-{k}", "supercategory": "all"}}' for k in range(1, CLASSES + 1))
        for opening, records in (
            ('{"images": [', images),
            ('], "annotations": [', _annotations(pictures, boxes, rng)),
            ('], "categories": [', categories),
        ):
            file.write(opening + ",\n".join(records))
        file.write("]}\n")
    return path


def _annotations(pictures: int, boxes: int, rng: np.random.Generator) -> Iterator[str]:
    """Yield annotations as COCO writes them, each with an outline, of which upright boxes are read without a look."""
    owners, labels = rng.integers(0, pictures, boxes).tolist(), rng.integers(1, CLASSES + 1, boxes).tolist()
    corners, sides = rng.uniform(0, SIDE / 2, (boxes, 2)).tolist(), rng.uniform(2, SIDE / 2, (boxes, 2)).tolist()
    for number, (owner, label, (x, y), (width, height)) in enumerate(zip(owners, labels, corners, sides, strict=True)):
        outline = ", ".join(
            f"{value:.2f}" for value in (x, y, x + width, y, x + width, y + height, x, y + height, x, y)
        )
        yield (
            f'{{"id": {number + 1}, "image_id": {owner}, "category_id": {label}, "iscrowd": 0, '
            f'"bbox": [{x:.2f}, {y:.2f}, {width:.2f}, {height:.2f}], "area": {width * height:.2f}, '
            f'"segmentation": [[{outline}]]}}'
        )


def epoch_memory(path: Path, workers: int, epochs: int) -> Iterator[EpochMemory]:
    """Open a data set and read it epoch after epoch as training does, without a network."""
    began, cpu_began = time.perf_counter(), time.process_time()
    dataset = open_dataset(path, "train", kind="hbox")
    opening, opening_cpu = time.perf_counter() - began, time.process_time() - cpu_began
    sampler = GroupedSampler(dataset.tall, batch=BATCH, normalize_over=BATCH, seed=0)
    as_batch = functools.partial(collate, mean=(120.0,) * 3, std=(60.0,) * 3)
    loader = PictureLoader(dataset, _as_it_is, sampler, as_batch, workers=workers)
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        for step, _ in enumerate(loader, 1):
            if step == len(loader):
                gc.collect()  # what is to be compared is not when Python last tidied up
                held, of_files = pss(_family()), pss(_family(), "Pss_File:")
        yield EpochMemory(epoch, held, of_files, opening, opening_cpu, time.perf_counter() - began)


def _as_it_is(sample: Sample, _: np.random.Generator) -> Sample:
    return sample


def _family() -> list[int]:
    return [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid is not None)]


def pss(processes: list[int], part: str = "Pss:") -> float:
    """Return the proportional set size of some processes together, in MiB (Linux only); `part` as Linux calls it."""
    total = 0
    for number in processes:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith(part))
    return total * 1024 / MEBIBYTE


def main(words: list[str]) -> None:
    """Make the data where they are not there, and print a line for each epoch."""
    folder, (pictures, boxes, workers, epochs) = Path(words[0]), map(int, words[1:])
    path = folder / "instances_train.json"
    if not path.is_file():
        path = write_label_file(folder, pictures, boxes)
    for found in epoch_memory(path, workers, epochs):
        print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
