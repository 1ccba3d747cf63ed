"""The ways a run can work: which weights are kept, patience, figures for others."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from focaldet.engine import train as train_module
from focaldet.engine.checkpoint import load_checkpoint, load_weights
from focaldet.engine.history import read_class_history, read_history
from focaldet.engine.weights import read_weights
from focaldet.errors import FocaldetError

NAME = "retinanet-small"
SMALL: dict[str, Any] = {
    "epochs": 2, "batch": 2, "normalize_over": 1, "sizes": ((64, 64),), "test_size": (64, 64), "backbone": "resnet10t",
    "backbone_norm": "trained", "weights": None,
}  # fmt: skip


# --- averaged weights ---
def test_averaged_weights_are_scored_and_kept(data: Path, tmp_path: Path) -> None:
    train_module.train(NAME, data, tmp_path / "run", **{**SMALL, "epochs": 1, "ema": 0.9})
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    kept = load_weights(tmp_path / "run" / "model.safetensors")[0]
    assert all(torch.equal(kept[name], value) for name, value in state["average"]["model"].items())
    assert not all(torch.equal(kept[name], value) for name, value in state["model"].items())
    again = read_weights(tmp_path / "run" / "checkpoints" / "last.pt").state
    assert all(torch.equal(kept[name], value) for name, value in again.items())


# --- when to score, when to end ---
def test_scores_come_every_so_many_epochs_and_at_the_end(data: Path, tmp_path: Path) -> None:
    run = train_module.train(NAME, data, tmp_path / "run", eval_every=2, **{**SMALL, "epochs": 3})
    rows = read_history(run.folder / "metrics.csv")
    assert ["val_loss" in row for row in rows] == [False, True, True]
    classes = read_class_history(run.folder / "metrics_classes.csv")
    assert [(row["epoch"], row["class"]) for row in classes] == [(2, "blue"), (2, "red"), (3, "blue"), (3, "red")]
    assert all(row["objects"] == 4 for row in classes)


def test_patience_ends_a_run_and_a_run_that_goes_on_stays_ended(
    data: Path, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = recorder()
    options = {**SMALL, "epochs": 9, "lr": 1e-9}  # learns nothing: the first score stays the best
    run = train_module.train(NAME, data, tmp_path / "run", patience=2, listener=listener, **options)
    assert run.steps == 3 * 2
    assert "no better AP in 2 validations: the run ends at step 6" in listener.lines
    again = train_module.train(NAME, data, tmp_path / "run", patience=2, resume=True)
    assert again.steps == 6


# --- a run that can be followed ---
def test_steps_tell_what_people_look_at(data: Path, recorder: Any, tmp_path: Path) -> None:
    listener = recorder()
    run = train_module.train(NAME, data, tmp_path / "run", profile=True, listener=listener, **{**SMALL, "epochs": 4})
    assert {"loss", "class", "box", "lr", "grad_norm", "pictures_s", "memory_gb"} <= set(listener.figures[0])
    assert all(0 < row["memory_gb"] < 100 and row["pictures_s"] > 0 for row in read_history(run.folder / "metrics.csv"))
    assert sum(run.profile.values()) == pytest.approx(1.0, abs=0.02)
    assert all(run.profile[part] > 0 for part in ("data", "assignment", "forward", "backward", "optimizer"))
    assert "profile: " in listener.lines[-1] and "backward" in listener.lines[-1]


def test_tensorboard_is_asked_for(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(FocaldetError, match=r"not installed: pip install 'focaldet\[log\]'; metrics\.csv has the same"):
        train_module.train(NAME, data, tmp_path / "none", tensorboard=True, **SMALL)
    written: list[tuple[str, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str, flush_secs: int) -> None:
            assert folder.endswith("tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, step))

        def close(self) -> None:
            written.append(("closed", 0))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train_module.train(NAME, data, tmp_path / "run", tensorboard=True, **{**SMALL, "epochs": 1})
    assert ("train/loss", 1) in written and ("train/lr", 2) in written and ("val/AP", 2) in written
    assert written[-1] == ("closed", 0)
