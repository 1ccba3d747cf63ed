"""The learning rates of the published tables, and what a cosine and a clock do."""

import json
from pathlib import Path

import numpy as np
import pytest

from focaldet.engine.schedule import Schedule
from focaldet.recipes import get_recipe


@pytest.mark.golden
@pytest.mark.parametrize("name", ["1x", "2x"])
def test_rates_equal_the_stored_table(golden: Path, name: str) -> None:
    table = json.loads((golden / "coco" / "tables.json").read_text())["learning_rate"]
    recipe = get_recipe(f"retinanet_r50_{name}_coco")
    schedule = Schedule(
        recipe.peak_lr,
        recipe.steps_per_epoch(recipe.images_per_epoch or 0),
        recipe.epochs,
        recipe.drops,
        recipe.warmup_steps,
        recipe.warmup_from,
        recipe.warmup_until,
    )
    assert schedule.steps_per_epoch == table["iterations_per_epoch"]
    for step, rate in table["rates"][name].items():
        number = schedule.total_steps - 1 if step == "last" else int(step)
        # the original multiplies its rate up step by step; its rounding adds up to some 1e-15 relative
        assert schedule.rate(number) == pytest.approx(rate, rel=1e-12)


def test_cosine_starts_at_the_peak_and_ends_at_zero() -> None:
    schedule = Schedule(0.1, 10, 10, shape="cosine")
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)


def test_warm_up_that_ends_after_its_last_step() -> None:
    schedule = Schedule(1.0, 100, 1, warmup_steps=10, warmup_from=0.0, warmup_until="next")
    assert schedule.rate(9) == pytest.approx(0.9)
    assert schedule.rate(10) == 1.0


def test_a_clock_moves_the_drops_forward() -> None:
    schedule = Schedule(1.0, 100, 12, (8, 11))
    assert schedule.rate(10) == 1.0
    assert schedule.rate(10, progress=0.7) == pytest.approx(0.1)
    assert schedule.rate(10, progress=0.95) == pytest.approx(0.01)


@pytest.mark.golden
@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize("program", ["rtr", "r3d"])
def test_rates_equal_those_of_the_original_rotated_programs(golden: Path, program: str, gpus: int) -> None:
    """The warm-up is in steps, whatever the number of GPUs; epochs are in pictures; the rate knows of neither."""
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as stored:
        steps, rates = (stored[f"lr.gpus{gpus}.{name}"] for name in ("steps", "lr"))
        peak, warmup, ends = stored["lr.in.base"].item(), int(stored["lr.in.warm_step"]), stored["lr.in.decay_step"]
    doubled = ends[2] // 540_000  # the second program's case is a row of twice the length
    schedule = Schedule(
        peak,
        steps_per_epoch=27_000 // gpus,
        epochs=20 * doubled,
        drops=[12 * doubled, 16 * doubled, 20 * doubled],
        warmup_steps=warmup,
        warmup_from=0.1,
        drop_from="second",
    )
    assert [drop * schedule.steps_per_epoch for drop in schedule.drops] == (ends // gpus).tolist()
    got = [schedule.rate(int(step)) for step in steps]
    assert got == pytest.approx(rates.tolist(), rel=2e-7)  # they are float32


def test_drops_at_the_first_or_second_update_of_an_epoch() -> None:
    first, second = (Schedule(1.0, 7, 30, range(1, 30), drop_from=name) for name in ("first", "second"))  # type: ignore[arg-type]
    for epoch in range(1, 30):
        assert first.factor(epoch * 7 / 210) == pytest.approx(0.1**epoch)
        assert second.factor(epoch * 7 / 210) == pytest.approx(0.1 ** (epoch - 1))
        assert second.factor((epoch * 7 + 1) / 210) == pytest.approx(0.1**epoch)
