"""benchmarks/rotated_peers.py: peers that are installed answer as we do; what others are given holds what it should."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from focaldet.bench import geometry
from focaldet.bench.scenes import contest
from focaldet.data.dota import read_label_folder
from focaldet.metrics.dota import rotated_scores
from focaldet.results.dota import read_task1

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("rotated_peers")


def test_installed_peers_agree(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "ASSIGN_MS", {9: 2.0})
    others, missing = peers.importable_peers(None)
    assert len(others) + len(missing) == 8
    assert "torchvision" in {peer.name for peer in others}
    assert "Not measured: DOTA_devkit (no --devkit FOLDER was given)." in missing
    quick = geometry.Effort(repeats=1, turn=0.0, patience=1.0, share=0.01)
    found = geometry.measure(quick, [peer for peer in others if "mm" not in peer.name], ["iou", "nms", "assign"])
    for answer in found.answers:
        if answer.task.startswith("IoU") and not answer.who.startswith("focaldet"):
            assert answer.said.endswith(" 0 pairs differ by more than 0.001"), answer
    assert {line.who for line in found.rows} >= {peer.name for peer in others if peer.iou and "mm" not in peer.name}


def test_pairs_of_hulls_and_their_ious(peers: ModuleType) -> None:
    boxes1 = torch.tensor([[2.0, 2, 4, 4, 0], [50, 50, 4, 4, 0]])
    boxes2 = torch.tensor([[4.0, 2, 4, 4, 0]])
    hulls = [
        torch.cat([boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2], 1) for boxes in (boxes1, boxes2)
    ]
    rows, columns = peers.hulls_that_meet(*hulls)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])
    ious = peers.over_union(boxes1, boxes2, rows, columns, torch.tensor([8.0]))
    torch.testing.assert_close(ious, torch.tensor([[1 / 3], [0.0]]))


def test_files_for_the_devkit_hold_the_contest(peers: ModuleType) -> None:
    made = contest(4, 12, 30, num_classes=3)
    with peers.written(made) as folder:
        truth, found = read_label_folder(Path(folder) / "labelTxt"), read_task1(folder)
        names = (Path(folder) / "pictures.txt").read_text().split()
    assert (
        sorted(truth.pictures) == names
        and len(truth) == 36
        and int(truth.difficult.sum()) == int(made.truth.difficult.sum())
    )
    assert rotated_scores(truth, found).figures == rotated_scores(made.truth, made.found).figures


def test_boxes_for_mmrotate_hold_the_contest(peers: ModuleType) -> None:
    made = contest(4, 12, 30, num_classes=3)
    found, truth = peers.boxes_of_pictures(made)
    assert len(found) == len(truth) == 4 and all(len(classes) == 3 for classes in found)
    for picture, classes in enumerate(found):
        for label, boxes in enumerate(classes):
            here = (made.found.owners == picture) & (made.found.labels == label)
            np.testing.assert_array_equal(boxes, np.column_stack([made.found_boxes, made.found.scores])[here])
        assert len(truth[picture]["labels"]) == len(truth[picture]["bboxes"])
    assert sum(len(each["bboxes_ignore"]) for each in truth) == int(made.truth.difficult.sum())


def test_page_is_written_between_its_marks(peers: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    importlib.import_module("page").put_between_marks(page, "new")
    assert page.read_text() == "before\n<!-- measured: begin -->\n\nnew\n<!-- measured: end -->\nafter\n"


def test_wrong_parts_are_told(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["geometry.py", "iuo"])
    with pytest.raises(SystemExit):
        importlib.import_module("geometry").main()
    assert "there is no iuo; there are iou, nms, assign" in capsys.readouterr().err
