from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.data.sampler import GroupedSampler, InOrder
from focaldet.errors import FocaldetError


def published_stream(tall: np.ndarray, rank: int, groups: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """What one GPU of the published runs gets, written down from the text of spec section 10."""
    order = torch.randperm(len(tall), generator=torch.Generator().manual_seed(seed + epoch)).tolist()
    while len(order) % groups:
        order += order[: groups - len(order) % groups]
    buckets: dict[bool, list[int]] = {True: [], False: []}
    batches = []
    for index in order[rank::groups]:
        bucket = buckets[bool(tall[index])]
        bucket.append(index)
        if len(bucket) == size:
            batches.append(list(bucket))
            bucket.clear()
    left = buckets[True] + buckets[False]
    return batches + [left[k : k + size] for k in range(0, len(left), size)]


cases = given(
    tall=st.lists(st.booleans(), min_size=1, max_size=40),
    groups=st.integers(1, 5),
    size=st.integers(1, 4),
    seed=st.integers(0, 100),
    epoch=st.integers(0, 5),
)


@cases
def test_the_published_order(tall: list[bool], groups: int, size: int, seed: int, epoch: int) -> None:
    sampler = GroupedSampler(np.array(tall), batch=groups * size, normalize_over=size, seed=seed)
    steps = sampler.epoch_steps(epoch)
    for rank in range(groups):
        expected = published_stream(np.array(tall), rank, groups, size, seed, epoch)
        assert [step[rank] for step in steps] == expected
    assert len(steps) == len(sampler) == math.ceil(math.ceil(len(tall) / groups) / size)
    assert {draw for step in steps for micro_batch in step for draw in micro_batch} == set(range(len(tall)))


def test_the_iterations_of_the_published_runs() -> None:
    sampler = GroupedSampler(np.zeros(117266, dtype=bool), batch=16, normalize_over=2, seed=0)
    assert len(sampler) == 7330


@given(pictures=st.integers(1, 20), draws=st.integers(1, 70), groups=st.integers(1, 3), size=st.integers(1, 3))
def test_epochs_of_another_length(pictures: int, draws: int, groups: int, size: int) -> None:
    sampler = GroupedSampler(
        np.zeros(pictures, dtype=bool), batch=groups * size, normalize_over=size, seed=1, images_per_epoch=draws
    )
    drawn = [draw for step in sampler.epoch_steps(0) for micro_batch in step for draw in micro_batch]
    assert len(set(drawn)) == draws
    times = np.bincount(np.array(sorted(set(drawn))) % pictures, minlength=pictures)
    assert times.max() <= math.ceil(draws / pictures)
    assert len(sampler.epoch_steps(0)) == len(sampler)


def test_epochs_differ_and_repeat_themselves() -> None:
    make = lambda: GroupedSampler(np.zeros(30, dtype=bool), batch=4, normalize_over=2, seed=7)  # noqa: E731
    assert make().epoch_steps(0) == make().epoch_steps(0)
    assert make().epoch_steps(0) != make().epoch_steps(1)


@given(stop=st.integers(0, 30))
def test_resuming_goes_on_exactly(stop: int) -> None:
    def make() -> GroupedSampler:
        return GroupedSampler(np.arange(23) % 3 == 0, batch=4, normalize_over=2, seed=5)

    def walk(sampler: GroupedSampler, number: int) -> list[list[list[int]]]:
        seen: list[list[list[int]]] = []
        while len(seen) < number:
            for step in sampler.steps():
                sampler.advance()
                seen.append(step)
                if len(seen) == number:
                    return seen
            sampler.finish_epoch()
        return seen

    whole = walk(make(), 40)
    first = make()
    before = walk(first, stop)
    second = make()
    second.load_state_dict(first.state_dict())
    assert before + walk(second, 40 - stop) == whole


def test_a_state_of_other_data_is_refused() -> None:
    state = GroupedSampler(np.zeros(30, dtype=bool), batch=4, normalize_over=2, seed=7).state_dict()
    assert all(isinstance(value, int) for value in state.values())
    other = GroupedSampler(np.zeros(29, dtype=bool), batch=4, normalize_over=2, seed=7)
    with pytest.raises(FocaldetError, match="the run had pictures=30, now it is 29"):
        other.load_state_dict(state)


def test_what_cannot_be_dealt() -> None:
    with pytest.raises(FocaldetError, match="no picture to train on"):
        GroupedSampler(np.zeros(0, dtype=bool), batch=4, normalize_over=2, seed=0)
    with pytest.raises(FocaldetError, match="batch=5 is no multiple of normalize_over=2"):
        GroupedSampler(np.zeros(3, dtype=bool), batch=5, normalize_over=2, seed=0)


def test_evaluation_goes_through_in_order() -> None:
    sampler = InOrder(5, 2)
    assert list(sampler.steps()) == [[[0, 1]], [[2, 3]], [[4]]]
    assert len(sampler) == 3
    assert list(InOrder(0).steps()) == []
