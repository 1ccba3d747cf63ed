"""A loss that is not finite: stopped within the step, the picture and term named, kept, and computed again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from focaldet.cli.main import main
from focaldet.engine import train as train_module
from focaldet.engine.checkpoint import load_checkpoint
from focaldet.engine.failure import batch_from_dict, batch_to_dict, one_picture
from focaldet.engine.job import prepare
from focaldet.engine.replay import replay
from focaldet.engine.trainer import Trainer
from focaldet.engine.update import Updater
from focaldet.errors import FocaldetError

NAME = "retinanet-small"
SMALL: dict[str, Any] = {
    "epochs": 2, "batch": 2, "normalize_over": 2, "sizes": ((64, 64),), "test_size": (64, 64), "backbone": "resnet10t",
    "weights": None,
}  # fmt: skip


def poisoned(monkeypatch: pytest.MonkeyPatch, step: int, poison: Any) -> list[int]:
    """Spoil the second picture of a step; the list tells which steps were finished."""
    losses, done, update = Updater.losses, [], Updater._update

    def spoiled(self: Updater, batch: Any, number: int, group: int = 0) -> Any:
        if number == step:
            poison(batch)
        return losses(self, batch, number, group)

    def counted(self: Updater, groups: Any, number: int, norm: float) -> None:
        update(self, groups, number, norm)
        done.append(number)

    monkeypatch.setattr(Updater, "losses", spoiled)
    monkeypatch.setattr(Updater, "_update", counted)
    return done


def nan_picture(batch: Any) -> None:
    batch.images[1, :, 10, 10] = math.nan


def nan_target(batch: Any) -> None:
    assert batch.targets is not None
    last = batch.targets.positives >= batch.targets.num_anchors
    batch.targets.deltas[last] = math.nan


@pytest.fixture
def failed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run whose step 2 met a picture with a NaN."""
    done = poisoned(monkeypatch, 2, nan_picture)
    with pytest.raises(FocaldetError):
        train_module.train(NAME, data, tmp_path / "run", **SMALL)
    assert done == [0, 1]
    monkeypatch.undo()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("poison", "terms"), [(nan_picture, "class, box, loss"), (nan_target, "box, loss")], ids=["picture", "target"]
)
def test_the_step_stops_and_names_picture_and_term(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Any, terms: str
) -> None:
    done = poisoned(monkeypatch, 1, poison)
    path = tmp_path / "run" / "failure.pt"
    with pytest.raises(FocaldetError, match=r"the loss is not finite") as caught:
        train_module.train(NAME, data, tmp_path / "run", **{**SMALL, "box_loss": "smooth_l1"})
    sentence = str(caught.value)
    state = load_checkpoint(path)  # opens with weights_only=True
    assert done == [0]  # no update was made of it
    assert f"not finite ({terms}) on {state['batch']['names'][1]} at step 1; look at" in sentence  # the second alone
    assert f"`focaldet train --replay {path}` computes it again" in sentence
    assert (state["step"], state["group"]) == (1, 0)
    assert (tmp_path / "run" / "log.txt").read_text().splitlines()[-1] == sentence


def test_a_replay_is_the_same_to_the_bit(failed: Path) -> None:
    again = replay(failed / "failure.pt")
    assert again.same
    assert math.isnan(again.now["loss"]) and again.bad_gradients
    assert "the same to the bit" in again.table()
    assert again.to_dict()["terms"]["loss"] == {"then": "nan", "now": "nan"}


def test_a_replay_of_finite_terms_is_the_same_too(failed: Path) -> None:
    """The same picture without its NaN, so that equal words would not do: the loss of the step is reproduced."""
    path = failed / "failure.pt"
    state = load_checkpoint(path)
    state["batch"]["images"] = state["batch"]["images"].nan_to_num(0.0)
    del state["format"]
    torch.save({"format": 2, **state}, path)
    first = replay(path)
    assert not first.same and math.isfinite(first.now["loss"])
    assert "NOT the same" in first.table()
    torch.save({"format": 2, **state, "terms": first.now}, path)
    assert replay(path).same


def test_the_command_replays(failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--replay", str(failed / "failure.pt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert main(["train", "--replay", str(failed / "checkpoints" / "last.pt")]) == 1
    assert "is a checkpoint, not a failure" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "train needs RECIPE and DATA" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_is_found_behind_a_finite_loss(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from focaldet.engine.forward import Forward

    call = Forward.__call__

    def treacherous(self: Forward, batch: Any, group: int = 0) -> Any:
        losses = call(self, batch, group)
        bias = self.model.get_parameter("head.logits.bias")
        losses["loss"] = losses["loss"] + (bias - bias.detach()).abs().sqrt().sum() * 0  # 0 * inf backwards
        return losses

    monkeypatch.setattr(Forward, "__call__", treacherous)
    with pytest.raises(
        FocaldetError, match=r"the gradient of head\.logits\.bias is not finite, although the loss is \d"
    ):
        train_module.train(NAME, data, tmp_path / "run", **SMALL)
    assert load_checkpoint(tmp_path / "run" / "failure.pt")["step"] == 0


def test_one_picture_of_a_batch_has_its_own_targets(data: Path, tmp_path: Path) -> None:
    changes = {name: value for name, value in SMALL.items() if name != "weights"}
    trainer = Trainer(prepare(NAME, data, changes), tmp_path, torch.device("cpu"))
    (batch,) = next(iter(trainer.loader()))
    whole = batch.targets
    parts = [one_picture(batch, index) for index in range(2)]
    assert whole is not None
    joined = torch.cat([part.targets.positives + index * whole.num_anchors for index, part in enumerate(parts)])  # type: ignore[union-attr]
    assert torch.equal(joined, whole.positives)
    assert [part.names for part in parts] == [[name] for name in batch.names]
    back = batch_from_dict(batch_to_dict(batch))
    assert torch.equal(back.images, batch.images) and back.targets is not None
    assert torch.equal(back.targets.deltas, whole.deltas) and back.names == batch.names
