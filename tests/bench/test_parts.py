"""The parts of the bench on tiny sizes: they run, and report what they should. No test looks at a time."""

from __future__ import annotations

import pytest
import torch

from focaldet import bench
from focaldet.bench.contenders import Pass
from focaldet.bench.machine import describe_machine
from focaldet.bench.memory import own_peak
from focaldet.bench.networks import Network, rotated_truth
from focaldet.bench.operations import assign_tasks, nms_tasks
from focaldet.bench.parts import SHARE, compare_networks, detect_with
from focaldet.bench.rate import rate_task
from focaldet.errors import UsageError
from focaldet.structures import Size
from focaldet.targets.assign import Assignment

TOY = Network("toy", "none", rotated_truth, 0.1)
TINY = bench.Plan(
    repeats=1,
    small_repeats=1,
    inference_size=(64, 96),
    training_size=(64, 64),
    tile_size=(64, 64),
    rate_size=(4, 4),
)


def test_single_operations_are_measured_beside_torchvision() -> None:
    told: list[str] = []
    report = bench.run(["assign", "focal", "nms", "nms"], plan=TINY, say=told.append)
    rows = report.findings.rows
    assert told == [f"measuring: {name}" for name in ("rate", "assign", "focal", "nms")]
    assert [row.who for row in rows if row.part != "rate"] == ["focaldet", "torchvision"] * 3
    assert all(0 < row.minimum <= row.median for row in rows if row.part != "rate")


def test_a_wrong_part_is_told_with_the_right_ones() -> None:
    with pytest.raises(UsageError, match=r"no 'trainin' to measure .did you mean 'training'"):
        bench.run(["trainin"])


def test_both_sides_of_an_operation_find_the_same() -> None:
    ours, dense = (task() for task in assign_tasks((256, 256)).values())
    assert isinstance(ours, Assignment) and isinstance(dense, torch.Tensor)
    # Ties go to different truth boxes in the two programs, so owners are not compared.
    assert torch.equal(ours.positives, (dense >= 0).nonzero().squeeze(1))
    kept, theirs = (task() for task in nms_tasks((256, 256)).values())
    assert isinstance(kept, torch.Tensor) and isinstance(theirs, torch.Tensor)
    assert torch.equal(kept, theirs)


def test_networks_are_compared_with_the_rate_and_with_the_faster_torchvision() -> None:
    passes = {  # each does the same work
        "focaldet": Pass(lambda: sum(range(10_000)), lambda: 1.0),
        "torchvision": Pass(lambda: sum(range(30_000)), lambda: 1.0),
        "torchvision, channels_last": Pass(lambda: sum(range(20_000)), lambda: 1.0),
    }
    findings = compare_networks("inference", "toy", passes, torch.float32, TINY, 0.8)
    ours, plain, other = findings.rows
    assert ours.share is not None and plain.share is not None
    assert ours.share * ours.minimum == pytest.approx(plain.share * plain.minimum)
    share, ratio = findings.goals
    assert (share.figure, share.value, share.bound) == (SHARE, ours.share, 0.8)
    assert ratio.value == pytest.approx(ours.minimum / min(plain.minimum, other.minimum))


def test_a_network_without_rivals_or_promises_has_no_goals() -> None:
    passes = {"focaldet": Pass(lambda: sum(range(10_000)), lambda: 1.0)}
    assert compare_networks("rotated", "toy", passes, torch.float32, TINY, None).goals == []
    (goal,) = compare_networks("rotated", "toy", passes, torch.float32, TINY, 0.8).goals
    assert goal.figure == SHARE


def test_who_has_no_such_precision_is_left_out() -> None:
    class Without:
        name, network = "without", TOY

        def inference(self, size: Size, dtype: torch.dtype) -> Pass | None:
            return None

        def training(self, size: Size) -> Pass:
            raise NotImplementedError

    class With(Without):
        name = "focaldet"

        def inference(self, size: Size, dtype: torch.dtype) -> Pass | None:
            return Pass(lambda: sum(range(10_000)), lambda: 1.0)

    findings = detect_with(TOY, "toy", (8, 8), TINY, [Without(), With()], {torch.float32: 0.8})
    assert {row.who for row in findings.rows} == {"focaldet"}
    assert [(goal.task, goal.bound) for goal in findings.goals] == [("toy 8 x 8, float32", 0.8)]


def test_the_rate_counts_its_operations() -> None:
    task, gflop = rate_task(torch.float32, (100, 168))
    assert gflop == pytest.approx(4 * 19.818, rel=1e-4)
    assert task() is None


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert {"date", "commit", "cpu", "cores", "threads", "versions"} <= machine.keys()
    assert f"torch {torch.__version__}".split("+")[0] in str(machine["versions"])


def test_peak_memory_rises_with_what_is_held() -> None:
    before = own_peak()
    held = torch.ones(64 << 18)  # 64 MiB
    # Pages count when written to; other tests may have left a higher peak behind.
    assert own_peak() >= max(before, held.numel() * 4 / 2**20)


@pytest.mark.slow
def test_whole_networks_and_processes_are_measured() -> None:
    report = bench.run(["inference", "training", "memory", "import"], plan=TINY, say=lambda line: None)
    parts = {row.part for row in report.findings.rows}
    assert parts == {"rate", "inference", "training", "memory", "import"}
    assert all(row.minimum > 0 for row in report.findings.rows)
    assert report.to_dict()["machine"]["threads"] == 1


@pytest.mark.slow
def test_rotated_networks_are_measured_with_what_is_promised_of_them() -> None:
    findings = bench.run(["rotated", "r3det"], plan=TINY, say=lambda line: None).findings
    tasks = {row.task for row in findings.rows if row.part != "rate"}
    told = {
        "rotated R-50 64 x 64, float32": 0.80,
        "rotated R-50 step 64 x 64": 0.75,
        "RetinaNet-R R-50, 90 anchors 64 x 64, float32": None,
        "RetinaNet-R R-50, 90 anchors step 64 x 64": None,
        "R3Det R-50 64 x 64, float32": 0.80,
        "R3Det R-50 step 64 x 64": 0.75,
        "R3Det's feature refinement 64 x 64, float32": 0.05,
    }
    assert tasks >= told.keys()
    goals = {goal.task: goal.bound for goal in findings.goals}
    assert {task: goals.get(task) for task in told} == told
