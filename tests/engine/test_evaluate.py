"""Scoring: right figures whatever the order of classes, the same by Python and by command line, faults said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import focaldet
from focaldet.cli.main import main
from focaldet.data.formats import open_dataset
from focaldet.engine.detector import Detector
from focaldet.engine.evaluate import evaluate_detector, in_classes, results_of
from focaldet.errors import FocaldetError
from focaldet.results.detections import Detections

BUILT = {"test_size": (96, 64), "score": 0.0}


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes every detector see exactly what a dataset's file holds, by class name; optionally a class too much."""

    def install(path: Path, also: str | None = None) -> None:
        truth = json.loads(path.read_text())
        name_of = {category["id"]: category["name"] for category in truth["categories"]}

        def detect(self: Detector, batch: Any, stages: Any = None) -> list[Detections]:
            answers = []
            for image_id in batch.ids:
                rows = [entry for entry in truth["annotations"] if entry["image_id"] == image_id]
                boxes = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in rows)]
                labels = [self.classes.index(name_of[row["category_id"]]) for row in rows]
                if also is not None:
                    boxes.append([0, 0, 50, 50])
                    labels.append(self.classes.index(also))
                scores = torch.full((len(labels),), 0.9)
                answers.append(Detections(torch.tensor(boxes), scores, torch.tensor(labels), self.classes))
            return answers

        monkeypatch.setattr(Detector, "detect", detect)

    return install


@pytest.mark.parametrize(
    "classes", [("red", "blue"), ("blue", "red"), ("blue", "green", "red"), ("green", "red", "yellow", "blue")]
)
def test_classes_are_joined_by_name_whatever_their_order(data: Path, oracle: Any, classes: tuple[str, ...]) -> None:
    also = "green" if "green" in classes else None
    oracle(data / "instances_val.json", also)
    detector = focaldet.load("retinanet-small", classes=classes, **BUILT)
    evaluation = evaluate_detector(detector, open_dataset(data, "val"))
    assert evaluation.scores["AP"] == 1.0  # what is of a class that the data does not name counts for nothing
    assert {name: each["AP"] for name, each in evaluation.scores.classes.items()} == {"red": 1.0, "blue": 1.0}
    assert [found.names[:2] for found in evaluation.detections] == [["red", "blue"]] * 4
    assert set(evaluation.losses) == {"class", "box", "loss"}


def test_a_dataset_of_some_of_the_classes(new_data: Any, oracle: Any) -> None:
    data = new_data(classes=("blue",))
    oracle(data / "instances_val.json", also="red")
    scores = focaldet.evaluate(focaldet.get_recipe("retinanet-small").replace(classes=("red", "blue"), **BUILT), data)
    assert scores["AP"] == 1.0
    assert list(scores.classes) == ["blue"]


def test_losses_do_not_depend_on_the_order_of_the_datas_classes(data: Path, new_data: Any) -> None:
    detector = focaldet.load("retinanet-small", classes=("red", "blue"), **BUILT)
    document = json.loads((data / "instances_val.json").read_text())
    turned = new_data("turned")
    for split in ("train", "val"):
        (turned / f"instances_{split}.json").write_text(
            json.dumps(document | {"categories": document["categories"][::-1]})
        )
    assert open_dataset(turned, "val").classes == ("blue", "red")
    losses = [evaluate_detector(detector, open_dataset(folder, "val")).losses for folder in (data, turned)]
    assert losses[0] == losses[1]


def test_labels_are_counted_in_the_longer_list(data: Path) -> None:
    dataset = open_dataset(data, "val")
    joined = in_classes(dataset, ("blue", "green", "red"))
    assert joined.labels.tolist() == [2, 0] * 4
    assert joined.classes == dataset.classes  # scoring stays in the data's own


def test_results_are_in_the_datas_own_numbers(data: Path) -> None:
    dataset = open_dataset(data, "val")
    found = Detections(torch.tensor([[1.0, 2, 5, 9], [0, 0, 3, 3]]), torch.tensor([0.9, 0.8]), torch.tensor([1, 2]),
                       ("green", "blue", "red"))  # fmt: skip
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), ("green", "blue", "red"))
    results = results_of(dataset, [found, empty, empty, empty])
    assert [(entry["image_id"], entry["category_id"], entry["bbox"]) for entry in results] == [
        (11, 29, [1, 2, 4, 7]), (11, 30, [0, 0, 3, 3]),
    ]  # fmt: skip


def test_a_class_that_the_detector_does_not_know(new_data: Any, unbroken: Any) -> None:
    words = r"does not know 'green': it has the classes red, blue; the data has green, blue"
    with pytest.raises(FocaldetError, match=words):
        focaldet.evaluate(unbroken[0].folder, new_data(classes=("green", "blue")))


def test_python_and_command_line_say_the_same(
    data: Path, unbroken: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, found, truth = unbroken[0].folder, tmp_path / "found.json", data / "instances_val.json"
    scores = focaldet.evaluate(folder, data, output=found, score=0.0)
    words = ["eval", str(folder), str(data), "--output", str(tmp_path / "again.json"), "score=0.0", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == scores.to_dict()
    assert (tmp_path / "again.json").read_bytes() == found.read_bytes()
    assert json.loads(found.read_text())
    again = focaldet.score(truth, found)
    assert again.to_dict() == scores.to_dict()
    assert main(["score", str(truth), str(found), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == again.to_dict()
    agnostic = focaldet.score(truth, found, class_agnostic=True)
    assert main(["score", str(truth), str(found), "--class-agnostic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == agnostic.to_dict()
    assert agnostic.to_dict() != again.to_dict()


def test_other_pictures_and_processes_change_nothing_else(data: Path, unbroken: Any) -> None:
    alone = focaldet.evaluate(unbroken[0].folder, data, score=0.0)
    helped = focaldet.evaluate(unbroken[0].folder, data, score=0.0, workers=1, split="train")  # the same pictures
    assert alone.to_dict() == helped.to_dict()


def test_no_validation_pictures(new_data: Any, unbroken: Any) -> None:
    data = new_data()
    (data / "instances_val.json").unlink()
    with pytest.raises(FocaldetError, match="val"):
        focaldet.evaluate(unbroken[0].folder, data)


def test_a_picture_that_cannot_be_read(new_data: Any, unbroken: Any) -> None:
    data = new_data()
    (data / "images" / "3.png").write_bytes(b"text")
    with pytest.raises(FocaldetError, match=r"3\.png is not a picture"):
        focaldet.evaluate(unbroken[0].folder, data)


GOOD = {"image_id": 11, "category_id": 30, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("detections", "words"),
    [
        ("not json", r"found\.json: line 1 is not json"),
        ({"images": []}, r"found\.json"),
        ([GOOD, GOOD | {"category_id": 7}], r"found\.json: .*1.*category_id.*7"),
        ([GOOD | {"image_id": 99}], r"found\.json: .*0.*image_id.*99"),
        ([GOOD | {"bbox": [1, 2, 3]}], r"found\.json: .*0.*bbox"),
        ([GOOD | {"bbox": [1, 2, 3, float("nan")]}], r"found\.json: .*0.*bbox"),
        ([{"image_id": 11}], r"found\.json: .*0"),
    ],
)
def test_files_of_detections_that_are_wrong(data: Path, tmp_path: Path, detections: Any, words: str) -> None:
    found = tmp_path / "found.json"
    found.write_text(detections if isinstance(detections, str) else json.dumps(detections))
    with pytest.raises(FocaldetError, match=words) as caught:
        focaldet.score(data / "instances_val.json", found)
    assert "\n" not in str(caught.value)


def test_files_of_truth_that_are_wrong(data: Path, tmp_path: Path) -> None:
    found, truth = tmp_path / "found.json", tmp_path / "truth.json"
    found.write_text(json.dumps([GOOD]))
    for content, words in (("[]", r"truth\.json: is not COCO annotations"), ("{", r"truth\.json: line 1 is not json")):
        truth.write_text(content)
        with pytest.raises(FocaldetError, match=words):
            focaldet.score(truth, found)
    with pytest.raises(FocaldetError, match=r"nothing\.json: cannot be read \(No such file"):
        focaldet.score(tmp_path / "nothing.json", found)
    with pytest.raises(FocaldetError, match=r"nothing\.json: cannot be read \(No such file"):
        focaldet.score(data / "instances_val.json", tmp_path / "nothing.json")
