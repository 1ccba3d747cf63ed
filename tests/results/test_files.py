"""Json files come whole or not at all, and say in a sentence what is wrong with them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from focaldet.errors import FocaldetError
from focaldet.results.files import read_json, write_json


def test_round_trip_with_any_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "er" / "x.json", {"name": "Zürich 東京", "n": [1, 2.5, None]})
    assert read_json(tmp_path / "deep" / "er" / "x.json") == {"name": "Zürich 東京", "n": [1, 2.5, None]}
    assert [item.name for item in (tmp_path / "deep" / "er").iterdir()] == ["x.json"]


def test_others_may_read_the_file_as_any_other(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", [])
    (tmp_path / "plain").touch()
    assert (tmp_path / "x.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "x.json", ["old"])

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(
        FocaldetError, match=r"cannot write .*x\.json: No space left on device; the previous x\.json is untouched"
    ):
        write_json(tmp_path / "x.json", ["new"])
    assert read_json(tmp_path / "x.json") == ["old"]
    assert len(list(tmp_path.iterdir())) == 1


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match=r"gone\.json: cannot be read \(No such file"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "x.json").write_text('[\n1,\n"a]')
    with pytest.raises(FocaldetError, match=r"x\.json: line 3 is not json"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00\xd8\xff")
    with pytest.raises(FocaldetError, match=r"x\.json: is not a text file"):
        read_json(tmp_path / "x.json")
