"""The wheel holds all that a user needs: it works from an empty folder, outside the clone, without the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # the hatchling of .venv builds it: nothing is downloaded
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("focaldet-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    done = subprocess.run([*install, str(folder), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run_python(installed: Path, elsewhere: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with the installed package first on its path, in a folder that has nothing to do with us."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *words], cwd=elsewhere, env=environment, capture_output=True, text=True)


def focaldet_json(installed: Path, elsewhere: Path, *words: str) -> Any:
    done = run_python(installed, elsewhere, "-m", "focaldet", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_holds_code_and_assets_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith(("focaldet/", "focaldet-")) for name in names)
    assert "focaldet/py.typed" in names
    assert any(name.endswith("licenses/NOTICE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", ".nbi", ".nbc"))]


def test_bundled_files_stay_small(wheel: Path) -> None:
    sizes = {item.filename: item.file_size for item in zipfile.ZipFile(wheel).infolist() if "/assets/" in item.filename}
    assert sum(sizes.values()) < 25e6
    assert all(size <= 10e6 for size in sizes.values()), {name: size for name, size in sizes.items() if size > 10e6}


def test_it_is_the_installed_package_that_runs(installed: Path, tmp_path: Path) -> None:
    done = run_python(installed, tmp_path, "-c", "import focaldet; print(focaldet.__file__, focaldet.__version__)")
    file, version = done.stdout.split()
    assert Path(file).is_relative_to(installed)
    assert version


def test_doctor_says_ready(installed: Path, tmp_path: Path) -> None:
    document = focaldet_json(installed, tmp_path, "doctor")
    assert document["ready"] is True
    assert document["problems"] == []


def test_it_predicts(installed: Path, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (96, 64), (200, 30, 30)).save(tmp_path / "red.png")
    words = ["predict", "retinanet-small", "red.png", "--weights", "imagenet", "--output", "found", "--score", "0"]
    document = focaldet_json(installed, tmp_path, *words)
    assert document["done"] == 1
    found = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert found
    assert {"image", "label", "class", "score", "box", "polygon"} <= set(found[0])


def test_the_citation_names_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
