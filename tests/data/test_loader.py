from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focaldet.data.batch import collate
from focaldet.data.dataset import Dataset
from focaldet.data.loader import PictureLoader, sample_rng, worker_deaths_told
from focaldet.data.sampler import GroupedSampler, InOrder
from focaldet.data.transforms import build_transform
from focaldet.errors import FocaldetError
from focaldet.structures import Batch

COLLATE = functools.partial(collate, mean=(120.0,) * 3, std=(60.0,) * 3, pad=32)
TRANSFORM = build_transform(((64, 48),), ("flip", "affine", "color"), train=True)


def sampler_of(dataset: Dataset) -> GroupedSampler:
    return GroupedSampler(dataset.tall, batch=4, normalize_over=2, seed=3)


def loader_of(dataset: Dataset, sampler: Any, workers: int = 0) -> PictureLoader:
    return PictureLoader(dataset, TRANSFORM, sampler, COLLATE, workers=workers, seed=11)


def assert_equal(one: list[list[Batch]], other: list[list[Batch]]) -> None:
    assert [[b.indices for b in step] for step in one] == [[b.indices for b in step] for step in other]
    for a, b in zip(chain(*one), chain(*other), strict=True):
        assert torch.equal(a.images, b.images)
        assert a.names == b.names
        assert a.sizes == b.sizes
        assert torch.equal(a.scales, b.scales)
        for left, right in zip(a.truths, b.truths, strict=True):
            assert torch.equal(left.boxes, right.boxes)
            assert torch.equal(left.labels, right.labels)


def test_steps_are_the_samplers(saved_dataset: Dataset) -> None:
    sampler = sampler_of(saved_dataset)
    expected = sampler.epoch_steps(0)
    loader = loader_of(saved_dataset, sampler)
    steps = list(loader)
    assert [[batch.indices for batch in step] for step in steps] == expected
    assert len(loader) == len(steps) == 3
    assert (sampler.epoch, sampler.position) == (1, 0)


def test_workers_change_nothing(saved_dataset: Dataset) -> None:
    alone, helped = (loader_of(saved_dataset, sampler_of(saved_dataset), workers) for workers in (0, 2))
    for _ in range(2):  # epochs
        assert_equal(list(alone), list(helped))


def test_processes_share_each_step(saved_dataset: Dataset) -> None:
    """Two loaders with a group of each step's two: together they are the whole, and their samplers stay alike."""
    whole = list(loader_of(saved_dataset, sampler_of(saved_dataset)))
    samplers = [sampler_of(saved_dataset), sampler_of(saved_dataset)]
    parts = [
        list(
            PictureLoader(
                saved_dataset, TRANSFORM, sampler, COLLATE, seed=11, share=lambda step, r=rank: step[r : r + 1]
            )
        )
        for rank, sampler in enumerate(samplers)
    ]
    assert_equal([one + other for one, other in zip(*parts, strict=True)], whole)
    assert samplers[0].state_dict() == samplers[1].state_dict()


def test_workers_leave_signals_to_the_process_that_trains(saved_dataset: Dataset) -> None:
    """Ctrl-C in a terminal reaches the workers too, and their pictures are still needed."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[list[Batch]] = []
    for step in loader_of(saved_dataset, sampler_of(saved_dataset), workers=1):
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
            os.kill(child.pid or 0, signal.SIGTERM)
        seen.append(step)
    assert len(seen) == 3
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def never_ends(sample: Any, rng: np.random.Generator) -> Any:
    time.sleep(60)


@pytest.mark.slow
def test_workers_that_are_stuck_end_the_run(saved_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than let it wait for ever, then or at its end; they ignore SIGTERM and so are killed."""
    monkeypatch.setattr("focaldet.data.loader.PATIENCE", 0.6)
    before = set(multiprocessing.active_children())
    loader = PictureLoader(saved_dataset, never_ends, sampler_of(saved_dataset), COLLATE, workers=1)
    with pytest.raises(FocaldetError, match=r"that read pictures have brought none for 0\.01 minutes.* --workers 0"):
        next(iter(loader))
    deadline = time.monotonic() + 5
    while set(multiprocessing.active_children()) - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not set(multiprocessing.active_children()) - before


def test_a_worker_that_is_killed_is_one_sentence(saved_dataset: Dataset) -> None:
    killed = "a process that reads pictures was killed.* fewer --workers take less"
    steps = iter(loader_of(saved_dataset, sampler_of(saved_dataset), workers=1))
    with pytest.raises(FocaldetError, match=killed), worker_deaths_told():
        next(steps)
        os.kill(max(child.pid or 0 for child in multiprocessing.active_children()), signal.SIGKILL)
        time.sleep(5)  # ended by torch's handler of the system's signal
        list(steps)
    steps.close()


def test_other_errors_are_not_taken_for_the_death_of_a_worker() -> None:
    with pytest.raises(RuntimeError, match="of something else"), worker_deaths_told():
        raise RuntimeError("of something else")


KEPT: list[Any] = []


def keep_an_epoch(dataset: Dataset) -> None:
    """End with an epoch half read that something still holds, as a traceback does."""
    KEPT.append(iter(loader_of(dataset, sampler_of(dataset), workers=2)))
    next(KEPT[0])


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="needs processes that are forked")
def test_a_process_ends_though_something_keeps_its_workers(saved_dataset: Dataset) -> None:
    """multiprocessing asks them by SIGTERM, which they ignore, and waits for ever; ours are killed before."""
    process = multiprocessing.get_context("fork").Process(target=keep_an_epoch, args=(saved_dataset,))
    process.start()
    process.join(20)
    ended = process.exitcode
    process.kill()
    assert ended == 0


def read_until_killed(dataset: Dataset, told: Any) -> None:
    """Take a step, tell the workers' numbers, and hold the workers up with full queues."""
    for _ in loader_of(dataset, sampler_of(dataset), workers=2):
        told.send([child.pid for child in multiprocessing.active_children()])
        time.sleep(60)


def is_running(number: int) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends processes with their parents")
def test_workers_end_with_a_process_that_is_killed(saved_dataset: Dataset) -> None:
    heard, told = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=read_until_killed, args=(saved_dataset, told))
    process.start()
    workers = heard.recv()
    assert len(workers) == 2 and all(map(is_running, workers))
    process.kill()
    process.join()
    deadline = time.monotonic() + 4  # torch itself looks for its parent every five seconds, and then may wait for ever
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_epoch_goes_on_exactly(saved_dataset: Dataset, workers: int) -> None:
    whole = list(loader_of(saved_dataset, sampler_of(saved_dataset)))
    sampler = sampler_of(saved_dataset)
    before = []
    for step in loader_of(saved_dataset, sampler, workers):
        before.append(step)
        if len(before) == 2:
            break
    assert sampler.position == 2  # not further, however far the workers are
    resumed = sampler_of(saved_dataset)
    resumed.load_state_dict(sampler.state_dict())
    assert_equal(before + list(loader_of(saved_dataset, resumed, workers)), whole)


def test_the_global_generator_is_left_alone(saved_dataset: Dataset) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(loader_of(saved_dataset, sampler_of(saved_dataset)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_is_one_sentence(saved_dataset: Dataset, workers: int) -> None:
    path = saved_dataset.path(4)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FocaldetError) as caught:
        list(loader_of(saved_dataset, sampler_of(saved_dataset), workers))
    assert "4.png is cut off" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_evaluation_in_order(saved_dataset: Dataset) -> None:
    steps = list(loader_of(saved_dataset, InOrder(len(saved_dataset), 4), workers=1))
    assert [batch.indices for (batch,) in steps] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]


def test_choices_depend_on_seed_epoch_and_draw() -> None:
    numbers = {tuple(sample_rng(*key).random(3)) for key in np.ndindex(3, 3, 3)}
    assert len(numbers) == 27
    assert sample_rng(1, 2, 3).random() == sample_rng(1, 2, 3).random()


@pytest.mark.data
def test_real_pictures_from_end_to_end(shared: Any) -> None:
    from focaldet.data.formats import open_dataset
    from focaldet.data.view import training_view

    dataset = training_view(open_dataset(shared / "data/coco-mini", "train")).select(range(8))
    sampler = GroupedSampler(dataset.tall, batch=4, normalize_over=2, seed=0)
    transform = build_transform(((333, 200),), ("flip",), train=True)
    for step in PictureLoader(dataset, transform, sampler, COLLATE):
        for batch in step:
            for size, truth in zip(batch.sizes, batch.truths, strict=True):
                assert (truth.boxes >= 0).all()
                assert (truth.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()
                assert (truth.boxes[:, 2:] > truth.boxes[:, :2]).all()
