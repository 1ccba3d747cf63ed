"""Several processes as one: the same update, the same scores, errors that all hear of, and ends that end all."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from focaldet.data.loader import worker_deaths_told
from focaldet.engine import train as train_module
from focaldet.engine.checkpoint import load_checkpoint, load_weights
from focaldet.engine.distributed import ALONE, Place, Processes, find_place
from focaldet.engine.history import read_history
from focaldet.engine.launch import describe, free_port
from focaldet.engine.statistics import Statistics
from focaldet.engine.trainer import check_share
from focaldet.errors import FocaldetError, UsageError
from focaldet.recipes import get_recipe

NAME = "retinanet-small"
SMALL: dict[str, Any] = {
    "epochs": 2, "batch": 3, "normalize_over": 1, "sizes": ((64, 64),), "test_size": (64, 64), "weights": None,
    "backbone": "resnet10t", "backbone_norm": "trained", "images_per_epoch": 6, "optimizer": "sgd", "lr": 0.01,
}  # fmt: skip
"""Two steps an epoch of three groups each: of two processes one takes two groups."""
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def last(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder / "checkpoints" / "last.pt")


# --- places and shares ---
def test_places_of_launchers() -> None:
    assert find_place({}) == Place()
    alone_in_a_batch = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "3"}
    assert find_place(alone_in_a_batch) == Place()  # sbatch without srun starts one process
    srun = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "MASTER_ADDR": "here", "MASTER_PORT": "5"}
    assert find_place(srun) == Place(1, 2, 0, "here", 5)
    with pytest.raises(UsageError, match="RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT"):
        find_place({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(("count", "items"), [(1, 5), (2, 5), (3, 7), (4, 4)])
def test_shares_make_up_the_whole(count: int, items: int) -> None:
    shares = [list(Processes(Place(rank, count)).share(range(items))) for rank in range(count)]
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_there_is_nobody_to_ask() -> None:
    assert ALONE.sum([1.0, 2.0]) == [1.0, 2.0]
    assert ALONE.collect("x") == ["x"]
    with pytest.raises(FocaldetError, match="as it was"), ALONE.together():
        raise FocaldetError("as it was")


@pytest.mark.parametrize(
    ("heard", "said"),
    [
        ("Connection closed by peer", "one of the other processes of this run"),
        ("DataLoader worker (pid 7) is killed by signal: Killed.", "a process that reads pictures was killed"),
    ],
)
def test_what_ends_the_wait_for_others_is_said(monkeypatch: pytest.MonkeyPatch, heard: str, said: str) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError(heard)

    monkeypatch.setattr("torch.distributed.all_reduce", broken)
    with pytest.raises(FocaldetError, match=said), worker_deaths_told():
        Processes(Place(0, 2)).sum([1.0])


def test_too_many_processes_are_refused() -> None:
    recipe = get_recipe(NAME).replace(batch=3, normalize_over=1)
    with pytest.raises(UsageError, match=r"makes 3 groups of pictures a step, too few for 4 processes; raise batch"):
        check_share(recipe, 3, Processes(Place(0, 4)))
    check_share(recipe, 3, Processes(Place(0, 3)))


def test_processes_that_ended_are_described() -> None:
    killed = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
    killed.kill()
    assert describe([killed]) == "process 1 of this run's 2 was ended by SIGKILL"
    broken = subprocess.Popen(["false"], stdin=subprocess.PIPE)
    broken.wait()
    assert describe([broken]) == "process 1 of this run's 2 broke down (exit code 1)"


def test_statistics_are_those_of_one_process_that_sees_all_groups_in_order() -> None:
    """Two shares of five groups, brought together by hand, against one norm that sees all five."""
    groups = torch.randn(5, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = nn.BatchNorm2d(3, momentum=0.3)
    parts = [copy.deepcopy(whole), copy.deepcopy(whole)]
    for group in groups:
        whole(group)
    brought: list[list[torch.Tensor]] = []

    class Pair(Processes):
        def sum_tensors(self, tensors: Any) -> None:
            brought.append([tensor.clone() for tensor in tensors])
            if self.rank == 1:
                for tensor, other in zip(tensors, brought[0], strict=True):
                    tensor.add_(other)

    for rank, part in enumerate(parts):
        team = Pair(Place(rank, 2))
        statistics = Statistics(part, team, 5)
        statistics.begin()
        for group in team.share(groups):  # type: ignore[arg-type]
            part(group)
        statistics.finish()
    torch.testing.assert_close(parts[1].running_mean, whole.running_mean)
    torch.testing.assert_close(parts[1].running_var, whole.running_var)
    assert parts[1].num_batches_tracked == whole.num_batches_tracked == 5


# --- real processes ---
@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that nothing disturbed."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    run = train_module.train(NAME, data, folder, processes=2, **SMALL)
    assert run.steps == 4
    return folder


@pytest.mark.slow
def test_two_processes_equal_one(data: Path, pair: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    train_module.train(NAME, data, alone, **SMALL)
    states = last(alone), last(pair)
    assert states[0]["sampler"] == states[1]["sampler"]
    for name, value in states[0]["model"].items():
        # sums of three gradients in another order: rounding of float32, carried through four steps
        torch.testing.assert_close(
            states[1]["model"][name], value, rtol=2e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    rows = [read_history(folder / "metrics.csv") for folder in (alone, pair)]
    for one, other in zip(*rows, strict=True):
        for name in ("loss", "class", "box", "val_loss", "grad_norm"):
            assert other[name] == pytest.approx(one[name], rel=1e-3), name
    names = {path.relative_to(pair).as_posix() for path in pair.rglob("*") if path.is_file()}
    assert names == {path.relative_to(alone).as_posix() for path in alone.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_two_processes_go_on_exactly(data: Path, pair: Path, recorder: Any, tmp_path: Path) -> None:
    """Stopped within the first epoch, with a worker each."""
    folder, listener = tmp_path / "run", recorder(stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        train_module.train(NAME, data, folder, processes=2, workers=1, save_every=0, listener=listener, **SMALL)
    train_module.train(NAME, data, folder, processes=2, resume=True, workers=1)
    states = last(pair), last(folder)
    for part in ("model", "optimizer"):
        one, other = (torch.utils._pytree.tree_leaves(state[part]) for state in states)
        assert all(
            torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True)
        )
    kept = [load_weights(run / "model.safetensors")[0] for run in (pair, folder)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


@pytest.mark.slow
def test_a_process_without_objects_does_not_hang(new_data: Any, tmp_path: Path) -> None:
    """Pictures without any box, all of them: every loss is still part of the graph, in both processes."""
    import json

    data = new_data()
    for split in ("train", "val"):
        file = data / f"instances_{split}.json"
        document = json.loads(file.read_text())
        document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] == 11]
        file.write_text(json.dumps(document))
    options = {**SMALL, "epochs": 1, "empty_pictures": True}
    assert train_module.train(NAME, data, tmp_path / "run", processes=2, **options).steps == 2


SCRIPT = """
import os, signal, sys
import torch
from focaldet.engine.train import train
from focaldet.engine.update import Updater
from focaldet.errors import FocaldetError
losses = Updater.losses
def troubled(self, batch, step, group=0):
    if step == 1 and self.processes.rank == 1:
        {trouble}
    return losses(self, batch, step, group)
Updater.losses = troubled
try:
    train({name!r}, {data!r}, {folder!r}, **{options!r})
except FocaldetError as error:
    print("SAID", error, flush=True)
    sys.exit(1)
"""


def started(rank: int, port: int, script: str) -> subprocess.Popen[str]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **place, "MASTER_PORT": str(port)}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("batch.images[0] = float('nan')", r"the loss is not finite \(class, box, loss\) on"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "one of the other processes of this run"),
    ],
    ids=["NaN", "killed"],
)
def test_what_befalls_one_ends_both(data: Path, tmp_path: Path, trouble: str, said: str) -> None:
    """As under torchrun, with its variables: neither process is left waiting."""
    import re

    folder, port = tmp_path / "run", free_port()
    options = dict(name=NAME, data=str(data), folder=str(folder), options=SMALL, trouble=trouble)
    processes = [started(rank, port, textwrap.dedent(SCRIPT).format(**options)) for rank in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert re.search(said, outputs[0])
    if "nan" in trouble:
        assert [process.returncode for process in processes] == [1, 1]
        assert outputs[0] == outputs[1]  # the same sentence
        assert load_checkpoint(folder / "failure.pt")["step"] == 1
    else:
        assert processes[0].returncode == 1 and processes[1].returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_process_is_named_by_the_one_that_started_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from focaldet.engine import launch

    others: list[subprocess.Popen[bytes]] = []
    start = launch.start
    monkeypatch.setattr(launch, "start", lambda *arguments: others.append(start(*arguments)) or others[-1])
    folder = tmp_path / "run"

    def kill_later() -> None:
        while not (folder / "checkpoints" / "last.pt").exists():
            time.sleep(0.05)
        others[0].kill()

    threading.Thread(target=kill_later, daemon=True).start()
    with pytest.raises(FocaldetError, match=r"process 1 of this run's 2 was ended by SIGKILL; go on .* --resume"):
        train_module.train(NAME, data, folder, processes=2, save_every=0, **{**SMALL, "epochs": 500})


INTERRUPTED = """
from focaldet.engine.train import train
train({name!r}, {data!r}, {folder!r}, processes=2, workers=1, save_every=0, **{options!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGTERM, False, 128 + signal.SIGTERM), (signal.SIGINT, True, -signal.SIGINT)],
    ids=["a batch system asks the first", "Ctrl-C reaches all"],
)
def test_signals_save_and_end_all_processes(
    data: Path, tmp_path: Path, number: int, whole_group: bool, code: int
) -> None:
    folder, options = tmp_path / "run", {**SMALL, "epochs": 500}
    script = textwrap.dedent(INTERRUPTED).format(name=NAME, data=str(data), folder=str(folder), options=options)
    run = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (folder / "checkpoints" / "last.pt").exists():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
    if whole_group:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == code, errors
    steps = last(folder)["step"]
    assert f"stopped at step {steps} of 1000; go on with focaldet train" in (folder / "log.txt").read_text()
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(run.pid, 0)
