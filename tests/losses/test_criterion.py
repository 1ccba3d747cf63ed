from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import decode_hbox
from focaldet.geometry.iou import hbox_iou_aligned
from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.geometry.rotated_iou import rotated_iou_aligned
from focaldet.losses.box import OVERLAPS
from focaldet.losses.criterion import EPSILON, BoxLoss, Criterion, rows_by_level
from focaldet.losses.focal import focal_loss
from focaldet.losses.mask import mask_loss
from focaldet.structures import StageOutput, StageTargets

COUNTS, CLASSES, BATCH = (24, 9, 3), 5, 2
NONE = torch.zeros(0, dtype=torch.int64)


def _stage(seed: int = 0, dtype: torch.dtype = torch.float32) -> StageOutput:
    generator = torch.Generator().manual_seed(seed)

    def random(count: int, numbers: int) -> Tensor:
        return torch.randn(BATCH, count, numbers, generator=generator).to(dtype).requires_grad_()

    corner = [torch.rand(1, count, 2, generator=generator) * 100 for count in COUNTS]
    anchors = [torch.cat([low, low + 20], -1) for low in corner]
    return StageOutput([random(n, CLASSES) for n in COUNTS], [random(n, 4) for n in COUNTS], anchors)


def _targets(positives: list[int], ignored: list[int], valid: Tensor | None = None) -> StageTargets:
    flat, total = torch.tensor(positives, dtype=torch.int64), sum(COUNTS)
    return StageTargets(
        positives=flat,
        labels=flat % CLASSES,
        deltas=(flat[:, None] % 7 - 3) * torch.tensor([[0.1, 0.2, -0.1, 0.3]]),
        truths=torch.zeros_like(flat),
        ignored=torch.tensor(ignored, dtype=torch.int64),
        valid=valid,
        num_positives=torch.bincount(flat // total, minlength=BATCH),
        num_anchors=total,
    )


SOME = _targets([3, 23, 24, 35, 36, 60, 70], [0, 5, 30, 40, 71])
CODER = RboxCoder("le90", edge_swap=True, proj_xy=True)


def _rotated_stage(seed: int = 0) -> StageOutput:
    """Stages of rboxes: predictions within a third of an anchor of the targets."""
    generator = torch.Generator().manual_seed(seed)
    stage = _stage(seed)
    centres = [(anchors[..., :2] + anchors[..., 2:]) / 2 for anchors in stage.anchors]
    sides = torch.tensor([20.0, 10.0, 0.3])
    return replace(
        stage,
        deltas=[(torch.randn(BATCH, n, 5, generator=generator) * 0.1).requires_grad_() for n in COUNTS],
        anchors=[torch.cat([c, sides.expand(*c.shape[:-1], 3)], -1) for c in centres],
    )


def _rotated(targets: StageTargets) -> StageTargets:
    return replace(targets, deltas=torch.cat([targets.deltas, targets.deltas[:, :1]], 1) * 0.5)


def _flat_losses(stage: StageOutput, targets: StageTargets) -> tuple[Tensor, Tensor]:
    """The same sums over the joined levels."""
    logits, deltas, _ = stage.flat()
    excluded = targets.ignored
    if targets.valid is not None:
        excluded = torch.cat([excluded, (~targets.valid).flatten().nonzero()[:, 0]]).sort().values
    average = targets.num_positives.clamp(min=1).sum().item() + EPSILON
    by_class = focal_loss(logits, targets.positives, targets.labels, excluded, average)
    return by_class, (deltas.flatten(0, 1)[targets.positives] - targets.deltas).abs().sum() / average


@pytest.mark.parametrize("masked", [False, True])
def test_levels_sum_up_to_the_whole(masked: bool) -> None:
    stage, valid = _stage(), None
    if masked:
        valid = torch.ones(BATCH, sum(COUNTS), dtype=torch.bool)
        valid[1, 10:20] = valid[1, 33] = False
    targets = replace(SOME, valid=valid)
    losses = Criterion()([stage], [targets])
    by_class, by_box = _flat_losses(stage, targets)
    torch.testing.assert_close(losses["class"], by_class)
    torch.testing.assert_close(losses["box"], by_box)
    torch.testing.assert_close(losses["loss"], by_class + by_box)
    assert list(losses) == ["class", "box", "loss"]


def test_rows_of_a_level() -> None:
    first, second, third = rows_by_level(_stage(), SOME)  # anchors 0-23, 24-32, 33-35; the second picture starts at 36
    assert first.positives.tolist() == [3, 23, 24] and first.excluded.tolist() == [0, 5, 28]
    assert second.positives.tolist() == [0, 9] and second.excluded.tolist() == [6]
    assert third.positives.tolist() == [2, 4] and third.excluded.tolist() == [5]
    assert second.members.tolist() == [2, 5] and third.members.tolist() == [3, 6]


def test_normalizer_counts_every_picture_at_least_once() -> None:
    stage = _stage()
    one_sided = _targets([3, 4, 5], [])  # three positives on the first picture, none on the second
    alone = Criterion().per_level(stage, one_sided)[1].sum()
    expected = (stage.deltas[0][0, 3:6] - one_sided.deltas).abs().sum() / (3 + 1 + EPSILON)
    torch.testing.assert_close(alone, expected)


def test_without_truth_the_box_loss_is_zero_and_still_in_the_graph() -> None:
    stage = _stage()
    for box_loss in ("l1", "smooth_l1", "giou"):
        losses = Criterion(box_loss=box_loss)([stage], [_targets([], [])])
        assert losses["box"].item() == 0 and losses["class"] > 0
        losses["loss"].backward()
    assert all(deltas.grad is not None and deltas.grad.eq(0).all() for deltas in stage.deltas)
    assert all(logits.grad is not None and logits.grad.isfinite().all() for logits in stage.logits)


def test_refining_stages_have_names_of_their_own_and_all_is_summed() -> None:
    losses = Criterion()([_stage(0), _stage(1), _stage(2)], [SOME, SOME, SOME])
    names = ["class", "box", "refine1_class", "refine1_box", "refine2_class", "refine2_box"]
    assert list(losses) == [*names, "loss"]
    torch.testing.assert_close(losses["loss"], torch.stack([losses[name] for name in names]).sum())


def test_box_weight_and_giou() -> None:
    stage = _stage()
    plain, heavy = Criterion()([stage], [SOME]), Criterion(box_weight=2.5)([stage], [SOME])
    torch.testing.assert_close(heavy["box"], 2.5 * plain["box"])
    own = [anchors.expand(BATCH, -1, -1).contiguous() for anchors in stage.anchors]
    giou = Criterion(box_loss="giou")
    shared_anchors, own_anchors = giou([stage], [SOME]), giou([replace(stage, anchors=own)], [SOME])
    assert 0 < shared_anchors["box"] < 2 * len(SOME.positives)
    assert torch.equal(shared_anchors["box"], own_anchors["box"])


def test_a_perfect_answer_costs_nothing() -> None:
    stage = _stage()
    logits = torch.full((BATCH, sum(COUNTS), CLASSES), -50.0)
    logits.view(-1, CLASSES)[SOME.positives, SOME.labels] = 50.0
    deltas = torch.zeros(BATCH, sum(COUNTS), 4)
    deltas.view(-1, 4)[SOME.positives] = SOME.deltas
    perfect = StageOutput(list(logits.split(COUNTS, 1)), list(deltas.split(COUNTS, 1)), stage.anchors)
    for box_loss in ("l1", "smooth_l1", "giou"):
        assert Criterion(box_loss=box_loss)([perfect], [SOME])["loss"].item() == pytest.approx(0, abs=1e-6)


def test_half_precision_goes_in_and_float32_comes_out() -> None:
    stage = _stage(dtype=torch.bfloat16)
    losses = Criterion()([stage], [SOME])
    losses["loss"].backward()
    assert losses["loss"].dtype == torch.float32
    assert all(t.grad is not None and t.grad.dtype == torch.bfloat16 for t in stage.logits + stage.deltas)


def test_faults_are_said() -> None:
    with pytest.raises(FocaldetError, match="1 stages come with 2 targets"):
        Criterion()([_stage()], [SOME, SOME])
    with pytest.raises(FocaldetError, match="2 pictures of 36 anchors, the targets for 2 of 40"):
        Criterion()([_stage()], [replace(SOME, num_anchors=40)])
    with pytest.raises(FocaldetError, match="label 9, but the model has 5 classes, 0 to 4"):
        Criterion()([_stage()], [replace(SOME, labels=SOME.labels + 5)])
    with pytest.raises(FocaldetError, match=r"not one of l1, smooth_l1, .* giou"):
        Criterion(box_loss="iou")
    with pytest.raises(FocaldetError, match=r"gamma=-1"):
        Criterion(gamma=-1)
    with pytest.raises(FocaldetError, match="box_beta must be above 0"):
        Criterion(box_loss="smooth_l1_one_sided", box_beta=0.0)
    with pytest.raises(FocaldetError, match="iou_floor=1"):
        Criterion(iou_floor=1.0)
    with pytest.raises(FocaldetError, match=r"give hboxes .* of shape \(..., 4\)"):
        Criterion(box_loss="giou")([_rotated_stage()], [_rotated(SOME)])


@pytest.mark.parametrize("form", ["iou_smooth_l1", "iou_smooth_l1_exp"])
def test_iou_smooth_l1_has_the_size_of_the_overlap_and_the_direction_of_the_deltas(form: BoxLoss) -> None:
    stage, targets = _rotated_stage(), _rotated(SOME)
    losses = Criterion(box_loss=form, decode=CODER.decode)([stage], [targets])
    losses["box"].backward()
    _, deltas, anchors = stage.flat()
    said, of = deltas.flatten(0, 1)[targets.positives], anchors[0, targets.positives % sum(COUNTS)]
    ious = rotated_iou_aligned(CODER.decode(said, of), CODER.decode(targets.deltas, of)).detach()
    sizes = -ious.log() if form == "iou_smooth_l1" else (1 - ious).exp() - 1
    # float32 boxes of some hundred pixels here, float64 there; L / (L + 1e-5) takes off at most one part in a thousand
    torch.testing.assert_close(losses["box"], sizes.sum() / len(sizes), rtol=2e-3, atol=0)
    assert ious.min() > 0.01

    ours = torch.cat([d.grad for d in stage.deltas if d.grad is not None], 1).flatten(0, 1)[targets.positives]
    plain = said.detach().requires_grad_()
    torch.nn.functional.smooth_l1_loss(plain, targets.deltas, beta=1 / 9, reduction="sum").backward()
    assert plain.grad is not None
    torch.testing.assert_close(torch.cosine_similarity(ours, plain.grad), torch.ones(len(said)))


def test_iou_smooth_l1_of_upright_boxes() -> None:
    stage = _stage()
    criterion = Criterion(box_loss="iou_smooth_l1", iou_floor=0.01)
    _, deltas, anchors = stage.flat()
    said, of = deltas.flatten(0, 1)[SOME.positives], anchors[0, SOME.positives % sum(COUNTS)]
    ious = hbox_iou_aligned(decode_hbox(said, of), decode_hbox(SOME.deltas, of))
    expected = -ious.clamp(min=0.01).log().sum() / len(ious)
    torch.testing.assert_close(criterion([stage], [SOME])["box"], expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("value", [1e3, 1e30])
def test_a_box_that_misses_or_overflows_costs_what_the_floor_says(value: float) -> None:
    """exp(dw) of a free coder overflows; the boxes of such a step must not end a run."""
    stage, targets = _rotated_stage(), _rotated(_targets([3], []))
    with torch.no_grad():
        stage.deltas[0][0, 3, :4] = value
    free = RboxCoder("tf90", max_log_scale=None)
    floored = Criterion(box_loss="iou_smooth_l1", decode=free.decode)([stage], [targets])["box"]
    floored.backward()
    assert floored.item() == pytest.approx(-math.log(1e-6) / 2, rel=1e-6)  # the second picture counts as one
    assert stage.deltas[0].grad is not None and stage.deltas[0].grad.isfinite().all()
    with torch.no_grad():
        stage.deltas[0][0, 3] = torch.tensor([100.0, 0, 0, 0, 0])
    assert Criterion(box_loss="iou_smooth_l1", iou_floor=0.0, decode=free.decode)([stage], [targets])["box"] == math.inf


def test_what_is_not_a_number_stays_so() -> None:
    stage = _rotated_stage()
    with torch.no_grad():
        stage.deltas[0][0, 3] = math.nan
    assert Criterion(box_loss="iou_smooth_l1", decode=CODER.decode)([stage], [_rotated(SOME)])["box"].isnan()


@pytest.mark.parametrize("box_loss", [name for name in get_args(BoxLoss) if name not in OVERLAPS])
def test_every_loss_of_rboxes_without_truth(box_loss: BoxLoss) -> None:
    stage = _rotated_stage()
    losses = Criterion(box_loss=box_loss, decode=CODER.decode)([stage], [_rotated(_targets([], []))])
    losses["loss"].backward()
    assert losses["box"].item() == 0 and losses["class"].isfinite()
    assert all(deltas.grad is not None and deltas.grad.eq(0).all() for deltas in stage.deltas)


def _with_masks(stage: StageOutput) -> StageOutput:
    generator = torch.Generator().manual_seed(3)
    return replace(stage, extra={"mask_logits": [torch.randn(BATCH, 1 + CLASSES, 4, 6, generator=generator)]})


def test_each_stage_is_normalized_by_its_own_positives() -> None:
    few = _targets([3, 24], [])
    losses = Criterion(box_weight=2.0)([_stage(), _stage(1), _stage(2)], [SOME, few, SOME])
    for number, targets in enumerate([SOME, few, SOME]):
        prefix = f"refine{number}_" if number else ""
        by_class, by_box = Criterion(box_weight=2.0).per_level(_stage(number), targets)
        torch.testing.assert_close(losses[prefix + "class"], by_class.sum())
        torch.testing.assert_close(losses[prefix + "box"], by_box.sum())
    torch.testing.assert_close(losses["loss"], sum(value for name, value in losses.items() if name != "loss"))


def test_a_semantic_branch_adds_the_loss_of_masks() -> None:
    stage, masks = _with_masks(_stage(1)), [torch.randint(0, 1 + CLASSES, (BATCH, 4, 6))]
    losses = Criterion()([_stage(), stage], [SOME, replace(SOME, masks=masks)])
    assert list(losses) == ["class", "box", "refine1_class", "refine1_box", "mask", "loss"]
    torch.testing.assert_close(losses["mask"], mask_loss(stage.extra["mask_logits"], masks))
    rest = sum(losses[name] for name in ("class", "box", "refine1_class", "refine1_box"))
    torch.testing.assert_close(losses["loss"], rest + losses["mask"])


def test_a_semantic_branch_without_masks_is_refused() -> None:
    with pytest.raises(FocaldetError, match="its targets have no masks"):
        Criterion()([_with_masks(_stage())], [SOME])


def test_a_stage_without_positives_costs_no_boxes() -> None:
    stages = [_stage(), _stage(1)]
    losses = Criterion()(stages, [SOME, _targets([], [5])])
    assert losses["refine1_box"].item() == 0 and losses["refine1_class"] > 0
    losses["loss"].backward()
    assert all(level.grad is not None and not level.grad.any() for level in stages[1].deltas)
