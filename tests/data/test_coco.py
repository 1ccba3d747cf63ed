from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.data.coco import read_coco
from focaldet.data.formats import open_dataset
from focaldet.data.view import training_view
from focaldet.errors import FocaldetError

Content = dict[str, Any]
Write = Callable[..., Path]


@pytest.mark.golden
def test_training_view_equals_the_reference_reader(golden: Path) -> None:
    expected = json.loads((golden / "coco-eval/training-view.json").read_text())
    dataset = read_coco(golden / "coco-eval/dataset.json", "train", golden)
    assert dataset.category_ids.tolist() == expected["cat_ids"]
    assert dataset.ids.tolist() == expected["test_image_ids"]
    view = training_view(dataset)
    assert view.ids.tolist() == [picture["image_id"] for picture in expected["train"]]
    for index, picture in enumerate(expected["train"]):
        part = slice(view.starts[index], view.starts[index + 1])
        boxes = np.array([item["bbox_xyxy"] for item in picture["instances"]], dtype=np.float32).reshape(-1, 4)
        assert view.sizes[index].tolist() == [picture["height"], picture["width"]]
        assert np.array_equal(view.corners[part][:, [0, 2]].reshape(-1, 4), boxes)
        assert view.labels[part].tolist() == [item["label"] for item in picture["instances"]]
        assert view.crowd[part].tolist() == [bool(item["ignore"]) for item in picture["instances"]]


@pytest.mark.golden
def test_to_coco_gives_the_file_back(golden: Path) -> None:
    path = golden / "coco-eval/dataset.json"
    written, read = json.loads(path.read_text()), read_coco(path, "val", golden).to_coco()
    assert read["images"] == written["images"]
    assert read["categories"] == written["categories"]
    assert sorted(read["annotations"], key=lambda a: a["id"]) == sorted(written["annotations"], key=lambda a: a["id"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "split", "pictures", "objects", "classes", "crowds"),
    [
        ("bccd", "train", 205, 2804, 3, 0),
        ("bccd", "val", 87, 1137, 3, 0),
        ("coco-mini", "train", 128, 939, 80, 10),
        ("coco-mini", "val", 80, 660, 80, 7),
    ],
)
def test_real_sets(shared: Path, name: str, split: Any, pictures: int, objects: int, classes: int, crowds: int) -> None:
    dataset = open_dataset(shared / "data" / name, split)
    assert (len(dataset), dataset.num_objects, len(dataset.classes)) == (pictures, objects, classes)
    assert dataset.crowd.sum() == crowds
    assert f"(COCO json, {split}): {pictures} pictures" in dataset.describe()
    sample = dataset.sample(len(dataset) - 1)
    assert sample.size == tuple(dataset.sizes[-1])
    listed = (shared / "data" / name / f"{split}.txt").read_text().split()
    assert {Path(dataset.name(k)).stem for k in range(len(dataset))} == set(listed)


def test_objects_go_to_their_pictures_in_file_order(coco_folder: Write) -> None:
    dataset = open_dataset(coco_folder(), "train")
    assert dataset.classes == ("cat", "dog")
    assert dataset.ids.tolist() == [7, 3, 20]
    assert dataset.counts.tolist() == [2, 1, 0]
    sample = dataset.sample(0)
    assert sample.labels.tolist() == [1, 0]
    assert sample.crowd.tolist() == [False, True]
    assert np.allclose(sample.hboxes, [[0.1, 0.2, 30.4, 20.6], [5, 5, 25, 25]])
    assert (sample.id, sample.name, sample.original, sample.index) == (7, "a.png", (40, 60), 0)
    assert dataset.tall.tolist() == [False, True, False]
    assert len(dataset.sample(2).labels) == 0


def test_areas_and_sizes_that_are_missing(coco_folder: Write, coco_content: Content) -> None:
    for record in coco_content["annotations"]:
        del record["area"], record["iscrowd"]
    for record in coco_content["images"]:
        del record["height"]
    dataset = open_dataset(coco_folder(), "val")
    assert dataset.areas.tolist() == [pytest.approx(30.3 * 20.4), 400, 200]
    assert dataset.sizes.tolist() == [[40, 60], [60, 40], [40, 60]]
    assert not dataset.crowd.any()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([1, 2, float("nan"), 5], "not finite"),
        ([None, 2, 3, 5], "not finite"),
        ([1, float("inf"), 3, 5], "not finite"),
        ([1, 2, -3, 5], "negative width or height"),
        ([1, 2, 3, 0], "without area"),
    ],
)
def test_boxes_of_no_use_are_left_out_and_said(
    coco_folder: Write, coco_content: Content, box: list[Any], reason: str
) -> None:
    coco_content["annotations"][1]["bbox"] = box
    dataset = open_dataset(coco_folder(), "train")
    assert dataset.num_objects == 2
    assert len(dataset.left_out) == 1
    assert "left out: boxes" in dataset.describe()
    assert dataset.left_out[0].count == 1
    assert reason in dataset.describe()
    assert "annotation 2 of instances_train.json" in dataset.describe()


def test_objects_of_unlisted_pictures_are_left_out(coco_folder: Write, coco_content: Content) -> None:
    coco_content["annotations"][0]["image_id"] = 99
    dataset = open_dataset(coco_folder(), "train")
    assert dataset.counts.tolist() == [2, 0, 0]
    assert "annotation 5 of instances_train.json" in dataset.describe()


def message_of(folder: Path) -> str:
    with pytest.raises(FocaldetError) as caught:
        open_dataset(folder, "train")
    assert "\n" not in str(caught.value)
    assert "instances_train.json" in str(caught.value)
    return str(caught.value)


def test_two_pictures_of_one_id(coco_folder: Write, coco_content: Content) -> None:
    coco_content["images"][2]["id"] = 7
    assert "gives id 7 to two pictures, a.png and c.png" in message_of(coco_folder())


def test_category_without_name(coco_folder: Write, coco_content: Content) -> None:
    coco_content["annotations"][1]["category_id"] = 5
    assert "annotation 2" in (message := message_of(coco_folder()))
    assert "category_id 5, which has no name" in message
    del coco_content["categories"][0]["name"]
    assert "category 9" in message_of(coco_folder())


def test_two_categories_of_one_name(coco_folder: Write, coco_content: Content) -> None:
    coco_content["categories"][0]["name"] = "dog"
    assert "two categories of the name 'dog'" in message_of(coco_folder())


def test_no_pictures(coco_folder: Write, coco_content: Content) -> None:
    coco_content |= {"images": [], "annotations": []}
    assert "lists no pictures" in message_of(coco_folder(dict(coco_content, images=[], annotations=[])))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"image_id": 1, "score": 0.5}], "COCO results"),
        ([1, 2], "a list"),
        ({"pictures": []}, "no list 'images'"),
        ({"images": {}, "annotations": [], "categories": []}, "no list 'images'"),
        ({"images": [1], "annotations": [], "categories": []}, "'images' holds something that is no object"),
        (17, "not COCO json"),
        ("text", "not COCO json"),
    ],
)
def test_json_that_is_not_coco(coco_folder: Write, content: Any, said: str) -> None:
    assert said in message_of(coco_folder(content))


def test_text_that_is_not_json(coco_folder: Write) -> None:
    folder = coco_folder()
    (folder / "instances_train.json").write_text('{"images": [')
    assert "is not valid JSON" in message_of(folder)


@pytest.mark.parametrize(
    ("list_name", "key", "value", "said"),
    [
        ("annotations", "bbox", [1, 2, 3], "annotation 5"),
        ("annotations", "bbox", None, "four numbers"),
        ("annotations", "image_id", "one", "'image_id'"),
        ("images", "id", None, "'id'"),
        ("images", "file_name", None, "picture 1"),
    ],
)
def test_fields_that_are_wrong(
    coco_folder: Write, coco_content: Content, list_name: str, key: str, value: Any, said: str
) -> None:
    coco_content[list_name][0][key] = value
    assert said in message_of(coco_folder())


def test_missing_pictures_are_found_at_once(coco_folder: Write) -> None:
    folder = coco_folder()
    (folder / "images/b.png").unlink()
    (folder / "images/c.png").unlink()
    message = message_of(folder)
    assert "2 of the 3 pictures" in message
    assert "the first is b.png" in message
    (folder / "images/a.png").unlink()
    assert "a.png of" in message_of(folder)
