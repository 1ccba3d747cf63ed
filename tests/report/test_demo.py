from __future__ import annotations

from pathlib import Path

import pytest

from focaldet.errors import UsageError
from focaldet.report.demo import MARK, claim, run_demo


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(UsageError, match="holds something that is no demo; name another folder"):
        run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_demo_may_follow_a_demo(tmp_path: Path) -> None:
    claim(tmp_path / "runs" / "demo")
    (tmp_path / "runs" / "demo" / "report.html").write_text("old")
    claim(tmp_path / "runs" / "demo")
    assert (tmp_path / "runs" / "demo" / MARK).is_file()


@pytest.mark.slow
def test_demo_of_a_few_seconds_leaves_everything(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", minutes=0.15, workers=0)
    files = {"recipe.yaml", "model.safetensors", "metrics.csv", "log.txt", "report.html", "checkpoints", "predictions"}
    summary = result.summary()
    for lesson in result.lessons:
        folder = tmp_path / "demo" / lesson.lesson.folder
        assert files <= {path.name for path in folder.iterdir()}
        assert len(list((lesson.predictions / "drawn").glob("*.jpg"))) == 12
        assert lesson.run.steps > 0
        assert str(lesson.report) in summary and lesson.lesson.rule in summary
    upright, rotated = result.lessons
    assert result.to_dict()["scores"]["AP50"] == upright.scores["AP50"]
    assert result.to_dict()["retinanet-h-small"]["scores"]["AP50_voc12"] == rotated.scores["AP50_voc12"]
