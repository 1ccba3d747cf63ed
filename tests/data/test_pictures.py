from __future__ import annotations

import contextlib
import zlib
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from focaldet.data import pictures
from focaldet.data.pictures import picture_to_array, read_picture, read_size
from focaldet.errors import FocaldetError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    picture = read_picture(save(tmp_path / "a.png", Image.fromarray(RGB)))
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, RGB)
    assert picture.flags.writeable
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    # what a viewer must do to a picture of each orientation, by the EXIF standard
    turns = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2)}
    turns |= {6: np.rot90(RGB, -1), 7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(RGB), exif=exif)
    assert np.array_equal(read_picture(path), turns[orientation])
    assert read_size(path) == turns[orientation].shape[:2]


def test_grey_is_repeated(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(GREY))
    assert np.array_equal(read_picture(path), np.repeat(GREY[:, :, None], 3, axis=2))
    assert np.array_equal(read_picture(path, channels=1), GREY[:, :, None])


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(GREY > 127))
    assert np.array_equal(read_picture(path)[:, :, 0], np.where(GREY > 127, 255, 0))


def test_palette_is_looked_up_and_its_transparency_dropped(tmp_path: Path) -> None:
    palette = Image.fromarray(RGB).quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(read_picture(save(tmp_path / "a.png", palette)), expected)
    path = save(tmp_path / "b.png", palette, transparency=bytes(range(0, 256, 16)))
    assert np.array_equal(read_picture(path), expected)


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    alpha = np.concatenate([RGB, GREY[:, :, None]], axis=2)
    path = save(tmp_path / "a.png", Image.fromarray(alpha))
    assert np.array_equal(read_picture(path), RGB)
    assert np.array_equal(read_picture(path, channels=4), alpha)
    grey = save(tmp_path / "b.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]))
    assert np.array_equal(read_picture(grey)[:, :, 2], GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_sixteen_bits_the_high_byte_is_kept(tmp_path: Path, suffix: str) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (20, 30)).astype(np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    assert np.array_equal(read_picture(path)[:, :, 1], values >> 8)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    flat = Image.new("CMYK", (32, 32), (0, 255, 255, 0))  # no cyan: red
    picture = read_picture(save(tmp_path / "a.jpg", flat, quality=95))
    assert picture.shape == (32, 32, 3)
    assert np.abs(picture[16, 16].astype(int) - (255, 0, 0)).max() <= 8  # JPEG


def test_the_reader_agrees_with_opencv_on_jpeg(shared: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    path = next((shared / "data/coco-mini/images").glob("*.jpg"))
    reference = cv2.imread(str(path))[:, :, ::-1]
    assert np.abs(read_picture(path).astype(int) - reference).max() <= 2  # the decoders may be of other builds


def test_first_frame_of_several(tmp_path: Path) -> None:
    pages = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    path = save(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:])
    assert np.array_equal(read_picture(path), RGB)


def test_a_picture_in_memory_follows_the_same_rules() -> None:
    assert picture_to_array(Image.fromarray(GREY)).shape == (20, 30, 3)


def message_of(path: Path, channels: int = 3) -> str:
    with pytest.raises(FocaldetError) as caught:
        read_picture(path, channels)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_missing_picture(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "nowhere.jpg")


def test_folder_for_a_picture(tmp_path: Path) -> None:
    assert "is a folder" in message_of(tmp_path)


@pytest.mark.parametrize("keep", [0.6, 0.99])
def test_truncated_jpeg(tmp_path: Path, keep: float) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(np.repeat(np.repeat(RGB, 8, 0), 8, 1)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "is cut off" in message_of(path)


def test_truncated_and_damaged_png(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RGB))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cut off" in message_of(path)
    path.write_bytes(content[:41] + b"\xff\xff" + content[43:])  # where the compressed pixels begin
    assert "damaged" in message_of(path)


def test_decompression_bomb(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (50000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert "has 2,500 megapixels, more than the 2,000 that are taken unasked" in message_of(path)


def test_the_limit_may_be_lifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_limit", ContextVar("limit", default=599))
    path = save(tmp_path / "a.png", Image.fromarray(RGB))  # 600 pixels
    for lifted in (False, True):
        with (
            pictures.any_size(lifted),
            contextlib.nullcontext() if lifted else pytest.raises(FocaldetError, match="--any"),
        ):
            assert np.array_equal(read_picture(path), RGB)
    assert "more than the 0 that are taken unasked; add --any-size" in message_of(path)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("pixels", [1, 30, 70, 570, 600])
def test_large_pictures_are_copied_in_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int, channels: int
) -> None:
    monkeypatch.setattr(pictures, "STRIP", pixels)
    expected = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(expected[:, :, 0] if channels == 1 else expected))
    picture = read_picture(path, channels)
    assert np.array_equal(picture, expected)
    assert picture.flags.writeable and picture.flags.c_contiguous


def test_text_and_empty_files_are_no_pictures(tmp_path: Path) -> None:
    for content in (b"", b"not a picture"):
        (tmp_path / "a.jpg").write_bytes(content)
        assert "not a picture" in message_of(tmp_path / "a.jpg")


def test_other_numbers_of_bands(tmp_path: Path) -> None:
    assert "has 3 bands, but 4 are asked for" in message_of(save(tmp_path / "a.png", Image.fromarray(RGB)), channels=4)


def test_floating_point_values(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(GREY.astype(np.float32)))
    assert "floating-point" in message_of(path)
