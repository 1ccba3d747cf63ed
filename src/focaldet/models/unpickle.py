"""Walks the opcodes of a pickle without running them: a pickle is a program, and here it is data.

`pickle.load`, and so `torch.load`, calls whatever a file names. This module knows the few constructions that weights
are made of: containers, text, numbers, the tensors of torch and the arrays of numpy. What else a file names (the
classes of another program's settings, say) becomes a `Stub`; a file that names what no weights need, such as
`os.system`, is refused.
"""

from __future__ import annotations

import math
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

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


# --- the walk ---
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

    >>> import io, pickle
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
