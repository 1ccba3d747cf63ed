"""Rotated boxes through the whole house: train on label files, score, resume the folder, predict into every format."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch

import focaldet
from focaldet.data.formats import open_dataset
from focaldet.engine.evaluate import evaluate, evaluate_detector
from focaldet.engine.plan import plan
from focaldet.engine.predict import predict_folder
from focaldet.engine.run import Run
from focaldet.engine.train import train
from focaldet.recipes import State, get_recipe
from focaldet.structures import Truth

TINY = {"epochs": 1, "batch": 2, "normalize_over": 2, "sizes": ((96, 64),), "test_size": (96, 64), "augment": ("flip",)}


def turned(x: float, y: float, w: float, h: float, theta: float) -> list[float]:
    cos, sin = math.cos(theta), math.sin(theta)
    ends = ((-w, -h), (w, -h), (w, h), (-w, h))
    return [number for u, v in ends for number in (x + (u * cos - v * sin) / 2, y + (u * sin + v * cos) / 2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DOTA's own layout: pictures of 96 x 64 with two turned boxes each."""
    folder, rng = tmp_path_factory.mktemp("rotated"), np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split / "images").mkdir(parents=True)
        (folder / split / "labelTxt").mkdir()
        for number in range(4):
            picture = PIL.Image.new("RGB", (96, 64), (90, 90, 90))
            lines = []
            for name, colour, x in (("ship", (200, 30, 30), 28), ("harbor", (30, 30, 200), 68)):
                corners = turned(x, 32, 30, 14, float(rng.uniform(-1.5, 1.5)))
                PIL.ImageDraw.Draw(picture).polygon(corners, fill=colour)
                lines.append(" ".join([*(f"{value:.2f}" for value in corners), name, "0"]))
            picture.save(folder / split / "images" / f"P{number}.png")
            (folder / split / "labelTxt" / f"P{number}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train("retinanet-h-small", data, tmp_path_factory.mktemp("run") / "run", **TINY)


def test_a_run_scores_by_the_rules_of_rotated_boxes(run: Run, data: Path) -> None:
    assert set(run.recipe.classes) == {"harbor", "ship"}
    assert run.scores is not None and "AP50_voc07" in run.scores.to_dict()
    again = evaluate(run.folder, data)
    assert again.to_dict() == run.scores.to_dict()


def test_the_written_answers_score_as_the_run_did(run: Run, data: Path, tmp_path: Path) -> None:
    evaluate(run.folder, data, output=tmp_path / "found.json")
    scores = focaldet.score(data / "val" / "labelTxt", tmp_path / "found.json")
    expected = run.scores
    assert expected is not None
    for name in ("AP50_voc07", "AP50_voc12", "AP", "AP50", "AP75"):
        assert scores.to_dict()[name] == pytest.approx(expected.to_dict()[name], abs=1e-6)  # files hold float32 corners


def test_predictions_come_in_every_format(run: Run, data: Path, tmp_path: Path) -> None:
    detector = focaldet.load(run.folder)
    formats = ("json", "coco", "task1", "draw")
    summary = predict_folder(detector, [data / "val" / "images"], tmp_path / "found", formats=formats, score=0.001)
    assert [path.name for path in summary.files] == [
        "detections.json", "coco.json", "coco-images.json", "task1", "drawn",
    ]  # fmt: skip
    records = json.loads((tmp_path / "found" / "detections.json").read_text())
    entries = json.loads((tmp_path / "found" / "coco.json").read_text())
    assert len(records[0]["box"]) == 5 and len(records) == len(entries)
    (outline,) = entries[0]["segmentation"]
    x, y, width, height = entries[0]["bbox"]
    assert (min(outline[::2]), max(outline[1::2])) == (x, y + height) and width > 0
    lines = [line for path in (tmp_path / "found" / "task1").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) == len(records) and all(len(line.split()) == 10 for line in lines)


def test_a_scene_is_seen_by_tiles_and_merged(run: Run, data: Path) -> None:
    detector = focaldet.load(run.folder, score=0.001)
    picture = np.asarray(PIL.Image.open(data / "val" / "images" / "P0.png"))
    scene = np.tile(picture, (2, 3, 1))  # 288 x 128
    whole, tiled = detector.predict(scene), detector.predict(scene, tile=96, overlap=32)
    assert tiled.rotated and len(tiled) > 0
    assert float(tiled.boxes[:, 0].max()) > 192 and float(tiled.boxes[:, 1].max()) > 64  # tiles of all corners speak
    assert detector.predict(picture, tile=96, overlap=32).boxes.equal(
        detector.predict(picture).boxes
    )  # under 1.5 tiles
    assert not (len(whole) == len(tiled) and whole.boxes.equal(tiled.boxes))


def test_scenes_of_a_dataset_are_scored_tile_by_tile(run: Run, data: Path) -> None:
    detector = focaldet.load(run.folder, tile=40, overlap=8)  # 96 x 64 is over 1.5 tiles
    dataset = open_dataset(data, "val", kind="rbox")
    evaluation = evaluate_detector(detector, dataset)
    alone = [detector.predict(dataset.path(index)) for index in range(len(dataset))]
    assert evaluation.losses == {}
    for found, expected in zip(evaluation.detections, alone, strict=True):
        assert found.boxes.equal(expected.boxes) and found.scores.equal(expected.scores)


def test_scenes_and_small_pictures_keep_their_places(run: Run, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "val", tmp_path / "mixed")
    large = tmp_path / "mixed" / "images" / "P1.png"
    PIL.Image.open(large).resize((192, 128)).save(large)
    detector = focaldet.load(run.folder, tile=96, overlap=32)
    dataset = open_dataset(tmp_path / "mixed", "train", kind="rbox")
    evaluation = evaluate_detector(detector, dataset)
    alone = [detector.predict(dataset.path(index)) for index in range(len(dataset))]
    assert "loss" in evaluation.losses
    for found, expected in zip(evaluation.detections, alone, strict=True):
        torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-3, rtol=0)  # batches round differently


def test_losses_take_rboxes_and_polygons_alike() -> None:
    detector = focaldet.load("retinanet-h-small", classes=("ship",))
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    rboxes = torch.tensor([[40.0, 30.0, 30.0, 14.0, 0.6]])
    polygons = torch.tensor(turned(*rboxes[0].tolist())).reshape(1, 4, 2)
    labels = torch.tensor([0])
    of_rbox, of_polygon = (detector.losses([picture], [Truth(boxes, labels)]) for boxes in (rboxes, polygons))
    assert of_rbox["box"].detach() > 0
    for name in ("class", "box", "loss"):
        torch.testing.assert_close(of_polygon[name], of_rbox[name], rtol=1e-4, atol=0)  # corners rounded to float32


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("retinanet-h_r50d_1x_dota", "published"),
        ("retinanet-h_r50d_1x_dota_atan", "fixed"),
        ("retinanet-h_r50d_1x_dota_180", "published"),
        ("retinanet-r_r50d_1x_dota", "fixed"),
        ("retinanet-r_r50d_1x_dota_iou", "published"),
        ("rotated_retinanet_hbb_r50_fpn_1x_dota_oc", "published"),
        ("rotated_retinanet_obb_r50_fpn_1x_dota_le135", "published"),
        ("r3det_r50d_2x_dota", "published"),
        ("r3det-star_r50d_2x_dota", "fixed"),
        ("r3det-pp_r50d_2x_dota", "clean"),
        ("r3det_r50_fpn_1x_dota_oc", "published"),
    ],
)
def test_a_published_recipe_takes_a_step(data: Path, tmp_path: Path, name: str, state: State) -> None:
    recipe = get_recipe(name, state)
    small = {"backbone": "resnet18d" if recipe.row else "resnet18", "neck_channels": 32, "head_channels": 32}
    size = {"sizes": ((64, 64),), "test_size": (64, 64), "epochs": 1}
    run = train(recipe.replace(**small, **size), data, tmp_path / "run", weights=None)
    assert run.steps == math.ceil(4 / recipe.batch) and run.scores is not None
    assert run.recipe.quirks == recipe.quirks


def test_a_row_is_planned_on_own_data(data: Path) -> None:
    """The row keeps its batch and rates; steps, drops and warm-up follow the data, and it is said."""
    planned = plan("retinanet-h_r50d_1x-8gpu_dota", data, sizes=((64, 64),), backbone="resnet18d", head_channels=32)
    assert (planned.pictures, planned.batch, planned.steps_per_epoch, planned.steps) == (4, 8, 1, 20)
    assert planned.rates[0] == pytest.approx(5e-5) and planned.rates[10] == 5e-4
    assert planned.rates[19] == pytest.approx(5e-6)
    said = " ".join(planned.notes)
    assert "2 of the data instead of the recipe's 15" in said and "instead of 27,000" in said
    assert "warm-up of 2 steps" in said
