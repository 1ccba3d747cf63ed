"""Files that ship with the package: the demo's pictures (`bccd`, `hit_uav`) and small weights, each with its terms."""

from __future__ import annotations

from pathlib import Path

from focaldet.errors import FocaldetError

FOLDER = Path(__file__).parent


def asset_path(name: str) -> Path:
    """Return where a file or folder that ships with the package lies.

    Args:
        name: path below the assets, with forward slashes, such as "bccd" or "bccd/LICENSE".

    Raises:
        FocaldetError: there is no such asset, as in an installation that left the data files out.

    >>> asset_path("bccd/LICENSE").read_text().splitlines()[0]
    'MIT License'
    """
    path = FOLDER / name
    if not path.exists():
        raise FocaldetError(f"{name} is missing from this installation (looked in {FOLDER}); install focaldet again")
    return path
