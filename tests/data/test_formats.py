from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.data.dataset import ANY_CLASS
from focaldet.data.formats import open_dataset
from focaldet.errors import FocaldetError, UsageError

Write = Callable[..., Path]

XML = """<annotation><filename>a.png</filename><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12.5</xmax><ymax>9</ymax></bndbox></object>
</annotation>"""


def message_of(path: Path, split: Any = "train", **options: Any) -> str:
    with pytest.raises(FocaldetError) as caught:
        open_dataset(path, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def yolo_folder(tmp_path: Path, save_picture: Write) -> Path:
    for name in ("a", "b", "c"):
        save_picture(tmp_path / f"images/{name}.png", 40, 60)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("1 0.5 0.5 0.5 0.25\n\n0 0.25 0.75 0.1 0.2\n")
    (tmp_path / "labels/b.txt").write_text("")
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "val.txt").write_text("./images/c.png\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


@pytest.fixture
def voc_folder(tmp_path: Path, save_picture: Write) -> Path:
    save_picture(tmp_path / "JPEGImages/a.png", 40, 60)
    save_picture(tmp_path / "JPEGImages/b.png", 40, 60)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations/a.xml").write_text(XML)
    ape = XML.replace("dog", "ape").replace("cat", "ape").replace("<width>60</width>", "")
    (tmp_path / "Annotations/b.xml").write_text(ape)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("b 1\n")
    return tmp_path


# --- COCO folders ---


@pytest.mark.parametrize(
    ("labels", "pictures"),
    [
        ("annotations/instances_{split}2017.json", "{split}2017"),
        ("annotations/instances_{split}2017.json", "images/{split}2017"),
        ("annotations/{split}.json", "images"),
        ("{split}.json", "."),
        ("{split}/_annotations.coco.json", "{split}"),
        ("instances_{split}_hbb.json", "images/{split}"),
    ],
)
def test_coco_layouts(
    tmp_path: Path, coco_content: dict[str, Any], save_picture: Write, labels: str, pictures: str
) -> None:
    for split in ("train", "val"):
        path = tmp_path / labels.format(split=split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco_content))
        for image in coco_content["images"]:
            save_picture(tmp_path / pictures.format(split=split) / image["file_name"])
    (tmp_path / "annotations").mkdir(exist_ok=True)
    (tmp_path / "annotations/captions_other.json").write_text("{}")
    dataset = open_dataset(tmp_path, "val")
    assert dataset.source == tmp_path / labels.format(split="val")
    assert dataset.path(0).is_file()
    assert (dataset.format, dataset.split) == ("coco", "val")


def test_one_json_and_lists_of_stems(coco_folder: Write) -> None:
    folder = coco_folder(splits=("all",))
    (folder / "train.txt").write_text("a\nc\n")
    (folder / "val.txt").write_text("images/b.png\n")
    assert [open_dataset(folder, "train").name(k) for k in range(2)] == ["a.png", "c.png"]
    assert open_dataset(folder, "val").ids.tolist() == [3]


def test_a_json_is_every_split(coco_folder: Write) -> None:
    folder = coco_folder(splits=("all",))
    for split in ("train", "val"):
        assert len(open_dataset(folder / "instances_all.json", split)) == 3


def test_missing_split(coco_folder: Write) -> None:
    folder = coco_folder(splits=("train",))
    assert "has a train split but no val split" in message_of(folder, "val")
    assert open_dataset(folder, "val", missing_ok=True) is None


def test_two_jsons_of_one_split(coco_folder: Write) -> None:
    folder = coco_folder()
    shutil.copy(folder / "instances_train.json", folder / "instances_train_obb.json")
    assert "holds instances_train.json and instances_train_obb.json for train" in message_of(folder)


def test_classes_are_taken_by_name(coco_folder: Write) -> None:
    dataset = open_dataset(coco_folder(), "train", classes=("dog",))
    assert dataset.classes == ("dog",)
    assert dataset.counts.tolist() == [1, 0, 0]
    with pytest.raises(UsageError, match="asked for cow; it has cat, dog"):
        open_dataset(coco_folder(), "train", classes=("cow",))


# --- YOLO folders ---


def test_yolo_folder_with_lists(yolo_folder: Path) -> None:
    dataset = open_dataset(yolo_folder, "train")
    assert dataset.classes == ("cat", "dog")
    assert dataset.counts.tolist() == [2, 0]
    assert dataset.labels.tolist() == [1, 0]
    assert np.allclose(dataset.boxes, [[15, 15, 30, 10], [12, 26, 6, 8]])
    assert dataset.sample(0).hboxes[0].tolist() == [15, 15, 45, 25]
    assert "(YOLO labels, train): 2 pictures, 1 of them without objects" in dataset.describe()
    assert open_dataset(yolo_folder, "val").name(0) == "images/c.png"
    assert dataset.to_coco()["annotations"][0]["area"] == pytest.approx(300)


@pytest.mark.parametrize(("pictures", "labels"), [("images/{}", "labels/{}"), ("{}/images", "{}/labels")])
def test_yolo_folder_with_a_folder_a_split(tmp_path: Path, save_picture: Write, pictures: str, labels: str) -> None:
    for split in ("train", "valid"):
        save_picture(tmp_path / pictures.format(split) / "a.jpg")
        (tmp_path / labels.format(split)).mkdir(parents=True)
        (tmp_path / labels.format(split) / "a.txt").write_text("0 0.5 0.5 1 1\n")
    roboflow = "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n"
    ultralytics = "path: /gone\ntrain: images/train\nval: images/valid\nnames: {0: cat}\n"
    (tmp_path / "data.yaml").write_text(roboflow if pictures == "{}/images" else ultralytics)
    for split in ("train", "val"):
        dataset = open_dataset(tmp_path, split)  # type: ignore[call-overload]
        assert (dataset.format, dataset.classes, dataset.num_objects) == ("yolo", ("cat",), 1)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cow\n")
    assert open_dataset(tmp_path, "val").classes == ("cow",)


def test_yolo_list_of_pictures_in_a_data_file(yolo_folder: Path) -> None:
    (yolo_folder / "set.yaml").write_text("train: train.txt\nval: [val.txt, train.txt]\nnames: [cat, dog, cow]\n")
    assert len(open_dataset(yolo_folder / "set.yaml", "train")) == 2
    dataset = open_dataset(yolo_folder / "set.yaml", "val")
    assert [dataset.name(k) for k in range(3)] == ["images/c.png", "images/a.png", "images/b.png"]
    assert dataset.classes == ("cat", "dog", "cow")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 0.1", "line 2 of"),
        ("cat 0.5 0.5 0.1 0.1", "five numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "five numbers"),
        ("nan 0.5 0.5 0.1 0.1", "five numbers"),
        ("7 0.5 0.5 0.1 0.1", "has class 7, but names are given for 0 to 1 only"),
        ("-1 0.5 0.5 0.1 0.1", "has class -1"),
    ],
)
def test_yolo_lines_that_are_wrong(yolo_folder: Path, line: str, said: str) -> None:
    path = yolo_folder / "labels/a.txt"
    path.write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    message = message_of(yolo_folder)
    assert said in message
    assert str(path) in message


def test_yolo_boxes_of_no_use_are_left_out(yolo_folder: Path) -> None:
    (yolo_folder / "labels/a.txt").write_text("0 0.5 0.5 0.5 0\n0 0.5 nan 0.5 0.5\n1 0.5 0.5 -0.5 0.5\n")
    dataset = open_dataset(yolo_folder, "train")
    assert dataset.num_objects == 0
    assert len(dataset.left_out) == 3
    assert f"line 1 of {yolo_folder}/labels/a.txt" in dataset.describe()


def test_yolo_without_names_or_pictures(yolo_folder: Path) -> None:
    (yolo_folder / "classes.txt").unlink()
    assert "add a classes.txt" in message_of(yolo_folder)
    (yolo_folder / "train.txt").write_text("a\nnowhere\n")
    (yolo_folder / "classes.txt").write_text("cat\ndog\n")
    assert "picture nowhere of" in message_of(yolo_folder)
    (yolo_folder / "train.txt").write_text("\n")
    assert "has no pictures for train" in message_of(yolo_folder)


# --- VOC folders ---


def test_voc_folder(voc_folder: Path) -> None:
    dataset = open_dataset(voc_folder, "train")
    assert dataset.classes == ("ape", "cat", "dog")  # of all xml files, so that both splits agree
    assert dataset.labels.tolist() == [2, 1]
    assert dataset.boxes.tolist() == [[0, 0, 60, 40], [2, 3, 10.5, 6]]
    assert dataset.difficult.tolist() == [False, True]
    assert dataset.sample(0).size == (40, 60)
    assert "VOC xml" in dataset.describe()
    val = open_dataset(voc_folder, "val")
    assert (val.name(0), val.classes, val.sizes.tolist()) == ("JPEGImages/b.png", dataset.classes, [[40, 60]])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<name>dog</name>", "", "object 1 of"),
        ("<xmin>3</xmin>", "<xmin>three</xmin>", "object 2 of"),
        ("<xmin>3</xmin>", "", "has no <bndbox/xmin>"),
        ("</annotation>", "", "is not readable as xml"),
    ],
)
def test_voc_files_that_are_wrong(voc_folder: Path, old: str, new: str, said: str) -> None:
    path = voc_folder / "Annotations/a.xml"
    path.write_text(XML.replace(old, new))
    message = message_of(voc_folder)
    assert said in message
    assert str(path) in message


def test_voc_boxes_of_no_use_and_missing_xml(voc_folder: Path) -> None:
    path = voc_folder / "Annotations/a.xml"
    path.write_text(XML.replace("<xmax>60</xmax>", "<xmax>-7</xmax>"))
    assert (
        f"boxes with a negative width or height: 1 (the first: object 1 of {path})"
        in open_dataset(voc_folder, "train").describe()
    )
    path.unlink()
    assert "every picture of a split needs its xml" in message_of(voc_folder)


# --- data.yaml, and what cannot be recognized ---


def test_our_data_file(coco_folder: Write) -> None:
    folder = coco_folder()
    (folder / "data.yaml").write_text(
        "train: instances_train.json\nval: instances_val.json\nclasses: [dog]\nignored: [cat]\n"
    )
    dataset = open_dataset(folder, "train")
    assert dataset.classes == ("dog",)
    assert dataset.labels.tolist() == [0, ANY_CLASS, ANY_CLASS]
    assert dataset.crowd.tolist() == [False, True, True]


@pytest.mark.parametrize("line", ["{stem}", "images/{stem}.png", "./images/{stem}.png"])
def test_data_file_with_a_list_for_every_format(tmp_path: Path, save_picture: Write, line: str) -> None:
    """`train: some.txt` names the split where labels are of any form, as `focaldet tile` writes them."""
    polygon = "10 5 30 5 30 15 10 15"
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    turned = "<mbox_cx>9</mbox_cx><mbox_cy>9</mbox_cy><mbox_w>9</mbox_w><mbox_h>5</mbox_h><mbox_ang>0</mbox_ang>"
    images = [{"id": k, "file_name": f"{stem}.png", "width": 60, "height": 40} for k, stem in enumerate("ab")]
    annotations = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]}
    labels = {
        "dota": ("labelTxt/{}.txt", f"{polygon} ship 0\n"),
        "yolo": ("labels/{}.txt", "0 0.5 0.5 0.5 0.5\n"),
        "yolo-obb": ("labels/{}.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n"),
        "voc": (
            "Annotations/{}.xml",
            f"<annotation><object><name>ship</name><bndbox>{box}</bndbox></object></annotation>",
        ),
        "hrsc": ("Annotations/{}.xml", f"<HRSC_Image><HRSC_Object>{turned}</HRSC_Object></HRSC_Image>"),
        "icdar": ("gt/gt_{}.txt", f"{polygon.replace(' ', ',')},word\n"),
        "coco": ("all.json", json.dumps(coco)),
    }
    for format, (place, text) in labels.items():
        folder = tmp_path / format
        for stem in "ab":
            save_picture(folder / f"images/{stem}.png")
            path = folder / place.format(stem)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (folder / "first.txt").write_text("")
        (folder / "some.txt").write_text(line.format(stem="b") + "\n")
        names = "names: [ship]\n" if "yolo" in format else ""
        (folder / "data.yaml").write_text(f"path: {folder}\nformat: {format}\ntrain: some.txt\n{names}")
        dataset = open_dataset(folder, "train")
        assert (dataset.format, len(dataset), dataset.num_objects, dataset.path(0).name) == (format, 1, 1, "b.png")


def test_only_yolo_takes_several_places(coco_folder: Write) -> None:
    folder = coco_folder()
    (folder / "data.yaml").write_text("train: [instances_train.json, instances_val.json]\n")
    assert "names several places for train" in message_of(folder)


def test_data_file_with_nothing_but_a_format(coco_folder: Write, yolo_folder: Path) -> None:
    folder = coco_folder()
    assert folder == yolo_folder
    message = message_of(folder)
    assert "holds COCO json and YOLO labels" in message
    assert "'format: coco'" in message
    assert open_dataset(folder, "train", format="yolo").format == "yolo"
    (folder / "data.yaml").write_text("format: coco\n")
    assert open_dataset(folder, "train").format == "coco"
    assert "format='coc' is not known (did you mean 'coco'?)" in message_of(folder, format="coc")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: [", "cannot be read as YAML"),
        ("just words", "should hold lines such as"),
        ("train: nowhere\n", "names nowhere, which does not exist"),
        ("val: instances_val.json\n", "names no 'train'"),
        ("train: instances_train.json\nclasses: dog\n", "'classes' of"),
        ("train: instances_train.json\nnames: {0: a, 2: b}\n", "should number the classes 0 to 1"),
        ("train: instances_train.json\nclasses: [cow]\n", "asked for cow; it has cat, dog"),
        ("train: instances_train.json\nignored: [cow]\n", "'cow' is not in"),
    ],
)
def test_data_files_that_are_wrong(coco_folder: Write, text: str, said: str) -> None:
    folder = coco_folder()
    (folder / "data.yaml").write_text(text)
    assert said in message_of(folder)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "nowhere")
    assert "no data set of a known format" in message_of(tmp_path)
    (tmp_path / "a.csv").write_text("")
    assert "name a folder, a COCO json or a data.yaml" in message_of(tmp_path / "a.csv")


def test_data_file_with_a_list_and_names_beside_labels_of_dota(tmp_path: Path, save_picture: Write) -> None:
    """Names and a list are how the YOLO world writes it, but what lies there decides."""
    save_picture(tmp_path / "images/a.png")
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt/a.txt").write_text("10 5 30 5 30 15 10 15 ship 0\n")
    (tmp_path / "first.txt").write_text("a\n")
    (tmp_path / "data.yaml").write_text("train: first.txt\nnames: [ship]\n")
    dataset = open_dataset(tmp_path / "data.yaml", "train")
    assert (dataset.format, dataset.num_objects, dataset.classes) == ("dota", 1, ("ship",))
