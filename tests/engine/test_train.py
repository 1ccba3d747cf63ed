"""Training: the files of a run, going on where one stopped, fine-tuning, and faults that lose nothing."""

from __future__ import annotations

import csv
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import focaldet
from focaldet.cli.main import main
from focaldet.engine import train as train_module
from focaldet.engine import trainer as trainer_module
from focaldet.engine.checkpoint import load_checkpoint, load_recipe, load_weights, save_recipe
from focaldet.engine.history import COLUMNS, read_history
from focaldet.engine.job import prepare
from focaldet.engine.options import Options
from focaldet.engine.plan import plan
from focaldet.engine.trainer import Trainer
from focaldet.engine.update import Updater
from focaldet.errors import FocaldetError, UsageError
from focaldet.losses.criterion import Criterion
from focaldet.results import files

NAME = "retinanet-small"
TIMES = ("time_s", "cpu_s", "pictures_s", "memory_gb")


def last(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder / "checkpoints" / "last.pt")


def assert_equal_runs(one: Path, other: Path) -> None:
    """Weights, optimizer, position and measured figures are the same to the last bit; times are not."""
    states = last(one), last(other)
    for name, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][name]), name
    moments = [state["optimizer"]["state"] for state in states]
    assert all(torch.equal(moments[0][k]["exp_avg_sq"], moments[1][k]["exp_avg_sq"]) for k in moments[0])
    assert states[0]["sampler"] == states[1]["sampler"]
    assert states[0]["best"] == states[1]["best"]
    rows = [[{k: v for k, v in row.items() if k not in TIMES} for row in read_history(run / "metrics.csv")]
            for run in (one, other)]  # fmt: skip
    assert rows[0] == rows[1]
    kept = [load_weights(run / "model.safetensors")[0] for run in (one, other)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


# --- what a run leaves ---
def test_a_run_leaves_all_its_files(unbroken: Any) -> None:
    run, listener = unbroken
    folder = run.folder
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "recipe.yaml", "checkpoints/last.pt", "checkpoints/best.pt", "model.safetensors", "metrics.csv", "log.txt",
        "report.html", "checkpoints/previous.pt", "metrics_classes.csv",
    }  # fmt: skip
    assert load_recipe(folder / "recipe.yaml") == run.recipe == load_weights(folder / "model.safetensors")[1]
    assert run.recipe.classes == ("red", "blue")
    assert run.recipe.sizes == ((96, 64),)
    said = (folder / "log.txt").read_text().splitlines()
    assert set(said) <= set(listener.text.splitlines())
    assert "classes: 2 of the data instead of the recipe's 80" in said
    assert f"weights: {run.recipe.backbone} from ImageNet; neck and head start anew" in said
    assert "<html" in (folder / "report.html").read_text()


def test_metrics_have_a_row_an_epoch(unbroken: Any) -> None:
    run, listener = unbroken
    with (run.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "4")]
    for row in rows:
        assert all(row[name] for name in ("lr", "loss", "class", "box", "val_loss", "AP", "AP50", "time_s", "cpu_s"))
    first_epoch = [figures["loss"] for figures in listener.figures[:2]]
    assert float(rows[0]["loss"]) == pytest.approx(sum(first_epoch) / 2, rel=1e-5)  # six digits are written
    assert (run.steps, run.scores["AP"]) == (4, pytest.approx(max(float(row["AP"]) for row in rows), rel=1e-5))
    assert json.loads(json.dumps(run.to_dict()))["steps"] == 4


def test_a_checkpoint_holds_all_that_going_on_needs(unbroken: Any) -> None:
    state = last(unbroken[0].folder)
    assert {"recipe", "model", "optimizer", "sampler", "rng", "step", "best"} <= set(state)
    assert (state["sampler"]["epoch"], state["sampler"]["position"]) == (2, 0)
    assert {"python", "numpy", "torch"} <= set(state["rng"])


def test_the_loss_comes_down_and_the_weights_move(unbroken: Any, data: Path, tiny: Any, tmp_path: Path) -> None:
    started = focaldet.load(unbroken[0].recipe, weights="imagenet").model.state_dict()
    trained = last(unbroken[0].folder)["model"]
    moved = [name for name in started if not torch.equal(started[name], trained[name])]
    assert {name.split(".")[0] for name in moved} == {"backbone", "neck", "head"}
    assert not any("running" in name for name in moved)  # backbone_norm="affine" fixes the statistics


def test_a_folder_with_a_run_is_refused_and_replaced_only_when_told(
    data: Path, new_data: Any, tiny: Any, unbroken: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"holds a run already; add --resume to go on, --overwrite to replace it"):
        focaldet.train(NAME, data, unbroken[0].folder, **tiny)
    folder, other = tmp_path / "run", new_data(classes=("green",))
    options = {**tiny, "epochs": 1, "weights": None}
    focaldet.train(NAME, data, folder, **options)
    (other / "instances_val.json").unlink()
    run = train_module.train(NAME, other, folder, overwrite=True, **options)
    assert run.scores is None
    assert not (folder / "checkpoints" / "best.pt").exists()  # that of the earlier run would be of other classes
    assert not (folder / "report.html").exists()
    assert load_weights(folder / "model.safetensors")[1] == run.recipe
    assert "no validation pictures" in (folder / "log.txt").read_text()


def test_training_without_validation_pictures_leaves_a_page_too(new_data: Any, tiny: Any, tmp_path: Path) -> None:
    data = new_data()
    (data / "instances_val.json").unlink()
    run = focaldet.train(NAME, data, tmp_path / "run", weights=None, **{**tiny, "epochs": 1})
    assert run.scores is None
    assert (run.folder / "report.html").is_file()
    assert "val_loss" not in read_history(run.folder / "metrics.csv")[0]


def test_a_plan_writes_nothing(data: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan(NAME, data, **tiny)
    assert list(tmp_path.iterdir()) == []
    assert (planned.pictures, planned.steps_per_epoch, planned.steps, planned.batch) == (4, 2, 4, 2)
    assert planned.rates[0] < max(planned.rates.values())
    assert planned.trained <= planned.parameters
    assert any("classes: 2 of the data" in note for note in planned.notes)
    assert json.loads(json.dumps(planned.to_dict()))["hours"] >= 0


def test_a_time_limit_ends_a_run_with_a_validation(data: Path, tiny: Any, tmp_path: Path) -> None:
    options = {**tiny, "epochs": 1000}
    run = train_module.train(NAME, data, tmp_path / "run", weights=None, max_minutes=0.02, **options)
    assert 1 <= run.steps < 2000
    assert run.scores is not None
    assert read_history(run.folder / "metrics.csv")[-1]["step"] == run.steps


# --- going on ---
@pytest.mark.parametrize(
    ("stop", "step", "workers"),
    [
        (("epoch", 1), 1, 0),
        (("epoch", 1), 1, 1),
        (("epoch", 2), 2, 0),
        (("scoring", 2), 2, 0),
        (("epoch", 3), 3, 1),
        (("scoring", 6), 4, 0),
    ],
    ids=["mid-epoch", "mid-epoch, worker", "before its end", "validation", "second epoch", "last validation"],
)
def test_a_stopped_run_goes_on_exactly(
    data: Path, tiny: Any, unbroken: Any, recorder: Any, tmp_path: Path, stop: Any, step: int, workers: int
) -> None:
    folder, listener = tmp_path / "run", recorder(stop_at=stop[1], during=stop[0])
    with pytest.raises(KeyboardInterrupt):
        train_module.train(NAME, data, folder, workers=workers, listener=listener, **tiny)
    flags = "--workers 1 --resume" if workers else "--resume"
    way_on = f"focaldet train {NAME} {data} --output {folder} {flags}"
    assert listener.lines[-1] == f"stopped at step {step} of 4; go on with {way_on}"
    assert last(folder)["step"] == step
    torch.manual_seed(12345)  # what the process did before must not matter
    going = recorder()
    run = train_module.train(NAME, data, folder, resume=True, workers=workers, listener=going)
    assert f"going on at step {step} of 4" in going.text
    assert_equal_runs(unbroken[0].folder, folder)
    assert run.scores is not None
    assert run.scores.figures == unbroken[0].scores.figures


def test_a_step_that_was_cut_off_is_taken_again(
    data: Path, tiny: Any, unbroken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, losses, calls = tmp_path / "run", Updater.losses, []

    def cut_off(self: Updater, batch: Any, step: int, group: int) -> Any:
        calls.append(batch.names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return losses(self, batch, step, group)

    monkeypatch.setattr(Updater, "losses", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train_module.train(NAME, data, folder, **tiny)
    assert last(folder)["sampler"]["position"] == 1
    train_module.train(NAME, data, folder, resume=True)
    assert calls[1] == calls[2]
    assert_equal_runs(unbroken[0].folder, folder)


def test_random_generators_go_on_too(
    data: Path, tiny: Any, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No part of the small recipe draws from the global generators, but dropout of another backbone would."""
    drawn: list[float] = []
    losses = Updater.losses

    def watched(self: Updater, batch: Any, step: int, group: int) -> Any:
        drawn.append(float(torch.rand(())))
        return losses(self, batch, step, group)

    monkeypatch.setattr(Updater, "losses", watched)
    options = {**tiny, "epochs": 1, "batch": 1, "normalize_over": 1, "weights": None}
    train_module.train(NAME, data, tmp_path / "unbroken", **options)
    unbroken, drawn[:] = list(drawn), []
    with pytest.raises(KeyboardInterrupt):
        train_module.train(NAME, data, tmp_path / "run", listener=recorder(stop_at=2), **options)
    torch.manual_seed(99)
    train_module.train(NAME, data, tmp_path / "run", resume=True)
    assert drawn == unbroken
    assert len(set(drawn)) == 4


def test_what_was_asked_for_holds_when_a_run_goes_on(new_data: Any, tiny: Any, recorder: Any, tmp_path: Path) -> None:
    """Own data must not be fitted a second time: fields that were asked for would be taken for the recipe's own."""
    data, folder = new_data(classes=("red", "blue")), tmp_path / "run"
    asked = {**tiny, "images_per_epoch": 6, "warmup_steps": 5, "classes": ("blue",)}
    with pytest.raises(KeyboardInterrupt):
        train_module.train(NAME, data, folder, weights=None, listener=recorder(stop_at=2), **asked)
    run = train_module.train(NAME, data, folder, resume=True)
    assert (run.recipe.images_per_epoch, run.recipe.warmup_steps, run.recipe.classes) == (6, 5, ("blue",))
    assert run.steps == 6


def test_a_finished_run_goes_on_to_nothing(data: Path, tiny: Any, tmp_path: Path) -> None:
    first = train_module.train(NAME, data, tmp_path / "run", weights=None, **{**tiny, "epochs": 1})
    again = train_module.train(NAME, data, tmp_path / "run", resume=True)
    assert again.steps == first.steps
    assert again.scores is not None and first.scores is not None
    assert again.scores.figures == first.scores.figures


def test_going_on_with_other_data_is_refused_with_both_lists(data: Path, new_data: Any, unbroken: Any) -> None:
    folder = unbroken[0].folder
    before = (folder / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(FocaldetError, match=r"class 'red' is not in .*: asked for red, blue; it has green, blue"):
        train_module.train(NAME, new_data(classes=("green", "blue")), folder, resume=True)
    with pytest.raises(FocaldetError, match=r"cannot resume: the run had pictures=4, now it is 6"):
        train_module.train(NAME, new_data("more", pictures=6), folder, resume=True)
    assert (folder / "checkpoints" / "last.pt").read_bytes() == before


def test_going_on_under_another_recipe_is_refused(new_data: Any, unbroken: Any, tmp_path: Path) -> None:
    data, folder = new_data(classes=("red", "green")), tmp_path / "run"
    shutil.copytree(unbroken[0].folder, folder)
    save_recipe(folder / "recipe.yaml", unbroken[0].recipe.replace(neck_channels=32, classes=("red", "green")))
    with pytest.raises(FocaldetError, match=r"know 2 classes \(red, blue\), the model has 2 \(red, green\)"):
        train_module.train(NAME, data, folder, resume=True)
    save_recipe(folder / "recipe.yaml", unbroken[0].recipe.replace(neck_channels=32))
    with pytest.raises(FocaldetError, match=r"do not fit the model in \d+ of \d+ entries: .* instead of "):
        train_module.train(NAME, new_data("same"), folder, resume=True)


def test_going_on_where_there_is_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match=r"there is no .*recipe\.yaml; a run folder holds recipe\.yaml"):
        train_module.train(NAME, data, tmp_path / "run", resume=True)


# --- own data ---
PUBLISHED = {"backbone": "resnet18", "neck_channels": 16, "head_channels": 16, "weights": None}


def test_schedule_and_classes_of_a_published_recipe_follow_the_data(
    data: Path, tiny: Any, recorder: Any, tmp_path: Path
) -> None:
    listener = recorder()
    options = {**tiny, **PUBLISHED, "epochs": 1}
    run = train_module.train("retinanet_r50_1x_coco", data, tmp_path / "run", listener=listener, **options)
    assert run.recipe.classes == ("red", "blue")
    assert (run.steps, run.recipe.images_per_epoch, run.recipe.warmup_steps) == (2, None, 1)
    assert "classes: 2 of the data instead of the recipe's 80" in listener.lines
    assert "schedule: 4 pictures an epoch (the data's) instead of 117,266" in listener.lines
    assert "schedule: warm-up of 1 steps (a tenth of the run) instead of 500" in listener.lines
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe


def test_a_state_is_a_change(data: Path, tiny: Any) -> None:
    assert prepare("retinanet_r50_1x_coco", data, dict(tiny)).recipe.quirks != ()
    assert prepare("retinanet_r50_1x_coco", data, {**tiny, "state": "clean"}).recipe.quirks == ()


def test_a_published_batch_on_one_device_averages_its_groups(data: Path, tiny: Any, tmp_path: Path) -> None:
    """Two groups of two pictures: the gradient is the mean of the two, each normalized by its own positives."""
    changes = {key: value for key, value in {**tiny, **PUBLISHED, "batch": 4}.items() if key != "weights"}
    job = prepare("retinanet_r50_1x_coco", data, changes)
    trainer = Trainer(job, tmp_path, torch.device("cpu"))
    trainer.updater.model.train()
    (groups,) = list(trainer.loader())
    assert [len(batch.names) for batch in groups] == [2, 2]
    parameters = {name: value for name, value in trainer.updater.model.named_parameters() if value.requires_grad}
    separate = []
    for batch in groups:
        loss = trainer.updater.losses(batch, 0)["loss"]
        separate.append((loss.detach(), torch.autograd.grad(loss, list(parameters.values()))))
    figures = trainer.step(groups)
    assert figures["loss"] == pytest.approx(float(separate[0][0] + separate[1][0]) / 2)
    for name, one, other in zip(parameters, separate[0][1], separate[1][1], strict=True):
        # halving before or after the backward pass changes only the exponent, the sum is rounded once
        torch.testing.assert_close(parameters[name].grad, (one + other) / 2, rtol=1e-6, atol=1e-9)


def test_a_class_that_only_validation_has_is_refused_before_training(new_data: Any, tiny: Any, tmp_path: Path) -> None:
    data, other = new_data(), new_data("more", classes=("red", "green"))
    (data / "instances_val.json").write_text((other / "instances_val.json").read_text())
    with pytest.raises(FocaldetError, match=r"instances_val\.json: .*not know 'green'.* red, blue; .* red, green"):
        train_module.train(NAME, data, tmp_path / "run", weights=None, **tiny)
    assert not (tmp_path / "run").exists()


def test_no_picture_left_to_train_on(new_data: Any, tmp_path: Path) -> None:
    data = new_data()
    document = json.loads((data / "instances_train.json").read_text())
    (data / "instances_train.json").write_text(json.dumps(document | {"annotations": []}))
    with pytest.raises(FocaldetError, match=r"no picture is left to train on of 4; none has an object"):
        train_module.train("retinanet_r50_1x_coco", data, tmp_path / "run", weights=None, backbone="resnet18")
    assert not (tmp_path / "run").exists()


# --- fine-tuning ---
def test_fine_tuning_joins_classes_by_name_and_lists_all(
    new_data: Any, tiny: Any, unbroken: Any, recorder: Any, tmp_path: Path
) -> None:
    source, listener = unbroken[0].folder, recorder()
    job = prepare(NAME, new_data(classes=("green", "blue")), tiny)
    trainer = Trainer(job, tmp_path / "run", torch.device("cpu"), listener=listener)
    trainer.start_from(source)
    for sentence in (
        "weights loaded: ",
        "weights joined by class name: blue",
        "weights that start anew: class green",
        "weights left over in the file: class red",
    ):
        assert sentence in listener.text
    held = load_weights(source / "model.safetensors")[0]
    taken = trainer.updater.model.state_dict()
    for key in ("head.logits.weight", "head.logits.bias"):
        mine, theirs = (state[key].unflatten(0, (-1, 2)) for state in (taken, held))
        assert torch.equal(mine[:, 1], theirs[:, 1])  # blue has label 1 in both
        assert not torch.equal(mine[:, 0], theirs[:, 0])
    same = [key for key in held if not key.startswith("head.logits")]
    assert all(torch.equal(taken[key], held[key]) for key in same)
    assert torch.all(taken["head.logits.bias"].unflatten(0, (-1, 2))[:, 0].sigmoid().sub(0.01).abs() < 1e-6)


def test_fine_tuning_runs_from_a_run_a_file_or_a_state_dict(
    new_data: Any, tiny: Any, unbroken: Any, tmp_path: Path
) -> None:
    data, source = new_data(classes=("green",)), unbroken[0].folder
    state = load_weights(source / "model.safetensors")[0]
    for number, weights in enumerate((source, source / "checkpoints" / "best.pt", state)):
        run = train_module.train(NAME, data, tmp_path / str(number), weights=weights, **{**tiny, "epochs": 1})
        assert run.recipe.classes == ("green",)
    with pytest.raises(FocaldetError, match=r"there is no weights file .*nothing\.pth"):
        train_module.train(NAME, data, tmp_path / "none", weights=tmp_path / "nothing.pth", **tiny)


# --- faults ---
def test_a_loss_that_is_not_finite_names_the_picture(
    data: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Criterion, stages: Any, targets: Any) -> dict[str, torch.Tensor]:
        loss = stages[0].logits[0].sum()
        return {"class": loss, "box": loss * float("nan"), "loss": loss * float("nan")}

    monkeypatch.setattr(Criterion, "__call__", broken)
    options = {**tiny, "batch": 1, "normalize_over": 1}
    with pytest.raises(FocaldetError, match=r"not finite \(box, loss\) on \d\.png at step 0; look at these pictures"):
        train_module.train(NAME, data, tmp_path / "run", weights=None, **options)


def test_a_full_disk_keeps_the_checkpoint_before(
    data: Path, tiny: Any, unbroken: Any, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the second epoch saves; after some space was made the run goes on exactly."""
    folder = tmp_path / "run"

    def fills_up(path: Any, mode: str = "r", **options: Any) -> Any:
        full = ".pt." in str(path) and (folder / "checkpoints" / "best.pt").exists()
        return open("/dev/full" if full else path, mode, **options)

    with monkeypatch.context() as patched:
        patched.setattr(files, "open", fills_up, raising=False)
        with pytest.raises(FocaldetError, match=r"cannot write .*\.pt: .* is untouched; free some space"):
            train_module.train(NAME, data, folder, **tiny)
    assert last(folder)["step"] == 2
    assert not list(folder.rglob("*.part"))
    train_module.train(NAME, data, folder, resume=True)
    assert_equal_runs(unbroken[0].folder, folder)


def test_an_error_of_the_disk_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    with pytest.raises(FocaldetError, match=r"cannot write .*metrics\.csv: No space left on device; free some space"):
        trainer_module.History(tmp_path / "metrics.csv").clear()


def spoil(document: dict[str, Any], fault: str) -> Any:
    images, annotations, categories = (document[part] for part in ("images", "annotations", "categories"))
    if fault == "no COCO json":
        return {"pictures": images}
    if fault == "detections":
        return [{"image_id": 11, "category_id": 30, "bbox": [1, 2, 3, 4], "score": 0.5}]
    if fault == "category without a name":
        categories.pop()
    if fault == "two pictures of one id":
        images[1]["id"] = images[0]["id"]
    if fault == "no pictures":
        images.clear()
    if fault == "picture that is not there":
        images[2]["file_name"] = "lost.png"
    if fault == "box of three numbers":
        annotations[3]["bbox"] = [1, 2, 3]
    return document


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no COCO json", "it has no list 'images' and no list 'annotations'"),
        ("detections", "holds COCO results (detections), not a COCO data set"),
        ("category without a name", "has category_id 29, which has no name there"),
        ("two pictures of one id", "gives id 11 to two pictures, 1.png and 2.png"),
        ("no pictures", "lists no pictures"),
        ("picture that is not there", "lost.png"),
        ("box of three numbers", "has bbox [1, 2, 3] instead of four numbers"),
    ],
)
def test_faulty_data_is_one_sentence_before_anything_is_written(
    new_data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str, words: str
) -> None:
    data = new_data()
    file = data / "instances_train.json"
    file.write_text(json.dumps(spoil(json.loads(file.read_text()), fault)))
    assert main(["train", NAME, str(data), "--output", str(tmp_path / "run")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("focaldet: error: ")
    assert err.count("\n") == 1
    assert words in err and "instances_train.json" in err
    assert not (tmp_path / "run").exists()


def test_boxes_that_are_none_are_left_out_and_said(new_data: Any, tiny: Any, tmp_path: Path) -> None:
    data = new_data()
    file = data / "instances_train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"][2] = float("nan")
    document["annotations"][1]["bbox"][2] = -4
    file.write_text(json.dumps(document))
    run = train_module.train(NAME, data, tmp_path / "run", weights=None, **{**tiny, "epochs": 1})
    notes = [line for line in (run.folder / "log.txt").read_text().splitlines() if "left out" in line]
    assert len(notes) == 2
    assert "annotation 1 of instances_train.json" in notes[0] and "annotation 2 of instances_train.json" in notes[1]


@pytest.mark.parametrize("fault", ["missing", "cut off", "no picture"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_one_sentence(
    new_data: Any, tiny: Any, tmp_path: Path, fault: str, workers: int
) -> None:
    data = new_data()
    picture = data / "images" / "3.png"
    content = picture.read_bytes()
    trainer_data = prepare(NAME, data, {**tiny, "batch": 4, "normalize_over": 4})
    if fault == "missing":
        picture.unlink()
    else:
        picture.write_bytes(content[: len(content) // 2] if fault == "cut off" else b"text")
    trainer = Trainer(trainer_data, tmp_path / "run", torch.device("cpu"), options=Options(workers=workers))
    with pytest.raises(FocaldetError, match=r"3\.png") as caught:
        trainer.run_epoch()
    assert "\n" not in str(caught.value)


def test_the_published_recipe_is_named_wrong(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe 'retinanet_r50_coco' \(did you mean 'retinanet_r50_\dx_coco'\?\)"):
        focaldet.train("retinanet_r50_coco", data, tmp_path / "run")
    with pytest.raises(UsageError, match=r"'epoch' is no field of a recipe \(did you mean 'epochs'\?\)"):
        focaldet.train(NAME, data, tmp_path / "run", epoch=3)
    assert not (tmp_path / "run").exists()
