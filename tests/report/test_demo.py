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
    assert files <= {path.name for path in (tmp_path / "demo").iterdir()}
    assert len(list((result.predictions / "drawn").glob("*.jpg"))) == 12
    assert result.run.steps > 0
    summary = result.summary()
    assert str(result.report) in summary and result.scores.rule in summary
    assert result.to_dict()["scores"]["AP50"] == result.scores["AP50"]
