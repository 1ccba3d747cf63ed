"""COCO figures against pycocotools' stored ones, and the corners that evaluators get wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.errors import FocaldetError
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.scores import Scores

EXACT = 1e-12  # both evaluators take means of the same numbers; only the order of a sum may differ
NAMES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]


@pytest.fixture(scope="module")
def truth(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "coco-eval" / "dataset.json").read_text())
    return content


@pytest.fixture(scope="module")
def found(golden: Path) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((golden / "coco-eval" / "detections.json").read_text())
    return content


@pytest.fixture(scope="module")
def stats(golden: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((golden / "coco-eval" / "stats.json").read_text())
    return content


def vector(scores: Scores) -> list[float]:
    """The figures as pycocotools gives them, -1 for nothing to measure."""
    return [-1.0 if figure is None else figure for figure in scores.figures.values()]


@pytest.mark.golden
@pytest.mark.parametrize(
    ("setting", "options"),
    [
        ("default", {}),
        ("maxdets_100_300_1000", {"limits": (100, 300, 1000)}),
        ("class_agnostic", {"class_agnostic": True}),
        ("only_iou_50", {"ious": [0.5]}),
    ],
)
def test_figures_of_every_setting(
    setting: str, options: dict[str, Any], truth: dict[str, Any], found: list[dict[str, Any]], stats: dict[str, Any]
) -> None:
    scores = coco_scores(truth, found, **options)
    np.testing.assert_allclose(vector(scores), stats["pycocotools"][setting], rtol=0, atol=EXACT)


@pytest.mark.golden
def test_figures_by_name_and_class(truth: dict[str, Any], found: list[dict[str, Any]], stats: dict[str, Any]) -> None:
    scores = coco_scores(truth, found)
    assert list(scores.figures) == stats["stat_names"]
    each = [row["AP"] for row in scores.classes.values()]
    for ours, theirs in zip(each, stats["pycocotools"]["ap_per_category"], strict=True):
        assert (ours is None) == (theirs is None)
        assert ours == pytest.approx(theirs, abs=EXACT)
    assert list(scores.classes) == [category["name"] for category in truth["categories"]]
    objects = [row["objects"] for row in scores.classes.values()]
    assert sum(objects) == sum(not item["iscrowd"] for item in truth["annotations"])


@pytest.mark.golden
def test_curves(truth: dict[str, Any], found: list[dict[str, Any]], golden: Path) -> None:
    curves = coco_scores(truth, found).curves
    with np.load(golden / "coco-eval" / "curves.npz") as stored:
        np.testing.assert_allclose(curves.precision, stored["precision"], rtol=0, atol=EXACT)
        np.testing.assert_array_equal(curves.scores, stored["scores"])
        np.testing.assert_array_equal(curves.recall, stored["recall"])
        at_half = curves.at(0.5)
        np.testing.assert_allclose(at_half["ant"][0], stored["precision"][0, :, 0, 0, 2], rtol=0, atol=EXACT)
        np.testing.assert_array_equal(at_half["ant"][1], stored["scores"][0, :, 0, 0, 2])
    assert set(at_half) == {"ant", "bee", "cat", "dog", "eel", "hen"}  # the others have nothing to find
    assert curves.recalls.shape == (101,)


@pytest.mark.golden
@pytest.mark.parametrize("which", ["annotations", "images", "categories"])
def test_ids_may_start_from_zero(
    which: str, truth: dict[str, Any], found: list[dict[str, Any]], stats: dict[str, Any]
) -> None:
    """Evaluators lose annotation 0; we renumber, so the figures are those of `default`."""
    key = {"annotations": "id", "images": "image_id", "categories": "category_id"}[which]
    shifted, results = copy.deepcopy(truth), copy.deepcopy(found)
    least = min(entry["id"] for entry in shifted[which])
    for entry in shifted[which]:
        entry["id"] -= least
    for entry in [] if which == "annotations" else [*shifted["annotations"], *results]:
        entry[key] -= least
    np.testing.assert_allclose(
        vector(coco_scores(shifted, results)), stats["pycocotools"]["default"], rtol=0, atol=EXACT
    )


@pytest.mark.golden
def test_changes_nothing_and_prints_nothing(
    truth: dict[str, Any], found: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    before = copy.deepcopy((truth, found))
    coco_scores(truth, found)
    assert (truth, found) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.golden
def test_pycocotools_itself_agrees_on_other_data(truth: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """The stored figures are of one data set; here is another, scored by pycocotools on the spot."""
    pycocotools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    source = np.random.default_rng(5)
    jittered = [entry | {"score": round(float(source.random()), 2)} for entry in found]
    for entry in jittered:
        entry["bbox"] = [value + float(source.normal(0, 2)) for value in entry["bbox"][:2]] + entry["bbox"][2:]
    api = pycocotools.COCO()
    api.dataset = copy.deepcopy(truth)
    api.createIndex()
    evaluator = COCOeval(api, api.loadRes(copy.deepcopy(jittered)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    np.testing.assert_allclose(vector(coco_scores(truth, jittered)), evaluator.stats, rtol=0, atol=EXACT)


def picture_with_cat(**changes: Any) -> dict[str, Any]:
    cat = {"id": 1, "image_id": 4, "category_id": 9, "bbox": [10, 10, 20, 20]} | changes
    return {"images": [{"id": 4}], "annotations": [cat], "categories": [{"id": 9, "name": "cat"}]}


HIT: dict[str, Any] = {"image_id": 4, "category_id": 9, "bbox": [10, 10, 20, 20], "score": 0.9}


def test_no_detections_is_zero_and_no_truth_is_nothing() -> None:
    assert coco_scores(picture_with_cat(), [])["AP"] == 0
    empty = picture_with_cat() | {"annotations": []}
    for results in ([], [HIT]):
        scores = coco_scores(empty, results)
        assert set(scores.figures.values()) == {None}
        assert scores.classes["cat"]["objects"] == 0
        assert scores.curves.at() == {}
        assert scores.table().splitlines()[-1].split() == ["cat", *"------", "0"]
    bare = coco_scores({"images": [], "annotations": [], "categories": []}, [])
    assert bare["AP"] is None
    assert bare.table()


def test_area_and_iscrowd_may_be_missing() -> None:
    scores = coco_scores(picture_with_cat(), [HIT])
    assert (scores["AP"], scores["AP_small"], scores["AP_large"]) == (1, 1, None)


def test_ignore_is_overridden_by_iscrowd() -> None:
    assert coco_scores(picture_with_cat(ignore=1), [HIT])["AP"] == 1  # the flag `ignore` alone has no effect
    crowd = coco_scores(picture_with_cat(iscrowd=1), [HIT])
    assert crowd["AP"] is None
    assert crowd.classes["cat"]["objects"] == 0


def test_ap_is_taken_at_100_where_that_is_measured() -> None:
    assert coco_scores(picture_with_cat(), [HIT], limits=(100, 300)).rule.endswith("at most 100 detections")
    assert coco_scores(picture_with_cat(), [HIT], limits=(1, 10)).rule.endswith("at most 10 detections")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limits": ()}, r"limits=\(\) should be whole numbers above 0"),
        ({"limits": (10, 1)}, "rising"),
        ({"limits": (0, 1)}, "above 0"),
        ({"ious": []}, "ious="),
        ({"ious": [0.0]}, "ious="),
    ],
)
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        coco_scores(picture_with_cat(), [HIT], **options)


def test_wrong_entries_are_named() -> None:
    with pytest.raises(FocaldetError, match="entry 1 has the image_id 5"):
        coco_scores(picture_with_cat(), [HIT, HIT | {"image_id": 5}])
    with pytest.raises(FocaldetError, match="annotation 0 has the category_id 8"):
        coco_scores(picture_with_cat(category_id=8), [])


def test_classes_of_one_name_are_told_apart() -> None:
    twins = picture_with_cat() | {"categories": [{"id": 9, "name": "cat"}, {"id": 11, "name": "cat"}]}
    assert list(coco_scores(twins, [HIT]).classes) == ["cat (9)", "cat (11)"]
