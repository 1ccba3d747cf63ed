"""Post-processing against stored outputs, and against a plain reading of section 9 of the specification."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import decode_hbox
from focaldet.geometry.hbox import clip_hbox
from focaldet.geometry.nms import nms_hbox
from focaldet.postprocess.detect import DetectRule, best_of, detect, lowest_logit, pairs_over, score_of, select_pairs
from focaldet.structures import StageOutput

CLASSES = ("a", "b", "c")


def stage(seed: int = 0, pictures: int = 2, levels: tuple[int, ...] = (60, 20, 7), classes: int = 3) -> StageOutput:
    """Random output of a network, with enough over the threshold to make every limit bite."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    centres = [torch.rand(1, count, 2, generator=source) * 100 for count in levels]
    return StageOutput(
        logits=[normal(pictures, count, classes) * 2 - 2 for count in levels],
        deltas=[normal(pictures, count, 4) * 0.4 for count in levels],
        anchors=[torch.cat([centre - 12, centre + 12], dim=-1) for centre in centres],
    )


def plainly(
    output: StageOutput, picture: int, size: tuple[int, int], scale: Tensor, rule: DetectRule
) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, scores and labels of one picture by the text of the specification, without any shortcut."""
    boxes, scores, labels = [], [], []
    for logits, deltas, anchors in zip(output.logits, output.deltas, output.anchors, strict=True):
        level = logits[picture].double().sigmoid().float()
        pairs = [
            (float(level[a, c]), a, c)
            for a in range(level.shape[0])
            for c in range(level.shape[1])
            if level[a, c] > rule.score
        ]
        pairs = sorted(pairs, key=lambda pair: -pair[0])[: rule.per_level]
        rows = torch.tensor([pair[1] for pair in pairs], dtype=torch.int64)
        boxes.append(decode_hbox(deltas[picture].float()[rows], anchors[0][rows]))
        scores += [pair[0] for pair in pairs]
        labels += [pair[2] for pair in pairs]
    all_boxes = clip_hbox(torch.cat(boxes), size) * (1 / scale).float().repeat(2)
    all_scores, all_labels = torch.tensor(scores), torch.tensor(labels, dtype=torch.int64)
    filled = (all_boxes[:, 2:] > all_boxes[:, :2]).all(1)
    all_boxes, all_scores, all_labels = all_boxes[filled], all_scores[filled], all_labels[filled]
    kept = nms_hbox(all_boxes, all_scores, all_labels, rule.nms, rule.nms_labels)[: rule.max_detections]
    return all_boxes[kept], all_scores[kept], all_labels[kept]


@pytest.mark.golden
def test_filter_of_the_reference(golden: Path) -> None:
    units = np.load(golden / "coco" / "units.npz")
    rows, labels, scores = pairs_over(torch.from_numpy(units["filter.scores"]), 0.05)
    best = best_of(scores, 200)
    assert len(set(units["filter.kept_scores"].tolist())) == 200  # no ties, so the order is defined
    np.testing.assert_array_equal(scores[best], units["filter.kept_scores"])
    np.testing.assert_array_equal(labels[best], units["filter.kept_labels"])
    np.testing.assert_array_equal(rows[best], units["filter.kept_rows"])


@pytest.mark.parametrize("rule", [DetectRule(), DetectRule(per_level=9, max_detections=5), DetectRule(0.4, nms=0.2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_specification_read_plainly(rule: DetectRule, dtype: torch.dtype) -> None:
    output = stage()
    output.logits = [level.to(dtype) for level in output.logits]
    output.deltas = [level.to(dtype) for level in output.deltas]
    sizes, scales = (
        [(100, 90), (64, 128)],
        torch.tensor([[0.8, 0.80125], [1.5, 1.4925373134328359]], dtype=torch.float64),
    )
    for picture, found in enumerate(detect([output], sizes, scales, rule, CLASSES)):
        boxes, scores, labels = plainly(output, picture, sizes[picture], scales[picture], rule)
        assert len(found) > 0
        torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=0)
        torch.testing.assert_close(found.scores, scores, rtol=0, atol=0)
        assert found.labels.equal(labels)


def test_pictures_of_a_batch_do_not_mix() -> None:
    output = stage(pictures=3)
    sizes, scales = [(90, 90)] * 3, torch.ones(3, 2)
    together = detect([output], sizes, scales, DetectRule(), CLASSES)
    for picture in range(3):
        one = StageOutput(
            [level[picture : picture + 1] for level in output.logits],
            [level[picture : picture + 1] for level in output.deltas],
            output.anchors,
        )
        alone = detect([one], sizes[:1], scales[:1], DetectRule(), CLASSES)[0]
        assert alone.boxes.equal(together[picture].boxes)
        assert alone.scores.equal(together[picture].scores)


def test_each_picture_may_have_its_own_anchors() -> None:
    output = stage()
    shared = detect([output], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), CLASSES)
    output.anchors = [torch.cat([level, level + 5]) for level in output.anchors]
    own = detect([output], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), CLASSES)
    assert own[0].boxes.equal(shared[0].boxes)
    assert not own[1].boxes.equal(shared[1].boxes)


@given(
    p=st.floats(0, 1, exclude_max=True) | st.sampled_from([0.05, 1e-38, 1e-6, 0.5, 1 - 1e-7, 1 - 2**-24]),
    near=st.lists(st.integers(-40, 40), min_size=1, max_size=20),
)
def test_the_bound_on_logits_loses_no_pair(p: float, near: list[int]) -> None:
    """Logits a few float32 steps around the threshold pass exactly if their float32 score does."""
    border = math.log(p / (1 - p)) if p > 1e-45 else -100.0
    steps = torch.tensor(near, dtype=torch.int32)
    logits = (torch.full((len(near),), border).view(torch.int32) + steps).view(torch.float32)
    passing = logits.double().sigmoid().float() > p
    assert bool((logits[passing] > lowest_logit(p)).all())
    pairs = select_pairs([logits[None, :, None]], DetectRule(score=p))
    assert sorted(pairs.anchors.tolist()) == passing.nonzero().squeeze(1).tolist()


@given(st.lists(st.floats(-110, 110, width=32), min_size=1, max_size=70))
def test_scores_are_torchs_to_the_last_bit_or_two_wherever_they_stand(values: list[float]) -> None:
    logits = torch.tensor(values)
    scores = score_of(logits)
    torch.testing.assert_close(scores, logits.sigmoid(), rtol=3e-7, atol=1e-38)  # 2 float32 steps; denormals
    assert scores[:1].equal(score_of(logits[:1]))


def test_threshold_is_strict() -> None:
    scores = torch.tensor([[0.05, 0.5, 0.051]])
    assert pairs_over(scores, 0.5)[0].tolist() == []
    half = stage(levels=(4,))
    half.logits = [torch.zeros(2, 4, 3)]  # a score of exactly one half
    assert all(len(found) == 0 for found in detect([half], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(0.5), CLASSES))
    assert all(len(found) > 0 for found in detect([half], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(0.499), CLASSES))


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.9]), max_size=40), st.integers(1, 45))
def test_equal_scores_keep_their_order(scores: list[float], limit: int) -> None:
    expected = sorted(range(len(scores)), key=lambda place: -scores[place])[:limit]
    assert best_of(torch.tensor(scores), limit).tolist() == expected


def test_limit_counts_pairs_of_a_level_not_anchors() -> None:
    logits = [torch.full((1, 5, 3), 2.0), torch.full((1, 4, 3), 1.0)]
    pairs = select_pairs(logits, DetectRule(per_level=4))
    assert pairs.anchors.tolist() == [0, 0, 0, 1, 5, 5, 5, 6]
    assert pairs.labels.tolist() == [0, 1, 2, 0, 0, 1, 2, 0]


def test_nothing_found_is_no_detections() -> None:
    silent = stage()
    silent.logits = [torch.full_like(level, -50) for level in silent.logits]
    for found in detect([silent], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), CLASSES):
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == (0,)


def test_numbers_that_are_none_are_never_selected_and_hide_nothing() -> None:
    output = stage(levels=(4,))
    output.logits = [torch.full((2, 4, 3), -50.0)]
    output.logits[0][0, 1] = torch.tensor([math.nan, 3.0, math.inf])  # the good logit beside the NaN counts
    output.logits[0][0, 2, 0] = 5.0
    output.deltas[0][:] = 0.0
    output.deltas[0][0, 2] = math.nan
    output.anchors = [torch.tensor([[[0.0, 0, 20, 20]] * 4])]
    first, second = detect([output], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), CLASSES)
    assert first.labels.tolist() == [2, 1]
    assert first.scores[0] == 1
    assert len(second) == 0


@given(st.integers(0, 50), st.floats(1, 1e30))
def test_wild_networks_give_boxes_inside_the_picture(seed: int, wildness: float) -> None:
    output = stage(seed)
    output.logits = [level * wildness for level in output.logits]
    output.deltas = [level * wildness for level in output.deltas]
    scales = torch.tensor([[0.5, 0.25]] * 2, dtype=torch.float64)
    for found in detect([output], [(40, 50)] * 2, scales, DetectRule(max_detections=20), CLASSES):
        assert len(found) <= 20
        assert bool((found.boxes >= 0).all())
        assert bool((found.boxes <= torch.tensor([100.0, 160, 100, 160])).all())
        assert bool((found.boxes[:, 2:] > found.boxes[:, :2]).all())
        assert bool((found.scores[1:] <= found.scores[:-1]).all())


def test_places_that_do_not_count_are_left_out() -> None:
    output = stage()
    output.valid = [torch.zeros(1, level.shape[1], dtype=torch.bool) for level in output.logits]
    output.valid[1][0, 3] = True
    pairs = select_pairs(output.logits, DetectRule(score=0.0), output.valid)
    assert set(pairs.anchors.tolist()) == {63}


def test_the_last_stage_speaks() -> None:
    first, last = stage(1), stage(2)
    both = detect([first, last], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), CLASSES)
    alone = detect([last], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), CLASSES)
    assert all(one.boxes.equal(other.boxes) for one, other in zip(both, alone, strict=True))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": 1.0}, "score=1.0 must be at least 0 and below 1"),
        ({"score": math.nan}, "score=nan"),
        ({"nms": 1.5}, "nms=1.5 must lie between 0 and 1"),
        ({"per_level": 0}, "must be above 0"),
        ({"max_detections": 0}, "must be above 0"),
    ],
)
def test_rules_out_of_range(change: dict[str, float], words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        DetectRule(**change)  # type: ignore[arg-type]


def test_arguments_that_do_not_fit_together() -> None:
    with pytest.raises(FocaldetError, match="2 pictures came out of the model, but there are 1 sizes"):
        detect([stage()], [(90, 90)], torch.ones(2, 2), DetectRule(), CLASSES)
    with pytest.raises(FocaldetError, match="tells 3 classes apart, but 2 names"):
        detect([stage()], [(90, 90)] * 2, torch.ones(2, 2), DetectRule(), ("a", "b"))
