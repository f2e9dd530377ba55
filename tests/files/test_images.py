"""Reading images and id masks: every kind of pixel, and every kind of broken file."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from pixelwise.errors import DataError
from pixelwise.files.images import (
    IMAGE_SUFFIXES,
    ColourMaskError,
    describe_passed_over,
    exif_orientation,
    exif_rotation,
    frame_count,
    image_size,
    passed_over,
    read_ids,
    read_image,
    rgb_tensor,
    turned_upright,
)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # pyright: ignore[reportArgumentType]
    return path


def pixel(path: Path, row: int = 0, column: int = 0) -> list[int]:
    return read_image(path)[:, row, column].tolist()


def png_bytes(width: int, height: int, *, bits: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG file by the letter of its specification; `rows` are unfiltered, packed lines."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def noise_jpeg(side: int = 200) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    return buffer.getvalue()


class TestPixels:
    def test_rgb_is_read_as_it_is(self, tmp_path: Path) -> None:
        pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(pixels)))
        assert image.dtype == torch.uint8
        assert image.is_contiguous()
        assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))

    def test_grey_fills_all_three_channels(self, tmp_path: Path) -> None:
        assert pixel(saved(tmp_path / "a.png", Image.new("L", (2, 2), 100))) == [100, 100, 100]

    def test_black_and_white(self, tmp_path: Path) -> None:
        image = Image.new("1", (2, 1))
        image.putpixel((1, 0), 1)
        path = saved(tmp_path / "a.png", image)
        assert pixel(path, 0, 0) == [0, 0, 0]
        assert pixel(path, 0, 1) == [255, 255, 255]

    @pytest.mark.parametrize(("stored", "expected"), [(0, 0), (25700, 100), (25828, 100), (25829, 101), (65535, 255)])
    def test_sixteen_bit_grey_is_divided_by_257(self, tmp_path: Path, stored: int, expected: int) -> None:
        values = np.full((2, 2), stored, dtype=np.uint16)
        for name in ("a.png", "a.tif"):
            assert pixel(saved(tmp_path / name, Image.fromarray(values))) == [expected] * 3

    def test_sixteen_bit_big_endian_grey(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.full((2, 2), 25700, dtype=np.uint16), byteorder=">")
        assert pixel(path) == [100, 100, 100]

    def test_floats_between_zero_and_one_are_stretched(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, 0.2, 1.0]], dtype=np.float32)))
        assert read_image(path)[0].tolist() == [[0, 51, 255]]

    def test_floats_up_to_255_are_kept(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, 51.2, 255.0]], dtype=np.float32)))
        assert read_image(path)[0].tolist() == [[0, 51, 255]]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_floats_that_are_no_numbers_are_refused(self, tmp_path: Path, value: float) -> None:
        path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0.5, value]], dtype=np.float32)))
        with pytest.raises(DataError, match=re.escape(str(path))):
            read_image(path)

    @pytest.mark.parametrize(
        ("dtype", "values", "expected"),
        [
            ("uint16", [0, 100, 255], [0, 100, 255]),  # 8 bits in 16
            ("uint16", [0, 2048, 4095], [0, 128, 255]),  # 12 bits in 16
            ("uint16", [0, 500, 1000], [0, 125, 249]),  # 10 bits: 500 · 255 / 1023
            ("uint16", [0, 16384, 32768], [0, 64, 128]),  # 16 bits
            ("int32", [0, 100, 255], [0, 100, 255]),
            ("int32", [0, 2048, 4095], [0, 128, 255]),
            ("int32", [0, 0, 262143], [0, 0, 255]),  # 18 bits
            ("int32", [-1000, 0, 1550], [0, 100, 255]),  # as in computed tomography
            ("float32", [0, 2048, 4095], [0, 128, 255]),
            ("float32", [-1, 0, 1], [0, 128, 255]),
            ("float32", [-1, -1, -1], [0, 0, 0]),
        ],
    )
    def test_values_of_more_than_eight_bits_are_scaled_by_the_depth_they_use(
        self, tmp_path: Path, dtype: str, values: list[int], expected: list[int]
    ) -> None:
        path = saved(tmp_path / "a.tif", Image.fromarray(np.array([values], dtype=dtype)))
        assert read_image(path)[:, 0].tolist() == [expected] * 3

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    @pytest.mark.parametrize(("white", "expected"), [(4095, [255, 128, 0]), (65535, [255, 8, 0])])
    def test_colours_of_twelve_bits_in_sixteen_are_not_black(
        self, tmp_path: Path, suffix: str, white: int, expected: list[int]
    ) -> None:
        path = tmp_path / f"a{suffix}"
        assert cv2.imwrite(str(path), np.full((2, 3, 3), (0, 2048, white), dtype=np.uint16))  # blue, green, red
        assert read_image(path)[:, 1, 2].tolist() == expected

    def test_palette_colours_become_rgb(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 2), 5)
        image.putpalette([0, 0, 0] * 5 + [10, 20, 30])
        assert pixel(saved(tmp_path / "a.png", image)) == [10, 20, 30]

    def test_cmyk_becomes_rgb(self, tmp_path: Path) -> None:
        assert pixel(saved(tmp_path / "a.tif", Image.new("CMYK", (2, 2), (0, 255, 255, 0)))) == [255, 0, 0]

    def test_cmyk_jpeg_is_not_inverted(self, tmp_path: Path) -> None:
        white = pixel(saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 0, 0, 0)), quality=95))
        assert min(white) > 250

    def test_transparent_pixels_are_laid_over_white(self, tmp_path: Path) -> None:
        image = Image.new("RGBA", (3, 1))
        for column, alpha in enumerate((0, 128, 255)):
            image.putpixel((column, 0), (200, 0, 100, alpha))
        pixels = read_image(saved(tmp_path / "a.png", image))
        assert pixels[:, 0, 0].tolist() == [255, 255, 255]
        # 200·128/255 + 255·127/255 = 227.4; 0 + 127 = 127; 100·128/255 + 127 = 177.2
        assert pixels[:, 0, 1].tolist() == [227, 127, 177]
        assert pixels[:, 0, 2].tolist() == [200, 0, 100]

    def test_grey_with_transparency(self, tmp_path: Path) -> None:
        assert pixel(saved(tmp_path / "a.png", Image.new("LA", (2, 2), (7, 0)))) == [255, 255, 255]

    def test_transparent_palette_entry(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 1), 0)
        image.putpalette([1, 2, 3, 4, 5, 6])
        image.putpixel((1, 0), 1)
        path = saved(tmp_path / "a.png", image, transparency=0)
        assert pixel(path, 0, 0) == [255, 255, 255]
        assert pixel(path, 0, 1) == [4, 5, 6]

    def test_first_frame_of_an_animation(self, tmp_path: Path) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
        assert pixel(path) == [255, 0, 0]

    def test_an_open_pillow_image(self) -> None:
        assert rgb_tensor(Image.new("L", (3, 2), 9), source="memory").tolist() == [[[9] * 3] * 2] * 3


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """By the words of EXIF: where row 0 and column 0 of the stored image belong."""
    height, width = stored.shape[:2]
    of = {
        1: lambda r, c: stored[r, c],
        2: lambda r, c: stored[r, width - 1 - c],
        3: lambda r, c: stored[height - 1 - r, width - 1 - c],
        4: lambda r, c: stored[height - 1 - r, c],
        5: lambda r, c: stored[c, r],
        6: lambda r, c: stored[height - 1 - c, r],
        7: lambda r, c: stored[height - 1 - c, width - 1 - r],
        8: lambda r, c: stored[c, width - 1 - r],
    }[orientation]
    rows, columns = (width, height) if orientation >= 5 else (height, width)
    return np.array([[of(row, column) for column in range(columns)] for row in range(rows)])


class TestRotation:
    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation(self, tmp_path: Path, orientation: int, name: str) -> None:
        stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / name, Image.fromarray(stored), exif=exif)
        expected = upright(stored, orientation)
        assert exif_orientation(path) == orientation
        assert np.array_equal(turned_upright(stored, orientation), expected)
        assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), expected)
        assert image_size(path) == expected.shape[:2]

    @pytest.mark.parametrize(("orientation", "degrees"), [(1, 0), (3, 180), (6, 90), (8, 270)])
    def test_degrees(self, tmp_path: Path, orientation: int, degrees: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert exif_rotation(saved(tmp_path / "a.jpg", Image.new("RGB", (8, 4)), exif=exif)) == degrees

    @pytest.mark.parametrize("orientation", [0, 9, 77])
    def test_nonsense_means_upright(self, tmp_path: Path, orientation: int) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 4)), exif=exif)
        assert image_size(path) == tuple(read_image(path).shape[1:]) == (4, 8)

    def test_damaged_exif_means_upright(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 4)), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert read_image(path).shape == (3, 4, 8)

    def test_mask_is_turned_only_by_its_own_tag(self, tmp_path: Path) -> None:
        ids = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        plain = saved(tmp_path / "plain.png", Image.fromarray(ids))
        tagged = saved(tmp_path / "tagged.png", Image.fromarray(ids), exif=exif)
        assert read_ids(plain).tolist() == [[1, 2, 3], [4, 5, 6]]
        assert read_ids(tagged).tolist() == [[4, 1], [5, 2], [6, 3]]


class TestBrokenFiles:
    def refusal(self, path: Path) -> str:
        messages = []
        for read in (read_image, read_ids):
            with pytest.raises(DataError) as caught:
                read(path)
            messages.append(str(caught.value))
        for message in messages:
            assert message.startswith(f"{path}: ")
            assert "\n" not in message
        return messages[0].removeprefix(f"{path}: ")

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path / "no.png") == "no such file or directory"

    def test_folder(self, tmp_path: Path) -> None:
        assert self.refusal(tmp_path) == "is a folder, not an image"

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").touch()
        assert self.refusal(tmp_path / "a.jpg") == "the file is empty"

    def test_text(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_text("hello, this is no picture")
        assert self.refusal(tmp_path / "a.jpg") == "not an image (25 bytes of something else)"

    def test_heic_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
        has_reader = find_spec("pillow_heif") is not None
        assert ("damaged" if has_reader else "pip install 'pixelwise[heif]'") in self.refusal(tmp_path / "a.heic")

    def test_jpeg_cut_off_in_the_middle(self, tmp_path: Path) -> None:
        content = noise_jpeg()
        half = len(content) // 2
        (tmp_path / "a.jpg").write_bytes(content[:half])
        with pytest.raises(DataError) as caught:
            read_image(tmp_path / "a.jpg")
        found = re.fullmatch(r".*: truncated JPEG, ([\d,]+) of ([\d,]+) bytes decodable", str(caught.value))
        assert found
        decodable, length = (int(text.replace(",", "")) for text in found.groups())
        assert length == half
        assert half - 1000 < decodable <= half

    def test_jpeg_cut_off_in_its_header(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(noise_jpeg()[:100])
        assert self.refusal(tmp_path / "a.jpg") == "truncated JPEG, the file ends after 100 bytes"

    def test_jpeg_whose_second_half_was_never_written(self, tmp_path: Path) -> None:
        content = noise_jpeg()
        half = len(content) // 2
        written = content[:half].rstrip(b"\0")
        path = tmp_path / "a.jpg"
        path.write_bytes(written + bytes(len(content) - len(written)))
        with Image.open(path) as image:
            image.load()  # Pillow is content, and gives grey
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert f"truncated JPEG, {len(written):,} of {len(content):,} bytes decodable" in str(caught.value)

    @pytest.mark.parametrize("tail", [bytes(5000), b"junk", b"more" * 100 + bytes(500)])
    def test_jpeg_with_something_behind_its_end(self, tmp_path: Path, tail: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(noise_jpeg() + tail)
        assert read_image(tmp_path / "a.jpg").shape == (3, 200, 200)

    def test_png_cut_off(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)
        content = saved(tmp_path / "whole.png", Image.fromarray(pixels)).read_bytes()
        (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
        assert self.refusal(tmp_path / "a.png") == f"truncated PNG, the file ends after {len(content) // 2:,} bytes"

    def test_png_with_a_damaged_chunk(self, tmp_path: Path) -> None:
        content = bytearray(png_bytes(2, 2, bits=8, colour_type=0, rows=b"\0\1\2\0\3\4"))
        content[content.index(b"IDAT") + 6] ^= 0xFF
        (tmp_path / "a.png").write_bytes(content)
        assert "PNG" in self.refusal(tmp_path / "a.png")

    def test_tiff_of_five_channels(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((8, 8, 5), dtype=np.uint8), photometric="minisblack", planarconfig="contig")
        assert self.refusal(path).startswith("a TIFF of 5 channels")

    def test_damaged_tiff(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0")
        assert "TIFF" in self.refusal(tmp_path / "a.tif")

    def test_image_without_pixels(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png_bytes(0, 3, bits=8, colour_type=0, rows=b""))
        self.refusal(tmp_path / "a.png")


class TestBombs:
    def huge(self, folder: Path) -> Path:
        path = folder / "huge.png"
        path.write_bytes(png_bytes(20_000, 15_000, bits=8, colour_type=0, rows=b"\0"))
        return path

    def test_refused_by_the_header_alone(self, tmp_path: Path) -> None:
        path = self.huge(tmp_path)
        for read in (read_image, read_ids, image_size):
            with pytest.raises(DataError, match=r"300\.0 megapixels \(15,000×20,000\), at most 200 are allowed"):
                read(path)

    def test_the_limit_is_the_callers(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.png", Image.new("L", (100, 100)))
        with pytest.raises(DataError, match=r"at most 0\.005 are allowed"):
            read_image(path, max_megapixels=0.005)
        assert read_image(path, max_megapixels=0.01).shape == (3, 100, 100)

    def test_pillows_own_limit_is_neither_met_nor_moved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12_345)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert image_size(self.huge(tmp_path), max_megapixels=1000) == (15_000, 20_000)
        assert Image.MAX_IMAGE_PIXELS == 12_345

    def test_pillows_limit_survives_many_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12_345)
        path = self.huge(tmp_path)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(50):
                    image_size(path, max_megapixels=1000)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert Image.MAX_IMAGE_PIXELS == 12_345


class TestIds:
    def test_palette_indices_not_colours(self, tmp_path: Path) -> None:
        image = Image.frombytes("P", (2, 2), bytes([0, 1, 15, 255]))
        image.putpalette([value for index in range(256) for value in (255 - index, 0, 0)])
        assert read_ids(saved(tmp_path / "a.png", image)).tolist() == [[0, 1], [15, 255]]

    def test_grey_values(self, tmp_path: Path) -> None:
        ids = np.array([[0, 11], [37, 255]], dtype=np.uint8)
        found = read_ids(saved(tmp_path / "a.png", Image.fromarray(ids)))
        assert found.dtype == np.uint8
        assert np.array_equal(found, ids)

    def test_black_and_white_are_one_and_zero(self, tmp_path: Path) -> None:
        image = Image.new("1", (2, 1))
        image.putpixel((1, 0), 1)
        assert read_ids(saved(tmp_path / "a.png", image)).tolist() == [[0, 1]]

    @pytest.mark.parametrize(
        ("bits", "rows", "expected"),
        [(2, bytes([0, 0b00_01_10_11]), [0, 1, 2, 3]), (4, bytes([0, 0x01, 0x7F]), [0, 1, 7, 15])],
    )
    def test_grey_of_few_bits_is_not_stretched(
        self, tmp_path: Path, bits: int, rows: bytes, expected: list[int]
    ) -> None:
        (tmp_path / "a.png").write_bytes(png_bytes(4, 1, bits=bits, colour_type=0, rows=rows))
        assert read_ids(tmp_path / "a.png").tolist() == [expected]

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    def test_sixteen_bits_are_kept(self, tmp_path: Path, name: str) -> None:
        ids = np.array([[0, 300], [40000, 65535]], dtype=np.uint16)
        assert read_ids(saved(tmp_path / name, Image.fromarray(ids))).tolist() == ids.tolist()

    def test_colours_are_refused_with_the_repair(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (2, 2), (128, 64, 128))
        path = saved(tmp_path / "a.png", image)
        with pytest.raises(ColourMaskError) as caught:
            read_ids(path)
        assert str(caught.value).startswith(f"{path}: a colour mask")
        assert "turn its colours into ids" in str(caught.value)

    def test_grey_stored_as_colours_is_recognised(self, tmp_path: Path) -> None:
        with pytest.raises(ColourMaskError, match="channels are all equal; store one of them"):
            read_ids(saved(tmp_path / "a.png", Image.new("RGB", (2, 2), (3, 3, 3))))

    def test_transparency_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ColourMaskError, match="RGBA"):
            read_ids(saved(tmp_path / "a.png", Image.new("RGBA", (2, 2), (3, 4, 5, 255))))
        with pytest.raises(ColourMaskError, match="transparency"):
            read_ids(saved(tmp_path / "b.png", Image.new("LA", (2, 2), (3, 255))))

    def test_jpeg_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="a JPEG mask"):
            read_ids(saved(tmp_path / "a.jpg", Image.new("L", (2, 2))))

    def test_floats_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="floating-point"):
            read_ids(saved(tmp_path / "a.tif", Image.new("F", (2, 2))))


class TestKindsOfFiles:
    @pytest.mark.parametrize(
        ("suffix", "format"),
        [
            *((".jfif", "JPEG"), (".jpe", "JPEG"), (".mpo", "MPO"), (".tga", "TGA"), (".apng", "PNG"), (".dib", "DIB")),
            *((".qoi", "QOI"), (".sgi", "SGI"), (".pcx", "PCX"), (".j2k", "JPEG2000"), (".pnm", "PPM")),
            (".avif", "AVIF"),
        ],
    )
    def test_what_pillow_reads_is_an_image_by_its_suffix(self, tmp_path: Path, suffix: str, format: str) -> None:
        path = saved(tmp_path / f"a{suffix}", Image.new("RGB", (24, 16), (200, 100, 50)), format=format)
        assert suffix in IMAGE_SUFFIXES
        assert np.abs(np.array(pixel(path)) - (200, 100, 50)).max() <= 3

    def test_text_with_the_suffix_of_a_format_without_signature(self, tmp_path: Path) -> None:
        for suffix in (".tga", ".pcx"):
            path = tmp_path / f"a{suffix}"
            path.write_text("hello, this is no picture")
            with pytest.raises(DataError, match="not an image"):
                read_image(path)

    def test_a_targa_file_under_another_suffix_is_refused(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.tga", Image.new("RGB", (4, 4)))
        with pytest.raises(DataError, match="not an image"):
            read_image(path.rename(tmp_path / "a.png"))

    def test_heic_is_read_where_pillow_heif_is_installed(self, tmp_path: Path) -> None:
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(tmp_path / "a.heic")
        assert ".heic" in IMAGE_SUFFIXES
        assert np.abs(np.array(pixel(tmp_path / "a.heic")) - (200, 100, 50)).max() <= 3

    @pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
    def test_frames_of_an_animation_are_counted(self, tmp_path: Path, suffix: str) -> None:
        frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 80, 160)]
        path = saved(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:])
        assert frame_count(path) == 3
        assert frame_count(saved(tmp_path / f"b{suffix}", frames[0])) == 1

    def test_frames_of_what_cannot_be_read_are_not_counted(self, tmp_path: Path) -> None:
        (tmp_path / "a.gif").write_bytes(b"GIF89a")
        assert frame_count(tmp_path / "a.gif") == 1
        assert frame_count(tmp_path / "gone.gif") == 1

    def test_previews_inside_a_jpeg_are_no_frames(self, tmp_path: Path) -> None:
        image = Image.new("RGB", (8, 8))
        path = saved(tmp_path / "a.mpo", image, save_all=True, append_images=[image])
        assert frame_count(path) == 2
        assert frame_count(path.rename(tmp_path / "a.jpg")) == 1


class TestPassedOver:
    def test_files_of_other_suffixes_are_counted(self) -> None:
        names = ["a.HEIC", "b.heic", "c.svg", "d", "e.png", ".hidden.svg", "f.SVG"]
        counts = passed_over((Path(name) for name in names), IMAGE_SUFFIXES - {".heic"})
        assert counts == {".heic": 2, ".svg": 2, "": 1}
        assert describe_passed_over(counts) == (
            "5 files skipped by their suffix: 2 .heic, 2 .svg, 1 without one; "
            "to read .heic: pip install 'pixelwise[heif]'"
        )

    def test_one_file_and_none(self) -> None:
        assert describe_passed_over({".ts": 1}) == "1 file skipped by its suffix: 1 .ts"
        assert describe_passed_over({}) == ""

    def test_many_suffixes_stay_one_short_line(self) -> None:
        text = describe_passed_over({f".{index:03}": 1 for index in range(300)})
        assert text.endswith("1 .005, 294 others")
        assert len(text) < 120
