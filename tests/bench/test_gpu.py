"""benchmarks/gpu.py as far as it runs without a GPU: its arguments, its programs on a CPU, its table."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py"), *words], capture_output=True, text=True)


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0 and "--write FILE" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_says_so(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick"])
    with pytest.raises(SystemExit, match="measures a CUDA device and finds none; run it on a machine that has one"):
        gpu.main()


def test_programs_at_one_task_agree(gpu: ModuleType) -> None:
    answers: dict[str, torch.Tensor] = {}
    tried = list(gpu.contenders(torch.device("cpu"), iou_boxes=30, aligned_pairs=50, nms_boxes=(40,)))
    assert len({contender.task for contender in tried}) == 4
    for task, name, compute in tried:
        first = answers.setdefault(task, compute())
        if "easier" not in name:
            torch.testing.assert_close(compute(), first, rtol=0, atol=1e-4)


def test_table(gpu: ModuleType) -> None:
    rows = [gpu.Row("IoU", "focaldet", 0.1234, 0.2, ""), gpu.Row("IoU", "other", None, None, "not on CUDA")]
    assert gpu.markdown(rows).splitlines()[2:] == [
        "| IoU | focaldet | 0.123 | 0.200 |",
        "| IoU | other | not on CUDA | |",
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_measures(tmp_path: Path) -> None:
    done = run("--quick", "--write", str(tmp_path / "table.md"))
    assert done.returncode == 0, done.stderr
    assert "| focaldet |" in (tmp_path / "table.md").read_text()
