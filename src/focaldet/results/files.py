"""Files are written whole or not at all, json is read with every fault in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from focaldet.errors import FocaldetError


@contextlib.contextmanager
def write_beside(path: Path, mode: str = "wb", *, sync: bool = True) -> Iterator[IO[Any]]:
    """Open a file next to `path` for writing; rename it onto `path` once it is complete and on the disk.

    Args:
        path: where it goes; missing folders are made.
        mode: "wb", or "w" for UTF-8.
        sync: wait for the disk. Without, files of one kind by the thousand take a fraction of the time, and only a
            machine that stops, not a process, can leave one incomplete.

    Raises:
        FocaldetError: the disk refused; `path` is as it was before.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        kept = f"; the previous {path.name} is untouched" if path.exists() else ""
        raise FocaldetError(
            f"cannot write {path}: {error.strerror or error}{kept}; free some space or name another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_json(path: str | Path, data: Any) -> None:
    """Write a json file, whole or not at all.

    Args:
        path: where it goes; missing folders are made.
        data: anything that json knows.

    Raises:
        FocaldetError: it cannot be written; what stood there before is untouched.
    """
    with write_beside(Path(path), "w") as file:
        json.dump(data, file, ensure_ascii=False)


def read_json(path: str | Path) -> Any:
    """Read a json file.

    Raises:
        FocaldetError: if there is none, or it is not json; the sentence names the file and the line.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except OSError as fault:
        raise FocaldetError(f"{path}: cannot be read ({fault.strerror or fault})") from fault
    except json.JSONDecodeError as fault:
        raise FocaldetError(f"{path}: line {fault.lineno} is not json ({fault.msg}); write the file again") from fault
    except UnicodeDecodeError as fault:
        raise FocaldetError(f"{path}: is not a text file, so it is not json") from fault


def is_number(value: Any) -> bool:
    """Tell whether a value from a json file is a finite number.

    >>> is_number(1.5), is_number("1.5"), is_number(float("nan")), is_number(True), is_number(10**400)
    (True, False, False, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
