"""Make src/focaldet/assets/hit_uav: a part of HIT-UAV small enough to ship, from the larger part in the shared folder.

    python scripts/hit_uav_subset.py ../shared/data/hit-uav src/focaldet/assets/hit_uav

Frames are evenly spaced in the source's lists, which go by flight, so every flight keeps its share. The pictures' three
channels are equal: one is kept, as JPEG of quality 80, which halves the files. Labels are copied as they are.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

FRAMES = {"train": 204, "val": 56}
QUALITY = 80
DATA_FILE = """format: dota
classes: [Person, Car, Bicycle, OtherVehicle]
ignored: [DontCare]
"""


def spaced(stems: list[str], count: int) -> list[str]:
    """Return `count` of the stems, evenly spaced."""
    return [stems[k * len(stems) // count] for k in range(count)]


def copy_frame(source: Path, target: Path, stem: str) -> None:
    """Copy a frame's labels, and one of its three equal channels."""
    pixels = np.asarray(Image.open(source / f"images/{stem}.jpg"))
    if (pixels != pixels[:, :, :1]).any():
        raise SystemExit(f"{stem}: the channels differ, so that one of them is not the picture")
    Image.fromarray(pixels[:, :, 0]).save(target / f"images/{stem}.jpg", quality=QUALITY, optimize=True)
    shutil.copyfile(source / f"labelTxt/{stem}.txt", target / f"labelTxt/{stem}.txt")


def main() -> None:
    """Write pictures, labels, lists and data.yaml; README.md and LICENSE are written by hand."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    folders = parser.parse_args()
    for name in ("images", "labelTxt"):
        shutil.rmtree(folders.target / name, ignore_errors=True)
        (folders.target / name).mkdir(parents=True)
    for split, count in FRAMES.items():
        stems = spaced((folders.source / f"{split}.txt").read_text().split(), count)
        for stem in stems:
            copy_frame(folders.source, folders.target, stem)
        (folders.target / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    (folders.target / "data.yaml").write_text(DATA_FILE)


if __name__ == "__main__":
    main()
