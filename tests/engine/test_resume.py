"""Going on exactly: whatever ends a run, and whenever, the run that goes on ends in the bits of an unbroken one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from focaldet.engine import train as train_module
from focaldet.engine.checkpoint import Checkpoints, load_checkpoint, load_weights
from focaldet.engine.history import read_history
from focaldet.engine.trainer import Trainer
from focaldet.engine.update import Updater
from focaldet.errors import FocaldetError

NAME = "retinanet-small"
TIMES = ("time_s", "cpu_s", "pictures_s", "memory_gb")
STEPS = 6
SMALL: dict[str, Any] = {
    "epochs": 2, "batch": 2, "normalize_over": 1, "sizes": ((64, 64),), "test_size": (64, 64), "weights": None,
    "backbone": "resnet10t", "images_per_epoch": 6, "ema": 0.9, "precision": "float32",
}  # fmt: skip
"""Three steps an epoch, two groups a step, an average of the weights; flips, shifts and colours are drawn."""


class Killed(BaseException):
    """Ends a run as SIGKILL does: nothing is saved behind it."""


def killing(monkeypatch: pytest.MonkeyPatch, name: str, at: int, kill: Callable[[], None], of: type = Trainer) -> None:
    """Make a method of a class end the run when it is called for the `at`-th time, before it does anything."""
    method, calls = getattr(of, name), []

    def deadly(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == at:
            kill()
        return method(self, *arguments, **options)

    monkeypatch.setattr(of, name, deadly)


def kill() -> None:
    raise Killed


def equal(one: Any, other: Any, where: str = "") -> None:
    """Compare what checkpoints hold, to the bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            equal(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            equal(*pair, f"{where}/{number}")
    else:
        assert one == other, where


def assert_equal_runs(one: Path, other: Path) -> None:
    """All that a run leaves is the same to the bit, but for the time it took."""
    for name in ("last", "best"):
        states = [load_checkpoint(run / "checkpoints" / f"{name}.pt") for run in (one, other)]
        for state in states:
            for key in ("seconds", "cpu_seconds", "history", "rng"):  # every group of pictures is seeded by its number
                del state[key]
        equal(*states)
    equal(*(load_weights(run / "model.safetensors")[0] for run in (one, other)))
    rows = [
        [{name: value for name, value in row.items() if name not in TIMES} for row in read_history(run / "metrics.csv")]
        for run in (one, other)
    ]
    assert rows[0] == rows[1]
    assert len({(run / "metrics_classes.csv").read_text() for run in (one, other)}) == 1


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_module.train(NAME, data, folder, save_every=0, **SMALL)
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["step"] == STEPS
    return folder


@pytest.mark.parametrize(
    ("method", "at", "workers"),
    [
        ("step", 2, 0),
        ("_agree", 3, 0),
        ("validate", 1, 0),
        ("_is_better", 1, 0),
        ("step", 5, 2),
        ("finish_epoch", 2, 0),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("step", 3, 2),
                ("save", 3, 0),
                ("finish_epoch", 1, 0),
                ("_write_row", 1, 0),
                ("validate", 2, 0),
            )
        ),
    ],
)
def test_a_killed_run_goes_on_exactly(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, at: int, workers: int
) -> None:
    """Saved after each step, killed before a step, a checkpoint, a validation or what follows it."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        killing(patched, method, at, kill)
        with pytest.raises(Killed):
            train_module.train(NAME, data, folder, save_every=0, workers=workers, **SMALL)
    torch.manual_seed(99)
    train_module.train(NAME, data, folder, resume=True, save_every=0, workers=workers)
    assert_equal_runs(whole, folder)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_arrives(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, resume = tmp_path / "run", False
    for _ in range(STEPS):
        with monkeypatch.context() as patched:
            killing(patched, "step", 2, kill)  # each sitting takes one step
            options = {} if resume else SMALL
            try:
                train_module.train(NAME, data, folder, resume=resume, save_every=0, **options)
            except Killed:
                resume = True
    train_module.train(NAME, data, folder, resume=True)
    assert_equal_runs(whole, folder)


def test_without_save_every_a_killed_run_goes_on_from_the_epoch_before(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        killing(patched, "step", 5, kill)
        with pytest.raises(Killed):
            train_module.train(NAME, data, folder, **SMALL)
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["step"] == 3
    train_module.train(NAME, data, folder, resume=True)
    assert_equal_runs(whole, folder)


def test_checkpoints_come_by_the_clock(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    seconds = iter(range(0, 100_000, 10))
    monkeypatch.setattr("focaldet.engine.clock.Clock.seconds", property(lambda self: next(seconds)))

    def save(self: Trainer, **_: Any) -> None:
        saved.append(self.step_number)
        self.saved_at = self.elapsed

    monkeypatch.setattr(Trainer, "save", save)
    options = {**SMALL, "epochs": 1, "images_per_epoch": 24}
    train_module.train(NAME, data, tmp_path / "run", save_every=1.0, **options)
    assert saved[-2:] == [12, 12]  # before the validation and after it
    steps = saved[:-2]
    assert 3 <= len(steps) < 12 and steps == sorted(set(steps))  # each minute, not each step


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_lets_the_step_end_then_saves_and_says_how_to_go_on(
    data: Path, whole: Path, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: Any
) -> None:
    folder, listener = tmp_path / "run", recorder()
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        killing(patched, "_update", 2, lambda: os.kill(os.getpid(), number), of=Updater)
        with pytest.raises(raised) as caught:
            train_module.train(NAME, data, folder, listener=listener, **SMALL)
    assert number == signal.SIGINT or caught.value.code == 143
    assert signal.getsignal(number) is before
    way_on = f"focaldet train {NAME} {data} --output {folder} --resume"
    assert listener.lines[-1] == f"stopped at step 2 of {STEPS}; go on with {way_on}"
    assert (folder / "log.txt").read_text().splitlines()[-1] == listener.lines[-1]
    train_module.train(NAME, data, folder, resume=True)
    assert_equal_runs(whole, folder)


def test_a_truncated_checkpoint_is_skipped_aloud(
    data: Path, whole: Path, recorder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, listener = tmp_path / "run", recorder()
    with monkeypatch.context() as patched:
        killing(patched, "step", 6, kill)
        with pytest.raises(Killed):
            train_module.train(NAME, data, folder, save_every=0, **SMALL)
    path = folder / "checkpoints" / "last.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    train_module.train(NAME, data, folder, resume=True, listener=listener)
    (said,) = (line for line in listener.lines if "skipped" in line)
    assert "last.pt is no complete checkpoint" in said and "goes on from previous.pt, which is whole" in said
    assert "going on at step 4 of 6" in listener.text
    assert_equal_runs(whole, folder)


def test_when_no_checkpoint_is_whole_nothing_is_done(data: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "recipe.yaml").write_bytes((whole / "recipe.yaml").read_bytes())
    (folder / "metrics.csv").write_bytes((whole / "metrics.csv").read_bytes())
    for name in ("last", "previous"):
        (folder / "checkpoints" / f"{name}.pt").write_bytes(b"PK")
    with pytest.raises(FocaldetError, match=r"previous\.pt is no complete checkpoint"):
        train_module.train(NAME, data, folder, resume=True)


def test_at_no_moment_is_there_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the file is written, before it is renamed, or between the two names: a whole one is left."""
    checkpoints = Checkpoints(tmp_path)
    said: list[str] = []
    for step in range(3):
        checkpoints.save({"step": step, "weights": torch.zeros(1000)})
    assert load_checkpoint(checkpoints.previous)["step"] == 1
    for name in ("torch.save", "focaldet.engine.checkpoint.keep_as", "os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patched:
            patched.setattr(name, lambda *_, **__: kill())
            with pytest.raises(Killed):
                checkpoints.save({"step": 3, "weights": torch.zeros(1000)})
        assert checkpoints.load("cpu", said.append)["step"] == 2, name
    assert said == []


def kill_a_worker() -> None:
    os.kill(max(child.pid or 0 for child in multiprocessing.active_children()), signal.SIGKILL)
    time.sleep(5)  # ended by torch's handler of the system's signal


def test_a_run_whose_worker_is_killed_says_so_and_goes_on_exactly(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        killing(patched, "step", 5, kill_a_worker)
        with pytest.raises(FocaldetError, match="a process that reads pictures was killed"):
            train_module.train(NAME, data, folder, save_every=0, workers=1, **SMALL)
    train_module.train(NAME, data, folder, resume=True, save_every=0, workers=1)
    assert_equal_runs(whole, folder)


SCRIPT = """
import os, signal, sys
from focaldet.engine.train import train
from focaldet.engine.trainer import Trainer
step, calls = Trainer.step, []
def deadly(self, groups):
    calls.append(1)
    if len(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, groups)
Trainer.step = deadly
train({name!r}, {data!r}, {folder!r}, save_every=0, workers={workers}, **{options!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("at", "workers"), [(3, 0), (6, 2)])
def test_sigkill(data: Path, whole: Path, tmp_path: Path, at: int, workers: int) -> None:
    folder = tmp_path / "run"
    script = SCRIPT.format(at=at, name=NAME, data=str(data), folder=str(folder), workers=workers, options=SMALL)
    process = subprocess.run([sys.executable, "-c", script], timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(folder / "checkpoints" / "last.pt")["step"] == at - 1
    train_module.train(NAME, data, folder, resume=True, workers=workers)
    assert_equal_runs(whole, folder)
