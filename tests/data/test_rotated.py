"""Sets of rotated objects in every format and layout, what becomes of them for upright recipes, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.data.batch import collate
from focaldet.data.dataset import ANY_CLASS, Dataset
from focaldet.data.dota import read_label_folder
from focaldet.data.formats import open_dataset
from focaldet.errors import FocaldetError

Write = Callable[..., Path]

SHIP = "10.5 5 30 5 30 15.25 10.5 15.25 ship 0"
PLANE = "20 20 30 25 25 35 15 30 plane 1"
BOW = "0 0 9 0 0 9 9 9 ship 0"


def message_of(path: Path, split: Any = "train", **options: Any) -> str:
    with pytest.raises(FocaldetError) as caught:
        open_dataset(path, split, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def dota_folder(tmp_path: Path, save_picture: Write) -> Path:
    """Three pictures of 40 x 60 (png, jpg, tif), two splits by lists; one picture without objects."""
    for name in ("a.png", "b.jpg", "c.tif"):
        save_picture(tmp_path / "images" / name)
    put(tmp_path / "labelTxt/a.txt", f"imagesource:GoogleEarth\ngsd:0.1\n{SHIP}\n{PLANE}\n")
    put(tmp_path / "labelTxt/b.txt", "")
    put(tmp_path / "labelTxt/c.txt", f"{PLANE}\n{SHIP}\n1 1 9 1 9 9 1 9 crane 0\n")
    put(tmp_path / "train.txt", "a\nb\n")
    put(tmp_path / "val.txt", "c\n")
    return tmp_path


def test_dota_by_lists(dota_folder: Path) -> None:
    dataset = open_dataset(dota_folder, "train")
    assert (dataset.format, dataset.kind, dataset.classes) == ("dota", "rbox", ("plane", "ship", "crane"))
    assert [dataset.name(k) for k in range(2)] == ["images/a.png", "images/b.jpg"]
    assert dataset.sizes.tolist() == [[40, 60], [40, 60]]
    assert dataset.counts.tolist() == [2, 0]
    assert dataset.difficult.tolist() == [False, True]
    assert dataset.polygons is not None
    assert dataset.polygons[0].tolist() == [[10.5, 5], [30, 5], [30, 15.25], [10.5, 15.25]]
    assert dataset.boxes.tolist() == [[10.5, 5, 19.5, 10.25], [15, 20, 15, 15]]
    sample = dataset.sample(0)
    assert sample.rotated
    assert sample.corners.dtype == np.float32
    assert sample.corners.tolist() == dataset.polygons.tolist()
    assert "(DOTA labelTxt, train): 2 pictures, 1 of them without objects" in dataset.describe()
    assert dataset.describe().endswith("1 of them difficult")
    assert open_dataset(dota_folder, "val").classes == dataset.classes  # of all label files, so that splits agree


@pytest.mark.parametrize(
    ("pictures", "labels"),
    [
        ("{}/images", "{}/labelTxt"),
        ("{}/images", "{}/labelTxt-v1.5"),
        ("{}/images", "{}/labelTxt-v1.0/labelTxt"),
        ("{}/images", "{}/labelTxt-v2.0/DOTA-v2.0_set"),
        ("{}/images/images", "{}/labelTxt"),
        ("{}/images", "{}/annfiles"),
        ("{}", "{}/labelTxt"),
    ],
)
def test_dota_layouts_with_a_folder_a_split(tmp_path: Path, save_picture: Write, pictures: str, labels: str) -> None:
    for split, name, line in (("train", "a", SHIP), ("val", "b", PLANE)):
        save_picture(tmp_path / pictures.format(split) / f"{name}.png")
        put(tmp_path / labels.format(split) / f"{name}.txt", line)
    if "DOTA-v2.0" in labels:  # the archive has upright boxes beside
        put(tmp_path / "train/labelTxt-v2.0/DOTA-v2.0_train_hbb/a.txt", SHIP)
    for split, name in (("train", "a"), ("val", "b")):
        dataset = open_dataset(tmp_path, split)  # type: ignore[call-overload]
        assert (dataset.format, len(dataset), dataset.num_objects) == ("dota", 1, 1)
        assert dataset.name(0).endswith(f"{name}.png")
        assert dataset.classes == ("plane", "ship")


def test_dota_folder_without_lists_is_a_training_set(dota_folder: Path) -> None:
    for name in ("train.txt", "val.txt"):
        (dota_folder / name).unlink()
    put(dota_folder / "labelTxt/gone.txt", SHIP)
    dataset = open_dataset(dota_folder, "train")
    assert len(dataset) == 3
    assert (
        f"left out: label files without a picture: 1 (the first: {dota_folder}/labelTxt/gone.txt)" in dataset.describe()
    )
    assert open_dataset(dota_folder, "val", missing_ok=True) is None


def test_versions_of_labels_are_named_by_a_data_file(dota_folder: Path) -> None:
    put(dota_folder / "labelTxt-v1.5/a.txt", SHIP)
    (dota_folder / "labelTxt").rename(dota_folder / "labelTxt-v1.0")
    assert "holds labelTxt-v1.0 and labelTxt-v1.5; name one of them" in message_of(dota_folder)
    put(dota_folder / "data.yaml", "train: labelTxt-v1.0\nval: labelTxt-v1.0\nignored: [crane]\n")
    assert open_dataset(dota_folder, "train").num_objects == 2
    val = open_dataset(dota_folder, "val")
    assert val.labels.tolist() == [0, 1, ANY_CLASS]
    assert val.classes == ("plane", "ship")
    truth = val.to_truth()
    assert truth.labels.tolist() == [0, 1, 0, 1]
    assert truth.difficult.tolist() == [True, False, True, True]
    assert truth.pictures == ("c",)


def test_two_pictures_of_one_name(dota_folder: Path, save_picture: Write) -> None:
    save_picture(dota_folder / "images/a.bmp")
    message = message_of(dota_folder)
    assert "images/a.bmp and " in message and "images/a.png are two pictures of the name 'a'" in message
    (dota_folder / "train.txt").write_text("images/a.png\nb\n")
    assert len(open_dataset(dota_folder, "train")) == 2


def test_unknown_class_where_a_list_is_given(dota_folder: Path) -> None:
    put(dota_folder / "classes.txt", "ship\nplanes\n")
    message = message_of(dota_folder)
    assert (
        f"{dota_folder}/labelTxt/a.txt:4 is of class 'plane', which the class list lacks (did you mean 'planes'?)"
        in message
    )
    put(dota_folder / "classes.txt", "ship\nplane\ncrane\n")
    assert open_dataset(dota_folder, "train").classes == ("ship", "plane", "crane")
    assert (
        open_dataset(dota_folder, "train", classes=("ship",))
        .describe()
        .endswith(
            "left out: objects of classes that were not asked for: 1 (the first: annotation 2 of picture images/a.png)"
        )
    )


def test_missing_label_files_and_wrong_lines(dota_folder: Path) -> None:
    (dota_folder / "labelTxt/b.txt").unlink()
    message = message_of(dota_folder)
    assert "1 of the 2 pictures of" in message and "the first is b.jpg; an empty file stands for" in message
    put(dota_folder / "labelTxt/b.txt", f"{SHIP}\n1 2 3 4 5 6 7 ship 0\n")
    assert "b.txt:2 reads '1 2 3 4 5 6 7 ship 0'; expected is x1 y1" in message_of(dota_folder)


def test_what_is_left_out_and_what_is_kept(dota_folder: Path) -> None:
    put(dota_folder / "labelTxt/b.txt", f"{BOW}\n{SHIP}\n0 0 1 1 2 2 3 3 ship 0\n-5 0 9 0 9 9 -5 9 ship 0\n")
    dataset = open_dataset(dota_folder, "train")
    assert dataset.counts.tolist() == [2, 2]
    lines = dataset.describe().splitlines()[1:]
    path = dota_folder / "labelTxt/b.txt"
    assert lines == [
        f"  kept: objects that reach out of their picture: 1 (the first: {path}:4)",
        f"  left out: objects whose polygon crosses itself: 1 (the first: {path}:1)",
        f"  left out: objects without area: 1 (the first: {path}:3)",
    ]


def test_a_picture_cut_off_is_found_when_it_is_read(dota_folder: Path) -> None:
    path = dota_folder / "images/a.png"
    path.write_bytes(path.read_bytes()[:3000])
    dataset = open_dataset(dota_folder, "train")  # sizes are in the header
    with pytest.raises(FocaldetError, match=r"a\.png is (cut off|damaged)"):
        dataset.sample(0)


# --- YOLO-OBB ---


@pytest.fixture
def obb_folder(tmp_path: Path, save_picture: Write) -> Path:
    for name in ("a", "b"):
        save_picture(tmp_path / f"images/train/{name}.png")
        save_picture(tmp_path / f"images/val/{name}.png")
    put(tmp_path / "labels/train/a.txt", "1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n0 0.5 0.5 0.6 0.6 0.5 0.7 0.4 0.6\n")
    put(tmp_path / "labels/val/b.txt", "")
    put(tmp_path / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n")
    return tmp_path


def test_yolo_obb(obb_folder: Path) -> None:
    dataset = open_dataset(obb_folder, "train")
    assert (dataset.format, dataset.kind, dataset.classes) == ("yolo-obb", "rbox", ("cat", "dog"))
    assert dataset.counts.tolist() == [2, 0]
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.polygons is not None
    assert np.allclose(dataset.polygons[0], [[15, 10], [30, 10], [30, 20], [15, 20]])
    (obb_folder / "data.yaml").unlink()
    put(obb_folder / "classes.txt", "cat\ndog\n")
    assert open_dataset(obb_folder, "train").format == "yolo-obb"
    assert open_dataset(obb_folder, "val", kind="rbox").num_objects == 0


def test_yolo_lines_of_two_forms_and_twins(obb_folder: Path, save_picture: Write) -> None:
    path = obb_folder / "labels/train/a.txt"
    path.write_text(path.read_text() + "0 0.5 0.5 0.1 0.1\n")
    message = message_of(obb_folder)
    assert f"line 3 of {path} reads '0 0.5 0.5 0.1 0.1'; nine numbers, class x1 y1" in message
    save_picture(obb_folder / "images/train/a.jpg")
    assert f"images/train/a.png share the label file {path}" in message_of(obb_folder)


# --- HRSC and VOC xml with rotated boxes ---

HRSC = """<HRSC_Image><Img_ID>100</Img_ID><Img_SizeWidth>60</Img_SizeWidth><HRSC_Objects>
<HRSC_Object><Class_ID>100000005</Class_ID><difficult>0</difficult><box_xmin>1</box_xmin><mbox_cx>30</mbox_cx>
<mbox_cy>20</mbox_cy><mbox_w>20</mbox_w><mbox_h>6</mbox_h><mbox_ang>0.5</mbox_ang></HRSC_Object>
<HRSC_Object><Class_ID>100000006</Class_ID><difficult>1</difficult><mbox_cx>10</mbox_cx>
<mbox_cy>10</mbox_cy><mbox_w>8</mbox_w><mbox_h>4</mbox_h><mbox_ang>-1.5</mbox_ang></HRSC_Object>
</HRSC_Objects></HRSC_Image>"""
ROBNDBOX = """<annotation><size><width>60</width><height>40</height></size>
<object><type>robndbox</type><name>tank</name><difficult>0</difficult><robndbox><cx>30</cx><cy>20</cy><w>20</w><h>6</h>
<angle>0.5</angle></robndbox></object>
<object><type>bndbox</type><name>car</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>9</ymax></bndbox>
</object></annotation>"""


def turned(x: float, y: float, w: float, h: float, theta: float) -> np.ndarray:
    """Corners of an rbox by the definition in docs/conventions.md."""
    along, across = np.array([np.cos(theta), np.sin(theta)]), np.array([-np.sin(theta), np.cos(theta)])
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.array([(x, y) + s * w / 2 * along + t * h / 2 * across for s, t in signs])


@pytest.mark.parametrize(
    ("pictures", "labels", "lists"),
    [
        ("FullDataSet/AllImages", "FullDataSet/Annotations", "ImageSets"),
        ("AllImages", "Annotations", "."),
        ("Train/AllImages", "Train/Annotations", None),
    ],
)
def test_hrsc(tmp_path: Path, save_picture: Write, pictures: str, labels: str, lists: str | None) -> None:
    save_picture(tmp_path / pictures / "100.bmp")
    save_picture(tmp_path / pictures / "101.bmp")
    put(tmp_path / labels / "100.xml", HRSC)
    put(tmp_path / labels / "101.xml", "<HRSC_Image><HRSC_Objects/></HRSC_Image>")
    if lists is not None:
        put(tmp_path / lists / "trainval.txt", "100\n101\n")
    dataset = open_dataset(tmp_path, "train")
    assert (dataset.format, dataset.classes, dataset.counts.tolist()) == ("hrsc", ("ship",), [2, 0])
    assert dataset.difficult.tolist() == [False, True]
    assert dataset.polygons is not None
    assert np.allclose(dataset.polygons, [turned(30, 20, 20, 6, 0.5), turned(10, 10, 8, 4, -1.5)])


def test_voc_layout_with_rotated_boxes(tmp_path: Path, save_picture: Write) -> None:
    save_picture(tmp_path / "JPEGImages/a.jpg")
    path = put(tmp_path / "Annotations/a.xml", ROBNDBOX)
    put(tmp_path / "ImageSets/Main/train.txt", "a\n")
    dataset = open_dataset(tmp_path, "train")
    assert (dataset.format, dataset.classes) == ("hrsc", ("car", "tank"))
    assert dataset.polygons is not None
    assert np.allclose(dataset.polygons, [turned(30, 20, 20, 6, 0.5), [[2, 3], [12, 3], [12, 9], [2, 9]]])
    path.write_text(ROBNDBOX.replace("<w>20</w>", "<w>-20</w>"))
    assert f"object 1 of {path} has the box [30.0, 20.0, -20.0, 6.0, 0.5]; give finite numbers" in message_of(tmp_path)
    path.write_text(ROBNDBOX.replace("<w>20</w>", ""))
    assert f"object 1 of {path} has no <robndbox/w>" in message_of(tmp_path)


# --- ICDAR ---


def test_icdar(tmp_path: Path, save_picture: Write) -> None:
    save_picture(tmp_path / "images/img_1.jpg")
    path = put(tmp_path / "gt/gt_img_1.txt", "\ufeff10,5,30,6,30,15,10,14,a, b\n1,1,9,1,9,9,1,9,###\n")
    dataset = open_dataset(tmp_path, "train")
    assert (dataset.format, dataset.classes, dataset.num_objects) == ("icdar", ("text",), 2)
    assert dataset.difficult.tolist() == [False, True]
    path.write_text("10,5,30,6,30,15,10,word\n")
    assert f"{path}:1 reads '10,5,30,6,30,15,10,word'; expected is x1,y1" in message_of(tmp_path)
    path.unlink()
    put(tmp_path / "gt/gt_img_2.txt", "")
    assert f"{path} does not exist, but" in message_of(tmp_path)


def test_icdar_as_it_is_handed_out(tmp_path: Path, save_picture: Write) -> None:
    save_picture(tmp_path / "ch4_test_images/img_1.jpg")
    put(tmp_path / "Challenge4_Test_Task1_GT/gt_img_1.txt", "10,5,30,6,30,15,10,14,word\n")
    assert open_dataset(tmp_path, "val").num_objects == 1
    assert "has a val split but no train split" in message_of(tmp_path)


# --- COCO json with four corners ---


@pytest.mark.parametrize(
    "outline",
    [
        {"segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]], "bbox": [9, 4, 22, 12]},
        {"poly": [10, 5, 30, 5, 30, 15, 10, 15], "bbox": [9, 4, 22, 12]},
        {"bbox": [20, 10, 20, 10, 0.0]},
    ],
)
def test_coco_json_with_rotated_boxes(
    coco_folder: Write, coco_content: dict[str, Any], outline: dict[str, Any]
) -> None:
    coco_content["annotations"][1] |= outline
    coco_content["annotations"][0]["difficult"] = 1
    folder = coco_folder(coco_content)
    dataset = open_dataset(folder, "train")
    assert (dataset.format, dataset.kind) == ("coco", "rbox")
    assert dataset.polygons is not None
    assert dataset.polygons[0].tolist() == [[10, 5], [30, 5], [30, 15], [10, 15]]
    assert dataset.polygons[2].tolist() == [[1, 2], [11, 2], [11, 22], [1, 22]]
    assert dataset.difficult.tolist() == [False, False, True]
    upright = open_dataset(folder, "train", kind="hbox")
    hull = [10, 5, 20, 10] if len(outline["bbox"]) == 5 else outline["bbox"]  # as written, where it is
    assert upright.boxes[0].tolist() == hull
    assert upright.sample(0).hboxes[0].tolist() == [hull[0], hull[1], hull[0] + hull[2], hull[1] + hull[3]]


def test_masks_are_not_rotated_boxes(coco_folder: Write, coco_content: dict[str, Any]) -> None:
    coco_content["annotations"][0]["segmentation"] = [[10, 5, 30, 5, 30, 15, 10, 15]]
    coco_content["annotations"][1]["segmentation"] = [[10, 5, 30, 5, 30, 15]]
    assert open_dataset(coco_folder(coco_content), "train").kind == "hbox"


# --- kinds ---


def test_each_kind_from_the_other(dota_folder: Path, coco_folder: Write) -> None:
    upright = open_dataset(dota_folder, "train", kind="hbox", format="dota")
    assert upright.kind == "hbox"
    assert not upright.sample(0).rotated
    assert upright.sample(0).corners[1].tolist() == [[15, 20], [30, 20], [30, 35], [15, 35]]
    assert "rotated objects are taken by their upright hulls" in upright.describe()
    for name in ("train.txt", "val.txt"):
        (dota_folder / name).unlink()
    folder = coco_folder()
    rotated = open_dataset(folder, "train", kind="rbox", format="coco")
    assert rotated.sample(0).rotated
    assert np.array_equal(rotated.sample(0).corners, open_dataset(folder, "train", format="coco").sample(0).corners)
    assert "upright boxes are taken as rotated ones" in rotated.describe()
    assert "is not known (did you mean 'yolo-obb'?)" in message_of(folder, format="yolo-ob")


def test_the_format_of_the_kind_is_taken_and_said(dota_folder: Path, coco_content: dict[str, Any]) -> None:
    for split in ("train", "val"):
        put(dota_folder / f"instances_{split}.json", json.dumps(coco_content))
    assert "holds COCO json and DOTA labelTxt; say which one counts" in message_of(dota_folder)
    rotated = open_dataset(dota_folder, "train", kind="rbox")
    assert rotated.format == "dota"
    said = "the folder holds COCO json too; DOTA labelTxt is taken for its rotated boxes, format= decides"
    assert said in rotated.describe()


def test_classes_and_pictures_can_be_chosen(dota_folder: Path) -> None:
    dataset = open_dataset(dota_folder, "train")
    part = dataset.with_classes(["ship"]).select([1, 0])
    assert part.polygons is not None
    assert part.polygons.tolist() == dataset.polygons[:1].tolist()  # type: ignore[index]
    assert part.counts.tolist() == [0, 1]


def test_a_batch_has_polygons_as_truth(dota_folder: Path) -> None:
    dataset = open_dataset(dota_folder, "train")
    batch = collate([dataset.sample(0), dataset.sample(1)], mean=(0, 0, 0), std=(1, 1, 1))
    assert batch.truths[0].boxes.shape == (2, 4, 2)
    assert batch.truths[0].boxes[1].tolist() == [[20, 20], [30, 25], [25, 35], [15, 30]]
    assert batch.truths[0].ignored is not None and batch.truths[0].ignored.tolist() == [False, True]
    assert batch.truths[1].boxes.shape == (0, 4, 2)
    trained = collate([dataset.sample(0)], mean=(0, 0, 0), std=(1, 1, 1), difficult="trained")
    assert trained.truths[0].ignored is None


# --- real sets ---


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "format", "classes", "counts"),
    [
        ("hit-uav", "dota", 5, [(400, 3057), (100, 956)]),
        ("dota-samples", "dota", 15, [(4, 651), (3, 230)]),
        ("ucas-aod-mini", "dota", 2, [(55, 464), (18, 125)]),
        ("icdar2015-words", "dota", 1, [(100, 1094), (40, 470)]),
    ],
)
def test_real_sets(shared: Path, name: str, format: str, classes: int, counts: list[tuple[int, int]]) -> None:
    for split, count in zip(("train", "val"), counts, strict=True):
        dataset: Dataset = open_dataset(shared / "data" / name, split, kind="rbox")  # type: ignore[call-overload]
        assert (dataset.format, len(dataset.classes)) == (format, classes)
        assert (len(dataset), dataset.num_objects) == count
    truth, table = dataset.to_truth(), read_label_folder(shared / "data" / name, shared / "data" / name / "val.txt")
    assert truth.pictures == table.pictures
    assert np.array_equal(truth.polygons, table.polygons)
    assert np.array_equal(truth.difficult, table.difficult)
    assert [truth.classes[k] for k in truth.labels] == [table.classes[k] for k in table.labels]


@pytest.mark.data
def test_icdar_and_its_copy_as_dota_agree(shared: Path) -> None:
    one, other = (open_dataset(shared / "data/icdar2015-words", "train", format=name) for name in ("icdar", "dota"))
    assert np.array_equal(one.polygons, other.polygons)  # type: ignore[arg-type]
    assert np.array_equal(one.difficult, other.difficult)
    assert one.difficult.sum() == 676


@pytest.mark.data
def test_upright_and_rotated_labels_of_hit_uav(shared: Path) -> None:
    upright, rotated = (open_dataset(shared / "data/hit-uav", "val", kind=kind) for kind in ("hbox", "rbox"))  # type: ignore[call-overload]
    assert (upright.format, upright.kind, rotated.format, rotated.kind) == ("coco", "hbox", "dota", "rbox")
    assert upright.num_objects == rotated.num_objects
