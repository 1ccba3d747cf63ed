"""Data sets from one format to another and back: what comes back, what is lost and said, and what stays whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from focaldet.data import writers
from focaldet.data.dataset import Dataset
from focaldet.data.formats import open_dataset
from focaldet.engine.convert import Conversion, convert
from focaldet.errors import FocaldetError, UsageError

SIZE = (48, 64)
CLASSES = ["ship", "plane", "large-vehicle"]
Fold = Callable[[], Path]


@pytest.fixture(scope="module")
def new_folder(tmp_path_factory: pytest.TempPathFactory) -> Fold:
    return lambda: tmp_path_factory.mktemp("set")


def write_dota(folder: Path, labels: dict[str, dict[str, str]], classes: list[str] = CLASSES) -> Path:
    """{split: {stem: lines}} -> a data set of black pictures."""
    for split, files in labels.items():
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "labelTxt").mkdir()
        for stem, text in files.items():
            Image.new("L", (SIZE[1], SIZE[0])).save(folder / split / f"images/{stem}.png")
            (folder / split / f"labelTxt/{stem}.txt").write_text(text)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return folder


@pytest.fixture
def source(new_folder: Fold) -> Path:
    lines = "1 2 21.5 2 21.5 12.25 1 12.25 ship 0\n30 20 40 25 35 35 25 30 plane 1\n"
    return write_dota(new_folder(), {"train": {"a": lines, "b": ""}, "val": {"c": "5 5 20 8 24 18 3 15 plane 0\n"}})


def same(one: Dataset, other: Dataset, tolerance: float) -> None:
    one, other = (dataset.select(sorted(range(len(dataset)), key=dataset.name)) for dataset in (one, other))
    assert [Path(one.name(k)).name for k in range(len(one))] == [Path(other.name(k)).name for k in range(len(other))]
    assert one.classes == other.classes
    assert one.counts.tolist() == other.counts.tolist()
    assert one.labels.tolist() == other.labels.tolist()
    corners = [dataset.as_kind("rbox").polygons for dataset in (one, other)]
    assert np.abs(corners[0] - corners[1]).max(initial=0) <= tolerance


@st.composite
def labels(draw: st.DrawFn, free: bool = True) -> str:
    """Lines of convex quadrilaterals, or of rectangles along the axes."""
    lines = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(st.floats(-5, 60)), draw(st.floats(-5, 40))
        width, height = draw(st.floats(1, 30)), draw(st.floats(1, 30))
        a, b, c, d = (draw(st.floats(-0.4, 0.4)) if free else 0.0 for _ in range(4))
        corners = [
            x + a * width,
            y,
            x + width,
            y + b * height,
            x + width + c * width,
            y + height,
            x,
            y + (1 + d) * height,
        ]
        name = draw(st.sampled_from(CLASSES))
        lines.append(f"{' '.join(map(repr, corners))} {name} {draw(st.integers(0, 1))}\n")
    return "".join(lines)


@settings(max_examples=15)
@given(data=st.data(), format=st.sampled_from(["coco", "dota", "yolo-obb"]))
def test_rotated_sets_come_back(new_folder: Fold, data: st.DataObject, format: str) -> None:
    """There and back again through every format that has four corners."""
    files = {"train": {"a": data.draw(labels()), "b": data.draw(labels())}, "val": {"c": data.draw(labels())}}
    source, there, back = write_dota(new_folder(), files), new_folder() / "there", new_folder() / "back"
    convert(source, there, format)
    convert(there, back, "dota")
    # YOLO's shares have ten digits, of 64 pixels; the others lose nothing
    tolerance = 1e-7 if format == "yolo-obb" else 0.0
    for split in ("train", "val"):
        first, second, third = (open_dataset(path, split) for path in (source, there, back))  # type: ignore[call-overload]
        if first.num_objects or format != "coco":  # a json without an object has no kind
            same(first, second, tolerance)
        same(first, third, tolerance)
        if format != "yolo-obb":
            assert first.difficult.tolist() == third.difficult.tolist()


@settings(max_examples=15)
@given(data=st.data(), format=st.sampled_from(["coco", "yolo", "voc", "hrsc", "yolo-obb"]))
def test_upright_sets_come_back(new_folder: Fold, data: st.DataObject, format: str) -> None:
    files = {"train": {"a": "1 1 9 1 9 9 1 9 large-vehicle 0\n" + data.draw(labels(free=False)), "b": ""}}
    source, there, back = write_dota(new_folder(), files), new_folder() / "there", new_folder() / "back"
    convert(source, there, format)
    convert(there, back, "dota")
    # x + width - width is x but for rounding, shares have ten digits, and rectangles are found through an angle
    tolerance = 1e-7
    first, third = open_dataset(source, "train"), open_dataset(back, "train")
    names = [first.classes[k] for k in first.labels]
    assert [third.classes[k] for k in third.labels] == names
    hulls = [dataset.boxes for dataset in (first, third)]
    assert np.abs(hulls[0] - hulls[1]).max(initial=0) <= tolerance
    if not format.startswith("yolo"):
        assert first.difficult.tolist() == third.difficult.tolist()


@pytest.mark.parametrize("format", list(writers.LAYOUTS))
def test_every_format_opens_as_what_it_is(source: Path, new_folder: Fold, format: str) -> None:
    target = new_folder() / "target"
    conversion = convert(source, target, format)
    assert conversion.splits == {"train": (2, 2), "val": (1, 1)}
    for split in ("train", "val"):
        dataset = open_dataset(target, split)  # type: ignore[call-overload]
        assert dataset.format == format
        assert dataset.sample(0).image.shape == (*SIZE, 3)
        assert dataset.kind == ("rbox" if writers.LAYOUTS[dataset.format].rotated else "hbox")
    assert sorted(path.name for path in target.parent.iterdir()) == ["target"]  # nothing else is left


def notes_of(conversion: Conversion) -> list[str]:
    return [note for note in conversion.notes if "reach out" not in note]


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("coco", []),
        ("dota", []),
        ("yolo-obb", ["train: difficult objects written like others: 1"]),
        (
            "yolo",
            [
                "train: difficult objects written like others: 1",
                "train: rotated objects written as their upright hulls: 2",
                "val: rotated objects written as their upright hulls: 1",
            ],
        ),
        (
            "voc",
            [
                "train: rotated objects written as their upright hulls: 2",
                "val: rotated objects written as their upright hulls: 1",
                "classes without an object lost, as the format has no list of classes: large-vehicle",
            ],
        ),
        ("hrsc", ["val: quadrilaterals written as their least-area rectangles: 1"]),
    ],
)
def test_what_is_lost_is_counted_and_said(source: Path, new_folder: Fold, format: str, said: list[str]) -> None:
    assert notes_of(convert(source, new_folder() / "target", format)) == said


COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 150, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [5, 5, 20, 20], "area": 300, "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [5, 5, 20, 0], "area": 0, "iscrowd": 0},
    ],
    "categories": [{"id": 3, "name": "traffic light"}, {"id": 5, "name": "cow"}],
}


@pytest.fixture
def coco(new_folder: Fold) -> Path:
    folder = new_folder()
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    (folder / "instances_train.json").write_text(json.dumps(COCO))
    return folder


def test_crowds_and_names_with_blanks(coco: Path, new_folder: Fold) -> None:
    conversion = convert(coco, new_folder() / "target", "dota")
    assert conversion.notes == (
        "train: left out: boxes without area: 1 (the first: annotation 3 of instances_train.json)",
        "train: crowds written as difficult objects: 1",
        "classes written with '-' for a blank: traffic light",
    )
    text = (conversion.target / "train/labelTxt/a.txt").read_text()
    assert text == "1 2 11 2 11 22 1 22 traffic-light 0\n5 5 25 5 25 25 5 25 traffic-light 1\n"
    yolo = convert(coco, new_folder() / "target", "yolo")
    assert "train: crowds left out, as the format has no mark for them: 1" in yolo.notes
    assert yolo.splits == {"train": (1, 1)}
    back = convert(coco, new_folder() / "target", "coco")
    content = json.loads((back.target / "instances_train.json").read_text())
    assert [one["iscrowd"] for one in content["annotations"]] == [0, 1]
    assert content["categories"] == COCO["categories"]
    assert content["annotations"][0] == COCO["annotations"][0]
    (coco / "instances_train.json").write_text(json.dumps(COCO).replace("cow", "traffic-light"))
    with pytest.raises(FocaldetError, match="two classes become 'traffic-light' in DOTA's labels"):
        convert(coco, new_folder() / "target", "dota")


def test_ignored_classes_keep_their_names(source: Path, new_folder: Fold) -> None:
    (source / "data.yaml").write_text("format: dota\nignored: [plane]\n")
    assert open_dataset(source, "train").classes == ("ship", "large-vehicle")
    for format in writers.LAYOUTS:
        target = convert(source, new_folder() / "target", format).target
        dataset = open_dataset(target, "train")
        assert "plane" not in dataset.classes
        assert dataset.crowd.tolist() == [False, True]


def test_a_json_alone_names_pictures_where_they_are(source: Path, new_folder: Fold) -> None:
    target = new_folder() / "labels" / "val.json"
    target.parent.mkdir()
    with pytest.raises(UsageError, match=r"val\.json takes one split of .*; say which by --split train or --split val"):
        convert(source, target)
    done = convert(source, target, split="val")
    assert done.splits == {"val": (1, 1)}
    assert "the pictures lie outside of the folder of val.json: read it with --allow-outside" in done.notes
    with pytest.raises(FocaldetError, match="add --allow-outside"):
        open_dataset(target, "val")
    dataset = open_dataset(target, "val", allow_outside=True)
    assert dataset.path(0).resolve() == source / "val/images/c.png"
    same(dataset, open_dataset(source, "val"), 0.0)


def test_pictures_can_be_linked(source: Path, new_folder: Fold) -> None:
    target = convert(source, new_folder() / "target", "yolo", link=True, split="train").target
    picture = target / "images/train/a.png"
    assert picture.is_symlink() and picture.resolve() == source / "train/images/a.png"
    assert open_dataset(target, "val", missing_ok=True) is None


def test_what_is_there_is_not_overwritten_unasked(source: Path, new_folder: Fold) -> None:
    target = new_folder() / "target"
    convert(source, target, "dota")
    with pytest.raises(UsageError, match=r"target is there already; add --overwrite"):
        convert(source, target, "yolo")
    assert convert(source, target, "yolo", overwrite=True).format == "yolo"
    assert not (target / "train").exists()
    with pytest.raises(UsageError, match="is a folder; name another target"):
        folder = new_folder() / "x.json"
        folder.mkdir()
        convert(source, folder, overwrite=True, split="val")


def test_nothing_is_left_where_it_fails(source: Path, new_folder: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    target = new_folder() / "target"
    convert(source, target, "dota")
    before = sorted(path.name for path in target.rglob("*"))

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("focaldet.engine.convert.shutil.copyfile", fails)
    with pytest.raises(FocaldetError, match=r"cannot write .*target: No space left on device; free some space"):
        convert(source, target, "dota", overwrite=True)
    assert sorted(path.name for path in target.rglob("*")) == before
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize(
    ("format", "said"),
    [
        (None, "the format of .*target is not clear; name one by --format: coco, dota"),
        ("yolo-ob", r"format 'yolo-ob' cannot be written \(did you mean 'yolo-obb'\?\); use coco"),
        ("icdar", "format 'icdar' cannot be written; use coco"),
    ],
)
def test_formats_that_cannot_be_written(source: Path, tmp_path: Path, format: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        convert(source, tmp_path / "target", format)
    with pytest.raises(UsageError, match="is a json file, which YOLO labels is not; name a folder"):
        convert(source, tmp_path / "x.json", "yolo")


def test_pictures_that_would_have_one_name(new_folder: Fold) -> None:
    folder = new_folder()
    for place in ("x", "y"):
        (folder / place).mkdir()
        Image.new("L", (64, 48)).save(folder / place / "a.png")
    content = {**COCO, "images": [{**COCO["images"][0], "id": k, "file_name": f"{k}/a.png"} for k in "xy"]}
    content["images"] = [{**image, "id": number} for number, image in enumerate(content["images"], 6)]
    (folder / "instances_train.json").write_text(json.dumps(content))
    with pytest.raises(FocaldetError, match=r"x/a\.png and .*y/a\.png would both be called 'a'; rename one"):
        convert(folder, new_folder() / "target", "yolo")


def test_a_split_that_is_not_there(source: Path, new_folder: Fold) -> None:
    part = convert(source, new_folder() / "part", "dota", split="train").target
    assert convert(part, new_folder() / "all", "coco").splits == {"train": (2, 2)}
    with pytest.raises(FocaldetError, match="has a train split but no val split"):
        convert(part, new_folder() / "val", "coco", split="val")


@pytest.mark.data
def test_real_sets_in_every_format(shared: Path, new_folder: Fold) -> None:
    for name, source_format in (("dota-samples", None), ("icdar2015-words", "icdar"), ("hit-uav", "dota")):
        original = open_dataset(shared / "data" / name, "val", format=source_format)
        for format in ("coco", "dota", "yolo-obb"):
            target = new_folder() / format
            convert(shared / "data" / name, target, format, source_format=source_format, link=True)
            # ten digits of shares, of pictures up to 2,000 pixels
            same(original, open_dataset(target, "val"), 1e-6)
