"""The bench of rotated boxes on a hundredth of its boxes: contenders at one task agree. No test looks at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.bench import geometry
from focaldet.bench.clock import Task, Timing
from focaldet.bench.geometry import OURS, OVERWRITING, TORCH, Effort, Expected, Peer, row
from focaldet.bench.parts import Plan, measure_geometry
from focaldet.bench.scenes import Contest, Scene
from focaldet.geometry.nms import rotated_nms_torch
from focaldet.geometry.rotated_iou import rotated_iou_torch
from focaldet.metrics.dota import rotated_scores
from focaldet.structures import BACKGROUND, IGNORED
from focaldet.targets.assign import AssignRule

TINY = Effort(repeats=1, turn=0.0, share=0.01)


def plain_iou(boxes1: Tensor, boxes2: Tensor) -> Task:
    return lambda: rotated_iou_torch(boxes1, boxes2)


def plain_nms(scene: Scene, threshold: float) -> Task:
    boxes, scores, labels = map(torch.from_numpy, scene)
    return lambda: rotated_nms_torch(boxes, scores, (labels,), threshold)


def plain_assign(anchors: Tensor, truths: Tensor, rule: AssignRule) -> Task:
    """Return mmdetection's rule in its own words, on the matrix of all pairs."""

    def owners() -> Tensor:
        ious = rotated_iou_torch(truths.double(), anchors.double()).float()
        best, owner = ious.max(dim=0)
        owner[best < rule.positive] = IGNORED
        owner[best < rule.negative] = BACKGROUND
        for truth, of_truth in enumerate(ious):
            owner[(of_truth == of_truth.max()) & (of_truth > 0)] = truth
        return owner

    return owners


def plain_score(contest: Contest) -> Task:
    return lambda: rotated_scores(contest.truth, contest.found)["AP50_voc07"]


PLAIN = Peer("plain", plain_iou, plain_nms, plain_assign, "ties-overwrite", plain_score)


def test_contenders_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "ASSIGN_MS", {9: 2.0})
    told: list[str] = []
    found = geometry.measure(TINY, [PLAIN], ["iou", "nms", "assign", "score"], told.append)
    assert told == [f"measuring: {name}" for name in ("iou", "nms", "assign", "score")]
    said = {(answer.task, answer.who): answer.said for answer in found.answers}
    assert {who for _, who in said} == {OURS, TORCH, OVERWRITING, "plain"}
    for (task, who), text in said.items():
        if who == "plain" and task.startswith("score"):
            assert text == said[task, OURS]
        elif who == "plain":
            assert "0 pairs differ" in text or "0 decided otherwise" in text or "0 with another owner" in text, task
    assert {(line.task, line.who) for line in found.rows} == said.keys()
    assert len(found.goals) == 2 + 6 + 2 + 1 and not found.notes


def test_wrong_answers_are_seen() -> None:
    ours = torch.tensor([[0.0, 0.5]])
    assert geometry.describe_ious(ours, ours) == "50.0% of the pairs overlap"
    assert geometry.describe_ious(ours + 0.25, ours).endswith("2 pairs differ by more than 0.001")
    kept = torch.tensor([4, 2])
    assert geometry.describe_kept(torch.tensor([2, 3]), kept) == "keeps 2; 2 decided otherwise"
    assert geometry.describe_owners(torch.tensor([0, -1, -2]), torch.tensor([1, -1, -1])).endswith(
        "2 with another owner"
    )


def test_who_would_take_too_long_is_left_out_and_named() -> None:
    expected, slow, fast = Expected(patience=10.0), Peer("slow"), Peer("fast")
    assert expected.in_time([slow, fast], 2_000 / expected.size) == [slow, fast]
    expected.learn(2_000, [row("NMS", "slow", Timing((1.0,))), row("NMS", "fast", Timing((0.01,)))])
    assert expected.in_time([slow, fast], 25) == [fast]
    assert expected.notes("NMS") == ["NMS: slow is left out; it would take about 25 s."]
    expected.learn(10_000, [row("NMS", "fast", Timing((0.2,)))])
    assert expected.in_time([slow, fast], 100) == []
    assert expected.notes("NMS")[0].endswith("about 2,500 s.")


def test_the_process_that_assigns_prints_by_how_much_it_grew(capsys: pytest.CaptureFixture[str]) -> None:
    geometry.print_peak(9, 10)
    assert 0 <= float(capsys.readouterr().out) < 200


@pytest.mark.parametrize("name", geometry.FIRST_CALLS)
def test_first_calls_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("numba")
    (tmp_path / "empty.py").write_text(geometry.EMPTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "empty", raising=False)
    exec(geometry.FIRST_CALL.format(prepare=geometry.FIRST_CALLS[name]), {})
    assert len(capsys.readouterr().out.split()) == 2


def test_without_numba_first_calls_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "why_not", lambda kernel: f"{kernel} is not installed")
    assert geometry.measure_first_call(TINY, []).notes == ["First calls are not measured: numba is not installed."]


@pytest.mark.slow
def test_fresh_processes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = geometry.measure(TINY, what=["peak", "first"])
    assert [line.unit for line in found.rows] == ["MB"] * 2 + ["CPU-ms"] * 8
    assert len(found.goals) == 2 + 4


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with geometry.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_bench_has_it_as_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "PARTS", {"iou": geometry.measure_iou})
    found = measure_geometry(Plan(geometry=TINY), [])
    assert [line.who for line in found.rows] == [OURS, TORCH] * 2


def test_grids_have_the_promised_numbers_of_anchors() -> None:
    counts = [sum(geometry.tile_grid(num_shapes).counts) for num_shapes in geometry.GRIDS]
    assert counts == [196_416, 2_749_824]
    shapes = geometry.GRIDS[126].level_shapes(8).numpy()
    assert len(np.unique(shapes.round(3), axis=0)) == 126
