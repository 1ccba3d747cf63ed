"""The share of objects that anchors reach, said before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focaldet.data.formats import open_dataset
from focaldet.engine.build import build_coder
from focaldet.engine.job import prepare
from focaldet.engine.reach import Reach, anchor_reach, missing_answers
from focaldet.errors import UsageError
from focaldet.recipes import get_recipe

SMALL = get_recipe("retinanet-small").replace(sizes=((96, 64),))


def test_anchors_of_the_objects_size_reach_all_and_far_larger_ones_none(
    new_data: Callable[..., Path], tmp_path: Path
) -> None:
    dataset = open_dataset(new_data(tmp_path / "data"), "train")
    assert dataset is not None
    every = anchor_reach(dataset, SMALL)
    assert every.objects == dataset.num_objects and every.pictures == len(dataset)
    assert every.reached > 0
    assert anchor_reach(dataset, SMALL.replace(anchor_scales=(64.0,))).reached == 0


def test_a_job_says_it(new_data: Callable[..., Path], tmp_path: Path) -> None:
    job = prepare(SMALL, new_data(tmp_path / "data"), {})
    assert any("own an anchor by its IoU alone" in note for note in job.notes)


def test_objects_beyond_the_limit_of_answers_are_told(new_data: Callable[..., Path], tmp_path: Path) -> None:
    data = new_data(tmp_path / "data")
    dataset = open_dataset(data, "train")
    assert dataset is not None
    most = int(np.diff(dataset.starts).max())
    fullest = dataset.path(int(np.diff(dataset.starts).argmax()))
    assert missing_answers(dataset, SMALL.replace(max_detections=most)) is None
    assert missing_answers(dataset, SMALL.replace(max_detections=None)) is None
    assert missing_answers(dataset, SMALL.replace(max_detections=1, tile=8, overlap=2)) is None  # each tile has its own
    told = missing_answers(dataset, SMALL.replace(max_detections=most - 1))
    assert told is not None and told.startswith(f"{fullest} has {most} objects, but the recipe answers at most")
    assert told in prepare(SMALL, data, {"max_detections": most - 1}).notes


def test_ignored_objects_need_no_answer(new_data: Callable[..., Path], tmp_path: Path) -> None:
    dataset = open_dataset(new_data(tmp_path / "data"), "train")
    assert dataset is not None
    dataset = replace(dataset, difficult=np.ones_like(dataset.difficult))
    assert missing_answers(dataset, SMALL.replace(max_detections=1)) is None


@pytest.mark.parametrize(("reached", "text"), [(1, "50.0 % of 2 objects in 1 pictures"), (0, "0.0 % of 2 objects")])
def test_the_sentence(reached: int, text: str) -> None:
    assert text in str(Reach(reached, 2, 1))


@pytest.mark.parametrize("field", [{"edge_swap": True}, {"norm_factor": 1.0}])
def test_directions_refuse_fields_of_differences(field: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="edge_swap and norm_factor go with angle_code='difference'"):
        build_coder(get_recipe("retinanet-h-small").replace(**field))
