from __future__ import annotations

import collections
import datetime
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.pickled import read_pickled
from focaldet.models.unpickle import Stub, read_pickle

Write = Callable[[Any, Path], None]


class Settings(dict):  # type: ignore[type-arg]
    """Stands for the classes of other programs, which a reader does not have."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.text = "model = dict()"


class Log:
    def __init__(self) -> None:
        self.values = np.arange(3.0)
        self.when = datetime.datetime(2021, 4, 1)
        self.counts = collections.defaultdict(int, a=1)


def as_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_stream(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


WRAPPINGS = {"zip.pth": as_zip, "stream.pth": as_stream, "plain.pkl": as_pickle}
TORCH = {name: write for name, write in WRAPPINGS.items() if name.endswith("pth")}


def tensors() -> dict[str, Tensor]:
    base = torch.arange(24.0)
    return {
        "float": base.reshape(2, 3, 4),
        "shared": base[5:11],
        "turned": base.reshape(4, 6).T,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.tensor([0.5, -2.0]).half(),
        "bfloat16": torch.tensor([0.5, -2.0]).bfloat16(),
        "double": torch.tensor(2.5, dtype=torch.float64),
        "steps": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(3)),
    }


@pytest.mark.parametrize("wrapping", TORCH)
def test_tensors_of_every_kind_are_read_as_torch_reads_them(wrapping: str, tmp_path: Path) -> None:
    path = tmp_path / wrapping
    TORCH[wrapping](tensors(), path)
    state = read_pickled(path).state
    for name, expected in torch.load(path, weights_only=False).items():
        assert state[name].dtype == expected.dtype, name
        torch.testing.assert_close(state[name], expected.data, rtol=0, atol=0)
        assert state[name].is_contiguous(), name


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_numpy_are_read_in_every_protocol(protocol: int, tmp_path: Path) -> None:
    arrays = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.array([1, 2], dtype=">i4"),
        "scalar": np.array(7),
        "flags": np.array([True, False]),
        "half": np.array([0.5], np.float16),
    }
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}, protocol=protocol))
    found = read_pickled(path)
    assert found.rest == {"__author__": "somebody"}
    for name, expected in arrays.items():
        np.testing.assert_array_equal(found.state[name].numpy(), expected)
        assert found.state[name].shape == expected.shape


def test_a_pickle_of_python_2_is_read() -> None:
    """As Caffe2's tools wrote them: text in eight bits, names by their old modules."""
    dump = b"\x80\x02}q\x01(U\x01aq\x02c__builtin__\nset\nq\x03]q\x04K\x01a\x85Rq\x05U\x01b(K\x01K\x02lu."
    dump = dump.replace(b"(K\x01K\x02l", b"(K\x01K\x02t")
    found = read_pickle(io.BytesIO(dump), lambda identity: None)  # type: ignore[arg-type, return-value]
    assert found["b"] == (1, 2)


@pytest.mark.parametrize("wrapping", TORCH)
def test_settings_and_logs_of_unknown_classes_are_passed_over(wrapping: str, tmp_path: Path) -> None:
    meta = {"CLASSES": ("ship", "car"), "config": Settings(lr=0.01), "log": Log(), "epoch": 12, "where": Path("/tmp")}
    TORCH[wrapping](
        {"meta": meta, "state_dict": {"a": torch.ones(2)}, "optimizer": {"state": {0: torch.ones(2)}}},
        path := tmp_path / wrapping,
    )
    found = read_pickled(path)
    assert found.rest["meta"]["CLASSES"] == ("ship", "car")
    assert found.rest["meta"]["epoch"] == 12
    assert found.rest["meta"]["config"] == Stub(f"{__name__}.Settings")


def test_the_prefix_of_training_on_several_devices_is_taken_off(tmp_path: Path) -> None:
    as_zip({"module.a.weight": torch.ones(2), "module.b": torch.ones(1)}, tmp_path / "a.pth")
    assert list(read_pickled(tmp_path / "a.pth").state) == ["a.weight", "b"]


# --- files that mean harm ---
class Bomb:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class DictBomb(dict):  # type: ignore[type-arg]
    """The same, hidden in what passes for a dict."""

    def __init__(self, bomb: Bomb) -> None:
        super().__init__()
        self.bomb = bomb

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.bomb.call


def bombs(trace: Path) -> dict[str, Bomb]:
    return {
        "posix.system": Bomb(os.system, f"touch {trace}"),
        "subprocess.check_call": Bomb(subprocess.check_call, ["touch", str(trace)]),
        "builtins.eval": Bomb(eval, f"open({str(trace)!r}, 'w')"),
        "builtins.exec": Bomb(exec, f"open({str(trace)!r}, 'w')"),
        "io.open": Bomb(open, str(trace), "w"),
        "builtins.getattr": Bomb(getattr, Path(trace), "touch"),
    }


PLACES: dict[str, Callable[[Bomb], Any]] = {
    "root": lambda bomb: bomb,
    "state": lambda bomb: {"state_dict": bomb, "meta": {}},
    "entry": lambda bomb: {"state_dict": {"head.logits.bias": bomb}},
    "list": lambda bomb: {"state_dict": {"a": np.ones(2)}, "meta": {"CLASSES": ("a",), "list": [1, (2, bomb)]}},
    "meta": lambda bomb: {"state_dict": {"a": np.ones(2)}, "meta": DictBomb(bomb)},
    "model": lambda bomb: {"model": {"a": np.ones(2)}, "__author__": bomb},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_bomb_does_nothing_but_an_error(wrapping: str, place: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name, bomb in bombs(trace).items():
        path = tmp_path / wrapping
        WRAPPINGS[wrapping](PLACES[place](bomb), path)
        with pytest.raises(FocaldetError, match=rf"{wrapping} asks to run {name}, .*; nothing in it was executed"):
            read_pickled(path)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_bomb_of_any_protocol(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Bomb(os.system, f"touch {tmp_path}/trace"), protocol=protocol))
    with pytest.raises(FocaldetError, match=r"asks to run posix\.system"):
        read_pickled(tmp_path / "a.pkl")


BY_HAND = {
    "inst": b"(S'touch TRACE'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch TRACE'\no.",
    "stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch TRACE\x85R.",
    "extension": b"\x80\x02\x82\x01.",
    "dotted": b"\x80\x04\x8c\x07pathlib\x8c\nPath.touch\x93.",
    "setstate": b"\x80\x02c__main__\nThing\n)R}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb.",
    "imported": b"cfocaldet.models.unpickle\nsys.modules\n)R.",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_pickles_written_by_hand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(BY_HAND[name])
    with pytest.raises(FocaldetError, match=r"nothing in it was executed"):
        read_pickled(tmp_path / "a.pkl")
    assert not (tmp_path / "TRACE").exists()


def nested(depth: int) -> bytes:
    """A tuple of two that are one, and so on: 2^depth elements for who looks at all of them."""
    return b"(t" + b"q\x00h\x00\x86" * depth


GIANTS = {
    "hash": b"\x80\x02}" + nested(40) + b"K\x01s.",
    "long text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a.",
    "memo": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "number": b"I" + b"9" * 100_000 + b"\n.",
    "empty stack": b"\x80\x020.",
    "pops": b"\x80\x02K\x01(0R.",
    "endless": b"\x80\x02" + b"]" * 10_000,
    "depth": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "nothing": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("name", GIANTS)
def test_files_that_would_take_all_memory_or_time(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(GIANTS[name])
    with pytest.raises(FocaldetError, match=r"a\.pth is no complete file of weights \(.{1,120}\); nothing"):
        read_pickled(tmp_path / "a.pth")


def test_a_giant_made_of_one_number(tmp_path: Path) -> None:
    as_zip({"a": torch.ones(1).expand(1 << 20)}, tmp_path / "a.pth")
    with pytest.raises(FocaldetError, match=r"a tensor of shape \(1048576,\) is said to lie in 1 numbers"):
        read_pickled(tmp_path / "a.pth")


def test_a_zip_that_unfolds_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02]" + b"0]" * 1_000_000 + b".")
    with pytest.raises(FocaldetError, match=r"data\.pkl is compressed, which torch never does"):
        read_pickled(tmp_path / "a.pth")


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_file_cut_short_is_told(wrapping: str, tmp_path: Path) -> None:
    path = tmp_path / wrapping
    array = {"a": np.ones(50), "b": np.ones(3)} if wrapping.endswith("pkl") else tensors()
    WRAPPINGS[wrapping]({"model": array}, path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(FocaldetError, match=r"is no complete file of weights"):
            read_pickled(path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": {}}, {1: torch.ones(2)}, {"model": 3}])
def test_files_without_tensors_by_name(content: Any, tmp_path: Path) -> None:
    as_zip(content, tmp_path / "a.pth")
    with pytest.raises(FocaldetError, match=r"a\.pth is no complete file of weights \((it holds no state|of its)"):
        read_pickled(tmp_path / "a.pth")


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    as_zip({"model": {"a": torch.ones(2), "lr": 0.1, "b": Settings()}}, tmp_path / "a.pth")
    with pytest.raises(FocaldetError, match=r"of its entries these are no tensors: lr, b\)"):
        read_pickled(tmp_path / "a.pth")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    as_pickle({"model": {"a": np.array([None, 1])}}, tmp_path / "a.pkl")
    with pytest.raises(FocaldetError, match=r"is no complete file of weights"):
        read_pickled(tmp_path / "a.pkl")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match=r"there is no weights file .*a\.pth"):
        read_pickled(tmp_path / "a.pth")
