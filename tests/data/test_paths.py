"""Files that a data set may name: which are refused, in every format, and how they are allowed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from focaldet.data.formats import open_dataset
from focaldet.data.paths import VARIABLE, is_inside, outside_allowed
from focaldet.errors import FocaldetError

Write = Callable[..., Path]
POLYGON = "10 5 30 5 30 15 10 15 ship 0\n"
XML = "<annotation><size><width>60</width><height>40</height></size></annotation>"


@pytest.fixture
def root(tmp_path: Path, save_picture: Write) -> Path:
    """A folder for a data set with a picture in `images`, and a private picture beside the folder."""
    save_picture(tmp_path / "private.png")
    save_picture(tmp_path / "set/images/a.png")
    return tmp_path / "set"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def coco(root: Path, *names: str) -> Path:
    images = [{"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(names, 1)]
    content: dict[str, Any] = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    return put(root / "instances_train.json", json.dumps(content))


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(FocaldetError) as caught:
        open_dataset(path, "train", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("if you trust this file, add --allow-outside")
    return message


@pytest.mark.parametrize("written", ["../../private.png", "./../../private.png", "{root}/../private.png"])
@pytest.mark.parametrize("first", [True, False])
def test_coco(root: Path, written: str, first: bool) -> None:
    name = written.format(root=root)
    names = (name, "a.png") if first else ("a.png", name)
    path = coco(root, *names)
    for asked in (path, root):
        message = refusal(asked)
        assert f"picture {1 if first else 2} of {path} names {name}, which lies outside" in message
    assert refusal(path).count(str(root)) >= 1
    if not first:  # the place of the first picture is where names start
        assert len(open_dataset(path, "train", allow_outside=True)) == 2


def test_coco_within_its_folder(root: Path) -> None:
    """Names may go up and down, or be absolute, as long as they stay."""
    assert len(open_dataset(coco(root, "../images/a.png"), "train")) == 1
    assert len(open_dataset(coco(root, str(root / "images/a.png")), "train")) == 1


def test_coco_within_the_folders_of_a_data_file(root: Path) -> None:
    (root / "labels").mkdir()
    path = coco(root, "../images/a.png").rename(root / "labels/one.json")
    assert "picture 1 of" in refusal(path)
    put(root / "data.yaml", "train: labels/one.json\n")
    assert open_dataset(root, "train").path(0).is_file()


def lay_out_yolo(root: Path) -> str:
    put(root / "labels/a.txt", "0 0.5 0.5 1 1\n")
    put(root / "classes.txt", "cat\n")
    return "train.txt"


def lay_out_dota(root: Path) -> str:
    put(root / "labelTxt/a.txt", POLYGON)
    put(root / "labelTxt/private.txt", POLYGON)
    return "train.txt"


def lay_out_voc(root: Path) -> str:
    put(root / "Annotations/a.xml", XML)
    put(root / "Annotations/private.xml", XML)
    return "ImageSets/Main/train.txt"


def lay_out_hrsc(root: Path) -> str:
    for name in ("a", "private"):
        box = "<mbox_cx>9</mbox_cx><mbox_cy>9</mbox_cy><mbox_w>9</mbox_w><mbox_h>5</mbox_h><mbox_ang>0</mbox_ang>"
        put(root / f"Annotations/{name}.xml", f"<HRSC_Image><HRSC_Object>{box}</HRSC_Object></HRSC_Image>")
    return "ImageSets/train.txt"


def lay_out_icdar(root: Path) -> str:
    put(root / "gt/gt_a.txt", "10,5,30,5,30,15,10,15,word\n")
    put(root / "gt/gt_private.txt", "10,5,30,5,30,15,10,15,word\n")
    return "train.txt"


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("lay_out", [lay_out_yolo, lay_out_dota, lay_out_voc, lay_out_hrsc, lay_out_icdar])
def test_lists_of_pictures(root: Path, lay_out: Callable[[Path], str], absolute: bool) -> None:
    path = root / lay_out(root)

    def name_of(picture: Path) -> str:
        return str(picture) if absolute else os.path.relpath(picture, path.parent)

    private = name_of(root.parent / "private.png")
    put(path, f"{name_of(root / 'images/a.png')}\n\n{private}\n")
    assert f"line 3 of {path} names {private}, which lies outside of the data set's folder {root}" in refusal(root)
    assert len(open_dataset(root, "train", allow_outside=True)) == 2
    put(path, f"{name_of(root / 'images/a.png')}\n")
    assert len(open_dataset(root, "train")) == 1


def test_lines_of_another_machine_are_taken_by_their_stems(root: Path) -> None:
    lay_out_yolo(root)
    put(root / "train.txt", "/home/someone/else/images/a.png\n")
    assert open_dataset(root, "train").name(0) == "images/a.png"


def test_a_data_file_may_name_folders_anywhere_and_says_so(root: Path) -> None:
    """Who writes `path:` names a folder as on a command line; lists within it have to stay in it."""
    lay_out_yolo(root)
    (root / "train.txt").write_text("images/a.png\n")
    for text in (f"path: {root}\ntrain: train.txt\n", "path: ../set\ntrain: train.txt\n", f"train: {root}/images\n"):
        path = put(root.parent / "elsewhere/set.yaml", f"{text}names: [cat]\n")
        dataset = open_dataset(path, "train")
        assert dataset.num_objects == 1
        assert "set.yaml names" in dataset.describe() and "outside of its folder" in dataset.describe()
    (root / "train.txt").write_text("images/a.png\n../private.png\n")
    put(path, f"path: {root}\ntrain: train.txt\nnames: [cat]\n")
    assert "line 2 of" in refusal(path)
    put(path, f"path: {root}\ntrain: [train.txt]\nformat: yolo\nnames: [cat]\n")
    assert "line 2 of" in refusal(path)


def test_allowing_ends_with_its_block(root: Path) -> None:
    path = coco(root, "a.png", "../../private.png")
    with outside_allowed():
        assert len(open_dataset(path, "train")) == 2
        with outside_allowed(False):  # not wanted here, but wanted around
            assert os.environ[VARIABLE] == "1"
    assert VARIABLE not in os.environ
    refusal(path)


def test_a_variable_allows_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a run starts are told by the environment."""
    path = coco(root, "a.png", "../../private.png")
    monkeypatch.setenv(VARIABLE, "0")
    refusal(path)
    monkeypatch.setenv(VARIABLE, "1")
    with outside_allowed():
        pass
    assert os.environ[VARIABLE] == "1"
    assert len(open_dataset(path, "train")) == 2


def test_links_are_the_owners_affair(root: Path) -> None:
    (root / "images/b.png").symlink_to(root.parent / "private.png")
    assert len(open_dataset(coco(root, "a.png", "b.png"), "train")) == 2


def test_the_root_of_the_file_system_is_no_folder_of_a_data_set() -> None:
    assert not is_inside(Path("/etc/x.jpg"), [Path("/")])
    assert not is_inside(Path("/data/sets"), [Path("/data/set")])
