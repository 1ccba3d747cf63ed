"""Read any picture file into an array of 8-bit values, or say in one sentence why not.

What a file may hold and what becomes of it:

* the EXIF orientation is applied, so that a picture stands as its viewers show it;
* grey and 1-bit pictures are repeated to three channels, palettes looked up, CMYK and the like turned to RGB;
* of 16 bits a channel the high byte is kept, as OpenCV does;
* transparency is dropped, not blended: the colours stay those that are in the file, again as OpenCV does;
* of several frames or pages the first counts.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from focaldet.errors import FocaldetError
from focaldet.structures import Size

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
        FocaldetError: the file is missing, no picture, cut off, larger than Pillow's limit, or of other bands.
    """
    with open_picture(path) as image:
        try:
            return picture_to_array(image, channels, str(path))
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


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture file without decoding it; a file that is none is one sentence."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from half of its limit on; scenes of 100 megapixels are everyday pictures here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except FileNotFoundError as error:
        raise FocaldetError(f"picture {path} does not exist; check the path") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        sentence = f"picture {path} has more than {limit:.0f} megapixels, the limit against decompression bombs; cut it"
        raise FocaldetError(sentence) from error
    except UnidentifiedImageError as error:
        raise FocaldetError(
            f"{path} is not a picture of a format that can be read, such as JPEG, PNG or TIFF"
        ) from error
    except BROKEN as error:
        raise FocaldetError(_damage(path, error)) from error


def picture_to_array(image: Image.Image, channels: int = 3, name: str = "the picture") -> Picture:
    """Turn an opened Pillow picture into an array, by the rules of this file.

    Args:
        image: what `PIL.Image.open` gives.
        channels: as in `read_picture`.
        name: how an error calls the picture.

    Returns:
        (H, W, channels) uint8.
    """
    image.load()  # damage shows here, and not where EXIF is looked for
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    bands = _bands(image, channels, name)
    array = np.array(bands)  # a copy: what Pillow hands out is read-only
    return array[:, :, None] if array.ndim == 2 else array


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
