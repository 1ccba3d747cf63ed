"""Reading and writing json files: whole or not at all, and every fault in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from focaldet.errors import FocaldetError


def write_json(path: str | Path, data: Any) -> None:
    """Write a json file beside its place, then rename it, so that a full disk never leaves half a file.

    Args:
        path: where it goes; missing folders are made.
        data: anything that json knows.

    Raises:
        FocaldetError: if it cannot be written. What stood there before is untouched.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False)
        beside.replace(path)
    except OSError as fault:
        reason = fault.strerror or fault
        raise FocaldetError(f"{path}: cannot be written ({reason}); free space or choose another folder") from fault
    finally:
        with contextlib.suppress(OSError):  # gone if all went well, or never there
            beside.unlink()


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
