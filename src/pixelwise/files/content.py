"""The kind of a file by its content, whatever its suffix, for messages."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

HEAD_SIZE = 1024
SHOWN = 40
LARGEST_HEADER = 100_000_000
"""Bytes of a safetensors header that its reader takes."""
TORCH_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""Beginning of files of old torch.save: a pickle of its magic number."""
LFS_BEGINNING = b"version https://git-lfs"

_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
)


class Kind(Enum):
    """The kinds of content."""

    SAFETENSORS = auto()
    TORCH = auto()
    """Of torch.save, of any version."""
    TORCHSCRIPT = auto()
    PICKLE = auto()
    """Of another program than torch.save."""
    TEXT = auto()
    OTHER = auto()


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes:
        kind: for the reader.
        words: for a message, such as `a web page, which begins with '<!DOCTYPE html>'`.
    """

    kind: Kind
    words: str


def content_of(path: Path) -> Content:
    """What the file is by its first bytes, and by its list of names if it is a zip archive. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD_SIZE)
    if not head:
        return Content(Kind.OTHER, "an empty file")
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head.startswith(TORCH_MAGIC):
        return Content(Kind.TORCH, "a file of torch.save")
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LARGEST_HEADER:
        return Content(Kind.SAFETENSORS, "a safetensors file")
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:
        return Content(Kind.PICKLE, "a pickle that torch.save did not write")
    for signature, words in _SIGNATURES:
        if head.startswith(signature):
            return Content(Kind.OTHER, words)
    if head[257:262] == b"ustar":
        return Content(Kind.OTHER, "a tar archive; unpack it")
    return _text(head) or Content(
        Kind.OTHER, f"a file of unknown kind, which begins with the bytes {head[:8].hex(' ')}"
    )


def _archive(path: Path) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError):
        size = path.stat().st_size
        return Content(
            Kind.OTHER,
            f"a file of torch.save or another zip archive that is cut off ({size:,} bytes); copy it again",
        )
    bare = {name.rsplit("/", 1)[-1] for name in names}
    if "constants.pkl" in bare:
        return Content(Kind.TORCHSCRIPT, "a TorchScript file")
    if "data.pkl" in bare:
        return Content(Kind.TORCH, "a file of torch.save")
    if names and all(name.endswith(".npy") for name in names):
        return Content(Kind.OTHER, "an archive of NumPy arrays")
    first = ", ".join(_printable(name) for name in names[:3]) or "nothing"
    return Content(Kind.OTHER, f"a zip archive of other files ({first}); unpack it")


def _text(head: bytes) -> Content | None:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head.decode("utf-16", errors="ignore")
    else:
        # a character may be cut in two at the end
        text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
        if any("\udc80" <= letter <= "\udcff" for letter in text[:-3]) or "\0" in text:
            return None
    text = text.strip()
    if head.startswith(LFS_BEGINNING):
        return Content(Kind.OTHER, "a Git LFS pointer and not the file itself; fetch that with `git lfs pull`")
    beginning = f"which begins with '{_printable(text)}'"
    if text.lower().startswith(("<!doctype html", "<html")):
        return Content(Kind.OTHER, f"a web page, {beginning}; download the file itself")
    if text.startswith("<"):
        return Content(Kind.OTHER, f"a page of a server, {beginning}; download the file itself")
    return Content(Kind.TEXT, f"a text file, {beginning}")


def _printable(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:SHOWN]).strip()
    return shown + ("…" if len(text) > SHOWN else "")
