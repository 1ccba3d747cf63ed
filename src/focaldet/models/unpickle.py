"""Reads weights out of files that Python pickled, without running them: a pickle is a program, and here it is data.

`pickle.load`, and so `torch.load`, calls whatever a file names. This module walks the opcodes itself and knows the few
constructions that weights are made of: containers, text, numbers, the tensors of torch and the arrays of numpy. What
else a file names (the classes of another program's settings, say) becomes a `Stub`; a file that names what no weights
need, such as `os.system`, is refused. Bytes become tensors only where somebody asks for them, so an optimizer's half
of a checkpoint is never read.

Three wrappings are known: torch's zip files (since 1.6), torch's older stream, and plain pickles of numpy arrays.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError

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

HARMLESS = {
    "argparse": ("Namespace",),
    "builtins": (
        *("object", "set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str", "bytes"),
        *("bytearray", "slice", "range"),
    ),
    "_codecs": ("encode",),
    "collections": ("OrderedDict", "defaultdict", "deque", "Counter"),
    "copyreg": ("_reconstructor", "__newobj__", "__newobj_ex__"),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "pathlib": ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"),
    "types": ("SimpleNamespace",),
}
"""What settings and logs contain of Python's own library; most become stubs like all that is unknown."""


@dataclass(frozen=True)
class Name:
    """Something that a file refers to by name, not looked up."""

    path: str


@dataclass(frozen=True)
class Stub:
    """Stands for an object of a class that is not known here; holds nothing of it."""

    path: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file.

    Attributes:
        dtype: of its elements.
        read: returns its bytes.
    """

    dtype: torch.dtype
    read: Callable[[], bytearray]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of torch that has not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Read it."""
        data = self.storage.read()
        values = torch.frombuffer(data, dtype=self.storage.dtype) if data else torch.empty(0, dtype=self.storage.dtype)
        if math.prod(self.shape) > len(values):  # a stride of zero would make a giant of one number
            raise ValueError(f"a tensor of shape {self.shape} is said to lie in {len(values)} numbers")
        return values.as_strided(self.shape, self.stride, self.offset).clone(memory_format=torch.contiguous_format)


@dataclass
class StoredArray:
    """An array of numpy: named first, and told by a later opcode what it holds."""

    shape: tuple[int, ...] = ()
    dtype: DType | None = None
    data: Any = b""
    fortran: bool = False

    def tensor(self) -> Tensor:
        """Read it."""
        if self.dtype is None or not isinstance(self.data, (bytes, bytearray)):
            raise ValueError("an array of numpy holds something else than numbers")
        flat = np.frombuffer(bytearray(self.data), self.dtype.numpy())
        values = flat.reshape(self.shape, order="F" if self.fortran else "C")
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))


@dataclass
class DType:
    """A type of numpy by its code, such as "f4"; the byte order follows by a later opcode."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype[Any]:
        """Return it, if it is one of numbers."""
        dtype = np.dtype(self.code)
        if dtype.kind not in "fiub":
            raise ValueError(f"an array of numpy holds {self.code!r}, which is no type of numbers")
        return dtype.newbyteorder("=" if self.order == "|" else self.order)  # type: ignore[arg-type]


# --- the file ---
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


# --- the tree ---
class RefusedName(Exception):
    """A name that no file of weights has a use for."""


def read_pickle(file: IO[bytes], storage: Callable[[tuple[Any, ...]], Storage]) -> Any:
    """Walk one pickle from where the file stands, and return the tree that it describes.

    Args:
        file: stands behind the pickle afterwards.
        storage: returns what a persistent identity of torch, ("storage", class, key, device, count), stands for.

    Raises:
        RefusedName: the pickle names something of Python's own library that no weights need.
        ValueError, and others: it is no pickle.

    >>> import pickle
    >>> read_pickle(io.BytesIO(pickle.dumps({"meta": [1, (2.5, "a"), None]})), lambda identity: None)
    {'meta': [1, (2.5, 'a'), None]}
    """
    machine = _Machine(storage)
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "STOP":
            return machine.pop()
        machine.step(opcode.name, argument)
    raise ValueError("the pickle has no end")


@dataclass
class _Machine:
    """The stack on which a pickle builds its tree."""

    storage: Callable[[tuple[Any, ...]], Storage]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says."""
        if name in VALUES:
            self.stack.append(argument)
        elif name in NEW:
            self.stack.append(NEW[name]())
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"opcode {name}, which no weights need")

    def pop(self) -> Any:
        """Take the topmost value."""
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("a pickle that takes what it has not put down")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        """Take all values above the last mark."""
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def push(self, value: Any) -> None:
        """Put a value on top."""
        self.stack.append(value)

    def gather(self, count: int) -> None:
        """Make a tuple of the topmost values."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]))

    def remember(self, number: int | None) -> None:
        """Keep the topmost value under a number, or under the next one."""
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def append(self, values: list[Any]) -> None:
        """Add values to the list or set on top; an unknown object takes none."""
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def put(self, values: list[Any]) -> None:
        """Add keys and values, in turn, to the dict on top; an unknown object takes none."""
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_pairs(values[0::2], values[1::2]))

    def call(self, function: Any, arguments: Any) -> None:
        """Put down what a name makes of arguments: something known, or a stub."""
        path = function.path if isinstance(function, Name) else "what it was not given a name for"
        make = MAKE.get(path)
        self.push(make(*arguments) if make else Stub(path))

    def build(self, state: Any) -> None:
        """Tell the topmost object its state."""
        target = self.stack[-1]
        if isinstance(target, StoredArray):
            _, target.shape, target.dtype, target.fortran, target.data = state
        elif isinstance(target, DType):
            target.order = state[1]


def _pairs(keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """Return the entries whose key is a plain one: hashing nested tuples of a hostile file would take for ever."""
    plain = (str, int, float, bytes, type(None))
    return {key: value for key, value in zip(keys, values, strict=True) if isinstance(key, plain)}


def _named(path: str) -> Name:
    """Return a name that a file may refer to."""
    module, _, name = path.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # Python 2 had others
    if module.partition(".")[0] in sys.stdlib_module_names and name not in HARMLESS.get(module, ()):
        raise RefusedName(f"{module}.{name}"[:80])
    return Name(f"{module}.{name}")


def _global(machine: _Machine, argument: str) -> None:
    machine.push(_named(argument))


def _stack_global(machine: _Machine, argument: None) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("a name that is no text")
    machine.push(_named(f"{module} {name}"))


def _reduce(machine: _Machine, argument: None) -> None:
    arguments = machine.pop()
    machine.call(machine.pop(), arguments)


def _new_with_keywords(machine: _Machine, argument: None) -> None:
    machine.pop()
    _reduce(machine, argument)


def _instance(machine: _Machine, argument: str) -> None:
    arguments = machine.pop_to_mark()
    machine.call(_named(argument), arguments)


def _object(machine: _Machine, argument: None) -> None:
    function, *arguments = machine.pop_to_mark()
    machine.call(function, arguments)


def _persistent(machine: _Machine, argument: None) -> None:
    identity = machine.pop()
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("a reference to something outside the file")
    machine.push(machine.storage(identity))


def _tuple(machine: _Machine, argument: None) -> None:
    machine.push(tuple(machine.pop_to_mark()))


def _list(machine: _Machine, argument: None) -> None:
    machine.push(machine.pop_to_mark())


def _dict(machine: _Machine, argument: None) -> None:
    values = machine.pop_to_mark()
    machine.push(_pairs(values[0::2], values[1::2]))


def _set_item(machine: _Machine, argument: None) -> None:
    value, key = machine.pop(), machine.pop()
    machine.put([key, value])


def _append(machine: _Machine, argument: None) -> None:
    value = machine.pop()
    machine.append([value])


# fmt: off
VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
})
# fmt: on
"""Opcodes whose argument is the value."""

NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
}

STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "GET": lambda machine, number: machine.push(machine.memo[number]),
    "BINGET": lambda machine, number: machine.push(machine.memo[number]),
    "LONG_BINGET": lambda machine, number: machine.push(machine.memo[number]),
    "PUT": lambda machine, number: machine.remember(number),
    "BINPUT": lambda machine, number: machine.remember(number),
    "LONG_BINPUT": lambda machine, number: machine.remember(number),
    "MEMOIZE": lambda machine, _: machine.remember(None),
    "TUPLE": _tuple,
    "TUPLE1": lambda machine, _: machine.gather(1),
    "TUPLE2": lambda machine, _: machine.gather(2),
    "TUPLE3": lambda machine, _: machine.gather(3),
    "LIST": _list,
    "FROZENSET": _list,
    "DICT": _dict,
    "APPEND": _append,
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.put(machine.pop_to_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(machine.pop()),
    "BINPERSID": _persistent,
}


# --- what weights are made of ---
def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *others: Any) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _ordered_dict(entries: Any = (), *others: Any) -> dict[Any, Any]:
    return _pairs([key for key, _ in entries], [value for _, value in entries])


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How pickles before protocol 3 write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes that are written as {encoding!r}"[:80])
    return text.encode("latin1")


def _from_buffer(data: Any, dtype: DType, shape: Any, order: str, axes: Any = None) -> StoredArray:
    if axes is not None:
        raise ValueError("an array of numpy with its axes in another order")
    return StoredArray(tuple(map(int, shape)), dtype, data, fortran=order == "F")


def _scalar(dtype: DType, data: bytes) -> Any:
    return np.frombuffer(data, dtype.numpy())[0].item()


NUMPY_CORE: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": lambda *arguments: StoredArray(),
    "multiarray.scalar": _scalar,
    "numeric._frombuffer": _from_buffer,
}

MAKE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *others: tensor,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "numpy.dtype": lambda code, *others: DType(str(code)),
    "_codecs.encode": _encoded,
    "builtins.bytes": lambda *arguments: b"",
    **{f"numpy.{core}.{name}": make for core in ("core", "_core") for name, make in NUMPY_CORE.items()},
}
"""How the objects that count are made of what the file gives for them; all others become stubs."""
