"""`python benchmarks/tiling.py [split merge memory] [--pictures FOLDER]`: big pictures, from tiles to merged boxes.

* split: a 4,000 x 4,000 png with 1,500 objects into mmrotate's tiles of 1024: CPU seconds of this process and those it
  starts, and what the files take. How long a png takes goes by what it shows: --pictures lays 1,000 x 1,000 pixels of
  each picture of a folder side by side; without, it is made up. mmrotate does the same, where it is installed, by its
  own `img_split.py`.
* merge: 50,000 detections of tiles into their scene, as rboxes, polygons and hboxes.
* memory: the most that fresh processes hold. Tiling a 12,000 x 12,000 png by the command; and predicting with
  retinanet-h-small in scenes of 2,000 and 8,000 pixels a side, beyond the decoded picture (Pillow's 4 bytes a pixel).
  Linux only.

--quick repeats less, and takes smaller scenes; --write puts the tables into docs/benchmarks-tiling.md, between its two
marks.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

from focaldet.bench.clock import Timing, take_turns
from focaldet.bench.machine import describe_machine
from focaldet.bench.report import OURS, BenchReport, Findings, Goal, Row
from focaldet.bench.scenes import NUM_CLASSES, Floats, crowd, objects_anywhere, polygons
from focaldet.data import cutter
from focaldet.data.tiles import CUTS, Cut, plan_tiles, tile_name
from focaldet.engine.tiling import tile
from focaldet.geometry.hbox import clip_hbox
from focaldet.geometry.rbox import rbox_to_hbox
from focaldet.postprocess.merge import MergeRule, merge_table, merge_tiles, merge_upright_tiles
from focaldet.results.detections import Detections
from focaldet.results.tables import DetectionTable
from page import show

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-tiling.md"
SIDE, PART, OBJECTS, DETECTIONS = 4_000, 1_000, 1_500, 50_000
MEGABYTE = 1e6
CLASSES = tuple(f"class-{number}" for number in range(NUM_CLASSES))
CUT = CUTS["mmrotate"]
SMALL = ["classes=[ship]", "score=0.5", "test_size=[320,256]"]
"""A network that finds nothing, so that what it holds is not what it found, and that is done soon."""


def aerial(side: int) -> Image.Image:
    """Return a picture with as much in it, to a PNG file, as those of DOTA have: shapes of all sizes and grain."""
    rng = np.random.default_rng(0)
    total = rng.normal(0, 4, (side, side, 3)).astype(np.float32)
    for size, contrast in ((4, 14), (16, 20), (64, 24), (256, 30)):
        coarse = rng.integers(0, 256, (side // size + 2, side // size + 2, 3), dtype=np.uint8)
        total += contrast / 64 * (np.asarray(Image.fromarray(coarse).resize((side, side)), dtype=np.float32) - 127)
    return Image.fromarray((total + 115).clip(0, 255).astype(np.uint8))


def mosaic(side: int, folder: Path) -> Image.Image:
    """Return the upper left corners of a folder's large pictures side by side, each row by another first."""
    opened = [Image.open(path) for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg", ".tif")]
    large = [picture for picture in opened if min(picture.size) >= PART]
    corners = [picture.convert("RGB").crop((0, 0, PART, PART)) for picture in large]
    whole = Image.new("RGB", (side, side))
    for number in range((side // PART) ** 2):
        row, column = divmod(number, side // PART)
        whole.paste(corners[(number + row) % len(corners)], (column * PART, row * PART))
    return whole


def smooth(side: int) -> Image.Image:
    """Return a picture that is quickly written: memory does not go by what it shows."""
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    return Image.fromarray(np.repeat((ramp[:, None] + ramp)[..., None], 3, axis=2))


def write_data(folder: Path, picture: Image.Image, objects: int) -> Path:
    """Write a data set of one picture in DOTA's form."""
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    picture.save(folder / "images" / "P1.png")
    boxes = objects_anywhere(objects, picture.width - 1.0, np.random.default_rng(0))
    boxes[:, 2:4] = boxes[:, 2:4].clip(max=100)
    lines = (f"{' '.join(f'{x:.1f}' for x in polygon)} ship 0\n" for polygon in polygons(boxes).reshape(-1, 8))
    (folder / "labelTxt" / "P1.txt").write_text("".join(lines))
    return folder


def split(quick: bool, pictures: Path | None) -> Findings:
    """Time the cutting of one picture, with OpenCV where it is installed and without, and mmrotate's."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = write_data(root / "data", aerial(SIDE) if pictures is None else mosaic(SIDE, pictures), OBJECTS)
        tasks: dict[str, Callable[[Path], object]] = {
            "focaldet, Pillow": partial(cut_without_opencv, data),
            "focaldet, a process of its own": lambda output: tile(data, output, CUT),
            "focaldet tile": lambda output: run(["-m", "focaldet", "tile", str(data), "-o", str(output)]),
        }
        if importlib.util.find_spec("cv2") is not None:
            tasks[OURS] = lambda output: tile(data, output, CUT, workers=0)
        with contextlib.suppress(ImportError):
            tasks["mmrotate"] = partial(cut_by_mmrotate, mmrotates_split(), data)
        found = Findings()
        task = f"splitting {SIDE:,} x {SIDE:,} pixels with {OBJECTS:,} objects"
        sizes = {}
        seconds: dict[str, list[float]] = {who: [] for who in tasks}
        for turn in range(1 + (2 if quick else 7)):
            for who, work in tasks.items():
                output = root / f"{who}-{turn}"
                began = all_cpu_time()
                work(output)
                seconds[who].append(all_cpu_time() - began)
                sizes[who] = sum(path.stat().st_size for path in output.rglob("*.png"))
                run(["-c", f"import shutil; shutil.rmtree({str(output)!r})"])
        timings = {who: Timing(tuple(taken[1:])) for who, taken in seconds.items()}  # the first round loads modules
        found.rows = [Row("split", task, who, "CPU-s", took.minimum, took.median) for who, took in timings.items()]
        for who, bound in ((OURS, 1.2), ("focaldet, Pillow", 2.2)):
            if who in timings:
                found.goals.append(Goal(task, f"CPU-s of {who}", timings[who].minimum, "at most", bound))
        each = ", ".join(f"{who} {size / MEGABYTE:.1f} MB" for who, size in sizes.items())
        found.notes.append(f"Tiles as files: {each}; the picture itself {picture_size(data) / MEGABYTE:.1f} MB.")
        return found


def picture_size(data: Path) -> int:
    return (data / "images" / "P1.png").stat().st_size


def cut_without_opencv(data: Path, output: Path) -> None:
    with_opencv, cutter._opencv = cutter._opencv, lambda: None
    try:
        tile(data, output, CUT, workers=0)
    finally:
        cutter._opencv = with_opencv


def mmrotates_split() -> ModuleType:
    """Load mmrotate's script; its package ships it, but not as a module."""
    found = importlib.util.find_spec("mmrotate")
    if found is None or found.origin is None:
        raise ImportError("mmrotate is not installed")
    path = Path(found.origin).parent / ".mim" / "tools" / "data" / "dota" / "split" / "img_split.py"
    spec = importlib.util.spec_from_file_location("img_split", path)
    if spec is None or spec.loader is None or not path.exists():
        raise ImportError(f"{path} is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cut_by_mmrotate(script: ModuleType, data: Path, output: Path) -> None:
    """Call its own functions as its `main` does, in this process and without its log."""
    pictures, labels = (str(data / name) for name in ("images", "labelTxt"))
    for name in ("images", "annfiles"):
        (output / name).mkdir(parents=True)
    with contextlib.redirect_stdout(None):
        for info in script.load_dota(pictures, labels, nproc=1):
            windows = script.get_sliding_window(info, [CUT.tile], [CUT.overlap], CUT.min_picture)
            objects = script.get_window_obj(info, windows, CUT.min_share)
            folders = str(output / "images"), str(output / "annfiles")
            script.crop_and_save_img(info, windows, objects, pictures, False, [104, 116, 124], *folders, ".png")


def merge(quick: bool) -> Findings:
    """Time the merging of many detections of tiles."""
    tiles, windows, size = detections_of_tiles()
    places = [window[:2] for window in windows]
    hulls = [clip_hbox(rbox_to_hbox(found.boxes), (CUT.tile, CUT.tile)) for found in tiles]
    upright = [
        Detections(boxes, found.scores, found.labels, CLASSES) for boxes, found in zip(hulls, tiles, strict=True)
    ]
    table, rule = as_table(tiles, windows), MergeRule(0.1)
    tasks = {
        "rboxes": lambda: merge_tiles(tiles, places, rule, CLASSES),
        "polygons of files": lambda: merge_table(table, rule),
        "hboxes": lambda: merge_upright_tiles(upright, windows, size, MergeRule(0.5), CLASSES),
    }
    found = Findings()
    for kind, timing in take_turns(tasks, 3 if quick else 15, warmups=2).items():
        task = f"merging {DETECTIONS:,} detections of {len(windows)} tiles, {kind}"
        found.rows.append(Row("merge", task, OURS, "CPU-s", timing.minimum, timing.median))
        if kind != "hboxes":
            found.goals.append(Goal(task, "CPU-s", timing.minimum, "at most", 0.1))
    kept = ", ".join(f"{len(work()):,} of the {kind}" for kind, work in tasks.items())
    found.notes.append(f"Left after merging: {kept}.")
    return found


def detections_of_tiles() -> tuple[list[Detections], list[tuple[int, int, int, int]], tuple[int, int]]:
    """Return a crowd of detections, each in a tile that shows its centre; objects on overlaps are found in several."""
    scene = crowd(DETECTIONS, boxes_per_object=4)
    side = int(scene.boxes[:, :2].max()) + 1
    windows = [(x1, y1, x2, y2) for x1, y1, x2, y2 in plan_tiles((side, side), Cut()).tolist()]
    corners = np.array(windows)
    x, y = scene.boxes[:, 0], scene.boxes[:, 1]
    inside = (x[:, None] >= corners[:, 0]) & (x[:, None] <= corners[:, 2])
    inside &= (y[:, None] >= corners[:, 1]) & (y[:, None] <= corners[:, 3])
    owner = (inside * np.random.default_rng(0).random(inside.shape)).argmax(axis=1)  # any of those that show it
    boxes = scene.boxes.copy()
    boxes[:, :2] -= corners[owner, :2]
    groups = [np.flatnonzero(owner == k) for k in range(len(windows))]
    columns: tuple[Floats, ...] = (boxes, scene.scores, scene.labels)
    tiles = [Detections(*(torch.from_numpy(column[group]) for column in columns), CLASSES) for group in groups]
    return tiles, windows, (side, side)


def as_table(tiles: list[Detections], windows: list[tuple[int, int, int, int]]) -> DetectionTable:
    """Return detections of tiles as files of them are read."""
    return DetectionTable(
        pictures=tuple(tile_name("P1", window) for window in windows),
        classes=CLASSES,
        polygons=np.concatenate([polygons(found.boxes.numpy()) for found in tiles]),
        owners=np.repeat(np.arange(len(tiles)), [len(found) for found in tiles]),
        labels=np.concatenate([found.labels.numpy() for found in tiles]),
        scores=np.concatenate([found.scores.double().numpy() for found in tiles]),
    )


def memory(quick: bool) -> Findings:
    """Measure the most that a process holds which tiles, or predicts in, a scene."""
    found = Findings()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        side = 6_000 if quick else 12_000
        data = write_data(root / "data", smooth(side), OBJECTS)
        for cut in ("mmrotate", "mmrotate-ms"):
            words = ["tile", str(data), "-o", str(root / cut), "--cut", cut]
            task = f"tiling {side:,} x {side:,} pixels, {cut}"
            parent, child = peaks(words)
            found.rows.append(Row("memory", task, "focaldet tile", "MB", parent, parent))
            found.rows.append(Row("memory", task, "its process that cuts", "MB", child, child))
            over = parent + child - 3 * side**2 / MEGABYTE
            found.goals.append(Goal(task, "MB of both beyond the decoded picture (RGB)", over, "at most", 300.0))
        beyond = {}
        for side in (1_000, 3_000) if quick else (2_000, 8_000):
            path = root / f"{side}.png"
            smooth(side).save(path, compress_level=1)
            words = ["predict", "retinanet-h-small", str(path), "-o", str(root / str(side)), "--format", "json", *SMALL]
            tiles = len(plan_tiles((side, side), Cut(640, 160, min_picture=0.0)))
            task = f"predicting in {side:,} x {side:,} pixels, {tiles} tiles"
            peak, _ = peaks(words)
            beyond[side] = peak - 4 * side**2 / MEGABYTE
            found.rows.append(Row("memory", task, "focaldet predict", "MB", peak, peak))
        small, large = beyond.values()
        what = f"MB beyond the decoded picture more than in {min(beyond):,} x {min(beyond):,}"
        found.goals.append(Goal(task, what, large - small, "at most", 20.0))
    return found


CHILD = """
import contextlib, resource, sys
from focaldet.cli.main import main
with contextlib.redirect_stdout(sys.stderr):
    failed = main(sys.argv[1:])
with open("/proc/self/status") as status:
    own = next(line for line in status if line.startswith("VmHWM:"))
print(own.split()[1], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(failed)
"""
"""Runs a command and prints the peaks, in KiB, of the process and of those that it starts, by what Linux counts."""


def peaks(words: list[str]) -> tuple[float, float]:
    """Return what a command in a fresh process holds at most, and what processes that it starts do, in MB."""
    own, children = map(int, run(["-c", CHILD, *words]).splitlines()[-1].split())
    return own * 1024 / MEGABYTE, children * 1024 / MEGABYTE


def run(arguments: list[str]) -> str:
    """Run Python and return what it prints on standard output."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def all_cpu_time() -> float:
    """Return the CPU seconds of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


PARTS = ("split", "merge", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(PARTS)}; all without")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="of large pictures, to be split")
    parser.add_argument("--quick", action="store_true", help="few repetitions, smaller scenes")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks-tiling.md")
    options = parser.parse_args()
    if unknown := set(options.what) - set(PARTS):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    machine = describe_machine(("focaldet", "torch", "numpy", "PIL", "cv2", "mmrotate"))
    found = Findings()
    for name in options.what or PARTS:
        work = {"split": partial(split, pictures=options.pictures), "merge": merge, "memory": memory}[name]
        found.add(work(options.quick))
    show(BenchReport(machine, found), PAGE if options.write else None)


if __name__ == "__main__":
    main()
