"""The page of a run, from its numbers to its HTML."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from focaldet.data.dataset import Dataset
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.scores import Scores
from focaldet.recipes import get_recipe
from focaldet.report.collect import NUM_PICTURES, curves, shortened, validate
from focaldet.report.run import write_report
from focaldet.results.detections import Detections

FIRST = {"epoch": 1.0, "step": 10.0, "time_s": 30.0, "cpu_s": 55.0, "loss": 1.5, "class": 0.9, "box": 0.6}
SECOND = {"epoch": 2.0, "step": 20.0, "time_s": 61.0, "cpu_s": 115.0, "loss": 0.7, "class": 0.3, "box": 0.4}
HISTORY = [FIRST, SECOND | {"val_loss": 0.8, "AP": 0.25, "AP50": 0.5, "AP75": 0.1}]


class FakeDetector:
    """What a page asks of a detector; it does not detect."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.recipe = get_recipe("retinanet-small").replace(classes=classes)
        self.model = torch.nn.Linear(3, 4)


@pytest.fixture
def detector(dataset: Dataset) -> Any:
    return FakeDetector(dataset.classes)


@pytest.fixture
def page(tmp_path: Path, detector: Any, dataset: Dataset, scores: Scores, detections: list[Detections]) -> str:
    report = write_report(tmp_path, detector, dataset, scores, history=HISTORY, detections=detections)
    assert report.path == tmp_path / "report.html"
    return report.path.read_text(encoding="utf-8")


def test_page_needs_nothing_from_elsewhere(page: str) -> None:
    without_text = re.sub(r"<(pre|dd)\b.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.findall(r"https?://|//\w+\.", re.sub(r"base64,[\w+/=]+", "", without_text))
    assert not re.findall(r"\bsrc=|<link|@import|url\(", page)
    links = re.findall(r'href="([^"]*)"', page)
    assert links and all(link.startswith(("data:image/jpeg;base64,", "#photo-")) for link in links)


def test_page_holds_the_figures(page: str, scores: Scores) -> None:
    for name, value in scores.figures.items():
        row = re.search(rf'<th class="name">{name}</th><td class="n">([^<]*)</td><td class="rule">([^<]+)</td>', page)
        assert row is not None and row[2]
        assert row[1] == ("–" if value is None else f"{value:.3f}")
    assert scores.rule in page
    assert "1:01 min" in page and "1:55 min of CPU time" in page


def test_names_are_escaped(page: str) -> None:
    assert "<b>dog</b>" not in page and "&lt;b&gt;dog&lt;/b&gt; &amp; co" in page
    assert 'b"<i>.jpg' not in page


class Nesting(html.parser.HTMLParser):
    """Checks that every tag that opens closes in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta" and tag != "input":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_tags_are_nested(page: str) -> None:
    nesting = Nesting()
    nesting.feed(page)
    assert nesting.open == []


def test_pictures_stand_in_the_order_of_their_f1(page: str) -> None:
    names = re.findall(r'<article class="card picture"><header><b>([^<]*)</b>', page)
    assert len(names) == 3
    assert names[-1] == "a.jpg"  # one of two found; at 0.21 the others are faultless


def test_without_any_detection(
    tmp_path: Path, detector: Any, dataset: Dataset, no_detections: list[Detections]
) -> None:
    scores = coco_scores(dataset.to_coco(), [])
    write_report(tmp_path, detector, dataset, scores, history=HISTORY, detections=no_detections)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "There is nothing to count." in text and not re.search(r"\bnan\b", text)


def test_without_validation(tmp_path: Path, detector: Any) -> None:
    report = write_report(tmp_path, detector, None, None, history=HISTORY[:1])
    text = report.path.read_text(encoding="utf-8")
    assert report.operating is None
    assert "How good it is" not in text and "Nothing was measured." in text and "What was run" in text


def test_without_history(tmp_path: Path, detector: Any) -> None:
    text = write_report(tmp_path, detector, None, None, history=[]).path.read_text(encoding="utf-8")
    assert "Use it" in text


def test_best_and_worst_of_many_pictures(dataset: Dataset, detections: list[Detections], scores: Scores) -> None:
    many = dataset.select([0, 1, 2] * 5)
    groups = validate(dataset.classes, many, scores, detections * 5).pictures
    assert [len(pictures) for pictures in groups.values()] == [NUM_PICTURES // 2] * 2
    best, worst = groups.values()
    assert best[0].name == 'b"<i>.jpg' and {picture.name for picture in worst} == {"a.jpg"}


def test_many_classes_are_drawn_thin_under_their_mean(scores: Scores) -> None:
    (precision, _), recalls = scores.curves.at(0.5)["cat"], scores.curves.recalls
    lines = curves({f"class {n}": (precision, precision) for n in range(20)}, recalls)
    assert len(lines) == 21
    assert lines[-1].name == "mean of the classes"
    assert lines[-1].points[50][1] == pytest.approx(precision[50])


def test_shortened_names() -> None:
    assert shortened(["a", "b"]) == "a, b"
