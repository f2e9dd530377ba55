"""Reading images and id masks from files: every kind of file that Pillow knows, or one line that says why not.

Decisions, the same everywhere in the program:

- EXIF rotation is applied to images, and to a mask only if the mask's own file carries the tag. A PNG's tag counts
  where it stands before the pixels.
- Transparent pixels are laid over white, as viewers do; the colours hidden below full transparency mean nothing.
- Values of more than 8 bits, grey or colours, integers or floating-point numbers, become 8 bits by the depth that they
  use: the smallest of 8, 10, 12, 14, 16 … bits that holds the largest of the file. So 12-bit values in a 16-bit file
  are not black. Floating-point values up to 1 are shares of white. Where some are negative, the lowest becomes black
  and the highest white.
- Of an animation or a multi-page file the first frame is taken; `frame_count` tells of the others.
- HEIC and HEIF are read where the package pillow-heif is installed (`pixelwise[heif]`).
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError, features
from torch import Tensor

from pixelwise.errors import DataError

HEIF_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
"""Suffixes of the files that pillow-heif reads."""

INSTALL_HEIF = "pip install 'pixelwise[heif]'"
"""Command that installs pillow-heif."""

_UNSIGNED = {".tga": "TGA", ".icb": "TGA", ".vda": "TGA", ".vst": "TGA", ".pcx": "PCX"}
"""Formats that any file may seem to have: tried for these suffixes alone."""

IMAGE_SUFFIXES = (
    frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff"))
    | frozenset((".webp", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"))
    | frozenset((".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".qoi", ".sgi", ".ras"))
    | frozenset(_UNSIGNED)
    | (HEIF_SUFFIXES if find_spec("pillow_heif") else frozenset())
)
"""Suffixes, in lower case, of the files that count as images when a folder is listed."""

LISTED_SUFFIXES = 6
"""Number of suffixes of skipped files that are named."""

MAX_MEGAPIXELS = 200.0
"""Images with more pixels than this are refused before they are decoded, unless a caller allows more."""

SLAB_PIXELS = 4 * 2**20
"""Pixels that are converted to RGB at once."""

_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "DIB",
    "GIF",
    "TIFF",
    "WEBP",
    "AVIF",
    "JPEG2000",
    "PPM",
    "QOI",
    "SGI",
    "SUN",
)  # none that runs another program (EPS)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image of that EXIF orientation upright; from 5 on height and width change places."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WEBP"),
)

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


class ColourMaskError(DataError):
    """A file has colours or transparency; ids are expected."""


_PILLOW_LIMIT = threading.Lock()
if hasattr(os, "register_at_fork"):  # a worker forked while another thread holds the lock would wait for ever
    os.register_at_fork(
        before=_PILLOW_LIMIT.acquire,
        after_in_parent=_PILLOW_LIMIT.release,
        after_in_child=_PILLOW_LIMIT.release,
    )


def read_image(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8[Tensor, "3 H W"]:
    """Read an image file as RGB, upright by its EXIF tag.

    Raises:
        DataError: no file, an empty, truncated or damaged one, not an image, one of more than `max_megapixels`
            millions of pixels, or one whose channels do not make a colour. Names the file.
    """
    path = Path(path)
    with _opened(path, max_megapixels) as image:
        orientation, is_deep = _orientation(image), _has_deep_colours(image)
        _load(image, path)
        with _decoding(image, path):
            pixels = rgb_tensor(_turned(image, orientation), source=str(path))
    if is_deep and int(pixels.max()) < 64:  # Pillow leaves the upper 8 of 16 bits
        deep = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is not None and deep.dtype == np.uint16 and deep.shape[2:] == (3,):
            upright = turned_upright(_eight_bits(deep[:, :, ::-1]), orientation)
            return torch.from_numpy(np.ascontiguousarray(upright.transpose(2, 0, 1)))
    return pixels


def read_ids(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Read a mask file as integers, [H, W] of u8, u16 or i32.

    Of a palette file the indices are taken, of a grey one the values as stored, at every bit depth.

    Raises:
        DataError: as `read_image`; also a mask of colours, one with transparency, or one stored as JPEG.
    """
    path = Path(path)
    with _opened(path, max_megapixels) as image:
        _refuse_jpeg(image, path)
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            _load(image, path)
            with _decoding(image, path):
                raise ColourMaskError(f"{path}: {_why_no_ids(image)}")
        orientation, spacing = _orientation(image), _grey_spacing(path, image)
        _load(image, path)
        with _decoding(image, path):
            ids = np.array(_turned(image, orientation))
    if ids.dtype == np.bool_:
        return ids.astype(np.uint8)
    return ids // ids.dtype.type(spacing)


def read_colours(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8[np.ndarray, "H W 3"]:
    """Read a mask file whose colours are classes, as RGB.

    Raises:
        DataError: as `read_image`; also a JPEG, whose compression changes colours.
    """
    path = Path(path)
    with _opened(path, max_megapixels) as image:
        _refuse_jpeg(image, path)
    return read_image(path, max_megapixels=max_megapixels).permute(1, 2, 0).contiguous().numpy()


def read_channels(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8[np.ndarray, "H W 3"]:
    """Read a file whose red, green and blue are numbers, as stored; transparency is skipped.

    Raises:
        DataError: as `read_image`; also a JPEG, and a file of one channel.
    """
    path = Path(path)
    with _opened(path, max_megapixels) as image:
        _refuse_jpeg(image, path)
        if image.mode not in ("RGB", "RGBA", "P"):
            raise DataError(f"{path}: mode {image.mode}; expected numbers in the three channels of an RGB file")
        orientation = _orientation(image)
        _load(image, path)
        with _decoding(image, path):
            return np.array(_turned(image.convert("RGB"), orientation))


def image_size(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """Height and width of the upright image, from the file's header alone. Raises DataError as `read_image`."""
    with _opened(Path(path), max_megapixels) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def frame_count(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> int:
    """Number of frames or pages of an image file, of which the first is read; 1 if unknown.

    The further pictures of a .jpg, previews and the like, are none.
    """
    path = Path(path)
    with suppress(DataError), _opened(path, max_megapixels) as image:
        if image.format == "MPO" and path.suffix.lower() != ".mpo":
            return 1
        with suppress(Exception):  # what a damaged file makes Pillow raise
            return int(getattr(image, "n_frames", 1))
    return 1


def passed_over(paths: Iterable[Path], suffixes: Set[str] = IMAGE_SUFFIXES) -> Counter[str]:
    """Number of files by suffix, in lower case, that is not in `suffixes`; without hidden ones."""
    shown = (path for path in paths if not path.name.startswith("."))
    return Counter(suffix for path in shown if (suffix := path.suffix.lower()) not in suffixes)


def describe_passed_over(counts: Mapping[str, int]) -> str:
    """`5 files skipped by their suffix: 4 .txt, 1 .json`, and what to install where some are images after all."""
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (item[0] not in HEIF_SUFFIXES, -item[1], item[0]))
    named = [f"{count:,} {suffix or 'without one'}" for suffix, count in ordered[:LISTED_SUFFIXES]]
    if others := sum(count for _, count in ordered[LISTED_SUFFIXES:]):
        named.append(f"{others:,} others")
    total = sum(counts.values())
    subject = "1 file skipped by its suffix" if total == 1 else f"{total:,} files skipped by their suffix"
    heif = sorted(HEIF_SUFFIXES & counts.keys())
    repair = f"; to read {' and '.join(heif)}: {INSTALL_HEIF}" if heif else ""
    return f"{subject}: {', '.join(named)}{repair}"


def exif_rotation(path: Path | str) -> int:
    """Degrees clockwise by which the EXIF tag turns the stored image: 0, 90, 180 or 270; mirroring is not told."""
    return {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(exif_orientation(path), 0)


def exif_orientation(path: Path | str) -> int:
    """The EXIF tag, 1-8; 1 is upright, from 5 on height and width change places. Raises DataError as `read_image`."""
    with _opened(Path(path), MAX_MEGAPIXELS) as image:
        return _orientation_tag(image)


def turned_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array [H, W, …] of the stored image's size, turned and mirrored as the EXIF orientation turns the image."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def rgb_tensor(image: Image.Image, *, source: str) -> UInt8[Tensor, "3 H W"]:
    """Any Pillow image as RGB; it is not rotated. Raises DataError, beginning with `source`, for impossible values."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return _planes(image)
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise DataError(f"{source}: {int((~np.isfinite(values)).sum()):,} pixels are not a finite number")
    return torch.from_numpy(_eight_bits(values)).expand(3, -1, -1).contiguous()


@contextmanager
def _opened(path: Path, max_megapixels: float) -> Iterator[Image.Image]:
    """The image of which only the header is read; closes the file at the end."""
    try:
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if path.is_dir():
        raise DataError(f"{path}: is a folder, not an image")
    if not length:
        raise DataError(f"{path}: the file is empty")
    image = _open_header(path, length)
    with image:
        width, height = image.size
        if width < 1 or height < 1:
            raise DataError(f"{path}: the image is {height}×{width}, it has no pixels")
        if width * height > max_megapixels * 1e6:
            raise DataError(
                f"{path}: {width * height / 1e6:,.1f} megapixels ({height:,}×{width:,}), "
                f"at most {max_megapixels:,g} are allowed; raise --max-megapixels if the file is to be trusted"
            )
        yield image


def _open_header(path: Path, length: int) -> Image.Image:
    unsigned = _UNSIGNED.get(path.suffix.lower())
    with _PILLOW_LIMIT:  # our own limit replaces Pillow's, which is one for the whole process and lower than ours
        saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=(*_formats(), *([unsigned] if unsigned else ())))
        except UnidentifiedImageError:
            raise DataError(f"{path}: {_why_unidentified(path, length)}") from None
        except PermissionError:
            raise DataError(f"{path}: permission denied; it exists; make it readable") from None
        except Exception as error:  # Pillow's readers let all sorts of exceptions out of a broken header
            if "truncated" in str(error).lower():
                raise DataError(f"{path}: truncated {_signature(path)}, the file ends after {length:,} bytes") from None
            raise DataError(f"{path}: {_signature(path)} with a broken header ({error})") from None
        finally:
            Image.MAX_IMAGE_PIXELS = saved


@cache
def _formats() -> tuple[str, ...]:
    """The formats that are tried for any file, those of pillow-heif with them where it is installed."""
    try:
        from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]
    except ImportError:
        return _FORMATS
    register_heif_opener()
    return (*_FORMATS, "HEIF")


def _load(image: Image.Image, path: Path) -> None:
    """Decode the pixels."""
    with _decoding(image, path):
        image.load()
    if _kind(image) == "JPEG":
        _require_written_to_the_end(path, path.stat().st_size)


@contextmanager
def _decoding(image: Image.Image, path: Path) -> Iterator[None]:
    """Turn whatever damaged content makes Pillow raise (OSError, AssertionError, struct.error …) into a DataError."""
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        width, height = image.size
        raise DataError(f"{path}: {height:,}×{width:,} pixels need more memory than there is; resize it") from None
    except Exception as error:
        kind, length = _kind(image), path.stat().st_size
        text = " ".join(str(error).split())
        if "bytes not processed" in text:
            left = int(text.partition("(")[2].split()[0])
            raise DataError(f"{path}: truncated {kind}, {length - left:,} of {length:,} bytes decodable") from None
        if "truncated" in text.lower():
            raise DataError(f"{path}: truncated {kind}, the file ends after {length:,} bytes") from None
        raise DataError(f"{path}: damaged {kind}{f' ({text})' if text else ''}; save it anew") from None


def _refuse_jpeg(image: Image.Image, path: Path) -> None:
    if _kind(image) == "JPEG":
        raise DataError(f"{path}: a JPEG mask: its compression changes ids; store masks as PNG")


def _kind(image: Image.Image) -> str:
    """The format by its common name; a JPEG that holds several pictures is a JPEG all the same."""
    return "JPEG" if image.format == "MPO" else image.format or "image"


def _require_written_to_the_end(path: Path, length: int) -> None:
    """Refuse a JPEG whose end is nothing but zeros: space that an interrupted copy reserved and never filled.

    The decoder takes those zeros for grey pixels and does not complain.
    """
    with path.open("rb") as file:
        file.seek(max(0, length - 64))
        if file.read().strip(b"\0"):
            return
    content = path.read_bytes().rstrip(b"\0")
    start_of_scan, end_of_image = content.rfind(b"\xff\xda"), content.rfind(b"\xff\xd9")
    if end_of_image < start_of_scan:
        raise DataError(f"{path}: truncated JPEG, {len(content):,} of {length:,} bytes decodable, the rest is zeros")


def _orientation(image: Image.Image) -> int:
    """What is left to turn, as EXIF orientation 1-8: Pillow gives a TIFF upright."""
    return 1 if image.format == "TIFF" else _orientation_tag(image)


def _orientation_tag(image: Image.Image) -> int:
    """EXIF orientation 1-8, without decoding pixels; 1 where there is none or the tag is unreadable."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # getexif would decode the whole file to look behind the pixels
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _planes(image: Image.Image) -> UInt8[Tensor, "3 H W"]:
    """The colours, some rows at a time: Pillow's copies of a whole large image would be several."""
    width, height = image.size
    planes = torch.empty(3, height, width, dtype=torch.uint8)
    rows = max(1, SLAB_PIXELS // width)
    for start in range(0, height, rows):
        slab = image if rows >= height else image.crop((0, start, width, min(start + rows, height)))
        for channel, band in enumerate(_opaque(slab).split()):
            planes[channel, start : start + rows] = torch.from_numpy(np.array(band))
    return planes


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether the file has colours of 16 bits, of which Pillow gives the upper 8."""
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Finite numbers as u8, by the depth that they use; see the top of the module."""
    low, high = float(values.min()), float(values.max())
    if low < 0:
        scale = 255 / (high - low) if high > low else 0.0
    elif high <= 1 and values.dtype.kind == "f":
        low, scale = 0.0, 255.0
    else:
        bits = max(8, math.ceil(math.log2(math.floor(high) + 1)))
        low, scale = 0.0, 255 / (2 ** (bits + bits % 2) - 1)
    return np.rint((values - low) * scale).clip(0, 255).astype(np.uint8)


def _grey_spacing(path: Path, image: Image.Image) -> int:
    """Pillow spreads grey PNGs of 2 and 4 bits over 0-255; this is the factor, 1 for every other file."""
    if image.format != "PNG" or image.mode != "L":
        return 1
    with path.open("rb") as file:
        bits = file.read(26)[24]
    return {2: 85, 4: 17}.get(bits, 1)


def _why_no_ids(image: Image.Image) -> str:
    if image.mode in ("LA", "PA", "La"):
        return f"a mask with transparency (mode {image.mode}); store the ids alone, as greyscale or palette PNG"
    if image.mode == "F":
        return "a mask of floating-point numbers; store integer ids, as greyscale or palette PNG"
    pixels = np.asarray(image.convert("RGB"))
    if (pixels == pixels[:, :, :1]).all():
        return f"a colour mask (mode {image.mode}) whose channels are all equal; store one of them, as greyscale PNG"
    return (
        f"a colour mask (mode {image.mode}); expected ids; turn its colours into ids: "
        "pixelwise data convert 'masks:…?palette=labels' masks:…"
    )


def _signature(path: Path) -> str:
    with path.open("rb") as file:
        beginning = file.read(16)
    return next((name for signature, name in _SIGNATURES if beginning.startswith(signature)), "file")


def _why_unidentified(path: Path, length: int) -> str:
    kind = _signature(path)
    with path.open("rb") as file:
        beginning = file.read(16)
    if beginning[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        return (
            "an AVIF image, and this Pillow was built without AVIF; install Pillow from its wheel: pip install Pillow"
        )
    if beginning[4:8] == b"ftyp" and beginning[8:12] in _HEIF_BRANDS:
        return "damaged HEIC" if "HEIF" in _formats() else f"a HEIC image; to read it: {INSTALL_HEIF}"
    if kind == "TIFF":
        return _why_unusable_tiff(path)
    if kind == "file":
        return f"not an image ({length:,} bytes of something else)"
    return f"truncated or damaged {kind}, {length:,} bytes"


def _why_unusable_tiff(path: Path) -> str:
    """Pillow does not say what it cannot read; the TIFF's own tags do."""
    try:
        with path.open("rb") as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        channels = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    except Exception:  # whatever a damaged directory makes Pillow raise
        return "a damaged TIFF"
    if channels > 4:
        return f"a TIFF of {channels} channels; 1 to 4 (grey, colour, transparency) can be used: extract three"
    return f"a TIFF of {channels} channels with {'/'.join(str(value) for value in bits)} bits, which Pillow cannot read"
