"""The verbs `train`, `eval` and `score`, from end to end on four tiny pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest


def test_train_leaves_a_complete_run(tiny_run: Path) -> None:
    for name in ("recipe.yaml", "model.safetensors", "metrics.csv", "log.txt", "checkpoints/last.pt"):
        assert (tiny_run / name).is_file(), name
    assert "epochs: 1" in (tiny_run / "recipe.yaml").read_text()


def test_train_as_json_says_progress_on_standard_error(
    command: Any, tiny: tuple[str, ...], tiny_data: Path, tmp_path: Path
) -> None:
    exit_code, out, err = command("train", "retinanet-small", tiny_data, "-o", tmp_path / "run", *tiny, "--json")
    assert exit_code == 0
    document = json.loads(out)
    assert document["steps"] == 2
    assert document["folder"] == str(tmp_path / "run")
    assert "epoch 1/1: 2/2" in err


def test_a_dry_run_writes_nothing(
    command: Any, tiny: tuple[str, ...], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "retinanet-small", tiny_data, "-o", "run", *tiny, "--dry-run"]
    document = json.loads(command(*words, "--json").out)
    assert (document["steps"], document["steps_per_epoch"], document["pictures"]) == (2, 2, 4)
    out = command(*words).out
    assert "2 steps of 2 pictures" in out
    assert "learning rate" in out
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_not_overwritten(command: Any, tiny: tuple[str, ...], tiny_data: Path, tiny_run: Path) -> None:
    exit_code, _, err = command("train", "retinanet-small", tiny_data, "--output", tiny_run, *tiny)
    assert exit_code == 2
    assert "--resume" in err
    assert "--overwrite" in err


def test_resume_goes_on(command: Any, tiny: tuple[str, ...], tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert command("train", "retinanet-small", tiny_data, "-o", folder, *tiny).exit_code == 0
    exit_code, _, err = command("train", "retinanet-small", tiny_data, "-o", folder, "--resume")
    assert exit_code == 0, err
    assert "going on at step 2 of 2" in err


def test_eval_scores_and_keeps_detections(command: Any, tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    words = ["eval", tiny_run, tiny_data, "--output", file]
    scores = json.loads(command(*words, "--json", "score=0.0").out)
    assert {"rule", "AP", "AP50", "classes"} <= set(scores)
    assert set(scores["classes"]) == {"red", "blue"}
    assert json.loads(file.read_text())
    exit_code, _, err = command(*words)
    assert exit_code == 2
    assert "add --overwrite" in err

    again = json.loads(command("score", tiny_data / "instances_val.json", file, "--json").out)
    assert again == scores
    assert "AP50" in command("score", tiny_data / "instances_val.json", file).out


def test_format_decides_where_two_fit(command: Any, tiny: tuple[str, ...], tiny_data: Path, tmp_path: Path) -> None:
    """The pictures have COCO's boxes, red and blue, and YOLO's, of which all are called thing."""
    both = tmp_path / "both"
    shutil.copytree(tiny_data, both)
    (both / "labels").mkdir()
    for number in range(1, 5):
        (both / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.4 0.5\n")
    (both / "classes.txt").write_text("thing\n")
    for split in ("train", "val"):
        (both / f"{split}.txt").write_text("".join(f"images/{number}.png\n" for number in range(1, 5)))
    words = ["train", "retinanet-small", both, *tiny, "--weights", "none"]
    folder = tmp_path / "run"
    assert command(*words, "-o", folder, "format=yolo").exit_code == 0
    assert "classes: [thing]" in (folder / "recipe.yaml").read_text()
    assert set(json.loads(command("eval", folder, both, "format=yolo", "--json").out)["classes"]) == {"thing"}
    assert "the detector does not know 'red', 'blue'" in command("eval", folder, both, "format=coco").err
    assert command(*words[:3], "-o", folder, "--resume", "format=yolo").exit_code == 0
    exit_code, _, err = command(*words, "-o", tmp_path / "other", "format=yollo")
    assert exit_code == 2 and "did you mean 'yolo'?" in err
    assert (
        "'format' is no field" in command("predict", folder, both / "images", "-o", tmp_path / "x", "format=yolo").err
    )


def test_score_of_files_that_are_not_there(command: Any, tiny_data: Path) -> None:
    exit_code, _, err = command("score", "nothing.json", "nothing.json")
    assert exit_code == 1
    assert "nothing.json" in err


def test_data_that_is_not_there(command: Any, tmp_path: Path) -> None:
    exit_code, _, err = command("train", "retinanet-small", "no-such-folder", "-o", tmp_path / "run")
    assert exit_code == 1
    assert "no-such-folder" in err
    assert err.count("\n") == 1


def test_ctrl_c_keeps_the_checkpoint(
    command: Any, tiny: tuple[str, ...], tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("focaldet.engine.trainer.Trainer.step", interrupt)
    exit_code, _, err = command("train", "retinanet-small", tiny_data, "-o", tmp_path / "run", *tiny)
    assert exit_code == 1
    assert err.splitlines()[-1] == "focaldet: stopped by Ctrl-C; what was finished is kept"
    assert (tmp_path / "run" / "checkpoints" / "last.pt").is_file()
