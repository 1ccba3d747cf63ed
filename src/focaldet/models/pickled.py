"""Weights in files that Python pickled: torch's zip files (since 1.6), its older stream, plain pickles of numpy arrays.

What a file describes is walked by `unpickle`, never run. Bytes become tensors only where somebody asks for them, so an
optimizer's half of a checkpoint is never read.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.unpickle import RefusedName, Storage, StoredArray, StoredTensor, read_pickle

ZIP_MAGIC = b"PK\x03\x04"
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of torch's older stream of pickles."""

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
"""What the elements of a storage are, by the class that the file names."""

STATE_NAMES = ("state_dict", "model", "blobs")
"""Where mmdetection, detectron2 and Caffe2 keep the tensors."""
WRAPPED = "module."
SHOWN = 6
"""Names that a message lists."""


@dataclass(frozen=True)
class PickledWeights:
    """What a file of another program holds.

    Attributes:
        state: its tensors by name, as the file has them.
        rest: what stands beside them, "meta" for example: lists, dicts, text, numbers, and stubs for all else.
    """

    state: dict[str, Tensor]
    rest: dict[str, Any]


def read_pickled(path: Path) -> PickledWeights:
    """Read a state dict from a `.pth` or `.pt` of any torch, or a `.pkl`; it may lie under "state_dict" or "model".

    Nothing that the file names is imported or called. A "module." before every name, from training on several devices,
    is taken off.

    Raises:
        FocaldetError: there is no file; it is cut short, holds no tensors by name, or asks for what no weights need.
    """
    if not path.is_file():
        raise FocaldetError(f"there is no weights file {path}")
    try:
        with open(path, "rb") as file:
            if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
                with zipfile.ZipFile(file) as archive:
                    return _split(_read_zip(archive))
            file.seek(0)
            return _split(_read_stream(file))
    except RefusedName as refused:
        raise FocaldetError(
            f"{path} asks to run {refused}, which no weights need; nothing in it was executed, do not trust it"
        ) from None
    except Exception as error:  # whatever bytes that mean nothing lead to
        raise FocaldetError(
            f"{path} is no complete file of weights ({_brief(error)}); nothing in it was executed"
        ) from error


def _split(tree: Any) -> PickledWeights:
    """Read the state dict of a tree, and leave the rest of it."""
    holder = tree if isinstance(tree, dict) else {}
    name = next((name for name in STATE_NAMES if isinstance(holder.get(name), dict)), None)
    state = holder if name is None else holder[name]
    if not state or not all(isinstance(key, str) for key in state):
        raise ValueError("it holds no state dict, tensors by name")
    others = [key for key, value in state.items() if not isinstance(value, (StoredTensor, StoredArray))]
    if others:
        raise ValueError(f"of its entries these are no tensors: {', '.join(others[:SHOWN])}")
    wrapped = all(key.startswith(WRAPPED) for key in state)
    tensors = {key.removeprefix(WRAPPED) if wrapped else key: value.tensor() for key, value in state.items()}
    return PickledWeights(tensors, {} if name is None else {key: holder[key] for key in holder if key != name})


def _brief(error: Exception, limit: int = 120) -> str:
    """Say what went wrong in so many letters: a message may quote what the file holds."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def _read_zip(archive: zipfile.ZipFile) -> Any:
    """Read torch's zip: `NAME/data.pkl` is the tree, `NAME/data/KEY` are the storages."""
    trees = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(trees) != 1:
        raise ValueError("a zip file without data.pkl")
    root = trees[0].removesuffix("data.pkl")
    if f"{root}byteorder" in archive.namelist() and _stored(archive, f"{root}byteorder") != b"little":
        raise ValueError("written on a machine of the other byte order")

    def storage(identity: tuple[Any, ...]) -> Storage:
        kind, key = identity[1], identity[2]
        return Storage(DTYPES[kind.path], lambda: _stored(archive, f"{root}data/{key}"))

    return read_pickle(io.BytesIO(_stored(archive, trees[0])), storage)


def _stored(archive: zipfile.ZipFile, name: str) -> bytearray:
    """Return the bytes of an entry; torch compresses none, so that one which is might grow without bound."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which torch never does")
    return bytearray(archive.read(entry))


def _read_stream(file: IO[bytes]) -> Any:
    """Read a plain pickle, or torch's older stream: magic number, version, system, tree, keys, then the storages."""
    places: dict[str, int] = {}
    kinds: dict[str, torch.dtype] = {}

    def storage(identity: tuple[Any, ...]) -> Storage:
        kind, key, count = identity[1], str(identity[2]), identity[4]
        if len(identity) > 5 and identity[5] is not None:
            raise ValueError("a storage that is a view of another")
        kinds[key] = DTYPES[kind.path]
        return Storage(kinds[key], lambda: _at(file, places[key], count * kinds[key].itemsize))

    first = read_pickle(file, storage)
    if first != STREAM_MAGIC:
        return first
    _, _, tree, keys = (read_pickle(file, storage) for _ in range(4))
    for key in keys:
        count = int.from_bytes(_exactly(file, 8), "little", signed=True)
        places[str(key)] = file.tell()
        file.seek(count * kinds[str(key)].itemsize, io.SEEK_CUR)
    return tree


def _at(file: IO[bytes], place: int, count: int) -> bytearray:
    file.seek(place)
    return bytearray(_exactly(file, count))


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("the file ends too early")
    return data
