from __future__ import annotations

import numpy as np
import pytest
import torch

from focaldet.data.dataset import ANY_CLASS, Dataset
from focaldet.report.collect import truth_of
from focaldet.report.outcomes import Outcome, best_threshold, confusion, judge, score_histogram
from focaldet.results.detections import Detections
from focaldet.structures import Truth


@pytest.fixture
def outcomes(dataset: Dataset, detections: list[Detections]) -> list[Outcome]:
    return [judge(found, truth_of(dataset, n, dataset.classes)) for n, found in enumerate(detections)]


def test_counts_follow_the_threshold(outcomes: list[Outcome]) -> None:
    assert outcomes[0].counts(0.05) == (1, 1, 1)
    assert outcomes[0].counts(0.7) == (1, 0, 1)
    assert outcomes[0].counts(0.95) == (0, 0, 2)
    assert outcomes[2].counts(0.05) == (0, 1, 0)


def test_f1_of_an_empty_answer_to_an_empty_picture_is_one(outcomes: list[Outcome]) -> None:
    assert outcomes[2].f1(0.5) == 1.0
    assert outcomes[2].f1(0.1) == 0.0
    assert outcomes[0].f1(0.7) == pytest.approx(2 / 3)


def test_best_threshold_is_that_of_a_search(outcomes: list[Outcome]) -> None:
    operating = best_threshold(outcomes)
    f1 = []
    for threshold in np.arange(5, 96) / 100:
        hits, false, missed = np.sum([outcome.counts(threshold) for outcome in outcomes], axis=0)
        f1.append(2 * hits / (2 * hits + false + missed))
    assert operating.score == pytest.approx((np.arange(5, 96) / 100)[int(np.argmax(f1))])
    assert (operating.precision, operating.recall) == pytest.approx((2 / 3, 2 / 3))  # from 0.21 on


def test_best_threshold_without_detections(dataset: Dataset, no_detections: list[Detections]) -> None:
    empty = [judge(found, truth_of(dataset, n, dataset.classes)) for n, found in enumerate(no_detections)]
    assert best_threshold(empty).recall == 0
    assert best_threshold([]).score == 0.5


def test_histogram_counts_every_detection_once(outcomes: list[Outcome]) -> None:
    histogram = score_histogram(outcomes)
    assert (sum(histogram.hits), sum(histogram.false)) == (2, 2)
    assert histogram.hits[18] == 1 and histogram.edges[18] == 0.9  # the lower edge belongs to the bin


def test_confusion_pairs_across_classes(outcomes: list[Outcome]) -> None:
    assert confusion(outcomes, 0.5, ("cat", "dog")).counts == (
        (1, 0, 1),  # of two cats one found, one missed: its detection scores 0.3
        (1, 0, 0),  # the dog was called a cat
        (0, 0, 0),
    )
    assert confusion(outcomes, 0.05, ("cat", "dog")).counts[2] == (0, 1, 0)


def test_ignored_objects_count_neither_way() -> None:
    found = Detections(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.9]), torch.tensor([0]), ("cat",))
    truth = Truth(torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([0]), torch.tensor([True]))
    outcome = judge(found, truth)
    assert outcome.counts(0.5) == (0, 0, 0)
    assert sum(score_histogram([outcome]).false) == 0
    assert confusion([outcome], 0.5, ("cat",)).counts == ((0, 0), (0, 0))


def test_classes_are_joined_by_name(dataset: Dataset) -> None:
    truth = truth_of(dataset, 0, ("bird", dataset.classes[1], dataset.classes[0]))
    assert truth.labels.tolist() == [2, 1]
    assert truth.boxes.tolist() == [[10, 10, 40, 30], [60, 40, 90, 70]]


def test_a_region_of_any_class_is_ignored_in_each(dataset: Dataset) -> None:
    dataset.labels[1] = ANY_CLASS
    dataset.crowd[1] = True
    truth = truth_of(dataset, 0, dataset.classes)
    assert truth.labels.tolist() == [0, 0, 1]
    assert truth.ignored is not None and truth.ignored.tolist() == [False, True, True]
