"""One step: half precision, averages of the weights, compiled and recomputed networks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from focaldet.engine.average import Average
from focaldet.engine.job import prepare
from focaldet.engine.options import Options
from focaldet.engine.recompute import keep_statistics, parts_to_recompute, recomputing
from focaldet.engine.trainer import Trainer

NAME = "retinanet-small"
CHANGES: dict[str, Any] = {
    "epochs": 2, "batch": 2, "normalize_over": 1, "sizes": ((64, 64),), "test_size": (64, 64), "backbone": "resnet10t",
    "backbone_norm": "trained",
}  # fmt: skip


def trainer_of(data: Path, folder: Path, options: Options | None = None, **changes: Any) -> Trainer:
    trainer = Trainer(prepare(NAME, data, {**CHANGES, **changes}), folder, torch.device("cpu"), options=options)
    trainer.updater.model.train()
    return trainer


def first_step(trainer: Trainer) -> dict[str, float]:
    return trainer.step(next(iter(trainer.loader())))


# --- precision ---
@pytest.mark.parametrize("changes", [{}, {"clip": 1.0, "clip_per": "variable"}], ids=["total", "variable"])
def test_fp16_gives_the_gradients_of_float32_to_its_rounding(data: Path, tmp_path: Path, changes: Any) -> None:
    """A scale of 1024 comes out again; float16 has 11 bits, which a dozen layers turn into about a percent."""
    exact = trainer_of(data, tmp_path, **changes)
    half = trainer_of(data, tmp_path, precision="fp16", loss_scale=1024.0, **changes)
    half.updater.model.load_state_dict(exact.updater.model.state_dict())
    figures = [first_step(trainer) for trainer in (exact, half)]
    assert figures[1]["loss"] == pytest.approx(figures[0]["loss"], rel=1e-2)
    assert figures[1]["grad_norm"] == pytest.approx(figures[0]["grad_norm"], rel=3e-2)
    assert all(parameter.dtype == torch.float32 for parameter in half.updater.model.parameters())


def test_an_overflow_leaves_the_update_out_and_halves_the_scale(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(data, tmp_path, precision="fp16")
    assert trainer.updater.scale is not None
    trainer.updater.scale.value = 1e30
    before = copy.deepcopy(trainer.updater.model.state_dict())
    figures = first_step(trainer)
    assert "grad_norm" not in figures and trainer.step_number == 1
    assert trainer.updater.scale.value == 5e29
    named = dict(trainer.updater.model.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in named.items())


# --- averaged weights ---
def test_an_average_follows_its_rule() -> None:
    model = nn.BatchNorm1d(2)
    average = Average(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.num_batches_tracked.fill_(7)  # type: ignore[operator]
    average.update(model)  # keeps (1 + 1) / (10 + 1) at first
    assert average.model.weight.tolist() == pytest.approx([3 - 2 * 2 / 11] * 2)
    assert average.model.num_batches_tracked == 7
    for _ in range(200):
        average.update(model)
    assert average.model.weight.tolist() == pytest.approx([3.0, 3.0])
    assert not average.model.weight.requires_grad and not average.model.training


# --- other ways to the same numbers ---
@pytest.mark.parametrize("options", [Options(recompute=True), Options(channels_last=False)], ids=["recompute", "nchw"])
def test_other_ways_to_compute_give_the_same_step(data: Path, tmp_path: Path, options: Options) -> None:
    plain, other = trainer_of(data, tmp_path), trainer_of(data, tmp_path, options)
    figures = [first_step(trainer) for trainer in (plain, other)]
    for name, value in figures[0].items():
        assert figures[1][name] == pytest.approx(value, rel=1e-5), name
    states = [trainer.updater.model.state_dict() for trainer in (plain, other)]
    for name, value in states[0].items():  # statistics of norms too: the second run of a part must not count
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


def test_recomputed_parts_keep_less(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(data, tmp_path)
    images = torch.randn(1, 3, 64, 64)
    kept = []
    for parts in ([], parts_to_recompute(trainer.updater.model)):
        sizes: dict[int, int] = {}
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.setdefault(tensor.data_ptr(), tensor.nbytes) and tensor, lambda t: t
        )
        with hooks, recomputing(parts):
            trainer.updater.model(images)
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0] / 2
    assert not any("forward" in vars(module) for module in trainer.updater.model.modules())  # nothing is left behind


def test_statistics_are_left_alone() -> None:
    norm = nn.BatchNorm2d(2)
    buffers = dict(norm.named_buffers())
    with keep_statistics(norm):
        norm(torch.randn(3, 2, 4, 4))
    assert dict(norm.named_buffers()) == buffers  # the very same tensors
    assert norm.num_batches_tracked == 0 and torch.equal(norm.running_mean, torch.zeros(2))


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config, "compile_threads", 1)  # else its processes are forked beside those of other tests
    plain, other = trainer_of(data, tmp_path), trainer_of(data, tmp_path, Options(compile=True))
    figures = [first_step(trainer) for trainer in (plain, other)]
    for name, value in figures[0].items():
        assert figures[1][name] == pytest.approx(value, rel=1e-4), name  # fused sums round in another order
