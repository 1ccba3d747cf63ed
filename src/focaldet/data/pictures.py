"""Read any picture file into an array of 8-bit values, or say in one sentence why not.

What a file may hold and what becomes of it:

* the EXIF orientation is applied, so that a picture stands as its viewers show it;
* grey and 1-bit pictures are repeated to three channels, palettes looked up, CMYK and the like turned to RGB;
* of 16 bits a channel the high byte is kept, as OpenCV does;
* transparency is dropped, not blended: the colours stay those that are in the file, again as OpenCV does;
* of several frames or pages the first counts.

Pillow refuses pictures of more than 179 megapixels, against files of strangers that unpack to more than a machine has.
Scenes are larger every day, and here files are the user's own; so the limit is ours, of `MAX_PIXELS`.
"""

from __future__ import annotations

import contextlib
import math
import struct
import zlib
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from focaldet.errors import FocaldetError

if TYPE_CHECKING:  # processes that cut pictures do without torch
    from focaldet.structures import Size

MAX_PIXELS = 2_000_000_000
"""A picture of more is refused, but inside `any_size`: 6 GB of RGB."""
STRIP = 2**19
"""Pixels that are copied at once."""
_limit: ContextVar[float] = ContextVar("limit", default=MAX_PIXELS)

Picture = npt.NDArray[np.uint8]
"""(H, W, channels), RGB where there are three."""

BROKEN = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files, besides what has a sentence of its own."""

ORIENTATION = 0x0112
"""EXIF tag; 1 is upright, 5 to 8 swap width and height."""


def read_picture(path: str | Path, channels: int = 3) -> Picture:
    """Read a picture file.

    Args:
        path: any format that Pillow knows.
        channels: 3 for RGB, 1 for grey; another number takes files with exactly so many bands, as they are.

    Returns:
        (H, W, channels) uint8, writable and contiguous, EXIF orientation applied.

    Raises:
        FocaldetError: the file is missing, no picture, cut off, larger than the limit, or of other bands.
    """
    return _as_array(read_image(path, channels))


def read_image(path: str | Path, channels: int | None = 3) -> Image.Image:
    """Read a picture file as a decoded Pillow picture, by the rules of this file.

    Args:
        path: any format that Pillow knows.
        channels: as in `read_picture`; None: 1 where the file is grey, else 3.
    """
    with open_picture(path) as image:
        if channels is None:
            channels = 1 if len(image.getbands()) == 1 and image.mode != "P" else 3
        try:
            return decode(image, channels, str(path))
        except FocaldetError:
            raise
        except BROKEN as error:
            raise FocaldetError(_damage(path, error)) from error


def read_size(path: str | Path) -> Size:
    """Return the (height, width) that `read_picture` would give, from the file's header alone."""
    with open_picture(path) as image:
        width, height = image.size
        turned = _orientation(image) >= 5
    return (width, height) if turned else (height, width)


@contextlib.contextmanager
def any_size(wanted: bool = True) -> Iterator[None]:
    """Take pictures of more than `MAX_PIXELS` inside the block; only if that is wanted."""
    before = _limit.set(math.inf if wanted else _limit.get())
    try:
        yield
    finally:
        _limit.reset(before)


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture file without decoding it; a file that is none is one sentence."""
    try:
        with without_limit():
            image = Image.open(path)
    except FileNotFoundError as error:
        raise FocaldetError(f"picture {path} does not exist; check the path") from error
    except UnidentifiedImageError as error:
        raise FocaldetError(
            f"{path} is not a picture of a format that can be read, such as JPEG, PNG or TIFF"
        ) from error
    except BROKEN as error:
        raise FocaldetError(_damage(path, error)) from error
    pixels, limit = image.width * image.height, _limit.get()
    if pixels > limit:
        image.close()
        raise FocaldetError(
            f"picture {path} has {pixels / 1e6:,.0f} megapixels, more than the {limit / 1e6:,.0f} that are taken "
            "unasked; add --any-size, where there is memory for it"
        )
    return image


@contextlib.contextmanager
def without_limit() -> Iterator[None]:
    """Lift Pillow's limit, which is global, while a file is opened or a part is cut out: it is checked then."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def picture_to_array(image: Image.Image, channels: int = 3, name: str = "the picture") -> Picture:
    """Turn an opened Pillow picture into an array, by the rules of this file.

    Args:
        image: what `PIL.Image.open` gives.
        channels: as in `read_picture`.
        name: how an error calls the picture.

    Returns:
        (H, W, channels) uint8.
    """
    return _as_array(decode(image, channels, name))


def _as_array(image: Image.Image) -> Picture:
    array = window_pixels(image, (0, 0, image.width, image.height))
    return array[:, :, None] if array.ndim == 2 else array


def window_pixels(image: Image.Image, window: tuple[int, int, int, int]) -> Picture:
    """Return a writable copy of what a window (x1, y1, x2, y2) inside a decoded picture shows: (H, W) or (H, W, bands).

    It is made strip by strip: Pillow hands out pixels through two further copies of them.
    """
    x1, y1, x2, y2 = window
    bands = len(image.getbands())
    array = np.empty((y2 - y1, x2 - x1, bands) if bands > 1 else (y2 - y1, x2 - x1), dtype=np.uint8)
    rows = max(STRIP // (x2 - x1), 1)
    with without_limit():
        for top in range(y1, y2, rows):
            bottom = min(top + rows, y2)
            array[top - y1 : bottom - y1] = np.asarray(image.crop((x1, top, x2, bottom)))
    return array


def decode(image: Image.Image, channels: int = 3, name: str = "the picture") -> Image.Image:
    """Return the decoded picture, upright and with `channels` 8-bit bands; arguments are as in `picture_to_array`."""
    image.load()  # damage shows here, and not where EXIF is looked for
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return _bands(image, channels, name)


def _bands(image: Image.Image, channels: int, name: str) -> Image.Image:
    """Return the picture in the mode that has `channels` 8-bit bands."""
    if image.mode == "F":
        raise FocaldetError(f"picture {name} holds floating-point values; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _high_byte(image)
    if channels in (1, 3):
        mode = "L" if channels == 1 else "RGB"
        return image if image.mode == mode else _without_alpha(image).convert(mode)
    if len(image.getbands()) != channels:
        raise FocaldetError(
            f"picture {name} has {len(image.getbands())} bands, but {channels} are asked for (in_channels)"
        )
    return image


def _without_alpha(image: Image.Image) -> Image.Image:
    """Drop what says that a palette's entry is transparent: Pillow warns about it when the palette is looked up."""
    if image.mode == "P" and "transparency" in image.info:
        del image.info["transparency"]
    return image


def _high_byte(image: Image.Image) -> Image.Image:
    """Turn 16-bit grey (modes I;16 and, in older files and Pillows, I) into 8 bits."""
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none; damaged EXIF counts as none."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif would decode the whole picture to look behind it
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except BROKEN:
        return 1
    return value if value in range(1, 9) else 1


def _damage(path: str | Path, error: Exception) -> str:
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, not a picture"
    if isinstance(error, PermissionError):
        return f"picture {path} may not be read: {error.strerror}"
    if "truncated" in str(error).lower():
        return f"picture {path} is cut off ({error}); copy or download it again"
    return f"picture {path} is damaged ({error}); copy or download it again"
