"""Tiles as files: their pixels, written all or none, here and in other processes."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from focaldet.data import cutter
from focaldet.data.cutter import Job, cut_out, cut_picture, cut_pictures, encode_jpeg, encode_png
from focaldet.data.pictures import read_picture
from focaldet.errors import FocaldetError

WINDOWS = [(0, 0, 30, 30), (20, 0, 50, 30), (0, 15, 30, 45)]


def noise(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A picture of 40 x 50, cut into three tiles, of which the last reaches out below."""
    Image.fromarray(noise(40, 50, 3)).save(tmp_path / "P1.png")
    tiles = [str(tmp_path / "tiles" / f"{k}.png") for k in range(3)]
    labels = [(str(tmp_path / "labels" / f"{k}.txt"), f"{k}\n") for k in range(3)]
    return Job(str(tmp_path / "P1.png"), (40, 50), WINDOWS, tiles, labels, pad=(1, 2, 3))


@pytest.mark.parametrize("opencv", [True, False])
@given(height=st.integers(1, 40), width=st.integers(1, 40), grey=st.booleans(), seed=st.integers(0, 99))
def test_png_is_lossless(opencv: bool, height: int, width: int, grey: bool, seed: int) -> None:
    if opencv:
        pytest.importorskip("cv2")
    shape = (height, width) if grey else (height, width, 3)
    tile = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        if not opencv:
            patch.setattr(cutter, "_opencv", lambda: None)
        data = encode_png(tile)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == ("L" if grey else "RGB")
        assert np.array_equal(np.asarray(image), tile)


def test_tiles_show_their_windows(job: Job) -> None:
    cut_picture(job)
    picture = read_picture(job.picture)
    for window, name, (label, text) in zip(job.windows, job.tiles, job.labels, strict=True):
        x1, y1, x2, y2 = window
        tile = read_picture(name)
        assert tile.shape == (30, 30, 3)
        shown = picture[y1:y2, x1:x2]
        assert np.array_equal(tile[: len(shown)], shown)
        assert (tile[len(shown) :] == (1, 2, 3)).all()
        assert Path(label).read_text() == text


def test_without_padding_tiles_end_with_the_picture_and_grey_stays_grey() -> None:
    grey = Image.fromarray(noise(40, 50))
    assert cut_out(grey, (30, 20, 60, 50)).shape == (20, 20)
    assert cut_out(grey, (30, 20, 60, 50), (9, 9, 9)).shape == (30, 30, 3)
    assert cut_out(grey, (0, 0, 30, 30), (9, 9, 9)).shape == (30, 30)  # nothing to pad


def test_jpeg_is_near(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64, 1).repeat(3, 2).astype(np.uint8)
    (tmp_path / "tile.jpg").write_bytes(encode_jpeg(smooth))
    assert np.abs(read_picture(tmp_path / "tile.jpg").astype(int) - smooth).max() <= 4  # quality 95


def test_a_broken_picture_leaves_nothing_behind(job: Job) -> None:
    data = Path(job.picture).read_bytes()
    Path(job.picture).write_bytes(data[: len(data) // 2])
    with pytest.raises(FocaldetError, match=r"P1\.png is cut off"):
        cut_picture(job)
    Path(job.picture).write_bytes(data)
    with pytest.raises(FocaldetError, match="has 50 x 40 pixels, but its labels say 60 x 40"):
        cut_picture(replace(job, size=(40, 60)))
    assert not Path(job.tiles[0]).parent.exists()
    with pytest.raises(FocaldetError, match="cannot write"):  # the last label cannot be: its folder is a file
        cut_picture(replace(job, labels=[*job.labels[:2], (job.picture + "/2.txt", "")]))
    assert not list(Path(job.tiles[0]).parent.iterdir())
    assert not list(Path(job.labels[0][0]).parent.iterdir())


@pytest.mark.parametrize("workers", [0, 2])
def test_many_pictures(job: Job, workers: int) -> None:
    """Good and bad ones, in any order, with what went wrong."""
    jobs = [replace(job, tiles=[f"{tile}-{k}.png" for tile in job.tiles]) for k in range(4)]
    jobs[1] = replace(jobs[1], picture="/no/such.png")
    answers = {id(done): sentence for done, sentence in cut_pictures(iter(jobs), workers)}
    assert answers[id(jobs[1])] == "picture /no/such.png does not exist; check the path"
    assert [answers[id(jobs[k])] for k in (0, 2, 3)] == [None] * 3
    assert all(Path(tile).exists() for k in (0, 2, 3) for tile in jobs[k].tiles)


def test_a_process_that_dies_costs_its_picture_only(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, os; line = sys.stdin.readline(); os._exit(9) if 'P1.png' in line else print('null', flush=True)"
    start = subprocess.Popen
    monkeypatch.setattr(
        "focaldet.data.cutter.subprocess.Popen", lambda _, **rest: start([sys.executable, "-c", code], **rest)
    )
    jobs = [job, replace(job, picture="P2.png")]
    answers = dict((done.picture, sentence) for done, sentence in cut_pictures(jobs, 1))
    assert "ended with code 9; is there memory enough?" in str(answers[job.picture])
    assert answers["P2.png"] is None


def test_processes_end_when_nobody_listens(job: Job) -> None:
    answers = cut_pictures((replace(job, size=(1, 1)) for _ in range(1000)), 1)
    next(answers)
    began = time.monotonic()
    answers.close()
    assert time.monotonic() - began < 10


def test_a_process_that_cuts_needs_no_torch() -> None:
    code = "import focaldet.data.cutter, sys; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
