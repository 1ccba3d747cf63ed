"""A recipe fitted to data, and the parts that follow from fields of rotated recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from focaldet.data.dataset import Dataset, Objects, build_dataset
from focaldet.data.tiles import CUTS
from focaldet.engine.build import build_training_cut, build_truth_forms, fit_recipe
from focaldet.engine.job import prepare
from focaldet.errors import UsageError
from focaldet.recipes import get_recipe

ROW = "retinanet-h_r50d_1x_dota"
SLANTED = torch.tensor([[[0.0, 0.0], [30.0, 0.0], [34.0, 3.0], [4.0, 3.0]]])


def data_of(pictures: int, classes: tuple[str, ...]) -> Dataset:
    """A data set of so many pictures without objects."""
    return build_dataset(
        classes=classes,
        format="dota",
        split="train",
        source=Path("made"),
        folder=Path(),
        names=[str(number) for number in range(pictures)],
        sizes=np.full((pictures, 2), 600),
        objects=Objects(np.zeros(0, np.int64), None, np.zeros(0, np.int64), polygons=np.zeros((0, 4, 2))),
    )


@pytest.mark.parametrize(("pictures", "epoch"), [(27_000, 27_000), (26_100, 27_000), (28_000, 27_000), (20_000, None)])
def test_the_rows_epoch_holds_for_about_its_own_tiles(pictures: int, epoch: int | None) -> None:
    recipe = get_recipe(ROW)
    fitted, lines = fit_recipe(recipe, data_of(pictures, recipe.classes))
    assert fitted.images_per_epoch == epoch
    assert (lines == []) == (epoch is not None)


def test_own_classes_mean_own_data() -> None:
    fitted, lines = fit_recipe(get_recipe(ROW), data_of(26_100, ("ship", "harbor")))
    assert fitted.images_per_epoch is None and fitted.classes == ("ship", "harbor")
    assert "26,100 pictures an epoch (the data's) instead of 27,000" in lines[1]


@pytest.mark.parametrize(
    ("name", "objects"), [(ROW, 3), ("rotated_retinanet_obb_r50_fpn_1x_dota_le90", 2), ("retinanet-h-small", 2)]
)
def test_each_recipe_trains_on_the_objects_of_its_program(tmp_path: Path, name: str, objects: int) -> None:
    """A broad object, one that is marked difficult, and one that is half a pixel thin."""
    for part in ("images", "labelTxt"):
        (tmp_path / part).mkdir()
    PIL.Image.new("RGB", (64, 64)).save(tmp_path / "images" / "P1.png")
    broad, thin = "5 5 25 5 25 15 5 15", "30 40 50 40 50 40.5 30 40.5"
    (tmp_path / "labelTxt" / "P1.txt").write_text(f"{broad} ship 0\n{broad} ship 1\n{thin} ship 0\n")
    job = prepare(name, tmp_path, {})
    assert job.training.counts.tolist() == [objects]
    assert job.recipe.difficult == ("ignored" if name == "retinanet-h-small" else "trained")


def test_truth_as_each_recipe_takes_it() -> None:
    """Of a parallelogram the hull, the hull of its least-area rectangle, and the rectangle of its sides differ."""
    own = build_truth_forms(get_recipe(ROW))
    assert own.to_assign(SLANTED).tolist() == [[0.0, 0.0, 34.0, 3.0]]
    hull_of_rbox = build_truth_forms(get_recipe("rotated_retinanet_hbb_r50_fpn_1x_dota_oc"))
    trapezoid = torch.tensor([[[0.0, 0.0], [30.0, 10.0], [20.0, 20.0], [0.0, 12.0]]])
    assert own.to_assign(trapezoid).tolist() == [[0.0, 0.0, 30.0, 20.0]]
    assert hull_of_rbox.to_assign(trapezoid)[0, 0] < 0  # the rectangle around it sticks out
    assert hull_of_rbox.to_regress(SLANTED).equal(own.to_regress(SLANTED))
    by_sides = build_truth_forms(get_recipe("rotated_retinanet_obb_r50_fpn_1x_dota_le135"))
    torch.testing.assert_close(by_sides.to_regress(SLANTED), torch.tensor([[17.0, 1.5, 30.0, 5.0, 0.0]]))
    assert by_sides.to_assign(SLANTED).equal(by_sides.to_regress(SLANTED))
    clean = build_truth_forms(get_recipe("rotated_retinanet_obb_r50_fpn_1x_dota_le135", "clean"))
    assert clean.to_regress(SLANTED).equal(own.to_regress(SLANTED))


def test_cuts_of_recipes() -> None:
    assert build_training_cut(get_recipe(ROW)) == CUTS["original"]
    assert build_training_cut(get_recipe("r3det-pp_r152d_6x_dota_ms")) == CUTS["original"]
    assert build_training_cut(get_recipe("r3det_tiny_r50_fpn_1x_dota_oc")) == CUTS["mmrotate"]
    with pytest.raises(UsageError, match=r"retinanet_r50_1x_coco has no tiles.*--cut"):
        build_training_cut(get_recipe("retinanet_r50_1x_coco"))
