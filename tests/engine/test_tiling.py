"""From a folder of big pictures to a folder of tiles."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from focaldet.data import cutter
from focaldet.data.cutter import Job
from focaldet.data.formats import open_dataset
from focaldet.data.pictures import read_picture
from focaldet.data.tiles import CUTS, Cut, plan_tiles
from focaldet.engine.tiling import Scene, TileSummary, plan, read_tiles, tile
from focaldet.errors import FocaldetError, UsageError

CUT = Cut(64, 16, pad=(124, 116, 104))
ALONE = replace(CUT, empty=False, owner="centre", pad=None)


def scene(folder: Path, name: str, height: int, width: int, labels: str | None = "", suffix: str = "png") -> None:
    for part in ("images", "labelTxt"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "images" / f"{name}.{suffix}")
    if labels is not None:
        (folder / "labelTxt" / f"{name}.txt").write_text(labels)


def square(x: float, y: float, side: float = 10) -> str:
    return f"{x} {y} {x + side} {y} {x + side} {y + side} {x} {y + side}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two scenes and a small one; of the objects, a difficult one lies in four tiles, and a huge one in none."""
    folder = tmp_path / "data"
    labels = f"imagesource:x\ngsd:0.1\n{square(51, 51)} ship 1\n{square(0, 0, 90)} harbor 0\n{square(2, 80)} plane 0\n"
    scene(folder, "P1", 100, 110, labels)
    scene(folder, "P2", 64, 64)
    scene(folder, "P3", 30, 200, f"{square(190, 4)} ship 0\n", "bmp")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def quick(data: Path, output: Path, cut: Cut = CUT, **flags: Any) -> TileSummary:
    return tile(data, output, cut, workers=0, **flags)


def test_tiles_labels_manifest_and_counts(data: Path, tmp_path: Path) -> None:
    summary = quick(data, tmp_path / "tiles")
    # P1: 2 x 2 tiles, the last row and column at 36 and 46; P2: 1; P3: 4, the last at 136
    assert (summary.scenes, summary.tiles, summary.left_out, summary.objects) == (3, 9, 0, 4)
    assert summary.lost == Counter(harbor=1)
    assert "4 objects, 6 times in tiles; in no tile: 1 (harbor 1)" in summary.text()
    names = sorted(path.stem for path in (tmp_path / "tiles" / "images").iterdir())
    assert names == sorted(path.stem for path in (tmp_path / "tiles" / "labelTxt").iterdir())
    assert names[:4] == ["P1__64__0___0", "P1__64__0___36", "P1__64__46___0", "P1__64__46___36"]
    assert (tmp_path / "tiles" / "labelTxt" / "P1__64__46___36.txt").read_text() == f"{square(5, 15)} ship 1\n"
    picture = read_picture(data / "images" / "P1.png")
    assert np.array_equal(read_picture(tmp_path / "tiles/images/P1__64__46___36.png"), picture[36:, 46:])
    padded = read_picture(tmp_path / "tiles/images/P3__64__136___0.png")
    assert padded.shape == (64, 64, 3) and (padded[30:] == (124, 116, 104)).all()
    manifest = json.loads((tmp_path / "tiles" / "tiles.json").read_text())
    assert manifest["cut"]["tile"] == 64 and manifest["classes"] == ["plane", "ship", "harbor"]
    assert manifest["scenes"][0]["tiles"][3] == [46, 36, 110, 100, 1]
    assert manifest["scenes"][0]["lost"] == {"harbor": 1}
    assert not list((tmp_path / "tiles").rglob("*.part")) and not (tmp_path / "tiles" / "tiles.jsonl").exists()


def test_tiles_are_a_data_set_again(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "tiles")
    dataset = open_dataset(tmp_path / "tiles", "train")
    assert (dataset.format, len(dataset), dataset.num_objects) == ("dota", 9, 6)
    assert dataset.classes == ("plane", "ship", "harbor")  # the lost one's class is still known


def test_splits_stay_apart(data: Path, tmp_path: Path) -> None:
    (data / "train.txt").write_text("P1\n")
    (data / "val.txt").write_text("P3\n")
    summary = quick(data, tmp_path / "tiles", ALONE)
    assert (summary.scenes, summary.left_out) == (2, 3)
    train, val = (open_dataset(tmp_path / "tiles", split) for split in ("train", "val"))
    assert {train.name(k).split("__")[0] for k in range(len(train))} == {"images/P1"}
    assert [val.name(k) for k in range(len(val))] == ["images/P3__64__136___0.png"]


def test_what_the_original_program_cuts(data: Path, tmp_path: Path) -> None:
    """By centre, without padding and without tiles that hold nothing."""
    summary = quick(data, tmp_path / "tiles", ALONE, headers=True)
    assert summary.lost.total() == 0
    assert read_picture(tmp_path / "tiles/images/P3__64__136___0.png").shape == (30, 64, 3)
    text = (tmp_path / "tiles/labelTxt/P3__64__136___0.txt").read_text()
    assert text == f"imagesource:P3\ngsd:null\n{square(54, 4)} ship 0\n"
    assert not list((tmp_path / "tiles" / "images").glob("P2*"))


def test_pictures_alone_are_cut_too(data: Path, tmp_path: Path) -> None:
    summary = quick(data / "images", tmp_path / "tiles", format="jpg")
    assert (summary.scenes, summary.tiles, summary.objects) == (3, 9, 0)
    assert summary.notes == [f"{data / 'images'}: 3 pictures without labels"]
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == ["images", "tiles.json"]
    assert read_picture(tmp_path / "tiles/images/P2__64__0___0.jpg").shape == (64, 64, 3)


def test_other_formats_are_cut(tmp_path: Path) -> None:
    """COCO json, upright: a crowd becomes difficult, a blank in a name, at which labels are split, a dash."""
    scene(tmp_path / "data", "a", 70, 70, None)
    (tmp_path / "data" / "labelTxt").rmdir()
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 70, "height": 70}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 9, 10, 10], "area": 1, "iscrowd": 1}],
        "categories": [{"id": 1, "name": "storage tank"}],
    }
    (tmp_path / "data" / "instances_train.json").write_text(json.dumps(content))
    summary = quick(tmp_path / "data", tmp_path / "tiles")
    assert summary.notes[-1] == "classes written with '-' for a blank: storage tank"
    assert (tmp_path / "tiles" / "labelTxt" / "a__64__6___6.txt").read_text() == f"{square(2, 3)} storage-tank 1\n"
    assert open_dataset(tmp_path / "tiles", "train").classes == ("storage-tank",)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tif", "RGB"), ("tif", "I;16"), ("bmp", "P"), ("jpg", "L"), ("png", "RGBA"), ("tif", "CMYK")]
)
def test_any_picture_is_cut_as_it_is_read(tmp_path: Path, suffix: str, mode: str) -> None:
    """Sixteen bits included; without labels in its file, and with corners between pixels."""
    scene(tmp_path / "data", "P1", 70, 90, f"{square(30.25, 40.5)} ship 0\n")
    scene(tmp_path / "data", "P2", 70, 90, "")
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    picture = (
        Image.fromarray(pixels).convert(mode) if mode != "I;16" else Image.fromarray(pixels[..., 0] * np.uint16(257))
    )
    for name in ("P1", "P2"):
        (tmp_path / "data" / "images" / f"{name}.png").unlink()
        picture.save(tmp_path / "data" / "images" / f"{name}.{suffix}")
    summary = quick(tmp_path / "data", tmp_path / "tiles", replace(CUT, pad=None))
    assert (summary.scenes, summary.tiles, summary.failed) == (2, 8, [])
    seen = read_picture(tmp_path / "data" / "images" / f"P1.{suffix}")
    assert np.array_equal(read_picture(tmp_path / "tiles/images/P1__64__26___6.png"), seen[6:, 26:])
    assert (tmp_path / "tiles/labelTxt/P1__64__26___6.txt").read_text() == f"{square(4.25, 34.5)} ship 0\n"
    assert (tmp_path / "tiles/labelTxt/P2__64__26___6.txt").read_text() == ""


@settings(max_examples=40)
@given(st.data(), st.integers(20, 300), st.integers(20, 300), st.sampled_from(["centre", "share"]))
def test_every_object_is_in_a_tile_or_counted(data: Any, height: int, width: int, owner: Any) -> None:
    """Upright rectangles, whose shares are products, in tiles of three scales."""
    numbers = st.integers(-40, 340)
    boxes = data.draw(st.lists(st.tuples(numbers, numbers, st.integers(1, 120), st.integers(1, 120)), max_size=12))
    polygons = np.array([[[x, y], [x + w, y], [x + w, y + h], [x, y + h]] for x, y, w, h in boxes], dtype=np.float64)
    names = [f"c{k}" for k in range(len(boxes))]
    where = Scene(Path("P1.png"), "train", (height, width), polygons.reshape(-1, 4, 2), names, [False] * len(boxes))
    tiles, record = plan(where, Cut(64, 16, rates=(0.5, 1.0, 1.5), owner=owner))
    held = {names[k] for tile in tiles for k in tile.objects.tolist()}
    assert held | set(record["lost"]) == set(names) and not held & set(record["lost"])
    assert sum(record["lost"].values()) + len(held) == record["objects"] == len(boxes)

    def is_held(x: int, y: int, w: int, h: int, window: tuple[int, int, int, int]) -> bool:
        x1, y1, x2, y2 = window
        if owner == "centre":  # of the scene too
            return x1 <= x + w / 2 <= min(x2, width) and y1 <= y + h / 2 <= min(y2, height)
        return max(min(x + w, x2) - max(x, x1), 0) * max(min(y + h, y2) - max(y, y1), 0) >= 0.7 * w * h

    for name, box in zip(names, boxes, strict=True):
        assert (name in held) == any(is_held(*box, tile.window) for tile in tiles)


def test_processes_write_the_same(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "here")
    tile(data, tmp_path / "there", CUT, workers=2)
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def test_a_broken_picture_is_listed_and_tried_again(data: Path, tmp_path: Path) -> None:
    whole = (data / "images" / "P1.png").read_bytes()
    (data / "images" / "P1.png").write_bytes(whole[:2000])
    summary = quick(data, tmp_path / "tiles")
    ((name, sentence),) = summary.failed
    assert name.endswith("P1.png") and "is cut off" in sentence
    assert summary.scenes == 2 and not list((tmp_path / "tiles").rglob("P1*"))
    (data / "images" / "P1.png").write_bytes(whole)
    again = quick(data, tmp_path / "tiles", resume=True)
    quick(data, tmp_path / "fresh")
    assert (again.scenes, again.failed) == (3, [])
    assert files_of(tmp_path / "tiles") == files_of(tmp_path / "fresh")


def test_a_broken_off_call_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def cut_two(job: Job) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.picture)
        real(job)

    real = cutter.cut_picture
    monkeypatch.setattr(cutter, "cut_picture", cut_two)
    with pytest.raises(KeyboardInterrupt):
        quick(data, tmp_path / "tiles")
    with (tmp_path / "tiles" / "tiles.jsonl").open("a") as file:
        file.write('{"scene": "P3", "ti')  # a line that the end of the process cut short
    with pytest.raises(UsageError, match="holds tiles already; add --resume to go on"):
        quick(data, tmp_path / "tiles")
    first = done.copy()
    done.clear()
    quick(data, tmp_path / "tiles", resume=True)
    assert sorted(Path(path).stem for path in first + done) == ["P1", "P2", "P3"]
    monkeypatch.setattr(cutter, "cut_picture", real)
    quick(data, tmp_path / "fresh")
    assert files_of(tmp_path / "tiles") == files_of(tmp_path / "fresh")


def test_tiles_of_another_cut_are_refused(data: Path, tmp_path: Path) -> None:
    quick(data, tmp_path / "tiles")
    before = files_of(tmp_path / "tiles")
    with pytest.raises(FocaldetError, match="of another cut: tile=64 there and 48 asked for, overlap=16 there and 8"):
        quick(data, tmp_path / "tiles", Cut(48, 8), resume=True)
    with pytest.raises(FocaldetError, match="format=png there and jpg asked for"):
        quick(data, tmp_path / "tiles", format="jpg", resume=True)
    assert files_of(tmp_path / "tiles") == before
    # what a process that was killed left of a scene goes as well
    (tmp_path / "tiles" / "images" / "P9__64__0___0.png").write_bytes(b"")
    (tmp_path / "tiles" / "labelTxt" / ".P9__64__0___0.txt.7.part").write_bytes(b"")
    quick(data, tmp_path / "tiles", Cut(48, 8), overwrite=True)
    quick(data, tmp_path / "fresh", Cut(48, 8))
    assert files_of(tmp_path / "tiles") == files_of(tmp_path / "fresh")


def test_a_dry_run_counts_and_writes_nothing(data: Path, tmp_path: Path) -> None:
    summary = quick(data, tmp_path / "tiles", dry_run=True)
    assert summary == quick(data, tmp_path / "other")
    assert not (tmp_path / "tiles").exists()
    assert read_tiles(tmp_path / "tiles") is None


def test_faults(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds other things than tiles"):
        quick(data, data)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "tiles.json").write_text("[]")
    with pytest.raises(FocaldetError, match=r"odd/tiles\.json is not what `focaldet tile` writes"):
        quick(data, tmp_path / "odd", overwrite=True)
    scene(data / "images", "P1", 20, 20, None)  # data/images/images/P1.png
    with pytest.raises(FocaldetError, match="are two pictures of the name 'P1'"):
        quick(data, tmp_path / "tiles")
    assert not (tmp_path / "tiles").exists()
    (data / "images" / "images" / "P1.png").unlink()
    (data / "labelTxt" / "P2.txt").write_text("1 2 3 4 5 6 7 ship 0\n")
    with pytest.raises(FocaldetError, match=r"P2\.txt:1 reads '1 2 3 4 5 6 7 ship 0'; expected is x1 y1"):
        quick(data, tmp_path / "tiles")
    with pytest.raises(FocaldetError, match="does not exist"):
        quick(tmp_path / "none", tmp_path / "tiles")


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["mmrotate", "mmrotate-ms"])
def test_a_large_scene_takes_its_own_memory_and_a_little(tmp_path: Path, cut: str) -> None:
    """12,000 x 12,000 pixels: a process that cuts has at most the decoded picture, 432 MB, and 300 MB."""
    smooth = np.linspace(0, 255, 12_000).astype(np.uint8)
    picture = Image.fromarray(np.repeat((smooth[:, None] + smooth)[..., None], 3, axis=2))
    picture.save(tmp_path / "big.png", compress_level=1)
    windows = plan_tiles((12_000, 12_000), CUTS[cut])[::5].tolist()
    tiles = [str(tmp_path / "tiles" / f"{k}.png") for k in range(len(windows))]
    job = Job(str(tmp_path / "big.png"), (12_000, 12_000), windows, tiles, pad=CUTS[cut].pad)
    code = (
        "import json, sys; from focaldet.data.cutter import Job, cut_picture; cut_picture(Job(**json.load(sys.stdin)));"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(vars(job)), capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[1]) * 1024 < 732e6


@pytest.mark.slow
def test_speed(tmp_path: Path, shared: Path) -> None:
    """4,000 x 4,000 pixels and 1,500 objects: 1.2 CPU-seconds with OpenCV; more is allowed to a busy machine."""
    part = read_picture(shared / "data" / "dota-samples" / "images" / "P0003.png")[:1000, :1000]
    data = tmp_path / "data"
    scene(data, "P1", 10, 10)
    Image.fromarray(np.tile(part, (4, 4, 1))).save(data / "images" / "P1.png")
    places = np.random.default_rng(0).uniform(0, 3900, (1500, 2)).round(1)
    (data / "labelTxt" / "P1.txt").write_text("".join(f"{square(x, y, 30)} ship 0\n" for x, y in places))
    spent = []
    for k in range(3):
        began = time.process_time()
        quick(data, tmp_path / f"tiles{k}", Cut())
        spent.append(time.process_time() - began)
    assert min(spent) < 2
