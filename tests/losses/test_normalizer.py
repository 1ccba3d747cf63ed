from __future__ import annotations

import pytest
import torch

from focaldet.losses.criterion import Criterion
from focaldet.losses.normalizer import MovingAverage, stage_of, targets_of
from focaldet.structures import StageOutput, StageTargets


def stage(pictures: int = 3) -> StageOutput:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(pictures, count, 2, generator=generator).requires_grad_() for count in (6, 4)]
    deltas = [torch.randn(pictures, count, 4, generator=generator).requires_grad_() for count in (6, 4)]
    return StageOutput(logits, deltas, [torch.rand(1, count, 4, generator=generator) for count in (6, 4)])


def targets() -> StageTargets:
    """Three pictures of ten anchors: two positives on two levels; none; one, and one that is ignored."""
    return StageTargets(
        positives=torch.tensor([1, 8, 20]),
        labels=torch.tensor([0, 1, 1]),
        deltas=torch.arange(12.0).reshape(3, 4),
        truths=torch.tensor([0, 1, 0]),
        ignored=torch.tensor([25]),
        valid=None,
        num_positives=torch.tensor([2, 0, 1]),
        num_anchors=10,
    )


def test_each_picture_by_itself_is_the_mean_of_pictures() -> None:
    criterion = Criterion(normalizer="picture")
    whole = criterion([stage()], [targets()])
    parts = [criterion([stage_of(stage(), index)], [targets_of(targets(), index)]) for index in range(3)]
    for name in ("class", "box"):
        torch.testing.assert_close(whole[name], torch.stack([part[name] for part in parts]).mean())
    assert parts[1]["box"] == 0 and parts[1]["class"] > 0
    batch = Criterion()([stage()], [targets()])
    assert batch["class"] != whole["class"]


def test_one_picture_has_one_normalizer_however_it_is_called() -> None:
    one, its = stage_of(stage(), 0), targets_of(targets(), 0)
    assert Criterion(normalizer="picture")([one], [its])["loss"] == Criterion()([one], [its])["loss"]


def test_pictures_are_cut_out_with_all_that_is_theirs() -> None:
    all_targets = targets()
    all_targets.valid = torch.arange(30).reshape(3, 10) % 2 == 0
    third = targets_of(all_targets, 2)
    assert (third.positives.tolist(), third.labels.tolist(), third.ignored.tolist()) == ([0], [1], [5])
    assert third.deltas.tolist() == [[8.0, 9.0, 10.0, 11.0]]
    assert third.valid is not None and torch.equal(third.valid, all_targets.valid[2:])


def test_the_average_moves_by_a_tenth_and_counts_at_least_one() -> None:
    criterion = Criterion(normalizer="moving", average=MovingAverage())
    first = criterion([stage()], [targets()])["box"].item()
    assert criterion.average.values[0].item() == pytest.approx(0.9 * 100 + 0.1 * 3)
    second = criterion([stage()], [targets()])["box"].item()
    assert first * 90.3 == pytest.approx(second * (0.9 * 90.3 + 0.3), rel=1e-6)
    empty = targets_of(targets(), 1)
    criterion([stage_of(stage(), 1)], [empty])
    assert criterion.average.values[0].item() == pytest.approx(0.9 * (0.9 * 90.3 + 0.3) + 0.1)


def test_each_group_of_a_step_has_its_own_average() -> None:
    """As on two devices: each sees its own group in every step."""
    together, apart = MovingAverage(2), [MovingAverage(), MovingAverage()]
    for counts in ([5, 40], [7, 1], [0, 90]):
        for device, count in zip(apart, counts, strict=True):
            assert together.update(torch.tensor(count)) == device.update(torch.tensor(count))


def test_an_average_goes_on_where_it_was() -> None:
    average, other = MovingAverage(2), MovingAverage(2)
    for count in (5, 9, 11):
        average.update(torch.tensor(count))
    other.load_state_dict(average.state_dict())
    assert [average.update(torch.tensor(3)) for _ in range(2)] == [other.update(torch.tensor(3)) for _ in range(2)]
